"""One item about a unit, on the working copy: what becomes of it, and of the item."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import uuid4

from siorg_job.siorg.model import RemoteUnit
from siorg_job.siorg.rows import parse_stored
from siorg_job.sync import organization
from siorg_job.sync.merge import differences, end, merge, remote_unit_values
from siorg_job.sync.merge_base import ended_base, next_base
from siorg_job.sync.model import Conflict, Fetched, Refused, UnitField, Value, Values
from siorg_job.sync.outcomes import completed, conflict, failed_for_now, not_extinct, refused, superseded, unusable
from siorg_job.sync.resolution import Resolution, read_resolution
from siorg_job.sync.working_copy import Domain, Organization, Unit, WorkingCopy
from siorg_queue import Item, Operation, Outcome, Verdict

_WAIT_FOR_CHILDREN_SECONDS = 2.0
_AREA_UNLESS_SAID = "SUPPORT"
_PLACE = frozenset({UnitField.PARENT, UnitField.ORGANIZATION})
_AT_THE_TOP = {"parent_id": None, "parent_code": None, "siorg_parent_is_local": False}
_SAME_WORK = (Operation.CREATION, Operation.UPDATE, Operation.HIERARCHY_CHANGE)


def bring_in_line(item: Item, fetched: Fetched, copy: WorkingCopy) -> Verdict:
    """Decide one UNIT item and change the working copy accordingly."""
    resolution = read_resolution(item.error_details, UnitField)
    try:
        return _decide(item, fetched, copy, resolution)
    except Refused as refusal:
        if refusal.kind == "unknown_parent" and resolution is None:
            # It was here, or was fetched, before this transaction began: somebody removed it in between.
            return failed_for_now(item, refusal.reason, refusal.kind)
        if resolution is not None and not _PLACE.isdisjoint(resolution.merged):
            return unusable(item, refusal.reason)
        return refused(item, refusal.reason, refusal.kind)


def _decide(item: Item, fetched: Fetched, copy: WorkingCopy, resolution: Resolution | None) -> Verdict:
    remote = fetched.unit
    unit = copy.units.get(item.siorg_code)
    if remote is not None and (remote.organization_code == remote.code or remote.is_organization):
        return organization.bring_in_line(item, fetched, copy)
    if unit is not None and fetched.is_older_than(unit.synced_at):
        return superseded(item, unit.id, decided=resolution is not None)
    if item.operation in (Operation.MERGE, Operation.SPLIT) and resolution is None:
        return _merge_or_split(item, remote, unit)
    if remote is None or remote.ended:
        if item.operation is Operation.EXTINCTION or (item.operation not in _SAME_WORK and resolution is not None):
            return _extinguish(item, fetched, unit, copy, resolution)
        return refused(item, f"SIORG has no unit {item.siorg_code}", "not_found")
    if item.operation is Operation.EXTINCTION and resolution is None:
        return not_extinct(item, f"unit {item.siorg_code} (version {remote.version})")
    for ancestor in reversed(fetched.ancestors):
        above = copy.units.get(ancestor.code)
        if above is None or above.synced_at is None or above.synced_at < fetched.asked_at:
            # It was not applied yet from this answer or a newer one. Where it is in conflict it has, or will have, an item of
            # its own; a loop that remains is refused below.
            _apply(item, ancestor, fetched, copy)
    apart = _apply(item, remote, fetched, copy, resolution)
    id_ = copy.units[remote.code].id
    return completed(item, id_) if apart is None else conflict(item, apart.reason, apart.differences, id_)


def _merge_or_split(item: Item, remote: RemoteUnit | None, unit: Unit | None) -> Verdict:
    if remote is None or remote.ended:
        found = end(None if unit is None else unit.is_active)
        now = "SIORG has the unit no more"
    else:
        base = None if unit is None else _base_of(unit)
        found = differences(base=base, local={} if unit is None else unit.values(), remote=remote_unit_values(remote))
        now = "SIORG still has the unit"
    verb = "merged" if item.operation is Operation.MERGE else "split"
    reason = f"unit {item.siorg_code} was {verb}; SIORG does not say with whom: a person has to decide ({now})"
    return conflict(item, reason, found, None if unit is None else unit.id, kind=item.operation.lower())


# -- the end ------------------------------------------------------------------------------------------------------------


def _extinguish(item: Item, fetched: Fetched, unit: Unit | None, copy: WorkingCopy, resolution: Resolution | None) -> Verdict:
    if unit is None or not unit.is_active:
        return completed(item, None if unit is None else unit.id)
    if resolution is None and unit.base is not None and unit.base.ended:
        # It had ended before, and a person opened it again: SIORG says what it said then.
        return completed(item, unit.id)
    noted = replace(unit, base_raw=ended_base(unit.base_raw), synced_at=fetched.asked_at)
    if resolution is not None and (UnitField.IS_ACTIVE in resolution.keep or resolution.merged.get(UnitField.IS_ACTIVE) is True):
        copy.put(noted)
        return completed(item, unit.id)
    if waiting := _held_up(item, unit, copy):
        return waiting
    version = fetched.unit.version if fetched.unit is not None else None
    reason = "extinct in SIORG" + (f" (version {version})" if version else "")
    after = replace(noted, is_active=False, deactivation_reason=reason)
    copy.change(item, Operation.EXTINCTION, unit, after, [UnitField.IS_ACTIVE], version or unit.version)
    return completed(item, unit.id)


def _held_up(item: Item, unit: Unit, copy: WorkingCopy) -> Verdict | None:
    """What becomes of the end of a unit that has active ones below it; None when it has none."""
    below = list(copy.active_below(unit))
    if not below:
        return None
    waits = [child.item_due_seconds for child in below if child.item_due_seconds is not None]
    if waits:
        return Verdict(
            item,
            Outcome.RELEASED,
            delay_seconds=max(_WAIT_FOR_CHILDREN_SECONDS, min(waits)),
            error=f"waits for the items of {len(waits)} active units below it",
        )
    names = [f"{child.code or child.id} {child.name}" for child in below]
    reason = f"SIORG ended unit {unit.code}, but {len(names)} active units are below it: {', '.join(names[:5])}"
    return conflict(item, reason, end(local=True), unit.id, kind="active_children", details={"children": names[:50]})


# -- a unit that SIORG has ----------------------------------------------------------------------------------------------


def _apply(
    item: Item, remote: RemoteUnit, fetched: Fetched, copy: WorkingCopy, resolution: Resolution | None = None
) -> Conflict | None:
    """Bring one unit, the item's own or one above it, to what SIORG says; returns the conflict that prevents it."""
    unit = copy.units.get(remote.code)
    home = _organization_of(remote, unit, copy)
    values = dict(remote_unit_values(remote))
    if (fetched.outside_parent or remote.code != item.siorg_code) and _is_outside(remote, home.code, copy):
        values[UnitField.PARENT] = None  # a parent outside leaves parent_id as it is
    if unit is None:
        _create(item, remote, values if resolution is None else {**values, **resolution.merged}, home, fetched, copy)
        return None
    resolution = _with_parent(resolution, unit, home.code)
    before = unit.values()
    decision = merge(
        base=_base_of(unit),
        local=before,
        remote=values,
        kept=copy.kept_of(unit.entity_type, unit.code, unit.synced_at),
        resolution=resolution,
        strict_hierarchy=copy.strict_hierarchy,
    )
    if isinstance(decision, Conflict):
        return decision
    if not decision:
        copy.put(_see_siorgs_parent(replace(unit, **_notes(unit, remote, fetched)), resolution, copy))
        return None
    after = replace(unit, **_columns(unit, decision, fetched, copy), **_notes(unit, remote, fetched))
    after = _see_siorgs_parent(after, resolution, copy)
    moved = after.values()[UnitField.PARENT] != before[UnitField.PARENT] or UnitField.ORGANIZATION in decision
    operation = Operation.HIERARCHY_CHANGE if moved else Operation.UPDATE
    copy.change(item, operation, unit, after, decision, remote.version)
    return None


