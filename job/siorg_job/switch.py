"""The switch that people have: the setting ``siorg.sync_enabled`` of the database."""

from __future__ import annotations

from siorg_queue import Connection, transaction
from siorg_queue.statements import load


def is_enabled(connection: Connection) -> bool:
    """False when ``siorg.sync_enabled`` is false (as a boolean or as a text); true where it is not set."""
    with transaction(connection):
        row = connection.execute(load("siorg_job.sync", "read.sql")["sync_enabled"]).fetchone()
    return row is None or bool(row["enabled"])
