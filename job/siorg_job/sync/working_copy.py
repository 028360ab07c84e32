"""The working copy: the part of the local structure that a group of items touches, read under lock in one transaction.

The decisions change the copy; ``write`` then brings the database to it. Two items of one group that concern one unit see
each other's effects here, as they would in the database.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from siorg_job.siorg.model import RemoteUnit
from siorg_job.sync.model import DomainField, OrganizationField, UnitField, Values
from siorg_queue import EntityType, Operation

FALLBACK_CATEGORY = "Não informada"
"""Category of a unit whose answer names none (SIORG gives a category for few units only)."""


@dataclass(slots=True)
class LocalUnit:
    """One organizational unit, as it is and as it is going to be."""

    id: UUID
    code: int
    organization_id: UUID
    organization_code: int
    parent_id: UUID | None
    parent_code: int | None
    """SIORG code of the local parent; None for no parent, or for one that SIORG does not know."""
    siorg_parent_code: int | None
    siorg_parent_is_local: bool
    category_id: UUID
    category_code: int | None
    unit_type_id: UUID
    type_slug: str
    name: str
    acronym: str | None
    activity_area: str
    contact_info: dict[str, Any]
    level: int
    is_active: bool
    synced_at: datetime | None
    base: RemoteUnit | None
    base_raw: dict[str, Any] | None
    url: str | None
    version: str | None
    deactivation_reason: str | None = None
    new: bool = False
    changed: bool = False
    """A field that people see differs from the database's row."""
    relocated: bool = False
    """Parent, name or organization changed: paths below have to follow."""
    touched: bool = False
    """Only what we note about the sync itself differs."""

    def values(self) -> Values:
        """The row in the words of ``UnitField``."""
        contact = self.contact_info
        return {
            UnitField.NAME: self.name,
            UnitField.ACRONYM: self.acronym,
            UnitField.ORGANIZATION: self.organization_code,
            UnitField.PARENT: self._parent_value(),
            UnitField.UNIT_TYPE: self.type_slug,
            UnitField.CATEGORY: self.category_code,
            UnitField.ACTIVITY_AREA: self.activity_area,
            UnitField.PHONES: _texts(contact.get("phones")),
            UnitField.EMAILS: _texts(contact.get("emails")),
            UnitField.WEBSITES: _texts(contact.get("websites")),
            UnitField.ADDRESS: contact.get("address") if isinstance(contact.get("address"), str) else None,
            UnitField.IS_ACTIVE: self.is_active,
        }

    def _parent_value(self) -> str | int | None:
        if self.parent_id is not None:
            return self.parent_code if self.parent_code is not None else f"local:{self.parent_id}"
        # No parent: directly under the organization, unless SIORG's parent is one that we do not keep.
        if self.siorg_parent_code is None or self.siorg_parent_is_local:
            return self.organization_code
        return self.siorg_parent_code


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(entry for entry in value if isinstance(entry, str)) if isinstance(value, list) else ()


@dataclass(slots=True)
class LocalOrganization:
    """One registered organization."""

    id: UUID
    code: int
    fields: dict[str, Any]
    synced_at: datetime | None = None
    base: RemoteUnit | None = None
    base_raw: dict[str, Any] | None = None
    active_units: int = 0
    changed: bool = False
    renamed: bool = False
    touched: bool = False

    def values(self) -> Values:
        """The row in the words of ``OrganizationField``."""
        return {name: self.fields[name] for name in OrganizationField}


@dataclass(slots=True)
class LocalDomain:
    """One category or unit type."""

    id: UUID
    entity_type: EntityType
    code: int | None
    slug: str | None
    """Key of a type (``unidade-administrativa``); None for a category."""
    name: str
    is_active: bool
    siorg_name: str | None = None
    synced_at: datetime | None = None
    base_raw: dict[str, Any] | None = None
    managed: bool = False
    new: bool = False
    changed: bool = False
    touched: bool = False

    def values(self) -> Values:
        """The row in the words of ``DomainField``."""
        return {DomainField.NAME: self.name, DomainField.IS_ACTIVE: self.is_active}


@dataclass(frozen=True, slots=True)
class Ancestor:
    """A unit above one that is touched: where it hangs, and how deep."""

    id: UUID
    code: int | None
    parent_id: UUID | None
    level: int
    organization_code: int


