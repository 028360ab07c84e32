"""Replicas as processes, started, stopped and killed by a test; each leaves behind when it acted and what it logged.

``main([ACTS, FIELD=SECONDS, …], …)`` is one: it waits for the lead on the cluster of KUBECONFIG, acts while it leads, releases
it on SIGTERM. For each act, a line with the time is appended to the file ``ACTS``, by the clock that all processes of this
machine share.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from siorg_operator.cluster.connection import api_client
from siorg_operator.cluster.leader import Leadership
from siorg_operator.settings import OperatorSettings
from siorg_runtime.logs import configure
from support.cluster import Cluster
from support.fleet import eventually
from support.forks import Forked

_ACT_SECONDS = 0.01


class Replica:
    """A process that leads or stands by."""

    def __init__(self, cluster: Cluster, folder: Path, name: str, times: tuple[str, ...]) -> None:
        self._acts, self._log = folder / f"{name}.acts", folder / f"{name}.err"
        self._acts.touch()
        env = {"KUBECONFIG": str(cluster.kubeconfig), "POD_NAMESPACE": cluster.namespace}
        self._log.touch()
        self.process = Forked("support.lease_replicas", [str(self._acts), *times], {**os.environ, **env}, out=self._log)

    @property
    def acts(self) -> list[float]:
        """When it acted."""
        return [float(line) for line in self._acts.read_text().splitlines(keepends=True) if line.endswith("\n")]

    @property
    def messages(self) -> list[str]:
        """What it logged."""
        return [json.loads(line)["message"] for line in self._log.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def leads(self, *, within: float = 10.0) -> float:
        """When it acted first."""
        return eventually(lambda: self.acts, seconds=within, every=0.01)[0]

    def send(self, number: signal.Signals) -> float:
        """When that was."""
        now = time.monotonic()
        os.kill(self.process.pid, number)
        return now


class Replicas:
    """All replicas of one test; ``end`` kills what still runs."""

    def __init__(self, cluster: Cluster, folder: Path, *times: str) -> None:
        self._cluster, self._folder, self._times = cluster, folder, times
        self.all: list[Replica] = []

    def start(self, name: str) -> Replica:
        self.all.append(Replica(self._cluster, self._folder, name, self._times))
        return self.all[-1]

    def never_acted_together(self) -> bool:
        """Whether each replica's time of acting, from first to last, is free of the others' acts."""
        spans = sorted((replica.acts[0], replica.acts[-1]) for replica in self.all if replica.acts)
        return all(end < begin for (_, end), (begin, _) in pairwise(spans))

    def end(self) -> None:
        for replica in self.all:
            if replica.process.poll() is None:
                replica.send(signal.SIGCONT)
                replica.process.kill()
            replica.process.wait()


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> None:
    acts, *seconds = arguments
    configure("json", "info")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    times = (field.split("=") for field in seconds)
    environment = {f"SIORG_OPERATOR_{name.upper()}": value for name, value in times}
    environment |= {"SIORG_OPERATOR_NAMESPACE": environ["POD_NAMESPACE"], "SIORG_OPERATOR_IDENTITY": Path(acts).stem}
    leadership = Leadership(api_client(), OperatorSettings.from_environment(environment))
    if leadership.wait_until_leading(stop):
        with Path(acts).open("a") as file:
            while not stop.is_set():
                if leadership.is_leader:
                    file.write(f"{time.monotonic()}\n")
                    file.flush()
                time.sleep(_ACT_SECONDS)
    leadership.release()
