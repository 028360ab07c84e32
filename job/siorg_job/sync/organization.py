"""One item about an organization (an órgão's or entidade's own row), on the working copy."""

from __future__ import annotations

from dataclasses import replace

from siorg_job.siorg.model import Answer, RemoteUnit
from siorg_job.sync.local_rows import Organization, Unit
from siorg_job.sync.merge import differences, end, merge, remote_organization_values, stays_active
from siorg_job.sync.merge_base import ended_raw, next_raw, next_record
from siorg_job.sync.model import Conflict, Fetched, OrganizationField, UnitField, Values
from siorg_job.sync.outcomes import asked_too_early, completed, conflict, not_extinct, part_of_an_end, refused, superseded
from siorg_job.sync.place import base_of as base_of_unit
from siorg_job.sync.resolution import Resolution, ResolutionError, resolution_of
from siorg_job.sync.working_copy import WorkingCopy
from siorg_queue import EntityType, Item, Operation, Outcome, Verdict


def bring_in_line(item: Item, fetched: Fetched, copy: WorkingCopy) -> Verdict:
    """Decide one ORGANIZATION item (or a UNIT item that turned out to be one) and change the working copy accordingly."""
    row = copy.organizations.get(item.siorg_code)
    if row is None:
        return refused(
            item,
            f"organization {item.siorg_code} is not registered here (SIORG serves no CNPJ): siorg-job organizations add",
            "unknown_organization",
        )
    copy.check_readable(row)
    resolution = resolution_of(item, OrganizationField, remote_organization_values)
    if fetched.is_older_than(row.synced_at):
        return superseded(item, row.id, row.synced_at, decided=resolution is not None)
    remote = fetched.unit if fetched.unit is not None and fetched.unit.is_its_own else None
    if item.operation in (Operation.MERGE, Operation.SPLIT) and resolution is None:
        found = (
            end(row.is_active)
            if remote is None
            else differences(base=base_of(row), local=row.values(), remote=remote_organization_values(remote))
        )
        reason = f"organization {row.code}: SIORG reports {item.operation} and does not say with whom; a person has to decide"
        return conflict(item, reason, found, row.id, kind=item.operation.lower())
    if remote is None:
        if item.operation in (Operation.CREATION, Operation.UPDATE, Operation.HIERARCHY_CHANGE):
            return part_of_an_end(item, row.code)  # discovery asks a person, once
        return _extinguish(item, fetched, row, copy, resolution)
    if item.operation is Operation.EXTINCTION and resolution is None:
        return not_extinct(item, f"organization {row.code}", row.id)
    if not row.is_active:
        return completed(item, row.id)  # it counts as not registered: nothing of it is kept in line until a person reactivates it
    return _merge(item, remote, fetched, row, copy, resolution)


def _merge(
    item: Item, remote: RemoteUnit, fetched: Fetched, row: Organization, copy: WorkingCopy, resolution: Resolution | None
) -> Verdict:
    base, values = base_of(row), remote_organization_values(remote)
    decision = merge(
        base=base,
        local=row.values(),
        remote=values,
        kept=copy.turned_down(row),
        resolution=resolution,
    )
    if isinstance(decision, Conflict):
        return conflict(item, decision.reason, decision.differences, row.id)
    decided = {*resolution.merged, *resolution.keep} if resolution is not None else ()
    record = next_record(row.base, {**row.values(), **decision}, values, decided, copy.turned_down(row))
    noted = replace(row, base_raw=next_raw(row.base_raw, remote.raw), base=record, synced_at=fetched.asked_at)
    copy.take(item, row, noted, decision, remote.version, review=base is None)
    return completed(item, row.id)


def base_of(row: Organization) -> Values | None:
    """What we last wrote, where it is recorded; else what SIORG said last stands in."""
    recorded = {} if row.base is None else row.base.values
    if row.said is None:
        return recorded or None
    return {**remote_organization_values(row.said), **recorded}


# -- the end, which a person decides about ------------------------------------------------------------------------------


def lives_elsewhere(answer: Answer, organization: int) -> bool:
    """Whether SIORG has a unit of an ended organization somewhere; that what it has ended holds it, is no place."""
    if isinstance(answer, RemoteUnit):
        return not answer.ended and answer.organization_code not in (None, organization)
    return answer is not None


