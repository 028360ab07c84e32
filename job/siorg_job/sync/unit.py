"""One item about a unit, on the working copy: what becomes of it, and of the item."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from uuid import UUID, uuid4

from siorg_job.siorg.model import RemoteUnit
from siorg_job.siorg.rows import parse_stored
from siorg_job.sync import organization
from siorg_job.sync.merge import (
    ResolutionError,
    as_json,
    check_creation,
    decide,
    differences,
    read_resolution,
    remote_unit_values,
    with_kept,
)
from siorg_job.sync.merge_base import next_base
from siorg_job.sync.model import Change, Conflict, Evidence, NoChange, Resolution, UnitField, Value, Values, plain
from siorg_job.sync.outcomes import in_conflict, refused, superseded, unusable
from siorg_job.sync.working_copy import HistoryRow, Local, LocalUnit
from siorg_queue import EntityType, Item, Operation, Outcome, Verdict

_WAIT_FOR_CHILDREN_SECONDS = 2.0
_AREA_UNLESS_SAID = "SUPPORT"
_PLACES = frozenset({UnitField.PARENT, UnitField.ORGANIZATION})
_SAME_WORK = (Operation.CREATION, Operation.UPDATE, Operation.HIERARCHY_CHANGE)


class _Refused(Exception):
    def __init__(self, reason: str, kind: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.kind = kind


def bring_in_line(item: Item, evidence: Evidence, local: Local) -> Verdict:
    """Decide one UNIT item and change the working copy accordingly."""
    try:
        resolution = read_resolution(item.error_details, UnitField)
    except ResolutionError as error:
        return unusable(item, error)
    saved = local.save({item.siorg_code, *(ancestor.code for ancestor in evidence.ancestors)})
    try:
        verdict = _bring_in_line(item, evidence, local, resolution)
    except _Refused as refusal:
        local.restore(saved)
        if refusal.kind == "unknown_parent" and resolution is None:
            # It was here, or was fetched, before this transaction began: somebody removed it in between.
            return Verdict(item, Outcome.RETRY, error=refusal.reason, details={"kind": refusal.kind, "retryable": True})
        if resolution is not None and not _PLACES.isdisjoint(resolution.merged):
            return unusable(item, refusal.reason)
        return refused(item, refusal.reason, refusal.kind)
    if verdict.outcome is not Outcome.COMPLETED:
        local.restore(saved)  # its ancestors too: an item that does not complete has changed nothing
    return verdict


def _bring_in_line(item: Item, evidence: Evidence, local: Local, resolution: Resolution | None) -> Verdict:
    remote = evidence.unit
    unit = local.units.get(item.siorg_code)
    if remote is not None and (remote.organization_code == remote.code or remote.is_organization):
        return organization.bring_in_line(item, evidence, local)
    if unit is not None and unit.synced_at is not None and unit.synced_at > evidence.asked_at:
        return superseded(item, unit.id, decided=resolution is not None)
    gone = remote is None or remote.ended
    if item.operation in (Operation.MERGE, Operation.SPLIT) and resolution is None:
        return _merge_or_split(item, evidence, unit)
    if item.operation is Operation.EXTINCTION or (gone and item.operation not in _SAME_WORK and resolution is not None):
        if not gone and resolution is None:
            assert remote is not None
            return Verdict(
                item,
                Outcome.SKIPPED,
                error=f"SIORG still has unit {item.siorg_code} (version {remote.version}): it is not extinct",
                details={"kind": "not_extinct", "retryable": False},
            )
        if gone:
            return _extinguish(item, evidence, unit, local, resolution)
    if gone:
        return refused(item, f"SIORG has no unit {item.siorg_code}", "not_found")
    assert remote is not None
    for ancestor in reversed(evidence.ancestors):
        _apply_remote(item, ancestor, evidence, local, resolution=None, own=False)
    verdict = _apply_remote(item, remote, evidence, local, resolution=resolution, own=True)
    assert verdict is not None
    return verdict


def _merge_or_split(item: Item, evidence: Evidence, unit: LocalUnit | None) -> Verdict:
    remote = evidence.unit
    gone = remote is None or remote.ended
    if gone:
        known: Mapping[str, Mapping[str, Value]] = {
            UnitField.IS_ACTIVE: {"base": True, "local": None if unit is None else unit.is_active, "remote": False}
        }
        now = "SIORG has the unit no more"
    else:
        assert remote is not None
        base = None if unit is None else _base_of(unit)
        known = differences(base=base, local={} if unit is None else unit.values(), remote=remote_unit_values(remote))
        now = "SIORG still has the unit"
    verb = "merged" if item.operation is Operation.MERGE else "split"
    reason = f"unit {item.siorg_code} was {verb}; SIORG does not say with whom: a person has to decide ({now})"
    return Verdict(
        item,
        Outcome.CONFLICT,
        error=reason,
        changes=as_json(known),
        details={"kind": item.operation.lower(), "retryable": False},
        local_id=None if unit is None else unit.id,
    )


def _extinguish(item: Item, evidence: Evidence, unit: LocalUnit | None, local: Local, resolution: Resolution | None) -> Verdict:
    if unit is None or not unit.is_active:
        return Verdict(item, Outcome.COMPLETED, local_id=None if unit is None else unit.id)
    if resolution is None and unit.base is not None and unit.base.ended:
        # It had ended before, and a person opened it again: SIORG says what it said then.
        return Verdict(item, Outcome.COMPLETED, local_id=unit.id)
    if resolution is not None and (UnitField.IS_ACTIVE in resolution.keep or resolution.merged.get(UnitField.IS_ACTIVE) is True):
        unit.base_raw = {**(unit.base_raw or {}), "operacao": "EXCLUSAO"}
        unit.synced_at, unit.touched = evidence.asked_at, True
        return Verdict(item, Outcome.COMPLETED, local_id=unit.id)
    below = [
        child
        for child in local.children.get(unit.id, [])
        if (copy := local.units_by_id.get(child.id)) is None or (copy.is_active and copy.parent_id == unit.id)
    ]
    below_new = [u for u in local.units.values() if u.parent_id == unit.id and u.is_active and u.id not in {c.id for c in below}]
    if below or below_new:
        waits = [child.item_due_seconds for child in below if child.item_due_seconds is not None]
        if waits:
            return Verdict(
                item,
                Outcome.RELEASED,
                delay_seconds=max(_WAIT_FOR_CHILDREN_SECONDS, min(waits)),
                error=f"waits for the items of {len(waits)} active units below it",
            )
        names = [f"{child.code or child.id} {child.name}" for child in below] + [f"{u.code} {u.name}" for u in below_new]
        return Verdict(
            item,
            Outcome.CONFLICT,
            local_id=unit.id,
            error=f"SIORG ended unit {unit.code}, but {len(names)} active units are below it: {', '.join(names[:5])}",
            changes={UnitField.IS_ACTIVE: {"base": True, "local": True, "remote": False}},
            details={"kind": "active_children", "retryable": False, "details": {"children": names[:50]}},
        )
    del resolution  # with nothing below it, accepting SIORG's end and simply hearing of it are the same
    before = plain(unit.values())
    version = evidence.unit.version if evidence.unit is not None else None
    unit.is_active = False
    unit.deactivation_reason = "extinct in SIORG" + (f" (version {version})" if version else "")
    unit.base_raw = {**(unit.base_raw or {}), "operacao": "EXCLUSAO"}
    unit.synced_at = evidence.asked_at
    unit.changed = True
    local.history.append(
        HistoryRow(
            EntityType.UNIT,
            unit.code,
            unit.id,
            Operation.EXTINCTION,
            before,
            None,
            [UnitField.IS_ACTIVE.value],
            version or unit.version,
            item.id,
            requires_review=True,
        )
    )
    return Verdict(item, Outcome.COMPLETED, local_id=unit.id)


def _apply_remote(
    item: Item, remote: RemoteUnit, evidence: Evidence, local: Local, *, resolution: Resolution | None, own: bool
) -> Verdict | None:
    """Bring one unit to ``remote``; for an ancestor (``own`` False) without a verdict, and only where nothing conflicts."""
    organization_row = local.organizations.get(remote.organization_code) if remote.organization_code is not None else None
    unit = local.units.get(remote.code)
    if organization_row is None:
        if unit is None or remote.organization_code is not None:
            raise _Refused(
                f"unit {remote.code} belongs to organization {remote.organization_code}, which is not registered here:"
                " siorg-job organizations add",
                "unknown_organization",
            )
        organization_row = local.organizations[unit.organization_code]
    remote_values = dict(remote_unit_values(remote))
    if _is_outside(remote, organization_row.code, local) and (evidence.outside_parent or not own):
        remote_values[UnitField.PARENT] = None  # a parent outside leaves parent_id as it is
    if unit is None:
        _create(item, remote, remote_values, organization_row.id, organization_row.code, evidence, local, resolution)
        return Verdict(item, Outcome.COMPLETED, local_id=local.units[remote.code].id) if own else None
    if not own and unit.synced_at is not None and unit.synced_at > evidence.asked_at:
        return None
    base = with_kept(_base_of(unit), remote_values, local.kept_of(EntityType.UNIT, unit.code, unit.synced_at))
    resolution = _with_parent(resolution, unit, organization_row.code)
    before = unit.values()
    decision = decide(
        base=base, local=before, remote=remote_values, resolution=resolution, strict_hierarchy=local.strict_hierarchy
    )
    match decision:
        case Conflict():
            if not own:
                return None  # it has, or will have, an item of its own; a loop that remains is refused below
            return in_conflict(item, decision, unit.id)
        case Change():
            _write(unit, decision.values, evidence, local)
        case NoChange():
            pass
    _note(unit, remote, evidence)
    _see_siorgs_parent(unit, resolution, local)
    if isinstance(decision, Change):
        moved = unit.values()[UnitField.PARENT] != before[UnitField.PARENT] or UnitField.ORGANIZATION in decision.values
        local.history.append(
            HistoryRow(
                EntityType.UNIT,
                unit.code,
                unit.id,
                Operation.HIERARCHY_CHANGE if moved else Operation.UPDATE,
                plain(before),
                plain(unit.values()),
                sorted(decision.values),
                remote.version,
                item.id,
                requires_review=moved or (own and item.operation is Operation.HIERARCHY_CHANGE),
            )
        )
    return Verdict(item, Outcome.COMPLETED, local_id=unit.id) if own else None


def _with_parent(resolution: Resolution | None, unit: LocalUnit, siorgs_organization: int) -> Resolution | None:
    """No parent, in a person's merge, is the organization in our words."""
    if resolution is None or resolution.merged.get(UnitField.PARENT, siorgs_organization) is not None:
        return resolution
    kept = unit.organization_code if UnitField.ORGANIZATION in resolution.keep else siorgs_organization
    parent = resolution.merged.get(UnitField.ORGANIZATION, kept)
    return replace(resolution, merged={**resolution.merged, UnitField.PARENT: parent})


