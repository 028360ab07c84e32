"""One item about an organization (an órgão's or entidade's own row), on the working copy."""

from __future__ import annotations

from dataclasses import replace

from siorg_job.siorg.model import RemoteUnit
from siorg_job.sync.merge import differences, end, merge, remote_organization_values, stays_active
from siorg_job.sync.merge_base import ended_raw, next_raw, next_record
from siorg_job.sync.model import Conflict, Fetched, OrganizationField, Values
from siorg_job.sync.outcomes import completed, conflict, not_extinct, refused, superseded
from siorg_job.sync.resolution import Resolution, resolution_of
from siorg_job.sync.working_copy import Organization, WorkingCopy
from siorg_queue import Item, Operation, Verdict


def bring_in_line(item: Item, fetched: Fetched, copy: WorkingCopy) -> Verdict:
    """Decide one ORGANIZATION item (or a UNIT item that turned out to be one) and change the working copy accordingly."""
    row = copy.organizations.get(item.siorg_code)
    if row is None:
        return refused(
            item,
            f"organization {item.siorg_code} is not registered here (SIORG serves no CNPJ): siorg-job organizations add",
            "unknown_organization",
        )
    resolution = resolution_of(item, OrganizationField, remote_organization_values)
    if fetched.is_older_than(row.synced_at):
        return superseded(item, row.id, row.synced_at, decided=resolution is not None)
    remote = None if fetched.unit is None or fetched.unit.ended else fetched.unit
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
            return refused(item, f"SIORG has no organization {item.siorg_code}", "not_found")
        return _extinguish(item, fetched, row, copy, resolution)
    if item.operation is Operation.EXTINCTION and resolution is None:
        return not_extinct(item, f"organization {row.code}", row.id)
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


def _extinguish(item: Item, fetched: Fetched, row: Organization, copy: WorkingCopy, resolution: Resolution | None) -> Verdict:
    base = base_of(row)
    if not row.is_active or (resolution is None and base is not None and base.get(OrganizationField.IS_ACTIVE) is False):
        return completed(item, row.id)
    ended: Values = {OrganizationField.IS_ACTIVE: False}
    noted = replace(row, base_raw=ended_raw(row.base_raw), synced_at=fetched.asked_at)
    if stays_active(resolution, copy.turned_down(row)):
        copy.put(replace(noted, base=next_record(row.base, row.values(), ended, decided=ended)))
        return completed(item, row.id)
    if units := copy.active_units.get(row.id):
        reason = f"SIORG ended organization {row.code}, but {units} of its units are active here"
        return conflict(item, reason, end(local=True), row.id, kind="active_children")
    after = replace(noted, is_active=False, base=next_record(row.base, ended, ended, ()))
    copy.change(item, Operation.EXTINCTION, row, after, [OrganizationField.IS_ACTIVE])
    return completed(item, row.id)
