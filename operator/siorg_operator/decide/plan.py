"""The decision: how many Jobs to launch now, and why. Pure and total: values in, a ``Plan`` out, the same for the same.

    by size = ceil(depth / itemsPerJob)
    by time = ceil(depth / (rate of one Job · targetDrainSeconds))        with a target and a learned rate
    desired = 0 if depth = 0, else clamp(max(by size, by time), max(minJobs, 1), min(maxJobs, budgets))
    launch  = clamp(desired − unfinished Jobs, 0, maxLaunchesPerStep)

A Job drains until the queue is empty, so each unfinished Job *is* capacity, whether its pod runs or is on its way.

The steps: the facts of this moment ▶ the backoff, if Jobs fail ▶ the size ▶ what holds launches ▶ the launches.
``wording`` makes the sentences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from siorg_operator.api.resource import SiorgSyncWorker
from siorg_operator.decide import sizing
from siorg_operator.decide.job_failures import PATIENCE_SECONDS, Failures, Pacing, assess
from siorg_operator.decide.manifests import template_hash
from siorg_operator.decide.reasons import Reason
from siorg_operator.decide.sizing import Rates, Size
from siorg_operator.decide.state import Backlog, Ending, Job, JobState, Reading, Stuck, Unreadable, later, newest_last

_BUSY_POLLS = 6  # polls while there is work, for each one at rest
_SHORTEST_POLL_SECONDS = 1.0
_SHORT_PAUSE_SECONDS = 10.0
_REMOVED_A_STEP = 50  # finished Jobs; a namespace full of them is emptied without a storm of requests


@dataclass(frozen=True, slots=True)
class Launch:
    """A Job to be launched: its place among the Jobs that run at once, and its number in that place."""

    slot: int
    round: int


@dataclass(frozen=True, slots=True)
class Removal:
    """A Job whose pod cannot start: it is ended, which frees its slot."""

    name: str
    stuck: Stuck


@dataclass(frozen=True, slots=True)
class Backoff:
    """Jobs fail: nothing but single probes is launched."""

    failures: Failures
    retry_at: datetime
    """When the next probe may leave."""
    dormant: bool
    """It may leave, and nothing waits: whether the failures are over, the next work will show."""


@dataclass(frozen=True, slots=True)
class Hold:
    """What keeps Jobs from being launched.

    Attributes:
        reason: in one word.
        until: when it is over, where that is known.
        said: the words of whom it comes from: of the database, of a Secret.
        failures: the failures behind it.
        probes: unfinished Jobs that will show whether those are over.
        count: Jobs that it keeps from being launched, where it holds nothing but these.
    """

    reason: Reason
    until: datetime | None = None
    said: str = ""
    failures: Failures | None = None
    probes: int = 0
    count: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done now, and everything that shaped it. What became of it is a ``Result``."""

    reason: Reason
    """The decision in one word."""
    size: Size
    unfinished: int
    """Jobs that are there or on their way."""
    launches: tuple[Launch, ...] = ()
    hold: Hold | None = None
    end: tuple[Removal, ...] = ()
    remove: tuple[str, ...] = ()
    """Names of finished Jobs that the history limits no longer keep."""
    backoff: Backoff | None = None
    predicted_drain_seconds: float | None = None
    poll_seconds: float = 0.0
    """Look again after this at the latest (to be jittered): shorter while there is work."""
    wake_seconds: float | None = None
    """Something is known to change after this, if anything is."""

    @property
    def depth(self) -> int | None:
        """Claimable items; None: unknown."""
        return self.size.depth

    @property
    def desired(self) -> int:
        """Jobs that should be there; those that are there where the depth is unknown."""
        return self.unfinished if self.depth is None else self.size.desired

    @property
    def launch_reason(self) -> str:
        """What asked for the launches: ``Size``, ``Time``, ``MinJobs`` or ``Probe``; empty when nothing is launched."""
        return "" if not self.launches else "Probe" if self.reason is Reason.PROBING else self.size.asked_by

    @property
    def held_back(self) -> bool:
        """Whether there is work that something else than enough Jobs keeps from being taken up."""
        if self.hold is None:
            return False
        return self.depth is None or self.size.asked > self.unfinished or self.hold.count > 0


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the steps look at."""

    resource: SiorgSyncWorker
    backlog: Backlog
    jobs: Sequence[Job]
    unfinished: Sequence[Job]
    now: datetime
    pacing: Pacing

    @property
    def depth(self) -> int | None:
        return self.backlog.depth


def plan(resource: SiorgSyncWorker, backlog: Backlog, jobs: Sequence[Job], now: datetime, pacing: Pacing | None = None) -> Plan:
    """Decide what to do now.

    Args:
        resource: the resource, its status included (what it remembers of Jobs that are gone).
        backlog: the queue as it was read, or why it could not be: unknown is not zero.
        jobs: every Job of the resource, finished ones included.
        now: the time.
        pacing: how patient to be with Jobs that fail or do not start; None: the defaults.
    """
    facts = _Facts(resource, backlog, jobs, [job for job in jobs if job.unfinished], now, pacing or Pacing())
    backoff = _backoff(facts)
    size = sizing.size(resource, backlog, Rates.learn(resource, jobs), len(facts.unfinished))
    reason, hold, launches = _decide(facts, size, backoff)
    end, grace_over = _stuck(facts)
    return Plan(
        reason=reason,
        size=size,
        unfinished=len(facts.unfinished),
        launches=launches,
        hold=hold,
        end=end,
        remove=_history(facts),
        backoff=backoff,
        predicted_drain_seconds=size.drain_seconds(len(facts.unfinished) + len(launches)),
        poll_seconds=_poll(facts, reason),
        wake_seconds=min(
            (seconds for seconds in (grace_over, *_changes(facts, backoff)) if seconds and seconds > 0), default=None
        ),
    )


# -- Jobs that fail ---------------------------------------------------------------------------------------------------


def _backoff(facts: _Facts) -> Backoff | None:
    resource, backlog, now = facts.resource, facts.backlog, facts.now
    failures = assess(
        facts.jobs,
        _remembered(resource),
        settled=_settled(resource, now),
        template=_template(resource, backlog),
        now=now,
        pacing=facts.pacing,
        patience=_patience(resource),
    )
    if failures is None or (failures.ending is Ending.NOTHING and not backlog.depth):
        return None  # those that found nothing came too late, and that was all
    retry_at = failures.retry_at(facts.pacing, resource.metadata.uid or resource.metadata.name)
    return Backoff(failures, retry_at, dormant=backlog.depth == 0 and retry_at <= now)


def _remembered(resource: SiorgSyncWorker) -> Failures | None:
    """The failures that status tells of; what cannot be understood is none."""
    backoff = resource.status.backoff
    if backoff is None or backoff.last_failure_time is None or backoff.reason not in set(Ending) - {Ending.DONE}:
        return None
    since = backoff.since or backoff.last_failure_time
    ending, streak = Ending(backoff.reason), max(backoff.streak, 1)
    return Failures(ending, streak, since, backoff.last_failure_time, backoff.message, backoff.template)


def _settled(resource: SiorgSyncWorker, now: datetime) -> datetime | None:
    """Up to when status has judged the Jobs, and found that nothing is wrong (any more)."""
    last = resource.status.jobs.last_finished_time
    # One that lies ahead (a clock went wrong) must not silence what comes until then.
    return last if resource.status.backoff is None and last is not None and last <= now else None


def _template(resource: SiorgSyncWorker, backlog: Backlog) -> str | None:
    """Hash of the template that the next Job would be made from; None: unknown, since its Secrets cannot be read now."""
    if isinstance(backlog.reading, Unreadable) and not backlog.credentials:
        return None
    return template_hash(resource, backlog.credentials)


def _patience(resource: SiorgSyncWorker) -> float:
    """How long a Job waits for SIORG or the database that is away before it gives up."""
    for variable in resource.spec.job.pod_template.spec.env:
        if variable.name == "WORKER_UNAVAILABLE_SECS" and variable.value is not None:
            try:
                return float(variable.value)
            except ValueError:
                break  # the job will refuse it
    return PATIENCE_SECONDS


# -- launches, and what holds them ------------------------------------------------------------------------------------


def _decide(facts: _Facts, size: Size, backoff: Backoff | None) -> tuple[Reason, Hold | None, tuple[Launch, ...]]:
    """The reason for what is done, what holds launches, and the launches."""
    hold = _hold(facts) or (_hold_work(facts, backoff) if facts.depth else None)
    if hold is None and size.refused_by is not None:
        hold = Hold(size.refused_by, count=size.asked)
    if hold is not None:
        return hold.reason, hold, ()
    if not facts.depth:
        return Reason.QUEUE_EMPTY, None, ()
    wanted = max(size.desired - len(facts.unfinished), 0)
    count = min(wanted, facts.resource.spec.scaling.max_launches_per_step, 1 if backoff is not None else wanted)
    if count and facts.resource.spec.mode == "Observe":
        return Reason.OBSERVE, Hold(Reason.OBSERVE, count=count), ()
    launches = _launches(count, facts.resource, facts.jobs)
    if not launches:
        return Reason.ENOUGH_JOBS, None, ()
    return Reason.LAUNCHED if backoff is None else Reason.PROBING, None, launches


def _hold(facts: _Facts) -> Hold | None:
    """What holds launches whatever the queue has."""
    reading = facts.backlog.reading
    if isinstance(reading, Unreadable):
        return Hold(Reason.DEPTH_UNKNOWN, said=reading.message)
    if facts.resource.metadata.deletion_timestamp is not None:
        return Hold(Reason.BEING_DELETED)
    if facts.resource.spec.suspend:
        return Hold(Reason.SUSPENDED)
    if not reading.sync_enabled:
        return Hold(Reason.SYNC_DISABLED)
    return None


def _hold_work(facts: _Facts, backoff: Backoff | None) -> Hold | None:
    """What keeps the work that there is from being taken up."""
    backlog, now = facts.backlog, facts.now
    if backlog.siorg_token_problem is not None:
        return Hold(Reason.SECRET_MISSING, said=backlog.siorg_token_problem)
    if pause := siorg_pause(backlog):
        return Hold(Reason.SIORG_RATE_LIMITED, until=later(now, pause))
    if backoff is None:
        return None
    failures = backoff.failures
    if now < backoff.retry_at:
        return Hold(failures.reason, until=backoff.retry_at, failures=failures)
    # A Job of an older template shows nothing of these failures, one way or the other.
    if probes := sum(failures.include(job) for job in facts.unfinished):
        return Hold(failures.reason, failures=failures, probes=probes)
    return None


def siorg_pause(backlog: Backlog) -> float | None:
    """For so many seconds SIORG wants no requests, if for longer than a Job takes to start: only then is waiting better."""
    reading = backlog.reading
    if isinstance(reading, Reading) and reading.siorg_paused_seconds >= _SHORT_PAUSE_SECONDS:
        return reading.siorg_paused_seconds
    return None


def _launches(count: int, resource: SiorgSyncWorker, jobs: Sequence[Job]) -> tuple[Launch, ...]:
    """The lowest free slots, each in its next round: the same sight of a slot gives the same name, which is there only once.

    What is in other slots must not matter. After a crash, or beside a second operator, some of the Jobs launched together
    may be seen while the others are still on their way: those are to be met by name, not passed by.
    """
    taken = {job.slot for job in jobs if job.unfinished}
    rounds: dict[int, int] = {}
    for job in jobs:
        rounds[job.slot] = max(rounds.get(job.slot, 0), job.round)
    gone = resource.status.jobs.last_round  # names of Jobs that are history are not used again
    free = [slot for slot in range(resource.spec.scaling.max_jobs) if slot not in taken]
    return tuple(Launch(slot, max(rounds.get(slot, 0), gone) + 1) for slot in free[:count])


# -- Jobs that have to go ---------------------------------------------------------------------------------------------


def _stuck(facts: _Facts) -> tuple[tuple[Removal, ...], float | None]:
    """Jobs whose pod could not start for longer than the grace, and the seconds until the next grace is over."""
    over: list[Removal] = []
    left: list[float] = []
    for job in facts.unfinished:
        if job.stuck is None or job.state is JobState.ACTIVE:
            continue
        grace = facts.pacing.unschedulable_grace if job.stuck.reason == "Unschedulable" else facts.pacing.stuck_grace
        remaining = grace - (facts.now - job.stuck.since).total_seconds()
        if remaining <= 0:
            over.append(Removal(job.name, job.stuck))
        else:
            left.append(remaining)
    return tuple(over), min(left, default=None)


def _history(facts: _Facts) -> tuple[str, ...]:
    """Finished Jobs beyond the limits, the oldest first; of each kind the newest are kept."""
    limits = facts.resource.spec.job
    surplus: list[Job] = []
    for state, keep in (
        (JobState.SUCCEEDED, limits.successful_jobs_history_limit),
        (JobState.FAILED, limits.failed_jobs_history_limit),
    ):
        ended = sorted((job for job in facts.jobs if job.state is state), key=newest_last)
        surplus += ended[: max(len(ended) - keep, 0)]
    return tuple(job.name for job in sorted(surplus, key=newest_last)[:_REMOVED_A_STEP])


# -- when to look again -----------------------------------------------------------------------------------------------


def _poll(facts: _Facts, reason: Reason) -> float:
    interval = float(facts.resource.spec.scaling.poll_interval_seconds)
    if facts.unfinished or facts.depth is None or (facts.depth and reason is not Reason.SUSPENDED):
        return max(interval / _BUSY_POLLS, min(_SHORTEST_POLL_SECONDS, interval))
    return interval


def _changes(facts: _Facts, backoff: Backoff | None) -> tuple[float | None, ...]:
    """Seconds until something changes by itself: a probe may leave and a pause is over, or the next item falls due."""
    if facts.depth:
        return siorg_pause(facts.backlog), None if backoff is None else (backoff.retry_at - facts.now).total_seconds()
    return (facts.backlog.reading.next_due_seconds,) if isinstance(facts.backlog.reading, Reading) else ()
