"""The objects, every change to them under one counter, and who waits for changes.

Every version of an object is serialized once, when it is written: lists and watches only join bytes, so that ten
thousand objects stay cheap. Nothing that the store holds is ever changed in place.
"""

from __future__ import annotations

import json
from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import RLock
from typing import Any

from kube_double.errors import Body

Key = tuple[str, str]
"""(namespace, name); the namespace is empty for what belongs to none."""
Place = tuple[str, str]
"""(group, plural): one collection."""
_TYPE = frozenset({"apiVersion", "kind"})


def serialized(body: Any) -> bytes:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def now() -> str:
    """Now, as Kubernetes writes times: in whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Entry:
    """One version of one object."""

    key: Key
    body: Body
    version: int
    text: bytes
    """The body without apiVersion and kind: items of a list of a built-in kind have none."""

    @classmethod
    def of(cls, key: Key, body: Body, version: int) -> Entry:
        body = {**body, "metadata": {**body["metadata"], "resourceVersion": str(version)}}
        return cls(key, body, version, serialized({name: value for name, value in body.items() if name not in _TYPE}))

    def copy(self) -> Body:
        return {"kind": self.body["kind"], "apiVersion": self.body["apiVersion"], **json.loads(self.text)}


@dataclass(frozen=True, slots=True)
class Change:
    """One write: what was, and what is. ``after`` None is a deletion, whose last state is ``last``."""

    version: int
    before: Entry | None
    after: Entry | None
    last: Entry


@dataclass(slots=True)
class Collection:
    """All objects of one kind, in the order of their keys, and the log of their changes."""

    objects: dict[Key, Entry] = field(default_factory=dict)
    keys: list[Key] = field(default_factory=list)
    log: list[Change] = field(default_factory=list)
    forgotten: int = 0
    """Changes up to this version are no longer in the log."""

    def entries(self, namespace: str | None) -> list[Entry]:
        """In key order; None for all namespaces."""
        if namespace is None:
            return [self.objects[key] for key in self.keys]
        first, end = bisect_left(self.keys, (namespace, "")), bisect_left(self.keys, (f"{namespace}\0", ""))
        return [self.objects[key] for key in self.keys[first:end]]

    def since(self, version: int) -> list[Change]:
        return self.log[bisect_left(self.log, version + 1, key=lambda change: change.version) :]


@dataclass(slots=True)
class Store:
    """Everything that is there. Hold ``lock`` around a read and the write that depends on it."""

    lock: RLock = field(default_factory=RLock)
    version: int = 1
    listeners: list[Callable[[Place, Change], None]] = field(default_factory=list)
    """Called after every write, in the thread of the write, with the lock held."""
    _forgotten: int = 0
    _collections: dict[Place, Collection] = field(default_factory=dict)
    _places_of_uids: dict[str, tuple[Place, Key]] = field(default_factory=dict)
    _dependents: dict[str, set[tuple[Place, Key]]] = field(default_factory=dict)

    def collection(self, place: Place) -> Collection:
        with self.lock:
            return self._collections.setdefault(place, Collection(forgotten=self._forgotten))

    def get(self, place: Place, key: Key) -> Entry | None:
        with self.lock:
            return self.collection(place).objects.get(key)

    def put(self, place: Place, key: Key, body: Body) -> Entry:
        """Write ``body`` as the next version of the object; its resourceVersion is set here."""
        with self.lock:
            collection = self.collection(place)
            before, after = collection.objects.get(key), self._next(key, body)
            if before is None:
                insort(collection.keys, key)
            collection.objects[key] = after
            self._record(place, Change(after.version, before, after, after))
            return after

    def remove(self, place: Place, key: Key, body: Body) -> Entry:
        """Delete the object, whose last state is ``body``."""
        with self.lock:
            collection = self.collection(place)
            before, last = collection.objects.pop(key), self._next(key, body)
            collection.keys.pop(bisect_left(collection.keys, key))
            self._record(place, Change(last.version, before, None, last))
            return last

    def forget(self) -> None:
        """Compact: nothing up to now can be watched from any more."""
        with self.lock:
            self._forgotten = self.version
            for collection in self._collections.values():
                collection.log.clear()
                collection.forgotten = self.version

    def with_uid(self, uid: str) -> tuple[Place, Key] | None:
        with self.lock:
            return self._places_of_uids.get(uid)

    def dependents(self, uid: str) -> list[tuple[Place, Key]]:
        """Objects that name ``uid`` as an owner."""
        with self.lock:
            return sorted(self._dependents.get(uid, ()))

    def _next(self, key: Key, body: Body) -> Entry:
        self.version += 1
        return Entry.of(key, body, self.version)

    def _record(self, place: Place, change: Change) -> None:
        for entry, there in ((change.before, False), (change.after, True)):
            if entry is not None:
                metadata, where = entry.body["metadata"], (place, entry.key)
                self._places_of_uids.pop(metadata["uid"], None)
                if there:
                    self._places_of_uids[metadata["uid"]] = where
                for owner in metadata.get("ownerReferences") or ():
                    known = self._dependents.setdefault(owner["uid"], set())
                    (known.add if there else known.discard)(where)
        self.collection(place).log.append(change)
        for listener in self.listeners:
            listener(place, change)
