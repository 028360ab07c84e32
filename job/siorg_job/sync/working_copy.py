"""The working copy: the part of the local structure that a group of items touches, read under lock in one transaction.

Its rows are frozen. Each stands as it was read beside what it is going to be: what ``write`` has to write, what history
says, and the way back from a refused item follow from comparing the two. Two items of one group that concern one unit see
each other's effects here, as they would in the database.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from siorg_job.sync.adopted import was_shown
from siorg_job.sync.local_rows import (
    FALLBACK_CATEGORY,
    Ancestor,
    Child,
    Domain,
    HeldField,
    HeldName,
    HistoryRow,
    Kept,
    Organization,
    Row,
    Unit,
)
from siorg_job.sync.model import Refused, Values, plain
from siorg_queue import EntityType, Item, Operation


@dataclass(slots=True)
class WorkingCopy:
    """The working copy of one transaction."""

    strict_hierarchy: bool = False
    max_depth: int = 10
    organizations: dict[int, Organization] = field(default_factory=dict)
    units: dict[int, Unit] = field(default_factory=dict)
    domains: dict[UUID, Domain] = field(default_factory=dict)
    history: list[HistoryRow] = field(default_factory=list)
    as_read: dict[UUID, Row] = field(default_factory=dict)
    """Every row as the database has it, by id."""
    ancestors: dict[UUID, Ancestor] = field(default_factory=dict)
    children: dict[UUID, list[Child]] = field(default_factory=dict)
    unreadable: dict[UUID | tuple[EntityType, int], str] = field(default_factory=dict)
    """Rows, by id, and entities about which people decided, of which a value cannot be read: which one, for people."""
    active_units: dict[UUID, frozenset[int]] = field(default_factory=dict)
    """Codes of the active units, of organizations that may end."""
    kept: dict[tuple[EntityType, int], list[Kept]] = field(default_factory=dict)
    """Oldest first."""
    held_fields: dict[tuple[EntityType, int], list[HeldField]] = field(default_factory=dict)
    ends_beyond: Mapping[int, str] = field(default_factory=dict)
    """Organizations whose ends are beyond a limit, and how many of how many they are."""
    names_beyond: Mapping[int, str] = field(default_factory=dict)
    """The same of names that are overwritten."""
    names_held: dict[int, HeldName] = field(default_factory=dict)
    """Names that were not overwritten for that, by unit code: a person is to be asked."""
    resettled: set[UUID] = field(default_factory=set)
    """Units that came to an organization or left one: what hangs below them here, and in SIORG, may have to be hung anew."""
    ask_again: set[int] = field(default_factory=set)
    """Codes of units in dispute for another reason than the end that their item was about, or that SIORG has elsewhere."""
    ended_along: set[int] = field(default_factory=set)
    """Codes of units that ended with their organization: no question about them is open any more."""
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
        self,
        item: Item,
        operation: Operation,
        before: Row | None,
        after: Row,
        fields: Iterable[str],
        version: str | None = None,
        *,
        review: bool = False,
    ) -> None:
        """Put a changed row, and note the change in history: nowhere else are history rows made.

        Args:
            item: the item by which it changed.
            operation: what happened to the row, which may be less or more than the item says.
            before: the row until now; None when it is new.
            after: the row from now on.
            fields: the fields that changed.
            version: SIORG's, of the answer that said so.
            review: a person has to look at it, whatever the operation is.
        """
        self.put(after)
        # An item may change more than its own row: an ancestor of its unit, a category that has the name it needs.
        code = item.siorg_code if after.code is None else after.code
        names = sorted(str(field) for field in fields)
        review = not was_shown(item, code, names) and (review or operation in (Operation.EXTINCTION, Operation.HIERARCHY_CHANGE))
        self.history.append(
            HistoryRow(
                entity_type=after.entity_type,
                siorg_code=code,
                local_id=after.id,
                change_type=operation,
                previous_data=None if before is None else plain(before.values()),
                new_data=None if operation is Operation.EXTINCTION else plain(after.values()),
                affected_fields=names,
                siorg_version=version,
                sync_queue_id=item.id,
                requires_review=review,
            )
        )

    def take(
        self,
        item: Item,
        row: Row,
        noted: Organization | Domain,
        values: Mapping[str, Any],
        version: str | None = None,
        *,
        review: bool = False,
    ) -> None:
        """Put ``noted``, the row with what SIORG manages alone, with the merged ``values``; without any it is no change."""
        if values:
            self.change(item, Operation.UPDATE, row, replace(noted, **values), values, version, review=review)
        else:
            self.put(noted)

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
                yield Child(other.id, other.code, other.name, None, is_named=other.siorg_parent_code == unit.code)

    def active_in(self, organization: Organization) -> set[int]:
        """Codes of the active units of an organization that may end."""
        listed = self.active_units.get(organization.id, ())
        now = {code: self.units[code] for code in listed if code in self.units}
        left = {code for code, unit in now.items() if unit.organization_id != organization.id or not unit.is_active}
        return {*listed} - left

    # -- what cannot be read ------------------------------------------------------------------------------------------

    def unreadable_of(self, row: Row, number: int | None = None) -> str | None:
        """What of the row, or of what people decided about it, cannot be read.

        ``number``: by which items name it, where that is not its code.
        """
        code = row.code if number is None else number
        return self.unreadable.get(row.id) or (None if code is None else self.unreadable.get((row.entity_type, code)))

    def check_readable(self, row: Row | None, number: int | None = None) -> None:
        """Whether the row, if there is one, can be worked with.

        Raises:
            Refused: it cannot; see ``unreadable_of``.
        """
        if row is not None and (reason := self.unreadable_of(row, number)):
            raise Refused(reason, "unreadable")

    # -- what a person kept -------------------------------------------------------------------------------------------

    def kept_of(self, entity_type: EntityType, code: int, synced_at: datetime | None) -> dict[str, Any]:
        """What SIORG said, by field, when a person last kept the local value; only decisions after the last sync count."""
        seen: dict[str, Any] = {}
        for kept in self.kept.get((entity_type, code), ()):
            if synced_at is None or kept.decided_at > synced_at:
                seen.update(kept.remote)
        return seen

    def turned_down(self, row: Row, number: int | None = None) -> dict[str, Any]:
        """What SIORG said, by field and as JSON, where a person decided for another value: as the row has it, and the queue.

        Args:
            row: the row.
            number: by which items name it, where that is not its code.
        """
        code = row.code if number is None else number
        kept = {} if code is None else self.kept_of(row.entity_type, code, row.synced_at)
        return {**plain({} if row.base is None else row.base.turned_down), **kept}

    # -- what is held -------------------------------------------------------------------------------------------------

    def asked_by_others(self, row: Unit, said: Values, item: Item) -> dict[str, UUID]:
        """Of the fields that SIORG says, those about which another item asks whether to take this very value."""
        now = plain(said)
        return {
            each.field: each.id
            for each in self.held_fields.get((row.entity_type, row.code), ())
            if each.id != item.id and each.field in now and now[each.field] == each.remote
        }

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

    def category_named(self, name: str) -> Domain | None:
        """The category that has this name here."""
        return next((category for category in self.domains_of(EntityType.CATEGORY) if category.name == name), None)

    def fallback_category(self) -> Domain:
        """The category of units for which SIORG names none, made when it is missing."""
        return self.category_named(FALLBACK_CATEGORY) or self._made(
            Domain(uuid4(), EntityType.CATEGORY, None, None, FALLBACK_CATEGORY)
        )

    def category_for(self, code: int, names: Iterable[str], siorg_name: str | None) -> Domain:
        """The category of that SIORG code; when it is missing, a person's of the same name is adopted, or one is made.

        Args:
            code: SIORG's.
            names: what it may be called here, the best first, without end; other rows keep theirs.
            siorg_name: what SIORG calls it, if that is known.
        """
        for category in self.domains_of(EntityType.CATEGORY):
            if category.code == code:
                return category
        for name in names:
            namesake = self.category_named(name)
            if namesake is None or namesake.is_adoptable:
                row = namesake or Domain(uuid4(), EntityType.CATEGORY, None, None, name)
                return self._made(replace(row, code=code, siorg_name=siorg_name, managed=True))
        raise AssertionError("names have no end")

    def _made(self, row: Domain) -> Domain:
        self.put(row)
        return row
