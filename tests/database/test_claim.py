"""Claiming: exact, in order, by one predicate."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID

import pytest

from siorg_queue import Operation, Outcome, QueueStore, Status, Verdict, connect
from support.queue import LEASE, Queue


def test_takes_best_priority_first_and_oldest_first_within_it(queue: Queue) -> None:
    queue.insert(1, priority="5", scheduled_for="now() - interval '1 hour'")
    queue.insert(2, priority="1", scheduled_for="now() - interval '1 minute'")
    queue.insert(3, priority="1", scheduled_for="now() - interval '2 minutes'")
    queue.insert(4, priority="10", scheduled_for="now() - interval '9 hours'")
    assert [[item.siorg_code for item in queue.claim(3)] for _ in range(2)] == [[3, 2, 1], [4]]


def test_what_a_dead_worker_left_has_its_own_priority(queue: Queue) -> None:
    queue.insert(1, priority="9", status="'PROCESSING'", lease_expires_at="now() - interval '1 second'")
    queue.insert(2, priority="2")
    assert [[item.siorg_code for item in queue.claim(1)] for _ in range(2)] == [[2], [1]]


@pytest.mark.parametrize(
    "columns", [("priority",), ("scheduled_for",), ("attempts", "max_attempts"), ("status",),
                ("priority", "scheduled_for", "attempts", "max_attempts", "status")],
)  # fmt: skip
def test_reads_the_nulls_that_the_old_table_allows_as_its_defaults(queue: Queue, columns: tuple[str, ...]) -> None:
    queue.insert(7, **dict.fromkeys(columns, "NULL"))
    assert (queue.store.depth().claimable, queue.store.has_claimable()) == (1, True)
    (item,) = queue.claim()
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
def test_leaves_what_is_not_claimable(queue: Queue, columns: dict[str, str]) -> None:
    queue.insert(7, **columns)
    assert not queue.store.claim(5, lease=LEASE, worker="w")
    assert queue.store.depth().claimable == 0
    assert not queue.store.has_claimable()


def test_of_a_moment_that_is_now_an_item_is_due_and_expired_and_a_lease_has_run_out(queue: Queue) -> None:
    with queue.connection.transaction():  # in which it stays now
        queue.insert(7, expires_at="now()")
        queue.insert(8, scheduled_for="now()")
        queue.insert(9, status="'PROCESSING'", lease_expires_at="now()")
        assert {item.siorg_code for item in queue.claim(3)} == {8, 9}


def test_takes_what_a_person_decided_whatever_its_attempts(queue: Queue) -> None:
    decided = {"error_details": """'{"resolution": "ACCEPT_SIORG"}'""", "detected_changes": """'{"name": {"remote": "C"}}'"""}
    item = queue.claim_one(attempts="3", **decided)
    assert (item.attempts, item.detected_changes) == (1, {"name": {"remote": "C"}})


def test_takes_over_what_a_dead_worker_left_and_the_first_worker_without_a_lease(queue: Queue) -> None:
    lease = {"lease_token": "4", "lease_expires_at": "now() - interval '1 second'", "claimed_by": "'dead'"}
    queue.insert(7, status="'PROCESSING'", attempts="1", **lease)
    queue.insert(8, status="'PROCESSING'", attempts="1", last_attempt_at="now() - interval '1 day'")
    queue.insert(9, status="'PROCESSING'", attempts="6", last_attempt_at="now() - interval '1 day'")  # it counted twice
    claimed = {item.siorg_code: (item.attempts, item.lease_token) for item in queue.claim()}
    assert claimed == {7: (1, 5), 8: (1, 1), 9: (3, 1)}  # that a worker was lost counts no attempt


# -- lost workers ---------------------------------------------------------------------------------------------------------


def lose(queue: Queue, *, reaps: bool) -> None:
    queue.expire_leases()
    if reaps:
        queue.store.reap()


@pytest.mark.parametrize("reaps", [False, True])
def test_what_was_lost_with_others_twice_is_given_out_last_and_alone(queue: Queue, reaps: bool) -> None:
    for code in (1, 2, 3):
        queue.insert(code, priority="1")
    for _ in range(2):
        assert [(item.attempts, item.alone) for item in queue.claim()] == [(1, False)] * 3
        lose(queue, reaps=reaps)
    queue.insert(4)
    assert [item.siorg_code for item in queue.claim(worker="busy")] == [4]
    assert not queue.store.claim(5, lease=LEASE, worker="busy", alone=False)  # which holds that one
    assert [[(item.attempts, item.alone) for item in queue.claim()] for _ in range(4)] == [[(1, True)]] * 3 + [[]]


@pytest.mark.parametrize("reaps", [False, True])
@pytest.mark.parametrize("max_attempts", [1, 3])
def test_ends_an_item_that_kills_its_worker_when_it_is_alone_with_it(queue: Queue, max_attempts: int, reaps: bool) -> None:
    queue.insert(7, max_attempts=str(max_attempts))
    for worker in range(1, 2 + max_attempts + 1):
        (item,) = queue.claim(worker=f"w{worker}")
        assert (item.attempts, item.alone) == (1, worker > 2)
        lose(queue, reaps=reaps)
    claim = queue.store.claim(5, lease=LEASE, worker="w9")
    assert (claim.items, [lost.siorg_code for lost in claim.lost]) == ((), [] if reaps else [7])
    row = queue.row()
    assert (row["status"], row["error_details"]["kind"]) == ("FAILED", "worker_lost")
    said = f"worker w{2 + max_attempts} was lost while it held nothing but this item ({max_attempts} of {max_attempts})"
    assert row["last_error"] == said
    queue.decisions.retry()
    (item,) = queue.claim()
    assert (item.attempts, item.alone) == (1, True)


@pytest.mark.parametrize(("outcome", "alone"), [(Outcome.RETRY, False), (Outcome.COMPLETED, False), (Outcome.RELEASED, True)])
def test_what_its_worker_survived_is_no_suspect_any_more(queue: Queue, outcome: Outcome, alone: bool) -> None:
    item = queue.claim_one(losses="2")
    assert item.alone
    queue.store.finish([Verdict(item, outcome, delay_seconds=0)])
    queue.connection.execute("UPDATE siorg_sync_queue SET status = 'PENDING', scheduled_for = now()")
    assert [item.alone for item in queue.claim()] == [alone]


def test_gives_no_item_to_two_of_many_claimers(queue: Queue, database_url: str) -> None:
    queue.connection.execute(
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


def test_renewing_prolongs_only_what_is_still_ours(queue: Queue) -> None:
    for code in (1, 2, 3):
        queue.insert(code)
    first, second, third = queue.claim()
    queue.connection.execute("UPDATE siorg_sync_queue SET lease_token = lease_token + 1 WHERE id = %s", [second.id])
    queue.connection.execute("UPDATE siorg_sync_queue SET lease_expires_at = now() WHERE id = %s", [third.id])
    held = {item.id: item.lease_token for item in (first, second, third)}
    assert queue.store.renew(held, lease=timedelta(hours=1)) == {first.id}
    longer = "SELECT id FROM siorg_sync_queue WHERE lease_expires_at > now() + interval '30 minutes'"
    assert [row["id"] for row in queue.connection.execute(longer)] == [first.id]


def test_renewing_does_not_wait_for_a_row_that_is_being_applied(queue: Queue, database_url: str) -> None:
    queue.insert(1)
    queue.insert(2)
    items = queue.claim()
    with connect(database_url, application_name="test") as other:
        other.execute("BEGIN")
        other.execute("SELECT FROM siorg_sync_queue WHERE id = %s FOR NO KEY UPDATE", [items[0].id])
        assert queue.store.renew({item.id: item.lease_token for item in items}, lease=LEASE) == {item.id for item in items}
        other.execute("ROLLBACK")


def test_a_claim_whose_answer_was_lost_is_given_back(queue: Queue) -> None:
    queue.insert(1)
    queue.insert(2)
    known, unknown = queue.claim(worker="me")
    assert queue.store.release_unknown("me", [known.id]) == 1
    by_id = {row["id"]: row for row in queue.rows()}
    assert (by_id[unknown.id]["status"], by_id[unknown.id]["attempts"]) == (Status.PENDING, 0)
    assert by_id[known.id]["status"] == Status.PROCESSING
    assert known.operation == Operation.UPDATE
