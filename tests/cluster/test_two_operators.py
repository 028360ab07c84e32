"""Two operators at once: without an election they do not outbid each other, with one only the leader acts."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import takewhile
from typing import Any

import pytest

from kube_double.authorizer import Rule
from kube_double.observed_requests import Request
from kube_double.server import ApiServer
from support.cluster import Cluster, any_cluster
from support.fleet import eventually
from support.job_census import job_census
from support.operator_process import Operator
from support.relay import LateLink
from support.siorg_world import HELD_IMAGE, World, is_finished

MAX_JOBS = 3
LEASE: dict[str, Any] = {"LEASE_SECS": 3, "LEASE_RENEW_SECS": 2, "LEASE_RETRY_SECS": 1}
EVERYTHING = [Rule(("*",), ("*",), ("*",))]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One that tells by whom a request was: tokens are called as the operators are."""
    with any_cluster(tmp_path_factory.mktemp("cluster"), rules={"first": EVERYTHING, "second": EVERYTHING}) as made:
        yield made


@pytest.fixture
def pair(world: World) -> tuple[Operator, Operator]:
    """Two replicas that elect one leader; neither is started."""
    return elector(world, "first", LEASE_RETRY_SECS=1), elector(world, "second", LEASE_RETRY_SECS=1)


def elector(world: World, name: str, **settings: Any) -> Operator:
    server = world.cluster.server
    kubeconfig = world.cluster.kubeconfig if server is None else server.kubeconfig(world.folder, token=name)
    return world.operator(start=False, name=name, kubeconfig=kubeconfig, LEADER_ELECTION="true", IDENTITY=name, **settings)


def manifest(world: World, **job: Any) -> dict[str, Any]:
    return world.resource(
        scaling={"maxJobs": MAX_JOBS, "itemsPerJob": 10, "pollIntervalSeconds": 1}, job=job, env={"SIORG_FRESH_SECS": "0"}
    )


def writes(world: World, name: str, after: float = 0.0) -> list[Request]:
    """What a replica wrote; its Lease does not count."""
    assert world.cluster.server is not None
    return [
        one
        for one in world.cluster.server.requests
        if one.user.endswith(f":{name}") and one.writes and one.resource != "leases" and one.time > after
        and one.namespace == world.namespace
    ]  # fmt: skip


def holder(world: World) -> str:
    lease = world.kube.get("leases", "siorg-operator")
    return "" if lease is None else str(lease["spec"].get("holderIdentity") or "").partition("_")[0]


def start(pair: tuple[Operator, Operator], world: World) -> tuple[Operator, Operator]:
    """The leader, and a standby that has seen it."""
    first, second = pair
    first.start()
    eventually(lambda: holder(world) == "first")
    second.start(ready=False)
    eventually(lambda: any(entry["message"] == "Waiting for leadership" for entry in second.entries()))
    return first, second


def test_two_that_were_not_told_to_elect_do_not_outbid_each_other(world: World) -> None:
    """The second one sees everything too late."""
    world.secret()
    world.create(manifest(world))
    slow = nullcontext() if world.cluster.server is None else LateLink(world.cluster.kubeconfig, world.folder, delay=0.4)
    with job_census(world.cluster.kubeconfig, world.namespace) as census, slow as link:
        kubeconfig = world.cluster.kubeconfig if link is None else link.kubeconfig
        with (
            world.operator(start=False, name="first"),
            world.operator(start=False, name="second", kubeconfig=kubeconfig),
        ):
            for burst in range(1, 6):
                world.enqueue(40)
                eventually(lambda: sum(world.outcomes().values()) == 40 * burst and world.depth() < 20)  # noqa: B023
            world.wait_until_drained()
    assert census.most == MAX_JOBS
    assert census.doubled == []
    assert {outcome.partition("/")[0] for outcome in world.outcomes()} == {"COMPLETED"}


def test_of_two_that_elect_the_leader_alone_writes(world: World, server: ApiServer, pair: tuple[Operator, Operator]) -> None:
    start(pair, world)
    world.secret()
    world.create(manifest(world))
    world.enqueue(60)
    world.wait_until_drained()
    assert writes(world, "first")
    second = [one for one in server.requests if one.user.endswith(":second") and one.namespace == world.namespace]
    assert {one.resource for one in second} == {"leases"}
    assert {one.verb for one in second} == {"get"}


