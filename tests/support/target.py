"""Which cluster the end-to-end suite may use, and what with: read from the environment, checked before anything is touched."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

VARIABLES = {
    "KUBECONFIG": "the file that names the cluster",
    "E2E_CONTEXT": "its current context, by name: no other cluster is touched",
    "E2E_JOB_IMAGE": "image of job/Dockerfile that the cluster's nodes can have (default docker.io/library/siorg-job:e2e)",
    "E2E_OPERATOR_IMAGE": "image of operator/Dockerfile (default docker.io/library/siorg-operator:e2e)",
    "E2E_SIMULATOR_IMAGE": "image of simulator/Dockerfile, for a SIORG within (default …/siorg-simulator:e2e)",
    "E2E_DATABASE_URL": "an EMPTY database that pods reach, instead of one within; only together with E2E_SIORG_URL",
    "E2E_SIORG_URL": "a simulator that pods reach, with the organization 471, instead of one within the cluster",
    "E2E_LOGS": "folder for logs and objects when something fails (default dist/e2e-logs)",
    "E2E_KEEP": "1: leave the namespace there at the end, to look into it",
}
"""What the suite reads, and what each means."""

_IMAGES = {name: f"docker.io/library/siorg-{name}:e2e" for name in ("job", "operator", "simulator")}
_SECONDS = 20.0


class RefusedTarget(Exception):
    """The suite must not, or cannot, run there. The text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Target:
    """A cluster that may be used, and what is to be used in it."""

    kubeconfig: str
    context: str
    job_image: str
    operator_image: str
    simulator_image: str
    logs: str
    """Folder for what tells why something failed."""
    database_url: str = ""
    """Of a database outside the cluster; empty: one within it."""
    siorg_url: str = ""
    keep: bool = False

    @property
    def brings_servers(self) -> bool:
        """Whether database and SIORG stand outside the cluster."""
        return bool(self.database_url)


def read_target(environment: Mapping[str, str] = os.environ) -> Target:
    """What the environment says.

    Raises:
        RefusedTarget: something is missing or contradicts itself, or the current context is not the one that was named.
    """
    given = {name: environment.get(name, "").strip() for name in VARIABLES}
    unknown = sorted(name for name in environment if name.startswith("E2E_") and name not in VARIABLES)
    if unknown:
        raise RefusedTarget(f"{', '.join(unknown)}: nobody reads that; there are {', '.join(VARIABLES)}")
    if not given["KUBECONFIG"]:
        raise RefusedTarget("KUBECONFIG is not set: it has to name the kubeconfig of the cluster to test on")
    if not Path(given["KUBECONFIG"]).is_file():
        raise RefusedTarget(f"KUBECONFIG: there is no file {given['KUBECONFIG']}")
    if not given["E2E_CONTEXT"]:
        raise RefusedTarget(
            "E2E_CONTEXT is not set: name the context that may be used (kubectl config current-context). The suite makes and"
            " deletes a namespace and the CRD there, and will not do so on a cluster that nobody meant"
        )
    current = _current_context(given["KUBECONFIG"], environment)
    if current != given["E2E_CONTEXT"]:
        raise RefusedTarget(
            f"the current context is {current!r}, and E2E_CONTEXT allows {given['E2E_CONTEXT']!r} only:"
            f" kubectl config use-context {given['E2E_CONTEXT']}"
        )
    if bool(given["E2E_DATABASE_URL"]) != bool(given["E2E_SIORG_URL"]):
        raise RefusedTarget("E2E_DATABASE_URL and E2E_SIORG_URL go together: both servers outside the cluster, or both within it")
    for name, schemes in (("E2E_DATABASE_URL", ("postgresql", "postgres")), ("E2E_SIORG_URL", ("http", "https"))):
        if given[name]:
            _check_url(name, given[name], schemes)
    if given["E2E_KEEP"] not in ("", "0", "1"):
        raise RefusedTarget(f"E2E_KEEP: {given['E2E_KEEP']!r} is neither 0 nor 1")
    return Target(
        kubeconfig=given["KUBECONFIG"],
        context=given["E2E_CONTEXT"],
        job_image=given["E2E_JOB_IMAGE"] or _IMAGES["job"],
        operator_image=given["E2E_OPERATOR_IMAGE"] or _IMAGES["operator"],
        simulator_image=given["E2E_SIMULATOR_IMAGE"] or _IMAGES["simulator"],
        database_url=given["E2E_DATABASE_URL"],
        siorg_url=given["E2E_SIORG_URL"],
        logs=given["E2E_LOGS"] or "dist/e2e-logs",
        keep=given["E2E_KEEP"] == "1",
    )


def _current_context(kubeconfig: str, environment: Mapping[str, str]) -> str:
    program = shutil.which("kubectl", path=environment.get("PATH"))
    if program is None:
        raise RefusedTarget("kubectl is not installed: https://kubernetes.io/docs/tasks/tools/")
    done = subprocess.run(
        [program, f"--kubeconfig={kubeconfig}", "config", "current-context"],
        capture_output=True, text=True, timeout=_SECONDS, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RefusedTarget(f"KUBECONFIG has no current context: {done.stderr.strip()}")
    return done.stdout.strip()


def _check_url(name: str, text: str, schemes: tuple[str, ...]) -> None:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as error:
        raise RefusedTarget(f"{name} is no URL: {error}") from None
    if parts.scheme not in schemes or not parts.hostname:
        raise RefusedTarget(f"{name} has to begin with {' or '.join(f'{scheme}://HOST' for scheme in schemes)}")
    if parts.hostname in ("localhost", "127.0.0.1", "::1"):
        raise RefusedTarget(
            f"{name} names this machine's loopback, which is another one in each pod: give an address that pods reach"
        )
