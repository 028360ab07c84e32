"""What an edit of a resource does, and what it never does."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml

from support.fleet import eventually
from support.kube import Body, Kube
from support.siorg_world import HELD_IMAGE, RESOURCE, World, crd

TEMPLATE = "siorg.waterswamp.dev/template"
SLOW_POLL = {"pollIntervalSeconds": 600}
"""Where it matters that nobody waits for the next look at the queue."""


def running(world: World) -> set[int]:
    return {process.pid for process in world.processes()}


def template(job: Body) -> str:
    return str(job["metadata"]["labels"][TEMPLATE])


def seen(world: World) -> bool:
    """Whether the operator has acted on the newest spec."""
    found = world.get()
    return bool(found["status"].get("observedGeneration") == found["metadata"]["generation"])


def scale(kube: Kube, replicas: int) -> None:
    """As ``kubectl scale`` does it."""
    kube.patch(RESOURCE, "sync", {"spec": {"replicas": replicas}}, subresource="scale")


def test_an_edit_never_ends_a_running_job_and_only_a_changed_template_makes_new_jobs_differ(world: World) -> None:
    world.secret()
    world.enqueue(20)
    world.operator()
    world.create(world.resource(job={"image": HELD_IMAGE}, scaling={"maxJobs": 3}))
    eventually(lambda: len(running(world)) == 1)
    (first,) = world.jobs()
    pids = running(world)

    # What a pod is made from stays as it is.
    world.edit({"scaling": {"itemsPerJob": 12, "maxLaunchesPerStep": 3}, "job": {"ttlSecondsAfterFinished": 600}})
    eventually(lambda: len(running(world)) == 2)
    (second,) = (job for job in world.jobs() if job["metadata"]["uid"] != first["metadata"]["uid"])
    assert template(second) == template(first)
    assert second["spec"]["ttlSecondsAfterFinished"] == 600

    # And now it changes.
    world.edit({"worker": {"logLevel": "debug"}, "job": {"resources": {"limits": {"memory": "1Gi"}}}})
    eventually(lambda: seen(world))
    assert len(world.jobs()) == 2
    world.enqueue(16)
    eventually(lambda: len(running(world)) == 3)
    assert pids < running(world)
    newest = {job["metadata"]["uid"]: job for job in world.jobs()}
    del newest[first["metadata"]["uid"]], newest[second["metadata"]["uid"]]
    (third,) = newest.values()
    assert template(third) != template(first)
    assert third["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"] == {"memory": "1Gi"}

    # They all do their work.
    world.release()
    world.wait_until_drained()
    assert world.outcomes() == {"COMPLETED/1": 36}
    assert [job["status"].get("failed", 0) for job in world.jobs()] == [0, 0, 0]


def test_scaling_by_kubectl_works_at_once_and_ends_nothing(world: World) -> None:
    world.secret()
    world.enqueue(80)
    world.operator()
    world.create(world.resource(job={"image": HELD_IMAGE}, scaling={"maxJobs": 1, **SLOW_POLL}))
    eventually(lambda: len(running(world)) == 1)

    scale(world.kube, 3)
    eventually(lambda: len(running(world)) == 3)
    assert world.get()["spec"]["scaling"]["maxJobs"] == 3
    eventually(lambda: world.status()["jobs"]["active"] == 3)
    told = world.kube.request("GET", world.kube.path(RESOURCE, name="sync", subresource="scale"))
    assert (told["spec"]["replicas"], told["status"]["replicas"]) == (3, 3)
    assert told["status"]["selector"] == "app.kubernetes.io/component=drain,siorg.waterswamp.dev/worker=sync"
    assert len(world.kube.list("pods", labels=told["status"]["selector"])) == 3

    pids = running(world)
    scale(world.kube, 0)
    suspended = world.wait_for_condition("ScalingActive", "False", "Suspended")
    assert "maxJobs is 0" in suspended["message"]
    assert world.condition("Ready")["status"] == "True"  # somebody wants it so
    assert running(world) == pids

    world.release()
    world.wait_until_drained()
    assert world.outcomes() == {"COMPLETED/1": 80}


def test_suspended_nothing_is_launched_and_what_runs_drains(world: World) -> None:
    world.secret()
    world.enqueue(20)
    operator = world.operator()
    world.create(world.resource(job={"image": HELD_IMAGE}, scaling=SLOW_POLL))
    eventually(lambda: len(running(world)) == 1)

    world.edit({"suspend": True})
    told = world.wait_for_condition("ScalingActive", "False", "Suspended")
    assert "spec.suspend is true" in told["message"]
    assert world.condition("Ready")["status"] == "True"
    world.enqueue(40)
    world.release()
    eventually(lambda: not world.unfinished_jobs())
    assert len(world.jobs()) == 1  # it drained what came later, too
    world.wait_until_drained()

    world.hold()
    world.enqueue(20)
    eventually(lambda: world.status()["queue"]["claimable"] == 20)
    assert world.decision()["reason"] == "Suspended"
    assert operator.metric("siorg_operator_held_back", "Suspended") == 1
    assert len(world.jobs()) == 1

    world.edit({"suspend": False})
    eventually(lambda: len(running(world)) == 1)
    world.wait_for_condition("ScalingActive", "True")
    eventually(lambda: world.events("ScalingResumed"))  # told right after status is written
    assert [event["type"] for event in world.events("Suspended")] == ["Normal"]


@pytest.mark.parametrize("by_scale", [False, True])
def test_told_to_stop_what_runs_gives_back_what_it_holds_and_the_work_goes_on_at_once_when_resumed(
    world: World, by_scale: bool
) -> None:
    world.siorg.control("PUT", "latency", {"latency": "20000"})
    world.secret()
    world.enqueue(40)
    operator = world.operator()
    world.create(world.resource(whenSuspended="Stop", scaling=SLOW_POLL, worker={"concurrency": 4}))  # so that each has its share
    eventually(lambda: len(running(world)) == 2 and world.outcomes().get("PROCESSING/1", 0) > 0)
    pids = running(world)

    if by_scale:
        scale(world.kube, 0)
    else:
        world.edit({"suspend": True})
    told = world.wait_for_condition("ScalingActive", "False", "Suspended")["message"]
    assert "stopping 2 Jobs, which give back what they hold" in told
    eventually(lambda: not running(world))
    assert world.outcomes() == {"PENDING": 40}  # nothing is lost, and no attempt burned
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    eventually(lambda: world.status()["jobs"]["active"] == 0)
    eventually(lambda: "nothing runs any more" in world.condition("ScalingActive")["message"])
    assert world.condition("Ready")["status"] == "True"
    assert (world.status()["jobs"]["succeeded"], world.status()["jobs"]["failed"]) == (2, 0)
    assert operator.metric("siorg_operator_jobs_ended_total", "Done") == 2
    assert [event["message"].partition(",")[0] for event in world.events("JobsStopped")] == ["Stopping 2 Jobs"]
    assert {job["metadata"]["annotations"]["siorg.waterswamp.dev/stopped"] for job in world.jobs()} == {
        "spec.scaling.maxJobs is 0" if by_scale else "spec.suspend is true"
    }

    world.siorg.control("PUT", "latency", {"latency": "0"})
    if by_scale:
        scale(world.kube, 4)
    else:
        world.edit({"suspend": False})
    world.wait_until_drained()
    assert world.outcomes() == {"COMPLETED/1": 40}
    assert "backoff" not in world.status()
    assert not [event for event in world.events() if event["type"] == "Warning"]


def test_observing_it_launches_nothing_and_says_what_it_would_do(world: World) -> None:
    world.secret()
    world.enqueue(50)
    operator = world.operator()
    world.create(world.resource(mode="Observe", scaling={"maxLaunchesPerStep": 2, **SLOW_POLL}))

    told = world.wait_for_condition("ScalingActive", "False", "Observe")

    assert "spec.mode is Observe" in told["message"]
    assert world.condition("Ready")["status"] == "True"
    assert world.decision()["reason"] == "Observe"
    assert "depth 50, 20 a Job → 3 wanted, 0 unfinished → would launch 2" in world.decision()["message"]
    assert world.status()["jobs"]["desired"] == 3
    assert operator.metric("siorg_operator_held_back", "Observe") == 1
    assert not world.kube.list("jobs")
    eventually(lambda: [event["type"] for event in world.events("Observe")] == ["Normal"])

    world.edit({"mode": "Active"})
    eventually(world.jobs)
    world.wait_until_drained()


def test_a_spec_that_an_older_definition_let_in_is_named_and_mended_by_an_edit(world: World) -> None:
    world.secret()
    world.enqueue(20)
    world.create(world.resource(job={"image": HELD_IMAGE}))
    operator = world.operator()
    eventually(lambda: len(running(world)) == 1)
    lenient = copy.deepcopy(crd())
    (version,) = lenient["spec"]["versions"]
    version["schema"]["openAPIV3Schema"]["properties"]["spec"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    if world.cluster.server is None:
        # The one real cluster's definition is everybody's: there the operator sees a spec that it cannot use by other means.
        world.edit({"job": {"image": None}})
        field = "spec.job.image"
    else:
        world.kube.apply_crd(lenient)
        world.edit({"scaling": {"itemsPerJob": 0}})
        field = "spec.scaling.itemsPerJob"

    invalid = world.wait_for_condition("Ready", "False", "InvalidSpec")

    assert field in invalid["message"]
    assert "allowed" in invalid["message"]
    assert world.condition("ScalingActive")["reason"] == "InvalidSpec"
    assert len(running(world)) == 1
    eventually(lambda: world.events("InvalidSpec"))
    assert len(world.events("InvalidSpec")) == 1
    assert operator.probe("healthz")[0] == 200

    world.edit({"scaling": {"itemsPerJob": 10}, "job": {"image": HELD_IMAGE}})
    world.wait_for_condition("Ready", "True")
    eventually(lambda: len(running(world)) == 2)
    if world.cluster.server is not None:
        world.kube.apply_crd(crd())


def test_a_resource_without_an_image_needs_the_operator_to_have_one(world: World) -> None:
    world.secret()
    world.enqueue(10)
    manifest = world.resource()
    del manifest["spec"]["job"]["image"]
    first = world.operator(name="first")
    world.create(manifest)
    told = world.wait_for_condition("Ready", "False", "InvalidSpec")
    assert "SIORG_OPERATOR_JOB_IMAGE" in told["message"]
    first.stop()

    world.operator(name="second", JOB_IMAGE="siorg-job:test")

    world.wait_until_drained()
    assert world.condition("Ready")["status"] == "True", yaml.safe_dump(world.status())
