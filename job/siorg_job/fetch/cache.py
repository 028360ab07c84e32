"""Answers that serve more than one item: one request under way for each key, and its answer kept while it is fresh."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Answer(Generic[V]):
    """What a request brought."""

    asked_at: datetime
    """Before the request was sent, by the database's clock."""
    until: float
    """End of freshness (monotonic seconds)."""
    value: V


@dataclass(frozen=True, slots=True)
class _Request(Generic[V]):
    """A request under way."""

    asked_at: asyncio.Task[datetime]
    """Its beginning, by the database's clock."""
    answer: asyncio.Task[Answer[V]]

    async def serves(self, needed: datetime | None) -> bool:
        """Whether its outcome, be it an answer or an error, is one of ``needed`` (database's clock) or later."""
        return needed is None or needed <= await asyncio.shield(self.asked_at)


class Cache(Generic[K, V]):
    """A single-flight cache with freshness, for one event loop.

    An answer serves whoever needs nothing younger: what was noted after the request was sent, it may not have yet. The same
    holds for an error.
    """

    def __init__(
        self,
        fetch: Callable[[K], Awaitable[V]],
        database_now: Callable[[], Awaitable[datetime]],
        *,
        fresh_seconds: float,
        capacity: int = 0,
        weight: Callable[[V], int] = lambda _: 0,
    ) -> None:
        """Hold nothing.

        Args:
            fetch: sends the request for a key.
            database_now: the database's clock.
            fresh_seconds: how long an answer is kept.
            capacity: of all answers together, in the unit of ``weight``; beyond it the one used longest ago goes first. The
                newest always stays.
            weight: of one answer.
        """
        self._fetch = fetch
        self._database_now = database_now
        self._fresh_seconds = fresh_seconds
        self._capacity = capacity
        self._weight = weight
        self._answers: OrderedDict[K, Answer[V]] = OrderedDict()
        self._under_way: dict[K, _Request[V]] = {}

    def fresh(self, key: K, needed: datetime | None = None) -> Answer[V] | None:
        """The answer at hand, where it is fresh and was asked for at ``needed`` (database's clock) or later."""
        answer = self._answers.get(key)
        if answer is None or answer.until < time.monotonic() or (needed is not None and needed > answer.asked_at):
            return None
        self._answers.move_to_end(key)
        return answer

    def is_under_way(self, key: K) -> bool:
        """Whether the request for it has been sent, or is about to be."""
        return key in self._under_way

    async def get(self, key: K, needed: datetime | None = None) -> Answer[V]:
        """The answer at hand, that of the request under way, or of a new one: whichever was asked for late enough.

        Shielded, because others may wait for the same answer: whoever fetches bounds how long it takes, ``close`` ends it
        early.

        Raises:
            Exception: what ``fetch`` raises; it is not kept.
        """
        if (answer := self.fresh(key, needed)) is not None:
            return answer
        while (request := self._under_way.get(key)) is not None and not await request.serves(needed):
            await asyncio.wait([request.answer])  # two at once would be no faster
        request = request or self._send(key)
        return await asyncio.shield(request.answer)

    async def close(self) -> None:
        """End requests that nobody waits for any more."""
        running = [task for request in self._under_way.values() for task in (request.asked_at, request.answer)]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _send(self, key: K) -> _Request[V]:
        asked_at = asyncio.ensure_future(self._database_now())
        answer = asyncio.create_task(self._ask(key, asked_at))
        request = self._under_way[key] = _Request(asked_at, answer)
        answer.add_done_callback(lambda _: self._forget(key, request))
        return request

    async def _ask(self, key: K, asked_at: asyncio.Task[datetime]) -> Answer[V]:
        moment = await asked_at
        value = await self._fetch(key)
        answer = self._answers[key] = Answer(moment, time.monotonic() + self._fresh_seconds, value)
        self._answers.move_to_end(key)
        while len(self._answers) > 1 and sum(self._weight(kept.value) for kept in self._answers.values()) > self._capacity:
            self._answers.popitem(last=False)
        return answer

    def _forget(self, key: K, request: _Request[V]) -> None:
        if self._under_way.get(key) is request:
            del self._under_way[key]
        if not request.answer.cancelled():
            request.answer.exception()  # seen: whoever waited got it too