def is_kept_active(row: Organization, copy: WorkingCopy) -> bool:
    """Whether a person wants the organization active although SIORG has ended it."""
    base = base_of(row)
    return stays_active(None, copy.turned_down(row)) or (base is not None and base.get(OrganizationField.IS_ACTIVE) is False)


def ends_with_its_units(item: Item) -> bool:
    """Whether a person decided that the organization ends: with it end the units that SIORG has nowhere."""
    if item.entity_type is not EntityType.ORGANIZATION:
        return False
    try:
        return _is_accepted(resolution_of(item, OrganizationField))
    except ResolutionError:
        return False


def _is_accepted(resolution: Resolution | None) -> bool:
    return resolution is not None and resolution.names(OrganizationField.IS_ACTIVE) and not stays_active(resolution, {})


def _word_of(row: Organization, fetched: Fetched) -> str:
    """What SIORG says of an organization that it has no more."""
    unit = fetched.unit
    if unit is None or unit.ended:
        return f"SIORG has no organization {row.code} any more"
    return f"SIORG has made organization {row.code} a unit of organization {unit.organization_code}"


def _extinguish(item: Item, fetched: Fetched, row: Organization, copy: WorkingCopy, resolution: Resolution | None) -> Verdict:
    base = base_of(row)
    if not row.is_active or (resolution is None and base is not None and base.get(OrganizationField.IS_ACTIVE) is False):
        return completed(item, row.id)
    ended: Values = {OrganizationField.IS_ACTIVE: False}
    noted = replace(row, base_raw=ended_raw(row.base_raw), synced_at=fetched.asked_at)
    if stays_active(resolution, copy.turned_down(row)):
        copy.put(replace(noted, base=next_record(row.base, row.values(), ended, decided=ended)))
        return completed(item, row.id)
    units = copy.active_in(row)
    if not _is_accepted(resolution):
        reason = (
            f"{_word_of(row, fetched)}; it and its {len(units)} active units here wait for one decision:"
            f" siorg-job organizations deactivate {row.code}, or accept this; kept, they stay active"
        )
        return conflict(item, reason, end(local=True), row.id, kind="organization_ended", details={"active_units": len(units)})
    if units - fetched.gone - fetched.elsewhere:
        return Verdict(item, Outcome.RELEASED, "units came to the organization meanwhile; asking for them too", delay_seconds=1.0)
    ending = [copy.units[code] for code in units & fetched.gone]
    if newer := [unit.synced_at for unit in ending if fetched.is_older_than(unit.synced_at) and unit.synced_at]:
        return asked_too_early(item, max(newer), "a newer answer of SIORG about its units was applied meanwhile")
    for unit in sorted(ending, key=lambda unit: (-unit.level, unit.code)):
        copy.check_readable(unit)
        _end_unit(item, fetched, unit, row, copy)
    copy.ask_again |= units & fetched.elsewhere
    after = replace(noted, is_active=False, base=next_record(row.base, ended, ended, ()))
    copy.change(item, Operation.EXTINCTION, row, after, [OrganizationField.IS_ACTIVE])
    return completed(item, row.id)


def ends_along(unit: Unit, copy: WorkingCopy) -> bool:
    """Whether a unit ends with its organization: unless a person kept it when SIORG ended it, or opened it again since."""
    base = base_of_unit(unit, copy)
    return not stays_active(None, copy.turned_down(unit)) and (base is None or base.get(UnitField.IS_ACTIVE) is not False)


def _end_unit(item: Item, fetched: Fetched, unit: Unit, row: Organization, copy: WorkingCopy) -> None:
    ended: Values = {UnitField.IS_ACTIVE: False}
    if not ends_along(unit, copy):
        return
    after = replace(
        unit,
        is_active=False,
        deactivation_reason=f"extinct in SIORG with organization {row.code}",
        base_raw=ended_raw(unit.base_raw),
        synced_at=fetched.asked_at,
        base=next_record(unit.base, ended, ended, ()),
    )
    copy.change(item, Operation.EXTINCTION, unit, after, [UnitField.IS_ACTIVE], unit.version)
    copy.ended_along.add(unit.code)
