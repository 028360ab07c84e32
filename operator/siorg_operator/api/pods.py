"""What the Jobs, and the CronJobs' Jobs, are made of: image, resources, and what of their pods people may choose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import Field

from siorg_operator.api.formats import (
    DAY,
    LISTS,
    NO_COLON,
    VARIABLE_FORM,
    Annotations,
    LabelName,
    Labels,
    NodeLabels,
    Object,
    ObjectName,
    Quantities,
)
from siorg_operator.api.rules import Part, Rule, UniqueBy, matches

SET_BY_THE_OPERATOR: Final[Mapping[str, str]] = {
    "DATABASE_URL": "spec.database.urlSecretRef",
    "SIORG_API_URL": "spec.siorg.url",
    "SIORG_API_TOKEN": "spec.siorg.tokenSecretRef",
    "SIORG_ALLOW_INSECURE": "spec.siorg.allowInsecure",
    "SIORG_MAX_REQUESTS_PER_SECOND": "spec.siorg.maxRequestsPerSecond",
    "SIORG_MAX_ENDS": "spec.discovery.maxEnds",
    "SIORG_MAX_ENDS_PERCENT": "spec.discovery.maxEndsPercent",
    "SIORG_MAX_ENDS_TOTAL_PERCENT": "spec.discovery.maxEndsTotalPercent",
    "WORKER_BATCH_SIZE": "spec.worker.batchSize",
    "WORKER_CONCURRENCY": "spec.worker.concurrency",
    "WORKER_MAX_RETRIES": "spec.worker.maxRetries",
    "WORKER_RETRY_BASE_DELAY_MS": "spec.worker.retryBaseDelayMilliseconds",
    "WORKER_RETRY_MAX_DELAY_MS": "spec.worker.retryMaxDelayMilliseconds",
    "WORKER_LINGER_SECS": "spec.worker.lingerSeconds",
    "WORKER_SHUTDOWN_GRACE_SECS": "spec.job.podTemplate.spec.terminationGracePeriodSeconds",
    "WORKER_RETENTION_DAYS": "spec.cleanup.retentionDays",
    "LOG_FORMAT": "spec.worker.logFormat",
    "LOG_LEVEL": "spec.worker.logLevel",
}
"""Variables of the job that have a field of their own, with that field."""

LEFT_TO_PEOPLE: Final = (
    "SIORG_BREAKER_COOLDOWN_SECS",
    "SIORG_BREAKER_FAILURES",
    "SIORG_CA_BUNDLE",
    "SIORG_CONNECT_TIMEOUT_SECS",
    "SIORG_FRESH_SECS",
    "SIORG_MAX_BODY_BYTES",
    "SIORG_TIMEOUT_SECS",
    "WORKER_CLEANUP_INTERVAL_SECS",
    "WORKER_ENABLE_CLEANUP",
    "WORKER_ITEM_TIMEOUT_SECS",
    "WORKER_LEASE_SECS",
    "WORKER_METRICS_PORT",
    "WORKER_POLL_INTERVAL_SECS",
    "WORKER_TERMINATION_LOG",
    "WORKER_UNAVAILABLE_SECS",
)
"""The job's other variables: they may be given in ``env``. A further name with the job's prefixes it would refuse as a typo."""

# https://github.com/distribution/reference: [registry[:port]/]repository[:tag][@digest]
_REGISTRY = r"([a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[a-fA-F0-9:]+\])(:[0-9]+)?"
_REPOSITORY = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
_IMAGE = (
    rf"^({_REGISTRY}/)?{_REPOSITORY}(/{_REPOSITORY})*(:[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?"
    r"(@[A-Za-z][A-Za-z0-9]*([-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?$"
)


def _has_a_field(variable: str, path: str) -> Rule:
    return Rule(
        cel=f"self != '{variable}'",
        holds=lambda name: name != variable,
        wrong="has a field of its own",
        allowed=f"set {path} instead",
    )


VariableName = Annotated[
    str,
    Field(min_length=1, max_length=253, pattern=VARIABLE_FORM),
    *(_has_a_field(variable, path) for variable, path in SET_BY_THE_OPERATOR.items()),
    Rule(
        cel="!(self.startsWith('WORKER_') || self.startsWith('SIORG_')) || self.startsWith('SIORG_OPERATOR_')"
        f" || self.startsWith('SIORG_SIMULATOR_') || self in {[*LEFT_TO_PEOPLE, *SET_BY_THE_OPERATOR]}",
        holds=lambda name: (
            not name.startswith(("WORKER_", "SIORG_"))
            or name.startswith(("SIORG_OPERATOR_", "SIORG_SIMULATOR_"))
            or name in {*LEFT_TO_PEOPLE, *SET_BY_THE_OPERATOR}
        ),
        wrong="begins as the job's settings do and is none of them: the job would refuse to start",
        allowed="another name, or a setting that siorg-job settings lists",
    ),
]


class Resources(Part):
    """What the container of a Job may use, as in any container. Taken as given: nothing is filled in beside it."""

    requests: Quantities = Field(default_factory=dict)
    """What the scheduler sets aside."""
    limits: Quantities = Field(default_factory=dict)
    """What the container never exceeds."""


class Variable(Part):
    """An environment variable of the Job's container."""

    name: VariableName
    """Name of the variable. Those with a field of their own in this resource are refused here."""
    value: Annotated[str, Field(max_length=32_768)] | None = None
    """Its text. Secrets belong into a Secret, by valueFrom."""
    value_from: Object | None = None
    """Where its text comes from: secretKeyRef, configMapKeyRef, fieldRef or resourceFieldRef, as in any container."""

    rules = (
        Rule(
            cel="!has(self.value) || self.value == '' || !has(self.valueFrom)",
            holds=lambda variable: not variable.value or variable.value_from is None,
            field="valueFrom",
            wrong="is given although value is",
            allowed="either value or valueFrom",
        ),
    )


