"""A drain with real pods: the real scheduler, kubelet and container runtime, in a namespace that enforces ``restricted``.

Needs a real cluster (see conftest), SIORG_TEST_JOB_IMAGE, an image of job/Dockerfile that its nodes have, and
SIORG_TEST_HOST_ADDRESS, an address of this machine that pods reach: database and simulator are forwarded there.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import unquote, urlsplit

import pytest

from siorg_queue import QueueStore
from support.fleet import eventually
from support.kube import condition
from support.relay import Relay
from support.siorg_world import DRAIN, World

IMAGE = os.environ.get("SIORG_TEST_JOB_IMAGE", "")
ADDRESS = os.environ.get("SIORG_TEST_HOST_ADDRESS", "")

pytestmark = pytest.mark.skipif(
    os.environ.get("SIORG_TEST_CLUSTER") != "1" or not IMAGE or not ADDRESS,
    reason="needs SIORG_TEST_CLUSTER=1 with KUBECONFIG, SIORG_TEST_JOB_IMAGE and SIORG_TEST_HOST_ADDRESS",
)


@pytest.fixture
def reachable(world: World) -> Iterator[tuple[World, str]]:
    """The world with a database URL that pods can use too; and SIORG's address for them."""
    parts = urlsplit(world.database_url)
    socket = unquote(parts.query.removeprefix("host="))
    port = urlsplit(world.siorg.url).port
    assert port is not None
    with (
        Relay(lambda: asyncio.open_unix_connection(f"{socket}/.s.PGSQL.5432"), ADDRESS) as database,
        Relay(lambda: asyncio.open_connection("127.0.0.1", port), ADDRESS) as siorg,
    ):
        url = f"postgresql://postgres@{ADDRESS}:{database.port}{parts.path}"
        yield replace(world, database_url=url), f"http://{ADDRESS}:{siorg.port}/doc"


def test_real_pods_drain_the_queue_and_go(reachable: tuple[World, str]) -> None:
    world, siorg = reachable
    world.kube.patch(
        "namespaces", world.namespace, {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    )
    operator = world.operator()
    world.secret()
    manifest = world.resource(
        siorg={"url": siorg}, scaling={"maxJobs": 3}, job={"image": IMAGE, "imagePullPolicy": "Never"},
    )  # fmt: skip
    manifest["spec"]["job"]["podTemplate"] = {"spec": {}}  # any node
    world.create(manifest)
    found = world.discover()
    eventually(lambda: world.status().get("jobs", {}).get("active", 0) > 0, seconds=60)
    eventually(lambda: QueueStore(world.connection).counts().completed == found, seconds=90)
    eventually(lambda: all(condition(job, "Complete") == "True" for job in world.kube.list("jobs", labels=DRAIN)), seconds=60)
    eventually(lambda: operator.metric("siorg_operator_items_total", "completed") == found)
    assert 1 <= len(world.kube.list("jobs", labels=DRAIN)) <= 3
    assert operator.metric("siorg_operator_jobs_empty_total") == 0
    world.kube.delete("siorgsyncworkers", "sync")
    eventually(lambda: not world.kube.list("jobs") and not world.kube.list("pods"), seconds=60)
