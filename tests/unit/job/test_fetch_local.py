"""What is here is looked up once for all who ask at the same moment, and read after each of them asked."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from siorg_job.fetch.local import Here, Local, LocalParent, Named
from siorg_queue import DatabaseUnavailable
from support.event_loop import in_a_loop, until


class Database:
    """Answers when it is let; everything of which the code is even is here."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.let = asyncio.Event()
        self.let.set()
        self.is_down = False

    async def rows(self, _sql: str, **named: list[int]) -> list[dict[str, Any]]:
        self.asked.append([code for codes in named.values() for code in codes])
        await self.let.wait()
        if self.is_down:
            raise DatabaseUnavailable("no connection")
        kinds = {"parents": "PARENT", "organizations": "ORGANIZATION", "categories": "CATEGORY"}
        return [
            {"kind": kinds[name], "code": code, "organization_code": 471, "line": [code], "touched": False}
            for name, codes in named.items()
            for code in codes
            if code % 2 == 0
        ]

    def local(self) -> Local:
        return Local(cast("Any", self))


def _parents(*codes: int) -> Named:
    return Named(parents=frozenset(codes))


@in_a_loop
async def test_each_kind_is_told_apart() -> None:
    here = await Database().local().look_up(Named(frozenset({2, 3}), frozenset({4, 5}), frozenset({6, 7})))
    assert here == Here({2: LocalParent(471, frozenset({2}), touched=False)}, frozenset({4}), frozenset({6}))


@in_a_loop
async def test_who_names_nothing_asks_nothing() -> None:
    database = Database()
    assert await database.local().look_up(Named()) == Here()
    assert database.asked == []


@in_a_loop
async def test_who_comes_while_one_is_under_way_is_answered_by_the_next_together() -> None:
    database = Database()
    database.let.clear()
    local = database.local()
    first = asyncio.create_task(local.look_up(_parents(2)))
    await until(lambda: database.asked)  # alone it waits for nobody
    others = [asyncio.create_task(local.look_up(_parents(2, code))) for code in (4, 6)]
    database.let.set()
    assert [sorted((await asking).parents) for asking in (first, *others)] == [[2], [2, 4, 6], [2, 4, 6]]
    assert database.asked == [[2], [2, 4, 6]]


@in_a_loop
async def test_an_error_is_of_all_who_asked_and_of_nobody_after() -> None:
    database = Database()
    database.is_down = True
    local = database.local()
    outcomes = await asyncio.gather(*(local.look_up(_parents(code)) for code in (2, 4)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [DatabaseUnavailable, DatabaseUnavailable]
    database.is_down = False
    assert sorted((await local.look_up(_parents(6))).parents) == [6]


@in_a_loop
async def test_who_is_cancelled_takes_nobody_along() -> None:
    database = Database()
    database.let.clear()
    local = database.local()
    leaving, staying = (asyncio.create_task(local.look_up(_parents(code))) for code in (2, 4))
    await until(lambda: database.asked)
    leaving.cancel()
    database.let.set()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert 4 in (await staying).parents
