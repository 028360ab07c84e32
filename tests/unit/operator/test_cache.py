"""What is observed of a resource follows from the events that told of it, in whichever order they came."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from siorg_operator.control.cache import Cache
from siorg_operator.decide.manifests import COMPONENT_LABEL, CONTAINER, ROUND_LABEL, SLOT_LABEL
from siorg_operator.decide.state import Ending, Job, JobState
from support.operator_values import NOW, UID, at, rfc3339, worker

RUNNING = {"running": {"startedAt": rfc3339(NOW)}}


def thing(kind: str, uid: str, owner_kind: str, owner: str, **labels: str) -> dict[str, Any]:
    reference = {"kind": owner_kind, "uid": owner, "controller": True}
    metadata = {"name": f"{kind}-{uid}", "uid": uid, "labels": labels, "ownerReferences": [reference], "generation": 1}
    return {"kind": kind, "metadata": metadata | {"creationTimestamp": rfc3339(NOW)}}


def job(uid: str = "j1", *, owner: str = UID, owner_kind: str = "SiorgSyncWorker") -> dict[str, Any]:
    return thing("jobs", uid, owner_kind, owner, **{SLOT_LABEL: uid[1:], ROUND_LABEL: "1", COMPONENT_LABEL: "drain"})


def pod(uid: str = "p1", *, component: str = "drain", state: dict[str, Any] | str = RUNNING) -> dict[str, Any]:
    if isinstance(state, str):
        state = {"waiting": {"reason": state, "message": f"{state} of an image"}}
    status = {"containerStatuses": [{"name": CONTAINER, "state": state}]}
    return thing("pods", uid, "Job", "j1", **{COMPONENT_LABEL: component}) | {"status": status}


def show(cache: Cache, *bodies: dict[str, Any], deleted: bool = False) -> list[str]:
    return [cache.update(body["kind"], body, deleted=deleted) for body in bodies]


def shown(*bodies: dict[str, Any]) -> Cache:
    cache = Cache()
    show(cache, *bodies)
    return cache


def observe(cache: Cache, seconds: float = 0, *, owner: str = UID) -> dict[str, Job]:
    resource = worker().model_copy(update={"metadata": worker().metadata.model_copy(update={"uid": owner})})
    return {job.name.removeprefix("jobs-"): job for job in cache.observe(resource, at(seconds)).jobs}


def states(cache: Cache) -> dict[str, JobState]:
    return {name: job.state for name, job in observe(cache).items()}


def test_a_job_and_its_pod_belong_to_their_resource_whoever_comes_first_until_they_are_deleted() -> None:
    cache = Cache()
    assert show(cache, pod(), job(), pod(), job("j2")) == ["", UID, UID, UID]
    assert states(cache) == {"j1": JobState.ACTIVE, "j2": JobState.PENDING}
    assert (cache.uids("jobs"), cache.uids("pods")) == ({"j1", "j2"}, {"p1"})
    assert show(cache, pod(), deleted=True) == [UID]
    assert states(cache) == {"j1": JobState.PENDING, "j2": JobState.PENDING}
    assert show(cache, job(), deleted=True) == [UID]
    assert states(cache) == {"j2": JobState.PENDING}
    assert cache.uids("pods") == set()


def test_what_is_dropped_is_observed_no_more_and_may_come_back() -> None:
    cache = shown(job())
    cache.drop("jobs", {"j1", "unknown"})
    assert states(cache) == {}
    show(cache, job())
    assert states(cache) == {"j1": JobState.PENDING}


def test_others_jobs_and_pods_are_not_kept() -> None:
    report = {"kind": "jobs", "metadata": {"name": "report", "uid": "x", "labels": {}}}
    cache = shown(report, pod("p2", component="cleanup"))
    assert cache.uids("jobs") == cache.uids("pods") == set()


def test_each_resource_has_its_own_also_when_a_job_changes_its_owner() -> None:
    cache = shown(job("j1"), job("j2", owner="another"), job("j3", owner="another"))
    assert states(cache) == {"j1": JobState.PENDING}
    show(cache, job("j2"))
    assert [set(observe(cache, owner=owner)) for owner in (UID, "another")] == [{"j1", "j2"}, {"j3"}]


def test_cron_jobs_and_their_jobs_are_observed_until_they_are_deleted() -> None:
    cache, body = Cache(), thing("cronjobs", "c1", "SiorgSyncWorker", UID)
    assert show(cache, body, job("r1", owner="c1", owner_kind="CronJob")) == [UID, UID]
    observed = cache.observe(worker(), NOW)
    assert [cron_job.name for cron_job in observed.cron_jobs] == ["cronjobs-c1"]
    assert [run.name for run in observed.cron_runs] == ["jobs-r1"]
    assert list(observed.jobs) == []
    assert show(cache, body, deleted=True) == [UID]
    assert list(cache.observe(worker(), NOW).cron_jobs) == []


# -- what a pod tells no more -----------------------------------------------------------------------------------------


def since(cache: Cache, seconds: float, state: str, uid: str = "p1") -> datetime | None:
    """Take the pod as it is, and tell since when the Job has been stuck."""
    show(cache, pod(uid, state=state))
    stuck = observe(cache, seconds)["j1"].stuck
    return None if stuck is None else stuck.since


def test_the_grace_of_a_stuck_pod_begins_when_it_is_first_seen_stuck_not_when_a_node_took_it() -> None:
    cache = shown(job())
    assert since(cache, 10, "ContainerCreating") is None
    assert since(cache, 20, "ErrImagePull") == at(20)
    assert since(cache, 40, "ImagePullBackOff") == at(20)
    assert since(cache, 50, "ContainerCreating") is None  # and it is seen anew after it went on its way
    assert since(cache, 60, "CreateContainerError") == at(60)


def test_a_successor_has_a_grace_of_its_own() -> None:
    cache = shown(job())
    since(cache, 0, "ErrImagePull", "first")
    show(cache, pod("first"), deleted=True)
    assert since(cache, 40, "ErrImagePull", "second") == at(40)


def test_of_a_pod_that_no_node_takes_its_condition_tells_since_when() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "lastTransitionTime": rfc3339(at(-55))}
    stuck = observe(shown(job(), pod() | {"status": {"conditions": [condition]}}))["j1"].stuck
    assert stuck is not None
    assert stuck.since == at(-55)


def test_a_job_that_began_is_remembered_when_its_deadline_removes_the_pod() -> None:
    for state, began in ((RUNNING, NOW), ("PodInitializing", None)):
        cache = shown(job(), pod(state=state))
        assert observe(cache)["j1"].started_at == began
        show(cache, pod(), deleted=True)
        show(cache, job())
        assert [observe(cache, seconds)["j1"].started_at for seconds in (10, 20)] == [began, began]


def test_what_is_dated_ahead_is_taken_for_seen_now_however_often_it_is_told() -> None:
    failed = [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "lastTransitionTime": rfc3339(at(9e6))}]
    ended = {"terminated": {"exitCode": 1, "finishedAt": rfc3339(at(9e6))}}
    cache = shown(job() | {"status": {"conditions": failed}}, pod(state=ended))
    assert observe(cache, 10)["j1"].finished_at == at(10)
    show(cache, job() | {"status": {"conditions": failed, "failed": 1}})
    assert observe(cache, 500)["j1"].finished_at == at(10)


def test_how_a_pod_ended_is_remembered_when_it_is_gone() -> None:
    """Somebody deletes it at the moment of its end: its Job says only that it failed."""
    killed = {"terminated": {"exitCode": 2, "reason": "Error", "startedAt": rfc3339(NOW), "finishedAt": rfc3339(at(9))}}
    failed = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "lastTransitionTime": rfc3339(at(9))}
    cache = shown(job(), pod(state=RUNNING))
    show(cache, pod(state=killed), deleted=True)
    show(cache, job() | {"status": {"conditions": [failed]}})
    found = observe(cache, 9)["j1"]
    assert (found.ending, found.started_at) == (Ending.WRONG_SETTINGS, NOW)


def test_the_age_of_a_job_without_a_pod_counts_from_when_it_was_first_seen_so() -> None:
    cache = shown(job(), pod())
    show(cache, pod(), deleted=True)
    told = [observe(cache, seconds)["j1"].stuck for seconds in (600, 659, 660)]
    assert [stuck and stuck.reason for stuck in told] == [None, None, "NoPod"]
    show(cache, pod("p2"))
    assert [observe(cache, seconds)["j1"].state for seconds in (700, 800)] == [JobState.ACTIVE] * 2
    show(cache, pod("p2"), deleted=True)
    assert [observe(cache, seconds)["j1"].stuck is None for seconds in (900, 959, 960)] == [True, True, False]


def test_a_pod_is_lost_so_long_after_it_was_first_seen_so_whatever_other_clocks_say() -> None:
    silent, going = pod(), pod()
    silent["status"]["conditions"] = [{"type": "Ready", "status": "False", "lastTransitionTime": rfc3339(at(-9000))}]
    going["metadata"] |= {"deletionTimestamp": rfc3339(at(-9000)), "deletionGracePeriodSeconds": 100}
    for shows, grace in ((silent, 60), (going, 160)):
        cache = shown(job(), shows)
        found = [observe(cache, seconds)["j1"].state for seconds in (0, grace - 1, grace)]
        assert found == [JobState.ACTIVE, JobState.ACTIVE, JobState.LOST]
        show(cache, pod())  # its node is back
        assert observe(cache, 200)["j1"].state is JobState.ACTIVE


def test_a_leftover_pod_has_its_time_from_when_its_worker_was_first_seen_to_have_ended() -> None:
    """The end is of another clock: an operator's that is ahead must not end what is just about to end by itself."""
    for finished in (-900, 900):
        times = {"startedAt": rfc3339(at(-1000)), "finishedAt": rfc3339(at(finished))}
        left = pod(state={"terminated": {"exitCode": 0, "reason": "Completed", **times}})
        left["metadata"]["creationTimestamp"] = times["startedAt"]
        cache = shown(job(), left)
        assert [observe(cache, seconds)["j1"].state for seconds in (0, 4, 5)] == [*[JobState.PENDING] * 2, JobState.SUCCEEDED]
        found = observe(cache, 60)["j1"]
        assert found.stuck is not None
        assert (found.stuck.since, found.finished_at) == (NOW, min(at(finished), NOW))
