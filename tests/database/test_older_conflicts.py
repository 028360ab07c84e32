"""Open conflicts that a later answer replaces."""

from __future__ import annotations

from datetime import UTC, datetime

from siorg_queue import Connection, Outcome, QueueStore, Verdict, connect, transaction
from support.queue import LEASE, insert, rows


def _complete(connection: Connection, store: QueueStore) -> int:
    """Complete the one item that waits; returns how many conflicts that ended."""
    (item,) = store.claim(10, lease=LEASE, worker="test").items
    verdict = Verdict(item, Outcome.COMPLETED)
    with transaction(connection):
        store.finish_within([verdict])
        return len(store.end_older_conflicts([(verdict, datetime.now(UTC))]))


def test_only_conflicts_of_the_same_entity_and_work_are_ended(connection: Connection, store: QueueStore) -> None:
    ended = insert(connection, siorg_code=1, operation="HIERARCHY_CHANGE", status="'CONFLICT'")
    insert(connection, siorg_code=1, operation="EXTINCTION", status="'CONFLICT'")
    insert(connection, siorg_code=1, operation="MERGE", status="'CONFLICT'")
    insert(connection, siorg_code=1, entity_type="CATEGORY", status="'CONFLICT'")
    insert(connection, siorg_code=2, status="'CONFLICT'")
    insert(connection, siorg_code=1)
    assert _complete(connection, store) == 1
    assert [row["id"] for row in rows(connection) if row["status"] == "SKIPPED"] == [ended]


def test_the_end_of_a_unit_ends_no_conflict(connection: Connection, store: QueueStore) -> None:
    insert(connection, siorg_code=1, status="'CONFLICT'")
    insert(connection, siorg_code=1, operation="EXTINCTION")
    assert _complete(connection, store) == 0


def test_a_conflict_that_a_person_is_just_deciding_is_left_to_the_person(
    connection: Connection, store: QueueStore, database_url: str
) -> None:
    conflict = insert(connection, siorg_code=1, status="'CONFLICT'")
    insert(connection, siorg_code=1)
    with connect(database_url, application_name="test person") as person, transaction(person):
        person.execute("SELECT FROM siorg_sync_queue WHERE id = %s FOR UPDATE", [conflict])
        assert _complete(connection, store) == 0
