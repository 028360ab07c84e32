"""Knows when the initial list has been seen in full, and finds what was deleted while nobody watched.

At the start kopf tells of one object after the other, and not when it is done. After a watch that broke off (410 Gone) it lists
anew, and says nothing of what is gone meanwhile: a Job would take a slot for ever. Both are found out by lists of our own, which
bring names only: at the start, after each new listing, every few minutes all the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

from siorg_operator.decide.ports import ClusterError
from siorg_runtime.backoff import exponential
from siorg_runtime.logs import logger

_DEBOUNCE_SECONDS = 2.0  # a listing comes piece by piece: one resync after all of it
_LONGEST_PAUSE_SECONDS = 60.0
_EVERY_SECONDS = 300.0
_LOOK_SECONDS = 0.02
_LIST_AGAIN_SECONDS = 2.0  # what is not seen by then may have gone in between

log = logger(__name__)


class Resync:
    """Compares what is known with what there is."""

    def __init__(
        self,
        list_uids: Callable[[str], Awaitable[set[str]]],
        kinds: Iterable[str],
        known: Callable[[str], set[str]],
        deleted: Callable[[str, set[str]], Awaitable[None]],
    ) -> None:
        """Nothing is listed yet.

        Args:
            list_uids: of all objects of a kind that there are; raises ``ClusterError``.
            kinds: the plurals, as ``jobs``.
            known: the uids of a kind that are held to be there.
            deleted: is called with those that are not.
        """
        self._list_uids = list_uids
        self._kinds = tuple(kinds)
        self._known = known
        self._deleted = deleted
        self._begun = asyncio.Event()
        self._wanted = asyncio.Event()
        self._seen: set[str] | None = set()
        """Of the initial list; None: all of it has been seen."""

    def seen(self, uid: str) -> None:
        """An object was seen: it was listed, or it changed."""
        if self._seen is not None:
            self._seen.add(uid)

    def listed(self) -> None:
        """A listing has begun: what was deleted before may have been missed, but for the first one."""
        (self._begun if self._seen is not None else self._wanted).set()

    async def run(self, begin: Callable[[], None]) -> None:
        """Until it is cancelled. ``begin`` is called once everything that there is has been seen.

        A comparison that fails is made up for, at longer and longer intervals, and logged once.
        """
        await self._begun.wait()  # until then nothing can be listed: of that somebody else tells
        failures = 0
        while True:
            try:
                if self._seen is None:
                    await self._compare()
                else:
                    await self._initial_list(self._seen)
                    self._seen = None
                    begin()
            except Exception as error:  # a bug must not end silently what nobody else does
                if failures == 0 and isinstance(error, ClusterError):
                    log.warning("Resync failed; missed deletions are found later", reason=str(error))
                elif failures == 0:
                    log.error("Resync crashed", exc_info=error)
                failures += 1
                self._wanted.set()
            else:
                failures = 0
            with suppress(TimeoutError):
                async with asyncio.timeout(_EVERY_SECONDS):
                    await self._wanted.wait()
            await asyncio.sleep(exponential(failures + 1, _DEBOUNCE_SECONDS, _LONGEST_PAUSE_SECONDS))
            self._wanted.clear()

    async def _initial_list(self, seen: set[str]) -> None:
        for kind in self._kinds:
            while not await self._is_seen(kind, seen):
                pass

    async def _is_seen(self, kind: str, seen: set[str]) -> bool:
        try:
            missing = await self._list_uids(kind)
        except ClusterError as error:
            log.warning("Waiting for the cluster", reason=str(error))
            await asyncio.sleep(_LIST_AGAIN_SECONDS)
            return False
        last = time.monotonic()
        while missing:
            await asyncio.sleep(_LOOK_SECONDS)
            before, missing = missing, missing - seen
            if len(missing) < len(before):
                last = time.monotonic()
            elif time.monotonic() - last > _LIST_AGAIN_SECONDS:
                return False
        return True

    async def _compare(self) -> None:
        for kind in self._kinds:
            known = self._known(kind)  # before the list: what comes later is not missed
            if missed := known and known - await self._list_uids(kind):
                log.info("Resync found missed deletions", kind=kind, count=len(missed))
                await self._deleted(kind, missed)
