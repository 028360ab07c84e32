"""Producers, people, and what nothing else would end."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import psycopg
import pytest

from siorg_queue import (
    CHANNEL,
    EntityType,
    NewItem,
    Operation,
    Outcome,
    QueueStore,
    Status,
    Verdict,
    connect,
    transaction,
)
from support.queue import Queue


def units(*codes: int, operation: Operation = Operation.UPDATE) -> list[NewItem]:
    return [NewItem(EntityType.UNIT, code, operation, {"codigoUnidade": code}) for code in codes]


def test_an_entity_that_waits_is_not_added_again(store: QueueStore) -> None:
    assert store.enqueue(units(1, 2, 2, 3)) == 3
    assert store.enqueue(units(1, 2, 3, 4)) == 1
    assert store.enqueue(units(1, operation=Operation.CREATION)) == 0  # the same work
    assert store.enqueue(units(1, operation=Operation.EXTINCTION)) == 1  # other work
    assert store.depth().claimable == 5


def test_ends_come_after_everything_else_unless_it_is_said_otherwise(queue: Queue) -> None:
    queue.store.enqueue([*units(1), *units(2, operation=Operation.EXTINCTION), replace(*units(3), priority=1)])
    found = queue.connection.execute("SELECT siorg_code, priority FROM siorg_sync_queue ORDER BY siorg_code").fetchall()
    assert [row["priority"] for row in found] == [5, 6, 1]


@pytest.mark.parametrize(
    "columns",
    [
        {"status": "'COMPLETED'"},
        {"status": "'FAILED'"},
        {"status": "'PROCESSING'", "lease_expires_at": "now() + interval '1 h'"},
        {"attempts": "3"},
        {"expires_at": "now()"},
    ],
)
def test_what_will_not_be_worked_on_any_more_does_not_count_as_waiting(queue: Queue, columns: dict[str, str]) -> None:
    queue.insert(1, **columns)
    assert queue.store.enqueue(units(1)) == 1


def test_many_producers_at_once_add_each_entity_once(store: QueueStore, database_url: str) -> None:
    def produce(_: int) -> int:
        with connect(database_url, application_name="test") as own:
            return QueueStore(own).enqueue(units(*range(1, 301)), chunk=50)

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(produce, range(4))) == 300
    assert store.depth().claimable == 300


def notified(listener: psycopg.Connection[tuple[object, ...]]) -> int:
    """Notifications that were sent before now: the listener's own comes last."""
    listener.execute(f"NOTIFY {CHANNEL}, 'end'")
    count = 0
    for notify in listener.notifies():
        if notify.payload == "end":
            break
        count += 1
    return count


def test_new_work_is_announced_once_a_statement(queue: Queue, database_url: str) -> None:
    store = queue.store
    with psycopg.connect(database_url, autocommit=True) as listener:
        listener.execute(f"LISTEN {CHANNEL}")
        store.enqueue(units(*range(1, 101)))
        assert notified(listener) == 1
        store.enqueue(units(*range(1, 101)))
        assert notified(listener) == 0  # nothing was added
        queue.insert(500, scheduled_for="now() + interval '1 h'")
        assert notified(listener) == 0  # nothing to do yet
        items = queue.claim()
        store.finish([Verdict(item, Outcome.CONFLICT if item in items[:2] else Outcome.RETRY) for item in items])
        assert notified(listener) == 0  # claims and finishes are no news
        assert queue.decisions.reopen_conflict(items[0].id, {"resolution": "ACCEPT_SIORG"})
        assert notified(listener) == 1


def test_dangling_rows_each_get_their_end(queue: Queue) -> None:
    queue.insert(1, attempts="3")
    queue.insert(2, expires_at="now() - interval '1 h'")
    queue.insert(3, status="'PROCESSING'", last_attempt_at="now() - interval '1 h'")
    queue.insert(4, status="'PROCESSING'", attempts="3", losses="4", lease_expires_at="now() - interval '1 h'")
    queue.insert(5)
    queue.insert(6, status="'PROCESSING'", lease_expires_at="now() + interval '1 h'")
    queue.insert(7, status="'CONFLICT'")
    assert queue.store.reap() == {Status.FAILED: 2, Status.SKIPPED: 1, Status.PENDING: 1}
    statuses = " ".join(row["status"] for row in queue.rows())
    assert statuses == "FAILED SKIPPED PENDING FAILED PENDING PROCESSING CONFLICT"
    assert all(row["last_error"] for row in queue.rows()[:4])
    assert queue.store.reap() == {}


def test_cleanup_deletes_old_and_expired_rows_and_keeps_history(queue: Queue) -> None:
    old = "now() - interval '40 days'"
    lease = {"lease_expires_at": "now() + interval '1 h'"}
    keep = {
        queue.insert(1, status="'PROCESSING'", created_at=old, expires_at=old, **lease),
        queue.insert(2, status="'CONFLICT'", created_at=old, expires_at=old),
        queue.insert(3, created_at=old),
        queue.insert(4, status="'COMPLETED'", created_at=old, processed_at="now()"),
    }
    queue.insert(5, status="'COMPLETED'", created_at=old, processed_at=old)
    queue.insert(6, status="'FAILED'", created_at=old)
    queue.insert(7, expires_at=old)
    queue.insert(8, status="'SKIPPED'", processed_at=old)
    queue.insert(9, status="'COMPLETED'", created_at=old)
    queue.insert(10, status="'COMPLETED'", processed_at="now()", expires_at=old)
    queue.insert(11, status="'FAILED'", processed_at="now()", expires_at=old)
    queue.connection.execute(
        "INSERT INTO siorg_history (entity_type, siorg_code, change_type, sync_queue_id)"
        " SELECT 'UNIT', 1, 'UPDATE', id FROM siorg_sync_queue"
    )
    pages = [queue.store.cleanup_page(retention_days=30, limit=3)]
    while pages[-1].found == 3:
        pages.append(queue.store.cleanup_page(after=pages[-1].last, retention_days=30, limit=3))
    assert [page.deleted for page in pages] == [3, 3, 1]
    assert sum(page.unlinked for page in pages) == 7
    assert {row["id"] for row in queue.rows()} == keep
    links = [row["sync_queue_id"] for row in queue.connection.execute("SELECT sync_queue_id FROM siorg_history")]
    assert (len(links), set(links)) == (11, {*keep, None})


