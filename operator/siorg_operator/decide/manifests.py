"""What the operator makes in the cluster: drain Jobs and CronJobs (cleanup, discovery, verification). Values in, dicts out.

Everything passes Pod Security ``restricted``, has a read-only root and mounts no service account's token. Secrets are
referred to, never copied.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final, Literal

from siorg_operator.api.resource import API_VERSION, GROUP, KIND, SiorgSyncWorker
from siorg_operator.api.spec import Cleanup, Discovery, Verification
from siorg_runtime.application import tagged

Manifest = dict[str, Any]
CronComponent = Literal["cleanup", "discovery", "verification"]
Component = Literal["drain", CronComponent]
CRON_COMPONENTS: Final[tuple[CronComponent, ...]] = ("cleanup", "discovery", "verification")

MANAGED_BY: Final = "siorg-operator"
COMPONENT_LABEL: Final = "app.kubernetes.io/component"
WORKER_LABEL: Final = f"{GROUP}/worker"
SLOT_LABEL: Final = f"{GROUP}/slot"
ROUND_LABEL: Final = f"{GROUP}/round"
TEMPLATE_LABEL: Final = f"{GROUP}/template"
DECISION_ANNOTATION: Final = f"{GROUP}/decision"
"""Why the Job was launched: the decision's sentence."""
STUCK_ANNOTATION: Final = f"{GROUP}/stuck"
"""Why the operator ended the Job: its pod could not start, or was lost."""
WORKER_ENDED_ANNOTATION: Final = f"{GROUP}/worker-ended"
"""How the worker of a Job ended whose pod lived on, so that the operator ended it. Its pod, which told so, goes with that."""
STOPPED_ANNOTATION: Final = f"{GROUP}/stopped"
"""Why the operator told the Job to stop."""
APPLIED_ANNOTATION: Final = f"{GROUP}/applied"
"""Hash of a CronJob as it was applied last."""

CONTAINER: Final = "worker"
_LONGEST_CRON_JOB_NAME = 52  # Kubernetes puts a minute behind it
_CRON_STARTING_DEADLINE_SECONDS = 600
_CRON_TTL_SECONDS = 86_400


def labels(resource: SiorgSyncWorker, component: Component) -> dict[str, str]:
    """The labels of everything that belongs to a resource."""
    return {
        "app.kubernetes.io/name": "siorg-sync",
        "app.kubernetes.io/managed-by": MANAGED_BY,
        COMPONENT_LABEL: component,
        WORKER_LABEL: resource.metadata.name,
    }


def _metadata(resource: SiorgSyncWorker, name: str, own_labels: Mapping[str, str]) -> Manifest:
    """The garbage collector removes what has it with the resource."""
    owner = {"apiVersion": API_VERSION, "kind": KIND, "name": resource.metadata.name, "uid": resource.metadata.uid}
    return {
        "name": name,
        "namespace": resource.metadata.namespace,
        "labels": dict(own_labels),
        "ownerReferences": [owner | {"controller": True, "blockOwnerDeletion": True}],
    }


def job_name(resource: SiorgSyncWorker, slot: int, round: int) -> str:  # noqa: A002 - the word for it
    """The name of the Job of one slot and round: the same sight of the cluster gives the same name, so 409 means done.

    A part of it comes from the resource's uid: one that was deleted and made again never meets the other's Jobs.
    """
    digest = hashlib.sha256((resource.metadata.uid or "").encode()).digest()
    return f"{resource.metadata.name}-{base64.b32encode(digest).decode().lower()[:5]}-{slot}-{round}"


def job_tag(name: str) -> str:
    """What tells a drain Job from all others in few letters, by its name: connections have room for no more."""
    return "-".join(name.rsplit("-", 3)[1:])


def cron_job_name(resource: SiorgSyncWorker, component: CronComponent) -> str:
    """The name of a resource's CronJob; the longest lose their last letter."""
    return f"{resource.metadata.name}-{component}"[:_LONGEST_CRON_JOB_NAME]


def template_hash(resource: SiorgSyncWorker, secrets_hash: str = "") -> str:
    """Hash of what a drain pod is made from: the template, and what is used of the Secrets that it refers to."""
    return _hash([_pod_template(resource, "drain", "run"), secrets_hash])


