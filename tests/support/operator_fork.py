"""The operator as a process that is forked from one which has imported everything: a crash test starts it a hundred times.

It is the same command with the same environment. What is left out is the second that Python takes to read the modules.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, cast

from support.operator_process import Operator
from support.siorg_world import PACE, World

_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(
    [
        "siorg_operator.__main__",
        "siorg_operator.control.run",
        *(f"kubernetes.client.api.{api}_api" for api in ("batch_v1", "coordination_v1", "core_v1", "custom_objects")),
    ]
)


class ForkedOperator(Operator):
    def _spawned(self) -> subprocess.Popen[bytes]:
        process = _FORKING.Process(target=_run, args=(self.environment, self._log), daemon=True)
        process.start()
        return cast("subprocess.Popen[bytes]", _Popen(process))


def forked_operator(
    world: World, name: str = "operator", *, kubeconfig: Path | None = None, **settings: object
) -> ForkedOperator:  # fmt: skip
    """As ``World.operator``, but not started, and its user ends it."""
    given: dict[str, Any] = {**PACE, **settings}
    return ForkedOperator(kubeconfig or world.cluster.kubeconfig, world.namespace, world.folder, name=name, **given)


class _Popen:
    """Of ``subprocess.Popen``, what ``Operator`` uses."""

    def __init__(self, process: ForkServerProcess) -> None:
        self._process = process
        assert process.pid is not None
        self.pid: int = process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("siorg-operator", timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _run(environment: Mapping[str, str], log: Path) -> None:
    with log.open("ab") as written:
        os.dup2(written.fileno(), 1)
        os.dup2(written.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment)
    from kubernetes.config import kube_config

    from siorg_operator.__main__ import main

    kube_config.KUBE_CONFIG_DEFAULT_LOCATION = environment["KUBECONFIG"]  # read when the module is
    sys.exit(main(["run"], os.environ))
