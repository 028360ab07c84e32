"""The CronJobs of a resource (cleanup, discovery, verification): kept as its spec says, and watched for failures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from siorg_operator.api.resource import SiorgSyncWorker
from siorg_operator.cluster.client import Kubernetes
from siorg_operator.control.retries import Request
from siorg_operator.decide import manifests, wording
from siorg_operator.decide.reasons import Reason
from siorg_operator.decide.state import QueueState, Reading


@dataclass(frozen=True, slots=True)
class CronJobState:
    """A CronJob, as far as it matters whether it is as it should be."""

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
    succeeded_at: str = ""
    """When one last ended well, as the CronJob controller says (RFC 3339); empty: none has."""
    scheduled: bool = False
    """Whether its time has come at least once."""


@dataclass(frozen=True, slots=True)
class CronRun:
    """A Job of a CronJob of ours."""

    name: str
    component: str
    finished_at: str
    """RFC 3339; empty: it has not finished."""
    failure: str
    """Why it failed, in one line; empty: it did not."""
    uid: str = ""
    stopped: bool = False
    """Whether it was told to stop: how it ended tells nothing."""
    begun: bool = False
    """Whether a pod of it runs, or has ended."""
    applied: str = ""
    """For one that the operator made: hash of the CronJob that it was made from."""


def cron_job_state(body: Mapping[str, Any]) -> CronJobState:
    """A CronJob's object, as far as it matters."""
    metadata = body["metadata"]
    shared = any(
        "f:spec" in (entry.get("fieldsV1") or {}) and entry.get("manager") != manifests.MANAGED_BY
        for entry in metadata.get("managedFields") or ()
    )
    return CronJobState(
        metadata["name"],
        metadata["uid"],
        applied=(metadata.get("annotations") or {}).get(manifests.APPLIED_ANNOTATION, ""),
        generation=metadata.get("generation") or 0,
        shared=shared,
        suspended=bool((body.get("spec") or {}).get("suspend")),
        active=len((body.get("status") or {}).get("active") or ()),
        succeeded_at=(body.get("status") or {}).get("lastSuccessfulTime") or "",
        scheduled=bool((body.get("status") or {}).get("lastScheduleTime")),
    )


def cron_run(body: Mapping[str, Any]) -> CronRun:
    """The object of a CronJob's Job, as far as it matters."""
    metadata, status = body["metadata"], body.get("status") or {}
    conditions = {each["type"]: each for each in status.get("conditions") or () if each.get("status") == "True"}
    failed = conditions.get("Failed")
    end = failed or conditions.get("Complete") or {}
    annotations = metadata.get("annotations") or {}
    told = manifests.STOPPED_ANNOTATION in annotations
    return CronRun(
        metadata["name"],
        (metadata.get("labels") or {}).get(manifests.COMPONENT_LABEL, ""),
        finished_at=end.get("lastTransitionTime") or (end and metadata.get("creationTimestamp")) or "",
        failure="" if failed is None else f"{failed.get('reason') or 'Failed'}: {failed.get('message') or ''}".rstrip(": "),
        uid=metadata["uid"],
        stopped=told and (failed is None or failed.get("reason") == "DeadlineExceeded"),
        begun=bool(end or any(status.get(count) for count in ("ready", "succeeded", "failed"))),
        applied=annotations.get(manifests.APPLIED_ANNOTATION, ""),
    )


