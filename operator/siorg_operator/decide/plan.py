"""The decision: how many Jobs to launch now, and why. Pure and total: values in, a ``Plan`` out, the same for the same.

    by size = ceil(depth / itemsPerJob)
    by time = ceil(depth / (rate of one Job · targetDrainSeconds))        with a target and a learned rate
    desired = 0 if depth = 0, else clamp(max(by size, by time), max(minJobs, 1), min(maxJobs, budgets))
    launch  = clamp(desired − unfinished Jobs, 0, maxLaunchesPerStep)

A Job drains until the queue is empty, so each unfinished Job *is* capacity, whether its pod runs or is on its way. One whose
worker has ended, or whose node is lost, is none, whatever Kubernetes calls it. One that was told to stop is none either, but has
its place under the ceilings until it is gone.

The steps: the backoff, if Jobs fail ▶ the size ▶ what holds launches ▶ the launches. What became of a plan is a ``Result``
(both in ``planned``). ``wording`` makes the sentences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from siorg_operator.api.resource import SiorgSyncWorker
from siorg_operator.decide import sizing
from siorg_operator.decide.connections import Tenant
from siorg_operator.decide.job_failures import PATIENCE_SECONDS, RECOVERY_SECONDS, Failures, Pacing, assess
from siorg_operator.decide.manifests import job_name, job_tag, template_hash
from siorg_operator.decide.planned import Backoff, Hold, Launch, Plan, Removal
from siorg_operator.decide.pods import UNSCHEDULABLE
from siorg_operator.decide.reasons import Reason
from siorg_operator.decide.sizing import Rates, Size
from siorg_operator.decide.state import Ending, Job, JobState, QueueState, Reading, Unreadable, later, newest_last

_LONGEST_STREAK = 1_000_000  # failures in a row that are told; somebody may have written any number into status
_BUSY_POLLS = 6  # polls while there is work, for each one at rest
_SHORTEST_POLL_SECONDS = 1.0
_SHORT_PAUSE_SECONDS = 10.0
_PROBE_POLL_SECONDS = 1.0  # while a running Job's next item decides
_ROOM_SECONDS = 5.0  # nobody tells when connections become free
_REMOVED_A_STEP = 50  # finished Jobs; a namespace full of them is emptied without a storm of requests


def plan(
    resource: SiorgSyncWorker,
    queue: QueueState,
    jobs: Sequence[Job],
    now: datetime,
    pacing: Pacing | None = None,
    tenants: Sequence[Tenant] = (),
) -> Plan:
    """Decide what to do now.

    ``resource`` brings its status (what it remembers of Jobs that are gone), ``jobs`` are all of it, finished ones included;
    ``pacing``: how patient to be with Jobs that fail or do not start; None: the defaults. ``tenants``: what is known of the
    resources that use the same database server.
    """
    pacing = pacing or Pacing()
    jobs = [replace(job, completed_at=_completed_at(job, queue, now)) for job in jobs]
    unfinished = [job for job in jobs if job.unfinished]
    failures = _failures(resource, queue, jobs, now, pacing)
    backoff, recovering, room = None, None, resource.spec.scaling.max_jobs
    if failures is not None and failures.recovered_at is None:
        backoff, room = _backoff(resource, queue, jobs, failures, now, pacing), 1
    elif failures is not None:
        recovering, room = failures, failures.room(unfinished, now, pacing)
    held = {job_tag(job.name): job.state is JobState.ACTIVE for job in unfinished}
    size = sizing.size(resource, queue, Rates.learn(resource, jobs), held, tenants)
    stop = _stops(resource, unfinished)
    stopping = sum(job.stopped for job in unfinished) + len(stop)
    hold = _hold(resource, queue, size, backoff, now, stopping)
    reason, hold, launches = (hold.reason, hold, ()) if hold is not None else _decide(resource, jobs, size, backoff, room)
    busy = bool(unfinished) or size.depth is None or (size.depth > 0 and reason is not Reason.SUSPENDED)
    graces = _graces(jobs, now, pacing)
    changes = [*(left for _, left in graces), *_changes(queue, backoff, now)]
    if recovering is not None and recovering.recovered_at is not None:
        changes.append((later(recovering.recovered_at, RECOVERY_SECONDS) - now).total_seconds())
    if _hangs_on_items(backoff, recovering, missing=size.desired - len(unfinished) - len(launches)) and size.depth:
        changes += [_PROBE_POLL_SECONDS for job in unfinished if job.state is JobState.ACTIVE]
    if size.desired < size.wanted:
        changes.append(_ROOM_SECONDS)
    wanted = _wanted(resource, size, hold, backoff, len(unfinished))
    changes += [(job.changes_at - now).total_seconds() for job in jobs if job.changes_at is not None]
    return Plan(
        reason=reason,
        size=size,
        unfinished=len(unfinished),
        suspended=sum(job.state is JobState.SUSPENDED for job in jobs),
        lost=sum(job.state is JobState.LOST for job in jobs),
        unschedulable=_unschedulable(unfinished, graces),
        held=held | {job_tag(job_name(resource, launch.slot, launch.round)): False for launch in launches},
        wanted=wanted or 0,
        rests=wanted is not None and wanted <= len(unfinished),
        stopping=stopping,
        launches=launches,
        hold=hold,
        end=tuple(removal for removal, left in graces if left <= 0),
        stop=stop,
        remove=(*_history(resource, jobs), *_not_needed(resource, queue, jobs)),
        backoff=backoff,
        recovering=recovering,
        predicted_drain_seconds=size.drain_seconds(len(unfinished) - stopping + len(launches)),
        poll_seconds=_poll(resource, busy=busy),
        wake_seconds=min((seconds for seconds in changes if seconds and seconds > 0), default=None),
    )


# -- Jobs that fail ---------------------------------------------------------------------------------------------------


def _failures(
    resource: SiorgSyncWorker, queue: QueueState, jobs: Sequence[Job], now: datetime, pacing: Pacing
) -> Failures | None:
    last = resource.status.jobs.last_finished_time
    # A last end that lies ahead (a clock went wrong) must not silence what comes until then.
    settled = last if resource.status.backoff is None and last is not None and last <= now else None
    failures = assess(
        jobs,
        _remembered(resource, now),
        settled=settled,
        template=None if queue.secrets_hash is None else template_hash(resource, queue.secrets_hash),
        now=now,
        pacing=pacing,
        patience=_patience(resource),
    )
    if failures is None or (failures.ending is Ending.NOTHING and not queue.depth):
        return None  # those that found nothing came too late, and that was all
    return failures


def _backoff(
    resource: SiorgSyncWorker, queue: QueueState, jobs: Sequence[Job], failures: Failures, now: datetime, pacing: Pacing
) -> Backoff:
    retry_at = failures.retry_at(pacing, resource.metadata.uid or resource.metadata.name, _patience(resource))
    due = retry_at <= now
    # A Job of an older template shows nothing of these failures, one way or the other.
    probes = sum(job.unfinished and not job.stopped and failures.include(job) for job in jobs)
    return Backoff(failures, retry_at, dormant=due and queue.depth == 0, due=due, probes=probes)


def _completed_at(job: Job, queue: QueueState, now: datetime) -> datetime | None:
    """When it completed its newest item: the database tells an age, and ages are the same by every clock."""
    if not isinstance(queue.reading, Reading):
        return None
    ages = [age for host, age in queue.reading.completed_by.items() if host == job.name or host.startswith(f"{job.name}-")]
    return later(now, -min(ages)) if ages else None


def _remembered(resource: SiorgSyncWorker, now: datetime) -> Failures | None:
    """The failures that status tells of, none of them ahead of ``now``; what cannot be understood is none."""
    backoff = resource.status.backoff
    if backoff is None or backoff.last_failure_time is None or backoff.reason not in set(Ending) - {Ending.DONE}:
        return None
    last = min(backoff.last_failure_time, now)
    since = min(backoff.since or last, last)
    ending, streak = Ending(backoff.reason), min(max(backoff.streak, 1), _LONGEST_STREAK)
    recovered = None if backoff.recovered_time is None else min(max(backoff.recovered_time, last), now)
    return Failures(ending, streak, since, last, backoff.message, backoff.template, recovered)


def _patience(resource: SiorgSyncWorker) -> float:
    """How long a Job waits for SIORG or the database that is away before it gives up."""
    values = {variable.name: variable.value for variable in resource.spec.job.pod_template.spec.env}
    try:
        return float(values.get("WORKER_UNAVAILABLE_SECS") or PATIENCE_SECONDS)
    except ValueError:
        return PATIENCE_SECONDS  # the job will refuse it


# -- launches, and what holds them ------------------------------------------------------------------------------------


def _hold(
    resource: SiorgSyncWorker,
    queue: QueueState,
    size: Size,
    backoff: Backoff | None,
    now: datetime,
    stopping: int,
) -> Hold | None:
    """What holds launches: first what does so whatever the queue has, then what keeps the work that there is from being done."""
    reading = queue.reading
    if isinstance(reading, Unreadable):
        return Hold(Reason.DEPTH_UNKNOWN, said=reading.message)
    if resource.metadata.deletion_timestamp is not None:
        return Hold(Reason.BEING_DELETED)
    if resource.spec.suspend:
        return Hold(Reason.SUSPENDED, stopping=stopping)
    if not reading.sync_enabled:
        return Hold(Reason.SYNC_DISABLED)
    if queue.siorg_token_error is not None:
        return Hold(Reason.SECRET_MISSING, said=queue.siorg_token_error)
    if pause := siorg_pause(queue):
        return Hold(Reason.SIORG_RATE_LIMITED, until=later(now, pause))
    if not queue.depth:
        return None
    if backoff is not None:
        failures = backoff.failures
        if not backoff.due:
            return Hold(failures.reason, until=backoff.retry_at, failures=failures)
        if backoff.probes:
            return Hold(failures.reason, failures=failures, probes=backoff.probes)
    return None if size.refused_by is None else Hold(size.refused_by, count=size.asked, stopping=stopping)


def _decide(
    resource: SiorgSyncWorker, jobs: Sequence[Job], size: Size, backoff: Backoff | None, room: int
) -> tuple[Reason, Hold | None, tuple[Launch, ...]]:
    """Where nothing holds launches: the reason for what is done, whether that is only to say what would be, and the launches.

    ``room``: for so many more Jobs, whatever the work wants.
    """
    if not size.depth:
        return Reason.QUEUE_EMPTY, None, ()
    there = [job for job in jobs if job.unfinished]
    wanted = max(min(size.desired - sum(not job.stopped for job in there), size.most - len(there)), 0)
    count = min(wanted, resource.spec.scaling.max_launches_per_step, room)
    if count and resource.spec.mode == "Observe":
        return Reason.OBSERVE, Hold(Reason.OBSERVE, count=count), ()
    launches = _launches(count, resource, jobs)
    if not launches:
        return Reason.RECOVERING if wanted and not room else Reason.ENOUGH_JOBS, None, ()
    return Reason.LAUNCHED if backoff is None else Reason.PROBING, None, launches


def _wanted(resource: SiorgSyncWorker, size: Size, hold: Hold | None, backoff: Backoff | None, unfinished: int) -> int | None:
    """Jobs that there would be, had the database connections without end; None: there shall be none, whatever waits."""
    if (hold is not None and hold.reason.chosen) or resource.spec.mode == "Observe" or resource.spec.scaling.max_jobs == 0:
        return None
    if hold is not None and hold.reason is not Reason.CONNECTION_BUDGET:
        return unfinished
    return max(unfinished, 1) if backoff is not None and size.depth else size.wanted


def siorg_pause(queue: QueueState) -> float | None:
    """For so many seconds SIORG wants no requests, if for longer than a Job takes to start: only then is waiting better."""
    reading = queue.reading
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


def _graces(jobs: Sequence[Job], now: datetime, pacing: Pacing) -> list[tuple[Removal, float]]:
    """Jobs that do not go on, and the seconds that are left of their grace."""
    return [
        (
            Removal(job.name, job.stuck, job.uid, job.last_words),
            (pacing.unschedulable_grace if job.stuck.reason == UNSCHEDULABLE else pacing.stuck_grace)
            - (now - job.stuck.since).total_seconds(),
        )
        for job in jobs
        if job.stuck is not None and job.stuck.since is not None and job.state is not JobState.ACTIVE
    ]


def _unschedulable(unfinished: Sequence[Job], graces: Sequence[tuple[Removal, float]]) -> tuple[Job, ...]:
    over = {removal.name for removal, left in graces if left <= 0}
    found = (job for job in unfinished if job.stuck is not None and job.stuck.reason == UNSCHEDULABLE and job.name not in over)
    return tuple(sorted(found, key=lambda job: (job.slot, job.round, job.name)))


def _history(resource: SiorgSyncWorker, jobs: Sequence[Job]) -> tuple[Job, ...]:
    """Finished Jobs beyond the limits, the oldest first; of each kind the newest are kept."""
    spec = resource.spec.job
    limits = {JobState.SUCCEEDED: spec.successful_jobs_history_limit, JobState.FAILED: spec.failed_jobs_history_limit}
    surplus: list[Job] = []
    for state, keep in limits.items():
        ended = sorted((job for job in jobs if job.state is state and job.stuck is None), key=newest_last)
        surplus += ended[: max(len(ended) - keep, 0)]
    return tuple(sorted(surplus, key=newest_last)[:_REMOVED_A_STEP])


def _stops(resource: SiorgSyncWorker, unfinished: Sequence[Job]) -> tuple[Job, ...]:
    """Jobs to be told to stop. One that is only known by its name is shown or listed in a moment."""
    if not _is_to_stop(resource):
        return ()
    told = (job for job in unfinished if job.uid and not job.stopped and job.state is not JobState.SUSPENDED)
    return tuple(sorted(told, key=lambda job: (job.slot, job.round, job.name)))


def _is_to_stop(resource: SiorgSyncWorker) -> bool:
    """Whether a person wants no Jobs of this resource any more, those that are there included."""
    spec = resource.spec
    return spec.when_suspended == "Stop" and (spec.suspend or spec.scaling.max_jobs == 0)


def _not_needed(resource: SiorgSyncWorker, queue: QueueState, jobs: Sequence[Job]) -> tuple[Job, ...]:
    """Suspended Jobs, once the work has ended without them, or is not wanted: admitted later, they would begin all the same."""
    every = queue.depth == 0 or _is_to_stop(resource)
    return tuple(sorted((job for job in jobs if job.state is JobState.SUSPENDED and (every or job.stopped)), key=newest_last))


# -- when to look again -----------------------------------------------------------------------------------------------


def _poll(resource: SiorgSyncWorker, *, busy: bool) -> float:
    interval = float(resource.spec.scaling.poll_interval_seconds)
    return max(interval / _BUSY_POLLS, min(_SHORTEST_POLL_SECONDS, interval)) if busy else interval


def _hangs_on_items(backoff: Backoff | None, recovering: Failures | None, *, missing: int) -> bool:
    """Whether the next item that a Job completes makes room for further ones."""
    if backoff is not None:
        return backoff.failures.end_with_an_item
    return recovering is not None and missing > 0


def _changes(queue: QueueState, backoff: Backoff | None, now: datetime) -> tuple[float | None, ...]:
    """Seconds until something changes by itself: a probe may leave and a pause is over, or the next item falls due."""
    # Whether anything waits or not: status tells of both.
    over = siorg_pause(queue), None if backoff is None else (backoff.retry_at - now).total_seconds()
    next_due = queue.reading.next_due_seconds if isinstance(queue.reading, Reading) and not queue.depth else None
    return (*over, next_due)
