"""Kubernetes, through its official client: the only module that sends requests about resources, Jobs and the like.

The client is synchronous, so every call runs on a thread of a small pool and has a limit.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent import futures
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any, Final

from kubernetes import client

from siorg_operator.api.resource import GROUP, KIND, PLURAL, VERSION, SiorgSyncWorker
from siorg_operator.cluster.clock import ClusterClock
from siorg_operator.cluster.connection import POOL_SIZE, Body, request
from siorg_operator.decide import manifests
from siorg_operator.decide.clocks import not_ahead
from siorg_operator.decide.jobs import combine, controller_uid, job_record
from siorg_operator.decide.planned import Launch, Removal
from siorg_operator.decide.pods import PodRecord, pod_record
from siorg_operator.decide.ports import ClusterError
from siorg_operator.decide.state import Job, JobState, rfc3339
from siorg_operator.decide.status import Event
from siorg_operator.serving.health import Health
from siorg_operator.serving.metrics import OperatorMetrics
from siorg_runtime.logs import logger
from siorg_runtime.redaction import redactor

FIELD_MANAGER: Final = "siorg-operator"
_AS_US: Final = {"fieldManager": FIELD_MANAGER}
_CLOSING_SECONDS = 5.0  # for requests in flight
_KEPT_THREADS = 2  # for all but launches: admission of Jobs may be slow, and status and Secrets of others do not wait for it
_READS = frozenset({"get", "list"})
_MERGE_PATCH = "application/merge-patch+json"
_APPLY_PATCH = "application/apply-patch+yaml"
_METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_PAGE = 500  # objects of one listing's page
_JOB_ADVICE: Final = {
    403: "raise the quota, mend the admission rule, or let the operator's Role create Jobs",
    422: "correct spec.job: it is what the Job is made from",
}
"""What to do when a Job is refused, by the code of the answer."""
_CRON_JOB_ADVICE: Final = {
    403: "raise the quota, mend the admission rule, or let the operator's Role get, create and patch CronJobs",
    422: "correct spec.cleanup, spec.discovery or spec.job: they are what the CronJob is made from",
}
_OWNER_ADVICE: Final = f"let the operator's Role update {PLURAL}/finalizers"
"""Where the admission plugin OwnerReferencesPermissionEnforcement refuses what we own: OpenShift has it."""
_CONTROLLER_UID_LABEL: Final = "batch.kubernetes.io/controller-uid"
_REFUSED_FOR_ANOTHER: Final = frozenset({409, 422})
"""How the API server refuses what is meant for another uid: a delete as a conflict, a patch as a change of a fixed field."""
_LONGEST_EVENT = 1024  # bytes that Kubernetes takes of an event's message

log = logger(__name__)


class Kubernetes:
    """The cluster, as ``ports.Launcher`` and ``ports.Reporter``; and its CronJobs and Secrets.

    Whatever asks raises ``ClusterError`` where the API server refuses or does not answer.
    """

    def __init__(
        self,
        api: client.ApiClient,
        metrics: OperatorMetrics,
        *,
        may_write: Callable[[], bool] | None = None,
        clock: ClusterClock | None = None,
        health: Health | None = None,
    ) -> None:
        """Prepare; nothing is asked yet.

        Args:
            api: its configuration decides which cluster it is.
            metrics: counts every request.
            may_write: asked before each write: a replica that slept past its Lease must not act on what it saw before.
            clock: is kept right by each answer; None: a new one.
            health: hears of each request.
        """
        self._api = api
        self._metrics = metrics
        self._may_write = may_write or (lambda: True)
        self.clock = clock or ClusterClock()
        self._health = health or Health()
        self._threads = futures.ThreadPoolExecutor(POOL_SIZE, thread_name_prefix="kubernetes")
        self._free = asyncio.Semaphore(POOL_SIZE)
        """Threads. The pool has a queue of its own, which does not tell when a request leaves it."""
        self._free_for_launches = asyncio.Semaphore(POOL_SIZE - _KEPT_THREADS)
        self._in_flight: set[futures.Future[Body]] = set()

    def close(self) -> None:
        """Take no more calls, and wait a moment for those in flight: whoever leads next should not meet them."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        left = futures.wait(self._in_flight, timeout=_CLOSING_SECONDS).not_done
        if left:
            log.warning("Requests are still in flight", requests=len(left))

    @property
    def in_flight(self) -> bool:
        """Whether a request is under way still: its thread keeps the interpreter from its end."""
        return bool(self._in_flight)

    # -- Jobs ---------------------------------------------------------------------------------------------------------

    async def launch(self, resource: SiorgSyncWorker, launch: Launch, *, secrets_hash: str, decision: str) -> Job:
        manifest = manifests.drain_job(
            resource, slot=launch.slot, round=launch.round, secrets_hash=secrets_hash, decision=decision
        )
        name, namespace = manifest["metadata"]["name"], resource.metadata.namespace
        try:
            return _launched(await self._call("create", "jobs", namespace, body=manifest, options=_AS_US))
        except ClusterError as error:
            if error.code != 409:
                raise _advised(error, _JOB_ADVICE) from None
        # The name is taken: by the very Job that an earlier pass made without hearing of it, most likely.
        existing = await self._read_job(namespace, name)
        if existing is None:
            raise ClusterError(f"Job {name} existed and is gone; it is tried again by itself", 409)
        if not _is_controlled_by(resource, existing):
            raise ClusterError(f"Job {name} cannot be created: a Job of that name exists that this resource does not own", 409)
        if existing["metadata"].get("deletionTimestamp"):
            raise ClusterError(f"Job {name} is not gone yet", 409)
        return _launched(existing)

    async def end(self, resource: SiorgSyncWorker, removal: Removal) -> None:
        """A deadline in the past makes the Job controller end it, and keeps it as history."""
        name, namespace = removal.name, resource.metadata.namespace
        if any(pod.running and pod.deleted_at is None for pod in await self._pods_of(namespace, removal.uid)):
            raise ClusterError(f"Job {name} is not ended: its pod has come to run, although no watch has shown it yet")
        annotations = {manifests.STUCK_ANNOTATION: f"{removal.stuck.reason}: {removal.stuck.message}"}
        if removal.last_words:
            annotations = {manifests.WORKER_ENDED_ANNOTATION: removal.last_words}
        await self._set_past_deadline(namespace, name, removal.uid, annotations)

    async def terminate(self, resource: SiorgSyncWorker, job: Job, *, why: str) -> None:
        await self.stop(resource, job.name, job.uid, why=why)

    async def stop(self, resource: SiorgSyncWorker, name: str, uid: str, *, why: str) -> None:
        """Stop a Job, of a CronJob too. As ``end``: the Job controller deletes the pod, whose grace begins with SIGTERM.

        Kueue would resume a Job that is suspended instead, and one that is deleted is no history.
        """
        await self._set_past_deadline(resource.metadata.namespace, name, uid, {manifests.STOPPED_ANNOTATION: why})

    async def _set_past_deadline(self, namespace: str, name: str, uid: str, annotations: Mapping[str, str]) -> None:
        patch = {"metadata": {"uid": uid, "annotations": dict(annotations)}, "spec": {"activeDeadlineSeconds": 1}}
        patched = self._or_none("patch", "jobs", namespace, name, patch, content_type=_MERGE_PATCH)
        await _of_uid(uid, patched, partial(self._read_job, namespace, name))

    async def remove(self, resource: SiorgSyncWorker, job: Job) -> None:
        name, namespace = job.name, resource.metadata.namespace
        version = job.version if job.state is JobState.SUSPENDED else ""  # it may be admitted this very moment
        deleted = self._or_none("delete", "jobs", namespace, name, _deletion(job.uid, version))
        await _of_uid(job.uid, deleted, partial(self._read_job, namespace, name), version)

    async def find(self, resource: SiorgSyncWorker) -> list[Job]:
        bodies, pods = await self.list_owned(resource.metadata.namespace, resource.metadata.name)
        return owned_jobs(resource, bodies, pods, self.clock.now())

    async def _read_job(self, namespace: str, name: str) -> Body | None:
        return await self._or_none("get", "jobs", namespace, name)

    async def _pods_of(self, namespace: str, uid: str) -> list[PodRecord]:
        """A Job's, as they are now: watches and the Job controller tell later."""
        found = await self._list("pods", namespace, labelSelector=f"{_CONTROLLER_UID_LABEL}={uid}")
        return [pod_record(pod) for pod in found["items"]]

    # -- the resource's other things ----------------------------------------------------------------------------------

    async def write_status(self, resource: SiorgSyncWorker, patch: Body) -> Body | None:
        return await self._or_none(
            "patch", f"{PLURAL}/status", resource.metadata.namespace, resource.metadata.name, {"status": _without_secrets(patch)},
            options=_AS_US, content_type=_MERGE_PATCH,
        )  # fmt: skip

    async def record(self, resource: SiorgSyncWorker, event: Event) -> None:
        now = rfc3339(self.clock.now())
        namespace, name = resource.metadata.namespace, resource.metadata.name
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{name}.{uuid.uuid4().hex[:16]}", "namespace": namespace},
            "involvedObject": {
                "apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "namespace": namespace, "name": name,
                "uid": resource.metadata.uid,
            },
            "type": event.type,
            "reason": event.reason,
            "message": redactor.text(event.message).encode()[:_LONGEST_EVENT].decode(errors="ignore"),
            "source": {"component": FIELD_MANAGER},
            "reportingComponent": FIELD_MANAGER,
            "reportingInstance": "",
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }  # fmt: skip
        try:
            await self._call("create", "events", namespace, body=body)
        except ClusterError as error:
            log.warning("Event not recorded", reason=str(error), namespace=namespace, worker=name)

    async def apply_cron_job(self, resource: SiorgSyncWorker, manifest: Body) -> Body:
        """Make a CronJob as it is written (server-side apply); the object as it is now. Another's is refused."""
        name, namespace = manifest["metadata"]["name"], resource.metadata.namespace
        # Applying takes over whatever is there: a person's CronJob would become ours, and go when the resource goes.
        existing = await self._read_cron_job(namespace, name)
        if existing is not None and not _is_controlled_by(resource, existing):
            raise ClusterError(f"a CronJob {name} exists that this resource does not own: rename or delete it", 409)
        try:
            options = {**_AS_US, "force": "true"}
            return await self._call("patch", "cronjobs", namespace, name, manifest, options=options, content_type=_APPLY_PATCH)
        except ClusterError as error:
            raise _advised(error, _CRON_JOB_ADVICE, f"CronJob {name}: ") from None

    async def start_first_run(self, resource: SiorgSyncWorker, manifest: Body) -> None:
        """Create the Job that a CronJob starts with. One that is there already is this one, started before."""
        name, namespace = manifest["metadata"]["name"], resource.metadata.namespace
        try:
            await self._call("create", "jobs", namespace, body=manifest, options=_AS_US)
        except ClusterError as error:
            if error.code != 409:
                raise _advised(error, _JOB_ADVICE, f"Job {name}: ") from None
            existing = await self._read_job(namespace, name)
            if existing is None or controller_uid(existing, "CronJob") != controller_uid(manifest, "CronJob"):
                about = "its CronJob does not own: it is on its way out, or rename or delete it"
                raise ClusterError(f"a Job {name} exists that {about}", 409) from None

    async def remove_run(self, resource: SiorgSyncWorker, name: str, uid: str) -> None:
        """Remove a Job of a CronJob that has not begun. One that is gone is no error, another one of its name is left alone."""
        namespace = resource.metadata.namespace
        if any(pod.running or pod.exit_code is not None for pod in await self._pods_of(namespace, uid)):
            return  # it has begun, although the Job controller has not said so yet
        deleted = self._or_none("delete", "jobs", namespace, name, _deletion(uid))
        await _of_uid(uid, deleted, partial(self._read_job, namespace, name))

    async def delete_cron_job(self, resource: SiorgSyncWorker, name: str, uid: str) -> None:
        """Remove a CronJob. One that is gone is no error, and another one that has its name by now is left alone."""
        namespace = resource.metadata.namespace
        deleted = self._or_none("delete", "cronjobs", namespace, name, _deletion(uid))
        await _of_uid(uid, deleted, partial(self._read_cron_job, namespace, name))

    async def _read_cron_job(self, namespace: str, name: str) -> Body | None:
        return await self._or_none("get", "cronjobs", namespace, name)

    # -- reading ------------------------------------------------------------------------------------------------------

    async def read_secret(self, namespace: str, name: str) -> Body | None:
        """A Secret; None when none has that name."""
        return await self._or_none("get", "secrets", namespace, name)

    async def patch_secret(self, namespace: str, name: str, change: Body) -> Body | None:
        """Merge ``change`` (RFC 7386) into a Secret; the object as it is now, or None when none has that name."""
        return await self._or_none("patch", "secrets", namespace, name, change, content_type=_MERGE_PATCH)

    async def read_resource(self, namespace: str, name: str) -> Body | None:
        """A resource; None when none has that name."""
        return await self._or_none("get", PLURAL, namespace, name)

    async def check_access(self, namespace: str) -> None:
        """Make sure that everything that is watched can be listed. The error says what to do about the first that cannot."""
        for what in (PLURAL, "jobs", "cronjobs", "pods"):
            try:
                await self._list(what, namespace, limit=1)
            except ClusterError as error:
                advice = {
                    403: f"the operator's Role in namespace {namespace} must allow list and watch of {what}",
                    404: f"{what} is not known to the API server: kubectl apply -f crds/siorgsyncworkers.yaml",
                }.get(error.code)
                raise ClusterError(f"{error}{'; ' + advice if advice else ''}", error.code) from None

    async def uids(self, kind: str, namespace: str) -> set[str]:
        """Of all objects of a kind (its plural) that may be ours."""
        options: dict[str, Any] = {"limit": _PAGE}
        if kind != PLURAL:
            options["labelSelector"] = f"app.kubernetes.io/managed-by={manifests.MANAGED_BY}"
        found: set[str] = set()
        while True:
            page = await self._list(kind, namespace, accept=_METADATA_ONLY, **options)
            found |= {item["metadata"]["uid"] for item in page["items"] or ()}  # null where there is none
            options["continue"] = page["metadata"].get("continue")
            if not options["continue"]:
                return found

    async def _list(self, what: str, namespace: str, *, accept: str = "application/json", **options: Any) -> Body:
        return await self._call("list", what, namespace, options=options, accept=accept)

    async def list_owned(self, namespace: str, worker: str) -> tuple[list[Body], list[Body]]:
        """Jobs and pods of a resource."""
        selector = f"{manifests.WORKER_LABEL}={worker},{manifests.COMPONENT_LABEL}=drain"
        jobs = await self._list("jobs", namespace, labelSelector=selector)
        pods = await self._list("pods", namespace, labelSelector=selector)
        return jobs["items"], pods["items"]

    # -- requests -----------------------------------------------------------------------------------------------------

    async def _call(self, verb: str, what: str, *arguments: Any, **more: Any) -> Body:
        """One ``request`` on a thread of the pool; its answer as JSON."""

        def call() -> Body:
            if verb not in _READS and not self._may_write():
                raise ClusterError(f"{verb} {what}: not done, another replica may lead by now")
            return request(self._api, verb, what, *arguments, clock=self.clock, **more)

        lanes = [self._free_for_launches, self._free] if (verb, what) == ("create", "jobs") else [self._free]
        future = await self._begin(call, lanes)
        began, code = time.monotonic(), 0
        try:
            answer = await asyncio.wrap_future(future)
        except ClusterError as error:
            code = error.code
            raise
        else:
            code = 200
            return answer
        finally:
            self._health.request_ended()
            self._metrics.api_call(verb, what, code, time.monotonic() - began)

    async def _begin(self, call: Callable[[], Body], lanes: Sequence[asyncio.Semaphore]) -> futures.Future[Body]:
        """Have a thread make the call, as soon as one is free in all ``lanes``."""
        loop, taken = asyncio.get_running_loop(), list[asyncio.Semaphore]()

        def leave() -> None:
            for lane in taken:
                lane.release()

        def ended(future: futures.Future[Body]) -> None:
            self._in_flight.discard(future)
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(leave)

        self._health.request_queued()
        try:
            for lane in lanes:
                await lane.acquire()
                taken.append(lane)
            future = self._threads.submit(call)
        except BaseException:
            leave()
            raise
        finally:
            self._health.request_began()
        self._in_flight.add(future)
        future.add_done_callback(ended)
        return future

    async def _or_none(self, verb: str, what: str, *arguments: Any, **more: Any) -> Body | None:
        """As ``_call``; None where nothing has that name (any more)."""
        try:
            return await self._call(verb, what, *arguments, **more)
        except ClusterError as error:
            if error.code != 404:
                raise
            return None