def drain_job(
    resource: SiorgSyncWorker,
    *,
    slot: int,
    round: int,  # noqa: A002 - the word for it
    secrets_hash: str = "",
    decision: str = "",
) -> Manifest:
    """The Job that drains the queue until it is empty."""
    spec = resource.spec.job
    template = template_hash(resource, secrets_hash)
    pod = _pod_template(resource, "drain", "run")
    # By this the server's connections are known for its own. A variable of libpq: older images let it be.
    application = {"name": "PGAPPNAME", "value": tagged(job_tag(job_name(resource, slot, round)))}
    pod["spec"]["containers"][0]["env"].insert(0, application)
    pod["metadata"]["labels"] |= {SLOT_LABEL: str(slot), ROUND_LABEL: str(round), TEMPLATE_LABEL: template}
    # The person's labels too: what queues Jobs (Kueue) looks at the Job, not at its pods.
    metadata = _metadata(resource, job_name(resource, slot, round), pod["metadata"]["labels"])
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata | {"annotations": {DECISION_ANNOTATION: decision}},
        "spec": {
            "backoffLimit": spec.backoff_limit,
            "activeDeadlineSeconds": spec.active_deadline_seconds,
            "ttlSecondsAfterFinished": spec.ttl_seconds_after_finished,
            # A drained node is nobody's failure; exit 2 and 75 do not get better by a second pod.
            "podFailurePolicy": {
                "rules": [
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                    {"action": "FailJob", "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [2, 75]}},
                ]
            },
            "template": pod,
        },
    }


def environment(resource: SiorgSyncWorker) -> dict[str, str]:
    """What the resource says, as the variables of a job; without the Secrets."""
    siorg, discovery, worker = resource.spec.siorg, resource.spec.discovery, resource.spec.worker
    return {
        "SIORG_API_URL": siorg.url,
        "SIORG_ALLOW_INSECURE": "true" if siorg.allow_insecure else "false",
        "SIORG_MAX_REQUESTS_PER_SECOND": f"{siorg.max_requests_per_second:g}",
        "SIORG_MAX_ENDS": str(discovery.max_ends),
        "SIORG_MAX_ENDS_PERCENT": str(discovery.max_ends_percent),
        "SIORG_MAX_ENDS_TOTAL_PERCENT": str(discovery.max_ends_total_percent),
        **({} if worker.batch_size is None else {"WORKER_BATCH_SIZE": str(worker.batch_size)}),
        **({} if worker.concurrency is None else {"WORKER_CONCURRENCY": str(worker.concurrency)}),
        "WORKER_MAX_RETRIES": str(worker.max_retries),
        "WORKER_RETRY_BASE_DELAY_MS": str(worker.retry_base_delay_milliseconds),
        "WORKER_RETRY_MAX_DELAY_MS": str(worker.retry_max_delay_milliseconds),
        "WORKER_LINGER_SECS": f"{worker.linger_seconds:g}",
        "WORKER_SHUTDOWN_GRACE_SECS": str(resource.spec.job.pod_template.spec.shutdown_grace_seconds),
        "LOG_FORMAT": worker.log_format,
        "LOG_LEVEL": worker.log_level,
    }


def _pod_template(resource: SiorgSyncWorker, component: Component, *arguments: str, **variables: str) -> Manifest:
    given = resource.spec.job.pod_template
    # As the person wrote it; what the operator itself fills in is taken out first.
    theirs = given.spec.body()
    env, env_from, volumes, mounts = (theirs.pop(key, None) or [] for key in ("env", "envFrom", "volumes", "volumeMounts"))
    seconds = theirs.pop("terminationGracePeriodSeconds")
    container: Manifest = {
        "name": CONTAINER,
        "image": resource.spec.job.image,
        "imagePullPolicy": resource.spec.job.image_pull_policy,
        "args": list(arguments),
        "env": [*_env(resource, component, variables), *env],
        **({"envFrom": env_from} if env_from else {}),
        "resources": resource.spec.job.resources.body(),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        # A run leaves its summary there; one that dies leaves the end of its log, from which its secrets are removed.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, *mounts],  # noqa: S108 - the pod's own, empty
    }
    return {
        "metadata": {
            "labels": {**(given.metadata.labels or {}), **labels(resource, component)},
            **({"annotations": dict(given.metadata.annotations)} if given.metadata.annotations else {}),
        },
        "spec": {
            **{key: value for key, value in theirs.items() if value not in ([], {})},
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": seconds,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
            "volumes": [{"name": "tmp", "emptyDir": {}}, *volumes],
        },
    }


