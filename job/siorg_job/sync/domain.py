"""One item about a category or a unit type, on the working copy."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

from siorg_job.siorg.model import DomainRow
from siorg_job.siorg.rows import stored_is_active
from siorg_job.sync.category_names import LONGEST_NAME, follows, is_of, names_here, table_of
from siorg_job.sync.merge import merge
from siorg_job.sync.model import Conflict, DomainField, Fetched, Values
from siorg_job.sync.outcomes import completed, conflict, not_extinct, refused, superseded
from siorg_job.sync.resolution import Resolution, resolution_of
from siorg_job.sync.working_copy import Domain, WorkingCopy
from siorg_queue import EntityType, Item, Operation, Verdict


def bring_in_line(item: Item, fetched: Fetched, copy: WorkingCopy) -> Verdict:
    """Decide one CATEGORY or TYPE item and change the working copy accordingly."""
    row = _local(item, copy)
    resolution = resolution_of(item, DomainField)
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
    if len(remote.name) > LONGEST_NAME:
        reason = f"the name in SIORG has {len(remote.name)} characters; at most {LONGEST_NAME} fit"
        return refused(item, reason, "invalid_answer")
    if row is None:
        return _create(item, remote, fetched, copy)
    name = names_here(fetched, copy)[item.siorg_code] if item.entity_type is EntityType.CATEGORY else remote.name
    kept = copy.kept_of(item.entity_type, item.siorg_code, row.synced_at)
    decision = _merge(row, remote, name, kept, resolution)
    if isinstance(decision, Conflict):
        return conflict(item, decision.reason, decision.differences, row.id)
    copy.take(item, row, _noted(row, remote, fetched), decision)
    if DomainField.NAME in decision and item.entity_type is EntityType.CATEGORY:
        _settle_names(item, row.name, str(decision[DomainField.NAME]), fetched, copy)
    return completed(item, row.id)


def _local(item: Item, copy: WorkingCopy) -> Domain | None:
    """The local row that an item means, by SIORG code or (one without a code) by id."""
    rows = copy.domains_of(item.entity_type)
    found = next((row for row in rows if row.code == item.siorg_code), None)
    return found or next(
        (replace(row, code=item.siorg_code) for row in rows if (row.code, row.id) == (None, item.local_id)), None
    )


def _remote(code: int, rows: Sequence[DomainRow], known_slug: str | None) -> DomainRow | None:
    """The row of SIORG's table that an item means.

    Unit types have letters for codes in SIORG (``UA``) and numbers here, so a type is also found by its slug.
    """
    of_code = (row for row in rows if str(row.code) == str(code))
    of_slug = (row for row in rows if known_slug is not None and _slug_of(row.name) == known_slug)
    return next(of_code, None) or next(of_slug, None)


def _slug_of(name: str) -> str:
    """SIORG's slug of a name: lower case, no accents, everything else a hyphen (reference §7)."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]", "-", ascii_name.lower()).strip("-")


def _merge(
    row: Domain, remote: DomainRow, name: str, kept: Mapping[str, Any] | None = None, resolution: Resolution | None = None
) -> Values | Conflict:
    """The values to write of a row that SIORG's table would have under ``name`` here."""
    base: Values | None = None
    if row.base_raw is not None:
        # In our words: what a sync made of SIORG's name is no edit, and a name that SIORG did not change is no news.
        edited = not is_of(row.name, row.siorg_name, row.code)
        before = row.name if not edited else name if remote.name == row.siorg_name else row.siorg_name
        base = {DomainField.NAME: before, DomainField.IS_ACTIVE: stored_is_active(row.base_raw)}
    said: Values = {DomainField.NAME: name, DomainField.IS_ACTIVE: remote.active}
    return merge(base=base, local=row.values(), remote=said, kept=kept, resolution=resolution)


def _settle_names(item: Item, freed: str | None, needed: str, fetched: Fetched, copy: WorkingCopy) -> None:
    """Bring in line the other categories that had the name which one has got, or wait for the one it gave up, and so on.

    Their own items may be in another process, or not on the queue yet: SIORG's table says what they are called now.
    """
    table, names = table_of(fetched), names_here(fetched, copy)
    renamed = [(freed, needed)]
    while renamed:
        freed, needed = renamed.pop()
        for row in copy.domains_of(EntityType.CATEGORY):
            if row.code is None or row.name == names.get(row.code) or not follows(row, table.get(row.code), fetched):
                continue
            remote, name = table[row.code], names[row.code]
            if row.name == needed or name == freed:
                decision = _merge(row, remote, name)
                assert not isinstance(decision, Conflict), "a row that follows SIORG's table is in no conflict with it"
                copy.take(item, row, _noted(row, remote, fetched), decision)
                renamed.append((row.name, name))


def _create(item: Item, remote: DomainRow, fetched: Fetched, copy: WorkingCopy) -> Verdict:
    if item.entity_type is EntityType.TYPE:
        row = copy.type_for(_slug_of(remote.name), remote.name)
        row = replace(row, code=item.siorg_code if row.code is None else row.code)
    else:
        name = names_here(fetched, copy)[item.siorg_code]
        namesake = copy.category_named(name)
        adopted = namesake if namesake is not None and namesake.is_adoptable else None
        row = replace(adopted or Domain(uuid4(), EntityType.CATEGORY, None, None, name), code=item.siorg_code)
    row = _noted(replace(row, is_active=remote.active), remote, fetched)
    copy.change(item, Operation.CREATION, None, row, DomainField)
    if item.entity_type is EntityType.CATEGORY:
        _settle_names(item, None, row.name, fetched, copy)
    return completed(item, row.id)


def _extinguish(item: Item, fetched: Fetched, row: Domain, copy: WorkingCopy) -> Verdict:
    if row.is_active:
        after = replace(row, is_active=False, synced_at=fetched.asked_at)
        copy.change(item, Operation.EXTINCTION, row, after, [DomainField.IS_ACTIVE])
    return completed(item, row.id)


def _noted(row: Domain, remote: DomainRow, fetched: Fetched) -> Domain:
    return replace(row, siorg_name=remote.name, base_raw=json.loads(remote.raw), synced_at=fetched.asked_at, managed=True)
