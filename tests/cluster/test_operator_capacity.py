"""Jobs that Kubernetes calls unfinished and whose worker has ended, or is not to begin: neither holds up the work."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kube_double.store import now
from support import admission
from support.fleet import eventually
from support.kube import Body, condition
from support.siorg_world import HASTE, HELD_IMAGE, World


@pytest.fixture
def sidecars(world: World) -> Iterator[None]:
    with admission.sidecars(world.cluster):
        yield


def finished(world: World) -> tuple[int, int]:
    """Jobs that are told to have succeeded, and to have failed."""
    jobs = world.status().get("jobs") or {}
    return jobs.get("succeeded", 0), jobs.get("failed", 0)


@pytest.mark.usefixtures("sidecars")
def test_a_worker_that_ended_beside_a_sidecar_is_a_success_whose_place_is_free_and_whose_pod_goes(world: World) -> None:
    world.secret()
    world.enqueue(5)
    patient = world.operator(STUCK_GRACE_SECS=600)
    world.create(world.resource(scaling={"maxJobs": 1}))

    eventually(lambda: finished(world) == (1, 0))
    world.enqueue(5)  # is not kept waiting by what is left
    eventually(lambda: finished(world) == (2, 0))

    assert world.outcomes() == {"COMPLETED/1": 10}
    assert len(world.unfinished_jobs()) == len(world.pods()) == 2
    assert world.condition("Ready")["reason"] == "AsExpected"
    assert patient.metric("siorg_operator_items_total", "completed") == 10
    assert patient.metric("siorg_operator_jobs_ended_total", "Done") == 2

    patient.stop()
    world.operator(name="next")

    eventually(lambda: not world.pods())
    eventually(lambda: not world.unfinished_jobs())
    assert [condition(job, "Failed") for job in world.jobs()] == ["True", "True"]  # for Kubernetes, which asks the whole pod
    told = eventually(lambda: world.events("LeftoverPodEnded")[1:])
    assert "its worker has ended with exit code 0, and another container of its pod runs on" in told[0]["message"]
    assert not world.events("StuckJobEnded")
    world.enqueue(5)
    eventually(lambda: finished(world) == (3, 0))
    assert world.outcomes() == {"COMPLETED/1": 15}


@pytest.mark.usefixtures("sidecars")
def test_a_probe_beside_a_sidecar_ends_the_trouble(world: World) -> None:
    world.secret()
    world.siorg.control("PUT", "down", {"down": True})
    world.enqueue(5)
    world.operator()
    world.create(world.resource(scaling={"maxJobs": 1}))
    world.wait_for_condition("SiorgAvailable", "False", "SiorgUnavailable")

    world.siorg.control("PUT", "down", {"down": False})

    world.wait_for_condition("SiorgAvailable", "True", "Answering")
    world.wait_until_drained()
    assert world.outcomes() == {"COMPLETED/1": 5}


def test_a_job_on_a_node_that_does_not_answer_is_replaced_and_goes_on_when_the_node_does(world: World) -> None:
    world.secret()
    world.enqueue(5)
    world.hold()
    world.operator(constants={**HASTE, "siorg_operator.decide.pods._LOST_AFTER_SECONDS": 1.0})
    world.create(world.resource(scaling={"maxJobs": 1}, job={"image": HELD_IMAGE}))
    eventually(world.processes)
    (pod,) = world.pods()

    # So does the node controller: all else stays as the kubelet wrote it last.
    world.kube.patch_status("pods", pod["metadata"]["name"], {"conditions": not_ready(pod)}, world.namespace)

    eventually(lambda: len(world.processes()) == 2)
    eventually(lambda: "1 unfinished, 1 lost" in world.decision()["message"])
    assert world.condition("Ready")["reason"] == "AsExpected"
    world.release()
    world.wait_until_drained()
    assert world.outcomes() == {"COMPLETED/1": 5}
    assert [condition(job, "Complete") for job in world.jobs()] == ["True", "True"]
    assert not world.events("StuckJobEnded")


def not_ready(pod: Body) -> list[Body]:
    """The pod's conditions once its node is given up."""
    others = [each for each in pod["status"]["conditions"] if each["type"] != "Ready"]
    return [*others, {"type": "Ready", "status": "False", "lastTransitionTime": now()}]


def test_a_suspended_job_is_told_and_works_once_it_is_admitted(world: World) -> None:
    world.secret()
    world.operator()
    world.enqueue(5)
    with admission.suspended(world.cluster):
        world.create(world.resource(scaling={"maxJobs": 1}))
        told = world.wait_for_condition("ScalingActive", "True", "PendingAdmission")
    assert "1 of 1 unfinished Job waits for admission" in told["message"]
    assert world.condition("Ready")["reason"] == "PendingAdmission"
    (job,) = world.jobs()
    assert not world.pods()

    world.kube.patch("jobs", job["metadata"]["name"], {"spec": {"suspend": False}})

    world.wait_until_drained()
    assert world.outcomes() == {"COMPLETED/1": 5}
    assert world.condition("Ready")["reason"] == "AsExpected"


def test_a_suspended_job_goes_when_the_work_has_ended_without_it(world: World) -> None:
    world.secret()
    world.operator()
    world.enqueue(5)
    with admission.suspended(world.cluster):
        world.create(world.resource(scaling={"maxJobs": 1}))
        eventually(world.jobs)
    assert len(world.jobs()) == 1

    world.connection.execute("DELETE FROM siorg_sync_queue")

    eventually(lambda: not world.jobs())
    world.enqueue(5)
    world.wait_until_drained()  # and none is missed
    assert world.outcomes() == {"COMPLETED/1": 5}
