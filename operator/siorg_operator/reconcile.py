"""One pass over one resource: observe ▶ plan ▶ carry out ▶ tell. Level-triggered: whatever happened before, a pass mends it.

Jobs come before status: a crash between the two leaves Jobs that the next pass sees, never a status that promises them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from siorg_operator import manifests
from siorg_operator import status as statuses
from siorg_operator.metrics import OperatorMetrics
from siorg_operator.observed import Backlog, Job, JobState, Reading
from siorg_operator.plan import Launch, Plan, Removal, plan
from siorg_operator.ports import BacklogReader, Cluster, ClusterError, Launcher
from siorg_operator.resource import SiorgSyncWorker
from siorg_operator.trouble import Pacing

log = logging.getLogger(__name__)


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


def cron_job_seen(body: Mapping[str, Any]) -> CronJobSeen:
    """A CronJob's object, as far as it matters."""
    metadata = body["metadata"]
    shared = any(
        "f:spec" in (entry.get("fieldsV1") or {}) and entry.get("manager") != manifests.MANAGED_BY
        for entry in metadata.get("managedFields") or ()
    )
    applied = (metadata.get("annotations") or {}).get(manifests.APPLIED_ANNOTATION, "")
    return CronJobSeen(metadata["name"], metadata["uid"], applied, metadata.get("generation") or 0, shared)


@dataclass(frozen=True, slots=True)
class Seen:
    """A resource and what belongs to it, as the cluster shows it."""

    resource: SiorgSyncWorker
    status: Mapping[str, Any]
    """The resource's status as it is written."""
    jobs: Sequence[Job] = ()
    cron_jobs: Sequence[CronJobSeen] | None = None
    """None: there are no CronJobs here (one machine)."""


@dataclass(frozen=True, slots=True)
class Passed:
    """What a pass did."""

    plan: Plan
    backlog: Backlog
    status: Mapping[str, Any]
    """The status as it is written now."""
    launched: tuple[Job, ...]
    """Jobs that are there now, although the cluster may not show them yet."""


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
            if key not in self.counted and job.finished_at is not None and _rfc3339(job.finished_at) > self.until
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
    ) -> None:
        """``clock``: the time now, with its zone."""
        self._reader = reader
        self._launcher = launcher
        self._cluster = cluster
        self._metrics = metrics
        self._clock = clock
        self._pacing = pacing or Pacing()
        self._ended: dict[str, set[str]] = {}
        self._applied: dict[str, dict[str, int]] = {}

    def forget(self, uid: str, namespace: str, name: str) -> None:
        """The resource is gone: keep nothing of it."""
        self._ended.pop(uid, None)
        self._applied.pop(uid, None)
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
        decided, launched, failure = await self._carry_out(seen, backlog, decided, read_at)
        self._measure(seen, backlog, decided, tally)
        new_status = statuses.compose(resource, backlog, decided, seen.jobs, self._clock())
        if patch := statuses.merge_patch(seen.status, new_status):
            try:
                await self._cluster.write_status(resource, patch)
            except ClusterError as error:
                raise PassFailed(error, Passed(decided, backlog, seen.status, launched)) from error
        for event in statuses.events(seen.status, new_status, decided):
            await self._cluster.record(resource, event)
        if failure is not None:
            raise PassFailed(failure, Passed(decided, backlog, new_status, launched))
        return Passed(decided, backlog, new_status, launched)

    async def _carry_out(
        self, seen: Seen, backlog: Backlog, decided: Plan, read_at: float
    ) -> tuple[Plan, tuple[Job, ...], ClusterError | None]:
        """Do it, and make the plan say what was really done."""
        resource = seen.resource
        launched, failure = await self._launch(resource, backlog, decided)
        if launched and decided.unfinished == 0 and isinstance(backlog.reading, Reading):
            waited = (backlog.reading.oldest_due_seconds or 0.0) + time.monotonic() - read_at
            self._metrics.enqueue_to_launch(resource.metadata.namespace or "", resource.metadata.name, waited)
        if failure is not None:
            there = {(job.slot, job.round) for job in launched}
            decided = replace(
                decided,
                launches=tuple(launch for launch in decided.launches if (launch.slot, launch.round) in there),
                reason="LaunchFailed",
                held_back=True,
                message=f"{decided.message.rpartition(' → ')[0] or decided.message} → launched {len(launched)}; {failure}",
            )
        ended = self._ended.setdefault(resource.metadata.uid or "", set())
        ended &= {removal.name for removal in decided.end}
        stuck = [removal for removal in decided.end if removal.name not in ended]
        others = await self._first_failure(
            *(self._end(resource, removal, ended) for removal in stuck),
            *(self._launcher.remove(resource, name) for name in decided.remove),
            *(self._cron_jobs(seen)),
        )
        decided = replace(decided, end=tuple(removal for removal in stuck if removal.name in ended))
        return decided, launched, failure or others

    async def _launch(
        self, resource: SiorgSyncWorker, backlog: Backlog, decided: Plan
    ) -> tuple[tuple[Job, ...], ClusterError | None]:
        results = await asyncio.gather(
            *(
                self._launcher.launch(resource, launch, credentials=backlog.credentials, decision=decided.message)
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

    async def _end(self, resource: SiorgSyncWorker, removal: Removal, ended: set[str]) -> None:
        """Once is enough: it takes the Job controller a moment to end the Job, which looks stuck until then."""
        await self._launcher.end(resource, removal)
        ended.add(removal.name)

    def _cron_jobs(self, seen: Seen) -> list[Any]:
        """What has to be done so that the CronJobs are as the resource says."""
        if seen.cron_jobs is None:
            return []
        resource, there = seen.resource, {one.name: one for one in seen.cron_jobs}
        calls: list[Any] = []
        for component, part, build in (
            ("cleanup", resource.spec.cleanup, manifests.cleanup_cron_job),
            ("discovery", resource.spec.discovery, manifests.discovery_cron_job),
        ):
            name = manifests.cron_job_name(resource, component)  # type: ignore[arg-type]  # one of its literals
            found = there.get(name)
            if not part.enabled:
                if found is not None:
                    calls.append(self._cluster.delete_cron_job(resource, name))
                continue
            manifest = build(resource)
            if found is None or not self._stands(resource, found, manifest):
                calls.append(self._apply(resource, manifest))
        return calls

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

    async def _first_failure(self, *calls: Any) -> ClusterError | None:
        """All of them, whatever becomes of each; the first that the cluster refused."""
        results = await asyncio.gather(*calls, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, ClusterError):
                raise result
        return next((result for result in results if isinstance(result, ClusterError)), None)

    def _measure(self, seen: Seen, backlog: Backlog, decided: Plan, tally: Tally) -> None:
        namespace, name = seen.resource.metadata.namespace or "", seen.resource.metadata.name
        for job in tally.new(seen.jobs):
            self._metrics.job_ended(namespace, name, job)
        self._metrics.decided(namespace, name, decided, backlog, seen.jobs)


class PassFailed(Exception):
    """Part of a pass was refused by the cluster. What was done is in ``passed``; the next pass tries the rest again."""

    def __init__(self, cause: ClusterError, passed: Passed) -> None:
        """``cause``: the first refusal."""
        super().__init__(str(cause))
        self.code = cause.code
        self.passed = passed


def _name(resource: SiorgSyncWorker, launch: Launch) -> str:
    return manifests.job_name(resource, launch.slot, launch.round)


def _rfc3339(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
