"""The queue for the drain: waits for a database that is away, and puts right what the absence left behind."""

from __future__ import annotations

import asyncio
import math
import os
import random
import time
import uuid
from collections.abc import Callable, Collection
from typing import Literal, TypeVar
from uuid import UUID

from siorg_job.database.thread import DatabaseThread
from siorg_job.retry_policy import retry_policy
from siorg_job.settings import Settings
from siorg_queue import Connection, DatabaseUnavailable, QueueStore
from siorg_runtime.logs import logger

log = logger("siorg_job.drain")

T = TypeVar("T")

_LONGEST_PAUSE_SECONDS = 5.0


class GiveUp(Exception):
    """The run cannot go on now: try again later (exit 75). The message says what is unavailable."""

    def __init__(self, reason: Literal["database_unavailable", "siorg_unavailable", "siorg_rate_limited"], message: str) -> None:
        """``reason``: the summary's word for it."""
        super().__init__(message)
        self.reason = reason


class PatientQueue:
    """The queue store on a thread of its own; every call waits for the database up to ``WORKER_UNAVAILABLE_SECS``."""

    def __init__(self, settings: Settings, *, stop: asyncio.Event, forever: bool, known: Callable[[], Collection[UUID]]) -> None:
        """``known``: the ids of the items that this process knows it holds."""
        self._settings = settings
        self._stop = stop
        self._forever = forever
        self._known = known
        # New for each process and never used again: a host's or pod's name may come back.
        self.worker = f"{os.uname().nodename}:{os.getpid()}:{uuid.uuid4().hex[:12]}"
        self._retry = retry_policy(settings)
        self._thread = DatabaseThread(settings.database_url.get_secret_value(), "siorg-job")

    async def call(self, function: Callable[[QueueStore], T]) -> T:
        """Run ``function(store)``.

        Raises:
            GiveUp: the database stayed away.
        """
        return await self.call_with_connection(lambda _, store: function(store))

    async def call_with_connection(self, function: Callable[[Connection, QueueStore], T]) -> T:
        """Run ``function(connection, store)``; it may be run again after the connection broke.

        Raises:
            GiveUp: the database stayed away.
        """

        def run(connection: Connection) -> T:
            return function(connection, QueueStore(connection, self._retry))

        since: float | None = None
        pause = 0.1
        while True:
            try:
                if since is not None:
                    await self._release_unknown()
                result = await self._thread.call(run)
            except DatabaseUnavailable as error:
                if since is None:
                    since = time.monotonic()
                    log.warning("The database is unavailable; trying again", reason=str(error))
                if time.monotonic() - since > self._patience_seconds():
                    raise GiveUp("database_unavailable", f"the database is unavailable: {error}") from None
                await asyncio.sleep(pause * (0.5 + random.random()))  # noqa: S311 - jitter
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
            else:
                if since is not None:
                    log.info("The database answers again", seconds=round(time.monotonic() - since, 1))
                return result

    async def close(self) -> None:
        """Close the connection and end the thread."""
        await self._thread.close()

    async def _release_unknown(self) -> None:
        """After a lost connection: a claim may have been committed without our hearing of it."""
        known = list(self._known())
        returned = await self._thread.call(lambda connection: QueueStore(connection).release_unknown(self.worker, known))
        if returned:
            log.info("Gave back items of a claim whose answer was lost", items=returned)

    def _patience_seconds(self) -> float:
        """How long to wait for a database that is away."""
        if self._stop.is_set():
            return self._settings.worker_shutdown_grace_secs
        return math.inf if self._forever else self._settings.worker_unavailable_secs
