"""Which requests a batch of items needs. Pure.

One entity alone is one small request; many of one organization are one request for its whole structure. What an earlier
answer of the same run still serves is not asked for again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from siorg_job.siorg.model import DomainTable
from siorg_queue import EntityType, Item, Operation

_STRUCTURE_FROM = 4  # items of one organization: from here on its whole structure is the cheaper request
_MUST_ASK_ALONE = frozenset({Operation.EXTINCTION, Operation.MERGE, Operation.SPLIT})
_TABLES = {EntityType.CATEGORY: DomainTable.UNIT_CATEGORY, EntityType.TYPE: DomainTable.UNIT_TYPE}


@dataclass(slots=True)
class FetchPlan:
    """The requests of one batch and the items that each serves."""

    structures: dict[int, list[Item]] = field(default_factory=dict)
    """By organization code."""
    units: dict[int, list[Item]] = field(default_factory=dict)
    """By unit code: two items about one unit need one request."""
    tables: dict[DomainTable, list[Item]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.structures) + len(self.units) + len(self.tables)


def plan(items: Sequence[Item], organization_of: Mapping[int, int], is_fresh: Callable[[int, Item], bool]) -> FetchPlan:
    """Plan the requests for ``items``.

    Args:
        items: a claimed batch.
        organization_of: organization code by unit code, as far as it is known; a hint that need not be right.
        is_fresh: whether a structure fetched earlier in this run serves this item: ``is_fresh(organization, item)``.

    An end, a merge or a split is asked for one by one: that a unit is missing in a list proves nothing.
    """
    result = FetchPlan()
    by_organization: dict[int, list[Item]] = {}
    for item in items:
        if item.entity_type in _TABLES:
            result.tables.setdefault(_TABLES[item.entity_type], []).append(item)
            continue
        organization = item.siorg_code if item.entity_type is EntityType.ORGANIZATION else organization_of.get(item.siorg_code)
        if organization is None or item.operation in _MUST_ASK_ALONE:
            result.units.setdefault(item.siorg_code, []).append(item)
        elif is_fresh(organization, item):
            result.structures.setdefault(organization, []).append(item)
        else:
            by_organization.setdefault(organization, []).append(item)
    for organization, group in by_organization.items():
        distinct = {item.siorg_code for item in group}
        if len(distinct) >= _STRUCTURE_FROM or organization in result.structures:
            result.structures.setdefault(organization, []).extend(group)
        else:
            for item in group:
                result.units.setdefault(item.siorg_code, []).append(item)
    return result
