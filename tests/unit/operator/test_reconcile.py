"""One pass and what comes of it: in which order, after a crash at any point, and when the cluster refuses something."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from siorg_operator.control import expectations
from siorg_operator.control.reconcile import Reconciler
from siorg_operator.decide.manifests import template_hash
from siorg_operator.decide.ports import ClusterError
from siorg_operator.decide.state import Ending
from support.fake_cluster import NO_CRON_JOBS, FakeCluster, FakeOperator, Killed, refusing
from support.operator_values import CREDENTIALS, NOW, active, at, ended, job, names, queue_of, rfc3339, stuck, summary

# -- a pass -----------------------------------------------------------------------------------------------------------


def test_a_pass_launches_what_was_decided_and_says_so() -> None:
    cluster = FakeCluster(queue_of(480), **NO_CRON_JOBS)
    done = FakeOperator(cluster).reconcile()
    assert cluster.steps == ["launch 0-1", "launch 1-1", "launch 2-1", "launch 3-1", "launch 4-1", "status", "event ScaledUp"]
    assert names(done.result.launched) == names(cluster.unfinished)
    assert all(job.template == template_hash(cluster.resource, CREDENTIALS) for job in done.result.launched)
    assert cluster.status["jobs"]["pending"] == 5
    assert cluster.status["lastDecision"]["launched"] == 5


def test_jobs_come_before_the_status_that_tells_of_them() -> None:
    jobs = [ended(-100 + n, slot=n) for n in range(5)]
    cluster = FakeCluster(queue_of(480), [*jobs, stuck(9, since=-100)])
    FakeOperator(cluster).reconcile()
    last = {step.split()[0]: place for place, step in enumerate(cluster.steps)}
    assert last["launch"] < last["end"] < last["remove"] < last["apply"] < last["status"] < last["event"]


@pytest.mark.parametrize("restarted", [False, True])
def test_at_rest_nothing_is_asked_of_the_cluster(restarted: bool) -> None:
    cluster = FakeCluster(queue_of(0), [ended(-100, summary=summary(5))])
    operator = FakeOperator(cluster)
    operator.reconcile()
    cluster.steps.clear()
    operator = FakeOperator(cluster) if restarted else operator
    for seconds in range(30, 3000, 30):
        cluster.now = at(seconds)
        operator.reconcile()
    assert cluster.steps == []


def test_what_the_cluster_does_not_show_yet_is_not_launched_twice() -> None:
    cluster = FakeCluster(queue_of(480), **NO_CRON_JOBS)
    cluster.shown = []
    operator = FakeOperator(cluster)
    operator.reconcile()
    operator.reconcile()
    # A process that remembers nothing asks for them again, and what is there already counts as launched.
    again = FakeOperator(cluster).reconcile().result.launched
    assert names(again) == names(cluster.unfinished)
    assert [job.slot for job in cluster.unfinished] == [0, 1, 2, 3, 4]


def test_a_launched_job_that_was_deleted_is_not_waited_for() -> None:
    cluster = FakeCluster(queue_of(50), **NO_CRON_JOBS)
    operator = FakeOperator(cluster)
    (launched,) = operator.reconcile().result.launched
    cluster.jobs.clear()
    assert not operator.reconcile().result.launched
    operator.reconciler.job_deleted(launched.uid)
    assert operator.reconcile().result.launched


def test_a_silent_watch_is_no_reason_for_more_jobs_however_long_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even while history is removed, by which names come to be others; a list says what there is."""
    monkeypatch.setattr(expectations, "_SHOWN_WITHIN_SECONDS", 0.0)
    cluster = FakeCluster(queue_of(480), [ended(-100 - n, slot=n) for n in range(5)], scaling={"maxJobs": 4}, **NO_CRON_JOBS)
    cluster.shown = list(cluster.jobs.values())
    operator = FakeOperator(cluster)
    for seconds in range(0, 600, 10):
        cluster.now, cluster.lists_fail = at(seconds), seconds < 300
        operator.reconcile()
        assert len(cluster.unfinished) == 4
    one = cluster.unfinished[0]
    del cluster.jobs[one.name]  # nobody tells of it, but for the lists
    (instead,) = operator.reconcile().result.launched
    assert instead.slot == one.slot


