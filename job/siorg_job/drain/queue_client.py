"""The queue for the drain: waits for a database that is away, and puts right what the absence left behind."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TypeVar
from uuid import UUID

from siorg_job.database.thread import DatabaseThread
from siorg_job.drain.run import GiveUp, Run
from siorg_queue import Claim, Connection, DatabaseBlocked, DatabaseUnavailable, QueueStore
from siorg_runtime.application import job_application
from siorg_runtime.backoff import exponential
from siorg_runtime.logs import logger

log = logger("siorg_job.drain")

T = TypeVar("T")

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0


_WAITS = {False: "The database is unavailable; trying again", True: "Others hold a lock in the database; trying again"}


class QueueClient:
    """The queue store on a thread of its own; every call waits for the database up to ``WORKER_UNAVAILABLE_SECS``."""

    def __init__(self, run: Run) -> None:
        self._run = run
        settings = run.settings
        # New for each process and never used again: a host's or pod's name may come back. The operator knows its Jobs by that.
        host = os.environ.get("HOSTNAME") or os.uname().nodename
        self._worker = f"{host}:{os.getpid()}:{uuid.uuid4().hex[:12]}"
        self._lease = timedelta(seconds=settings.worker_lease_secs)
        self._retry = settings.retry_policy()
        self._thread = DatabaseThread(settings.database_url.get_secret_value(), job_application())
        self._in_flight: Callable[[], Mapping[UUID, int]] = dict
        self.has_claimed = False
        """Whether this process ever tried to claim: before that, nothing can be held by it."""

    async def claim(self, limit: int, in_flight: Callable[[], Mapping[UUID, int]]) -> Claim:
        """Claim at most ``limit`` items. ``in_flight``: the items that this process knows it holds: {id: lease token}."""
        self._in_flight = in_flight
        self.has_claimed = True
        alone = not in_flight()
        return await self.call(lambda _, store: store.claim(limit, lease=self._lease, worker=self._worker, alone=alone))

    async def has_claimable(self) -> bool:
        """Whether a claim would take anything."""
        return await self.call(lambda _, store: store.has_claimable())

    async def next_due_seconds(self) -> float | None:
        """Seconds until the next waiting item falls due; None: none waits."""
        return await self.call(lambda _, store: store.next_due_seconds())

    async def call(self, function: Callable[[Connection, QueueStore], T]) -> T:
        """Run ``function(connection, store)``; it may be run again after the connection broke.

        Raises:
            GiveUp: the database stayed away.
        """

        def run(connection: Connection) -> T:
            return function(connection, QueueStore(connection, self._retry))

        since: float | None = None
        failures = 0
        while True:
            takes_updates = False
            try:
                if since is not None:
                    await self._recover()
                    takes_updates = True
                result = await self._thread.call(run)
            except DatabaseUnavailable as error:
                is_blocked = isinstance(error, DatabaseBlocked)
                if since is None:
                    since = time.monotonic()
                    log.warning(_WAITS[is_blocked], reason=str(error))
                if time.monotonic() - since > self._patience_seconds():
                    said = str(error) if is_blocked else f"the database is unavailable: {error}"
                    raise GiveUp("database_unavailable", said, can_give_back=is_blocked or takes_updates) from None
                failures += 1
                jitter = 0.5 + random.random() / 2  # noqa: S311 - half of it is kept: a database that restarts is not hammered
                await self._sleep(exponential(failures, _FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS, jitter))
            else:
                if since is not None:
                    log.info("The database answers again", seconds=round(time.monotonic() - since, 1))
                return result

    async def aclose(self) -> None:
        await self._thread.aclose()

    async def _recover(self) -> None:
        """Before another try: a claim may have been committed without our hearing of it, and leases have gone unrenewed.

        An apply that waits for somebody's lock keeps the lease keeper from the rows it applies, as often as it is tried.
        """
        if not self.has_claimed:
            return
        known = dict(self._in_flight())

        def recover(connection: Connection) -> int:
            store = QueueStore(connection)
            if known:
                store.renew(known, lease=self._lease)
            return store.release_unknown(self._worker, list(known))

        returned = await self._thread.call(recover)
        if returned:
            log.info("Gave back items of a claim whose answer was lost", items=returned)

    def _patience_seconds(self) -> float:
        settings = self._run.settings
        if self._run.stop.is_set():
            return settings.worker_shutdown_grace_secs if self.has_claimed else 0.0
        return math.inf if self._run.forever else settings.worker_unavailable_secs

    async def _sleep(self, seconds: float) -> None:
        """For so long, or until asked to end, which changes how long to wait."""
        if self._run.stop.is_set():
            await asyncio.sleep(seconds)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._run.stop.wait()
