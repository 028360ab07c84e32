"""How young an answer has to be for an item: said by producers, noted on what is open, told at the claim and at the fence."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from uuid import UUID

import pytest

from siorg_queue import Connection, EntityType, Item, NewItem, Operation, Outcome, QueueStore, Verdict, connect, transaction
from support.local_structure import wait_until
from support.queue import Queue

LATER = timedelta(seconds=1)


@pytest.fixture
def started(connection: Connection) -> datetime:
    """A moment before the test, by the database's clock."""
    return clock(connection) - timedelta(minutes=1)


def clock(connection: Connection) -> datetime:
    row = connection.execute("SELECT clock_timestamp() AS now").fetchone()
    assert row is not None
    now: datetime = row["now"]
    return now


def new(code: int = 1, needed_at: datetime | None = None, operation: Operation = Operation.UPDATE) -> NewItem:
    return NewItem(EntityType.UNIT, code, operation, needed_at=needed_at)


def needed(queue: Queue) -> dict[int, datetime]:
    return {item.siorg_code: item.needed_at for item in queue.claim()}


def test_enqueueing_twice_adds_nothing_and_notes_the_greatest(queue: Queue, started: datetime) -> None:
    enqueue = queue.store.enqueue
    assert enqueue([new(1, started + LATER), new(1, started + 3 * LATER), new(1, started), new(2, started)]) == 2
    assert enqueue([new(1, started + 2 * LATER), new(2, started + LATER, Operation.CREATION)]) == 0
    assert enqueue([new(2, started + 5 * LATER, Operation.EXTINCTION)]) == 1  # other work says nothing about this
    queue.connection.execute("DELETE FROM siorg_sync_queue WHERE operation = 'EXTINCTION'")
    assert needed(queue) == {1: started + 3 * LATER, 2: started + LATER}


def test_without_a_time_it_is_needed_from_the_enqueueing_on(queue: Queue, started: datetime) -> None:
    queue.store.enqueue([new(1, started)])
    before = clock(queue.connection)
    assert queue.store.enqueue([new(1), new(2)]) == 1
    after = clock(queue.connection)
    assert all(before <= moment <= after for moment in needed(queue).values())


def test_a_row_of_a_writer_that_knows_no_needed_at_counts_from_its_creation(queue: Queue, started: datetime) -> None:
    for code in (1, 2):
        queue.insert(code, created_at=f"'{started}'")
    assert queue.store.enqueue([new(1, started - LATER)]) == 0
    assert queue.store.enqueue([new(2, started + LATER)]) == 0
    assert needed(queue) == {1: started, 2: started + LATER}


@pytest.mark.parametrize("column", ["needed_at", "created_at"])
def test_a_time_that_has_not_come_yet_is_taken_for_now(queue: Queue, column: str) -> None:
    queue.insert(1, **{column: "now() + interval '1 year'"})
    (item,) = queue.claim()
    assert item.needed_at <= clock(queue.connection)
    assert fence(queue, item) == item.needed_at
    assert queue.store.enqueue([new(2, clock(queue.connection) + timedelta(days=1))]) == 1
    assert needed(queue)[2] <= clock(queue.connection)


def fence(queue: Queue, item: Item) -> datetime:
    with transaction(queue.connection):
        return queue.store.fence([item], lock_seconds=2)[item.id]


def test_a_row_in_work_is_noted_on_and_gets_a_successor(queue: Queue, started: datetime) -> None:
    item = queue.claim_one(created_at=f"'{started}'")
    assert fence(queue, item) == item.needed_at == started
    assert queue.store.enqueue([new(1, started + LATER)]) == 1
    assert fence(queue, item) == started + LATER
    assert queue.store.enqueue([new(1, started + 2 * LATER)]) == 0  # the successor waits
    assert needed(queue) == {1: started + 2 * LATER}
    queue.store.finish([Verdict(item, Outcome.RELEASED)])
    assert needed(queue) == {1: started + 2 * LATER}


def _while_locked(queue: Queue, url: str, change: Callable[[QueueStore], object], then: Callable[[QueueStore], int]) -> int:
    """What ``then`` returns that was called while the transaction of ``change`` was open, and had to wait for its end."""
    waiting = "SELECT FROM pg_stat_activity WHERE application_name = 'test producer' AND wait_event_type = 'Lock'"
    with (
        connect(url, application_name="test worker") as worker,
        connect(url, application_name="test producer") as producer,
        ThreadPoolExecutor(1) as pool,
    ):
        with transaction(worker):
            change(QueueStore(worker))
            answer = pool.submit(then, QueueStore(producer))
            wait_until(lambda: queue.connection.execute(waiting).fetchone() is not None)
        return answer.result()


