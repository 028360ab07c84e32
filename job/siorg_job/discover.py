"""The producer: compares each registered organization with SIORG and puts the differences on the queue.

A version that stands still proves nothing, and one that moved does not prove that the rows beside it have. So the whole
structure is compared when the version moved, again the next time after that, as long as something was found to differ, and at
least every seven days. What differs is enqueued once each; that it was compared is recorded last: a discovery that was cut
short is simply done again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from siorg_job.hold import Within, ends_held, hold, may_be_decided, sort_absent
from siorg_job.siorg.client import SiorgClient
from siorg_job.siorg.errors import InvalidData, NotFound, SiorgError
from siorg_job.siorg.model import RemoteUnit, Structure
from siorg_job.sync.compare import EXISTS, Comparison, Difference, Disputed, compare, is_end, parents_elsewhere
from siorg_job.sync.limits import Limits
from siorg_job.sync.merge import Rule
from siorg_job.sync.model import PLACE
from siorg_job.sync.read import read_decisions, read_for_comparison
from siorg_queue import Connection, EntityType, NewItem, Operation, QueueStore, transaction
from siorg_queue.statements import load

_PRIORITY = 5
_PRIORITY_OF_ENDS = 6  # after the rest: a unit ends when those below it have moved away or ended
_LOOK_UPS = 8  # at once; how many a second is the client's business


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
    held: int = 0
    """Ends and overwritten names that wait for a person, also from before."""
    reasons: Sequence[str] = ()
    """How many of how many, and the limit, where something was beyond one."""


def registered(connection: Connection, codes: Sequence[int] | None) -> list[Organization]:
    """The registered organizations: those named, else all active ones."""
    rows = _rows(connection, "organizations", codes=None if codes is None else list(codes))
    return [Organization(**row) for row in rows]


async def discover(
    organization: Organization,
    siorg: SiorgClient,
    connection: Connection,
    store: QueueStore,
    *,
    full: bool = False,
    limits: Limits | None = None,
) -> Discovery:
    """Discover one organization, enqueue the differences and record that it was compared.

    Args:
        organization: as ``registered`` returned it.
        siorg: whom to ask.
        connection: the one that ``store`` uses.
        store: the queue.
        full: read the whole structure whatever is recorded.
        limits: beyond these, ends and overwritten names are held; None: who calls answers for them.

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
    parents = await look_up(sorted(parents_elsewhere(structure)), siorg)
    elsewhere = organizations_of(parents)
    # Noted before the local rows are looked at: see QueueStore.note.
    store.note(asked_at, [*structure.units, *structure.invalid], organization=code)
    copy = read_for_comparison(connection, code, units_named(structure, elsewhere))
    comparison = compare(structure, copy, elsewhere)
    gone = comparison.gone  # with those that a person keeps: that is noted when such an item is worked on
    disputed = read_decisions(connection, may_be_decided(comparison), copy)
    comparison = compare(structure, copy, elsewhere)  # with what people turned down
    # What is held was asked for; should it be elsewhere by now, the discovery of that organization finds it.
    alone = await look_up(gone, siorg, known=dict.fromkeys(ends_held(copy)) | parents)
    absent = sort_absent(alone, copy, {each.code for each in registered(connection, None)})
    comparison = replace(comparison, gone=absent.ended)
    within = Within(comparison)
    if limits is not None:
        within = hold(structure, comparison, copy, limits, connection=connection, store=store, asked_at=asked_at)
    found = [*items_for(structure, within.comparison, disputed), *map(_moved, absent.moved.values())]
    found += [NewItem(EntityType.UNIT, each, Operation.UPDATE, {}, _PRIORITY) for each in gone if each not in alone]
    items = [replace(item, needed_at=asked_at) for item in found]
    added = store.enqueue(items)
    at_rest = not items and not within.held and version == organization.version
    _rows(connection, "record_version", organization=code, version=version, at_rest=at_rest)
    return Discovery(code, version, "structure", items, added, within.held, within.reasons)


def units_named(structure: Structure, elsewhere: Iterable[int]) -> list[int]:
    """The codes whose rows here are compared, or looked at for it."""
    return [*structure.units, *structure.invalid, *elsewhere]


async def look_up(
    codes: Iterable[int], siorg: SiorgClient, *, known: Mapping[int, RemoteUnit | None] | None = None
) -> dict[int, RemoteUnit | None]:
    """What SIORG says of each of these units by itself, in the order in which they are given; None: it has none.

    Those are left out of which it says what cannot be used.

    Args:
        codes: the units.
        siorg: whom to ask.
        known: answers that are there already.

    Raises:
        SiorgError: it could not be asked.
    """
    found: dict[int, RemoteUnit | None] = {code: (known or {}).get(code) for code in codes}
    gate = asyncio.Semaphore(_LOOK_UPS)

    async def ask(code: int) -> None:
        async with gate:
            try:
                found[code] = await siorg.unit(code)
            except NotFound:
                pass
            except InvalidData:
                del found[code]

    try:
        async with asyncio.TaskGroup() as tasks:
            for code in [code for code in found if code not in (known or {})]:
                tasks.create_task(ask(code))
    except* SiorgError as errors:
        raise _first(errors) from None
    return found


def _first(errors: BaseExceptionGroup[SiorgError]) -> SiorgError:
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def organizations_of(found: Mapping[int, RemoteUnit | None]) -> dict[int, int | None]:
    """The organizations that SIORG has these units in; None: in none."""
    return {code: None if unit is None or unit.ended else unit.organization_code for code, unit in found.items()}


async def look_for(codes: Iterable[int], siorg: SiorgClient) -> dict[int, int | None]:
    """The organizations that SIORG has these units in; None: in none."""
    return organizations_of(await look_up(sorted(codes), siorg))


def items_for(structure: Structure, comparison: Comparison, disputed: Collection[Disputed] = ()) -> Iterator[NewItem]:
    """The items for what differs, what cannot be read (it ends FAILED with the reason), and what has ended. Pure.

    Args:
        structure: SIORG's answer.
        comparison: what came of comparing it, without what is held; ``gone`` are ends.
        disputed: what waits for a person already: it is not asked again.
    """
    code = structure.organization
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


def _moved(unit: RemoteUnit) -> NewItem:
    """To another registered organization: its row names that one, so that its structure answers for all of them."""
    return _item(unit, Operation.HIERARCHY_CHANGE)


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