class VariableSource(Part):
    """Environment variables from a whole Secret or ConfigMap."""

    prefix: Annotated[str, Field(max_length=253)] | None = None
    """Put before each name."""
    config_map_ref: Object | None = None
    """The ConfigMap: name, optional."""
    secret_ref: Object | None = None
    """The Secret: name, optional."""

    rules = (
        Rule(
            cel="has(self.configMapRef) != has(self.secretRef)",
            holds=lambda source: (source.config_map_ref is None) != (source.secret_ref is None),
            wrong="names not exactly one source",
            allowed="either configMapRef or secretRef",
        ),
    )


class SecretName(Part):
    """A Secret of this namespace."""

    name: ObjectName
    """Name of the Secret."""


class Toleration(Part):
    """A taint that does not keep the pods off a node, as in any pod."""

    key: Annotated[str, Field(max_length=317)] | None = None
    """Key of the taint; not given: every key."""
    operator: Annotated[str, Field(max_length=63)] | None = None
    """How value is compared: Exists, Equal."""
    value: Annotated[str, Field(max_length=253)] | None = None
    """Value of the taint."""
    effect: Annotated[str, Field(max_length=63)] | None = None
    """Effect of the taint: NoSchedule, PreferNoSchedule, NoExecute; not given: every effect."""
    toleration_seconds: Annotated[int, Field(ge=0, le=2_147_483_647)] | None = None
    """For NoExecute: for so many seconds; not given: for good."""


class HostAlias(Part):
    """A line of the pods' /etc/hosts."""

    ip: Annotated[str, Field(min_length=2, max_length=45)]
    """The address."""
    hostnames: Annotated[tuple[ObjectName, ...], LISTS, Field(max_length=50)] = ()
    """The names for it."""


class VolumeMount(Part):
    """Where a volume is seen in the container."""

    name: LabelName
    """Name of the volume."""
    mount_path: Annotated[
        str,
        Field(min_length=1, max_length=1024, pattern=NO_COLON),
        Rule(
            cel="self != '/tmp'",
            holds=lambda path: path != "/tmp",  # noqa: S108 - in the pod
            wrong="is where the operator mounts an empty volume",
            allowed="any other path, below it too",
        ),
    ]
    """Path in the container."""
    sub_path: Annotated[str, Field(max_length=1024)] | None = None
    """Path in the volume; not given: its root."""
    sub_path_expr: Annotated[str, Field(max_length=1024)] | None = None
    """As subPath, with $(NAME) for the container's variables."""
    read_only: bool | None = None
    """Whether the container may only read it."""
    recursive_read_only: Annotated[str, Field(max_length=63)] | None = None
    """Whether mounts below it are read-only too: Disabled, IfPossible, Enabled."""
    mount_propagation: Annotated[str, Field(max_length=63)] | None = None
    """How mounts travel between host and container: None, HostToContainer."""


