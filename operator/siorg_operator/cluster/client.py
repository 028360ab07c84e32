"""Kubernetes, through its official client: the only module that sends requests of ours.

The client is synchronous, so every call runs on a thread of a small pool and has a limit. Bodies are dictionaries, answers
are read as JSON: the client's models cost more than the requests.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections.abc import Callable
from concurrent import futures
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from siorg_operator.api.resource import GROUP, KIND, PLURAL, VERSION, SiorgSyncWorker
from siorg_operator.decide import manifests
from siorg_operator.decide.plan import Launch, Removal
from siorg_operator.decide.ports import ClusterError
from siorg_operator.decide.state import rfc3339
from siorg_operator.decide.status import Event
from siorg_operator.serving.metrics import OperatorMetrics
from siorg_operator.settings import NAMESPACE_FILE
from siorg_runtime.redaction import redactor

FIELD_MANAGER: Final = "siorg-operator"
CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 15.0
_CLOSING_SECONDS = 5.0
_THREADS = 8  # requests under way at once; a slow API server must not pile up threads
_READS = frozenset({"get", "list"})
_MERGE_PATCH = "application/merge-patch+json"
_APPLY_PATCH = "application/apply-patch+yaml"
_METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_PAGE = 500  # objects of one listing's page
_AFTER_A_REFUSAL: Final = {
    403: "raise the quota, mend the admission rule, or let the operator's Role create Jobs",
    422: "correct spec.job: it is what the Job is made from",
}
"""What to do when a Job is refused, by the code of the answer."""
_AFTER_A_REFUSED_CRON_JOB: Final = {
    403: "raise the quota, mend the admission rule, or let the operator's Role get, create and patch CronJobs",
    422: "correct spec.cleanup, spec.discovery or spec.job: they are what the CronJob is made from",
}
_LONGEST_EVENT = 1024  # bytes that Kubernetes takes of an event's message

log = logging.getLogger(__name__)

Body = dict[str, Any]


def api_client() -> client.ApiClient:
    """A client of the cluster: the service account's inside one, the kubeconfig's current context elsewhere.

    Raises:
        ClusterError: neither is there.
    """
    configuration = client.Configuration()
    try:
        if Path("/var/run/secrets/kubernetes.io/serviceaccount/token").exists():
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except (config.ConfigException, OSError) as error:
        raise ClusterError(f"no cluster is configured: {error}; set KUBECONFIG, or run inside a cluster") from None
    configuration.connection_pool_maxsize = _THREADS
    configuration.retries = False  # urllib3's own would make four limits of each call's limit
    made = client.ApiClient(configuration)
    made.user_agent = "siorg-operator"
    return made


def namespace_of_context() -> str:
    """The namespace that kubectl would take: the pod's, or that of the kubeconfig's current context; empty: none is said."""
    with suppress(OSError):
        return NAMESPACE_FILE.read_text(encoding="utf-8").strip()
    with suppress(config.ConfigException, OSError):
        _, active = config.list_kube_config_contexts()  # type: ignore[no-untyped-call]
        return str(active["context"].get("namespace") or "")
    return ""


class Kubernetes:
    """The cluster, as ``ports.Launcher`` and ``ports.Cluster``; and the Secrets."""

    def __init__(self, api: client.ApiClient, metrics: OperatorMetrics, *, may_write: Callable[[], bool] | None = None) -> None:
        """Prepare; nothing is asked yet.

        Args:
            api: its configuration decides which cluster it is.
            metrics: every request is counted there.
            may_write: asked before each write: a replica that slept past its Lease must not act on what it saw before.
        """
        self._batch = client.BatchV1Api(api)
        self._core = client.CoreV1Api(api)
        self._custom = client.CustomObjectsApi(api)
        self._metrics = metrics
        self._may_write = may_write or (lambda: True)
        self._threads = futures.ThreadPoolExecutor(_THREADS, thread_name_prefix="kubernetes")
        self._under_way: set[futures.Future[Body]] = set()

    def close(self) -> None:
        """Take no more calls, and wait a moment for those under way: whoever leads next should not meet them."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        left = futures.wait(self._under_way, timeout=_CLOSING_SECONDS).not_done
        if left:
            log.warning("%d requests are under way still", len(left))

    # -- Jobs ---------------------------------------------------------------------------------------------------------

    async def launch(self, resource: SiorgSyncWorker, launch: Launch, *, credentials: str, decision: str) -> bool:
        """See ``ports.Launcher``."""
        manifest = manifests.drain_job(resource, slot=launch.slot, round=launch.round, credentials=credentials, decision=decision)
        name, namespace = manifest["metadata"]["name"], _namespace(resource)
        try:
            await self._call(
                "create", "jobs", self._batch.create_namespaced_job, namespace, manifest, field_manager=FIELD_MANAGER
            )
        except ClusterError as error:
            if error.code != 409:
                raise ClusterError(
                    f"{error}; {_AFTER_A_REFUSAL.get(error.code, 'it is tried again by itself')}", error.code
                ) from None
        else:
            return True
        # The name is taken: by the very Job that an earlier pass made without hearing of it, most likely.
        there = await self._or_none(self._call("get", "jobs", self._batch.read_namespaced_job, name, namespace))
        if there is None:
            raise ClusterError(f"Job {name} was there and is gone; it is tried again by itself", 409)
        if not _is_controlled_by(resource, there):
            raise ClusterError(f"Job {name} cannot be created: a Job of that name is there that this resource does not own", 409)
        if there["metadata"].get("deletionTimestamp"):
            raise ClusterError(f"Job {name} is not gone yet", 409)
        return False

    async def end(self, resource: SiorgSyncWorker, removal: Removal) -> None:
        """See ``ports.Launcher``. A deadline in the past makes the Job controller end it, and keeps it as history."""
        because = f"{removal.stuck.reason}: {removal.stuck.message}"
        patch = {
            "metadata": {"annotations": {manifests.STUCK_ANNOTATION: because}},
            "spec": {"activeDeadlineSeconds": 1},
        }
        await self._gone_is_fine(
            self._call(
                "patch",
                "jobs",
                self._batch.patch_namespaced_job,
                removal.name,
                _namespace(resource),
                patch,
                _content_type=_MERGE_PATCH,
            )
        )

    async def remove(self, resource: SiorgSyncWorker, name: str) -> None:
        """See ``ports.Launcher``."""
        await self._gone_is_fine(
            self._call(
                "delete", "jobs", self._batch.delete_namespaced_job, name, _namespace(resource), propagation_policy="Background"
            )
        )

    # -- the resource's other things ----------------------------------------------------------------------------------

    async def write_status(self, resource: SiorgSyncWorker, patch: Body) -> Body | None:
        """See ``ports.Cluster``."""
        return await self._or_none(
            self._call(
                "patch", f"{PLURAL}/status", self._custom.patch_namespaced_custom_object_status,
                GROUP, VERSION, _namespace(resource), PLURAL, resource.metadata.name, {"status": _without_secrets(patch)},
                field_manager=FIELD_MANAGER, _content_type=_MERGE_PATCH,
            )
        )  # fmt: skip

    async def record(self, resource: SiorgSyncWorker, event: Event) -> None:
        """See ``ports.Cluster``."""
        now = rfc3339(datetime.now(UTC))
        namespace, name = _namespace(resource), resource.metadata.name
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
            await self._call("create", "events", self._core.create_namespaced_event, namespace, body)
        except ClusterError as error:
            log.warning("An event could not be told: %s", error, extra={"namespace": namespace, "worker": name})

    async def apply_cron_job(self, resource: SiorgSyncWorker, manifest: Body) -> Body:
        """See ``ports.Cluster``."""
        name, namespace = manifest["metadata"]["name"], _namespace(resource)
        # Applying takes over whatever is there: a person's CronJob would become ours, and go when the resource goes.
        there = await self._or_none(self._call("get", "cronjobs", self._batch.read_namespaced_cron_job, name, namespace))
        if there is not None and not _is_controlled_by(resource, there):
            problem = "is there that this resource does not own: rename or delete it"
            raise ClusterError(f"a CronJob {name} {problem}", 409)
        try:
            return await self._call(
                "patch", "cronjobs", self._batch.patch_namespaced_cron_job, name, namespace,
                manifest, field_manager=FIELD_MANAGER, force=True, _content_type=_APPLY_PATCH,
            )  # fmt: skip
        except ClusterError as error:
            advice = _AFTER_A_REFUSED_CRON_JOB.get(error.code, "it is tried again by itself")
            raise ClusterError(f"CronJob {name}: {error}; {advice}", error.code) from None

    async def delete_cron_job(self, resource: SiorgSyncWorker, name: str) -> None:
        """See ``ports.Cluster``."""
        await self._gone_is_fine(
            self._call(
                "delete", "cronjobs", self._batch.delete_namespaced_cron_job, name, _namespace(resource),
                propagation_policy="Background",
            )
        )  # fmt: skip

    # -- reading ------------------------------------------------------------------------------------------------------

    async def read_secret(self, namespace: str, name: str) -> Body | None:
        """A Secret; None when there is none of that name.

        Raises:
            ClusterError: it could not be read.
        """
        return await self._or_none(self._call("get", "secrets", self._core.read_namespaced_secret, name, namespace))

    async def read_resource(self, namespace: str, name: str) -> Body | None:
        """A resource; None when there is none of that name.

        Raises:
            ClusterError: it could not be read.
        """
        call = self._call("get", PLURAL, self._custom.get_namespaced_custom_object, GROUP, VERSION, namespace, PLURAL, name)
        return await self._or_none(call)

    async def check_access(self, namespace: str) -> None:
        """Make sure that everything that is watched can be listed.

        Raises:
            ClusterError: the first that cannot, and what to do about it.
        """
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
        """See ``roll_call.Lists``."""
        options: dict[str, Any] = {"limit": _PAGE, "_headers": {"Accept": _METADATA_ONLY}}
        if kind != PLURAL:
            options["label_selector"] = f"app.kubernetes.io/managed-by={manifests.MANAGED_BY}"
        found: set[str] = set()
        while True:
            page = await self._list(kind, namespace, **options)
            found |= {item["metadata"]["uid"] for item in page["items"] or ()}  # null where there is none
            options["_continue"] = page["metadata"].get("continue")
            if not options["_continue"]:
                return found

    async def _list(self, what: str, namespace: str, **options: Any) -> Body:
        if what == PLURAL:
            method, arguments = self._custom.list_namespaced_custom_object, (GROUP, VERSION, namespace, PLURAL)
            return await self._call("list", what, method, *arguments, **options)
        of_kind: dict[str, Callable[..., Any]] = {
            "jobs": self._batch.list_namespaced_job,
            "cronjobs": self._batch.list_namespaced_cron_job,
            "pods": self._core.list_namespaced_pod,
        }
        return await self._call("list", what, of_kind[what], namespace, **options)

    async def list_owned(self, namespace: str, worker: str) -> tuple[list[Body], list[Body]]:
        """Jobs and pods of a resource.

        Raises:
            ClusterError: they could not be listed.
        """
        selector = f"{manifests.WORKER_LABEL}={worker},{manifests.COMPONENT_LABEL}=drain"
        jobs = await self._call("list", "jobs", self._batch.list_namespaced_job, namespace, label_selector=selector)
        pods = await self._call("list", "pods", self._core.list_namespaced_pod, namespace, label_selector=selector)
        return jobs["items"], pods["items"]

    # -----------------------------------------------------------------------------------------------------------------

    async def _call(self, verb: str, what: str, method: Callable[..., Any], *arguments: Any, **options: Any) -> Body:
        """One request on a thread of the pool; its answer as JSON.

        Raises:
            ClusterError: it failed; the code is the answer's, or 0 when there was none.
        """

        def call() -> Body:
            if verb not in _READS and not self._may_write():
                raise ClusterError(f"{verb} {what}: not done, another replica may lead by now")
            answer = method(*arguments, **options, _preload_content=False, _request_timeout=(CONNECT_SECONDS, READ_SECONDS))
            try:
                data = answer.read()
            finally:
                answer.close()
            if answer.status >= 400:
                raise _refused(verb, what, answer.status, data)
            found: Body = json.loads(data)
            return found

        began, code = time.monotonic(), 0
        try:
            under_way = self._threads.submit(call)
            self._under_way.add(under_way)
            under_way.add_done_callback(self._under_way.discard)
            answer = await asyncio.wrap_future(under_way)
        except ClusterError as error:
            code = error.code
            raise
        except ApiException as error:
            code = error.status or 0
            raise _refused(verb, what, code, error.body or error.reason) from None
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise ClusterError(f"{verb} {what}: the API server did not answer: {_cause(error)}") from None
        else:
            code = 200
            return answer
        finally:
            self._metrics.api_call(verb, what, code, time.monotonic() - began)

    async def _gone_is_fine(self, call: Any) -> None:
        await self._or_none(call)

    async def _or_none(self, call: Any) -> Body | None:
        try:
            found: Body = await call
        except ClusterError as error:
            if error.code != 404:
                raise
            return None
        else:
            return found


