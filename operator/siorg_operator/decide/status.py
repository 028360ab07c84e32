"""What the resource's status says, and the events that tell of its changes. Pure: the old status and a plan in, the new one out.

Status is written only when it differs, so numbers that always move (ages, predictions) keep their last value until the
change is worth telling.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from siorg_operator.api.resource import SiorgSyncWorker
from siorg_operator.decide.job_failures import Trouble
from siorg_operator.decide.manifests import COMPONENT_LABEL, WORKER_LABEL
from siorg_operator.decide.plan import Plan, long_pause
from siorg_operator.decide.state import Backlog, Ending, Fault, Job, JobState, Reading, Unreadable, rfc3339

Fields = dict[str, Any]

_WORTH_TELLING = 0.25  # relative change of an age, a rate or a prediction
_LONGEST_MESSAGE = 1024  # characters of a condition's message; Kubernetes allows 32768

_DO_ABOUT = {
    Ending.SIORG_UNAVAILABLE: "No attempt is counted meanwhile; check SIORG and spec.siorg.url if it lasts",
    Ending.SIORG_RATE_LIMITED: "No attempt is counted meanwhile; lower spec.siorg.maxRequestsPerSecond if it comes back",
    Ending.DATABASE_UNAVAILABLE: "See QueueReachable: where it is True, only the pods fail; check network policies and connection"
    " limits then",
    Ending.WRONG_SETTINGS: "Correct what the message names, in the resource or its Secrets; a change is tried at once",
    Ending.STUCK: "Correct what the message names (image, pull secrets, Secrets, node selection); a change is tried at once",
    Ending.NOTHING: "Another transaction holds the rows, or somebody else takes them: look in pg_stat_activity for sessions that"
    " are idle in transaction, and for workers that still run",
    Ending.DEADLINE: "Raise spec.job.activeDeadlineSeconds, or see what the Job's log says",
    Ending.FAILED: "See the log of that Job (kubectl logs job/…); a change of the resource is tried at once",
}


def _advice(trouble: Trouble) -> str:
    if trouble.ending is Ending.FAILED and "OOMKilled" in trouble.message:  # of which its log holds nothing
        return "Raise spec.job.resources.limits.memory, or lower spec.worker.batchSize and concurrency; a change is tried at once"
    return _DO_ABOUT[trouble.ending]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that changed, for ``kubectl describe`` and ``kubectl events``."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


def compose(
    resource: SiorgSyncWorker, backlog: Backlog, plan: Plan, jobs: Sequence[Job], now: datetime, faults: Sequence[Fault] = ()
) -> Fields:
    """The whole new status, as it is written: camelCase, without empty parts.

    ``faults``: what is wrong beside the drain Jobs; the first of them is told.
    """
    old = resource.status.body()
    counts = _count(jobs)
    counts[JobState.PENDING] += len(plan.launches)  # they are there by now
    status: Fields = {
        "observedGeneration": resource.metadata.generation or 0,
        "conditions": [
            _condition(kind, value, reason, message, resource, now)
            for kind, value, reason, message in _conditions(resource, backlog, plan, jobs, faults)
        ],
        "queue": _queue(backlog.reading, old.get("queue") or {}),
        "jobs": {
            "desired": plan.desired,
            "active": counts[JobState.ACTIVE],
            "pending": counts[JobState.PENDING],
            "succeeded": counts[JobState.SUCCEEDED],
            "failed": counts[JobState.FAILED],
            "lastRound": max([resource.status.jobs.last_round, *_rounds_over(plan, jobs)]),
            **_last_finished(jobs, old.get("jobs") or {}),
        },
        "selector": f"{COMPONENT_LABEL}=drain,{WORKER_LABEL}={resource.metadata.name}",
        "rate": _steady(plan.rate, old.get("rate")),
        "requestRate": _steady(plan.request_rate, old.get("requestRate")),
        "predictedDrainSeconds": _whole(_steady(plan.predicted_drain_seconds, old.get("predictedDrainSeconds"))),
        "lastDecision": _decision(plan, old.get("lastDecision"), now),
        "trouble": _trouble(plan),
    }
    return {key: value for key, value in status.items() if value is not None}


def invalid(resource_status: Mapping[str, Any], generation: int, message: str, now: datetime) -> Fields:
    """The status of a resource that cannot be understood: nothing is decided, what is known stays."""
    status = {key: value for key, value in resource_status.items() if key != "conditions"}
    before = {one.get("type"): one for one in resource_status.get("conditions") or ()}
    told = (
        ("Ready", "False", "InvalidSpec", message),
        ("ScalingActive", "False", "InvalidSpec", "Nothing is launched until spec is corrected; what runs drains"),
    )
    kinds = {kind for kind, *_ in told}
    kept = [one for kind, one in before.items() if kind not in kinds]
    made = [_as_condition(kind, value, reason, text, generation, before.get(kind), now) for kind, value, reason, text in told]
    return {**status, "observedGeneration": generation, "conditions": made + kept}


def merge_patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> Fields:
    """The JSON merge patch (RFC 7386) that makes ``old`` into ``new``; empty when they are equal."""
    patch: Fields = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            if part := merge_patch(before, value):
                patch[key] = part
        elif value != before:
            patch[key] = value
    return patch


def events(old: Mapping[str, Any], new: Mapping[str, Any], plan: Plan | None) -> list[Event]:
    """What changed between two statuses, and what was done to Jobs: transitions only, never a state."""
    before = {one["type"]: one for one in old.get("conditions") or ()}
    changes = (_of_condition(condition, before.get(condition["type"])) for condition in new.get("conditions") or ())
    told = [event for event in changes if event is not None]
    if plan is None:
        return told
    if plan.launches and plan.unfinished == 0:
        told.append(Event("Normal", "ScaledUp", _sentence(plan.message)))
    told.extend(
        Event("Warning", "StuckJobEnded", f"{removal.name}: {removal.stuck.reason}: {removal.stuck.message}"[:_LONGEST_MESSAGE])
        for removal in plan.end
    )
    had = old.get("jobs") or {}
    if plan.depth == 0 and plan.unfinished == 0 and had.get("active", 0) + had.get("pending", 0) > 0:
        told.append(Event("Normal", "QueueDrained", "The queue is empty and every Job has ended"))
    return told


# -- conditions -------------------------------------------------------------------------------------------------------

_Told = tuple[str, str, str, str]


def _conditions(
    resource: SiorgSyncWorker, backlog: Backlog, plan: Plan, jobs: Sequence[Job], faults: Sequence[Fault]
) -> list[_Told]:
    reachable = _queue_reachable(backlog)
    siorg = _siorg_available(backlog, plan, jobs, resource)
    scaling = _scaling_active(plan, resource)
    degraded = _degraded(backlog, plan, jobs, faults)
    return [_ready(reachable, scaling, degraded, siorg), reachable, siorg, scaling, degraded]


def _queue_reachable(backlog: Backlog) -> _Told:
    if isinstance(backlog.reading, Unreadable):
        return "QueueReachable", "False", backlog.reading.reason, _sentence(backlog.reading.message)
    return "QueueReachable", "True", "Connected", "The queue is read"


def _siorg_available(backlog: Backlog, plan: Plan, jobs: Sequence[Job], resource: SiorgSyncWorker) -> _Told:
    trouble = plan.trouble
    if trouble is not None and trouble.of_siorg:
        value = "Unknown" if plan.dormant else "False"
        return "SiorgAvailable", value, trouble.reason, _sentence(f"{_with_retry(plan)}. {_advice(trouble)}")
    if isinstance(backlog.reading, Reading) and long_pause(backlog.reading):
        return "SiorgAvailable", "False", "SiorgRateLimited", "SIORG asked for no requests for a while: Jobs wait for it"
    if any(job.summary is not None and job.summary.requests > job.summary.request_errors for job in jobs):
        return "SiorgAvailable", "True", "Answering", "SIORG answered the last Jobs"
    before = next((one for one in resource.status.conditions if one.type == "SiorgAvailable"), None)
    if before is not None and before.status == "True":
        return "SiorgAvailable", "True", before.reason, before.message
    if before is not None and before.status == "False":
        return "SiorgAvailable", "True", "Recovered", "The trouble is over: a Job has been at work since"
    return "SiorgAvailable", "Unknown", "NotAskedYet", "No Job has ended yet that tells whether SIORG answers"


_KEPT_FROM_SCALING = frozenset(
    {
        "BeingDeleted",
        "Suspended",
        "SyncDisabled",
        "DepthUnknown",
        "SecretMissing",
        "ConnectionBudget",
        "SiorgRateLimited",
        "LaunchFailed",
    }
)


def _scaling_active(plan: Plan, resource: SiorgSyncWorker) -> _Told:
    if plan.reason in _KEPT_FROM_SCALING:
        return "ScalingActive", "False", plan.reason, _sentence(plan.why)
    # What a person chose is told whatever the queue holds at the moment.
    if resource.spec.mode == "Observe":
        return "ScalingActive", "False", "Observe", "spec.mode is Observe: decisions are told, nothing is launched"
    if resource.spec.scaling.max_jobs == 0:
        return "ScalingActive", "False", "Suspended", "spec.scaling.maxJobs is 0: nothing is launched"
    if plan.trouble is not None and not plan.dormant:
        word = plan.trouble.reason
        return "ScalingActive", "False", word, _sentence(f"Nothing but single probe Jobs is launched: {_with_retry(plan)}")
    return "ScalingActive", "True", "Scaling", "Jobs are launched as the queue needs them"


def _degraded(backlog: Backlog, plan: Plan, jobs: Sequence[Job], faults: Sequence[Fault]) -> _Told:
    if backlog.siorg_token_problem is not None:
        return "Degraded", "True", "SecretMissing", _sentence(backlog.siorg_token_problem)
    trouble = plan.trouble
    if trouble is not None and not trouble.of_siorg:
        return "Degraded", "True", trouble.reason, _sentence(f"{_with_retry(plan)}. {_advice(trouble)}")
    stuck = next((job for job in jobs if job.unfinished and job.stuck is not None), None)
    if stuck is not None and stuck.stuck is not None:
        text = f"The pod of Job {stuck.name} cannot start: {stuck.stuck.reason}: {stuck.stuck.message}"
        return "Degraded", "True", "PodsStuck", _sentence(f"{text}. It is removed after a grace. {_DO_ABOUT[Ending.STUCK]}")
    if faults:
        return "Degraded", "True", faults[0].reason, _sentence(faults[0].message)
    return "Degraded", "False", "AsExpected", "Jobs start and end as they should"


def _ready(reachable: _Told, scaling: _Told, degraded: _Told, siorg: _Told) -> _Told:
    """The summary: the first thing that a person should look at."""
    if reachable[1] != "True":
        return "Ready", "False", *reachable[2:]
    if degraded[1] == "True":
        return "Ready", "False", *degraded[2:]
    if siorg[1] == "False":
        return "Ready", "False", *siorg[2:]
    if scaling[1] != "True":
        # Told to launch nothing: that is a choice, and it is being kept.
        return "Ready", "True" if scaling[2] in _CHOSEN else "False", *scaling[2:]
    return "Ready", "True", "AsExpected", "The queue is read and Jobs are launched as it needs them"


def _with_retry(plan: Plan) -> str:
    assert plan.trouble is not None  # asked only then
    if plan.dormant:
        return f"{plan.trouble.sentence}; nothing waits now, and the next work is taken up by a single probe Job"
    when = "" if plan.retry_at is None else f"; one probe Job may leave at {rfc3339(plan.retry_at)}"
    return plan.trouble.sentence + when


def _condition(kind: str, value: str, reason: str, message: str, resource: SiorgSyncWorker, now: datetime) -> Fields:
    before = next((one for one in resource.status.conditions if one.type == kind), None)
    told = None if before is None else before.body()
    return _as_condition(kind, value, reason, message, resource.metadata.generation or 0, told, now)


def _as_condition(
    kind: str, value: str, reason: str, message: str, generation: int, before: Mapping[str, Any] | None, now: datetime
) -> Fields:
    """A condition in Kubernetes' form; its transition time moves only when its status does."""
    since = before.get("lastTransitionTime") if before is not None and before.get("status") == value else None
    return {
        "type": kind,
        "status": value,
        "reason": reason,
        "message": message[:_LONGEST_MESSAGE],
        "lastTransitionTime": since or rfc3339(now),
        "observedGeneration": generation,
    }


