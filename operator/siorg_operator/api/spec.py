"""What a person wants of one SiorgSyncWorker: every field with its meaning, unit, default and limits.

The docstrings of the fields become the descriptions in the CRD, so ``kubectl explain`` shows them. Limits on the job's
own settings are the job's (``siorg_job.settings``): what it would refuse at start is refused here, before a pod exists.

A null is an absent field, absent lists and maps are empty, and a part that is not given is its defaults: the API server
and this model agree on all of that. The large Kubernetes types (affinity, the source of a volume or of an environment
variable …) are passed through as they are; what is wrong in them, Kubernetes says when the Job is created.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from siorg_operator.api import cron
from siorg_operator.api.rules import Part, Rule, UniqueBy, literal, matches, without_nulls

GROUP: Final = "siorg.waterswamp.dev"

SET_BY_THE_OPERATOR: Final[Mapping[str, str]] = {
    "DATABASE_URL": "spec.database.urlSecretRef",
    "SIORG_API_URL": "spec.siorg.url",
    "SIORG_API_TOKEN": "spec.siorg.tokenSecretRef",
    "SIORG_ALLOW_INSECURE": "spec.siorg.allowInsecure",
    "SIORG_MAX_REQUESTS_PER_SECOND": "spec.siorg.maxRequestsPerSecond",
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

LABELS_OF_THE_OPERATOR: Final = (
    "app.kubernetes.io/name",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/component",
    "controller-uid",
    "job-name",
)
"""Labels that the operator or Kubernetes' own Job controller sets."""

PREFIXES_OF_THE_OPERATOR: Final = (f"{GROUP}/", "batch.kubernetes.io/")

DAY: Final = 86_400
LONGEST_GRACE: Final = 600
"""Seconds: the job's own limit for ``WORKER_SHUTDOWN_GRACE_SECS``."""

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_NAME_FORM = rf"^{_LABEL}$"
_SUBDOMAIN = rf"^{_LABEL}(\.{_LABEL})*$"
_VARIABLE = r"^[-._a-zA-Z][-._a-zA-Z0-9]*$"
_LABEL_VALUE = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
_QUALIFIED_NAME = rf"^({_LABEL}(\.{_LABEL})*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?$"
_NO_COLON = "^[^:]*$"
_KEY = r"^[-._a-zA-Z0-9]+$"
# https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/; no sign, since none may be below zero.
_QUANTITY = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,3})?$"
# https://github.com/distribution/reference: [registry[:port]/]repository[:tag][@digest]
_REGISTRY = r"([a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[a-fA-F0-9:]+\])(:[0-9]+)?"
_REPOSITORY = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
_IMAGE = (
    rf"^({_REGISTRY}/)?{_REPOSITORY}(/{_REPOSITORY})*(:[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?"
    r"(@[A-Za-z][A-Za-z0-9]*([-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?$"
)

# The address of SIORG is where the token goes: only the plain form, the same for every parser (siorg_job.siorg.address).
_WORD = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
# A name that ends in digits or 0x… would be read as a number: its last word begins with a letter.
_LAST_WORD = r"[A-Za-z_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_OCTET = r"(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_NAME = rf"({_WORD}\.)*{_LAST_WORD}"
_PORT = r"(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?"
_PATH = r"(/[A-Za-z0-9._~-]*[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*/*"  # no segment of dots alone
_ADDRESS = rf"^https?://({_NAME}|({_OCTET}\.){{3}}{_OCTET}|\[::1\]){_PORT}{_PATH}$"
# Of such an address: a single word, a number, brackets, or a name that only some network knows.
_PRIVATE_HOST = (
    r"(?i)^https://([^./:@?#]+|[0-9.]+|\[[^/]*|[^/:@?#]*\.(localhost|local|internal|svc|localdomain|home\.arpa))"
    r"(:[0-9]+)?(/|$)"
)
_LONG_HOST = r"^https?://[^/:@?#]{254}"

FORMS: Final[Mapping[str, str]] = {
    _NAME_FORM: "lower-case letters, digits and -, a letter or a digit first and last",
    _SUBDOMAIN: "lower-case letters, digits, - and ., a letter or a digit first and last",
    _VARIABLE: "letters, digits, -, _ and ., no digit first",
    _LABEL_VALUE: "letters, digits, -, _ and ., a letter or a digit first and last",
    _KEY: "letters, digits, -, _ and .",
    _QUANTITY: "a quantity as in 500m, 0.5, 256Mi or 1G, not below zero",
    _NO_COLON: "a path without a colon",
}
"""The patterns of texts in words, for whoever got one wrong."""

_PLAIN_ADDRESS = "https://host[:port][/path] in plain ASCII"


# -- kinds of values --------------------------------------------------------------------------------------------------


def _quantity(given: object) -> int | str:
    if isinstance(given, bool) or not isinstance(given, int | str):
        raise PydanticCustomError("quantity_type", "is no quantity")
    if isinstance(given, int):
        if given < 0:
            raise PydanticCustomError("greater_than_equal", "is too small", {"ge": 0})
    elif len(given) > 32:
        raise PydanticCustomError("string_too_long", "is too long", {"max_length": 32})
    elif re.search(_QUANTITY, given) is None or "\n" in given:
        raise PydanticCustomError("string_pattern_mismatch", "is no quantity")
    return given


Object = dict[str, Any]
"""A part of Kubernetes' own API, passed through as it is."""

ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=_SUBDOMAIN)]
LabelName = Annotated[str, Field(min_length=1, max_length=63, pattern=_NAME_FORM)]
SecretKey = Annotated[str, Field(min_length=1, max_length=253, pattern=_KEY)]
LabelValue = Annotated[str, Field(max_length=63, pattern=_LABEL_VALUE)]
Quantity = Annotated[
    int | str,
    PlainValidator(_quantity),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "minimum": 0, "maxLength": 32, "pattern": _QUANTITY}),
]
_LISTS = Field(strict=False)  # JSON's lists become tuples

