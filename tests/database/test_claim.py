"""Claiming: exact, in order, by one predicate."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from siorg_queue import Connection, Operation, Outcome, QueueStore, Status, Verdict, connect
from support.queue import LEASE, insert, rows


def claim(store: QueueStore, limit: int = 100, worker: str = "w") -> list[int]:
    return [item.siorg_code for item in store.claim(limit, lease=LEASE, worker=worker).items]


def test_takes_exactly_what_was_asked_with_statistics_of_a_tiny_table(connection: Connection, store: QueueStore) -> None:
    insert(connection, siorg_code=1)
    connection.execute("ANALYZE siorg_sync_queue")
    connection.execute(
        "INSERT INTO siorg_sync_queue (entity_type, siorg_code, operation, payload, priority)"
        " SELECT 'UNIT', n, 'UPDATE', '{}', 1 + n % 10 FROM generate_series(2, 10001) AS n"
    )
    claimed = store.claim(10, lease=LEASE, worker="w").items
    assert len(claimed) == 10
    assert [item.priority for item in claimed] == [1] * 10
    assert store.counts().processing == 10


def test_takes_best_priority_first_and_oldest_first_within_it(connection: Connection, store: QueueStore) -> None:
    insert(connection, siorg_code=1, priority="5", scheduled_for="now() - interval '1 hour'")
    insert(connection, siorg_code=2, priority="1", scheduled_for="now() - interval '1 minute'")
    insert(connection, siorg_code=3, priority="1", scheduled_for="now() - interval '2 minutes'")
    insert(connection, siorg_code=4, priority="10", scheduled_for="now() - interval '9 hours'")
    assert claim(store, 3) == [3, 2, 1]
    assert claim(store, 3) == [4]


@pytest.mark.parametrize(
    "columns",
    [
        {"priority": "NULL"},
        {"scheduled_for": "NULL"},
        {"attempts": "NULL", "max_attempts": "NULL"},
        {"status": "NULL"},
        {"priority": "NULL", "scheduled_for": "NULL", "attempts": "NULL", "max_attempts": "NULL", "status": "NULL"},
    ],
)
def test_reads_the_nulls_that_the_old_table_allows_as_its_defaults(
    connection: Connection, store: QueueStore, columns: dict[str, str]
) -> None:
    insert(connection, siorg_code=7, **columns)
    assert store.depth().claimable == 1
    (item,) = store.claim(5, lease=LEASE, worker="w").items
    assert (item.siorg_code, item.priority, item.attempts, item.max_attempts) == (7, 5, 1, 3)


@pytest.mark.parametrize(
    "columns",
    [
        {"scheduled_for": "now() + interval '1 minute'"},
        {"expires_at": "now() - interval '1 second'"},
        {"attempts": "3"},
        {"status": "'COMPLETED'"},
        {"status": "'CONFLICT'"},
        {"status": "'PROCESSING'", "lease_expires_at": "now() + interval '1 minute'"},
        {"status": "'PROCESSING'", "last_attempt_at": "now()"},
    ],
)
def test_leaves_what_is_not_claimable(connection: Connection, store: QueueStore, columns: dict[str, str]) -> None:
    insert(connection, siorg_code=7, **columns)
    assert not store.claim(5, lease=LEASE, worker="w")
    assert store.depth().claimable == 0
    assert not store.has_claimable()


def test_takes_what_a_person_decided_whatever_its_attempts(connection: Connection, store: QueueStore) -> None:
    insert(connection, siorg_code=7, attempts="3", error_details="""'{"resolution": "ACCEPT_SIORG"}'""")
    (item,) = store.claim(5, lease=LEASE, worker="w").items
    assert item.attempts == 1


def test_takes_over_what_a_dead_worker_left(connection: Connection, store: QueueStore) -> None:
    insert(
        connection,
        siorg_code=7,
        status="'PROCESSING'",
        attempts="1",
        lease_token="4",
        lease_expires_at="now() - interval '1 second'",
        claimed_by="'dead'",
    )
    (item,) = store.claim(5, lease=LEASE, worker="w").items
    assert (item.attempts, item.lease_token) == (2, 5)


def test_takes_over_what_the_first_worker_left_without_a_lease(connection: Connection, store: QueueStore) -> None:
    insert(connection, siorg_code=7, status="'PROCESSING'", attempts="1", last_attempt_at="now() - interval '1 day'")
    assert claim(store) == [7]


def test_ends_an_item_that_keeps_killing_its_worker(connection: Connection, store: QueueStore) -> None:
    insert(connection, siorg_code=7)
    for attempt in (1, 2, 3):
        (item,) = store.claim(5, lease=LEASE, worker=f"w{attempt}").items
        assert item.attempts == attempt
        connection.execute("UPDATE siorg_sync_queue SET lease_expires_at = now() - interval '1 second'")
    claim_4 = store.claim(5, lease=LEASE, worker="w4")
    assert not claim_4.items
    assert [lost.siorg_code for lost in claim_4.lost] == [7]
    (row,) = rows(connection)
    assert (row["status"], row["attempts"]) == ("FAILED", 3)
    assert "w3 was lost during attempt 3" in row["last_error"]
    assert not store.claim(5, lease=LEASE, worker="w5")


def test_gives_no_item_to_two_of_many_claimers(connection: Connection, database_url: str) -> None:
    connection.execute(
        "INSERT INTO siorg_sync_queue (entity_type, siorg_code, operation, payload, priority)"
        " SELECT 'UNIT', n, 'UPDATE', '{}', 1 + n % 3 FROM generate_series(1, 600) AS n"
    )

    def drain(worker: int) -> list[UUID]:
        taken: list[UUID] = []
        with connect(database_url, application_name="test") as own:
            mine = QueueStore(own)
            while items := mine.claim(7, lease=LEASE, worker=str(worker)).items:
                taken += [item.id for item in items]
        return taken

    with ThreadPoolExecutor(8) as pool:
        taken = [id_ for ids in pool.map(drain, range(8)) for id_ in ids]
    assert len(taken) == len(set(taken)) == 600


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "status": st.sampled_from(["NULL", "'PENDING'", "'PROCESSING'", "'FAILED'", "'COMPLETED'", "'CONFLICT'"]),
                "priority": st.sampled_from(["NULL", "1", "5", "10"]),
                "attempts": st.sampled_from(["NULL", "0", "2", "3", "4"]),
                "scheduled_for": st.sampled_from(["NULL", "now() - interval '1 h'", "now() + interval '1 h'"]),
                "expires_at": st.sampled_from(["NULL", "now() - interval '1 h'", "now() + interval '1 h'"]),
                "lease_expires_at": st.sampled_from(["NULL", "now() - interval '1 h'", "now() + interval '1 h'"]),
                "last_attempt_at": st.sampled_from(["NULL", "now()", "now() - interval '1 h'"]),
                "error_details": st.sampled_from(["NULL", "'[]'", "'3'", """'{"resolution": "MERGE"}'"""]),
            }
        ),
        max_size=12,
    )
)
def test_claims_what_the_depth_counts_and_nothing_dangles(
    connection: Connection, store: QueueStore, states: list[dict[str, str]]
) -> None:
    connection.execute("TRUNCATE siorg_sync_queue CASCADE")
    for number, columns in enumerate(states):
        insert(connection, siorg_code=number + 1, **columns)
    depth = store.depth().claimable
    assert depth == store.counts().claimable
    taken = store.claim(100, lease=LEASE, worker="w")
    assert len(taken.items) + len(taken.lost) == depth
    store.finish([Verdict(item, Outcome.COMPLETED) for item in taken.items])
    store.reap()
    counts = store.counts()
    assert (counts.claimable, counts.spent, counts.expired, counts.abandoned) == (0, 0, 0, 0)


def test_the_next_due_moment_is_known(connection: Connection, store: QueueStore) -> None:
    assert store.next_due_seconds() is None
    insert(connection, siorg_code=1, scheduled_for="now() + interval '30 seconds'")
    seconds = store.next_due_seconds()
    assert seconds is not None
    assert 25 < seconds <= 30
    insert(connection, siorg_code=2)
    assert store.next_due_seconds() == 0


def test_renewing_prolongs_only_what_is_still_ours(connection: Connection, store: QueueStore) -> None:
    for code in (1, 2, 3):
        insert(connection, siorg_code=code)
    first, second, third = store.claim(3, lease=timedelta(seconds=5), worker="w").items
    connection.execute("UPDATE siorg_sync_queue SET lease_token = lease_token + 1 WHERE id = %s", [second.id])
    connection.execute("UPDATE siorg_sync_queue SET lease_expires_at = now() WHERE id = %s", [third.id])
    ours = store.renew({item.id: item.lease_token for item in (first, second, third)}, lease=timedelta(hours=1))
    assert ours == {first.id}
    (row,) = connection.execute(
        "SELECT lease_expires_at > now() + interval '30 minutes' AS longer FROM siorg_sync_queue WHERE id = %s",
        [first.id],
    )
    assert row["longer"]


def test_renewing_does_not_wait_for_a_row_that_is_being_applied(
    connection: Connection, store: QueueStore, database_url: str
) -> None:
    insert(connection, siorg_code=1)
    insert(connection, siorg_code=2)
    items = store.claim(2, lease=LEASE, worker="w").items
    with connect(database_url, application_name="test") as other:
        other.execute("BEGIN")
        other.execute("SELECT FROM siorg_sync_queue WHERE id = %s FOR NO KEY UPDATE", [items[0].id])
        assert store.renew({item.id: item.lease_token for item in items}, lease=LEASE) == {item.id for item in items}
        other.execute("ROLLBACK")


def test_a_claim_whose_answer_was_lost_is_given_back(connection: Connection, store: QueueStore) -> None:
    for code in (1, 2):
        insert(connection, siorg_code=code)
    known, unknown = store.claim(2, lease=LEASE, worker="me").items
    assert store.release_unknown("me", [known.id]) == 1
    by_id = {row["id"]: row for row in rows(connection)}
    assert (by_id[unknown.id]["status"], by_id[unknown.id]["attempts"]) == (Status.PENDING, 0)
    assert by_id[known.id]["status"] == Status.PROCESSING
    assert known.operation == Operation.UPDATE


def test_items_scheduled_for_an_infinite_time_have_no_age(connection: Connection, store: QueueStore) -> None:
    insert(connection, siorg_code=1, scheduled_for="'infinity'")
    assert store.next_due_seconds() is None
    insert(connection, siorg_code=2, scheduled_for="'-infinity'")
    assert (store.next_due_seconds(), store.depth().claimable, store.depth().oldest_due_seconds) == (0, 1, None)
    assert store.counts().oldest_due_seconds is None
