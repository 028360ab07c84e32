"""What the resource's status says, and the events that tell of its changes. Pure: the old status and a result in, the new out.

Status is written only when it differs, so numbers that always move (ages, predictions) keep their last value until the
change is worth telling.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

from siorg_operator.api.resource import FailedRun, SiorgSyncWorker
from siorg_operator.decide import wording
from siorg_operator.decide.in_sync import in_sync
from siorg_operator.decide.manifests import COMPONENT_LABEL, WORKER_LABEL, CronComponent
from siorg_operator.decide.plan import siorg_pause
from siorg_operator.decide.planned import Hold, Plan, Result
from siorg_operator.decide.reasons import ConditionType, Reason
from siorg_operator.decide.state import DEPARTURES, Fault, Job, JobState, QueueState, Reading, Unreadable, rfc3339, whole_second

Fields = dict[str, Any]

_WORTH_TELLING = 0.25  # relative change of an age, a rate or a prediction
_LARGEST_WHOLE = 2.0**53  # every whole number up to it is exact, and fits the definition's int64
_LONGEST_MESSAGE = 1024  # characters of a condition's message; Kubernetes allows 32768


@dataclass(frozen=True, slots=True)
class Event:
    """Something that changed, for ``kubectl describe`` and ``kubectl events``."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


def compose(
    resource: SiorgSyncWorker,
    queue: QueueState,
    result: Result,
    jobs: Sequence[Job],
    now: datetime,
    faults: Sequence[Fault] = (),
    failed_runs: Mapping[CronComponent, FailedRun | None] = MappingProxyType({}),
    *,
    discovery_begun: bool = False,
) -> Fields:
    """The whole new status, as it is written: camelCase, without empty parts.

    ``faults``: what is wrong beside the drain Jobs; the first of them is told, and others of its kind. ``failed_runs``: the last
    runs of CronJobs, where they failed. ``discovery_begun``: whether a discovery has.
    """
    plan, old, generation = _as_carried_out(result), resource.status.body(), resource.metadata.generation or 0
    before = by_type(old)
    verified = _Aspect(*in_sync(resource, queue))
    aspects = (
        _queue_reachable(queue),
        _siorg_available(resource, queue, plan, jobs),
        _scaling_active(resource, result, plan),
        _degraded(queue, plan, jobs, faults),
    )
    states = Counter(job.state for job in jobs)
    last_finished = max(
        [rfc3339(job.finished_at) for job in jobs if job.finished_at is not None]
        # One that lies ahead, as another clock had it, would stay the last for ever.
        + [min((old.get("jobs") or {}).get("lastFinishedTime") or "", rfc3339(now))]
    )
    # The rounds of Jobs that are removed are used up, and all once nothing is left to do: then no name is on its way any more.
    at_rest = plan.depth == 0 and plan.unfinished == 0
    status: Fields = {
        "observedGeneration": generation,
        "conditions": [
            _body(kind, aspect, before.get(kind), generation, now)
            for kind, aspect in zip(ConditionType, (_ready(plan, *aspects), verified, *aspects), strict=True)
        ],
        "queue": _queue(queue.reading, old.get("queue") or {}),  # not there while it is not known
        "verification": _verification(queue.reading, old.get("verification") or {}),
        "jobs": {
            "desired": plan.desired,
            "active": states[JobState.ACTIVE],
            # Those that were launched are there by now.
            "pending": states[JobState.PENDING] + states[JobState.SUSPENDED] + len(result.launched),
            "succeeded": states[JobState.SUCCEEDED],
            "failed": states[JobState.FAILED],
            "lastRound": max([resource.status.jobs.last_round, *(job.round for job in (jobs if at_rest else plan.remove))]),
            **({"lastFinishedTime": last_finished} if last_finished else {}),
        },
        "discovery": old.get("discovery") or ({"begunTime": rfc3339(now)} if discovery_begun else None),
        "selector": f"{COMPONENT_LABEL}=drain,{WORKER_LABEL}={resource.metadata.name}",
        "rate": _steady(plan.size.rates.items, old.get("rate")),
        "requestRate": _steady(plan.size.rates.requests, old.get("requestRate")),
        "predictedDrainSeconds": _whole(_steady(plan.predicted_drain_seconds, old.get("predictedDrainSeconds"))),
        "lastDecision": _decision(resource, result, old.get("lastDecision"), now),
        "backoff": _backoff(plan),
        "failedRuns": _failed_runs(failed_runs),
    }
    return {key: value for key, value in status.items() if value is not None}