_RESOURCE_NAMES = Rule(
    cel="self.all(name, name in ['cpu', 'memory', 'ephemeral-storage'] || name.startsWith('hugepages-') || name.contains('/'))",
    holds=lambda named: all(
        name in {"cpu", "memory", "ephemeral-storage"} or name.startswith("hugepages-") or "/" in name for name in named
    ),
    wrong="has a name that is no resource",
    allowed="cpu, memory, ephemeral-storage, hugepages-<size>, <domain>/<resource>",
)
Quantities = Annotated[dict[str, Quantity], Field(max_length=16), BeforeValidator(without_nulls), _RESOURCE_NAMES]

_KEY_FORM = re.compile(_QUALIFIED_NAME, re.ASCII)
_KEYS = Rule(
    cel=f"self.all(key, key.matches({literal(_QUALIFIED_NAME)}) && !key.matches('^[^/]{{254}}'))",
    holds=lambda keyed: all(_KEY_FORM.search(key) and "\n" not in key and key.find("/") < 254 for key in keyed),
    wrong="has a key that Kubernetes does not take",
    allowed="[prefix/]name: the prefix a domain, the name up to 63 letters, digits, -, _ and .",
)


def _reserved(keys: tuple[str, ...], prefixes: tuple[str, ...]) -> Rule:
    refused = [*(f"key == '{key}'" for key in keys), *(f"key.startsWith('{prefix}')" for prefix in prefixes)]
    return Rule(
        cel=f"self.all(key, !({' || '.join(refused)}))",
        holds=lambda keyed: not any(key in keys or key.startswith(prefixes) for key in keyed),
        wrong="has a key that the operator or Kubernetes sets itself",
        allowed=f"any but {', '.join([*keys, *(prefix + '…' for prefix in prefixes)])}",
    )


Labels = Annotated[
    dict[str, LabelValue],
    Field(max_length=64),
    BeforeValidator(without_nulls),
    _KEYS,
    _reserved(LABELS_OF_THE_OPERATOR, PREFIXES_OF_THE_OPERATOR),
]
Annotations = Annotated[
    dict[str, Annotated[str, Field(max_length=16_384)]],
    Field(max_length=64),
    BeforeValidator(without_nulls),
    _KEYS,
    _reserved((), PREFIXES_OF_THE_OPERATOR),
]
NodeLabels = Annotated[dict[str, LabelValue], Field(max_length=64), BeforeValidator(without_nulls), _KEYS]


def _has_a_field(variable: str, path: str) -> Rule:
    return Rule(
        cel=f"self != '{variable}'",
        holds=lambda name: name != variable,
        wrong="has a field of its own",
        allowed=f"set {path} instead",
    )


VariableName = Annotated[
    str,
    Field(min_length=1, max_length=253, pattern=_VARIABLE),
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
        allowed="another name, or a setting that siorg-job --help lists",
    ),
]

