"""Where SIORG has a unit, in the words of the rows here, and what we last wrote of one. Pure."""

from __future__ import annotations

from collections.abc import Callable

from siorg_job.siorg.model import RemoteUnit
from siorg_job.sync.local_rows import Unit
from siorg_job.sync.merge import Rule, differing, remote_unit_values
from siorg_job.sync.model import UnitField, Value, Values
from siorg_job.sync.working_copy import WorkingCopy

AREA_UNLESS_SAID = "SUPPORT"


def place_of(
    remote: RemoteUnit, unit: Unit | None, organization: int, organization_of: Callable[[int], int | None]
) -> dict[str, Value]:
    """The place of a unit in its organization: a parent of another organization cannot be one here.

    Args:
        remote: what SIORG says.
        unit: the row here, which keeps its parent where SIORG names none.
        organization: the one that the unit belongs to.
        organization_of: of a parent; None where it is not here, nor going to be.
    """
    parent = remote.parent_code
    if parent is None and unit is not None and unit.organization_code == organization:
        return {UnitField.ORGANIZATION: organization, UnitField.PARENT: unit.values()[UnitField.PARENT]}
    below = parent is not None and parent != organization and organization_of(parent) == organization
    return {UnitField.ORGANIZATION: organization, UnitField.PARENT: parent if below else organization}


def base_of(unit: Unit, copy: WorkingCopy) -> Values | None:
    """What we last wrote, where it is recorded; else what SIORG said last stands in. None: it was never synced.

    What is written here where SIORG says nothing is no edit of a person.
    """
    recorded = {} if unit.base is None else unit.base.values
    if unit.said is None:
        return recorded or None
    organization_code = unit.said.organization_code or unit.organization_code

    def organization_of(parent: int) -> int | None:
        above = copy.locate(parent)
        return None if above is None else above.organization_code

    stand_in: dict[str, Value] = {
        **remote_unit_values(unit.said),
        **place_of(unit.said, None, organization_code, organization_of),
        UnitField.UNIT_TYPE: unit.said.type_slug or unit.type_slug,
        UnitField.ACTIVITY_AREA: unit.said.activity_area or AREA_UNLESS_SAID,
    }
    return {**stand_in, **recorded}


def is_brought_here(unit: Unit, home: int, copy: WorkingCopy) -> bool:
    """Whether a person brought the unit here from organization ``home``, where SIORG has it still: that is an edit.

    Whatever else SIORG says about the unit, the comparison of that organization finds.
    """
    said: Values = {UnitField.ORGANIZATION: home}
    found = differing(base=base_of(unit, copy), local=unit.values(), remote=said, kept=copy.turned_down(unit))
    return found.get(UnitField.ORGANIZATION) is Rule.EDITED
