"""A ``Job`` as the decision needs it, out of Kubernetes' Job and Pod objects. Only what is kept of them stays in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from siorg_operator.api.resource import KIND
from siorg_operator.decide.job_failures import later
from siorg_operator.decide.manifests import CONTAINER, ROUND_LABEL, SLOT_LABEL, STUCK_ANNOTATION, TEMPLATE_LABEL
from siorg_operator.decide.state import Ending, Job, JobState, Stuck, Summary
from siorg_runtime.redaction import without_known_places

CANNOT_START: Final = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
    }
)
"""Reasons for which a container waits and that do not go away by waiting a moment."""

_ON_ITS_WAY: Final = frozenset({"ContainerCreating", "PodInitializing"})
_POD_LAGS_SECONDS = 5.0
_STARTS_WITHIN_SECONDS = 900.0
"""A pod that was not made by then, or whose container was not, will not be: a quota, a missing volume, an init container that
waits for something. Pulling a large image and starting a node take minutes."""
_POD_MADE_WITHIN_SECONDS = 60.0
"""The Job controller makes a pod within a second; it is told when it could not for so long."""
_LONGEST_MESSAGE = 300  # characters of what a failed Job said of itself
_ENDINGS_OF_TRY_LATER: Final = {
    "siorg_unavailable": Ending.SIORG_UNAVAILABLE,
    "siorg_rate_limited": Ending.SIORG_RATE_LIMITED,
    "database_unavailable": Ending.DATABASE_UNAVAILABLE,
}


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
    failed_because: str | None
    """Reason of the condition Failed; None: it has not failed."""
    failure_message: str
    complete: bool
    stuck_because: str
    """Why the operator ended it, if it did."""
    has_pods: bool = True
    """Whether it has pods as far as the Job controller knows, or is not meant to have any (suspended, by Kueue for one)."""


@dataclass(frozen=True, slots=True)
class PodRecord:
    """What is kept of a Pod object."""

    name: str
    running: bool
    started_at: datetime | None
    stuck: Stuck | None
    exit_code: int | None
    """Of the container, when it has ended."""
    exit_reason: str
    termination_message: str
    finished_at: datetime | None
    waits_since: datetime | None = None
    """For a pod that a node took and whose container is not made yet: when it was taken."""
    waits_for: str = ""
    """And Kubernetes' word for what it waits for: ``ContainerCreating``, ``PodInitializing``."""
    uid: str = ""


def owner_uid(body: Mapping[str, Any]) -> str | None:
    """The uid of the resource that controls a Job; None: it is no drain Job of ours."""
    for reference in body["metadata"].get("ownerReferences") or ():
        if reference.get("controller") and reference.get("kind") == KIND:
            return str(reference["uid"])
    return None


def job_of_pod(body: Mapping[str, Any]) -> str | None:
    """The uid of the Job that controls a Pod."""
    for reference in body["metadata"].get("ownerReferences") or ():
        if reference.get("controller") and reference.get("kind") == "Job":
            return str(reference["uid"])
    return None


def job_record(body: Mapping[str, Any]) -> JobRecord | None:
    """What is kept of a Job; None for one that does not carry our labels."""
    metadata, status = body["metadata"], body.get("status") or {}
    labels = metadata.get("labels") or {}
    slot, round_ = labels.get(SLOT_LABEL, ""), labels.get(ROUND_LABEL, "")
    if not (slot.isdecimal() and round_.isdecimal()):
        return None
    failed = _condition(status, "Failed")
    complete = _condition(status, "Complete")
    ended = failed or complete
    created = _time(metadata.get("creationTimestamp")) or datetime.fromtimestamp(0, UTC)
    finished = None
    if ended is not None:
        finished = _time(status.get("completionTime")) or _time(ended.get("lastTransitionTime")) or created
    return JobRecord(
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        slot=int(slot),
        round=int(round_),
        template=labels.get(TEMPLATE_LABEL, ""),
        created_at=created,
        finished_at=finished,
        failed_because=None if failed is None else failed.get("reason") or "Failed",
        failure_message="" if failed is None else failed.get("message") or "",
        complete=complete is not None,
        stuck_because=(metadata.get("annotations") or {}).get(STUCK_ANNOTATION, ""),
        has_pods=bool(status.get("active") or status.get("terminating") or (body.get("spec") or {}).get("suspend")),
    )


