"""One item about a unit, on the working copy: what becomes of it, and of the item."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID, uuid4

from siorg_job.siorg.model import RemoteUnit
from siorg_job.sync import organization
from siorg_job.sync.local_rows import HeldName, Organization, Unit
from siorg_job.sync.merge import Rule, differences, differing, end, merge, remote_unit_values, stays_active
from siorg_job.sync.merge_base import Base, ended_raw, next_record
from siorg_job.sync.model import PLACE, Conflict, Fetched, Refused, UnitField, Value, Values
from siorg_job.sync.outcomes import (
    completed,
    conflict,
    failed_for_now,
    held,
    held_already,
    not_extinct,
    refused,
    superseded,
    unusable,
)
from siorg_job.sync.place import AREA_UNLESS_SAID, base_of, place_of
from siorg_job.sync.resolution import Resolution, resolution_of
from siorg_job.sync.unit_columns import category_for, columns_of, notes_of, unknown_organization
from siorg_job.sync.working_copy import WorkingCopy
from siorg_queue import Item, Operation, Outcome, Verdict

_WAIT_FOR_CHILDREN_SECONDS = 2.0
_SAME_WORK = (Operation.CREATION, Operation.UPDATE, Operation.HIERARCHY_CHANGE)


def bring_in_line(item: Item, fetched: Fetched, copy: WorkingCopy) -> Verdict:
    """Decide one UNIT item and change the working copy accordingly."""
    if fetched.unit is not None and (fetched.unit.organization_code == fetched.unit.code or fetched.unit.is_organization):
        return _promoted(item, fetched.unit, fetched, copy)
    copy.check_readable(copy.units.get(item.siorg_code))
    resolution = resolution_of(item, UnitField, remote_unit_values)
    try:
        return _decide(item, fetched, copy, resolution)
    except Refused as refusal:
        if refusal.kind == "unknown_parent" and resolution is None:
            # It was here, or was fetched, before this transaction began: somebody removed it in between.
            return failed_for_now(item, refusal.reason, refusal.kind)
        if resolution is not None and not resolution.merged.keys().isdisjoint(PLACE):
            return unusable(item, refusal.reason)
        return refused(item, refusal.reason, refusal.kind, waits_for=refusal.waits_for)


def _decide(item: Item, fetched: Fetched, copy: WorkingCopy, resolution: Resolution | None) -> Verdict:
    remote = fetched.unit
    unit = copy.units.get(item.siorg_code)
    if unit is not None and fetched.is_older_than(unit.synced_at):
        return superseded(item, unit.id, unit.synced_at, decided=resolution is not None)
    if item.operation in (Operation.MERGE, Operation.SPLIT) and resolution is None:
        return _merge_or_split(item, remote, unit, copy)
    if remote is None or remote.ended:
        if item.operation is Operation.EXTINCTION or (item.operation not in _SAME_WORK and resolution is not None):
            return _extinguish(item, fetched, unit, copy, resolution)
        return refused(item, f"SIORG has no unit {item.siorg_code}", "not_found")
    went = unit is not None and remote.organization_code not in (None, unit.organization_code)
    if item.operation is Operation.EXTINCTION and resolution is None and not went:
        return not_extinct(item, f"unit {item.siorg_code} (version {remote.version})")
    home = copy.organizations.get(remote.organization_code or 0)
    # What is above a unit that left for an organization that is not registered here is none of ours.
    ancestors = fetched.ancestors if remote.organization_code is None or (home is not None and home.is_active) else ()
    for ancestor in reversed(ancestors):
        above = copy.units.get(ancestor.code)
        if above is not None and copy.unreadable_of(above):
            continue  # its own items say so; what is below it hangs there as it is
        if above is None or above.synced_at is None or above.synced_at < fetched.asked_at:
            # It was not applied yet from this answer or a newer one. Where it is in conflict it has, or will have, an item of
            # its own; a loop that remains is refused below.
            _apply_above(item, ancestor, fetched, copy)
    apart = _apply(item, remote, fetched, copy, resolution)
    id_ = copy.units[remote.code].id
    return completed(item, id_) if apart is None else _disputed(item, apart, id_, copy)


def _apply_above(item: Item, ancestor: RemoteUnit, fetched: Fetched, copy: WorkingCopy) -> None:
    """Bring a unit above the item's own in line; where that is refused, the item waits for it."""
    try:
        _apply(item, ancestor, fetched, copy)
    except Refused as refusal:
        if refusal.kind == "unknown_parent":
            raise
        reason = f"waits for unit {ancestor.code} above it: {refusal.reason}"
        raise Refused(reason, "parent_failed", [ancestor.code]) from None


