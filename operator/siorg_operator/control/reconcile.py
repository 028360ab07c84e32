"""One pass over one resource: observe ▶ plan ▶ carry out ▶ tell. Level-triggered: whatever happened before, a pass mends it.

Jobs come before status: a crash between the two leaves Jobs that the next pass sees, never a status that promises them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from siorg_operator.api.resource import SiorgSyncWorker
from siorg_operator.control.retries import Refusals
from siorg_operator.decide import manifests, wording
from siorg_operator.decide import status as statuses
from siorg_operator.decide.job_failures import Pacing
from siorg_operator.decide.plan import Launch, Plan, Removal, plan
from siorg_operator.decide.ports import BacklogReader, Cluster, ClusterError, Launcher
from siorg_operator.decide.reasons import Reason
from siorg_operator.decide.result import Result
from siorg_operator.decide.state import Backlog, Fault, Job, JobState, Reading, rfc3339
from siorg_operator.serving.metrics import OperatorMetrics

log = logging.getLogger(__name__)

_COUNTS = frozenset({"queue", "predictedDrainSeconds", "lastDecision"})


@dataclass(frozen=True, slots=True)
class CronJobSeen:
    """A CronJob of a resource, as far as it matters whether it is as it should be."""

    name: str
    uid: str
    applied: str
    """Hash of what was applied last."""
    generation: int
    """Grows with every change of its spec."""
    shared: bool
    """Whether somebody else wrote parts of its spec."""
    suspended: bool = False
    active: int = 0
    """Jobs of it that run, as the CronJob controller says."""


def cron_job_seen(body: Mapping[str, Any]) -> CronJobSeen:
    """A CronJob's object, as far as it matters."""
    metadata = body["metadata"]
    shared = any(
        "f:spec" in (entry.get("fieldsV1") or {}) and entry.get("manager") != manifests.MANAGED_BY
        for entry in metadata.get("managedFields") or ()
    )
    applied = (metadata.get("annotations") or {}).get(manifests.APPLIED_ANNOTATION, "")
    return CronJobSeen(
        metadata["name"],
        metadata["uid"],
        applied,
        metadata.get("generation") or 0,
        shared,
        suspended=bool((body.get("spec") or {}).get("suspend")),
        active=len((body.get("status") or {}).get("active") or ()),
    )


@dataclass(frozen=True, slots=True)
class CronRun:
    """A Job of a CronJob of ours."""

    name: str
    uid: str
    component: str
    finished_at: str
    """RFC 3339; empty: it has not finished."""
    failure: str
    """Why it failed, in one line; empty: it did not."""


def cron_run(body: Mapping[str, Any]) -> CronRun:
    """A Job's object, as far as it matters."""
    metadata, status = body["metadata"], body.get("status") or {}
    ended = {one["type"]: one for one in status.get("conditions") or () if one.get("status") == "True"}
    failed, end = ended.get("Failed"), ended.get("Failed") or ended.get("Complete") or {}
    return CronRun(
        metadata["name"],
        metadata.get("uid", ""),
        (metadata.get("labels") or {}).get(manifests.COMPONENT_LABEL, ""),
        finished_at=end.get("lastTransitionTime") or (end and metadata.get("creationTimestamp")) or "",
        failure="" if failed is None else f"{failed.get('reason') or 'Failed'}: {failed.get('message') or ''}".rstrip(": "),
    )


@dataclass(frozen=True, slots=True)
class Seen:
    """A resource and what belongs to it, as the cluster shows it."""

    resource: SiorgSyncWorker
    status: Mapping[str, Any]
    """The resource's status as we wrote it last."""
    jobs: Sequence[Job] = ()
    cron_jobs: Sequence[CronJobSeen] | None = None
    """None: there are no CronJobs here (one machine)."""
    runs: Sequence[CronRun] = ()
    """Jobs of the CronJobs."""
    drifted: Mapping[str, Any] | None = None
    """The status as it is there, where that is not what we wrote. It is put right; nothing is believed of it."""


@dataclass(frozen=True, slots=True)
class Passed:
    """What a pass did."""

    result: Result
    backlog: Backlog
    status: Mapping[str, Any]
    """The status as it is written now."""
    written: Mapping[str, Any] | None = None
    """The object as it was after its status had been written; None: not written, or not known."""
    retry_seconds: float | None = None
    """Something is to be tried again after this: what was refused, or numbers that were not told yet."""


