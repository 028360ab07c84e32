"""Reading the databases of many resources: fresh, few queries, bounded whatever happens, and told at once of new work."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import pytest

from siorg_operator.database.reader import APPLICATION_NAME, Backlogs, Limits
from siorg_operator.decide.state import Reading, Unreadable
from siorg_queue import Connection, connect
from support import pgbouncer as bouncer
from support.database_proxy import DatabaseProxy
from support.fleet import eventually
from support.postgres import Postgres, embedded_postgres
from support.queue import insert

T = TypeVar("T")

PASSWORD = "p@ss/W0rd:Zx81#%"
QUICK = Limits(connect=0.5, read=0.5, first_pause=0.05, longest_pause=0.2, refused_pause=0.2)


def run(scenario: Callable[[Backlogs], Awaitable[T]], limits: Limits | None = None) -> T:
    async def main() -> T:
        backlogs = Backlogs(limits)
        try:
            async with asyncio.timeout(60):
                return await scenario(backlogs)
        finally:
            await backlogs.close()

    return asyncio.run(main())


def read(url: str, limits: Limits | None = None) -> Reading | Unreadable:
    return run(lambda backlogs: backlogs.read(url), limits)


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - of the database, or of what another task does
            await asyncio.sleep(0.005)


def reading(found: Reading | Unreadable) -> Reading:
    assert isinstance(found, Reading), found
    return found


def trouble(found: Reading | Unreadable) -> Unreadable:
    assert isinstance(found, Unreadable), found
    return found


def ours(connection: Connection) -> list[dict[str, Any]]:
    """The operator's sessions in this database."""
    return connection.execute(
        "SELECT pid, query FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s",
        (APPLICATION_NAME,),
    ).fetchall()


def listening(connection: Connection) -> list[int]:
    return [session["pid"] for session in ours(connection) if "LISTEN" in session["query"]]


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[Postgres]:
    """A server to stop, start and forbid things on."""
    with embedded_postgres() as server:
        yield server


@pytest.fixture
def own_url(own_postgres: Postgres) -> Iterator[str]:
    url = own_postgres.database()
    yield url
    own_postgres.drop(url)


# -- what is read -----------------------------------------------------------------------------------------------------


def test_reads_the_queue_and_what_limits_its_use(connection: Connection, database_url: str) -> None:
    insert(connection, siorg_code=1, scheduled_for="now() - interval '1 minute'")
    insert(connection, siorg_code=2, scheduled_for="now() + interval '1 hour'")
    insert(connection, siorg_code=3, status="'PROCESSING'", lease_expires_at="now() - interval '3 minutes'")
    insert(connection, siorg_code=4, status="'FAILED'")
    insert(connection, siorg_code=5, status="'CONFLICT'")
    connection.execute("UPDATE siorg_request_pace SET paused_until = now() + interval '30 seconds'")

    found = reading(read(f" {database_url}\n"))  # as a Secret made with echo has it

    assert found.oldest_due_seconds is not None
    assert 180 <= found.oldest_due_seconds < 190
    assert 25 < found.siorg_paused_seconds <= 30
    assert found.max_connections is not None
    assert 0 < found.max_connections < 100
    assert found.other_connections >= 2  # this test, and the reader itself
    assert found == Reading(
        claimable=2,
        due=1,
        scheduled=1,
        processing=1,
        failed=1,
        conflict=1,
        oldest_due_seconds=found.oldest_due_seconds,
        next_due_seconds=0.0,
        sync_enabled=True,
        siorg_paused_seconds=found.siorg_paused_seconds,
        max_connections=found.max_connections,
        other_connections=found.other_connections,
    )


@pytest.mark.parametrize(
    ("value", "enabled"), [("true", True), ('"no"', False), ("0", False), ("null", True), ('"perhaps"', False), ("[]", False)]
)
def test_the_switch_is_taken_as_jobs_take_it(connection: Connection, database_url: str, value: str, enabled: bool) -> None:
    connection.execute("UPDATE system_settings SET value = %s::jsonb WHERE key = 'siorg.sync_enabled'", (value,))
    assert reading(read(database_url)).sync_enabled is enabled


