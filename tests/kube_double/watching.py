"""Watches: what changed since a version, as a stream of events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from kube_double.errors import Body, bad_request, expired
from kube_double.forms import Form
from kube_double.store import Change, Entry, Place, Store, serialized


@dataclass(frozen=True, slots=True)
class Wanted:
    place: Place
    namespace: str | None
    matches: Callable[[Body], bool] | None
    version: str
    bookmarks: bool
    seconds: float
    form: Form
    user_agent: str


class Watches:
    def __init__(self, store: Store, loop: asyncio.AbstractEventLoop, bookmark_seconds: float) -> None:
        self._store, self._loop, self._bookmark_seconds = store, loop, bookmark_seconds
        self._sleepers: dict[Place, set[asyncio.Event]] = {}
        self._breaks: list[tuple[str, bytes]] = []
        store.listeners.append(self._changed)

    def _changed(self, place: Place, _: Change) -> None:
        if self._sleepers.get(place):
            self._loop.call_soon_threadsafe(self._wake, place)

    def _wake(self, place: Place) -> None:
        for sleeper in self._sleepers.get(place, ()):
            sleeper.set()

    def break_off(self, user_agent: str, line: bytes) -> None:
        """End every watch that runs and has this in its User-Agent, with that line."""
        self._breaks.append((user_agent, line))
        for place in list(self._sleepers):
            self._wake(place)

    async def events(self, wanted: Wanted) -> AsyncIterator[bytes]:
        """Lines of the answer, until the time is over.

        Raises:
            Refused: The version cannot be read.
        """
        if not (wanted.version or "0").isdigit():
            raise bad_request(f"invalid resource version: {wanted.version!r}")
        breaks, awake = len(self._breaks), asyncio.Event()
        self._sleepers.setdefault(wanted.place, set()).add(awake)
        try:
            ends = time.monotonic() + wanted.seconds
            with self._store.lock:
                collection, at = self._store.collection(wanted.place), int(wanted.version or 0)
                there = [] if at else [each for each in collection.entries(wanted.namespace) if _fits(wanted, each)]
                at = at or self._store.version
                too_old = at < collection.forgotten
            if too_old:
                yield _gone(f"too old resource version: {at} ({collection.forgotten + 1})")
                return
            for entry in there:
                yield _event("ADDED", wanted.form.one(entry))
            bookmark_at = time.monotonic() + self._bookmark_seconds
            while True:
                awake.clear()
                with self._store.lock:
                    changes, at = collection.since(at), self._store.version
                for change in changes:
                    if (line := _line(wanted, change)) is not None:
                        yield line
                for user_agent, line in self._breaks[breaks:]:
                    if user_agent in wanted.user_agent:
                        yield line
                        return
                until = min(ends, bookmark_at if wanted.bookmarks else ends)
                try:
                    async with asyncio.timeout(max(until - time.monotonic(), 0)):
                        await awake.wait()
                except TimeoutError:
                    if wanted.bookmarks:
                        yield _bookmark(wanted, at)
                        bookmark_at = time.monotonic() + self._bookmark_seconds
                    if time.monotonic() >= ends:
                        return
        finally:
            self._sleepers[wanted.place].discard(awake)


def _fits(wanted: Wanted, entry: Entry) -> bool:
    return wanted.namespace in (None, entry.key[0]) and (wanted.matches is None or wanted.matches(entry.body))


def _line(wanted: Wanted, change: Change) -> bytes | None:
    """The event that a change is for this watch: what stops matching is DELETED for it."""
    was = change.before is not None and _fits(wanted, change.before)
    if change.after is not None and _fits(wanted, change.after):
        return _event("MODIFIED" if was else "ADDED", wanted.form.one(change.last))
    if not was or change.before is None:
        return None
    last = change.last if change.after is None else Entry.of(change.before.key, change.before.body, change.version)
    return _event("DELETED", wanted.form.one(last))


def error_event(status: Body) -> bytes:
    return _event("ERROR", serialized(status))


def _event(kind: str, text: bytes) -> bytes:
    return b'{"type":"' + kind.encode() + b'","object":' + text + b"}\n"


def _gone(message: str) -> bytes:
    return error_event(expired(message).status)


def _bookmark(wanted: Wanted, version: int) -> bytes:
    kind = wanted.form.kind
    about = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": {"resourceVersion": str(version)}}
    return _event("BOOKMARK", serialized(about))
