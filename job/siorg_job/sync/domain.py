"""One item about a category or a unit type, on the working copy."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace

from siorg_job.siorg.model import DomainRow
from siorg_job.sync.merge import merge
from siorg_job.sync.model import Conflict, DomainField, Fetched, Values
from siorg_job.sync.outcomes import completed, conflict, not_extinct, refused, superseded
from siorg_job.sync.resolution import read_resolution
from siorg_job.sync.working_copy import Domain, WorkingCopy
from siorg_queue import EntityType, Item, Operation, Verdict

_LONGEST_NAME = 100


def bring_in_line(item: Item, fetched: Fetched, copy: WorkingCopy) -> Verdict:
    """Decide one CATEGORY or TYPE item and change the working copy accordingly."""
    row = _local(item, copy)
    resolution = read_resolution(item.error_details, DomainField)
    if row is not None and fetched.is_older_than(row.synced_at):
        return superseded(item, row.id, row.synced_at, decided=resolution is not None)
    remote = _remote(item.siorg_code, fetched.rows, None if row is None else row.slug)
    kind = item.entity_type.lower()
    if remote is None:
        if item.operation is Operation.EXTINCTION and row is not None:
            return _extinguish(item, fetched, row, copy)
        return refused(item, f"SIORG's table has no {kind} {item.siorg_code}", "not_found")
    if item.operation is Operation.EXTINCTION and remote.active:
        return not_extinct(item, f"{kind} {item.siorg_code}")
    if len(remote.name) > _LONGEST_NAME:
        reason = f"the name in SIORG has {len(remote.name)} characters; at most {_LONGEST_NAME} fit"
        return refused(item, reason, "invalid_answer")
    if row is None:
        return _create(item, remote, fetched, copy)
    decision = merge(
        base=_base_of(row),
        local=row.values(),
        remote={DomainField.NAME: remote.name, DomainField.IS_ACTIVE: remote.active},
        kept=copy.kept_of(item.entity_type, item.siorg_code, row.synced_at),
        resolution=resolution,
    )
    if isinstance(decision, Conflict):
        return conflict(item, decision.reason, decision.differences, row.id)
    copy.take(item, row, _noted(row, remote, fetched), decision)
    return completed(item, row.id)


def _local(item: Item, copy: WorkingCopy) -> Domain | None:
    """The local row that an item means, by SIORG code or by id."""
    rows = copy.domains_of(item.entity_type)
    found = next((row for row in rows if row.code == item.siorg_code), None)
    return found or next((row for row in rows if row.id == item.local_id), None)


def _remote(code: int, rows: Sequence[DomainRow], known_slug: str | None) -> DomainRow | None:
    """The row of SIORG's table that an item means.

    Unit types have letters for codes in SIORG (``UA``) and numbers here, so a type is also found by its slug.
    """
    for row in rows:
        if str(row.code) == str(code) or (known_slug is not None and _slug_of(row.name) == known_slug):
            return row
    return None


def _slug_of(name: str) -> str:
    """SIORG's slug of a name: lower case, no accents, everything else a hyphen (reference §7)."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]", "-", ascii_name.lower()).strip("-")


def _base_of(row: Domain) -> Values | None:
    if row.base_raw is None:
        return None
    return {DomainField.NAME: row.siorg_name, DomainField.IS_ACTIVE: row.base_raw.get("ativo", "SIM") != "NAO"}


def _create(item: Item, remote: DomainRow, fetched: Fetched, copy: WorkingCopy) -> Verdict:
    if item.entity_type is EntityType.TYPE:
        row = copy.type_for(_slug_of(remote.name), remote.name)
        row = replace(row, code=item.siorg_code if row.code is None else row.code)
    else:
        row = copy.category_for(item.siorg_code, remote.name)
    row = _noted(replace(row, is_active=remote.active), remote, fetched)
    copy.change(item, Operation.CREATION, None, row, DomainField)
    return completed(item, row.id)


def _extinguish(item: Item, fetched: Fetched, row: Domain, copy: WorkingCopy) -> Verdict:
    if row.is_active:
        after = replace(row, is_active=False, synced_at=fetched.asked_at)
        copy.change(item, Operation.EXTINCTION, row, after, [DomainField.IS_ACTIVE])
    return completed(item, row.id)


def _noted(row: Domain, remote: DomainRow, fetched: Fetched) -> Domain:
    return replace(row, siorg_name=remote.name, base_raw=json.loads(remote.raw), synced_at=fetched.asked_at, managed=True)