def _see_siorgs_parent(unit: LocalUnit, resolution: Resolution | None, local: Local) -> None:
    """Where SIORG's parent is here, a unit without parent is where a person hung it: directly under the organization."""
    if resolution is not None and UnitField.PARENT in resolution.merged and unit.siorg_parent_code is not None:
        found = local.locate(unit.siorg_parent_code)
        unit.siorg_parent_is_local = found is not None and found[1] == unit.organization_code


def _base_of(unit: LocalUnit) -> Values | None:
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


def _is_outside(remote: RemoteUnit, organization_code: int, local: Local) -> bool:
    if remote.parent_code is None or remote.parent_code == organization_code:
        return False
    found = local.locate(remote.parent_code)
    return found is None or found[1] != organization_code


def _create(
    item: Item,
    remote: RemoteUnit,
    values: dict[str, Value],
    organization_id: UUID,
    organization_code: int,
    evidence: Evidence,
    local: Local,
    resolution: Resolution | None,
) -> None:
    if refusal := check_creation(remote):
        raise _Refused(refusal.reason, refusal.kind)
    if resolution is not None:
        values = {**values, **resolution.merged}
    names = {row.code: row.name for row in evidence.rows}
    category = local.category_for(remote.category_code, names.get(remote.category_code) if remote.category_code else None)
    unit_type = local.type_for(str(values[UnitField.UNIT_TYPE]))
    unit = LocalUnit(
        id=uuid4(),
        code=remote.code,
        organization_id=organization_id,
        organization_code=organization_code,
        parent_id=None,
        parent_code=None,
        siorg_parent_code=remote.parent_code,
        siorg_parent_is_local=False,
        category_id=category.id,
        category_code=category.code,
        unit_type_id=unit_type.id,
        type_slug=str(unit_type.slug),
        name=str(values[UnitField.NAME]),
        acronym=None,
        activity_area=_AREA_UNLESS_SAID,
        contact_info={"phones": [], "emails": [], "websites": [], "address": None},
        level=1,
        is_active=True,
        synced_at=None,
        base=None,
        base_raw=None,
        url=None,
        version=None,
        new=True,
    )
    said = {field: value for field, value in values.items() if value is not None}
    _write(unit, said, evidence, local)
    local.add(unit)
    _note(unit, remote, evidence)
    local.history.append(
        HistoryRow(
            EntityType.UNIT,
            unit.code,
            unit.id,
            Operation.CREATION,
            None,
            plain(unit.values()),
            sorted(said),
            remote.version,
            item.id,
            requires_review=False,
        )
    )


