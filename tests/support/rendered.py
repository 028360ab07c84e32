"""``manifests/`` as a cluster gets them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.siorg_server import REPOSITORY

Body = dict[str, Any]

MANIFESTS = REPOSITORY / "manifests"
FOLDERS = sorted(str(each.parent.relative_to(MANIFESTS)) for each in MANIFESTS.rglob("kustomization.yaml"))
"""Every kustomization and component."""


def rendered(*folders: str, **variables: str) -> list[Body]:
    """What ``manifests/render`` prints of them.

    Args:
        folders: of ``manifests/``.
        variables: NAMESPACE, OPERATOR_IMAGE, JOB_IMAGE.
    """
    return _rendered(folders, tuple(sorted(variables.items())))


@cache
def _rendered(folders: tuple[str, ...], variables: tuple[tuple[str, str], ...]) -> list[Body]:
    needs_kustomize()
    done = render(*folders, **dict(variables))
    assert done.returncode == 0, done.stderr
    return [body for body in yaml.safe_load_all(done.stdout) if body]


def render(*folders: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {key: os.environ[key] for key in ("PATH", "HOME", "TMPDIR", "KUSTOMIZE") if key in os.environ}
    return subprocess.run(
        [MANIFESTS / "render", *folders],
        env={**environment, **variables}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def needs_kustomize() -> None:
    """Skip the test where there is nothing to render with."""
    programs = (os.environ.get("KUSTOMIZE"), shutil.which("kustomize"), shutil.which("kubectl"))
    if not any(programs) and not (REPOSITORY / ".venv" / "bin" / "kustomize").exists():
        pytest.skip("neither kustomize nor kubectl is installed; `make tools` builds kustomize where Go is")


def written(folder: Path = MANIFESTS) -> Iterator[tuple[Path, Body]]:
    """Every object as it stands in the files, with its file; no kustomization, none of its patches."""
    for file in sorted(folder.rglob("*.yaml")):
        if file.name == "kustomization.yaml" or any(part.startswith(".") for part in file.relative_to(folder).parts):
            continue
        for body in yaml.safe_load_all(file.read_text(encoding="utf-8")):
            if isinstance(body, dict) and "kind" in body:
                yield file.relative_to(folder), body


def pod_of(body: Body) -> Body | None:
    """The pod's metadata and spec within a Pod, Deployment, StatefulSet, Job or CronJob."""
    match body["kind"]:
        case "Pod":
            return body
        case "Deployment" | "StatefulSet" | "Job":
            return _as_body(body["spec"]["template"])
        case "CronJob":
            return _as_body(body["spec"]["jobTemplate"]["spec"]["template"])
    return None


def _as_body(value: Any) -> Body:
    body: Body = value
    return body
