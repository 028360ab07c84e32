"""The three-way merge: base (what we last wrote), local (the row now), remote (the fetch). Pure.

Field by field: local = base → take remote; remote = base → keep local; both moved to the same value → agree; both moved
apart → conflict, and then nothing of the item is applied. What the remote does not say is no change: absence never erases.
A row without a base was never synced: there SIORG wins, and history keeps what was. A field on which SIORG was silent so far
has nothing for its base: what a person filled in meanwhile is an edit like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

from siorg_job.siorg.model import MAX_ADDRESS, MAX_EMAIL, MAX_PHONE, MAX_WEBSITE, RemoteUnit
from siorg_job.sync.model import PLACE, Conflict, OrganizationField, UnitField, Value, Values, comparable, plain
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

    Organization and parent of a unit are one value, its place: both move or none does.

    Args:
        base: the values that we last wrote; None when it was never synced.
        local: the row now.
        remote: what SIORG says.
        kept: by field, as JSON, what SIORG said when a person kept the local value: no news where it still says so.
        resolution: a person's decision about an earlier conflict.
        strict_hierarchy: a move is a conflict (setting ``siorg.hierarchy_strict_mode``), unless a person decided.
    """
    base = _with_kept(base, remote, kept or {})
    changed, apart, moved = _sort(base, local, remote, resolution or Resolution(), strict_hierarchy=strict_hierarchy)
    if not apart and not moved:
        return changed
    if resolution is not None:
        # Nothing of the decision is carried out, so all that is in dispute is asked again, and not only what it leaves open.
        _, more_apart, more_moved = _sort(base, local, remote, Resolution(), strict_hierarchy=strict_hierarchy)
        apart, moved = apart | more_apart, moved | more_moved
    reasons = []
    if apart:
        reasons.append("changed here and in SIORG: " + ", ".join(sorted(apart)))
    if moved:
        reasons.append("the unit moved in SIORG, and siorg.hierarchy_strict_mode is on")
    return Conflict({field: _sides(field, base, local, remote) for field in remote if field in apart | moved}, "; ".join(reasons))


class Rule(Enum):
    """What becomes of a value in which the row here and SIORG differ."""

    TAKE = "take"
    """Nobody has changed it here: SIORG's is written."""
    EDITED = "edited"
    """A person has changed it here, and SIORG has not: it stays."""
    APART = "apart"
    """Both have changed it: a person has to decide."""


def differing(*, base: Values | None, local: Values, remote: Values, kept: Mapping[str, Any] | None = None) -> dict[str, Rule]:
    """The fields in which a row differs from what SIORG says, and what ``merge`` would make of each."""
    base = _with_kept(base, remote, kept or {})
    found: dict[str, Rule] = {}
    for group in _groups(remote):
        if rule := _rule(group, base, local, remote):
            found |= dict.fromkeys(_moved(group, local, remote), rule)
    return found


def is_as_said(local: Values, remote: Values) -> bool:
    """Whether a row is, at a glance, as SIORG says: then ``differing`` has nothing to find, whatever the base is."""
    return all(theirs == local.get(name) or (theirs is None and name not in PLACE) for name, theirs in remote.items())


def _rule(fields: Sequence[str], base: Values | None, local: Values, remote: Values) -> Rule | None:
    """The rule for fields that are one value; None where there is no difference, or nothing said."""
    mine, theirs = _value(local, fields), _value(remote, fields)
    if theirs is None or _equal(mine, theirs):
        return None
    before = None if base is None else _value(base, fields)
    if base is None or _same(mine, before) or _same(mine, theirs):
        return Rule.TAKE
    return Rule.EDITED if _same(theirs, before) else Rule.APART


class _Apart(Enum):
    """Both moved apart."""

    APART = 0


def _sort(
    base: Values | None, local: Values, remote: Values, decision: Resolution, *, strict_hierarchy: bool
) -> tuple[dict[str, Value], set[str], set[str]]:
    """What to write; the fields that moved apart; those that strict mode does not let move without a person."""
    changed: dict[str, Value] = {}
    apart, moved = set[str](), set[str]()
    for group in _groups(remote):
        undecided = [field for field in group if not decision.names(field)]
        for field in group:
            if field in undecided:
                continue
            wanted = _decided(field, base, local.get(field), remote[field], decision)
            if isinstance(wanted, _Apart):
                apart.add(field)
            elif wanted != local.get(field):
                changed[field] = wanted
        rule = _rule(undecided, base, local, remote)
        if rule is Rule.TAKE:
            news = _moved(undecided, local, remote)
            changed.update(news)
            if strict_hierarchy and base is not None:
                moved |= news.keys() & {*PLACE}
        elif rule is Rule.APART:
            apart |= _moved(undecided, local, remote).keys()
    return changed, apart, moved


