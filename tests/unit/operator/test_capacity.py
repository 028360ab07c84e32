"""Which Jobs are capacity, and what the others are: out of Job and Pod objects as Kubernetes really writes them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from siorg_operator.decide.jobs import combine
from siorg_operator.decide.manifests import STUCK_ANNOTATION, WORKER_ENDED_ANNOTATION
from siorg_operator.decide.pods import pod_record
from siorg_operator.decide.state import Ending, Job, JobState
from support.job_objects import (
    DRAINED,
    a_job,
    a_pod,
    complete,
    condition,
    failed,
    record_of,
    running,
    seen,
    terminated,
    waiting,
    words,
)
from support.operator_values import NOW, at, rfc3339

SUSPENDED, PENDING, ACTIVE, LOST = JobState.SUSPENDED, JobState.PENDING, JobState.ACTIVE, JobState.LOST
DONE = JobState.SUCCEEDED
DID_IT = terminated(0, json.dumps(DRAINED))
LATER = 600.0

Objects = dict[str, Any]


def not_ready(reason: str = "", *, when: float = -100) -> Objects:
    """The node controller, for a node that does not answer, gives no reason; a kubelet always does."""
    return condition("Ready", reason, status="False", when=when)


def taken_away(reason: str = "DeletionByTaintManager") -> Objects:
    return condition("DisruptionTarget", reason, "Taint manager: deleting due to NoExecute taint", when=-100)


def going(when: float = -90) -> Objects:
    """Metadata of a pod that was deleted, and whose grace of 60 s is over ``when``."""
    return {"deletionTimestamp": rfc3339(at(when)), "deletionGracePeriodSeconds": 60}


def runs(*conditions: Objects, name: str = "pod", **more: Any) -> Objects:
    return a_pod(running(-400), phase="Running", conditions=conditions, name=name, **more)


def ends(*kinds: str, when: float = -90) -> Objects:
    """A Job that the Job controller is ending, and is no terminal one."""
    return a_job(conditions=[condition(kind, "DeadlineExceeded", when=when) for kind in kinds], active=0, terminating=1)


def suspended(*, active: int = 0) -> Objects:
    job = a_job(conditions=[condition("Suspended", "JobSuspended")], active=active)
    job["spec"]["suspend"] = True
    return job


def annotated(job: Objects, key: str, value: str) -> Objects:
    return {**job, "metadata": {**job["metadata"], "annotations": {key: value}}}


def leftover(state: Objects = DID_IT, *conditions: Objects, **more: Any) -> Objects:
    told = [not_ready("ContainersNotReady"), *conditions]
    return a_pod(state, phase="Running", others=[running()], conditions=told, **more)


@pytest.mark.parametrize(
    ("job", "pods", "state", "why"),
    [
        # -- the worker runs, or is to be given its time
        (a_job(), [runs()], ACTIVE, None),
        (a_job(), [runs(not_ready("ContainersNotReady"), others=[waiting("ImagePullBackOff")])], ACTIVE, None),
        (a_job(), [runs(not_ready("ReadinessGatesNotReady"))], ACTIVE, None),
        (a_job(), [runs(not_ready(when=-59))], ACTIVE, None),
        (ends("FailureTarget"), [runs(**going(-59))], ACTIVE, None),
        (suspended(active=1), [runs(**going(20))], ACTIVE, None),
        # -- 1: the node is lost, though its containers still read running
        (a_job(), [runs(not_ready(when=-60))], LOST, "NodeLost"),
        (a_job(), [runs(condition("Ready", status="Unknown", when=-60))], LOST, "NodeLost"),
        (a_job(), [runs(not_ready(), taken_away(), **going(-10))], LOST, "NodeLost"),
        (a_job(), [runs(not_ready(), taken_away(), **going(-60))], LOST, "NodeLost"),
        (ends("FailureTarget"), [runs(not_ready(), taken_away(), **going())], LOST, "NodeLost"),
        (a_job(), [runs(**going())], LOST, "NodeLost"),  # Ready was False before, for another reason
        (a_job(), [a_pod(waiting("ContainerCreating"), **going())], LOST, "NodeLost"),
        (ends("FailureTarget"), [], LOST, "NotEnding"),
        (ends("FailureTarget", when=-59), [], PENDING, None),
        (a_job(), [runs(not_ready(), **going()), runs(name="successor")], ACTIVE, None),
        (a_job(), [runs(not_ready(), **going()), a_pod(waiting("ContainerCreating"), name="successor")], PENDING, None),
        # -- 2: a sidecar outlives the worker
        (a_job(ready=0), [leftover()], DONE, "WorkerEnded"),
        (a_job(), [a_pod(DID_IT, others=[waiting("ImagePullBackOff")], phase="Running")], DONE, "WorkerEnded"),
        (a_job(), [leftover(**going())], DONE, "WorkerEnded"),
        (a_job(), [leftover(terminated(75, words("siorg_unavailable", 75)))], JobState.FAILED, "WorkerEnded"),
        (a_job(), [leftover(terminated(0, until=-4))], PENDING, None),  # in most pods all ends with it
        (a_job(), [leftover(DID_IT, taken_away(), **going(10))], PENDING, None),  # it may have a successor
        (a_job(), [a_pod(DID_IT, phase="Succeeded")], DONE, None),  # the Job controller is slow
        (ends("SuccessCriteriaMet"), [a_pod(DID_IT, phase="Succeeded")], DONE, None),
        (a_job(), [a_pod(terminated(1), phase="Failed")], PENDING, None),  # there the Job controller decides
        (a_job(), [a_pod(terminated(0), phase="Failed", conditions=[taken_away()])], PENDING, None),
        (a_job(), [leftover(), runs(name="successor")], ACTIVE, None),
        # -- 4: suspended
        (suspended(), [], SUSPENDED, None),
        (suspended(), [a_pod(terminated(0), phase="Succeeded", conditions=[taken_away()], name="x")], DONE, None),
        (suspended(), [a_pod(terminated(0), phase="Failed", conditions=[taken_away()], name="x")], SUSPENDED, None),
        (suspended(), [a_pod(waiting("ContainerCreating"), **going(20))], PENDING, None),
    ],
)  # fmt: skip
def test_what_a_job_is(job: Objects, pods: list[Objects], state: JobState, why: str | None) -> None:
    found = seen(job, *pods)
    assert (found.state, found.stuck and found.stuck.reason) == (state, why)
    assert found.unfinished == (state in {SUSPENDED, PENDING, ACTIVE})


@pytest.mark.parametrize(
    ("job", "pods", "now", "seconds"),
    [
        (a_job(), [runs()], 0, None),
        (a_job(), [runs(not_ready(when=-20))], 0, 40),
        (a_job(), [runs(not_ready(when=-20), **going(-10))], 0, 40),
        (a_job(), [leftover(terminated(0, until=-2))], 0, 3),
        (a_job(), [leftover()], 0, None),
        (ends("FailureTarget", when=-20), [a_pod(**going(10))], 0, 40),
        (a_job(), [a_pod(scheduled=None)], -10, 10),
        (a_job(), [a_pod(waiting("ContainerCreating"))], 0, 845),
        (a_job(active=0), [], -10, 10),
    ],
)
def test_when_a_job_is_something_else_without_news_is_known(
    job: Objects, pods: list[Objects], now: float, seconds: float | None
) -> None:
    found = seen(job, *pods, now=at(now)).changes_at
    assert (found and (found - at(now)).total_seconds()) == seconds


# -- 1: lost ------------------------------------------------------------------------------------------------------------


def test_a_lost_job_is_ended_once_kubernetes_has_deleted_its_pod_and_then_is_no_failure_of_its_pods() -> None:
    """Until then its node may come back, and it goes on. Later another pod would come in its place."""
    silent, deleted = runs(not_ready()), runs(not_ready(), **going())
    told = [seen(job, pod).stuck for job, pod in ((a_job(), silent), (ends("FailureTarget"), deleted), (a_job(), deleted))]
    assert [stuck and stuck.since for stuck in told] == [None, None, at(-90)]
    assert [stuck and stuck.message for stuck in told] == [
        "the node of its pod pod does not answer",
        *["its pod pod was deleted and does not go: its node does not answer, most likely"] * 2,
    ]
    over = seen(annotated(failed("DeadlineExceeded"), STUCK_ANNOTATION, "NodeLost: its pod was deleted and does not go"), deleted)
    assert (over.state, over.ending) == (JobState.FAILED, Ending.LOST)


# -- 2: a sidecar -------------------------------------------------------------------------------------------------------


def test_a_worker_that_ended_well_in_a_pod_that_lives_on_is_a_success_with_its_summary() -> None:
    found = seen(a_job(), leftover())
    assert (found.ending, found.started_at, found.finished_at, found.message) == (Ending.DONE, at(-40), at(-10), "")
    assert found.summary is not None
    assert found.summary.ended == 50
    assert found.stuck is not None
    assert found.stuck.since == at(-10)
    assert found.stuck.message == "its worker has ended with exit code 0, and another container of its pod runs on"


def test_for_how_long_a_pod_lives_on_counts_from_when_its_worker_was_seen_to_have_ended() -> None:
    """Not by the clock of its node."""
    found = combine(record_of(a_job()), [replace(pod_record(leftover()), ended_since=at(-5))], NOW)
    assert found.stuck is not None
    assert found.stuck.since == at(-5)


@pytest.mark.parametrize(
    "state",
    [DID_IT, terminated(75, words("siorg_unavailable", 75)), terminated(2, "WORKER_LEASE_SECS: is too small"),
     terminated(1, "Traceback\nValueError: no"), terminated(137, reason="OOMKilled")],
    ids=["0", "75", "2", "1", "out of memory"],
)  # fmt: skip
def test_how_it_ended_outlives_its_pod(state: Objects) -> None:
    """The operator ends the Job; for Kubernetes that is a failure, and the pod goes with it."""
    before = seen(a_job(), leftover(state))
    over = annotated(failed("DeadlineExceeded"), WORKER_ENDED_ANNOTATION, before.last_words)
    ending, going_too = annotated(a_job(), WORKER_ENDED_ANNOTATION, before.last_words), leftover(state, **going(20))
    for job, pods in ((ending, [going_too]), (over, [going_too]), (over, [])):
        after = seen(job, *pods)
        assert after == replace(before, stuck=None, last_words="")
    assert seen(annotated(over, WORKER_ENDED_ANNOTATION, "{}")).ending is Ending.DEADLINE


@pytest.mark.parametrize(
    ("job", "pod", "ending"),
    [
        (failed(), a_pod(DID_IT, phase="Failed", others=[terminated(1)]), Ending.DONE),  # the sidecar's exit code
        (failed("DeadlineExceeded"), a_pod(DID_IT, phase="Failed", others=[terminated(137)]), Ending.DONE),
        (failed("DeadlineExceeded"), a_pod(terminated(0, words("stopped", 0)), phase="Succeeded"), Ending.DEADLINE),
        (complete(), a_pod(terminated(1), phase="Failed"), Ending.DONE),  # an earlier pod of it
        (failed(), a_pod(terminated(0), phase="Failed", conditions=[taken_away()]), Ending.FAILED),
    ],
)
def test_exit_0_is_a_success_whatever_the_rest_of_the_pod_does(job: Objects, pod: Objects, ending: Ending) -> None:
    assert seen(job, pod).ending is ending


def test_secrets_are_taken_out_of_what_is_kept_of_a_workers_end() -> None:
    pod = pod_record(leftover(terminated(1, "hunter2hunter2 was refused")))
    kept = combine(record_of(a_job()), [pod], NOW, lambda text: text.replace("hunter2hunter2", "***"))
    assert "hunter2" not in kept.last_words
    assert "*** was refused" in kept.last_words


# -- 3, 4: what keeps a pod from being taken ------------------------------------------------------------------------------


def told(job: Objects, *pods: Objects, now: float) -> tuple[str, str, float] | None:
    """The word, the sentence, and from when on its grace runs."""
    stuck = seen(job, *pods, now=at(now)).stuck
    return None if stuck is None else (stuck.reason, stuck.message, ((stuck.since or at(now)) - NOW).total_seconds())


def test_a_pod_that_no_scheduler_looks_at_is_told_after_a_minute_and_ended_after_a_quarter_of_an_hour() -> None:
    ignored = a_pod(scheduled=None)
    gate = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "lastTransitionTime": rfc3339(at(-60))}
    gated = a_pod(scheduled=None, conditions=[gate])
    for pod, word, why in (
        (ignored, "NotScheduled", "no scheduler has looked at it: schedulerName, or the scheduler itself"),
        (gated, "SchedulingGated", "what put a scheduling gate on it has not taken it away"),
    ):
        assert told(a_job(), pod, now=-1) is None
        assert told(a_job(), pod, now=0) == (word, f"{why} (kubectl describe pod pod)", 840)


def test_a_pod_of_which_its_node_says_nothing_is_told_after_a_quarter_of_an_hour() -> None:
    assert told(a_job(), a_pod(), now=844) is None
    found = told(a_job(), a_pod(), now=845)
    assert found is not None
    assert found[0] == "NodeSilent"


def test_a_suspended_job_is_neither_stuck_nor_lost_however_long() -> None:
    assert seen(suspended(), now=at(1e6)).stuck is None


# -- 5: eviction and preemption -----------------------------------------------------------------------------------------


def found_without_a_pod(job: Objects, *pods: Objects, since: float, now: float) -> Job:
    return combine(record_of(job), [pod_record(pod) for pod in pods], at(now), podless_since=at(since))


@pytest.mark.parametrize("evicted", [[], [a_pod(None, phase="Failed", conditions=[taken_away("EvictionByEvictionAPI")])]])
def test_the_age_of_a_job_without_a_pod_counts_from_the_loss_of_its_pod(evicted: list[Objects]) -> None:
    job = a_job(active=0)
    assert found_without_a_pod(job, *evicted, since=LATER, now=LATER + 59).stuck is None
    stuck = found_without_a_pod(job, *evicted, since=LATER, now=LATER + 60).stuck
    assert stuck is not None
    assert (stuck.reason, stuck.since) == ("NoPod", at(LATER + 900))
    # The Job controller waits longer and longer after pods that failed by themselves.
    assert found_without_a_pod(a_job(active=0, failed=2), *evicted, since=0, now=899).stuck is None
    assert found_without_a_pod(a_job(active=0, failed=2), *evicted, since=0, now=900).stuck is not None


# -- 6: rejected, deleted -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("OutOfpods", "Pod was rejected: Node didn't have enough resource: pods, requested: 1, used: 110, capacity: 110"),
        ("UnexpectedAdmissionError", "Pod was rejected: Allocate failed due to no devices left, which is unexpected"),
    ],
)
def test_what_the_kubelet_says_to_a_pod_that_it_rejects_is_told(reason: str, message: str) -> None:
    rejected = a_pod(None, phase="Failed", status={"reason": reason, "message": message})
    evicted_before = a_pod(terminated(0), phase="Failed", conditions=[taken_away()], name="first")
    for pods in ([rejected], [evicted_before, rejected]):
        found = seen(failed(), *pods)
        assert (found.ending, found.message) == (Ending.STUCK, f"{reason}: {message}")


@pytest.mark.parametrize(
    ("job", "pods", "ending"),
    [
        (failed(), [], Ending.LOST),
        (failed(), [a_pod(terminated(137), phase="Failed", **going(-10))], Ending.LOST),
        (failed(), [a_pod(terminated(137, reason="OOMKilled"), phase="Failed", **going(-10))], Ending.OUT_OF_MEMORY),
        (failed(), [a_pod(terminated(137), phase="Failed")], Ending.FAILED),
        (failed(), [a_pod(terminated(1), phase="Failed", **going(-10))], Ending.FAILED),
        (failed("PodFailurePolicy", "Container worker for pod sync/pod failed with exit code 2"), [], Ending.FAILED),
    ],
)
def test_a_pod_that_somebody_deleted_is_no_crash(job: Objects, pods: list[Objects], ending: Ending) -> None:
    assert seen(job, *pods).ending is ending