def invalid(old: Mapping[str, Any], generation: int, message: str, now: datetime) -> Fields:
    """The status of a resource that cannot be understood: nothing is looked at, and only what a later pass needs stays."""
    before = by_type(old)
    aspects = {kind: _Aspect("Unknown", Reason.INVALID_SPEC, wording.NOT_LOOKED_AT) for kind in ConditionType}
    aspects[ConditionType.READY] = _Aspect("False", Reason.INVALID_SPEC, message)
    aspects[ConditionType.SCALING_ACTIVE] = _Aspect("False", Reason.INVALID_SPEC, wording.INVALID_SPEC)
    jobs = {name: value for name, value in (old.get("jobs") or {}).items() if name in _REMEMBERED_OF_JOBS}
    decision = {"reason": Reason.INVALID_SPEC.value, "message": wording.INVALID_SPEC, "launched": 0}
    return {
        **{name: value for name, value in old.items() if name in _REMEMBERED},
        "observedGeneration": generation,
        "conditions": [_body(kind, aspect, before.get(kind), generation, now) for kind, aspect in aspects.items()],
        **({"jobs": jobs} if jobs else {}),
        "lastDecision": _dated(decision, old.get("lastDecision"), now),
    }


_REMEMBERED: Final = frozenset({"verification", "selector", "rate", "requestRate", "backoff", "failedRuns"})
_REMEMBERED_OF_JOBS: Final = frozenset({"lastRound", "lastFinishedTime"})
"""What is true, or dated, whether anything is looked at or not."""


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


def _as_carried_out(result: Result) -> Plan:
    """The plan, with the probe that was launched among those that will show whether failures are over."""
    plan = result.plan
    if plan.backoff is None:
        return plan
    return replace(plan, backoff=replace(plan.backoff, probes=plan.backoff.probes + len(result.launched)))


# -- conditions -------------------------------------------------------------------------------------------------------


class _Aspect(NamedTuple):
    """What a condition says."""

    status: Literal["True", "False", "Unknown"]
    reason: str
    """A ``Reason``, or the word that another version of the operator had."""
    message: str


def _queue_reachable(queue: QueueState) -> _Aspect:
    reading = queue.reading
    if isinstance(reading, Unreadable):
        return _Aspect("False", reading.reason, wording.sentence(reading.message))
    return _Aspect("True", Reason.CONNECTED, wording.QUEUE_READ)


def _siorg_available(resource: SiorgSyncWorker, queue: QueueState, plan: Plan, jobs: Sequence[Job]) -> _Aspect:
    backoff = plan.backoff
    if backoff is not None and backoff.failures.of_siorg:
        return _Aspect("Unknown" if backoff.dormant else "False", backoff.failures.reason, wording.advice(backoff))
    if siorg_pause(queue):
        return _Aspect("False", Reason.SIORG_RATE_LIMITED, wording.SIORG_PAUSED)
    if any(job.summary is not None and job.summary.requests > job.summary.request_errors for job in jobs):
        return _Aspect("True", Reason.ANSWERING, wording.SIORG_ANSWERS)
    before = next((found for found in resource.status.conditions if found.type == ConditionType.SIORG_AVAILABLE), None)
    if before is not None and before.status == "True":
        return _Aspect("True", before.reason, before.message)
    if before is not None and before.status == "False":
        return _Aspect("True", Reason.RECOVERED, wording.SIORG_RECOVERED)
    return _Aspect("Unknown", Reason.NOT_ASKED_YET, wording.SIORG_NOT_ASKED)


def _scaling_active(resource: SiorgSyncWorker, result: Result, plan: Plan) -> _Aspect:
    hold = plan.hold
    if result.refused:
        return _Aspect("False", result.reason, wording.sentence(result.refused))
    # SIORG's wish for a pause comes first, whether it was read in the database or Jobs came home with it.
    if hold is None or (hold.failures is not None and hold.reason is not Reason.SIORG_RATE_LIMITED):
        # What a person chose is told whatever the queue holds at the moment.
        if resource.spec.mode == "Observe":
            hold = Hold(Reason.OBSERVE)
        elif resource.spec.scaling.max_jobs == 0:
            hold = Hold(Reason.SUSPENDED, stopping=plan.stopping)
        elif plan.backoff is not None and not plan.backoff.dormant:
            return _Aspect("False", plan.backoff.failures.reason, wording.only_probes(plan.backoff))
        else:
            if plan.suspended:
                return _Aspect("True", Reason.PENDING_ADMISSION, wording.pending_admission(plan))
            return _Aspect("True", Reason.SCALING, wording.SCALING)
    return _Aspect("False", hold.reason, wording.sentence(wording.hold(resource, plan.size, hold)))