_SOURCES = {
    "config_map": "configMap",
    "csi": "csi",
    "downward_api": "downwardAPI",
    "empty_dir": "emptyDir",
    "ephemeral": "ephemeral",
    "persistent_volume_claim": "persistentVolumeClaim",
    "projected": "projected",
    "secret": "secret",
}


class Volume(Part):
    """A volume of the pods, of a kind that the Pod Security level restricted allows."""

    name: Annotated[
        LabelName,
        Rule(
            cel="self != 'tmp'", holds=lambda name: name != "tmp", wrong="is the operator's own volume", allowed="any other name"
        ),
    ]
    """Name of the volume, for volumeMounts."""
    config_map: Object | None = None
    """Files from a ConfigMap."""
    csi: Object | None = None
    """From a CSI driver."""
    downward_api: Annotated[Object | None, Field(alias="downwardAPI")] = None
    """What the pod may know of itself."""
    empty_dir: Object | None = None
    """An empty folder that goes with the pod."""
    ephemeral: Object | None = None
    """A claim that goes with the pod."""
    persistent_volume_claim: Object | None = None
    """A claim that stays."""
    projected: Object | None = None
    """Several sources in one folder."""
    secret: Object | None = None
    """Files from a Secret."""

    rules = (
        Rule(
            cel=f"[{', '.join(f'has(self.{name})' for name in _SOURCES.values())}].filter(given, given).size() == 1",
            holds=lambda volume: sum(getattr(volume, name) is not None for name in _SOURCES) == 1,
            wrong="has not exactly one source",
            allowed=f"one of {', '.join(_SOURCES.values())}",
        ),
    )


class PodMetadata(Part):
    """Labels and annotations of the pods, beside the operator's own."""

    labels: Labels = Field(default_factory=dict)
    """Labels of the pods. A label kueue.x-k8s.io/queue-name, for instance, hands the Jobs to Kueue."""
    annotations: Annotations = Field(default_factory=dict)
    """Annotations of the pods."""