def _disputed(item: Item, apart: Conflict, local_id: UUID, copy: WorkingCopy) -> Verdict:
    """A person has to decide about a unit that SIORG has.

    It is asked about once, by an item that brings in line: an end that is none would be a question of its own beside that.
    """
    if apart.held:
        return held(item, apart.reason, apart.differences, local_id)
    if item.operation is Operation.EXTINCTION and "resolution" not in (item.error_details or ()):
        copy.ask_again.add(item.siorg_code)
        return not_extinct(item, f"unit {item.siorg_code}", local_id)
    return conflict(item, apart.reason, apart.differences, local_id)


def _merge_or_split(item: Item, remote: RemoteUnit | None, unit: Unit | None, copy: WorkingCopy) -> Verdict:
    if remote is None or remote.ended:
        found = end(None if unit is None else unit.is_active)
        now = "SIORG has the unit no more"
    else:
        base = None if unit is None else base_of(unit, copy)
        found = differences(base=base, local={} if unit is None else unit.values(), remote=remote_unit_values(remote))
        now = "SIORG still has the unit"
    verb = "merged" if item.operation is Operation.MERGE else "split"
    reason = f"unit {item.siorg_code} was {verb}; SIORG does not say with whom: a person has to decide ({now})"
    return conflict(item, reason, found, None if unit is None else unit.id, kind=item.operation.lower())


# -- the end ------------------------------------------------------------------------------------------------------------


def _extinguish(item: Item, fetched: Fetched, unit: Unit | None, copy: WorkingCopy, resolution: Resolution | None) -> Verdict:
    if unit is None or not unit.is_active:
        return completed(item, None if unit is None else unit.id)
    remote: Values = {UnitField.IS_ACTIVE: False}
    base = base_of(unit, copy)
    if resolution is None and base is not None and base.get(UnitField.IS_ACTIVE) is False:
        # It had ended before, and a person opened it again: SIORG says what it said then.
        return completed(item, unit.id)
    noted = replace(unit, base_raw=ended_raw(unit.base_raw), synced_at=fetched.asked_at)
    if stays_active(resolution, copy.turned_down(unit)):
        noted = replace(noted, base=next_record(unit.base, unit.values(), remote, decided=remote))
        copy.put(noted)
        return completed(item, unit.id)
    if resolution is None and (holder := copy.asked_by_others(unit, remote, item)):
        return held_already(item, holder[UnitField.IS_ACTIVE], unit.id)
    if resolution is None and base is not None and (beyond := copy.ends_beyond.get(unit.organization_code)):
        return held(item, beyond, end(local=True), unit.id)
    if waiting := _held_up(item, unit, copy):
        return waiting
    version = fetched.unit.version if fetched.unit is not None else None
    reason = "extinct in SIORG" + (f" (version {version})" if version else "")
    after = replace(noted, is_active=False, deactivation_reason=reason, base=next_record(unit.base, remote, remote, ()))
    copy.change(item, Operation.EXTINCTION, unit, after, [UnitField.IS_ACTIVE], version or unit.version)
    return completed(item, unit.id)


def _held_up(item: Item, unit: Unit, copy: WorkingCopy) -> Verdict | None:
    """What becomes of the end of a unit that has active ones below it; None when it has none.

    It waits for those that have items of their own, and for those that SIORG, too, has below it still. About any other a person
    has to decide.
    """
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
    if all(child.is_named for child in below):
        reason = f"SIORG has unit {unit.code} no more, and still has units below it: {', '.join(names[:5])}"
        codes = [child.code for child in below if child.code is not None]
        return refused(item, reason, "still_a_parent", waits_for=codes)
    reason = f"SIORG ended unit {unit.code}, but {len(names)} active units are below it: {', '.join(names[:5])}"
    return conflict(item, reason, end(local=True), unit.id, kind="active_children", details={"children": names[:50]})


# -- a unit that SIORG has ----------------------------------------------------------------------------------------------


