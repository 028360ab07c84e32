"""One look at everything the operator decides on: exact by the claim's own measure, and cheap beside whatever else there is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from importlib import resources
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from siorg_queue import Connection, QueueStore, connect
from siorg_queue.statements import expand, load, parse
from siorg_queue.system_settings import as_boolean
from support.postgres import Postgres
from support.queue import LEASE, insert

from .test_plans import add, per_node, scanned

FUTURE = 60_000

_TIMES = st.sampled_from(
    ["NULL", "now() - interval '2 days'", "now() - interval '1 second'", "now() + interval '1 hour'", "'infinity'", "'-infinity'"]
)
_WORKED_ON = ("NULL", "'PENDING'", "'PENDING'", "'PROCESSING'", "'PROCESSING'")  # twice: what matters most
_ROWS = st.fixed_dictionaries(
    {
        "status": st.sampled_from([*_WORKED_ON, "'COMPLETED'", "'FAILED'", "'CONFLICT'", "'SKIPPED'"]),
        "priority": st.sampled_from(["NULL", "1", "5", "10"]),
        "attempts": st.sampled_from(["NULL", "0", "1", "3", "4"]),
        "max_attempts": st.sampled_from(["NULL", "1", "3"]),
        "scheduled_for": _TIMES,
        "expires_at": _TIMES,
        "lease_expires_at": _TIMES,
        "last_attempt_at": _TIMES,
        "error_details": st.sampled_from(["NULL", """'{"resolution": "MERGE"}'""", """'{"kind": "x"}'""", "'[]'"]),
    }
)
# The words of predicates.sql, each row held against each.
_COUNTED = expand(
    "SELECT count(*) FILTER (WHERE {{claimable}}) AS claimable, count(*) FILTER (WHERE {{due}}) AS due,"
    " count(*) FILTER (WHERE {{waiting}} AND NOT {{due}}) AS scheduled,"
    " count(*) FILTER (WHERE q.status = 'PROCESSING') AS processing,"
    " count(*) FILTER (WHERE q.status = 'FAILED') AS failed, count(*) FILTER (WHERE q.status = 'CONFLICT') AS conflict"
    " FROM siorg_sync_queue AS q",
    parse(resources.files("siorg_queue").joinpath("sql", "predicates.sql").read_text()),
)


def observe(connection: Connection) -> dict[str, Any]:
    row = connection.execute(load("siorg_queue", "observe.sql")["observe"]).fetchone()
    assert row is not None
    return row


def explained(connection: Connection) -> dict[str, Any]:
    """The plan of a warm look."""
    statement = load("siorg_queue", "observe.sql")["observe"]
    plan: dict[str, Any] = {}
    for _ in range(2):  # the second time: what the first one cleared of hints is not counted
        row = connection.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}".encode()).fetchone()
        assert row is not None
        plan = row["QUERY PLAN"][0]["Plan"]
    return plan


def buffers_of(plan: dict[str, Any]) -> int:
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


# -- exact ------------------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(_ROWS, max_size=8))
def test_a_claim_takes_exactly_what_is_observed(connection: Connection, store: QueueStore, rows: list[dict[str, str]]) -> None:
    connection.execute("TRUNCATE siorg_sync_queue CASCADE")
    for code, columns in enumerate(rows, start=1):
        insert(connection, siorg_code=code, **columns)

    seen = observe(connection)
    counted = connection.execute(_COUNTED.encode()).fetchone()
    assert counted is not None
    assert {name: seen[name] for name in counted} == counted
    claim = store.claim(1000, lease=LEASE, worker="w")

    assert seen["claimable"] == len(claim.items) + len(claim.lost)
    assert (seen["next_due_seconds"] == 0) == (seen["due"] > 0)


def test_an_empty_queue(connection: Connection) -> None:
    seen = observe(connection)
    numbers = {name: seen[name] for name in ("claimable", "due", "scheduled", "processing", "failed", "conflict")}
    assert set(numbers.values()) == {0}
    assert seen["oldest_due_seconds"] is None
    assert seen["next_due_seconds"] is None
    assert seen["siorg_paused_seconds"] == 0


def test_every_kind_of_row_is_counted_once_where_it_belongs(connection: Connection) -> None:
    everything_null = {"status": "NULL", "priority": "NULL", "scheduled_for": "NULL", "attempts": "NULL", "max_attempts": "NULL"}
    insert(connection, siorg_code=1, **everything_null)
    insert(connection, siorg_code=2, scheduled_for="now() - interval '90 seconds'")
    insert(connection, siorg_code=3, scheduled_for="now() + interval '5 minutes'")
    insert(connection, siorg_code=4, scheduled_for="now() + interval '2 hours'", expires_at="now() + interval '1 day'")
    insert(connection, siorg_code=5, scheduled_for="now() + interval '1 hour'", expires_at="now() - interval '1 second'")
    insert(connection, siorg_code=6, attempts="3")
    insert(connection, siorg_code=7, attempts="3", error_details="""'{"resolution": "ACCEPT_SIORG"}'""")
    insert(connection, siorg_code=8, status="'PROCESSING'", lease_expires_at="now() + interval '1 minute'")
    insert(connection, siorg_code=9, status="'PROCESSING'", lease_expires_at="now() - interval '3 minutes'")
    insert(connection, siorg_code=10, status="'PROCESSING'", last_attempt_at="now() - interval '1 day'")  # the first worker's
    insert(connection, siorg_code=11, status="'FAILED'")
    insert(connection, siorg_code=12, status="'CONFLICT'")
    insert(connection, siorg_code=13, status="'SKIPPED'")

    seen = observe(connection)

    assert (seen["claimable"], seen["due"], seen["scheduled"]) == (5, 3, 2)
    assert (seen["processing"], seen["failed"], seen["conflict"]) == (3, 1, 1)
    assert 180 <= seen["oldest_due_seconds"] < 185  # the abandoned one counts too
    assert seen["oldest_due_seconds"] == pytest.approx(QueueStore(connection).depth().oldest_due_seconds, abs=2)
    assert seen["next_due_seconds"] == 0


def test_tells_when_the_next_one_falls_due(connection: Connection) -> None:
    insert(connection, siorg_code=1, priority="9", scheduled_for="now() + interval '5 minutes'")
    insert(connection, siorg_code=2, priority="1", scheduled_for="now() + interval '1 hour'")
    assert 295 < observe(connection)["next_due_seconds"] <= 300


def test_an_item_that_is_never_due_and_one_that_always_was_spoil_no_figure(connection: Connection) -> None:
    insert(connection, siorg_code=1, scheduled_for="'infinity'")
    seen = observe(connection)
    assert (seen["scheduled"], seen["next_due_seconds"]) == (1, None)
    insert(connection, siorg_code=2, scheduled_for="'-infinity'")
    seen = observe(connection)
    assert (seen["due"], seen["next_due_seconds"], seen["oldest_due_seconds"]) == (1, 0, None)


# -- what else limits the work ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "meaning"), [("true", True), ('"Off"', False), ("0", False), ('"perhaps"', None)])
def test_the_switch_is_told_as_people_wrote_it(connection: Connection, value: str, meaning: bool | None) -> None:
    connection.execute("UPDATE system_settings SET value = %s::jsonb WHERE key = 'siorg.sync_enabled'", (value,))
    assert as_boolean(observe(connection)["sync_enabled"]) is meaning


def test_a_switch_that_is_not_there_is_null(connection: Connection) -> None:
    connection.execute("DELETE FROM system_settings")
    assert observe(connection)["sync_enabled"] is None


@pytest.mark.parametrize(
    ("until", "low", "high"),
    [("now() + interval '30 seconds'", 25, 30), ("now() - interval '1 second'", 0, 0), ("'infinity'", 86_400, 367 * 86_400)],
)
def test_siorgs_pause_is_told_in_seconds(connection: Connection, until: str, low: float, high: float) -> None:
    connection.execute(f"UPDATE siorg_request_pace SET paused_until = {until}".encode())
    assert low <= observe(connection)["siorg_paused_seconds"] <= high


def test_without_a_row_of_the_pace_there_is_no_pause(connection: Connection) -> None:
    connection.execute("DELETE FROM siorg_request_pace")
    assert observe(connection)["siorg_paused_seconds"] == 0


def test_connections_of_jobs_are_not_others(connection: Connection, database_url: str) -> None:
    before = observe(connection)["other_connections"]
    with (
        connect(database_url, application_name="siorg-job lease"),
        connect(database_url, application_name="somebody"),
        psycopg.connect(database_url, application_name=""),
    ):
        assert observe(connection)["other_connections"] == before + 2


def test_the_room_is_what_the_server_gives_to_ordinary_users(connection: Connection) -> None:
    row = connection.execute(
        "SELECT sum(setting::integer) FILTER (WHERE name = 'max_connections')"
        " - sum(setting::integer) FILTER (WHERE name <> 'max_connections') AS room FROM pg_settings"
        " WHERE name IN ('max_connections', 'superuser_reserved_connections', 'reserved_connections')"
    ).fetchone()
    assert row is not None
    assert observe(connection)["max_connections"] == row["room"] > 0


def test_a_user_who_may_only_read_sees_the_same(connection: Connection, database_url: str) -> None:
    insert(connection, siorg_code=1)
    connection.execute("DROP ROLE IF EXISTS onlooker")
    connection.execute("CREATE ROLE onlooker LOGIN")
    connection.execute("GRANT SELECT ON siorg_sync_queue, system_settings, siorg_request_pace TO onlooker")
    with (
        connect(database_url.replace("postgres@", "onlooker@", 1), application_name="siorg-operator") as limited,
        connect(database_url, application_name="siorg-job"),
    ):
        mine, theirs = observe(connection), observe(limited)
    connection.execute("DROP OWNED BY onlooker")
    connection.execute("DROP ROLE onlooker")
    assert {**mine, "oldest_due_seconds": 0} == {**theirs, "oldest_due_seconds": 0}


# -- cheap ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(postgres: Postgres) -> Iterator[Connection]:
    """A million finished, 60,000 future, 15,000 spent, 3,000 failed and 200 conflicting rows; nothing is due."""
    url = postgres.database()
    with connect(url, application_name="test") as connection:
        # As it is outside of tests: a vacuum right after commits that wait for nothing cannot see yet that they lasted.
        connection.execute("SET synchronous_commit = on")
        finished = "now() - make_interval(secs => n)"
        add(connection, 1_000_000, first=10_000_000, status="COMPLETED", attempts=1, processed_at=finished)
        add(connection, FUTURE, first=20_000_000, priority="1 + n % 3", scheduled_for="now() + make_interval(secs => 3600 + n)")
        add(connection, 15_000, first=30_000_000, priority="1 + n % 3", attempts=3, scheduled_for="now() - interval '2 days'")
        add(connection, 3_000, first=40_000_000, status="FAILED", attempts=3, processed_at="now()")
        add(connection, 200, first=50_000_000, status="CONFLICT", attempts=1)
        yield connection
    postgres.drop(url)


def test_a_look_walks_no_finished_rows_even_with_no_statistics(large: Connection) -> None:
    plan = explained(large)
    assert not [name for name in scanned(plan) if name.startswith("Seq Scan siorg_sync_queue")], per_node(plan)


def test_a_look_reads_of_future_and_ended_rows_the_index_alone(large: Connection) -> None:
    large.execute("VACUUM ANALYZE siorg_sync_queue")

    plan = explained(large)

    started = time.perf_counter()
    seen = observe(large)
    seconds = time.perf_counter() - started
    buffers = buffers_of(plan)
    print(f"idle look: {buffers} buffers, {seconds * 1000:.1f} ms\n{per_node(plan)}")  # noqa: T201 - the figure is the result
    assert (seen["claimable"], seen["scheduled"], seen["failed"], seen["conflict"]) == (0, FUTURE, 3_000, 200)
    # An index page has some 250 of the rows that wait; the table's pages have 55.
    assert buffers <= FUTURE / 150, per_node(plan)
    assert not [name for name in scanned(plan) if name.startswith("Seq Scan siorg_sync_queue")], per_node(plan)


def test_a_look_at_due_rows_reads_little_more_than_those(large: Connection) -> None:
    due = 2_000
    large.execute("VACUUM ANALYZE siorg_sync_queue")
    idle = buffers_of(explained(large))
    add(large, due, first=60_000_000)

    plan = explained(large)

    print(f"idle: {idle} buffers, {due} due: {buffers_of(plan)}")  # noqa: T201
    # Of rows that no vacuum has seen yet the table's pages are looked at: once to count them, once for their times.
    assert buffers_of(plan) <= idle + 3 * due, per_node(plan)
    assert observe(large)["due"] == due
