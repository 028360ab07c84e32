"""A ``Job`` as the decision needs it, out of Kubernetes' Job and Pod objects. Only what is kept of them stays in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from siorg_operator.api.resource import KIND
from siorg_operator.decide.manifests import (
    ROUND_LABEL,
    SLOT_LABEL,
    STOPPED_ANNOTATION,
    STUCK_ANNOTATION,
    TEMPLATE_LABEL,
    WORKER_ENDED_ANNOTATION,
)
from siorg_operator.decide.pods import (
    LONG_AGO,
    NODE_SILENT,
    NOT_SCHEDULED,
    SCHEDULING_GATED,
    PodRecord,
    condition,
    ended_worker,
    last_words,
    lost_from,
    moment,
)
from siorg_operator.decide.state import OUTCOMES, Ending, Job, JobState, Stuck, Summary, later
from siorg_runtime.redaction import without_known_places

NODE_LOST: Final = "NodeLost"
WORKER_ENDED: Final = "WorkerEnded"
_NOT_ENDING: Final = "NotEnding"
_DEADLINE_EXCEEDED: Final = "DeadlineExceeded"

_POD_LAGS_SECONDS = 5.0
_STARTS_WITHIN_SECONDS = 900.0
"""A pod that was not made by then, or whose container was not, will not be: a quota, a missing volume, an init container that
waits for something. Pulling a large image and starting a node take minutes."""
_TAKEN_UP_WITHIN_SECONDS = 60.0
"""The Job controller makes a pod within a second, and a scheduler looks at it as soon; it is told when neither was for so long.
"""
_LONGEST_MESSAGE = 300  # characters of what a failed Job said of itself
_COUNTS: Final = (*OUTCOMES, "claimed", "requests", "request_errors")
_ENDINGS_OF_TRY_LATER: Final = {
    "siorg_unavailable": Ending.SIORG_UNAVAILABLE,
    "siorg_rate_limited": Ending.SIORG_RATE_LIMITED,
    "database_unavailable": Ending.DATABASE_UNAVAILABLE,
}
_NOT_BEGUN: Final = {
    NOT_SCHEDULED: "no scheduler has looked at it: schedulerName, or the scheduler itself",
    SCHEDULING_GATED: "what put a scheduling gate on it has not taken it away",
    NODE_SILENT: "the node that took it has told nothing of it: it is lost or overloaded, most likely",
    "PodInitializing": "its container is not made: an init container does not end, most likely",
    "ContainerCreating": "its container is not made: a volume is missing, most likely",
}
"""What pods wait for, by the word for it."""
_HAS_NO_NODE: Final = frozenset({NOT_SCHEDULED, SCHEDULING_GATED})


@dataclass(frozen=True, slots=True)
class JobRecord:
    """What is kept of a Job object."""

    name: str
    uid: str
    slot: int
    round: int
    template: str
    created_at: datetime
    finished_at: datetime | None
    """When it was Complete or Failed."""
    failed_because: str | None
    """Reason of the condition Failed; None: it has not failed."""
    failure_message: str = ""
    stuck_because: str = ""
    """Why the operator ended it, if it did."""
    has_pods: bool = True
    """Whether it has pods, as far as the Job controller knows."""
    suspended: bool = False
    """Whether it is not meant to have any now: Kueue has not admitted it, for one."""
    ending_since: datetime | None = None
    """Since when the Job controller has been ending it, if it is not finished."""
    worker_ended: PodRecord | None = None
    """How its worker ended, where the operator ended it because its pod lived on."""
    stopped: bool = False
    """Whether the operator told it to stop."""
    pods_failed: bool = False
    """Whether pods of it have failed: the Job controller makes the next one only after a while."""
    version: str = ""


def controller_uid(body: Mapping[str, Any], kind: str = KIND) -> str | None:
    """The uid of the object that controls another, if it is of this kind."""
    references = body["metadata"].get("ownerReferences") or ()
    return next((str(found["uid"]) for found in references if found.get("controller") and found.get("kind") == kind), None)


def job_record(body: Mapping[str, Any]) -> JobRecord | None:
    """What is kept of a Job; None for one that does not carry our labels."""
    metadata, status = body["metadata"], body.get("status") or {}
    labels = metadata.get("labels") or {}
    slot, round_ = labels.get(SLOT_LABEL, ""), labels.get(ROUND_LABEL, "")
    if not (slot.isdecimal() and round_.isdecimal()):
        return None
    annotations = metadata.get("annotations") or {}
    failed, complete = condition(status, "Failed", "True"), condition(status, "Complete", "True")
    ended = failed or complete
    ending = condition(status, "FailureTarget", "True") or condition(status, "SuccessCriteriaMet", "True")
    created = moment(metadata.get("creationTimestamp")) or LONG_AGO
    return JobRecord(
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        slot=int(slot),
        round=int(round_),
        template=labels.get(TEMPLATE_LABEL, ""),
        created_at=created,
        # Nothing ends before it was made: the controller manager's clock may be behind.
        finished_at=max(created, moment(status.get("completionTime")) or moment(ended.get("lastTransitionTime")) or created)
        if ended
        else None,
        failed_because=(failed.get("reason") or "Failed") if failed and not complete else None,
        failure_message=failed.get("message") or "",
        stuck_because=annotations.get(STUCK_ANNOTATION, ""),
        has_pods=bool(status.get("active") or status.get("terminating")),
        suspended=bool((body.get("spec") or {}).get("suspend")),
        ending_since=(moment(ending.get("lastTransitionTime")) or created) if ending and not ended else None,
        worker_ended=ended_worker(annotations.get(WORKER_ENDED_ANNOTATION, "")),
        stopped=STOPPED_ANNOTATION in annotations,
        pods_failed=bool(status.get("failed")),
        version=metadata.get("resourceVersion", ""),
    )


def combine(
    job: JobRecord,
    pods: Iterable[PodRecord],
    now: datetime,
    clean: Callable[[str], str] = without_known_places,
    *,
    podless_since: datetime | None = None,
) -> Job:
    """One Job with its pods; of several pods the newest that ended speaks for it.

    Events of Jobs and of pods come on different streams: one that has ended is unfinished for a few seconds more when its
    pod's end is not known yet. How it ended decides too much to be guessed.

    ``clean`` takes the secrets out of what a Job or a pod says of itself, while that is still whole. ``podless_since``: since
    when it has had no pod; None: since it was made.
    """
    pods = list(pods)
    ended = max((pod for pod in pods if pod.exit_code is not None), key=lambda pod: pod.finished_at or LONG_AGO, default=None)
    if job.worker_ended is not None:
        ended = job.worker_ended
    here = [pod for pod in pods if pod.lives and not pod.lost(now)]
    running = [pod for pod in here if pod.running]
    if ended is not None:
        ended = replace(ended, termination_message=clean(ended.termination_message))
    elif _ended_a_moment_ago(job, now) or (job.stopped and running):
        job = replace(job, failed_because=None, finished_at=None)
    summary = None if ended is None else read_summary(ended.termination_message)
    outlived = ended is not None and _is_outlived(job, ended, [pod for pod in here if pod.name != ended.name], now)
    ending = _ending(job, ended, pods, summary, outlived=outlived)
    if ended is not None and (outlived or job.worker_ended is not None):
        job = replace(job, finished_at=ended.finished_at or now)
    state = _state(job, ending, pods, here, running, now)
    starts = [pod.started_at for pod in running or ([ended] if ended else []) if pod.started_at is not None]
    stuck = _why_not(job, state, pods, ended if outlived else None, now, podless_since or job.created_at)
    return Job(
        name=job.name,
        slot=job.slot,
        round=job.round,
        state=state,
        created_at=job.created_at,
        template=job.template,
        started_at=min(starts, default=None),
        finished_at=job.finished_at,
        ending=ending,
        message="" if ending in {None, Ending.DONE} else _one_line(clean(_message(job, ending, ended, pods, summary))),
        stuck=stuck and replace(stuck, message=_one_line(clean(stuck.message))),
        changes_at=_changes_at(job, pods, now, podless_since or job.created_at) if ending is None else None,
        summary=None if job.finished_at is None else summary,
        uid=job.uid,
        version=job.version,
        last_words=last_words(ended) if ended is not None and outlived and stuck is not None else "",
        # One that had failed by itself before that has failed.
        stopped=job.stopped and job.failed_because in {None, _DEADLINE_EXCEEDED},
    )


def _ended_a_moment_ago(job: JobRecord, now: datetime) -> bool:
    if job.finished_at is None or job.stuck_because or job.failed_because == _DEADLINE_EXCEEDED:
        return False  # the Job controller removed the pod: nothing more will be heard of it
    return _a_moment_ago(job.finished_at, now)


def _a_moment_ago(then: datetime, now: datetime) -> bool:
    return abs((now - then).total_seconds()) < _POD_LAGS_SECONDS  # clocks differ: far ahead is not a moment ago


def _is_outlived(job: JobRecord, ended: PodRecord, others: list[PodRecord], now: datetime) -> bool:
    """Whether its worker has ended and Kubernetes, which waits for all of the pod, does not say so of the Job.

    Of a pod that has failed, or that goes, the Job controller says in a moment whether another one comes.
    """
    if job.finished_at is not None:
        return False
    if job.worker_ended is not None:
        return True
    if others:
        return False
    if ended.lives:
        if ended.deleted_at is not None and not ended.lost(now):
            return False
    elif not (ended.succeeded and ended.exit_code == 0):
        return False
    return not _a_moment_ago(ended.ended_since or ended.finished_at or LONG_AGO, now)


def _state(
    job: JobRecord, ending: Ending | None, pods: list[PodRecord], here: list[PodRecord], running: list[PodRecord], now: datetime
) -> JobState:
    if ending is not None:
        return JobState.SUCCEEDED if ending is Ending.DONE else JobState.FAILED
    if running:
        return JobState.ACTIVE
    if here:
        return JobState.PENDING
    if any(pod.lives for pod in pods) or (job.ending_since is not None and now >= lost_from(job.ending_since)):
        return JobState.LOST
    return JobState.SUSPENDED if job.suspended else JobState.PENDING


def _changes_at(job: JobRecord, pods: list[PodRecord], now: datetime, podless_since: datetime) -> datetime | None:
    """When some time that is given here to a Job or a pod is over."""
    silences = [job.ending_since, *(since for pod in pods for since in (pod.silent_since, pod.deleted_at))]
    moments = [lost_from(since) for since in silences if since is not None]
    moments += [later(pod.ended_since or pod.finished_at, _POD_LAGS_SECONDS) for pod in pods if pod.finished_at is not None]
    on_their_way = [pod.on_its_way for pod in pods if pod.on_its_way is not None]
    moments += [later(waits.since, _patience(waits)) for waits in on_their_way if waits.since is not None]
    if not any(pod.lives for pod in pods):
        moments.append(later(podless_since, _STARTS_WITHIN_SECONDS if job.pods_failed else _TAKEN_UP_WITHIN_SECONDS))
    return min((then for then in moments if then > now), default=None)


def _patience(waits: Stuck) -> float:
    """For how many seconds a pod may be on its way."""
    return _TAKEN_UP_WITHIN_SECONDS if waits.reason in _HAS_NO_NODE else _STARTS_WITHIN_SECONDS


def _why_not(
    job: JobRecord, state: JobState, pods: list[PodRecord], outlived: PodRecord | None, now: datetime, podless_since: datetime
) -> Stuck | None:
    """Why a Job does not go on, if it does not."""
    if outlived is not None and outlived.lives:
        about = f"its worker has ended with exit code {outlived.exit_code}, and another container of its pod runs on"
        return Stuck(WORKER_ENDED, about, outlived.ended_since or outlived.finished_at)
    if state is JobState.PENDING and not job.stopped:
        return _stuck_job(job, pods, now, podless_since)
    return _lost_job(job, pods, now) if state is JobState.LOST else None


def _lost_job(job: JobRecord, pods: list[PodRecord], now: datetime) -> Stuck:
    lost = next((pod for pod in pods if pod.lives), None)
    if lost is None:
        return Stuck(_NOT_ENDING, "the Job controller was to end it, and does not", None)
    if not lost.overdue(now):
        return Stuck(NODE_LOST, f"the node of its pod {lost.name} does not answer", None)
    about = f"its pod {lost.name} was deleted and does not go: its node does not answer, most likely"
    # With the node its pod would come back, or another one in its place; what is being ended is left to end.
    leave = job.ending_since is not None or job.stuck_because
    return Stuck(NODE_LOST, about, None if leave else lost.deleted_at)


def _stuck_job(job: JobRecord, pods: list[PodRecord], now: datetime, podless_since: datetime) -> Stuck | None:
    """Why a Job does not start: what its pod says, or that nothing has come of it for too long."""
    if job.stuck_because:  # the operator has ended it: until the Job controller says so too, it is what it was
        reason, _, message = job.stuck_because.partition(": ")
        return Stuck(reason, message, job.created_at)
    stuck = next((pod.stuck for pod in pods if pod.stuck), None)
    if stuck is not None:
        return stuck
    for pod in pods:
        waits = pod.on_its_way
        if waits is None or waits.since is None:
            continue
        if (now - waits.since).total_seconds() >= _patience(waits):
            # Told early, for a person can mend it; ended late, for it starts by itself once it is mended.
            since = later(waits.since, _STARTS_WITHIN_SECONDS) if waits.reason in _HAS_NO_NODE else waits.since
            return Stuck(waits.reason, f"{_NOT_BEGUN[waits.reason]} (kubectl describe pod {pod.name})", since)
    if any(pod.lives for pod in pods) or job.has_pods or job.suspended or job.ending_since is not None:
        return None
    told_after = _STARTS_WITHIN_SECONDS if job.pods_failed else _TAKEN_UP_WITHIN_SECONDS
    if (now - podless_since).total_seconds() >= told_after:
        about = f"no pod is made for it: a quota or an admission rule refuses it, most likely (kubectl describe job {job.name})"
        return Stuck("NoPod", about, later(podless_since, _STARTS_WITHIN_SECONDS))
    return None


def read_summary(text: str) -> Summary | None:
    """The summary that ``siorg-job run`` leaves as one line of JSON; None for anything else."""
    try:
        found = json.loads(text.strip().rpartition("\n")[2])
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("reason"), str) or not _is_number(found.get("exit_code")):
        return None
    numbers = {name: value for name, value in found.items() if _is_number(value)}
    counts = {name: max(int(value), 0) for name, value in numbers.items() if name in _COUNTS}
    return Summary(
        reason=_one_line(found["reason"]),
        exit_code=int(numbers["exit_code"]),
        duration_seconds=float(numbers.get("duration_seconds", 0)),
        item_seconds=max(float(numbers.get("item_seconds", 0)), 0.0),
        item_seconds_le=_read_histogram(found.get("item_seconds_le")),
        outcomes={name: counts.pop(name) for name in OUTCOMES if name in counts},
        **counts,
    )


def _read_histogram(found: object) -> dict[float, int]:
    """Counts by their upper bounds; empty where anything about them is not as it should be."""
    if not isinstance(found, dict):
        return {}
    try:
        counts = {float(bound): int(count) for bound, count in found.items() if _is_number(count)}
    except ValueError:
        return {}
    return counts if len(counts) == len(found) and all(bound > 0 and count >= 0 for bound, count in counts.items()) else {}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**63


def _ending(
    job: JobRecord, ended: PodRecord | None, pods: list[PodRecord], summary: Summary | None, *, outlived: bool
) -> Ending | None:
    if job.finished_at is None and not outlived:
        return None
    if job.worker_ended is None and not outlived:
        if _is_done(job, ended, summary):
            return Ending.DONE
        if job.stuck_because:
            return Ending.LOST if job.stuck_because.startswith(f"{NODE_LOST}: ") else Ending.STUCK
        if job.failed_because == _DEADLINE_EXCEEDED:
            if not job.stopped:
                return Ending.DEADLINE
            if ended is None or ended.exit_code == 0:
                return Ending.DONE
        if ended is None or ended.exit_code == 0:
            return _ending_untold(job, pods)
    assert ended is not None
    return _ending_of_worker(ended, summary)


def _is_done(job: JobRecord, ended: PodRecord | None, summary: Summary | None) -> bool:
    """Whether a finished Job did what it was to do: that another container failed after its worker's end is no matter."""
    if job.failed_because is None:
        return True
    if ended is None or ended.exit_code != 0 or ended.disrupted:
        return False
    # The deadline ends a worker by a signal: it gives back what it has in hand, and exits well.
    return job.failed_because != _DEADLINE_EXCEEDED or (summary is not None and summary.reason != "stopped")