def _advised(error: ClusterError, by_code: Mapping[int, str], before: str = "") -> ClusterError:
    """The error with what to do about it, by the code of the answer. ``before``: what it is about."""
    advice = by_code.get(error.code, "it is tried again by itself")
    if error.code == 403 and "blockOwnerDeletion" in str(error):
        advice = _OWNER_ADVICE
    return ClusterError(f"{before}{error}; {advice}", error.code, error.retry_after)


def _without_secrets(value: Any) -> Any:
    """``value`` with its messages cleansed: what a pod said of its end is repeated there, and not every image is ours."""
    if isinstance(value, dict):
        return {key: redactor.text(inner) if key == "message" and isinstance(inner, str) else _without_secrets(inner)
                for key, inner in value.items()}  # fmt: skip
    return [_without_secrets(inner) for inner in value] if isinstance(value, list) else value


def owned_jobs(resource: SiorgSyncWorker, bodies: Iterable[Body], pods: Sequence[Body], now: datetime) -> list[Job]:
    """The Jobs that a resource controls, out of lists of Jobs and pods."""
    records = [record for body in bodies if controller_uid(body) == resource.metadata.uid and (record := job_record(body))]
    found: dict[str, list[PodRecord]] = {record.uid: [] for record in records}
    for pod in pods:
        found.get(controller_uid(pod, "Job") or "", []).append(not_ahead(pod_record(pod), None, now))
    return [combine(not_ahead(record, None, now), found[record.uid], now, redactor.text) for record in records]