def _organization_of(remote: RemoteUnit, unit: Unit | None, copy: WorkingCopy) -> Organization:
    """The organization that SIORG says; the one that has the unit here where SIORG says none."""
    code = unit.organization_code if unit is not None and remote.organization_code is None else remote.organization_code
    if code is None or code not in copy.organizations:
        raise _unknown_organization(f"unit {remote.code} belongs to organization {code}, which")
    return copy.organizations[code]


def _base_of(unit: Unit) -> Values | None:
    """The values at the last sync, with what is written here where SIORG says nothing: that is no edit of a person."""
    if unit.base is None:
        return None
    silent: dict[str, Value] = {
        UnitField.ORGANIZATION: unit.organization_code,
        UnitField.PARENT: unit.organization_code,
        UnitField.UNIT_TYPE: unit.type_slug,
        UnitField.ACTIVITY_AREA: _AREA_UNLESS_SAID,
    }
    return {field: silent.get(field) if value is None else value for field, value in remote_unit_values(unit.base).items()}


def _create(item: Item, remote: RemoteUnit, values: Values, home: Organization, fetched: Fetched, copy: WorkingCopy) -> None:
    for word, value in (("nome", remote.name), ("codigoTipoUnidade", remote.type_slug)):
        if value is None:
            raise Refused(f"SIORG gives no {word} for unit {remote.code}: it cannot be created", "invalid_answer")
    category = _category(remote.category_code, fetched, copy)
    unit_type = copy.type_for(str(values[UnitField.UNIT_TYPE]))
    unit = Unit(
        id=uuid4(),
        code=remote.code,
        organization_id=home.id,
        organization_code=home.code,
        category_id=category.id,
        category_code=category.code,
        unit_type_id=unit_type.id,
        type_slug=str(unit_type.slug),
        name=str(values[UnitField.NAME]),
        activity_area=_AREA_UNLESS_SAID,
        contact_info={"phones": [], "emails": [], "websites": [], "address": None},
        siorg_parent_code=remote.parent_code,
    )
    said = {field: value for field, value in values.items() if value is not None}
    unit = replace(unit, **_columns(unit, said, fetched, copy), **_notes(unit, remote, fetched))
    copy.change(item, Operation.CREATION, None, unit, said, remote.version)