@dataclass(frozen=True, slots=True)
class Child:
    """An active unit directly below one that is to be deactivated."""

    id: UUID
    code: int | None
    name: str
    item_due_seconds: float | None
    """Seconds until its own item is due (0: now, or in work); None when it has none."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A conflict in which a person kept the local values."""

    decided_at: datetime
    remote: Mapping[str, Any]
    """What SIORG said then, by field, as JSON."""


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One real change, as ``siorg_history`` keeps it."""

    entity_type: EntityType
    siorg_code: int
    local_id: UUID
    change_type: Operation
    previous_data: dict[str, Any] | None
    new_data: dict[str, Any] | None
    affected_fields: list[str]
    siorg_version: str | None
    sync_queue_id: UUID
    requires_review: bool


@dataclass(frozen=True, slots=True)
class Saved:
    """What one item may change, as it was before: see ``Local.save``."""

    units: dict[int, LocalUnit | None]
    """None: not there."""
    history: int
    categories: int
    types: frozenset[str]


@dataclass(slots=True)
class Local:
    """The working copy of one transaction."""

    strict_hierarchy: bool = False
    max_depth: int = 10
    organizations: dict[int, LocalOrganization] = field(default_factory=dict)
    units: dict[int, LocalUnit] = field(default_factory=dict)
    ancestors: dict[UUID, Ancestor] = field(default_factory=dict)
    children: dict[UUID, list[Child]] = field(default_factory=dict)
    types: dict[str, LocalDomain] = field(default_factory=dict)
    categories: list[LocalDomain] = field(default_factory=list)
    history: list[HistoryRow] = field(default_factory=list)
    units_by_id: dict[UUID, LocalUnit] = field(default_factory=dict)
    kept: dict[tuple[EntityType, int], list[Kept]] = field(default_factory=dict)
    """Oldest first."""

    def add(self, unit: LocalUnit) -> None:
        """Put a unit, read or new, into the copy."""
        self.units[unit.code] = unit
        self.units_by_id[unit.id] = unit

    def locate(self, code: int) -> tuple[UUID, int] | None:
        """Id and organization code of the unit with this SIORG code, if it is local."""
        if unit := self.units.get(code):
            return unit.id, unit.organization_code
        return next(((a.id, a.organization_code) for a in self.ancestors.values() if a.code == code), None)

    def chain(self, parent_id: UUID | None) -> list[UUID]:
        """Ids from ``parent_id`` up to the top, as things are going to be; ends at a repetition."""
        seen: list[UUID] = []
        while parent_id is not None and parent_id not in seen:
            seen.append(parent_id)
            if unit := self.units_by_id.get(parent_id):
                parent_id = unit.parent_id
            elif ancestor := self.ancestors.get(parent_id):
                parent_id = ancestor.parent_id
            else:
                break
        return seen

    def organization_of(self, id_: UUID | None) -> int | None:
        """Code of the organization that the unit with this id belongs to; None for None."""
        if id_ is None:
            return None
        unit = self.units_by_id.get(id_) or self.ancestors.get(id_)
        return None if unit is None else unit.organization_code

    def save(self, codes: Iterable[int]) -> Saved:
        """How things are before an item that concerns the units of these codes."""
        return Saved(
            {code: copy(self.units[code]) if code in self.units else None for code in codes},
            len(self.history),
            len(self.categories),
            frozenset(self.types),
        )

    def restore(self, saved: Saved) -> None:
        """Back to how things were: the item is refused."""
        for code, unit in saved.units.items():
            if gone := self.units.pop(code, None):
                del self.units_by_id[gone.id]
            if unit is not None:
                self.add(unit)
        del self.history[saved.history :]
        del self.categories[saved.categories :]
        for slug in self.types.keys() - saved.types:
            del self.types[slug]

    def kept_of(self, entity_type: EntityType, code: int, synced_at: datetime | None) -> dict[str, Any]:
        """What SIORG said, by field, when a person last kept the local value; only decisions after the last sync count."""
        seen: dict[str, Any] = {}
        for kept in self.kept.get((entity_type, code), ()):
            if synced_at is None or kept.decided_at > synced_at:
                seen.update(kept.remote)
        return seen

    def depth(self, parent_id: UUID | None) -> int:
        """Level of a unit that hangs below ``parent_id`` (1: directly under the organization)."""
        return len(self.chain(parent_id)) + 1

    def type_for(self, slug: str, name: str | None = None) -> LocalDomain:
        """The unit type of that slug, made when it is missing."""
        if slug not in self.types:
            readable = name or slug.replace("-", " ").title()
            self.types[slug] = LocalDomain(
                uuid4(),
                EntityType.TYPE,
                None,
                slug,
                readable[:100],
                is_active=True,
                siorg_name=readable[:255],
                managed=True,
                new=True,
            )
        return self.types[slug]

    def category_for(self, code: int | None, name: str | None = None) -> LocalDomain:
        """The category of that SIORG code (None: the fallback), adopted by name or made when it is missing."""
        for category in self.categories:
            if category.code == code and (code is not None or category.name == FALLBACK_CATEGORY):
                return category
        wanted = FALLBACK_CATEGORY if code is None else (name or f"Categoria SIORG {code}")[:100]
        for category in self.categories:
            if category.name == wanted and category.code is None:
                category.code, category.changed, category.managed = code, True, True
                category.siorg_name = wanted
                return category
        if any(category.name == wanted for category in self.categories):
            wanted = f"{wanted[:80]} ({code})"  # names are unique; SIORG has duplicates
        made = LocalDomain(
            uuid4(),
            EntityType.CATEGORY,
            code,
            None,
            wanted,
            is_active=True,
            siorg_name=name if code is not None else None,
            managed=code is not None,
            new=True,
        )
        self.categories.append(made)
        return made
