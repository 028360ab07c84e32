"""Replicas as processes, started, stopped and killed by a test; each leaves behind when it acted and what it logged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from support.fleet import eventually

_TESTS = Path(__file__).resolve().parents[1]


class Replica:
    """A process that leads or stands by: ``support.lease_replica``."""

    def __init__(self, url: str, folder: Path, name: str, times: tuple[str, ...], env: dict[str, str]) -> None:
        """Start it."""
        self.name = name
        self._acts, self._log = folder / f"{name}.acts", folder / f"{name}.err"
        self._acts.touch()
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "support.lease_replica", url, str(self._acts), *times],
                env={**os.environ, "PYTHONPATH": str(_TESTS), **env},
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
            )  # fmt: skip

    @property
    def acts(self) -> list[float]:
        """When it acted."""
        return [float(line) for line in self._acts.read_text().splitlines(keepends=True) if line.endswith("\n")]

    @property
    def said(self) -> list[dict[str, Any]]:
        """What it logged."""
        return [json.loads(line) for line in self._log.read_text().splitlines(keepends=True) if line.endswith("\n")]

    @property
    def last_words(self) -> str:
        return str(self.said[-1]["message"])

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def leads(self, *, within: float = 10.0) -> float:
        """When it acted first."""
        return eventually(lambda: self.acts, seconds=within, every=0.01)[0]

    def stands_by(self) -> None:
        """Wait until it waits."""
        eventually(lambda: any(entry["message"] == "Waiting for the lead" for entry in self.said), seconds=10)
        assert self.running
        assert self.acts == []

    def send(self, number: signal.Signals) -> float:
        """When that was."""
        now = time.monotonic()
        os.kill(self.process.pid, number)
        return now

    def ends(self, *, within: float) -> int:
        """Its exit code."""
        return self.process.wait(within)


class Replicas:
    """All replicas of one test; ``end`` kills what still runs."""

    def __init__(self, url: str, folder: Path, times: tuple[str, ...], **env: str) -> None:
        """``url``, ``times``: see ``support.lease_replica``."""
        self._url, self._folder, self._times, self._env = url, folder, times, env
        self.all: list[Replica] = []

    def start(self, name: str, times: tuple[str, ...] | None = None) -> Replica:
        self.all.append(Replica(self._url, self._folder, name, self._times if times is None else times, self._env))
        return self.all[-1]

    def never_acted_together(self) -> bool:
        """Whether each replica's time of acting, from first to last, is free of the others' acts."""
        spans = sorted((one.acts[0], one.acts[-1]) for one in self.all if one.acts)
        return all(end < begin for (_, end), (begin, _) in pairwise(spans))

    def end(self) -> None:
        for one in self.all:
            if one.running:
                one.send(signal.SIGCONT)
                one.process.kill()
            one.process.wait()
