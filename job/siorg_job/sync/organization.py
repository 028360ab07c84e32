"""One item about an organization (an órgão's or entidade's own row), on the working copy."""

from __future__ import annotations

from dataclasses import replace

from siorg_job.siorg.model import RemoteUnit
from siorg_job.siorg.rows import parse_stored
from siorg_job.sync.merge import differences, end, merge, remote_organization_values
from siorg_job.sync.merge_base import ended_base, next_base
from siorg_job.sync.model import Conflict, Fetched, OrganizationField
from siorg_job.sync.outcomes import completed, conflict, not_extinct, refused, superseded
from siorg_job.sync.resolution import Resolution, read_resolution
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
    resolution = read_resolution(item.error_details, OrganizationField)
    if fetched.is_older_than(row.synced_at):
        return superseded(item, row.id, row.synced_at, decided=resolution is not None)
    remote = None if fetched.unit is None or fetched.unit.ended else fetched.unit
    if item.operation in (Operation.MERGE, Operation.SPLIT) and resolution is None:
        found = (
            end(row.is_active)
            if remote is None
            else differences(base=None, local=row.values(), remote=remote_organization_values(remote))
        )
        reason = f"organization {row.code}: SIORG reports {item.operation} and does not say with whom; a person has to decide"
        return conflict(item, reason, found, row.id, kind=item.operation.lower())
    if remote is None:
        if item.operation in (Operation.CREATION, Operation.UPDATE, Operation.HIERARCHY_CHANGE):
            return refused(item, f"SIORG has no organization {item.siorg_code}", "not_found")
        return _extinguish(item, fetched, row, copy)
    if item.operation is Operation.EXTINCTION and resolution is None:
        return not_extinct(item, f"organization {row.code}", row.id)
    return _merge(item, remote, fetched, row, copy, resolution)


def _merge(
    item: Item, remote: RemoteUnit, fetched: Fetched, row: Organization, copy: WorkingCopy, resolution: Resolution | None
) -> Verdict:
    decision = merge(
        base=None if row.base is None else remote_organization_values(row.base),
        local=row.values(),
        remote=remote_organization_values(remote),
        kept=copy.kept_of(row.entity_type, row.code, row.synced_at),
        resolution=resolution,
    )
    if isinstance(decision, Conflict):
        return conflict(item, decision.reason, decision.differences, row.id)
    raw = next_base(row.base_raw, remote.raw)
    noted = replace(row, base_raw=raw, base=parse_stored(raw), synced_at=fetched.asked_at)
    copy.take(item, row, noted, decision, remote.version)
    return completed(item, row.id)


def _extinguish(item: Item, fetched: Fetched, row: Organization, copy: WorkingCopy) -> Verdict:
    if not row.is_active:
        return completed(item, row.id)
    if units := copy.active_units.get(row.id):
        reason = f"SIORG ended organization {row.code}, but {units} of its units are active here"
        return conflict(item, reason, end(local=True), row.id, kind="active_children")
    after = replace(row, is_active=False, base_raw=ended_base(row.base_raw), synced_at=fetched.asked_at)
    copy.change(item, Operation.EXTINCTION, row, after, [OrganizationField.IS_ACTIVE])
    return completed(item, row.id)
