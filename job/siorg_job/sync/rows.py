"""Rows of the local structure, frozen: what the sync reads and writes of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, TypeAlias
from uuid import UUID

from siorg_job.siorg.model import RemoteUnit
from siorg_job.sync.model import DomainField, OrganizationField, UnitField, Values
from siorg_queue import EntityType, Operation


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
    acronym: str | None = None
    parent_id: UUID | None = None
    parent_code: int | None = None
    """SIORG code of the local parent; None for no parent, or for one that SIORG does not know."""
    siorg_parent_code: int | None = None
    siorg_parent_is_local: bool = False
    level: int = 1
    """As it was read: what hangs elsewhere by now is refreshed by ``write``."""
    is_active: bool = True
    deactivation_reason: str | None = None
    """Of an end by this transaction; the earlier one is not read."""
    synced_at: datetime | None = None
    base: RemoteUnit | None = None
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
    base: RemoteUnit | None
    base_raw: dict[str, Any] | None

    def values(self) -> Values:
        """The row in the words of ``OrganizationField``."""
        return {name: getattr(self, name) for name in OrganizationField}


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
    base_raw: dict[str, Any] | None = None
    managed: bool = False

    def values(self) -> Values:
        """The row in the words of ``DomainField``."""
        return {DomainField.NAME: self.name, DomainField.IS_ACTIVE: self.is_active}


Row: TypeAlias = Unit | Organization | Domain


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
