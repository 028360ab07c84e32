"""Every difference between the rows here and SIORG's gets exactly one kind, or it is drift. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

from siorg_job.siorg.errors import PermanentError
from siorg_job.siorg.model import Structure, Told, home_of
from siorg_job.sync.compare import EXISTS, PATHS, Comparison, Difference
from siorg_job.sync.domain_difference import ComparedRow
from siorg_job.sync.local_rows import Unit
from siorg_job.sync.merge import Rule
from siorg_job.sync.model import PLACE, DomainField, UnitField, Value
from siorg_job.sync.organization import is_kept_active
from siorg_job.sync.place import is_brought_here
from siorg_job.sync.working_copy import WorkingCopy
from siorg_queue import EntityType


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


ENDS: Mapping[Kind, str] = {
    Kind.CONFLICT: "siorg-job conflicts resolve",
    Kind.HELD: "siorg-job held release or drop",
    Kind.ENDED: "siorg-job organizations deactivate; where SIORG has it again, reactivate",
    Kind.FAILED: "an answer of SIORG that can be used; it is asked again by itself",
    Kind.WAITING: "the next run",
    Kind.OUTSIDE: "siorg-job organizations add, or a move in SIORG",
    Kind.EDITED: "SIORG's value, typed here; or another value in SIORG, which asks a person",
    Kind.DRIFT: "siorg-job verify --enqueue, then a run",
}
"""What ends a departure of each kind."""


@dataclass(frozen=True, slots=True)
class OnQueue:
    """What the queue has about one entity."""

    open_since: datetime | None = None
    conflicts: Mapping[str, datetime] = field(default_factory=dict)
    """Fields in dispute, and since when; also those that a person put off."""
    held: Mapping[str, datetime] = field(default_factory=dict)
    """Fields beyond a limit, and since when."""
    failed_since: datetime | None = None
    """Of its newest row, if that FAILED."""
    error: str = ""
    """Why that FAILED."""


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
    """Where it is known."""
    adopted: bool = False
    """The base is SIORG's older answer, for nothing is recorded: the value may be the first worker's own mistake."""

    @property
    def ends(self) -> str:
        """What ends it."""
        return ENDS[self.kind]


def departures(
    told: Told,
    comparison: Comparison,
    copy: WorkingCopy,
    registered: Collection[int],
    queue: Mapping[tuple[EntityType, int], OnQueue],
) -> Iterator[Departure]:
    """All departures and all drift of one organization, each field of an entity once.

    Args:
        told: what SIORG said.
        comparison: what came of comparing it.
        copy: the rows it was compared with.
        registered: codes of the organizations that are registered here, and active.
        queue: what the queue has about the entities that differ.
    """
    structure = told.structure
    outside = dict(_outside(told, copy, registered))
    judge = _Judge(queue, outside, told, copy)
    for (entity_type, code), differences in comparison.differences.items():
        name = _name(entity_type, code, structure, copy)
        yield from judge.all(differences, name)
    for code, error in sorted(structure.invalid.items()):
        of = EntityType.ORGANIZATION if code == structure.organization else EntityType.UNIT
        since = queue.get((of, code), OnQueue()).failed_since
        unreadable = Difference(of, code, EXISTS, Rule.TAKE, None, None, None)
        yield _departure(unreadable, _name(of, code, structure, copy), Kind.FAILED, str(error), since)
    home = copy.organizations[structure.organization]
    if told.ended and home.is_active:
        yield from judge.all([_end(EntityType.ORGANIZATION, home.code)], home.name)
    for code in comparison.gone:
        yield judge.of_gone(copy.units[code], registered)
    for code in comparison.kept:
        yield judge.of_kept(copy.units[code], registered)
    for code, found in outside.items():
        if found.field not in {each.field for each in comparison.differences.get((EntityType.UNIT, code), ())}:
            difference = Difference(EntityType.UNIT, code, found.field, Rule.EDITED, None, found.local, found.remote)
            yield _departure(difference, copy.units[code].name, found.kind, found.reason)


def returned(organization: int, name: str) -> Departure:
    """An organization that is not active here, and that SIORG has again."""
    again = Difference(EntityType.ORGANIZATION, organization, UnitField.IS_ACTIVE, Rule.TAKE, None, local=False, remote=True)
    return _departure(again, name, Kind.ENDED, "SIORG had ended it, and has it again")


def _end(entity_type: EntityType, code: int) -> Difference:
    return Difference(entity_type, code, UnitField.IS_ACTIVE, Rule.TAKE, None, local=True, remote=False)


def _departure(difference: Difference, name: str, kind: Kind, reason: str, since: datetime | None = None) -> Departure:
    return Departure(
        difference.entity_type, difference.code, name, difference.field, kind, reason,
        difference.base, difference.local, difference.remote, since,
        adopted=difference.adopted and difference.rule is not Rule.TAKE,
    )  # fmt: skip


def table_departures(
    rows: Iterable[ComparedRow], copy: WorkingCopy, queue: Mapping[tuple[EntityType, int], OnQueue]
) -> Iterator[Departure]:
    """The same for the table of categories or types."""
    judge = _Judge(queue)
    for row in rows:
        if row.local_id is None:
            name = str(next((each.remote for each in row.differences if each.field == DomainField.NAME), row.code))
            yield from judge.all([Difference(row.entity_type, row.code, EXISTS, Rule.TAKE, None, None, name)], name)
        else:
            yield from judge.all(row.differences, copy.domains[row.local_id].name)


@dataclass(frozen=True, slots=True)
class _Outside:
    """Why a place here cannot be SIORG's."""

    field: str
    kind: Kind
    reason: str
    local: Value
    remote: Value


