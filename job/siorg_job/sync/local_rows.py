"""The rows of the local structure as a working copy has them: frozen, in the words of the fields that are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, TypeAlias
from uuid import UUID

from siorg_job.siorg.model import RemoteUnit
from siorg_job.sync.merge_base import Base
from siorg_job.sync.model import DomainField, OrganizationField, UnitField, Values
from siorg_queue import EntityType, Operation

FALLBACK_CATEGORY = "Não informada"
"""Category of a unit whose answer names none (SIORG gives a category for few units only)."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One organizational unit."""

    entity_type: ClassVar = EntityType.UNIT

    id: UUID
    code: int
    organization_id: UUID
    organization_code: int
    category_id: UUID
    category_code: int | None
    unit_type_id: UUID
    type_slug: str
    name: str
    activity_area: str
    contact_info: Mapping[str, Any]
    own_category: bool = False
    """Whether the category is a person's, which SIORG does not know; the fallback is nobody's."""
    acronym: str | None = None
    parent_id: UUID | None = None
    parent_code: int | None = None
    """SIORG code of the local parent; None for no parent, or for one that SIORG does not know."""
    siorg_parent_code: int | None = None
    level: int = 1
    """As it was read: what hangs elsewhere by now is refreshed by ``write``."""
    off_path: Mapping[str, Any] = field(default_factory=dict)
    """As it was read: of level and path what does not follow from the parent, ``{column: [here, what follows]}``."""
    is_active: bool = True
    deactivation_reason: str | None = None
    """Of an end by this transaction; the earlier one is not read."""
    synced_at: datetime | None = None
    base: Base | None = None
    """What we last wrote, as it is recorded."""
    said: RemoteUnit | None = None
    """As it was read: what SIORG said last, where the row was ever synced."""
    base_raw: dict[str, Any] | None = None
    url: str | None = None
    version: str | None = None

    def values(self) -> Values:
        """The row in the words of ``UnitField``."""
        contact = self.contact_info
        return {
            UnitField.NAME: self.name,
            UnitField.ACRONYM: self.acronym,
            UnitField.ORGANIZATION: self.organization_code,
            UnitField.PARENT: self._parent_value(),
            UnitField.UNIT_TYPE: self.type_slug,
            UnitField.CATEGORY: f"local:{self.category_id}" if self.own_category else self.category_code,
            UnitField.ACTIVITY_AREA: self.activity_area,
            UnitField.PHONES: _texts(contact.get("phones")),
            UnitField.EMAILS: _texts(contact.get("emails")),
            UnitField.WEBSITES: _texts(contact.get("websites")),
            UnitField.ADDRESS: contact.get("address") if isinstance(contact.get("address"), str) else None,
            UnitField.IS_ACTIVE: self.is_active,
        }

    def _parent_value(self) -> str | int:
        if self.parent_id is None:
            return self.organization_code
        return self.parent_code if self.parent_code is not None else f"local:{self.parent_id}"

    @property
    def base_record(self) -> dict[str, Any] | None:
        return None if self.base is None else self.base.record(self.synced_at)


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(entry for entry in value if isinstance(entry, str)) if isinstance(value, list) else ()


@dataclass(frozen=True, slots=True)
class Organization:
    """One registered organization."""

    entity_type: ClassVar = EntityType.ORGANIZATION

    id: UUID
    code: int
    name: str
    acronym: str | None
    address: str | None
    state: str | None
    zip_code: str | None
    phone: str | None
    email: str | None
    website: str | None
    is_active: bool
    synced_at: datetime | None
    base: Base | None
    said: RemoteUnit | None
    base_raw: dict[str, Any] | None

    def values(self) -> Values:
        """The row in the words of ``OrganizationField``."""
        return {name: getattr(self, name) for name in OrganizationField}

    @property
    def base_record(self) -> dict[str, Any] | None:
        return None if self.base is None else self.base.record(self.synced_at)


@dataclass(frozen=True, slots=True)
class Domain:
    """One category or unit type."""

    id: UUID
    entity_type: EntityType
    code: int | None
    slug: str | None
    """Key of a type (``unidade-administrativa``); None for a category."""
    name: str
    is_active: bool = True
    siorg_name: str | None = None
    synced_at: datetime | None = None
    base: Base | None = None
    """What we last wrote, as it is recorded."""
    base_raw: dict[str, Any] | None = None
    managed: bool = False

    @property
    def is_adoptable(self) -> bool:
        """Whether SIORG's category of the same name is this one: a person's without a code. The fallback is nobody's."""
        return self.code is None and self.name != FALLBACK_CATEGORY

    def values(self) -> Values:
        """The row in the words of ``DomainField``."""
        return {DomainField.NAME: self.name, DomainField.IS_ACTIVE: self.is_active}

    @property
    def base_record(self) -> dict[str, Any] | None:
        return None if self.base is None else self.base.record(self.synced_at)


Row: TypeAlias = Unit | Organization | Domain
"""A row of the local structure, frozen."""


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
class Ancestor:
    """A unit above one that is touched: where it hangs."""

    id: UUID
    code: int | None
    parent_id: UUID | None
    organization_code: int


@dataclass(frozen=True, slots=True)
class Child:
    """An active unit directly below one that is to be deactivated."""

    id: UUID
    code: int | None
    name: str
    item_due_seconds: float | None
    """Seconds until its own item is due (0: now, or in work); None when it has none."""
    is_named: bool = False
    """As far as is known here, SIORG has it below that unit too."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A conflict in which a person kept the local values."""

    decided_at: datetime
    remote: Mapping[str, Any]
    """What SIORG said then, by field, as JSON."""


@dataclass(frozen=True, slots=True)
class HeldField:
    """One field that is held, or was and a person has decided: only the row that asks writes it."""

    id: UUID
    """Of the row that asks."""
    field: str
    remote: Any
    """What SIORG said, as JSON."""
    decided: bool


@dataclass(frozen=True, slots=True)
class HeldName:
    """A name that SIORG would overwrite."""

    sides: Mapping[str, Any]
    """What we last wrote, what is here, and SIORG's."""
    raw: str
    """SIORG's row, as JSON."""
    reason: str
