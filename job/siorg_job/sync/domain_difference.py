"""In what the tables of categories and types differ from SIORG's, row by row and field by field. Pure.

The fields are judged as the applying merge judges them: what is ``TAKE`` here is written by an item, and nothing else is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from siorg_job.siorg.model import DomainRow
from siorg_job.sync.category_names import names_here
from siorg_job.sync.domain_rows import LONGEST_NAME, base_of, pairs, remote_values
from siorg_job.sync.merge import merge
from siorg_job.sync.model import Conflict, DomainField, Fetched, Value, Values, plain
from siorg_job.sync.working_copy import Domain, WorkingCopy
from siorg_queue import EntityType, Operation


class FieldVerdict(StrEnum):
    """What the merge makes of a field in which a row here and SIORG's differ."""

    TAKE = "take"
    """SIORG's value is written."""
    EDITED = "edited"
    """A person's value that SIORG did not contest, or a code typed here that SIORG's table never had: it stays."""
    CONFLICT = "conflict"
    """Changed here and in SIORG: a person decides."""
    UNUSABLE = "unusable"
    """SIORG's row does not fit here: its item is refused."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One field of one row in which the two sides differ."""

    entity_type: EntityType
    code: int
    """By which items and history name the row; of a type without a number one made of SIORG's letters."""
    local_id: UUID | None
    """None: it is not here."""
    field: DomainField
    base: Value
    """What we last wrote; None also of a row that was never synced."""
    local: Value
    remote: Value
    """SIORG's value as it would be here; ``is_active`` is False of a row that SIORG's table lacks."""
    verdict: FieldVerdict

    @property
    def sides(self) -> dict[str, Any]:
        """As a conflict keeps it."""
        return plain({"base": self.base, "local": self.local, "remote": self.remote})


@dataclass(frozen=True, slots=True)
class ComparedRow:
    """One row of a table, here or in SIORG or both."""

    entity_type: EntityType
    code: int
    local_id: UUID | None
    remote: DomainRow | None
    differences: tuple[Difference, ...] = ()
    is_noted: bool = True
    """Whether what the sync notes for itself is what SIORG says: not so of a row that a unit brought, or a person."""

    @property
    def conflict(self) -> dict[str, Any]:
        """What is in conflict, as ``detected_changes`` has it."""
        return {each.field.value: each.sides for each in self.differences if each.verdict is FieldVerdict.CONFLICT}

    def needs_item(self, open_conflict: Mapping[str, Any] | None) -> bool:
        """Whether an item would change something: the row, what is noted of it, or what a person is asked about it.

        Args:
            open_conflict: the ``detected_changes`` of the conflict that waits for a person, if one does.
        """
        if open_conflict is not None and self.remote is not None:
            return not self.conflict or self.conflict != open_conflict  # it is over, or another one
        return not self.is_noted or any(each.verdict is not FieldVerdict.EDITED for each in self.differences)

    @property
    def operation(self) -> Operation:
        """What an item of this row does."""
        if self.local_id is None:
            return Operation.CREATION
        taken = {each.field: each.remote for each in self.differences if each.verdict is FieldVerdict.TAKE}
        ends = taken.get(DomainField.IS_ACTIVE) is False and not self.conflict
        return Operation.EXTINCTION if ends else Operation.UPDATE


def compare(entity_type: EntityType, fetched: Fetched, copy: WorkingCopy) -> list[ComparedRow]:
    """Every row that SIORG's table has or had, here and there; a table without rows says nothing about any.

    Args:
        entity_type: CATEGORY or TYPE.
        fetched: SIORG's table.
        copy: the rows here, and what people decided about them.
    """
    if not fetched.rows:
        return []
    names = names_here(fetched, copy) if entity_type is EntityType.CATEGORY else {}
    compared: list[ComparedRow] = []
    for pair in pairs(entity_type, copy.domains_of(entity_type), fetched.rows):
        local, remote = pair.local, pair.remote
        if pair.number is None:
            continue
        if remote is not None:
            name = names.get(pair.number, remote.name)
            if local is not None:
                compared.append(_both(local, remote, name, pair.number, copy))
            elif remote.active:
                compared.append(_new(entity_type, remote, name, pair.number))
        elif local is not None:
            compared.append(_gone(local, pair.number, copy))
    return compared


def _new(entity_type: EntityType, remote: DomainRow, name: str, number: int) -> ComparedRow:
    verdict = FieldVerdict.TAKE if len(remote.name) <= LONGEST_NAME else FieldVerdict.UNUSABLE
    said: Values = {DomainField.NAME: name, DomainField.IS_ACTIVE: True}
    differences = (Difference(entity_type, number, None, field, None, None, said[field], verdict) for field in DomainField)
    return ComparedRow(entity_type, number, None, remote, tuple(differences))


def _both(local: Domain, remote: DomainRow, name: str, number: int, copy: WorkingCopy) -> ComparedRow:
    turned_down = copy.turned_down(local, number)
    said = remote_values(local, remote, name, turned_down)
    fits = len(remote.name) <= LONGEST_NAME
    differences = _differences(local, said, number, turned_down, None if fits else FieldVerdict.UNUSABLE)
    is_noted = local.managed and local.synced_at is not None and local.siorg_name == remote.name
    is_noted = is_noted or any(each.verdict is not FieldVerdict.EDITED for each in differences)  # its item notes it, or cannot
    return ComparedRow(local.entity_type, number, local.id, remote, differences, is_noted)


def _gone(local: Domain, number: int, copy: WorkingCopy) -> ComparedRow:
    was_there = local.base_raw is not None or local.synced_at is not None or local.siorg_name is not None
    said: Values = {DomainField.IS_ACTIVE: False}
    verdict = None if was_there else FieldVerdict.EDITED
    differences = _differences(local, said, number, copy.turned_down(local, number), verdict)
    return ComparedRow(local.entity_type, number, local.id, None, differences)


def _differences(
    local: Domain, said: Values, number: int, turned_down: Mapping[str, Any], verdict: FieldVerdict | None
) -> tuple[Difference, ...]:
    """The fields that differ, all of one ``verdict`` or each with that of the merge."""
    base, here = base_of(local), local.values()
    return tuple(
        Difference(
            entity_type=local.entity_type,
            code=number,
            local_id=local.id,
            field=field,
            base=None if base is None else base.get(field),
            local=here[field],
            remote=said[field],
            verdict=verdict or _verdict(field, base, here, said, turned_down),
        )
        for field in DomainField
        if field in said and said[field] != here[field]
    )


def _verdict(field: DomainField, base: Values | None, here: Values, said: Values, turned_down: Mapping[str, Any]) -> FieldVerdict:
    decision = merge(base=base, local=here, remote={field: said[field]}, kept=turned_down)
    if isinstance(decision, Conflict):
        return FieldVerdict.CONFLICT
    return FieldVerdict.TAKE if field in decision else FieldVerdict.EDITED
