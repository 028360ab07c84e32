"""What goes when something else is gone: dependents of owners, contents of namespaces, objects of definitions.

Stands for the garbage collector, the namespace controller and the definitions' finalizer. It acts a moment after the
change that gave it work, as the real ones do: whoever watches sees two steps.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from kube_double.definitions import FINALIZER
from kube_double.definitions import PLACE as DEFINITIONS
from kube_double.deletion import FOREGROUND, ORPHAN, DeleteOptions, delete
from kube_double.kinds import Kind
from kube_double.refused import Body, Refused
from kube_double.registry import Registry
from kube_double.store import Change, Key, Place

NAMESPACES: Place = ("", "namespaces")
_BACKGROUND = DeleteOptions("Background")


class GarbageCollector:
    """Follows the store's changes.

    Args:
        registry: Whose objects.
        soon: Calls ``collect`` a moment later, in a thread of its choice.
    """

    def __init__(self, registry: Registry, soon: Callable[[], None]) -> None:
        self._registry = registry
        self._soon = soon
        self._work: dict[tuple[Place, Key], None] = {}
        self._ending: set[str] = set()
        registry.store.on_change(self._changed)

    def _changed(self, place: Place, change: Change) -> None:
        before = len(self._work)
        metadata = change.last.body["metadata"]
        if change.after is None:
            for dependent in self._registry.store.dependents(metadata["uid"]):
                self._work[dependent] = None
            for owner in metadata.get("ownerReferences") or ():
                if (found := self._registry.store.with_uid(owner["uid"])) is not None:
                    self._work[found] = None
            if change.last.key[0] in self._ending:
                self._work[NAMESPACES, ("", change.last.key[0])] = None
            for definition in self._definition_of(place):
                self._work[DEFINITIONS, ("", definition)] = None
        else:
            owners = metadata.get("ownerReferences") or ()
            if any(self._registry.store.with_uid(owner["uid"]) is None for owner in owners):
                self._work[place, change.after.key] = None
            if "deletionTimestamp" in metadata:
                self._work[place, change.after.key] = None
                if place == NAMESPACES:
                    self._ending.add(change.after.key[1])
        if len(self._work) > before:
            self._soon()

    def _definition_of(self, place: Place) -> list[str]:
        return (
            [f"{place[1]}.{place[0]}"] if any(kind.custom and kind.collection == place for kind in self._registry.kinds) else []
        )

    def collect(self) -> None:
        """Do what there is to do now."""
        with self._registry.store.lock:
            work, self._work = list(self._work), {}
            for place, key in work:
                entry = self._registry.store.get(place, key)
                if entry is None:
                    continue
                with suppress(Refused):
                    if place == NAMESPACES:
                        self._end_namespace(key[1])
                    elif place == DEFINITIONS:
                        self._end_definition(key[1], entry.body)
                    else:
                        self._visit(place, key, entry.body)

    def _kind(self, place: Place) -> Kind | None:
        return next((kind for kind in self._registry.kinds if kind.collection == place), None)

    def _visit(self, place: Place, key: Key, body: Body) -> None:
        metadata = body["metadata"]
        finalizers = metadata.get("finalizers") or []
        if "deletionTimestamp" in metadata and ORPHAN in finalizers:
            self._orphan(body)
            self._release(place, key, ORPHAN)
        elif "deletionTimestamp" in metadata and FOREGROUND in finalizers:
            if not self._delete_dependents(body):
                self._release(place, key, FOREGROUND)
        elif metadata.get("ownerReferences"):
            self._check_owners(place, key, body)

    def _check_owners(self, place: Place, key: Key, body: Body) -> None:
        owners = body["metadata"]["ownerReferences"]
        there = [owner for owner in owners if self._registry.store.with_uid(owner["uid"]) is not None]
        kind = self._kind(place)
        if len(there) == len(owners) or kind is None:
            return
        if there:
            self._registry.store.put(place, key, {**body, "metadata": {**body["metadata"], "ownerReferences": there}})
        elif "deletionTimestamp" not in body["metadata"]:
            delete(self._registry, kind, *key, _BACKGROUND)

    def _orphan(self, owner: Body) -> None:
        uid = owner["metadata"]["uid"]
        for place, key in self._registry.store.dependents(uid):
            entry = self._registry.store.get(place, key)
            if entry is None:
                continue
            left = [each for each in entry.body["metadata"]["ownerReferences"] if each["uid"] != uid]
            metadata = {**entry.body["metadata"], "ownerReferences": left}
            if not left:
                del metadata["ownerReferences"]
            self._registry.store.put(place, key, {**entry.body, "metadata": metadata})

    def _delete_dependents(self, owner: Body) -> bool:
        """Whether dependents are left that block the owner."""
        uid = owner["metadata"]["uid"]
        for place, key in self._registry.store.dependents(uid):
            entry, kind = self._registry.store.get(place, key), self._kind(place)
            if entry is not None and kind is not None and "deletionTimestamp" not in entry.body["metadata"]:
                delete(self._registry, kind, *key, _BACKGROUND)
        blocking = False
        for place, key in self._registry.store.dependents(uid):
            entry = self._registry.store.get(place, key)
            references = entry.body["metadata"].get("ownerReferences") or () if entry is not None else ()
            blocking = blocking or any(each["uid"] == uid and each.get("blockOwnerDeletion") for each in references)
        return blocking

    def _release(self, place: Place, key: Key, finalizer: str) -> None:
        entry = self._registry.store.get(place, key)
        if entry is None:
            return
        metadata = dict(entry.body["metadata"])
        left = [each for each in metadata.get("finalizers") or () if each != finalizer]
        metadata |= {"finalizers": left}
        if left:
            self._registry.store.put(place, key, {**entry.body, "metadata": metadata})
            return
        del metadata["finalizers"]
        self._registry.store.remove(place, key, {**entry.body, "metadata": metadata})

    def _end_namespace(self, name: str) -> None:
        entry = self._registry.store.get(NAMESPACES, ("", name))
        if entry is None or "deletionTimestamp" not in entry.body["metadata"]:
            return
        left = False
        for kind in {kind.collection: kind for kind in self._registry.kinds if kind.namespaced}.values():
            for each in self._registry.store.collection(kind.collection).entries(name):
                if "deletionTimestamp" not in each.body["metadata"]:
                    delete(self._registry, kind, *each.key, _BACKGROUND)
                left = left or self._registry.store.get(kind.collection, each.key) is not None
        if not left:
            self._ending.discard(name)
            self._registry.store.remove(NAMESPACES, ("", name), {**entry.body, "spec": {}})

    def _end_definition(self, name: str, body: Body) -> None:
        if "deletionTimestamp" not in body["metadata"]:
            return
        left = False
        for kind in [kind for kind in self._registry.kinds if kind.definition == name][:1]:
            for each in self._registry.store.collection(kind.collection).entries(None):
                if "deletionTimestamp" not in each.body["metadata"]:
                    delete(self._registry, kind, *each.key, _BACKGROUND)
                left = left or self._registry.store.get(kind.collection, each.key) is not None
        if not left:
            self._release(DEFINITIONS, ("", name), FINALIZER)