# -- people -------------------------------------------------------------------------------------------------------------


def test_retrying_opens_failed_items_with_all_their_attempts(queue: Queue) -> None:
    queue.insert(1, status="'FAILED'", attempts="3", error_details="""'{"kind": "x", "resolution": "MERGE"}'""")
    queue.insert(2, status="'FAILED'", attempts="3")
    queue.insert(3, status="'COMPLETED'")
    fourth = queue.insert(4, status="'FAILED'")
    assert queue.decisions.retry(ids=[fourth]) == 1
    assert queue.decisions.retry(codes=[1]) == 1
    assert queue.decisions.retry() == 1
    first, second, third, _ = queue.rows()
    assert (first["status"], first["attempts"], first["error_details"]) == ("PENDING", 0, {"resolution": "MERGE"})
    assert (second["status"], third["status"]) == ("PENDING", "COMPLETED")


def test_all_that_failed_is_opened_page_by_page_and_what_fails_again_meanwhile_is_not(queue: Queue) -> None:
    for code, ended in enumerate(
        ["'-infinity'", "NULL", "now() - interval '1 hour'", "now() + interval '1 year'", "'infinity'"], start=1
    ):
        queue.insert(code, status="'FAILED'", processed_at=ended)
    pages = []
    for opened in queue.decisions.retry_all(page=2):
        pages.append(opened)
        queue.connection.execute(  # as a worker does it
            "UPDATE siorg_sync_queue SET status = 'FAILED', processed_at = now(), failures = 7"
            " WHERE status = 'PENDING' AND siorg_code = 1"
        )
    assert pages == [2, 2, 1]
    assert [(row["status"], row["failures"]) for row in queue.rows()] == [("FAILED", 7), *[("PENDING", None)] * 4]


def test_a_persons_decisions_are_written_on_conflicts_only(queue: Queue) -> None:
    conflict = queue.insert(1, status="'CONFLICT'")
    done = queue.insert(2, status="'COMPLETED'")
    assert [entry.id for entry in queue.decisions.conflicts()] == [conflict]
    assert not queue.decisions.reopen_conflict(done, {"resolution": "ACCEPT_SIORG"})
    assert not queue.decisions.skip_conflict(done)
    assert queue.decisions.skip_conflict(conflict, notes="next week")
    assert (queue.rows()[0]["status"], queue.rows()[0]["resolution_notes"]) == ("SKIPPED", "next week")


def _complete(queue: Queue, operation: str = "UPDATE") -> int:
    """Complete an item of unit 1; returns how many conflicts that ended."""
    verdict = Verdict(queue.claim_one(1, operation=operation), Outcome.COMPLETED)
    with transaction(queue.connection):
        queue.store.finish_all([verdict], lambda: queue.store.end_older_conflicts([(verdict, datetime.now(UTC))]))
    return len([row for row in queue.rows() if (row["last_error"] or "").startswith("superseded")])


def test_conflicts_of_units_are_ended_and_nothing_else(queue: Queue) -> None:
    ended = {queue.insert(1, status="'CONFLICT'"), queue.insert(2, status="'CONFLICT'", held_at="now()")}
    queue.insert(3, status="'CONFLICT'")
    queue.insert(1, status="'CONFLICT'", entity_type="ORGANIZATION")
    queue.insert(1)
    queue.insert(2, status="'COMPLETED'")
    queue.store.end_conflicts([1, 2], "it ended")
    assert {row["id"] for row in queue.rows() if row["last_error"] == "it ended" and row["status"] == "SKIPPED"} == ended
    assert sum(row["status"] == "SKIPPED" for row in queue.rows()) == 2


def test_only_conflicts_of_the_same_entity_and_work_are_ended(queue: Queue) -> None:
    ended = {queue.insert(1, operation=operation, status="'CONFLICT'") for operation in ("HIERARCHY_CHANGE", "EXTINCTION")}
    queue.insert(1, operation="MERGE", status="'CONFLICT'")
    queue.insert(1, entity_type="CATEGORY", status="'CONFLICT'")
    queue.insert(2, status="'CONFLICT'")
    assert _complete(queue) == 2
    assert {row["id"] for row in queue.rows() if row["status"] == "SKIPPED"} == ended


def test_a_conflict_that_a_person_is_just_deciding_is_left_to_the_person(queue: Queue, database_url: str) -> None:
    conflict = queue.insert(1, status="'CONFLICT'")
    with connect(database_url, application_name="test person") as person, transaction(person):
        person.execute("SELECT FROM siorg_sync_queue WHERE id = %s FOR UPDATE", [conflict])
        assert _complete(queue) == 0
