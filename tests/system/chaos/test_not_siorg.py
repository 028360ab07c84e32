"""Something answers in SIORG's place: a wrong base path, a gateway under repair. No item pays for it, nothing is ended."""

from __future__ import annotations

import pytest

from siorg_queue import Connection
from support import ledger
from support.fleet import Fleet
from support.loopback_http import Gateway
from support.scripted_server import envelope
from support.siorg_server import SiorgServer

from .conftest import Waiting

ANSWERS = [
    (400, None),
    (404, None),
    (405, None),
    (410, None),
    (418, None),
    (200, None),
    (304, None),
    (301, "http://elsewhere.example/"),
    (302, "/doc/in/a/circle"),
]


def check_unharmed(connection: Connection, fleet: Fleet, waiting: int, answer: tuple[int, str | None]) -> None:
    status, location = answer
    with Gateway(status, location=location) as gateway:
        job = fleet.start(SIORG_API_URL=gateway.url, WORKER_UNAVAILABLE_SECS="1", SIORG_BREAKER_FAILURES="3")
        assert job.ends(within=20) == 75, (answer, job.stderr)
    assert job.summary["claimed"] == job.summary["released"] > 0
    rows = connection.execute(
        "SELECT status::text, attempts, count(*) AS n FROM siorg_sync_queue WHERE status <> 'COMPLETED' GROUP BY 1, 2"
    ).fetchall()
    assert [(row["status"], row["attempts"], row["n"]) for row in rows] == [("PENDING", 0, waiting)], (answer, job.stderr)


def test_units_asked_for_one_by_one_come_back_unharmed(connection: Connection, fleet: Fleet, waiting: Waiting) -> None:
    waiting(20)
    for answer in ANSWERS:
        check_unharmed(connection, fleet, 20, answer)
    assert set(ledger.audit(connection)) == {"claim", "release"}


def test_a_synced_organization_with_a_full_queue_comes_back_unharmed(
    connection: Connection, siorg: SiorgServer, fleet: Fleet
) -> None:
    """Known units are fetched as one structure: each status of the table, one after the other on the same queue."""
    assert fleet.start("discover").ends() == 0
    assert fleet.start().ends() == 0
    counted = connection.execute(
        "INSERT INTO siorg_sync_queue (entity_type, siorg_code, operation, payload)"
        " SELECT 'UNIT', siorg_code, 'UPDATE', '{}' FROM organizational_units"
    ).rowcount
    assert counted > 100
    for answer in ANSWERS:
        check_unharmed(connection, fleet, counted, answer)


@pytest.mark.parametrize("error", [101, 102])
def test_a_siorg_that_has_lost_everything_ends_nothing(
    error: int, connection: Connection, siorg: SiorgServer, fleet: Fleet
) -> None:
    assert fleet.start("discover").ends() == 0
    assert fleet.start().ends() == 0
    connection.execute(
        "INSERT INTO siorg_sync_queue (entity_type, siorg_code, operation, payload)"
        " SELECT 'UNIT', siorg_code, 'EXTINCTION', '{}' FROM organizational_units ORDER BY siorg_code LIMIT 60"
    )
    with Gateway(200, body=envelope("unidade", None, code=error, message="nada")) as lost:
        assert fleet.start(SIORG_API_URL=lost.url).ends() in {0, 75}
    rows = connection.execute("SELECT siorg_code FROM organizational_units WHERE NOT is_active").fetchall()
    assert rows == []
    ended = connection.execute(
        "SELECT DISTINCT error_details ->> 'kind' AS kind FROM siorg_sync_queue WHERE operation = 'EXTINCTION'"
    ).fetchall()
    assert [row["kind"] for row in ended] == ["torn_answer"]
