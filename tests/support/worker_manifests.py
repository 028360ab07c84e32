"""Manifests of SiorgSyncWorker, good and bad: one table that the model, the small API server and a real one are held to.

A bad manifest has one thing wrong. It says which field is to blame, and which constraint of the CRD it breaks: a
keyword of the schema (``minimum``, ``pattern`` …), ``required``, ``unique``, ``unknown``, or ``rule`` for CEL.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

Manifest = dict[str, Any]

ABSENT: Final = object()
"""Put in the place of a value: the field is left out."""

_POD = "spec.job.podTemplate.spec"
_META = "spec.job.podTemplate.metadata"
_DAY = 86_400


@dataclass(frozen=True)
class Bad:
    """A manifest with one thing wrong.

    Attributes:
        path: where ``value`` is put.
        value: what is put there.
        breaks: which constraint it breaks.
        blamed: the field to blame; empty: ``path``.
        beside: further values, by path.
        says: for a rule: how the message begins.
    """

    path: str
    value: Any
    breaks: str
    blamed: str = ""
    beside: Mapping[str, Any] = field(default_factory=dict)
    says: str = ""

    @property
    def field(self) -> str:
        return self.blamed or self.path

    @property
    def manifest(self) -> Manifest:
        return manifest({**self.beside, self.path: self.value})

    def __str__(self) -> str:
        value = "absent" if self.value is ABSENT else repr(self.value)
        return f"{self.breaks}: {self.path} = {value if len(value) < 60 else value[:57] + '…'}"


@dataclass(frozen=True)
class Good:
    """A manifest with nothing wrong."""

    changes: Mapping[str, Any]

    @property
    def manifest(self) -> Manifest:
        return manifest(self.changes)

    def __str__(self) -> str:
        text = ", ".join(f"{path} = {value!r}" for path, value in self.changes.items())
        return text if len(text) < 90 else text[:87] + "…"


def manifest(changes: Mapping[str, Any] | None = None) -> Manifest:
    """The least that a SiorgSyncWorker needs, with ``changes`` by path (``spec.scaling.minJobs``)."""
    made: Manifest = {
        "apiVersion": "siorg.waterswamp.dev/v1alpha1",
        "kind": "SiorgSyncWorker",
        "metadata": {"name": "worker"},
        "spec": {"database": {"urlSecretRef": {"name": "database"}}},
    }
    for path, value in (changes or {}).items():
        *parents, last = path.split(".")
        place = made
        for step in parents:
            place = place.setdefault(step, {})
        if value is ABSENT:
            place.pop(last, None)
        else:
            place[last] = copy.deepcopy(value)
    return made


# -- numbers: the least and the greatest that are allowed, which are good themselves ----------------------------------

NUMBERS: Final[Mapping[str, tuple[int, int]]] = {
    "spec.siorg.maxRequestsPerSecond": (0, 10_000),
    "spec.scaling.minJobs": (0, 1000),
    "spec.scaling.maxJobs": (0, 1000),
    "spec.scaling.itemsPerJob": (1, 1_000_000),
    "spec.scaling.targetDrainSeconds": (1, 7 * _DAY),
    "spec.scaling.maxLaunchesPerStep": (1, 1000),
    "spec.scaling.pollIntervalSeconds": (1, 3600),
    "spec.worker.batchSize": (1, 1000),
    "spec.worker.concurrency": (1, 256),
    "spec.worker.maxRetries": (1, 100),
    "spec.worker.retryBaseDelayMilliseconds": (1, 1000 * _DAY),
    "spec.worker.retryMaxDelayMilliseconds": (1, 1000 * _DAY),
    "spec.worker.lingerSeconds": (0, 3600),
    "spec.job.activeDeadlineSeconds": (60, 7 * _DAY),
    "spec.job.backoffLimit": (0, 10),
    "spec.job.ttlSecondsAfterFinished": (60, 30 * _DAY),
    "spec.job.successfulJobsHistoryLimit": (0, 100),
    "spec.job.failedJobsHistoryLimit": (1, 100),
    f"{_POD}.terminationGracePeriodSeconds": (10, 600),
    "spec.cleanup.retentionDays": (1, 3650),
}
_BESIDE_NUMBERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "spec.scaling.minJobs": {"spec.scaling.maxJobs": 1000},
    "spec.worker.retryBaseDelayMilliseconds": {"spec.worker.retryMaxDelayMilliseconds": 1000 * _DAY},
    "spec.worker.retryMaxDelayMilliseconds": {"spec.worker.retryBaseDelayMilliseconds": 1},
}

# -- words ------------------------------------------------------------------------------------------------------------

WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "spec.mode": ("Active", "Observe"),
    "spec.worker.logFormat": ("text", "json"),
    "spec.worker.logLevel": ("debug", "info", "warning", "error"),
    "spec.job.imagePullPolicy": ("Always", "IfNotPresent", "Never"),
    f"{_POD}.dnsPolicy": ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
}

# -- texts ------------------------------------------------------------------------------------------------------------

_SECRET = "spec.database.urlSecretRef"
_TOKEN = "spec.siorg.tokenSecretRef"
_TOKEN_NAME = {f"{_TOKEN}.name": "token"}
_NAMES: Final = (f"{_SECRET}.name", f"{_TOKEN}.name", *(f"{_POD}.{name}ClassName" for name in ("priority", "runtime")),
                 f"{_POD}.schedulerName", f"{_POD}.serviceAccountName")  # fmt: skip
_WRONG_NAMES: Final = ("-", "a_b", "Name", "a..b", ".a", "a.", "-a", "a b", "ä", "a\n", "postgresql://siorg:hunter2@db/siorg")

_URLS: Final[Mapping[str, tuple[str, ...]]] = {
    "holds user information": ("https://user:hunter2@siorg.gov.br", "https://@siorg.gov.br", "https://siorg.gov.br/@"),
    "holds a query or a fragment": ("https://siorg.gov.br/?a=b", "https://siorg.gov.br#a", "https://siorg.gov.br?"),
    "is not a plain address": (
        "siorg.gov.br", "https:/siorg.gov.br", "https://", "ftp://siorg.gov.br", "HTTPS://siorg.gov.br", " https://siorg.gov.br",
        "https://siorg.gov.br ", "https://siorg.gov.br\n", "https://si org.gov.br", "https://siorg.gov.br/a b",
        "https://siorg.gov.br/%20", "https://siorg.gov.br/../a", "https://siorg.gov.br/.", "https://siorg.gov.br//a",
        "https://siorg.gov.br:0", "https://siorg.gov.br:65536", "https://siorg.gov.br:080", "https://siorg.gov.br:",
        "https://siorg.gov.br.", "https://.siorg.gov.br", "https://siorg..gov.br", "https://-siorg.gov.br",
        "https://órgão.gov.br",
        "https://siorg.gov.br\\a", "https://127.1", "https://0x7f.0.0.1", "https://1.2.3.256", "https://010.0.0.1",
        "https://2130706433",
        "https://siorg.0x7f", "https://[::2]", "https://[::1", f"https://{'a' * 64}.gov.br", "https://siorg.gov.br/\t",
    ),
    "is not https": ("http://siorg.gov.br", "http://127.0.0.1:8080/doc"),
    "has an IP address or a private name as host": (
        "https://127.0.0.1", "https://8.8.8.8", "https://10.0.0.1:8443", "https://[::1]", "https://localhost", "https://siorg",
        "https://a.localhost", "https://siorg.local", "https://siorg.internal:8443/doc", "https://siorg.default.svc",
        "https://siorg.default.svc.cluster.local", "https://SIORG.LOCAL", "https://a.home.arpa", "https://a.localdomain/",
    ),
    "has a host that is too long": (f"https://{'a.' * 126}gov",),
}  # fmt: skip
_GOOD_URLS: Final = (
    "https://api.siorg.gov.br", "https://estruturaorganizacional.dados.gov.br/doc", "https://siorg.gov.br:8443/a/b/",
    "https://SIORG.gov.br", "https://a-b.x_y.gov.br/~a/.b/c..d/", "https://1.siorg.gov.br", "https://internal.gov.br",
    f"https://{'a.' * 125}gov", "https://siorg.local.gov.br",
)  # fmt: skip
_INSECURE_URLS: Final = (
    "http://127.0.0.1:8080/doc", "http://simulator:8080/doc", "http://simulator.siorg.svc:8080/doc", "http://[::1]:8080",
    "https://localhost", "http://api.siorg.gov.br", "http://10.244.0.1:1/doc",
)  # fmt: skip

_WRONG_SCHEDULES: Final[Mapping[str, tuple[str, ...]]] = {
    "is not a schedule that Kubernetes reads": (
        "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 0 *", "* * * 13 *", "* * * * 7",
        "* * * * 8", "*/0 * * * *", "a * * * *", "* * * mond *", "* * * * monday", "-1 * * * *", "1- * * * *", "1,,2 * * * *",
        ", * * * *", "1-2-3 * * * *", "*/ * * * *", "@never", "@Daily", "@every 1h", "daily", "TZ=UTC 0 3 * * *",
        "CRON_TZ=UTC 0 3 * * *",
        "0 3 * * *\n", " 0 3 * * *", "0  3 * * *", "0 3 * * mon-5", "0\t3 * * *", "L * * * *", "0 0 * * 5#3", "mon * * * *",
    ),
    "has a range that goes from the larger to the smaller": (
        "0 22-6 * * *", "0 22-06 * * *", "30-10 * * * *", "5-3 * * * *", "05-3 * * * *", "15-12 * * * *", "10-9 * * * *",
        "59-58 * * * *",
        "0 0 1,20-10 * *", "0 0 * dec-feb *", "0 0 * 12-2 *", "0 0 * * sat-sun", "0 0 * * 6-0", "0 0 * * FRI-MON",
        "0 0 20-10/2 * *",
    ),
}  # fmt: skip
_GOOD_SCHEDULES: Final = (
    "* * * * *", "0 3 * * *", "*/15 6-20 * * mon-fri", "0,30 * 1,15 1-12/3 SUN,Sat", "59 23 31 12 6", "05 03 01 01 0",
    "0-59/5 * * * *",
    "9-10 * * * *", "19-20 * * * *", "1-1 * * * *", "0 8-17/3 * jan-mar mon,wed,fri", "? ? ? ? ?", "5/10 * * * *", "*/99 * * * *",
    "@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually", "0 0 * * sun-sat", "0 0 * jan-dec *",
)  # fmt: skip

_IMAGES: Final = (
    "", "siorg-job", "siorg-job:1.2.3", "ghcr.io/waterswamp/siorg-job:1", "localhost:5000/siorg/job", "10.0.0.1:5000/job:latest",
    "[fd00::1]:5000/job", f"ghcr.io/a/b@sha256:{'a' * 64}", f"a/b:v1@sha256:{'0' * 64}",
    "Registry.Example.com/a__b/c-d.e:T_x.1-2",
)  # fmt: skip
_WRONG_IMAGES: Final = (
    "Siorg-Job", "siorg job", "siorg-job:", ":1", "https://ghcr.io/a", "a//b", "/a", "a/", "a@sha256:12", "a:1:2", "-a", "a\n",
    f"a:{'1' * 129}",
)  # fmt: skip

_QUANTITIES: Final = (0, 1, 2_000_000, "0", "1", "100m", "0.5", ".5", "5.", "128Mi", "1G", "1e3", "1E-3", "12Ki")
_NO_QUANTITIES: Final[tuple[Any, ...]] = (True, 0.5, {}, [])
_WRONG_QUANTITIES: Final = ("", "-1", "1 Gi", "1gb", "a", "1MiB", "1e", "1.2.3", "1Gi\n")


def _entries(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, **more}


_SECRET_FIELD: Final = {"secretKeyRef": {"name": "a", "key": "b"}}
_SET_BY_THE_OPERATOR: Final[Mapping[str, str]] = {
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
_CLAIM: Final = {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}
_SOURCES: Final[Mapping[str, Any]] = {
    "configMap": {"name": "a", "optional": True},
    "csi": {"driver": "secrets-store.csi.k8s.io", "readOnly": True, "volumeAttributes": {"a": "b"}},
    "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]},
    "emptyDir": {"sizeLimit": "1Mi"},
    "ephemeral": {"volumeClaimTemplate": _CLAIM},
    "persistentVolumeClaim": {"claimName": "a"},
    "projected": {"sources": [{"secret": {"name": "a"}}]},
    "secret": {"secretName": "a"},
}


def _longer(path: str, limit: int, *, fill: str = "a", **more: Any) -> Bad:
    return Bad(path, fill * (limit + 1), "maxLength", **more)


def _bad() -> Iterator[Bad]:
    yield Bad("spec", ABSENT, "required")
    yield Bad("spec.database", ABSENT, "required")
    yield Bad("spec.database", None, "required")
    yield Bad("spec.database", {}, "required", "spec.database.urlSecretRef")
    yield Bad(f"{_SECRET}.name", ABSENT, "required")
    yield Bad(_TOKEN, {}, "required", f"{_TOKEN}.name")

    for path, (low, high) in NUMBERS.items():
        beside = _BESIDE_NUMBERS.get(path, {})
        yield Bad(path, low - 1, "minimum", beside=beside)
        yield Bad(path, high + 1, "maximum", beside=beside)
    for path, words in WORDS.items():
        yield Bad(path, "Nope", "enum")
        yield Bad(path, words[0].swapcase(), "enum")
        yield Bad(path, "", "enum")

    yield _longer("metadata.name", 40)
    yield Bad("metadata.name", "a.b", "pattern")
    yield Bad("metadata.name", "", "minLength")
    for path in _NAMES:
        yield from (Bad(path, name, "pattern") for name in _WRONG_NAMES)
        yield Bad(path, "", "minLength")
        yield _longer(path, 253)
    for path in (f"{_SECRET}.key", f"{_TOKEN}.key"):
        yield from (Bad(path, key, "pattern", beside=_TOKEN_NAME) for key in ("a b", "a/b", "ä", "a\n"))
        yield Bad(path, "", "minLength", beside=_TOKEN_NAME)
        yield _longer(path, 253, beside=_TOKEN_NAME)

    yield from _bad_addresses()
    yield from _bad_scaling_and_worker()
    yield from _bad_schedules()
    yield from _bad_jobs()
    yield from _bad_labels()
    yield from _bad_env()
    yield from _bad_volumes()
    yield from _bad_rest_of_pods()
    yield from _unknown()


def _bad_addresses() -> Iterator[Bad]:
    path = "spec.siorg.url"
    for says, urls in _URLS.items():
        yield from (Bad(path, url, "rule", says=says) for url in urls)
    yield Bad(path, "", "minLength")
    yield Bad(path, f"https://siorg.gov.br/{'a' * 2048}", "maxLength")
    insecure = {"spec.siorg.allowInsecure": True}
    yield from (
        Bad(path, url, "rule", says="is not a plain address", beside=insecure)
        for url in ("http://127.1", "http://[::2]", "http://999.1.1.1", "ftp://a")
    )


def _bad_scaling_and_worker() -> Iterator[Bad]:
    yield Bad("spec.scaling.minJobs", 6, "rule", says="is more than maxJobs")
    yield Bad("spec.scaling.maxJobs", 1, "rule", "spec.scaling.minJobs", {"spec.scaling.minJobs": 2}, says="is more than maxJobs")
    yield Bad("spec.scaling", {"minJobs": 9, "maxJobs": 8}, "rule", "spec.scaling.minJobs", says="is more than maxJobs")
    blamed, says = "spec.worker.retryMaxDelayMilliseconds", "is less than retryBaseDelayMilliseconds"
    yield Bad(blamed, 999, "rule", says=says)
    yield Bad("spec.worker.retryBaseDelayMilliseconds", 60_001, "rule", blamed, says=says)


def _bad_schedules() -> Iterator[Bad]:
    for part in ("cleanup", "discovery"):
        path = f"spec.{part}.schedule"
        for says, schedules in _WRONG_SCHEDULES.items():
            yield from (Bad(path, schedule, "rule", says=says) for schedule in schedules)
        yield Bad(path, "", "minLength")
        yield Bad(path, ",".join(["1"] * 64) + " * * * *", "maxLength")
        zone = f"spec.{part}.timeZone"
        wrong = ("America/", "/UTC", "America/Sao Paulo", "a/b/c/d", "3", "UTC\n", "../etc")
        yield from (Bad(zone, name, "rule", says="does not look like a time zone") for name in wrong)
        yield from (Bad(zone, name, "rule", says="is the zone of a machine") for name in ("Local", "local", "LOCAL"))
        yield Bad(zone, "", "minLength")
        yield _longer(zone, 64)
    codes = "spec.discovery.organizations"
    yield Bad(codes, [0], "minimum", f"{codes}[0]")
    yield Bad(codes, [1, 2**31], "maximum", f"{codes}[1]")
    yield Bad(codes, ["1"], "type", f"{codes}[0]")
    yield Bad(codes, [None], "type", f"{codes}[0]")
    yield Bad(codes, [26, 1, 26], "unique", f"{codes}[2]")
    yield Bad(codes, list(range(1, 202)), "maxItems")


def _bad_jobs() -> Iterator[Bad]:
    yield from (Bad("spec.job.image", image, "rule", says="is not an image reference") for image in _WRONG_IMAGES)
    yield _longer("spec.job.image", 512)
    for kind in ("requests", "limits"):
        path = f"spec.job.resources.{kind}"
        yield from (Bad(path, {"cpu": quantity}, "pattern", f"{path}.cpu") for quantity in _WRONG_QUANTITIES)
        yield Bad(path, {"cpu": "1" * 33}, "maxLength", f"{path}.cpu")
        yield Bad(path, {"cpu": -1}, "minimum", f"{path}.cpu")
        yield from (Bad(path, {"cpu": other}, "type", f"{path}.cpu") for other in _NO_QUANTITIES)
        yield from (Bad(path, {name: 1}, "rule", says="has a name that is not a resource") for name in ("mem", "", "CPU"))
        yield Bad(path, {f"example.com/{number}": 1 for number in range(17)}, "maxProperties")


def _bad_labels() -> Iterator[Bad]:
    for path in (f"{_META}.labels", f"{_META}.annotations", f"{_POD}.nodeSelector"):
        wrong = ("", "a b", "/a", "a/", "a/b/c", "-a", "A.B/c", "a" * 64, f"{'a' * 254}/a", "a\n")
        yield from (Bad(path, {key: "x"}, "rule", says="has a key that Kubernetes does not take") for key in wrong)
        yield Bad(path, {f"a{number}": "x" for number in range(65)}, "maxProperties")
        yield Bad(path, {"a": 1}, "type", f"{path}.a")
    for path in (f"{_META}.labels", f"{_POD}.nodeSelector"):
        yield from (Bad(path, {"a": value}, "pattern", f"{path}.a") for value in ("a b", "-", "a-", "ä", "a\n"))
        yield Bad(path, {"a": "a" * 64}, "maxLength", f"{path}.a")
    yield Bad(f"{_META}.annotations", {"a": "a" * 16_385}, "maxLength", f"{_META}.annotations.a")
    own = ("siorg.waterswamp.dev/worker", "siorg.waterswamp.dev/x", "batch.kubernetes.io/job-name")
    says = "has a key that the operator or Kubernetes sets itself"
    labels = (
        "app.kubernetes.io/name",
        "app.kubernetes.io/managed-by",
        "app.kubernetes.io/component",
        "controller-uid",
        "job-name",
    )
    yield from (Bad(f"{_META}.labels", {key: "x"}, "rule", says=says) for key in own + labels)
    yield from (Bad(f"{_META}.annotations", {key: "x"}, "rule", says=says) for key in own)


def _bad_env() -> Iterator[Bad]:
    path = f"{_POD}.env"
    for name in _SET_BY_THE_OPERATOR:
        yield Bad(path, [_entries("A"), _entries(name, value="x")], "rule", f"{path}[1].name", says="has a field of its own")
    for name in ("WORKER_BATCHSIZE", "SIORG_TOKEN", "WORKER_", "SIORG_OPERATOR"):
        yield Bad(path, [_entries(name)], "rule", f"{path}[0].name", says="begins as the job's settings do")
    yield from (Bad(path, [_entries(name)], "pattern", f"{path}[0].name") for name in ("1A", "A B", "A=B", "Ä", "A\n"))
    yield Bad(path, [_entries("")], "minLength", f"{path}[0].name")
    yield Bad(path, [_entries("A" * 254)], "maxLength", f"{path}[0].name")
    yield Bad(path, [{"value": "x"}], "required", f"{path}[0].name")
    yield Bad(path, [_entries("A", value=5)], "type", f"{path}[0].value")
    yield Bad(path, [_entries("A", value="x" * 32_769)], "maxLength", f"{path}[0].value")
    both = _entries("A", value="x", valueFrom=_SECRET_FIELD)
    yield Bad(path, [both], "rule", f"{path}[0].valueFrom", says="is given although value is")
    yield Bad(path, [_entries("A"), _entries("B"), _entries("A", value="x")], "unique", f"{path}[2]")
    yield Bad(path, [_entries(f"A{number}") for number in range(129)], "maxItems")
    path = f"{_POD}.envFrom"
    says = "names not exactly one source"
    yield Bad(path, [{}], "rule", f"{path}[0]", says=says)
    yield Bad(path, [{"secretRef": {"name": "a"}, "configMapRef": {"name": "a"}}], "rule", f"{path}[0]", says=says)
    yield Bad(path, [{"prefix": "A" * 254, "secretRef": {"name": "a"}}], "maxLength", f"{path}[0].prefix")
    yield Bad(path, [{"secretRef": {"name": "a"}}] * 33, "maxItems")


def _bad_volumes() -> Iterator[Bad]:
    path, says = f"{_POD}.volumes", "has not exactly one source"
    yield Bad(path, [_entries("a")], "rule", f"{path}[0]", says=says)
    yield Bad(path, [_entries("a", emptyDir={}, secret={"secretName": "a"})], "rule", f"{path}[0]", says=says)
    yield Bad(path, [_entries("tmp", emptyDir={})], "rule", f"{path}[0].name", says="is the operator's own volume")
    yield from (Bad(path, [_entries(name, emptyDir={})], "pattern", f"{path}[0].name") for name in ("A", "a.b", "a_b", "-a"))
    yield Bad(path, [_entries("", emptyDir={})], "minLength", f"{path}[0].name")
    yield Bad(path, [_entries("a" * 64, emptyDir={})], "maxLength", f"{path}[0].name")
    yield Bad(path, [{"emptyDir": {}}], "required", f"{path}[0].name")
    yield Bad(path, [_entries("a", emptyDir={}), _entries("a", emptyDir={})], "unique", f"{path}[1]")
    yield Bad(path, [_entries(f"a{number}", emptyDir={}) for number in range(33)], "maxItems")

    path = f"{_POD}.volumeMounts"
    beside = {f"{_POD}.volumes": [_entries("a", emptyDir={})]}

    def one(breaks: str, blamed: str, says: str = "", **entry: Any) -> Bad:
        given = {key: value for key, value in {"name": "a", "mountPath": "/a", **entry}.items() if value is not ABSENT}
        return Bad(path, [given], breaks, f"{path}{blamed}", beside, says)

    yield one("rule", "", "names a volume that is not in volumes", name="b")
    yield Bad(path, [{"name": "a", "mountPath": "/a"}], "rule", says="names a volume that is not in volumes")
    yield one("rule", "[0].mountPath", "is where the operator mounts an empty volume", mountPath="/tmp")
    yield one("pattern", "[0].mountPath", mountPath="/a:b")
    yield one("minLength", "[0].mountPath", mountPath="")
    yield one("maxLength", "[0].mountPath", mountPath="/" * 1025)
    yield one("required", "[0].mountPath", mountPath=ABSENT)
    yield one("required", "[0].name", name=ABSENT)
    yield one("pattern", "[0].name", name="A")
    yield one("minLength", "[0].name", name="")
    yield one("maxLength", "[0].name", name="a" * 64)
    yield one("maxLength", "[0].subPath", subPath="a" * 1025)
    yield one("maxLength", "[0].subPathExpr", subPathExpr="a" * 1025)
    yield one("maxLength", "[0].recursiveReadOnly", recursiveReadOnly="a" * 64)
    yield one("maxLength", "[0].mountPropagation", mountPropagation="a" * 64)
    yield Bad(path, [{"name": "a", "mountPath": "/a"}, {"name": "a", "mountPath": "/a"}], "unique", f"{path}[1]", beside)
    yield Bad(path, [{"name": "a", "mountPath": f"/a{number}"} for number in range(33)], "maxItems", beside=beside)


def _bad_rest_of_pods() -> Iterator[Bad]:
    path = f"{_POD}.imagePullSecrets"
    yield Bad(path, [_entries("A")], "pattern", f"{path}[0].name")
    yield Bad(path, [_entries("")], "minLength", f"{path}[0].name")
    yield Bad(path, [_entries("a" * 254)], "maxLength", f"{path}[0].name")
    yield Bad(path, [{}], "required", f"{path}[0].name")
    yield Bad(path, [_entries("a"), _entries("a")], "unique", f"{path}[1]")
    yield Bad(path, [_entries(f"a{number}") for number in range(17)], "maxItems")

    path = f"{_POD}.tolerations"
    for name, limit in {"key": 317, "operator": 63, "value": 253, "effect": 63}.items():
        yield Bad(path, [{name: "a" * (limit + 1)}], "maxLength", f"{path}[0].{name}")
    yield Bad(path, [{"tolerationSeconds": -1}], "minimum", f"{path}[0].tolerationSeconds")
    yield Bad(path, [{"tolerationSeconds": 2**31}], "maximum", f"{path}[0].tolerationSeconds")
    yield Bad(path, [{"key": f"a{number}"} for number in range(65)], "maxItems")

    path = f"{_POD}.hostAliases"
    yield Bad(path, [{"ip": "1"}], "minLength", f"{path}[0].ip")
    yield Bad(path, [{"ip": "1" * 46}], "maxLength", f"{path}[0].ip")
    yield Bad(path, [{"hostnames": ["a"]}], "required", f"{path}[0].ip")
    yield Bad(path, [{"ip": "10.0.0.1"}, {"ip": "10.0.0.1"}], "unique", f"{path}[1]")
    yield Bad(path, [{"ip": f"10.0.0.{number}"} for number in range(65)], "maxItems")
    names = f"{path}[0].hostnames"
    yield Bad(path, [{"ip": "10.0.0.1", "hostnames": ["A"]}], "pattern", f"{names}[0]")
    yield Bad(path, [{"ip": "10.0.0.1", "hostnames": [""]}], "minLength", f"{names}[0]")
    yield Bad(path, [{"ip": "10.0.0.1", "hostnames": ["a" * 254]}], "maxLength", f"{names}[0]")
    yield Bad(path, [{"ip": "10.0.0.1", "hostnames": ["a"] * 51}], "maxItems", names)

    yield Bad(f"{_POD}.topologySpreadConstraints", [{"maxSkew": 1}] * 17, "maxItems")
    yield Bad(f"{_POD}.dnsPolicy", "None", "rule", says="is None without a dnsConfig")


def _unknown() -> Iterator[Bad]:
    """Fields that there are not: refused where the client asks for it, as kubectl does, and dropped elsewhere."""
    for path in ("spec.scaling.minjobs", "spec.scaling.min_jobs", "spec.scalling", "spec.job.podTemplate.spec.hostNetwork",
                 "spec.job.podTemplate.spec.securityContext", "spec.database.url", "spek"):  # fmt: skip
        yield Bad(path, 1, "unknown")
    yield Bad(f"{_POD}.env", [_entries("A", Value="x")], "unknown", f"{_POD}.env[0].Value")
    yield Bad(f"{_POD}.volumes", [_entries("a", emptyDir={}, hostPath={"path": "/"})], "unknown", f"{_POD}.volumes[0].hostPath")


BAD: Final[tuple[Bad, ...]] = tuple(_bad())

# -- statuses, which the operator writes ------------------------------------------------------------------------------

_TIME: Final = "2026-11-23T10:00:00Z"
_CONDITION: Final = {"type": "Ready", "status": "True", "reason": "Draining", "lastTransitionTime": _TIME}
STATUS: Final[Mapping[str, Any]] = {
    "observedGeneration": 1,
    "conditions": [{**_CONDITION, "message": "All is well", "observedGeneration": 1}, {**_CONDITION, "type": "Degraded"}],
    "queue": {"claimable": 480, "due": 470, "scheduled": 3, "processing": 20, "failed": 1, "conflict": 2, "oldestDueSeconds": 61},
    "jobs": {"desired": 5, "active": 3, "pending": 2, "succeeded": 7, "failed": 0, "lastRound": 9, "lastFinishedTime": _TIME},
    "selector": "siorg.waterswamp.dev/worker=worker",
    "rate": 12.5,
    "requestRate": 3,
    "predictedDrainSeconds": 13,
    "lastDecision": {"time": _TIME, "reason": "Launched", "message": "depth 480, 50 a Job → 10 wanted", "launched": 2},
    "backoff": {
        "reason": "JobsFailing",
        "streak": 2,
        "since": _TIME,
        "lastFailureTime": _TIME,
        "retryTime": _TIME,
        "message": "exit 1",
        "template": "0123456789",
    },
}
"""Every field of a status, as it may well be."""


def _bad_status() -> Iterator[Bad]:
    counts = {
        "queue": ("claimable", "due", "scheduled", "processing", "failed", "conflict", "oldestDueSeconds"),
        "jobs": ("desired", "active", "pending", "succeeded", "failed", "lastRound"),
        "lastDecision": ("launched",),
        "backoff": ("streak",),
    }
    for part, names in counts.items():
        yield from (Bad(f"status.{part}", {**STATUS[part], name: -1}, "minimum", f"status.{part}.{name}") for name in names)
    for name in ("observedGeneration", "predictedDrainSeconds", "rate", "requestRate"):
        yield Bad(f"status.{name}", -1, "minimum")
    longest = {"lastDecision": {"reason": 1024, "message": 4096}, "backoff": {"reason": 1024, "message": 4096, "template": 63}}
    for part, limits in longest.items():
        for name, limit in limits.items():
            yield Bad(f"status.{part}", {**STATUS[part], name: "a" * (limit + 1)}, "maxLength", f"status.{part}.{name}")
        yield Bad(f"status.{part}", {**STATUS[part], "reason": ""}, "minLength", f"status.{part}.reason")
        yield Bad(f"status.{part}", {"message": "a", "time": _TIME}, "required", f"status.{part}.reason")
    yield Bad("status.lastDecision", {"reason": "a"}, "required", "status.lastDecision.time")
    yield _longer("status.selector", 1024)
    times = {"jobs": ("lastFinishedTime",), "lastDecision": ("time",), "backoff": ("since", "lastFailureTime", "retryTime")}
    for part, names in times.items():
        yield from (
            Bad(f"status.{part}", {**STATUS[part], name: "yesterday"}, "format", f"status.{part}.{name}") for name in names
        )

    path = "status.conditions"
    wrong: Mapping[str, tuple[tuple[str, Any], ...]] = {
        "type": (("maxLength", "a" * 317), ("required", ABSENT)),
        "status": (("enum", "true"), ("required", ABSENT)),
        "reason": (("pattern", "not one word"), ("minLength", ""), ("maxLength", "a" * 1025), ("required", ABSENT)),
        "message": (("maxLength", "a" * 32_769),),
        "lastTransitionTime": (("format", "2026-11-23"), ("required", ABSENT)),
        "observedGeneration": (("minimum", -1),),
    }
    for name, values in wrong.items():
        for breaks, value in values:
            given = {key: one for key, one in {**_CONDITION, name: value}.items() if one is not ABSENT}
            yield Bad(path, [given], breaks, f"{path}[0].{name}")
    yield Bad(path, [_CONDITION, _CONDITION], "unique", f"{path}[1]")
    yield Bad(path, [{**_CONDITION, "type": f"T{number}"} for number in range(17)], "maxItems")


BAD_STATUS: Final[tuple[Bad, ...]] = tuple(_bad_status())


def _good() -> Iterator[Good]:
    yield Good({})
    yield Good({"metadata.name": "a" * 40})
    yield Good({"metadata.name": "0-a"})
    yield Good({"spec.scaling.minJobs": 2, "spec.scaling.maxJobs": 0})  # what kubectl scale --replicas=0 makes of it
    yield Good({"spec.suspend": True, "spec.siorg": None, "spec.scaling.minJobs": None, "spec.scaling.targetDrainSeconds": None})
    yield Good({f"spec.{part}": {} for part in ("siorg", "scaling", "worker", "job", "cleanup", "discovery")})
    for path, (low, high) in NUMBERS.items():
        for number in (low, high):
            yield Good({**_BESIDE_NUMBERS.get(path, {}), path: number})
    for path, words in WORDS.items():
        for word in words:
            beside = {f"{_POD}.dnsConfig": {"nameservers": ["10.0.0.1"]}} if word == "None" else {}
            yield Good({**beside, path: word})
    yield from (Good({path: name}) for path in _NAMES for name in ("a", "0", "a-b.c-d", "a" * 253))
    yield from (Good({**_TOKEN_NAME, f"{ref}.key": key}) for ref in (_SECRET, _TOKEN) for key in ("a", "A._-0", "a" * 253))
    yield from (Good({"spec.siorg.url": url}) for url in _GOOD_URLS)
    yield from (Good({"spec.siorg.url": url, "spec.siorg.allowInsecure": True}) for url in (*_INSECURE_URLS, *_GOOD_URLS))
    yield from (Good({f"spec.{part}.schedule": text}) for part in ("cleanup", "discovery") for text in _GOOD_SCHEDULES)
    yield from (
        Good({f"spec.{part}.timeZone": zone})
        for part in ("cleanup", "discovery")
        for zone in ("UTC", "Etc/UTC", "America/Sao_Paulo", "America/Argentina/Buenos_Aires", "Etc/GMT+3", "Etc/GMT-3")
    )
    yield Good({"spec.discovery.organizations": [1, 2**31 - 1]})
    yield Good({"spec.discovery.organizations": list(range(1, 201))})
    yield from (Good({"spec.job.image": image}) for image in _IMAGES)
    yield from (Good({"spec.job.resources.limits": {"memory": quantity}}) for quantity in _QUANTITIES)
    yield Good({"spec.job.resources": {}})
    more = {"cpu": 1, "memory": "1Gi", "ephemeral-storage": "1Gi", "hugepages-2Mi": "2Mi", "nvidia.com/gpu": 1}
    yield Good({"spec.job.resources": {"requests": {"cpu": None, "memory": "1Gi"}, "limits": more}})
    yield from _good_pods()


_TERMS: Final = [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]


def _good_pods() -> Iterator[Good]:
    labels = {"team": "x", "kueue.x-k8s.io/queue-name": "siorg", "app.kubernetes.io/part-of": "x", "empty": "", "null": None}
    yield Good({f"{_META}.labels": labels, f"{_META}.annotations": {"a.b/c": "any text: ü\n"}})
    yield Good({f"{_META}.annotations": {"job-name": "x", f"{'a' * 253}/{'a' * 63}": "a" * 16_384}})
    yield Good({f"{_POD}.nodeSelector": {"kubernetes.io/arch": "amd64"}})
    yield Good({f"{_POD}.env": [
        _entries("HTTPS_PROXY", value="http://proxy:3128"), _entries("WORKER_LEASE_SECS", value="90"), _entries("EMPTY"),
        _entries("SIORG_CA_BUNDLE", value="/certs/ca.pem"), _entries("SIORG_OPERATOR_X", value="1"),
        _entries("SIORG_SIMULATOR_X"),
        _entries("PGPASSFILE", valueFrom=_SECRET_FIELD), _entries("NODE", value="",
        valueFrom={"fieldRef": {"fieldPath": "spec.nodeName"}}),
    ]})  # fmt: skip
    yield Good(
        {f"{_POD}.envFrom": [{"secretRef": {"name": "a", "optional": True}}, {"prefix": "A_", "configMapRef": {"name": "b"}}]}
    )
    yield Good({
        f"{_POD}.volumes": [_entries(f"v{at}", **{kind: source}) for at, (kind, source) in enumerate(_SOURCES.items())],
        f"{_POD}.volumeMounts": [
            {"name": "v0", "mountPath": "/certs", "readOnly": True, "subPath": "a"},
            {"name": "v0", "mountPath": "/tmp/a", "readOnly": True, "recursiveReadOnly": "Enabled", "mountPropagation": "None",
            "subPathExpr": "$(A)"},
        ],
    })  # fmt: skip
    yield Good({f"{_POD}.volumes": [_entries("a", secret={"secretName": "b"})]})
    yield Good({
        f"{_POD}.tolerations": [
            {"key": "a", "operator": "Equal", "value": "b", "effect": "NoExecute", "tolerationSeconds": 5}, {"operator": "Exists"}
        ],
        f"{_POD}.affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": _TERMS}}},
        f"{_POD}.topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
        f"{_POD}.imagePullSecrets": [_entries("a"), _entries("b")],
        f"{_POD}.hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a", "b.c"]}, {"ip": "::1"}],
        f"{_POD}.dnsConfig": {"options": [{"name": "ndots", "value": "1"}]},
    })  # fmt: skip


GOOD: Final[tuple[Good, ...]] = tuple(_good())

# -- what a schema demands --------------------------------------------------------------------------------------------

_KEYWORDS = ("minimum", "maximum", "minLength", "maxLength", "pattern", "enum", "maxItems", "maxProperties")
_OTHER_THAN: Final[Mapping[str, Any]] = {"string": 5, "integer": "x", "number": "x", "boolean": "x", "object": "x", "array": "x"}


def constraints(schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, str, str]]:
    """Every constraint of ``schema`` but types: path ([] for an entry, {} for a value of a map), keyword, message of a rule."""
    for keyword in _KEYWORDS:
        if keyword in schema:
            yield path, keyword, ""
    if schema.get("format") == "date-time":
        yield path, "format", ""
    if schema.get("x-kubernetes-list-type") in {"set", "map"}:
        yield f"{path}[]", "unique", ""
    for name in schema.get("required", ()):
        yield f"{path}.{name}", "required", ""
    for rule in schema.get("x-kubernetes-validations", ()):
        yield path + rule.get("fieldPath", ""), "rule", rule["message"]
    for step, inner in _inner(schema):
        yield from constraints(inner, path + step)


def wrongly_typed(schema: Mapping[str, Any], path: str) -> Iterator[Bad]:
    """For every typed value of ``schema`` a manifest in which it has another type."""
    if "type" in schema:
        field_, value = path.replace("[]", "[0]").replace("{}", ".a"), _OTHER_THAN[schema["type"]]
        # Built from the inside: what is in a list or a map is put there with it.
        outside, inside = _split(path)
        for step in reversed(inside):
            value = [value] if step == "[]" else {"a": value} if step == "{}" else {step: value}
        yield Bad(outside, value, "type", field_)
    for step, inner in _inner(schema):
        yield from wrongly_typed(inner, path + step)


def generic(schema: Mapping[str, Any], field_: str) -> str:
    """The path of a field in the notation of ``constraints``; ``schema`` is that of the whole object."""
    path, rest = "", field_.replace("[", ".[").split(".")
    while rest:
        step = rest.pop(0)
        if step.startswith("["):
            path, schema = f"{path}[]", schema.get("items", {})
        elif "additionalProperties" in schema:
            return path.removeprefix(".") + "{}"  # the rest is the key, dots included
        else:
            path, schema = f"{path}.{step}", schema.get("properties", {}).get(step, {})
    return path.removeprefix(".")


def _inner(schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield from ((f".{name}", inner) for name, inner in schema.get("properties", {}).items())
    if isinstance(schema.get("additionalProperties"), Mapping):
        yield "{}", schema["additionalProperties"]
    if "items" in schema:
        yield "[]", schema["items"]


def _split(path: str) -> tuple[str, list[str]]:
    """The path up to the first list or map, and the steps from there."""
    steps = path.replace("[]", ".[]").replace("{}", ".{}").split(".")
    at = next((place for place, step in enumerate(steps) if step in {"[]", "{}"}), len(steps))
    return ".".join(steps[:at]), steps[at:]
