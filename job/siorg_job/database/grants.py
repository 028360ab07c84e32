"""The rights on tables that a run needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from siorg_queue import Connection, query
from siorg_queue.statements import load

READ_AND_WRITE: Final = ("SELECT", "INSERT", "UPDATE")

NEEDED_TO_RUN: Final[Mapping[str, tuple[str, ...]]] = dict.fromkeys(
    (
        *("siorg_sync_queue", "siorg_history", "siorg_mappings", "organizations", "organizational_units"),
        *("organizational_unit_types", "organizational_unit_categories", "system_settings", "siorg_request_pace"),
    ),
    READ_AND_WRITE,
)
"""By table."""


def pairs(needed: Mapping[str, tuple[str, ...]]) -> dict[str, list[str]]:
    """Tables and rights as parameters of a statement: a pair for each right."""
    found = [(table, right) for table, rights in needed.items() for right in rights]
    return {"tables": [table for table, _ in found], "rights": [right for _, right in found]}


def missing_grants(connection: Connection) -> list[str]:
    """The statements that would give this role what it lacks; none: it has all."""
    rows = query(connection, load("siorg_job.database", "grants.sql")["missing"], **pairs(NEEDED_TO_RUN))
    return [row["statement"] for row in rows]


def told(grants: list[str]) -> str:
    """What lacks, to be put behind a sentence."""
    return f"; what is missing: {'; '.join(grants)}" if grants else ""
