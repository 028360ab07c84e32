"""A cluster with one resource, in memory: the only fake behind the operator's ports, proved by the suite that they share.

Every write is a step, at which the cluster can refuse, the answer can be lost, or the operator can die.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, cast

from prometheus_client import CollectorRegistry

from kube_double.patches import merge_patch
from siorg_operator.api.resource import SiorgSyncWorker, parse
from siorg_operator.cluster.client import Kubernetes
from siorg_operator.control.cron_jobs import CronRun, cron_job_state
from siorg_operator.control.reconcile import Context, Observed, Reconciled, Reconciler
from siorg_operator.control.status_writer import StatusWriter
from siorg_operator.control.tenants import Tenants
from siorg_operator.database.databases import Databases
from siorg_operator.decide.manifests import APPLIED_ANNOTATION, COMPONENT_LABEL, CRON_COMPONENTS, job_name, template_hash
from siorg_operator.decide.planned import Launch, Removal
from siorg_operator.decide.ports import ClusterError
from siorg_operator.decide.state import Job, JobState, QueueState, rfc3339
from siorg_operator.decide.status import Event
from siorg_operator.serving.health import Health
from siorg_operator.serving.metrics import OperatorMetrics
from support.operator_values import NOW, body, queue_of

NO_CRON_JOBS: dict[str, Any] = {part: {"enabled": False} for part in CRON_COMPONENTS}


class Killed(Exception):
    """The operator's process was killed."""


