"""Finishing: fenced, every outcome with its own rules, attempts counted once."""

from __future__ import annotations

import pytest

from siorg_queue import Connection, Outcome, RetryPolicy, Status, Verdict
from support.queue import Queue


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_late_finish_changes_nothing(queue: Queue, outcome: Outcome) -> None:
    late = queue.claim_one()
    queue.expire_leases()
    assert queue.store.finish([Verdict(late, outcome)]) == {}  # expired, though nobody has it yet
    (current,) = queue.claim(worker="second")
    before = queue.rows()
    assert queue.store.finish([Verdict(late, outcome, error="late", details={"late": True})]) == {}
    assert queue.rows() == before
    assert set(queue.store.finish([Verdict(current, Outcome.CONFLICT, changes={"name": {}})])) == {current.id}
    assert queue.store.finish([Verdict(late, outcome)]) == {}
    assert queue.row()["status"] == Status.CONFLICT


@pytest.mark.parametrize(("attempt", "ceiling"), [(1, 2), (2, 4), (3, 8), (6, 60), (19, 60)])
def test_a_retry_waits_by_full_jitter_below_the_doubling_ceiling(connection: Connection, attempt: int, ceiling: int) -> None:
    queue = Queue(connection, RetryPolicy(max_attempts=20, base_seconds=2, max_seconds=60))
    for code in range(30):
        queue.insert(code, attempts=str(attempt - 1), max_attempts="20")
    settled = queue.store.finish([Verdict(item, Outcome.RETRY, error="passing") for item in queue.claim()])
    delays = [entry.delay_seconds for entry in settled.values()]
    assert len(delays) == 30
    assert all(delay is not None and -1 < delay <= ceiling for delay in delays)
    assert max(delay or 0 for delay in delays) > ceiling / 2  # thirty draws: 2^-30 to be wrong
    assert len(set(delays)) > 20


def test_a_retry_waits_as_long_as_siorg_asked(queue: Queue) -> None:
    item = queue.claim_one()
    delay = queue.store.finish([Verdict(item, Outcome.RETRY, error="later", delay_seconds=120)])[item.id].delay_seconds
    assert delay is not None
    assert 118 < delay <= 120
    assert not queue.store.has_claimable()


@pytest.mark.parametrize(
    ("columns", "limit"), [({"attempts": "2"}, 3), ({"max_attempts": "9"}, 1)]  # of the row; of the settings
)  # fmt: skip
def test_a_retry_with_no_attempt_left_is_failed(connection: Connection, columns: dict[str, str], limit: int) -> None:
    queue = Queue(connection, RetryPolicy(max_attempts=limit))
    item = queue.claim_one(**columns)
    settled = queue.store.finish([Verdict(item, Outcome.RETRY, error="no luck", details={"kind": "x"})])
    assert settled[item.id].status is Status.FAILED
    row = queue.row()
    assert (row["attempts"], row["last_error"], row["error_details"]) == (limit, "no luck", {"kind": "x"})
    assert row["processed_at"] is not None


def test_a_released_item_is_as_it_was(queue: Queue) -> None:
    queue.insert(1, attempts="1", last_error="'before'", error_details="""'{"resolution": "MERGE"}'""")
    before = queue.row()
    (item,) = queue.claim()
    assert queue.store.finish([Verdict(item, Outcome.RELEASED)]).keys() == {item.id}
    after = queue.row()
    assert after == {**before, "lease_token": before["lease_token"] + 1, "last_attempt_at": after["last_attempt_at"]}


def test_completing_clears_the_error_and_keeps_a_persons_decision(queue: Queue) -> None:
    details = """'{"resolution": "ACCEPT_SIORG", "kind": "old", "retryable": true, "details": {}}'"""
    item = queue.claim_one(last_error="'old'", error_details=details)
    queue.store.finish([Verdict(item, Outcome.COMPLETED)])
    row = queue.row()
    assert (row["status"], row["last_error"], row["error_details"]) == ("COMPLETED", None, {"resolution": "ACCEPT_SIORG"})
    assert row["lease_expires_at"] is None
    assert row["claimed_by"]  # who completed it


def test_a_new_conflict_forgets_the_decision_on_the_old_one(queue: Queue) -> None:
    item = queue.claim_one(error_details="""'{"resolution": "MERGE"}'""")
    changes = {"name": {"base": 1}}
    queue.store.finish([Verdict(item, Outcome.CONFLICT, error="apart", details={"kind": "conflict"}, changes=changes)])
    row = queue.row()
    assert (row["error_details"], row["detected_changes"], row["processed_at"]) == ({"kind": "conflict"}, changes, None)


def test_a_commit_whose_answer_was_lost_is_told_from_a_lost_lease(queue: Queue) -> None:
    queue.insert(1)
    queue.insert(2)
    done, lost = queue.claim()
    queue.store.finish([Verdict(done, Outcome.COMPLETED)])
    queue.connection.execute("UPDATE siorg_sync_queue SET lease_token = lease_token + 1 WHERE id = %s", [lost.id])
    assert queue.store.settled([done, lost]) == {done.id: Status.COMPLETED}