def _degraded(queue: QueueState, plan: Plan, jobs: Sequence[Job], faults: Sequence[Fault]) -> _Aspect:
    if queue.siorg_token_error is not None:
        return _Aspect("True", Reason.SECRET_MISSING, wording.sentence(queue.siorg_token_error))
    if plan.backoff is not None and not plan.backoff.failures.of_siorg:
        return _Aspect("True", plan.backoff.failures.reason, wording.advice(plan.backoff))
    for job in jobs:
        if job.unfinished and job.stuck is not None and job not in plan.unschedulable:
            return _Aspect("True", Reason.PODS_STUCK, wording.stuck_pod(job, job.stuck))
    if faults:
        return _Aspect("True", faults[0].reason, wording.faults(faults))
    return _Aspect("False", Reason.AS_EXPECTED, f"{wording.NOT_DEGRADED}{wording.no_node_yet(plan)}")


def _ready(plan: Plan, reachable: _Aspect, siorg: _Aspect, scaling: _Aspect, degraded: _Aspect) -> _Aspect:
    """The summary: the first thing that a person should look at."""
    for cause, bad in ((reachable, "False"), (degraded, "True"), (siorg, "False"), (scaling, "False")):
        if cause.status == bad:
            # Told to launch nothing: that is a choice, and it is being kept.
            return cause._replace(status="True" if cause is scaling and Reason(cause.reason).chosen else "False")
    if scaling.reason is Reason.PENDING_ADMISSION:
        return scaling
    return _Aspect("True", Reason.AS_EXPECTED, f"{wording.AS_EXPECTED}{wording.no_node_yet(plan)}")


def _body(kind: ConditionType, aspect: _Aspect, before: Mapping[str, Any] | None, generation: int, now: datetime) -> Fields:
    """A condition in Kubernetes' form; its transition time moves only when its status does."""
    since = before.get("lastTransitionTime") if before is not None and before.get("status") == aspect.status else None
    return {
        "type": kind.value,
        "status": aspect.status,
        "reason": str(aspect.reason),
        "message": aspect.message[:_LONGEST_MESSAGE],
        "lastTransitionTime": since or rfc3339(now),
        "observedGeneration": generation,
    }