def _apply(
    item: Item, remote: RemoteUnit, fetched: Fetched, copy: WorkingCopy, resolution: Resolution | None = None
) -> Conflict | None:
    """Bring one unit, the item's own or one above it, to what SIORG says; returns the conflict that prevents it."""
    unit = copy.units.get(remote.code)
    code = unit.organization_code if unit is not None and remote.organization_code is None else remote.organization_code
    home = None if code is None else copy.organizations.get(code)
    if unit is not None and code == unit.organization_code and home is not None and not home.is_active:
        return None  # of an organization that a person has ended: nothing of it is kept in line
    if home is None or not home.is_active:
        subject = f"unit {remote.code} belongs to organization {code}, which"
        if unit is None:
            raise unknown_organization(subject)
        return _leave(item, f"moved to organization {code}, which is not registered here", remote, fetched, unit, copy)
    values = dict(remote_unit_values(remote)) | _place(remote, unit, home, fetched, copy)
    if unit is None:
        _create(item, remote, values, resolution, home, fetched, copy)
        return None
    resolution = _with_parent(resolution, unit, home.code)
    base = base_of(unit, copy)
    waits = {name for name in copy.asked_by_others(unit, values, item) if resolution is None or not resolution.names(name)}
    if resolution is None and _is_name_beyond(unit, base, values, copy):
        sides = {"base": base and base.get(UnitField.NAME), "local": unit.name, "remote": remote.name}
        copy.names_held[unit.code] = HeldName(sides, remote.raw, copy.names_beyond[unit.organization_code])
        waits.add(UnitField.NAME)
    values |= dict.fromkeys(waits)  # as if SIORG said nothing: a person is asked
    decision = merge(
        base=base,
        local=unit.values(),
        remote=values,
        kept=copy.turned_down(unit),
        resolution=resolution,
        strict_hierarchy=copy.strict_hierarchy,
    )
    if isinstance(decision, Conflict):
        return decision
    after = replace(unit, **columns_of(unit, decision, fetched, copy), **notes_of(unit, remote, fetched))
    record = _recorded(unit, after, values, resolution, copy)
    if waits and base is not None:  # where nothing is recorded, what SIORG says now must not stand in
        record = replace(record, values={**{field: base.get(field) for field in waits}, **record.values})
    after = replace(after, base=record)
    if not decision:
        copy.put(after)
        return None
    copy.change(item, _what_happened(unit, after), unit, after, decision, remote.version, review=base is None)
    if (after.organization_id, after.is_active) != (unit.organization_id, unit.is_active):
        copy.resettled.add(unit.id)
    return None


def _is_name_beyond(unit: Unit, base: Values | None, values: Values, copy: WorkingCopy) -> bool:
    """Whether SIORG's name would overwrite the one here, in an organization where too many do."""
    if base is None or unit.organization_code not in copy.names_beyond:
        return False
    said: Values = {UnitField.NAME: values[UnitField.NAME]}
    return bool(
        differing(base=base, local=unit.values(), remote=said, kept=copy.turned_down(unit)).get(UnitField.NAME) is Rule.TAKE
    )


def _what_happened(before: Unit, after: Unit) -> Operation:
    if after.is_active and not before.is_active:
        return Operation.CREATION  # it returned
    if (after.organization_id, after.parent_id) != (before.organization_id, before.parent_id):
        return Operation.HIERARCHY_CHANGE
    return Operation.UPDATE


def _place(remote: RemoteUnit, unit: Unit | None, home: Organization, fetched: Fetched, copy: WorkingCopy) -> dict[str, Value]:
    """Where SIORG has the unit, as far as that can be here."""

    def organization_of(parent: int) -> int | None:
        if parent in fetched.outside:
            return None
        above = copy.locate(parent)
        if above is None and parent not in fetched.missing:
            raise Refused(f"the parent {parent} of unit {remote.code} is not known here", "unknown_parent")
        return None if above is None else above.organization_code

    return place_of(remote, unit, home.code, organization_of)