def _decided(field: str, base: Values | None, mine: Value, theirs: Value, decision: Resolution) -> Value | Literal[_Apart.APART]:
    """The value that a field is to have about which a person decided."""
    if field in decision.take:
        return mine if theirs is None else theirs
    wanted = decision.merged.get(field, mine)
    before = None if base is None else base.get(field)
    seen = theirs in (None, before, mine, wanted) or decision.was_shown(field, theirs)
    return wanted if seen else _Apart.APART  # SIORG has moved on since the person was asked


def _groups(remote: Values) -> list[tuple[str, ...]]:
    """The fields, each by itself but for those that are one value."""
    place = tuple(field for field in PLACE if field in remote)
    return [(field,) for field in remote if field not in place] + ([place] if place else [])


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a unit hangs."""

    organization: Value
    parent: Value
    """None: directly under the organization."""


def _value(side: Values, fields: Sequence[str]) -> Value | _Place:
    """The value of a field, or the place that two fields are."""
    if not fields:
        return None
    if len(fields) == 1:
        return side.get(fields[0])
    organization, parent = (side.get(field) for field in fields)
    return None if organization is None else _Place(organization, None if parent == organization else parent)


def _moved(fields: Sequence[str], local: Values, remote: Values) -> dict[str, Value]:
    """Of fields that are to change, those that do: 471 as a parent is another place in 471 than in 472."""
    if len(fields) == 1:
        return {field: remote[field] for field in fields}
    mine, theirs = _value(local, fields), _value(remote, fields)
    assert isinstance(mine, _Place)
    assert isinstance(theirs, _Place)
    was, will = (mine.organization, mine.parent), (theirs.organization, theirs.parent)
    return {field: remote[field] for field, now, then in zip(fields, was, will, strict=True) if now != then}


def stays_active(resolution: Resolution | None, kept: Mapping[str, Any]) -> bool:
    """Whether a person wants to keep what SIORG has ended."""
    if resolution is None:
        return kept.get(UnitField.IS_ACTIVE) is False
    return UnitField.IS_ACTIVE in resolution.keep or resolution.merged.get(UnitField.IS_ACTIVE) is True


def differences(*, base: Values | None, local: Values, remote: Values) -> dict[str, Mapping[str, Value]]:
    """Everything in which local and remote differ, for a person to look at."""
    return {
        field: _sides(field, base, local, remote)
        for field, theirs in remote.items()
        if theirs is not None and not _equal(theirs, local.get(field))
    }


def _sides(field: str, base: Values | None, local: Values, remote: Values) -> Mapping[str, Value]:
    return {"base": None if base is None else base.get(field), "local": local.get(field), "remote": remote[field]}


def end(local: Value) -> dict[str, Mapping[str, Value]]:
    """The difference of what SIORG has ended."""
    return {UnitField.IS_ACTIVE: {"base": True, "local": local, "remote": False}}


def _equal(left: Value | _Place, right: Value | _Place) -> bool:
    """Whether nothing has to be written: another order of telephones is no other value."""
    return left == right or (isinstance(left, tuple) and isinstance(right, tuple) and _same(left, right))


def _same(left: Value | _Place, right: Value | _Place) -> bool:
    """Whether two values say the same: dirt of an earlier import is no edit of a person, another order no change of SIORG's."""
    if left == right or isinstance(left, _Place) or isinstance(right, _Place):
        return left == right
    return comparable(left) == comparable(right)


def _with_kept(base: Values | None, remote: Values, kept: Mapping[str, Any]) -> Values | None:
    """The base after a person kept local values: SIORG's values they were shown then, where it still says them."""
    if base is None or not kept:
        return base
    now = plain(remote)
    seen = {field: value for field, value in remote.items() if value is not None and field in kept and kept[field] == now[field]}
    return {**base, **seen}