_Reason: TypeAlias = tuple[Kind, str, datetime | None]
_NOWHERE = Told(Structure(0, {}, {}))


@dataclass(frozen=True, slots=True)
class _Judge:
    """Gives differences their kinds."""

    queue: Mapping[tuple[EntityType, int], OnQueue]
    outside: Mapping[int, _Outside] = field(default_factory=dict)
    told: Told = _NOWHERE
    copy: WorkingCopy = field(default_factory=WorkingCopy)

    def all(self, differences: Sequence[Difference], name: str) -> Iterator[Departure]:
        """Those of one entity."""
        known = self._known(differences[0]) if differences else OnQueue()
        for each in differences:
            reasons = sorted(self._reasons(each, known), key=lambda reason: _ORDER[reason[0]])
            kind, reason, since = (reasons or [(Kind.DRIFT, "nothing explains it", None)])[0]
            yield _departure(each, name, kind, reason, since)

    def _known(self, difference: Difference) -> OnQueue:
        return self.queue.get((difference.entity_type, difference.code), OnQueue())

    def _reasons(self, difference: Difference, known: OnQueue) -> Iterator[_Reason]:
        """All that apply, in any order."""
        name = difference.field
        is_end = name == UnitField.IS_ACTIVE and difference.remote is False
        if self.told.ended and is_end and home_of(self.told.answers.get(difference.code)) is None:
            yield self._ended(known)  # a conflict about it asks nothing else
        elif known.conflicts and difference.rule is not Rule.EDITED:  # else nobody is asked about it, or is not any more
            if name in known.conflicts:
                yield Kind.CONFLICT, "changed here and in SIORG", known.conflicts[name]
            elif name not in PATHS:
                reason = f"it comes with the decision about {', '.join(sorted(known.conflicts))}"
                yield Kind.CONFLICT, reason, min(known.conflicts.values())
        if name in known.held:
            yield Kind.HELD, "beyond the limit of one discovery", known.held[name]
        if (above := self._failed_above(difference)) is not None:
            yield above
        if known.failed_since is not None and difference.rule is not Rule.EDITED:
            yield Kind.FAILED, known.error, known.failed_since
        if known.open_since is not None:
            yield Kind.WAITING, "an item waits or is in work", known.open_since
        if difference.rule is Rule.EDITED:
            found = self.outside.get(difference.code) if difference.entity_type is EntityType.UNIT else None
            if found is not None and found.field == name:
                yield found.kind, found.reason, None
            yield Kind.EDITED, "SIORG has not changed it since we wrote it", None
        elif (parent := self._parent_elsewhere(difference)) is not None:
            yield Kind.OUTSIDE, f"its parent {parent.code} is in organization {parent.organization_code} here", None

    def _ended(self, known: OnQueue) -> _Reason:
        home = self.copy.organizations[self.told.structure.organization]
        if is_kept_active(home, self.copy):
            return Kind.EDITED, f"SIORG has organization {home.code} no more, and a person keeps it", None
        return Kind.ENDED, f"SIORG has organization {home.code} no more", known.conflicts.get(UnitField.IS_ACTIVE)

    def _parent_elsewhere(self, difference: Difference) -> Unit | None:
        """The parent of SIORG's, where that is in another organization here: it has a departure of its own."""
        unit = self.copy.units.get(difference.code) if difference.entity_type is EntityType.UNIT else None
        parent = self.copy.units.get(difference.remote) if isinstance(difference.remote, int) else None
        if unit is None or parent is None or difference.field != UnitField.PARENT:
            return None
        return None if parent.organization_code == unit.organization_code else parent

    def _failed_above(self, difference: Difference) -> _Reason | None:
        """Of what cannot be written because that about what is above it cannot be used."""
        if difference.entity_type is not EntityType.UNIT or difference.field not in (EXISTS, *PLACE):
            return None
        structure, seen, code = self.told.structure, {difference.code}, difference.code
        if (found := self.outside.get(code)) is not None and found.kind is Kind.FAILED and found.remote in structure.invalid:
            return found.kind, found.reason, None
        while (unit := structure.units.get(code)) is not None:
            parent = unit.parent_code
            if parent is None or parent in seen or parent in self.copy.units:
                return None
            queued = self.queue.get((EntityType.UNIT, parent), OnQueue())
            if (error := structure.invalid.get(parent)) is not None or queued.failed_since is not None:
                return Kind.FAILED, f"its parent {parent}: {error or queued.error}", queued.failed_since
            seen.add(parent)
            code = parent
        return None

    def of_gone(self, unit: Unit, registered: Collection[int]) -> Departure:
        """A unit that is active here and not in its organization's structure."""
        end, answer = _end(EntityType.UNIT, unit.code), self.told.answers.get(unit.code)
        if isinstance(answer, PermanentError):
            where = replace(end, field=UnitField.ORGANIZATION, local=unit.organization_code, remote=None)
            return _departure(where, unit.name, Kind.FAILED, str(answer))
        home = home_of(answer)
        if home is not None and home != unit.code and home in registered:
            rule = Rule.EDITED if is_brought_here(unit, home, self.copy) else Rule.TAKE
            end = replace(end, field=UnitField.ORGANIZATION, rule=rule, local=unit.organization_code, remote=home)  # it has moved
        (found,) = self.all([end], unit.name)
        if found.kind is Kind.DRIFT and home is None and self._is_parent(unit):
            return _departure(end, unit.name, Kind.FAILED, "SIORG has it no more, and still has units below it")
        return found

    def of_kept(self, unit: Unit, registered: Collection[int]) -> Departure:
        """Likewise, but people want it so."""
        home, was_synced = home_of(self.told.answers.get(unit.code)), unit.synced_at is not None
        if home in registered and home not in (unit.code, unit.organization_code):
            return self.of_gone(unit, registered)  # what they want is no end: it has moved
        kind, reason = Kind.EDITED, "SIORG has ended it, and a person keeps it" if was_synced else "SIORG never had it"
        if home not in (None, unit.organization_code):
            kind, reason = Kind.OUTSIDE, _elsewhere(unit.code, home)
        return _departure(_end(EntityType.UNIT, unit.code), unit.name, kind, reason)

    def _is_parent(self, unit: Unit) -> bool:
        """Whether SIORG has units below one that are there here too, or are to come."""
        below = (each.code for each in self.told.structure.units.values() if each.parent_code == unit.code)
        rows = (self.copy.units.get(code) for code in below)
        return any(row is None or (row.is_active and row.parent_id == unit.id) for row in rows)


