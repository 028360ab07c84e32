"""A real Prometheus that a test starts, on loopback; and what it says over its HTTP API."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from support.fleet import eventually

PROGRAM = shutil.which("prometheus")
PROMTOOL = shutil.which("promtool")
MISSING = "needs {} (Debian's package prometheus)"

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_LISTENS = re.compile(r'"Listening on" address=(\S+)')


@dataclass(frozen=True, slots=True)
class Target:
    """What is scraped: an address, and the labels that a PodMonitor would give it."""

    job: str
    address: str
    labels: Mapping[str, str]


class Prometheus:
    """One server, from entering the context until leaving it. It scrapes each second.

    Args:
        folder: for its data and its log.
        targets: what it scrapes; labels that they give themselves are honoured.
    """

    def __init__(self, folder: Path, targets: Sequence[Target]) -> None:
        self._folder = folder
        self._targets = targets
        self._process: subprocess.Popen[bytes] | None = None
        self._url = ""

    def __enter__(self) -> Self:
        assert PROGRAM is not None, MISSING.format("prometheus")
        self._folder.mkdir(parents=True)
        config, log = self._folder / "prometheus.yml", self._folder / "prometheus.log"
        jobs = [
            {
                "job_name": target.job,
                "honor_labels": True,
                "static_configs": [{"targets": [target.address], "labels": dict(target.labels)}],
            }
            for target in self._targets
        ]
        config.write_text(yaml.safe_dump({"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": jobs}))
        with log.open("wb") as said:
            self._process = subprocess.Popen(
                [
                    PROGRAM,
                    f"--config.file={config}",
                    f"--storage.tsdb.path={self._folder / 'data'}",
                    "--web.listen-address=127.0.0.1:0",
                ],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
        try:
            self._url = f"http://{eventually(lambda: self._listens(log))}"
            eventually(self._ready)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def values(self, expression: str, start: float, *, step: float = 1.0) -> list[tuple[dict[str, str], list[float]]]:
        """The series of an expression from ``start`` (seconds since 1970) until now: labels, and their finite values.

        Raises:
            AssertionError: Prometheus refuses the expression; the message says why.
        """
        asked = {"query": expression, "start": f"{start:.3f}", "end": f"{time.time():.3f}", "step": f"{step:g}"}
        found = self._ask("query_range", asked)["result"]
        return [(one["metric"], [value for _, text in one["values"] if math.isfinite(value := float(text))]) for one in found]

    def scrapes(self) -> int:
        """How often each target has been scraped, at least."""
        counted = self._ask("query", {"query": "min(count_over_time(up[1h]))"})["result"]
        return int(counted[0]["value"][1]) if counted else 0

    def label_values(self, metric: str, label: str, start: float) -> set[str]:
        """The values that a label of a metric has had since ``start``: what Grafana's ``label_values`` asks for."""
        return {one[label] for one in self._ask("series", {"match[]": metric, "start": f"{start:.3f}"}) if label in one}

    def _ask(self, what: str, parameters: Mapping[str, str]) -> Any:
        try:
            with _OPENER.open(f"{self._url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}", timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{parameters}: {error.read().decode(errors='replace')}") from None

    def _listens(self, log: Path) -> str | None:
        said = log.read_text(errors="replace")
        assert self._process is not None
        assert self._process.poll() is None, f"Prometheus has ended\n{said}"
        found = _LISTENS.search(said)
        return found[1] if found else None

    def _ready(self) -> bool:
        try:
            with _OPENER.open(f"{self._url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
