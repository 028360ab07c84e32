"""Reading the databases of many resources: fresh, few queries, bounded whatever happens. Listening: ``test_listener.py``."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from siorg_operator.database.connection import Limits
from siorg_operator.database.databases import Databases
from siorg_operator.decide.state import ConnectionLimit, Reading, Unreadable, Verifications
from siorg_queue import Connection, connect
from support.database_proxy import DatabaseProxy
from support.fleet import eventually
from support.postgres import Postgres
from support.queue import age, insert, verify
from support.queue_databases import QUICK, Proxied, reading, run, sessions, unreadable, until

PASSWORD = "p@ss/W0rd:Zx81#%"
_DEEP, _LONG = "[" * 1500 + "]" * 1500, "9" * 5000


def read(url: str, limits: Limits | None = None) -> Reading | Unreadable:
    return run(lambda databases: databases.read(url), limits)


# -- what is read -----------------------------------------------------------------------------------------------------


def test_reads_the_queue_and_what_limits_its_use(connection: Connection, database_url: str) -> None:
    insert(connection, siorg_code=1, scheduled_for="now() - interval '1 minute'")
    insert(connection, siorg_code=2, scheduled_for="now() + interval '1 hour'")
    insert(connection, siorg_code=3, status="'PROCESSING'", lease_expires_at="now() - interval '3 minutes'")
    insert(connection, siorg_code=4, status="'FAILED'")
    insert(connection, siorg_code=5, status="'CONFLICT'")
    insert(connection, siorg_code=6, status="'CONFLICT'", held_at="now() - interval '1 day'")
    connection.execute("UPDATE siorg_request_pace SET paused_until = now() + interval '30 seconds'")

    found = reading(read(f" {database_url}\n"))  # as a Secret made with echo has it

    assert found.oldest_due_seconds is not None
    assert 180 <= found.oldest_due_seconds < 280
    assert 0 < found.siorg_paused_seconds <= 30
    assert found.max_connections is not None
    assert 0 < found.max_connections < 100
    assert found.other_connections >= 2  # this test, and the reader itself
    assert (found.claimable, found.due, found.scheduled, found.next_due_seconds) == (2, 1, 1, 0.0)
    assert (found.processing, found.failed, found.conflict, found.held, found.sync_enabled) == (1, 1, 1, 1, True)
    assert found.held_oldest_seconds is not None
    assert 86_400 <= found.held_oldest_seconds <= age(connection, "SELECT min(held_at) AS then FROM siorg_sync_queue")
    assert found.verifications == Verifications()


def test_each_limit_of_connections_counts_its_own_users(own_postgres: Postgres, own_url: str) -> None:
    name, other = own_url.rpartition("@/")[2].partition("?")[0], own_postgres.database()
    with connect(own_url, application_name="test") as admin:
        admin.execute("CREATE ROLE siorg LOGIN CONNECTION LIMIT 20 IN ROLE pg_read_all_data")
        admin.execute(f"ALTER DATABASE {name} CONNECTION LIMIT 30".encode())
        as_siorg = [url.replace("postgres@", "siorg@", 1) for url in (own_url, other)]
        with ExitStack() as held:
            for url, application in (
                (own_url, "psql"),
                (other, "psql"),
                (own_url, "siorg-job/aaaaa-0-1"),
                (as_siorg[0], "siorg-job/aaaaa-0-2 lease"),
                (as_siorg[1], "siorg-job/aaaaa-0-2"),
                (as_siorg[1], "siorg-job fetch"),  # of an older image
            ):
                held.enter_context(connect(url, application_name=application))
            found, superuser = reading(read(as_siorg[0])), reading(read(own_url))

    named = {"aaaaa-0-1": 1, "aaaaa-0-2": 1}
    # The reader itself is one of the others, and so is the test.
    assert found.database == ConnectionLimit("database", name, 30, others=3, jobs=2, named=named, operator=1)
    assert found.role == ConnectionLimit("role", "siorg", 20, others=1, jobs=3, named={"aaaaa-0-2": 2}, operator=1)
    server = found.connection_limits[-1]
    assert (server.others, server.jobs, server.named) == (4, 4, {"aaaaa-0-1": 1, "aaaaa-0-2": 2})
    # Neither limit binds a superuser.
    assert [limit.most for limit in superuser.connection_limits] == [None, None, server.most]
    assert (superuser.server, superuser.pooled) == (found.server, False)


def test_a_server_is_known_by_whatever_address_and_role_it_is_reached_and_a_copy_of_it_is_another(
    postgres: Postgres, own_postgres: Postgres, own_url: str
) -> None:
    known = {reading(read(url)).server for url in (own_url, own_postgres.database())}
    assert len(known) == 1
    assert reading(read(postgres.database())).server not in known


def test_the_newest_complete_verification_is_read_and_that_a_later_one_is_not_complete(
    connection: Connection, database_url: str
) -> None:
    verify(connection, "2 days", drift=7)
    verify(connection, "1 day", drift=5, departures='{"edited": 3, "conflict": 12, "of another version": 1, "held": "x"}')
    verify(connection, "3 days", complete=False)
    verify(connection, "1 hour", complete=False)

    found = reading(read(database_url)).verifications

    newest = found.newest
    assert newest is not None
    stored = connection.execute("SELECT finished_at FROM siorg_verifications WHERE drift = 5").fetchone()
    assert stored is not None
    assert newest.finished_at == stored["finished_at"]
    assert 86_400 <= newest.age_seconds <= age(connection, "SELECT finished_at AS then FROM siorg_verifications WHERE drift = 5")
    assert (newest.organizations, newest.rows, newest.drift, newest.departures) == (328, 74_350, 5, {"edited": 3, "conflict": 12})
    assert found.incomplete_seconds is not None
    latest = "SELECT max(finished_at) AS then FROM siorg_verifications WHERE NOT complete"
    assert 3600 <= found.incomplete_seconds <= age(connection, latest)
    assert (found.incomplete_reason, found.unreadable) == ("SIORG answered 503", "")


def test_before_the_migration_of_verifications_the_queue_is_read_all_the_same(connection: Connection, database_url: str) -> None:
    insert(connection, siorg_code=1)
    insert(connection, siorg_code=2, status="'CONFLICT'")
    connection.execute("DROP TABLE siorg_verifications; ALTER TABLE siorg_sync_queue DROP COLUMN held_at")

    found = reading(read(database_url))

    assert (found.claimable, found.conflict, found.held, found.held_oldest_seconds) == (1, 1, 0, None)
    assert found.verifications.newest is None
    assert "run siorg-job migrate" in found.verifications.unreadable


def test_without_the_right_to_verifications_the_queue_is_read_and_the_grant_that_helps_is_told(
    own_postgres: Postgres, own_url: str
) -> None:
    with connect(own_url, application_name="test") as connection:
        connection.execute('CREATE ROLE "the reader" LOGIN')
        connection.execute('GRANT SELECT ON siorg_sync_queue, system_settings, siorg_request_pace TO "the reader"')
        verify(connection, "1 day")
        url = own_url.replace("postgres@", "the%20reader@", 1)

        async def twice(databases: Databases) -> list[Reading]:
            return [reading(await databases.read(url)) for _ in range(2)]

        first, second = run(twice)
        assert (first.claimable, first.verifications.newest) == (0, None)
        assert second.verifications == first.verifications
        grant = re.search(r"GRANT .* TO \"[^\"]*\"", first.verifications.unreadable)
        assert grant is not None, first.verifications.unreadable
        connection.execute(grant[0].encode())
        assert reading(read(url)).verifications.newest is not None
        connection.execute('DROP OWNED BY "the reader"')
        connection.execute('DROP ROLE "the reader"')


def test_the_switch_is_taken_as_jobs_take_it_and_said_once_where_it_cannot_be_read(
    connection: Connection, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def taken(databases: Databases) -> dict[str, bool]:
        found = {}
        for value in ("true", '"no"', "0", "null", '"perchance"', '["chance"]', _DEEP, _LONG):
            connection.execute("UPDATE system_settings SET value = %s::jsonb WHERE key = 'siorg.sync_enabled'", (value,))
            await databases.read(database_url)
            found[value] = reading(await databases.read(database_url)).sync_enabled
        connection.execute("DELETE FROM system_settings")
        return {**found, "unset": reading(await databases.read(database_url)).sync_enabled}

    expected = {"true": True, '"no"': False, "0": False, "null": True, '"perchance"': False, '["chance"]': False, "unset": True}
    expected |= {_DEEP: False, _LONG: False}
    assert run(taken) == expected
    said = [message for message in caplog.messages if "siorg.sync_enabled must be a boolean" in message]
    assert len(said) == 4  # of each value once
    assert all("taken as false" in message for message in said)


# -- few queries, none of them old ------------------------------------------------------------------------------------


def test_500_readers_at_one_moment_are_two_queries_at_most(proxied: Proxied) -> None:
    async def scenario(databases: Databases, proxy: DatabaseProxy, url: str) -> None:
        for rounds in (1, 2):
            before = proxy.readings()
            found = await asyncio.gather(*(databases.read(url) for _ in range(500)))
            assert all(isinstance(one, Reading) for one in found)
            assert proxy.readings() - before <= 2, rounds

    proxied(scenario)


def test_who_asks_while_a_query_is_on_its_way_gets_the_next_ones_answer(proxied: Proxied, connection: Connection) -> None:
    async def scenario(databases: Databases, proxy: DatabaseProxy, url: str) -> None:
        await databases.read(url)
        before = proxy.readings()
        proxy.hold()
        early = asyncio.create_task(databases.read(url))
        await until(lambda: proxy.readings() == before + 1)
        insert(connection, siorg_code=1)
        late = [asyncio.create_task(databases.read(url)) for _ in range(50)]
        await asyncio.sleep(0)
        proxy.release()
        assert {reading(found).claimable for found in await asyncio.gather(*late)} == {1}
        assert early.done()
        assert proxy.readings() == before + 2

    proxied(scenario)


def test_one_who_gives_up_takes_nothing_from_the_others(proxied: Proxied) -> None:
    async def scenario(databases: Databases, proxy: DatabaseProxy, url: str) -> None:
        proxy.hold()
        impatient, patient = asyncio.create_task(databases.read(url)), asyncio.create_task(databases.read(url))
        await asyncio.sleep(0)
        impatient.cancel()
        await asyncio.wait({impatient})
        proxy.release()
        reading(await patient)

    proxied(scenario)


def test_a_database_that_hangs_keeps_no_other_waiting(proxied: Proxied, database_url: str) -> None:
    async def scenario(databases: Databases, proxy: DatabaseProxy, url: str) -> None:
        proxy.hold()
        hanging = asyncio.create_task(databases.read(url))
        await until(lambda: proxy.asked)
        for _ in range(5):
            reading(await databases.read(database_url))
        assert not hanging.done()
        await databases.close()  # at once, although it hangs
        assert unreadable(await hanging).reason == "DatabaseUnavailable"

    proxied(scenario)


def test_a_connection_that_nobody_uses_is_closed(connection: Connection, database_url: str) -> None:
    async def scenario(databases: Databases) -> None:
        reading(await databases.read(database_url))
        assert len(sessions(connection)) == 1
        await until(lambda: not sessions(connection))
        reading(await databases.read(database_url))

    run(scenario, replace(QUICK, idle=0.2))


def test_nothing_is_left_behind(connection: Connection, database_url: str) -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - no one of them is looked at

    async def scenario(databases: Databases) -> None:
        with socket.socket() as mute:
            mute.bind(("127.0.0.1", 0))
            mute.listen()
            urls = [database_url, "postgresql://127.0.0.1:9/d", f"postgresql://127.0.0.1:{mute.getsockname()[1]}/d"]
            for url in urls:
                databases.watch(url, lambda: None)
                await databases.read(url)

    run(scenario, QUICK)  # what is made once and kept, is there now
    gc.collect()
    before = open_files()
    gc.disable()  # a socket that only the collector closes keeps the server waiting till then
    try:
        run(scenario, QUICK)
        assert open_files() == before
    finally:
        gc.enable()
    eventually(lambda: not sessions(connection))


def test_after_the_end_nothing_is_read_and_nobody_called(connection: Connection, database_url: str) -> None:
    async def scenario(databases: Databases) -> None:
        await databases.close()
        assert unreadable(await databases.read(database_url)).reason == "DatabaseUnavailable"
        databases.watch(database_url, lambda: None)()
        await databases.close()

    run(scenario)
    assert not sessions(connection)


# -- trouble: bounded, and told ---------------------------------------------------------------------------------------


def test_a_restarted_server_is_read_at_the_first_attempt_and_one_that_is_down_is_told(
    own_postgres: Postgres, own_url: str
) -> None:
    async def scenario(databases: Databases) -> None:
        for mode in ("fast", "immediate"):  # the second as in a crash
            reading(await databases.read(own_url))
            await asyncio.to_thread(own_postgres.restart, mode)
        reading(await databases.read(own_url))
        await asyncio.to_thread(own_postgres.stop)
        found = unreadable(await databases.read(own_url))
        await asyncio.to_thread(own_postgres.start)
        assert found.reason == "DatabaseUnavailable"
        assert "the database does not answer" in found.message
        assert "Jobs go on" in found.message
        reading(await databases.read(own_url))

    run(scenario)


@contextmanager
def stopped(process: int) -> Iterator[None]:
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def test_a_server_that_accepts_nobody_and_a_session_that_hangs_are_told_in_time(own_postgres: Postgres, own_url: str) -> None:
    postmaster = int((own_postgres.socket_folder / "postmaster.pid").read_text().splitlines()[0])

    async def scenario(databases: Databases) -> None:
        with connect(own_url, application_name="test") as connection:
            with stopped(postmaster):
                refused = unreadable(await databases.read(own_url))
            assert refused.reason == "DatabaseUnavailable"
            assert "in time" in refused.message
            reading(await databases.read(own_url))
            (session,) = sessions(connection)
            with stopped(session["pid"]):
                found = await asyncio.gather(*(databases.read(own_url) for _ in range(20)))
                assert {unreadable(one).reason for one in found} == {"DatabaseUnavailable"}
                assert "no answer within 0.5 s" in unreadable(found[0]).message
                reading(await databases.read(own_url))  # on a new connection

    run(scenario, QUICK)


def test_a_table_that_is_locked_is_told_in_time(connection: Connection, database_url: str) -> None:
    async def scenario(databases: Databases) -> None:
        connection.execute("BEGIN")
        connection.execute("LOCK TABLE siorg_sync_queue")
        found = unreadable(await databases.read(database_url))
        connection.execute("ROLLBACK")
        assert found.reason == "DatabaseUnavailable"
        assert "statement timeout" in found.message  # the server ended it by itself: nothing of it is left there
        reading(await databases.read(database_url))

    run(scenario, QUICK)


def test_a_database_without_tables_or_of_the_first_worker_is_not_migrated(
    empty_database_url: str, connection: Connection, database_url: str
) -> None:
    connection.execute("ALTER TABLE siorg_sync_queue DROP COLUMN lease_expires_at CASCADE")
    for url, what in ((empty_database_url, "run siorg-job migrate"), (database_url, "lease_expires_at")):
        found = unreadable(read(url))
        assert found.reason == "NotMigrated"
        assert what in found.message


def test_who_may_not_read_is_told_the_grant_that_helps(own_postgres: Postgres, own_url: str) -> None:
    with connect(own_url, application_name="test") as connection:
        connection.execute('CREATE ROLE "the operator" LOGIN')
        url = own_url.replace("postgres@", "the%20operator@", 1)

        found = unreadable(read(url))

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
    found = unreadable(read(password_url.replace("W0rd", "W1rd")))
    assert found.reason == "AccessDenied"
    assert 'password authentication failed for user "watcher"' in found.message
    assert "correct the URL in the Secret" in found.message


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

    async def scenario(databases: Databases) -> list[Reading | Unreadable]:
        watches = [databases.watch(url, lambda: None) for url in urls]
        found = [await databases.read(url) for url in urls]
        for watch in watches:
            watch()
        return found

    told = [unreadable(one).message for one in run(scenario, QUICK)]
    everything = "\n".join([*told, *(f"{record.getMessage()} {vars(record)}" for record in caplog.records)])
    for secret in ("Zx81", "W1rd", "W0rd", "p@ss", "p%40ss"):
        assert secret not in everything
