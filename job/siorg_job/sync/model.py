"""What the decision looks at and what it says; plain values, no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeAlias, TypeGuard

from siorg_job.siorg.model import DomainRow, RemoteUnit
from siorg_job.siorg.values import normalise

Value: TypeAlias = str | int | bool | tuple[str, ...] | None
"""A field's value; None: not said (remote, base) or empty (local)."""


class UnitField(StrEnum):
    """The fields of a unit that SIORG and people both write, by the names that conflicts and history use."""

    NAME = "name"
    ACRONYM = "acronym"
    ORGANIZATION = "organization"
    PARENT = "parent"
    UNIT_TYPE = "unit_type"
    CATEGORY = "category"
    ACTIVITY_AREA = "activity_area"
    PHONES = "contact_info.phones"
    EMAILS = "contact_info.emails"
    WEBSITES = "contact_info.websites"
    ADDRESS = "contact_info.address"
    IS_ACTIVE = "is_active"


PLACE = (UnitField.ORGANIZATION, UnitField.PARENT)
"""Where a unit hangs: two fields, one value."""


class OrganizationField(StrEnum):
    """The fields of an organization that SIORG serves too."""

    NAME = "name"
    ACRONYM = "acronym"
    ADDRESS = "address"
    STATE = "state"
    ZIP_CODE = "zip_code"
    PHONE = "phone"
    EMAIL = "email"
    WEBSITE = "website"
    IS_ACTIVE = "is_active"


class DomainField(StrEnum):
    """The fields of a category or type."""

    NAME = "name"
    IS_ACTIVE = "is_active"


Values: TypeAlias = Mapping[str, Value]
"""Field name to value."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Both sides moved apart: a person has to decide, nothing is written."""

    differences: Mapping[str, Mapping[str, Value]]
    """``{field: {base, local, remote}}``."""
    reason: str
    held: bool = False
    """Nobody changed it here: it is beyond a limit."""


class Refused(Exception):
    """It will not work however often it is tried."""

    def __init__(self, reason: str, kind: str, waits_for: Sequence[int] = ()) -> None:
        """``reason`` is for people; ``kind`` is what programs read (``error_details.kind``).

        ``waits_for``: units that have to come to their place first; then it is tried again.
        """
        super().__init__(reason)
        self.reason = reason
        self.kind = kind
        self.waits_for = tuple(waits_for)


@dataclass(frozen=True, slots=True)
class Fetched:
    """What SIORG said about one item, and when it was asked."""

    asked_at: datetime
    """Start of the fetch, by the database's clock: the newest one wins."""
    unit: RemoteUnit | None = None
    """None: SIORG confirmed that there is no such unit (any more)."""
    ancestors: tuple[RemoteUnit, ...] = ()
    """Parents that are not local yet, or have to move first; nearest first."""
    outside: frozenset[int] = frozenset()
    """Parents that belong to another organization than the unit below them."""
    missing: frozenset[int] = frozenset()
    """Parents that SIORG names and does not have."""
    rows: tuple[DomainRow, ...] = ()
    """SIORG's table of categories or types, where the item needs one that is not local yet or is about one."""
    gone: frozenset[int] = frozenset()
    """Of an organization that a person ends: its units that SIORG has nowhere. They end with it."""
    elsewhere: frozenset[int] = frozenset()
    """Of such an organization: its units that SIORG has in another one."""

    @property
    def units(self) -> tuple[RemoteUnit, ...]:
        """All units that SIORG described: the item's own, then those above it."""
        return self.ancestors if self.unit is None else (self.unit, *self.ancestors)

    def is_older_than(self, synced_at: datetime | None) -> TypeGuard[datetime]:
        """Whether a newer answer was applied already: this one must not overwrite it."""
        return synced_at is not None and synced_at > self.asked_at


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as JSON takes them (tuples become lists)."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def comparable(value: Value) -> Value:
    """A value as it is compared: text as it is after parsing, a list without order and repetition, None for what is empty.

    SIORG's values are normalised already; those here may be from the first worker, or from a person.
    """
    if isinstance(value, str):
        return normalise(value) or None
    if isinstance(value, tuple):
        return tuple(sorted({*map(normalise, value)} - {""})) or None
    return value
