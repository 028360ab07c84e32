"""The decision: how many Jobs to launch now, and why. Pure and total: values in, a ``Plan`` out, the same for the same.

    by size = ceil(depth / itemsPerJob)
    by time = ceil(depth / (rate of one Job · targetDrainSeconds))        with a target and a learned rate
    desired = 0 if depth = 0, else clamp(max(by size, by time), max(minJobs, 1), min(maxJobs, budgets))
    launch  = clamp(desired − unfinished Jobs, 0, maxLaunchesPerStep)

A Job drains until the queue is empty, so each unfinished Job *is* capacity, whether its pod runs or is on its way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from siorg_operator.manifests import template_hash
from siorg_operator.observed import Backlog, Ending, Job, JobState, Reading, Stuck, Unreadable
from siorg_operator.resource import SiorgSyncWorker
from siorg_operator.trouble import Pacing, Trouble, assess, later

CONNECTIONS_PER_JOB = 3
"""Database connections that a job process opens: queue, fetch bookkeeping, leases."""

_CONNECTIONS_LEFT_FREE = 5  # for people and their tools
_RATE_FROM = 20  # finished Jobs, the newest
_BUSY_POLLS = 6  # polls while there is work, for each one at rest
_SHORTEST_POLL_SECONDS = 1.0
_SHORT_PAUSE_SECONDS = 10.0
_REMOVED_A_STEP = 50  # finished Jobs; a namespace full of them is emptied without a storm of requests
_SLOWEST, _FASTEST = 0.001, 1e6  # items or requests a second that are believed of one Job
_LONGEST_DRAIN_SECONDS = 1e9


@dataclass(frozen=True, slots=True)
class Limit:
    """One thing that shaped the decision: what it allows (Jobs; None: it does not limit), and how that comes about."""

    name: str
    jobs: int | None
    how: str
    binding: bool = False


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
class Plan:
    """What to do now, and everything that shaped it."""

    depth: int | None
    """Claimable items; None: unknown."""
    desired: int
    """Jobs that should be there; those that are there where the depth is unknown."""
    unfinished: int
    """Jobs that are there or on their way."""
    launches: tuple[Launch, ...]
    launch_reason: str
    """What asked for them: ``Size``, ``Time``, ``MinJobs`` or ``Probe``; empty when nothing is launched."""
    reason: str
    """The decision in one CamelCase word."""
    message: str
    """The decision in one readable sentence."""
    held_back: bool
    """Whether there is work that something else than enough Jobs keeps from being taken up."""
    limits: tuple[Limit, ...]
    end: tuple[Removal, ...]
    remove: tuple[str, ...]
    """Names of finished Jobs that the history limits no longer keep."""
    trouble: Trouble | None
    retry_at: datetime | None
    """When the next probe may leave; None when there is no trouble."""
    rate: float | None
    """Items that one Job brings to an end, a second; learned from finished Jobs."""
    request_rate: float | None
    """Requests to SIORG that one Job makes, a second; learned likewise."""
    predicted_drain_seconds: float | None
    poll_seconds: float
    """Look again after this at the latest (to be jittered): shorter while there is work."""
    wake_seconds: float | None
    """Something is known to change after this, if anything is."""


def plan(resource: SiorgSyncWorker, backlog: Backlog, jobs: Sequence[Job], now: datetime, pacing: Pacing | None = None) -> Plan:
    """Decide what to do now.

    Args:
        resource: the resource, its status included (what it remembers of Jobs that are gone).
        backlog: the queue as it was read, or why it could not be: unknown is not zero.
        jobs: every Job of the resource, finished ones included.
        now: the time.
        pacing: how patient to be with trouble; None: the defaults.
    """
    pacing = pacing or Pacing()
    rates = _Rates.learn(resource, jobs)
    unfinished = [job for job in jobs if job.unfinished]
    trouble = assess(
        jobs,
        _remembered(resource),
        settled=_settled(resource, now),
        template=_template(resource, backlog),
        now=now,
        pacing=pacing,
    )
    retry_at = None if trouble is None else trouble.retry_at(pacing, resource.metadata.uid or resource.metadata.name)
    end, grace_over = _stuck(unfinished, now, pacing)
    size = _size(resource, backlog, rates)
    scaling = resource.spec.scaling
    wanted = max(size.desired - len(unfinished), 0)
    hold = _hold(resource, backlog, unfinished, trouble, retry_at, now)
    probing = trouble is not None and hold is None and wanted > 0
    count = 0 if hold is not None else min(wanted, scaling.max_launches_per_step, 1 if probing else wanted)
    observing = count > 0 and resource.spec.mode == "Observe"
    launches = () if observing else _launches(count, resource, jobs)
    if hold is not None:
        reason, ending, held = hold.reason, f"held back: {hold.message}", backlog.depth is None or size.asked > len(unfinished)
    elif observing:
        reason, ending, held = "Observe", f"would launch {count}, but mode is Observe: nothing is launched", True
    elif size.desired == 0 and backlog.depth:
        reason, ending, held = size.refused_by, f"held back: {size.refused_message}", True
    elif not backlog.depth:
        reason, ending, held = "QueueEmpty", "nothing to do", False
    elif launches:
        reason = "Probing" if probing else "Launched"
        ending = f"launched {len(launches)}" + (
            " as a probe" if probing else f" (maxLaunchesPerStep {scaling.max_launches_per_step})" if count < wanted else ""
        )
        held = False
    else:
        reason, ending, held = "EnoughJobs", "launched 0", False
    capacity = len(unfinished) + len(launches)
    depth = backlog.depth
    return Plan(
        depth=depth,
        desired=len(unfinished) if depth is None else size.desired,
        unfinished=len(unfinished),
        launches=launches,
        launch_reason="" if not launches else "Probe" if probing else size.asked_by,
        reason=reason,
        message=_sentence(size, len(unfinished), ending, known=depth is not None),
        held_back=held,
        limits=size.limits,
        end=end,
        remove=_history(resource, jobs),
        trouble=trouble,
        retry_at=retry_at,
        rate=rates.items,
        request_rate=rates.requests,
        predicted_drain_seconds=_drain_seconds(depth, rates, capacity),
        poll_seconds=_poll(resource, busy=bool(unfinished) or depth is None or (depth > 0 and reason != "Suspended")),
        wake_seconds=_soonest(
            grace_over,
            None if retry_at is None or not depth else (retry_at - now).total_seconds(),
            _next_due(backlog),
            _pause(backlog) if depth else None,
        ),
    )


# -- how many ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Rates:
    items: float | None
    requests: float | None

    @classmethod
    def learn(cls, resource: SiorgSyncWorker, jobs: Sequence[Job]) -> _Rates:
        """From the newest finished Jobs that did something; from what status remembers where there are none."""
        ended = sorted((job for job in jobs if job.finished_at is not None), key=_newest_last)
        summaries = [job.summary for job in ended if job.summary is not None]
        told = [summary for summary in summaries if summary.ended > 0 and summary.duration_seconds > 0][-_RATE_FROM:]
        if not told:
            return cls(_believable(resource.status.rate), _believable(resource.status.request_rate))
        seconds = sum(summary.duration_seconds for summary in told)
        return cls(
            _believable(sum(summary.ended for summary in told) / seconds),
            _believable(sum(summary.requests for summary in told) / seconds),
        )


def _believable(rate: float | None) -> float | None:
    """``rate`` as it is shown and reckoned with; None for one that says nothing."""
    if rate is None or not rate >= _SLOWEST:  # this way round also for what is no number
        return None
    return round(min(rate, _FASTEST), 3)


def _ceil(number: float) -> int:
    """The next whole number; 3.0000000000000004 is 3."""
    return math.ceil(round(number, 6))


def _drain_seconds(depth: int | None, rates: _Rates, capacity: int) -> float | None:
    if depth is None or (depth > 0 and not rates.items):
        return None
    return min(depth / (rates.items * max(capacity, 1)), _LONGEST_DRAIN_SECONDS) if rates.items else 0.0


@dataclass(frozen=True, slots=True)
class _Size:
    desired: int
    asked: int
    asked_by: str
    limits: tuple[Limit, ...]
    steps: tuple[str, ...]
    refused_by: str = ""
    refused_message: str = ""


def _size(resource: SiorgSyncWorker, backlog: Backlog, rates: _Rates) -> _Size:
    """The formula at the top of this file, with every step that shaped it."""
    scaling, reading, depth = resource.spec.scaling, backlog.reading, backlog.depth
    if isinstance(reading, Unreadable) or depth is None:
        return _Size(0, 0, "", (), ("depth unknown",))
    if depth == 0:
        return _Size(0, 0, "", (Limit("depth", 0, "nothing is claimable", binding=True),), ("depth 0",))
    by_size = -(-depth // scaling.items_per_job)
    by_time = None
    if scaling.target_drain_seconds and rates.items:
        by_time = _ceil(depth / (rates.items * scaling.target_drain_seconds))
    asked, asked_by = by_size, "Size"
    steps = [f"depth {depth}", f"{scaling.items_per_job} a Job → {by_size} wanted"]
    if by_time is not None:
        steps.append(f"{rates.items:g} items/s a Job and {scaling.target_drain_seconds} s → {by_time} wanted")
        if by_time > by_size:
            asked, asked_by = by_time, "Time"
    least = max(scaling.min_jobs, 1)
    if least > asked:
        asked, asked_by = least, "MinJobs"
        steps.append(f"minJobs {scaling.min_jobs} → {least}")
    ceilings = (
        Limit("maxJobs", scaling.max_jobs, "spec.scaling.maxJobs"),
        _connection_budget(reading),
        _request_budget(resource, rates),
    )
    strictest = min((limit for limit in ceilings if limit.jobs is not None), key=lambda limit: limit.jobs or 0)
    assert strictest.jobs is not None  # chosen so
    desired = min(asked, strictest.jobs)
    limited = desired < asked
    if limited:
        steps.append(f"{strictest.name} {strictest.jobs} → {desired}")
    floor = Limit("minJobs", least, "at least 1 while there is work" if scaling.min_jobs < 1 else "spec.scaling.minJobs")
    by_size_limit = Limit("by size", by_size, f"ceil({depth} / itemsPerJob {scaling.items_per_job})")
    limits = (
        _marked(by_size_limit, not limited and asked_by == "Size"),
        _marked(Limit("by time", by_time, _how_by_time(resource, depth, rates)), not limited and asked_by == "Time"),
        _marked(floor, not limited and asked_by == "MinJobs"),
        *(_marked(limit, limited and limit is strictest) for limit in ceilings),
    )
    refused_by, refused_message = "", ""
    if desired == 0:
        refused_by, refused_message = (
            ("Suspended", "maxJobs is 0: nothing is launched")
            if strictest.name == "maxJobs"
            else ("ConnectionBudget", f"the database has no room for another Job: {strictest.how}; raise max_connections")
        )
    return _Size(desired, asked, asked_by, limits, tuple(steps), refused_by, refused_message)


def _marked(limit: Limit, binding: bool) -> Limit:  # noqa: FBT001 - a value, not a switch
    return Limit(limit.name, limit.jobs, limit.how, binding)


def _how_by_time(resource: SiorgSyncWorker, depth: int, rates: _Rates) -> str:
    target = resource.spec.scaling.target_drain_seconds
    if not target:
        return "no targetDrainSeconds is set"
    if not rates.items:
        return "no Job has shown its rate yet"
    return f"ceil({depth} / ({rates.items:g} items/s · targetDrainSeconds {target}))"


def _connection_budget(reading: Reading) -> Limit:
    if reading.max_connections is None:
        return Limit("connection budget", None, "the database did not tell its limit")
    free = reading.max_connections - reading.other_connections - _CONNECTIONS_LEFT_FREE
    return Limit(
        "connection budget",
        max(free // CONNECTIONS_PER_JOB, 0),
        f"({reading.max_connections} connections − {reading.other_connections} in use by others"
        f" − {_CONNECTIONS_LEFT_FREE} left free) / {CONNECTIONS_PER_JOB} a Job",
    )


def _request_budget(resource: SiorgSyncWorker, rates: _Rates) -> Limit:
    most = resource.spec.siorg.max_requests_per_second
    if not most:
        return Limit("request budget", None, "maxRequestsPerSecond is 0: no limit")
    if not rates.requests:
        return Limit("request budget", None, "no Job has shown its requests yet")
    return Limit(
        "request budget",
        max(_ceil(most / rates.requests), 1),
        f"ceil(maxRequestsPerSecond {most:g} / {rates.requests:g} requests/s a Job)",
    )


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


# -- what holds it back -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Hold:
    reason: str
    message: str


def _hold(
    resource: SiorgSyncWorker,
    backlog: Backlog,
    unfinished: Sequence[Job],
    trouble: Trouble | None,
    retry_at: datetime | None,
    now: datetime,
) -> _Hold | None:
    """Why nothing may be launched now, whatever the queue holds; None when nothing stands in the way."""
    reading = backlog.reading
    if isinstance(reading, Unreadable):
        return _Hold("DepthUnknown", f"the queue cannot be read: {reading.message}")
    busy = reading.claimable > 0
    if resource.metadata.deletion_timestamp is not None:
        return _Hold("BeingDeleted", "the resource is being deleted, and its Jobs with it")
    if resource.spec.suspend:
        return _Hold("Suspended", "spec.suspend is true: what runs drains, nothing is launched")
    if not reading.sync_enabled:
        return _Hold("SyncDisabled", "the database's setting siorg.sync_enabled is false")
    if not busy:
        return None
    if backlog.siorg_token_problem is not None:
        return _Hold("SecretMissing", backlog.siorg_token_problem)
    if long_pause(reading):
        return _Hold("SiorgRateLimited", f"SIORG asked for no requests until {_clock(later(now, reading.siorg_paused_seconds))}")
    if trouble is not None and retry_at is not None:
        what = trouble_message(trouble)
        reason = trouble_reason(trouble)
        if now < retry_at:
            return _Hold(reason, f"{what}; one probe Job at {_clock(retry_at)}")
        if unfinished:
            those = f"{len(unfinished)} unfinished {_plural(len(unfinished), 'Job')}"
            return _Hold(reason, f"{what}; {those} will show whether it is over")
    return None


def trouble_reason(trouble: Trouble) -> str:
    """The word that conditions, decisions and metrics have for it."""
    if trouble.ending is Ending.STUCK:
        return "PodsStuck"
    return trouble.ending.value if trouble.of_siorg else "JobsFailing"


def trouble_message(trouble: Trouble) -> str:
    """What is wrong, in one sentence without a full stop."""
    times = f"{trouble.streak} {_plural(trouble.streak, 'failure')} in a row, the last at {_clock(trouble.last_failure)}"
    what = {
        Ending.SIORG_UNAVAILABLE: "SIORG does not answer",
        Ending.SIORG_RATE_LIMITED: "SIORG wants fewer requests",
        Ending.DATABASE_UNAVAILABLE: "Jobs cannot reach the database",
        Ending.WRONG_SETTINGS: "Jobs refuse their settings",
        Ending.STUCK: "pods cannot start",
        Ending.DEADLINE: "Jobs reach activeDeadlineSeconds without ending an item",
    }.get(trouble.ending, "Jobs fail")
    return f"{what} ({times}{': ' + trouble.message if trouble.message else ''})"


def _stuck(unfinished: Sequence[Job], now: datetime, pacing: Pacing) -> tuple[tuple[Removal, ...], float | None]:
    """Jobs whose pod could not start for longer than the grace, and the seconds until the next grace is over."""
    over: list[Removal] = []
    left: list[float] = []
    for job in unfinished:
        if job.stuck is None or job.state is JobState.ACTIVE:
            continue
        grace = pacing.unschedulable_grace if job.stuck.reason == "Unschedulable" else pacing.stuck_grace
        remaining = grace - (now - job.stuck.since).total_seconds()
        if remaining <= 0:
            over.append(Removal(job.name, job.stuck))
        else:
            left.append(remaining)
    return tuple(over), min(left, default=None)


def _history(resource: SiorgSyncWorker, jobs: Sequence[Job]) -> tuple[str, ...]:
    """Finished Jobs beyond the limits, the oldest first; of each kind the newest are kept."""
    limits = resource.spec.job
    surplus: list[Job] = []
    for state, keep in (
        (JobState.SUCCEEDED, limits.successful_jobs_history_limit),
        (JobState.FAILED, limits.failed_jobs_history_limit),
    ):
        ended = sorted((job for job in jobs if job.state is state), key=_newest_last)
        surplus += ended[: max(len(ended) - keep, 0)]
    return tuple(job.name for job in sorted(surplus, key=_newest_last)[:_REMOVED_A_STEP])


def _newest_last(job: Job) -> tuple[datetime, str]:
    return job.finished_at or job.created_at, job.name


def _remembered(resource: SiorgSyncWorker) -> Trouble | None:
    """The trouble that status tells of; one that cannot be understood is none."""
    told = resource.status.trouble
    if told is None or told.last_failure_time is None or told.reason not in set(Ending) - {Ending.DONE}:
        return None
    since = told.since or told.last_failure_time
    return Trouble(Ending(told.reason), max(told.streak, 1), since, told.last_failure_time, told.message, told.template)


def _settled(resource: SiorgSyncWorker, now: datetime) -> datetime | None:
    """Up to when status has judged the Jobs, and found that there is no trouble (any more)."""
    last = resource.status.jobs.last_finished_time
    # One that lies ahead (a clock went wrong) must not silence what comes until then.
    return last if resource.status.trouble is None and last is not None and last <= now else None


def _template(resource: SiorgSyncWorker, backlog: Backlog) -> str | None:
    """Hash of the template that the next Job would be made from; None: unknown, since its Secrets cannot be read now."""
    if isinstance(backlog.reading, Unreadable) and not backlog.credentials:
        return None
    return template_hash(resource, backlog.credentials)


# -- when to look again -----------------------------------------------------------------------------------------------


def _poll(resource: SiorgSyncWorker, *, busy: bool) -> float:
    interval = float(resource.spec.scaling.poll_interval_seconds)
    return max(interval / _BUSY_POLLS, min(_SHORTEST_POLL_SECONDS, interval)) if busy else interval


def _next_due(backlog: Backlog) -> float | None:
    reading = backlog.reading
    if isinstance(reading, Unreadable) or reading.claimable or reading.next_due_seconds is None:
        return None
    return reading.next_due_seconds


def long_pause(reading: Reading) -> bool:
    """Whether SIORG wants no requests for longer than a Job takes to start: only then is waiting better than launching."""
    return reading.siorg_paused_seconds >= _SHORT_PAUSE_SECONDS


def _pause(backlog: Backlog) -> float | None:
    reading = backlog.reading
    return reading.siorg_paused_seconds if isinstance(reading, Reading) and long_pause(reading) else None


def _soonest(*seconds: float | None) -> float | None:
    later = [second for second in seconds if second is not None and second > 0]
    return min(later, default=None)


# -- telling it -------------------------------------------------------------------------------------------------------


def _sentence(size: _Size, unfinished: int, ending: str, *, known: bool) -> str:
    """``depth 480, 50 a Job → 10 wanted, maxJobs 5 → 5, 3 unfinished → launched 2``."""
    said = ", ".join(size.steps)
    if not known:
        return f"{said}, {unfinished} unfinished; {ending}"
    joint = " → " if ending.startswith(("launched", "would launch", "nothing")) else "; "
    return f"{said}, {unfinished} unfinished{joint}{ending}"


def _clock(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _plural(count: int, noun: str) -> str:
    return noun if count == 1 else f"{noun}s"
