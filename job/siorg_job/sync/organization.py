"""One item about an organization (an órgão's or entidade's own row), on the working copy."""

from __future__ import annotations

from collections.abc import Mapping

from siorg_job.siorg.rows import parse_stored
from siorg_job.sync.merge import (
    ResolutionError,
    as_json,
    decide,
    differences,
    read_resolution,
    remote_organization_values,
    with_kept,
)
from siorg_job.sync.merge_base import next_base
from siorg_job.sync.model import Change, Conflict, Evidence, OrganizationField, Resolution, Value, plain
from siorg_job.sync.outcomes import in_conflict, refused, superseded, unusable
from siorg_job.sync.working_copy import HistoryRow, Local, LocalOrganization
from siorg_queue import EntityType, Item, Operation, Outcome, Verdict

_IN_PATHS = (OrganizationField.NAME, OrganizationField.ACRONYM)  # which of them, is the database's trigger's business


def bring_in_line(item: Item, evidence: Evidence, local: Local) -> Verdict:
    """Decide one ORGANIZATION item (or a UNIT item that turned out to be one) and change the working copy accordingly."""
    row = local.organizations.get(item.siorg_code)
    if row is None:
        return refused(
            item,
            f"organization {item.siorg_code} is not registered here (SIORG serves no CNPJ): siorg-job organizations add",
            "unknown_organization",
        )
    try:
        resolution = read_resolution(item.error_details, OrganizationField)
    except ResolutionError as error:
        return unusable(item, error)
    if row.synced_at is not None and row.synced_at > evidence.asked_at:
        return superseded(item, row.id, decided=resolution is not None)
    remote = evidence.unit
    gone = remote is None or remote.ended
    if item.operation in (Operation.MERGE, Operation.SPLIT) and resolution is None:
        known: Mapping[str, Mapping[str, Value]] = (
            {OrganizationField.IS_ACTIVE: {"base": True, "local": row.fields[OrganizationField.IS_ACTIVE], "remote": False}}
            if gone or remote is None
            else differences(base=None, local=row.values(), remote=remote_organization_values(remote))
        )
        return Verdict(
            item,
            Outcome.CONFLICT,
            changes=as_json(known),
            local_id=row.id,
            error=f"organization {row.code}: SIORG reports {item.operation} and does not say with whom; a person has to decide",
            details={"kind": item.operation.lower(), "retryable": False},
        )
    if gone:
        if item.operation in (Operation.CREATION, Operation.UPDATE, Operation.HIERARCHY_CHANGE):
            return refused(item, f"SIORG has no organization {item.siorg_code}", "not_found")
        return _extinguish(item, evidence, row, local)
    assert remote is not None
    if item.operation is Operation.EXTINCTION and resolution is None:
        return Verdict(
            item,
            Outcome.SKIPPED,
            error=f"SIORG still has organization {row.code}: it is not extinct",
            local_id=row.id,
            details={"kind": "not_extinct", "retryable": False},
        )
    return _merge(item, evidence, row, local, resolution)


def _merge(item: Item, evidence: Evidence, row: LocalOrganization, local: Local, resolution: Resolution | None) -> Verdict:
    remote = evidence.unit
    assert remote is not None
    before = row.values()
    values = remote_organization_values(remote)
    base = None if row.base is None else remote_organization_values(row.base)
    base = with_kept(base, values, local.kept_of(EntityType.ORGANIZATION, row.code, row.synced_at))
    decision = decide(base=base, local=before, remote=values, resolution=resolution)
    if isinstance(decision, Conflict):
        return in_conflict(item, decision, row.id)
    if isinstance(decision, Change):
        row.fields = {**row.fields, **decision.values}
        row.changed = True
        row.renamed = row.renamed or not decision.values.keys().isdisjoint(_IN_PATHS)
        local.history.append(
            HistoryRow(
                EntityType.ORGANIZATION,
                row.code,
                row.id,
                Operation.UPDATE,
                plain(before),
                plain(row.values()),
                sorted(decision.values),
                remote.version,
                item.id,
                requires_review=item.operation is Operation.HIERARCHY_CHANGE,
            )
        )
    row.base_raw = next_base(row.base_raw, remote.raw)
    row.base = parse_stored(row.base_raw)
    row.synced_at = evidence.asked_at
    row.touched = True
    return Verdict(item, Outcome.COMPLETED, local_id=row.id)


def _extinguish(item: Item, evidence: Evidence, row: LocalOrganization, local: Local) -> Verdict:
    if not row.fields[OrganizationField.IS_ACTIVE]:
        return Verdict(item, Outcome.COMPLETED, local_id=row.id)
    if row.active_units:
        return Verdict(
            item,
            Outcome.CONFLICT,
            local_id=row.id,
            error=f"SIORG ended organization {row.code}, but {row.active_units} of its units are active here",
            changes={OrganizationField.IS_ACTIVE: {"base": True, "local": True, "remote": False}},
            details={"kind": "active_children", "retryable": False},
        )
    before = plain(row.values())
    row.fields = {**row.fields, OrganizationField.IS_ACTIVE: False}
    row.base_raw = {**(row.base_raw or {}), "operacao": "EXCLUSAO"}
    row.synced_at = evidence.asked_at
    row.changed = True
    local.history.append(
        HistoryRow(
            EntityType.ORGANIZATION,
            row.code,
            row.id,
            Operation.EXTINCTION,
            before,
            None,
            [OrganizationField.IS_ACTIVE.value],
            None,
            item.id,
            requires_review=True,
        )
    )
    return Verdict(item, Outcome.COMPLETED, local_id=row.id)