def test_a_switch_that_cannot_be_read_is_told_once(
    connection: Connection, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    connection.execute("""UPDATE system_settings SET value = '"perchance"' WHERE key = 'siorg.sync_enabled'""")

    async def twice(backlogs: Backlogs) -> None:
        await backlogs.read(database_url)
        await backlogs.read(database_url)

    run(twice)
    (warning,) = [record.getMessage() for record in caplog.records if "perchance" in record.getMessage()]
    for word in ("siorg.sync_enabled", "true, false", "Taken as false"):
        assert word in warning


# -- few queries, none of them old ------------------------------------------------------------------------------------


def test_500_readers_at_one_moment_are_two_queries_at_most(postgres: Postgres, database_url: str, tmp_path: Path) -> None:
    async def scenario(backlogs: Backlogs) -> None:
        async with DatabaseProxy(postgres.socket_folder, tmp_path) as proxy:
            url = proxy.url(database_url)
            for rounds in (1, 2):
                before = proxy.readings()
                found = await asyncio.gather(*(backlogs.read(url) for _ in range(500)))
                assert all(isinstance(one, Reading) for one in found)
                assert proxy.readings() - before <= 2, rounds
            await backlogs.close()

    run(scenario)


def test_who_asks_while_a_query_is_on_its_way_gets_the_next_ones_answer(
    postgres: Postgres, connection: Connection, database_url: str, tmp_path: Path
) -> None:
    async def scenario(backlogs: Backlogs) -> None:
        async with DatabaseProxy(postgres.socket_folder, tmp_path) as proxy:
            url = proxy.url(database_url)
            await backlogs.read(url)
            before = proxy.readings()
            proxy.hold()
            early = asyncio.create_task(backlogs.read(url))
            await until(lambda: proxy.readings() == before + 1)
            insert(connection, siorg_code=1)
            late = [asyncio.create_task(backlogs.read(url)) for _ in range(50)]
            await asyncio.sleep(0)
            proxy.release()
            assert {reading(found).claimable for found in await asyncio.gather(*late)} == {1}
            assert early.done()
            assert proxy.readings() == before + 2
            await backlogs.close()

    run(scenario)


def test_one_who_gives_up_takes_nothing_from_the_others(postgres: Postgres, database_url: str, tmp_path: Path) -> None:
    async def scenario(backlogs: Backlogs) -> None:
        async with DatabaseProxy(postgres.socket_folder, tmp_path) as proxy:
            url = proxy.url(database_url)
            proxy.hold()
            impatient, patient = asyncio.create_task(backlogs.read(url)), asyncio.create_task(backlogs.read(url))
            await asyncio.sleep(0)
            impatient.cancel()
            await asyncio.wait({impatient})
            proxy.release()
            reading(await patient)
            await backlogs.close()

    run(scenario)


def test_a_database_that_hangs_keeps_no_other_waiting(postgres: Postgres, database_url: str, tmp_path: Path) -> None:
    async def scenario(backlogs: Backlogs) -> None:
        async with DatabaseProxy(postgres.socket_folder, tmp_path) as proxy:
            proxy.hold()
            hanging = asyncio.create_task(backlogs.read(proxy.url(database_url)))
            await until(lambda: proxy.asked)
            started = time.monotonic()
            for _ in range(5):
                reading(await backlogs.read(database_url))
            assert time.monotonic() - started < 2
            assert not hanging.done()
            await backlogs.close()  # at once, although it hangs
            assert trouble(await hanging).reason == "DatabaseUnavailable"
            assert time.monotonic() - started < 3

    run(scenario)


def test_a_connection_that_nobody_uses_is_closed(connection: Connection, database_url: str) -> None:
    async def scenario(backlogs: Backlogs) -> None:
        reading(await backlogs.read(database_url))
        assert len(ours(connection)) == 1
        await until(lambda: not ours(connection))
        reading(await backlogs.read(database_url))

    run(scenario, replace(QUICK, idle=0.2))


def test_nothing_is_left_behind(connection: Connection, database_url: str) -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - no one of them is looked at

    async def scenario(backlogs: Backlogs) -> None:
        with socket.socket() as mute:
            mute.bind(("127.0.0.1", 0))
            mute.listen()
            urls = [database_url, "postgresql://127.0.0.1:9/d", f"postgresql://127.0.0.1:{mute.getsockname()[1]}/d"]
            for url in urls:
                backlogs.watch(url, lambda: None)
                await backlogs.read(url)

    run(scenario, QUICK)  # what is made once and kept, is there now
    gc.collect()
    before = open_files()
    gc.disable()  # a socket that only the collector closes keeps the server waiting till then
    try:
        run(scenario, QUICK)
        assert open_files() == before
    finally:
        gc.enable()
    eventually(lambda: not ours(connection))


def test_after_the_end_nothing_is_read_and_nobody_called(connection: Connection, database_url: str) -> None:
    async def scenario(backlogs: Backlogs) -> None:
        await backlogs.close()
        assert trouble(await backlogs.read(database_url)).reason == "DatabaseUnavailable"
        backlogs.watch(database_url, lambda: None).close()
        await backlogs.close()

    run(scenario)
    assert not ours(connection)


# -- trouble: bounded, and told ---------------------------------------------------------------------------------------


def test_a_server_that_was_restarted_is_read_at_the_first_attempt(own_postgres: Postgres, own_url: str) -> None:
    async def scenario(backlogs: Backlogs) -> None:
        reading(await backlogs.read(own_url))
        await asyncio.to_thread(own_postgres.restart)
        reading(await backlogs.read(own_url))
        await asyncio.to_thread(own_postgres.restart, "immediate")  # a crash
        reading(await backlogs.read(own_url))

    run(scenario)


def test_a_server_that_is_down_is_told_and_read_again_when_it_is_back(own_postgres: Postgres, own_url: str) -> None:
    async def scenario(backlogs: Backlogs) -> None:
        reading(await backlogs.read(own_url))
        await asyncio.to_thread(own_postgres.stop)
        found = trouble(await backlogs.read(own_url))
        await asyncio.to_thread(own_postgres.start)
        assert found.reason == "DatabaseUnavailable"
        assert "the database does not answer" in found.message
        assert "Jobs go on" in found.message
        reading(await backlogs.read(own_url))

    run(scenario)


@contextmanager
def stopped(*processes: int) -> Iterator[None]:
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)