def _write(unit: LocalUnit, values: Values, evidence: Evidence, local: Local) -> None:
    if UnitField.ORGANIZATION in values:
        _transfer(unit, values[UnitField.ORGANIZATION], local, parent_follows=UnitField.PARENT in values)
    for field, value in values.items():
        match field:
            case UnitField.NAME:
                unit.relocated = True
                unit.name = str(value)
            case UnitField.ACRONYM:
                unit.acronym = None if value is None else str(value)
            case UnitField.PARENT:
                assert isinstance(value, int)
                _hang(unit, value, unit.organization_code, local)
            case UnitField.UNIT_TYPE:
                found = local.type_for(str(value))
                unit.unit_type_id, unit.type_slug = found.id, str(value)
            case UnitField.CATEGORY:
                assert isinstance(value, int)
                names = {row.code: row.name for row in evidence.rows}
                category = local.category_for(value, names.get(value))
                unit.category_id, unit.category_code = category.id, value
            case UnitField.ACTIVITY_AREA:
                unit.activity_area = str(value)
            case UnitField.IS_ACTIVE:
                unit.is_active = bool(value)
                unit.deactivation_reason = None
            case UnitField.PHONES | UnitField.EMAILS | UnitField.WEBSITES:
                assert isinstance(value, tuple)
                unit.contact_info = {**unit.contact_info, field.removeprefix("contact_info."): list(value)}
            case UnitField.ADDRESS:
                unit.contact_info = {**unit.contact_info, "address": value}
    unit.changed = True