def test_a_job_that_has_finished_unseen_is_not_launched_again_and_again() -> None:
    cluster = FakeCluster(queue_of(50), [ended(-5, summary=summary(9))], **NO_CRON_JOBS)
    cluster.shown = []
    operator = FakeOperator(cluster)
    first = operator.reconcile()
    assert (first.result.launched, first.retry_seconds) == ((), 0.0)  # that is known only now
    (launched,) = operator.reconcile().result.launched
    assert (launched.slot, launched.round) == (0, 2)
    for _ in range(5):
        assert not operator.reconcile().result.launched


def test_what_has_the_name_of_an_old_job_by_now_is_told_apart_by_its_uid() -> None:
    cluster = FakeCluster(queue_of(0), job={"successfulJobsHistoryLimit": 0}, **NO_CRON_JOBS)
    (running,) = active(1, uid="new")
    cluster.jobs = {running.name: running}
    cluster.shown = [ended()]
    FakeOperator(cluster).reconcile()
    assert cluster.steps[0] == f"remove {running.name}"
    assert cluster.unfinished == [running]


@pytest.mark.parametrize("lost", range(5))
def test_a_launch_whose_answer_was_lost_is_not_made_again_under_another_name(lost: int) -> None:
    cluster = FakeCluster(queue_of(480), **NO_CRON_JOBS)
    cluster.loses_answer = lambda step: step == f"launch {lost}-1"
    operator = FakeOperator(cluster)
    assert str(operator.reconcile().failure) == "no answer in time"
    cluster.loses_answer = lambda step: False
    # The cluster does not show that one yet, and the others it does; then it shows all.
    for shown in ([made for made in cluster.jobs.values() if made.slot != lost], None):
        cluster.shown = shown
        operator.reconcile()
        assert len(cluster.unfinished) == 5


def test_there_are_no_cron_jobs_on_one_machine() -> None:
    operator = FakeOperator(FakeCluster())
    operator.reconciler = Reconciler(replace(operator.context, cluster=None), ("", ""), operator.cluster, operator.status)
    operator.reconcile()
    assert operator.cluster.steps == ["status"]


# -- a crash at any point ---------------------------------------------------------------------------------------------


def busy_cluster() -> FakeCluster:
    """A pass over it has something of everything to do: 5 launches, a stuck Job, old ones, CronJobs to make and to remove."""
    finished = [ended(-500 + n, slot=n, summary=summary(9)) for n in range(5)]
    jobs = [*finished, stuck(5, since=-100)]
    cluster = FakeCluster(queue_of(480), jobs, scaling={"maxJobs": 6}, discovery={"enabled": False})
    cluster.write_cron_job("siorg-discovery", {"schedule": "@daily"})
    return cluster


def settle(cluster: FakeCluster) -> None:
    """Passes of a fresh process, while the cluster does what it was told, until nothing changes any more."""
    operator = FakeOperator(cluster)
    for seconds in range(1, 20):
        cluster.now = at(seconds)
        before = len(cluster.steps)
        done = operator.reconcile()
        assert len(cluster.unfinished) <= cluster.resource.spec.scaling.max_jobs
        if len(cluster.steps) == before and seconds > 3:
            assert done.failure is None
            return
    raise AssertionError(f"never quiet: {cluster.steps[-5:]}")


def outcome(cluster: FakeCluster) -> Any:
    """What a person would see, but for times and rounds: a name may come again when the Job that had it is gone."""
    conditions = {kind: one[:2] for kind, one in cluster.conditions.items()}
    jobs = sorted((job.slot, job.state) for job in cluster.jobs.values())
    counts = {kind: count for kind, count in cluster.status["jobs"].items() if kind != "lastRound"}
    return jobs, sorted(cluster.cron_jobs), conditions, counts, cluster.status["queue"]


