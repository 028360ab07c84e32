"""The end-to-end suite touches no cluster that nobody meant."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from support.siorg_server import REPOSITORY
from support.target import VARIABLES, RefusedTarget, read_target


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A kubeconfig, and a kubectl that tells its current context: ``meant``."""
    kubectl = tmp_path / "kubectl"
    kubectl.write_text("#!/bin/sh\necho meant\n")
    kubectl.chmod(0o755)
    (tmp_path / "kubeconfig").write_text("kind: Config\n")
    return {"PATH": str(tmp_path), "KUBECONFIG": str(tmp_path / "kubeconfig"), "E2E_CONTEXT": "meant"}


def refused(environment: dict[str, str]) -> str:
    with pytest.raises(RefusedTarget) as told:
        read_target(environment)
    return str(told.value)


def test_the_context_that_was_named_is_used(environment: dict[str, str]) -> None:
    target = read_target(environment)
    assert target.context == "meant"
    assert target.job_image == "docker.io/library/siorg-job:e2e"
    assert not target.brings_servers


def test_another_context_than_the_named_one_is_refused(environment: dict[str, str]) -> None:
    told = refused({**environment, "E2E_CONTEXT": "production"})
    assert "'meant'" in told
    assert "'production'" in told
    assert "use-context production" in told


@pytest.mark.parametrize("name", ["KUBECONFIG", "E2E_CONTEXT"])
def test_what_is_needed_is_asked_for_by_name(environment: dict[str, str], name: str) -> None:
    assert refused({**environment, name: ""}).startswith(f"{name} is not set")


def test_a_kubeconfig_that_is_not_there_is_named(environment: dict[str, str]) -> None:
    assert "/nowhere" in refused({**environment, "KUBECONFIG": "/nowhere"})


def test_without_kubectl_it_says_so(environment: dict[str, str]) -> None:
    assert "kubectl is not installed" in refused({**environment, "PATH": "/nowhere"})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"E2E_DATABASE_URL": "postgresql://10.0.0.1/siorg"}, "go together"),
        ({"E2E_SIORG_URL": "http://10.0.0.1:8080/doc"}, "go together"),
        ({"E2E_DATABASE_URL": "10.0.0.1", "E2E_SIORG_URL": "http://10.0.0.1"}, "E2E_DATABASE_URL has to begin with"),
        ({"E2E_DATABASE_URL": "postgresql://h:x/d", "E2E_SIORG_URL": "http://10.0.0.1"}, "E2E_DATABASE_URL is no URL"),
        ({"E2E_DATABASE_URL": "postgresql://localhost/d", "E2E_SIORG_URL": "http://10.0.0.1"}, "loopback"),
        ({"E2E_KEEP": "yes"}, "E2E_KEEP: 'yes'"),
        ({"E2E_DATABASE": "x"}, "E2E_DATABASE: nobody reads that"),
    ],
)
def test_what_contradicts_itself_is_refused_by_name(environment: dict[str, str], changes: dict[str, str], told: str) -> None:
    assert told in refused({**environment, **changes})


def test_a_password_is_never_told(environment: dict[str, str]) -> None:
    url = "postgresql://siorg:s3cret@localhost/siorg"
    assert "s3cret" not in refused({**environment, "E2E_DATABASE_URL": url, "E2E_SIORG_URL": "http://10.0.0.1"})


def test_make_e2e_without_a_named_context_exits_2() -> None:
    environment = {key: value for key, value in os.environ.items() if key not in VARIABLES}
    done = subprocess.run(
        ["make", "e2e"], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "E2E_CONTEXT is not set" in done.stderr
