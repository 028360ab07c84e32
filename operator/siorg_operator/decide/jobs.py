"""A ``Job`` as the decision needs it, out of Kubernetes' Job and Pod objects. Only what is kept of them stays in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from siorg_operator.api.resource import KIND
from siorg_operator.decide.manifests import CONTAINER, ROUND_LABEL, SLOT_LABEL, STUCK_ANNOTATION, TEMPLATE_LABEL
from siorg_operator.decide.state import OUTCOMES, Ending, Job, JobState, Stuck, Summary, later
from siorg_runtime.redaction import without_known_places

CANNOT_START: Final = frozenset({
    "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError", "RegistryUnavailable",
    "CreateContainerConfigError", "CreateContainerError", "RunContainerError",
})  # fmt: skip
"""Reasons for which a container waits and that do not go away by waiting a moment."""

_ON_ITS_WAY: Final = frozenset({"ContainerCreating", "PodInitializing"})
_POD_LAGS_SECONDS = 5.0
_STARTS_WITHIN_SECONDS = 900.0
"""A pod that was not made by then, or whose container was not, will not be: a quota, a missing volume, an init container that
waits for something. Pulling a large image and starting a node take minutes."""
_POD_MADE_WITHIN_SECONDS = 60.0
"""The Job controller makes a pod within a second; it is told when it could not for so long."""
_LONG_AGO = datetime.fromtimestamp(0, UTC)
_LONGEST_MESSAGE = 300  # characters of what a failed Job said of itself
_COUNTS: Final = (*OUTCOMES, "claimed", "requests", "request_errors")
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
    """When it was Complete or Failed."""
    failed_because: str | None
    """Reason of the condition Failed; None: it has not failed."""
    failure_message: str = ""
    stuck_because: str = ""
    """Why the operator ended it, if it did."""
    has_pods: bool = True
    """Whether it has pods as far as the Job controller knows, or is not meant to have any (suspended, by Kueue for one)."""


@dataclass(frozen=True, slots=True)
class PodRecord:
    """What is kept of a Pod object."""

    name: str
    running: bool
    started_at: datetime | None
    stuck: Stuck | None = None
    on_its_way: Stuck | None = None
    """For a pod that a node took and whose container is not made yet: since when, and Kubernetes' word for it."""
    exit_code: int | None = None
    """Of the container, when it has ended."""
    exit_reason: str = ""
    termination_message: str = ""
    finished_at: datetime | None = None


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
    failed, complete = _condition(status, "Failed", "True"), _condition(status, "Complete", "True")
    ended = failed or complete
    created = _time(metadata.get("creationTimestamp")) or _LONG_AGO
    return JobRecord(
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        slot=int(slot),
        round=int(round_),
        template=labels.get(TEMPLATE_LABEL, ""),
        created_at=created,
        finished_at=(_time(status.get("completionTime")) or _time(ended.get("lastTransitionTime")) or created) if ended else None,
        failed_because=(failed.get("reason") or "Failed") if failed and not complete else None,
        failure_message=failed.get("message") or "",
        stuck_because=(metadata.get("annotations") or {}).get(STUCK_ANNOTATION, ""),
        has_pods=bool(status.get("active") or status.get("terminating") or (body.get("spec") or {}).get("suspend")),
    )


def pod_record(body: Mapping[str, Any]) -> PodRecord:
    """What is kept of a Pod."""
    metadata, status = body["metadata"], body.get("status") or {}
    states = {container.get("name"): container.get("state") or {} for container in status.get("containerStatuses") or ()}
    state: Mapping[str, Any] = states.get(CONTAINER, {})
    running, terminated, waiting = state.get("running"), state.get("terminated") or {}, state.get("waiting") or {}
    taken = _time(_condition(status, "PodScheduled", "True").get("lastTransitionTime"))
    waits = not (running or terminated or metadata.get("deletionTimestamp"))  # one that is on its way out has a successor
    return PodRecord(
        name=metadata["name"],
        running=running is not None,
        started_at=_time((running or terminated).get("startedAt")),
        stuck=_stuck(metadata, status, waiting) if waits else None,
        on_its_way=Stuck(waiting["reason"], "", taken) if waits and taken and waiting.get("reason") in _ON_ITS_WAY else None,
        exit_code=terminated.get("exitCode"),
        exit_reason=terminated.get("reason") or "",
        termination_message=terminated.get("message") or "",
        finished_at=_time(terminated.get("finishedAt")),
    )


