"""No transaction is open while SIORG is asked, and a connection that was ended meanwhile is opened again without a word."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from siorg_queue import clock, connect, query, transaction
from support.job import job_environment, run_job
from support.loopback_http import Answering, LoopbackServer
from support.pgbouncer import pgbouncer, program
from support.postgres import Postgres
from support.siorg_server import SiorgServer

ASKING = (
    "preview", "discover", "run", "verify", "adopted", "discover --full", "doctor",
    "organizations add 16466 --cnpj 00394445018817 --ug-code 1",
)  # fmt: skip

_OPEN = """
SELECT a.pid, a.xact_start::text, a.query FROM pg_stat_activity AS a
WHERE a.datname = %s AND starts_with(a.application_name, 'siorg-job') AND a.state LIKE 'idle in transaction%%'
"""
_ENDS_WITHIN = 10.0  # seconds: a transaction that does not wait for this very answer ends meanwhile


@pytest.fixture(scope="module")
def siorg() -> Iterator[SiorgServer]:
    with SiorgServer("--synthetic", "12") as server:
        yield server


@contextmanager
def asking(siorg: SiorgServer, postgres: Postgres, database: str) -> Iterator[tuple[str, list[str]]]:
    """SIORG behind a server that looks at the database before each answer; its URL, and transactions that waited for one."""
    waited: list[str] = []

    class Handler(Answering):
        def do_GET(self) -> None:  # noqa: N802 - the name of the base class
            with psycopg.connect(postgres.url(), autocommit=True) as connection:
                before = set(connection.execute(_OPEN, [database]).fetchall())
                deadline = time.monotonic() + _ENDS_WITHIN
                while before and time.monotonic() < deadline:
                    time.sleep(0.02)
                    found = {row[:2] for row in connection.execute(_OPEN, [database])}
                    before = {row for row in before if row[:2] in found}
                waited.extend(f"{self.path}: {row}" for row in before)
            with urllib.request.urlopen(siorg.url.removesuffix("/doc") + self.path, timeout=30) as answer:
                self.answer(answer.status, answer.read(), answer.headers["Content-Type"])

    with LoopbackServer(Handler) as server:
        yield server.url, waited


def test_no_command_has_a_transaction_open_while_it_asks_siorg(postgres: Postgres, database_url: str, siorg: SiorgServer) -> None:
    database = database_url.rsplit("@/", 1)[1].split("?", 1)[0]
    with asking(siorg, postgres, database) as (url, waited):
        env = job_environment(database_url, url)
        for command in ASKING:
            run_job(*command.split(), env=env, code=None)  # whatever comes of it
    assert waited == []


def ends_while_it_asks(env: dict[str, str], siorg: SiorgServer) -> None:
    """Whoever asks SIORG takes longer than the database lets a connection rest."""
    siorg.control("PUT", "latency", {"latency": "400"})
    try:
        for command in ("preview", "discover", "run", "verify"):
            done = run_job(*command.split(), env=env)
            assert "unavailable" not in done.stderr, done.stderr
            assert "WARN" not in done.stderr, done.stderr
    finally:
        siorg.control("PUT", "latency", {"latency": "0"})


def test_the_servers_limit_for_idle_connections_is_not_noticed(postgres: Postgres, database_url: str, siorg: SiorgServer) -> None:
    name = database_url.rsplit("@/", 1)[1].split("?", 1)[0]
    with psycopg.connect(postgres.url(), autocommit=True) as admin:
        admin.execute(f"ALTER DATABASE {name} SET idle_session_timeout = '200ms'")
    ends_while_it_asks(job_environment(database_url, siorg.url), siorg)


@pytest.mark.pgbouncer
@pytest.mark.skipif(program() is None, reason="the program pgbouncer is not installed")
def test_nor_is_that_of_pgbouncer(postgres: Postgres, database_url: str, siorg: SiorgServer) -> None:
    name = database_url.rsplit("@/", 1)[1].split("?", 1)[0]
    with pgbouncer(postgres, client_idle_timeout="0.2") as port:
        ends_while_it_asks(job_environment(f"postgresql://postgres@127.0.0.1:{port}/{name}", siorg.url), siorg)


def test_what_was_begun_is_never_begun_again(postgres: Postgres, database_url: str) -> None:
    """A connection that breaks within a transaction takes it along: nothing of it goes on outside."""
    with connect(database_url, application_name="test") as connection, psycopg.connect(postgres.url(), autocommit=True) as admin:

        def end() -> None:
            admin.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])

        def break_within() -> None:
            with transaction(connection):
                connection.execute("CREATE TABLE gone (x int)")
                end()
                clock(connection)

        with pytest.raises(psycopg.OperationalError):
            break_within()
        (found,) = query(connection, "SELECT to_regclass('gone') AS found, now() AS now")
        assert found["found"] is None
        end()
        assert clock(connection) > found["now"]
