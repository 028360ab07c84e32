"""Where the server's queue of notifications is full, work is still put on ours: by us, by the API server, by people."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psycopg
import pytest

from siorg_queue import EntityType, NewItem, Operation, QueueStore, connect
from support.postgres import VERSION, Postgres
from support.queue import insert, number


@pytest.fixture
def full_url(own_postgres: Postgres, own_url: str) -> Iterator[str]:
    """A database on a server whose queue of notifications is full: somebody listens, and has a transaction open."""
    with psycopg.connect(own_url, autocommit=True) as admin:
        admin.execute("ALTER SYSTEM SET max_notify_queue_pages = 64")
    own_postgres.restart()
    with psycopg.connect(own_url, autocommit=True) as listener, psycopg.connect(own_url, autocommit=True) as other:
        listener.execute("LISTEN anything")
        listener.execute("BEGIN")
        for size in (7900, 1000, 100, 10, 1):  # to the last byte
            with contextlib.suppress(psycopg.errors.ProgramLimitExceeded):
                for different in range(10_000):
                    other.execute("SELECT pg_notify('anything', repeat('x', %s) || %s)", (size, different))
        yield own_url
    with psycopg.connect(own_url, autocommit=True) as admin:
        admin.execute("ALTER SYSTEM RESET max_notify_queue_pages")
    own_postgres.restart()


@pytest.mark.skipif(VERSION < 17, reason="the queue is 8 GB before PostgreSQL 17")
def test_work_is_put_on_the_queue_and_opened_again(full_url: str) -> None:
    with connect(full_url, application_name="test") as connection:
        QueueStore(connection).enqueue([NewItem(EntityType.UNIT, 1, Operation.UPDATE, {})])
        insert(connection, siorg_code=2)
        insert(connection, siorg_code=3, status="'FAILED'")
        connection.execute("UPDATE siorg_sync_queue SET status = 'PENDING' WHERE status = 'FAILED'")
        assert number(connection, "SELECT count(*) FROM siorg_sync_queue WHERE status = 'PENDING'") == 3
        with pytest.raises(psycopg.errors.ProgramLimitExceeded):  # it is full still
            connection.execute("NOTIFY anything, 'x'")