def _columns(unit: Unit, values: Values, fetched: Fetched, copy: WorkingCopy) -> dict[str, Any]:
    """What to write of the unit so that it has these values."""
    columns = _place_columns(unit, values, copy)
    contact = dict(unit.contact_info)
    for field, value in values.items():
        match field:
            case UnitField.NAME | UnitField.ACRONYM | UnitField.ACTIVITY_AREA:
                columns[field] = value
            case UnitField.UNIT_TYPE:
                columns |= {"unit_type_id": copy.type_for(str(value)).id, "type_slug": value}
            case UnitField.CATEGORY:
                assert isinstance(value, int)
                columns |= {"category_id": _category(value, fetched, copy).id, "category_code": value}
            case UnitField.IS_ACTIVE:
                columns |= {"is_active": value, "deactivation_reason": None}
            case UnitField.PHONES | UnitField.EMAILS | UnitField.WEBSITES | UnitField.ADDRESS:
                contact[field.removeprefix("contact_info.")] = list(value) if isinstance(value, tuple) else value
    return {**columns, "contact_info": contact}


def _category(code: int | None, fetched: Fetched, copy: WorkingCopy) -> Domain:
    return copy.category_for(code, next((row.name for row in fetched.rows if row.code == code), None))


def _notes(unit: Unit, remote: RemoteUnit, fetched: Fetched) -> dict[str, Any]:
    """What SIORG manages alone, and the base of the next merge: what was said replaces, what was not said stays."""
    raw = next_base(unit.base_raw, remote.raw)
    url = raw.get("codigoUnidade")
    return {
        "base_raw": raw,
        "base": unit.base if raw == unit.base_raw else parse_stored(raw),
        "siorg_parent_code": unit.siorg_parent_code if remote.parent_code is None else remote.parent_code,
        "version": remote.version or unit.version,
        "url": url if isinstance(url, str) else unit.url,
        "synced_at": fetched.asked_at,
    }


