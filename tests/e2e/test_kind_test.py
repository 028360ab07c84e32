"""``make kind-test``: what it says where something is missing, and that it leaves no cluster behind."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from support.siorg_server import REPOSITORY

NEEDED = ("bash", "dirname", "mktemp", "rm", "mkdir", "cat", "env", "sh")
ENGINE = "Cannot connect to the Docker daemon"
"""Its own words are passed on."""
Programs = Callable[[Mapping[str, str]], Path]


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    """A PATH with a few programs only: those of NEEDED, and scripts that stand for Docker, kind, kubectl and make."""

    def made(scripts: Mapping[str, str]) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir()
        for name in NEEDED:
            found = shutil.which(name)
            assert found is not None
            (folder / name).symlink_to(found)
        for name, script in scripts.items():
            (folder / name).write_text(f'#!/bin/sh\necho "{name} $*" >>"{tmp_path}/asked"\n{script}\n')
            (folder / name).chmod(0o755)
        return folder

    return made


def kind_test(path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [REPOSITORY / "tests" / "e2e" / "kind-test"],
        env={"PATH": str(path), "E2E_LOGS": str(path.parent / "logs"), "TMPDIR": str(path.parent), **variables},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def asked(path: Path) -> list[str]:
    return (path.parent / "asked").read_text().splitlines()


@pytest.mark.parametrize(
    ("scripts", "told"),
    [
        ({}, ["docker is not installed"]),
        ({"docker": f"echo '{ENGINE}' >&2; exit 1"}, ["its engine does not answer", ENGINE]),
        ({"docker": ""}, ["kind is not installed"]),
        ({"docker": "", "kind": ""}, ["kubectl is not installed"]),
    ],
)
def test_what_is_missing_is_named_and_it_exits_2(programs: Programs, scripts: dict[str, str], told: list[str]) -> None:
    done = kind_test(programs(scripts))
    assert done.returncode == 2
    assert all(each in done.stderr for each in told)
    assert "Traceback" not in done.stderr


CREATES = 'case "$1" in create) echo "kind: Config" >"$KUBECONFIG";; esac'


def test_it_builds_makes_loads_tests_and_deletes(programs: Programs) -> None:
    path = programs({"docker": "", "kind": CREATES, "kubectl": "", "make": 'echo "context $E2E_CONTEXT"'})
    done = kind_test(path)
    assert done.returncode == 0, done.stderr
    steps = [" ".join(each.split()[:2]) for each in asked(path)]
    assert steps == [
        "docker info", "make --no-print-directory", "docker build", "docker build", "docker build",
        "kind create", "kind load", "make e2e", "kind delete",
    ]  # fmt: skip
    name = asked(path)[5].split("--name ")[1].split()[0]
    assert f"context kind-{name}" in done.stdout
    assert asked(path)[-1] == f"kind delete cluster --name {name}"
    assert not list(path.parent.glob("tmp.*"))  # nor its kubeconfig


@pytest.mark.parametrize("fails", ["make", "kind"])
def test_a_failure_keeps_its_exit_code_collects_logs_and_deletes_the_cluster(programs: Programs, fails: str) -> None:
    scripts = {"docker": "", "kind": CREATES, "kubectl": "", "make": ""}
    scripts[fails] += "; exit 7" if fails == "kind" else '[ "$1" != e2e ] || exit 7'
    path = programs(scripts)
    done = kind_test(path)
    assert done.returncode == 7
    assert any(each.startswith("kind export logs") for each in asked(path))
    assert asked(path)[-1].startswith("kind delete cluster")
    assert str(path.parent / "logs") in done.stderr


def test_what_was_to_be_kept_is_kept_and_named(programs: Programs) -> None:
    path = programs({"docker": "", "kind": CREATES, "kubectl": "", "make": ""})
    done = kind_test(path, E2E_KEEP="1")
    assert not any(each.startswith("kind delete") for each in asked(path))
    assert "kind delete cluster --name siorg-e2e-" in done.stderr


@pytest.mark.skipif(
    shutil.which("docker") is not None and os.system("docker info >/dev/null 2>&1") == 0, reason="Docker is there"
)
def test_make_says_the_same() -> None:
    done = subprocess.run(["make", "kind-test"], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "make kind-test: docker is" in done.stderr
