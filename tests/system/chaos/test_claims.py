"""How a drain claims: not one by one, not in a spin, and with nothing left behind that nobody would end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from siorg_queue import connect
from support.fleet import eventually
from support.queue import insert

from .conftest import Scene


def commits(scene: Scene) -> int:
    """Transactions of this database so far; a process counts when it has ended."""
    scene.connection.execute("SELECT pg_stat_clear_snapshot()")
    return scene.number("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")


@contextmanager
def holding_the_row(url: str) -> Iterator[None]:
    with connect(url, application_name="a person") as person, person.transaction():
        person.execute("SELECT FROM siorg_sync_queue FOR UPDATE")
        yield


def test_claims_are_not_made_for_single_items(scene: Scene) -> None:
    scene.waiting(100)
    scene.latency("300:290")
    job = scene.run(0, WORKER_BATCH_SIZE="10")
    assert scene.states() == {("COMPLETED", 1): 100}
    assert job.summary["batches"] <= 100 / 4 + 1  # a quarter of the 16 has to be free


def test_without_settings_no_more_is_held_than_the_requests_at_once_can_serve(scene: Scene) -> None:
    scene.waiting(100)
    scene.latency("300:290")
    summary = scene.run(0, WORKER_CONCURRENCY="").summary
    assert scene.states() == {("COMPLETED", 1): 100}
    assert (summary["largest_batch"], summary["requests_at_once"]) == (64, 64)
    assert summary["batches"] <= 1 + (100 - 64) / 16 + 1  # a quarter of them has to be free


def test_a_process_with_one_slow_item_claims_beside_it(scene: Scene) -> None:
    codes = scene.waiting(1)
    scene.latency("9000")
    job = scene.start(WORKER_SHUTDOWN_GRACE_SECS="0")
    eventually(lambda: scene.states() == {("PROCESSING", 1): 1})
    insert(scene.connection, siorg_code=codes[0] + 1)
    eventually(lambda: scene.states() == {("PROCESSING", 1): 2})
    job.send(signal.SIGTERM)
    assert job.ends() == 0, job.stderr


def test_a_row_that_somebody_else_holds_ends_the_run_without_a_spin(scene: Scene, database_url: str) -> None:
    scene.waiting(1)
    before = commits(scene)
    with holding_the_row(database_url):
        job = scene.run(0, WORKER_LINGER_SECS="2", within=15)
        assert job.summary["claimed"] == 0
    assert scene.states() == {("PENDING", 0): 1}
    assert commits(scene) - before < 100
    scene.run(0)
    assert scene.states() == {("COMPLETED", 1): 1}


def test_a_row_that_somebody_else_lets_go_in_time_is_done(scene: Scene, database_url: str) -> None:
    scene.waiting(1)
    sessions = "FROM pg_stat_activity WHERE application_name IN ('siorg-job', 'siorg-job fetch') AND datname = current_database()"
    with holding_the_row(database_url):
        job = scene.start(WORKER_LINGER_SECS="20")
        eventually(lambda: scene.number(f"SELECT count(*) {sessions}") >= 2)  # its drain has begun
    assert job.ends() == 0, job.stderr
    assert scene.states() == {("COMPLETED", 1): 1}


@pytest.mark.parametrize("due", [0, 5])
def test_no_spent_item_is_left_waiting(scene: Scene, due: int) -> None:
    scene.waiting(due)
    scene.connection.execute(
        "INSERT INTO siorg_sync_queue (entity_type, siorg_code, operation, payload, attempts)"
        " SELECT 'UNIT', 100000 + n, 'UPDATE', '{}', 3 FROM generate_series(1, 2500) AS n"
    )
    scene.run(0)
    assert scene.states() == {("FAILED", 3): 2500, **({("COMPLETED", 1): due} if due else {})}
