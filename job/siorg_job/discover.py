"""The producer: asks SIORG what changed in each registered organization and puts the differences on the queue.

For an organization: its version; when that moved, what changed since the version recorded here, or the whole structure
the first time and when SIORG refuses the old version. What is in line already is not enqueued. The version is recorded
last: a discovery that was cut short is simply done again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from siorg_job.siorg.client import SiorgClient
from siorg_job.siorg.errors import MalformedResponse, VersionUnknown
from siorg_job.siorg.model import RemoteUnit, Structure
from siorg_job.siorg.rows import parse_stored
from siorg_job.sync.merge import remote_organization_values, remote_unit_values
from siorg_job.sync.model import UnitField, Values
from siorg_queue import Connection, EntityType, NewItem, Operation, QueueStore, transaction
from siorg_queue.statements import load
from siorg_runtime.logs import logger

log = logger("siorg_job.discover")

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
    has_units: bool
    base: RemoteUnit | None
    is_active: bool


@dataclass(frozen=True, slots=True)
class Known:
    """A local unit as discovery needs it."""

    is_active: bool
    level: int
    base: RemoteUnit | None
    own: bool
    """Whether it belongs here to the organization that is being discovered."""


@dataclass(frozen=True, slots=True)
class Discovery:
    """What one organization's discovery found."""

    organization: int
    version: str
    how: str
    """``unchanged``, ``changes`` or ``structure``."""
    items: Sequence[NewItem] = ()
    added: int = 0
    """Items that were really enqueued; the others were waiting already."""


def registered(connection: Connection, codes: Sequence[int] | None) -> list[Organization]:
    """The registered organizations: those named, else all active ones."""
    rows = _rows(connection, "organizations", codes=None if codes is None else list(codes))
    return [Organization(**_with_base(row)) for row in rows]


async def discover(organization: Organization, siorg: SiorgClient, connection: Connection, store: QueueStore) -> Discovery:
    """Discover one organization, enqueue the differences and record the version.

    Raises:
        SiorgError: SIORG could not be asked, or its answer cannot be trusted; nothing was recorded.
        psycopg.Error, DatabaseUnavailable: likewise.
    """
    code, recorded = organization.code, organization.version
    version = await siorg.version(code)
    changed: Sequence[RemoteUnit] | None = None
    if recorded is not None and organization.has_units:
        if recorded == version:
            return Discovery(code, version, "unchanged")
        asked_at = _clock(connection)
        try:
            changed = await siorg.changed_since(code, recorded)
        except VersionUnknown as error:
            notice = f"{organization.acronym}: SIORG refuses version {recorded} ({error}); reading the whole structure"
            log.warning(notice)
    # Noted before the local rows are looked at: see QueueStore.note.
    if changed is not None:
        codes = [unit.code for unit in changed]
        store.note(asked_at, codes)
        how, found = "changes", from_changes(organization, changed, _known(connection, code, codes))
    else:
        asked_at = _clock(connection)
        structure = await siorg.structure(code)
        store.note(asked_at, [*structure.units, *structure.invalid], organization=code)
        how, found = "structure", from_structure(organization, structure, _known(connection, code, list(structure.units)))
    items = [replace(item, needed_at=asked_at) for item in found]
    added = store.enqueue(items)
    _rows(connection, "record_version", organization=code, version=version)
    return Discovery(code, version, how, items, added)


def from_changes(organization: Organization, changed: Iterable[RemoteUnit], known: Mapping[int, Known]) -> Iterable[NewItem]:
    """The items for SIORG's list of changed units. Pure."""
    ends: list[tuple[int, NewItem]] = []
    for unit in changed:
        local = known.get(unit.code)
        if unit.code == organization.code:
            yield from _organization_item(organization, unit)
        elif unit.ended:
            if local is not None and local.is_active:
                ends.append((local.level, _item(unit, Operation.EXTINCTION)))
        elif unit.organization_code == unit.code or (unit.is_organization and unit.organization_code != organization.code):
            continue  # a linked órgão or entidade: its own organization's business
        else:
            yield from _unit_item(unit, local)
    yield from _deepest_first(ends)


