"""Which requests a batch needs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from uuid import uuid4

from siorg_job.fetch.plan import plan
from siorg_job.siorg.model import DomainTable
from siorg_queue import EntityType, Item, Operation

EXTINCTION, MERGE, SPLIT = Operation.EXTINCTION, Operation.MERGE, Operation.SPLIT


def item(code: int, operation: Operation = Operation.UPDATE, entity: EntityType = EntityType.UNIT) -> Item:
    return Item(uuid4(), entity, code, operation, 5, {}, 1, 3, 1, datetime(2026, 1, 1, tzinfo=UTC))


def at_hand(*codes: int) -> Callable[[int, Item], bool]:
    """A structure that was fetched earlier serves these units."""
    return lambda _, item: item.siorg_code in codes


def test_which_requests_units_need() -> None:
    of_471: dict[int, int] = dict.fromkeys(range(900, 999), 471)
    apart = {code: code + 1000 for code in range(900, 999)}
    never, always, only_901 = at_hand(), at_hand(*range(900, 999)), at_hand(901)
    cases: list[tuple[str, list[Item], dict[int, int], Callable[[int, Item], bool], set[int], set[int]]] = [
        ("one alone is one small request", [item(900)], of_471, never, {900}, set()),
        ("three of one organization", [item(code) for code in (900, 901, 902)], of_471, never, {900, 901, 902}, set()),
        ("four of one organization are one structure", [item(code) for code in range(900, 904)], of_471, never, set(), {471}),
        ("four of four organizations", [item(code) for code in range(900, 904)], apart, never, set(range(900, 904)), set()),
        ("many about one unit are one small request", [item(900) for _ in range(9)], of_471, never, {900}, set()),
        ("what is fresh serves one alone too", [item(900)], of_471, always, set(), {471}),
        ("others ride along with what is at hand", [item(900), item(901)], of_471, only_901, set(), {471}),
        ("without a hint each by itself", [item(code) for code in range(900, 910)], {}, never, set(range(900, 910)), set()),
        ("an end, a merge, a split", [item(900 + n, one) for n, one in enumerate((EXTINCTION, MERGE, SPLIT) * 3)], of_471, always,
         set(range(900, 909)), set()),
        ("the organization itself is one of its own", [item(471, entity=EntityType.ORGANIZATION), *map(item, (900, 901, 902))],
         of_471, never, set(), {471}),
    ]  # fmt: skip
    failed = []
    for name, items, organization_of, is_fresh, units, structures in cases:
        wanted = plan(items, organization_of, is_fresh)
        served = sorted(item.id for group in (*wanted.units.values(), *wanted.structures.values()) for item in group)
        asked = (set(wanted.units), set(wanted.structures))
        if asked != (units, structures) or served != sorted(item.id for item in items):
            failed.append((name, wanted))
    assert not failed


def test_categories_and_types_are_one_table_each() -> None:
    items = [item(code, entity=EntityType.CATEGORY) for code in (1, 2)] + [item(1, entity=EntityType.TYPE)]
    assert plan(items, {}, at_hand()).tables == {DomainTable.UNIT_CATEGORY: items[:2], DomainTable.UNIT_TYPE: items[2:]}
