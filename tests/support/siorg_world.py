"""Everything that an operator needs around it: a cluster with the CRD, a queue, a SIORG; and the operator itself.

A ``World`` is one test's: a namespace of its own on the module's cluster. At its end nothing of it runs any more.
"""

from __future__ import annotations

import base64
import copy
import secrets
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
import yaml

from kube_double.kubelet import NODE_SELECTOR, TOLERATIONS, Images, Program, Running
from siorg_job.siorg.rows import read_structure
from siorg_operator.cluster.fingerprint import KEY_SECRET
from siorg_queue import Connection, QueueStore, connect
from support.cluster import Cluster, real_cluster
from support.fleet import eventually
from support.forks import Forked
from support.job import job_environment, run_job
from support.kube import ApiError, Body, Kube
from support.operator_process import ForkedOperator, Operator
from support.siorg_server import REPOSITORY, SiorgServer

RESOURCE = "siorgsyncworkers"
ORGANIZATION = 471
UNITS = 250
IMAGE = "siorg-job:test"
HELD_IMAGE = "siorg-job:held"
"""As ``IMAGE``, but its drains wait for ``World.release`` before they do anything."""
SECRET = "database"
SECRET_KEY = "DATABASE_URL"
TOKEN_SECRET = "token"
TOKEN_KEY = "SIORG_API_TOKEN"
JOB = "siorg_job.__main__"
DRAIN = "app.kubernetes.io/component=drain"

PACE = {
    "STUCK_GRACE_SECS": 0.5,
    "UNSCHEDULABLE_GRACE_SECS": 1,
    "BACKOFF_BASE_SECS": 1,
    "BACKOFF_MAX_SECS": 8,
    "SIORG_PROBE_BASE_SECS": 1,
    "SIORG_PROBE_MAX_SECS": 8,
    "HEALTHY_AFTER_SECS": 5,
    "SECRET_REFRESH_SECS": 1,
}
"""Settings of an operator that is in a hurry, without their prefix."""
HASTE = {
    "siorg_operator.control.loop._BUSY_SPACING_SECONDS": 0.3,
    "siorg_operator.control.status_writer.COUNTS_SECONDS": 1.0,
}
"""What of it is no setting; see ``support.forks``."""

_ENV = {
    "SIORG_TIMEOUT_SECS": "10",
    "SIORG_BREAKER_COOLDOWN_SECS": "0.3",
    "WORKER_UNAVAILABLE_SECS": "1",
}


@cache
def unit_codes(url: str, token: str = "") -> list[int]:
    """Codes of the units that a simulator has, without the organization itself; ask it in fair weather first."""
    path = f"/estrutura-organizacional/completa?codigoPoder=1&codigoEsfera=1&codigoUnidade={ORGANIZATION}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    authorization = {"Authorization": f"Bearer {token}"} if token else {}
    asked = urllib.request.Request(f"{url}{path}&retornarOrgaoEntidadeVinculados=NAO", headers=authorization)
    with opener.open(asked, timeout=30) as answer:
        return sorted(read_structure(answer.read(), ORGANIZATION).units.keys() - {ORGANIZATION})


def crd() -> Body:
    """The definition; the caller's own."""
    return copy.deepcopy(_crd())


@cache
def _crd() -> Body:
    definition: Body = yaml.safe_load((REPOSITORY / "crds" / "siorgsyncworkers.yaml").read_text(encoding="utf-8"))
    return definition


