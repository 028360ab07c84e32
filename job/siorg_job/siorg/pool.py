"""Connections that are used again and again: to take one and to give it back costs the same, however many there are.

The HTTP library's own pool looks at all of its connections when a request begins and when it ends, and asks the kernel about each
that is idle: with 64 of them some 64 system calls a request, and more CPU than all the rest of it (measured 2026-11).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Generic, Protocol, TypeVar


class Connection(Protocol):
    """What takes part in a pool."""

    def is_available(self) -> bool:
        """Whether another request may follow."""

    def has_expired(self) -> bool:
        """Whether the other side has closed it, or it has been silent for too long."""

    async def aclose(self) -> None: ...


_C = TypeVar("_C", bound=Connection)


class Pool(Generic[_C]):
    """Lends connections, each to one user at a time, the one used last first. For one event loop."""

    def __init__(
        self, make: Callable[[], _C], *, most: int, idle_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Make the first at once, so that what cannot be made is known.

        Args:
            make: makes one that has connected to nothing yet.
            most: the most that are lent at a time; whoever comes then waits for its turn.
            idle_seconds: one that nobody has used for so long is closed, when another is given back.
            clock: monotonic seconds.

        Raises:
            Exception: what ``make`` raises, here and when one is taken.
        """
        self._make = make
        self._places = asyncio.Semaphore(most)
        self._idle_seconds = idle_seconds
        self._clock = clock
        first = make()
        self._all = {first}
        self._idle = deque([(first, clock())])  # the one used longest ago first

    @asynccontextmanager
    async def take(self) -> AsyncIterator[_C]:
        """One to use, to be given back with nothing under way on it. After an error or a cancellation it is closed."""
        async with self._places:
            one = await self._next()
            try:
                yield one
            except BaseException:
                await self._close(one)
                raise
            now = self._clock()
            if one.is_available():
                self._idle.append((one, now))
            else:
                await self._close(one)
            while self._idle and self._idle[0][1] < now - self._idle_seconds:
                await self._close(self._idle.popleft()[0])

    async def aclose(self) -> None:
        """Close all of them, also those that are in use."""
        self._idle.clear()
        while self._all:
            await self._all.pop().aclose()

    async def _next(self) -> _C:
        while self._idle:
            one, _ = self._idle.pop()
            if not one.has_expired():
                return one
            await self._close(one)
        one = self._make()
        self._all.add(one)
        return one

    async def _close(self, one: _C) -> None:
        self._all.discard(one)
        await one.aclose()