def test_a_server_that_accepts_nobody_any_more_is_told_in_time(own_postgres: Postgres, own_url: str) -> None:
    postmaster = int((own_postgres.socket_folder / "postmaster.pid").read_text().splitlines()[0])

    async def scenario(backlogs: Backlogs) -> None:
        with stopped(postmaster):
            started = time.monotonic()
            found = trouble(await backlogs.read(own_url))
            assert time.monotonic() - started < 2
        assert found.reason == "DatabaseUnavailable"
        assert "in time" in found.message
        reading(await backlogs.read(own_url))

    run(scenario, QUICK)


def test_a_session_that_hangs_is_told_in_time_and_given_up(own_postgres: Postgres, own_url: str) -> None:
    async def scenario(backlogs: Backlogs) -> None:
        with connect(own_url, application_name="test") as connection:
            reading(await backlogs.read(own_url))
            (session,) = ours(connection)
            with stopped(session["pid"]):
                started = time.monotonic()
                found = await asyncio.gather(*(backlogs.read(own_url) for _ in range(20)))
                assert time.monotonic() - started < 3
                assert {trouble(one).reason for one in found} == {"DatabaseUnavailable"}
                assert "no answer within 0.5 s" in trouble(found[0]).message
                reading(await backlogs.read(own_url))  # on a new connection

    run(scenario, QUICK)


