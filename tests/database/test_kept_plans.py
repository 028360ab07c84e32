"""Statements are planned once where that is safe, and a plan that is kept stays good however the table grows."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from siorg_queue import (
    Connection,
    EntityType,
    NewItem,
    Operation,
    Outcome,
    QueueStore,
    Verdict,
    connect,
    is_transient,
    keeps_plans,
    query,
    transaction,
)
from support.pgbouncer import pgbouncer, program
from support.postgres import Postgres
from support.queue import LEASE

BATCH = 10
COMPLETED = 20_000


@pytest.fixture
def worker(database_url: str) -> Iterator[Connection]:
    with connect(database_url, application_name="test", plans_once=True) as connection:
        yield connection


def add(connection: Connection, first: int, count: int = BATCH) -> None:
    codes = range(first, first + count)
    QueueStore(connection).enqueue([NewItem(EntityType.UNIT, code, Operation.UPDATE) for code in codes])


def work(connection: Connection) -> None:
    """Claim a batch and end it, as the drain does where nothing is to be written."""
    store = QueueStore(connection)
    items = store.claim(BATCH, lease=LEASE, worker="test").items
    verdicts = [Verdict(item, Outcome.COMPLETED) for item in items]
    with transaction(connection, by_index=True):
        store.fence(items, lock_seconds=2.0)
        store.finish_all(verdicts, lambda: store.end_older_conflicts([(verdict, verdict.item.needed_at) for verdict in verdicts]))


def prepared(connection: Connection) -> set[str]:
    return {row["name"] for row in connection.execute("SELECT name FROM pg_prepared_statements")}


def buffers(worker: Connection, watch: Connection) -> int:
    """Pages of the queue, and of its indexes, that were read so far."""
    worker.execute("SELECT pg_stat_force_next_flush()")
    worker.execute("SELECT")
    (row,) = query(
        watch,
        "SELECT heap_blks_hit + heap_blks_read + idx_blks_hit + idx_blks_read AS pages FROM pg_statio_user_tables"
        " WHERE relname = 'siorg_sync_queue'",
    )
    return int(row["pages"])


def test_a_plan_from_when_the_table_was_empty_reads_no_finished_rows_later(worker: Connection, database_url: str) -> None:
    with connect(database_url, application_name="watch") as watch:
        watch.execute("ALTER TABLE siorg_sync_queue SET (autovacuum_enabled = off)")
        watch.execute("ANALYZE siorg_sync_queue")
        worker.execute("SET plan_cache_mode = force_generic_plan")
        add(watch, 1)
        work(worker)
        watch.execute(
            "INSERT INTO siorg_sync_queue (entity_type, siorg_code, operation, payload, status, processed_at)"
            f" SELECT 'UNIT', 100000 + n, 'UPDATE', '{{}}', 'COMPLETED', now() FROM generate_series(1, {COMPLETED}) AS n".encode()
        )
        add(watch, 1 + BATCH)
        before = buffers(worker, watch)
        work(worker)
        read = buffers(worker, watch) - before
    assert read <= 1_000, f"{read} pages for a batch of {BATCH} beside {COMPLETED} finished rows"  # the table has some 400


def test_what_was_rolled_back_leaves_the_plans(worker: Connection) -> None:
    add(worker, 1)
    work(worker)
    plans = prepared(worker)
    assert plans
    with pytest.raises(psycopg.errors.UndefinedTable), transaction(worker):
        worker.execute("SELECT FROM missing WHERE %(anything)s", {"anything": True})
    assert prepared(worker) >= plans


def test_a_plan_that_is_lost_is_a_passing_trouble(worker: Connection) -> None:
    add(worker, 1, 3 * BATCH)
    work(worker)
    worker.pgconn.exec_(b"DEALLOCATE ALL")
    with pytest.raises(psycopg.errors.InvalidSqlStatementName) as raised:
        work(worker)
    assert is_transient(raised.value)
    worker.open_again()
    work(worker)


def test_the_server_itself_keeps_plans(worker: Connection) -> None:
    assert keeps_plans(worker)


@pytest.mark.pgbouncer
@pytest.mark.skipif(program() is None, reason="the program pgbouncer is not installed")
def test_behind_a_pooler_that_does_not_see_to_it_nothing_is_kept_or_left(postgres: Postgres, database_url: str) -> None:
    name = database_url.rsplit("@/", 1)[1].split("?", 1)[0]
    with pgbouncer(postgres, pool_size=1) as port:
        url = f"postgresql://postgres@127.0.0.1:{port}/{name}"
        with connect(url, application_name="test", plans_once=True) as worker:
            keeps = keeps_plans(worker)
            add(worker, 1)
            work(worker)
            names = prepared(worker)
    if keeps:  # from 1.21 on, and from 1.24 on without being told to
        assert all(not name.startswith(("_pg3_", "siorg_")) for name in names)
    else:
        assert names == set()
