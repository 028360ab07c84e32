"""The working copy: the part of the local structure that a group of items touches, read under lock in one transaction.

Its rows are frozen. Each stands as it was read beside what it is going to be: what ``write`` has to write, what history
says, and the way back from a refused item follow from comparing the two. Two items of one group that concern one unit see
each other's effects here, as they would in the database.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from siorg_job.sync.model import plain
from siorg_job.sync.rows import Domain, HistoryRow, Organization, Row, Unit
from siorg_queue import EntityType, Item, Operation

FALLBACK_CATEGORY = "Não informada"
"""Category of a unit whose answer names none (SIORG gives a category for few units only)."""


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


@dataclass(frozen=True, slots=True)
class Kept:
    """A conflict in which a person kept the local values."""

    decided_at: datetime
    remote: Mapping[str, Any]
    """What SIORG said then, by field, as JSON."""


class AsRead(NamedTuple):
    """The rows of a working copy as the database has them."""

    organizations: dict[int, Organization]
    units: dict[int, Unit]
    domains: dict[UUID, Domain]


@dataclass(slots=True)
class WorkingCopy:
    """The working copy of one transaction."""

    strict_hierarchy: bool = False
    max_depth: int = 10
    organizations: dict[int, Organization] = field(default_factory=dict)
    units: dict[int, Unit] = field(default_factory=dict)
    domains: dict[UUID, Domain] = field(default_factory=dict)
    history: list[HistoryRow] = field(default_factory=list)
    as_read: AsRead = field(default_factory=lambda: AsRead({}, {}, {}))
    ancestors: dict[UUID, Ancestor] = field(default_factory=dict)
    children: dict[UUID, list[Child]] = field(default_factory=dict)
    active_units: dict[UUID, int] = field(default_factory=dict)
    """Number of active units, of organizations that may end."""
    kept: dict[tuple[EntityType, int], list[Kept]] = field(default_factory=dict)
    """Oldest first."""
    _unit_codes: dict[UUID, int] = field(default_factory=dict)
    _replaced: list[tuple[dict[Any, Any], int | UUID, Row | None]] = field(default_factory=list)
    """Where ``put`` replaced what row, if any: the way back."""

    # -- rows, and the way back ---------------------------------------------------------------------------------------

    def put(self, row: Row) -> None:
        """Put a row, read, new or changed, into the copy."""
        if isinstance(row, Unit):
            self._unit_codes[row.id] = row.code
            self._replace(self.units, row.code, row)
        elif isinstance(row, Organization):
            self._replace(self.organizations, row.code, row)
        else:
            self._replace(self.domains, row.id, row)

    def _replace(self, rows: dict[Any, Any], key: int | UUID, row: Row) -> None:
        self._replaced.append((rows, key, rows.get(key)))
        rows[key] = row

    def change(
        self, item: Item, operation: Operation, before: Row | None, after: Row, fields: Iterable[str], version: str | None = None
    ) -> None:
        """Put a changed row, and note the change in history: nowhere else are history rows made.

        Args:
            item: the item by which it changed.
            operation: what happened to the row, which may be less or more than the item says.
            before: the row until now; None when it is new.
            after: the row from now on.
            fields: the fields that changed.
            version: SIORG's, of the answer that said so.
        """
        self.put(after)
        # An item may change an ancestor of its unit too; a category or type may have no code yet.
        code = after.code if isinstance(after, Unit) else item.siorg_code
        review = operation in (Operation.EXTINCTION, Operation.HIERARCHY_CHANGE) or (
            operation is Operation.UPDATE and item.operation is Operation.HIERARCHY_CHANGE and code == item.siorg_code
        )
        self.history.append(
            HistoryRow(
                entity_type=after.entity_type,
                siorg_code=code,
                local_id=after.id,
                change_type=operation,
                previous_data=None if before is None else plain(before.values()),
                new_data=None if operation is Operation.EXTINCTION else plain(after.values()),
                affected_fields=sorted(str(field) for field in fields),
                siorg_version=version,
                sync_queue_id=item.id,
                requires_review=review,
            )
        )

    def reading_is_done(self) -> None:
        """What is in the copy now is what the database has."""
        self.as_read = AsRead(dict(self.organizations), dict(self.units), dict(self.domains))

    def savepoint(self) -> tuple[int, int]:
        """Where ``roll_back`` may go back to."""
        return len(self._replaced), len(self.history)

    def roll_back(self, savepoint: tuple[int, int]) -> None:
        """Back to how things were: the item that came after the savepoint is refused."""
        replaced, history = savepoint
        while len(self._replaced) > replaced:
            rows, key, before = self._replaced.pop()
            if before is None:
                del rows[key]
            else:
                rows[key] = before
        del self.history[history:]

    # -- the tree, as it is going to be -------------------------------------------------------------------------------

    def unit_by_id(self, id_: UUID) -> Unit | None:
        """The unit with this id, if it is in the copy."""
        code = self._unit_codes.get(id_)
        return None if code is None else self.units.get(code)

    def locate(self, code: int) -> Unit | Ancestor | None:
        """The unit with this SIORG code, if it is local."""
        return self.units.get(code) or next((above for above in self.ancestors.values() if above.code == code), None)

    def chain(self, parent_id: UUID | None) -> list[UUID]:
        """Ids from ``parent_id`` up to the top; ends at a repetition."""
        seen: list[UUID] = []
        while parent_id is not None and parent_id not in seen:
            seen.append(parent_id)
            above = self.unit_by_id(parent_id) or self.ancestors.get(parent_id)
            parent_id = None if above is None else above.parent_id
        return seen

    def depth(self, parent_id: UUID | None) -> int:
        """Level of a unit that hangs below ``parent_id`` (1: directly under the organization)."""
        return len(self.chain(parent_id)) + 1

    def active_below(self, unit: Unit) -> Iterator[Child]:
        """The active units directly below, those that the database has first."""
        listed = self.children.get(unit.id, [])
        for child in listed:
            now = self.unit_by_id(child.id)
            if now is None or (now.is_active and now.parent_id == unit.id):
                yield child
        known = {child.id for child in listed}
        for other in self.units.values():
            if other.parent_id == unit.id and other.is_active and other.id not in known:
                yield Child(other.id, other.code, other.name, None)

    # -- what a person kept -------------------------------------------------------------------------------------------

    def kept_of(self, entity_type: EntityType, code: int, synced_at: datetime | None) -> dict[str, Any]:
        """What SIORG said, by field, when a person last kept the local value; only decisions after the last sync count."""
        seen: dict[str, Any] = {}
        for kept in self.kept.get((entity_type, code), ()):
            if synced_at is None or kept.decided_at > synced_at:
                seen.update(kept.remote)
        return seen

    # -- categories and types -----------------------------------------------------------------------------------------

    def domains_of(self, entity_type: EntityType) -> list[Domain]:
        """All categories, or all unit types."""
        return [domain for domain in self.domains.values() if domain.entity_type is entity_type]

    def type_for(self, slug: str, name: str | None = None) -> Domain:
        """The unit type of that slug, made when it is missing."""
        for domain in self.domains.values():
            if domain.slug == slug:
                return domain
        readable = name or slug.replace("-", " ").title()
        made = Domain(uuid4(), EntityType.TYPE, None, slug, readable[:100], siorg_name=readable[:255], managed=True)
        self.put(made)
        return made

    def category_for(self, code: int | None, name: str | None = None) -> Domain:
        """The category of that SIORG code (None: the fallback), adopted by name or made when it is missing."""
        categories = self.domains_of(EntityType.CATEGORY)
        wanted = FALLBACK_CATEGORY if code is None else (name or f"Categoria SIORG {code}")[:100]
        for category in categories:
            if category.code == code and (code is not None or category.name == FALLBACK_CATEGORY):
                return category
        namesakes = [category for category in categories if category.name == wanted]
        for category in namesakes:
            if category.code is None:
                adopted = replace(category, code=code, siorg_name=wanted, managed=True)
                self.put(adopted)
                return adopted
        if namesakes:
            wanted = f"{wanted[:80]} ({code})"  # names are unique; SIORG has duplicates
        siorg_name = name if code is not None else None
        made = Domain(uuid4(), EntityType.CATEGORY, code, None, wanted, siorg_name=siorg_name, managed=code is not None)
        self.put(made)
        return made
