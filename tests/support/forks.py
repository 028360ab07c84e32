"""Our programs as processes that are forked from one which has imported everything: tests start them more than a thousand times.

It is the same command with the same environment. What is left out is the second that Python takes to read the modules.
"""

# What a forked process imports by itself: nothing but this module, so it imports little.

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from multiprocessing import connection
from pathlib import Path

_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(
    [
        "siorg_operator.__main__",
        "siorg_operator.control.run",
        "siorg_operator.explain",
        *(f"kubernetes.client.api.{api}_api" for api in ("batch_v1", "coordination_v1", "core_v1", "custom_objects")),
        "siorg_job.__main__",
        "siorg_job.drain.loop",
        "siorg_job.reconciliation.discover",
        "siorg_job.metrics",
        "httpcore2",
        "anyio._backends._asyncio",
    ]
)
_LOCK = threading.Lock()  # multiprocessing's own bookkeeping is not for several threads


class Forked:
    """A process of a program of ours. Of ``subprocess.Popen`` it has what tests use.

    Args:
        module: whose ``main(arguments, environ)`` it is, as ``siorg_job.__main__``.
        arguments: of its command line.
        environment: all of it.
        out: where standard output is appended.
        err: where standard error is appended, if that is another file.
        folder: where it works; where the tests do unless told otherwise.
        gate: a file that the process waits for before it does anything.
        constants: of our modules, with other values than they have: pauses and limits that are no settings.
    """

    def __init__(
        self, module: str, arguments: Sequence[str], environment: Mapping[str, str], *, out: Path, err: Path | None = None,
        folder: Path | None = None, gate: Path | None = None, constants: Mapping[str, float] | None = None,
    ) -> None:  # fmt: skip
        given = (module, tuple(arguments), dict(environment), out, err or out, folder, gate, constants or {})
        with _LOCK:
            self._process = _FORKING.Process(target=_run, args=given, daemon=True)
            self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        with _LOCK:
            return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        connection.wait([self._process.sentinel], timeout)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):  # who forked it has reaped it, and its code is on the way
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _run(
    module: str, arguments: Sequence[str], environment: Mapping[str, str], out: Path, err: Path, folder: Path | None,
    gate: Path | None, constants: Mapping[str, float],
) -> None:  # fmt: skip
    os.setsid()
    for number, path in ((1, out), (2, err)):
        with path.open("ab") as written:
            os.dup2(written.fileno(), number)
    if folder is not None:
        os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    while gate is not None and not gate.exists():
        time.sleep(0.02)
    if "KUBECONFIG" in environment:
        from kubernetes.config import kube_config

        kube_config.KUBE_CONFIG_DEFAULT_LOCATION = environment["KUBECONFIG"]  # read when the module is
    for constant, value in constants.items():
        owner, _, name = constant.rpartition(".")
        assert hasattr(import_module(owner), name), f"there is no {constant}"
        setattr(import_module(owner), name, value)
    sys.exit(import_module(module).main(arguments, os.environ))
