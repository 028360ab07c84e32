"""What to write of a unit so that it has certain values: its columns, its place, and what SIORG manages alone."""

from __future__ import annotations

from itertools import chain
from typing import Any

from siorg_job.siorg.model import RemoteUnit
from siorg_job.sync.category_names import names_here, possible_names
from siorg_job.sync.local_rows import Domain, Unit
from siorg_job.sync.merge_base import next_raw
from siorg_job.sync.model import Fetched, Refused, UnitField, Values
from siorg_job.sync.working_copy import WorkingCopy

AT_THE_TOP = {"parent_id": None, "parent_code": None}


def columns_of(unit: Unit, values: Values, fetched: Fetched, copy: WorkingCopy) -> dict[str, Any]:
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
                columns |= {"category_id": category_for(value, fetched, copy).id, "category_code": value, "own_category": False}
            case UnitField.IS_ACTIVE:
                columns |= {"is_active": value, "deactivation_reason": None}
            case UnitField.PHONES | UnitField.EMAILS | UnitField.WEBSITES | UnitField.ADDRESS:
                contact[field.removeprefix("contact_info.")] = list(value) if isinstance(value, tuple) else value
    return {**columns, "contact_info": contact}


def category_for(code: int | None, fetched: Fetched, copy: WorkingCopy) -> Domain:
    """The row of SIORG's category of that code; made, or adopted by its name, where it is missing. None: the fallback."""
    if code is None:
        return copy.fallback_category()
    said = next((row.name for row in fetched.rows if row.code == code), None)
    names = possible_names(said or f"Categoria SIORG {code}", code)
    if said is not None:
        # Others keep their names here: this answer is about a unit. An item about a category sets right what is left.
        names = chain([names_here(fetched, copy)[code]], names)
    return copy.category_for(code, names, said)


def notes_of(unit: Unit, remote: RemoteUnit, fetched: Fetched) -> dict[str, Any]:
    """What SIORG manages alone: what was said replaces, what was not said stays."""
    raw = next_raw(unit.base_raw, remote.raw)
    url = raw.get("codigoUnidade")
    return {
        "base_raw": raw,
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
            raise unknown_organization(f"organization {code}")
        organization_code = row.code
        above = None if unit.parent_id is None else copy.unit_by_id(unit.parent_id) or copy.ancestors.get(unit.parent_id)
        if above is not None and above.organization_code != row.code:
            found |= AT_THE_TOP  # unless it moves too, its parent stays in the organization that the unit leaves
        found |= {"organization_id": row.id, "organization_code": row.code}
    if UnitField.PARENT in values:
        parent = values[UnitField.PARENT]
        assert isinstance(parent, int)
        found |= AT_THE_TOP if parent == organization_code else _below(unit, parent, copy)
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
