"""History says what happened, and the same of it, however it was told: by one item of any kind, by many, or by a discovery."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import pytest

from siorg_job.reconciliation.discover import discover, registered
from support.local_structure import ANOTHER, UFMT, MadeUpSiorg, World, siorg_row

BELOW, ELSEWHERE = 890, 950
"""A unit of the same organization, and one of another."""


def _end(world: World, code: int) -> None:
    world.siorg.remove(code)


def _return(world: World, code: int) -> None:
    world.siorg.publish(siorg_row(code, nome="De volta"))


def _return_elsewhere(world: World, code: int) -> None:
    world.siorg.publish(siorg_row(code, ELSEWHERE, organization=ANOTHER))


def _change(**fields: Any) -> Callable[[World, int], None]:
    return lambda world, code: world.siorg.change(code, **fields)


class Story(NamedTuple):
    """What SIORG does with a unit, and what history has to say of it."""

    happen: Callable[[World, int], None]
    change_type: str
    review: bool
    fields: list[str]
    previous: dict[str, Any]
    """Of ``previous_data``, what the change is about."""


_BESIDE = {"organization": ANOTHER, "parent": ELSEWHERE}
_OLD_NAME, _OLD_PLACE = {"name": "Antiga"}, {"organization": UFMT, "parent": UFMT}
_STORIES: dict[str, Story] = {
    "renamed": Story(_change(nome="Nova", sigla="N"), "UPDATE", False, ["acronym", "name"], _OLD_NAME),
    "below another": Story(_change(parent=BELOW), "HIERARCHY_CHANGE", True, ["parent"], _OLD_PLACE),
    "below another and renamed": Story(
        _change(parent=BELOW, nome="Nova"), "HIERARCHY_CHANGE", True, ["name", "parent"], _OLD_PLACE | _OLD_NAME
    ),
    "to another organization, renamed": Story(
        _change(**_BESIDE, nome="Nova"), "HIERARCHY_CHANGE", True, ["name", "organization", "parent"], _OLD_PLACE | _OLD_NAME
    ),
    "to one that is not registered": Story(
        _change(organization=423, parent=423), "HIERARCHY_CHANGE", True, ["is_active"], {"is_active": True} | _OLD_PLACE
    ),
    "ended": Story(_end, "EXTINCTION", True, ["is_active"], {"is_active": True} | _OLD_NAME),
    "returned, renamed": Story(_return, "CREATION", False, ["is_active", "name"], {"is_active": False} | _OLD_NAME),
    "returned in another organization": Story(
        _return_elsewhere, "CREATION", False, ["is_active", "name", "organization", "parent"], {"is_active": False} | _OLD_PLACE
    ),
}
_CODES = {story: 900 + number for number, story in enumerate(_STORIES)}
_RETURNING = [code for story, code in _CODES.items() if story.startswith("returned")]


class _Discovered:
    """SIORG's side of a discovery over made-up rows."""

    def __init__(self, siorg: MadeUpSiorg) -> None:
        self.unit, self.structure = siorg.unit, siorg.structure

    async def version(self, organization: int) -> str:
        return "99.0.0"


def _by_item(operation: str, *, at_a_time: int = 1) -> Callable[[World], None]:
    def tell(world: World) -> None:
        world.enqueue(*(code for story, code in _CODES.items() if story != "ended"), operation=operation)
        world.enqueue(_CODES["ended"], operation="EXTINCTION")
        world.drain(at_a_time=at_a_time)

    return tell


def _by_discovery(world: World) -> None:
    for organization in registered(world.connection, None):
        asyncio.run(discover(organization, cast("Any", _Discovered(world.siorg)), world.connection, world.store, full=True))
    world.drain()
    world.pauses_are_over()
    world.drain()


@pytest.mark.parametrize(
    "tell",
    [
        *(pytest.param(_by_item(operation), id=operation) for operation in ("UPDATE", "CREATION", "HIERARCHY_CHANGE")),
        pytest.param(_by_item("UPDATE", at_a_time=1000), id="many at once"),
        pytest.param(_by_discovery, id="discovery"),
    ],
)
def test_one_row_a_change_the_same_whoever_told_it(world: World, tell: Callable[[World], None]) -> None:
    world.register(ANOTHER)
    others = [siorg_row(BELOW), siorg_row(ELSEWHERE, ANOTHER, organization=ANOTHER)]
    world.siorg.publish(*(siorg_row(code, nome="Antiga") for code in _CODES.values()), *others)
    _by_discovery(world)
    world.siorg.remove(*_RETURNING)
    _by_discovery(world)
    told = {code: len(world.history(code)) for code in _CODES.values()}
    for story, code in _CODES.items():
        _STORIES[story].happen(world, code)
    tell(world)
    for story, code in _CODES.items():
        (entry,) = world.history(code)[told[code] :]
        found = entry["change_type"], entry["requires_review"], entry["affected_fields"]
        assert (story, *found) == (story, *_STORIES[story][1:4])
        assert _STORIES[story].previous.items() <= entry["previous_data"].items(), story
    told = {code: len(world.history(code)) for code in _CODES.values()}
    _by_discovery(world)
    assert {code: len(world.history(code)) for code in _CODES.values()} == told
