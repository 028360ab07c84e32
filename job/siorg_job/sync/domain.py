"""One item about a category or a unit type, on the working copy."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any
from uuid import uuid4

from siorg_job.siorg.model import DomainRow
from siorg_job.sync.category_names import follows, names_here, table_of
from siorg_job.sync.domain_rows import LONGEST_NAME, base_of, code_of, pairs, remote_values, slug_of
from siorg_job.sync.local_rows import Domain
from siorg_job.sync.merge import merge
from siorg_job.sync.merge_base import next_record
from siorg_job.sync.model import Conflict, DomainField, Fetched, Values
from siorg_job.sync.outcomes import completed, conflict, not_extinct, refused, superseded
from siorg_job.sync.resolution import Resolution, resolution_of
from siorg_job.sync.working_copy import WorkingCopy
from siorg_queue import EntityType, Item, Operation, Verdict


def bring_in_line(item: Item, fetched: Fetched, copy: WorkingCopy) -> Verdict:
    """Decide one CATEGORY or TYPE item and change the working copy accordingly."""
    row, remote = _meant(item, fetched, copy)
    copy.check_readable(row, item.siorg_code)
    resolution = resolution_of(item, DomainField)
    if row is not None and fetched.is_older_than(row.synced_at):
        return superseded(item, row.id, row.synced_at, decided=resolution is not None)
    kind = item.entity_type.lower()
    if remote is None:
        if item.operation is Operation.EXTINCTION and row is not None:
            return _extinguish(item, fetched, row, copy, resolution)
        return refused(item, f"SIORG's table has no {kind} {item.siorg_code}", "not_found")
    if item.operation is Operation.EXTINCTION and remote.active and resolution is None:
        return not_extinct(item, f"{kind} {item.siorg_code}")
    if len(remote.name) > LONGEST_NAME:
        reason = f"the name in SIORG has {len(remote.name)} characters; at most {LONGEST_NAME} fit"
        return refused(item, reason, "invalid_answer")
    if row is None:
        return _create(item, remote, fetched, copy)
    name = names_here(fetched, copy)[item.siorg_code] if item.entity_type is EntityType.CATEGORY else remote.name
    turned_down = copy.turned_down(row, item.siorg_code)
    said = remote_values(row, remote, name, turned_down)
    decision = merge(base=base_of(row), local=row.values(), remote=said, kept=turned_down, resolution=resolution)
    if isinstance(decision, Conflict):
        return conflict(item, decision.reason, decision.differences, row.id)
    noted = _noted(row, remote, fetched, {**row.values(), **decision}, said, _decided(resolution), turned_down)
    _take(item, row, noted, decision, copy)
    if DomainField.NAME in decision and item.entity_type is EntityType.CATEGORY:
        _settle_names(item, row.name, str(decision[DomainField.NAME]), fetched, copy)
    return completed(item, row.id)


def _meant(item: Item, fetched: Fetched, copy: WorkingCopy) -> tuple[Domain | None, DomainRow | None]:
    """The row here that an item means, by number or (one without) by id, and that of SIORG's table."""
    rows = copy.domains_of(item.entity_type)
    found = next((pair for pair in pairs(item.entity_type, rows, fetched.rows) if pair.number == item.siorg_code), None)
    if found is not None and found.local is not None:
        return found.local, found.remote
    named = (replace(row, code=item.siorg_code) for row in rows if (row.code, row.id) == (None, item.local_id))
    return next(named, None), None if found is None else found.remote


def _decided(resolution: Resolution | None) -> Collection[str]:
    return () if resolution is None else {*resolution.merged, *resolution.keep}


