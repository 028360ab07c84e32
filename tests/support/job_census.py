"""Counts the unfinished Jobs of a namespace after every single change, in the order in which the API server made them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kube_double.informer import Informer
from support.kube import Body, Kube
from support.siorg_world import DRAIN, is_finished

_SLOT = "siorg.waterswamp.dev/slot"
_WORKER = "siorg.waterswamp.dev/worker"


class JobCensus:
    """What was seen so far."""

    def __init__(self) -> None:
        self._unfinished: dict[str, tuple[str, str]] = {}
        self._lock = threading.Lock()
        self.names: set[str] = set()
        """Of all Jobs that there ever were."""
        self.most = 0
        """Unfinished Jobs of one resource at one moment, at most."""
        self.doubled: list[str] = []
        """Jobs in whose slot there was an unfinished one already."""

    def changed(self, job: Body, there: bool) -> None:
        metadata = job["metadata"]
        uid, place = metadata["uid"], (metadata["labels"][_WORKER], metadata["labels"][_SLOT])
        with self._lock:
            self.names.add(metadata["name"])
            if not there or is_finished(job):
                self._unfinished.pop(uid, None)
                return
            if uid not in self._unfinished and place in self._unfinished.values():
                self.doubled.append(metadata["name"])
            self._unfinished[uid] = place
            self.most = max(self.most, *Counter(worker for worker, _ in self._unfinished.values()).values())


@contextmanager
def job_census(kubeconfig: Path, namespace: str) -> Iterator[JobCensus]:
    """Watches the drain Jobs of ``namespace`` meanwhile."""
    kube = Kube(kubeconfig, namespace=namespace, user_agent="census")
    census = JobCensus()
    informer = Informer(kube, "jobs", census.changed, labels=DRAIN, namespace=namespace)
    informer.start()
    informer.wait_synced()
    try:
        yield census
    finally:
        informer.stop()
        kube.close()
