"""The decision: how many Jobs to launch now, and why. Pure and total: values in, a ``Plan`` out, the same for the same.

    by size = ceil(depth / itemsPerJob)
    by time = ceil(depth / (rate of one Job · targetDrainSeconds))        with a target and a learned rate
    desired = 0 if depth = 0, else clamp(max(by size, by time), max(minJobs, 1), min(maxJobs, budgets))
    launch  = clamp(desired − unfinished Jobs, 0, maxLaunchesPerStep)

A Job drains until the queue is empty, so each unfinished Job *is* capacity, whether its pod runs or is on its way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from siorg_operator.api.resource import SiorgSyncWorker
from siorg_operator.decide import sizing
from siorg_operator.decide.job_failures import PATIENCE_SECONDS, Pacing, Trouble, assess, is_of, later, plural
from siorg_operator.decide.manifests import template_hash
from siorg_operator.decide.sizing import Limit, Rates, Size, drain_seconds
from siorg_operator.decide.state import Backlog, Ending, Job, JobState, Reading, Stuck, Unreadable, newest_last, rfc3339

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
    why: str
    """The end of that sentence: what was done, or what stands in the way."""
    held_back: bool
    """Whether there is work that something else than enough Jobs keeps from being taken up."""
    limits: tuple[Limit, ...]
    end: tuple[Removal, ...]
    remove: tuple[str, ...]
    """Names of finished Jobs that the history limits no longer keep."""
    trouble: Trouble | None
    retry_at: datetime | None
    """When the next probe may leave; None when there is no trouble."""
    dormant: bool
    """There was trouble, the next probe may leave, and nothing waits: whether it is over, the next work will show."""
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
    rates = Rates.learn(resource, jobs)
    unfinished = [job for job in jobs if job.unfinished]
    trouble = assess(
        jobs,
        _remembered(resource),
        settled=_settled(resource, now),
        template=_template(resource, backlog),
        now=now,
        pacing=pacing,
        patience=_patience(resource),
    )
    if trouble is not None and trouble.ending is Ending.NOTHING and not backlog.depth:
        trouble = None  # they came too late, and that was all
    retry_at = None if trouble is None else trouble.retry_at(pacing, resource.metadata.uid or resource.metadata.name)
    end, grace_over = _stuck(unfinished, now, pacing)
    size = sizing.size(resource, backlog, rates, len(unfinished))
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
        why=ending.removeprefix("held back: "),
        held_back=held,
        limits=size.limits,
        end=end,
        remove=_history(resource, jobs),
        trouble=trouble,
        retry_at=retry_at,
        dormant=retry_at is not None and depth == 0 and retry_at <= now,
        rate=rates.items,
        request_rate=rates.requests,
        predicted_drain_seconds=drain_seconds(depth, rates, capacity),
        poll_seconds=_poll(resource, busy=bool(unfinished) or depth is None or (depth > 0 and reason != "Suspended")),
        wake_seconds=_soonest(
            grace_over,
            None if retry_at is None or not depth else (retry_at - now).total_seconds(),
            _next_due(backlog),
            _pause(backlog) if depth else None,
        ),
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
        return _Hold("SiorgRateLimited", f"SIORG asked for no requests until {rfc3339(later(now, reading.siorg_paused_seconds))}")
    if trouble is not None and retry_at is not None:
        if now < retry_at:
            return _Hold(trouble.reason, f"{trouble.sentence}; one probe Job at {rfc3339(retry_at)}")
        # A Job of an older template shows nothing of this trouble, one way or the other.
        if unfinished := [job for job in unfinished if is_of(job, trouble)]:
            those = f"{len(unfinished)} unfinished {plural(len(unfinished), 'Job')}"
            return _Hold(trouble.reason, f"{trouble.sentence}; {those} will show whether it is over")
    return None


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
        ended = sorted((job for job in jobs if job.state is state), key=newest_last)
        surplus += ended[: max(len(ended) - keep, 0)]
    return tuple(job.name for job in sorted(surplus, key=newest_last)[:_REMOVED_A_STEP])


def _remembered(resource: SiorgSyncWorker) -> Trouble | None:
    """The trouble that status tells of; one that cannot be understood is none."""
    told = resource.status.trouble
    if told is None or told.last_failure_time is None or told.reason not in set(Ending) - {Ending.DONE}:
        return None
    since = told.since or told.last_failure_time
    return Trouble(Ending(told.reason), max(told.streak, 1), since, told.last_failure_time, told.message, told.template)


def _patience(resource: SiorgSyncWorker) -> float:
    """How long a Job waits for SIORG or the database that is away before it gives up."""
    for variable in resource.spec.job.pod_template.spec.env:
        if variable.name == "WORKER_UNAVAILABLE_SECS" and variable.value is not None:
            try:
                return float(variable.value)
            except ValueError:
                break  # the job will refuse it
    return PATIENCE_SECONDS


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


def _sentence(size: Size, unfinished: int, ending: str, *, known: bool) -> str:
    """``depth 480, 50 a Job → 10 wanted, maxJobs 5 → 5, 3 unfinished → launched 2``."""
    said = ", ".join(size.steps)
    if not known:
        return f"{said}, {unfinished} unfinished; {ending}"
    joint = " → " if ending.startswith(("launched", "would launch", "nothing")) else "; "
    return f"{said}, {unfinished} unfinished{joint}{ending}"
