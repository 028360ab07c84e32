"""Knows when everything that there is has been told, and finds what went while nobody watched.

At the start kopf tells of one object after the other, and not when it is done. A watch that cannot go on from where it broke
off (410 Gone: the API server was restarted, or away for long) begins with a new listing. kopf then tells what is there, but of
what is gone meanwhile it says nothing: a Job that is not there any more would take a slot for ever, a resource would be attended
to. So both are found out by lists of our own, which bring names only: at the start, after each new listing, every few minutes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Protocol

from siorg_operator.decide.ports import ClusterError
from siorg_runtime.logs import logger

_SOON_SECONDS = 2.0  # a listing comes piece by piece: one roll call after all of it
_LONGEST_PAUSE_SECONDS = 60.0
_EVERY_SECONDS = 300.0  # a listing without any object in it cannot be noticed
_LOOK_SECONDS = 0.02
_LIST_AGAIN_SECONDS = 2.0  # what is not told by then may have gone in between

log = logger(__name__)


class Lists(Protocol):
    """Where objects are listed."""

    async def uids(self, kind: str, namespace: str) -> set[str]:
        """Of all objects of a kind that may be ours.

        Raises:
            ClusterError: they could not be listed.
        """
        ...


class RollCall:
    """Looks for everything that is known."""

    def __init__(
        self,
        lists: Lists,
        namespace: str,
        kinds: Iterable[str],
        known: Callable[[str], set[str]],
        gone: Callable[[str, set[str]], Awaitable[None]],
    ) -> None:
        """Prepare; nothing is asked yet.

        Args:
            lists: where objects are listed.
            namespace: of the objects.
            kinds: the plurals, as ``jobs``.
            known: tells the uids of a kind that are held to be there.
            gone: is told of a kind the uids of those that are not.
        """
        self._lists = lists
        self._namespace = namespace
        self._kinds = tuple(kinds)
        self._known = known
        self._gone = gone
        self._wanted = asyncio.Event()
        self._told: set[str] | None = set()

    def told(self, uid: str, *, listed: bool) -> None:
        """An object was told of. ``listed``: as part of a listing, not because it changed."""
        if self._told is not None:
            self._told.add(uid)
        elif listed:
            self._wanted.set()

    async def all_told(self) -> None:
        """Wait until everything that there is has been told at least once. To be called before ``run``."""
        if self._told is None:
            return
        for kind in self._kinds:
            while not await self._all_told(kind):
                pass
        self._told = None

    async def _all_told(self, kind: str) -> bool:
        assert self._told is not None  # until all is told
        try:
            missing = await self._lists.uids(kind, self._namespace)
        except ClusterError as error:
            log.warning("Waiting for the cluster", reason=str(error))
            await asyncio.sleep(_LIST_AGAIN_SECONDS)
            return False
        last = time.monotonic()
        while missing:
            await asyncio.sleep(_LOOK_SECONDS)
            before, missing = missing, missing - self._told
            if len(missing) < len(before):
                last = time.monotonic()
            elif time.monotonic() - last > _LIST_AGAIN_SECONDS:
                return False
        return True

    async def run(self) -> None:
        """Until it is cancelled. One that fails is made up for, at longer and longer intervals, and told of once."""
        pause = _SOON_SECONDS
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_EVERY_SECONDS):
                    await self._wanted.wait()
            await asyncio.sleep(pause)
            self._wanted.clear()
            try:
                for kind in self._kinds:
                    await self._call(kind)
            except Exception as error:  # noqa: BLE001 - a bug must not end it; it is told
                if pause == _SOON_SECONDS:
                    self._tell(error)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
                self._wanted.set()
            else:
                pause = _SOON_SECONDS

    def _tell(self, error: Exception) -> None:
        if isinstance(error, ClusterError):
            log.warning("No roll call: what went unnoticed is seen later", reason=str(error))
        else:
            log.error("A roll call failed", exc_info=error)

    async def _call(self, kind: str) -> None:
        known = self._known(kind)  # before it is asked: what comes later is not missed
        if missed := known and known - await self._lists.uids(kind, self._namespace):
            log.info("Objects went while nobody watched", kind=kind, count=len(missed))
            await self._gone(kind, missed)
