"""Values that the operator decides on: a resource with its defaults, Jobs in each state, backlogs. Times count from ``NOW``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from siorg_operator.api.resource import SiorgSyncWorker, parse
from siorg_operator.decide.manifests import job_name, template_hash
from siorg_operator.decide.planned import Plan, Result
from siorg_operator.decide.state import (
    OUTCOMES,
    Ending,
    Job,
    JobState,
    QueueState,
    Reading,
    Stuck,
    Summary,
    Unreadable,
    Verification,
)

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
UID = "0b2a8e5c-6f0e-4d4b-9a53-0d5c1f4f3a11"
IMAGE = "registry.example/siorg-job:1"
CREDENTIALS = "c0ffee"

_REASONS = {
    Ending.DONE: ("exhausted", 0),
    Ending.SIORG_UNAVAILABLE: ("siorg_unavailable", 75),
    Ending.SIORG_RATE_LIMITED: ("siorg_rate_limited", 75),
    Ending.DATABASE_UNAVAILABLE: ("database_unavailable", 75),
}


def at(seconds: float) -> datetime:
    """So many seconds after ``NOW``; before it when negative."""
    return NOW + timedelta(seconds=seconds)


def rfc3339(moment: datetime) -> str:
    """As Kubernetes writes it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def body(*, name: str = "siorg", generation: int = 1, status: Mapping[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    """A resource as the API server holds it; ``spec`` in camelCase, beside a database and an image."""
    job = {"image": IMAGE, **spec.pop("job", {})}
    return {
        "metadata": {"name": name, "namespace": "sync", "uid": UID, "generation": generation},
        "spec": {"database": {"urlSecretRef": {"name": "database"}}, "job": job, **spec},
        "status": dict(status or {}),
    }


def worker(*, name: str = "siorg", generation: int = 1, status: Mapping[str, Any] | None = None, **spec: Any) -> SiorgSyncWorker:
    """The same, parsed."""
    return parse(body(name=name, generation=generation, status=status, **spec))


def with_status(resource: SiorgSyncWorker, status: Mapping[str, Any]) -> SiorgSyncWorker:
    """``resource`` once ``status`` was written to it."""
    metadata = resource.metadata.body()
    return parse({"metadata": metadata, "spec": resource.spec.body(), "status": dict(status)})


def queue_of(
    depth: int = 0, *, secrets_hash: str | None = CREDENTIALS, token_error: str | None = None, **reading: Any
) -> QueueState:
    """A queue of ``depth`` claimable items that are due."""
    oldest = {"oldest_due_seconds": 1.0} if depth else {}
    return QueueState(Reading(claimable=depth, due=depth, **(oldest | reading)), secrets_hash, token_error)


def unreadable(reason: Any = "DatabaseUnavailable", *, secrets_hash: str | None = CREDENTIALS) -> QueueState:
    """A queue that cannot be read."""
    return QueueState(Unreadable(reason, "the database at db:5432 does not answer: check that it runs"), secrets_hash)


def verification(ago: float, *, drift: int = 0, enqueued: int = 0, departures: Mapping[str, int] | None = None) -> Verification:
    """A complete one, so many seconds before ``NOW``."""
    return Verification(at(-ago), ago, 328, 74_350, drift, enqueued, departures or {})


def template_of(resource: SiorgSyncWorker | None = None) -> str:
    """Hash of the template of ``worker()``, or of ``resource``."""
    return template_hash(resource or worker(), CREDENTIALS)


_TEMPLATE = template_of()


def job(slot: int = 0, round_: int = 1, *, template: str | None = None, **fields: Any) -> Job:
    """A Job of ``worker()``; pending, and made 60 s before ``NOW``, unless told otherwise."""
    values: dict[str, Any] = {
        "name": job_name(worker(), slot, round_),
        "slot": slot,
        "round": round_,
        "state": JobState.PENDING,
        "created_at": at(-60),
        "template": _TEMPLATE if template is None else template,
        "uid": f"uid of {slot}-{round_}",
    }
    return Job(**(values | fields))


def pending(count: int = 1, *, first_slot: int = 0, **fields: Any) -> list[Job]:
    """Jobs whose pods are on their way."""
    return [job(first_slot + slot, **fields) for slot in range(count)]


def active(count: int = 1, *, first_slot: int = 0, started: float = -50, **fields: Any) -> list[Job]:
    """Jobs whose pods run."""
    more = {"state": JobState.ACTIVE, "started_at": at(started), **fields}
    return [job(first_slot + slot, **more) for slot in range(count)]


def stuck(slot: int = 0, *, reason: str = "ImagePullBackOff", since: float = -40, **fields: Any) -> Job:
    """A Job whose pod cannot start."""
    return job(slot, stuck=Stuck(reason, f"{reason} of {IMAGE}", at(since)), **fields)


def ended(
    when: float = -10,
    ending: Ending = Ending.DONE,
    *,
    slot: int = 0,
    round_: int = 1,
    lived: float = 30,
    made: float | None = None,
    summary: Summary | None = None,
    message: str = "",
    template: str | None = None,
) -> Job:
    """A Job that ended ``when``, after it had run for ``lived`` seconds, made at ``made`` or 10 s before it ran."""
    return job(
        slot,
        round_,
        template=template,
        state=JobState.SUCCEEDED if ending is Ending.DONE else JobState.FAILED,
        created_at=at(when - lived - 10 if made is None else made),
        started_at=at(when - lived),
        finished_at=at(when),
        ending=ending,
        message=message,
        summary=summary,
    )


def summary(
    completed: int = 0, *, seconds: float = 30, ending: Ending = Ending.DONE, requests: int | None = None, **counts: Any
) -> Summary:
    """What a run left behind: ``completed`` items in ``seconds``, with a request for each unless told otherwise."""
    reason, code = _REASONS[ending]
    asked = completed if requests is None else requests
    outcomes: dict[str, int] = {"completed": completed, **{name: counts.pop(name) for name in OUTCOMES if name in counts}}
    return Summary(reason, code, seconds, outcomes, requests=asked, **counts)


def carried_out(plan: Plan) -> Result:
    """A plan of which everything was done."""
    return Result(plan, tuple(job(launch.slot, launch.round) for launch in plan.launches), plan.end)


def names(jobs: Iterable[Job]) -> list[str]:
    """Of the Jobs."""
    return [one.name for one in jobs]
