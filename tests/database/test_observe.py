"""One look at everything the operator decides on: exact by the claim's own measure."""

from __future__ import annotations

from importlib import resources
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from siorg_queue import Connection, Outcome, Verdict, connect
from siorg_queue.statements import expand, load, parse
from support.queue import LEASE, Queue

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
        "held_at": _TIMES,
        "error_details": st.sampled_from(["NULL", """'{"resolution": "MERGE"}'""", """'{"kind": "x"}'""", "'[]'"]),
    }
)
# The words of predicates.sql, each row held against each.
_COUNTED = expand(
    "SELECT count(*) FILTER (WHERE {{claimable}}) AS claimable, count(*) FILTER (WHERE {{due}}) AS due,"
    " count(*) FILTER (WHERE {{waiting}} AND NOT {{due}}) AS scheduled,"
    " count(*) FILTER (WHERE q.status = 'PROCESSING') AS processing,"
    " count(*) FILTER (WHERE q.status = 'FAILED') AS failed, count(*) FILTER (WHERE {{conflict}}) AS conflict,"
    " count(*) FILTER (WHERE {{held}}) AS held"
    " FROM siorg_sync_queue AS q",
    parse(resources.files("siorg_queue").joinpath("sql", "predicates.sql").read_text()),
)


def observe(connection: Connection) -> dict[str, Any]:
    row = connection.execute(load("siorg_queue", "observe.sql")["observe"]).fetchone()
    assert row is not None
    return row


# -- exact ------------------------------------------------------------------------------------------------------------


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(_ROWS, max_size=8))
def test_a_claim_takes_exactly_what_is_observed_and_nothing_dangles(queue: Queue, rows: list[dict[str, str]]) -> None:
    queue.clear()
    for code, columns in enumerate(rows, start=1):
        queue.insert(code, **columns)

    seen = observe(queue.connection)
    counted = queue.connection.execute(_COUNTED.encode()).fetchone()
    assert counted is not None
    assert {name: seen[name] for name in counted} == counted
    store = queue.store
    counts = store.counts()
    assert {name: getattr(counts, name) for name in counted} == counted
    assert seen["claimable"] == store.depth().claimable
    claim = store.claim(1000, lease=LEASE, worker="w")

    assert seen["claimable"] == len(claim.items) + len(claim.lost)
    assert (seen["next_due_seconds"] == 0) == (seen["due"] > 0)
    store.finish([Verdict(item, Outcome.COMPLETED) for item in claim.items])
    store.reap()
    counts = store.counts()
    assert (counts.claimable, counts.spent, counts.expired, counts.abandoned) == (0, 0, 0, 0)


def test_every_kind_of_row_is_counted_once_where_it_belongs(queue: Queue) -> None:
    queue.insert(1, **dict.fromkeys(["status", "priority", "scheduled_for", "attempts", "max_attempts"], "NULL"))
    queue.insert(2, scheduled_for="now() - interval '90 seconds'")
    queue.insert(3, scheduled_for="now() + interval '5 minutes'")
    queue.insert(4, scheduled_for="now() + interval '2 hours'", expires_at="now() + interval '1 day'")
    queue.insert(5, scheduled_for="now() + interval '1 hour'", expires_at="now() - interval '1 second'")
    queue.insert(6, attempts="3")
    queue.insert(7, attempts="3", error_details="""'{"resolution": "ACCEPT_SIORG"}'""")
    queue.insert(8, status="'PROCESSING'", lease_expires_at="now() + interval '1 minute'")
    queue.insert(9, status="'PROCESSING'", lease_expires_at="now() - interval '3 minutes'")
    queue.insert(10, status="'PROCESSING'", last_attempt_at="now() - interval '1 day'")  # the first worker's
    queue.insert(11, status="'FAILED'")
    queue.insert(12, status="'CONFLICT'")
    queue.insert(13, status="'SKIPPED'")
    queue.insert(14, status="'CONFLICT'", held_at="now() - interval '2 hours'")
    queue.insert(15, status="'CONFLICT'", held_at="now() - interval '1 hour'")
    queue.insert(16, status="'COMPLETED'", held_at="now() - interval '1 day'")  # was released

    seen = observe(queue.connection)

    assert (seen["claimable"], seen["due"], seen["scheduled"]) == (5, 3, 2)
    assert (seen["processing"], seen["failed"], seen["conflict"]) == (3, 1, 1)
    assert (seen["held"], seen["held_oldest_seconds"]) == (2, pytest.approx(7200, abs=60))
    assert 180 <= seen["oldest_due_seconds"] < 280  # the abandoned one counts too
    assert seen["oldest_due_seconds"] == pytest.approx(queue.store.depth().oldest_due_seconds, abs=2)
    assert seen["next_due_seconds"] == 0


