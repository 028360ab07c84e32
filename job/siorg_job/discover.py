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

from siorg_job import ended
from siorg_job.ended import Elsewhere
from siorg_job.siorg.client import SiorgClient
from siorg_job.siorg.errors import MalformedResponse, NotFound
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
    is_active: bool = True
    had_ended: bool = False
    """SIORG had it no more when it was last asked, or when it was deactivated here."""


@dataclass(frozen=True, slots=True)
class Discovery:
    """What one organization's discovery found."""

    organization: int
    version: str
    how: str
    """``unchanged``; ``structure``: it was compared; ``ended``: SIORG has no such organization, ``kept``: nor is that news to a
    person; ``inactive``: it is not active here, ``returned``: and SIORG has it again; ``later``: see ``Elsewhere.is_last``."""
    items: Sequence[NewItem] = ()
    added: int = 0
    """Items that were really enqueued; the others were waiting already."""
    waiting: int = 0
    """Units that end with an ended organization, when a person says so."""


def registered(connection: Connection, codes: Sequence[int] | None) -> list[Organization]:
    """The registered organizations: those named, else all active ones."""
    rows = _rows(connection, "organizations", codes=None if codes is None else list(codes), inactive=False)
    return [Organization(**row) for row in rows]


def asked_for(connection: Connection, codes: Sequence[int] | None) -> list[Organization]:
    """As ``registered``, and the inactive ones too: they count as not registered, but SIORG may have them again."""
    rows = _rows(connection, "organizations", codes=None if codes is None else list(codes), inactive=True)
    return [Organization(**row) for row in rows]


async def discover(
    organization: Organization,
    siorg: SiorgClient,
    connection: Connection,
    store: QueueStore,
    *,
    full: bool = False,
    elsewhere: Elsewhere | None = None,
) -> Discovery:
    """Discover one organization, enqueue the differences and record that it was compared.

    Args:
        organization: as ``registered`` returned it.
        siorg: whom to ask.
        connection: the one that ``store`` uses.
        store: the queue.
        full: read the whole structure whatever is recorded.
        elsewhere: what a run knows of all organizations; None: nothing yet.

    Raises:
        SiorgError: SIORG could not be asked, or its answer cannot be trusted; nothing was recorded.
        psycopg.Error, DatabaseUnavailable: likewise.
    """
    code = organization.code
    if not organization.is_active:
        return await _inactive(organization, siorg, connection)
    version = await ended.version_of(code, siorg)
    if version is None:
        return await _ended(organization, siorg, connection, store, full=full, elsewhere=elsewhere)
    if not full and organization.has_units and organization.at_rest and version == organization.version:
        return Discovery(code, version, "unchanged")
    asked_at = _clock(connection)
    structure = await ended.structure_of(code, siorg)
    if elsewhere is not None:
        elsewhere.add(structure)
    parents = await look_for(parents_elsewhere(structure), siorg)
    # Noted before the local rows are looked at: see QueueStore.note.
    store.note(asked_at, [*structure.units, *structure.invalid], organization=code)
    copy = read_for_comparison(connection, code, units_named(structure, parents))
    comparison = compare(structure, copy, parents)
    disputed = read_decisions(connection, comparison.apart, copy)
    if comparison.apart:
        comparison = compare(structure, copy, parents)  # with what people turned down
    found = [*items_for(structure, comparison, copy, disputed)]
    if ended.remembers_an_end(connection, code):
        found.append(NewItem(EntityType.ORGANIZATION, code, Operation.UPDATE, {}, _PRIORITY))
    items = [replace(item, needed_at=asked_at) for item in found]
    added = store.enqueue(items)
    at_rest = not items and version == organization.version
    _rows(connection, "record_version", organization=code, version=version, at_rest=at_rest)
    if organization.had_ended:
        ended.record_existence(connection, code, None)
    return Discovery(code, version, "structure", items, added)


async def _inactive(organization: Organization, siorg: SiorgClient, connection: Connection) -> Discovery:
    """One that a person has deactivated here: all that is noted is whether SIORG has it again."""
    exists = await ended.exists(organization.code, siorg)
    if organization.had_ended or not exists:
        ended.record_existence(connection, organization.code, exists)
    return Discovery(organization.code, "", "returned" if exists and organization.had_ended else "inactive")


async def _ended(
    organization: Organization,
    siorg: SiorgClient,
    connection: Connection,
    store: QueueStore,
    *,
    full: bool,
    elsewhere: Elsewhere | None,
) -> Discovery:
    """One that SIORG has no more."""
    code = organization.code
    if elsewhere is None:
        others = [other.code for other in registered(connection, None) if other.code != code]
        elsewhere = Elsewhere(siorg, others)
    if not elsewhere.is_last:
        return Discovery(code, "", "later")
    asked_at = _clock(connection)
    await ended.confirm(code, siorg)
    store.note(asked_at, [code], organization=code)
    is_known = organization.at_rest and organization.version is None and not full
    found = await ended.look(code, connection, None if is_known else elsewhere, asked_at)
    added = store.enqueue(found.items)
    at_rest = all(item.entity_type is EntityType.ORGANIZATION for item in found.items)
    ended.record_ended(connection, code, at_rest=at_rest)
    return Discovery(code, "", "kept" if found.is_kept else "ended", found.items, added, found.waiting)


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
