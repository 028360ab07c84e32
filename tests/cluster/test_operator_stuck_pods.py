"""Pods that cannot start: named in a condition, their slot freed, tried again rarely, and at once when something changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from email.utils import format_datetime
from typing import Any, Self

import pytest

from kube_double.server import ApiServer
from support.fleet import eventually
from support.kube import condition
from support.siorg_world import IMAGE, World


def backoff(world: World) -> dict[str, Any]:
    return dict(world.status().get("backoff") or {"streak": 0})


def assert_slots_are_freed_and_launches_few(world: World, *, rounds: int) -> None:
    """After some rounds of failures there were the first Jobs and one probe for each pause."""
    eventually(lambda: backoff(world)["streak"] >= rounds, seconds=60)
    jobs = world.jobs()
    assert 4 <= len(jobs) <= 4 + rounds, [job["metadata"]["name"] for job in jobs]
    assert len(world.unfinished_jobs()) <= 1
    assert {condition(job, "Failed") for job in jobs[:4]} == {"True"}
    assert not world.processes()
    eventually(lambda: len(world.pods()) <= 1)


def test_an_image_that_cannot_be_pulled_is_named_and_mended_by_an_edit(world: World) -> None:
    world.secret()
    world.enqueue(70)
    operator = world.operator()
    world.create(world.resource(job={"image": "registry.example/siorg-job:nowhere", "failedJobsHistoryLimit": 20}))

    told = world.wait_for_condition("Degraded", "True", "PodsStuck")

    assert "registry.example/siorg-job:nowhere" in told["message"]
    assert "Correct what the message names (image" in told["message"]
    assert "a change is tried at once" in told["message"]
    assert world.condition("Ready")["reason"] == "PodsStuck"
    assert_slots_are_freed_and_launches_few(world, rounds=3)
    assert world.condition("ScalingActive")["reason"] == "PodsStuck"
    assert "registry.example/siorg-job:nowhere" in world.condition("Degraded")["message"]
    eventually(lambda: len(world.events("StuckJobEnded")) >= 4)
    ended = world.events("StuckJobEnded")
    assert len(ended) <= 7
    assert all("registry.example/siorg-job:nowhere" in event["message"] for event in ended)
    assert operator.metric("siorg_operator_jobs_ended_total", "PodStuck") >= 4
    assert world.outcomes() == {"PENDING": 70}

    world.edit({"job": {"image": IMAGE}})

    eventually(world.processes)
    world.wait_until_drained()
    assert world.outcomes() == {"COMPLETED/1": 70}
    world.wait_for_condition("Degraded", "False")
    eventually(lambda: world.events("Recovered"))


@pytest.mark.parametrize(
    ("job", "says"),
    [
        ({"image": "siorg-job:absent", "imagePullPolicy": "Never"}, "siorg-job:absent"),
        (
            {"podTemplate": {"spec": {"env": [
                {"name": "EXTRA", "valueFrom": {"secretKeyRef": {"name": "nowhere", "key": "it"}}}]}}},
            'secret "nowhere" not found',
        ),
        ({"podTemplate": {"spec": {"nodeSelector": {"disk": "none-of-these"}}}}, "nodes are available"),
    ],
    ids=["ErrImageNeverPull", "CreateContainerConfigError", "Unschedulable"],
)  # fmt: skip
def test_whatever_keeps_pods_from_starting_is_named_and_mended_by_an_edit(world: World, job: dict[str, Any], says: str) -> None:
    world.secret()
    world.enqueue(70)
    world.operator()
    healthy = world.resource()
    world.create(world.resource(job={**job, "failedJobsHistoryLimit": 20}))

    told = world.wait_for_condition("Degraded", "True", "PodsStuck")

    assert says in told["message"]
    assert_slots_are_freed_and_launches_few(world, rounds=2)
    assert says in world.condition("Degraded")["message"]
    world.replace_spec(healthy["spec"])
    eventually(world.processes)
    world.wait_until_drained()
    world.wait_for_condition("Degraded", "False")


def test_what_is_mended_outside_the_resource_is_found_by_the_next_probe(world: World) -> None:
    world.secret()
    world.enqueue(10)
    world.operator()
    missing = {"name": "EXTRA", "valueFrom": {"secretKeyRef": {"name": "extra", "key": "it"}}}
    world.create(world.resource(job={"podTemplate": {"spec": {"env": [missing]}}}))
    world.wait_for_condition("ScalingActive", "False", "PodsStuck")

    world.secret("any", name="extra", key="it")

    world.wait_until_drained()
    world.wait_for_condition("Degraded", "False")


def test_a_pod_that_becomes_ready_within_the_grace_is_left_alone(world: World) -> None:
    world.secret()
    world.enqueue(10)
    world.operator(STUCK_GRACE_SECS=20)
    images = world.cluster.kubelet.images
    argv = images.pop(IMAGE)
    world.create()
    world.wait_for_condition("Degraded", "True", "PodsStuck")
    (job,) = world.jobs()

    images[IMAGE] = argv

    world.wait_until_drained()
    assert [one["metadata"]["name"] for one in world.jobs()] == [job["metadata"]["name"]]
    world.wait_for_condition("Degraded", "False")
    assert not world.events("StuckJobEnded")


def test_an_operator_whose_clock_is_ahead_ends_no_pod_before_its_grace_is_over(
    world: World, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All clocks of the cluster are behind here, by more than every grace."""

    class Behind(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return super().now(tz) - timedelta(minutes=16)

    for module in ("store", "job_controller", "kubelet", "registry"):
        monkeypatch.setattr(f"kube_double.{module}.datetime", Behind)
    monkeypatch.setattr("aiohttp.web_response.rfc822_formatted_time", lambda: format_datetime(Behind.now(UTC), usegmt=True))
    world.secret()
    world.enqueue(10)
    world.operator(UNSCHEDULABLE_GRACE_SECS=300)
    world.create(world.resource(job={"podTemplate": {"spec": {"nodeSelector": {"disk": "none-of-these"}}}}))

    eventually(lambda: "nodes are available" in world.condition("Ready")["message"])
    told = world.condition("Ready")
    assert (told["status"], world.condition("Degraded")["status"]) == ("True", "False")  # an autoscaler may be at it
    assert datetime.fromisoformat(told["lastTransitionTime"]) < Behind.now(UTC) + timedelta(minutes=1)
    (job,) = world.unfinished_jobs()  # an end would have come before that was told
    assert "siorg.waterswamp.dev/stuck" not in job["metadata"]["annotations"]
