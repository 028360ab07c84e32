"""What goes when something else is gone: dependents of owners, contents of namespaces, objects of definitions.

Stands for the garbage collector, the namespace controller and the definitions' finalizer. It acts a moment after the
change that gave it work, as the real ones do: whoever watches sees two steps.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from kube_double.definitions import FINALIZER
from kube_double.definitions import PLACE as DEFINITIONS
from kube_double.errors import Body, Refused
from kube_double.kinds import Kind
from kube_double.registry import ORPHAN, DeleteOptions, Registry
from kube_double.store import Change, Entry, Key, Place

NAMESPACES: Place = ("", "namespaces")
_BACKGROUND = DeleteOptions("Background")


class GarbageCollector:
    """Follows the store's changes.

    Args:
        registry: Whose objects.
        soon: Calls ``collect`` a moment later, in a thread of its choice.
    """

    def __init__(self, registry: Registry, soon: Callable[[], None]) -> None:
        self._registry, self._store, self._soon = registry, registry.store, soon
        self._work: dict[tuple[Place, Key], None] = {}
        self._store.listeners.append(self._changed)

    def _changed(self, place: Place, change: Change) -> None:
        before, metadata = len(self._work), change.last.body["metadata"]
        if change.after is None:
            self._work |= dict.fromkeys(self._store.dependents(metadata["uid"]))
            for held in ((NAMESPACES, ("", change.last.key[0])), (DEFINITIONS, ("", f"{place[1]}.{place[0]}"))):
                if (entry := self._store.get(*held)) is not None and "deletionTimestamp" in entry.body["metadata"]:
                    self._work[held] = None
        elif "deletionTimestamp" in metadata or not all(map(self._is_there, metadata.get("ownerReferences") or ())):
            self._work[place, change.after.key] = None
        if len(self._work) > before:
            self._soon()

    def _is_there(self, owner: Body) -> bool:
        return self._store.with_uid(owner["uid"]) is not None

    def collect(self) -> None:
        with self._store.lock:
            work, self._work = list(self._work), {}
            for place, key in work:
                entry, kind = self._store.get(place, key), self._registry.kinds.at(place)
                if entry is not None and kind is not None:
                    with suppress(Refused):
                        self._visit(kind, entry)

    def _visit(self, kind: Kind, entry: Entry) -> None:
        metadata = entry.body["metadata"]
        owners = metadata.get("ownerReferences") or []
        left = [owner for owner in owners if self._is_there(owner)]
        if "deletionTimestamp" not in metadata:
            if owners and not left:
                self._registry.delete(kind, *entry.key, _BACKGROUND)
            elif left != owners:
                self._put(kind, entry, ownerReferences=left)
        elif kind.collection == NAMESPACES:
            if not self._emptied([each for each in self._registry.kinds if each.namespaced], entry.key[1]):
                self._store.remove(NAMESPACES, entry.key, entry.body)
        elif kind.collection == DEFINITIONS:
            if not self._emptied([each for each in self._registry.kinds if each.definition == entry.key[1]], None):
                self._release(kind, entry, FINALIZER)
        elif ORPHAN in (metadata.get("finalizers") or ()):
            for place, key in self._store.dependents(metadata["uid"]):
                dependent, of = self._store.get(place, key), self._registry.kinds.at(place)
                if dependent is not None and of is not None:
                    references = dependent.body["metadata"]["ownerReferences"]
                    self._put(of, dependent, ownerReferences=[each for each in references if each["uid"] != metadata["uid"]])
            self._release(kind, entry, ORPHAN)

    def _emptied(self, kinds: list[Kind], namespace: str | None) -> bool:
        """Delete all of these kinds; whether something is left that finalizers or processes hold."""
        left = False
        for kind in kinds:
            for each in self._store.collection(kind.collection).entries(namespace):
                if "deletionTimestamp" not in each.body["metadata"]:
                    self._registry.delete(kind, *each.key, _BACKGROUND)
                left = left or self._store.get(kind.collection, each.key) is not None
        return left

    def _put(self, kind: Kind, entry: Entry, **changes: list[Body]) -> None:
        metadata = {name: value for name, value in {**entry.body["metadata"], **changes}.items() if value != []}
        self._store.put(kind.collection, entry.key, {**entry.body, "metadata": metadata})

    def _release(self, kind: Kind, entry: Entry, finalizer: str) -> None:
        """Take a finalizer away; the object goes with the last one."""
        left = [each for each in entry.body["metadata"].get("finalizers") or () if each != finalizer]
        if left:
            self._put(kind, entry, finalizers=left)
        else:
            metadata = {name: value for name, value in entry.body["metadata"].items() if name != "finalizers"}
            self._store.remove(kind.collection, entry.key, {**entry.body, "metadata": metadata})
