"""What a discovery found and must not bring without a person: ends and overwritten names beyond a limit. The rest goes on."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from siorg_job.siorg.errors import PermanentError
from siorg_job.siorg.model import Answer, RemoteUnit, Structure
from siorg_job.sync.compare import Comparison, Difference, Disputed, is_end
from siorg_job.sync.held import IS_OVER, count_ends, count_names
from siorg_job.sync.limits import Limits, ends_beyond, names_beyond
from siorg_job.sync.merge import Rule
from siorg_job.sync.model import UnitField
from siorg_job.sync.place import base_of, is_brought_here
from siorg_job.sync.working_copy import WorkingCopy
from siorg_queue import Connection, EntityType, NewItem, Operation, QueueStore, transaction


@dataclass(frozen=True, slots=True)
class Absent:
    """Units that are active here and not in their organization's structure, by what SIORG says of each. Deepest first."""

    moved: Mapping[int, RemoteUnit]
    """In another registered organization, and not by a person's edit here."""
    ended: tuple[int, ...]
    """Nowhere, or in an organization that is not registered, or one of their own."""
    unusable: tuple[int, ...] = ()
    """What SIORG says of them cannot be used."""


def sort_absent(found: Mapping[int, Answer], copy: WorkingCopy, registered: Collection[int]) -> Absent:
    """What became of units. One that SIORG still has in its organization is where it was: absence in a list proves nothing."""
    moved: dict[int, RemoteUnit] = {}
    ended: list[int] = []
    unusable: list[int] = []
    for code, remote in found.items():
        if isinstance(remote, PermanentError):
            unusable.append(code)
            continue
        if remote is None or remote.ended:
            ended.append(code)
            continue
        home = remote.organization_code or copy.units[code].organization_code
        if home == code or home not in registered:
            ended.append(code)
        elif home != copy.units[code].organization_code and not is_brought_here(copy.units[code], home, copy):
            moved[code] = remote
    return Absent(moved, tuple(ended), tuple(unusable))


def ends_held(copy: WorkingCopy) -> list[int]:
    """Codes of units whose end is held."""
    return [
        code
        for (entity_type, code), questions in copy.held_fields.items()
        if entity_type is EntityType.UNIT and any(each.field == UnitField.IS_ACTIVE and not each.decided for each in questions)
    ]


@dataclass(frozen=True, slots=True)
class Within:
    """What goes on after all that is beyond a limit was held."""

    comparison: Comparison
    """Without what is held; ``gone`` are ends."""
    held: int = 0
    """What is held of this organization, also from before."""
    reasons: Sequence[str] = ()
    """How many of how many, where something is beyond a limit now."""


def hold(
    structure: Structure,
    comparison: Comparison,
    copy: WorkingCopy,
    limits: Limits,
    *,
    connection: Connection,
    store: QueueStore,
    asked_at: datetime,
) -> Within:
    """Hold what is beyond the limits, all of it at once, and end what is held where the difference has gone.

    Args:
        structure: SIORG's answer.
        comparison: what came of comparing it; ``gone`` are ends.
        copy: the rows it was compared with, and what is held about them.
        limits: for ends.
        connection: the one that ``store`` uses.
        store: the queue.
        asked_at: when SIORG was asked, by the database's clock.
    """
    code = structure.organization
    ends = {
        each: _end(each) for each in comparison.gone if copy.turned_down(copy.units[each]).get(UnitField.IS_ACTIVE) is not False
    }
    named: dict[int, Difference] = {}
    for (entity_type, unit), differences in comparison.differences.items():
        if entity_type is not EntityType.UNIT or unit not in copy.units or base_of(copy.units[unit], copy) is None:
            continue
        for each in differences:
            if is_end(each):
                ends[unit] = each
            elif each.field == UnitField.NAME and each.rule is Rule.TAKE:
                named[unit] = each
    open_: dict[Disputed, bool] = {}
    if copy.held_fields:
        now = {each.disputed for found in (*comparison.differences.values(), ends.values()) for each in found}
        open_ = _open_questions(code, now, copy, store)
        ends = {unit: each for unit, each in ends.items() if each.disputed not in open_}
        named = {unit: each for unit, each in named.items() if each.disputed not in open_}
    reasons: list[str] = []
    held: set[Disputed] = set(open_)
    count = sum(not decided for decided in open_.values())
    remote_names = {unit: str(each.remote) for unit, each in named.items()}
    for found, reason in (
        (ends, _ends_beyond(connection, code, ends, copy, limits)),
        (named, beyond_for_names(connection, code, remote_names, copy)),
    ):
        if reason is not None:
            count += _hold(found, reason, structure, store, asked_at)
            reasons.append(reason)
            held |= {each.disputed for each in found.values()}
    if not held:
        return Within(comparison, count, reasons)
    left = {
        entity: kept
        for entity, differences in comparison.differences.items()
        if (kept := [each for each in differences if each.disputed not in held])
    }
    gone = tuple(each for each in comparison.gone if _end(each).disputed not in held)
    return Within(replace(comparison, differences=left, gone=gone), count, reasons)


def _open_questions(organization: int, now: Collection[Disputed], copy: WorkingCopy, store: QueueStore) -> dict[Disputed, bool]:
    """What is held already, and whether a person has decided it and it is not carried out yet; what is over is ended."""
    over = []
    found: dict[Disputed, bool] = {}
    for (entity_type, code), questions in copy.held_fields.items():
        for each in questions:
            key = (entity_type, code, each.field, json.dumps(each.remote))
            if key in now:
                found[key] = each.decided
            elif not each.decided and (code not in copy.units or copy.units[code].organization_code == organization):
                over.append(each.id)
    store.end_held(over, IS_OVER)
    return found


def _end(code: int) -> Difference:
    return Difference(EntityType.UNIT, code, UnitField.IS_ACTIVE, Rule.TAKE, base=True, local=True, remote=False)


def _ends_beyond(
    connection: Connection, organization: int, ends: Collection[int], copy: WorkingCopy, limits: Limits
) -> str | None:
    counted = {code: organization for code in ends if copy.units[code].synced_at is not None}
    if not counted:
        return None
    with transaction(connection):
        tally = count_ends(connection, counted)
    return ends_beyond(tally, [organization], limits).get(organization)


def beyond_for_names(connection: Connection, organization: int, named: Mapping[int, str], copy: WorkingCopy) -> str | None:
    """How many of an organization's names would be overwritten (SIORG's by unit code), where that is beyond the limit."""
    if not named:
        return None
    with transaction(connection):
        names = count_names(connection, [organization], named)
    units = sum(unit.is_active and unit.organization_code == organization for unit in copy.units.values())
    return names_beyond(units, names.get(organization, ()))


def _hold(found: Mapping[int, Difference], reason: str, structure: Structure, store: QueueStore, asked_at: datetime) -> int:
    items: list[NewItem] = []
    changes: list[Mapping[str, Any]] = []
    for code, each in found.items():
        if is_end(each):
            items.append(NewItem(EntityType.UNIT, code, Operation.EXTINCTION))
        else:
            payload = json.loads(structure.units[code].raw)
            items.append(NewItem(EntityType.UNIT, code, Operation.UPDATE, payload))
        changes.append({each.field: each.sides})
    return store.hold(items, changes, reason, asked_at=asked_at)