def test_a_second_installation_in_the_namespace_writes_nothing(world: World, server: ApiServer) -> None:
    start((elector(world, "first"), elector(world, "second", LEASE_NAME="another-release")), world)
    world.secret()
    world.create(manifest(world))
    world.enqueue(60)
    world.wait_until_drained()
    assert writes(world, "first")
    assert writes(world, "second") == []


@pytest.mark.parametrize("ends", ["killed", "stopped"])
def test_a_standby_takes_over(world: World, ends: str) -> None:
    """From a leader that died when its Lease has run out, from one that ended well at once: it gives the Lease back."""
    lease: dict[str, Any] = {"LEASE_RETRY_SECS": 1} | ({"LEASE_SECS": 5, "LEASE_RENEW_SECS": 4} if ends == "killed" else {})
    first, second = start((elector(world, "first", **lease), elector(world, "second", **lease)), world)
    world.secret()
    world.create(manifest(world))
    world.wait_for_condition("Ready", "True")
    since = world.kube.wait_for("leases", "siorg-operator")["metadata"]["resourceVersion"]
    if ends == "killed":
        first.kill()
    else:
        assert first.stop() == 0
    world.enqueue(5)
    eventually(world.jobs)
    assert second.running
    leases = world.kube.watch("leases", version=since, fields="metadata.name=siorg-operator", seconds=30)
    holders = ((event["object"]["spec"].get("holderIdentity") or "").partition("_")[0] for event in leases)
    before = set(takewhile(lambda name: name != "second", holders))
    assert holder(world) == "second"
    assert ("" in before) is (ends == "stopped")
    world.wait_until_drained()


def test_a_leader_that_sleeps_past_its_lease_in_the_middle_of_a_launch_ends_and_writes_nothing_more(world: World) -> None:
    server = world.cluster.server
    first, second = (elector(world, name, **LEASE) for name in ("first", "second"))
    world.secret()
    world.enqueue(30)

    stopped = threading.Event()

    def stop_it(request: Request) -> None:
        asked = (request.verb, request.resource, request.user.rpartition(":")[2])
        if asked == ("create", "jobs", "first") and not stopped.is_set():
            stopped.set()
            first.send(signal.SIGSTOP)

    try:
        start((first, second), world)
        with (
            job_census(world.cluster.kubeconfig, world.namespace) as census,
            nullcontext() if server is None else server.on_request(stop_it, "before"),
        ):
            world.create(manifest(world, image=HELD_IMAGE))
            eventually(world.jobs)
            if server is None:
                first.send(signal.SIGSTOP)
            eventually(lambda: holder(world) == "second" and len(world.unfinished_jobs()) == MAX_JOBS)
            world.release()
            eventually(lambda: world.jobs() and all(is_finished(job) for job in world.jobs()))
            world.enqueue(10)
            continued = time.monotonic()
            first.send(signal.SIGCONT)
            assert first.ends() == 1
            world.wait_until_drained()
    finally:
        first.stop()
        second.stop()
    assert census.most <= MAX_JOBS
    assert census.doubled == []
    # What was half sent when it fell asleep goes out when it awakes: the names are taken by then.
    assert server is None or [one for one in writes(world, "first", after=continued) if one.status < 400] == []
    assert "Lost leadership; exiting at once" in first.log


def test_an_api_server_that_is_away_longer_than_the_lease_ends_the_leader_and_not_the_standby(
    world: World, server: ApiServer
) -> None:
    first, second = (elector(world, name, **LEASE) for name in ("first", "second"))
    world.secret()
    world.create(manifest(world))
    try:
        start((first, second), world)
        world.wait_for_condition("Ready", "True")
        with server.gone():
            assert first.ends(within=10) == 1
            world.enqueue(30)
            assert second.running
        first.start(ready=False)
        world.wait_until_drained()
        assert holder(world) in {"first", "second"}
    finally:
        first.stop()
        second.stop()
