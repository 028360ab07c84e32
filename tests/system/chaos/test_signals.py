"""Being asked to end: nothing stays in work, no attempt is lost, and the exit code is 0."""

from __future__ import annotations

import signal
import time

import pytest

from siorg_queue import Connection
from support import ledger
from support.fleet import Fleet, eventually
from support.siorg_server import SiorgServer

from .conftest import States, Waiting


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_does_not_finish_within_the_grace_goes_back_unharmed(
    connection: Connection, siorg: SiorgServer, fleet: Fleet, waiting: Waiting, states: States, number: signal.Signals
) -> None:
    waiting(30)
    siorg.control("PUT", "latency", {"latency": "9000"})
    job = fleet.start(WORKER_SHUTDOWN_GRACE_SECS="0.5")
    eventually(lambda: states().get(("PROCESSING", 1), 0) == 16)
    job.send(number)
    assert job.ends() == 0, job.stderr
    assert states() == {("PENDING", 0): 30}
    assert job.summary["reason"] == "stopped"
    assert job.summary["released"] == 16
    assert ledger.audit(connection) == {"claim": 16, "release": 16}


def test_what_finishes_within_the_grace_is_finished_and_nothing_more_is_claimed(
    connection: Connection, siorg: SiorgServer, fleet: Fleet, waiting: Waiting, states: States
) -> None:
    waiting(40)
    siorg.control("PUT", "latency", {"latency": "700"})
    job = fleet.start()
    eventually(lambda: states().get(("PROCESSING", 1), 0) == 16)
    job.send(signal.SIGTERM)
    assert job.ends() == 0, job.stderr
    assert states() == {("COMPLETED", 1): 16, ("PENDING", 0): 24}, job.stderr
    ledger.audit(connection)


def test_a_second_signal_changes_nothing(
    connection: Connection, siorg: SiorgServer, fleet: Fleet, waiting: Waiting, states: States
) -> None:
    waiting(5)
    siorg.control("PUT", "latency", {"latency": "9000"})
    job = fleet.start(WORKER_SHUTDOWN_GRACE_SECS="1")
    eventually(lambda: states().get(("PROCESSING", 1), 0) == 5)
    while job.running:  # all the way out
        job.send(signal.SIGTERM)
        time.sleep(0.02)
    assert job.ends() == 0, job.stderr
    assert states() == {("PENDING", 0): 5}


def test_before_anything_was_claimed(fleet: Fleet) -> None:
    job = fleet.start("run", "--forever")
    eventually(lambda: "No pending items" in job.stderr)
    job.send(signal.SIGTERM)
    assert job.ends(within=5) == 0, job.stderr
    assert job.summary["claimed"] == 0


def test_while_siorg_is_away(siorg: SiorgServer, fleet: Fleet, waiting: Waiting, states: States) -> None:
    waiting(5)
    siorg.control("PUT", "faults", {"faults": "timeout=1"})
    job = fleet.start(WORKER_UNAVAILABLE_SECS="60", SIORG_TIMEOUT_SECS="1", SIORG_BREAKER_FAILURES="2")
    eventually(lambda: "SIORG is unavailable" in job.stderr)
    job.send(signal.SIGTERM)
    assert job.ends(within=5) == 0, job.stderr
    assert states() == {("PENDING", 0): 5}


def test_run_forever_picks_up_what_comes_and_cleans_up(
    connection: Connection, fleet: Fleet, waiting: Waiting, states: States
) -> None:
    connection.execute(
        "INSERT INTO siorg_sync_queue (entity_type, siorg_code, operation, payload, status, processed_at, created_at)"
        " VALUES ('UNIT', 1, 'UPDATE', '{}', 'COMPLETED', now() - interval '31 days', now() - interval '31 days')"
    )
    job = fleet.start("run", "--forever", WORKER_POLL_INTERVAL_SECS="1")
    eventually(lambda: states() == {})  # the old row is gone
    waiting(7)
    eventually(lambda: states() == {("COMPLETED", 1): 7})
    job.send(signal.SIGTERM)
    assert job.ends(within=10) == 0, job.stderr
    assert job.summary["completed"] == 7