_GOOD = {"Ready": "True", "QueueReachable": "True", "SiorgAvailable": "True", "ScalingActive": "True", "Degraded": "False"}
_WELL_AGAIN = {"Degraded": "Recovered", "ScalingActive": "ScalingResumed"}
_CHOSEN = frozenset({"BeingDeleted", "Suspended", "Observe", "SyncDisabled"})
_TOLD_BY_ANOTHER = frozenset(
    {"DepthUnknown", "SecretMissing", "SiorgRateLimited", "SiorgUnavailable", "JobsFailing", "PodsStuck", "NothingClaimable"}
)
"""Reasons of ScalingActive behind which another condition stands, with an event of its own."""


def _of_condition(condition: Mapping[str, Any], before: Mapping[str, Any] | None) -> Event | None:
    kind = condition["type"]
    if kind == "Ready" or kind not in _GOOD:  # a summary, behind which another has its own event; or none of ours
        return None
    good = {_GOOD[kind], "Unknown"}
    was_good, is_good = before is None or before["status"] in good, condition["status"] in good
    same_trouble = before is not None and before["reason"] == condition["reason"]
    if is_good:
        if before is None or was_good or condition["status"] == "Unknown":
            return None
        return Event("Normal", _WELL_AGAIN.get(kind, kind), condition["message"])
    if not was_good and same_trouble:
        return None
    if kind == "ScalingActive" and condition["reason"] in _TOLD_BY_ANOTHER:
        return None
    return Event("Normal" if condition["reason"] in _CHOSEN else "Warning", condition["reason"], condition["message"])


