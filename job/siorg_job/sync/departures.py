"""Every difference between the rows here and SIORG's gets exactly one kind, or it is drift. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from siorg_job.siorg.errors import InvalidData
from siorg_job.siorg.model import RemoteUnit, Structure
from siorg_job.sync.compare import EXISTS, Comparison, Difference
from siorg_job.sync.merge import Rule
from siorg_job.sync.model import UnitField, Value
from siorg_job.sync.working_copy import Unit, WorkingCopy
from siorg_queue import EntityType

VERSION = "siorg_last_version"


class Kind(StrEnum):
    """Why a row here is not as SIORG has it; the first that applies."""

    CONFLICT = "conflict"
    """It waits for a person's decision; one that was put off stays so."""
    HELD = "held"
    """It would pass a limit: it waits for a person."""
    ENDED = "ended"
    """SIORG has ended the organization: it waits for a person."""
    FAILED = "failed"
    """SIORG's answer cannot be used, or that about what is above it; it is asked again."""
    WAITING = "waiting"
    """It is on the queue."""
    OUTSIDE = "outside"
    """The unit, or its parent, is in an organization that is not registered, or in another one."""
    EDITED = "edited"
    """A person's value that SIORG did not contest."""
    DRIFT = "drift"
    """Nothing explains it."""


_ORDER = {kind: number for number, kind in enumerate(Kind)}
_ENDS: Mapping[Kind, str] = {
    Kind.CONFLICT: "siorg-job conflicts resolve",
    Kind.HELD: "siorg-job held release or drop",
    Kind.ENDED: "siorg-job organizations deactivate",
    Kind.FAILED: "an answer of SIORG that can be used; it is asked again by itself",
    Kind.WAITING: "the next run",
    Kind.OUTSIDE: "siorg-job organizations add, or a move in SIORG",
    Kind.EDITED: "SIORG's value, typed here; or another value in SIORG, which asks a person",
    Kind.DRIFT: "siorg-job verify --enqueue, then a run",
}


@dataclass(frozen=True, slots=True)
class OnQueue:
    """What the queue has about one entity."""

    open_since: datetime | None = None
    conflicts: Mapping[str, datetime] = field(default_factory=dict)
    """Fields in dispute, and since when; also those that a person put off."""
    held: Mapping[str, datetime] = field(default_factory=dict)
    failed_since: datetime | None = None
    """Of its newest row, if that FAILED."""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Departure:
    """One field of one entity that is not as SIORG has it."""

    entity_type: EntityType
    code: int
    name: str
    field: str
    kind: Kind
    reason: str
    base: Value
    local: Value
    remote: Value
    since: datetime | None = None
    adopted: bool = False
    """The base is SIORG's older answer, for nothing is recorded: the value may be the first worker's own mistake."""

    @property
    def ends(self) -> str:
        """What ends it."""
        return _ENDS[self.kind]


def departures(
    structure: Structure,
    comparison: Comparison,
    copy: WorkingCopy,
    elsewhere: Mapping[int, int | None],
    gone: Mapping[int, RemoteUnit | InvalidData | None],
    queue: Mapping[tuple[EntityType, int], OnQueue],
) -> list[Departure]:
    """All departures and all drift of one organization: of one field one, of the kind that comes first.

    What SIORG has in another registered organization is told with that one.

    Args:
        structure: SIORG's whole answer.
        comparison: what came of comparing it.
        copy: the rows it was compared with.
        elsewhere: see ``compare``.
        gone: of ``comparison.gone``, what SIORG said about each by itself; None: it has no such unit.
        queue: what the queue has about the entities that differ.
    """
    found: dict[tuple[EntityType, int, str], Departure] = {}
    for each in _departures(structure, comparison, copy, elsewhere, gone, queue):
        key = each.entity_type, each.code, each.field
        if key not in found or _ORDER[each.kind] < _ORDER[found[key].kind]:
            found[key] = each
    return list(found.values())


def _departures(
    structure: Structure,
    comparison: Comparison,
    copy: WorkingCopy,
    elsewhere: Mapping[int, int | None],
    gone: Mapping[int, RemoteUnit | InvalidData | None],
    queue: Mapping[tuple[EntityType, int], OnQueue],
) -> Iterator[Departure]:
    kinds = _Kinds(copy, queue)
    for (entity_type, code), differences in comparison.differences.items():
        for difference in differences:
            yield kinds.of(difference, _name(entity_type, code, structure, copy))
    for entity_type, code in comparison.unnoted:
        known = copy.units[code].version if entity_type is EntityType.UNIT else None
        remote = structure.units[code].version
        yield kinds.of(
            Difference(entity_type, code, VERSION, Rule.TAKE, known, known, remote), _name(entity_type, code, structure, copy)
        )
    for code, error in sorted(structure.invalid.items()):
        yield Departure(EntityType.UNIT, code, _name(EntityType.UNIT, code, structure, copy), EXISTS, Kind.FAILED, str(error),
                        None, None, None)  # fmt: skip
    below = {unit.parent_code for unit in structure.units.values()}
    for code in comparison.gone:
        yield from _of_gone(copy.units[code], gone[code], copy, kinds, still_a_parent=code in below)
    for code in comparison.kept:
        yield Departure(EntityType.UNIT, code, _name(EntityType.UNIT, code, structure, copy), UnitField.IS_ACTIVE, Kind.EDITED,
                        "a person keeps it active", None, local=True, remote=False)  # fmt: skip
    yield from _outside(structure, copy, elsewhere)