def pod_record(body: Mapping[str, Any]) -> PodRecord:
    """What is kept of a Pod."""
    status = body.get("status") or {}
    container: Mapping[str, Any] = next(
        (one for one in status.get("containerStatuses") or () if one.get("name") == CONTAINER), {}
    )
    state = container.get("state") or {}
    running, terminated, waiting = state.get("running"), state.get("terminated"), state.get("waiting")
    since = _waits_since(body, waiting)
    return PodRecord(
        name=body["metadata"]["name"],
        running=running is not None,
        started_at=_time((running or terminated or {}).get("startedAt")),
        stuck=None if running or terminated else _stuck(body, waiting),
        exit_code=None if terminated is None else terminated.get("exitCode"),
        exit_reason="" if terminated is None else terminated.get("reason") or "",
        termination_message="" if terminated is None else terminated.get("message") or "",
        finished_at=None if terminated is None else _time(terminated.get("finishedAt")),
        waits_since=since,
        waits_for="" if since is None else (waiting or {}).get("reason") or "",
        uid=body["metadata"].get("uid", ""),
    )


def combine(job: JobRecord, pods: Iterable[PodRecord], now: datetime, clean: Callable[[str], str] = without_known_places) -> Job:
    """One Job with its pods; of several pods the newest that ended speaks for it.

    Jobs and pods are told on different streams: one that has ended is unfinished for a few seconds more when its pod's end
    is not known yet. How it ended decides too much to be guessed.

    Args:
        job: the Job.
        pods: those of this Job.
        now: the time.
        clean: takes the secrets out of what a Job or a pod says of itself, while that is still whole.
    """
    pods = list(pods)
    ended = max((pod for pod in pods if pod.exit_code is not None), key=_ended_last, default=None)
    running = [pod for pod in pods if pod.running]
    if ended is not None:
        ended = replace(ended, termination_message=clean(ended.termination_message))
    summary = None if ended is None else read_summary(ended.termination_message)
    if ended is None and _told_a_moment_ago(job, now):
        job = replace(job, complete=False, failed_because=None, finished_at=None)
    if job.complete:
        state = JobState.SUCCEEDED
    elif job.failed_because is not None:
        state = JobState.FAILED
    else:
        state = JobState.ACTIVE if running else JobState.PENDING
    starts = [pod.started_at for pod in running or ([ended] if ended else []) if pod.started_at is not None]
    ending = _ending(job, ended, summary)
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
        message="" if ending in {None, Ending.DONE} else _one_line(clean(_message(job, ended, summary))),
        stuck=_told(_stuck_job(job, pods, now), clean) if state is JobState.PENDING else None,
        summary=summary if state in {JobState.SUCCEEDED, JobState.FAILED} else None,
    )


def _told_a_moment_ago(job: JobRecord, now: datetime) -> bool:
    if job.finished_at is None or job.stuck_because or job.failed_because == "DeadlineExceeded":
        return False  # the Job controller removed the pod: nothing more will be heard of it
    return abs((now - job.finished_at).total_seconds()) < _POD_LAGS_SECONDS  # clocks differ: far ahead is not a moment ago


def _stuck_job(job: JobRecord, pods: list[PodRecord], now: datetime) -> Stuck | None:
    """Why a Job does not start: what its pod says, or that nothing has come of it for too long."""
    if job.stuck_because:  # the operator has ended it: until the Job controller says so too, it is what it was
        reason, _, message = job.stuck_because.partition(": ")
        return Stuck(reason, message, job.created_at)
    told = next((pod.stuck for pod in pods if pod.stuck), None)
    if told is not None:
        return told
    for pod in pods:
        if pod.waits_since is not None and (now - pod.waits_since).total_seconds() >= _STARTS_WITHIN_SECONDS:
            why = "an init container does not end" if pod.waits_for == "PodInitializing" else "a volume is missing"
            about = f"its container is not made: {why}, most likely (kubectl describe pod {pod.name})"
            return Stuck(pod.waits_for, about, pod.waits_since)
    if not pods and not job.has_pods and (now - job.created_at).total_seconds() >= _POD_MADE_WITHIN_SECONDS:
        about = f"no pod is made for it: a quota or an admission rule refuses it, most likely (kubectl describe job {job.name})"
        # Told early, for a person can mend it; ended late, for it starts by itself once it is mended.
        return Stuck("NoPod", about, later(job.created_at, _STARTS_WITHIN_SECONDS))
    return None