# -- parts ------------------------------------------------------------------------------------------------------------


def _queue(reading: Reading | Unreadable, old: Fields) -> Fields | None:
    if isinstance(reading, Unreadable):
        return old or None  # the last that was known; QueueReachable says that it is old
    age = _whole(_steady(reading.oldest_due_seconds, old.get("oldestDueSeconds")))
    return {
        "claimable": reading.claimable,
        "due": reading.due,
        "scheduled": reading.scheduled,
        "processing": reading.processing,
        "failed": reading.failed,
        "conflict": reading.conflict,
        **({} if age is None else {"oldestDueSeconds": age}),
    }


def _count(jobs: Sequence[Job]) -> dict[JobState, int]:
    return {state: sum(job.state is state for job in jobs) for state in JobState}


def _rounds_over(plan: Plan, jobs: Sequence[Job]) -> list[int]:
    """Of Jobs that are being removed, and of all once nothing is left to do: only then may no name be on its way any more."""
    at_rest = plan.depth == 0 and plan.unfinished == 0
    return [job.round for job in jobs if at_rest or job.name in plan.remove]


def _last_finished(jobs: Sequence[Job], old: Fields) -> Fields:
    times = [rfc3339(job.finished_at) for job in jobs if job.finished_at is not None]
    last = max([*times, old.get("lastFinishedTime") or ""])
    return {"lastFinishedTime": last} if last else {}