# -- its place: organization and parent, which move together -----------------------------------------------------------


def _place_columns(unit: Unit, values: Values, copy: WorkingCopy) -> dict[str, Any]:
    """What to write to bring the unit into the organization, and below the parent, that ``values`` name.

    Raises:
        Refused: the organization or the parent is not known here, or the unit cannot hang there.
    """
    found: dict[str, Any] = {}
    organization_code = unit.organization_code
    if UnitField.ORGANIZATION in values:
        code = values[UnitField.ORGANIZATION]
        row = copy.organizations.get(code) if isinstance(code, int) else None
        if row is None:
            raise _unknown_organization(f"organization {code}")
        organization_code = row.code
        above = None if unit.parent_id is None else copy.unit_by_id(unit.parent_id) or copy.ancestors.get(unit.parent_id)
        if above is not None and above.organization_code != row.code:
            found |= _AT_THE_TOP  # unless it moves too, its parent stays in the organization that the unit leaves
        found |= {"organization_id": row.id, "organization_code": row.code}
    if UnitField.PARENT in values:
        parent = values[UnitField.PARENT]
        assert isinstance(parent, int)
        found |= _AT_THE_TOP if parent == organization_code else _below(unit, parent, copy)
    return found


def _unknown_organization(subject: str) -> Refused:
    """The end of what belongs to an organization that nobody has registered."""
    return Refused(f"{subject} is not registered here: siorg-job organizations add", "unknown_organization")


def _below(unit: Unit, parent_code: int, copy: WorkingCopy) -> dict[str, Any]:
    parent = copy.locate(parent_code)
    if parent is None:
        raise Refused(f"the parent {parent_code} of unit {unit.code} is not known here", "unknown_parent")
    chain = copy.chain(parent.id)
    if unit.id in chain:
        raise Refused(
            f"below unit {parent_code} unit {unit.code} would be its own ancestor: SIORG's hierarchy has a loop", "loop"
        )
    if len(chain) + 1 > copy.max_depth:
        raise Refused(
            f"below unit {parent_code} unit {unit.code} would be on level {len(chain) + 1}; setting"
            f" units.max_hierarchy_depth allows {copy.max_depth}",
            "too_deep",
        )
    return {"parent_id": parent.id, "parent_code": parent_code}


def _is_outside(remote: RemoteUnit, organization_code: int, copy: WorkingCopy) -> bool:
    """Whether SIORG's parent of the unit is not in this organization here."""
    if remote.parent_code is None or remote.parent_code == organization_code:
        return False
    parent = copy.locate(remote.parent_code)
    return parent is None or parent.organization_code != organization_code


def _with_parent(resolution: Resolution | None, unit: Unit, siorgs_organization: int) -> Resolution | None:
    """A person's merge in our words, in which no parent is the organization."""
    if resolution is None or resolution.merged.get(UnitField.PARENT, siorgs_organization) is not None:
        return resolution
    kept = unit.organization_code if UnitField.ORGANIZATION in resolution.keep else siorgs_organization
    parent = resolution.merged.get(UnitField.ORGANIZATION, kept)
    return replace(resolution, merged={**resolution.merged, UnitField.PARENT: parent})


def _see_siorgs_parent(unit: Unit, resolution: Resolution | None, copy: WorkingCopy) -> Unit:
    """Where SIORG's parent is here, a unit without parent is where a person hung it: directly under the organization."""
    if resolution is None or UnitField.PARENT not in resolution.merged or unit.siorg_parent_code is None:
        return unit
    parent = copy.locate(unit.siorg_parent_code)
    is_local = parent is not None and parent.organization_code == unit.organization_code
    return replace(unit, siorg_parent_is_local=is_local)
