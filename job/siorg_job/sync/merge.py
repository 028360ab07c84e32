"""The three-way merge: base (what was last synced), local (the row now), remote (the fetch). Pure.

Field by field: local = base → take remote; remote = base → keep local; both moved to the same value → agree; both moved
apart → conflict, and then nothing of the item is applied. What the remote does not say is no change: absence never erases.
A row without a base was never synced: there SIORG wins, and history keeps what was. A field on which SIORG was silent at the
last sync has nothing for its base: what a person filled in meanwhile is an edit like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from siorg_job.siorg.model import MAX_ADDRESS, MAX_EMAIL, MAX_PHONE, MAX_WEBSITE, RemoteUnit
from siorg_job.sync.model import Conflict, OrganizationField, UnitField, Value, Values, comparable, plain
from siorg_job.sync.resolution import Resolution


def remote_unit_values(unit: RemoteUnit) -> Values:
    """A fetched unit in the words of ``UnitField``; None where SIORG did not say."""
    return {
        UnitField.NAME: unit.name,
        UnitField.ACRONYM: unit.acronym,
        UnitField.ORGANIZATION: unit.organization_code,
        UnitField.PARENT: unit.parent_code,
        UnitField.UNIT_TYPE: unit.type_slug,
        UnitField.CATEGORY: unit.category_code,
        UnitField.ACTIVITY_AREA: unit.activity_area,
        UnitField.PHONES: unit.phones,
        UnitField.EMAILS: unit.emails,
        UnitField.WEBSITES: unit.websites,
        UnitField.ADDRESS: unit.address,
        UnitField.IS_ACTIVE: not unit.ended,
    }


def remote_organization_values(unit: RemoteUnit) -> Values:
    """A fetched órgão or entidade in the words of ``OrganizationField``; of contact and address what its columns hold."""
    return {
        OrganizationField.NAME: unit.name,
        OrganizationField.ACRONYM: unit.acronym,
        OrganizationField.ADDRESS: _first((unit.address,), MAX_ADDRESS),
        OrganizationField.STATE: unit.state,
        OrganizationField.ZIP_CODE: unit.zip_code,
        OrganizationField.PHONE: _first(unit.phones, MAX_PHONE),
        OrganizationField.EMAIL: _first(unit.emails, MAX_EMAIL),
        OrganizationField.WEBSITE: _first(unit.websites, MAX_WEBSITE),
        OrganizationField.IS_ACTIVE: not unit.ended,
    }


def _first(values: Sequence[str | None] | None, longest: int) -> str | None:
    return next((value for value in values or () if value is not None and len(value) <= longest), None)


def merge(
    *,
    base: Values | None,
    local: Values,
    remote: Values,
    kept: Mapping[str, Any] | None = None,
    resolution: Resolution | None = None,
    strict_hierarchy: bool = False,
) -> Values | Conflict:
    """Merge one entity that exists locally: the values to write, if any, or what a person has to decide.

    Args:
        base: the values at the last sync; None when it was never synced.
        local: the row now.
        remote: what SIORG says.
        kept: by field, as JSON, what SIORG said when a person kept the local value: no news where it still says so.
        resolution: a person's decision about an earlier conflict.
        strict_hierarchy: a move is a conflict (setting ``siorg.hierarchy_strict_mode``), unless a person decided.
    """
    base = _with_kept(base, remote, kept or {})
    changed: dict[str, Value] = {}
    apart: list[str] = []
    for field, theirs in remote.items():
        mine = local.get(field)
        before = None if base is None else base.get(field)
        if resolution is not None and (decided := _decided(field, mine, theirs, resolution)) is not None:
            changed.update(decided)
        elif theirs is None or _same(mine, theirs):
            continue
        elif base is None or _same(mine, before):
            changed[field] = theirs
        elif not _same(theirs, before):
            apart.append(field)
    if apart:
        reason = "changed here and in SIORG: " + ", ".join(sorted(apart))
    elif strict_hierarchy and base is not None and resolution is None:
        apart = [field for field in (UnitField.PARENT, UnitField.ORGANIZATION) if field in changed]
        reason = "the unit moved in SIORG, and siorg.hierarchy_strict_mode is on"
    if apart:
        return Conflict(differences(base=base, local=local, remote={field: remote[field] for field in apart}), reason)
    return changed


def _decided(field: str, mine: Value, theirs: Value, resolution: Resolution) -> dict[str, Value] | None:
    """What the person's decision writes into this field (nothing where it has the value); None: it does not name the field."""
    if field in resolution.merged:
        wanted = resolution.merged[field]
    elif field in resolution.keep:
        wanted = mine
    elif theirs is not None and (resolution.accept_siorg or field in resolution.take):
        wanted = theirs
    else:
        return None
    return {} if wanted == mine else {field: wanted}


def differences(*, base: Values | None, local: Values, remote: Values) -> dict[str, Mapping[str, Value]]:
    """Everything in which local and remote differ, for a person to look at."""
    return {
        field: {"base": None if base is None else base.get(field), "local": local.get(field), "remote": theirs}
        for field, theirs in remote.items()
        if theirs is not None and not _same(theirs, local.get(field))
    }


def end(local: Value) -> dict[str, Mapping[str, Value]]:
    """The difference of what SIORG has ended."""
    return {UnitField.IS_ACTIVE: {"base": True, "local": local, "remote": False}}


def _same(left: Value, right: Value) -> bool:
    """Whether two values say the same: dirt of an earlier import is no edit of a person, another order no change of SIORG's."""
    return left == right or comparable(left) == comparable(right)


def _with_kept(base: Values | None, remote: Values, kept: Mapping[str, Any]) -> Values | None:
    """The base after a person kept local values: SIORG's values they were shown then, where it still says them."""
    if base is None or not kept:
        return base
    now = plain(remote)
    seen = {field: value for field, value in remote.items() if value is not None and field in kept and kept[field] == now[field]}
    return {**base, **seen}