def _launched(body: Body) -> Job:
    """A Job as the API server answered it: how it ended its pods tell, which are not looked at here."""
    record = job_record(body)
    if record is None:
        raise ClusterError(f"Job {body['metadata']['name']} has lost its labels: delete it", 409)
    state = JobState.PENDING if record.finished_at is None else JobState.FAILED if record.failed_because else JobState.SUCCEEDED
    return Job(
        record.name, record.slot, record.round, state, record.created_at, record.template,
        finished_at=record.finished_at, uid=record.uid,
    )  # fmt: skip


def _deletion(uid: str, version: str = "") -> Body:
    preconditions = {"uid": uid} | ({"resourceVersion": version} if version else {})
    return {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions, "propagationPolicy": "Background"}


async def _of_uid(
    uid: str, sent: Awaitable[Body | None], read: Callable[[], Awaitable[Body | None]], version: str = ""
) -> Body | None:
    """The answer to a request that is meant for the object of that uid; None: it is gone, whoever has its name by now.

    ``version``: the request was meant for that ``resourceVersion`` alone, and None may be that there is another one.
    """
    try:
        return await sent
    except ClusterError as error:
        if error.code not in _REFUSED_FOR_ANOTHER:
            raise
        there = ((await read()) or {}).get("metadata", {})
        if there.get("uid") == uid and version in {"", there.get("resourceVersion")}:
            raise
        return None


def _is_controlled_by(resource: SiorgSyncWorker, existing: Body) -> bool:
    owners = existing["metadata"].get("ownerReferences") or ()
    return any(owner.get("controller") and owner.get("uid") == resource.metadata.uid for owner in owners)