UNDISTURBED = busy_cluster()
settle(UNDISTURBED)
STEPS = UNDISTURBED.steps


def test_a_cluster_that_nobody_disturbs_comes_to_rest() -> None:
    assert len(UNDISTURBED.unfinished) == 6
    assert len(UNDISTURBED.jobs) == 6 + 3
    assert list(UNDISTURBED.cron_jobs) == ["siorg-cleanup", "siorg-verification"]


@pytest.mark.parametrize("steps", [*((step,) for step in range(1, len(STEPS) + 1)), (1, 1, 1), (2, 3, 5), (7, 1, 2), (4, 4, 4)])
def test_killed_at_each_step_it_comes_to_the_same_end(steps: tuple[int, ...]) -> None:
    cluster = busy_cluster()
    for step in steps:
        cluster.dies_after = len(cluster.steps) + step
        with pytest.raises(Killed):
            settle(cluster)
        assert len(cluster.unfinished) <= 6
    cluster.dies_after = None
    settle(cluster)
    slots = [job.slot for job in cluster.unfinished]
    assert len(set(slots)) == len(slots)
    assert outcome(cluster) == outcome(UNDISTURBED)


@pytest.mark.parametrize("step", [place for place, step in enumerate(STEPS) if not step.startswith("event")])
def test_refused_at_each_step_it_comes_to_the_same_end(step: int) -> None:
    for code, restarted in itertools.product([0, 409, 422, 500], [False, True]):
        cluster = busy_cluster()
        cluster.refuses = lambda _, cluster=cluster, code=code: (  # type: ignore[misc]
            ClusterError("refused", code) if len(cluster.steps) == step else None
        )
        if restarted:
            done = FakeOperator(cluster).reconcile()
            if STEPS[step].startswith(("launch", "status")) and len(cluster.steps) > step:
                assert done.failure is not None
                assert done.failure.code == code
        settle(cluster)
        assert outcome(cluster) == outcome(UNDISTURBED), (code, restarted)


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_a_refused_launch_is_told_and_tried_again() -> None:
    cluster = FakeCluster(queue_of(150), **NO_CRON_JOBS)
    cluster.refuses = refusing("launch 1", code=403)
    operator = FakeOperator(cluster)
    done = operator.reconcile()
    assert str(done.failure) == "the API server answered 403"
    assert names(done.result.launched) == names(cluster.unfinished)
    assert [job.slot for job in done.result.launched] == [0, 2]
    assert cluster.status["lastDecision"] == {
        "time": rfc3339(NOW),
        "reason": "LaunchFailed",
        "message": "depth 150, 50 a Job → 3 wanted, 0 unfinished → launched 2; the API server answered 403",
        "launched": 2,
    }
    told = ("False", "LaunchFailed", "The API server answered 403")
    assert cluster.conditions["Ready"] == cluster.conditions["ScalingActive"] == told
    assert "LaunchFailed" in cluster.event_reasons()
    cluster.refuses = refusing()
    cluster.events.clear()
    operator.reconcile()
    assert len(cluster.unfinished) == 3
    assert cluster.event_reasons() == ["ScalingResumed"]


def test_what_is_not_refused_is_done_all_the_same() -> None:
    cluster = busy_cluster()
    cluster.refuses = refusing("launch", "remove", "end")
    assert FakeOperator(cluster).reconcile().failure is not None
    assert "siorg-cleanup" in cluster.cron_jobs
    assert cluster.status["lastDecision"]["launched"] == 0


def test_a_status_that_cannot_be_written_loses_no_job() -> None:
    cluster = FakeCluster(queue_of(100), **NO_CRON_JOBS)
    cluster.refuses = refusing("status")
    done = FakeOperator(cluster).reconcile()
    assert done.failure is not None
    assert names(done.result.launched) == names(cluster.unfinished)
    assert cluster.status == {}
    assert cluster.events == []