def test_a_table_that_is_locked_is_told_in_time(connection: Connection, database_url: str) -> None:
    async def scenario(backlogs: Backlogs) -> None:
        connection.execute("BEGIN")
        connection.execute("LOCK TABLE siorg_sync_queue")
        started = time.monotonic()
        found = trouble(await backlogs.read(database_url))
        connection.execute("ROLLBACK")
        assert time.monotonic() - started < 2
        assert found.reason == "DatabaseUnavailable"
        assert "statement timeout" in found.message  # the server ended it by itself: nothing of it is left there
        reading(await backlogs.read(database_url))

    run(scenario, QUICK)


def test_a_database_without_tables_is_not_migrated(empty_database_url: str) -> None:
    found = trouble(read(empty_database_url))
    assert found.reason == "NotMigrated"
    assert "run siorg-job migrate" in found.message


def test_a_database_of_the_first_worker_is_not_migrated(connection: Connection, database_url: str) -> None:
    connection.execute("ALTER TABLE siorg_sync_queue DROP COLUMN lease_expires_at CASCADE")
    found = trouble(read(database_url))
    assert found.reason == "NotMigrated"
    assert "lease_expires_at" in found.message


def test_who_may_not_read_is_told_the_grant_that_helps(own_postgres: Postgres, own_url: str) -> None:
    with connect(own_url, application_name="test") as connection:
        connection.execute('CREATE ROLE "the operator" LOGIN')
        url = own_url.replace("postgres@", "the%20operator@", 1)

        found = trouble(read(url))

        assert found.reason == "AccessDenied"
        grant = re.search(r"GRANT .* TO \"[^\"]*\"", found.message)
        assert grant is not None, found.message
        connection.execute(grant[0].encode())
        reading(read(url))
        connection.execute('DROP OWNED BY "the operator"')
        connection.execute('DROP ROLE "the operator"')


@pytest.fixture
def password_url(own_postgres: Postgres, own_url: str) -> Iterator[str]:
    """A URL of a user who needs a password."""
    with connect(own_url, application_name="test") as connection:
        connection.execute("DROP ROLE IF EXISTS watcher")
        connection.execute(f"CREATE ROLE watcher LOGIN SUPERUSER PASSWORD '{PASSWORD}'".encode())
        row = connection.execute("SHOW hba_file").fetchone()
        assert row is not None
        rules = Path(row["hba_file"])
        before = rules.read_text()
        rules.write_text(f"local all watcher scram-sha-256\n{before}")
        own_postgres.control("reload")
        yield own_url.replace("postgres@", f"watcher:{quote(PASSWORD, safe='')}@", 1)
        rules.write_text(before)
        own_postgres.control("reload")
        connection.execute("DROP ROLE watcher")


def test_a_wrong_password_is_told_and_the_right_one_taken(password_url: str) -> None:
    reading(read(password_url))
    found = trouble(read(password_url.replace("W0rd", "W1rd")))
    assert found.reason == "AccessDenied"
    assert 'password authentication failed for user "watcher"' in found.message
    assert "correct the Secret" in found.message