Schedule = Annotated[str, Field(min_length=1, max_length=cron.LONGEST), *cron.SCHEDULE]
TimeZone = Annotated[str, Field(min_length=1, max_length=cron.LONGEST_ZONE), *cron.TIME_ZONE]


# -- where things are -------------------------------------------------------------------------------------------------


class DatabaseUrlKey(Part):
    """A key of a Secret in the resource's own namespace."""

    name: ObjectName
    """Name of the Secret."""
    key: SecretKey = "DATABASE_URL"
    """Key in the Secret's data."""


class TokenKey(Part):
    """A key of a Secret in the resource's own namespace."""

    name: ObjectName
    """Name of the Secret."""
    key: SecretKey = "SIORG_API_TOKEN"
    """Key in the Secret's data."""


class Database(Part):
    """The PostgreSQL database with the queue."""

    url_secret_ref: DatabaseUrlKey
    """Where the connection URL is (postgresql://user:password@host:port/database). The operator reads it in this
    namespace and again when it changes; Jobs take it from the Secret. It is never copied."""


class Siorg(Part):
    """The remote side: whom Jobs ask."""

    url: Annotated[str, Field(min_length=1, max_length=2048)] = "https://api.siorg.gov.br"
    """Address of SIORG: https, a host name, no user information, query or fragment. The public open-data service is
    https://estruturaorganizacional.dados.gov.br/doc. The token is sent there."""
    token_secret_ref: TokenKey | None = None
    """Where the token for SIORG is, sent as a bearer token. Not given: requests carry none."""
    max_requests_per_second: Annotated[int, Field(ge=0, le=10_000)] = 50
    """Requests to SIORG a second of all Jobs on one database together; 0: no limit. It also limits the number of Jobs:
    more than share this budget would only wait for each other. 50 is what the public service has been seen to bear."""
    allow_insecure: bool = False
    """Also http, IP addresses and private names: for the simulator and test clusters. A token is then sent in the clear."""

    # Rules of the object and not of the text: the API server repeats a text that breaks a rule, and this one may hold a password.
    rules = (
        Rule(
            cel="!self.url.contains('@')",
            holds=lambda siorg: "@" not in siorg.url,
            field="url",
            wrong="holds user information (what stands before an @)",
            allowed=f"{_PLAIN_ADDRESS}; a token goes into tokenSecretRef",
        ),
        Rule(
            cel="!self.url.contains('?') && !self.url.contains('#')",
            holds=lambda siorg: "?" not in siorg.url and "#" not in siorg.url,
            field="url",
            wrong="holds a query or a fragment",
            allowed=_PLAIN_ADDRESS,
        ),
        Rule(
            cel=f"self.url.matches('[@?#]') || self.url.matches({literal(_ADDRESS)})",
            holds=lambda siorg: bool(re.search("[@?#]", siorg.url) or re.search(_ADDRESS, siorg.url)) and "\n" not in siorg.url,
            field="url",
            wrong="is no plain address",
            allowed=_PLAIN_ADDRESS,
        ),
        Rule(
            cel="self.allowInsecure || !self.url.startsWith('http:')",
            holds=lambda siorg: siorg.allow_insecure or not siorg.url.startswith("http:"),
            field="url",
            wrong="is not https",
            allowed="https://…; http only with allowInsecure: true (the simulator, a test cluster)",
        ),
        Rule(
            cel=f"self.allowInsecure || !self.url.matches({literal(_PRIVATE_HOST)})",
            holds=lambda siorg: siorg.allow_insecure or not re.search(_PRIVATE_HOST, siorg.url),
            field="url",
            wrong="has an IP address or a private name as host (localhost, *.local, *.internal, *.svc, a single word …)",
            allowed="a public host name; others only with allowInsecure: true (the simulator, a test cluster)",
        ),
        Rule(
            cel=f"!self.url.matches({literal(_LONG_HOST)})",
            holds=lambda siorg: not re.search(_LONG_HOST, siorg.url),
            field="url",
            wrong="has a host that is too long",
            allowed="a host of at most 253 characters",
        ),
    )


# -- how much ---------------------------------------------------------------------------------------------------------


