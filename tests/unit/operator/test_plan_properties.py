"""What holds of every decision, whatever the resource, the queue, the Jobs and the clock."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from siorg_operator.api.resource import SiorgSyncWorker
from siorg_operator.decide.connections import CONNECTIONS_PER_JOB
from siorg_operator.decide.job_failures import Pacing
from siorg_operator.decide.manifests import job_name
from siorg_operator.decide.plan import plan
from siorg_operator.decide.planned import Plan
from siorg_operator.decide.state import Job, JobState, QueueState, Reading
from siorg_operator.decide.wording import hold, intent
from support.operator_strategies import JOBS, NOWS, PACINGS, QUEUE_STATES, READINGS, resources
from support.operator_values import CREDENTIALS, NOW, template_of

MANY = settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


def distinct(jobs: list[Job]) -> list[Job]:
    """The same with names of their own, and a time for each end."""
    return [
        replace(job, name=f"siorg-ccccc-{n}", finished_at=None if job.unfinished else job.finished_at or job.created_at)
        for n, job in enumerate(jobs)
    ]


def budget(resource: SiorgSyncWorker, queue: QueueState) -> int:
    """What may be unfinished after a launch, without the request budget, which follows from what is learned."""
    assert isinstance(queue.reading, Reading)
    most = resource.spec.scaling.max_jobs
    if queue.reading.max_connections is None:
        return most
    return min(most, (queue.reading.max_connections - queue.reading.other_connections) // CONNECTIONS_PER_JOB)


@MANY
@given(resources(), QUEUE_STATES, JOBS, NOWS, PACINGS)
def test_every_decision(
    resource: SiorgSyncWorker, queue: QueueState, jobs: list[Job], now: datetime, pacing: Pacing | None
) -> None:
    decided = plan(resource, queue, jobs, now, pacing)
    scaling = resource.spec.scaling
    unfinished = sum(job.state in {JobState.SUSPENDED, JobState.PENDING, JobState.ACTIVE} for job in jobs)
    # The same for the same.
    assert plan(resource, queue, list(jobs), now, pacing) == decided
    # Never over a limit, and every unfinished Job counts.
    assert decided.unfinished == unfinished
    assert 0 <= len(decided.launches) <= scaling.max_launches_per_step
    if decided.launches:
        after = unfinished + len(decided.launches)
        assert after <= budget(resource, queue)
        assert after - decided.stopping <= decided.desired
        assert all(after <= jobs for name, jobs in decided.size.limits.items() if "budget" in name and jobs is not None)
    # A slot is one Job's, and a name too.
    taken = {job.slot for job in jobs if job.unfinished}
    slots = [launch.slot for launch in decided.launches]
    assert len(set(slots)) == len(slots)
    assert not taken & set(slots)
    assert all(0 <= slot < scaling.max_jobs for slot in slots)
    rounds = {(job.slot, job.round) for job in jobs}
    assert not rounds & {(launch.slot, launch.round) for launch in decided.launches}
    given_names = [job_name(resource, launch.slot, launch.round) for launch in decided.launches]
    assert len(set(given_names)) == len(given_names)
    # What runs is left alone: in the plan are Jobs that do not go on, finished ones, and suspended ones that are not needed.
    ended = [removal.name for removal in decided.end]
    assert set(ended) <= {job.name for job in jobs if job.state is not JobState.ACTIVE and job.stuck is not None}
    off = resource.spec.when_suspended == "Stop" and (resource.spec.suspend or scaling.max_jobs == 0)
    gone = {JobState.SUCCEEDED, JobState.FAILED} | ({JobState.SUSPENDED} if queue.depth == 0 or off else set())
    assert {job.state for job in decided.remove if not job.stopped} <= gone
    wanted = {job.name for job in jobs if job.state in {JobState.PENDING, JobState.ACTIVE} and job.uid and not job.stopped}
    assert {job.name for job in decided.stop} == (wanted if off else set())
    # Unknown is not zero.
    if queue.depth is None:
        assert (decided.launches, decided.reason, decided.desired) == ((), "DepthUnknown", unfinished)
    # Told not to, or with nothing to do: nothing is launched.
    if resource.spec.suspend or resource.spec.mode == "Observe" or queue.depth in {None, 0} or queue.siorg_token_error:
        assert decided.launches == ()
    # While Jobs fail: one probe at most, when its time has come, and nothing beside it.
    if decided.backoff is not None and decided.launches:
        assert len(decided.launches) == 1
        assert not any(job.unfinished and not job.stopped and decided.backoff.failures.include(job) for job in jobs)
        assert now >= decided.backoff.retry_at
    _tells_all(resource, decided)


def _tells_all(resource: SiorgSyncWorker, decided: Plan) -> None:
    assert intent(resource, decided)
    assert decided.reason.holds == (decided.hold is not None)
    assert decided.hold is None or hold(resource, decided.size, decided.hold)
    assert bool(decided.launch_reason) == bool(decided.launches)
    assert (decided.size.binding in decided.size.limits) == (decided.depth is not None)
    assert math.isfinite(decided.poll_seconds)
    assert decided.poll_seconds > 0
    assert decided.wake_seconds is None or decided.wake_seconds > 0
    for number in (decided.size.rates.items, decided.size.rates.requests, decided.predicted_drain_seconds):
        assert number is None or (math.isfinite(number) and number >= 0)


@MANY
@given(resources(), QUEUE_STATES, JOBS)
def test_history_never_takes_the_newest_failure(resource: SiorgSyncWorker, queue: QueueState, jobs: list[Job]) -> None:
    # The next decisions learn from it how Jobs fail.
    jobs = distinct(jobs)
    failed = [job for job in jobs if job.state is JobState.FAILED]
    assume(failed)
    newest = max(job.finished_at for job in failed if job.finished_at is not None)
    removed = plan(resource, queue, jobs, NOW).remove
    assert [job for job in failed if job.finished_at == newest and job not in removed]


@MANY
@given(resources(), QUEUE_STATES, JOBS, st.randoms(use_true_random=False))
def test_the_order_of_jobs_does_not_matter(resource: SiorgSyncWorker, queue: QueueState, jobs: list[Job], random: Any) -> None:
    jobs = distinct(jobs)
    # Ends of one second are told in the order of their names where it matters.
    assume(len({job.finished_at for job in jobs if job.finished_at}) == sum(job.finished_at is not None for job in jobs))
    shuffled = list(jobs)
    random.shuffle(shuffled)
    first, second = plan(resource, queue, jobs, NOW), plan(resource, queue, shuffled, NOW)
    assert replace(first, end=()) == replace(second, end=())
    assert set(first.end) == set(second.end)


@MANY
@given(resources(), READINGS, JOBS, st.integers(1, 3))
def test_another_job_never_makes_it_launch_more(resource: SiorgSyncWorker, reading: Reading, jobs: list[Job], more: int) -> None:
    before = plan(resource, QueueState(reading, CREDENTIALS), jobs, NOW)
    beside = [
        Job(f"siorg-bbbbb-{n}", 5000 + n, 1, JobState.PENDING, NOW - timedelta(seconds=5), template_of()) for n in range(more)
    ]
    after = plan(resource, QueueState(reading, CREDENTIALS), [*jobs, *beside], NOW)
    assert len(after.launches) <= len(before.launches)
    assert after.desired == before.desired
