"""Finishing: fenced, every outcome with its own rules, attempts counted once."""

from __future__ import annotations

import pytest

from siorg_queue import Connection, Outcome, QueueStore, RetryPolicy, Status, Verdict
from support.queue import LEASE, insert, rows


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_late_finish_changes_nothing(connection: Connection, store: QueueStore, outcome: Outcome) -> None:
    insert(connection, siorg_code=1)
    (late,) = store.claim(1, lease=LEASE, worker="first").items
    connection.execute("UPDATE siorg_sync_queue SET lease_expires_at = now() - interval '1 second'")
    assert store.finish([Verdict(late, outcome)]) == {}  # expired, though nobody has it yet
    (current,) = store.claim(1, lease=LEASE, worker="second").items
    before = rows(connection)
    assert store.finish([Verdict(late, outcome, error="late", details={"late": True})]) == {}
    assert rows(connection) == before
    assert set(store.finish([Verdict(current, Outcome.CONFLICT, changes={"name": {}})])) == {current.id}
    assert store.finish([Verdict(late, outcome)]) == {}
    assert rows(connection)[0]["status"] == Status.CONFLICT


def test_a_retry_waits_by_full_jitter_below_the_doubling_ceiling(connection: Connection) -> None:
    store = QueueStore(connection, RetryPolicy(max_attempts=20, base_seconds=2, max_seconds=60))
    for attempt, ceiling in ((1, 2), (2, 4), (3, 8), (6, 60), (19, 60)):
        ids = [insert(connection, siorg_code=n, attempts=str(attempt - 1), max_attempts="20") for n in range(1, 31)]
        items = store.claim(100, lease=LEASE, worker="w").items
        settled = store.finish([Verdict(item, Outcome.RETRY, error="passing") for item in items])
        delays = [entry.delay_seconds for entry in settled.values()]
        assert len(ids) == len(delays)
        assert all(delay is not None and -1 < delay <= ceiling for delay in delays)
        assert max(delay or 0 for delay in delays) > ceiling / 2  # thirty draws: 2^-30 to be wrong
        assert len(set(delays)) > 20
        connection.execute("TRUNCATE siorg_sync_queue CASCADE")


def test_a_retry_waits_as_long_as_siorg_asked(connection: Connection, store: QueueStore) -> None:
    insert(connection, siorg_code=1)
    (item,) = store.claim(1, lease=LEASE, worker="w").items
    settled = store.finish([Verdict(item, Outcome.RETRY, error="later", delay_seconds=120)])
    delay = settled[item.id].delay_seconds
    assert delay is not None
    assert 118 < delay <= 120
    assert not store.has_claimable()


def test_a_retry_with_no_attempt_left_is_failed(connection: Connection, store: QueueStore) -> None:
    insert(connection, siorg_code=1, attempts="2")
    (item,) = store.claim(1, lease=LEASE, worker="w").items
    settled = store.finish([Verdict(item, Outcome.RETRY, error="no luck", details={"kind": "x"})])
    assert settled[item.id].status is Status.FAILED
    (row,) = rows(connection)
    assert (row["attempts"], row["last_error"], row["error_details"]) == (3, "no luck", {"kind": "x"})
    assert row["processed_at"] is not None


def test_a_smaller_setting_than_the_rows_own_limit_holds(connection: Connection) -> None:
    store = QueueStore(connection, RetryPolicy(max_attempts=1))
    insert(connection, siorg_code=1, max_attempts="9")
    (item,) = store.claim(1, lease=LEASE, worker="w").items
    assert store.finish([Verdict(item, Outcome.RETRY)])[item.id].status is Status.FAILED


def test_a_released_item_is_as_it_was(connection: Connection, store: QueueStore) -> None:
    insert(connection, siorg_code=1, attempts="1", last_error="'before'", error_details="""'{"resolution": "MERGE"}'""")
    before = rows(connection)[0]
    (item,) = store.claim(1, lease=LEASE, worker="w").items
    assert store.release([item]) == {item.id}
    after = rows(connection)[0]
    assert {k: v for k, v in after.items() if k not in ("lease_token", "last_attempt_at")} == {
        k: v for k, v in before.items() if k not in ("lease_token", "last_attempt_at")
    }
    assert after["lease_token"] == before["lease_token"] + 1


def test_completing_clears_the_error_and_keeps_a_persons_decision(connection: Connection, store: QueueStore) -> None:
    details = """'{"resolution": "ACCEPT_SIORG", "kind": "old", "retryable": true, "details": {}}'"""
    insert(connection, siorg_code=1, last_error="'old'", error_details=details)
    (item,) = store.claim(1, lease=LEASE, worker="w").items
    store.finish([Verdict(item, Outcome.COMPLETED)])
    (row,) = rows(connection)
    assert (row["status"], row["last_error"], row["error_details"]) == (
        "COMPLETED",
        None,
        {"resolution": "ACCEPT_SIORG"},
    )
    assert row["lease_expires_at"] is None
    assert row["claimed_by"] is None


def test_a_new_conflict_forgets_the_decision_on_the_old_one(connection: Connection, store: QueueStore) -> None:
    insert(connection, siorg_code=1, error_details="""'{"resolution": "MERGE"}'""")
    (item,) = store.claim(1, lease=LEASE, worker="w").items
    store.finish([Verdict(item, Outcome.CONFLICT, error="apart", details={"kind": "conflict"}, changes={"name": {"base": 1}})])
    (row,) = rows(connection)
    assert row["error_details"] == {"kind": "conflict"}
    assert row["detected_changes"] == {"name": {"base": 1}}
    assert row["processed_at"] is None


def test_a_commit_whose_answer_was_lost_is_told_from_a_lost_lease(connection: Connection, store: QueueStore) -> None:
    for code in (1, 2):
        insert(connection, siorg_code=code)
    done, lost = store.claim(2, lease=LEASE, worker="w").items
    store.finish([Verdict(done, Outcome.COMPLETED)])
    connection.execute("UPDATE siorg_sync_queue SET lease_token = lease_token + 1 WHERE id = %s", [lost.id])
    assert store.settled([done, lost]) == {done.id: Status.COMPLETED}
