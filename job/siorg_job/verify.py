"""The check: every registered organization beside SIORG's whole structure, each difference with its kind. Writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from siorg_job.discover import look_for, look_up, units_named
from siorg_job.siorg.client import SiorgClient
from siorg_job.siorg.errors import NotFound
from siorg_job.siorg.model import Structure
from siorg_job.sync.compare import compare, parents_elsewhere
from siorg_job.sync.departures import Departure, Kind, OnQueue, departures
from siorg_job.sync.read import read_decisions, read_for_comparison
from siorg_queue import Connection, EntityType, NewItem, Operation, transaction
from siorg_queue.statements import load


@dataclass(frozen=True, slots=True)
class Verified:
    """What came of verifying one organization."""

    organization: int
    asked_at: datetime
    rows: int
    """Rows that were compared."""
    departures: Sequence[Departure] = field(default_factory=tuple)

    @property
    def drift(self) -> list[Departure]:
        return [each for each in self.departures if each.kind is Kind.DRIFT]

    def items(self) -> list[NewItem]:
        """What brings the drift in line."""
        ends = {each.code for each in self.drift if each.field == "is_active" and each.remote is False}
        found = {(each.entity_type, each.code) for each in self.drift}
        return [
            NewItem(entity_type, code, Operation.EXTINCTION if code in ends else Operation.UPDATE, needed_at=self.asked_at)
            for entity_type, code in sorted(found)
        ]


async def verify(organization: int, siorg: SiorgClient, connection: Connection) -> Verified:
    """Compare one organization.

    What differs and was touched since SIORG was asked is looked at once more, with an answer of its own, before it is drift.

    Raises:
        SiorgError: SIORG could not be asked, or its answer cannot be trusted.
        psycopg.Error, DatabaseUnavailable: likewise.
    """
    asked_at = _clock(connection)
    structure = await siorg.structure(organization)
    found = await _compared(structure, asked_at, siorg, connection)
    drift = {(each.entity_type, each.code) for each in found.departures if each.kind is Kind.DRIFT}
    touched = {
        (EntityType(row["entity_type"]), row["code"])
        for row in _rows(connection, "touched", codes=sorted(code for _, code in drift), asked_at=asked_at)
    }
    if not drift & touched:
        return found
    again_at = _clock(connection)
    units = dict(structure.units)
    for code in sorted(code for _, code in drift & touched):
        units.pop(code, None)
        try:
            unit = await siorg.unit(code)
        except NotFound:
            continue
        if not unit.ended and unit.organization_code == organization:
            units[code] = unit
    return await _compared(replace(structure, units=units), again_at, siorg, connection)


async def _compared(structure: Structure, asked_at: datetime, siorg: SiorgClient, connection: Connection) -> Verified:
    organization = structure.organization
    elsewhere = await look_for(parents_elsewhere(structure), siorg)
    copy = read_for_comparison(connection, organization, units_named(structure, elsewhere))
    comparison = compare(structure, copy, elsewhere)
    if comparison.apart:
        read_decisions(connection, comparison.apart, copy)
        comparison = compare(structure, copy, elsewhere)
    gone = await look_up(comparison.gone, siorg)
    entities = [*comparison.differences, *comparison.unnoted, *((EntityType.UNIT, code) for code in comparison.gone)]
    queue = _on_queue(connection, sorted({code for _, code in entities}))
    found = tuple(departures(structure, comparison, copy, elsewhere, gone, queue))
    return Verified(organization, asked_at, len(structure.units), found)


def _on_queue(connection: Connection, codes: Sequence[int]) -> dict[tuple[EntityType, int], OnQueue]:
    if not codes:
        return {}
    return {
        (EntityType(row["entity_type"]), row["code"]): OnQueue(
            open_since=row["open_since"],
            conflicts=dict.fromkeys(row["disputed"] or (), row["conflict_since"]),
            held=dict.fromkeys(row["held"] or (), row["held_since"]),
            failed_since=row["failed_since"],
            error=row["error"] or "",
        )
        for row in _rows(connection, "on_queue", codes=list(codes))
    }


def _clock(connection: Connection) -> datetime:
    found: datetime = _rows(connection, "clock")[0]["now"]
    return found


def _rows(connection: Connection, statement: str, **parameters: Any) -> list[dict[str, Any]]:
    with transaction(connection):
        return connection.execute(load("siorg_job", "verify.sql")[statement], parameters).fetchall()
