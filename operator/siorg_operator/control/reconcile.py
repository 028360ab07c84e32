"""One pass over one resource: observe ▶ plan ▶ carry out ▶ status. Level-triggered: whatever happened before, a pass mends it.

Jobs come before status: a crash between the two leaves Jobs that the next pass sees, never a status that promises them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial

from siorg_operator.api.resource import FailedRun, SiorgSyncWorker
from siorg_operator.cluster.client import Kubernetes
from siorg_operator.control.cron_jobs import CronJobs, CronJobState, CronRun, discovery_has_begun
from siorg_operator.control.expectations import Expectations
from siorg_operator.control.failed_runs import faults, last_runs
from siorg_operator.control.retries import Request, Retries, send_all
from siorg_operator.control.status_writer import StatusWriter
from siorg_operator.control.tenants import Tenants
from siorg_operator.database.databases import Databases
from siorg_operator.decide import manifests, wording
from siorg_operator.decide import status as statuses
from siorg_operator.decide.in_sync import expected_seconds
from siorg_operator.decide.job_failures import Pacing
from siorg_operator.decide.plan import plan
from siorg_operator.decide.planned import Plan, Removal, Result
from siorg_operator.decide.ports import ClusterError, Launcher, QueueReader, Reporter
from siorg_operator.decide.reasons import Reason
from siorg_operator.decide.state import Job, JobState, QueueState, Reading, rfc3339
from siorg_operator.decide.troubles import Troubles
from siorg_operator.serving.health import Health
from siorg_operator.serving.metrics import OperatorMetrics
from siorg_runtime.logs import logger

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Observed:
    """What belongs to a resource, as the cluster shows it."""

    jobs: Sequence[Job] = ()
    cron_jobs: Sequence[CronJobState] = ()
    cron_runs: Sequence[CronRun] = ()
    """Jobs of the CronJobs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What the control loops of a process work with, all of them alike."""

    launcher: Launcher
    reporter: Reporter
    new_reader: Callable[[], QueueReader]
    """Makes the reader of one resource's queue."""
    observe: Callable[[SiorgSyncWorker, datetime], Observed]
    databases: Databases
    """Where to listen for new work."""
    metrics: OperatorMetrics
    health: Health
    cluster: Kubernetes | None = None
    """Where CronJobs live; None: there are none here (one machine)."""
    pacing: Pacing = field(default_factory=Pacing)
    default_image: str | None = None
    secrets_seconds: float = 60.0
    """A loop that rests looks for changed Secrets so often."""
    tenants: Tenants = field(default_factory=Tenants)
    """The resources that share database servers."""
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    """Of the cluster: what it dates is compared with it."""


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What a pass came to."""

    result: Result
    retry_seconds: float | None
    """Something is to be tried again after this: what was refused, or a status that was put off."""
    failure: ClusterError | None
    """The first launch that was refused, or the status that could not be written; None: nothing was."""


class Reconciler:
    """The passes over one resource, and what has to be remembered between them."""

    def __init__(self, context: Context, names: tuple[str, str], reader: QueueReader, status: StatusWriter) -> None:
        """``names``: namespace and name of the resource."""
        self._context = context
        self._names = names
        self._where = dict(zip(("namespace", "worker"), names, strict=True))
        self._reader = reader
        self._status = status
        self._retries = Retries()
        self._cron_jobs = None if context.cluster is None else CronJobs(context.cluster)
        self._counted: set[str] = set()
        """Finished Jobs that the metrics have counted: each once, also across a restart."""
        self._counted_until: str | None = None
        """Those that ended up to here were counted by the process before this one (RFC 3339)."""
        self._expectations = Expectations()
        self._troubles = Troubles()

    def job_deleted(self, uid: str) -> None:
        self._expectations.deleted(uid)

    async def reconcile(self, resource: SiorgSyncWorker) -> Reconciled:
        """One pass. What the cluster refuses stays undone, and the next pass tries it again."""
        observed = await self._observe(resource)
        began = time.monotonic()
        queue = await self._reader.read(resource)
        read_at = time.monotonic()
        self._context.metrics.read_seconds.labels(*self._names).observe(read_at - began)
        planned = self._plan(resource, queue, observed)
        if planned.launches and await self._context.tenants.gathered():
            planned = self._plan(resource, queue, observed)
        self._context.tenants.takes(resource.metadata.uid or "", planned)
        launched, failure = await self._launch(resource, queue, planned, read_at)
        ended, stopped, first = await self._carry_out(resource, queue, observed, planned)
        refused = "" if failure is None else str(failure)
        result = Result(planned, launched, ended, stopped, first_discovery=first, refused=refused)
        if launched:
            log.info(wording.decision(resource, result), **self._where, jobs=[job.name for job in launched])
        self._count(resource, observed, queue, result)
        put_off, unwritten = await self._report(resource, observed, queue, result)
        again = (self._retries.seconds(self._context.clock()), put_off, self._expectations.seconds())
        retry = [seconds for seconds in again if seconds is not None]
        return Reconciled(result, min(retry, default=None), unwritten or failure)

    def _plan(self, resource: SiorgSyncWorker, queue: QueueState, observed: Observed) -> Plan:
        """Decide, beside the other resources on the database server. From here to what is taken nothing else may happen."""
        tenants, uid = self._context.tenants, resource.metadata.uid or ""
        beside = tenants.read(uid, queue.reading, observed.jobs)
        planned = plan(resource, queue, observed.jobs, self._context.clock(), self._context.pacing, beside)
        tenants.wants(uid, planned)
        return planned

    async def _observe(self, resource: SiorgSyncWorker) -> Observed:
        """What the cluster shows, and the Jobs that we made and that it does not show yet."""
        observed = self._context.observe(resource, self._context.clock())
        jobs = self._expectations.beside(observed.jobs)
        if self._expectations.seconds() == 0.0:
            try:
                await self._expectations.ask(partial(self._context.launcher.find, resource))
            except ClusterError as error:
                log.warning("Launched Jobs are not shown yet, and cannot be listed", **self._where, reason=str(error))
            observed = self._context.observe(resource, self._context.clock())
            jobs = self._expectations.beside(observed.jobs)
        # In one order, so that what is said of the first of them does not change from pass to pass.
        return replace(observed, jobs=sorted(jobs, key=lambda job: (job.slot, job.round)))

    async def _launch(
        self, resource: SiorgSyncWorker, queue: QueueState, planned: Plan, read_at: float
    ) -> tuple[tuple[Job, ...], ClusterError | None]:
        """Launch what was planned; the Jobs that are there now, and the first refusal."""
        decision = wording.intent(resource, planned)
        secrets_hash = queue.secrets_hash or ""  # nothing is launched while it is not known
        send = partial(self._context.launcher.launch, resource, secrets_hash=secrets_hash, decision=decision)
        answers = await send_all(send(launch) for launch in planned.launches)
        now, template = self._context.clock(), manifests.template_hash(resource, secrets_hash)
        launched: list[Job] = []
        for at, answer in zip(planned.launches, answers, strict=True):
            if isinstance(answer, Job) and answer.unfinished:
                self._expectations.expect(answer)
                launched.append(answer)
            elif isinstance(answer, Job):  # it has come and gone unseen: nothing was launched, and its name is used up
                self._expectations.doubt()
            elif answer.may_be_done:
                name = manifests.job_name(resource, at.slot, at.round)
                self._expectations.expect(Job(name, at.slot, at.round, JobState.PENDING, now, template))
                self._expectations.doubt()
        if launched and planned.unfinished == 0 and isinstance(queue.reading, Reading):
            waited = (queue.reading.oldest_due_seconds or 0.0) + time.monotonic() - read_at
            self._context.metrics.enqueue_to_launch.labels(*self._names).observe(waited)
        return tuple(launched), next((answer for answer in answers if isinstance(answer, ClusterError)), None)

    async def _carry_out(
        self, resource: SiorgSyncWorker, queue: QueueState, observed: Observed, planned: Plan
    ) -> tuple[tuple[Removal, ...], tuple[Job, ...], str]:
        """Do the rest: end Jobs that do not go on, stop those that are not to, remove old ones, see to the CronJobs.

        Returns those that were ended now, those that were told to stop, and the first discovery's Job if that was launched.
        """
        launcher, refused, why = self._context.launcher, Reason.REMOVAL_REFUSED, wording.switched_off_by(resource)
        requests = [
            # Once: it takes the Job controller a moment, and until then they look stuck.
            *(Request(f"end {job.name}", refused, partial(launcher.end, resource, job), once=True) for job in planned.end),
            *(
                Request(f"stop {job.name}", refused, partial(launcher.terminate, resource, job, why=why), once=True)
                for job in planned.stop
            ),
            *(Request(f"remove {job.name}", refused, partial(launcher.remove, resource, job)) for job in planned.remove),
        ]
        if self._cron_jobs is not None:
            requests += self._cron_jobs.requests(resource, observed.cron_jobs, observed.cron_runs)
            requests += self._cron_jobs.first_discovery(resource, queue, observed.cron_jobs, observed.cron_runs)
        done = await self._retries.send(requests, self._context.clock(), **self._where)
        ended = tuple(removal for removal in planned.end if f"end {removal.name}" in done)
        for removal in ended:
            tell, what = (log.info, "Ended a leftover pod") if removal.last_words else (log.warning, "Ended a stuck Job")
            tell(what, **self._where, job=removal.name, reason=removal.stuck.message)
        stopped = tuple(job for job in planned.stop if f"stop {job.name}" in done)
        if stopped:
            log.info("Told Jobs to stop", **self._where, jobs=[job.name for job in stopped], reason=why)
        first = manifests.first_run_name(resource, "discovery")
        if f"create {first}" not in done:
            return ended, stopped, ""
        log.info("Launched the first discovery", **self._where, job=first)
        return ended, stopped, first

    def _count(self, resource: SiorgSyncWorker, observed: Observed, queue: QueueState, result: Result) -> None:
        if self._counted_until is None:
            last = resource.status.jobs.last_finished_time
            self._counted_until = "" if last is None else rfc3339(min(last, self._context.clock()))
        # A worker may end before its Job does, which then has another time: it is one all the same.
        finished = {job.uid: job for job in observed.jobs if job.finished_at is not None}
        for uid, job in finished.items():
            if uid not in self._counted and rfc3339(job.finished_at or job.created_at) > self._counted_until:
                self._context.metrics.job_ended(*self._names, job)
        self._counted = set(finished)
        self._context.metrics.decided(*self._names, result, queue, observed.jobs)
        self._context.metrics.expects_verification(*self._names, expected_seconds(resource))

    async def _report(
        self, resource: SiorgSyncWorker, observed: Observed, queue: QueueState, result: Result
    ) -> tuple[float | None, ClusterError | None]:
        """Write the status and record the events; the seconds for which the status is put off, and why it was not written."""
        before, now = self._status.status, self._context.clock()
        last = self._last_runs(resource, observed, now)
        beside = [*self._retries.faults(), *faults(last, observed.cron_runs)]
        begun = discovery_has_begun(resource, observed.cron_jobs, observed.cron_runs)
        status = statuses.compose(resource, queue, result, observed.jobs, now, beside, last, discovery_begun=begun)
        self._tell(status)
        try:
            put_off = await self._status.write(resource, status, now)
        except ClusterError as error:
            return None, error
        events = [*statuses.transitions(before, self._status.status), *statuses.actions(resource, before, result)]
        for event in events:
            await self._context.reporter.record(resource, event)
        return put_off, None

    def _last_runs(
        self, resource: SiorgSyncWorker, observed: Observed, now: datetime
    ) -> dict[manifests.CronComponent, FailedRun | None]:
        if self._cron_jobs is None:
            return {}
        last = last_runs(resource, observed.cron_jobs, observed.cron_runs, now)
        for component in manifests.CRON_COMPONENTS:
            failing = last[component] is not None if component in last else None
            self._context.metrics.cron_job_failing(*self._names, component, failing)
        return last

    def _tell(self, status: statuses.Fields) -> None:
        """In the log, whether the status can be written or not. On one machine people see it anyway."""
        for event in self._troubles.news(status) if self._context.cluster is not None else ():
            tell = log.warning if event.type == "Warning" else log.info
            tell(event.reason, **self._where, reason=event.message)