def test_a_row_that_is_finished_meanwhile_is_looked_at_again(queue: Queue, database_url: str, started: datetime) -> None:
    one, two = (queue.claim_one(code, created_at=f"'{started}'") for code in (1, 2))
    verdicts = [Verdict(one, Outcome.COMPLETED), Verdict(two, Outcome.RELEASED)]
    items = [new(1, started + LATER), new(2, started + LATER)]
    added = _while_locked(queue, database_url, lambda store: store.finish_within(verdicts), lambda store: store.enqueue(items))
    assert added == 1  # of the completed one; the other waits again
    assert [(row["siorg_code"], row["status"]) for row in queue.rows()] == [(1, "COMPLETED"), (1, "PENDING"), (2, "PENDING")]
    assert needed(queue) == {1: started + LATER, 2: started + LATER}


_BY_THE_API_SERVER = """UPDATE siorg_sync_queue SET status = 'PENDING', error_details = '{"resolution": "MERGE"}'"""


@pytest.mark.parametrize(
    ("status", "open_again"),
    [
        ("FAILED", lambda queue, _: queue.decisions.retry()),
        ("CONFLICT", lambda queue, id_: queue.decisions.reopen_conflict(id_, {"resolution": "ACCEPT_SIORG"})),
        ("CONFLICT", lambda queue, _: queue.connection.execute(_BY_THE_API_SERVER)),
    ],
)
def test_what_is_opened_again_needs_an_answer_from_then_on(
    queue: Queue, started: datetime, status: str, open_again: Callable[[Queue, UUID], object]
) -> None:
    id_ = queue.insert(1, status=f"'{status}'", needed_at=f"'{started}'")
    before = clock(queue.connection)
    open_again(queue, id_)
    after = clock(queue.connection)
    assert before <= needed(queue)[1] <= after


def _payload(organization: object) -> str:
    return f"""'{{"codigoUnidade": "x", "codigoOrgaoEntidade": {organization}}}'"""


_OURS = '"https://estruturaorganizacional.dados.gov.br/id/unidade-organizacional/471"'
_THEIRS = '"https://estruturaorganizacional.dados.gov.br/id/unidade-organizacional/1471"'
_IN_WORK = {"status": "'PROCESSING'", "lease_expires_at": "now() + interval '1 h'"}


@pytest.mark.parametrize(
    ("columns", "by_list", "by_structure"),
    [
        ({"siorg_code": 900}, True, True),
        ({"siorg_code": 900, **_IN_WORK}, True, True),
        ({"siorg_code": 900, "operation": "EXTINCTION"}, True, True),
        ({"siorg_code": 900, "scheduled_for": "now() + interval '1 h'"}, True, True),
        ({"siorg_code": 471, "entity_type": "ORGANIZATION"}, True, True),
        ({"siorg_code": 900, "entity_type": "CATEGORY"}, False, False),
        ({"siorg_code": 900, "status": "'COMPLETED'"}, False, False),
        ({"siorg_code": 901, "payload": _payload(_OURS)}, False, True),
        ({"siorg_code": 901, "payload": _payload(471)}, False, True),
        ({"siorg_code": 901, "payload": _payload('"0471/ "')}, False, True),
        ({"siorg_code": 901, "payload": _payload(_OURS), **_IN_WORK}, False, True),
        ({"siorg_code": 901, "payload": _payload(_THEIRS)}, False, False),
        ({"siorg_code": 901, "payload": _payload(_THEIRS), **_IN_WORK}, False, False),
        ({"siorg_code": 901, "payload": _payload("null")}, False, False),  # asked for by itself, when it is claimed
        ({"siorg_code": 901, "payload": "'[]'", **_IN_WORK}, False, True),
    ],
)
def test_an_answer_is_noted_on_what_is_open_about_its_units(
    queue: Queue, started: datetime, columns: dict[str, object], by_list: bool, by_structure: bool
) -> None:
    values = {"entity_type": "UNIT", "operation": "UPDATE", "payload": "'{}'", **columns}
    quoted = {key: f"'{value}'" if key in ("entity_type", "operation") else value for key, value in values.items()}
    queue.connection.execute(
        f"INSERT INTO siorg_sync_queue ({', '.join(quoted)}, created_at)"
        f" VALUES ({', '.join(map(str, quoted.values()))}, '{started}')".encode()
    )
    codes = [471, 900, 950]
    assert queue.store.note(started - LATER, codes, organization=471) == 0  # an older answer
    assert queue.store.note(started + LATER, codes) == by_list
    assert queue.store.note(started + 2 * LATER, codes, organization=471) == by_structure
    assert queue.store.note(started + 2 * LATER, codes, organization=471) == 0
    expected = started + 2 * LATER if by_structure else None
    assert queue.row()["needed_at"] == expected


def test_noting_waits_for_what_is_being_applied(queue: Queue, database_url: str, started: datetime) -> None:
    item = queue.claim_one(900, created_at=f"'{started}'")
    done = [Verdict(item, Outcome.COMPLETED)]
    noted = _while_locked(
        queue, database_url, lambda store: store.finish_within(done), lambda store: store.note(started + LATER, [900])
    )
    assert noted == 0  # what it wrote is there to be seen now
