"""The claim and the operator's look stay cheap however many finished, future, spent and dead rows lie beside what is due."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from siorg_queue import COUNTED, Connection, QueueStore, connect
from siorg_queue.session import BY_INDEX
from siorg_queue.statements import load
from support import explain
from support.explain import per_node
from support.postgres import Postgres

BATCH = 10
DUE = 2_000
FUTURE = 60_000

_CLAIM = load("siorg_queue", "claim.sql")["claim"]
_OBSERVE = load("siorg_queue", "observe.sql")["observe"]
_COUNTS = load("siorg_queue", "depth.sql")["counts"]


def add(connection: Connection, count: int, *, first: int = 0, **columns: str) -> None:
    """Rows by the thousand; columns are SQL expressions, ``n`` is the number of the row."""
    row = {"priority": "1 + n % 10", "scheduled_for": "now() - make_interval(secs => n % 3600)", "attempts": "0", **columns}
    connection.execute(
        f"INSERT INTO siorg_sync_queue (entity_type, siorg_code, operation, payload, {', '.join(row)})"
        f" SELECT 'UNIT', {first} + n, 'UPDATE', '{{}}', {', '.join(row.values())} FROM generate_series(1, {count}) AS n".encode()
    )


def explained(connection: Connection, statement: str, **options: Any) -> tuple[int, dict[str, Any]]:
    """Shared buffers of a statement that runs warm, and its plan; see ``explain.explained``."""
    plan = explain.explained(connection, statement, **options)
    return explain.buffers(plan), plan


def claimed(connection: Connection) -> tuple[int, dict[str, Any]]:
    """The same of one claim."""
    return explained(connection, _CLAIM, limit=BATCH, lease_seconds=60.0, worker="plan")


def walks_the_queue(plan: dict[str, Any]) -> bool:
    own = plan["Node Type"] == "Seq Scan" and plan.get("Relation Name") == "siorg_sync_queue"
    return own or any(walks_the_queue(below) for below in plan.get("Plans", []))


@pytest.fixture(scope="module")
def small(postgres: Postgres) -> int:
    """What the claim reads where nothing but work that is due is in the table."""
    url = postgres.database()
    with connect(url, application_name="test") as connection:
        add(connection, DUE)
        connection.execute("VACUUM ANALYZE siorg_sync_queue")
        buffers, plan = claimed(connection)
        print(f"small table: {buffers} buffers\n{per_node(plan)}")  # noqa: T201 - the figure is the result
    postgres.drop(url)
    return buffers


@pytest.fixture(scope="module")
def idle(postgres: Postgres) -> Iterator[Connection]:
    """A million finished, 60,000 future, 15,000 spent, 3,000 failed and 200 conflicting rows; nothing is due."""
    url = postgres.database()
    with connect(url, application_name="test") as connection:
        # As it is outside of tests: a vacuum right after commits that wait for nothing cannot see yet that they lasted.
        connection.execute("SET synchronous_commit = on")
        some = "1 + n % 3"
        finished = "now() - make_interval(secs => n)"
        in_turn = "('00000000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid"  # random ones take three times as long
        add(connection, 1_000_000, first=10_000_000, id=in_turn, status="'COMPLETED'", attempts="1", processed_at=finished)
        add(connection, FUTURE, first=20_000_000, priority=some, scheduled_for="now() + make_interval(secs => 3600 + n)")
        add(connection, 15_000, first=30_000_000, priority=some, attempts="3", scheduled_for="now() - interval '2 days'")
        add(connection, 3_000, first=40_000_000, status="'FAILED'", attempts="3", processed_at="now()")
        add(connection, 200, first=50_000_000, status="'CONFLICT'", attempts="1")
        yield connection
    postgres.drop(url)


@pytest.fixture(scope="module")
def large(idle: Connection) -> Connection:
    """And 15,000 that were claimed and completed batch by batch, and some that are due. What looks at ``idle`` comes before."""
    add(idle, 15_000, first=60_000_000, priority="1 + n % 3", scheduled_for="now() - interval '1 day'")
    # As workers do it, only coarser: each row is updated twice, at the very head of the queue.
    for _ in range(15):
        idle.execute(_CLAIM, {"limit": 1_000, "lease_seconds": 60.0, "worker": "plan"})
        idle.execute(
            "UPDATE siorg_sync_queue SET status = 'COMPLETED', processed_at = now(), lease_expires_at = NULL,"
            " claimed_by = NULL WHERE status = 'PROCESSING'"
        )
    add(idle, DUE)
    return idle


# -- the operator's look ------------------------------------------------------------------------------------------------


def test_a_look_walks_no_finished_rows_even_with_no_statistics(idle: Connection) -> None:
    _, plan = explained(idle, _OBSERVE, first=BY_INDEX)
    assert not walks_the_queue(plan), per_node(plan)


def test_a_look_reads_of_future_and_ended_rows_the_index_alone(idle: Connection) -> None:
    idle.execute("VACUUM ANALYZE siorg_sync_queue")

    buffers, plan = explained(idle, _OBSERVE, first=BY_INDEX)

    seen = idle.execute(_OBSERVE).fetchone()
    print(f"idle look: {buffers} buffers\n{per_node(plan)}")  # noqa: T201 - the figure is the result
    assert seen is not None
    assert (seen["claimable"], seen["scheduled"], seen["failed"], seen["conflict"]) == (0, COUNTED + 1, 3_000, 200)
    # An index page has some 250 of the rows that wait; the table's pages have 55.
    assert buffers <= FUTURE / 150, per_node(plan)
    assert not walks_the_queue(plan), per_node(plan)


def test_a_run_on_an_empty_queue_walks_no_finished_rows(idle: Connection) -> None:
    """It ends what dangles, looks for work, and asks when the next is due."""
    for file, name in (("dangling.sql", "reap"), ("depth.sql", "claimable_exists"), ("depth.sql", "next_due")):
        buffers, plan = explained(idle, load("siorg_queue", file)[name].replace("%(limit)s", "1000"))
        print(f"idle {name}: {buffers} buffers")  # noqa: T201
        assert not walks_the_queue(plan), per_node(plan)


def test_a_look_at_due_rows_reads_little_more_than_those(idle: Connection) -> None:
    idle.execute("VACUUM ANALYZE siorg_sync_queue")
    before, _ = explained(idle, _OBSERVE, first=BY_INDEX)
    add(idle, DUE, first=70_000_000)

    buffers, plan = explained(idle, _OBSERVE, first=BY_INDEX)

    print(f"idle: {before} buffers, {DUE} due: {buffers}")  # noqa: T201
    # Of rows that no vacuum has seen yet the table's pages are looked at: once to count them, once for their times.
    assert buffers <= before + 3 * DUE, per_node(plan)


# -- producers ----------------------------------------------------------------------------------------------------------


def test_a_discovery_reads_nothing_of_what_waits_for_other_organizations(idle: Connection) -> None:
    note = load("siorg_queue", "produce.sql")["note"]
    buffers, plan = explained(idle, note, asked_at=datetime.now(UTC), codes=list(range(1, 101)), organization=471)
    print(f"idle note: {buffers} buffers\n{per_node(plan)}")  # noqa: T201
    assert buffers <= 1000, per_node(plan)  # a hundred codes, each looked for in one index of four levels, of two kinds
    assert not walks_the_queue(plan), per_node(plan)


# -- the claim ----------------------------------------------------------------------------------------------------------


def test_the_claim_reads_no_more_of_a_huge_table_than_of_a_small_one(large: Connection, small: int) -> None:
    large.execute("VACUUM ANALYZE siorg_sync_queue")

    buffers, plan = claimed(large)

    print(f"large table: {buffers} buffers, small: {small}\n{per_node(plan)}")  # noqa: T201
    assert buffers <= 2 * small, per_node(plan)
    assert plan["Actual Rows"] == BATCH
    assert not walks_the_queue(plan), per_node(plan)


def test_what_has_to_be_worked_on_alone_is_found_by_its_own_index(large: Connection) -> None:
    large.execute("BEGIN")
    large.execute("UPDATE siorg_sync_queue SET losses = 2 WHERE siorg_code IN (1, 2, 3) AND status = 'PENDING'")
    with psycopg.ClientCursor(large) as cursor:
        text = cursor.mogrify(load("siorg_queue", "claim.sql")["claim_alone"], {"lease_seconds": 60.0, "worker": "plan"})
    row = large.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {text}".encode()).fetchone()
    large.execute("ROLLBACK")
    assert row is not None
    plan = row["QUERY PLAN"][0]["Plan"]
    assert plan["Actual Rows"] == 1
    assert explain.buffers(plan) <= 200, per_node(plan)
    assert not walks_the_queue(plan), per_node(plan)


def test_with_statistics_from_before_a_bulk_insert_the_claim_reads_no_more(postgres: Postgres, small: int) -> None:
    url = postgres.database()
    with connect(url, application_name="test") as connection:
        add(connection, 1)
        connection.execute("ANALYZE siorg_sync_queue")
        add(connection, 50_000, first=100)
        buffers, plan = claimed(connection)
        print(f"stale statistics: {buffers} buffers, small: {small}")  # noqa: T201
        assert buffers <= 2 * small, per_node(plan)
        assert plan["Actual Rows"] == BATCH
    postgres.drop(url)


# -- whatever the statistics say ----------------------------------------------------------------------------------------

FINISHED = 100_000
PAGE = 1_000


@pytest.fixture(scope="module", params=["of the empty table", f"of {FINISHED} COMPLETED rows"])
def finished(postgres: Postgres, request: pytest.FixtureRequest) -> Iterator[Connection]:
    """100,000 COMPLETED rows, and then others of each kind that nobody has taken statistics of."""
    url = postgres.database()
    with connect(url, application_name="test") as connection:
        connection.execute("ALTER TABLE siorg_sync_queue SET (autovacuum_enabled = false)")
        connection.execute("ANALYZE siorg_sync_queue")
        ago = "now() - make_interval(mins => n)"  # 69 days
        add(connection, FINISHED, first=10_000_000, status="'COMPLETED'", attempts="1", processed_at=ago)
        if request.param != "of the empty table":
            connection.execute("VACUUM ANALYZE siorg_sync_queue")
        add(connection, 30_000, first=20_000_000, status="'SKIPPED'", attempts="1", processed_at=ago)
        add(connection, 3_000, first=30_000_000, status="'FAILED'", attempts="3", processed_at=ago)
        add(connection, 100, first=40_000_000, status="'CONFLICT'", attempts="1")
        add(connection, DUE, first=50_000_000)
        add(connection, 1_000, first=60_000_000, scheduled_for="now() + interval '1 hour'")
        yield connection
    postgres.drop(url)


def test_counts_read_what_waits_and_no_more_than_so_many_of_what_is_done(finished: Connection) -> None:
    for name, statement, most in (
        # Each row that waits is looked at twice, in a table that no vacuum has seen; index entries of one status are 300 a page.
        ("counts", _COUNTS, 3 * DUE + 2 * COUNTED // 50),
        ("observe", _OBSERVE, 3 * DUE),
        ("depth", load("siorg_queue", "depth.sql")["depth"], 2 * DUE),
    ):
        buffers, plan = explained(finished, statement, first=BY_INDEX)
        print(f"{name}: {buffers} buffers")  # noqa: T201
        assert buffers <= most, f"{name}: {buffers}\n{per_node(plan)}"
    counts = QueueStore(finished).counts()
    assert (counts.claimable, counts.due, counts.scheduled, counts.at_least) == (DUE, DUE, 1_000, False)
    assert (counts.failed, counts.conflict, counts.skipped > COUNTED, counts.estimated) == (3_000, 100, True, True)


def test_what_is_due_is_counted_so_far_and_the_oldest_is_found_behind_that(finished: Connection) -> None:
    finished.execute("BEGIN")
    add(finished, 2 * COUNTED, first=70_000_000, priority="1")
    add(finished, 1, first=80_000_000, priority="10", scheduled_for="now() - interval '2 days'")
    buffers = {}
    for name, statement in (("observe", _OBSERVE), ("depth", load("siorg_queue", "depth.sql")["depth"])):
        finished.execute(BY_INDEX)
        seen = finished.execute(statement).fetchone()
        assert seen is not None
        assert (seen["claimable"], seen["at_least"]) == (COUNTED + 1, True)
        assert seen["oldest_due_seconds"] == pytest.approx(2 * 86_400, abs=1)
        row = finished.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}".encode()).fetchone()
        assert row is not None
        buffers[name] = explain.buffers(row["QUERY PLAN"][0]["Plan"])
    finished.execute("ROLLBACK")
    print(f"{2 * COUNTED} due: {buffers}")  # noqa: T201
    assert max(buffers.values()) <= 1.2 * COUNTED + 2_000, buffers


def test_a_page_of_a_retry_reads_what_it_opens(finished: Connection) -> None:
    retry = load("siorg_queue", "failures.sql")["retry_page"]
    buffers, plan = explained(finished, retry, first=BY_INDEX, after="-infinity", began=datetime.now(UTC), limit=PAGE)
    print(f"retry: {buffers} buffers")  # noqa: T201
    # Each row is found, locked, changed, and its new version goes into each index of what waits.
    assert buffers <= 30 * PAGE, per_node(plan)
    assert not walks_the_queue(plan), per_node(plan)


def test_a_page_of_a_cleanup_reads_what_it_deletes(finished: Connection) -> None:
    for days, after in ((30, "-infinity"), (60, "-infinity"), (3650, "-infinity"), (1, "2000-01-01")):
        values = {"after": after, "limit": PAGE, "retention_days": days}
        buffers, plan = explained(finished, load("siorg_queue", "dangling.sql")["cleanup"], first=BY_INDEX, **values)
        print(f"cleanup of {days} days: {buffers} buffers")  # noqa: T201
        # Each row once in the order of its end, once by key, and its lock.
        assert buffers <= 5 * PAGE, per_node(plan)
