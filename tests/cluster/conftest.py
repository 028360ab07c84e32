"""The cluster that a module's tests run on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cluster import Cluster, real_cluster, real_kubeconfig, small_cluster

IMAGES = {"python:test": [sys.executable]}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The small API server; a real one when KUBECONFIG and SIORG_TEST_CLUSTER=1 say so."""
    folder: Path = tmp_path_factory.mktemp("cluster")
    kubeconfig = real_kubeconfig()
    if kubeconfig is not None:
        with real_cluster(folder, kubeconfig, IMAGES, retry_seconds=0.2) as real:
            yield real
    else:
        with small_cluster(folder, IMAGES, retry_seconds=0.2) as small:
            yield small
