"""Finds what went while nobody watched.

A watch that cannot go on from where it broke off (410 Gone: the API server was restarted, or away for long) begins with a new
listing. kopf then tells what is there, but of what is gone meanwhile it says nothing, and its indices show it for ever: a Job
that is not there any more would take a slot, a resource would be attended to. So after each listing, and every few minutes,
everything that is known is looked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Protocol

from siorg_operator.logs import logger
from siorg_operator.ports import ClusterError

_SOON_SECONDS = 2.0  # a listing comes piece by piece: one roll call after all of it
_EVERY_SECONDS = 300.0  # a listing without any object in it cannot be noticed

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

    def soon(self) -> None:
        """Something was listed anew."""
        self._wanted.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_EVERY_SECONDS):
                    await self._wanted.wait()
            await asyncio.sleep(_SOON_SECONDS)
            self._wanted.clear()
            try:
                for kind in self._kinds:
                    await self._call(kind)
            except ClusterError as error:
                log.debug("No roll call", reason=str(error))
                self._wanted.set()

    async def _call(self, kind: str) -> None:
        known = self._known(kind)  # before it is asked: what comes later is not missed
        if missed := known and known - await self._lists.uids(kind, self._namespace):
            log.info("Objects went while nobody watched", kind=kind, count=len(missed))
            await self._gone(kind, missed)