def test_no_secret_is_ever_told(
    password_url: str, own_url: str, own_postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)  # psycopg, below that, keeps its connections in its records
    wrong = password_url.replace("W0rd", "W1rd")
    at = f"u:{quote(PASSWORD, safe='')}@"
    urls = [
        wrong,
        wrong.replace("watcher", "nobody"),
        wrong.replace("watcher:", "watcher@"),
        wrong.replace("/test_", "/none_"),
        own_url.replace("postgres@", f"postgres:{PASSWORD}@", 1),
        own_url.replace("postgres@", at, 1) + "&sslmode=p%40ss",  # a part of a password that went astray
        own_url + f"&password={quote(PASSWORD, safe='')}&sslmode=nonsense",
        f"postgresql://{at}127.0.0.1:9/d",
        f"postgresql://{at}a..b/d",
        f"postgresql://{at}[::1/d",
        f"postgresql://{at}[::zz]/d",
        f"postgresql://{at}none.invalid/d",
        f"mysql://{at}h/d",
        f"postgresql://u:{PASSWORD}@h/d",
    ]

    async def scenario(backlogs: Backlogs) -> list[Reading | Unreadable]:
        watches = [backlogs.watch(url, lambda: None) for url in urls]
        found = [await backlogs.read(url) for url in urls]
        for watch in watches:
            watch.close()
        return found

    told = [trouble(one).message for one in run(scenario, QUICK)]
    everything = "\n".join([*told, *(f"{record.getMessage()} {vars(record)}" for record in caplog.records)])
    for secret in ("Zx81", "W1rd", "W0rd", "p@ss", "p%40ss"):
        assert secret not in everything


# -- told of new work -------------------------------------------------------------------------------------------------


class Calls:
    """Counts the calls, and when the last one was."""

    def __init__(self) -> None:
        self.count = 0
        self.at = 0.0

    def __call__(self) -> None:
        self.count += 1
        self.at = time.perf_counter()


def test_everybody_who_watches_is_called_when_there_is_work_and_nobody_else(
    connection: Connection, database_url: str, own_url: str
) -> None:
    async def scenario(backlogs: Backlogs) -> None:
        first, second, elsewhere = Calls(), Calls(), Calls()
        watch = backlogs.watch(database_url, first)
        backlogs.watch(own_url, elsewhere)
        await until(lambda: first.count and elsewhere.count)  # what was missed before, nobody knows
        backlogs.watch(database_url, second)
        await until(lambda: second.count)
        counts = first.count, second.count, elsewhere.count
        insert(connection, siorg_code=1)
        await until(lambda: (first.count, second.count) == (counts[0] + 1, counts[1] + 1))
        watch.close()
        watch.close()
        insert(connection, siorg_code=2)
        await until(lambda: second.count == counts[1] + 2)
        assert (first.count, elsewhere.count) == (counts[0] + 1, counts[2])
        assert len(listening(connection)) == 1

    run(scenario)


def test_listening_ends_with_the_last_who_watches(connection: Connection, database_url: str) -> None:
    async def scenario(backlogs: Backlogs) -> None:
        calls = Calls()
        watches = [backlogs.watch(database_url, calls) for _ in range(3)]
        await until(lambda: listening(connection))
        for watch in watches:
            watch.close()
        await until(lambda: not ours(connection))
        calls.count = 0
        again = backlogs.watch(database_url, calls)
        await until(lambda: calls.count)
        again.close()

    run(scenario)


def test_one_whose_call_fails_keeps_it_from_no_other(connection: Connection, database_url: str) -> None:
    def fails() -> None:
        raise RuntimeError("a fault")

    async def scenario(backlogs: Backlogs) -> None:
        calls = Calls()
        backlogs.watch(database_url, fails)
        backlogs.watch(database_url, calls)
        await until(lambda: calls.count)
        before = calls.count
        insert(connection, siorg_code=1)
        await until(lambda: calls.count > before)

    run(scenario)


