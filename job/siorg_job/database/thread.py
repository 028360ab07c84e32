"""A connection on a thread of its own, for use from the event loop, which no statement then blocks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, LiteralString, TypeVar

import psycopg

from siorg_queue import (
    Connection,
    DatabaseBlocked,
    DatabaseUnavailable,
    clock,
    connect,
    describe,
    is_blocked,
    is_transient,
    query,
)

T = TypeVar("T")


class DatabaseThread:
    """Runs one function at a time on one connection; opens it when needed and again after it broke."""

    def __init__(self, url: str, name: str) -> None:
        """Nothing is opened yet; ``name`` shows in pg_stat_activity."""
        self._url = url
        self._name = name
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._connection: Connection | None = None
        self._clock: asyncio.Future[datetime] | None = None

    async def call(self, function: Callable[[Connection], T]) -> T:
        """Run ``function(connection)`` and return what it returns.

        Raises:
            DatabaseUnavailable: no connection, or it broke, or a transient error; the caller may call again.
            DatabaseBlocked: others hold a lock.
        """
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._call, function)

    async def rows(self, sql: LiteralString, **parameters: Any) -> list[dict[str, Any]]:
        """Run one statement in a transaction of its own and return its rows."""
        return await self.call(lambda connection: query(connection, sql, **parameters))

    async def now(self) -> datetime:
        """The database's clock, read after this was called.

        Callers that come while a reading is under way share the next one: many fetches start for one round trip.
        """
        reading = self._clock
        if reading is None:
            reading = self._clock = asyncio.ensure_future(self.call(self._read_clock))
            reading.add_done_callback(self._forget_clock)
        return await asyncio.shield(reading)

    def _read_clock(self, connection: Connection) -> datetime:
        self._clock = None  # from here on the answer could be too early for a newcomer
        return clock(connection)

    def _forget_clock(self, reading: asyncio.Future[datetime]) -> None:
        if self._clock is reading:
            self._clock = None
        if not reading.cancelled():
            reading.exception()  # seen: whoever waited has it; nobody may be waiting any more

    async def aclose(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._executor, self._disconnect)
        self._executor.shutdown(wait=False)

    def _call(self, function: Callable[[Connection], T]) -> T:
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._url, application_name=self._name, plans_once=True)
        try:
            return function(self._connection)
        except psycopg.Error as error:
            if is_blocked(error):
                raise DatabaseBlocked(describe(error)) from None
            if not is_transient(error):
                raise
            self._disconnect()  # whatever state it is in, a new one has none of it
            raise DatabaseUnavailable(describe(error)) from None

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