class FakeCluster:
    """``ports.Launcher``, ``ports.Reporter`` and ``ports.QueueReader``; CronJobs; and what it shows of them all."""

    def __init__(
        self, queue: QueueState | None = None, jobs: list[Job] | None = None, *, discovered: bool = True, **spec: Any
    ) -> None:
        """``discovered``: whether the first discovery was before all that a test looks at."""
        self.object: dict[str, Any] = body(**spec)
        self.object["metadata"]["resourceVersion"] = "9"
        if discovered and self.resource.spec.discovery.enabled:
            self.object["status"].setdefault("discovery", {"begunTime": rfc3339(NOW)})
        self.queue = queue_of(0) if queue is None else queue
        self.jobs = {job.name: job for job in jobs or []}
        self.shown: list[Job] | None = None
        """What its watch shows of the Jobs; None: all that there are."""
        self.lists_fail = False
        self.cron_jobs: dict[str, dict[str, Any]] = {}
        self.cron_runs: list[CronRun] = []
        self.events: list[Event] = []
        self.steps: list[str] = []
        self.read_at: list[float] = []
        self.watches: dict[str, Callable[[], None]] = {}
        self.refuses: Callable[[str], Exception | None] = lambda step: None
        self.loses_answer: Callable[[str], bool] = lambda step: False
        self.dies_after: int | None = None
        self.now = NOW
        self._uids = 0

    @property
    def resource(self) -> SiorgSyncWorker:
        return parse(self.object)

    @property
    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.object["status"]
        return status

    @property
    def unfinished(self) -> list[Job]:
        return [job for job in self.jobs.values() if job.unfinished]

    @property
    def conditions(self) -> dict[str, tuple[str, str, str]]:
        """Status, reason and message of each."""
        return {one["type"]: (one["status"], one["reason"], one["message"]) for one in self.status["conditions"]}

    def event_reasons(self) -> list[str]:
        return [event.reason for event in self.events]

    def edit(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Somebody writes the object."""
        before = copy.deepcopy(self.object)
        change(self.object)
        if self.object != before:
            self.object["metadata"]["resourceVersion"] = str(int(self.object["metadata"]["resourceVersion"]) + 1)

    def edit_spec(self, **spec: Any) -> None:
        """Somebody writes another spec."""
        self.edit(lambda there: there.update(spec=body(**spec)["spec"]))

    def observe(self, resource: SiorgSyncWorker, now: datetime) -> Observed:
        shown = list(self.jobs.values()) if self.shown is None else self.shown
        return Observed(shown, [cron_job_state(one) for one in self.cron_jobs.values()], self.cron_runs)

    # -- ports.QueueReader, and what listens ----------------------------------------------------------------------------

    url: str | None = "postgresql://db/siorg"
    credentials_changed = False

    async def read(self, resource: SiorgSyncWorker) -> QueueState:
        self.read_at.append(asyncio.get_running_loop().time())
        return self.queue

    async def changed(self) -> bool:
        return self.credentials_changed

    def watch(self, url: str, wake: Callable[[], None]) -> Callable[[], None]:
        self.watches[url] = wake
        return self.watches.clear

    async def close(self) -> None:
        """Of the databases."""

    # -- ports.Launcher -------------------------------------------------------------------------------------------------

    async def launch(self, resource: SiorgSyncWorker, launch: Launch, *, secrets_hash: str, decision: str) -> Job:
        name = job_name(resource, launch.slot, launch.round)
        template, self._uids = template_hash(resource, secrets_hash), self._uids + 1
        made = Job(name, launch.slot, launch.round, JobState.PENDING, self.now, template, uid=f"made {self._uids}")
        self._step(f"launch {launch.slot}-{launch.round}", lambda: self.jobs.setdefault(name, made))
        return self.jobs[name]

    async def end(self, resource: SiorgSyncWorker, removal: Removal) -> None:
        self._step(f"end {removal.name}", lambda: None)  # the Job controller takes its time

    async def terminate(self, resource: SiorgSyncWorker, job: Job, *, why: str) -> None:
        there = self.jobs.get(job.name)
        same = there is not None and there.uid == job.uid
        self._step(f"stop {job.name}", lambda: self.jobs.update({job.name: replace(job, stopped=True)}) if same else None)

    async def remove(self, resource: SiorgSyncWorker, job: Job) -> None:
        there = self.jobs.get(job.name)
        self._step(f"remove {job.name}", lambda: self.jobs.pop(job.name) if there is not None and there.uid == job.uid else None)

    async def find(self, resource: SiorgSyncWorker) -> list[Job]:
        if self.lists_fail:
            raise ClusterError("list jobs: the API server did not answer")
        return list(self.jobs.values())

    # -- ports.Reporter -------------------------------------------------------------------------------------------------

    async def write_status(self, resource: SiorgSyncWorker, patch: dict[str, Any]) -> dict[str, Any] | None:
        self._step("status", lambda: self.edit(lambda there: there.update(status=merge_patch(there["status"], patch))))
        return copy.deepcopy(self.object)

    async def record(self, resource: SiorgSyncWorker, event: Event) -> None:
        self._step(f"event {event.reason}", lambda: self.events.append(event))

    # -- CronJobs -------------------------------------------------------------------------------------------------------

    async def stop(self, resource: SiorgSyncWorker, name: str, uid: str, *, why: str) -> None:
        runs = [replace(run, stopped=run.stopped or run.uid == uid) for run in self.cron_runs]
        self._step(f"stop {name}", lambda: setattr(self, "cron_runs", runs))

    async def apply_cron_job(self, resource: SiorgSyncWorker, manifest: dict[str, Any]) -> dict[str, Any]:
        name = manifest["metadata"]["name"]
        self._step(f"apply {name}", lambda: self.write_cron_job(name, manifest["spec"], manifest["metadata"]["annotations"]))
        return self.cron_jobs[name]

    async def start_first_run(self, resource: SiorgSyncWorker, manifest: dict[str, Any]) -> None:
        name, component = manifest["metadata"]["name"], manifest["metadata"]["labels"][COMPONENT_LABEL]
        there = any(run.name == name for run in self.cron_runs)
        applied = manifest["metadata"]["annotations"][APPLIED_ANNOTATION]
        run = CronRun(name, component, "", "", uid=f"uid of {name}", applied=applied)
        self._step(f"create {name}", lambda: None if there else self.cron_runs.append(run))

    async def remove_run(self, resource: SiorgSyncWorker, name: str, uid: str) -> None:
        left = [run for run in self.cron_runs if run.uid != uid]
        self._step(f"remove {name}", lambda: setattr(self, "cron_runs", left))

    async def delete_cron_job(self, resource: SiorgSyncWorker, name: str, uid: str) -> None:
        assert uid == self.cron_jobs[name]["metadata"]["uid"]
        self._step(f"delete {name}", lambda: self.cron_jobs.pop(name, None))

    def write_cron_job(
        self, name: str, spec: Mapping[str, Any], annotations: Mapping[str, str] | None = None, by: str = "siorg-operator"
    ) -> None:
        """As the API server does: a changed spec is another generation, and who wrote it is known."""
        before = self.cron_jobs.get(name, {"metadata": {"generation": 0, "annotations": {}, "managedFields": []}, "spec": None})
        metadata = before["metadata"]
        self.cron_jobs[name] = before | {
            "metadata": {
                "name": name,
                "uid": f"uid of {name}",
                "generation": metadata["generation"] + (before["spec"] != spec),
                "annotations": {**metadata["annotations"], **(annotations or {})},
                "managedFields": [*metadata["managedFields"], {"manager": by, "fieldsV1": {"f:spec": {}}}],
            },
            "spec": dict(spec),
        }

    def _step(self, step: str, effect: Callable[[], object]) -> None:
        if self.dies_after is not None and len(self.steps) >= self.dies_after:
            raise Killed
        refusal = self.refuses(step)
        self.steps.append(step)
        if refusal is not None:
            raise refusal
        effect()
        if self.loses_answer(step):
            raise ClusterError("no answer in time")
        if self.dies_after is not None and len(self.steps) >= self.dies_after:
            raise Killed


def refusing(*steps: str, code: int = 500) -> Callable[[str], Exception | None]:
    """Refuses the steps that begin so."""
    return lambda step: ClusterError(f"the API server answered {code}", code) if step.startswith(steps) else None


class FakeOperator:
    """One process of the operator: what it keeps in memory dies with it."""

    def __init__(self, cluster: FakeCluster, tenants: Tenants | None = None) -> None:
        """``tenants``: of the process, where there is more than this resource."""
        self.cluster = cluster
        self.registry = CollectorRegistry()
        self.context = Context(
            launcher=cluster,
            reporter=cluster,
            new_reader=lambda: cluster,
            observe=cluster.observe,
            databases=cast("Databases", cluster),
            metrics=OperatorMetrics(self.registry),
            health=Health(),
            cluster=cast("Kubernetes", cluster),
            tenants=tenants or Tenants(),
            clock=lambda: cluster.now,
        )
        self.status = StatusWriter(cluster, lambda: None)
        self.reconciler = Reconciler(self.context, ("sync", "siorg"), cluster, self.status)

    def reconcile(self) -> Reconciled:
        """One pass."""
        return asyncio.run(self.one_pass())

    async def one_pass(self) -> Reconciled:
        """The same, beside others."""
        self.status.look(self.cluster.object)
        resource = parse({**self.cluster.object, "status": self.status.status})
        return await self.reconciler.reconcile(resource)

    def metric(self, name: str, **labels: str) -> float | None:
        """One sample; None: there is none."""
        return self.registry.get_sample_value(name, {"namespace": "sync", "worker": "siorg", **labels})
