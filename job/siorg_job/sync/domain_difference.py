"""In what the tables of categories and types differ from SIORG's, row by row and field by field. Pure.

A difference and its rule are those of ``compare``. A row of SIORG's that does not fit here is one like any other: its item is
refused, and says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from siorg_job.siorg.model import DomainRow
from siorg_job.sync.category_names import names_here
from siorg_job.sync.compare import Difference
from siorg_job.sync.domain_rows import base_of, pairs, remote_values
from siorg_job.sync.local_rows import Domain
from siorg_job.sync.merge import Rule, differing
from siorg_job.sync.model import DomainField, Fetched, Values
from siorg_job.sync.working_copy import WorkingCopy
from siorg_queue import EntityType, Operation


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
        return {str(each.field): each.sides for each in self.differences if each.rule is Rule.APART}

    def needs_item(self, open_conflict: Mapping[str, Any] | None) -> bool:
        """Whether an item would change something: the row, what is noted of it, or what a person is asked about it.

        Args:
            open_conflict: the ``detected_changes`` of the conflict that waits for a person, if one does.
        """
        if open_conflict is not None and self.remote is not None:
            return not self.conflict or self.conflict != open_conflict  # it is over, or another one
        return not self.is_noted or any(each.rule is not Rule.EDITED for each in self.differences)

    @property
    def operation(self) -> Operation:
        """What an item of this row does."""
        if self.local_id is None:
            return Operation.CREATION
        taken = {each.field: each.remote for each in self.differences if each.rule is Rule.TAKE}
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
    said: Values = {DomainField.NAME: name, DomainField.IS_ACTIVE: True}
    differences = (Difference(entity_type, number, field, Rule.TAKE, None, None, said[field]) for field in DomainField)
    return ComparedRow(entity_type, number, None, remote, tuple(differences))


def _both(local: Domain, remote: DomainRow, name: str, number: int, copy: WorkingCopy) -> ComparedRow:
    turned_down = copy.turned_down(local, number)
    differences = _differences(local, remote_values(local, remote, name, turned_down), number, turned_down)
    is_noted = local.managed and local.synced_at is not None and local.siorg_name == remote.name
    is_noted = is_noted or any(each.rule is not Rule.EDITED for each in differences)  # its item notes it, or cannot
    return ComparedRow(local.entity_type, number, local.id, remote, differences, is_noted)


def _gone(local: Domain, number: int, copy: WorkingCopy) -> ComparedRow:
    differences = _differences(local, {DomainField.IS_ACTIVE: False}, number, copy.turned_down(local, number))
    if local.base_raw is None and local.synced_at is None and local.siorg_name is None:  # a code that SIORG never had
        differences = tuple(replace(each, rule=Rule.EDITED) for each in differences)
    return ComparedRow(local.entity_type, number, local.id, None, differences)


def _differences(local: Domain, said: Values, number: int, turned_down: Mapping[str, Any]) -> tuple[Difference, ...]:
    base, here = base_of(local), local.values()
    recorded = {} if local.base is None else local.base.values
    return tuple(
        Difference(
            entity_type=local.entity_type,
            code=number,
            field=field,
            rule=rule,
            base=None if base is None else base.get(field),
            local=here[field],
            remote=said[field],
            adopted=field not in recorded,
        )
        for field, rule in differing(base=base, local=here, remote=said, kept=turned_down).items()
    )
