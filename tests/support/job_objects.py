"""Jobs and pods of ours as a real API server shows them, and the Job that the operator makes out of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from siorg_operator.decide.jobs import JobRecord, combine, job_record
from siorg_operator.decide.manifests import drain_job
from siorg_operator.decide.pods import pod_record
from siorg_operator.decide.state import Job
from support.operator_values import CREDENTIALS, NOW, at, rfc3339, worker

JOB_UID = "5d3c7f2e-3a52-4d4b-9a53-0d5c1f4f3a99"
DID = {"completed": 47, "conflict": 1, "skipped": 1, "failed": 1, "retried": 1, "released": 0}
DRAINED = {
    "version": "0.1.0", "reason": "exhausted", "exit_code": 0, "started_at": "2026-11-24T11:59:20.000Z",
    "duration_seconds": 30.5, "claimed": 51, **DID, "requests": 12, "request_errors": 2, "siorg_seconds": 9.1,
}  # fmt: skip


def a_job(*, conditions: list[dict[str, Any]] | None = None, **status: Any) -> dict[str, Any]:
    """A Job of ours as the API server shows it, made 60 s ago."""
    made = drain_job(worker(), slot=3, round=12, secrets_hash=CREDENTIALS, decision="")
    made["metadata"] |= {"uid": JOB_UID, "creationTimestamp": rfc3339(at(-60)), "resourceVersion": "8"}
    status = {"startTime": rfc3339(at(-60)), "active": 1, "ready": 0, **status}
    return {**made, "status": status | ({} if conditions is None else {"conditions": conditions})}


def condition(kind: str, reason: str = "", message: str = "", *, status: str = "True", when: float = -10) -> dict[str, Any]:
    told = {"reason": reason, "message": message} if reason else {}
    moment = rfc3339(at(when))
    return {"type": kind, "status": status, "lastProbeTime": moment, "lastTransitionTime": moment, **told}


def complete(when: float = -10) -> dict[str, Any]:
    both = [condition(kind, "CompletionsReached", when=when) for kind in ("SuccessCriteriaMet", "Complete")]
    return a_job(conditions=both, completionTime=rfc3339(at(when)), succeeded=1, active=0)


def failed(
    reason: str = "BackoffLimitExceeded", message: str = "Job has reached the specified backoff limit", **more: Any
) -> dict[str, Any]:
    both = [condition("FailureTarget", reason, message), condition("Failed", reason, message)]
    return a_job(conditions=both, failed=1, active=0, **more)


def a_pod(
    state: dict[str, Any] | None = None,
    *,
    name: str = "pod",
    phase: str = "Pending",
    scheduled: bool | None = True,
    conditions: Sequence[dict[str, Any]] = (),
    others: Sequence[dict[str, Any]] = (),
    status: Mapping[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A pod of that Job, made 60 s ago and scheduled 55 s ago unless told otherwise; ``more`` is of its metadata.

    ``others``: containers beside the worker's. ``status``: the rest of it.
    """
    told = [*conditions]
    if scheduled is not None:
        why = {} if scheduled else {"reason": "Unschedulable", "message": "0/3 nodes are available: 3 Insufficient cpu."}
        moment = rfc3339(at(-55))
        told.insert(0, {"type": "PodScheduled", "status": str(scheduled), "lastTransitionTime": moment, **why})
    states = [] if state is None else [("worker", state)]
    states += [(f"sidecar-{n}", other) for n, other in enumerate(others)]
    statuses = [{"name": who, "ready": "running" in what, "restartCount": 0, "state": what} for who, what in states]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "x", "uid": JOB_UID, "controller": True}
    metadata = {"name": name, "uid": f"uid-{name}", "creationTimestamp": rfc3339(at(-60)), "ownerReferences": [owner], **more}
    shown = {"phase": phase, "conditions": told, "containerStatuses": statuses, **(status or {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": shown}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message} if message else {"reason": reason}}


def running(since: float = -40) -> dict[str, Any]:
    return {"running": {"startedAt": rfc3339(at(since))}}


def terminated(code: int, message: str = "", reason: str = "", *, since: float = -40, until: float = -10) -> dict[str, Any]:
    why = {"exitCode": code, "reason": reason or ("Completed" if code == 0 else "Error")}
    told = {"message": message} if message else {}
    return {"terminated": {**why, "startedAt": rfc3339(at(since)), "finishedAt": rfc3339(at(until)), **told}}


def record_of(job: dict[str, Any]) -> JobRecord:
    record = job_record(job)
    assert record is not None
    return record


def seen(job: dict[str, Any], *pods: dict[str, Any], now: datetime = NOW) -> Job:
    return combine(record_of(job), [pod_record(pod) for pod in pods], now)


def stuck_because(job: dict[str, Any], *pods: dict[str, Any], now: datetime = NOW) -> str | None:
    stuck = seen(job, *pods, now=now).stuck
    return None if stuck is None else stuck.reason


def words(reason: str, code: int, **counts: Any) -> str:
    """A termination message."""
    return json.dumps({"reason": reason, "exit_code": code, "duration_seconds": 31.0, **counts})
