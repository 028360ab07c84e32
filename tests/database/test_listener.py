"""Called at once when there is new work in a database; and where LISTEN cannot be had, quietly not."""

from __future__ import annotations

import asyncio
import logging
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock
from urllib.parse import quote

import pytest

from siorg_operator.database.databases import Databases
from siorg_queue import Connection, connect
from support import pgbouncer as bouncer
from support.database_proxy import DatabaseProxy
from support.postgres import Postgres
from support.queue import insert
from support.queue_databases import QUICK, Proxied, reading, run, sessions, unreadable, until


def listening(connection: Connection) -> list[int]:
    return [session["pid"] for session in sessions(connection) if "LISTEN" in session["query"]]


def test_everybody_who_watches_is_called_when_there_is_work_and_nobody_else_also_where_a_call_fails(
    connection: Connection, database_url: str, own_url: str
) -> None:
    async def scenario(databases: Databases) -> None:
        first, second, elsewhere = Mock(side_effect=RuntimeError("a fault")), Mock(), Mock()
        watch = databases.watch(database_url, first)
        databases.watch(own_url, elsewhere)
        await until(lambda: first.call_count and elsewhere.call_count)  # what was missed before, nobody knows
        databases.watch(database_url, second)
        await until(lambda: second.call_count)
        counts = first.call_count, second.call_count, elsewhere.call_count
        insert(connection, siorg_code=1)
        await until(lambda: (first.call_count, second.call_count) == (counts[0] + 1, counts[1] + 1))
        watch()
        watch()
        insert(connection, siorg_code=2)
        await until(lambda: second.call_count == counts[1] + 2)
        assert (first.call_count, elsewhere.call_count) == (counts[0] + 1, counts[2])
        assert len(listening(connection)) == 1

    run(scenario)


def test_listening_ends_with_the_last_who_watches(connection: Connection, database_url: str) -> None:
    async def scenario(databases: Databases) -> None:
        calls = Mock()
        watches = [databases.watch(database_url, calls) for _ in range(3)]
        await until(lambda: listening(connection))
        for watch in watches:
            watch()
        await until(lambda: not sessions(connection))
        calls.reset_mock()
        again = databases.watch(database_url, calls)
        await until(lambda: calls.call_count)
        again()

    run(scenario)


def test_at_rest_listening_asks_nothing(proxied: Proxied) -> None:
    async def scenario(databases: Databases, proxy: DatabaseProxy, url: str) -> None:
        calls = Mock()
        databases.watch(url, calls)
        await until(lambda: calls.call_count)
        asked = len(proxy.asked)
        await asyncio.sleep(1)
        assert len(proxy.asked) == asked

    proxied(scenario)


def test_listening_comes_back_after_a_restart_and_calls_for_what_it_missed(
    own_postgres: Postgres, own_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def scenario(databases: Databases) -> None:
        calls = Mock()
        databases.watch(own_url, calls)
        await until(lambda: calls.call_count == 1)
        await asyncio.to_thread(own_postgres.stop, "immediate")
        await until(lambda: "LISTEN unavailable" in caplog.text)
        await asyncio.sleep(0.5)  # several attempts, told of once
        await asyncio.to_thread(own_postgres.start)
        with connect(own_url, application_name="test") as connection:
            await until(lambda: listening(connection))
            before = calls.call_count
            insert(connection, siorg_code=1)
            await until(lambda: calls.call_count > before)

    run(scenario, QUICK)
    messages = [record.getMessage() for record in caplog.records if record.name == "siorg_operator.database.listener"]
    assert messages == ["LISTEN unavailable; polling", "LISTEN available again"]


def test_a_listener_that_an_administrator_ends_comes_back(connection: Connection, database_url: str) -> None:
    async def scenario(databases: Databases) -> None:
        calls = Mock()
        databases.watch(database_url, calls)
        await until(lambda: listening(connection))
        (before,) = listening(connection)
        connection.execute("SELECT pg_terminate_backend(%s)", (before,))
        await until(lambda: listening(connection) not in ([], [before]))
        await until(lambda: calls.call_count >= 2)

    run(scenario, QUICK)


@pytest.fixture
def standby_url(own_postgres: Postgres, own_url: str) -> Iterator[str]:
    """The same database on a hot standby."""
    server = own_postgres._server

    def program(name: str, *arguments: str) -> None:
        command = [str(server.bin_path / name), *arguments]
        if server.system_user:
            command = ["su", "-s", "/bin/sh", server.system_user, "-c", shlex.join(command)]
        done = subprocess.run(command, check=False, capture_output=True, cwd="/", text=True, timeout=60)
        assert done.returncode == 0, done.stderr

    # Not pytest's folder, which every session that starts makes its owner's alone again.
    with tempfile.TemporaryDirectory(prefix="siorg-standby-") as name:
        folder = Path(name)
        data, sockets = folder / "data", folder / "sockets"
        folder.chmod(0o755)
        data.mkdir(mode=0o700)
        sockets.mkdir()
        if server.system_user:
            subprocess.run(["chown", server.system_user, str(data), str(sockets)], check=True)
        program("pg_basebackup", "-h", str(own_postgres.socket_folder), "-U", "postgres", "-D", str(data), "-R", "-c", "fast")
        control = ("-D", str(data), "-w", "-l", str(sockets / "log"))
        program("pg_ctl", *control, "-o", f"-c listen_addresses= -k {sockets}", "start")
        try:
            yield f"{own_url.partition('?')[0]}?host={quote(str(sockets), safe='')}"
        finally:
            program("pg_ctl", *control, "-m", "immediate", "stop")


def test_a_hot_standby_is_read_and_said_once_not_to_be_listened_to(standby_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def scenario(databases: Databases) -> None:
        calls = Mock()
        databases.watch(standby_url, calls)
        await until(lambda: "LISTEN unavailable" in caplog.text)
        reading(await databases.read(standby_url))
        await asyncio.sleep(0.6)  # it is tried again, quietly
        assert calls.call_count == 0

    run(scenario, QUICK)
    assert caplog.text.count("LISTEN unavailable") == 1


@pytest.mark.pgbouncer
@pytest.mark.skipif(bouncer.program() is None, reason="the program pgbouncer is not installed")
def test_reads_through_pgbouncer_in_transaction_mode(
    own_postgres: Postgres, own_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    name = own_url.rpartition("@/")[2].partition("?")[0]

    async def scenario(databases: Databases, url: str) -> None:
        databases.watch(url, lambda: None)
        with connect(own_url, application_name="test") as connection:
            for number in range(1, 6):
                insert(connection, siorg_code=number)
                found = await asyncio.gather(*(databases.read(url) for _ in range(50)))
                assert {reading(one).claimable for one in found} == {number}
                # Whoever connects to the pooler takes no connection of the server.
                assert {(reading(one).pooled, reading(one).connection_limits) for one in found} == {(True, ())}
            connection.execute("ALTER TABLE siorg_request_pace RENAME TO elsewhere")
            assert unreadable(await databases.read(url)).reason == "NotMigrated"
            connection.execute("ALTER TABLE elsewhere RENAME TO siorg_request_pace")
            reading(await databases.read(url))
        await until(lambda: "connection pooler" in caplog.text)

    with bouncer.pgbouncer(own_postgres, pool_size=1) as port:
        run(lambda databases: scenario(databases, f"postgresql://postgres@127.0.0.1:{port}/{name}"))
    assert caplog.text.count("connection pooler") == 1