class CronJobs:
    """The CronJobs of one resource."""

    def __init__(self, cluster: Kubernetes) -> None:
        self._cluster = cluster
        self._applied: dict[str, int] = {}
        """Generation of each CronJob, by its uid, after it was applied last."""

    def requests(self, resource: SiorgSyncWorker, found: Sequence[CronJobState], runs: Sequence[CronRun]) -> list[Request]:
        """What has to be asked of the cluster so that the CronJobs are as the resource says."""
        by_name = {cron_job.name: cron_job for cron_job in found}
        requests = self._stops(resource, runs)
        for component in manifests.CRON_COMPONENTS:
            name, enabled = manifests.cron_job_name(resource, component), manifests.cron_spec(resource, component).enabled
            state = by_name.get(name)
            if not enabled and (state is None or state.suspended):
                running = any(run.component == component and not run.finished_at for run in runs)
                if state is not None and not state.active and not running:  # to remove it would kill its Job
                    delete = partial(self._cluster.delete_cron_job, resource, name, state.uid)
                    requests.append(Request(f"delete {name}", Reason.CRON_JOB_REFUSED, delete))
                continue
            manifest = manifests.cron_job(resource, component)
            # The same, but it starts nothing: what forbids two at once (concurrencyPolicy) does not know of Jobs made by others.
            first = manifests.first_run_name(resource, component)
            runs_first = any(run.name == first and not run.finished_at for run in runs)
            if not enabled or runs_first:
                manifest["metadata"]["annotations"][manifests.APPLIED_ANNOTATION] = "suspended"
                manifest["spec"]["suspend"] = True
            applied = manifest["metadata"]["annotations"][manifests.APPLIED_ANNOTATION]
            if not (enabled and state is not None and self._is_as_applied(state, applied)):
                apply = partial(self._apply, resource, manifest)
                requests.append(Request(f"apply {name} {applied}", Reason.CRON_JOB_REFUSED, apply))
        return requests

    def _stops(self, resource: SiorgSyncWorker, runs: Sequence[CronRun]) -> list[Request]:
        """Those that run stop with the drains, where it is ``suspend`` that stops these: ``maxJobs`` 0 leaves CronJobs alone."""
        if not (resource.spec.suspend and resource.spec.when_suspended == "Stop"):
            return []
        why, refused = wording.switched_off_by(resource), Reason.REMOVAL_REFUSED
        return [
            Request(f"stop {run.name}", refused, partial(self._cluster.stop, resource, run.name, run.uid, why=why), once=True)
            for run in runs
            if not run.finished_at and not run.stopped
        ]

    def _is_as_applied(self, state: CronJobState, applied: str) -> bool:
        """Whether it was made from this very manifest, and nobody has changed its spec since."""
        if state.applied != applied:
            return False
        if state.uid not in self._applied and not state.shared:  # an operator before this one applied it
            self._applied[state.uid] = state.generation
        return state.generation <= self._applied.get(state.uid, -1)

    async def _apply(self, resource: SiorgSyncWorker, manifest: dict[str, Any]) -> None:
        metadata = (await self._cluster.apply_cron_job(resource, manifest))["metadata"]
        self._applied[metadata["uid"]] = metadata.get("generation") or 0

    def first_discovery(
        self, resource: SiorgSyncWorker, queue: QueueState, found: Sequence[CronJobState], runs: Sequence[CronRun]
    ) -> list[Request]:
        """What launches the first discovery, once its CronJob is there and starts Jobs by the clock; empty: nothing now."""
        name, reading = manifests.cron_job_name(resource, "discovery"), queue.reading
        state = next((cron_job for cron_job in found if cron_job.name == name), None)
        if state is None or discovery_has_begun(resource, found, runs):
            return []
        manifest = manifests.cron_job(resource, "discovery")
        applied = manifest["metadata"]["annotations"][manifests.APPLIED_ANNOTATION] if resource.spec.discovery.enabled else None
        if there := [run for run in runs if run.component == "discovery"]:
            # It has not begun, and may never (an image that is not there): as it is written now it may, or shall not.
            return [
                Request(
                    f"remove {run.name}", Reason.REMOVAL_REFUSED, partial(self._cluster.remove_run, resource, run.name, run.uid)
                )
                for run in there
                if run.applied not in {"", applied}
            ]
        if applied is None or state.suspended or manifest["spec"]["suspend"] or not self._is_as_applied(state, applied):
            return []
        # Where the database says no, or the Secret is not there yet, it would come too early, and there is no second one.
        if not isinstance(reading, Reading) or not reading.sync_enabled or queue.siorg_token_error is not None:
            return []
        job = manifests.first_run(resource, "discovery", state.uid)
        start = partial(self._cluster.start_first_run, resource, job)
        return [Request(f"create {job['metadata']['name']}", Reason.CRON_JOB_REFUSED, start)]


def discovery_has_begun(resource: SiorgSyncWorker, found: Sequence[CronJobState], runs: Sequence[CronRun]) -> bool:
    """Whether a discovery has begun: status remembers it, a Job's pod tells, or its CronJob's time has come."""
    name = manifests.cron_job_name(resource, "discovery")
    return (
        resource.status.discovery is not None
        or any(run.component == "discovery" and run.begun for run in runs)
        or any(cron_job.name == name and cron_job.scheduled for cron_job in found)
    )
