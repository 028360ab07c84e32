"""What is seen of a resource follows from the events that told of it, in whichever order they came."""

from __future__ import annotations

from typing import Any

from siorg_operator.control.cache import Sight
from siorg_operator.control.past import Past
from siorg_operator.decide.manifests import COMPONENT_LABEL, ROUND_LABEL, SLOT_LABEL
from siorg_operator.decide.state import JobState
from support.operator_values import NOW, UID, rfc3339


def job(uid: str = "j1", *, owner: str = UID, slot: int = 0) -> dict[str, Any]:
    reference = {"kind": "SiorgSyncWorker", "uid": owner, "controller": True}
    labels = {SLOT_LABEL: str(slot), ROUND_LABEL: "1", COMPONENT_LABEL: "drain"}
    metadata = {"name": f"job-{uid}", "uid": uid, "labels": labels, "ownerReferences": [reference]}
    return {"metadata": {**metadata, "creationTimestamp": rfc3339(NOW)}}


def pod(uid: str = "p1", *, of_job: str = "j1", component: str = "drain") -> dict[str, Any]:
    reference = {"kind": "Job", "uid": of_job, "controller": True}
    metadata = {"name": f"pod-{uid}", "uid": uid, "labels": {COMPONENT_LABEL: component}, "ownerReferences": [reference]}
    running = {"name": "worker", "state": {"running": {"startedAt": rfc3339(NOW)}}}
    return {"metadata": {**metadata, "creationTimestamp": rfc3339(NOW)}, "status": {"containerStatuses": [running]}}


def cron_job(uid: str = "c1") -> dict[str, Any]:
    reference = {"kind": "SiorgSyncWorker", "uid": UID, "controller": True}
    return {"metadata": {"name": "siorg-cleanup", "uid": uid, "generation": 1, "ownerReferences": [reference]}}


def states(sight: Sight) -> dict[str, JobState]:
    return {job.name: job.state for job in sight.jobs(UID, NOW, Past())}


def test_a_job_and_its_pod_belong_to_their_resource_whoever_comes_first() -> None:
    sight = Sight()
    assert sight.pod(pod(), there=True) == ""
    assert sight.job(job(), there=True) == UID
    assert sight.pod(pod(), there=True) == UID
    assert states(sight) == {"job-j1": JobState.ACTIVE}
    assert (sight.uids("jobs"), sight.uids("pods")) == ({"j1"}, {"p1"})


def test_what_is_deleted_is_seen_no_more() -> None:
    sight = Sight()
    sight.job(job(), there=True)
    sight.job(job("j2", slot=1), there=True)
    sight.pod(pod(), there=True)
    assert sight.pod(pod(), there=False) == UID
    assert states(sight) == {"job-j1": JobState.PENDING, "job-j2": JobState.PENDING}
    assert sight.job(job(), there=False) == UID
    assert states(sight) == {"job-j2": JobState.PENDING}
    assert sight.uids("pods") == set()


def test_what_is_forgotten_is_seen_no_more_and_may_come_back() -> None:
    sight = Sight()
    sight.job(job(), there=True)
    sight.forget("jobs", {"j1", "unknown"})
    assert states(sight) == {}
    sight.job(job(), there=True)
    assert states(sight) == {"job-j1": JobState.PENDING}


def test_others_jobs_and_pods_are_not_kept() -> None:
    sight = Sight()
    sight.job({"metadata": {"name": "report", "uid": "x", "labels": {}}}, there=True)
    sight.pod(pod("p2", component="cleanup"), there=True)
    assert sight.uids("jobs") == sight.uids("pods") == set()


def test_each_resource_sees_its_own() -> None:
    sight = Sight()
    sight.job(job("j1"), there=True)
    sight.job(job("j2", owner="another"), there=True)
    assert states(sight) == {"job-j1": JobState.PENDING}


def test_a_job_that_changes_its_owner_is_seen_once() -> None:
    sight = Sight()
    sight.job(job(owner="another"), there=True)
    sight.job(job(), there=True)
    assert sight.jobs("another", NOW, Past()) == []
    assert states(sight) == {"job-j1": JobState.PENDING}


def test_cron_jobs_are_seen_until_they_are_deleted() -> None:
    sight = Sight()
    assert sight.cron_job(cron_job(), there=True) == UID
    assert [one.name for one in sight.cron_jobs(UID)] == ["siorg-cleanup"]
    assert sight.cron_job(cron_job(), there=False) == UID
    assert sight.cron_jobs(UID) == []
