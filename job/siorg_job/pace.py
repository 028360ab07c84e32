"""One pace towards SIORG for all processes that share a database, and one pause when SIORG asks for it."""

from __future__ import annotations

import asyncio

from siorg_job.database_thread import DatabaseThread
from siorg_queue.statements import load

_LONGEST_SLEEP_SECONDS = 5.0


class SharedPace:
    """A RateLimiter (see ``siorg.limits``) whose state is a row of the database, counted by the database's clock."""

    def __init__(self, database: DatabaseThread, per_second: float) -> None:
        """Allow ``per_second`` requests a second, all processes together; 0 means no limit (a pause is still heeded)."""
        self._database = database
        self._per_second = per_second

    async def wait(self) -> None:
        """Until one request may be sent.

        Raises:
            DatabaseUnavailable: the shared state cannot be read.
        """
        sql = load("siorg_job", "pace.sql")["reserve"]
        rows = await self._database.rows(sql, per_second=self._per_second or 1e6)
        seconds = rows[0]["wait_seconds"] if rows else 0.0
        while seconds > 0:
            await asyncio.sleep(min(seconds, _LONGEST_SLEEP_SECONDS))
            seconds -= _LONGEST_SLEEP_SECONDS

    async def pause(self, seconds: float) -> None:
        """Nobody sends for that long (Retry-After)."""
        await self._database.rows(load("siorg_job", "pace.sql")["pause"], seconds=seconds)
