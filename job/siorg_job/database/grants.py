"""The rights on tables that a run needs."""

from __future__ import annotations

from siorg_queue import Connection, query
from siorg_queue.statements import load


def missing_grants(connection: Connection) -> list[str]:
    """The statements that would give this role what it lacks; none: it has all."""
    rows = query(connection, load("siorg_job.database", "grants.sql")["missing"])
    return [row["statement"] for row in rows]


def told(grants: list[str]) -> str:
    """What lacks, to be put behind a sentence."""
    return f"; what is missing: {'; '.join(grants)}" if grants else ""
