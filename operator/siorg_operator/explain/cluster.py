"""A resource of the cluster, with its own Secret, Jobs and status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry

from siorg_operator.api.resource import parse
from siorg_operator.cli import UsageError
from siorg_operator.cluster.client import Kubernetes
from siorg_operator.cluster.connection import api_client, namespace_of_context
from siorg_operator.cluster.secrets import SecretQueueReader, Secrets
from siorg_operator.database.databases import Databases
from siorg_operator.decide.jobs import combine, controller_uid, job_record, pod_record
from siorg_operator.decide.ports import ClusterError
from siorg_operator.decide.state import Reading, Unreadable
from siorg_operator.explain.subject import Subject
from siorg_operator.serving.metrics import OperatorMetrics
from siorg_runtime.redaction import redactor


async def subject(
    name: str, namespace: str | None, depth: int | None, environ: Mapping[str, str], default_image: str | None
) -> Subject:
    """Look at the resource ``name``. ``depth``: suppose that so many items are claimable.

    Raises:
        UsageError: no cluster is configured, or it has no such resource.
        ResourceError: its spec is not valid.
        ClusterError: the cluster does not answer, or not as it should.
    """
    try:
        api = api_client()
    except ClusterError as error:  # nothing that goes away by waiting
        raise UsageError(str(error)) from None
    named = (namespace or "", environ.get("SIORG_OPERATOR_NAMESPACE", "").strip(), environ.get("POD_NAMESPACE", "").strip())
    namespace = next(filter(None, named), "") or namespace_of_context() or "default"
    kubernetes, databases = Kubernetes(api, OperatorMetrics(CollectorRegistry())), Databases()
    try:
        body = await kubernetes.read_resource(namespace, name)
        if body is None:
            raise UsageError(f"there is no SiorgSyncWorker {name} in namespace {namespace} (kubectl get ssw -n {namespace})")
        resource = parse(body)
        bodies, pods = await kubernetes.list_owned(namespace, resource.metadata.name)
        bodies = [job for job in bodies if controller_uid(job) == resource.metadata.uid]
        secrets = Secrets(kubernetes.read_secret, refresh_seconds=0)
        backlog = await SecretQueueReader(secrets, databases.read).read(resource)
        now = datetime.now(UTC)
        jobs = [
            combine(record, [pod_record(pod) for pod in pods if controller_uid(pod, "Job") == record.uid], now, redactor.text)
            for job in bodies
            if (record := job_record(job)) is not None
        ]
    finally:
        await databases.close()
        kubernetes.close()
    found = Subject(resource, backlog, jobs)
    found.assume_image(
        default_image, max(bodies, key=lambda job: str(job["metadata"].get("creationTimestamp") or ""), default=None)
    )
    if depth is not None:
        if isinstance(backlog.reading, Unreadable):
            found.assumed.append(f"that the queue could be read. It cannot be: {backlog.reading.message}")
        reading = backlog.reading if isinstance(backlog.reading, Reading) else Reading(0)
        found.backlog = replace(backlog, reading=replace(reading, claimable=depth))
    return found