@dataclass(frozen=True, slots=True)
class _Kinds:
    copy: WorkingCopy
    queue: Mapping[tuple[EntityType, int], OnQueue]

    def of(self, difference: Difference, name: str) -> Departure:
        known = self.queue.get((difference.entity_type, difference.code), OnQueue())
        kind, reason, since = Kind.DRIFT, "nothing on the queue explains it", None
        if known.conflicts and difference.rule is not Rule.EDITED:
            asked = ", ".join(sorted(known.conflicts))
            reason = f"nothing of it is written until a person has decided about {asked}"
            kind, since = Kind.CONFLICT, min(known.conflicts.values())
            if difference.field in known.conflicts:
                reason, since = "changed here and in SIORG", known.conflicts[difference.field]
        elif difference.field in known.held:
            kind, reason, since = Kind.HELD, "beyond the limit of one discovery", known.held[difference.field]
        elif known.failed_since is not None and known.open_since is None and difference.rule is not Rule.EDITED:
            kind, reason, since = Kind.FAILED, known.error, known.failed_since
        elif known.open_since is not None:
            kind, reason, since = Kind.WAITING, "an item waits or is in work", known.open_since
        elif difference.rule is Rule.EDITED:
            kind, reason = Kind.EDITED, "SIORG has not changed it since we wrote it"
        elif (parent := self._parent_elsewhere(difference)) is not None:
            kind, reason = Kind.OUTSIDE, f"its parent {parent.code} is in organization {parent.organization_code} here"
        return Departure(
            difference.entity_type, difference.code, name, difference.field, kind, reason,
            difference.base, difference.local, difference.remote, since, difference.adopted,
        )  # fmt: skip

    def _parent_elsewhere(self, difference: Difference) -> Unit | None:
        """The parent of SIORG's, where that is in another organization here: it has a departure of its own."""
        parent = self.copy.units.get(difference.remote) if isinstance(difference.remote, int) else None
        if difference.field != UnitField.PARENT or parent is None:
            return None
        return None if parent.organization_code == self.copy.units[difference.code].organization_code else parent


def _of_gone(
    unit: Unit, remote: RemoteUnit | InvalidData | None, copy: WorkingCopy, kinds: _Kinds, *, still_a_parent: bool
) -> Iterator[Departure]:
    """A unit that is active here and not in its organization's structure."""
    if isinstance(remote, InvalidData):
        yield Departure(EntityType.UNIT, unit.code, unit.name, UnitField.ORGANIZATION, Kind.FAILED, str(remote), None,
                        unit.organization_code, None)  # fmt: skip
        return
    code = None if remote is None or remote.ended else remote.organization_code
    home = None if code is None or code == unit.code else copy.organizations.get(code)
    if home is not None and home.is_active:
        return
    found = kinds.of(
        Difference(EntityType.UNIT, unit.code, UnitField.IS_ACTIVE, Rule.TAKE, None, local=True, remote=False), unit.name
    )
    if found.kind is Kind.DRIFT and code is None and still_a_parent:
        found = Departure(EntityType.UNIT, unit.code, unit.name, UnitField.IS_ACTIVE, Kind.FAILED,
                         "SIORG has it no more, and still has units below it", None, local=True, remote=False)  # fmt: skip
    yield found


def _outside(structure: Structure, copy: WorkingCopy, elsewhere: Mapping[int, int | None]) -> Iterator[Departure]:
    organization = structure.organization
    for unit in sorted(structure.units.values(), key=lambda unit: unit.code):
        parent = unit.parent_code
        own = unit.organization_code in (None, organization) and unit.code != organization
        if not own or parent is None or parent == organization:
            continue
        here = copy.units.get(unit.code)
        listed = structure.units.get(parent)
        home = elsewhere.get(parent) if listed is None else (listed.organization_code or organization)
        if home == organization:
            continue
        if parent in structure.invalid:
            if here is None or here.parent_code == parent:
                continue
            kind, reason = Kind.FAILED, f"its parent {parent} cannot be used as SIORG has it"
        elif home is not None:
            kind, reason = Kind.OUTSIDE, f"its parent {parent} is in organization {home}"
        elif parent in elsewhere:
            kind, reason = Kind.FAILED, f"SIORG has its parent {parent} nowhere, or not so that it can be used"
        else:
            continue
        yield Departure(EntityType.UNIT, unit.code, unit.name or str(unit.code), UnitField.PARENT, kind, reason,
                        None, None if here is None else here.parent_code, parent)  # fmt: skip
    for here in copy.units.values():
        if here.organization_code != organization or here.is_active or here.said is None:
            continue
        is_listed = here.code in structure.units or here.code in structure.invalid
        if not is_listed and here.said.organization_code not in (None, organization):
            reason = f"it is in organization {here.said.organization_code}"
            yield Departure(EntityType.UNIT, here.code, here.name, UnitField.IS_ACTIVE, Kind.OUTSIDE, reason, None,
                            local=False, remote=True)  # fmt: skip


def _name(entity_type: EntityType, code: int, structure: Structure, copy: WorkingCopy) -> str:
    if entity_type is EntityType.ORGANIZATION:
        return copy.organizations[code].name
    if (unit := copy.units.get(code)) is not None:
        return unit.name
    remote = structure.units.get(code)
    return str(code) if remote is None or remote.name is None else remote.name