def test_a_bug_is_not_hidden() -> None:
    cluster = FakeCluster(queue_of(100), **NO_CRON_JOBS)
    cluster.refuses = lambda step: ZeroDivisionError() if step == "launch 0-1" else None
    with pytest.raises(ZeroDivisionError):
        FakeOperator(cluster).reconcile()
    assert [job.slot for job in cluster.unfinished] == [1]


# -- stuck Jobs -------------------------------------------------------------------------------------------------------

END = f"end {job().name}"


@pytest.mark.parametrize("refused", [False, True])
def test_a_stuck_job_is_ended_and_told_once(refused: bool) -> None:
    cluster = FakeCluster(queue_of(50), [stuck(since=-100)], **NO_CRON_JOBS)
    operator = FakeOperator(cluster)
    if refused:
        cluster.refuses = refusing("end")
        operator.reconcile()
        assert "StuckJobEnded" not in cluster.event_reasons()
        cluster.refuses = refusing()
        cluster.now = at(1)
    for _ in range(3):
        operator.reconcile()
    assert cluster.steps.count(END) == 1 + refused
    assert cluster.event_reasons().count("StuckJobEnded") == 1
    FakeOperator(cluster).reconcile()  # another process ends it again, which does no harm
    assert cluster.steps.count(END) == 2 + refused


def test_its_slot_is_free_once_it_has_ended() -> None:
    cluster = FakeCluster(queue_of(50), [stuck(since=-100)], scaling={"maxJobs": 1}, **NO_CRON_JOBS)
    operator = FakeOperator(cluster)
    operator.reconcile()
    cluster.jobs = {job.name: job for job in [ended(-1, Ending.STUCK, lived=0, message="ImagePullBackOff")]}
    operator.reconcile()
    assert cluster.unfinished == []
    cluster.now = at(30)
    operator.reconcile()
    assert [(job.slot, job.round) for job in cluster.unfinished] == [(0, 2)]


# -- counting ---------------------------------------------------------------------------------------------------------


def test_each_job_is_counted_once_also_across_a_restart() -> None:
    cluster = FakeCluster(queue_of(0), [ended(-10, summary=summary(7))], **NO_CRON_JOBS)
    operators = [FakeOperator(cluster), FakeOperator(cluster)]

    def drained() -> list[float | None]:
        for operator in (*operators, *operators):
            operator.reconcile()
        return [operator.metric("siorg_operator_items_total", outcome="completed") for operator in operators]

    assert drained() == [7, 0]
    cluster.jobs |= {job.name: job for job in [ended(-5, slot=1, summary=summary(5))]}
    assert drained() == [12, 5]


def test_a_job_that_goes_and_whose_name_comes_again_is_another() -> None:
    cluster = FakeCluster(queue_of(0), **NO_CRON_JOBS)
    operator, counts = FakeOperator(cluster), []
    for jobs in ([ended(-10)], [], [ended(-5)], active(1)):
        cluster.jobs = {job.name: job for job in jobs}
        operator.reconcile()
        counts.append(operator.metric("siorg_operator_jobs_ended_total", ending="Done"))
    assert counts == [1, 1, 2, 2]


def test_the_wait_of_new_work_is_measured_at_the_first_job_for_it() -> None:
    cluster = FakeCluster(queue_of(500, oldest_due_seconds=0.2), **NO_CRON_JOBS)
    operator = FakeOperator(cluster)
    name = "siorg_operator_enqueue_to_launch_seconds"
    operator.reconcile()
    assert operator.metric(f"{name}_count") == 1
    assert (operator.metric(f"{name}_sum") or 0) >= 0.2
    operator.reconciler.job_deleted(cluster.jobs.popitem()[1].uid)
    operator.reconcile()  # one more beside those that are there
    assert len(cluster.unfinished) == 5
    assert operator.metric(f"{name}_count") == 1
