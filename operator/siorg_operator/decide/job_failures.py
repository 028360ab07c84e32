"""Jobs that fail, and when the next one may try: a circuit breaker that needs no memory of its own.

It is worked out anew at each pass from the finished Jobs that are still there, from what status remembers of those that are not,
and from the items that they complete. While they fail nothing is launched but single probes, at growing intervals; a Job
that does its work ends it.

After an absence of SIORG or of the database the number of Jobs doubles from one, and who fails again within five minutes waits
for as long as if it had never been over::

    from       when                                                    to         and
    well       a Job fails                                             trouble    one failure in a row
    trouble    the pause is over                                       trouble    one probe may leave
    trouble    a Job fails that was made since the last failure        trouble    one failure more: a longer pause, by and by
    trouble    a Job completes an item after the pause, has ended      recovery   after an absence; otherwise: well
               well, or has run for long enough
    recovery   a Job completes an item since the last one was made     recovery   twice as many Jobs may be there
    recovery   an absence again                                        trouble    one failure more than there were
    recovery   five minutes are over                                   well
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from siorg_operator.decide.reasons import ConditionType, Reason
from siorg_operator.decide.state import Ending, Job, JobState, later
from siorg_runtime.backoff import exponential

_REASONS: Final = {
    Ending.SIORG_UNAVAILABLE: Reason.SIORG_UNAVAILABLE,
    Ending.SIORG_RATE_LIMITED: Reason.SIORG_RATE_LIMITED,
    Ending.STUCK: Reason.PODS_STUCK,
    Ending.NOTHING: Reason.NOTHING_CLAIMABLE,
}
_PATIENT: Final = frozenset({Ending.SIORG_UNAVAILABLE, Ending.SIORG_RATE_LIMITED, Ending.DATABASE_UNAVAILABLE})
"""Absences: ends to which a Job comes only after it has waited for something, for as long as its patience lasts."""
_AT_WORK: Final = frozenset({Ending.FAILED, Ending.OUT_OF_MEMORY, Ending.LOST, Ending.DEADLINE})
"""Ends to which a Job comes at its work: that items were completed says nothing against the next one."""

PATIENCE_SECONDS = 30.0
"""How long a job waits for SIORG or the database that is away, unless WORKER_UNAVAILABLE_SECS says otherwise."""

_EAGER_SECONDS = 300.0
"""For about so long SIORG is probed at the shortest interval: most absences are short, and every second of them counts."""
RECOVERY_SECONDS = 300.0
"""An absence within so long after the last one is the same trouble."""
_OUTLIVES = 1.5
"""A Job proves health when it has run so many times longer than those lived that failed."""
_SPREAD = 0.2
"""Resources that met the same failure at the same moment do not all try again at the same moment."""
_RESOLUTION = 1.0
"""Kubernetes cuts times to whole seconds. A probe leaves when the second of the failure is over, or its own failure would be
taken for that one, and neither counted nor waited for."""


@dataclass(frozen=True, slots=True)
class Pacing:
    """How patient the operator is. Seconds."""

    stuck_grace: float = 30.0
    """A pod that cannot start (image, configuration) keeps its slot for so long, and one whose worker has ended its other
    containers."""
    unschedulable_grace: float = 300.0
    """A pod that no node takes keeps its slot for so long: a cluster autoscaler needs minutes."""
    failing_base: float = 10.0
    """Pause after the first failed Job; doubles from there."""
    failing_longest: float = 300.0
    siorg_base: float = 5.0
    """Pause after a Job that found SIORG unavailable, for the first five minutes; doubles from there."""
    siorg_longest: float = 600.0
    healthy_after: float = 60.0
    """A Job that has run for so long since the last failure proves that the failures are over, where no completed item does: one
    that cannot reach SIORG or the database gives up sooner."""


@dataclass(frozen=True, slots=True)
class Failures:
    """Failures in a row, with no success since.

    Attributes:
        ending: how the last of them ended.
        streak: failures in a row; Jobs that ran beside one another count as one.
        since: when the first one ended.
        last_failure: when the last one ended.
        message: what is known of the last one.
        template: hash of the template that the last one was made from; another template is worth a try at once.
        recovered_at: since when they are over (whole seconds); None: they are not.
    """

    ending: Ending
    streak: int
    since: datetime
    last_failure: datetime
    message: str = ""
    template: str = ""
    recovered_at: datetime | None = None

    @property
    def reason(self) -> Reason:
        """The word that conditions, decisions and metrics have for it."""
        return _REASONS.get(self.ending, Reason.JOBS_FAILING)

    @property
    def of_siorg(self) -> bool:
        """Whether it is SIORG that does not answer, and not the Jobs that fail."""
        return self.reason.condition is ConditionType.SIORG_AVAILABLE

    @property
    def end_with_an_item(self) -> bool:
        """Whether an item that a Job completes proves that they are over."""
        return self.ending not in _AT_WORK

    def include(self, job: Job) -> bool:
        """Whether it was made from the template that fails: one from an older template may well do what these cannot."""
        return self.template in {"", job.template}

    def pause(self, pacing: Pacing, patience: float = PATIENCE_SECONDS) -> float:
        """Seconds from the last failure to the next probe, which waits for ``patience`` itself before it gives up."""
        if not self.of_siorg:
            return exponential(self.streak, pacing.failing_base, pacing.failing_longest)
        # Who wants fewer requests is not asked eagerly.
        eager = _EAGER_SECONDS if self.ending is Ending.SIORG_UNAVAILABLE else 0.0
        first = int(eager / (pacing.siorg_base + _RESOLUTION + max(patience, 0.0)))
        return exponential(max(self.streak - first, 1), pacing.siorg_base, pacing.siorg_longest)

    def retry_at(self, pacing: Pacing, identity: str, patience: float = PATIENCE_SECONDS) -> datetime:
        """When the next probe may leave; ``identity`` spreads a little what met the same failure at the same moment."""
        spread = hashlib.sha256(f"{identity}/{self.streak}".encode()).digest()[0] / 255
        return later(self.last_failure, _RESOLUTION + self.pause(pacing, patience) * (1 + _SPREAD * spread))

    def over_at(self, moment: datetime) -> Failures | None:
        """What is left of them once a Job has done its work: an absence is remembered for a while, the rest is forgotten."""
        return replace(self, recovered_at=moment.replace(microsecond=0)) if self.ending in _PATIENT else None

    def room(self, unfinished: Sequence[Job], now: datetime, pacing: Pacing) -> int:
        """How many more Jobs there may be while it recovers: what bears few need not bear many at once.

        As many as there are, once one of them has completed an item since the last was made (or that is ``healthy_after`` ago).
        """
        if not unfinished:
            return 1
        newest = max(job.created_at for job in unfinished)
        proven = any(job.completed_at is not None and job.completed_at >= later(newest, _RESOLUTION) for job in unfinished)
        return len(unfinished) if proven or now >= later(newest, pacing.healthy_after) else 0


def assess(
    jobs: Iterable[Job],
    remembered: Failures | None,
    *,
    template: str | None,
    now: datetime,
    pacing: Pacing,
    patience: float = PATIENCE_SECONDS,
    settled: datetime | None = None,
) -> Failures | None:
    """The failures in a row that there are now, or that have just been (``recovered_at``), or None.

    ``remembered``: the failures that status tells of; the Jobs behind it may be gone. ``template``: hash of the template that
    the next Job would be made from; None: not known now, so nothing is forgotten. ``patience``: seconds that a job waits for
    SIORG or the database before it gives up. ``settled``: Jobs that ended up to then were judged before, and nothing is wrong
    with them any more: the Job that proved it may be gone while those that failed are still there. One that failed within that
    very second may have done so after it was judged.
    """
    jobs = list(jobs)
    current = remembered if remembered is not None and (template is None or remembered.template in {"", template}) else None
    # Kubernetes tells whole seconds: of two in one second the failure counts.
    ends = [(job.finished_at, job.ending is not Ending.DONE, job) for job in jobs if job.finished_at is not None]
    for ended_at, _, job in sorted(ends, key=lambda end: end[:2]):
        failed = _failed(job, jobs, pacing)
        if settled is not None and (ended_at < settled or (ended_at == settled and not failed)):
            continue  # judged already
        if current is None or ended_at > current.last_failure:  # else counted already
            current = _after(current, job, jobs, ended_at, template, failed=failed)
    if current is None:
        return None
    if current.recovered_at is not None:
        since = min(current.recovered_at, now)
        return None if now >= later(since, RECOVERY_SECONDS) else current.over_at(since)
    if (completed_at := _completed(jobs, current, pacing, patience)) is not None:
        return current.over_at(completed_at)
    return current.over_at(now) if _outlived(jobs, current, now, pacing, patience) else current


def _after(
    current: Failures | None, job: Job, jobs: list[Job], ended_at: datetime, template: str | None, *, failed: bool
) -> Failures | None:
    """The failures in a row after the end of one more Job."""
    counts = template in {None, job.template}
    if current is not None and current.recovered_at is not None:
        if ended_at < current.recovered_at or not counts or not (failed or _found_nothing(job, jobs)):
            return current
        if job.ending not in _PATIENT or ended_at > later(current.recovered_at, RECOVERY_SECONDS):
            current = None  # another trouble
    if failed or ((current is None or current.ending is Ending.NOTHING) and _found_nothing(job, jobs)):
        return _again(current, job, ended_at) if counts else current
    return current.over_at(ended_at) if current is not None and _proves_health(job, current) else current


def _failed(job: Job, jobs: list[Job], pacing: Pacing) -> bool:
    if job.stopped:
        return False
    if job.ending is Ending.LOST:  # a node that went, a pod that somebody deleted; unless it befalls every Job at once
        return _life(job) < pacing.healthy_after and not any(_was_at_work(other, job) for other in jobs)
    if job.ending is Ending.DEADLINE:  # it may just have had much to do; its pod, and with it what it did, is mostly gone
        return job.summary.ended == 0 if job.summary is not None else _life(job) < pacing.healthy_after
    return job.ending not in {None, Ending.DONE}


def _was_at_work(other: Job, job: Job) -> bool:
    """Whether another Job worked when this one ended, and has not failed since."""
    if other is job or other.started_at is None or job.finished_at is None or other.started_at > job.finished_at:
        return False
    if other.state is JobState.ACTIVE:
        return True
    return other.ending is Ending.DONE and other.finished_at is not None and other.finished_at >= job.finished_at


def _found_nothing(job: Job, jobs: list[Job]) -> bool:
    """Whether a Job that was launched for due rows could claim none of them, and no other Job took them meanwhile.

    Another transaction holds them, or somebody else takes them: to launch one Job after the other would change neither.
    """
    if job.ending is not Ending.DONE or job.stopped or job.summary is None or job.finished_at is None:
        return False
    if job.summary.took_any or job.summary.reason != "exhausted":
        return False
    return not any(
        other is not job
        and other.state not in {JobState.SUSPENDED, JobState.LOST}
        and other.created_at <= job.finished_at
        and (other.finished_at is None or other.finished_at >= job.created_at)
        and (other.summary is None or other.summary.took_any)
        for other in jobs
    )


def _life(job: Job) -> float:
    """Seconds."""
    return 0.0 if job.finished_at is None else (job.finished_at - (job.started_at or job.created_at)).total_seconds()


def _proves_health(job: Job, failures: Failures) -> bool:
    if job.ending is not Ending.DONE or not failures.include(job):
        return False
    if job.stopped:  # perhaps before it could show anything
        return job.summary is not None and job.summary.ended > 0
    if job.summary is None or not (failures.of_siorg or failures.ending is Ending.NOTHING):
        return True
    if failures.ending is Ending.NOTHING:
        return job.summary.took_any
    # One that found an empty queue never asked SIORG.
    return job.summary.ended > 0 or job.summary.requests > job.summary.request_errors


def _again(current: Failures | None, job: Job, ended_at: datetime) -> Failures:
    assert job.ending is not None  # a finished Job has one
    ending = Ending.NOTHING if job.ending is Ending.DONE else job.ending
    message = f"{job.name}: {job.message}" if job.message else job.name
    if current is None:
        return Failures(ending, 1, ended_at, ended_at, message, job.template)
    # One launched before the last failure was known met the same failure, not a new one; unless it was over meanwhile.
    met_before = current.recovered_at is None and job.created_at <= current.last_failure
    streak = current.streak if met_before else current.streak + 1
    return Failures(ending, streak, current.since, ended_at, message, job.template)


def _completed(jobs: list[Job], failures: Failures, pacing: Pacing, patience: float) -> datetime | None:
    """When an unfinished Job completed an item that proves that they are over: since the pause was."""
    if not failures.end_with_an_item:
        return None
    paused_until = later(failures.last_failure, _RESOLUTION + failures.pause(pacing, patience))
    completed = [job.completed_at for job in jobs if job.unfinished and job.completed_at is not None and failures.include(job)]
    return max((moment for moment in completed if moment >= paused_until), default=None)


def _outlived(jobs: list[Job], failures: Failures, now: datetime, pacing: Pacing, patience: float) -> bool:
    """Whether some Job has now run for longer than those lived that failed.

    To wait beyond the longest pause would slow down no crash any more: Jobs that live so long are launched rarely anyway.
    Those that gave up had worked until then, and after that waited for as long as their patience lasts.
    """
    if failures.ending is Ending.NOTHING:
        return False  # one that lingers over locked rows runs as well
    lives = [
        min(_life(job), patience if job.ending in _PATIENT else pacing.failing_longest)
        for job in jobs
        if job.finished_at is not None
        and job.finished_at >= failures.since
        and job.started_at is not None
        and _failed(job, jobs, pacing)
    ]
    enough = max(pacing.healthy_after, _OUTLIVES * max(lives, default=0.0))
    return any(
        (now - max(job.started_at, failures.last_failure)).total_seconds() >= enough
        for job in jobs
        if job.state is JobState.ACTIVE and job.started_at is not None and failures.include(job)
    )
