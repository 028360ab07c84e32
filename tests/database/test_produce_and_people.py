"""Producers, people, and what nothing else would end."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from siorg_queue import (
    CHANNEL,
    Connection,
    EntityType,
    NewItem,
    Operation,
    Outcome,
    QueueStore,
    Status,
    Verdict,
    connect,
)
from support.queue import LEASE, insert, rows


def units(*codes: int, operation: Operation = Operation.UPDATE) -> list[NewItem]:
    return [NewItem(EntityType.UNIT, code, operation, {"codigoUnidade": code}) for code in codes]


def test_an_entity_that_waits_is_not_added_again(store: QueueStore) -> None:
    assert store.enqueue(units(1, 2, 2, 3)) == 3
    assert store.enqueue(units(1, 2, 3, 4)) == 1
    assert store.enqueue(units(1, operation=Operation.CREATION)) == 0  # the same work
    assert store.enqueue(units(1, operation=Operation.EXTINCTION)) == 1  # other work
    assert store.depth().claimable == 5


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
def test_what_will_not_be_worked_on_any_more_does_not_count_as_waiting(
    connection: Connection, store: QueueStore, columns: dict[str, str]
) -> None:
    insert(connection, siorg_code=1, **columns)
    assert store.enqueue(units(1)) == 1


def test_many_producers_at_once_add_each_entity_once(store: QueueStore, database_url: str) -> None:
    def produce(_: int) -> int:
        with connect(database_url, application_name="test") as own:
            return QueueStore(own).enqueue(units(*range(1, 301)), chunk=50)

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(produce, range(4))) == 300
    assert store.depth().claimable == 300


def listen(url: str) -> psycopg.Connection[tuple[object, ...]]:
    listener = psycopg.connect(url, autocommit=True)
    listener.execute(f"LISTEN {CHANNEL}")
    return listener


def notified(listener: psycopg.Connection[tuple[object, ...]]) -> int:
    """Notifications that were sent before now: the listener's own comes last."""
    listener.execute("NOTIFY siorg_sync_queue, 'end'")
    count = 0
    for notify in listener.notifies():
        if notify.payload == "end":
            break
        count += 1
    return count


def test_new_work_is_announced_once_a_statement(store: QueueStore, connection: Connection, database_url: str) -> None:
    with listen(database_url) as listener:
        store.enqueue(units(*range(1, 101)))
        assert notified(listener) == 1
        store.enqueue(units(*range(1, 101)))
        assert notified(listener) == 0  # nothing was added
        insert(connection, siorg_code=500, scheduled_for="now() + interval '1 h'")
        assert notified(listener) == 0  # nothing to do yet
        items = store.claim(100, lease=LEASE, worker="w").items
        store.finish([Verdict(item, Outcome.CONFLICT) for item in items[:2]] + [Verdict(i, Outcome.RETRY) for i in items[2:]])
        assert notified(listener) == 0  # claims and finishes are no news
        assert store.reopen_conflict(items[0].id, {"resolution": "ACCEPT_SIORG"})
        assert notified(listener) == 1


def test_dangling_rows_each_get_their_end(connection: Connection, store: QueueStore) -> None:
    insert(connection, siorg_code=1, attempts="3")
    insert(connection, siorg_code=2, expires_at="now() - interval '1 h'")
    insert(connection, siorg_code=3, status="'PROCESSING'", last_attempt_at="now() - interval '1 h'")
    insert(connection, siorg_code=4, status="'PROCESSING'", attempts="3", lease_expires_at="now() - interval '1 h'")
    insert(connection, siorg_code=5)
    insert(connection, siorg_code=6, status="'PROCESSING'", lease_expires_at="now() + interval '1 h'")
    insert(connection, siorg_code=7, status="'CONFLICT'")
    assert store.reap() == {Status.FAILED: 2, Status.SKIPPED: 1, Status.PENDING: 1}
    assert [row["status"] for row in rows(connection)] == [
        "FAILED",
        "SKIPPED",
        "PENDING",
        "FAILED",
        "PENDING",
        "PROCESSING",
        "CONFLICT",
    ]
    assert all(row["last_error"] for row in rows(connection)[:4])
    assert store.reap() == {}


def test_cleanup_deletes_old_and_expired_rows_and_keeps_history(connection: Connection, store: QueueStore) -> None:
    old = "now() - interval '40 days'"
    keep = {
        insert(
            connection,
            siorg_code=1,
            status="'PROCESSING'",
            created_at=old,
            expires_at=old,
            lease_expires_at="now() + interval '1 h'",
        ),
        insert(connection, siorg_code=2, status="'CONFLICT'", created_at=old, expires_at=old),
        insert(connection, siorg_code=3, created_at=old),
        insert(connection, siorg_code=4, status="'COMPLETED'", created_at=old, processed_at="now()"),
    }
    gone = [
        insert(connection, siorg_code=5, status="'COMPLETED'", created_at=old, processed_at=old),
        insert(connection, siorg_code=6, status="'FAILED'", created_at=old),
        insert(connection, siorg_code=7, expires_at=old),
        insert(connection, siorg_code=8, status="'SKIPPED'", processed_at=old),
    ]
    for id_ in [*keep, *gone]:
        connection.execute(
            "INSERT INTO siorg_history (entity_type, siorg_code, change_type, sync_queue_id) VALUES ('UNIT', 1, 'UPDATE', %s)",
            [id_],
        )
    after, deleted, unlinked, pages = None, 0, 0, 0
    while True:
        page = store.cleanup_page(after=after, retention_days=30, limit=3)
        deleted, unlinked, after, pages = deleted + page.deleted, unlinked + page.unlinked, page.last, pages + 1
        if page.scanned < 3:
            break
    assert (deleted, unlinked) == (4, 4)
    assert pages >= 3
    assert {row["id"] for row in rows(connection)} == keep
    links = [row["sync_queue_id"] for row in connection.execute("SELECT sync_queue_id FROM siorg_history")]
    assert len(links) == 8
    assert {link for link in links if link} == keep


def test_retrying_opens_failed_items_with_all_their_attempts(connection: Connection, store: QueueStore) -> None:
    insert(
        connection,
        siorg_code=1,
        status="'FAILED'",
        attempts="3",
        error_details="""'{"kind": "x", "resolution": "MERGE"}'""",
    )
    insert(connection, siorg_code=2, status="'FAILED'", attempts="3")
    insert(connection, siorg_code=3, status="'COMPLETED'")
    assert store.retry(codes=[1]) == 1
    assert store.retry() == 1
    first, second, third = rows(connection)
    assert (first["status"], first["attempts"], first["error_details"]) == ("PENDING", 0, {"resolution": "MERGE"})
    assert (second["status"], third["status"]) == ("PENDING", "COMPLETED")


def test_a_persons_decisions_are_written_on_conflicts_only(connection: Connection, store: QueueStore) -> None:
    conflict = insert(connection, siorg_code=1, status="'CONFLICT'")
    done = insert(connection, siorg_code=2, status="'COMPLETED'")
    assert [entry.id for entry in store.conflicts()] == [conflict]
    assert not store.reopen_conflict(done, {"resolution": "ACCEPT_SIORG"})
    assert not store.close_conflict(done, Status.SKIPPED)
    assert store.close_conflict(conflict, Status.COMPLETED, notes="kept ours")
    assert rows(connection)[0]["resolution_notes"] == "kept ours"
