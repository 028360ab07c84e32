"""Reforms as they really happen (kinds K1 to K25 of the catalogue): whatever the order, the rows are SIORG's, and so is history.

The expectation is made of SIORG's rows alone, by the rules as they are written down.
"""

from __future__ import annotations

from itertools import permutations
from typing import Any, NamedTuple

import pytest

from support.local_structure import ANOTHER, UFMT, World, siorg_row

A, B, C = UFMT, ANOTHER, 600
X = 423
"""An organization of SIORG's that is not registered here."""
REGISTERED = (A, B, C)


class Place(NamedTuple):
    """One unit in SIORG."""

    parent: int
    organization: int
    name: str = ""


Reform = tuple[dict[int, Place], dict[int, Place]]

KINDS: dict[str, Reform] = {
    "K1 created, deep": ({}, {10: Place(A, A), 11: Place(10, A), 12: Place(11, A)}),
    "K2 ended, its child lives on": ({10: Place(A, A), 11: Place(10, A)}, {11: Place(A, A)}),
    "K2 a subtree ended": ({10: Place(A, A), 11: Place(10, A), 12: Place(11, A)}, {}),
    "K3 renamed": ({10: Place(A, A), 11: Place(10, A)}, {10: Place(A, A, "Novo"), 11: Place(10, A)}),
    "K5 below another": ({10: Place(A, A), 11: Place(A, A)}, {10: Place(11, A), 11: Place(A, A)}),
    "K5 an inserted level": ({10: Place(A, A)}, {10: Place(11, A), 11: Place(A, A)}),
    "K5 to the root, renamed": ({10: Place(A, A), 11: Place(10, A)}, {10: Place(A, A), 11: Place(A, A, "Novo")}),
    "K6 inversion": ({10: Place(A, A), 11: Place(10, A)}, {10: Place(11, A), 11: Place(A, A)}),
    "K6 inversion below a third": (
        {10: Place(A, A), 11: Place(10, A), 12: Place(A, A)},
        {10: Place(11, A, "Novo"), 11: Place(12, A), 12: Place(A, A)},
    ),
    "K7 a subtree to another organization": (
        {10: Place(A, A), 11: Place(10, A), 12: Place(11, A)},
        {10: Place(B, B), 11: Place(10, B), 12: Place(11, B)},
    ),
    "K7 to another one, renamed, below a unit that is new there": (
        {10: Place(A, A), 11: Place(10, A)},
        {10: Place(13, B, "Novo"), 11: Place(10, B), 13: Place(B, B)},
    ),
    "K7 to one that is not registered": ({10: Place(A, A), 11: Place(10, A)}, {10: Place(X, X), 11: Place(10, X)}),
    "K8 the organization changes, the parent does not": (
        {10: Place(A, A), 11: Place(10, A)},
        {10: Place(A, B), 11: Place(10, B)},
    ),
    "K9 in A below what left for B": (
        {10: Place(A, A), 11: Place(10, A)},
        {10: Place(A, A), 11: Place(10, B), 12: Place(11, A)},
    ),
    "K9 left behind, itself unchanged": ({10: Place(A, A), 11: Place(10, A)}, {10: Place(B, B), 11: Place(10, A)}),
    "K9 left behind by one that is not here any more": (
        {10: Place(A, A), 11: Place(10, A)},
        {10: Place(X, X), 11: Place(10, A)},
    ),
    "K10 demoted into B": (
        {10: Place(C, C), 11: Place(10, C)},
        {C: Place(B, B), 10: Place(C, B), 11: Place(10, B)},
    ),
    "K11 promoted": ({10: Place(A, A), 11: Place(10, A)}, {10: Place(A, 10), 11: Place(10, 10)}),
    "K22 recoded": ({10: Place(A, A, "Setor")}, {11: Place(A, A, "Setor")}),
    "K23 merged": (
        {10: Place(A, A), 11: Place(A, A), 12: Place(11, A)},
        {10: Place(A, A), 12: Place(10, A)},
    ),
    "K23 split": (
        {10: Place(A, A), 12: Place(10, A), 13: Place(10, A)},
        {14: Place(A, A), 15: Place(A, A), 12: Place(14, A), 13: Place(15, A)},
    ),
    "K24 two swap parents": (
        {10: Place(A, A), 11: Place(A, A), 12: Place(10, A), 13: Place(11, A)},
        {10: Place(A, A), 11: Place(A, A), 12: Place(11, A), 13: Place(10, A)},
    ),
    "K25 a chain of moves": (
        {10: Place(A, A), 11: Place(B, B)},
        {10: Place(B, B), 11: Place(C, C)},
    ),
}


@pytest.fixture
def world(world: World) -> World:
    for code in (B, C):
        world.register(code)
    world.siorg.publish(siorg_row(X, 244, organization=X))
    return world


def _publish(world: World, before: dict[int, Place], after: dict[int, Place]) -> None:
    for code in before:
        if code in REGISTERED:  # a demotion undone: an organization again
            world.siorg.publish(siorg_row(code, 244, organization=code))
        elif code not in after:
            world.siorg.remove(code)
    world.siorg.publish(
        *[
            siorg_row(code, place.parent, organization=place.organization, nome=place.name or f"Unidade {code}")
            for code, place in after.items()
        ]
    )