@dataclass(slots=True)
class World:
    """What one test runs in."""

    cluster: Cluster
    database_url: str
    siorg: SiorgServer
    folder: Path
    token: str = ""
    """That SIORG wants."""
    _stack: ExitStack = field(default_factory=ExitStack)
    _connection: Connection | None = None
    operators: list[Operator] = field(default_factory=list)
    """All that were made so far."""

    @property
    def kube(self) -> Kube:
        return self.cluster.kube

    @property
    def namespace(self) -> str:
        return self.cluster.namespace

    @property
    def connection(self) -> Connection:
        """To the queue's database; a new one where the last has broken."""
        if self._connection is not None:
            try:
                self._connection.execute("SELECT 1")
            except psycopg.OperationalError:
                self._connection = None
        if self._connection is None:
            self._connection = self._stack.enter_context(connect(self.database_url, application_name="test"))
        return self._connection

    # -- what is there ------------------------------------------------------------------------------------------------

    def operator(
        self, *, start: bool = True, name: str = "operator", kubeconfig: Path | None = None, forked: bool = True,
        constants: Mapping[str, float] = HASTE, **settings: object,
    ) -> Operator:  # fmt: skip
        """An operator that is in a hurry; ended with the test.

        Args:
            start: whether to start it and to wait until it is ready.
            name: of its log.
            kubeconfig: who it is; everything is allowed to it unless told otherwise.
            forked: see ``support.forks``; False where the command line, the start or the memory of a whole process matters.
            constants: of a forked one: what is no setting; see ``support.forks``.
            settings: ``SIORG_OPERATOR_`` variables in capitals, without that prefix.
        """
        given = {**PACE, **settings}
        kind = ForkedOperator if forked else Operator
        made = kind(kubeconfig or self.cluster.kubeconfig, self.namespace, self.folder, name=name, **given)
        if isinstance(made, ForkedOperator):
            made.constants = constants
        self.operators.append(made)
        return made.start() if start else made

    def resource(self, name: str = "sync", *, env: Mapping[str, str] | None = None, **changes: Any) -> Body:
        """A manifest: four Jobs at most, twenty items a Job, no CronJobs.

        Args:
            name: of the resource.
            env: further variables of its Jobs.
            changes: parts of the spec, merged into it deeply: ``scaling={"maxJobs": 2}``.
        """
        spec: Body = {
            "database": {"urlSecretRef": {"name": SECRET, "key": SECRET_KEY}},
            "siorg": {"url": self.siorg.url, "allowInsecure": True, "maxRequestsPerSecond": 0},
            "scaling": {"maxJobs": 4, "itemsPerJob": 20, "pollIntervalSeconds": 5},
            "worker": {"lingerSeconds": 1, "retryBaseDelayMilliseconds": 100, "retryMaxDelayMilliseconds": 1000},
            "job": {
                "image": IMAGE,
                "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {}},
                "podTemplate": {
                    "spec": {
                        "nodeSelector": NODE_SELECTOR,
                        "tolerations": TOLERATIONS,
                        "terminationGracePeriodSeconds": 10,
                        "env": [{"name": key, "value": value} for key, value in (_ENV | dict(env or {})).items()],
                    }
                },
            },
            "cleanup": {"enabled": False},
            "discovery": {"enabled": False},
            "verification": {"enabled": False},
        }
        return {
            "apiVersion": "siorg.waterswamp.dev/v1alpha1",
            "kind": "SiorgSyncWorker",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": _merged(spec, changes),
        }

    def create(self, manifest: Body | None = None) -> Body:
        return self.kube.create(self.resource() if manifest is None else manifest)

    def edit(self, spec: Mapping[str, Any], name: str = "sync") -> Body:
        return self.kube.patch(RESOURCE, name, {"spec": spec})

    def replace_spec(self, spec: Mapping[str, Any]) -> Body:
        """As ``kubectl replace``, again where the operator wrote status between reading and writing."""
        while True:
            try:
                return self.kube.replace(self.get() | {"spec": spec})
            except ApiError as error:
                if error.status != 409:
                    raise

    def secret(self, url: str | None = None, *, name: str = SECRET, key: str = SECRET_KEY) -> Body:
        """Create the Secret of the database's URL, or of whatever else is given; replace it if it is there."""
        value = self.database_url if url is None else url
        try:
            return self.kube.create_secret(name, {key: value})
        except ApiError as error:
            if error.status != 409:
                raise
        # In one write: what is between two is nobody's intention.
        there = self.kube.get("secrets", name)
        assert there is not None
        return self.kube.patch("secrets", name, {"data": dict.fromkeys(there.get("data") or {}) | _encoded({key: value})})

    def discover(self) -> int:
        """Let ``siorg-job discover`` put the organization's units on the queue; how many are claimable then."""
        run_job("discover", "--organization", str(ORGANIZATION), env=job_environment(self.database_url, self.siorg.url))
        return self.depth()

    def enqueue(self, count: int = 1, connection: Connection | None = None) -> None:
        """Put that many items on the queue: updates of units that SIORG has, each of another one.

        Args:
            count: of items; all of them together cannot be more than SIORG has units.
            connection: to another database than the world's own.
        """
        connection = connection or self.connection
        row = connection.execute("SELECT count(*) AS n FROM siorg_sync_queue").fetchone()
        first = row["n"] if row else 0
        chosen = unit_codes(self.siorg.url, self.token)[first : first + count]
        assert len(chosen) == count, f"SIORG has only {first + len(chosen)} units"
        connection.execute(
            "INSERT INTO siorg_sync_queue (entity_type, siorg_code, operation, payload)"
            " SELECT 'UNIT', code, 'UPDATE', '{}' FROM unnest(%s::integer[]) AS code",
            [chosen],
        )

    def hold(self) -> None:
        """Let processes of ``HELD_IMAGE`` wait (again)."""
        self._gate.unlink(missing_ok=True)

    def release(self) -> None:
        """Let those that wait begin, and those that come run at once."""
        self._gate.touch()

    @property
    def _gate(self) -> Path:
        return self.folder / "released"

    # -- how it stands ------------------------------------------------------------------------------------------------

    def get(self, name: str = "sync") -> Body:
        found = self.kube.get(RESOURCE, name)
        assert found is not None, f"no resource {name}"
        return found

    def status(self, name: str = "sync") -> Body:
        """Its status; empty while there is none."""
        return self.get(name).get("status") or {}

    def condition(self, type: str, name: str = "sync") -> Body:  # noqa: A002 - Kubernetes' word
        """One of its conditions; with an empty status while there is none."""
        conditions = self.status(name).get("conditions") or ()
        return next((one for one in conditions if one["type"] == type), {"type": type, "status": "", "reason": "", "message": ""})

    def wait_for_condition(
        self,
        type: str,  # noqa: A002 - Kubernetes' word
        status: str,
        reason: str | None = None,
        *,
        name: str = "sync",
        seconds: float = 30.0,
    ) -> Body:
        """The condition, once it is so.

        Raises:
            AssertionError: it does not come about; the message has the whole status.
        """
        deadline = time.monotonic() + seconds
        while True:
            found = self.condition(type, name)
            if found["status"] == status and reason in (None, found["reason"]):
                return found
            assert time.monotonic() < deadline, (
                f"{type} is not {status} {reason or ''} after {seconds:g} s:\n{yaml.safe_dump(self.status(name))}\n{self.logs()}"
            )
            time.sleep(0.05)

    def decision(self, name: str = "sync") -> Body:
        """``status.lastDecision``; with empty texts while there is none."""
        return self.status(name).get("lastDecision") or {"reason": "", "message": "", "launched": 0}

    def events(self, reason: str | None = None, name: str = "sync") -> list[Body]:
        """The events told of a resource, oldest first."""
        found = [
            event
            for event in self.kube.list("events")
            if event["involvedObject"]["kind"] == "SiorgSyncWorker" and event["involvedObject"]["name"] == name
            and reason in (None, event["reason"])
        ]  # fmt: skip
        return sorted(found, key=lambda event: (event.get("firstTimestamp") or "", event["metadata"]["resourceVersion"]))

    def jobs(self, name: str = "sync") -> list[Body]:
        found = self.kube.list("jobs", labels=f"{DRAIN},siorg.waterswamp.dev/worker={name}")
        return sorted(found, key=lambda job: (job["metadata"]["creationTimestamp"], job["metadata"]["name"]))

    def unfinished_jobs(self, name: str = "sync") -> list[Body]:
        return [job for job in self.jobs(name) if not is_finished(job)]

    def pods(self) -> list[Body]:
        return self.kube.list("pods", labels=DRAIN)

    def processes(self) -> list[Running]:
        return self.cluster.kubelet.processes(self.namespace)

    def depth(self) -> int:
        return QueueStore(self.connection).depth().claimable

    def outcomes(self) -> dict[str, int]:
        """Items by status and attempts: ``PENDING`` those without any, ``PENDING/1`` those with one."""
        rows = self.connection.execute("SELECT status::text, attempts, count(*) AS n FROM siorg_sync_queue GROUP BY 1, 2")
        return {row["status"] + (f"/{row['attempts']}" if row["attempts"] else ""): row["n"] for row in rows}

    def wait_until_drained(self, *, seconds: float = 60.0, name: str = "sync") -> None:
        """Until nothing is left on the queue, no Job is unfinished, and the status says so."""

        def drained() -> bool:
            queue, jobs = self.status(name).get("queue") or {}, self.status(name).get("jobs") or {}
            told = queue.get("claimable") == 0 and not jobs.get("active") and not jobs.get("pending")
            return told and self.depth() == 0 and not self.unfinished_jobs(name)

        try:
            eventually(drained, seconds=seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.outcomes()}\n{yaml.safe_dump(self.status(name))}\n{self.logs()}") from None

    def logs(self) -> str:
        """What the operators said, to be shown when a test fails."""
        return "\n".join(path.read_text(errors="replace")[-6000:] for path in sorted(self.folder.glob("*.log")))

    def end(self) -> None:
        """End the operators and everything in the namespace."""
        for operator in self.operators:
            operator.stop()
        self.release()
        for body in self.kube.list(RESOURCE):
            self.kube.delete(RESOURCE, body["metadata"]["name"])
        for pod in self.kube.list("pods"):
            self.kube.delete("pods", pod["metadata"]["name"], grace=0)
        eventually(lambda: not self.processes())
        self._stack.close()


