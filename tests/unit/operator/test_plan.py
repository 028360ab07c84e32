"""The decision, rule by rule: DESIGN §5."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from siorg_operator.api.resource import SiorgSyncWorker
from siorg_operator.decide.connections import CONNECTIONS_PER_JOB
from siorg_operator.decide.job_failures import Pacing
from siorg_operator.decide.plan import plan
from siorg_operator.decide.planned import Launch, Plan
from siorg_operator.decide.sizing import LimitName
from siorg_operator.decide.state import ConnectionLimit, Ending, Job, JobState, QueueState, Stuck
from siorg_operator.decide.status import compose
from siorg_operator.decide.wording import intent, limit
from support.operator_values import (
    NOW,
    active,
    at,
    carried_out,
    ended,
    job,
    pending,
    queue_of,
    rfc3339,
    stuck,
    summary,
    unreadable,
    with_status,
    worker,
)

FULL = {"max_connections": 100, "other_connections": 80}
"""100 − 80 in use − 5 left free = 15, for 5 Jobs of 3 connections."""


def decide(depth: int, jobs: list[Job] | None = None, *, reading: dict[str, Any] | None = None, **spec: Any) -> Plan:
    return plan(worker(**spec), queue_of(depth, **(reading or {})), jobs or [], NOW)


def said(depth: int, jobs: list[Job] | None = None, *, reading: dict[str, Any] | None = None, **spec: Any) -> str:
    """The same decision in one sentence."""
    return intent(worker(**spec), decide(depth, jobs, reading=reading, **spec))


def learned(rate: float, requests: float = 0.0) -> dict[str, Any]:
    return {"rate": rate, "requestRate": requests}


def crashed(when: float, slot: int = 0, round_: int = 1, **fields: Any) -> Job:
    return ended(when, Ending.FAILED, slot=slot, round_=round_, message="exit code 1", **fields)


# -- how many ---------------------------------------------------------------------------------------------------------

SIZES: list[tuple[str, int, dict[str, Any], int, str]] = [
    # (rule, depth, spec and reading, desired, the limit that decides)
    ("a Job for each itemsPerJob begun", 1, {}, 1, "by size"),
    ("a Job for each itemsPerJob begun", 50, {}, 1, "by size"),
    ("a Job for each itemsPerJob begun", 51, {}, 2, "by size"),
    ("a Job for each itemsPerJob begun", 501, {"scaling": {"maxJobs": 100}}, 11, "by size"),
    ("one Job for any work", 1, {"scaling": {"itemsPerJob": 1_000_000}}, 1, "by size"),
    ("nothing without work, whatever minJobs says", 0, {"scaling": {"minJobs": 3}}, 0, "depth"),
    ("as many as the target needs", 1000,
        {"status": learned(2.0), "scaling": {"itemsPerJob": 500, "targetDrainSeconds": 100, "maxJobs": 50}}, 5, "by time"),
    ("the larger of size and time", 1000,
        {"status": learned(1000.0), "scaling": {"itemsPerJob": 100, "targetDrainSeconds": 100, "maxJobs": 50}}, 10, "by size"),
    # 0.1 · 3 is 0.30000000000000004 in binary.
    ("no more where it is even", 3, {"status": learned(0.1), "scaling": {"targetDrainSeconds": 3, "maxJobs": 50}}, 10, "by time"),
    ("size alone without a target", 1000, {"status": learned(0.001), "scaling": {"itemsPerJob": 500}}, 2, "by size"),
    ("size alone before a rate was learned", 1000, {"scaling": {"itemsPerJob": 500, "targetDrainSeconds": 1}}, 2, "by size"),
    ("never more than maxJobs", 10_000, {"scaling": {"maxJobs": 5}}, 5, "maxJobs"),
    ("minJobs as capacity", 1, {"scaling": {"minJobs": 3}}, 3, "minJobs"),
    ("minJobs not on top", 200, {"scaling": {"minJobs": 3}}, 4, "by size"),
    ("the connections that are left", 10_000, {"reading": FULL, "scaling": {"maxJobs": 50}}, 5, "connection budget"),
    ("budgets before minJobs", 1, {"reading": FULL, "scaling": {"minJobs": 10, "maxJobs": 10}}, 5, "connection budget"),
    ("the requests that are allowed", 10_000,
        {"status": learned(10, 20), "siorg": {"maxRequestsPerSecond": 50}, "scaling": {"maxJobs": 50}}, 3, "request budget"),
    ("one Job by the requests", 10_000, {"status": learned(10, 500), "siorg": {"maxRequestsPerSecond": 50}}, 1, "request budget"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "depth", "given", "desired", "decides"), SIZES)
def test_wants(rule: str, depth: int, given: dict[str, Any], desired: int, decides: str) -> None:
    decided = decide(depth, **given)
    assert (decided.desired, decided.size.binding) == (desired, decides), rule


@pytest.mark.parametrize(
    ("spec", "reading", "limit", "jobs"),
    [
        ({}, {}, "by time", None),
        ({"status": learned(2.0)}, {}, "by time", None),
        ({"scaling": {"targetDrainSeconds": 60}}, {}, "by time", None),
        ({}, {"max_connections": None}, "connection budget", None),
        ({"status": learned(10, 500), "siorg": {"maxRequestsPerSecond": 0}}, {}, "request budget", None),
        ({}, {}, "request budget", None),
        ({}, {}, "minJobs", 1),
        ({"scaling": {"minJobs": 3}}, {}, "minJobs", 3),
        ({}, {"max_connections": 20, "other_connections": 99}, "connection budget", 0),
    ],
)
def test_shows_what_a_limit_allows_if_it_limits(
    spec: dict[str, Any], reading: dict[str, Any], limit: LimitName, jobs: int | None
) -> None:
    assert decide(10, reading=reading, **spec).size.limits[limit] == jobs


def test_exactly_one_limit_binds_and_each_says_how_it_comes_about() -> None:
    resource = worker(status=learned(1.0, 1.0), scaling={"minJobs": 3, "maxJobs": 30, "targetDrainSeconds": 60})
    for depth in (0, 1, 49, 480, 100_000):
        for others in (0, 80, 200):
            size = plan(resource, queue_of(depth, max_connections=100, other_connections=others), [], NOW).size
            assert size.binding in size.limits, (depth, others)
            assert all(limit(resource, size, name) for name in size.limits)
    assert (plan(worker(), unreadable(), [], NOW).size.limits, plan(worker(), unreadable(), [], NOW).size.binding) == ({}, None)


def test_connections_of_its_own_jobs_are_no_others() -> None:
    assert len(decide(10_000, active(4), reading=FULL, scaling={"maxJobs": 50}).launches) == 1
    # 2 Jobs of this resource have 6 of the 60 connections, so 54 are others'.
    shared = {"max_connections": 100, "other_connections": 20, "job_connections": 60}
    decided = decide(10_000, active(2), reading=shared, scaling={"maxJobs": 50})
    assert decided.size.limits["connection budget"] == (100 - 20 - 54 - 5) // CONNECTIONS_PER_JOB


def test_looks_soon_whether_connections_became_free_for_nobody_tells() -> None:
    hourly = {"pollIntervalSeconds": 3600, "maxJobs": 50}
    assert decide(10_000, reading=FULL, scaling=hourly).wake_seconds == 5.0
    assert decide(10_000, scaling=hourly).wake_seconds is None


def test_learns_the_rates_of_a_job_from_the_newest_that_ended_items_and_remembers_them() -> None:
    old = [ended(-1000 - n, slot=n, summary=summary(1000, seconds=1)) for n in range(5)]
    new = [ended(-10 - n, slot=n, round_=2, summary=summary(60, seconds=30, requests=15)) for n in range(20)]
    nothing = [ended(-5, slot=9, summary=summary(0, seconds=3600, requests=9))]
    rates = decide(100, [*nothing, *new, *old]).size.rates
    assert (rates.items, rates.requests) == (2.0, 0.5)
    rates = decide(100, status=learned(2.5, 1.25)).size.rates  # those Jobs are gone
    assert (rates.items, rates.requests) == (2.5, 1.25)


@pytest.mark.parametrize(
    ("seconds", "completed", "rate"), [(1e-300, 2**62, 1e6), (0.0, 5, None), (-3.0, 5, None), (1e9, 1, None), (5e-324, 1, 1e6)]
)
def test_believes_no_absurd_rate(seconds: float, completed: int, rate: float | None) -> None:
    assert decide(10, [ended(summary=summary(completed, seconds=seconds))]).size.rates.items == rate


def test_predicts_how_long_the_drain_will_take() -> None:
    assert decide(600, active(2), status=learned(2.0)).predicted_drain_seconds == 600 / (2.0 * 5)
    assert decide(600).predicted_drain_seconds is None
    assert decide(0).predicted_drain_seconds == 0.0


# -- launches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("depth", "jobs", "scaling", "launches", "reason", "asked_by"),
    [
        (0, [], {}, 0, "QueueEmpty", ""),
        (480, active(3), {}, 2, "Launched", "Size"),
        # Every unfinished Job counts, whether its pod runs or not; a finished one does not.
        (250, [*pending(2), *active(1, first_slot=2)], {}, 2, "Launched", "Size"),
        (250, [ended(slot=0), ended(slot=1)], {}, 5, "Launched", "Size"),
        (100, active(3), {}, 0, "EnoughJobs", ""),
        (1, [], {"minJobs": 3}, 3, "Launched", "MinJobs"),
        (200, active(2), {"minJobs": 3}, 2, "Launched", "Size"),
        (10_000, [], {"maxJobs": 20, "maxLaunchesPerStep": 4}, 4, "Launched", "Size"),
        (500, active(3), {"maxJobs": 0}, 0, "Suspended", ""),
    ],
)
def test_launches(depth: int, jobs: list[Job], scaling: dict[str, Any], launches: int, reason: str, asked_by: str) -> None:
    decided = decide(depth, jobs, scaling=scaling)
    assert (len(decided.launches), decided.reason, decided.launch_reason) == (launches, reason, asked_by)
    assert decided.held_back == (reason == "Suspended")
    assert decided.unfinished == sum(job.unfinished for job in jobs)


def test_ends_nothing_that_runs_when_there_are_more_than_wanted() -> None:
    decided = decide(1, active(5), scaling={"maxJobs": 1})
    assert (decided.desired, decided.unfinished, decided.launches, decided.end, decided.remove) == (1, 5, (), (), ())


@pytest.mark.parametrize(
    ("depth", "jobs", "given", "launches"),
    [
        # the lowest free slots
        (250, [job(1), job(3)], {}, [(0, 1), (2, 1), (4, 1)]),
        # rounds go on from those of the slot, and from status when the Jobs are gone
        (150, [ended(slot=0, round_=7), ended(slot=0, round_=6), ended(slot=1, round_=2)], {}, [(0, 8), (1, 3), (2, 1)]),
        (50, [], {"status": {"jobs": {"lastRound": 41}}}, [(0, 42)]),
        (100, [ended(slot=0, round_=43)], {"status": {"jobs": {"lastRound": 41}}}, [(0, 44), (1, 42)]),
        # Jobs in slots beyond maxJobs count and take no slot of others, and two in one slot both count
        (10_000, [job(7), job(8)], {"scaling": {"maxJobs": 4}}, [(0, 1), (1, 1)]),
        (10_000, [job(0, 1), job(0, 2)], {"scaling": {"maxJobs": 3}}, [(1, 1)]),
    ],
)
def test_slots_and_rounds(depth: int, jobs: list[Job], given: dict[str, Any], launches: list[tuple[int, int]]) -> None:
    assert decide(depth, jobs, **given).launches == tuple(Launch(slot, round_) for slot, round_ in launches)


def test_names_a_job_alike_whether_those_launched_with_it_are_seen_or_not() -> None:
    together = decide(150, []).launches
    for seen in together:
        again = decide(150, [job(seen.slot, seen.round)]).launches
        assert again == tuple(launch for launch in together if launch != seen)


# -- what holds it back -----------------------------------------------------------------------------------------------


def leaving() -> SiorgSyncWorker:
    metadata = worker().metadata.model_copy(update={"deletion_timestamp": NOW})
    return worker().model_copy(update={"metadata": metadata})


def stop(one: Job) -> Job:
    """It was told to stop."""
    return dataclasses.replace(one, stopped=True)


HOLDS: list[tuple[SiorgSyncWorker, QueueState, str, str]] = [
    # What holds launches while one Job runs, and how the decision ends.
    (worker(suspend=True), queue_of(500), "Suspended", "held back: spec.suspend is true: what runs drains, nothing is launched"),
    (worker(scaling={"maxJobs": 0}), queue_of(500), "Suspended", "held back: spec.scaling.maxJobs is 0: nothing is launched"),
    (worker(mode="Observe"), queue_of(500), "Observe", "1 unfinished → would launch 4, but mode is Observe: nothing is launched"),
    (worker(), queue_of(500, sync_enabled=False), "SyncDisabled",
        "held back: the database's setting siorg.sync_enabled is false"),
    (worker(), queue_of(500, max_connections=100, other_connections=94), "ConnectionBudget",
        "94 in use by others − 5 left free) / 3 a Job; raise max_connections, or end sessions that nobody needs"),
    (worker(), queue_of(500, max_connections=97, role=ConnectionLimit("role", "siorg", 8, 1)), "ConnectionBudget",
        "5 left free) / 3 a Job; raise the role's limit (ALTER ROLE … CONNECTION LIMIT), or give others a role of their own"),
    (worker(), queue_of(500, max_connections=97, database=ConnectionLimit("database", "d", 8, 2)), "ConnectionBudget",
        "2 in use by others − 5 left free) / 3 a Job; raise the database's limit (ALTER DATABASE … CONNECTION LIMIT)"),
    (worker(), queue_of(500, siorg_paused_seconds=90.0), "SiorgRateLimited",
        "held back: SIORG asked for no requests until 2026-11-24T12:01:30Z"),
    (worker(), queue_of(500, token_error="the Secret sync/token is not there"), "SecretMissing",
        "held back: the Secret sync/token is not there"),
    (leaving(), queue_of(500), "BeingDeleted", "held back: the resource is being deleted, and its Jobs with it"),
    (worker(), unreadable(), "DepthUnknown",
        "1 unfinished; held back: the queue cannot be read: the database at db:5432 does not answer: check that it runs"),
]  # fmt: skip


@pytest.mark.parametrize("queue", [queue_of(0, token_error="no Secret"), queue_of(0, siorg_paused_seconds=20.0)])
def test_what_would_hold_the_next_work_is_told_while_there_is_none(queue: QueueState) -> None:
    decided = plan(worker(), queue, [], NOW)
    assert decided.hold is not None
    assert (decided.reason, decided.held_back) == (decided.hold.reason, False)
    assert decided.reason in {"SecretMissing", "SiorgRateLimited"}


@pytest.mark.parametrize(("resource", "queue", "reason", "message"), HOLDS)
def test_what_holds_launches_ends_nothing_and_says_why(
    resource: SiorgSyncWorker, queue: QueueState, reason: str, message: str
) -> None:
    decided = plan(resource, queue, active(1), NOW)
    assert (decided.launches, decided.launch_reason, decided.end, decided.reason) == ((), "", (), reason)
    assert decided.held_back
    assert intent(resource, decided).endswith(message)


def test_keeps_what_is_there_while_the_depth_is_unknown() -> None:
    decided = plan(worker(), unreadable(), [*active(2), *pending(1, first_slot=2)], NOW)
    assert (decided.depth, decided.desired, decided.predicted_drain_seconds) == (None, 3, None)


@pytest.mark.parametrize(("seconds", "launched", "wake"), [(9.9, 5, None), (10.0, 0, 10.0)])
def test_does_not_wait_for_a_pause_that_is_over_before_a_job_has_started(
    seconds: float, launched: int, wake: float | None
) -> None:
    decided = decide(500, reading={"siorg_paused_seconds": seconds})
    assert (len(decided.launches), decided.wake_seconds) == (launched, wake)


def test_what_holds_launches_holds_nothing_back_where_jobs_are_enough() -> None:
    assert (decide(0, suspend=True).reason, decide(0, suspend=True).held_back) == ("Suspended", False)
    assert decide(100, active(2), suspend=True).held_back is False


# -- Jobs that fail ---------------------------------------------------------------------------------------------------


def test_launches_nothing_right_after_a_failure() -> None:
    decided = decide(500, [crashed(-1)])
    assert (decided.launches, decided.reason, decided.held_back) == ((), "JobsFailing", True)
    assert decided.backoff
    assert decided.wake_seconds == (decided.backoff.retry_at - NOW).total_seconds()
    assert said(500, [crashed(-1)]).startswith(
        "depth 500, 50 a Job → 10 wanted, maxJobs 5 → 5, 0 unfinished; held back: Jobs fail (1 failure in a row, the last at"
        f" 2026-11-24T11:59:59Z: {crashed(-1).name}: exit code 1); one probe Job at 2026-11-24T12:00:"
    )


def test_then_one_probe_and_no_second_one_while_it_is_on_its_way() -> None:
    decided = decide(500, [crashed(-30)])
    assert (decided.launches, decided.launch_reason, decided.reason) == ((Launch(0, 2),), "Probe", "Probing")
    assert said(500, [crashed(-30)]).endswith("0 unfinished → launched 1 as a probe")
    jobs = [crashed(-30), job(0, 2, created_at=at(-10))]
    decided = decide(500, jobs)
    assert (decided.launches, decided.reason, decided.held_back) == ((), "JobsFailing", True)
    assert said(500, jobs).endswith("1 unfinished Job will show whether it is over")


@pytest.mark.parametrize(
    ("ending", "pauses"),
    [
        (Ending.FAILED, [10, 20, 40, 80, 160, 300, 300]),
        (Ending.SIORG_UNAVAILABLE, [*[5] * 9, 10, 20, 40, 80, 160, 320, 600, 600]),
    ],
)
def test_probes_leave_at_growing_intervals(ending: Ending, pauses: list[float]) -> None:
    jobs: list[Job] = []
    for round_, pause in enumerate(pauses, 1):
        failed_at = round_ * 1000.0
        jobs.append(ended(failed_at, ending, round_=round_, lived=5))
        after = [
            bool(plan(worker(), queue_of(500), jobs, at(failed_at + seconds)).launches)
            for seconds in (pause - 0.1, pause * 1.2 + 1)
        ]
        assert after == [False, True], pause


_PROBE = job(0, 2).name


@pytest.mark.parametrize(
    ("hosts", "over"),
    [
        ({f"{_PROBE}-x7k2p": 3.0}, True),
        ({_PROBE: 3.0}, True),  # a process of this machine
        ({"another": 1.0, f"{_PROBE}-x7k2p": 3.0}, True),
        ({f"{_PROBE}-x7k2p": 25.0}, False),  # before it failed
        ({f"{_PROBE}1-x7k2p": 3.0, f"a-{_PROBE}-x7k2p": 3.0, "another": 3.0, "": 3.0}, False),
        ({}, False),
    ],
)
def test_what_a_running_probe_completes_ends_an_absence_and_what_others_complete_does_not(
    hosts: dict[str, float], over: bool
) -> None:
    jobs = [ended(-30, Ending.SIORG_UNAVAILABLE), *active(1, started=-20, round_=2)]
    decided = plan(worker(), queue_of(500, completed_by=hosts), jobs, NOW)
    assert (decided.backoff is None, len(decided.launches)) == (over, int(over))
    assert decided.wake_seconds == 1  # to see the next item
    told = intent(worker(), decided)
    assert told.endswith(
        "launched 1 (the trouble is over since 2026-11-24T11:59:57Z: their number doubles as items are completed)"
        if over else "1 unfinished Job will show whether it is over"
    )  # fmt: skip


def test_while_it_recovers_few_jobs_are_told_and_no_fault() -> None:
    recovered = {
        "reason": "SiorgUnavailable", "streak": 3, "since": rfc3339(at(-300)), "lastFailureTime": rfc3339(at(-60)),
        "recoveredTime": rfc3339(at(-20)), "template": job().template,
    }  # fmt: skip
    decided = decide(500, active(2, created_at=at(-5)), status={"backoff": recovered})
    assert (decided.launches, decided.reason, decided.held_back, decided.wake_seconds) == ((), "Recovering", False, 1)
    assert said(500, active(2, created_at=at(-5)), status={"backoff": recovered}).endswith(
        "launched 0 (the trouble is over since 2026-11-24T11:59:40Z: their number doubles as items are completed)"
    )
    # What is there is enough: nobody waits for an item.
    assert decide(100, active(2, created_at=at(-5)), status={"backoff": recovered}).reason == "EnoughJobs"
    # A decision on what comes later is made when it is over.
    assert decide(0, status={"backoff": recovered}).wake_seconds == 280


@pytest.mark.parametrize(
    ("jobs", "given", "secrets_hash"),
    [
        ([crashed(-30), ended(-1, slot=0, round_=2, summary=summary(50))], {}, "c0ffee"),
        ([crashed(-1)], {"job": {"image": "registry.example/siorg-job:2"}}, "c0ffee"),
        ([crashed(-1)], {}, "changed"),
        ([crashed(-1)], {}, ""),
        # With successfulJobsHistoryLimit 0 the failed Job is still there, and the one that succeeded after it is not.
        ([crashed(-60)], {"status": {"jobs": {"lastFinishedTime": rfc3339(at(-10))}}}, "c0ffee"),
        ([], {"status": {"backoff": {"reason": "Nonsense"}, "rate": 0, "jobs": {}}}, "c0ffee"),
    ],
    ids=["it did its work", "changed template", "changed Secret", "no Secret any more", "over, and its end is gone", "nonsense"],
)
def test_failures_are_over(jobs: list[Job], given: dict[str, Any], secrets_hash: str) -> None:
    decided = plan(worker(**given), queue_of(500, secrets_hash=secrets_hash), jobs, NOW)
    assert (decided.backoff, len(decided.launches)) == (None, 5)


def test_failures_are_remembered_when_their_jobs_are_gone_or_the_secrets_cannot_be_read() -> None:
    remembered = {
        "reason": "SiorgUnavailable", "streak": 3, "since": rfc3339(at(-300)), "lastFailureTime": rfc3339(at(-5)),
        "message": "exit code 75, siorg_unavailable", "template": job().template,
    }  # fmt: skip
    decided = decide(500, status={"backoff": remembered})
    assert decided.backoff is not None
    assert (decided.backoff.failures.streak, decided.launches, decided.reason) == (3, (), "SiorgUnavailable")
    failed = [ended(-5, Ending.SIORG_UNAVAILABLE)]
    assert plan(worker(), unreadable("SecretMissing", secrets_hash=None), failed, NOW).backoff is not None


def test_a_status_that_is_dated_ahead_neither_silences_what_fails_nor_holds_launches_until_then() -> None:
    ahead = rfc3339(at(400 * 86_400))
    assert decide(500, [crashed(-1)], status={"jobs": {"lastFinishedTime": ahead}}).reason == "JobsFailing"
    remembered = {"reason": "JobFailed", "streak": 1, "since": ahead, "lastFailureTime": ahead, "template": job().template}
    decided = decide(500, status={"backoff": remembered})
    assert decided.backoff is not None
    assert decided.backoff.retry_at <= at(15)
    told = with_status(worker(), compose(worker(), queue_of(500), carried_out(decided), [], NOW))
    assert len(plan(told, queue_of(500), [], at(15)).launches) == 1
    assert len(plan(told, queue_of(500), [ended(16, summary=summary(9))], at(17)).launches) == 5


def test_locked_rows_are_no_reason_for_one_empty_job_after_the_other() -> None:
    found_nothing = ended(-2, summary=summary(0))
    decided = decide(100, [found_nothing])
    assert (decided.launches, decided.reason) == ((), "NothingClaimable")
    assert "Jobs find nothing to claim although rows are due" in said(100, [found_nothing])
    assert decide(0, [found_nothing]).backoff is None  # it came too late, and that was all


def test_an_older_template_does_not_hold_back_the_probe_of_a_new_one() -> None:
    old = active(1, template="older", first_slot=0)
    broken = ended(-100, Ending.FAILED, slot=1)
    decided = decide(10_000, [*old, broken])
    assert (len(decided.launches), decided.reason) == (1, "Probing")
    probe = job(decided.launches[0].slot, decided.launches[0].round)
    assert decide(10_000, [*old, broken, probe]).launches == ()


def test_a_backoff_sleeps_while_nothing_waits() -> None:
    def dormant(depth: int, when: float) -> bool:
        backoff = decide(depth, [ended(when, Ending.SIORG_UNAVAILABLE)]).backoff
        return backoff is not None and backoff.dormant

    assert (dormant(0, -4000), dormant(1, -4000), dormant(0, -1)) == (True, False, False)


# -- Jobs that have to go ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "grace"), [("ImagePullBackOff", 30), ("CreateContainerConfigError", 30), ("Unschedulable", 300)]
)
def test_ends_a_job_that_cannot_start_after_its_grace_and_not_before(reason: str, grace: int) -> None:
    waits = decide(100, [stuck(reason=reason, since=-grace + 1)])
    assert (waits.end, waits.wake_seconds) == ((), 1.0)
    over = decide(100, [stuck(reason=reason, since=-grace)])
    assert [removal.stuck.reason for removal in over.end] == [reason]


def test_a_stuck_job_counts_until_it_is_gone_and_goes_also_while_the_depth_is_unknown() -> None:
    assert decide(50, [stuck(since=-100)]).launches == ()
    assert len(plan(worker(), unreadable(), [stuck(since=-100)], NOW).end) == 1


def test_never_ends_a_job_that_runs_and_patience_can_be_chosen() -> None:
    (running,) = active(1)
    assert decide(50, [dataclasses.replace(running, stuck=stuck(since=-1000).stuck)]).end == ()
    jobs = [stuck(0, since=-6), stuck(1, reason="Unschedulable", since=-6)]
    pacing = Pacing(stuck_grace=5, unschedulable_grace=7)
    assert [removal.name for removal in plan(worker(), queue_of(9), jobs, NOW, pacing).end] == [jobs[0].name]


def test_a_job_whose_worker_has_ended_or_is_lost_is_replaced_in_its_slot_and_ended_where_that_is_due() -> None:
    since = Stuck("WorkerEnded", "", at(-30))
    outlived = dataclasses.replace(ended(-30), stuck=since, uid="its uid", last_words="{}")
    lost = job(1, state=JobState.LOST, stuck=Stuck("NodeLost", "its node does not answer", None))
    overdue = job(2, state=JobState.LOST, stuck=Stuck("NodeLost", "its pod does not go", at(-90)))
    decided = decide(150, [outlived, lost, overdue])
    assert decided.launches == (Launch(0, 2), Launch(1, 2), Launch(2, 2))
    assert [(one.name, one.uid, one.last_words, one.reason) for one in decided.end] == [
        (outlived.name, "its uid", "{}", "LeftoverPodEnded"), (overdue.name, overdue.uid, "", "StuckJobEnded"),
    ]  # fmt: skip
    assert decide(0, [outlived], job={"successfulJobsHistoryLimit": 0}).remove == ()  # not before its pod is gone
    assert said(150, [lost, *active(1)]).endswith("1 unfinished, 1 lost → launched 2")


def test_a_suspended_job_is_capacity_that_is_removed_once_the_work_has_ended_without_it() -> None:
    jobs = [job(0, state=JobState.SUSPENDED), *active(1, first_slot=1)]
    assert decide(100, jobs).launches == ()
    assert said(150, jobs).endswith("2 unfinished (1 pending admission) → launched 1")
    assert (decide(1, jobs).remove, decide(0, jobs).remove) == ((), (jobs[0],))
    assert plan(worker(), unreadable(), jobs, NOW).remove == ()


SWITCHED_OFF: list[tuple[dict[str, Any], str]] = [
    ({"suspend": True}, "spec.suspend is true"),
    ({"scaling": {"maxJobs": 0}}, "spec.scaling.maxJobs is 0"),
    ({"suspend": True, "mode": "Observe"}, "spec.suspend is true"),
]


@pytest.mark.parametrize("queue", [queue_of(500), unreadable()])
@pytest.mark.parametrize("given", [given for given, _ in SWITCHED_OFF])
def test_switched_off_what_is_there_goes_on_unless_it_is_to_stop_and_then_what_is_not_admitted_never_begins(
    given: dict[str, Any], queue: QueueState
) -> None:
    suspended, unseen = job(2, state=JobState.SUSPENDED), job(3, uid="")
    jobs = [*active(1), *pending(1, first_slot=1), suspended, unseen, ended(slot=4)]
    drained, stopped = (plan(worker(whenSuspended=which, **given), queue, jobs, NOW) for which in ("Drain", "Stop"))
    assert (drained.stop, drained.remove, drained.stopping) == ((), (), 0)
    assert (stopped.stop, stopped.remove, stopped.stopping) == ((jobs[0], jobs[1]), (suspended,), 2)
    again = plan(worker(whenSuspended="Stop", **given), queue, [stop(one) for one in jobs[:2]], NOW)
    assert (again.stop, again.stopping) == ((), 2)  # each is told once
    assert plan(worker(whenSuspended="Stop"), queue, jobs, NOW).stop == ()


@pytest.mark.parametrize(("given", "cause"), SWITCHED_OFF)
def test_says_how_many_are_stopping(given: dict[str, Any], cause: str) -> None:
    told = [said(500, jobs, whenSuspended="Stop", **given) for jobs in (active(3), [stop(*active(1))], [])]
    assert [sentence.partition(f"held back: {cause}: ")[2] for sentence in told] == [
        "stopping 3 Jobs, which give back what they hold; nothing is launched (whenSuspended: Stop)",
        "stopping 1 Job, which gives back what it holds; nothing is launched (whenSuspended: Stop)",
        "nothing runs any more, nothing is launched (whenSuspended: Stop)",
    ]


def test_resumed_it_launches_at_once_beside_jobs_that_are_stopping_and_never_more_than_the_ceilings() -> None:
    stopping = [stop(one) for one in active(3)]
    assert decide(50, stopping).launches == (Launch(3, 1),)
    assert said(500, stopping).endswith("3 unfinished (3 stopping) → launched 2")
    assert len(decide(500, stopping, scaling={"maxJobs": 2}).launches) == 0
    suspended = stop(job(0, state=JobState.SUSPENDED))  # by Kueue, which took its place away: it would keep its slot for ever
    assert decide(500, [suspended]).remove == (suspended,)
    assert len(decide(500, stopping, reading={"max_connections": 17, "job_connections": 9}).launches) == 1


def test_a_job_that_was_told_to_stop_is_no_failure_and_no_probe() -> None:
    killed = [stop(ended(-10, ending, slot=slot, lived=5)) for slot, ending in enumerate((Ending.FAILED, Ending.LOST))]
    assert (decide(50, killed).backoff, decide(50, [stop(ended(-10))]).backoff) == (None, None)
    failing = decide(50, [ended(-500, Ending.FAILED), *killed, stop(ended(-5, slot=3))])
    assert failing.backoff is not None  # what it was to show, it has not shown
    worked = stop(ended(-5, slot=3, summary=summary(completed=1)))
    assert decide(50, [ended(-500, Ending.FAILED), *killed, worked]).backoff is None
    assert (failing.reason, decide(50, [ended(-500, Ending.FAILED), stop(*active(1, first_slot=1))]).reason) == ("Probing",) * 2


def test_looks_again_when_a_job_is_known_to_change() -> None:
    assert decide(50, [dataclasses.replace(active(1)[0], changes_at=at(2.5))]).wake_seconds == 2.5


def test_keeps_the_newest_of_each_kind() -> None:
    succeeded = [ended(-100 + n, slot=n) for n in range(5)]
    failed = [ended(-200 + n, Ending.FAILED, slot=n, round_=2) for n in range(4)]
    decided = decide(0, [*succeeded, *failed], job={"successfulJobsHistoryLimit": 2, "failedJobsHistoryLimit": 1})
    assert decided.remove == (*failed[:3], *succeeded[:3])
    assert decide(0, [ended()], job={"successfulJobsHistoryLimit": 0}).remove == (ended(),)


def test_removes_a_great_many_in_several_steps() -> None:
    jobs = [ended(-n, slot=n % 5, round_=n) for n in range(1, 10_000)]
    assert (len(removed := decide(0, jobs).remove), removed[0]) == (50, jobs[-1])


# -- telling it -------------------------------------------------------------------------------------------------------


TARGET = {"status": learned(0.5), "scaling": {"targetDrainSeconds": 60}}
SENTENCES: list[tuple[int, int, dict[str, Any], str]] = [
    # depth, unfinished Jobs, spec, and each step that shaped the decision
    (0, 0, {}, "depth 0, 0 unfinished → nothing to do"),
    (0, 2, {}, "depth 0, 2 unfinished → nothing to do"),
    (20, 1, {}, "depth 20, 50 a Job → 1 wanted, 1 unfinished → launched 0"),
    (480, 3, {}, "depth 480, 50 a Job → 10 wanted, maxJobs 5 → 5, 3 unfinished → launched 2"),
    (20, 0, {"scaling": {"minJobs": 2}}, "depth 20, 50 a Job → 1 wanted, minJobs 2 → 2, 0 unfinished → launched 2"),
    (100, 0, TARGET, "depth 100, 50 a Job → 2 wanted, 0.5 items/s a Job and 60 s → 4 wanted, 0 unfinished → launched 4"),
    (100, 0, {"scaling": {"maxLaunchesPerStep": 1}},
        "depth 100, 50 a Job → 2 wanted, 0 unfinished → launched 1 (maxLaunchesPerStep 1)"),
    (9, 0, {"scaling": {"maxJobs": 0}},
        "depth 9, 50 a Job → 1 wanted, maxJobs 0 → 0, 0 unfinished; held back: spec.scaling.maxJobs is 0: nothing is launched"),
]  # fmt: skip


@pytest.mark.parametrize(("depth", "unfinished", "spec", "message"), SENTENCES)
def test_says_each_step_that_shaped_it(depth: int, unfinished: int, spec: dict[str, Any], message: str) -> None:
    assert said(depth, active(unfinished), **spec) == message
    explained = intent(worker(**spec), decide(depth, active(unfinished), **spec), "would launch")
    assert explained == message.replace("→ launched", "→ would launch")


def test_a_depth_of_more_than_are_counted_is_at_least_so_many() -> None:
    assert (
        said(25_001, reading={"at_least": True})
        == "depth at least 25001, 50 a Job → 501 wanted, maxJobs 5 → 5, 0 unfinished → launched 5"
    )


# -- when to look again -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "rest", "busy"), [(30, 30.0, 5.0), (3600, 3600.0, 600.0), (5, 5.0, 1.0), (1, 1.0, 1.0), (6, 6.0, 1.0)]
)
def test_looks_more_often_while_there_is_work(interval: int, rest: float, busy: float) -> None:
    scaling = {"pollIntervalSeconds": interval}
    assert decide(0, scaling=scaling).poll_seconds == decide(9, scaling=scaling, suspend=True).poll_seconds == rest
    assert decide(1, scaling=scaling).poll_seconds == busy
    assert decide(0, active(1), scaling=scaling).poll_seconds == busy
    assert plan(worker(scaling=scaling), unreadable(), [], NOW).poll_seconds == busy


def test_wakes_at_what_comes_first() -> None:
    assert decide(0).wake_seconds is None
    assert decide(0, reading={"scheduled": 3, "next_due_seconds": 12.5}).wake_seconds == 12.5
    assert decide(10, [stuck(since=-25)], reading={"siorg_paused_seconds": 20.0}).wake_seconds == 5.0
    failing = decide(0, [crashed(-1)])  # status says when a probe may leave, also where nothing needs one
    assert failing.backoff is not None
    assert failing.wake_seconds == (failing.backoff.retry_at - NOW).total_seconds()
    assert decide(0, reading={"siorg_paused_seconds": 20.0}).wake_seconds == 20.0
