"""The resources that share database servers, as each of them was planned last: what one is given, the next one does not find.

All passes run on one event loop, and from the reading that a plan is made of to its entry here none of them waits: two
resources cannot take the same connections.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace

from siorg_operator.decide.connections import Tenant
from siorg_operator.decide.manifests import job_tag
from siorg_operator.decide.planned import Plan
from siorg_operator.decide.state import Job, JobState, Reading, Unreadable

_GATHERS_WITHIN_SECONDS = 5.0


class Tenants:
    """Those of all servers. An operator that begins knows of nobody: nothing is shared out before all have been read once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock``: seconds of a clock that nobody sets."""
        self._clock = clock
        self._servers: dict[str, str] = {}
        self._tenants: dict[str, Tenant] = {}
        self._awaited: set[str] = set()
        self._gathered = asyncio.Event()
        self._gathered.set()

    def gather(self, uids: Iterable[str]) -> None:
        """These are there, and none of them has been read."""
        self._awaited = set(uids)
        if self._awaited:
            self._gathered.clear()

    async def gathered(self) -> bool:
        """Wait until all have been read once, for some seconds at most; whether there was anybody to wait for."""
        if self._gathered.is_set():
            return False
        with suppress(TimeoutError):
            async with asyncio.timeout(_GATHERS_WITHIN_SECONDS):
                await self._gathered.wait()
        self._gathered.set()
        return True

    def read(self, uid: str, reading: Reading | Unreadable, jobs: Iterable[Job]) -> tuple[Tenant, ...]:
        """A resource was looked at: it, and those beside it on its server. Unreadable, it stays where it was."""
        before = self._tenants.get(uid)
        limits = () if before is None else before.limits
        if isinstance(reading, Reading):
            limits, self._servers[uid] = reading.connection_limits, "" if reading.pooled else reading.server
        held = {job_tag(job.name): job.state is JobState.ACTIVE for job in jobs if job.unfinished}
        self._tenants[uid] = replace(before or Tenant(uid, (), rests=True), limits=limits, jobs=held)
        self._came(uid)
        server = self._servers.get(uid)
        return tuple(one for one in self._tenants.values() if server and self._servers.get(one.uid) == server)

    def wants(self, uid: str, plan: Plan) -> None:
        """What a resource would have if there were room."""
        before = self._tenants[uid]
        waits_since = min(before.waits_since, self._clock()) if plan.wanted > plan.unfinished else float("inf")
        self._tenants[uid] = replace(before, wanted=plan.wanted, rests=plan.rests, waits_since=waits_since)

    def takes(self, uid: str, plan: Plan) -> None:
        """What it launches is its own from now on. Whoever gets something is the last among its equals again."""
        before = self._tenants[uid]
        if plan.launches:
            waits_since = self._clock() if plan.wanted > len(plan.held) else float("inf")
            self._tenants[uid] = replace(before, jobs=plan.held, waits_since=waits_since)

    def forget(self, uid: str) -> None:
        """It is gone, or cannot be understood."""
        self._servers.pop(uid, None)
        self._tenants.pop(uid, None)
        self._came(uid)

    def _came(self, uid: str) -> None:
        self._awaited.discard(uid)
        if not self._awaited:
            self._gathered.set()