def _promoted(item: Item, remote: RemoteUnit, fetched: Fetched, copy: WorkingCopy) -> Verdict:
    """SIORG has an organization of that code: a unit of that code has left the organization that held it."""
    unit = copy.units.get(remote.code)
    copy.check_readable(unit)
    if unit is not None:
        if unit.synced_at is not None and fetched.is_older_than(unit.synced_at):
            return superseded(item, unit.id, unit.synced_at, decided="resolution" in (item.error_details or ()))
        apart = _leave(item, "is an organization of its own in SIORG", remote, fetched, unit, copy)
        if apart is not None:
            return _disputed(item, apart, unit.id, copy)
        if item.operation is Operation.EXTINCTION or remote.code not in copy.organizations:
            return completed(item, unit.id)
    return organization.bring_in_line(item, fetched, copy)


def _leave(item: Item, reason: str, remote: RemoteUnit, fetched: Fetched, unit: Unit, copy: WorkingCopy) -> Conflict | None:
    """Deactivate a unit that is not in a registered organization any more; its place here stays."""
    base, local = base_of(unit, copy), unit.values()
    said: Values = {UnitField.IS_ACTIVE: False}
    decision = merge(base=base, local=local, remote=said)
    assert not isinstance(decision, Conflict)  # of two values one is the base
    if decision and copy.strict_hierarchy and base is not None and item.error_details is None:
        return Conflict(
            differences(base=base, local=local, remote={UnitField.ORGANIZATION: remote.organization_code, **said}),
            f"{reason}, and siorg.hierarchy_strict_mode is on",
        )
    resolution = resolution_of(item, UnitField, remote_unit_values) if item.siorg_code == unit.code else None
    if decision and resolution is None and copy.asked_by_others(unit, said, item):
        return None
    after = replace(unit, **notes_of(unit, remote, fetched) | {"siorg_parent_code": unit.siorg_parent_code})
    if decision and stays_active(resolution, copy.turned_down(unit)):
        copy.put(replace(after, base=next_record(unit.base, local, said, decided=said)))
        return None
    if decision and resolution is None and base is not None and (beyond := copy.ends_beyond.get(unit.organization_code)):
        return Conflict(end(local=True), beyond, held=True)
    after = replace(after, base=next_record(unit.base, {**local, **decision}, said, ()))
    if decision:
        after = replace(after, is_active=False, deactivation_reason=reason)
        copy.change(item, Operation.HIERARCHY_CHANGE, unit, after, decision, remote.version)
        copy.resettled.add(unit.id)
    else:
        copy.put(after)
    return None


def _recorded(unit: Unit, after: Unit, values: Values, resolution: Resolution | None, copy: WorkingCopy) -> Base:
    """What is recorded of the unit after a merge of ``values``."""
    decided = {*resolution.merged, *resolution.keep} if resolution is not None else ()
    return next_record(unit.base, after.values(), values, decided, copy.turned_down(unit), together=(frozenset(PLACE),))


def _create(
    item: Item,
    remote: RemoteUnit,
    said: Values,
    resolution: Resolution | None,
    home: Organization,
    fetched: Fetched,
    copy: WorkingCopy,
) -> None:
    values = said if resolution is None else {**said, **resolution.merged}
    for word, value in (("nome", remote.name), ("codigoTipoUnidade", remote.type_slug)):
        if value is None:
            raise Refused(f"SIORG gives no {word} for unit {remote.code}: it cannot be created", "invalid_answer")
    category = category_for(remote.category_code, fetched, copy)
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
        activity_area=AREA_UNLESS_SAID,
        contact_info={"phones": [], "emails": [], "websites": [], "address": None},
        siorg_parent_code=remote.parent_code,
    )
    given = {field: value for field, value in values.items() if value is not None}
    unit = replace(unit, **columns_of(unit, given, fetched, copy), **notes_of(unit, remote, fetched))
    ours = unit.values()
    unit = replace(unit, base=next_record(None, ours, {**ours, **{k: v for k, v in said.items() if v is not None}}, given))
    copy.change(item, Operation.CREATION, None, unit, given, remote.version)
    copy.resettled.add(unit.id)


def _with_parent(resolution: Resolution | None, unit: Unit, siorgs_organization: int) -> Resolution | None:
    """A person's merge in our words, in which no parent is the organization."""
    if resolution is None or resolution.merged.get(UnitField.PARENT, siorgs_organization) is not None:
        return resolution
    kept = unit.organization_code if UnitField.ORGANIZATION in resolution.keep else siorgs_organization
    parent = resolution.merged.get(UnitField.ORGANIZATION, kept)
    return replace(resolution, merged={**resolution.merged, UnitField.PARENT: parent})