def _without_secrets(value: Any) -> Any:
    """``value`` with its messages cleansed: what a pod said of its end is repeated there, and not every image is ours."""
    if isinstance(value, dict):
        return {key: redactor.text(one) if key == "message" and isinstance(one, str) else _without_secrets(one)
                for key, one in value.items()}  # fmt: skip
    return [_without_secrets(one) for one in value] if isinstance(value, list) else value


def _is_controlled_by(resource: SiorgSyncWorker, there: Body) -> bool:
    owners = there["metadata"].get("ownerReferences") or ()
    return any(owner.get("controller") and owner.get("uid") == resource.metadata.uid for owner in owners)


def _namespace(resource: SiorgSyncWorker) -> str:
    return resource.metadata.namespace or "default"


def _refused(verb: str, what: str, code: int, body: object) -> ClusterError:
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body or "")
    try:
        text = json.loads(text)["message"]
    except (ValueError, KeyError, TypeError):
        text = " ".join(text.split())
    return ClusterError(f"{verb} {what}: {code}: {text[:500]}", code)


def _cause(error: Exception) -> str:
    """The innermost reason: the client's own texts hold the whole URL and an object's address."""
    reason: object = error
    while isinstance(getattr(reason, "reason", None), Exception):
        reason = reason.reason  # type: ignore[attr-defined]
    return type(reason).__name__ if isinstance(reason, urllib3.exceptions.HTTPError) else f"{type(reason).__name__}: {reason}"
