"""A connection on a thread of its own, for use from the event loop, which no statement then blocks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, LiteralString, TypeVar

import psycopg

from siorg_queue import Connection, DatabaseUnavailable, connect, describe, is_transient, transaction
from siorg_queue.statements import load

T = TypeVar("T")


class DatabaseThread:
    """Runs one function at a time on one connection; opens it when needed and again after it broke."""

    def __init__(self, url: str, name: str) -> None:
        """Nothing is opened yet; ``name`` shows in pg_stat_activity."""
        self._url = url
        self._name = name
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._connection: Connection | None = None

    async def call(self, function: Callable[[Connection], T]) -> T:
        """Run ``function(connection)`` and return what it returns.

        Raises:
            DatabaseUnavailable: no connection, or it broke, or a passing trouble; the caller may call again.
        """
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._call, function)

    async def rows(self, sql: LiteralString, **parameters: Any) -> list[dict[str, Any]]:
        """Run one statement in a transaction of its own and return its rows."""

        def run(connection: Connection) -> list[dict[str, Any]]:
            with transaction(connection):
                cursor = connection.execute(sql, parameters)
                return cursor.fetchall() if cursor.description else []

        return await self.call(run)

    async def now(self) -> datetime:
        """The database's clock."""
        (row,) = await self.rows(load("siorg_job.sync", "read.sql")["clock"])
        moment: datetime = row["now"]
        return moment

    async def close(self) -> None:
        """Close the connection and end the thread."""
        await asyncio.get_running_loop().run_in_executor(self._executor, self._disconnect)
        self._executor.shutdown(wait=False)

    def _call(self, function: Callable[[Connection], T]) -> T:
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._url, application_name=self._name)
        try:
            return function(self._connection)
        except psycopg.Error as error:
            if not is_transient(error):
                raise
            self._disconnect()  # whatever state it is in, a new one has none of it
            raise DatabaseUnavailable(describe(error)) from None

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