def _told(stuck: Stuck | None, clean: Callable[[str], str]) -> Stuck | None:
    return None if stuck is None else replace(stuck, message=_one_line(clean(stuck.message)))


def read_summary(text: str) -> Summary | None:
    """The summary that ``siorg-job run`` leaves as one line of JSON; None for anything else."""
    try:
        told = json.loads(text.strip().rpartition("\n")[2])
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict) or not isinstance(told.get("reason"), str) or not _is_number(told.get("exit_code")):
        return None
    counts = ("completed", "conflict", "skipped", "failed", "retried", "released", "claimed", "requests", "request_errors")
    return Summary(
        reason=_one_line(told["reason"]),
        exit_code=int(told["exit_code"]),
        duration_seconds=float(told["duration_seconds"]) if _is_number(told.get("duration_seconds")) else 0.0,
        item_seconds=max(float(told["item_seconds"]), 0.0) if _is_number(told.get("item_seconds")) else 0.0,
        item_seconds_le=_read_spread(told.get("item_seconds_le")),
        **{name: max(int(told[name]), 0) for name in counts if _is_number(told.get(name))},
    )


def _read_spread(told: object) -> dict[float, int]:
    """Counts by their upper bounds; empty where anything about them is not as it should be."""
    if not isinstance(told, dict):
        return {}
    try:
        spread = {float(bound): int(count) for bound, count in told.items() if _is_number(count)}
    except ValueError:
        return {}
    return spread if len(spread) == len(told) and all(bound > 0 and spread[bound] >= 0 for bound in spread) else {}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**63


def _ending(job: JobRecord, ended: PodRecord | None, summary: Summary | None) -> Ending | None:
    if job.complete:
        return Ending.DONE
    if job.failed_because is None:
        return None
    if job.stuck_because:
        return Ending.STUCK
    if job.failed_because == "DeadlineExceeded":
        return Ending.DEADLINE
    if ended is not None and ended.exit_code == 75 and summary is not None:
        return _ENDINGS_OF_TRY_LATER.get(summary.reason, Ending.FAILED)
    if ended is not None and ended.exit_code == 2:
        return Ending.WRONG_SETTINGS
    return Ending.FAILED


def _message(job: JobRecord, ended: PodRecord | None, summary: Summary | None) -> str:
    if job.stuck_because:
        return job.stuck_because
    if ended is None:
        return job.failure_message or job.failed_because or ""
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


def _stuck(body: Mapping[str, Any], waiting: Mapping[str, Any] | None) -> Stuck | None:
    metadata, status = body["metadata"], body.get("status") or {}
    if metadata.get("deletionTimestamp"):
        return None  # it is on its way out: its successor counts
    created = _time(metadata.get("creationTimestamp")) or datetime.fromtimestamp(0, UTC)
    scheduled = next((one for one in status.get("conditions") or () if one.get("type") == "PodScheduled"), None)
    since = _time(scheduled.get("lastTransitionTime")) if scheduled else None
    if scheduled is not None and scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        return Stuck("Unschedulable", scheduled.get("message") or "", since or created)
    reason = (waiting or {}).get("reason") or ""
    if reason in CANNOT_START:
        return Stuck(reason, (waiting or {}).get("message") or "", since or created)
    # Before the container come those that others put in front of it: Vault, Istio.
    for one in status.get("initContainerStatuses") or ():
        told = (one.get("state") or {}).get("waiting") or {}
        if told.get("reason") in CANNOT_START:
            return Stuck(told["reason"], f"init container {one.get('name')}: {told.get('message') or ''}", since or created)
    return None


def _waits_since(body: Mapping[str, Any], waiting: Mapping[str, Any] | None) -> datetime | None:
    if waiting is None or waiting.get("reason") not in _ON_ITS_WAY or body["metadata"].get("deletionTimestamp"):
        return None
    conditions = (body.get("status") or {}).get("conditions") or ()
    scheduled = next((one for one in conditions if one.get("type") == "PodScheduled" and one.get("status") == "True"), None)
    return _time((scheduled or {}).get("lastTransitionTime"))


def _ended_last(pod: PodRecord) -> datetime:
    return pod.finished_at or datetime.fromtimestamp(0, UTC)


def _condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    return next((one for one in status.get("conditions") or () if one.get("type") == kind and one.get("status") == "True"), None)


def _time(text: str | None) -> datetime | None:
    return None if not text else datetime.fromisoformat(text)
