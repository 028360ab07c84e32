"""How often a worker waits for the database, and for how many statements, for 1,000 items that change nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from siorg_queue import Connection, EntityType, Item, NewItem, Operation, Outcome, QueueStore, Verdict, connect, transaction
from support.database_proxy import DatabaseProxy, on_a_thread
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
        settled = store.finish_within(verdicts)
        assert len(settled) == len(verdicts)
        store.end_older_conflicts([(verdict, asked_at) for verdict in verdicts])


@pytest.mark.parametrize(("batch", "trips", "statements"), [(10, 800, 3_000), (100, 80, 300), (500, 16, 60)])
def test_a_thousand_items_without_change(proxy: DatabaseProxy, database_url: str, batch: int, trips: int, statements: int) -> None:
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
