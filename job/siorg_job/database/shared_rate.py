"""One request rate towards SIORG for all processes that share a database, and one pause when SIORG asks for it."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from siorg_job.database.thread import DatabaseThread
from siorg_job.siorg.errors import RateLimited
from siorg_queue import Connection, transaction
from siorg_queue.statements import load

_LOOK_FOR_PAUSES_SECONDS = 1.0  # how stale the knowledge of others' pauses may be
_SHORTEST_PAUSE_SECONDS = 1.0  # a Retry-After of 0 is no leave to go on as before
_LONGEST_PAUSE_SECONDS = 5.0  # a longer one is not slept through with work in hand


def _not_soon(seconds: float) -> RateLimited:
    return RateLimited(f"requests to SIORG have to wait for another {seconds:.1f} s", retry_after=seconds)


class SharedRate:
    """A RateLimiter (see ``siorg.rate_limiter``) whose state is a row of the database, counted by the database's clock.

    Callers that come together are served by one reservation.
    """

    def __init__(self, database: DatabaseThread, per_second: float, *, longest_wait_seconds: float = 60.0) -> None:
        """Allow ``per_second`` requests a second, all processes together; 0 means no limit (a pause is still heeded).

        ``longest_wait_seconds``: who would have to wait longer for its turn is refused instead.
        """
        self._database = database
        self._per_second = per_second
        self._longest_wait = longest_wait_seconds
        self._longest_pause = min(_LONGEST_PAUSE_SECONDS, longest_wait_seconds)
        self._waiting: list[asyncio.Future[float]] = []
        self._reserving: asyncio.Task[None] | None = None
        self._looked_at = float("-inf")
        self._paused_until = float("-inf")

    async def wait(self) -> None:
        """Until one request may be sent.

        Raises:
            RateLimited: that will not be soon; no turn was taken.
            DatabaseUnavailable: the shared state cannot be read.
        """
        if self._per_second <= 0:
            while (seconds := await self.pause_left()) > 0:
                if seconds > self._longest_pause:
                    raise _not_soon(seconds)
                await asyncio.sleep(seconds)
            return
        turn: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        if self._reserving is None:
            self._reserving = asyncio.create_task(self._reserve())
        await asyncio.sleep(await turn)

    async def pause(self, seconds: float) -> None:
        """Nobody sends for that long (Retry-After), and for a second at least."""
        seconds = max(seconds, _SHORTEST_PAUSE_SECONDS)
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)
        await self._database.rows(load("siorg_job.database", "shared_rate.sql")["pause"], seconds=seconds)

    async def pause_left(self) -> float:
        """Seconds during which nobody may send, whichever process was told so; 0: no pause. Cheap: asks once a second.

        Raises:
            DatabaseUnavailable: the shared state cannot be read.
        """
        now = time.monotonic()
        if now - self._looked_at > _LOOK_FOR_PAUSES_SECONDS:
            self._looked_at = now
            rows = await self._database.rows(load("siorg_job.database", "shared_rate.sql")["paused"])
            if rows:
                self._paused_until = max(self._paused_until, time.monotonic() + rows[0]["wait_seconds"])
        return max(self._paused_until - time.monotonic(), 0.0)

    async def _reserve(self) -> None:
        try:
            while self._waiting:
                turns, self._waiting = self._waiting, []
                try:
                    reserved, first = await self._database.call(partial(self._reserve_turns, count=len(turns)))
                except Exception as error:  # noqa: BLE001 - it is theirs who wait
                    for turn in turns:
                        if not turn.done():
                            turn.set_exception(error)
                    continue
                for number, turn in enumerate(turns):
                    seconds = max(first + number / self._per_second, 0.0)
                    if turn.done():
                        continue
                    if reserved:
                        turn.set_result(seconds)
                    else:
                        turn.set_exception(_not_soon(seconds))
        finally:
            self._reserving = None

    def _reserve_turns(self, connection: Connection, count: int) -> tuple[bool, float]:
        """Whether ``count`` turns were taken, and how far away the first of them is (seconds)."""
        with transaction(connection):
            # The rate of the last second may be forgotten when the server dies: nothing hangs on its durability.
            connection.execute("SET LOCAL synchronous_commit = off")
            row = connection.execute(
                load("siorg_job.database", "shared_rate.sql")["reserve"],
                {
                    "count": count,
                    "per_second": self._per_second,
                    "longest_wait": self._longest_wait,
                    "longest_pause": self._longest_pause,
                },
            ).fetchone()
        return (True, 0.0) if row is None else (row["reserved"], row["wait_seconds"])