def combine(job: JobRecord, pods: Iterable[PodRecord], now: datetime, clean: Callable[[str], str] = without_known_places) -> Job:
    """One Job with its pods; of several pods the newest that ended speaks for it.

    Events of Jobs and of pods come on different streams: one that has ended is unfinished for a few seconds more when its
    pod's end is not known yet. How it ended decides too much to be guessed.

    ``clean`` takes the secrets out of what a Job or a pod says of itself, while that is still whole.
    """
    pods = list(pods)
    ended = max((pod for pod in pods if pod.exit_code is not None), key=lambda pod: pod.finished_at or _LONG_AGO, default=None)
    running = [pod for pod in pods if pod.running]
    if ended is not None:
        ended = replace(ended, termination_message=clean(ended.termination_message))
    elif _ended_a_moment_ago(job, now):
        job = replace(job, failed_because=None, finished_at=None)
    summary = None if ended is None else read_summary(ended.termination_message)
    if job.finished_at is None:
        state = JobState.ACTIVE if running else JobState.PENDING
    else:
        state = JobState.SUCCEEDED if job.failed_because is None else JobState.FAILED
    starts = [pod.started_at for pod in running or ([ended] if ended else []) if pod.started_at is not None]
    ending = _ending(job, ended, summary)
    stuck = _stuck_job(job, pods, now) if state is JobState.PENDING else None
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
        stuck=stuck and replace(stuck, message=_one_line(clean(stuck.message))),
        summary=None if job.finished_at is None else summary,
        uid=job.uid,
    )


def _ended_a_moment_ago(job: JobRecord, now: datetime) -> bool:
    if job.finished_at is None or job.stuck_because or job.failed_because == "DeadlineExceeded":
        return False  # the Job controller removed the pod: nothing more will be heard of it
    return abs((now - job.finished_at).total_seconds()) < _POD_LAGS_SECONDS  # clocks differ: far ahead is not a moment ago


def _stuck_job(job: JobRecord, pods: list[PodRecord], now: datetime) -> Stuck | None:
    """Why a Job does not start: what its pod says, or that nothing has come of it for too long."""
    if job.stuck_because:  # the operator has ended it: until the Job controller says so too, it is what it was
        reason, _, message = job.stuck_because.partition(": ")
        return Stuck(reason, message, job.created_at)
    stuck = next((pod.stuck for pod in pods if pod.stuck), None)
    if stuck is not None:
        return stuck
    for pod in pods:
        waits = pod.on_its_way
        if waits is not None and (now - waits.since).total_seconds() >= _STARTS_WITHIN_SECONDS:
            why = "an init container does not end" if waits.reason == "PodInitializing" else "a volume is missing"
            return replace(waits, message=f"its container is not made: {why}, most likely (kubectl describe pod {pod.name})")
    if not pods and not job.has_pods and (now - job.created_at).total_seconds() >= _POD_MADE_WITHIN_SECONDS:
        about = f"no pod is made for it: a quota or an admission rule refuses it, most likely (kubectl describe job {job.name})"
        # Told early, for a person can mend it; ended late, for it starts by itself once it is mended.
        return Stuck("NoPod", about, later(job.created_at, _STARTS_WITHIN_SECONDS))
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


def _ending(job: JobRecord, ended: PodRecord | None, summary: Summary | None) -> Ending | None:
    if job.failed_because is None:
        return None if job.finished_at is None else Ending.DONE
    if job.stuck_because:
        return Ending.STUCK
    if job.failed_because == "DeadlineExceeded":
        return Ending.DEADLINE
    if ended is not None and ended.exit_code == 75 and summary is not None:
        return _ENDINGS_OF_TRY_LATER.get(summary.reason, Ending.FAILED)
    if ended is not None and ended.exit_code == 2:
        return Ending.WRONG_SETTINGS
    return Ending.OUT_OF_MEMORY if ended is not None and ended.exit_reason == "OOMKilled" else Ending.FAILED


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


def _stuck(metadata: Mapping[str, Any], status: Mapping[str, Any], waiting: Mapping[str, Any]) -> Stuck | None:
    scheduled = _condition(status, "PodScheduled")
    since = _time(scheduled.get("lastTransitionTime")) or _time(metadata.get("creationTimestamp")) or _LONG_AGO
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        return Stuck("Unschedulable", scheduled.get("message") or "", since)
    if waiting.get("reason") in CANNOT_START:
        return Stuck(waiting["reason"], waiting.get("message") or "", since)
    # Before the container come those that others put in front of it: Vault, Istio.
    for container in status.get("initContainerStatuses") or ():
        first = (container.get("state") or {}).get("waiting") or {}
        if first.get("reason") in CANNOT_START:
            return Stuck(first["reason"], f"init container {container.get('name')}: {first.get('message') or ''}", since)
    return None


def _condition(status: Mapping[str, Any], kind: str, value: str = "") -> Mapping[str, Any]:
    """The condition of a type, where it has that status; empty: there is none."""
    conditions = (found for found in status.get("conditions") or () if found.get("type") == kind)
    return next((found for found in conditions if not value or found.get("status") == value), {})


def _time(text: str | None) -> datetime | None:
    return None if not text else datetime.fromisoformat(text)
