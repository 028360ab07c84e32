"""The cluster of ``make e2e``, and what is installed in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.installation import Installation, install, installation
from support.kubectl import KubectlError
from support.target import RefusedTarget, Target, read_target


@pytest.fixture(scope="session")
def target() -> Target:
    """What E2E_… says; without E2E_CONTEXT nobody meant a cluster to be touched."""
    if not os.environ.get("E2E_CONTEXT"):
        pytest.skip("needs a cluster: make e2e, make kind-test")
    try:
        return read_target()
    except RefusedTarget as refused:
        pytest.exit(f"refused: {refused}", returncode=2)


@pytest.fixture(scope="module")
def system(target: Target, request: pytest.FixtureRequest) -> Iterator[Installation]:
    """siorg-sync, installed and ready, without a resource."""
    failed = request.session.testsfailed
    with installation(target) as made:
        try:
            install(made)
        except RefusedTarget as refused:
            pytest.exit(f"refused: {refused}", returncode=2)
        except (KubectlError, AssertionError):
            made.collect(Path(target.logs))
            raise
        yield made
        if request.session.testsfailed > failed:
            made.collect(Path(target.logs))
            print(f"\nWhat was there when it failed: {target.logs}")  # noqa: T201 - for the person who waits
