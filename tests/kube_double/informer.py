"""Keeps a local copy of a resource's objects by listing and watching, as controllers do."""

from __future__ import annotations

import threading
from collections.abc import Callable

from support.kube import ApiError, Body, Kube

_WATCH_SECONDS = 300
_AGAIN_SECONDS = 0.2


class Informer:
    """Objects of one resource.

    Args:
        kube: The API.
        resource: The plural.
        changed: Called for every object that came, changed or went, with its last state and whether it is there;
            in this informer's thread.
        labels: Label selector.
        fields: Field selector.
        namespace: Only objects of this one.
    """

    def __init__(
        self, kube: Kube, resource: str, changed: Callable[[Body, bool], None], *, labels: str = "", fields: str = "",
        namespace: str = "*",
    ) -> None:  # fmt: skip
        self._namespace = namespace
        self._kube, self._resource, self._changed = kube, resource, changed
        self._labels, self._fields = labels, fields
        self._objects: dict[str, Body] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._synced = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"informer-{resource}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wait_synced(self, seconds: float = 60.0) -> None:
        assert self._synced.wait(seconds), f"no list of {self._resource} within {seconds:g} s"

    def stop(self) -> None:
        """End at the next event or when the connections are closed."""
        self._stop.set()

    def get(self, uid: str) -> Body | None:
        with self._lock:
            return self._objects.get(uid)

    def learn(self, body: Body) -> None:
        """Take in what a write answered, ahead of the watch."""
        self._take(body, there=True, quiet=True)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                version = self._list()
                self._synced.set()
                while not self._stop.is_set() and version:
                    version = self._follow(version)
            except ApiError:
                self._stop.wait(_AGAIN_SECONDS)

    def _list(self) -> str:
        answer = self._kube.request(
            "GET", self._kube.path(self._resource, self._namespace), labelSelector=self._labels, fieldSelector=self._fields
        )
        there = {item["metadata"]["uid"]: item for item in answer["items"]}
        with self._lock:
            gone = [body for uid, body in self._objects.items() if uid not in there]
        for body in gone:
            self._take(body, there=False)
        for body in there.values():
            self._take(body, there=True)
        return str(answer["metadata"]["resourceVersion"])

    def _follow(self, version: str) -> str:
        """Watch from ``version``; where to go on, or nothing if only a new list helps."""
        events = self._kube.watch(
            self._resource, self._namespace, version=version, labels=self._labels, fields=self._fields, seconds=_WATCH_SECONDS,
            allowWatchBookmarks="true",
        )  # fmt: skip
        for event in events:
            if self._stop.is_set():
                return ""
            if event["type"] == "ERROR":
                return ""
            body = event["object"]
            version = body["metadata"]["resourceVersion"]
            if event["type"] != "BOOKMARK":
                self._take(body, there=event["type"] != "DELETED")
        return version

    def _take(self, body: Body, *, there: bool, quiet: bool = False) -> None:
        uid = body["metadata"]["uid"]
        with self._lock:
            known = self._objects.get(uid)
            if known is not None and int(known["metadata"]["resourceVersion"]) > int(body["metadata"]["resourceVersion"]):
                return
            if there:
                self._objects[uid] = body
            else:
                self._objects.pop(uid, None)
        if not quiet:
            self._changed(body, there)
