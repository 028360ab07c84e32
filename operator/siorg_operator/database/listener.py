"""Listens to one database, and calls at once when there is new work.

Polling is the truth, LISTEN a hint: where it cannot be had (a hot standby, PgBouncer in transaction mode) nothing is wrong.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from functools import cache

import psycopg

from siorg_operator.database.connection import FAILURES, Connection, Limits, connect, last_row, within
from siorg_operator.database.errors import describe, where
from siorg_queue import CHANNEL
from siorg_runtime.backoff import exponential
from siorg_runtime.logs import logger

_log = logger(__name__)


class QueueListener:
    """Listens to one database, and comes back to it by itself."""

    def __init__(self, url: str, limits: Limits) -> None:
        self._url = url
        self._limits = limits
        self._wakes: dict[object, Callable[[], None]] = {}
        self._since: float | None = None  # when listening began; None: it does not
        self._failing = False

    def add(self, watch: object, wake: Callable[[], None]) -> None:
        """Call ``wake`` too, until ``watch`` is removed."""
        self._wakes[watch] = wake
        if self._since is not None:  # what this one did not hear so far, it may have missed
            asyncio.get_running_loop().call_soon(lambda: self._call([wake] if watch in self._wakes else []))

    def remove(self, watch: object) -> bool:
        """Call this one no more; returns whether it was the last."""
        return self._wakes.pop(watch, None) is not None and not self._wakes

    async def listen(self) -> None:
        """Until it is cancelled."""
        failures, pause = 0, self._limits.first_pause
        loop = asyncio.get_running_loop()
        while True:
            try:
                await self._listen_once()
            except FAILURES as error:
                if self._since is not None and loop.time() - self._since > self._limits.longest_pause:
                    failures = 0  # it worked for a while: this is something new
                failures += 1
                self._since = None
                if not self._failing:  # once: a reading says what is wrong, and polling finds the work
                    self._failing = True
                    _log.info("LISTEN unavailable; polling", database=where(self._url), reason=describe(error, self._url))
                pause = exponential(failures, self._limits.first_pause, self._limits.longest_pause)
                if _is_refusal(error):
                    pause = self._limits.refused_pause
            # Out of the handler, where the error would keep its connection; with jitter, so not all operators at one moment.
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311

    async def _listen_once(self) -> None:
        connection = await connect(self._url, self._limits)
        try:
            statements = f"LISTEN {CHANNEL}; SELECT pg_backend_pid() AS pid"
            row = await within(connection, last_row(connection, statements), self._limits.read)
            self._since = asyncio.get_running_loop().time()
            if self._failing:
                self._failing = False
                _log.info("LISTEN available again", database=where(self._url))
            if row["pid"] != connection.info.backend_pid:
                _log_pooler(where(self._url))
            self._call(self._wakes.values())  # nobody knows what was missed
            await self._hear(connection)
        finally:
            await connection.close()

    async def _hear(self, connection: Connection) -> None:
        """Until the connection breaks.

        Not ``connection.notifies()``, which looks at its socket ten times a second: at rest this does nothing at all. That
        the other side is gone, TCP's keepalives find out.
        """
        loop = asyncio.get_running_loop()
        pgconn, socket_number = connection.pgconn, connection.fileno()
        broken: asyncio.Future[None] = loop.create_future()

        def on_input() -> None:
            try:
                pgconn.consume_input()
                heard = False
                while pgconn.notifies() is not None:
                    heard = True
            except psycopg.Error as error:
                if not broken.done():
                    broken.set_exception(error)
            else:
                if heard:
                    self._call(self._wakes.values())

        loop.add_reader(socket_number, on_input)
        try:
            await broken
        finally:
            loop.remove_reader(socket_number)

    def _call(self, wakes: Iterable[Callable[[], None]]) -> None:
        for wake in list(wakes):
            try:
                wake()
            except Exception:  # noqa: BLE001 - the others are to be woken all the same
                _log.exception("Waking a resource failed; this is a fault of ours")


@cache  # once for each database, however often it is connected to
def _log_pooler(database: str) -> None:
    _log.info("A connection pooler in transaction mode passes no notifications on; polling", database=database)


def _is_refusal(error: Exception) -> bool:
    """Whether a server that is there will not be listened to: it will not soon change its mind."""
    code = error.sqlstate if isinstance(error, psycopg.Error) else None
    return code is not None and not code.startswith(("08", "53", "57"))
