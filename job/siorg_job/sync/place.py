"""The place of a unit: its organization and its parent, which move together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from siorg_job.siorg.model import RemoteUnit
from siorg_job.sync.model import Refused, UnitField, Values
from siorg_job.sync.resolution import Resolution
from siorg_job.sync.rows import Unit
from siorg_job.sync.working_copy import WorkingCopy

FIELDS = frozenset({UnitField.PARENT, UnitField.ORGANIZATION})


_AT_THE_TOP = {"parent_id": None, "parent_code": None, "siorg_parent_is_local": False}


def columns(unit: Unit, values: Values, copy: WorkingCopy) -> dict[str, Any]:
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
            raise unknown_organization(f"organization {code}")
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


def unknown_organization(subject: str) -> Refused:
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


def is_outside(remote: RemoteUnit, organization_code: int, copy: WorkingCopy) -> bool:
    """Whether SIORG's parent of the unit is not in this organization here."""
    if remote.parent_code is None or remote.parent_code == organization_code:
        return False
    parent = copy.locate(remote.parent_code)
    return parent is None or parent.organization_code != organization_code


def with_parent(resolution: Resolution | None, unit: Unit, siorgs_organization: int) -> Resolution | None:
    """A person's merge in our words, in which no parent is the organization."""
    if resolution is None or resolution.merged.get(UnitField.PARENT, siorgs_organization) is not None:
        return resolution
    kept = unit.organization_code if UnitField.ORGANIZATION in resolution.keep else siorgs_organization
    parent = resolution.merged.get(UnitField.ORGANIZATION, kept)
    return replace(resolution, merged={**resolution.merged, UnitField.PARENT: parent})


def see_siorgs_parent(unit: Unit, resolution: Resolution | None, copy: WorkingCopy) -> Unit:
    """Where SIORG's parent is here, a unit without parent is where a person hung it: directly under the organization."""
    if resolution is None or UnitField.PARENT not in resolution.merged or unit.siorg_parent_code is None:
        return unit
    parent = copy.locate(unit.siorg_parent_code)
    is_local = parent is not None and parent.organization_code == unit.organization_code
    return replace(unit, siorg_parent_is_local=is_local)
