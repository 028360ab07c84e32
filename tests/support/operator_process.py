"""``python -m siorg_operator run`` as a real process, which tests kill, stop and start again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

from prometheus_client.parser import text_string_to_metric_families

from support.fleet import eventually
from support.forks import Forked
from support.siorg_server import REPOSITORY

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Operator:
    """One operator process, from entering the context (or ``start``) until leaving it.

    Args:
        kubeconfig: of the cluster.
        namespace: the one that it watches.
        folder: where its log goes.
        name: of the log, when there are several.
        settings: further ``SIORG_OPERATOR_`` variables, without that prefix.
    """

    def __init__(self, kubeconfig: Path, namespace: str, folder: Path, *, name: str = "operator", **settings: object) -> None:
        self._log = folder / f"{name}.log"
        kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "TMPDIR") if key in os.environ}
        path = os.pathsep.join([str(REPOSITORY / "operator"), str(REPOSITORY / "job")])
        ours = {f"SIORG_OPERATOR_{key}": str(value) for key, value in settings.items()}
        self.environment = {
            **kept,
            "PYTHONPATH": path,
            "KUBECONFIG": str(kubeconfig),
            "SIORG_OPERATOR_NAMESPACE": namespace,
            "SIORG_OPERATOR_HTTP_ADDRESS": "127.0.0.1",
            "SIORG_OPERATOR_HTTP_PORT": "0",
            "SIORG_OPERATOR_LEADER_ELECTION": "false",
            **ours,
        }
        self._process: subprocess.Popen[bytes] | Forked | None = None
        self._started_at = 0

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.stop()

    def start(self, *, ready: bool = True) -> Self:
        """Start it, and wait until it is ready unless told otherwise."""
        assert self._process is None, "it runs already"
        self._log.touch()
        self._started_at = self._log.stat().st_size
        self._process = self._spawned()
        if ready:
            self.wait_until_ready()
        return self

    def _spawned(self) -> subprocess.Popen[bytes] | Forked:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "siorg_operator", "run"],
                env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def explain(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``siorg-operator explain`` with the same environment, as a person runs it in the operator's pod."""
        return subprocess.run(
            [sys.executable, "-m", "siorg_operator", "explain", *arguments],
            env={**self.environment, "COLUMNS": "160"}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip

    def wait_until_ready(self) -> None:
        eventually(lambda: self.probe("readyz")[0] == 200)

    @property
    def pid(self) -> int:
        assert self._process is not None, "it does not run"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """What it has logged since it was started last."""
        with self._log.open("rb") as log:
            log.seek(self._started_at)
            return log.read().decode(errors="replace")

    def entries(self) -> list[dict[str, Any]]:
        """Its log, entry by entry."""
        return [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]

    @property
    def address(self) -> str | None:
        """Where its probes are, once it has told."""
        started = next((entry for entry in self.entries() if entry["message"] == "Started"), None)
        return None if started is None else f"http://127.0.0.1:{started['port']}"

    def probe(self, path: str) -> tuple[int, str]:
        """Status and text of ``/healthz``, ``/readyz`` or ``/metrics``; status 0 while nobody answers."""
        assert self.running, f"the operator has ended\n{self.log}"
        address = self.address
        if address is None:
            return 0, ""
        try:
            with _OPENER.open(f"{address}/{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metrics(self) -> dict[str, dict[tuple[str, ...], float]]:
        """Every sample by its name and label values (without namespace and worker), as ``/metrics`` tells them."""
        found: dict[str, dict[tuple[str, ...], float]] = {}
        for family in text_string_to_metric_families(self.probe("metrics")[1]):
            for sample in family.samples:
                labels = tuple(value for key, value in sorted(sample.labels.items()) if key not in {"namespace", "worker"})
                found.setdefault(sample.name, {})[labels] = sample.value
        return found

    def metric(self, name: str, *labels: str) -> float:
        """One sample; 0 while there is none."""
        return self.metrics().get(name, {}).get(labels, 0.0)

    def memory_mib(self) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text()
        match = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert match is not None
        return int(match[1]) / 1024

    def cpu_seconds(self) -> float:
        """Used so far, by all of its threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it as a crash would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def ends(self, *, within: float = 30.0) -> int:
        """Wait for its end; the exit code."""
        assert self._process is not None
        code = self._process.wait(within)
        self._process = None
        return code

    def stop(self) -> int | None:
        """End it as Kubernetes would; its exit code, None if it did not run."""
        if self._process is None:
            return None
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        try:
            return self.ends(within=30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the operator did not end within 30 s of SIGTERM\n{self.log}") from None


class ForkedOperator(Operator):
    """As ``Operator``, and started in no time: see ``support.forks``, also for ``constants``."""

    constants: Mapping[str, float] = {}

    def _spawned(self) -> Forked:
        return Forked("siorg_operator.__main__", ["run"], self.environment, out=self._log, constants=self.constants)

    def explain(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        with TemporaryDirectory() as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            command = ["explain", *arguments]
            environment = {**self.environment, "COLUMNS": "160"}
            code = Forked("siorg_operator.__main__", command, environment, out=out, err=err).wait(60)
            return subprocess.CompletedProcess(command, code, out.read_text(), err.read_text())
