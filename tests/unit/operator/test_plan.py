"""The decision, rule by rule: DESIGN §5."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from siorg_operator.decide.job_failures import Pacing
from siorg_operator.decide.plan import Launch, Plan, plan
from siorg_operator.decide.sizing import CONNECTIONS_PER_JOB
from siorg_operator.decide.state import Ending, Job
from support.operator_values import (
    NOW,
    active,
    at,
    backlog,
    ended,
    job,
    names,
    pending,
    rfc3339,
    stuck,
    summary,
    template_of,
    unreadable,
    worker,
)


def decide(depth: int, jobs: list[Job] | None = None, *, reading: dict[str, Any] | None = None, **spec: Any) -> Plan:
    return plan(worker(**spec), backlog(depth, **(reading or {})), jobs or [], NOW)


def binding(decided: Plan) -> str:
    (one,) = [limit.name for limit in decided.limits if limit.binding]
    return one


def allowed_by(decided: Plan, name: str) -> int | None:
    (one,) = [limit.jobs for limit in decided.limits if limit.name == name]
    return one


def learned(rate: float, requests: float = 0.0) -> dict[str, Any]:
    return {"rate": rate, "requestRate": requests}


# -- how many ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("depth", "jobs"), [(0, 0), (1, 1), (50, 1), (51, 2), (500, 10), (501, 11)])
def test_wants_a_job_for_each_items_per_job_begun(depth: int, jobs: int) -> None:
    decided = decide(depth, scaling={"itemsPerJob": 50, "maxJobs": 100, "maxLaunchesPerStep": 100})
    assert decided.desired == len(decided.launches) == jobs


def test_wants_as_many_jobs_as_the_target_needs_at_the_rate_that_was_learned() -> None:
    decided = decide(1000, status=learned(2.0), scaling={"itemsPerJob": 500, "targetDrainSeconds": 100, "maxJobs": 50})
    assert (decided.desired, decided.launch_reason) == (5, "Time")
    assert allowed_by(decided, "by time") == 5
    assert binding(decided) == "by time"


def test_takes_the_larger_of_size_and_time() -> None:
    decided = decide(1000, status=learned(1000.0), scaling={"itemsPerJob": 100, "targetDrainSeconds": 100, "maxJobs": 50})
    assert (decided.desired, decided.launch_reason) == (10, "Size")
    assert allowed_by(decided, "by time") == 1
    assert binding(decided) == "by size"


def test_does_not_ask_for_one_more_where_the_division_comes_out_even() -> None:
    # 0.1 · 3 is 0.30000000000000004 in binary.
    decided = decide(3, status=learned(0.1), scaling={"targetDrainSeconds": 3, "maxJobs": 50})
    assert allowed_by(decided, "by time") == 10


def test_goes_by_size_alone_without_a_target() -> None:
    decided = decide(1000, status=learned(0.001), scaling={"itemsPerJob": 500, "maxJobs": 50})
    assert (decided.desired, allowed_by(decided, "by time")) == (2, None)


def test_goes_by_size_alone_before_a_rate_was_learned() -> None:
    decided = decide(1000, scaling={"itemsPerJob": 500, "targetDrainSeconds": 1, "maxJobs": 50})
    assert (decided.desired, allowed_by(decided, "by time")) == (2, None)


def test_learns_the_rate_of_a_job_from_the_newest_that_ended_items() -> None:
    old = [ended(-1000 - n, slot=n, summary=summary(1000, seconds=1)) for n in range(5)]
    new = [ended(-10 - n, slot=n, round_=2, summary=summary(60, seconds=30, requests=15)) for n in range(20)]
    nothing = [ended(-5, slot=9, summary=summary(0, seconds=3600, requests=9))]
    decided = decide(100, [*nothing, *new, *old])
    assert (decided.rate, decided.request_rate) == (2.0, 0.5)


def test_remembers_the_rate_when_those_jobs_are_gone() -> None:
    assert decide(100, status=learned(2.5, 1.25)).rate == 2.5
    assert decide(100, status=learned(2.5, 1.25)).request_rate == 1.25


@pytest.mark.parametrize(
    ("seconds", "completed", "rate"), [(1e-300, 2**62, 1e6), (0.0, 5, None), (-3.0, 5, None), (1e9, 1, None), (5e-324, 1, 1e6)]
)
def test_believes_no_absurd_rate(seconds: float, completed: int, rate: float | None) -> None:
    assert decide(10, [ended(summary=summary(completed, seconds=seconds))]).rate == rate


def test_never_wants_more_than_max_jobs() -> None:
    decided = decide(10_000, scaling={"maxJobs": 5})
    assert decided.desired == len(decided.launches) == 5
    assert binding(decided) == "maxJobs"


def test_wants_at_least_one_job_for_any_work() -> None:
    decided = decide(1, scaling={"itemsPerJob": 1_000_000})
    assert decided.desired == 1


def test_shows_the_least_that_min_jobs_mean() -> None:
    assert allowed_by(decide(1), "minJobs") == 1
    assert allowed_by(decide(1, scaling={"minJobs": 3}), "minJobs") == 3


def test_counts_min_jobs_as_capacity() -> None:
    decided = decide(1, scaling={"minJobs": 3})
    assert (decided.desired, decided.launch_reason, binding(decided)) == (3, "MinJobs", "minJobs")


def test_does_not_put_min_jobs_on_top() -> None:
    assert decide(200, scaling={"minJobs": 3, "itemsPerJob": 50}).desired == 4
    assert len(decide(200, active(2), scaling={"minJobs": 3, "itemsPerJob": 50}).launches) == 2


def test_has_no_min_jobs_while_there_is_no_work() -> None:
    decided = decide(0, scaling={"minJobs": 3})
    assert (decided.desired, decided.launches, decided.reason) == (0, (), "QueueEmpty")


def test_launches_no_more_than_max_launches_per_step() -> None:
    decided = decide(10_000, scaling={"maxJobs": 20, "maxLaunchesPerStep": 4})
    assert (decided.desired, len(decided.launches)) == (20, 4)
    assert decided.message.endswith("→ launched 4 (maxLaunchesPerStep 4)")


def test_counts_every_unfinished_job_whether_its_pod_runs_or_not() -> None:
    jobs = [*pending(2), *active(1, first_slot=2)]
    decided = decide(250, jobs)
    assert (decided.unfinished, decided.desired, len(decided.launches)) == (3, 5, 2)


def test_counts_no_finished_job() -> None:
    assert len(decide(250, [ended(slot=0), ended(slot=1, ending=Ending.DONE)]).launches) == 5


def test_launches_nothing_when_there_are_enough() -> None:
    decided = decide(100, active(3))
    assert (decided.launches, decided.reason, decided.held_back) == ((), "EnoughJobs", False)


def test_ends_nothing_that_runs_when_there_are_more_than_wanted() -> None:
    decided = decide(1, active(5), scaling={"maxJobs": 1})
    assert (decided.desired, decided.unfinished, decided.launches, decided.end, decided.remove) == (1, 5, (), (), ())


def test_stays_below_the_connections_that_the_database_has_left() -> None:
    # 100 − 80 in use − 5 left free = 15, for 5 Jobs of 3 connections.
    decided = decide(10_000, reading={"max_connections": 100, "other_connections": 80}, scaling={"maxJobs": 50})
    assert (decided.desired, binding(decided)) == (15 // CONNECTIONS_PER_JOB, "connection budget")


def test_counts_jobs_that_run_towards_the_connection_budget() -> None:
    reading = {"max_connections": 100, "other_connections": 80}
    assert len(decide(10_000, active(4), reading=reading, scaling={"maxJobs": 50}).launches) == 1


def test_launches_nothing_when_the_database_has_no_connection_left() -> None:
    decided = decide(10_000, reading={"max_connections": 100, "other_connections": 94})
    assert (decided.launches, decided.reason, decided.held_back) == ((), "ConnectionBudget", True)
    assert "100 connections − 94 in use by others" in decided.message


def test_knows_no_connection_budget_where_the_database_does_not_tell() -> None:
    assert allowed_by(decide(10, reading={"max_connections": None}), "connection budget") is None


def test_stays_below_the_jobs_that_the_request_budget_can_keep_busy() -> None:
    decided = decide(10_000, status=learned(10, 20), siorg={"maxRequestsPerSecond": 50}, scaling={"maxJobs": 50})
    assert (decided.desired, binding(decided)) == (3, "request budget")


def test_leaves_at_least_one_job_by_the_request_budget() -> None:
    assert decide(10_000, status=learned(10, 500), siorg={"maxRequestsPerSecond": 50}).desired == 1


def test_knows_no_request_budget_without_a_limit_or_a_rate() -> None:
    assert allowed_by(decide(10, status=learned(10, 500), siorg={"maxRequestsPerSecond": 0}), "request budget") is None
    assert allowed_by(decide(10), "request budget") is None


def test_budgets_win_over_min_jobs() -> None:
    reading = {"max_connections": 100, "other_connections": 85}
    decided = decide(1, reading=reading, scaling={"minJobs": 10, "maxJobs": 10})
    assert (decided.desired, binding(decided)) == (3, "connection budget")


@pytest.mark.parametrize("jobs", [0, 3])
def test_launches_nothing_with_max_jobs_0(jobs: int) -> None:
    decided = decide(500, active(jobs), scaling={"maxJobs": 0})
    assert (decided.launches, decided.end, decided.reason, binding(decided)) == ((), (), "Suspended", "maxJobs")


@pytest.mark.parametrize("depth", [0, 1, 49, 480, 100_000])
@pytest.mark.parametrize("min_jobs", [0, 3])
@pytest.mark.parametrize("other_connections", [0, 80, 200])
@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_exactly_one_limit_binds(depth: int, min_jobs: int, other_connections: int, rate: float) -> None:
    decided = decide(
        depth,
        reading={"max_connections": 100, "other_connections": other_connections},
        status=learned(rate, rate),
        scaling={"minJobs": min_jobs, "maxJobs": 30, "targetDrainSeconds": 60},
    )
    assert [limit.binding for limit in decided.limits].count(True) == 1


def test_no_limit_binds_while_the_depth_is_unknown() -> None:
    assert plan(worker(), unreadable(), [], NOW).limits == ()


# -- slots and rounds -------------------------------------------------------------------------------------------------


def test_takes_the_lowest_free_slots() -> None:
    jobs = [job(1), job(3)]
    assert decide(250, jobs).launches == (Launch(0, 1), Launch(2, 1), Launch(4, 1))


def test_counts_rounds_on_from_the_jobs_of_the_slot() -> None:
    jobs = [ended(slot=0, round_=7), ended(slot=0, round_=6), ended(slot=1, round_=2)]
    assert decide(150, jobs).launches == (Launch(0, 8), Launch(1, 3), Launch(2, 1))


def test_counts_rounds_on_from_status_when_the_jobs_are_gone() -> None:
    status = {"jobs": {"lastRound": 41}}
    assert decide(50, [], status=status).launches == (Launch(0, 42),)
    assert decide(100, [ended(slot=0, round_=43)], status=status).launches == (Launch(0, 44), Launch(1, 42))


def test_names_a_job_alike_whether_those_launched_with_it_are_seen_or_not() -> None:
    together = decide(150, []).launches
    for seen in together:
        again = decide(150, [job(seen.slot, seen.round)]).launches
        assert again == tuple(launch for launch in together if launch != seen)


def test_jobs_in_slots_beyond_max_jobs_count_and_take_no_slot_of_others() -> None:
    decided = decide(10_000, [job(7), job(8)], scaling={"maxJobs": 4})
    assert decided.launches == (Launch(0, 1), Launch(1, 1))


def test_two_jobs_in_one_slot_both_count() -> None:
    decided = decide(10_000, [job(0, 1), job(0, 2)], scaling={"maxJobs": 3})
    assert (decided.unfinished, decided.launches) == (2, (Launch(1, 1),))


# -- what holds it back -----------------------------------------------------------------------------------------------


def test_keeps_and_launches_nothing_while_the_depth_is_unknown() -> None:
    decided = plan(worker(), unreadable(), [*active(2), *pending(1, first_slot=2)], NOW)
    assert (decided.depth, decided.launches, decided.end, decided.held_back) == (None, (), (), True)
    assert (decided.reason, decided.desired, decided.predicted_drain_seconds) == ("DepthUnknown", 3, None)
    assert decided.message == (
        "depth unknown, 3 unfinished; held back: the queue cannot be read: the database at db:5432 does not answer:"
        " check that it runs"
    )


def test_suspended_launches_nothing_and_ends_nothing() -> None:
    decided = decide(500, active(1), suspend=True)
    assert (decided.launches, decided.end, decided.reason, decided.held_back) == ((), (), "Suspended", True)
    assert decided.desired == 5


def test_suspended_without_work_holds_nothing_back() -> None:
    assert (decide(0, suspend=True).reason, decide(0, suspend=True).held_back) == ("Suspended", False)


def test_a_resource_that_is_being_deleted_gets_no_further_jobs() -> None:
    leaving = worker()
    metadata = leaving.metadata.model_copy(update={"deletion_timestamp": NOW})
    decided = plan(leaving.model_copy(update={"metadata": metadata}), backlog(500), active(1), NOW)
    assert (decided.launches, decided.end, decided.reason) == ((), (), "BeingDeleted")


def test_observe_decides_and_launches_nothing() -> None:
    decided = decide(480, active(3), mode="Observe")
    assert (decided.launches, decided.launch_reason, decided.reason, decided.held_back) == ((), "", "Observe", True)
    assert decided.message == (
        "depth 480, 50 a Job → 10 wanted, maxJobs 5 → 5, 3 unfinished → would launch 2, but mode is Observe: nothing is launched"
    )


def test_a_database_that_switched_the_sync_off_holds_back() -> None:
    decided = decide(500, reading={"sync_enabled": False})
    assert (decided.launches, decided.reason, decided.held_back) == ((), "SyncDisabled", True)
    assert "siorg.sync_enabled is false" in decided.message


def test_launches_nothing_before_a_pause_that_siorg_asked_for_is_over() -> None:
    decided = decide(500, reading={"siorg_paused_seconds": 90.0})
    assert (decided.launches, decided.reason, decided.held_back, decided.wake_seconds) == ((), "SiorgRateLimited", True, 90.0)
    assert decided.message.endswith("held back: SIORG asked for no requests until 2026-11-24T12:01:30Z")


@pytest.mark.parametrize(("seconds", "launched"), [(9.9, 5), (10.0, 0)])
def test_does_not_wait_for_a_pause_that_is_over_before_a_job_has_started(seconds: float, launched: int) -> None:
    decided = decide(500, reading={"siorg_paused_seconds": seconds})
    assert len(decided.launches) == launched
    assert decided.wake_seconds == (None if launched else seconds)


def test_launches_nothing_that_could_not_start_without_its_secret() -> None:
    decided = plan(worker(), backlog(500, token_problem="the Secret sync/token is not there"), [], NOW)
    assert (decided.launches, decided.reason, decided.held_back) == ((), "SecretMissing", True)


def test_what_holds_back_holds_nothing_back_where_jobs_are_enough() -> None:
    assert decide(100, active(2), suspend=True).held_back is False


# -- trouble ----------------------------------------------------------------------------------------------------------


def crashed(when: float, slot: int = 0, round_: int = 1, **fields: Any) -> Job:
    return ended(when, Ending.FAILED, slot=slot, round_=round_, message="exit code 1", **fields)


def test_launches_nothing_right_after_a_failure() -> None:
    decided = decide(500, [crashed(-1)])
    assert (decided.launches, decided.reason, decided.held_back) == ((), "JobsFailing", True)
    assert decided.retry_at is not None
    assert decided.wake_seconds == (decided.retry_at - NOW).total_seconds()
    assert decided.message.startswith(
        "depth 500, 50 a Job → 10 wanted, maxJobs 5 → 5, 0 unfinished; held back: Jobs fail (1 failure in a row, the last at"
        f" 2026-11-24T11:59:59Z: {crashed(-1).name}: exit code 1); one probe Job at 2026-11-24T12:00:"
    )


def test_then_one_probe_alone() -> None:
    decided = decide(500, [crashed(-30)])
    assert (decided.launches, decided.launch_reason, decided.reason) == ((Launch(0, 2),), "Probe", "Probing")
    assert decided.message.endswith("0 unfinished → launched 1 as a probe")


def test_no_second_probe_while_one_is_on_its_way() -> None:
    decided = decide(500, [crashed(-30), job(0, 2, created_at=at(-10))])
    assert (decided.launches, decided.reason, decided.held_back) == ((), "JobsFailing", True)
    assert decided.message.endswith("1 unfinished Job will show whether it is over")


@pytest.mark.parametrize(
    ("ending", "pauses"),
    [
        (Ending.FAILED, [10, 20, 40, 80, 160, 300, 300]),
        (Ending.SIORG_UNAVAILABLE, [30, 60, 120, 240, 480, 600, 600]),
    ],
)
def test_probes_leave_at_growing_intervals(ending: Ending, pauses: list[float]) -> None:
    jobs: list[Job] = []
    for round_, pause in enumerate(pauses, 1):
        failed_at = round_ * 1000.0
        jobs.append(ended(failed_at, ending, round_=round_, lived=5))
        after = [
            bool(plan(worker(), backlog(500), jobs, at(failed_at + seconds)).launches)
            for seconds in (pause - 0.1, pause * 1.2 + 0.1)
        ]
        assert after == [False, True], pause


def test_a_job_that_does_its_work_ends_the_trouble() -> None:
    jobs = [crashed(-30), ended(-1, slot=0, round_=2, summary=summary(50))]
    decided = decide(500, jobs)
    assert (decided.trouble, len(decided.launches)) == (None, 5)


def test_a_changed_template_is_tried_at_once() -> None:
    jobs = [crashed(-1)]
    decided = plan(worker(job={"image": "registry.example/siorg-job:2"}), backlog(500), jobs, NOW)
    assert (decided.trouble, len(decided.launches)) == (None, 5)


def test_a_changed_secret_is_tried_at_once() -> None:
    assert len(plan(worker(), backlog(500, credentials="changed"), [crashed(-1)], NOW).launches) == 5


def test_trouble_is_remembered_when_its_jobs_are_gone() -> None:
    remembered = {
        "reason": "SiorgUnavailable",
        "streak": 3,
        "since": rfc3339(at(-300)),
        "lastFailureTime": rfc3339(at(-5)),
        "message": "exit code 75, siorg_unavailable",
        "template": template_of(),
    }
    decided = decide(500, status={"trouble": remembered})
    assert decided.trouble is not None
    assert (decided.trouble.streak, decided.launches, decided.reason) == (3, (), "SiorgUnavailable")


def test_trouble_is_remembered_while_the_secrets_cannot_be_read() -> None:
    failed = [ended(-5, Ending.SIORG_UNAVAILABLE)]
    decided = plan(worker(), unreadable("SecretMissing", credentials=""), failed, NOW)
    assert decided.trouble is not None


def test_trouble_that_is_over_stays_over_when_the_job_that_ended_it_is_gone() -> None:
    # With successfulJobsHistoryLimit 0 the failed Job is still there, and the one that succeeded after it is not.
    status = {"jobs": {"lastFinishedTime": rfc3339(at(-10))}}
    decided = decide(500, [crashed(-60)], status=status, job={"successfulJobsHistoryLimit": 0})
    assert (decided.trouble, len(decided.launches)) == (None, 5)


def test_a_clock_that_was_ahead_does_not_silence_what_fails_after() -> None:
    status = {"jobs": {"lastFinishedTime": rfc3339(at(86_400))}}
    assert decide(500, [crashed(-1)], status=status).reason == "JobsFailing"


# -- stuck pods -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "grace"), [("ImagePullBackOff", 30), ("CreateContainerConfigError", 30), ("Unschedulable", 300)]
)
def test_ends_a_job_that_cannot_start_after_its_grace_and_not_before(reason: str, grace: int) -> None:
    waits = decide(100, [stuck(reason=reason, since=-grace + 1)])
    assert (waits.end, waits.wake_seconds) == ((), 1.0)
    over = decide(100, [stuck(reason=reason, since=-grace)])
    assert [removal.stuck.reason for removal in over.end] == [reason]


def test_a_stuck_job_counts_until_it_is_gone() -> None:
    assert decide(50, [stuck(since=-100)]).launches == ()


def test_never_ends_a_job_that_runs() -> None:
    (running,) = active(1)
    assert decide(50, [dataclasses.replace(running, stuck=stuck(since=-1000).stuck)]).end == ()


def test_ends_a_stuck_job_also_while_the_depth_is_unknown() -> None:
    assert len(plan(worker(), unreadable(), [stuck(since=-100)], NOW).end) == 1


def test_patience_can_be_chosen() -> None:
    pacing = Pacing(stuck_grace=5, unschedulable_grace=7)
    jobs = [stuck(0, since=-6), stuck(1, reason="Unschedulable", since=-6)]
    assert [removal.name for removal in plan(worker(), backlog(9), jobs, NOW, pacing).end] == [jobs[0].name]


# -- history ----------------------------------------------------------------------------------------------------------


def test_keeps_the_newest_of_each_kind() -> None:
    succeeded = [ended(-100 + n, slot=n) for n in range(5)]
    failed = [ended(-200 + n, Ending.FAILED, slot=n, round_=2) for n in range(4)]
    decided = decide(0, [*succeeded, *failed], job={"successfulJobsHistoryLimit": 2, "failedJobsHistoryLimit": 1})
    assert list(decided.remove) == names([*failed[:3], *succeeded[:3]])


def test_keeps_no_succeeded_job_where_none_is_wanted() -> None:
    decided = decide(0, [ended()], job={"successfulJobsHistoryLimit": 0})
    assert list(decided.remove) == names([ended()])


def test_removes_a_great_many_in_several_steps() -> None:
    jobs = [ended(-n, slot=n % 5, round_=n) for n in range(1, 10_000)]
    decided = decide(0, jobs)
    assert len(decided.remove) == 50
    assert decided.remove[0] == jobs[-1].name


# -- telling it -------------------------------------------------------------------------------------------------------


def test_says_the_decision_in_one_sentence() -> None:
    decided = decide(480, active(3))
    assert decided.message == "depth 480, 50 a Job → 10 wanted, maxJobs 5 → 5, 3 unfinished → launched 2"
    assert (decided.reason, decided.launch_reason, decided.held_back) == ("Launched", "Size", False)


@pytest.mark.parametrize(
    ("depth", "unfinished", "spec", "message"),
    [
        (0, 0, {}, "depth 0, 0 unfinished → nothing to do"),
        (0, 2, {}, "depth 0, 2 unfinished → nothing to do"),
        (20, 1, {}, "depth 20, 50 a Job → 1 wanted, 1 unfinished → launched 0"),
        (20, 0, {"scaling": {"minJobs": 2}}, "depth 20, 50 a Job → 1 wanted, minJobs 2 → 2, 0 unfinished → launched 2"),
        (
            100,
            0,
            {"status": learned(0.5), "scaling": {"targetDrainSeconds": 60}},
            "depth 100, 50 a Job → 2 wanted, 0.5 items/s a Job and 60 s → 4 wanted, 0 unfinished → launched 4",
        ),
        (
            20,
            1,
            {"suspend": True},
            "depth 20, 50 a Job → 1 wanted, 1 unfinished; held back: spec.suspend is true: what runs drains, nothing is launched",
        ),
        (
            20,
            0,
            {"scaling": {"maxJobs": 0}},
            "depth 20, 50 a Job → 1 wanted, maxJobs 0 → 0, 0 unfinished; held back: maxJobs is 0: nothing is launched",
        ),
    ],
)
def test_says_each_step_that_shaped_it(depth: int, unfinished: int, spec: dict[str, Any], message: str) -> None:
    assert decide(depth, active(unfinished), **spec).message == message


def test_predicts_how_long_the_drain_will_take() -> None:
    assert decide(600, active(2), status=learned(2.0)).predicted_drain_seconds == 600 / (2.0 * 5)
    assert decide(600).predicted_drain_seconds is None
    assert decide(0).predicted_drain_seconds == 0.0


# -- when to look again -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "rest", "busy"), [(30, 30.0, 5.0), (3600, 3600.0, 600.0), (5, 5.0, 1.0), (1, 1.0, 1.0), (6, 6.0, 1.0)]
)
def test_looks_more_often_while_there_is_work(interval: int, rest: float, busy: float) -> None:
    scaling = {"pollIntervalSeconds": interval}
    assert decide(0, scaling=scaling).poll_seconds == rest
    assert decide(1, scaling=scaling).poll_seconds == busy
    assert decide(0, active(1), scaling=scaling).poll_seconds == busy
    assert plan(worker(scaling=scaling), unreadable(), [], NOW).poll_seconds == busy


def test_wakes_when_the_next_item_falls_due() -> None:
    assert decide(0, reading={"scheduled": 3, "next_due_seconds": 12.5}).wake_seconds == 12.5
    assert decide(0).wake_seconds is None


def test_does_not_wake_for_a_probe_that_nothing_needs() -> None:
    assert decide(0, [crashed(-1)]).wake_seconds is None


def test_wakes_at_what_comes_first() -> None:
    reading = {"siorg_paused_seconds": 20.0}
    assert decide(10, [stuck(since=-25)], reading=reading).wake_seconds == 5.0


def test_a_status_that_says_nothing_useful_does_no_harm() -> None:
    status = {"trouble": {"reason": "Nonsense"}, "rate": 0, "jobs": {}}
    assert len(plan(worker(status=status), backlog(500), [], NOW).launches) == 5


# -- found by a review ------------------------------------------------------------------------------------------------


def test_locked_rows_are_no_reason_for_one_empty_job_after_the_other() -> None:
    found_nothing = ended(-2, summary=summary(0))
    decided = decide(100, [found_nothing])
    assert (decided.launches, decided.reason) == ((), "NothingClaimable")
    assert "Jobs find nothing to claim although rows are due" in decided.message
    assert decide(0, [found_nothing]).trouble is None  # it came too late, and that was all


def test_an_older_template_does_not_hold_back_the_probe_of_a_new_one() -> None:
    old = active(1, template="older", first_slot=0)
    broken = ended(-100, Ending.FAILED, slot=1)
    decided = decide(10_000, [*old, broken])
    assert (len(decided.launches), decided.reason) == (1, "Probing")
    probe = job(decided.launches[0].slot, decided.launches[0].round)
    assert decide(10_000, [*old, broken, probe]).launches == ()


def test_jobs_of_other_resources_use_up_connections_too() -> None:
    reading = {"max_connections": 100, "other_connections": 20, "job_connections": 60}
    mine = active(2)  # 6 of the 60 connections, so 54 are others'
    assert (
        allowed_by(decide(10_000, mine, reading=reading, scaling={"maxJobs": 50}), "connection budget")
        == (100 - 20 - 54 - 5) // 3
    )


def test_trouble_sleeps_while_nothing_waits() -> None:
    failed = ended(-4000, Ending.SIORG_UNAVAILABLE)
    assert decide(0, [failed]).dormant
    assert not decide(1, [failed]).dormant
    assert not decide(0, [ended(-1, Ending.SIORG_UNAVAILABLE)]).dormant
