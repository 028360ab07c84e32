"""One request under way for each key; its answer serves whoever needs nothing younger."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from siorg_job.fetch.cache import Cache
from support.event_loop import in_a_loop

T0 = datetime(2026, 1, 1, tzinfo=UTC)


class Source:
    """Answers when it is let; the database's clock goes on by a second with each look at it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.let = asyncio.Event()
        self.let.set()
        self.error: Exception | None = None
        self.looks = 0

    async def now(self) -> datetime:
        self.looks += 1
        return T0 + timedelta(seconds=self.looks)

    async def fetch(self, key: str) -> int:
        self.asked.append(key)
        await self.let.wait()
        if self.error is not None:
            raise self.error
        return len(self.asked)

    def cache(self, fresh_seconds: float = 60.0, **options: Any) -> Cache[str, int]:
        return Cache(self.fetch, self.now, fresh_seconds=fresh_seconds, **options)


@in_a_loop
async def test_what_is_fresh_and_young_enough_is_not_asked_for_again() -> None:
    source = Source()
    cache = source.cache()
    first = await cache.get("a", T0)
    assert (first.value, first.asked_at) == (1, T0 + timedelta(seconds=1))
    assert await cache.get("a", first.asked_at) is first
    younger = await cache.get("a", first.asked_at + timedelta(microseconds=1))
    assert younger.value == 2
    assert cache.fresh("a") is younger
    assert cache.fresh("b") is None
    assert source.asked == ["a", "a"]


@in_a_loop
async def test_what_is_no_longer_fresh_is_asked_for_again() -> None:
    source = Source()
    cache = source.cache(fresh_seconds=-1.0)
    await cache.get("a")
    assert cache.fresh("a") is None
    assert (await cache.get("a")).value == 2


@in_a_loop
async def test_who_comes_while_a_request_is_under_way_shares_it_unless_it_began_too_early() -> None:
    source = Source()
    source.let.clear()
    cache = source.cache()
    sharing = [asyncio.create_task(cache.get("a", T0)) for _ in range(3)]
    late = [asyncio.create_task(cache.get("a", T0 + timedelta(seconds=1.5))) for _ in range(3)]
    await asyncio.sleep(0.01)
    assert cache.is_under_way("a")
    source.let.set()
    assert {answer.value for answer in await asyncio.gather(*sharing)} == {1}
    assert {answer.value for answer in await asyncio.gather(*late)} == {2}
    assert not cache.is_under_way("a")


@in_a_loop
async def test_an_error_is_everybodys_and_is_not_kept() -> None:
    source = Source()
    source.error = ValueError("no")
    cache = source.cache()
    both = await asyncio.gather(cache.get("a"), cache.get("a"), return_exceptions=True)
    assert [type(error) for error in both] == [ValueError, ValueError]
    assert source.asked == ["a"]
    source.error = None
    assert (await cache.get("a")).value == 2


@in_a_loop
async def test_an_error_of_a_request_that_began_too_early_is_not_the_latecomers() -> None:
    source = Source()
    source.let.clear()
    source.error = ValueError("not yet")
    cache = source.cache()
    early = asyncio.create_task(cache.get("a", T0))
    late = [asyncio.create_task(cache.get("a", T0 + timedelta(seconds=1.5))) for _ in range(3)]
    await asyncio.sleep(0.01)
    source.let.set()
    with pytest.raises(ValueError, match="not yet"):
        await early
    source.error = None
    assert {answer.value for answer in await asyncio.gather(*late)} == {2}
    assert source.asked == ["a", "a"]


@in_a_loop
async def test_who_stops_waiting_does_not_stop_the_request_and_close_does() -> None:
    source = Source()
    source.let.clear()
    cache = source.cache()
    impatient, patient = asyncio.create_task(cache.get("a")), asyncio.create_task(cache.get("a"))
    await asyncio.sleep(0.01)
    impatient.cancel()
    await asyncio.sleep(0.01)
    assert cache.is_under_way("a")
    await cache.close()
    assert not cache.is_under_way("a")
    with pytest.raises(asyncio.CancelledError):
        await patient


@in_a_loop
async def test_beyond_its_capacity_what_was_used_longest_ago_goes_and_the_newest_stays() -> None:
    cache = Source().cache(capacity=5, weight=lambda value: value)
    for key in ("a", "b"):  # weights 1 and 2
        await cache.get(key)
    assert cache.fresh("a") is not None
    await cache.get("c")  # weight 3
    assert [key for key in "abc" if cache.fresh(key) is not None] == ["a", "c"]
    for _ in range(3):
        await cache.get("big", T0 + timedelta(days=1))
    assert [key for key in ("a", "c", "big") if cache.fresh(key) is not None] == ["big"]