class PodSpec(Part):
    """What of a pod's spec may be chosen. The rest is the operator's: the pods pass the Pod Security level restricted."""

    node_selector: NodeLabels = Field(default_factory=dict)
    """Labels that a node must have."""
    tolerations: Annotated[tuple[Toleration, ...], LISTS, Field(max_length=64)] = ()
    """Taints that do not keep the pods off a node."""
    affinity: Object | None = None
    """Which nodes and neighbours are wanted or not, as in any pod."""
    topology_spread_constraints: Annotated[tuple[Object, ...], LISTS, Field(max_length=16)] = ()
    """How the pods spread over nodes and zones, as in any pod."""
    priority_class_name: ObjectName | None = None
    """Priority class of the pods."""
    runtime_class_name: ObjectName | None = None
    """Runtime class of the pods."""
    scheduler_name: ObjectName | None = None
    """Which scheduler places the pods; not given: the cluster's default."""
    service_account_name: ObjectName | None = None
    """Service account of the pods: for its pull secrets and admission rules. Its token is not mounted. Not given: default."""
    image_pull_secrets: Annotated[tuple[SecretName, ...], LISTS, Field(max_length=16), UniqueBy("name")] = ()
    """Secrets of this namespace for the image's registry."""
    env: Annotated[tuple[Variable, ...], LISTS, Field(max_length=128), UniqueBy("name")] = ()
    """Further environment variables: the job's settings that have no field of their own here (SIORG_CA_BUNDLE,
    WORKER_LEASE_SECS …; siorg-job settings lists them), proxies, libpq's."""
    env_from: Annotated[tuple[VariableSource, ...], LISTS, Field(max_length=32)] = ()
    """Further environment variables from whole Secrets and ConfigMaps. What the operator and env set wins."""
    volumes: Annotated[tuple[Volume, ...], LISTS, Field(max_length=32), UniqueBy("name")] = ()
    """Further volumes: an authority's certificates for SIORG_CA_BUNDLE or sslrootcert, for instance."""
    volume_mounts: Annotated[tuple[VolumeMount, ...], LISTS, Field(max_length=32), UniqueBy("mountPath")] = ()
    """Where the volumes are seen in the container."""
    host_aliases: Annotated[tuple[HostAlias, ...], LISTS, Field(max_length=64), UniqueBy("ip")] = ()
    """Further lines of the pods' /etc/hosts."""
    dns_policy: Literal["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"] | None = None
    """How the pods find names; not given: ClusterFirst."""
    dns_config: Object | None = None
    """Name servers and search domains, as in any pod."""
    termination_grace_period_seconds: Annotated[int, Field(ge=10, le=600)] = 30  # the job takes no more
    """Seconds between SIGTERM and SIGKILL when a pod is evicted. The Job finishes what it can until 5 s before the end and
    gives the rest back unharmed."""

    rules = (
        Rule(
            cel="!has(self.volumeMounts) || self.volumeMounts.all(mount, has(self.volumes)"
            " && self.volumes.exists(volume, volume.name == mount.name))",
            holds=lambda pod: {mount.name for mount in pod.volume_mounts} <= {volume.name for volume in pod.volumes},
            field="volumeMounts",
            wrong="names a volume that is not in volumes",
            allowed="names of volumes",
        ),
        Rule(
            cel="!has(self.dnsPolicy) || self.dnsPolicy != 'None' || has(self.dnsConfig)",
            holds=lambda pod: pod.dns_policy != "None" or pod.dns_config is not None,
            field="dnsPolicy",
            wrong="is None without a dnsConfig",
            allowed="None only with dnsConfig",
        ),
    )

    @property
    def shutdown_grace_seconds(self) -> int:
        """How long a Job may finish what is in flight after SIGTERM: the rest is for giving back and for the last words."""
        return self.termination_grace_period_seconds - 5


class PodTemplate(Part):
    """What the operator's pod template is changed by. A change makes new Jobs differ; those that run keep what they have."""

    metadata: PodMetadata = PodMetadata()
    """Labels and annotations of the pods."""
    spec: PodSpec = PodSpec()
    """Where and how the pods run."""


class JobSpec(Part):
    """What the Jobs, and the CronJobs' Jobs, are made of."""

    image: Annotated[
        str,
        Field(max_length=512),
        matches(
            rf"^$|{_IMAGE}",
            wrong="is not an image reference",
            allowed="[registry[:port]/]repository[:tag][@digest], the repository in lower case; empty: the operator's default",
        ),
    ] = ""
    """Image with siorg-job. Empty: the one that the operator was started with."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When the image is pulled. IfNotPresent, since Jobs start often and a registry that is down should not stop them."""
    resources: Resources = Resources(requests={"cpu": "100m", "memory": "128Mi"}, limits={"memory": "512Mi"})
    """What the container may use. No CPU limit by default: throttled, a Job would hold its leases longer for nothing."""
    active_deadline_seconds: Annotated[int, Field(ge=60, le=7 * DAY)] = 21_600
    """Seconds after which Kubernetes ends a Job that still runs. Nothing is lost: what it held is claimable again."""
    backoff_limit: Annotated[int, Field(ge=0, le=10)] = 0
    """How often Kubernetes itself tries a failed pod of a Job again. 0: the operator decides, and backs off."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=60, le=30 * DAY)] = 3600
    """Seconds after which Kubernetes deletes a finished Job."""
    successful_jobs_history_limit: Annotated[int, Field(ge=0, le=100)] = 3
    """Newest succeeded Jobs that are kept until then; older ones are deleted at once."""
    failed_jobs_history_limit: Annotated[int, Field(ge=1, le=100)] = 3
    """Newest failed Jobs that are kept until then. At least 1: the operator learns from it how Jobs fail, and backs off."""
    pod_template: PodTemplate = PodTemplate()
    """What the operator's pod template is changed by."""
