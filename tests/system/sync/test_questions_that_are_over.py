"""A conflict whose reason has gone ends itself, and says so; one that is another now is asked anew; one that stands stays.

Nothing asks for the unit but discovery.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from siorg_job.reconciliation.discover import Discovery, discover, registered
from siorg_job.reconciliation.verify import verify
from support.local_structure import ANOTHER, UFMT, World, siorg_row

Do = Callable[[World], object]


async def _version(organization: int) -> str:
    return "99.0.0"


def _discover(world: World, organization: int = UFMT) -> Discovery:
    """SIORG's version stands still."""
    world.siorg.version = _version  # type: ignore[attr-defined]
    (found,) = registered(world.connection, [organization])
    return asyncio.run(discover(found, cast("Any", world.siorg), world.connection, world.store))


def _work(world: World) -> None:
    _discover(world)
    world.drain()


def _questions(world: World) -> dict[int, list[str]]:
    rows = world.rows("SELECT siorg_code, detected_changes FROM siorg_sync_queue WHERE status = 'CONFLICT'")
    return {row["siorg_code"]: sorted(row["detected_changes"]) for row in rows}


def _departures(world: World) -> set[tuple[int, str, str]]:
    found = asyncio.run(verify(UFMT, cast("Any", world.siorg), world.connection))
    return {(each.code, each.field, each.kind.value) for each in found.departures}


@pytest.fixture
def world(world: World) -> World:
    """900 with 901 below it, 910 and 920, in line."""
    world.siorg.publish(siorg_row(900), siorg_row(901, 900), siorg_row(910), siorg_row(920))
    _work(world)
    return world


def _hang(world: World, code: int, parent: int | None) -> None:
    """A person hangs a unit below another one, or at the top."""
    world.edit(code, parent_id=None if parent is None else world.unit(parent)["id"])


def _named(world: World) -> None:
    """A person and SIORG have renamed 920."""
    world.edit(920, name="Nossa")
    world.siorg.change(920, nome="Nova")


def _placed(world: World) -> None:
    """A person and SIORG have moved 901, each elsewhere."""
    _hang(world, 901, None)
    world.siorg.change(901, parent=910)


def _titled(world: World) -> None:
    """A person and SIORG have given the organization another acronym."""
    world.edit_organization(acronym="NOSSA")
    world.siorg.change(UFMT, sigla="NOVA")


def _strict(world: World) -> None:
    """A move in strict mode."""
    world.setting("siorg.hierarchy_strict_mode", True)
    world.siorg.change(901, parent=910)


def _ended(world: World) -> None:
    """SIORG has ended 910; a person has hung 901 below it."""
    _hang(world, 901, 910)
    world.siorg.remove(910)


def _both(first: Do, second: Do) -> Do:
    def do(world: World) -> None:
        first(world)
        second(world)

    return do


