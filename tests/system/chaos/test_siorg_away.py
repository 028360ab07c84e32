"""SIORG is down, hangs, refuses or wants to be left alone: the run ends in bounded time, and no item pays for it."""

from __future__ import annotations

from support.fleet import eventually
from support.poison import PoisonedSiorg
from support.queue import rows

from .conftest import Scene


def test_in_the_middle_and_back_in_a_later_run(scene: Scene) -> None:
    scene.waiting(100)
    scene.latency("300")
    job = scene.start()
    eventually(lambda: scene.states().get(("COMPLETED", 1), 0) >= 10)
    scene.down(True)
    assert job.ends(within=20) == 75, job.stderr
    done = scene.states()[("COMPLETED", 1)]
    assert scene.states() == {("COMPLETED", 1): done, ("PENDING", 0): 100 - done}, job.stderr
    scene.down(False)
    scene.latency("0")
    scene.run(0)
    assert scene.states() == {("COMPLETED", 1): 100}
    scene.audit()


def test_back_within_the_time(scene: Scene) -> None:
    scene.waiting(30)
    scene.down(True)
    job = scene.start(WORKER_UNAVAILABLE_SECS="30")
    eventually(lambda: "every item was given back" in job.stderr)
    assert scene.states() == {("PENDING", 0): 30}
    scene.down(False)
    assert job.ends() == 0, job.stderr
    assert scene.states() == {("COMPLETED", 1): 30}
    assert "SIORG answers again" in job.stderr


def test_one_poisoned_unit_pays_alone(scene: Scene) -> None:
    codes = scene.waiting(40)
    poisoned = codes[3]
    with PoisonedSiorg(scene.siorg.url, {poisoned}) as proxy:
        job = scene.run(0, SIORG_API_URL=proxy.url)
    assert scene.states() == {("COMPLETED", 1): 39, ("FAILED", 3): 1}, job.stderr
    (row,) = (row for row in rows(scene.connection) if row["status"] == "FAILED")
    assert row["siorg_code"] == poisoned
    assert "500" in row["last_error"]
    assert row["error_details"]["kind"] == "siorg_unavailable"
    scene.audit()


def test_so_many_poisoned_units_that_the_breaker_opens_do_not_hold_the_run_for_ever(scene: Scene) -> None:
    """The rest of SIORG works: nothing but these fails, and each time SIORG is asked whether it lives, it does."""
    codes = scene.waiting(30)
    with PoisonedSiorg(scene.siorg.url, set(codes[:8])) as proxy:
        job = scene.start(SIORG_API_URL=proxy.url, SIORG_BREAKER_FAILURES="3", WORKER_UNAVAILABLE_SECS="20")
        assert job.ends(within=40) in {0, 75}, job.stderr
        for _ in range(3):
            if any(status == "PENDING" for status, _ in scene.states()):
                assert scene.start(SIORG_API_URL=proxy.url, SIORG_BREAKER_FAILURES="3").ends(within=40) in {0, 75}
    done = scene.states()
    assert done.get(("FAILED", 3)) == 8, (done, job.stderr)
    assert sum(n for (status, _), n in done.items() if status == "COMPLETED") == 22
    scene.audit()
