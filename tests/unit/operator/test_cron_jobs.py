"""The CronJobs of a resource: made once, put right, removed when their Jobs have ended; what fails is told."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from siorg_operator.control.cron_jobs import CronRun, cron_run
from siorg_operator.decide.manifests import cron_job, cron_job_name
from siorg_operator.decide.ports import ClusterError
from siorg_operator.decide.state import QueueState
from support.fake_cluster import NO_CRON_JOBS, FakeCluster, FakeOperator, Killed, refusing
from support.operator_values import at, queue_of, rfc3339, unreadable


def run(component: str, *, ended: int | None = None, failure: str = "") -> CronRun:
    name = f"{component}{'' if ended is None else ended}"
    return CronRun(name, component, "" if ended is None else rfc3339(at(ended)), failure, uid=f"uid of {name}")


@pytest.fixture
def cluster() -> FakeCluster:
    """The CronJobs were made, and nothing waits."""
    made = FakeCluster()
    FakeOperator(made).reconcile()
    assert [step for step in made.steps if step.startswith("apply")] == [
        "apply siorg-cleanup",
        "apply siorg-discovery",
        "apply siorg-verification",
    ]
    made.steps.clear()
    return made


@pytest.mark.parametrize(
    "edit", [{"discovery": {"schedule": "@daily"}}, {"discovery": {"organizations": [26]}}, {"suspend": True}]
)
def test_they_are_made_once_and_a_changed_one_is_applied(cluster: FakeCluster, edit: dict[str, Any]) -> None:
    FakeOperator(cluster).reconcile()
    assert cluster.steps == []
    cluster.edit_spec(**edit)
    FakeOperator(cluster).reconcile()
    assert "apply siorg-discovery" in cluster.steps
    assert cluster.cron_jobs["siorg-discovery"]["spec"] == cron_job(cluster.resource, "discovery")["spec"]


@pytest.mark.parametrize("restarted", [False, True])
def test_a_cron_job_that_somebody_else_changed_is_put_right(cluster: FakeCluster, restarted: bool) -> None:
    operator = FakeOperator(cluster)
    operator.reconcile()
    name = cron_job_name(cluster.resource, "cleanup")
    cluster.write_cron_job(name, {**cluster.cron_jobs[name]["spec"], "suspend": True}, by="kubectl-edit")
    operator = FakeOperator(cluster) if restarted else operator
    operator.reconcile()
    operator.reconcile()
    assert cluster.steps == ["apply siorg-cleanup"]
    assert cluster.cron_jobs[name]["spec"]["suspend"] is False


@pytest.mark.parametrize("told_by", ["", "status", "job"])
def test_one_that_is_not_wanted_any_more_is_removed_once_its_job_has_ended(cluster: FakeCluster, told_by: str) -> None:
    cluster.edit_spec(discovery={"enabled": False})
    if told_by == "status":
        cluster.cron_jobs["siorg-discovery"]["status"] = {"active": [{"name": "siorg-discovery-1"}]}
    cluster.cron_runs = [run("discovery")] if told_by == "job" else []
    for _ in range(3 if told_by else 1):
        FakeOperator(cluster).reconcile()
    assert cluster.cron_jobs["siorg-discovery"]["spec"]["suspend"] is True
    cluster.cron_jobs["siorg-discovery"].pop("status", None)
    cluster.cron_runs = [run("discovery", ended=-1)] if told_by else []
    FakeOperator(cluster).reconcile()
    assert list(cluster.cron_jobs) == ["siorg-cleanup", "siorg-verification"]
    changes = [step for step in cluster.steps if step != "status"]
    assert (changes[0], changes[-1]) == ("apply siorg-discovery", "delete siorg-discovery")
    assert set(changes) == {"apply siorg-discovery", "delete siorg-discovery"}


def test_one_that_is_enabled_again_before_it_went_starts_jobs_again(cluster: FakeCluster) -> None:
    operator = FakeOperator(cluster)
    for enabled in (False, True):
        cluster.edit_spec(discovery={"enabled": enabled})
        operator.reconcile()
    assert cluster.cron_jobs["siorg-discovery"]["spec"]["suspend"] is False


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"suspend": True, "whenSuspended": "Stop"}, ["stop discovery"]),
        ({"suspend": True}, []),
        ({"scaling": {"maxJobs": 0}, "whenSuspended": "Stop"}, []),
    ],
)
def test_suspended_to_stop_their_jobs_are_told_to_once_and_how_they_end_is_no_failure(
    cluster: FakeCluster, spec: dict[str, Any], told: list[str]
) -> None:
    cluster.cron_runs = [run("cleanup", ended=-90), run("discovery")]
    cluster.edit_spec(**spec)
    operator = FakeOperator(cluster)
    for _ in range(3):
        operator.reconcile()
    assert [step for step in cluster.steps if step.startswith("stop")] == told
    ended = run("discovery", ended=-5, failure="DeadlineExceeded")
    cluster.cron_runs = [run("discovery", ended=-50), replace(ended, stopped=bool(told))]
    operator.reconcile()
    assert cluster.conditions["Degraded"][1] == ("AsExpected" if told else "DiscoveryFailing")


def test_refused_cron_jobs_are_told_and_hold_up_no_launch() -> None:
    cluster = FakeCluster(queue_of(50))
    refused = {f"apply siorg-{component}": component for component in ("cleanup", "verification")}
    cluster.refuses = lambda step: ClusterError(f"CronJob {refused[step]}: no", 403) if step in refused else None
    FakeOperator(cluster).reconcile()
    assert len(cluster.unfinished) == 1
    told = ("CronJobRefused", "CronJob cleanup: no. CronJob verification: no")
    assert (cluster.conditions["Degraded"], cluster.conditions["Ready"]) == (("True", *told), ("False", *told))


def test_an_edit_of_a_refused_cron_job_is_tried_at_once() -> None:
    cluster = FakeCluster()
    cluster.refuses = refusing("apply siorg-discovery", code=422)
    operator = FakeOperator(cluster)
    operator.reconcile()
    operator.reconcile()
    assert cluster.steps.count("apply siorg-discovery") == 1
    cluster.edit_spec(discovery={"schedule": "@daily"})
    cluster.refuses = refusing()
    operator.reconcile()
    assert "siorg-discovery" in cluster.cron_jobs
    assert cluster.conditions["Degraded"][0] == "False"


@pytest.mark.parametrize("told_by", ["job", "status"])
def test_a_cron_job_whose_last_job_failed_is_told_until_one_succeeds(cluster: FakeCluster, told_by: str) -> None:
    cluster.cron_runs = [
        run("discovery", ended=-90),
        run("discovery", ended=-50, failure="BackoffLimitExceeded"),
        run("cleanup", ended=-9),
    ]
    operator = FakeOperator(cluster)
    operator.reconcile()
    assert cluster.conditions["Degraded"][:2] == ("True", "DiscoveryFailing")
    assert "kubectl logs job/discovery-50" in cluster.conditions["Degraded"][2]
    assert operator.metric("siorg_operator_cron_job_failing", component="discovery") == 1
    assert cluster.event_reasons() == ["DiscoveryFailing"]
    cluster.cron_runs = []  # its Job's time is over, or somebody deleted it, and that is no recovery
    for process in (operator, FakeOperator(cluster)):
        cluster.now = at(100 * 3600)
        process.reconcile()
        assert cluster.conditions["Degraded"][:2] == ("True", "DiscoveryFailing")
        assert "that Job is gone by now" in cluster.conditions["Degraded"][2]
        assert process.metric("siorg_operator_cron_job_failing", component="discovery") == 1
    cluster.cron_runs = [run("discovery"), run("discovery", ended=-60), run("cleanup", ended=-5)]  # neither later nor its own
    operator.reconcile()
    assert cluster.conditions["Degraded"][:2] == ("True", "DiscoveryFailing")
    if told_by == "job":
        cluster.cron_runs += [run("discovery", ended=-5)]
    else:
        cluster.cron_jobs["siorg-discovery"]["status"] = {"lastSuccessfulTime": rfc3339(at(-5))}
    operator.reconcile()
    assert cluster.conditions["Degraded"][0] == "False"
    assert operator.metric("siorg_operator_cron_job_failing", component="discovery") == 0
    assert cluster.event_reasons() == ["DiscoveryFailing", "Recovered"]
    assert "failedRuns" not in cluster.status
    cluster.cron_runs += [run("discovery", ended=-1, failure="BackoffLimitExceeded")]
    cluster.edit_spec(**NO_CRON_JOBS)  # of one that is disabled nobody asks
    operator.reconcile()
    assert cluster.conditions["Degraded"][0] == "False"


def test_a_failure_that_is_dated_ahead_is_over_with_the_next_good_run(cluster: FakeCluster) -> None:
    cluster.cron_runs = [run("discovery", ended=400 * 86_400, failure="BackoffLimitExceeded")]
    operator = FakeOperator(cluster)
    operator.reconcile()
    assert cluster.status["failedRuns"]["discovery"]["time"] == rfc3339(at(0))
    cluster.now = at(60)
    cluster.cron_runs += [run("discovery", ended=30)]
    operator.reconcile()
    assert cluster.conditions["Degraded"][0] == "False"


# -- the first discovery ----------------------------------------------------------------------------------------------

FIRST = "create siorg-discovery-first"


def new(queue: QueueState | None = None, **spec: Any) -> FakeCluster:
    """Nothing was ever discovered."""
    return FakeCluster(queue, discovered=False, **spec)


def passes(cluster: FakeCluster, count: int = 3, operator: FakeOperator | None = None) -> list[str]:
    """The steps of so many passes, each of another process unless one is given."""
    cluster.steps.clear()
    for _ in range(count):
        (operator or FakeOperator(cluster)).reconcile()
    return cluster.steps


def finish(cluster: FakeCluster) -> None:
    cluster.cron_runs = [replace(run, finished_at=rfc3339(at(-1)), begun=True) for run in cluster.cron_runs]


@pytest.mark.parametrize("restarted", [False, True])
def test_the_first_discovery_is_launched_when_its_cron_job_is_there_and_once(restarted: bool) -> None:
    cluster = new()
    operator = None if restarted else FakeOperator(cluster)
    assert FIRST not in passes(cluster, 1, operator)
    assert passes(cluster, 3, operator).count(FIRST) == 1
    assert cluster.event_reasons() == ["FirstDiscovery"]
    # What forbids two at once does not know of it.
    assert cluster.cron_jobs["siorg-discovery"]["spec"]["suspend"] is True
    finish(cluster)
    passes(cluster, 3, operator)
    assert cluster.cron_jobs["siorg-discovery"]["spec"]["suspend"] is False
    # It is not launched again with a CronJob that is made again, although its Job is history.
    cluster.cron_runs = []
    for enabled in (False, True):
        cluster.edit_spec(discovery={"enabled": enabled})
        assert FIRST not in passes(cluster, 3, operator)
    del cluster.cron_jobs["siorg-discovery"]
    assert FIRST not in passes(cluster, 3, operator)
    assert "siorg-discovery" in cluster.cron_jobs


@pytest.mark.parametrize("lost", [FIRST, "status"])
def test_a_lost_answer_launches_no_second_first_discovery(lost: str) -> None:
    cluster = new()
    cluster.loses_answer = lambda step: step == lost
    passes(cluster)
    cluster.loses_answer = lambda step: False
    cluster.now = at(10)
    passes(cluster)
    assert [run.name for run in cluster.cron_runs] == ["siorg-discovery-first"]
    finish(cluster)
    assert FIRST not in passes(cluster)


def test_an_operator_that_is_killed_after_any_step_has_launched_the_first_discovery_once() -> None:
    for step in range(12):
        cluster = new()
        FakeOperator(cluster).reconcile()
        cluster.dies_after = len(cluster.steps) + step
        with suppress(Killed):
            passes_on = FakeOperator(cluster)
            for _ in range(3):
                passes_on.reconcile()
        cluster.dies_after = None
        FakeOperator(cluster).reconcile()
        finish(cluster)
        FakeOperator(cluster).reconcile()
        assert [run.name for run in cluster.cron_runs] == ["siorg-discovery-first"], step


@pytest.mark.parametrize(
    ("spec", "queue"),
    [
        ({"mode": "Observe"}, queue_of(0)),
        ({"suspend": True}, queue_of(0)),
        ({"discovery": {"enabled": False}}, queue_of(0)),
        ({}, queue_of(0, sync_enabled=False)),
        ({}, queue_of(0, token_error="the Secret sync/token is not there")),
        ({}, unreadable("NotMigrated")),
    ],
)
def test_the_first_discovery_waits_until_discoveries_are_wanted_and_possible(spec: dict[str, Any], queue: QueueState) -> None:
    cluster = new(queue, **spec)
    assert FIRST not in passes(cluster, 4)
    cluster.edit_spec()
    cluster.queue = queue_of(0)
    assert passes(cluster, 4).count(FIRST) == 1


@pytest.mark.parametrize("told_by", ["status", "job"])
def test_there_is_no_first_discovery_where_one_was_by_the_clock_or_by_hand(told_by: str) -> None:
    cluster = new(mode="Observe")
    passes(cluster)
    if told_by == "status":
        cluster.cron_jobs["siorg-discovery"]["status"] = {"lastScheduleTime": rfc3339(at(-600))}
    else:
        cluster.cron_runs = [replace(run("discovery", ended=-5), begun=True)]
    cluster.edit_spec()
    assert FIRST not in passes(cluster)
    # And status remembers.
    cluster.cron_jobs["siorg-discovery"].pop("status", None)
    cluster.cron_runs = []
    assert FIRST not in passes(cluster)


@pytest.mark.parametrize("begun", [False, True])
def test_a_first_discovery_that_cannot_begin_is_launched_anew_as_it_is_corrected(begun: bool) -> None:
    cluster = new()
    assert passes(cluster, 3).count(FIRST) == 1
    cluster.cron_runs = [replace(run, begun=begun) for run in cluster.cron_runs]
    assert passes(cluster, 2).count(FIRST) == 0
    before = cluster.cron_runs[0].applied
    cluster.edit_spec(job={"image": "registry.example/siorg-job:2"})
    steps = passes(cluster, 4)
    assert (steps.count("remove siorg-discovery-first"), steps.count(FIRST)) == ((0, 0) if begun else (1, 1))
    assert (cluster.cron_runs[0].applied == before) == begun


def test_a_first_discovery_that_cannot_begin_does_not_outlive_its_cron_job() -> None:
    cluster = new()
    assert passes(cluster, 3).count(FIRST) == 1
    cluster.edit_spec(discovery={"enabled": False})
    assert passes(cluster, 4).count("remove siorg-discovery-first") == 1
    assert "siorg-discovery" not in cluster.cron_jobs


def test_a_refused_first_discovery_is_told_and_tried_again() -> None:
    cluster = new()
    cluster.refuses = refusing(FIRST, code=403)
    operator = FakeOperator(cluster)
    passes(cluster, 3, operator)
    assert cluster.conditions["Degraded"][:2] == ("True", "CronJobRefused")
    cluster.refuses, cluster.now = refusing(), at(10)
    assert passes(cluster, 2, operator).count(FIRST) == 1
    assert cluster.conditions["Degraded"][0] == "False"


def test_a_cron_jobs_job_is_understood() -> None:
    body: dict[str, Any] = {
        "metadata": {"name": "d-1", "uid": "u", "labels": {"app.kubernetes.io/component": "discovery"}},
        "status": {"conditions": [{
            "type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "no more",
            "lastTransitionTime": "2026-11-24T12:00:00Z",
        }]},
    }  # fmt: skip
    failure = "BackoffLimitExceeded: no more"
    assert cron_run(body) == CronRun("d-1", "discovery", "2026-11-24T12:00:00Z", failure, "u", begun=True)
    assert cron_run({"metadata": body["metadata"]}) == CronRun("d-1", "discovery", "", "", "u")
    assert cron_run({"metadata": body["metadata"], "status": {"active": 1, "ready": 1}}).begun
    body["metadata"]["annotations"] = {"siorg.waterswamp.dev/stopped": "spec.suspend is true"}
    assert not cron_run(body).stopped  # it failed by itself before it was told
    body["status"]["conditions"][0]["reason"] = "DeadlineExceeded"
    assert cron_run(body).stopped
