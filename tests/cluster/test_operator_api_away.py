"""An API server in trouble: whatever it answers, or does not, there are never too many Jobs, and the end is the same."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from kube_double.server import ApiServer
from support.fleet import eventually
from support.job_census import job_census
from support.siorg_world import HASTE, HELD_IMAGE, RESOURCE, World, crd

OURS = "siorg-operator"
"""Part of the User-Agent of the operator's own requests; its watches are kopf's."""
MAX_JOBS = 4
GONE_SECONDS = float(os.environ.get("SIORG_TEST_API_GONE_SECONDS", "2.5"))
"""How long the API server is gone; a minute by hand."""


@contextmanager
def never_too_many(world: World) -> Iterator[None]:
    """Never more than maxJobs unfinished Jobs, never two of one slot."""
    with job_census(world.cluster.kubeconfig, world.namespace) as census:
        yield
    assert census.most <= MAX_JOBS
    assert census.doubled == []


def drain(world: World, count: int = 70) -> None:
    """Everything goes through, and the status says so."""
    world.wait_until_drained()
    assert world.outcomes() == {"COMPLETED/1": count}
    world.wait_for_condition("Ready", "True")


def creations(server: ApiServer, world: World) -> int:
    return sum(one.verb == "create" and one.resource == "jobs" and OURS in one.user_agent and one.namespace == world.namespace
               for one in server.requests)  # fmt: skip


@pytest.mark.parametrize("status", [409, 429, 503])
def test_jobs_that_are_refused_for_a_while_are_told_and_made_later(world: World, server: ApiServer, status: int) -> None:
    world.secret()
    world.enqueue(70)
    operator = world.operator(constants=HASTE | {"siorg_operator.control.loop._FIRST_RETRY_SECONDS": 0.3})
    with never_too_many(world):
        with server.fault(verb="create", resource="jobs", namespace=world.namespace, user_agent=OURS, status=status) as fault:
            world.create()
            told = world.wait_for_condition("ScalingActive", "False", "LaunchFailed")
            eventually(lambda: fault.hits >= 2 * MAX_JOBS)
        assert "tried again by itself" in told["message"]
        assert world.condition("Ready")["reason"] == "LaunchFailed"
        assert operator.metrics()["siorg_operator_decisions_held_back_total"][("LaunchFailed",)] >= 1
        assert sum(operator.metrics()["siorg_operator_reconcile_errors_total"].values()) >= 1
        drain(world)
    assert operator.probe("healthz")[0] == 200


@pytest.mark.parametrize("status", [409, 500])
def test_a_status_that_cannot_be_written_keeps_no_job_from_its_work(world: World, server: ApiServer, status: int) -> None:
    world.secret()
    world.enqueue(70)
    world.operator()
    with (
        never_too_many(world),
        server.fault(verb="patch", resource=RESOURCE, subresource="status", namespace=world.namespace, status=status),
    ):
        world.create()
        eventually(lambda: world.outcomes() == {"COMPLETED/1": 70}, seconds=60)
        assert world.status() == {}
    drain(world)


@pytest.mark.parametrize(
    ("asked", "count"), [({}, 7), ({"verb": "create", "resource": "jobs"}, MAX_JOBS)], ids=["any", "every launch"]
)
def test_answers_that_are_lost_make_no_second_job(world: World, server: ApiServer, asked: dict[str, str], count: int) -> None:
    world.secret()
    world.operator()
    world.create(world.resource(job={"image": HELD_IMAGE}))
    world.wait_for_condition("Ready", "True")
    lost: Any = {**asked, "namespace": world.namespace, "user_agent": OURS, "drop": True, "carried_out": True, "count": count}
    with never_too_many(world), server.fault(**lost) as fault:
        world.enqueue(70)
        eventually(lambda: fault.hits == count and len(world.processes()) == MAX_JOBS)
        world.wait_for_condition("ScalingActive", "True")
        world.release()
        drain(world)


def test_a_watch_that_is_too_old_is_begun_anew(world: World, server: ApiServer) -> None:
    world.secret()
    operator = world.operator()
    world.create(world.resource(scaling={"pollIntervalSeconds": 600}))
    world.wait_for_condition("Ready", "True")

    for limit in (2, 3, 4):
        server.compact()
        server.break_watches()
        world.edit({"scaling": {"maxJobs": limit}})
        eventually(lambda: world.status()["observedGeneration"] == world.get()["metadata"]["generation"])
    server.cut()
    world.enqueue(70)
    drain(world)
    assert operator.running


def test_a_slow_api_server_is_no_harm(world: World, server: ApiServer) -> None:
    world.secret()
    world.enqueue(70)
    operator = world.operator()
    with never_too_many(world), server.fault(namespace=world.namespace, user_agent=OURS, delay=1.0):
        world.create()
        eventually(lambda: world.outcomes() == {"COMPLETED/1": 70}, seconds=60)
        assert operator.probe("healthz")[0] == 200
    drain(world)


def test_an_api_server_that_does_not_answer_at_all_is_given_up_on(world: World, server: ApiServer) -> None:
    world.secret()
    world.enqueue(70)
    operator = world.operator(constants=HASTE | {"siorg_operator.cluster.connection.READ_SECONDS": 4.0})
    with (
        never_too_many(world),
        server.fault(verb="create", resource="jobs", namespace=world.namespace, user_agent=OURS, hang=True, count=2),
    ):
        world.create(world.resource(job={"image": HELD_IMAGE}))
        eventually(lambda: len(world.processes()) == MAX_JOBS, seconds=60)
        assert operator.probe("healthz")[0] == 200
        world.release()
        drain(world)


def test_while_the_api_server_is_gone_jobs_go_on_and_afterwards_so_does_the_operator(world: World, server: ApiServer) -> None:
    world.secret()
    world.enqueue(30)
    operator = world.operator()
    world.create(world.resource(job={"image": HELD_IMAGE}))
    eventually(lambda: len(world.processes()) == 2)
    pids = {process.pid for process in world.processes()}

    with never_too_many(world):
        with server.gone():
            world.enqueue(40)
            over = time.monotonic() + GONE_SECONDS
            while time.monotonic() < over:
                assert operator.running
                assert operator.probe("healthz")[0] == 200
                assert {process.pid for process in world.processes()} == pids
                time.sleep(0.5)
        eventually(lambda: len(world.processes()) == MAX_JOBS)
        assert pids < {process.pid for process in world.processes()}
        world.release()
        drain(world)


def test_a_leader_whose_watches_are_not_answered_is_not_ready_and_tells_for_how_long(world: World, server: ApiServer) -> None:
    operator = world.operator(constants=HASTE | {"siorg_operator.serving.health.WATCH_SECONDS": 0.5})
    with server.fault(verb="watch", resource="jobs", namespace=world.namespace, user_agent="kopf", hang=True):
        server.cut()
        eventually(lambda: operator.probe("readyz")[1].startswith("jobs: no list or watch was answered for"))
        assert operator.metric("siorg_operator_watch_unanswered_seconds") > 0.5
        assert operator.probe("healthz")[0] == 200
    eventually(lambda: operator.probe("readyz")[0] == 200)


def test_an_api_server_that_is_gone_at_the_start_is_waited_for(world: World, server: ApiServer) -> None:
    world.secret()
    world.enqueue(10)
    world.create()
    operator = world.operator(start=False)
    with server.gone():
        operator.start(ready=False)
        waiting = eventually(lambda: [entry for entry in operator.entries() if entry["message"] == "Waiting for the cluster"])
        assert "did not answer" in waiting[0]["reason"]
        assert operator.probe("readyz")[0] == 503
        assert operator.probe("healthz")[0] == 200
    operator.wait_until_ready()
    drain(world, 10)


def test_a_missing_definition_is_named_and_waited_for(world: World, server: ApiServer) -> None:
    definition = crd()
    world.kube.delete("customresourcedefinitions", definition["metadata"]["name"])
    world.kube.wait_gone("customresourcedefinitions", definition["metadata"]["name"])
    operator = world.operator(start=False).start(ready=False)
    waiting = eventually(lambda: [entry for entry in operator.entries() if entry["message"] == "Waiting for the cluster"])
    assert "kubectl apply -f crds/siorgsyncworkers.yaml" in waiting[0]["reason"]

    world.kube.apply_crd(definition)

    operator.wait_until_ready()
    world.secret()
    world.create()
    world.wait_for_condition("Ready", "True")


def test_a_definition_that_goes_and_comes_back_is_followed(world: World, server: ApiServer) -> None:
    world.secret()
    operator = world.operator()
    world.create(world.resource(job={"image": HELD_IMAGE}))
    world.enqueue(10)
    eventually(lambda: len(world.processes()) == 1)
    definition = crd()
    world.kube.delete("customresourcedefinitions", definition["metadata"]["name"])
    world.kube.wait_gone("customresourcedefinitions", definition["metadata"]["name"])
    eventually(lambda: not world.processes())  # its Jobs went with the resource

    world.kube.apply_crd(definition)

    world.release()
    world.create()
    drain(world, 10)
    assert operator.running


@contextmanager
def no_room_for_jobs(world: World) -> Iterator[None]:
    """A quota, or what the double says as if there were one."""
    if world.cluster.server is not None:
        says = "jobs.batch is forbidden: exceeded quota: none, requested: count/jobs.batch=1, used: 0, limited: 0"
        refused = {"verb": "create", "resource": "jobs", "namespace": world.namespace, "user_agent": OURS}
        with world.cluster.server.fault(**refused, status=403, message=says):
            yield
        return
    path = f"/api/v1/namespaces/{world.namespace}/resourcequotas"
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"count/jobs.batch": "0"}}}
    world.kube.request("POST", path, {"apiVersion": "v1", "kind": "ResourceQuota", **quota})
    eventually(lambda: world.kube.request("GET", f"{path}/none").get("status", {}).get("hard"))
    yield
    world.kube.request("DELETE", f"{path}/none")


def test_a_namespace_without_room_for_jobs_is_told_and_asked_rarely(world: World) -> None:
    world.secret()
    world.enqueue(70)
    operator = world.operator()

    def refusals() -> float:
        return operator.metric("siorg_operator_api_calls_total", "403", "jobs", "create")

    with no_room_for_jobs(world):
        began = time.monotonic()
        world.create()
        told = world.wait_for_condition("ScalingActive", "False", "LaunchFailed")
        assert "exceeded quota" in told["message"]
        assert "raise the quota" in told["message"]
        assert "exceeded quota" in world.decision()["message"]
        assert "launched 0" in world.decision()["message"]
        assert world.condition("Ready")["reason"] == "LaunchFailed"
        eventually(lambda: refusals() >= 3 * MAX_JOBS)
        assert time.monotonic() - began > 1 + 2  # the pauses between three tries
        assert not world.jobs()
        # New work all the time wakes the operator all the time; the API server is not asked more often for that.
        before = refusals()
        for _ in range(25):
            world.enqueue(1)
            time.sleep(0.1)
        assert refusals() - before <= 2 * MAX_JOBS
    drain(world, 95)