def by_type(status: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The conditions of a status."""
    return {condition["type"]: condition for condition in status.get("conditions") or ()}


# -- events -----------------------------------------------------------------------------------------------------------

BAD: Final = {kind.value: str(kind is ConditionType.DEGRADED) for kind in ConditionType if kind is not ConditionType.READY}
"""What each is when something is wrong. Ready is not among them: it sums up, and behind it another has its own event."""
_WELL_AGAIN: Final[Mapping[str, str]] = {
    ConditionType.DEGRADED: Reason.RECOVERED,
    ConditionType.SCALING_ACTIVE: Reason.SCALING_RESUMED,
}


def transitions(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Event]:
    """What changed between two statuses: never a state."""
    events, known = [], {reason.value: reason for reason in Reason}
    before = {kind: condition["reason"] for kind, condition in by_type(old).items() if condition["status"] == BAD.get(kind)}
    for kind, condition in by_type(new).items():
        reason, status = condition["reason"], condition["status"]
        if kind in before and status not in {BAD[kind], "Unknown"}:
            events.append(Event("Normal", _WELL_AGAIN.get(kind, kind), condition["message"]))
        elif status == BAD.get(kind) and before.get(kind) != reason:
            if kind == ConditionType.SCALING_ACTIVE and reason in known and known[reason].condition != kind:
                continue  # the condition that owns it has the event
            chosen = reason in known and known[reason].chosen
            events.append(Event("Normal" if chosen else "Warning", reason, condition["message"]))
    return events


def actions(resource: SiorgSyncWorker, old: Mapping[str, Any], result: Result) -> list[Event]:
    """What was done to Jobs."""
    plan, had, found = result.plan, old.get("jobs") or {}, []
    if result.launched and plan.unfinished == 0:
        found.append(Event("Normal", Reason.SCALED_UP, wording.sentence(wording.decision(resource, result))))
    if result.first_discovery:
        told = wording.first_discovery(resource, result.first_discovery)
        found.append(Event("Normal", Reason.FIRST_DISCOVERY, told))
    if result.stopped:
        found.append(Event("Normal", Reason.JOBS_STOPPED, wording.stopped(resource, result)))
    found += [
        Event("Normal" if removal.last_words else "Warning", removal.reason, wording.removal(removal)[:_LONGEST_MESSAGE])
        for removal in result.ended
    ]
    if plan.depth == 0 and plan.unfinished == 0 and had.get("active", 0) + had.get("pending", 0) > 0:
        found.append(Event("Normal", Reason.QUEUE_DRAINED, wording.QUEUE_DRAINED))
    return found


# -- parts ------------------------------------------------------------------------------------------------------------


def _queue(reading: Reading | Unreadable, old: Fields) -> Fields | None:
    if isinstance(reading, Unreadable):
        return None
    age = _whole(_steady(reading.oldest_due_seconds, old.get("oldestDueSeconds")))
    names = ("claimable", "due", "scheduled", "processing", "failed", "conflict", "held")
    counts = {name: getattr(reading, name) for name in names}
    return counts | {"atLeast": reading.at_least} | ({} if age is None else {"oldestDueSeconds": age})


def _verification(reading: Reading | Unreadable, old: Fields) -> Fields | None:
    if isinstance(reading, Unreadable) or reading.verifications.unreadable:
        return old or None  # it is dated; InSync says that it is not known now
    newest = reading.verifications.newest
    if newest is None:
        return None
    return {
        "finishedTime": rfc3339(newest.finished_at),
        "organizations": newest.organizations,
        "rows": newest.rows,
        "drift": newest.drift,
        "enqueued": newest.enqueued,
        "departures": {kind: newest.departures.get(kind, 0) for kind in DEPARTURES},
    }


def _decision(resource: SiorgSyncWorker, result: Result, old: Fields | None, now: datetime) -> Fields:
    message, launched = wording.decision(resource, result)[:_LONGEST_MESSAGE], len(result.launched)
    return _dated({"reason": result.reason.value, "message": message, "launched": launched}, old, now)


def _dated(decision: Fields, old: Fields | None, now: datetime) -> Fields:
    """A decision with its time: as long as nothing is launched and it stays the same, that of the first one."""
    if old is not None and not decision["launched"] and {**old, "time": None} == {**decision, "time": None}:
        return old
    return {"time": rfc3339(now), **decision}


def _backoff(plan: Plan) -> Fields | None:
    failures = plan.recovering if plan.backoff is None else plan.backoff.failures
    if failures is None:
        return None
    times = {
        "retryTime": None if plan.backoff is None else whole_second(plan.backoff.retry_at),
        "recoveredTime": failures.recovered_at,
    }
    return {
        "reason": failures.ending.value,
        "streak": failures.streak,
        "since": rfc3339(failures.since),
        "lastFailureTime": rfc3339(failures.last_failure),
        **{name: rfc3339(time) for name, time in times.items() if time is not None},
        "message": failures.message,
        "template": failures.template,
    }


def _failed_runs(found: Mapping[CronComponent, FailedRun | None]) -> Fields | None:
    said: Fields = {
        component: {"job": run.job, "time": rfc3339(run.time), "message": run.message[:_LONGEST_MESSAGE]}
        for component, run in found.items()
        if run is not None
    }
    return said or None


def _steady(new: float | None, old: float | None) -> float | None:
    """``old`` as long as ``new`` tells nothing that a person would act on."""
    if new is None:
        return None
    if old is not None and (new == 0) == (old == 0):
        moved = abs(new - old)
        if moved <= max(abs(old), abs(new)) * _WORTH_TELLING or (old >= 1 and moved < 1):
            return old
    if not 0 <= new < math.inf:
        return 0.0
    return float(f"{new:.2g}") if new < 100 else float(round(new))


def _whole(value: float | None) -> int | None:
    return None if value is None else max(math.ceil(min(value, _LARGEST_WHOLE)), 0)
