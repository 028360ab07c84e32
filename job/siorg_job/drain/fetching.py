"""The fetches under way beside one another, and what they have brought that nobody has taken yet."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from siorg_job.fetch.fetcher import Fetcher, FetchResult
from siorg_queue import Item


class Fetching:
    """For one event loop. Everything that happens here wakes whoever waits in ``wait``."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready: list[FetchResult] = []
        self._happened = asyncio.Event()
        self._fault: BaseException | None = None

    def start(self, items: Sequence[Item]) -> None:
        task = asyncio.create_task(self._fetcher.fetch(items, self.add))
        self._tasks.add(task)
        task.add_done_callback(self._on_done)

    def add(self, results: Sequence[FetchResult]) -> None:
        self._ready.extend(results)
        self._happened.set()

    @property
    def has_ready(self) -> bool:
        return bool(self._ready)

    def take(self, limit: int) -> list[FetchResult]:
        """At most ``limit`` of what is ready, oldest first.

        Raises:
            Exception: a fetch failed by a fault of ours.
        """
        if self._fault is not None:
            raise self._fault
        taken, self._ready = self._ready[:limit], self._ready[limit:]
        return taken

    async def cancel(self) -> None:
        """Stop what is under way, and forget what is ready."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        self._ready.clear()

    def wake(self) -> None:
        self._happened.set()

    async def wait(self, seconds: float) -> None:
        """Until something happens, or for so long."""
        self._happened.clear()
        if self._ready or self._fault is not None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(seconds, 0)):
                await self._happened.wait()

    async def aclose(self) -> None:
        await self.cancel()
        await self._fetcher.close()

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fault = error
        self._happened.set()