def _take(item: Item, row: Domain, noted: Domain, decision: Values, copy: WorkingCopy) -> None:
    """Put ``noted``, the row with what SIORG manages alone, with the merged values: an end is a change by itself."""
    if not decision:
        copy.put(noted)
        return
    review = base_of(row) is None
    columns: dict[str, Any] = dict(decision)
    after = replace(noted, **columns)
    ended, returned = row.is_active and not after.is_active, after.is_active and not row.is_active
    if ended and (others := decision.keys() - {DomainField.IS_ACTIVE}):
        still = replace(after, is_active=True)
        copy.change(item, Operation.UPDATE, row, still, others, review=review)
        row = still
    operation = Operation.EXTINCTION if ended else Operation.CREATION if returned else Operation.UPDATE
    copy.change(item, operation, row, after, [DomainField.IS_ACTIVE] if ended else decision, review=review)


def _settle_names(item: Item, freed: str | None, needed: str, fetched: Fetched, copy: WorkingCopy) -> None:
    """Bring in line the other categories that had the name which one has got, or wait for the one it gave up, and so on.

    Their own items may be in another process, or not on the queue yet: SIORG's table says what they are called now.
    """
    table, names = table_of(fetched), names_here(fetched, copy)
    renamed = [(freed, needed)]
    while renamed:
        freed, needed = renamed.pop()
        for row in copy.domains_of(EntityType.CATEGORY):
            if row.id in copy.unreadable or row.code is None or row.name == names.get(row.code):
                continue
            if not follows(row, table.get(row.code), fetched):
                continue
            remote, name = table[row.code], names[row.code]
            if row.name == needed or name == freed:
                turned_down = copy.turned_down(row)
                said = remote_values(row, remote, name, turned_down)
                decision = merge(base=base_of(row), local=row.values(), remote=said, kept=turned_down)
                assert not isinstance(decision, Conflict), "a row that follows SIORG's table is in no conflict with it"
                noted = _noted(row, remote, fetched, {**row.values(), **decision}, said, (), turned_down)
                _take(item, row, noted, decision, copy)
                renamed.append((row.name, name))


def _create(item: Item, remote: DomainRow, fetched: Fetched, copy: WorkingCopy) -> Verdict:
    if item.entity_type is EntityType.TYPE:
        row = copy.type_for(slug_of(remote), remote.name)
        row = replace(row, code=code_of(remote) if row.code is None else row.code)
    else:
        name = names_here(fetched, copy)[item.siorg_code]
        namesake = copy.category_named(name)
        adopted = namesake if namesake is not None and namesake.is_adoptable else None
        row = replace(adopted or Domain(uuid4(), EntityType.CATEGORY, None, None, name), code=item.siorg_code)
    row = replace(row, is_active=remote.active)
    row = _noted(row, remote, fetched, row.values(), row.values(), (), {})
    copy.change(item, Operation.CREATION, None, row, DomainField)
    if item.entity_type is EntityType.CATEGORY:
        _settle_names(item, None, row.name, fetched, copy)
    return completed(item, row.id)


def _extinguish(item: Item, fetched: Fetched, row: Domain, copy: WorkingCopy, resolution: Resolution | None) -> Verdict:
    """SIORG's table has the row no more."""
    said: Values = {DomainField.IS_ACTIVE: False}
    turned_down = copy.turned_down(row, item.siorg_code)
    decision = merge(base=base_of(row), local=row.values(), remote=said, kept=turned_down, resolution=resolution)
    if isinstance(decision, Conflict):
        return conflict(item, decision.reason, decision.differences, row.id)
    record = next_record(row.base, {**row.values(), **decision}, said, _decided(resolution), turned_down)
    raw = {**(row.base_raw or {}), "ativo": "NAO"}
    _take(item, row, replace(row, base_raw=raw, base=record, synced_at=fetched.asked_at), decision, copy)
    return completed(item, row.id)


def _noted(
    row: Domain,
    remote: DomainRow,
    fetched: Fetched,
    after: Values,
    said: Values,
    decided: Collection[str],
    turned_down: Mapping[str, Any],
) -> Domain:
    """The row with what SIORG manages alone, and with what is recorded of a merge of ``said`` that leads to ``after``."""
    return replace(
        row,
        siorg_name=remote.name,
        base=next_record(row.base, after, said, decided, turned_down),
        base_raw=json.loads(remote.raw),
        synced_at=fetched.asked_at,
        managed=True,
    )