def _step(world: World, before: dict[int, Place], after: dict[int, Place], order: tuple[int, ...], *, together: bool) -> None:
    """SIORG goes from ``before`` to ``after``; what differs there is asked for, in that order."""
    _publish(world, before, after)
    for code in order:
        world.enqueue(code, operation="UPDATE" if code in after else "EXTINCTION")
    for _ in range(4):
        world.drain(at_a_time=1000 if together else 1)
        world.pauses_are_over()


def _expected(places: dict[int, Place], seen: set[int]) -> dict[int, tuple[Any, ...]]:
    """{code: (active, organization, parent, level, name)}; of an inactive one its place is not compared."""

    def is_unit(code: int) -> bool:
        return code in places and places[code].organization in REGISTERED

    def parent(code: int) -> int | None:
        above, organization, _ = places[code]
        return above if above in places and places[above].organization == organization != above else None

    def level(code: int) -> int:
        above = parent(code)
        return 1 if above is None else level(above) + 1

    return {
        code: (True, places[code].organization, parent(code), level(code), places[code].name or f"Unidade {code}")
        if is_unit(code)
        else (False,)
        for code in seen
    }


def _found(world: World) -> dict[int, tuple[Any, ...]]:
    rows = world.rows(
        "SELECT u.siorg_code, u.is_active, o.siorg_code AS organization, p.siorg_code AS parent, u.level, u.name"
        " FROM organizational_units u JOIN organizations o ON o.id = u.organization_id"
        " LEFT JOIN organizational_units p ON p.id = u.parent_id"
    )
    return {
        row["siorg_code"]: (True, row["organization"], row["parent"], row["level"], row["name"]) if row["is_active"] else (False,)
        for row in rows
    }


def _story(before: tuple[Any, ...] | None, after: tuple[Any, ...], *, in_siorg: bool) -> list[tuple[str, bool]]:
    """What history has to say of a unit: (change type, whether it says what was before)."""
    if before == after:
        return []
    if before is None:
        return [("CREATION", False)]
    if not before[0]:
        return [("CREATION", True)]
    if not after[0]:
        return [("HIERARCHY_CHANGE" if in_siorg else "EXTINCTION", True)]
    same = before[1:3] == after[1:3]
    if same and before[4] == after[4]:
        return []  # its level alone
    return [("UPDATE" if same else "HIERARCHY_CHANGE", True)]


@pytest.mark.parametrize("together", [True, False], ids=["one batch", "one by one"])
@pytest.mark.parametrize("kind", KINDS)
def test_forward_and_back_in_any_order(world: World, kind: str, together: bool) -> None:
    old, new = KINDS[kind]
    world.siorg.publish(*[siorg_row(code, 244, organization=code) for code in old if code in REGISTERED])
    _step(world, {}, old, tuple(old), together=True)
    seen = set(old)
    assert _found(world) == _expected(old, seen)
    differ = [code for code in {**old, **new} if old.get(code) != new.get(code)]
    for order in permutations(differ):
        for before, after in ((old, new), (new, old)):
            was, told = _found(world), len(world.rows("SELECT FROM siorg_history"))
            _step(world, before, after, order, together=together)
            seen |= {code for code, place in after.items() if place.organization in REGISTERED}
            expected = _expected(after, seen)
            assert _found(world) == expected, (order, before is old)
            entries = world.rows("SELECT * FROM siorg_history ORDER BY created_at, id OFFSET %s", told)
            story = {code: [(e["change_type"], e["previous_data"] is not None) for e in entries if e["siorg_code"] == code]
                     for code in seen}  # fmt: skip
            assert story == {
                code: _story(was.get(code), expected[code], in_siorg=code in after or code in REGISTERED) for code in seen
            }, order
            statuses = world.rows("SELECT * FROM siorg_sync_queue WHERE status <> 'COMPLETED'")
            assert [(row["siorg_code"], row["status"], row["last_error"]) for row in statuses] == []


def test_several_come_below_one_that_leaves_and_go_to_the_top_at_once(world: World) -> None:
    """SIORG is asked for the one above them beside the structure: that does not make it a unit of theirs."""
    comers = (11, 12, 13, 14)
    old = {10: Place(A, A), **{code: Place(B, B) for code in comers}}
    _step(world, {}, old, tuple(old), together=True)
    told = len(world.rows("SELECT FROM siorg_history"))
    _publish(world, old, {10: Place(X, X), **{code: Place(10, A) for code in comers}})
    world.enqueue(10, operation="EXTINCTION")
    for code in comers:
        world.enqueue(code, payload=world.siorg.rows[code])
    world.drain()
    entries = world.rows("SELECT * FROM siorg_history ORDER BY created_at, id OFFSET %s", told)
    assert sorted((entry["siorg_code"], *entry["affected_fields"]) for entry in entries) == [
        (10, "is_active"), *((code, "organization") for code in comers),
    ]  # fmt: skip