_ORDER = {kind: position for position, kind in enumerate(Kind)}


def _outside(told: Told, copy: WorkingCopy, registered: Collection[int]) -> Iterator[tuple[int, _Outside]]:
    """Units whose parent SIORG has elsewhere, or nowhere; and those that were deactivated because SIORG has them elsewhere."""
    structure, elsewhere = told.structure, told.elsewhere
    organization = structure.organization
    for code, unit in sorted(structure.units.items()):
        parent, here = unit.parent_code, copy.units.get(code)
        own = unit.organization_code in (None, organization) and code != organization
        if here is None or not own or parent in (None, organization):
            continue
        assert parent is not None
        if (error := structure.invalid.get(parent)) is not None:
            if here.parent_code != parent:
                yield code, _Outside(UnitField.PARENT, Kind.FAILED, f"its parent {parent}: {error}", here.parent_code, parent)
            continue
        listed = structure.units.get(parent)
        home = elsewhere.get(parent) if listed is None else (listed.organization_code or organization)
        if home == organization:
            if (above := copy.units.get(parent)) is not None and above.organization_code != organization:
                reason = f"its parent {parent} is in organization {above.organization_code} here"
                yield code, _Outside(UnitField.PARENT, Kind.OUTSIDE, reason, here.parent_code, parent)
            continue
        answer = told.answers.get(parent)
        if isinstance(answer, PermanentError):
            kind, reason = Kind.FAILED, f"its parent {parent}: {answer}"
        elif home is None:
            kind, reason = Kind.FAILED, f"SIORG has its parent {parent} nowhere"
        else:
            kind, reason = Kind.OUTSIDE, f"its parent {parent} is in organization {home}"
        yield code, _Outside(UnitField.PARENT, kind, reason, here.parent_code, parent)
    for code, answer in sorted(told.answers.items()):
        here, home = copy.units.get(code), home_of(answer)
        if here is None or here.is_active or here.organization_code != organization or home in (None, organization):
            continue
        if home == code or home not in registered:
            yield code, _Outside(UnitField.IS_ACTIVE, Kind.OUTSIDE, _elsewhere(code, home), local=False, remote=True)


def _elsewhere(code: int, home: int | None) -> str:
    return "it is an organization of its own in SIORG" if home == code else f"it is in organization {home}"


def _name(entity_type: EntityType, code: int, structure: Structure, copy: WorkingCopy) -> str:
    if entity_type is EntityType.ORGANIZATION:
        return copy.organizations[code].name
    if (unit := copy.units.get(code)) is not None:
        return unit.name
    remote = structure.units.get(code)
    return str(code) if remote is None or remote.name is None else remote.name