OVER: dict[str, tuple[Do, Do]] = {
    "the person takes SIORG's name": (_named, lambda world: world.edit(920, name="Nova")),
    "SIORG takes the person's name": (_named, lambda world: world.siorg.change(920, nome="Nossa")),
    "SIORG goes back": (_named, lambda world: world.siorg.change(920, nome="Unidade 920")),
    "the person goes back": (_named, lambda world: world.edit(920, name="Unidade 920")),
    "SIORG ends the unit": (_named, lambda world: world.siorg.remove(920)),
    "the person takes SIORG's place": (_placed, lambda world: _hang(world, 901, 910)),
    "SIORG takes the person's place": (_placed, lambda world: world.siorg.change(901, parent=UFMT)),
    "SIORG goes back to its place": (_placed, lambda world: world.siorg.change(901, parent=900)),
    "SIORG ends the parent, and its child comes to where the person has it": (
        _placed,
        _both(lambda world: world.siorg.remove(910), lambda world: world.siorg.change(901, parent=UFMT)),
    ),
    "the organization: the person takes SIORG's": (_titled, lambda world: world.edit_organization(acronym="NOVA")),
    "the organization: SIORG goes back": (
        _titled, lambda world: world.siorg.change(UFMT, sigla="UFMT"),
    ),
    "strict mode ends": (_strict, lambda world: world.setting("siorg.hierarchy_strict_mode", False)),
    "strict mode: SIORG moves it back": (_strict, lambda world: world.siorg.change(901, parent=900)),
    "ended, and the children have moved away": (_ended, lambda world: _hang(world, 901, 900)),
    "ended, and the children have ended": (_ended, lambda world: world.siorg.remove(901)),
    "ended, and a person has ended the children": (_ended, lambda world: world.edit(901, is_active=False)),
    "ended, and SIORG has it again": (_ended, lambda world: world.siorg.publish(siorg_row(910))),
    "ended, and a person has ended it too": (
        _ended, _both(lambda world: _hang(world, 901, 900), lambda world: world.edit(910, is_active=False)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", OVER)
def test_a_conflict_whose_reason_has_gone_ends_itself_and_says_so(world: World, way: str) -> None:
    begin, end = OVER[way]
    begin(world)
    _work(world)
    (question,) = world.decisions.conflicts()
    end(world)
    assert {kind for _, _, kind in _departures(world)} <= {"drift", "edited", "conflict"}
    _work(world)
    assert _questions(world) == {}
    item = world.item(question.id)
    assert (item["status"], item["error_details"]["kind"]) == ("SKIPPED", "superseded")
    assert "nothing is in conflict any more" in item["last_error"]
    assert item["processed_at"] is not None
    assert _discover(world).items == []
    assert {kind for _, _, kind in _departures(world)} <= {"edited"}


def test_a_question_that_stands_is_not_asked_again(world: World) -> None:
    for begin in (_named, _placed, _titled):
        begin(world)
    _work(world)
    world.siorg.change(920, sigla="N9")  # comes with the decision
    _work(world)
    rows = world.rows("SELECT * FROM siorg_sync_queue ORDER BY id")
    asked = {UFMT: ["acronym"], 920: ["name"], 901: ["parent"]}
    assert _questions(world) == asked
    for _ in range(2):
        assert _discover(world).items == []
    assert world.rows("SELECT * FROM siorg_sync_queue ORDER BY id") == rows
    assert _departures(world) == {
        (UFMT, "acronym", "conflict"), (920, "name", "conflict"), (901, "parent", "conflict"), (920, "acronym", "conflict"),
    }  # fmt: skip


def test_an_end_that_waits_for_a_person_is_not_asked_again(world: World) -> None:
    _ended(world)
    _work(world)
    assert _questions(world) == {910: ["is_active"]}
    assert [item.siorg_code for item in _discover(world).items] == []


@pytest.mark.parametrize("active", [True, False])
def test_what_another_organization_asks_about_a_unit_is_not_asked_again(world: World, active: bool) -> None:
    """It is still here where it was: nothing is written of it before a person has decided."""
    world.register()
    world.siorg.publish(siorg_row(ANOTHER, None, organization=ANOTHER))
    world.edit(920, name="Nossa", is_active=active)
    world.siorg.change(920, nome="Nova", parent=ANOTHER, organization=ANOTHER)
    _discover(world, ANOTHER)
    world.drain()
    assert _questions(world) == {920: ["name"]}
    for organization in (UFMT, ANOTHER):
        assert [item for item in _discover(world, organization).items if item.siorg_code == 920] == []


NEW: dict[str, tuple[Do, list[str]]] = {
    "SIORG has another name now": (lambda world: world.siorg.change(920, nome="Mais nova"), ["name"]),
    "the acronym is in dispute too": (
        _both(lambda world: world.edit(920, acronym="NOSSA"), lambda world: world.siorg.change(920, sigla="NOVA")),
        ["acronym", "name"],
    ),
    "another field instead": (
        _both(lambda world: world.edit(920, name="Nova", acronym="NOSSA"), lambda world: world.siorg.change(920, sigla="NOVA")),
        ["acronym"],
    ),
}


@pytest.mark.parametrize("way", NEW)
def test_a_question_that_is_another_now_replaces_the_older_one(world: World, way: str) -> None:
    _named(world)
    _work(world)
    (question,) = world.decisions.conflicts()
    change, fields = NEW[way]
    change(world)
    _work(world)
    assert _questions(world) == {920: fields}
    assert world.item(question.id)["status"] == "SKIPPED"
    assert {field for code, field, kind in _departures(world) if kind == "conflict"} == set(fields)


def test_a_field_that_agrees_or_that_nobody_contests_is_no_conflict(world: World) -> None:
    """Also before a discovery has ended the question."""
    _named(world)
    world.edit(910, name="Nossa")
    world.siorg.change(910, nome="Nova")
    _work(world)
    world.edit(920, name="Nova")
    world.siorg.change(910, nome="Unidade 910")
    assert _departures(world) == {(910, "name", "edited")}
