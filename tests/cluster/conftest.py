"""The cluster that a module's tests run on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kube_double.server import ApiServer
from support.cluster import Cluster, any_cluster
from support.siorg_server import SiorgServer
from support.siorg_world import UNITS, World, siorg_world

IMAGES = {"python:test": [sys.executable]}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The small API server; a real one when KUBECONFIG and SIORG_TEST_CLUSTER=1 say so."""
    with any_cluster(tmp_path_factory.mktemp("cluster"), IMAGES) as made:
        yield made


@pytest.fixture
def server(cluster: Cluster) -> ApiServer:
    """The small API server, for tests that make it misbehave or count what it was asked."""
    if cluster.server is None:
        pytest.skip("needs what only the small API server does: faults, and the list of its requests")
    return cluster.server


@pytest.fixture(scope="session")
def simulator() -> Iterator[SiorgServer]:
    """A SIORG with one organization."""
    with SiorgServer("--synthetic", str(UNITS), "--retry-after", "2") as server:
        yield server


@pytest.fixture
def siorg(simulator: SiorgServer) -> SiorgServer:
    """In fair weather at the beginning of each test."""
    simulator.control("PUT", "down", {"down": False})
    simulator.control("PUT", "faults", {"faults": ""})
    simulator.control("PUT", "latency", {"latency": "0"})
    return simulator


@pytest.fixture
def world(cluster: Cluster, siorg: SiorgServer, database_url: str, tmp_path: Path) -> Iterator[World]:
    """An operator's surroundings, in a namespace of their own."""
    with siorg_world(cluster, siorg, database_url, tmp_path) as made:
        yield made
