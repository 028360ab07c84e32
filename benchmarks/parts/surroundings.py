"""What every part is given: a server, a folder, how large and how often, and job processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from parts import structures
from parts.server import Server
from siorg_queue import connect
from support.siorg_server import SiorgServer

AT_ONCE = {"WORKER_BATCH_SIZE": "200", "WORKER_CONCURRENCY": "256"}
"""The settings by which the whole government was loaded fastest before it needed none."""
NO_RATE_LIMIT = {"SIORG_MAX_REQUESTS_PER_SECOND": "0"}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the parts are."""

    units: int = 75_000
    """Of the whole government, in 330 organizations; where it is smaller, in fewer."""
    items: int = 20_000
    """Of a queue that is drained without SIORG."""
    rounds: int = 3
    """How often each of those is measured that are compared with one another."""
    large: bool = False
    """Also with ten million rows, which takes long to write."""


@dataclass(frozen=True, slots=True)
class Done:
    """What processes of the job did that ran at once."""

    items: int
    requests: int
    seconds: float
    """Of the longest run, as it says; without a run, of all from start to end."""
    cpu: float
    """Seconds, of all together, start included."""
    peak_mib: float
    """Of the largest."""


@dataclass
class Bench:
    """What every part is given."""

    server: Server
    folder: Path
    sizes: Sizes = field(default_factory=Sizes)

    def environment(self, url: str, siorg_url: str = "http://127.0.0.1:9/doc", **more: str) -> dict[str, str]:
        """Of a job: nothing is set but what it cannot do without, and ``more``."""
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "DATABASE_URL": url,
            "SIORG_API_URL": siorg_url,
            "SIORG_ALLOW_INSECURE": "true",
            "LOG_LEVEL": "warning",
            **more,
        }

    def job(
        self, url: str, siorg_url: str, *arguments: str, settings: Mapping[str, str] | None = None, processes: int = 1
    ) -> Done:
        """Run siorg-job processes at once to their ends."""
        command, env = [sys.executable, "-m", "siorg_job", *arguments], self.environment(url, siorg_url, **(settings or {}))
        started = time.monotonic()
        running = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
        done = []
        for process in running:
            assert process.stdout is not None
            with process.stdout as output:
                said = output.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode != 0:
                raise SystemExit(f"siorg-job {' '.join(arguments)} exited {process.returncode}")
            summary = json.loads(said.splitlines()[-1]) if arguments[0] == "run" else {}
            done.append((summary, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024))
        wall = time.monotonic() - started
        return Done(
            items=sum(summary.get("completed", 0) for summary, _, _ in done),
            requests=sum(summary.get("requests", 0) for summary, _, _ in done),
            seconds=max(summary.get("duration_seconds", wall) for summary, _, _ in done),
            cpu=sum(cpu for _, cpu, _ in done),
            peak_mib=max(peak for _, _, peak in done),
        )

    @cached_property
    def government(self) -> Government:
        """The whole government; made when it is first asked for."""
        return Government(self)


class Government:
    """As many units as the sizes say: 75,000 in 330 organizations, of which one has 6,600."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.units = bench.sizes.units
        self.organizations = max(2, min(330, self.units // 20))
        rows = structures.government(self.organizations, self.units, round(self.units * 0.088))
        self.snapshot = structures.write(bench.folder / "government.json", rows)

    @contextmanager
    def siorg(self, latency_ms: int = 0) -> Iterator[SiorgServer]:
        """A SIORG that serves it."""
        with SiorgServer("--snapshot", str(self.snapshot), "--latency-ms", str(latency_ms)) as siorg:
            yield siorg

    @cached_property
    def registered(self) -> str:
        """A database that keeps these organizations, and nothing of them yet."""
        url = self._bench.server.copy(self._bench.server.empty())
        with connect(url, application_name="bench") as connection:
            connection.cursor().executemany(
                "INSERT INTO organizations (siorg_code, acronym, name, cnpj, ug_code) VALUES (%s, %s, %s, %s, 1)",
                [
                    (code, f"O{code}", f"Organização {code}", f"{code:014d}")
                    for code in range(100_001, 100_000 + self.organizations)
                ],
            )
        return url

    @cached_property
    def discovered(self) -> str:
        """The same after a discovery: all units are waiting."""
        url = self._bench.server.copy(self.registered)
        with self.siorg() as siorg:
            self._bench.job(url, siorg.url, "discover", settings=NO_RATE_LIMIT)
        return url

    @cached_property
    def loaded(self) -> str:
        """The same in line with SIORG, and tidied by VACUUM."""
        url = self._bench.server.copy(self.discovered)
        with self.siorg() as siorg:
            self._bench.job(url, siorg.url, "run", settings=NO_RATE_LIMIT | AT_ONCE)
        with connect(url, application_name="bench") as connection:
            connection.execute("VACUUM ANALYZE")
        return url

    def close(self) -> None:
        for name in ("registered", "discovered", "loaded"):
            if name in self.__dict__:
                self._bench.server.drop(self.__dict__[name])
