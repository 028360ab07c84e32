"""The cluster that a module's tests run on: the double, or a real one."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator

import pytest

from support.cluster import Cluster, any_cluster
from support.kube import Kube

IMAGES = {"python:test": [sys.executable]}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The double; a real API server when KUBECONFIG and SIORG_TEST_CLUSTER=1 say so."""
    with any_cluster(tmp_path_factory.mktemp("cluster"), IMAGES) as made:
        yield made


@pytest.fixture
def kube(cluster: Cluster) -> Kube:
    return cluster.kube


@pytest.fixture
def name() -> str:
    """A name of this test's own."""
    return f"t-{secrets.token_hex(4)}"
