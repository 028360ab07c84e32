"""What the operator makes: Jobs and CronJobs, to the letter."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from siorg_job.settings import Settings
from siorg_operator.api.resource import SiorgSyncWorker, parse
from siorg_operator.decide.manifests import (
    APPLIED_ANNOTATION,
    CRON_COMPONENTS,
    cron_job,
    drain_job,
    environment,
    job_name,
    job_tag,
    template_hash,
)
from support.operator_values import CREDENTIALS, IMAGE, UID, body, worker
from support.rows import holds_for
from support.worker_manifests import GOOD, Good

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")

OWNER = {
    "apiVersion": "siorg.waterswamp.dev/v1alpha1", "kind": "SiorgSyncWorker", "name": "siorg", "uid": UID,
    "controller": True, "blockOwnerDeletion": True,
}  # fmt: skip


def own_labels(component: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "siorg-sync",
        "app.kubernetes.io/managed-by": "siorg-operator",
        "app.kubernetes.io/component": component,
        "siorg.waterswamp.dev/worker": "siorg",
    }


def variables(**values: str) -> list[dict[str, Any]]:
    return [{"name": name, "value": value} for name, value in values.items()]


def secret(name: str, of: str, key: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": of, "key": key}}}


DEFAULT_ENV = [
    secret("DATABASE_URL", "database", "DATABASE_URL"),
    *variables(
        SIORG_API_URL="https://api.siorg.gov.br", SIORG_ALLOW_INSECURE="false", SIORG_MAX_REQUESTS_PER_SECOND="50",
        SIORG_MAX_ENDS="10", SIORG_MAX_ENDS_PERCENT="5", SIORG_MAX_ENDS_TOTAL_PERCENT="2",
        WORKER_MAX_RETRIES="3", WORKER_RETRY_BASE_DELAY_MS="1000",
        WORKER_RETRY_MAX_DELAY_MS="60000", WORKER_LINGER_SECS="10", WORKER_SHUTDOWN_GRACE_SECS="25",
        LOG_FORMAT="json", LOG_LEVEL="info",
    ),
]  # fmt: skip

CONTAINER_SECURITY = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}

DEFAULT_POD: dict[str, Any] = {
    "restartPolicy": "Never",
    "terminationGracePeriodSeconds": 30,
    "automountServiceAccountToken": False,
    "enableServiceLinks": False,
    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    "containers": [
        {
            "name": "worker",
            "image": IMAGE,
            "imagePullPolicy": "IfNotPresent",
            "args": ["run"],
            "env": DEFAULT_ENV,
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
            "securityContext": CONTAINER_SECURITY,
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        }
    ],
    "volumes": [{"name": "tmp", "emptyDir": {}}],
}

POD_FAILURE_POLICY = {
    "rules": [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": {"containerName": "worker", "operator": "In", "values": [2, 75]}},
    ]
}

FULL_POD_SPEC: dict[str, Any] = {
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "batch", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {"podAntiAffinity": {}},
    "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
    "priorityClassName": "low",
    "runtimeClassName": "gvisor",
    "schedulerName": "mine",
    "serviceAccountName": "siorg-jobs",
    "imagePullSecrets": [{"name": "registry"}],
    "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["siorg.test"]}],
    "dnsPolicy": "None",
    "dnsConfig": {"nameservers": ["10.0.0.2"]},
}

FULL: dict[str, Any] = {
    "database": {"urlSecretRef": {"name": "db", "key": "url"}},
    "siorg": {
        "url": "http://simulator:8000/doc", "allowInsecure": True, "tokenSecretRef": {"name": "token", "key": "t"},
        "maxRequestsPerSecond": 0,
    },
    "worker": {
        "batchSize": 20, "concurrency": 8, "maxRetries": 5, "retryBaseDelayMilliseconds": 10,
        "retryMaxDelayMilliseconds": 86_400_000, "lingerSeconds": 0, "logFormat": "text", "logLevel": "debug",
    },
    "job": {
        "image": "siorg-job@sha256:" + "0" * 64, "imagePullPolicy": "Always",
        "resources": {"limits": {"cpu": 2, "memory": "1Gi"}},
        "activeDeadlineSeconds": 60, "backoffLimit": 2, "ttlSecondsAfterFinished": 90,
        "podTemplate": {
            "metadata": {"labels": {"kueue.x-k8s.io/queue-name": "q"}, "annotations": {"team": "siorg"}},
            "spec": {
                **FULL_POD_SPEC,
                "env": [{"name": "SIORG_CA_BUNDLE", "value": "/ca/ca.pem"}], "envFrom": [{"configMapRef": {"name": "proxy"}}],
                "volumes": [{"name": "ca", "configMap": {"name": "ca"}}],
                "volumeMounts": [{"name": "ca", "mountPath": "/ca", "readOnly": True}], "terminationGracePeriodSeconds": 100,
            },
        },
    },
    "cleanup": {"schedule": "0 4 * * sun", "timeZone": "America/Sao_Paulo", "retentionDays": 7},
    "discovery": {
        "schedule": "@daily", "timeZone": "Etc/UTC", "organizations": [26, 46],
        "maxEnds": 0, "maxEndsPercent": 7, "maxEndsTotalPercent": 3,
    },
    "verification": {"schedule": "0 5 * * sat", "timeZone": "America/Cuiaba", "enqueue": False},
}  # fmt: skip

FULL_ENV = [
    secret("DATABASE_URL", "db", "url"),
    secret("SIORG_API_TOKEN", "token", "t"),
    *variables(
        SIORG_API_URL="http://simulator:8000/doc", SIORG_ALLOW_INSECURE="true", SIORG_MAX_REQUESTS_PER_SECOND="0",
        SIORG_MAX_ENDS="0", SIORG_MAX_ENDS_PERCENT="7", SIORG_MAX_ENDS_TOTAL_PERCENT="3",
        WORKER_BATCH_SIZE="20", WORKER_CONCURRENCY="8", WORKER_MAX_RETRIES="5", WORKER_RETRY_BASE_DELAY_MS="10",
        WORKER_RETRY_MAX_DELAY_MS="86400000", WORKER_LINGER_SECS="0", WORKER_SHUTDOWN_GRACE_SECS="95",
        LOG_FORMAT="text", LOG_LEVEL="debug", SIORG_CA_BUNDLE="/ca/ca.pem",
    ),
]  # fmt: skip

FULL_POD = {
    **DEFAULT_POD,
    **FULL_POD_SPEC,
    "terminationGracePeriodSeconds": 100,
    "containers": [
        {
            **DEFAULT_POD["containers"][0],
            "image": "siorg-job@sha256:" + "0" * 64,
            "imagePullPolicy": "Always",
            "env": FULL_ENV,
            "envFrom": [{"configMapRef": {"name": "proxy"}}],
            "resources": {"requests": {}, "limits": {"cpu": 2, "memory": "1Gi"}},
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, {"name": "ca", "mountPath": "/ca", "readOnly": True}],
        }
    ],
    "volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "ca", "configMap": {"name": "ca"}}],
}


def place(resource: SiorgSyncWorker) -> dict[str, str]:
    own = {"slot": "2", "round": "7", "template": template_hash(resource, CREDENTIALS)}
    return {f"siorg.waterswamp.dev/{name}": value for name, value in own.items()}


def job_of(resource: SiorgSyncWorker, slot: int = 2, round_: int = 7) -> dict[str, Any]:
    return drain_job(resource, slot=slot, round=round_, secrets_hash=CREDENTIALS, decision="depth 1 → launched 1")


def full() -> SiorgSyncWorker:
    return worker(**copy.deepcopy(FULL))


def known_by(name: str, pod: Mapping[str, Any]) -> dict[str, Any]:
    """The pod of the Job of that name: its connections are known by the end of it, where names of Jobs differ."""
    (container,) = pod["containers"]
    tag = variables(PGAPPNAME=f"siorg-job/{'-'.join(name.split('-')[-3:])}")
    return {**pod, "containers": [{**container, "env": [*tag, *container["env"]]}]}


# -- to the letter ----------------------------------------------------------------------------------------------------


def test_a_job_of_a_resource_with_defaults() -> None:
    labels = own_labels("drain") | place(worker())
    assert job_of(worker()) == {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(worker(), 2, 7),
            "namespace": "sync",
            "labels": labels,
            "annotations": {"siorg.waterswamp.dev/decision": "depth 1 → launched 1"},
            "ownerReferences": [OWNER],
        },
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": 21_600,
            "ttlSecondsAfterFinished": 3600,
            "podFailurePolicy": POD_FAILURE_POLICY,
            "template": {"metadata": {"labels": labels}, "spec": known_by(job_name(worker(), 2, 7), DEFAULT_POD)},
        },
    }


def test_a_job_of_a_resource_in_which_everything_is_set() -> None:
    made = job_of(full())
    labels = {"kueue.x-k8s.io/queue-name": "q"} | own_labels("drain") | place(full())
    assert made["metadata"]["labels"] == labels  # Kueue looks at the Job
    assert made["spec"] == {
        "backoffLimit": 2,
        "activeDeadlineSeconds": 60,
        "ttlSecondsAfterFinished": 90,
        "podFailurePolicy": POD_FAILURE_POLICY,
        "template": {
            "metadata": {"labels": labels, "annotations": {"team": "siorg"}},
            "spec": known_by(made["metadata"]["name"], FULL_POD),
        },
    }


def expected(component: str, pod: Mapping[str, Any], args: list[str], env: list[Any], **spec: Any) -> dict[str, Any]:
    template = copy.deepcopy(dict(pod))
    template["containers"][0] |= {"args": args, "env": env}
    labelled = {"labels": own_labels(component)}
    job: dict[str, Any] = {"backoffLimit": 3, "activeDeadlineSeconds": 21_600, "ttlSecondsAfterFinished": 86_400}
    job["template"] = {"metadata": labelled, "spec": template}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": f"siorg-{component}", "namespace": "sync", **labelled, "ownerReferences": [OWNER]},
        "spec": {
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": 600,
            "suspend": False,
            "successfulJobsHistoryLimit": 1,
            "failedJobsHistoryLimit": 3,
            "jobTemplate": {"metadata": labelled, "spec": job},
            **spec,
        },
    }


def without_hash(manifest: dict[str, Any]) -> dict[str, Any]:
    metadata = {key: value for key, value in manifest["metadata"].items() if key != "annotations"}
    assert set(manifest["metadata"]["annotations"]) == {APPLIED_ANNOTATION}
    return {**manifest, "metadata": metadata}


def test_the_cron_jobs_of_a_resource_with_defaults() -> None:
    retention = variables(WORKER_RETENTION_DAYS="30")
    assert without_hash(cron_job(worker(), "cleanup")) == expected(
        "cleanup", DEFAULT_POD, ["cleanup"], [*DEFAULT_ENV, *retention], schedule="17 3 * * *"
    )
    assert without_hash(cron_job(worker(), "discovery")) == expected(
        "discovery", DEFAULT_POD, ["discover"], DEFAULT_ENV, schedule="7 * * * *"
    )
    assert without_hash(cron_job(worker(), "verification")) == expected(
        "verification", DEFAULT_POD, ["verify", "--stored", "--enqueue"], DEFAULT_ENV, schedule="47 4 * * 0"
    )


def test_the_cron_jobs_of_a_resource_in_which_everything_is_set() -> None:
    cleanup, discovery, verification = (cron_job(full(), component)["spec"] for component in CRON_COMPONENTS)
    assert (cleanup["schedule"], cleanup["timeZone"]) == ("0 4 * * sun", "America/Sao_Paulo")
    assert (discovery["schedule"], discovery["timeZone"]) == ("@daily", "Etc/UTC")
    (sweeper,) = cleanup["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    (finder,) = discovery["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    (verifier,) = verification["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert (verification["schedule"], verification["timeZone"]) == ("0 5 * * sat", "America/Cuiaba")
    assert (verifier["args"], verifier["env"]) == (["verify", "--stored"], FULL_ENV)
    assert finder["args"] == ["discover", "--organization", "26", "--organization", "46"]
    assert variables(WORKER_RETENTION_DAYS="7")[0] in sweeper["env"]
    assert finder["env"] == FULL_ENV
    assert secret("SIORG_API_TOKEN", "token", "t") not in sweeper["env"]  # cleanup asks SIORG for nothing
    for spec in (cleanup, discovery, verification):
        assert spec["jobTemplate"]["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "q"
        assert spec["jobTemplate"]["spec"]["activeDeadlineSeconds"] == 60


def test_cron_jobs_rest_with_the_resource_and_the_hash_of_one_changes_with_it_and_only_then() -> None:
    for resource in (worker(suspend=True), worker(mode="Observe")):
        assert all(cron_job(resource, component)["spec"]["suspend"] is True for component in CRON_COMPONENTS)

    def applied(**spec: Any) -> str:
        return str(cron_job(worker(**spec), "discovery")["metadata"]["annotations"][APPLIED_ANNOTATION])

    changes: list[dict[str, Any]] = [
        {"discovery": {"schedule": "@daily"}},
        {"discovery": {"organizations": [26]}},
        {"discovery": {"maxEnds": 20}},
        {"suspend": True},
        {"job": {"image": "other"}},
        {"worker": {"logLevel": "debug"}},
    ]
    assert len({applied(), *(applied(**change) for change in changes)}) == 1 + len(changes)
    assert applied() == applied(scaling={"maxJobs": 9}, cleanup={"enabled": False})


def test_manifests_share_nothing_with_the_resource() -> None:
    resource = full()
    made = job_of(resource)
    made["spec"]["template"]["spec"]["affinity"]["changed"] = True
    made["spec"]["template"]["metadata"]["labels"]["changed"] = "yes"
    assert job_of(resource)["spec"]["template"]["spec"]["affinity"] == {"podAntiAffinity": {}}
    assert "changed" not in job_of(resource)["spec"]["template"]["metadata"]["labels"]


# -- Pod Security: https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted ------------------------


_RESTRICTED_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip


def pods(resource: SiorgSyncWorker) -> Iterator[dict[str, Any]]:
    yield job_of(resource)["spec"]["template"]["spec"]
    for manifest in (cron_job(resource, component) for component in CRON_COMPONENTS):
        yield manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def wrong(good: Good) -> Iterator[str]:
    """What is wrong with the pods of one resource."""
    for pod in pods(parse(good.manifest)):
        (container,) = pod["containers"]
        given = [entry["name"] for entry in container["env"]]
        secrets = [entry for entry in container["env"] if entry["name"] in {"DATABASE_URL", "SIORG_API_TOKEN"}]
        names = [volume["name"] for volume in pod["volumes"]]
        paths = [mount["mountPath"] for mount in container["volumeMounts"]]
        forbidden = {"hostNetwork", "hostPID", "hostIPC", "initContainers", "ephemeralContainers", "hostUsers"}
        rules = {
            "nothing of the node": not forbidden & set(pod),
            "no root": pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "no privileges": container["securityContext"] == CONTAINER_SECURITY,
            "one plain container": not {"ports", "lifecycle", "livenessProbe", "command"} & set(container),
            "no token of Kubernetes": pod["automountServiceAccountToken"] is False,
            "volumes": all(set(volume) - {"name"} <= _RESTRICTED_VOLUMES for volume in pod["volumes"]),
            "names once": all(len(set(each)) == len(each) for each in (names, paths, given)),
            "secrets by reference": all(set(entry.get("valueFrom", ())) == {"secretKeyRef"} for entry in secrets),
            "and not copied": all(set(entry) == {"name", "valueFrom"} for entry in secrets),
        }
        yield from (f"{good}: {rule}" for rule, kept in rules.items() if not kept)


def test_every_pod_passes_pod_security_restricted_and_refers_to_its_secrets() -> None:
    assert [found for good in GOOD for found in wrong(good)] == []


# -- names and labels -------------------------------------------------------------------------------------------------


@given(
    st.from_regex(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?", fullmatch=True),
    st.uuids(),
    st.integers(0, 999),
    st.one_of(st.integers(1, 10**4), st.integers(1, 10**11)),
)
def test_names_and_label_values_are_what_kubernetes_takes(name: str, uid: Any, slot: int, round_: int) -> None:
    given_body = body(name=name)
    given_body["metadata"]["uid"] = str(uid)
    resource = parse(given_body)
    job = job_of(resource, slot, round_)
    assert job["metadata"]["name"] == job_name(resource, slot, round_)
    assert len(job["metadata"]["name"]) <= 63
    assert _NAME.fullmatch(job["metadata"]["name"])
    for cron in (cron_job(resource, component) for component in CRON_COMPONENTS):
        assert len(cron["metadata"]["name"]) <= 52  # Kubernetes puts a minute behind it
        assert _NAME.fullmatch(cron["metadata"]["name"])
        assert _valid(cron["metadata"]["labels"])
    assert _valid(job["metadata"]["labels"])
    assert _valid(job["spec"]["template"]["metadata"]["labels"])


def _valid(given_labels: dict[str, str]) -> bool:
    return all(len(value) <= 63 and _LABEL_VALUE.fullmatch(value) for value in given_labels.values())


def test_each_slot_and_round_has_a_name_of_its_own_and_other_ones_in_a_resource_that_was_made_again() -> None:
    again = body()
    again["metadata"]["uid"] = "another"
    places = [(resource, slot, round_) for resource in (worker(), parse(again)) for slot in range(12) for round_ in range(1, 112)]
    assert len({job_name(*place) for place in places}) == len(places)


# -- the template's hash ----------------------------------------------------------------------------------------------

_POD_CHANGES = {
    **{key: value for key, value in FULL_POD_SPEC.items() if key != "dnsPolicy"},
    "dnsPolicy": "Default",
    "env": [{"name": "HTTPS_PROXY", "value": "http://p:1"}],
    "envFrom": [{"secretRef": {"name": "s"}}],
    "volumes": [{"name": "v", "emptyDir": {}}],
    "terminationGracePeriodSeconds": 60,
}
_SIORG_CHANGES = {
    "url": "https://estruturaorganizacional.dados.gov.br/doc", "tokenSecretRef": {"name": "token"}, "maxRequestsPerSecond": 10,
    "allowInsecure": True,
}  # fmt: skip
_WORKER_CHANGES = {
    "batchSize": 1, "concurrency": 1, "maxRetries": 1, "retryBaseDelayMilliseconds": 1, "retryMaxDelayMilliseconds": 70_000,
    "lingerSeconds": 1, "logFormat": "text", "logLevel": "debug",
}  # fmt: skip
MAKES_PODS_DIFFER: list[dict[str, Any]] = [
    *({"job": {key: value}} for key, value in {"image": "other", "imagePullPolicy": "Always", "resources": {}}.items()),
    *({"job": {"podTemplate": {"metadata": {key: {"a": "b"}}}}} for key in ("labels", "annotations")),
    *({"job": {"podTemplate": {"spec": {key: value}}}} for key, value in _POD_CHANGES.items()),
    *({"database": {"urlSecretRef": ref}} for ref in ({"name": "other"}, {"name": "database", "key": "other"})),
    *({"siorg": {key: value}} for key, value in _SIORG_CHANGES.items()),
    *({"worker": {key: value}} for key, value in _WORKER_CHANGES.items()),
    *({"discovery": {key: 1}} for key in ("maxEnds", "maxEndsPercent", "maxEndsTotalPercent")),
]
LEAVES_PODS_AS_THEY_ARE: list[dict[str, Any]] = [
    {"suspend": True},
    {"mode": "Observe"},
    {"scaling": {"maxJobs": 9, "minJobs": 2, "itemsPerJob": 7, "targetDrainSeconds": 5, "pollIntervalSeconds": 9}},
    {"job": {"activeDeadlineSeconds": 90, "backoffLimit": 1, "ttlSecondsAfterFinished": 90}},
    {"job": {"successfulJobsHistoryLimit": 9, "failedJobsHistoryLimit": 9}},
    {"cleanup": {"enabled": False, "schedule": "@daily", "retentionDays": 3}},
    {"discovery": {"schedule": "@daily", "organizations": [1]}},
    {"verification": {"schedule": "@daily", "enqueue": False}},
    {"generation": 99},
    {"status": {"rate": 5.0}},
]


def test_the_template_changes_with_whatever_makes_pods_differ_and_with_nothing_else() -> None:
    def changed(changes: list[dict[str, Any]]) -> dict[str, str]:
        return {str(change): template_hash(worker(**change), CREDENTIALS) for change in changes}

    plain = template_hash(worker(), CREDENTIALS)
    assert len({plain, *changed(MAKES_PODS_DIFFER).values()}) == 1 + len(MAKES_PODS_DIFFER)
    assert [change for change, found in changed(LEAVES_PODS_AS_THEY_ARE).items() if found != plain] == []
    assert template_hash(worker(), "another password in the Secret") != plain
    assert _LABEL_VALUE.fullmatch(plain)


def test_jobs_of_one_template_differ_in_their_place_alone() -> None:
    def made_of(job: dict[str, Any]) -> Any:
        job["spec"]["template"]["metadata"].pop("labels")
        (container,) = job["spec"]["template"]["spec"]["containers"]
        assert container["env"].pop(0) == variables(PGAPPNAME=f"siorg-job/{job_tag(job['metadata']['name'])}")[0]
        return job["spec"]

    assert made_of(job_of(worker(), 0, 1)) == made_of(job_of(worker(), 4, 9))


# -- the job understands it -------------------------------------------------------------------------------------------


def settings_of(environ: Mapping[str, str]) -> Settings:
    return Settings.from_environment({"DATABASE_URL": "postgresql://siorg:x@db/siorg", **environ})


def test_the_job_accepts_whatever_the_resource_accepts() -> None:
    def check(good: Good) -> None:
        resource = parse(good.manifest)
        settings_of(environment(resource))
        (container,) = cron_job(resource, "cleanup")["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        # A file of the cluster cannot be looked for here; a Secret's or a field's value is not known.
        plain = {one["name"]: one.get("value", "") for one in container["env"] if "valueFrom" not in one}
        settings_of({name: value for name, value in plain.items() if name != "SIORG_CA_BUNDLE"})

    holds_for(GOOD, check)


def test_the_job_reads_what_the_resource_says() -> None:
    read = settings_of(environment(full()))
    assert (read.siorg_api_url, read.siorg_allow_insecure) == ("http://simulator:8000/doc", True)
    assert read.siorg_max_requests_per_second == 0
    assert (read.worker_batch_size, read.worker_concurrency, read.worker_max_retries) == (20, 8, 5)
    assert (read.worker_retry_base_delay_ms, read.worker_retry_max_delay_ms) == (10, 86_400_000)
    assert (read.worker_linger_secs, read.worker_shutdown_grace_secs) == (0, 95)
    assert (read.log_format, read.log_level) == ("text", "debug")
