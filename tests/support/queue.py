"""Rows of the queue for tests."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from siorg_queue import Connection

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


def rows(connection: Connection) -> list[dict[str, Any]]:
    """All rows of the queue, by code."""
    return connection.execute("SELECT * FROM siorg_sync_queue ORDER BY siorg_code, created_at").fetchall()
