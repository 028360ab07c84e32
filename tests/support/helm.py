"""Our Helm chart, made anew, and what helm says of it. No cluster is asked, and nothing is written into anybody's home."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
import yaml

from support.rendered import Body, needs_kustomize
from support.siorg_server import REPOSITORY

NAMESPACE: Final = "some-namespace"
_PATH: Final = os.pathsep.join((os.environ.get("PATH", ""), str(REPOSITORY / ".venv" / "bin")))
_KUBERNETES: Final = "1.30.0"  # a helm that was built with `go install` believes that the cluster has 1.20
_SECONDS: Final = 60.0


def needs_helm() -> None:
    """Skip the test where the chart can not be made or asked for."""
    needs_kustomize()
    if shutil.which("helm", path=_PATH) is None:
        pytest.skip("helm is not installed; `make tools` builds it where Go is")


class HelmError(AssertionError):
    """helm did not end with 0; the text is what it said."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart in a folder or an archive; ``home`` is where helm keeps its own files."""

    path: Path
    home: Path

    @classmethod
    def made(cls, folder: Path) -> Chart:
        """The chart as ``make chart`` makes it, within ``folder``."""
        _run([sys.executable, str(REPOSITORY / "chart" / "make_chart.py"), str(folder / "chart")], {})
        return cls(folder / "chart", folder / "helm")

    def helm(self, *arguments: str) -> str:
        """What helm prints.

        Raises:
            HelmError: it failed.
        """
        homes = {f"HELM_{name}_HOME": str(self.home) for name in ("CACHE", "CONFIG", "DATA")}
        return _run(["helm", *arguments], {**homes, "KUBECONFIG": os.devnull})

    def objects(self, values: Body | None = None) -> list[Body]:
        """Every object but the CRD that would be installed with these values on top of the defaults; None: with those alone."""
        file = self.home / "values.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(values or {}))
        text = self.helm(
            "template", "some-release", str(self.path), "--namespace", NAMESPACE, "--kube-version", _KUBERNETES,
            "--values", str(file),
        )  # fmt: skip
        return [body for body in yaml.safe_load_all(text) if body]

    def definition(self) -> Body:
        """The CRD."""
        found: Body = yaml.safe_load(self.helm("show", "crds", str(self.path)))
        return found


def _run(command: list[str], more: dict[str, str]) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HELM_")} | {"PATH": _PATH, **more}
    program = shutil.which(command[0], path=_PATH)
    assert program is not None, command[0]
    done = subprocess.run([program, *command[1:]], env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode != 0:
        raise HelmError(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr}{done.stdout}")
    return done.stdout