def _decision(plan: Plan, old: Fields | None, now: datetime) -> Fields:
    new = {"reason": plan.reason, "message": plan.message[:_LONGEST_MESSAGE], "launched": len(plan.launches)}
    if old is not None and not plan.launches and {**old, "time": None} == {**new, "time": None}:
        return old
    if old is not None and plan.reason == "EnoughJobs" and old.get("launched"):
        return old  # the launch is what explains the Jobs that are there
    return {"time": rfc3339(now), **new}


def _trouble(plan: Plan) -> Fields | None:
    trouble = plan.trouble
    if trouble is None or plan.retry_at is None:
        return None
    return {
        "reason": trouble.ending.value,
        "streak": trouble.streak,
        "since": rfc3339(trouble.since),
        "lastFailureTime": rfc3339(trouble.last_failure),
        "retryTime": rfc3339(plan.retry_at),
        "message": trouble.message,
        "template": trouble.template,
    }


def _steady(new: float | None, old: float | None) -> float | None:
    """``old`` as long as ``new`` tells nothing that a person would act on."""
    if new is None or old is None or (new == 0) != (old == 0):
        return None if new is None else _two_digits(new)
    moved = abs(new - old)
    return old if moved <= max(abs(old), abs(new)) * _WORTH_TELLING or (old >= 1 and moved < 1) else _two_digits(new)


def _two_digits(value: float) -> float:
    if not 0 <= value < math.inf:
        return 0.0
    return float(f"{value:.2g}") if value < 100 else float(round(value))


def _whole(value: float | None) -> int | None:
    return None if value is None else max(math.ceil(value), 0)


def _sentence(text: str) -> str:
    first = text.partition(" ")[0]
    is_a_name = any(letter == "." or letter.isupper() for letter in first[1:])  # spec.suspend, maxJobs: as one writes them
    return text if is_a_name else text[:1].upper() + text[1:]
