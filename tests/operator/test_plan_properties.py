"""What holds of every decision, whatever the resource, the queue, the Jobs and the clock."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from siorg_operator.manifests import job_name
from siorg_operator.observed import Backlog, Ending, Job, JobState, Reading, Stuck, Summary, Unreadable
from siorg_operator.plan import CONNECTIONS_PER_JOB, Plan, plan
from siorg_operator.resource import SiorgSyncWorker
from siorg_operator.trouble import Pacing
from support.operator_values import CREDENTIALS, NOW, rfc3339, template_of, worker

MANY = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])

_COUNTS = st.one_of(st.integers(0, 20), st.integers(0, 2000), st.integers(0, 2**63 - 1))
_NUMBERS = st.one_of(st.floats(), st.integers(-5, 10_000).map(float), st.sampled_from([0.0, 1e-320, 1e308, -1.0]))
_SECONDS = st.one_of(st.integers(-7200, 300), st.integers(-(10**9), 10**9))  # around now, or under a clock that is far off
_TIMES = st.one_of(
    _SECONDS.map(lambda seconds: NOW + timedelta(seconds=seconds)),
    st.datetimes(timezones=st.just(UTC)),
)
_TEMPLATES = st.sampled_from([template_of(), "another", ""])

_SUMMARIES = st.builds(
    Summary,
    reason=st.sampled_from(["exhausted", "siorg_unavailable", "¿?"]),
    exit_code=st.integers(-1, 255),
    duration_seconds=_NUMBERS,
    **dict.fromkeys(("completed", "conflict", "skipped", "failed", "released", "requests", "request_errors"), _COUNTS),
)
_STUCK = st.builds(Stuck, st.sampled_from(["ImagePullBackOff", "Unschedulable", "NoPod"]), st.text(max_size=5), _TIMES)
JOBS = st.lists(
    st.builds(
        Job,
        name=st.sampled_from([f"siorg-aaaaa-{n}" for n in range(40)]),
        slot=st.one_of(st.integers(0, 8), st.integers(0, 2**31)),
        round=st.one_of(st.integers(0, 3), st.integers(0, 2**40)),
        state=st.sampled_from(JobState),
        created_at=_TIMES,
        template=_TEMPLATES,
        started_at=st.none() | _TIMES,
        finished_at=st.none() | _TIMES,
        ending=st.none() | st.sampled_from(Ending),
        message=st.text(max_size=20),
        stuck=st.none() | _STUCK,
        summary=st.none() | _SUMMARIES,
    ),
    max_size=12,
)
_READINGS = st.builds(
    Reading,
    claimable=st.one_of(_COUNTS, st.integers(-3, 3)),
    due=_COUNTS,
    scheduled=_COUNTS,
    processing=_COUNTS,
    failed=_COUNTS,
    conflict=_COUNTS,
    oldest_due_seconds=st.none() | _NUMBERS,
    next_due_seconds=st.none() | _NUMBERS,
    sync_enabled=st.sampled_from([True, True, True, False]),
    siorg_paused_seconds=st.one_of(st.just(0.0), st.just(0.0), _NUMBERS),
    max_connections=st.none() | st.integers(-1, 500),
    other_connections=st.integers(-1, 500),
)
BACKLOGS = st.builds(
    Backlog,
    reading=st.one_of(
        _READINGS, _READINGS, _READINGS, st.just(Unreadable("DatabaseUnavailable", "away")), st.just(Unreadable("SecretMissing", ""))
    ),
    credentials=st.sampled_from([CREDENTIALS, CREDENTIALS, ""]),
    siorg_token_problem=st.sampled_from([None, None, None, "the Secret is not there"]),
)


@st.composite
def resources(draw: st.DrawFn) -> SiorgSyncWorker:
    most = draw(st.integers(0, 20) | st.integers(0, 1000))
    trouble = {
        "reason": draw(st.sampled_from([*Ending, "Nonsense"])),
        "streak": draw(_COUNTS),
        "since": rfc3339(draw(_TIMES)),
        "lastFailureTime": rfc3339(draw(_TIMES)),
        "template": draw(_TEMPLATES),
    }
    believable = st.floats(0, 1e308, exclude_max=True) | st.sampled_from([0.0, 0.5, 20.0])
    status: dict[str, Any] = {"rate": draw(believable), "requestRate": draw(believable), "jobs": {}}
    if draw(st.booleans()):
        status["trouble"] = trouble
    if draw(st.booleans()):
        status["jobs"] = {"lastFinishedTime": rfc3339(draw(_TIMES))}
    scaling: dict[str, Any] = {
        "maxJobs": most,
        "minJobs": draw(st.integers(0, most)),
        "itemsPerJob": draw(st.integers(1, 100) | st.integers(1, 1_000_000)),
        "maxLaunchesPerStep": draw(st.integers(1, 1000)),
        "pollIntervalSeconds": draw(st.integers(1, 3600)),
    }
    if draw(st.booleans()):
        scaling["targetDrainSeconds"] = draw(st.integers(1, 604_800))
    return worker(
        status=status,
        suspend=draw(st.sampled_from([False, False, False, True])),
        mode=draw(st.sampled_from(["Active", "Active", "Observe"])),
        scaling=scaling,
        siorg={"maxRequestsPerSecond": draw(st.integers(0, 10_000))},
        job={
            "successfulJobsHistoryLimit": draw(st.integers(0, 3)),
            "failedJobsHistoryLimit": draw(st.integers(1, 3)),
        },
    )


PACINGS = st.sampled_from([None, Pacing(), Pacing(stuck_grace=0, failing_base=0, siorg_base=0, healthy_after=0)])
NOWS = st.sampled_from([NOW, NOW, datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)])


def capacity(jobs: list[Job]) -> int:
    return sum(job.state in {JobState.PENDING, JobState.ACTIVE} for job in jobs)


def budget(resource: SiorgSyncWorker, backlog: Backlog) -> int:
    """What may be unfinished after a launch, without the request budget, which follows from what is learned."""
    assert isinstance(backlog.reading, Reading)
    most = resource.spec.scaling.max_jobs
    if backlog.reading.max_connections is None:
        return most
    return min(most, (backlog.reading.max_connections - backlog.reading.other_connections) // CONNECTIONS_PER_JOB)


@MANY
@given(resources(), BACKLOGS, JOBS, NOWS, PACINGS)
def test_every_decision(resource: SiorgSyncWorker, backlog: Backlog, jobs: list[Job], now: datetime, pacing: Pacing | None) -> None:
    decided = plan(resource, backlog, jobs, now, pacing)
    scaling = resource.spec.scaling
    unfinished = capacity(jobs)
    # The same for the same.
    assert plan(resource, backlog, list(jobs), now, pacing) == decided
    # Never over a limit, and every unfinished Job counts.
    assert decided.unfinished == unfinished
    assert 0 <= len(decided.launches) <= scaling.max_launches_per_step
    if decided.launches:
        after = unfinished + len(decided.launches)
        assert after <= min(budget(resource, backlog), decided.desired)
        assert all(after <= limit.jobs for limit in decided.limits if "budget" in limit.name and limit.jobs is not None)
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
    # What runs is left alone: named in the plan are stuck Jobs that are pending, and finished ones.
    ended = [removal.name for removal in decided.end]
    assert set(ended) <= {job.name for job in jobs if job.state is JobState.PENDING and job.stuck is not None}
    assert set(decided.remove) <= {job.name for job in jobs if not job.unfinished}
    # Unknown is not zero.
    if backlog.depth is None:
        assert (decided.launches, decided.reason, decided.desired) == ((), "DepthUnknown", unfinished)
    # Told not to, or with nothing to do: nothing is launched.
    if resource.spec.suspend or resource.spec.mode == "Observe" or backlog.depth in {None, 0} or backlog.siorg_token_problem:
        assert decided.launches == ()
    # In trouble: one probe at most, when its time has come, and nothing beside it.
    if decided.trouble is not None and decided.launches:
        assert len(decided.launches) == 1
        assert unfinished == 0
        assert decided.retry_at is not None
        assert now >= decided.retry_at
    _tells_all(decided)


def _tells_all(decided: Plan) -> None:
    assert decided.reason.isalnum()
    assert decided.message
    assert bool(decided.launch_reason) == bool(decided.launches)
    assert [limit.binding for limit in decided.limits].count(True) == (0 if decided.depth is None else 1)
    assert math.isfinite(decided.poll_seconds)
    assert decided.poll_seconds > 0
    assert decided.wake_seconds is None or decided.wake_seconds > 0
    for number in (decided.rate, decided.request_rate, decided.predicted_drain_seconds):
        assert number is None or (math.isfinite(number) and number >= 0)
    assert (decided.retry_at is None) == (decided.trouble is None)


@MANY
@given(resources(), BACKLOGS, JOBS)
def test_history_never_takes_the_newest_failure(resource: SiorgSyncWorker, backlog: Backlog, jobs: list[Job]) -> None:
    # The next decisions learn from it how Jobs fail.
    failed = [job for job in jobs if job.state is JobState.FAILED and job.finished_at is not None]
    assume(failed)
    newest = max(job.finished_at for job in failed if job.finished_at is not None)
    left = [job for job in failed if job.finished_at == newest and job.name not in plan(resource, backlog, jobs, NOW).remove]
    shared_names = len({job.name for job in jobs}) < len(jobs)
    assert left or shared_names


@MANY
@given(resources(), BACKLOGS, JOBS, st.randoms(use_true_random=False))
def test_the_order_of_jobs_does_not_matter(resource: SiorgSyncWorker, backlog: Backlog, jobs: list[Job], random: Any) -> None:
    assume(len({job.name for job in jobs}) == len(jobs))
    # Ends of one second are told in the order of their names where it matters.
    assume(len({job.finished_at for job in jobs if job.finished_at}) == sum(job.finished_at is not None for job in jobs))
    shuffled = list(jobs)
    random.shuffle(shuffled)
    first, second = plan(resource, backlog, jobs, NOW), plan(resource, backlog, shuffled, NOW)
    assert (first.launches, first.reason, first.trouble, first.remove) == (
        second.launches,
        second.reason,
        second.trouble,
        second.remove,
    )


@MANY
@given(resources(), _READINGS, JOBS, st.integers(1, 3))
def test_another_job_never_makes_it_launch_more(
    resource: SiorgSyncWorker, reading: Reading, jobs: list[Job], more: int
) -> None:
    before = plan(resource, Backlog(reading, CREDENTIALS), jobs, NOW)
    beside = [
        Job(f"siorg-bbbbb-{n}", 5000 + n, 1, JobState.PENDING, NOW - timedelta(seconds=5), template_of()) for n in range(more)
    ]
    after = plan(resource, Backlog(reading, CREDENTIALS), [*jobs, *beside], NOW)
    assert len(after.launches) <= len(before.launches)
    assert after.desired == before.desired