def _transfer(unit: LocalUnit, code: Value, local: Local, *, parent_follows: bool) -> None:
    """Put the unit into the organization of that code."""
    row = local.organizations.get(code) if isinstance(code, int) else None
    if row is None:
        raise _Refused(f"organization {code} is not registered here: siorg-job organizations add", "unknown_organization")
    if not parent_follows and local.organization_of(unit.parent_id) not in (None, row.code):
        _hang(unit, None, row.code, local)  # its parent stays in the organization that it leaves
    unit.relocated = unit.relocated or row.code != unit.organization_code
    unit.organization_id, unit.organization_code = row.id, row.code


def _hang(unit: LocalUnit, parent_code: int | None, organization_code: int, local: Local) -> None:
    """Hang the unit below the unit of that code, or directly under the organization."""
    unit.relocated = True
    if parent_code is None or parent_code == organization_code:
        unit.parent_id = unit.parent_code = None
        unit.siorg_parent_is_local = False
        return
    found = local.locate(parent_code)
    if found is None:
        raise _Refused(f"the parent {parent_code} of unit {unit.code} is not known here", "unknown_parent")
    parent_id, _ = found
    chain = local.chain(parent_id)
    if unit.id in chain:
        raise _Refused(
            f"below unit {parent_code} unit {unit.code} would be its own ancestor: SIORG's hierarchy has a loop", "loop"
        )
    if len(chain) + 1 > local.max_depth:
        raise _Refused(
            f"below unit {parent_code} unit {unit.code} would be on level {len(chain) + 1}; setting"
            f" units.max_hierarchy_depth allows {local.max_depth}",
            "too_deep",
        )
    unit.parent_id, unit.parent_code = parent_id, parent_code


def _note(unit: LocalUnit, remote: RemoteUnit, evidence: Evidence) -> None:
    """What SIORG manages alone, and the base of the next merge: what was said replaces, what was not said stays."""
    raw = next_base(unit.base_raw, remote.raw)
    if raw != unit.base_raw:
        unit.base_raw = raw
        unit.base = parse_stored(raw)
    if remote.parent_code is not None:
        unit.siorg_parent_code = remote.parent_code
    unit.version = remote.version or unit.version
    unit.url = raw.get("codigoUnidade") if isinstance(raw.get("codigoUnidade"), str) else unit.url
    unit.synced_at = evidence.asked_at
    unit.touched = True
