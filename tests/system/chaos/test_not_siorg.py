"""Something answers in SIORG's place: a wrong base path, a gateway under repair. No item pays for it, nothing is ended."""

from __future__ import annotations

import pytest

from support.loopback_http import Gateway
from support.scripted_server import envelope

from .conftest import Scene

ANSWERS = [
    *((status, None) for status in (400, 404, 405, 410, 418, 200, 304)),
    (301, "http://elsewhere.example/"),
    (302, "/doc/in/a/circle"),
]


def check_unharmed(scene: Scene, waiting: int) -> None:
    """Whatever answers, one after the other on the same queue."""
    for status, location in ANSWERS:
        with Gateway(status, location=location) as gateway:
            reason, summary = scene.drain(SIORG_API_URL=gateway.url, WORKER_UNAVAILABLE_SECS="0.5", SIORG_BREAKER_FAILURES="3")
        assert reason == "siorg_unavailable", status
        assert summary.claimed == summary.released > 0
        left = {state: n for state, n in scene.states().items() if state[0] != "COMPLETED"}
        assert left == {("PENDING", 0): waiting}, status


def test_units_asked_for_one_by_one_come_back_unharmed(scene: Scene) -> None:
    scene.waiting(20)
    check_unharmed(scene, 20)
    assert set(scene.audit()) == {"claim", "release"}


def test_a_synced_organization_with_a_full_queue_comes_back_unharmed(scene: Scene) -> None:
    """Known units are fetched as one structure."""
    scene.run(0, "discover")
    scene.run(0)
    counted = scene.connection.execute(
        "INSERT INTO siorg_sync_queue (entity_type, siorg_code, operation, payload)"
        " SELECT 'UNIT', siorg_code, 'UPDATE', '{}' FROM organizational_units"
    ).rowcount
    assert counted > 100
    check_unharmed(scene, counted)


@pytest.mark.parametrize(("error", "kind"), [(101, None), (102, "organization_ended")])
def test_a_siorg_that_has_lost_everything_ends_nothing(scene: Scene, error: int, kind: str | None) -> None:
    """Nobody is told that nothing meets the criteria; that their organization has ended is a person's decision."""
    scene.run(0, "discover")
    scene.run(0)
    scene.connection.execute(
        "INSERT INTO siorg_sync_queue (entity_type, siorg_code, operation, payload)"
        " SELECT 'UNIT', siorg_code, 'EXTINCTION', '{}' FROM organizational_units ORDER BY siorg_code LIMIT 60"
    )
    with Gateway(200, body=envelope("unidade", None, code=error, message="nada")) as lost:
        assert scene.start(SIORG_API_URL=lost.url).ends() in {0, 75}
    assert scene.number("SELECT count(*) FROM organizational_units WHERE NOT is_active") == 0
    ended = scene.connection.execute(
        "SELECT DISTINCT error_details ->> 'kind' AS kind FROM siorg_sync_queue WHERE operation = 'EXTINCTION'"
    ).fetchall()
    assert [row["kind"] for row in ended] == [kind]