def from_structure(organization: Organization, structure: Structure, known: Mapping[int, Known]) -> Iterable[NewItem]:
    """The items for a whole structure: what differs, what cannot be read (it ends FAILED with the reason), what is gone. Pure.

    Raises:
        MalformedResponse: more than half of the units known here are missing: rather a broken answer than a reform.
    """
    own = {code: unit for code, unit in structure.units.items() if unit.organization_code in (None, organization.code)}
    active = {
        code: local
        for code, local in known.items()
        # An ended one that is active here was opened again by a person.
        if local.own and local.is_active and local.base is not None and not local.base.ended
    }
    gone = {code: local for code, local in active.items() if code not in structure.units and code not in structure.invalid}
    if len(active) >= _SHRINK_FROM and len(gone) > len(active) // 2:
        raise MalformedResponse(
            f"SIORG's structure of organization {organization.code} lacks {len(gone)} of the {len(active)} units known here:"
            " not believed"
        )
    for code in sorted(own, key=lambda code: (_depth(code, own), code)):
        if code == organization.code:
            yield from _organization_item(organization, own[code])
        else:
            yield from _unit_item(own[code], known.get(code))
    for code in sorted(structure.invalid):
        if code != organization.code:
            yield NewItem(EntityType.UNIT, code, Operation.UPDATE, {}, _PRIORITY)
    yield from _deepest_first(
        (local.level, NewItem(EntityType.UNIT, code, Operation.EXTINCTION, {}, _PRIORITY_OF_ENDS)) for code, local in gone.items()
    )


def _known(connection: Connection, organization: int, codes: Sequence[int]) -> dict[int, Known]:
    rows = _rows(connection, "units", organization=organization, codes=list(codes))
    return {row.pop("code"): Known(**_with_base(row)) for row in rows}


def _clock(connection: Connection) -> datetime:
    (row,) = _rows(connection, "clock")
    now: datetime = row["now"]
    return now


def _rows(connection: Connection, statement: str, **parameters: Any) -> list[dict[str, Any]]:
    with transaction(connection):
        cursor = connection.execute(load("siorg_job", "discover.sql")[statement], parameters)
        return cursor.fetchall() if cursor.description else []


def _with_base(row: dict[str, Any]) -> dict[str, Any]:
    """A row with what was last synced of it as ``base``; None: nothing, or nothing that can be read."""
    raw, synced = row.pop("raw"), row.pop("synced")
    return {**row, "base": parse_stored(raw) if synced and isinstance(raw, dict) else None}


def _organization_item(organization: Organization, unit: RemoteUnit) -> Iterable[NewItem]:
    if unit.ended:
        if organization.is_active:
            yield _item(unit, Operation.EXTINCTION, EntityType.ORGANIZATION)
    elif organization.base is None or _differs(organization.base, unit, remote_organization_values):
        yield _item(unit, Operation.UPDATE, EntityType.ORGANIZATION)


def _unit_item(unit: RemoteUnit, local: Known | None) -> Iterable[NewItem]:
    if local is None:
        yield _item(unit, Operation.CREATION)
    elif local.base is None:
        yield _item(unit, Operation.UPDATE)
    else:
        before, now = (remote_unit_values(side)[UnitField.PARENT] for side in (local.base, unit))
        if before != now and now is not None:
            yield _item(unit, Operation.HIERARCHY_CHANGE)
        elif _differs(local.base, unit, remote_unit_values):
            yield _item(unit, Operation.UPDATE)


def _differs(base: RemoteUnit, unit: RemoteUnit, values: Callable[[RemoteUnit], Values]) -> bool:
    before = values(base)
    return (unit.version is not None and base.version != unit.version) or any(
        value is not None and before.get(field) != value for field, value in values(unit).items()
    )


def _item(unit: RemoteUnit, operation: Operation, entity_type: EntityType = EntityType.UNIT) -> NewItem:
    priority = _PRIORITY_OF_ENDS if operation is Operation.EXTINCTION else _PRIORITY
    return NewItem(entity_type, unit.code, operation, json.loads(unit.raw), priority)


def _deepest_first(ends: Iterable[tuple[int, NewItem]]) -> list[NewItem]:
    return [item for _, item in sorted(ends, key=lambda end: (-end[0], end[1].siorg_code))]


def _depth(code: int | None, units: Mapping[int, RemoteUnit]) -> int:
    seen: set[int] = set()
    while code is not None and code in units and code not in seen:
        seen.add(code)
        code = units[code].parent_code
    return len(seen)