def is_finished(job: Body) -> bool:
    conditions = (job.get("status") or {}).get("conditions") or ()
    return any(one["type"] in {"Complete", "Failed"} and one["status"] == "True" for one in conditions)


def key_secret(namespace: str) -> Body:
    """The operator's own Secret, as it comes with the manifests: empty."""
    body: Body = yaml.safe_load((REPOSITORY / "manifests" / "base" / "key.yaml").read_text(encoding="utf-8"))
    return {**body, "metadata": {**body["metadata"], "namespace": namespace}}


@contextmanager
def siorg_world(
    cluster: Cluster, siorg: SiorgServer, database_url: str, folder: Path, *, token: str = "", namespace: str = ""
) -> Iterator[World]:
    """A world in a namespace of its own.

    Args:
        cluster: of the module; its node knows our images afterwards.
        siorg: what Jobs ask.
        database_url: of a migrated database.
        folder: for logs.
        token: that this SIORG wants, if any.
        namespace: of the small cluster, that is there already; otherwise a new one.
    """
    unit_codes(siorg.url, token)  # while it answers
    images = {IMAGE: forked_image(JOB), HELD_IMAGE: forked_image(JOB, gate=folder / "released")}
    with _in_a_namespace(cluster, images, folder, namespace) as own:
        own.kube.apply_crd(crd())
        if own.kube.get("secrets", KEY_SECRET) is None:
            own.kube.create(key_secret(own.namespace))
        world = World(own, database_url, siorg, folder, token)
        try:
            yield world
        finally:
            sys.stderr.write(world.logs())  # pytest shows it where a test has failed
            world.end()


def forked_image(module: str, *, gate: Path | None = None) -> Program:
    """An image for the kubelet; see ``Forked``."""

    def start(arguments: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path) -> Forked:
        return Forked(module, arguments, environment, out=log, folder=folder, gate=gate)

    return start


@contextmanager
def _in_a_namespace(cluster: Cluster, images: Images, folder: Path, namespace: str) -> Iterator[Cluster]:
    if cluster.server is None:
        with real_cluster(folder, cluster.kubeconfig, images) as own:
            yield own
        return
    kube = Kube(cluster.kubeconfig, namespace=namespace or f"{cluster.namespace}-{secrets.token_hex(3)}")
    if not namespace:
        kube.create_namespace(kube.namespace)
    cluster.kubelet.images |= images
    try:
        yield replace(cluster, namespace=kube.namespace, kube=kube)
    finally:
        kube.delete("namespaces", kube.namespace)
        kube.close()


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Body:
    merged = copy.deepcopy(dict(base))
    for key, value in changes.items():
        inner = merged.get(key)
        merged[key] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, Mapping) else copy.deepcopy(value)
    return merged


def _encoded(values: Mapping[str, str]) -> dict[str, str]:
    return {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
