"""The producer: compares each registered organization with SIORG and puts the differences on the queue.

A version that stands still proves nothing, and one that moved does not prove that the rows beside it have. So the whole
structure is compared when the version moved, again the next time after that, as long as something was found to differ, and at
least every seven days. What differs is enqueued once each; that it was compared is recorded last: a discovery that was cut
short is simply done again.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from siorg_job.siorg.client import SiorgClient
from siorg_job.siorg.errors import InvalidData, MalformedResponse, NotFound
from siorg_job.siorg.model import RemoteUnit, Structure
from siorg_job.sync.compare import EXISTS, Comparison, Difference, Disputed, compare, is_end, parents_elsewhere
from siorg_job.sync.merge import Rule
from siorg_job.sync.model import PLACE
from siorg_job.sync.read import read_decisions, read_for_comparison
from siorg_job.sync.working_copy import WorkingCopy
from siorg_queue import Connection, EntityType, NewItem, Operation, QueueStore, transaction
from siorg_queue.statements import load

_PRIORITY = 5
_PRIORITY_OF_ENDS = 6  # after the rest: a unit ends when those below it have moved away or ended
_SHRINK_FROM = 20  # units: in smaller organizations half may really go at once


@dataclass(frozen=True, slots=True)
class Organization:
    """A registered organization as discovery needs it."""

    code: int
    acronym: str
    version: str | None
    """The version recorded at the last discovery."""
    at_rest: bool
    """At the last comparison nothing differed, the version had not moved, and that is less than seven days ago."""
    has_units: bool


@dataclass(frozen=True, slots=True)
class Discovery:
    """What one organization's discovery found."""

    organization: int
    version: str
    how: str
    """``unchanged`` or ``structure``."""
    items: Sequence[NewItem] = ()
    added: int = 0
    """Items that were really enqueued; the others were waiting already."""


def registered(connection: Connection, codes: Sequence[int] | None) -> list[Organization]:
    """The registered organizations: those named, else all active ones."""
    rows = _rows(connection, "organizations", codes=None if codes is None else list(codes))
    return [Organization(**row) for row in rows]


async def discover(
    organization: Organization, siorg: SiorgClient, connection: Connection, store: QueueStore, *, full: bool = False
) -> Discovery:
    """Discover one organization, enqueue the differences and record that it was compared.

    Args:
        organization: as ``registered`` returned it.
        siorg: whom to ask.
        connection: the one that ``store`` uses.
        store: the queue.
        full: read the whole structure whatever is recorded.

    Raises:
        SiorgError: SIORG could not be asked, or its answer cannot be trusted; nothing was recorded.
        psycopg.Error, DatabaseUnavailable: likewise.
    """
    code = organization.code
    version = await siorg.version(code)
    if not full and organization.has_units and organization.at_rest and version == organization.version:
        return Discovery(code, version, "unchanged")
    asked_at = _clock(connection)
    structure = await siorg.structure(code)
    elsewhere = await look_for(parents_elsewhere(structure), siorg)
    # Noted before the local rows are looked at: see QueueStore.note.
    store.note(asked_at, [*structure.units, *structure.invalid], organization=code)
    copy = read_for_comparison(connection, code, units_named(structure, elsewhere))
    comparison = compare(structure, copy, elsewhere)
    disputed = read_decisions(connection, comparison.apart, copy)
    if comparison.apart:
        comparison = compare(structure, copy, elsewhere)  # with what people turned down
    found = items_for(structure, comparison, copy, disputed)
    items = [replace(item, needed_at=asked_at) for item in found]
    added = store.enqueue(items)
    at_rest = not items and version == organization.version
    _rows(connection, "record_version", organization=code, version=version, at_rest=at_rest)
    return Discovery(code, version, "structure", items, added)


def units_named(structure: Structure, elsewhere: Iterable[int]) -> list[int]:
    """The codes whose rows here are compared, or looked at for it."""
    return [*structure.units, *structure.invalid, *elsewhere]


async def look_for(codes: Iterable[int], siorg: SiorgClient) -> dict[int, int | None]:
    """The organizations that SIORG has these units in; None: in none."""
    found: dict[int, int | None] = {}
    for code in sorted(codes):
        try:
            unit = await siorg.unit(code)
        except NotFound:
            found[code] = None
        else:
            found[code] = None if unit.ended else unit.organization_code
    return found


async def ask_singly(codes: Iterable[int], siorg: SiorgClient) -> dict[int, RemoteUnit | InvalidData | None]:
    """What SIORG says of each of these units by itself: the unit, or why its row cannot be used; None: it has none such.

    That a unit is missing in a structure is no more than a suspicion.
    """
    found: dict[int, RemoteUnit | InvalidData | None] = {}
    for code in codes:
        try:
            found[code] = await siorg.unit(code)
        except NotFound:
            found[code] = None
        except InvalidData as error:
            found[code] = error
    return found


def items_for(
    structure: Structure, comparison: Comparison, copy: WorkingCopy, disputed: Collection[Disputed] = ()
) -> Iterator[NewItem]:
    """The items for what differs, what cannot be read (it ends FAILED with the reason), and what is gone. Pure.

    Args:
        structure: SIORG's answer.
        comparison: what came of comparing it.
        copy: the rows that it was compared with.
        disputed: what waits for a person already: it is not asked again.

    Raises:
        MalformedResponse: more than half of the units known here are missing: rather a broken answer than a reform.
    """
    code = structure.organization
    active = sum(unit.is_active and unit.organization_code == code for unit in copy.units.values())
    if active >= _SHRINK_FROM and len(comparison.gone) > active // 2:
        raise MalformedResponse(
            f"SIORG's structure of organization {code} lacks {len(comparison.gone)} of the {active} units known here:"
            " not believed"
        )
    for entity_type, entity in comparison.unnoted:
        yield _item(structure.units[entity], Operation.UPDATE, entity_type)
    for (entity_type, entity), differences in comparison.differences.items():
        if operation := _operation([each for each in differences if each.disputed not in disputed]):
            yield _item(structure.units[entity], operation, entity_type)
    for entity in sorted(structure.invalid):
        if entity != code:
            yield NewItem(EntityType.UNIT, entity, Operation.UPDATE, {}, _PRIORITY)
    for entity in comparison.gone:
        yield NewItem(EntityType.UNIT, entity, Operation.EXTINCTION, {}, _PRIORITY_OF_ENDS)


def _operation(differences: Sequence[Difference]) -> Operation | None:
    """What an item about these differences is called; None where nothing of them is to be brought in line."""
    open_ = [difference for difference in differences if difference.rule is not Rule.EDITED]
    if not open_:
        return None
    if any(difference.field == EXISTS for difference in open_):
        return Operation.CREATION
    if any(is_end(difference) for difference in open_):
        return Operation.EXTINCTION
    return Operation.HIERARCHY_CHANGE if any(difference.field in PLACE for difference in open_) else Operation.UPDATE


def _item(unit: RemoteUnit, operation: Operation, entity_type: EntityType = EntityType.UNIT) -> NewItem:
    priority = _PRIORITY_OF_ENDS if operation is Operation.EXTINCTION else _PRIORITY
    return NewItem(entity_type, unit.code, operation, json.loads(unit.raw), priority)


def _clock(connection: Connection) -> datetime:
    found: datetime = _rows(connection, "clock")[0]["now"]
    return found


def _rows(connection: Connection, statement: str, **parameters: Any) -> list[dict[str, Any]]:
    with transaction(connection):
        cursor = connection.execute(load("siorg_job", "discover.sql")[statement], parameters)
        return cursor.fetchall() if cursor.description else []