@dataclass(slots=True)
class Tally:
    """Which finished Jobs of a resource have been counted in the metrics: each once, also across a restart."""

    until: str = ""
    """Those that ended up to here were counted by the process before this one (RFC 3339)."""
    counted: set[str] = field(default_factory=set)

    def new(self, jobs: Sequence[Job]) -> list[Job]:
        """Finished Jobs that have not been counted yet; they are from now on."""
        ended = {f"{job.name}/{job.finished_at}": job for job in jobs if job.finished_at is not None}
        fresh = [
            job
            for key, job in ended.items()
            if key not in self.counted and job.finished_at is not None and rfc3339(job.finished_at) > self.until
        ]
        self.counted = set(ended)
        return fresh


class Reconciler:
    """Carries out what ``plan`` decides. Knows no framework: everything it needs comes in through ports."""

    def __init__(
        self,
        *,
        reader: BacklogReader,
        launcher: Launcher,
        cluster: Cluster,
        metrics: OperatorMetrics,
        clock: Callable[[], datetime],
        pacing: Pacing | None = None,
        counts_seconds: float = 5.0,
    ) -> None:
        """Prepare; nothing is asked yet.

        Args:
            reader: reads queues.
            launcher: starts and ends Jobs.
            cluster: takes statuses, events and CronJobs.
            metrics: are told of each pass.
            clock: the time now, with its zone.
            pacing: how patient to be with trouble; None: the defaults.
            counts_seconds: a status of which only counts have changed is written once in so long.
        """
        self._reader = reader
        self._launcher = launcher
        self._cluster = cluster
        self._metrics = metrics
        self._clock = clock
        self._pacing = pacing or Pacing()
        self._counts_seconds = counts_seconds
        self._ended: dict[str, set[str]] = {}
        self._applied: dict[str, dict[str, int]] = {}
        self._refusals: dict[str, Refusals] = {}
        self._told_at: dict[str, datetime] = {}

    def forget(self, uid: str, namespace: str, name: str) -> None:
        """The resource is gone: keep nothing of it."""
        self._ended.pop(uid, None)
        self._applied.pop(uid, None)
        self._refusals.pop(uid, None)
        self._told_at.pop(uid, None)
        self._metrics.forget(namespace, name)

    async def step(self, seen: Seen, tally: Tally) -> Passed:
        """One pass.

        Raises:
            ClusterError: the cluster did not do something; what was done stays done, and the next pass goes on from there.
        """
        resource = seen.resource
        began = time.monotonic()
        backlog = await self._reader.read(resource)
        read_at = time.monotonic()
        self._metrics.backlog_read(resource.metadata.namespace, resource.metadata.name, read_at - began)
        decided = plan(resource, backlog, seen.jobs, self._clock(), self._pacing)
        result, failure = await self._carry_out(seen, backlog, decided, read_at)
        self._measure(seen, backlog, result, tally)
        uid, now = resource.metadata.uid or "", self._clock()
        refusals = self._refusals[uid]
        faults = [*refusals.faults(), *self._failing(seen)]
        new_status = statuses.compose(resource, backlog, result, seen.jobs, now, faults)
        retry, written = refusals.seconds(now), None
        patch = statuses.merge_patch(seen.status if seen.drifted is None else seen.drifted, new_status)
        if patch and seen.drifted is None and (wait := self._may_wait(uid, patch, now)):
            new_status, retry = dict(seen.status), wait if retry is None else min(wait, retry)
        elif patch:
            try:
                written = await self._cluster.write_status(resource, patch)
            except ClusterError as error:
                raise PassFailed(error, Passed(result, backlog, seen.status)) from error
            self._told_at[uid] = now
        happened = [*statuses.transitions(seen.status, new_status), *statuses.actions(resource, seen.status, result)]
        for event in happened:
            await self._cluster.record(resource, event)
        passed = Passed(result, backlog, new_status, written, retry)
        if failure is not None:
            raise PassFailed(failure, passed)
        return passed

    def _may_wait(self, uid: str, patch: Mapping[str, Any], now: datetime) -> float | None:
        """Seconds for which ``patch`` need not be written yet: rows that trickle in change counts all the time."""
        told_at = self._told_at.get(uid)
        decision = patch.get("lastDecision") or {}
        counts_alone = patch.keys() <= _COUNTS and decision.keys() <= {"time", "message"}
        if told_at is None or not counts_alone:
            return None
        since = (now - told_at).total_seconds()
        return self._counts_seconds - since if 0 <= since < self._counts_seconds else None

    async def _carry_out(self, seen: Seen, backlog: Backlog, decided: Plan, read_at: float) -> tuple[Result, ClusterError | None]:
        """Do it; what came of it."""
        resource = seen.resource
        launched, failure = await self._launch(resource, backlog, decided)
        if launched and decided.unfinished == 0 and isinstance(backlog.reading, Reading):
            waited = (backlog.reading.oldest_due_seconds or 0.0) + time.monotonic() - read_at
            self._metrics.enqueue_to_launch(resource.metadata.namespace or "", resource.metadata.name, waited)
        ended = self._ended.setdefault(resource.metadata.uid or "", set())
        ended &= {removal.name for removal in decided.end}
        stuck = [removal for removal in decided.end if removal.name not in ended]
        await self._ask(
            resource,
            [
                *(self._end(resource, removal, ended) for removal in stuck),
                *(
                    _Request(f"remove {name}", partial(self._launcher.remove, resource, name), Reason.REMOVAL_REFUSED)
                    for name in decided.remove
                ),
                *self._cron_jobs(seen),
            ],
        )
        done = tuple(removal for removal in stuck if removal.name in ended)
        return Result(decided, launched, done, "" if failure is None else str(failure)), failure

    async def _launch(
        self, resource: SiorgSyncWorker, backlog: Backlog, decided: Plan
    ) -> tuple[tuple[Job, ...], ClusterError | None]:
        decision = wording.intent(resource, decided)
        results = await asyncio.gather(
            *(
                self._launcher.launch(resource, launch, credentials=backlog.credentials, decision=decision)
                for launch in decided.launches
            ),
            return_exceptions=True,
        )
        there: list[Job] = []
        failure: ClusterError | None = None
        now = self._clock()
        for launch, result in zip(decided.launches, results, strict=True):
            if isinstance(result, ClusterError):
                failure = failure or result
            elif isinstance(result, BaseException):
                raise result
            else:
                there.append(
                    Job(
                        name=_name(resource, launch),
                        slot=launch.slot,
                        round=launch.round,
                        state=JobState.PENDING,
                        created_at=now,
                        template=manifests.template_hash(resource, backlog.credentials),
                    )
                )
        return tuple(there), failure

    def _end(self, resource: SiorgSyncWorker, removal: Removal, ended: set[str]) -> _Request:
        """Once is enough: it takes the Job controller a moment to end the Job, which looks stuck until then."""

        async def end() -> None:
            await self._launcher.end(resource, removal)
            ended.add(removal.name)

        return _Request(f"end {removal.name}", end, Reason.REMOVAL_REFUSED)

    def _cron_jobs(self, seen: Seen) -> list[_Request]:
        """What has to be done so that the CronJobs are as the resource says."""
        if seen.cron_jobs is None:
            return []
        resource, there = seen.resource, {one.name: one for one in seen.cron_jobs}
        requests: list[_Request] = []
        for component, enabled, build in _components(resource):
            name = manifests.cron_job_name(resource, component)
            found = there.get(name)
            if not enabled and (found is None or found.suspended):
                # To remove it would kill its Job.
                if found is not None and not found.active and not _running(seen.runs, component):
                    delete = partial(self._cluster.delete_cron_job, resource, name)
                    requests.append(_Request(f"delete {name}", delete, Reason.CRON_JOB_REFUSED))
                continue
            manifest = build(resource) if enabled else _suspended(build(resource))
            if enabled and found is not None and self._stands(resource, found, manifest):
                continue
            key = f"apply {name} {manifest['metadata']['annotations'][manifests.APPLIED_ANNOTATION]}"
            requests.append(_Request(key, partial(self._apply, resource, manifest), Reason.CRON_JOB_REFUSED))
        return requests

    def _failing(self, seen: Seen) -> list[Fault]:
        """CronJobs whose last Job failed."""
        if seen.cron_jobs is None:
            return []
        namespace, worker = seen.resource.metadata.namespace or "", seen.resource.metadata.name
        faults = []
        for component, enabled, _ in _components(seen.resource):
            finished = [run for run in seen.runs if run.component == component and run.finished_at]
            last = max(finished, key=lambda run: (run.finished_at, run.name), default=None) if enabled else None
            self._metrics.cron_job_failing(namespace, worker, component, None if last is None else bool(last.failure))
            if last is not None and last.failure:
                advice = f"see kubectl logs job/{last.name}; it is over when a later one succeeds"
                message = f"the last Job of {component}, {last.name}, failed: {last.failure}: {advice}"
                faults.append(Fault(Reason(f"{component.capitalize()}Failing"), message))
        return faults

    def _stands(self, resource: SiorgSyncWorker, found: CronJobSeen, manifest: Mapping[str, Any]) -> bool:
        """Whether a CronJob is as it was applied: the same manifest, and nobody has changed its spec since."""
        if found.applied != manifest["metadata"]["annotations"][manifests.APPLIED_ANNOTATION]:
            return False
        applied = self._applied.setdefault(resource.metadata.uid or "", {})
        if found.uid not in applied and not found.shared:  # an operator before this one applied it
            applied[found.uid] = found.generation
        return found.generation <= applied.get(found.uid, -1)

    async def _apply(self, resource: SiorgSyncWorker, manifest: dict[str, Any]) -> None:
        there = (await self._cluster.apply_cron_job(resource, manifest))["metadata"]
        self._applied.setdefault(resource.metadata.uid or "", {})[there["uid"]] = there.get("generation") or 0

    async def _ask(self, resource: SiorgSyncWorker, requests: Sequence[_Request]) -> None:
        """All of them, whatever becomes of each; what was refused a moment ago waits."""
        refusals, now = self._refusals.setdefault(resource.metadata.uid or "", Refusals()), self._clock()
        refusals.keep(request.key for request in requests)
        due = [request for request in requests if not refusals.wait(request.key, now)]
        results = await asyncio.gather(*(request.carry_out() for request in due), return_exceptions=True)
        for request, result in zip(due, results, strict=True):
            if isinstance(result, ClusterError):
                where = {"namespace": resource.metadata.namespace, "worker": resource.metadata.name}
                log.warning("%s: %s", request.fault, result, extra=where)
                refusals.refused(request.key, Fault(request.fault, str(result)), result.code, now)
            elif isinstance(result, BaseException):
                raise result
            else:
                refusals.carried_out(request.key)

    def _measure(self, seen: Seen, backlog: Backlog, result: Result, tally: Tally) -> None:
        namespace, name = seen.resource.metadata.namespace or "", seen.resource.metadata.name
        for job in tally.new(seen.jobs):
            self._metrics.job_ended(namespace, name, job)
        self._metrics.decided(namespace, name, result, backlog, seen.jobs)


