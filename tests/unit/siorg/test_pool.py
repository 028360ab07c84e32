"""The pool of connections, with connections that only know whether they are closed."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from siorg_job.siorg.pool import Pool
from support.event_loop import in_a_loop
from support.siorg_client import Clock


class Connection:
    closed = ended = expired = False

    def is_available(self) -> bool:
        return not self.ended

    def has_expired(self) -> bool:
        return self.expired

    async def aclose(self) -> None:
        self.closed = True


class Made:
    """A pool of two, and all that it has made."""

    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self.clock = Clock()
        self.pool = Pool(self._make, most=2, idle_seconds=5.0, clock=self.clock)

    def _make(self) -> Connection:
        self.connections.append(Connection())
        return self.connections[-1]

    async def use(self, at_once: int) -> list[Connection]:
        async with AsyncExitStack() as held:
            return [await held.enter_async_context(self.pool.take()) for _ in range(at_once)]

    @property
    def closed(self) -> list[bool]:
        return [connection.closed for connection in self.connections]


@in_a_loop
async def test_the_one_used_last_is_used_again() -> None:
    made = Made()
    first, second = await made.use(2)
    for _ in range(3):
        assert await made.use(1) == [first]  # given back last
    assert set(await made.use(2)) == {first, second} == set(made.connections)


@in_a_loop
async def test_what_the_other_side_ended_is_not_lent_again() -> None:
    made = Made()
    first, second = await made.use(2)
    first.expired = True
    assert await made.use(1) == [second]
    second.ended = True
    await made.use(1)
    assert made.closed == [True, True]
    await made.use(2)
    assert made.closed == [True, True, False, False]


@in_a_loop
async def test_who_comes_when_all_are_lent_waits() -> None:
    made = Made()
    async with AsyncExitStack() as held:
        for _ in range(2):
            await held.enter_async_context(made.pool.take())
        third = asyncio.create_task(made.use(1))
        await asyncio.sleep(0)
        assert not third.done()
    await third
    assert len(made.connections) == 2


@pytest.mark.parametrize("error", [ValueError(), asyncio.CancelledError()])
@in_a_loop
async def test_one_that_failed_is_closed_and_its_place_is_free(error: BaseException) -> None:
    made = Made()
    for _ in range(3):
        with pytest.raises(type(error)):
            async with made.pool.take():
                raise error
    assert made.closed == [True, True, True]
    await made.use(2)
    assert made.closed[3:] == [False, False]


@in_a_loop
async def test_what_nobody_uses_is_closed_when_another_is_given_back() -> None:
    made = Made()
    _, second = await made.use(2)
    made.clock.now += 4.0
    (first,) = await made.use(1)
    made.clock.now += 2.0
    assert await made.use(1) == [first]
    assert (first.closed, second.closed) == (False, True)


@in_a_loop
async def test_closed_are_also_those_in_use() -> None:
    made = Made()
    await made.use(2)
    async with made.pool.take():
        await made.pool.aclose()
        assert made.closed == [True, True]