class Scaling(Part):
    """How many Jobs there are for how much work. A Job drains the queue until nothing is claimable, then ends."""

    min_jobs: Annotated[int, Field(ge=0, le=1000)] = 0
    """Fewest Jobs while there is work; they count as capacity, not on top. An empty queue launches nothing, whatever
    this says: a Job would find nothing and end at once. 0 and 1 mean the same. At most maxJobs, unless that is 0."""
    max_jobs: Annotated[int, Field(ge=0, le=1000)] = 5
    """Most Jobs that are unfinished at one time; what kubectl scale sets. 0 launches nothing more, as suspend does; what
    runs drains. A smaller number ends no Job: fewer are launched. The database's free connections and SIORG's request
    budget may hold the number below this."""
    items_per_job: Annotated[int, Field(ge=1, le=1_000_000)] = 50
    """Claimable items that are worth a Job of their own: depth 480 wants 10 Jobs. 50 items take a Job some seconds,
    about as long as its start."""
    target_drain_seconds: Annotated[int, Field(ge=1, le=7 * DAY)] | None = None
    """Seconds in which what is claimable now should be done. Wants more Jobs than itemsPerJob does where the rate that
    Jobs have shown makes them necessary. Not given: by size alone."""
    max_launches_per_step: Annotated[int, Field(ge=1, le=1000)] = 10
    """Most Jobs launched by one decision, so that a burst does not meet the scheduler, the database and SIORG at once."""
    poll_interval_seconds: Annotated[int, Field(ge=1, le=3600)] = 30
    """Seconds between looks at the queue when nothing wakes the operator. New items do, within milliseconds, where the
    database's notifications arrive; this is the safety net."""

    rules = (
        Rule(
            cel="self.maxJobs == 0 || self.minJobs <= self.maxJobs",  # kubectl scale --replicas=0 stops, whatever minJobs says
            holds=lambda scaling: scaling.max_jobs == 0 or scaling.min_jobs <= scaling.max_jobs,
            field="minJobs",
            wrong="is more than maxJobs",
            allowed="at most maxJobs; anything where maxJobs is 0",
        ),
    )


class Worker(Part):
    """How one Job works. The ranges are those of siorg-job itself."""

    batch_size: Annotated[int, Field(ge=1, le=1000)] = 10
    """Items claimed at once, at most."""
    concurrency: Annotated[int, Field(ge=1, le=256)] = 32
    """Items in flight at once in one Job, at most."""
    max_retries: Annotated[int, Field(ge=1, le=100)] = 3
    """Attempts of an item before it ends FAILED, the first one included."""
    retry_base_delay_milliseconds: Annotated[int, Field(ge=1, le=1000 * DAY)] = 1000
    """Longest pause before the second attempt, in milliseconds; doubles from there."""
    retry_max_delay_milliseconds: Annotated[int, Field(ge=1, le=1000 * DAY)] = 60_000
    """Longest pause before any attempt, in milliseconds; not less than retryBaseDelayMilliseconds."""
    linger_seconds: Annotated[int, Field(ge=0, le=3600)] = 10
    """A Job waits for an item that is due again within so many seconds, and else ends: shorter than a new Job's start
    would waste it, longer would hold a pod for nothing."""
    log_format: Literal["text", "json"] = "json"
    """Form of the log. json, since in a cluster a program reads it first."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe level that is logged."""

    rules = (
        Rule(
            cel="self.retryMaxDelayMilliseconds >= self.retryBaseDelayMilliseconds",
            holds=lambda worker: worker.retry_max_delay_milliseconds >= worker.retry_base_delay_milliseconds,
            field="retryMaxDelayMilliseconds",
            wrong="is less than retryBaseDelayMilliseconds",
            allowed="at least retryBaseDelayMilliseconds",
        ),
    )


# -- what a Job is made of --------------------------------------------------------------------------------------------


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
    hostnames: Annotated[tuple[ObjectName, ...], _LISTS, Field(max_length=50)] = ()
    """The names for it."""


