"""A queue of units that are fetched one by one, from a simulator that a test can make misbehave."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from siorg_job.siorg.rows import read_structure
from siorg_queue import Connection
from support import ledger
from support.fleet import Fleet
from support.job import job_environment
from support.siorg_server import SiorgServer

Waiting = Callable[[int], list[int]]
States = Callable[[], dict[tuple[str, int], int]]
UNITS = 200
QUICK = {
    "WORKER_CONCURRENCY": "16",
    "WORKER_LEASE_SECS": "2",
    "WORKER_RETRY_BASE_DELAY_MS": "100",
    "WORKER_RETRY_MAX_DELAY_MS": "500",
    "WORKER_UNAVAILABLE_SECS": "2",
    "WORKER_LINGER_SECS": "3",
    "SIORG_TIMEOUT_SECS": "10",
    "SIORG_BREAKER_COOLDOWN_SECS": "0.3",
    "SIORG_MAX_REQUESTS_PER_SECOND": "0",
}


@pytest.fixture(scope="module")
def simulator() -> Iterator[SiorgServer]:
    with SiorgServer("--synthetic", str(UNITS)) as server:
        yield server


@pytest.fixture
def siorg(simulator: SiorgServer) -> Iterator[SiorgServer]:
    """In fair weather at the beginning of each test."""
    yield simulator
    simulator.control("PUT", "down", {"down": False})
    simulator.control("PUT", "faults", {"faults": ""})
    simulator.control("PUT", "latency", {"latency": "0"})


@pytest.fixture
def fleet(database_url: str, siorg: SiorgServer, tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(job_environment(database_url, siorg.url, **QUICK), tmp_path) as jobs:
        yield jobs


@pytest.fixture(scope="module")
def codes(simulator: SiorgServer) -> list[int]:
    """Codes of units with nothing below them: none of them is fetched for another."""
    path = "/estrutura-organizacional/completa?codigoPoder=1&codigoEsfera=1&codigoUnidade=471"
    with urllib.request.urlopen(simulator.url + path + "&retornarOrgaoEntidadeVinculados=NAO", timeout=30) as answer:
        units = read_structure(answer.read(), 471).units
    parents = {unit.parent_code for unit in units.values()}
    return sorted(code for code in units if code not in parents)


def fill(connection: Connection, codes: Sequence[int]) -> None:
    connection.execute(
        "INSERT INTO siorg_sync_queue (entity_type, siorg_code, operation, payload)"
        " SELECT 'UNIT', code, 'UPDATE', '{}' FROM unnest(%s::integer[]) AS code",
        [list(codes)],
    )


@pytest.fixture
def waiting(connection: Connection, codes: list[int]) -> Waiting:
    """Puts that many units into the queue, with a ledger of what becomes of them."""
    ledger.install(connection)

    def put(number: int) -> list[int]:
        fill(connection, codes[:number])
        return codes[:number]

    return put


@pytest.fixture
def states(connection: Connection) -> States:
    """How many rows there are by status and attempts."""

    def look() -> dict[tuple[str, int], int]:
        rows = connection.execute("SELECT status::text, attempts, count(*) AS n FROM siorg_sync_queue GROUP BY 1, 2")
        return {(row["status"], row["attempts"]): row["n"] for row in rows}

    return look