def _env(resource: SiorgSyncWorker, component: Component, more: Mapping[str, str]) -> list[Manifest]:
    secrets: dict[str, Any] = {"DATABASE_URL": resource.spec.database.url_secret_ref}
    if resource.spec.siorg.token_secret_ref is not None and component != "cleanup":  # which asks SIORG for nothing
        secrets["SIORG_API_TOKEN"] = resource.spec.siorg.token_secret_ref
    return [
        *({"name": name, "valueFrom": {"secretKeyRef": {"name": ref.name, "key": ref.key}}} for name, ref in secrets.items()),
        *({"name": name, "value": value} for name, value in {**environment(resource), **more}.items()),
    ]


def cron_spec(resource: SiorgSyncWorker, component: CronComponent) -> Cleanup | Discovery | Verification:
    """What the resource says of one of its CronJobs."""
    by_component: dict[CronComponent, Cleanup | Discovery | Verification] = {
        "cleanup": resource.spec.cleanup,
        "discovery": resource.spec.discovery,
        "verification": resource.spec.verification,
    }
    return by_component[component]


def cron_job(resource: SiorgSyncWorker, component: CronComponent) -> Manifest:
    """``cleanup`` ends what dangles on the queue and deletes what is old; ``discovery`` asks SIORG what changed;
    ``verification`` compares all that is here with SIORG, and ends well once its result is stored.
    """
    spec = cron_spec(resource, component)
    match spec:
        case Cleanup():
            pod = _pod_template(resource, component, "cleanup", WORKER_RETENTION_DAYS=str(spec.retention_days))
        case Discovery():
            codes = [argument for code in spec.organizations for argument in ("--organization", str(code))]
            pod = _pod_template(resource, component, "discover", *codes)
        case Verification():
            pod = _pod_template(resource, component, "verify", "--stored", *(["--enqueue"] if spec.enqueue else []))
    manifest: Manifest = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": _metadata(resource, cron_job_name(resource, component), labels(resource, component)),
        "spec": {
            "schedule": spec.schedule,
            **({"timeZone": spec.time_zone} if spec.time_zone else {}),
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": _CRON_STARTING_DEADLINE_SECONDS,
            "suspend": resource.spec.suspend or resource.spec.mode == "Observe",
            "successfulJobsHistoryLimit": 1,
            "failedJobsHistoryLimit": 3,
            "jobTemplate": {
                "metadata": {"labels": pod["metadata"]["labels"]},
                "spec": {
                    # Unlike a drain, nobody but the clock would try again.
                    "backoffLimit": 3,
                    "activeDeadlineSeconds": resource.spec.job.active_deadline_seconds,
                    "ttlSecondsAfterFinished": _CRON_TTL_SECONDS,
                    "template": pod,
                },
            },
        },
    }
    manifest["metadata"]["annotations"] = {APPLIED_ANNOTATION: _hash(manifest)}
    return manifest


def first_run_name(resource: SiorgSyncWorker, component: CronComponent) -> str:
    """The name of the Job that a CronJob starts with. One CronJob has it once."""
    return f"{cron_job_name(resource, component)}-first"


def first_run(resource: SiorgSyncWorker, component: CronComponent, cron_job_uid: str) -> Manifest:
    """A CronJob's Job before its time, as ``kubectl create job --from=cronjob/…`` makes it: of its history, and gone with it."""
    made = cron_job(resource, component)
    template = made["spec"]["jobTemplate"]
    # Without blockOwnerDeletion, for which one would need a right on CronJobs' finalizers.
    owner = {"apiVersion": made["apiVersion"], "kind": made["kind"], "name": made["metadata"]["name"], "uid": cron_job_uid}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": first_run_name(resource, component),
            "namespace": resource.metadata.namespace,
            "labels": template["metadata"]["labels"],
            "annotations": {"cronjob.kubernetes.io/instantiate": "manual", **made["metadata"]["annotations"]},
            "ownerReferences": [owner | {"controller": True}],
        },
        "spec": template["spec"],
    }


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:10]