def test_the_next_due_moment_is_known(queue: Queue) -> None:
    assert queue.store.next_due_seconds() is None
    queue.insert(1, priority="9", scheduled_for="now() + interval '5 minutes'")
    queue.insert(2, priority="1", scheduled_for="now() + interval '1 hour'")
    for seconds in (observe(queue.connection)["next_due_seconds"], queue.store.next_due_seconds()):
        assert 200 < (seconds or 0) <= 300
    queue.insert(3)
    assert queue.store.next_due_seconds() == 0


def test_an_item_that_is_never_due_and_one_that_always_was_spoil_no_figure(queue: Queue) -> None:
    store = queue.store
    queue.insert(1, scheduled_for="'infinity'")
    seen = observe(queue.connection)
    assert (seen["scheduled"], seen["next_due_seconds"], store.next_due_seconds()) == (1, None, None)
    queue.insert(2, scheduled_for="'-infinity'")
    seen, depth = observe(queue.connection), store.depth()
    assert (seen["due"], seen["next_due_seconds"], seen["oldest_due_seconds"]) == (1, 0, None)
    assert (depth.claimable, store.next_due_seconds(), depth.oldest_due_seconds) == (1, 0, None)
    assert store.counts().oldest_due_seconds is None


# -- what else limits the work ----------------------------------------------------------------------------------------


def test_siorgs_pause_is_seen_in_seconds(connection: Connection) -> None:
    for until, low, high in (
        ("now() + interval '30 seconds'", 25, 30),
        ("now() - interval '1 second'", 0, 0),
        ("'infinity'", 86_400, 367 * 86_400),
    ):
        connection.execute(f"UPDATE siorg_request_pace SET paused_until = {until}".encode())
        assert low <= observe(connection)["siorg_paused_seconds"] <= high, until
    connection.execute("DELETE FROM siorg_request_pace")
    assert observe(connection)["siorg_paused_seconds"] == 0


def test_who_completed_the_newest_items_is_seen_by_their_index_or_not_at_all(queue: Queue) -> None:
    connection = queue.connection

    def ended(code: int, ago: str, by: str = "'pod-a:1:f00'", status: str = "'COMPLETED'") -> None:
        queue.insert(code, status=status, processed_at=f"now() - interval '{ago}'", claimed_by=by)

    ended(1, "1 second", status="'FAILED'")
    ended(2, "1 second", status="'SKIPPED'")
    ended(3, "1 second", by="NULL")  # an older Job, the first worker, a person
    ended(4, "2 days")
    ended(5, "-1 hour")
    assert observe(connection)["completed_by"] is None
    ended(6, "2 minutes")
    ended(7, "1 minute")
    ended(8, "1 hour", by="'pod-b:1:f00'")
    seen = observe(connection)["completed_by"]
    assert seen == {"pod-a": pytest.approx(60, abs=50), "pod-b": pytest.approx(3600, abs=50)}
    connection.execute("DROP INDEX siorg_sync_queue_completed_idx")  # before its migration
    assert observe(connection)["completed_by"] is None


def test_the_room_is_what_the_server_gives_to_ordinary_users(connection: Connection) -> None:
    row = connection.execute(
        "SELECT sum(setting::integer) FILTER (WHERE name = 'max_connections')"
        " - sum(setting::integer) FILTER (WHERE name <> 'max_connections') AS room FROM pg_settings"
        " WHERE name IN ('max_connections', 'superuser_reserved_connections', 'reserved_connections')"
    ).fetchone()
    assert row is not None
    assert observe(connection)["max_connections"] == row["room"] > 0


def test_a_user_who_may_only_read_sees_the_same(connection: Connection, database_url: str) -> None:
    Queue(connection).insert(1)
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
    its_own = {"oldest_due_seconds", "role", "connections", "backend"}
    assert {key: mine[key] for key in mine.keys() - its_own} == {key: theirs[key] for key in theirs.keys() - its_own}
    assert _counts(mine) == _counts(theirs)


def _counts(row: dict[str, Any]) -> dict[tuple[str, bool], int]:
    return {(one["application"], one["database"]): one["count"] for one in row["connections"]}
