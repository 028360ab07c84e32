"""Manifests of SiorgSyncWorker, good and bad: one table that the model, the small API server and a real one are held to.

A bad manifest has one thing wrong. It says which field is to blame, and which constraint of the CRD it breaks: a
keyword of the schema (``minimum``, ``pattern`` …), ``required``, ``unique``, ``unknown``, or ``rule`` for CEL. Those that
break a keyword are made from the definition, one for each that there is; by hand stand here those that break a rule, and
values that a pattern has to tell from good ones.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from siorg_operator.api.crd import crd
from siorg_operator.api.pods import SET_BY_THE_OPERATOR

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
        steps: list[Any] = [int(step[1:-1]) if step.startswith("[") else step for step in path.replace("[", ".[").split(".")]
        *parents, last = steps
        place: Any = made
        for step in parents:
            place = place[step] if isinstance(place, list) else place.setdefault(step, {})
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
    "spec.discovery.maxEnds": (0, 100_000),
    "spec.discovery.maxEndsPercent": (0, 50),
    "spec.discovery.maxEndsTotalPercent": (0, 50),
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


def _bad() -> Iterator[Bad]:
    yield from (Bad("spec", ABSENT, "required"), Bad("spec.database", None, "required"))
    yield from (
        Bad(path, {}, "required", f"{path}.{name}") for path, name in (("spec.database", "urlSecretRef"), (_TOKEN, "name"))
    )
    yield from (Bad(path, words[0].swapcase(), "enum") for path, words in WORDS.items())
    yield Bad("metadata.name", "a.b", "pattern")
    yield Bad(f"{_POD}.dnsPolicy", "None", "rule", says="is None without a dnsConfig")
    yield from (Bad(path, name, "pattern") for path in _NAMES for name in _WRONG_NAMES)
    for path in (f"{_SECRET}.key", f"{_TOKEN}.key"):
        yield from (Bad(path, key, "pattern", beside=_TOKEN_NAME) for key in ("a b", "a/b", "ä", "a\n"))
    for more in (_bad_values, _bad_schedules, _bad_jobs, _bad_labels, _bad_env, _bad_volumes, _unknown):
        yield from more()


def _bad_values() -> Iterator[Bad]:
    path, insecure = "spec.siorg.url", {"spec.siorg.allowInsecure": True}
    for says, urls in _URLS.items():
        yield from (Bad(path, url, "rule", says=says) for url in urls)
    for url in ("http://127.1", "http://[::2]", "http://999.1.1.1", "ftp://a"):
        yield Bad(path, url, "rule", says="is not a plain address", beside=insecure)
    yield Bad("spec.scaling.minJobs", 6, "rule", says="is more than maxJobs")
    yield Bad("spec.scaling.maxJobs", 1, "rule", "spec.scaling.minJobs", {"spec.scaling.minJobs": 2}, says="is more than maxJobs")
    yield Bad("spec.scaling", {"minJobs": 9, "maxJobs": 8}, "rule", "spec.scaling.minJobs", says="is more than maxJobs")
    blamed, says = "spec.worker.retryMaxDelayMilliseconds", "is less than retryBaseDelayMilliseconds"
    yield Bad(blamed, 999, "rule", says=says)
    yield Bad("spec.worker.retryBaseDelayMilliseconds", 60_001, "rule", blamed, says=says)


def _bad_schedules() -> Iterator[Bad]:
    for part in ("cleanup", "discovery", "verification"):
        path = f"spec.{part}.schedule"
        for says, schedules in _WRONG_SCHEDULES.items():
            yield from (Bad(path, schedule, "rule", says=says) for schedule in schedules)
        zone = f"spec.{part}.timeZone"
        wrong = ("America/", "/UTC", "America/Sao Paulo", "a/b/c/d", "3", "UTC\n", "../etc")
        yield from (Bad(zone, name, "rule", says="does not look like a time zone") for name in wrong)
        yield from (Bad(zone, name, "rule", says="is the zone of a machine") for name in ("Local", "local", "LOCAL"))


def _bad_jobs() -> Iterator[Bad]:
    yield from (Bad("spec.job.image", image, "rule", says="is not an image reference") for image in _WRONG_IMAGES)
    for kind in ("requests", "limits"):
        path = f"spec.job.resources.{kind}"
        yield from (Bad(path, {"cpu": quantity}, "pattern", f"{path}.cpu") for quantity in _WRONG_QUANTITIES)
        yield from (Bad(path, {"cpu": other}, "type", f"{path}.cpu") for other in _NO_QUANTITIES)
        yield from (Bad(path, {name: 1}, "rule", says="has a name that is not a resource") for name in ("mem", "", "CPU"))


def _bad_labels() -> Iterator[Bad]:
    for path in (f"{_META}.labels", f"{_META}.annotations", f"{_POD}.nodeSelector"):
        wrong = ("", "a b", "/a", "a/", "a/b/c", "-a", "A.B/c", "a" * 64, f"{'a' * 254}/a", "a\n")
        yield from (Bad(path, {key: "x"}, "rule", says="has a key that Kubernetes does not take") for key in wrong)
    for path in (f"{_META}.labels", f"{_POD}.nodeSelector"):
        yield from (Bad(path, {"a": value}, "pattern", f"{path}.a") for value in ("a b", "-", "a-", "ä", "a\n"))
    own = ("siorg.waterswamp.dev/worker", "siorg.waterswamp.dev/x", "batch.kubernetes.io/job-name")
    says = "has a key that the operator or Kubernetes sets itself"
    labels = (*(f"app.kubernetes.io/{name}" for name in ("name", "managed-by", "component")), "controller-uid", "job-name")
    yield from (Bad(f"{_META}.labels", {key: "x"}, "rule", says=says) for key in own + labels)
    yield from (Bad(f"{_META}.annotations", {key: "x"}, "rule", says=says) for key in own)


def _bad_env() -> Iterator[Bad]:
    path = f"{_POD}.env"
    for name in SET_BY_THE_OPERATOR:
        yield Bad(path, [_entries("A"), _entries(name, value="x")], "rule", f"{path}[1].name", says="has a field of its own")
    for name in ("WORKER_BATCHSIZE", "SIORG_TOKEN", "WORKER_", "SIORG_OPERATOR"):
        yield Bad(path, [_entries(name)], "rule", f"{path}[0].name", says="begins as the job's settings do")
    yield from (Bad(path, [_entries(name)], "pattern", f"{path}[0].name") for name in ("1A", "A B", "A=B", "Ä", "A\n"))
    both = _entries("A", value="x", valueFrom=_SECRET_FIELD)
    yield Bad(path, [both], "rule", f"{path}[0].valueFrom", says="is given although value is")
    path = f"{_POD}.envFrom"
    says = "names not exactly one source"
    yield Bad(path, [{}], "rule", f"{path}[0]", says=says)
    yield Bad(path, [{"secretRef": {"name": "a"}, "configMapRef": {"name": "a"}}], "rule", f"{path}[0]", says=says)


def _bad_volumes() -> Iterator[Bad]:
    path, says = f"{_POD}.volumes", "has not exactly one source"
    yield Bad(path, [_entries("a")], "rule", f"{path}[0]", says=says)
    yield Bad(path, [_entries("a", emptyDir={}, secret={"secretName": "a"})], "rule", f"{path}[0]", says=says)
    yield Bad(path, [_entries("tmp", emptyDir={})], "rule", f"{path}[0].name", says="is the operator's own volume")
    yield from (Bad(path, [_entries(name, emptyDir={})], "pattern", f"{path}[0].name") for name in ("A", "a.b", "a_b", "-a"))

    path = f"{_POD}.volumeMounts"
    beside = {f"{_POD}.volumes": [_entries("a", emptyDir={})]}

    def one(breaks: str, blamed: str, says: str = "", **entry: Any) -> Bad:
        given = {key: value for key, value in {"name": "a", "mountPath": "/a", **entry}.items() if value is not ABSENT}
        return Bad(path, [given], breaks, f"{path}{blamed}", beside, says)

    yield one("rule", "", "names a volume that is not in volumes", name="b")
    yield Bad(path, [{"name": "a", "mountPath": "/a"}], "rule", says="names a volume that is not in volumes")
    yield one("rule", "[0].mountPath", "is where the operator mounts an empty volume", mountPath="/tmp")
    yield one("pattern", "[0].mountPath", mountPath="/a:b")
    yield one("pattern", "[0].name", name="A")


def _unknown() -> Iterator[Bad]:
    """Fields that there are not: refused where the client asks for it, as kubectl does, and dropped elsewhere."""
    for path in ("spec.scaling.minjobs", "spec.scaling.min_jobs", "spec.scalling", "spec.job.podTemplate.spec.hostNetwork",
                 "spec.job.podTemplate.spec.securityContext", "spec.database.url", "spek"):  # fmt: skip
        yield Bad(path, 1, "unknown")
    yield Bad(f"{_POD}.env", [_entries("A", Value="x")], "unknown", f"{_POD}.env[0].Value")
    yield Bad(f"{_POD}.volumes", [_entries("a", emptyDir={}, hostPath={"path": "/"})], "unknown", f"{_POD}.volumes[0].hostPath")


# -- statuses, which the operator writes ------------------------------------------------------------------------------

_TIME: Final = "2026-11-23T10:00:00Z"
_CONDITION: Final = {"type": "Ready", "status": "True", "reason": "Draining", "lastTransitionTime": _TIME}
STATUS: Final[Mapping[str, Any]] = {
    "observedGeneration": 1,
    "conditions": [
        {**_CONDITION, "message": "All is well", "observedGeneration": 1}, {**_CONDITION, "type": "InSync", "status": "False"}
    ],
    "queue": {
        "claimable": 480, "atLeast": False, "due": 470, "scheduled": 3, "processing": 20, "failed": 1, "conflict": 2, "held": 4,
        "oldestDueSeconds": 61,
    },
    "verification": {
        "finishedTime": _TIME, "organizations": 328, "rows": 74350, "drift": 3, "enqueued": 2,
        "departures": dict.fromkeys(("conflict", "held", "ended", "failed", "waiting", "outside", "edited"), 1),
    },
    "jobs": {"desired": 5, "active": 3, "pending": 2, "succeeded": 7, "failed": 0, "lastRound": 9, "lastFinishedTime": _TIME},
    "selector": "siorg.waterswamp.dev/worker=worker",
    "rate": 12.5,
    "requestRate": 3,
    "predictedDrainSeconds": 13,
    "lastDecision": {"time": _TIME, "reason": "Launched", "message": "depth 480, 50 a Job → 10 wanted", "launched": 2},
    "backoff": {
        "reason": "JobsFailing", "streak": 2, "message": "exit 1", "template": "0123456789",
        **dict.fromkeys(("since", "lastFailureTime", "retryTime"), _TIME),
    },
}  # fmt: skip
"""Every field of a status, as it may well be."""


def _good() -> Iterator[Good]:
    yield from (Good({}), Good({"metadata.name": "a" * 40}), Good({"metadata.name": "0-a"}))
    yield Good({"spec.scaling.minJobs": 2, "spec.scaling.maxJobs": 0})  # what kubectl scale --replicas=0 makes of it
    yield Good({"spec.suspend": True, "spec.siorg": None, "spec.scaling.minJobs": None, "spec.scaling.targetDrainSeconds": None})
    yield Good({f"spec.{part}": {} for part in ("siorg", "scaling", "worker", "job", "cleanup", "discovery", "verification")})
    for path, limits in NUMBERS.items():
        yield from (Good({**_BESIDE_NUMBERS.get(path, {}), path: number}) for number in limits)
    for path, words in WORDS.items():
        for word in words:
            beside = {f"{_POD}.dnsConfig": {"nameservers": ["10.0.0.1"]}} if word == "None" else {}
            yield Good({**beside, path: word})
    yield from (Good({path: name}) for path in _NAMES for name in ("a", "0", "a-b.c-d", "a" * 253))
    yield from (Good({**_TOKEN_NAME, f"{ref}.key": key}) for ref in (_SECRET, _TOKEN) for key in ("a", "A._-0", "a" * 253))
    yield from (Good({"spec.siorg.url": url}) for url in _GOOD_URLS)
    yield from (Good({"spec.siorg.url": url, "spec.siorg.allowInsecure": True}) for url in (*_INSECURE_URLS, *_GOOD_URLS))
    zones = ("UTC", "Etc/UTC", "America/Sao_Paulo", "America/Argentina/Buenos_Aires", "Etc/GMT+3", "Etc/GMT-3")
    for part in ("cleanup", "discovery", "verification"):
        yield from (Good({f"spec.{part}.schedule": text}) for text in _GOOD_SCHEDULES)
        yield from (Good({f"spec.{part}.timeZone": zone}) for zone in zones)
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

# -- what the definition demands -----------------------------------------------------------------------------------------

_SCHEMA: Final[Mapping[str, Any]] = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
_EVERYWHERE: Final[Mapping[str, Any]] = {
    **{f"{_META}.{name}": {"a": "x"} for name in ("labels", "annotations")},
    **{f"spec.job.resources.{name}": {"cpu": "1"} for name in ("requests", "limits")},
    "spec.discovery.organizations": [1],
    f"{_TOKEN}.name": "token",
    f"{_POD}.nodeSelector": {"a": "x"},
    f"{_POD}.env": [_entries("A")],
    f"{_POD}.envFrom": [{"secretRef": {"name": "a"}}],
    f"{_POD}.volumes": [_entries("a", emptyDir={})],
    f"{_POD}.volumeMounts": [_entries("a", mountPath="/a")],
    f"{_POD}.imagePullSecrets": [_entries("a")],
    f"{_POD}.tolerations": [{"operator": "Exists"}],
    f"{_POD}.hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a"]}],
    f"{_POD}.topologySpreadConstraints": [{"maxSkew": 1}],
    "status": STATUS,
}
"""Of every list and map one entry: from here on each field can be set."""
_OTHER_THAN: Final[Mapping[str, Any]] = {"string": 5, "integer": "x", "number": "x", "boolean": "x", "object": "x", "array": "x"}


def _breaking(schema: Mapping[str, Any], path: str) -> Iterator[Bad]:
    """For each keyword of a schema, and of those within, a manifest that breaks it."""
    values: Mapping[str, Callable[[Any], Any]] = {
        "minimum": lambda least: least - 1, "maximum": lambda most: most + 1, "minLength": lambda least: "a" * (least - 1),
        "maxLength": lambda most: "a" * (most + 1), "pattern": lambda _: ":\n", "enum": lambda _: "Nope",
        "maxItems": lambda most: [_varied(schema, path, number) for number in range(most + 1)],
        "maxProperties": lambda most: {f"example.com/a{number}": "1" for number in range(most + 1)},
    }  # fmt: skip
    for keyword, value in values.items():
        if keyword in schema:
            yield Bad(path, value(schema[keyword]), keyword, beside=_EVERYWHERE)
    if schema.get("format") == "date-time":
        yield Bad(path, "yesterday", "format", beside=_EVERYWHERE)
    if "type" in schema:
        yield Bad(path, _OTHER_THAN[schema["type"]], "type", beside=_EVERYWHERE)
    if schema.get("x-kubernetes-list-type") in {"set", "map"}:
        one = _varied(schema, path, 1)
        yield Bad(path, [one, one], "unique", f"{path}[1]", _EVERYWHERE)
    yield from (Bad(f"{path}.{name}", ABSENT, "required", beside=_EVERYWHERE) for name in schema.get("required", ()))
    for name, inner in schema.get("properties", {}).items():
        yield from _breaking(inner, f"{path}.{name}")
    if isinstance(schema.get("additionalProperties"), Mapping):
        yield from _breaking(schema["additionalProperties"], f"{path}.{next(iter(_EVERYWHERE[path]))}")
    if "items" in schema:
        yield from _breaking(schema["items"], f"{path}[0]")


def _varied(schema: Mapping[str, Any], path: str, number: int) -> Any:
    """An entry of a list that is another one for each number."""
    if path == "spec.discovery.organizations":
        return number + 1
    (entry,) = STATUS["conditions"][:1] if path == "status.conditions" else _EVERYWHERE.get(path, ["a"])
    keys = schema.get("x-kubernetes-list-map-keys", ())
    return {**entry, **{key: f"{entry[key]}{number}" for key in keys}} if isinstance(entry, Mapping) else entry


BAD: Final[tuple[Bad, ...]] = (
    *_bad(),
    *(bad for bad in _breaking(_SCHEMA["metadata"], "metadata") if bad.breaks != "type"),  # another matter: all kinds' own
    *_breaking(_SCHEMA["spec"], "spec"),
)
BAD_STATUS: Final[tuple[Bad, ...]] = tuple(_breaking(_SCHEMA["status"], "status"))


def rules(schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    """Every CEL rule of ``schema``: the field to blame ([] for an entry, {} for a value of a map), and its message."""
    for rule in schema.get("x-kubernetes-validations", ()):
        yield path + rule.get("fieldPath", ""), rule["message"]
    for name, inner in schema.get("properties", {}).items():
        yield from rules(inner, f"{path}.{name}")
    for keyword, step in (("additionalProperties", "{}"), ("items", "[]")):
        if isinstance(schema.get(keyword), Mapping):
            yield from rules(schema[keyword], path + step)


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
