"""The rows here beside SIORG's: every difference, and what the merge would make of it. Pure.

Discovery enqueues what comes out of this, and the merge applies by the same rule: they cannot disagree.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from siorg_job.siorg.model import RemoteUnit, Structure
from siorg_job.sync.local_rows import Organization, Unit
from siorg_job.sync.merge import Rule, differing, is_as_said, remote_organization_values, remote_unit_values
from siorg_job.sync.model import PLACE, OrganizationField, UnitField, Value, Values, plain
from siorg_job.sync.organization import base_of as base_of_organization
from siorg_job.sync.place import base_of, is_brought_here, place_of
from siorg_job.sync.working_copy import WorkingCopy
from siorg_queue import EntityType

EXISTS = "*"
"""In place of a field: the whole row is missing here."""
VERSION = "siorg_last_version"
"""SIORG's version of a unit, which is noted with whatever is written; compared by equality, for versions go back."""
PATHS = ("level", "path_ids", "path_names")
"""What follows from a unit's own parent here, whatever SIORG says."""


Disputed: TypeAlias = tuple[EntityType, int, str, str]
"""(entity, code, field, SIORG's value as JSON): what a person has been asked."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One field in which a row here is not as SIORG has it."""

    entity_type: EntityType
    code: int
    field: str
    """A name of ``UnitField``, ``OrganizationField`` or ``DomainField``; ``EXISTS``, ``VERSION``, or one of ``PATHS``."""
    rule: Rule
    base: Value
    local: Value
    remote: Value
    adopted: bool = False
    """Nothing is recorded of what we wrote there: the base is what SIORG said last."""

    @property
    def disputed(self) -> Disputed:
        """The question to a person, should it be one."""
        return self.entity_type, self.code, self.field, json.dumps(plain({self.field: self.remote})[self.field])

    @property
    def sides(self) -> dict[str, Any]:
        """As a conflict keeps it."""
        return plain({"base": self.base, "local": self.local, "remote": self.remote})

    @property
    def holds_up(self) -> bool:
        """Whether nothing of the row is written before a person has decided, should this be asked."""
        return self.rule is Rule.APART or self.field in PLACE


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of comparing one organization."""

    differences: Mapping[tuple[EntityType, int], list[Difference]] = field(default_factory=dict)
    """By entity, those of the organization first, then the units in the order in which they can be written."""
    unnoted: tuple[tuple[EntityType, int], ...] = ()
    """Entities that are in line, but were never synced; and those of which the row does not have yet what a person turned down,
    or has it still after SIORG said something else."""
    gone: tuple[int, ...] = ()
    """Active units here that are not in the structure, the deepest first: ended, or elsewhere."""
    kept: tuple[int, ...] = ()
    """Likewise, but a person keeps them active, or SIORG never had them."""

    @property
    def apart(self) -> list[int]:
        """Codes of what a person would have to decide about."""
        return sorted({each.code for found in self.differences.values() for each in found if each.rule is Rule.APART})


def compare(structure: Structure, copy: WorkingCopy, elsewhere: Mapping[int, int | None]) -> Comparison:
    """Compare the rows of one organization with its whole structure.

    Args:
        structure: SIORG's answer.
        copy: the organization, its units, and those that the structure names, wherever they are here; what people kept.
        elsewhere: of parents that are not in the structure, the organization that SIORG has them in; None: in none.
    """
    code = structure.organization
    home = copy.organizations[code]
    own = {unit.code: unit for unit in structure.units.values() if unit.organization_code in (None, code) and unit.code != code}
    found: dict[tuple[EntityType, int], list[Difference]] = {}
    unnoted: list[tuple[EntityType, int]] = []
    if code in structure.units:
        if differences := list(_of_organization(structure.units[code], home, copy)):
            found[EntityType.ORGANIZATION, code] = differences
        elif home.synced_at is None:
            unnoted.append((EntityType.ORGANIZATION, code))
    for remote in sorted(own.values(), key=lambda unit: (_depth(unit.code, own), unit.code)):
        differences = list(_of_unit(remote, structure, copy, elsewhere))
        unit = copy.units.get(remote.code)
        if differences:
            found[EntityType.UNIT, remote.code] = differences
        if unit is not None and (
            (not differences and unit.synced_at is None)
            or _turned_down_anew(unit, differences, copy)
            or _is_said_no_more(unit, remote, structure, copy, elsewhere)
        ):
            unnoted.append((EntityType.UNIT, remote.code))
    gone, kept = _gone(structure, home, copy)
    unnoted += [(EntityType.UNIT, code) for code in kept if _is_unnoted(copy.units[code], copy)]
    return Comparison(found, tuple(unnoted), gone, kept)


def _is_unnoted(unit: Unit, copy: WorkingCopy) -> bool:
    """Whether a person keeps the unit, and the row does not have that yet."""
    noted = {} if unit.base is None else unit.base.turned_down
    return copy.turned_down(unit).get(UnitField.IS_ACTIVE) is False and noted.get(UnitField.IS_ACTIVE) is not False


def _turned_down_anew(unit: Unit, differences: Sequence[Difference], copy: WorkingCopy) -> bool:
    """Whether what a person turned down has to be noted in the row, for the queue forgets it."""
    noted = {} if unit.base is None else unit.base.turned_down
    kept = copy.turned_down(unit)
    return any(each.rule is Rule.EDITED and each.field in kept and each.field not in noted for each in differences)


def _is_said_no_more(
    unit: Unit, remote: RemoteUnit, structure: Structure, copy: WorkingCopy, elsewhere: Mapping[int, int | None]
) -> bool:
    """Whether the row has noted as turned down what SIORG does not say any more: should it say that again, it is news."""
    noted = {} if unit.base is None else plain(unit.base.turned_down)
    if not noted:
        return False
    values = {**remote_unit_values(remote), **place_here(remote, structure, copy, elsewhere)}
    said = plain({name: theirs for name, theirs in values.items() if theirs is not None})
    return any(name in said and said[name] != theirs for name, theirs in noted.items())


def parents_elsewhere(structure: Structure) -> set[int]:
    """Parents that the structure names and does not have: where they are has to be asked."""
    code = structure.organization
    return {
        unit.parent_code
        for unit in structure.units.values()
        if unit.organization_code in (None, code) and unit.code != code and unit.parent_code not in (None, code)
    } - {None, *structure.units, *structure.invalid}  # fmt: skip


def above_in(structure: Structure, code: int) -> list[int]:
    """The units above one in SIORG, the nearest first, as far as the structure tells."""
    found: list[int] = []
    while (unit := structure.units.get(code)) is not None and unit.parent_code is not None and unit.parent_code not in found:
        code = unit.parent_code
        found.append(code)
    return found


def _of_organization(remote: RemoteUnit, row: Organization, copy: WorkingCopy) -> Iterator[Difference]:
    base = base_of_organization(row)
    yield from _differences(
        EntityType.ORGANIZATION, row.code, base, row.values(), remote_organization_values(remote), copy.turned_down(row), row
    )


def place_here(
    remote: RemoteUnit, structure: Structure, copy: WorkingCopy, elsewhere: Mapping[int, int | None]
) -> dict[str, Value]:
    """Where a unit of the structure is to hang here; see ``place_of``."""

    def organization_of(parent: int) -> int | None:
        if (listed := structure.units.get(parent)) is not None:
            home, row = listed.organization_code or structure.organization, copy.units.get(parent)
            brought = row is not None and row.organization_code != home and is_brought_here(row, home, copy)
            return row.organization_code if row is not None and brought else home
        if (organization := elsewhere.get(parent)) is not None:
            return organization
        above = copy.locate(parent)  # SIORG has it nowhere: while it is here, it stays the parent
        return None if above is None else above.organization_code

    return place_of(remote, copy.units.get(remote.code), structure.organization, organization_of)


def _of_unit(
    remote: RemoteUnit, structure: Structure, copy: WorkingCopy, elsewhere: Mapping[int, int | None]
) -> Iterator[Difference]:
    unit = copy.units.get(remote.code)
    if unit is None:
        yield Difference(EntityType.UNIT, remote.code, EXISTS, Rule.TAKE, None, None, remote.name)
        return

    local, values = unit.values(), {**remote_unit_values(remote), **place_here(remote, structure, copy, elsewhere)}
    if not is_as_said(local, values):
        yield from _differences(EntityType.UNIT, unit.code, base_of(unit, copy), local, values, copy.turned_down(unit), unit)
    if remote.version not in (None, unit.version):
        yield Difference(EntityType.UNIT, unit.code, VERSION, Rule.TAKE, unit.version, unit.version, remote.version)
    for name in PATHS:
        if name in unit.off_path:
            here, due = (tuple(value) if isinstance(value, list) else value for value in unit.off_path[name])
            yield Difference(EntityType.UNIT, unit.code, name, Rule.TAKE, None, here, due)


def _differences(
    entity_type: EntityType,
    code: int,
    base: Values | None,
    local: Values,
    remote: Values,
    kept: Mapping[str, Any],
    row: Unit | Organization,
) -> Iterator[Difference]:
    recorded = {} if row.base is None else row.base.values
    for name, rule in differing(base=base, local=local, remote=remote, kept=kept).items():
        before = None if base is None else base.get(name)
        yield Difference(entity_type, code, name, rule, before, local.get(name), remote[name], name not in recorded)


def _gone(structure: Structure, home: Organization, copy: WorkingCopy) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """An ended unit that is active here was opened again by a person; what was never synced may never have been there."""
    gone: list[Unit] = []
    kept: list[Unit] = []
    listed = structure.units.keys() | structure.invalid.keys()
    for unit in copy.units.values():
        if unit.organization_id == home.id and unit.is_active and unit.code not in listed:
            base = base_of(unit, copy)
            is_kept = (
                base is None
                or base.get(UnitField.IS_ACTIVE) is False
                or copy.turned_down(unit).get(UnitField.IS_ACTIVE) is False
            )  # fmt: skip
            (kept if is_kept else gone).append(unit)
    return _deepest_first(gone), _deepest_first(kept)


def _deepest_first(units: list[Unit]) -> tuple[int, ...]:
    return tuple(unit.code for unit in sorted(units, key=lambda unit: (-unit.level, unit.code)))


def _depth(code: int | None, units: Mapping[int, RemoteUnit]) -> int:
    seen: set[int] = set()
    while code is not None and code in units and code not in seen:
        seen.add(code)
        code = units[code].parent_code
    return len(seen)


def is_end(difference: Difference) -> bool:
    """Whether taking SIORG's value would end the row."""
    return difference.field in (UnitField.IS_ACTIVE, OrganizationField.IS_ACTIVE) and difference.remote is False