def test_the_call_comes_within_milliseconds_of_the_commit(connection: Connection, database_url: str) -> None:
    trials = 100

    async def scenario(backlogs: Backlogs) -> list[float]:
        calls, seconds = Calls(), []
        backlogs.watch(database_url, calls)
        await until(lambda: calls.count)
        for code in range(trials):
            before = calls.count
            connection.execute("BEGIN")
            insert(connection, siorg_code=code)
            committing = time.perf_counter()
            connection.execute("COMMIT")
            while calls.count == before:  # noqa: ASYNC110 - the call itself says when it came
                await asyncio.sleep(0)
            seconds.append(calls.at - committing)
        return sorted(seconds)

    seconds = run(scenario)
    median, p99 = seconds[trials // 2], seconds[int(trials * 0.99) - 1]
    print(f"COMMIT to wake: median {median * 1000:.2f} ms, p99 {p99 * 1000:.2f} ms")  # noqa: T201 - the figure is the result
    assert median < 0.025


def test_at_rest_listening_asks_nothing(postgres: Postgres, database_url: str, tmp_path: Path) -> None:
    async def scenario(backlogs: Backlogs) -> None:
        async with DatabaseProxy(postgres.socket_folder, tmp_path) as proxy:
            calls = Calls()
            backlogs.watch(proxy.url(database_url), calls)
            await until(lambda: calls.count)
            asked = len(proxy.asked)
            await asyncio.sleep(1)
            assert len(proxy.asked) == asked
            await backlogs.close()

    run(scenario)


def test_listening_comes_back_after_a_restart_and_calls_for_what_it_missed(
    own_postgres: Postgres, own_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def scenario(backlogs: Backlogs) -> None:
        calls = Calls()
        backlogs.watch(own_url, calls)
        await until(lambda: calls.count == 1)
        await asyncio.to_thread(own_postgres.stop, "immediate")
        await until(lambda: "Not told of new work" in caplog.text)
        await asyncio.sleep(0.5)  # several attempts, told of once
        await asyncio.to_thread(own_postgres.start)
        with connect(own_url, application_name="test") as connection:
            await until(lambda: listening(connection))
            before = calls.count
            insert(connection, siorg_code=1)
            await until(lambda: calls.count > before)

    run(scenario, QUICK)
    messages = [record.getMessage() for record in caplog.records if record.name == "siorg_operator.database.reader"]
    assert [message.split(":")[0] for message in messages] == [
        "Not told of new work at once",
        "Told of new work at once again",
    ]


def test_a_listener_that_an_administrator_ends_comes_back(connection: Connection, database_url: str) -> None:
    async def scenario(backlogs: Backlogs) -> None:
        calls = Calls()
        backlogs.watch(database_url, calls)
        await until(lambda: listening(connection))
        (before,) = listening(connection)
        connection.execute("SELECT pg_terminate_backend(%s)", (before,))
        await until(lambda: listening(connection) not in ([], [before]))
        await until(lambda: calls.count >= 2)

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

    async def scenario(backlogs: Backlogs) -> None:
        calls = Calls()
        backlogs.watch(standby_url, calls)
        await until(lambda: "Not told of new work" in caplog.text)
        reading(await backlogs.read(standby_url))
        await asyncio.sleep(0.6)  # it is tried again, quietly
        assert calls.count == 0

    run(scenario, QUICK)
    assert caplog.text.count("Not told of new work") == 1


@pytest.mark.pgbouncer
@pytest.mark.skipif(bouncer.program() is None, reason="the program pgbouncer is not installed")
def test_reads_through_pgbouncer_in_transaction_mode(
    own_postgres: Postgres, own_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    name = own_url.rpartition("@/")[2].partition("?")[0]

    async def scenario(backlogs: Backlogs, url: str) -> None:
        backlogs.watch(url, lambda: None)
        with connect(own_url, application_name="test") as connection:
            for number in range(1, 6):
                insert(connection, siorg_code=number)
                found = await asyncio.gather(*(backlogs.read(url) for _ in range(50)))
                assert {reading(one).claimable for one in found} == {number}
            connection.execute("ALTER TABLE siorg_request_pace RENAME TO elsewhere")
            assert trouble(await backlogs.read(url)).reason == "NotMigrated"
            connection.execute("ALTER TABLE elsewhere RENAME TO siorg_request_pace")
            reading(await backlogs.read(url))
        await until(lambda: "connection pooler" in caplog.text)

    with bouncer.pgbouncer(own_postgres, pool_size=1) as port:
        run(lambda backlogs: scenario(backlogs, f"postgresql://postgres@127.0.0.1:{port}/{name}"))
    assert caplog.text.count("connection pooler") == 1