class VolumeMount(Part):
    """Where a volume is seen in the container."""

    name: LabelName
    """Name of the volume."""
    mount_path: Annotated[
        str,
        Field(min_length=1, max_length=1024, pattern=_NO_COLON),
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
    tolerations: Annotated[tuple[Toleration, ...], _LISTS, Field(max_length=64)] = ()
    """Taints that do not keep the pods off a node."""
    affinity: Object | None = None
    """Which nodes and neighbours are wanted or not, as in any pod."""
    topology_spread_constraints: Annotated[tuple[Object, ...], _LISTS, Field(max_length=16)] = ()
    """How the pods spread over nodes and zones, as in any pod."""
    priority_class_name: ObjectName | None = None
    """Priority class of the pods."""
    runtime_class_name: ObjectName | None = None
    """Runtime class of the pods."""
    scheduler_name: ObjectName | None = None
    """Which scheduler places the pods; not given: the cluster's default."""
    service_account_name: ObjectName | None = None
    """Service account of the pods: for its pull secrets and admission rules. Its token is not mounted. Not given: default."""
    image_pull_secrets: Annotated[tuple[SecretName, ...], _LISTS, Field(max_length=16), UniqueBy("name")] = ()
    """Secrets of this namespace for the image's registry."""
    env: Annotated[tuple[Variable, ...], _LISTS, Field(max_length=128), UniqueBy("name")] = ()
    """Further environment variables: the job's settings that have no field of their own here (SIORG_CA_BUNDLE,
    WORKER_LEASE_SECS …; siorg-job --help lists them), proxies, libpq's."""
    env_from: Annotated[tuple[VariableSource, ...], _LISTS, Field(max_length=32)] = ()
    """Further environment variables from whole Secrets and ConfigMaps. What the operator and env set wins."""
    volumes: Annotated[tuple[Volume, ...], _LISTS, Field(max_length=32), UniqueBy("name")] = ()
    """Further volumes: an authority's certificates for SIORG_CA_BUNDLE or sslrootcert, for instance."""
    volume_mounts: Annotated[tuple[VolumeMount, ...], _LISTS, Field(max_length=32), UniqueBy("mountPath")] = ()
    """Where the volumes are seen in the container."""
    host_aliases: Annotated[tuple[HostAlias, ...], _LISTS, Field(max_length=64), UniqueBy("ip")] = ()
    """Further lines of the pods' /etc/hosts."""
    dns_policy: Literal["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"] | None = None
    """How the pods find names; not given: ClusterFirst."""
    dns_config: Object | None = None
    """Name servers and search domains, as in any pod."""
    termination_grace_period_seconds: Annotated[int, Field(ge=10, le=LONGEST_GRACE)] = 30
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
            wrong="is no image reference",
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


# -- what runs by the clock -------------------------------------------------------------------------------------------


class Cleanup(Part):
    """A CronJob that ends dangling items and deletes old ones."""

    enabled: bool = True
    """Whether there is this CronJob."""
    schedule: Schedule = "17 3 * * *"
    """When: cron's five fields (minute hour day month weekday; Sunday is 0) or @hourly, @daily …. By default in the night,
    beside the full hour."""
    time_zone: TimeZone | None = None
    """Zone of the schedule, as in America/Sao_Paulo. Not given: that of Kubernetes' controller manager, mostly UTC."""
    retention_days: Annotated[int, Field(ge=1, le=3650)] = 30
    """Days for which finished items are kept. History is not touched."""


class Discovery(Part):
    """A CronJob that asks SIORG what changed and puts it into the queue."""

    enabled: bool = True
    """Whether there is this CronJob."""
    schedule: Schedule = "7 * * * *"
    """When: cron's five fields (minute hour day month weekday; Sunday is 0) or @hourly, @daily …. By default each hour,
    beside the full hour."""
    time_zone: TimeZone | None = None
    """Zone of the schedule, as in America/Sao_Paulo. Not given: that of Kubernetes' controller manager, mostly UTC."""
    organizations: Annotated[
        tuple[Annotated[int, Field(ge=1, le=2_147_483_647)], ...], _LISTS, Field(max_length=200), UniqueBy()
    ] = ()
    """SIORG codes of the organizations to ask for. Empty: all that are registered in the database."""


class Spec(Part):
    """What is wanted: which queue is drained, by how many Jobs, and what they are made of."""

    suspend: bool = False
    """Launch nothing more; what runs drains and ends. The CronJobs are suspended too."""
    mode: Literal["Active", "Observe"] = "Active"
    """Active: decide and act. Observe: decide and say so in status, launch nothing; for a first look beside another system."""
    database: Database
    """The PostgreSQL database with the queue."""
    siorg: Siorg = Siorg()
    """The remote side: whom Jobs ask."""
    scaling: Scaling = Scaling()
    """How many Jobs there are for how much work."""
    worker: Worker = Worker()
    """How one Job works."""
    job: JobSpec = JobSpec()
    """What the Jobs are made of."""
    cleanup: Cleanup = Cleanup()
    """Cleans up, by the clock."""
    discovery: Discovery = Discovery()
    """Finds out what changed, by the clock."""
