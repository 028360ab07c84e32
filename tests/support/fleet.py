"""Job processes that a test kills, stops and starts again. Their output goes to files, so that nobody has to read it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from support.job import summary_of
from support.ledger import acting_as

T = TypeVar("T")


def eventually(condition: Callable[[], T], *, seconds: float = 30.0, every: float = 0.05) -> T:
    """Wait until ``condition()`` is truthy and return it."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(every)
    return found


class Job:
    """One ``siorg-job`` process."""

    def __init__(self, name: str, arguments: tuple[str, ...], env: Mapping[str, str], folder: Path) -> None:
        """Start it."""
        self.name = name
        self._stdout, self._stderr = folder / f"{name}.out", folder / f"{name}.err"
        self.started = time.monotonic()
        with self._stdout.open("w") as out, self._stderr.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "siorg_job", *arguments],
                env=dict(env), stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            )  # fmt: skip

    @property
    def stdout(self) -> str:
        return self._stdout.read_text()

    @property
    def stderr(self) -> str:
        return self._stderr.read_text()

    @property
    def summary(self) -> dict[str, Any]:
        return summary_of(self.stdout)

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def ends(self, *, within: float = 30.0) -> int:
        """Its exit code."""
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} still runs after {within:g} s\n{self.stdout}\n{self.stderr}") from None

    def end(self) -> None:
        if self.running:
            self.send(signal.SIGCONT)
            self.process.kill()
            self.process.wait()


class Fleet:
    """Starts jobs with one environment; kills what is left at the end."""

    def __init__(self, env: Mapping[str, str], folder: Path, *, named: bool = True) -> None:
        """``named``: whether the ledger is told their names, which PgBouncer does not pass on."""
        self._named = named
        self._env = env
        self._folder = folder
        self.jobs: list[Job] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for job in self.jobs:
            job.end()

    def start(self, *arguments: str, name: str | None = None, **env: str) -> Job:
        """Start a job, ``run`` unless told otherwise; the ledger has its name."""
        name = name or f"job{len(self.jobs)}"
        acting = acting_as(name) if self._named else {}
        job = Job(name, arguments or ("run",), {**self._env, **acting, **env}, self._folder)
        self.jobs.append(job)
        return job
