"""Rows of the queue for tests."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from siorg_queue import Connection, Decisions, Item, QueueStore, RetryPolicy

LEASE = timedelta(seconds=60)


def insert(
    connection: Connection, *, siorg_code: int, entity_type: str = "UNIT", operation: str = "UPDATE", **columns: str
) -> UUID:
    """Insert one row; further columns are SQL expressions. Returns its id."""
    names = "".join(f", {name}" for name in columns)
    values = "".join(f", {expression}" for expression in columns.values())
    row = connection.execute(
        f"INSERT INTO siorg_sync_queue (entity_type, siorg_code, operation, payload{names})"
        f" VALUES ('{entity_type}', {siorg_code}, '{operation}', '{{}}'{values}) RETURNING id"
    ).fetchone()
    assert row is not None
    id_: UUID = row["id"]
    return id_


def verify(connection: Connection, ago: str, *, complete: bool = True, drift: int = 0, departures: str = "{}") -> None:
    """Store a verification as ``siorg-job verify`` does."""
    connection.execute(
        "INSERT INTO siorg_verifications (started_at, finished_at, complete, organizations, compared, drift, departures, reason)"
        " SELECT t - interval '1 minute', t, %s, 328, 74350, %s, %s::jsonb, %s FROM (SELECT now() - %s::interval) AS at (t)",
        (complete, drift, departures, None if complete else "SIORG answered 503", ago),
    )


def rows(connection: Connection) -> list[dict[str, Any]]:
    """All rows of the queue, by code."""
    return connection.execute("SELECT * FROM siorg_sync_queue ORDER BY siorg_code, created_at").fetchall()


def number(connection: Connection, sql: str) -> int:
    """The only value of a query."""
    row = connection.execute(sql.encode()).fetchone()
    assert row is not None
    (value,) = row.values()
    return int(value)


def age(connection: Connection, sql: str) -> float:
    """Seconds since ``then``, which a query gives, by the database's clock."""
    row = connection.execute(
        f"SELECT extract(epoch FROM clock_timestamp() - a.then)::float8 AS age FROM ({sql}) AS a".encode()
    ).fetchone()
    assert row is not None
    return float(row["age"])


class Queue:
    """The queue of a database, with the shortest words for what tests do to it."""

    def __init__(self, connection: Connection, retry: RetryPolicy | None = None) -> None:
        self.connection = connection
        self.store = QueueStore(connection, retry)
        self.decisions = Decisions(connection, retry)

    def insert(self, code: int, **columns: str) -> UUID:
        """One row; columns are SQL expressions, ``entity_type`` and ``operation`` plain words."""
        return insert(self.connection, siorg_code=code, **columns)

    def claim(self, limit: int = 100, *, worker: str = "w") -> list[Item]:
        return list(self.store.claim(limit, lease=LEASE, worker=worker).items)

    def claim_one(self, code: int = 1, /, **columns: str) -> Item:
        """Insert a row and claim it."""
        self.insert(code, **columns)
        (item,) = self.claim()
        return item

    def rows(self) -> list[dict[str, Any]]:
        return rows(self.connection)

    def row(self) -> dict[str, Any]:
        """The only row."""
        (row,) = self.rows()
        return row

    def expire_leases(self) -> None:
        self.connection.execute("UPDATE siorg_sync_queue SET lease_expires_at = now() - interval '1 second'")

    def clear(self) -> None:
        self.connection.execute("TRUNCATE siorg_sync_queue CASCADE")
