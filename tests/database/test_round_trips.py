"""How often a worker waits for the database, and for how many statements, for 1,000 items that change nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import psycopg
import pytest

from siorg_queue import (
    Connection,
    EntityType,
    Item,
    LeaseLost,
    NewItem,
    Operation,
    Outcome,
    QueueStore,
    Verdict,
    clock,
    connect,
    query,
    transaction,
)
from siorg_queue.database import in_one_trip
from support.database_proxy import DatabaseProxy, on_a_thread
from support.pgbouncer import pgbouncer, program
from support.postgres import Postgres
from support.queue import LEASE, number
from support.round_trips import count

ITEMS = 1_000


@pytest.fixture
def proxy(postgres: Postgres) -> Iterator[DatabaseProxy]:
    with on_a_thread(postgres.socket_folder) as proxy:
        yield proxy


def end(connection: Connection, store: QueueStore, items: Sequence[Item]) -> None:
    """As the drain ends a group for which nothing is to be written."""
    asked_at = items[0].needed_at
    with transaction(connection, lock_seconds=20.0):
        ours = store.fence(items, lock_seconds=2.0)
        verdicts = [Verdict(item, Outcome.COMPLETED) for item in items if item.id in ours]
        store.finish_all(verdicts, lambda: store.end_older_conflicts([(verdict, asked_at) for verdict in verdicts]))


@pytest.mark.parametrize(("batch", "trips", "statements"), [(10, 300, 1_000), (100, 30, 100), (500, 6, 20)])
def test_a_thousand_items_without_change(
    proxy: DatabaseProxy, database_url: str, batch: int, trips: int, statements: int
) -> None:
    with connect(proxy.url(database_url), application_name="test") as connection:
        store = QueueStore(connection)
        store.enqueue([NewItem(EntityType.UNIT, code, Operation.UPDATE) for code in range(1, ITEMS + 1)])
        before = len(proxy.asked)
        for _ in range(ITEMS // batch):
            end(connection, store, store.claim(batch, lease=LEASE, worker="test").items)
        counted = count(bytes(proxy.asked[before:]))
        assert number(connection, "SELECT count(*) FROM siorg_sync_queue WHERE status = 'COMPLETED'") == ITEMS
    print(f"batches of {batch}: {counted}")  # noqa: T201 - the figure is the result
    assert counted.trips <= trips, counted
    assert counted.statements <= statements, counted


@pytest.mark.pgbouncer
@pytest.mark.skipif(program() is None, reason="the program pgbouncer is not installed")
def test_pgbouncers_only_server_is_free_for_others_whenever_an_answer_has_come(postgres: Postgres, database_url: str) -> None:
    name = database_url.rsplit("@/", 1)[1].split("?", 1)[0]
    with pgbouncer(postgres, pool_size=1, query_wait_timeout="5") as port:
        url = f"postgresql://postgres@127.0.0.1:{port}/{name}"
        with connect(url, application_name="test") as connection, connect(url, application_name="other") as other:
            store = QueueStore(connection)
            store.enqueue([NewItem(EntityType.UNIT, code, Operation.UPDATE) for code in range(1, ITEMS + 1)])
            for _ in range(ITEMS // 10):
                items = store.claim(10, lease=LEASE, worker="test").items
                clock(other)
                end(connection, store, items)
                clock(other)
                with pytest.raises(psycopg.errors.UndefinedTable), transaction(connection):
                    connection.execute("SELECT FROM missing WHERE %(anything)s", {"anything": True})
                clock(other)
            assert number(other, "SELECT count(*) FROM siorg_sync_queue WHERE status = 'COMPLETED'") == ITEMS


def test_what_was_ended_at_rest_is_opened_again_and_a_whole_transaction_done_once(postgres: Postgres, database_url: str) -> None:
    """Also where it is sent with its COMMIT, so that it could not be sent again."""
    with connect(database_url, application_name="test") as connection, connect(postgres.url(), application_name="admin") as admin:
        store = QueueStore(connection)
        store.enqueue([NewItem(EntityType.UNIT, code, Operation.UPDATE) for code in range(1, 3)])
        for _ in range(2):
            admin.execute("SELECT pg_terminate_backend(%s, 5000)", [connection.info.backend_pid])
            (item,) = store.claim(1, lease=LEASE, worker="test").items
            assert item.attempts == 1
            admin.execute("SELECT pg_terminate_backend(%s, 5000)", [connection.info.backend_pid])
            end(connection, store, [item])
        assert number(connection, "SELECT count(*) FROM siorg_sync_queue WHERE status = 'COMPLETED'") == 2


def test_a_lease_that_has_run_out_takes_all_outcomes_along(database_url: str) -> None:
    with connect(database_url, application_name="test") as connection:
        store = QueueStore(connection)
        store.enqueue([NewItem(EntityType.UNIT, code, Operation.UPDATE) for code in range(1, 3)])
        items = store.claim(2, lease=LEASE, worker="test").items
        connection.execute("UPDATE siorg_sync_queue SET lease_expires_at = now() WHERE id = %s", [items[0].id])
        with pytest.raises(LeaseLost), transaction(connection):
            store.finish_all([Verdict(item, Outcome.COMPLETED) for item in items], lambda: None)
        assert number(connection, "SELECT count(*) FROM siorg_sync_queue WHERE status = 'PROCESSING'") == 2


@pytest.mark.parametrize("pooled", [False, pytest.param(True, marks=[
    pytest.mark.pgbouncer, pytest.mark.skipif(program() is None, reason="the program pgbouncer is not installed")])])  # fmt: skip
def test_what_is_more_than_a_socket_takes_at_once_goes_in_one_trip_too(
    postgres: Postgres, database_url: str, pooled: bool
) -> None:
    large = "x" * 20_000_000
    with contextlib.ExitStack() as stack:
        url = database_url
        if pooled:
            port = stack.enter_context(pgbouncer(postgres, pool_size=1))
            url = f"postgresql://postgres@127.0.0.1:{port}/{database_url.split('/')[3].partition('?')[0]}"
        connection = stack.enter_context(connect(url, application_name="test"))
        for _ in range(2):
            assert query(connection, "SELECT %(text)s::text AS text", text=large) == [{"text": large}]
            with pytest.raises(psycopg.errors.DivisionByZero):
                query(connection, "SELECT length(%(text)s::text) / 0 AS text", text=large)
        with transaction(connection):
            cursors = in_one_trip(
                connection,
                lambda: [connection.execute("SELECT %(text)s::text AS text", {"text": large}) for _ in range(3)],
                commit=True,
            )
        assert [cursor.fetchall() for cursor in cursors] == [[{"text": large}]] * 3
