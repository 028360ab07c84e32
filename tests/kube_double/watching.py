"""Watches: what changed since a version, as a stream of events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Literal

from kube_double.refused import Refused, bad_request, expired
from kube_double.shown import Form, Shown
from kube_double.store import Change, Entry, Place, Store, serialized

Kind = Literal["ADDED", "MODIFIED", "DELETED"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a watch asks for."""

    place: Place
    namespace: str | None
    matches: Callable[[Entry], bool] | None
    version: str
    bookmarks: bool
    initial: bool
    """Whether to send what is there first, and say where that ends (sendInitialEvents)."""
    seconds: float


class Watches:
    """All watches that run."""

    def __init__(self, store: Store, loop: asyncio.AbstractEventLoop, bookmark_seconds: float) -> None:
        self._store, self._loop, self._bookmark_seconds = store, loop, bookmark_seconds
        self._sleepers: dict[Place, set[asyncio.Event]] = {}
        self._breach: tuple[int, Refused] = (0, expired(""))
        store.on_change(self._changed)

    def _changed(self, place: Place, _: Change) -> None:
        if self._sleepers.get(place):
            self._loop.call_soon_threadsafe(self._wake, place)

    def _wake(self, place: Place) -> None:
        for sleeper in self._sleepers.get(place, ()):
            sleeper.set()

    def break_off(self, error: Refused) -> None:
        """End every watch that runs with this error."""
        self._breach = (self._breach[0] + 1, error)
        for place in list(self._sleepers):
            self._wake(place)

    async def events(self, wanted: Wanted, shown: Shown) -> AsyncIterator[bytes]:
        """Lines of the answer, until the time is over.

        Raises:
            Refused: The version cannot be read.
        """
        if not (wanted.version or "0").isdigit():
            raise bad_request(f"Invalid value: {wanted.version!r}: strconv.ParseUint: parsing {wanted.version!r}: invalid syntax")
        breaches = self._breach[0]
        awake = asyncio.Event()
        self._sleepers.setdefault(wanted.place, set()).add(awake)
        try:
            ends = time.monotonic() + wanted.seconds
            with self._store.lock:
                collection = self._store.collection(wanted.place)
                at = int(wanted.version or 0)
                first: list[Entry] = []
                if at == 0 or wanted.initial:
                    at = self._store.version
                    first = [entry for entry in collection.entries(wanted.namespace) if _fits(wanted, entry)]
                too_old = at < collection.forgotten
            if too_old:
                yield _error(expired(f"too old resource version: {at} ({collection.forgotten + 1})"))
                return
            for entry in first:
                yield _event("ADDED", shown.one(entry))
            if wanted.initial:
                yield _bookmark(shown, at, initial_end=True)
            bookmark_at = time.monotonic() + self._bookmark_seconds
            while True:
                awake.clear()
                with self._store.lock:
                    changes, now_at = collection.since(at), self._store.version
                for change in changes:
                    line = _line(wanted, shown, change)
                    if line is not None:
                        yield line
                at = now_at
                if self._breach[0] != breaches:
                    yield _error(self._breach[1])
                    return
                until = min(ends, bookmark_at if wanted.bookmarks else ends)
                try:
                    async with asyncio.timeout(max(until - time.monotonic(), 0)):
                        await awake.wait()
                except TimeoutError:
                    if wanted.bookmarks:
                        yield _bookmark(shown, at)
                        bookmark_at = time.monotonic() + self._bookmark_seconds
                    if time.monotonic() >= ends:
                        return
        finally:
            self._sleepers[wanted.place].discard(awake)


def _fits(wanted: Wanted, entry: Entry) -> bool:
    return wanted.namespace in (None, entry.key[0]) and (wanted.matches is None or wanted.matches(entry))


def _line(wanted: Wanted, shown: Shown, change: Change) -> bytes | None:
    """The event that a change is for this watch: what stops matching is DELETED for it."""
    was = change.before is not None and _fits(wanted, change.before)
    is_now = change.after is not None and _fits(wanted, change.after)
    if not was and not is_now:
        return None
    if is_now:
        return _event("MODIFIED" if was else "ADDED", shown.one(change.last))
    if change.after is None:
        return _event("DELETED", shown.one(change.last))
    assert change.before is not None
    return _event("DELETED", shown.one(Entry.of(change.before.key, change.before.body, change.version)))


def _event(kind: str, text: bytes) -> bytes:
    return b'{"type":"' + kind.encode() + b'","object":' + text + b"}\n"


def _error(error: Refused) -> bytes:
    return _event("ERROR", serialized(error.status))


def _bookmark(shown: Shown, version: int, *, initial_end: bool = False) -> bytes:
    metadata: dict[str, object] = {"resourceVersion": str(version), "creationTimestamp": None}
    if initial_end:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    body: dict[str, object] = {"kind": shown.kind.kind, "apiVersion": shown.kind.api_version, "metadata": metadata}
    if shown.form is Form.TABLE:
        body = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": str(version)},
                "columnDefinitions": None, "rows": []}  # fmt: skip
    return _event("BOOKMARK", serialized(body))
