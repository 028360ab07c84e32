"""A queue of units that are fetched one by one, from a simulator that a test can make misbehave."""

from __future__ import annotations

import asyncio
import os
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from siorg_job.commands.run import drain
from siorg_job.drain.run import Broken, GiveUp, Run
from siorg_job.run_summary import RunSummary
from siorg_job.settings import Settings
from siorg_job.siorg.model import Structure
from siorg_job.siorg.rows import read_structure
from siorg_queue import Connection, connect
from support import ledger
from support.fleet import Fleet, Job
from support.job import job_environment
from support.queue import number
from support.siorg_server import SiorgServer

LONG = os.environ.get("SOAK") == "1"
"""Whether what can be run long is, as `make soak` does."""
UFMT = 471
UNITS = 1500 if LONG else 200
PAUSES_ARE_OVER = "UPDATE siorg_sync_queue SET scheduled_for = now() WHERE status = 'PENDING'"
QUICK = {
    "WORKER_CONCURRENCY": "16",
    "WORKER_LEASE_SECS": "2",
    "WORKER_RETRY_BASE_DELAY_MS": "100",
    "WORKER_RETRY_MAX_DELAY_MS": "500",
    "WORKER_UNAVAILABLE_SECS": "1",
    "WORKER_LINGER_SECS": "1",
    "SIORG_TIMEOUT_SECS": "10",
    "SIORG_BREAKER_COOLDOWN_SECS": "0.1",
    "SIORG_MAX_REQUESTS_PER_SECOND": "0",
}


@pytest.fixture(scope="session")
def started() -> Iterator[tuple[SiorgServer, list[int]]]:
    """One simulator for all tests here, and the codes of its units with nothing below them."""
    with SiorgServer("--synthetic", str(UNITS)) as server:
        units = structure_of(server).units
        parents = {unit.parent_code for unit in units.values()}
        yield server, sorted(code for code in units if code not in parents)


@pytest.fixture
def simulator(started: tuple[SiorgServer, list[int]]) -> SiorgServer:
    """In fair weather at the beginning of each test."""
    server, _ = started
    for name, value in (("down", False), ("faults", ""), ("latency", "0")):
        server.control("PUT", name, {name: value})
    return server


@pytest.fixture
def codes(started: tuple[SiorgServer, list[int]]) -> list[int]:
    """Codes of units with nothing below them: none of them is fetched for another."""
    return started[1]


def structure_of(siorg: SiorgServer) -> Structure:
    """What SIORG has of the only organization."""
    path = f"/estrutura-organizacional/completa?codigoPoder=1&codigoEsfera=1&codigoUnidade={UFMT}"
    with urllib.request.urlopen(siorg.url + path + "&retornarOrgaoEntidadeVinculados=NAO", timeout=30) as answer:
        return read_structure(answer.read(), UFMT)


def fill(connection: Connection, codes: Sequence[int]) -> None:
    connection.execute(
        "INSERT INTO siorg_sync_queue (entity_type, siorg_code, operation, payload)"
        " SELECT 'UNIT', code, 'UPDATE', '{}' FROM unnest(%s::integer[]) AS code",
        [list(codes)],
    )


@contextmanager
def stranger(connection: Connection, url: str) -> Iterator[Connection]:
    """Somebody who may do nothing here but connect, and holds what older Jobs excluded each other by."""
    connection.execute("DROP ROLE IF EXISTS siorg_stranger; CREATE ROLE siorg_stranger LOGIN")
    theirs = url.replace("//postgres@", "//siorg_stranger@")
    assert theirs != url
    with connect(theirs, application_name="a stranger") as made:
        for name, key in (("apply", str(UFMT)), ("apply", "0"), ("ends", "0"), ("queue", "hashtext('enqueue')")):
            made.execute(f"SELECT pg_advisory_lock(hashtext('siorg_sync_{name}'), {key})".encode())
        yield made
    connection.execute("DROP ROLE siorg_stranger")


def somebodys_trigger(when: str = "true", code: str = "P0001") -> str:
    """Makes somebody's own trigger on new units, which raises an error; ``NO_TRIGGER`` undoes it."""
    return f"""
        CREATE FUNCTION somebodys() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF {when} THEN RAISE EXCEPTION 'odd' USING ERRCODE = '{code}'; END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER somebodys BEFORE INSERT ON organizational_units FOR EACH ROW EXECUTE FUNCTION somebodys()
    """


NO_TRIGGER = "DROP FUNCTION somebodys() CASCADE"


@contextmanager
def forgotten(url: str, sql: str) -> Iterator[None]:
    """A transaction that has done this and is left open."""
    with connect(url, application_name="a person") as person:
        person.execute("BEGIN")
        person.execute(sql.encode())
        yield
        person.execute("ROLLBACK")


class Scene:
    """A queue, a SIORG that can misbehave, and the jobs between them; a ledger is kept of what becomes of the queue's rows."""

    def __init__(
        self, connection: Connection, siorg: SiorgServer, fleet: Fleet, codes: Sequence[int], env: Mapping[str, str]
    ) -> None:
        self.connection, self.siorg, self._codes, self._env = connection, siorg, codes, env
        self.url = env["DATABASE_URL"]
        self.start = fleet.start
        ledger.install(connection)

    def run(self, code: int, *arguments: str, within: float = 30.0, name: str | None = None, **env: str) -> Job:
        """A job that has to end with this exit code."""
        job = self.start(*arguments, name=name, **env)
        assert job.ends(within=within) == code, job.stderr
        return job

    def drain(self, **env: str) -> tuple[str, RunSummary]:
        """A run in this process, for what needs no process of its own; the word for its end, and its summary."""
        summary = RunSummary()
        try:
            return asyncio.run(drain(Run(Settings.from_environment({**self._env, **env}), summary))), summary
        except (GiveUp, Broken) as ended:
            return ended.reason, summary

    def waiting(self, number: int) -> Sequence[int]:
        """Put that many units into the queue; their codes."""
        fill(self.connection, self._codes[:number])
        return self._codes[:number]

    def states(self) -> dict[tuple[str, int], int]:
        """How many rows there are by status and attempts."""
        rows = self.connection.execute("SELECT status::text, attempts, count(*) AS n FROM siorg_sync_queue GROUP BY 1, 2")
        return {(row["status"], row["attempts"]): row["n"] for row in rows}

    def number(self, sql: str) -> int:
        """The only value of a query."""
        return number(self.connection, sql)

    def audit(self) -> Counter[str]:
        """Check the ledger; how often each kind of transition happened."""
        return ledger.audit(self.connection)

    def latency(self, milliseconds: str) -> None:
        self.siorg.control("PUT", "latency", {"latency": milliseconds})

    def faults(self, faults: str) -> None:
        self.siorg.control("PUT", "faults", {"faults": faults})

    def down(self, down: bool) -> None:
        self.siorg.control("PUT", "down", {"down": down})

    def requests(self) -> int:
        """How many the simulator has had."""
        return int(self.siorg.control("GET", "state")["requests"]["total"])


@pytest.fixture
def scene(database_url: str, connection: Connection, simulator: SiorgServer, codes: list[int], tmp_path: Path) -> Iterator[Scene]:
    env = job_environment(database_url, simulator.url, **QUICK)
    with Fleet(env, tmp_path) as fleet:
        yield Scene(connection, simulator, fleet, codes, env)
