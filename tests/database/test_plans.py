"""The claim stays cheap however many finished, future, spent and dead rows lie beside what is due."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from siorg_queue import Connection, connect
from siorg_queue.statements import load
from support.postgres import Postgres

BATCH = 10
DUE = 2_000

_INSERT = """
INSERT INTO siorg_sync_queue
    (entity_type, siorg_code, operation, priority, payload, status, attempts, max_attempts, scheduled_for, processed_at)
SELECT 'UNIT', {first} + n, 'UPDATE', {priority}, '{{}}', '{status}', {attempts}, 3, {scheduled_for}, {processed_at}
FROM generate_series(1, {count}) AS n
"""


def add(
    connection: Connection,
    count: int,
    *,
    first: int = 0,
    priority: str = "1 + n % 10",
    status: str = "PENDING",
    attempts: int = 0,
    scheduled_for: str = "now() - make_interval(secs => n % 3600)",
    processed_at: str = "NULL",
) -> None:
    connection.execute(
        _INSERT.format(
            count=count, first=first, priority=priority, status=status, attempts=attempts,
            scheduled_for=scheduled_for, processed_at=processed_at,
        ).encode()
    )  # fmt: skip


def buffers_of_claim(connection: Connection) -> tuple[int, dict[str, Any]]:
    """Shared buffers of one warm claim, and its plan. Rolled back."""
    claim = load("siorg_queue", "claim.sql")["claim"]
    parameters = {"limit": BATCH, "lease_seconds": 60.0, "worker": "plan"}
    plan: dict[str, Any] = {}
    for _ in range(2):  # the second time: what the first one cleared of hints is not counted
        with psycopg.ClientCursor(connection) as cursor:
            text = cursor.mogrify(claim, parameters)
        connection.execute("BEGIN")
        try:
            row = connection.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {text}".encode()).fetchone()
        finally:
            connection.execute("ROLLBACK")
        assert row is not None
        plan = row["QUERY PLAN"][0]["Plan"]
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], plan


def per_node(plan: dict[str, Any], depth: int = 0) -> str:
    """The buffers of each part of a plan, for a person to find what grew."""
    name = f"{plan['Node Type']} {plan.get('Index Name', plan.get('Relation Name', plan.get('CTE Name', '')))}"
    line = (
        f"{'  ' * depth}{name}: {plan['Shared Hit Blocks'] + plan['Shared Read Blocks']} buffers,"
        f" {plan['Actual Rows']} rows x {plan['Actual Loops']}"
    )
    return "\n".join([line, *(per_node(below, depth + 1) for below in plan.get("Plans", []))])


def scanned(plan: dict[str, Any]) -> Iterator[str]:
    if "Index Name" in plan or plan["Node Type"] == "Seq Scan":
        yield plan.get("Index Name", f"Seq Scan {plan.get('Relation Name')}")
    for below in plan.get("Plans", []):
        yield from scanned(below)


@pytest.fixture(scope="module")
def small(postgres: Postgres) -> int:
    """What the claim reads where nothing but work that is due is in the table."""
    url = postgres.database()
    with connect(url, application_name="test") as connection:
        add(connection, DUE)
        connection.execute("VACUUM ANALYZE siorg_sync_queue")
        buffers, plan = buffers_of_claim(connection)
        print(f"small table: {buffers} buffers\n{per_node(plan)}")  # noqa: T201 - the figure is the result
    postgres.drop(url)
    return buffers


@pytest.fixture(scope="module")
def large(postgres: Postgres) -> Iterator[Connection]:
    """A million finished, 60,000 future, 15,000 spent rows, and 15,000 that were claimed and completed batch by batch."""
    url = postgres.database()
    with connect(url, application_name="test") as connection:
        finished = "now() - make_interval(secs => n)"
        add(connection, 1_000_000, first=10_000_000, status="COMPLETED", attempts=1, processed_at=finished)
        add(connection, 60_000, first=20_000_000, priority="1 + n % 3", scheduled_for="now() + make_interval(secs => 3600 + n)")
        add(connection, 15_000, first=30_000_000, priority="1 + n % 3", attempts=3, scheduled_for="now() - interval '2 days'")
        add(connection, 15_000, first=40_000_000, priority="1 + n % 3", scheduled_for="now() - interval '1 day'")
        # As workers do it, only coarser: each row is updated twice, at the very head of the queue.
        for _ in range(15):
            connection.execute(
                load("siorg_queue", "claim.sql")["claim"], {"limit": 1_000, "lease_seconds": 60.0, "worker": "plan"}
            )
            connection.execute(
                "UPDATE siorg_sync_queue SET status = 'COMPLETED', processed_at = now(), lease_expires_at = NULL,"
                " claimed_by = NULL WHERE status = 'PROCESSING'"
            )
        add(connection, DUE)
        yield connection
    postgres.drop(url)


def test_the_claim_reads_no_more_of_a_huge_table_than_of_a_small_one(large: Connection, small: int) -> None:
    large.execute("VACUUM ANALYZE siorg_sync_queue")

    buffers, plan = buffers_of_claim(large)

    print(f"large table: {buffers} buffers, small: {small}\n{per_node(plan)}")  # noqa: T201
    assert buffers <= 2 * small, per_node(plan)
    assert plan["Actual Rows"] == BATCH
    assert not [name for name in scanned(plan) if name.startswith("Seq Scan siorg_sync_queue")]


def test_an_idle_look_reads_little_of_a_huge_table(large: Connection) -> None:
    """A run on an empty queue ends what dangles, looks for work, and asks when the next is due."""
    large.execute("BEGIN")
    try:
        large.execute("DELETE FROM siorg_sync_queue WHERE status = 'PENDING' AND (attempts >= 3 OR scheduled_for <= now())")
        read = {}
        for file, name in (("dangling.sql", "reap"), ("depth.sql", "claimable_exists"), ("depth.sql", "next_due")):
            statement = load("siorg_queue", file)[name].replace("%(limit)s", "1000")
            row = large.execute(("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statement).encode()).fetchone()
            assert row is not None
            plan = row["QUERY PLAN"][0]["Plan"]
            assert not [index for index in scanned(plan) if index == "Seq Scan siorg_sync_queue"], per_node(plan)
            read[name] = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    finally:
        large.execute("ROLLBACK")
    print(f"idle: {read}")  # noqa: T201


def test_with_statistics_from_before_a_bulk_insert_the_claim_reads_no_more(postgres: Postgres, small: int) -> None:
    url = postgres.database()
    with connect(url, application_name="test") as connection:
        add(connection, 1)
        connection.execute("ANALYZE siorg_sync_queue")
        add(connection, 50_000, first=100)
        buffers, plan = buffers_of_claim(connection)
        print(f"stale statistics: {buffers} buffers, small: {small}")  # noqa: T201
        assert buffers <= 2 * small, per_node(plan)
        assert plan["Actual Rows"] == BATCH
    postgres.drop(url)
