"""What is observed of a resource follows from the events that told of it, in whichever order they came."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from siorg_operator.control.cache import Cache
from siorg_operator.decide.manifests import COMPONENT_LABEL, CONTAINER, ROUND_LABEL, SLOT_LABEL
from siorg_operator.decide.state import Job, JobState
from support.operator_values import NOW, UID, at, rfc3339, worker


def job(uid: str = "j1", *, owner: str = UID, slot: int = 0) -> dict[str, Any]:
    reference = {"kind": "SiorgSyncWorker", "uid": owner, "controller": True}
    labels = {SLOT_LABEL: str(slot), ROUND_LABEL: "1", COMPONENT_LABEL: "drain"}
    metadata = {"name": f"job-{uid}", "uid": uid, "labels": labels, "ownerReferences": [reference]}
    return {"metadata": {**metadata, "creationTimestamp": rfc3339(NOW)}}


def pod(uid: str = "p1", *, of_job: str = "j1", component: str = "drain", state: dict[str, Any] | None = None) -> dict[str, Any]:
    reference = {"kind": "Job", "uid": of_job, "controller": True}
    metadata = {"name": f"pod-{uid}", "uid": uid, "labels": {COMPONENT_LABEL: component}, "ownerReferences": [reference]}
    statuses = [{"name": CONTAINER, "state": running() if state is None else state}]
    return {"metadata": {**metadata, "creationTimestamp": rfc3339(NOW)}, "status": {"containerStatuses": statuses}}


def cron_job(uid: str = "c1") -> dict[str, Any]:
    reference = {"kind": "SiorgSyncWorker", "uid": UID, "controller": True}
    return {"metadata": {"name": "siorg-cleanup", "uid": uid, "generation": 1, "ownerReferences": [reference]}}


def running() -> dict[str, Any]:
    return {"running": {"startedAt": rfc3339(NOW)}}


def waiting(reason: str) -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": f"{reason} of an image"}}


def observe(cache: Cache, seconds: float = 0, *, owner: str = UID) -> dict[str, Job]:
    resource = worker().model_copy(update={"metadata": worker().metadata.model_copy(update={"uid": owner})})
    return {job.name: job for job in cache.observe(resource, at(seconds)).jobs}


def states(cache: Cache) -> dict[str, JobState]:
    return {name: job.state for name, job in observe(cache).items()}


def test_a_job_and_its_pod_belong_to_their_resource_whoever_comes_first() -> None:
    cache = Cache()
    assert cache.update("pods", pod(), deleted=False) == ""
    assert cache.update("jobs", job(), deleted=False) == UID
    assert cache.update("pods", pod(), deleted=False) == UID
    assert states(cache) == {"job-j1": JobState.ACTIVE}
    assert (cache.uids("jobs"), cache.uids("pods")) == ({"j1"}, {"p1"})


def test_what_is_deleted_is_observed_no_more() -> None:
    cache = Cache()
    cache.update("jobs", job(), deleted=False)
    cache.update("jobs", job("j2", slot=1), deleted=False)
    cache.update("pods", pod(), deleted=False)
    assert cache.update("pods", pod(), deleted=True) == UID
    assert states(cache) == {"job-j1": JobState.PENDING, "job-j2": JobState.PENDING}
    assert cache.update("jobs", job(), deleted=True) == UID
    assert states(cache) == {"job-j2": JobState.PENDING}
    assert cache.uids("pods") == set()


def test_what_is_dropped_is_observed_no_more_and_may_come_back() -> None:
    cache = Cache()
    cache.update("jobs", job(), deleted=False)
    cache.drop("jobs", {"j1", "unknown"})
    assert states(cache) == {}
    cache.update("jobs", job(), deleted=False)
    assert states(cache) == {"job-j1": JobState.PENDING}


def test_others_jobs_and_pods_are_not_kept() -> None:
    cache = Cache()
    cache.update("jobs", {"metadata": {"name": "report", "uid": "x", "labels": {}}}, deleted=False)
    cache.update("pods", pod("p2", component="cleanup"), deleted=False)
    assert cache.uids("jobs") == cache.uids("pods") == set()


def test_each_resource_has_its_own() -> None:
    cache = Cache()
    cache.update("jobs", job("j1"), deleted=False)
    cache.update("jobs", job("j2", owner="another"), deleted=False)
    assert states(cache) == {"job-j1": JobState.PENDING}


def test_a_job_that_changes_its_owner_is_observed_once() -> None:
    cache = Cache()
    cache.update("jobs", job(owner="another"), deleted=False)
    cache.update("jobs", job(), deleted=False)
    assert observe(cache, owner="another") == {}
    assert states(cache) == {"job-j1": JobState.PENDING}


def test_cron_jobs_and_their_jobs_are_observed_until_they_are_deleted() -> None:
    cache = Cache()
    run = job("r1")
    run["metadata"]["ownerReferences"] = [{"kind": "CronJob", "uid": "c1", "controller": True}]
    assert cache.update("cronjobs", cron_job(), deleted=False) == UID
    assert cache.update("jobs", run, deleted=False) == UID
    observed = cache.observe(worker(), NOW)
    assert [one.name for one in observed.cron_jobs] == ["siorg-cleanup"]
    assert [one.name for one in observed.cron_runs] == ["job-r1"]
    assert list(observed.jobs) == []
    assert cache.update("cronjobs", cron_job(), deleted=True) == UID
    assert list(cache.observe(worker(), NOW).cron_jobs) == []


# -- what a pod tells no more -----------------------------------------------------------------------------------------


def since(cache: Cache, seconds: float, *pods: dict[str, Any]) -> datetime | None:
    """Take the pods as they are, and tell since when the Job has been stuck."""
    for one in pods:
        cache.update("pods", one, deleted=False)
    stuck = observe(cache, seconds)["job-j1"].stuck
    return None if stuck is None else stuck.since


def with_a_job() -> Cache:
    cache = Cache()
    cache.update("jobs", job(), deleted=False)
    return cache


def test_the_grace_of_a_stuck_pod_begins_when_it_is_first_seen_stuck_not_when_a_node_took_it() -> None:
    cache = with_a_job()
    assert since(cache, 10, pod(state=waiting("ContainerCreating"))) is None
    assert since(cache, 20, pod(state=waiting("ErrImagePull"))) == at(20)
    assert since(cache, 40, pod(state=waiting("ImagePullBackOff"))) == at(20)


def test_one_that_went_on_its_way_is_seen_anew() -> None:
    cache = with_a_job()
    since(cache, 0, pod(state=waiting("ErrImagePull")))
    since(cache, 10, pod(state=waiting("ContainerCreating")))
    assert since(cache, 60, pod(state=waiting("CreateContainerError"))) == at(60)


def test_a_successor_has_a_grace_of_its_own() -> None:
    cache = with_a_job()
    since(cache, 0, pod("first", state=waiting("ErrImagePull")))
    cache.update("pods", pod("first"), deleted=True)
    assert since(cache, 40, pod("second", state=waiting("ErrImagePull"))) == at(40)


def test_of_a_pod_that_no_node_takes_its_condition_tells_since_when() -> None:
    unscheduled = pod()
    told = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "lastTransitionTime": rfc3339(at(-55))}
    unscheduled["status"] = {"conditions": [told]}
    assert since(with_a_job(), 0, unscheduled) == at(-55)


def test_a_job_that_began_is_remembered_when_its_deadline_removes_the_pod() -> None:
    cache = with_a_job()
    cache.update("pods", pod(), deleted=False)
    assert observe(cache)["job-j1"].started_at == NOW
    cache.update("pods", pod(), deleted=True)
    cache.update("jobs", job(), deleted=False)
    assert [observe(cache, seconds)["job-j1"].started_at for seconds in (10, 20)] == [NOW, NOW]


def test_and_of_one_that_never_began_nothing_is_told() -> None:
    cache = with_a_job()
    assert since(cache, 0, pod(state=waiting("PodInitializing"))) is None
    cache.update("pods", pod(), deleted=True)
    assert observe(cache, 10)["job-j1"].started_at is None
