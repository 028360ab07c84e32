"""Being asked to end: nothing stays in work, no attempt is lost, and the exit code is 0."""

from __future__ import annotations

import signal
import time

import pytest

from siorg_queue import connect, transaction
from support.fleet import eventually
from support.queue import insert

from .conftest import Scene


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_does_not_finish_within_the_grace_goes_back_unharmed(scene: Scene, number: signal.Signals) -> None:
    scene.waiting(30)
    scene.latency("9000")
    job = scene.start(WORKER_SHUTDOWN_GRACE_SECS="0.5")
    eventually(lambda: scene.states().get(("PROCESSING", 1), 0) == 16)
    job.send(number)
    assert job.ends() == 0, job.stderr
    assert scene.states() == {("PENDING", 0): 30}
    assert (job.summary["reason"], job.summary["released"]) == ("stopped", 16)
    assert scene.audit() == {"claim": 16, "release": 16}


def test_what_finishes_within_the_grace_is_finished_and_nothing_more_is_claimed(scene: Scene) -> None:
    scene.waiting(40)
    scene.latency("700")
    job = scene.start()
    eventually(lambda: scene.states().get(("PROCESSING", 1), 0) == 16)
    job.send(signal.SIGTERM)
    assert job.ends() == 0, job.stderr
    assert scene.states() == {("COMPLETED", 1): 16, ("PENDING", 0): 24}, job.stderr
    scene.audit()


def test_a_second_signal_changes_nothing(scene: Scene) -> None:
    scene.waiting(5)
    scene.latency("9000")
    job = scene.start(WORKER_SHUTDOWN_GRACE_SECS="1")
    eventually(lambda: scene.states().get(("PROCESSING", 1), 0) == 5)
    while job.running:  # all the way out
        job.send(signal.SIGTERM)
        time.sleep(0.02)
    assert job.ends() == 0, job.stderr
    assert scene.states() == {("PENDING", 0): 5}


def test_before_anything_was_claimed(scene: Scene) -> None:
    job = scene.start("run", "--forever")
    eventually(lambda: "No pending items" in job.stderr)
    job.send(signal.SIGTERM)
    assert job.ends(within=5) == 0, job.stderr
    assert job.summary["claimed"] == 0


def test_while_siorg_is_away(scene: Scene) -> None:
    scene.waiting(5)
    scene.faults("timeout=1")
    job = scene.start(WORKER_UNAVAILABLE_SECS="60", SIORG_TIMEOUT_SECS="1", SIORG_BREAKER_FAILURES="2")
    eventually(lambda: "SIORG is unavailable" in job.stderr)
    job.send(signal.SIGTERM)
    assert job.ends(within=5) == 0, job.stderr
    assert scene.states() == {("PENDING", 0): 5}


def test_run_forever_picks_up_what_comes_and_cleans_up_beside_that(scene: Scene) -> None:
    long_ago = "now() - interval '31 days'"
    old = insert(scene.connection, siorg_code=1, status="'SKIPPED'", processed_at=long_ago, created_at=long_ago)
    scene.connection.execute(
        "INSERT INTO siorg_history (entity_type, siorg_code, change_type, sync_queue_id) VALUES ('UNIT', 1, 'UPDATE', %s)", [old]
    )
    with connect(scene.url, application_name="reviewer") as reviewer, transaction(reviewer, idle_seconds=60):
        reviewer.execute("SELECT FROM siorg_history FOR UPDATE")  # the cleanup, which has to unlink it, waits for that
        job = scene.start("run", "--forever", WORKER_POLL_INTERVAL_SECS="1")
        eventually(lambda: scene.number("SELECT count(*) FROM pg_locks WHERE NOT granted") == 1)
        scene.waiting(7)
        eventually(lambda: scene.states() == {("SKIPPED", 0): 1, ("COMPLETED", 1): 7})
    eventually(lambda: scene.states() == {("COMPLETED", 1): 7})
    job.send(signal.SIGTERM)
    assert job.ends(within=10) == 0, job.stderr
    assert job.summary["completed"] == 7