@dataclass(frozen=True, slots=True)
class _Request:
    """Something that is asked of the cluster beside launches."""

    key: str
    carry_out: Callable[[], Awaitable[None]]
    fault: Reason
    """The word for it when it is refused."""


def _components(resource: SiorgSyncWorker) -> list[tuple[manifests.Component, bool, Callable[[SiorgSyncWorker], dict[str, Any]]]]:
    """Each component with a CronJob, whether it is enabled, and what makes its manifest."""
    spec = resource.spec
    return [
        ("cleanup", spec.cleanup.enabled, manifests.cleanup_cron_job),
        ("discovery", spec.discovery.enabled, manifests.discovery_cron_job),
    ]


def _suspended(manifest: dict[str, Any]) -> dict[str, Any]:
    """The same CronJob, but it starts nothing."""
    metadata = {**manifest["metadata"], "annotations": {manifests.APPLIED_ANNOTATION: "suspended"}}
    return {**manifest, "metadata": metadata, "spec": {**manifest["spec"], "suspend": True}}


def _running(runs: Sequence[CronRun], component: str) -> bool:
    return any(run.component == component and not run.finished_at for run in runs)


class PassFailed(Exception):
    """Part of a pass was refused by the cluster. What was done is in ``passed``; the next pass tries the rest again."""

    def __init__(self, cause: ClusterError, passed: Passed) -> None:
        """``cause``: the first refusal."""
        super().__init__(str(cause))
        self.code = cause.code
        self.passed = passed


def _name(resource: SiorgSyncWorker, launch: Launch) -> str:
    return manifests.job_name(resource, launch.slot, launch.round)