def _ending_of_worker(ended: PodRecord, summary: Summary | None) -> Ending:
    match ended.exit_code:
        case 0:
            return Ending.DONE
        case 75 if summary is not None:
            return _ENDINGS_OF_TRY_LATER.get(summary.reason, Ending.FAILED)
        case 2:
            return Ending.WRONG_SETTINGS
    if ended.was_killed:
        return Ending.LOST
    return Ending.OUT_OF_MEMORY if ended.exit_reason == "OOMKilled" else Ending.FAILED


def _ending_untold(job: JobRecord, pods: list[PodRecord]) -> Ending:
    """Of a Job that failed without a word of its worker."""
    if any(pod.rejected for pod in pods):
        return Ending.STUCK
    # Where it failed for a container's exit code, the Job says so.
    return Ending.LOST if not pods and job.failed_because == "BackoffLimitExceeded" else Ending.FAILED


def _message(
    job: JobRecord, ending: Ending | None, ended: PodRecord | None, pods: list[PodRecord], summary: Summary | None
) -> str:
    if job.worker_ended is None and job.stuck_because:
        return job.stuck_because
    if ending is Ending.LOST:
        return "its pod was deleted before it told how it ended"
    if ended is None or ending is Ending.STUCK:
        return next((pod.rejected for pod in pods if pod.rejected), "") or job.failure_message or job.failed_because or ""
    if summary is not None:
        return f"exit code {ended.exit_code}, {summary.reason}"
    # Kubernetes says Error for every exit that is not 0: no news.
    reason = f", {ended.exit_reason}" if ended.exit_reason not in {"", "Error"} else ""
    last = ended.termination_message.strip().rpartition("\n")[2]
    return f"exit code {ended.exit_code}{reason}{': ' + last if last else ''}"


def _one_line(text: str) -> str:
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    if len(line) <= _LONGEST_MESSAGE:
        return line
    # Between two words: a secret that is not known yet must not lose its end, for by that it would be known later.
    return line[: _LONGEST_MESSAGE - 1].rpartition(" ")[0] + " …"
