"""The databases that resources name: what is in their queues now, and a call at once when there is new work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

from siorg_operator.cli import UsageError
from siorg_operator.database.connection import Limits
from siorg_operator.database.errors import URL_IN_SECRET, wrong_url
from siorg_operator.database.listener import QueueListener
from siorg_operator.database.reader import CLOSING, QueueReader
from siorg_operator.decide.state import Reading, Unreadable
from siorg_queue.address import check_database_url


def database_url(environ: Mapping[str, str], advice: str) -> str:
    """``DATABASE_URL``. ``UsageError``: it is no URL of a database, or is not set; ``advice`` says what to do then."""
    url = environ.get("DATABASE_URL", "").strip()
    if not url:
        raise UsageError(f"DATABASE_URL is not set: {advice}")
    try:
        check_database_url(url)
    except ValueError as wrong:
        raise UsageError(f"DATABASE_URL {wrong}") from None
    return url


class Databases:
    """The databases of all resources: for each URL one connection that reads and one that listens, shared by all.

    No database waits for another. Belongs to one event loop.
    """

    def __init__(self, limits: Limits | None = None, *, correct: str = URL_IN_SECRET) -> None:
        """Connect to nothing yet. ``correct``: what a person has to correct when a URL is wrong."""
        self._limits = limits or Limits()
        self._correct = correct
        self._readers: dict[str, QueueReader] = {}
        # The task beside the listener, not in it: a cancelled task keeps the frames that it was cancelled in, with whatever
        # socket was being connected there, and they would keep the task.
        self._listeners: dict[str, tuple[QueueListener, asyncio.Task[None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def read(self, url: str) -> Reading | Unreadable:
        """Look at the queue behind ``url`` now. Never raises for a database that is away: unknown is a value.

        Takes as long as a connection and a reading may (see ``Limits``) at most; where another reading is on its way,
        that one's time comes first.
        """
        url = url.strip()
        try:
            check_database_url(url)
        except ValueError as wrong:
            return wrong_url(str(wrong), self._correct)
        if self._closed:
            return CLOSING
        reader = self._readers.get(url)
        if reader is None:
            reader = self._readers[url] = QueueReader(
                url, self._limits, correct=self._correct, ended=lambda: self._readers.pop(url, None)
            )
            self._start(reader.serve())
        return await reader.read()

    def watch(self, url: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Call ``wake`` on each notification of new work in the database, and whenever listening begins (again).

        ``wake`` is called from the event loop, never before this returns; it has to be quick. A wrong URL is never heard of.

        Returns:
            Ends it: no more calls. To end it twice is no error.
        """
        url, watch = url.strip(), object()

        def unwatch() -> None:
            if url in self._listeners:
                listener, task = self._listeners[url]
                if listener.remove(watch):
                    del self._listeners[url]
                    task.cancel()

        with suppress(ValueError):
            check_database_url(url)
            if not self._closed:
                if url not in self._listeners:
                    listener = QueueListener(url, self._limits)
                    self._listeners[url] = (listener, self._start(listener.listen()))
                self._listeners[url][0].add(watch, wake)
        return unwatch

    async def close(self) -> None:
        """End everything at once; whoever waits gets no reading."""
        self._closed = True
        self._listeners.clear()
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
