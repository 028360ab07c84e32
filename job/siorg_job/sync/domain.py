"""One item about a category or a unit type, on the working copy."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from uuid import uuid4

from siorg_job.siorg.model import DomainRow
from siorg_job.sync.merge import ResolutionError, decide, read_resolution, remote_domain_values, with_kept
from siorg_job.sync.model import Change, Conflict, DomainField, Evidence, Values, plain
from siorg_job.sync.outcomes import in_conflict, refused, superseded, unusable
from siorg_job.sync.working_copy import HistoryRow, Local, LocalDomain
from siorg_queue import EntityType, Item, Operation, Outcome, Verdict


def slug_of(name: str) -> str:
    """SIORG's slug of a name: lower case, no accents, everything else a hyphen (reference §7)."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]", "-", ascii_name.lower()).strip("-")


def find_row(item_code: int, rows: Sequence[DomainRow], known_slug: str | None) -> DomainRow | None:
    """The row of SIORG's table that an item means.

    Unit types have letters for codes in SIORG (``UA``) and numbers here, so a type is also found by its slug.
    """
    for row in rows:
        if str(row.code) == str(item_code) or (known_slug is not None and slug_of(row.name) == known_slug):
            return row
    return None


def bring_in_line(item: Item, evidence: Evidence, local: Local) -> Verdict:
    """Decide one CATEGORY or TYPE item and change the working copy accordingly."""
    row = find_local(item, local)
    try:
        resolution = read_resolution(item.error_details, DomainField)
    except ResolutionError as error:
        return unusable(item, error)
    if row is not None and row.synced_at is not None and row.synced_at > evidence.asked_at:
        return superseded(item, row.id, decided=resolution is not None)
    remote = find_row(item.siorg_code, evidence.rows, None if row is None else row.slug)
    if remote is None:
        if item.operation is Operation.EXTINCTION and row is not None:
            return _end(item, evidence, row, local)
        return refused(item, f"SIORG's table has no {item.entity_type.lower()} {item.siorg_code}", "not_found")
    if item.operation is Operation.EXTINCTION and remote.active:
        return Verdict(
            item,
            Outcome.SKIPPED,
            error=f"SIORG still has {item.entity_type.lower()} {item.siorg_code}: it is not extinct",
            details={"kind": "not_extinct", "retryable": False},
        )
    if len(remote.name) > 100:
        return refused(item, f"the name in SIORG has {len(remote.name)} characters; at most 100 fit", "invalid_answer")
    if row is None:
        return _create(item, remote, evidence, local)
    before = row.values()
    base: Values | None = None
    if row.base_raw is not None:
        base = {DomainField.NAME: row.siorg_name, DomainField.IS_ACTIVE: row.base_raw.get("ativo", "SIM") != "NAO"}
    values = remote_domain_values(remote)
    base = with_kept(base, values, local.kept_of(item.entity_type, item.siorg_code, row.synced_at))
    decision = decide(base=base, local=before, remote=values, resolution=resolution)
    if isinstance(decision, Conflict):
        return in_conflict(item, decision, row.id)
    if isinstance(decision, Change):
        row.name = str(decision.values.get(DomainField.NAME, row.name))
        row.is_active = bool(decision.values.get(DomainField.IS_ACTIVE, row.is_active))
        row.changed = True
        _remember(item, row, Operation.UPDATE, before, sorted(decision.values), local)
    _note(row, remote, evidence)
    return Verdict(item, Outcome.COMPLETED, local_id=row.id)


def find_local(item: Item, local: Local) -> LocalDomain | None:
    """The local row that an item means, by SIORG code or by id."""
    rows = list(local.types.values()) if item.entity_type is EntityType.TYPE else local.categories
    found = next((row for row in rows if row.code == item.siorg_code), None)
    return found or next((row for row in rows if row.id == item.local_id), None)


def _create(item: Item, remote: DomainRow, evidence: Evidence, local: Local) -> Verdict:
    if item.entity_type is EntityType.TYPE:
        slug = slug_of(remote.name)
        row = local.type_for(slug, remote.name)
        row.code = item.siorg_code if row.code is None else row.code
    else:
        row = local.category_for(item.siorg_code, remote.name)
    row.id = row.id or uuid4()
    row.is_active, row.changed = remote.active, True
    _note(row, remote, evidence)
    _remember(item, row, Operation.CREATION, None, [DomainField.IS_ACTIVE, DomainField.NAME], local)
    return Verdict(item, Outcome.COMPLETED, local_id=row.id)


def _end(item: Item, evidence: Evidence, row: LocalDomain, local: Local) -> Verdict:
    if row.is_active:
        before = row.values()
        row.is_active, row.changed, row.synced_at = False, True, evidence.asked_at
        _remember(item, row, Operation.EXTINCTION, before, [DomainField.IS_ACTIVE], local)
    return Verdict(item, Outcome.COMPLETED, local_id=row.id)


def _note(row: LocalDomain, remote: DomainRow, evidence: Evidence) -> None:
    row.siorg_name = remote.name
    row.base_raw = json.loads(remote.raw)
    row.synced_at = evidence.asked_at
    row.managed = True
    row.touched = True


def _remember(item: Item, row: LocalDomain, change: Operation, before: Values | None, fields: list[str], local: Local) -> None:
    local.history.append(
        HistoryRow(
            item.entity_type,
            item.siorg_code,
            row.id,
            change,
            None if before is None else plain(before),
            None if change is Operation.EXTINCTION else plain(row.values()),
            [str(field) for field in fields],
            None,
            item.id,
            requires_review=change is Operation.EXTINCTION,
        )
    )
