"""`make bench-operator`: what the operator promises, measured on its own process.

Everything but the API server is real: the operator as a subprocess, an embedded PostgreSQL with fsync on, NOTIFY. The API
server is the tests' small one and runs in this process, so only the operator's own CPU and memory count. Times are taken by
this process's one monotonic clock. Exit 1 when a target is missed. `--only NAME` runs one part, `--list` names them.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import yaml

from kube_double.observed_requests import Request
from kube_double.server import ApiServer
from siorg_operator.api.resource import SiorgSyncWorker, parse
from siorg_operator.decide.manifests import drain_job
from siorg_queue import Connection, connect
from support.cluster import Cluster, small_cluster
from support.fleet import eventually
from support.kube import Body, Kube, condition
from support.operator_process import Operator
from support.postgres import Postgres, embedded_postgres
from support.siorg_server import REPOSITORY

CRD = REPOSITORY / "crds" / "siorgsyncworkers.yaml"
AGENTS = ("siorg-operator", "kopf")
IMAGE = "nothing:bench"
FINISHED = 10_000
SETTLE_SECONDS = 40.0  # one poll and its jitter: the looks of the start are over, and kopf's workers have ended


@dataclass(frozen=True)
class Figure:
    """One line of the result."""

    name: str
    value: float
    unit: str
    most: float | None = None
    """The target: not more than this; None: told for its own sake."""

    @property
    def met(self) -> bool:
        return self.most is None or self.value <= self.most


@dataclass
class Bench:
    """What every part is given."""

    postgres: Postgres
    folder: Path
    seconds: float
    """How long a rest is watched."""
    trials: int
    names: Iterator[int] = field(default_factory=lambda: iter(range(1_000_000)))

    @contextmanager
    def cluster(self, **more: Any) -> Iterator[Cluster]:
        folder = self.folder / f"cluster-{next(self.names)}"
        folder.mkdir()
        with small_cluster(folder, {IMAGE: ["/bin/true"]}, **more) as cluster:
            cluster.kube.apply_crd(yaml.safe_load(CRD.read_text()))
            yield cluster

    @contextmanager
    def server(self) -> Iterator[tuple[ApiServer, Kube]]:
        """An API server alone, without controllers and nodes."""
        folder = self.folder / f"server-{next(self.names)}"
        folder.mkdir()
        with ApiServer() as server:
            kube = Kube(server.kubeconfig(folder), namespace="bench")
            kube.create_namespace("bench")
            kube.apply_crd(yaml.safe_load(CRD.read_text()))
            yield server, kube
            kube.close()

    @contextmanager
    def databases(self, count: int) -> Iterator[list[str]]:
        urls = [self.postgres.database() for _ in range(count)]
        try:
            yield urls
        finally:
            for url in urls:
                self.postgres.drop(url)

    def operator(self, cluster: Cluster, name: str = "operator", **settings: object) -> Operator:
        return Operator(cluster.kubeconfig, cluster.namespace, self.folder, name=f"{name}-{next(self.names)}", **settings)


def worker(name: str, *, secret: str = "database", **scaling: Any) -> Body:
    return {
        "apiVersion": "siorg.waterswamp.dev/v1alpha1",
        "kind": "SiorgSyncWorker",
        "metadata": {"name": name},
        "spec": {
            "database": {"urlSecretRef": {"name": secret}},
            "siorg": {"url": "http://127.0.0.1:9/doc", "allowInsecure": True},
            "scaling": scaling,
            "job": {"image": IMAGE, "podTemplate": {"spec": {"nodeSelector": {"siorg-test-node": "true"}}}},
        },
    }


def of_operator(requests: Sequence[Request]) -> list[Request]:
    """What the operator asked: by its own client, and kopf's by aiohttp."""
    return [one for one in requests if one.user_agent.startswith(AGENTS)]


def percentile(values: Sequence[float], part: float) -> float:
    """The smallest value that at least ``part`` of all are not above."""
    return sorted(values)[math.ceil(part * len(values)) - 1]


# -- from a committed insert to the Job -------------------------------------------------------------------------------


class Launches:
    """When the API server had made Jobs, by this process's clock: after it was done, so rather late than early."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def __call__(self, request: Request) -> None:
        if (request.verb, request.resource, request.status) == ("create", "jobs", 201):
            self.at.append(time.monotonic())

    def next(self, after: int, *, seconds: float = 60) -> float:
        """The launch that follows the first ``after``."""
        return eventually(lambda: self.at[after : after + 1], seconds=seconds, every=0.002)[0]


def insert(connection: Connection, code: int) -> None:
    connection.execute(
        f"INSERT INTO siorg_sync_queue (entity_type, siorg_code, operation, payload) VALUES ('UNIT', {code}, 'UPDATE', '{{}}')"
    )


def drain(connection: Connection) -> None:
    """What a Job would do; the bench's Jobs end at once and do nothing."""
    connection.execute("UPDATE siorg_sync_queue SET status = 'COMPLETED', processed_at = now() WHERE status = 'PENDING'")


def insert_to_job(bench: Bench) -> list[Figure]:
    """From just before the INSERT is sent, at rest, to just after the API server made the Job; poll interval 30 s."""
    seconds = []
    with bench.databases(1) as (url,), bench.cluster() as cluster, connect(url, application_name="bench") as connection:
        assert cluster.server is not None
        launches = Launches()
        cluster.kube.create_secret("database", {"DATABASE_URL": url})
        cluster.kube.create(worker("bench", pollIntervalSeconds=30, maxJobs=1))
        with bench.operator(cluster), cluster.server.on_request(launches, "before"):
            for trial in range(bench.trials):
                eventually(lambda: at_rest(cluster, "bench"))
                time.sleep(random.uniform(0.2, 0.7))  # at no particular moment of whatever the operator does at rest
                began = time.monotonic()
                insert(connection, trial + 1)
                seconds.append(launches.next(trial) - began)
                drain(connection)
    return [
        Figure("trials", len(seconds), ""),
        Figure("p50", percentile(seconds, 0.5) * 1000, "ms"),
        Figure("p90", percentile(seconds, 0.9) * 1000, "ms"),
        Figure("p99", percentile(seconds, 0.99) * 1000, "ms", 250),
        Figure("max", max(seconds) * 1000, "ms"),
    ]


def at_rest(cluster: Cluster, name: str) -> bool:
    """Whether every Job has ended and the operator has told so."""
    assert cluster.server is not None
    jobs = cluster.server.objects("jobs", cluster.namespace)
    status = (cluster.server.get("siorgsyncworkers", name, cluster.namespace) or {}).get("status") or {}
    told, queue = status.get("jobs") or {}, status.get("queue") or {}
    return (
        all(condition(job, "Complete") == "True" for job in jobs)
        and told.get("succeeded") == len(jobs)
        and not (told.get("active") or told.get("pending"))
        and queue.get("claimable") == 0
    )


# -- many resources ---------------------------------------------------------------------------------------------------


def _many(bench: Bench, resources: int, databases: int) -> list[Figure]:
    with bench.databases(databases) as urls, bench.server() as (server, kube):
        for number in range(resources):
            name = f"worker-{number}"
            kube.create_secret(name, {"DATABASE_URL": urls[number % databases]})
            resource = parse(kube.create(worker(name, secret=name, pollIntervalSeconds=30)))
            for done in range(3):  # as the history limits leave them
                finished_job(server, resource, done, ended=datetime.now(UTC) - timedelta(minutes=10 + done), pod=True)
        began = time.monotonic()
        with Operator(
            server.kubeconfig(bench.folder), kube.namespace, bench.folder, name=f"many-{next(bench.names)}"
        ) as operator:
            eventually(lambda: all_ready(server, kube.namespace, resources), seconds=300, every=0.2)
            started, startup = time.monotonic() - began, operator.cpu_seconds()
            startup_peak = operator.memory_mib()
            time.sleep(SETTLE_SECONDS)
            before, transactions = len(server.requests), _transactions(bench.postgres)
            cpu, watched_from = operator.cpu_seconds(), time.monotonic()
            time.sleep(bench.seconds)
            watched = time.monotonic() - watched_from
            cpu = operator.cpu_seconds() - cpu
            memory = operator.memory_mib()
            asked = of_operator(server.requests[before:])
            transactions = _transactions(bench.postgres) - transactions
    per_minute = 60 / watched
    writes = sum(one.writes for one in asked)
    told = Counter(f"{one.verb} {one.resource}" for one in asked)
    print(f"  requests in {watched:.0f} s: {dict(told.most_common())}")
    many = resources >= 500
    return [
        Figure("start to all Ready", started, "s"),
        Figure("CPU for that", startup, "s"),
        Figure("CPU at rest", 100 * cpu / watched, "% of a core", 10 if many else None),
        Figure("memory once Ready", startup_peak, "MiB"),
        Figure("memory at rest", memory, "MiB", 250 if many else 120),
        Figure("API reads", (len(asked) - writes) * per_minute, "a minute"),
        Figure("API writes", writes * per_minute, "a minute", 0),
        Figure("transactions", transactions * per_minute, "a minute", resources * 2 + 2 * databases),
    ]


def all_ready(server: ApiServer, namespace: str, count: int) -> bool:
    there = server.objects("siorgsyncworkers", namespace)
    return len(there) == count and all(condition(one, "Ready") == "True" for one in there)


def finished_job(server: ApiServer, resource: SiorgSyncWorker, number: int, *, ended: datetime, pod: bool) -> None:
    """A Job that is Complete, and its pod with what it said of itself."""
    manifest = drain_job(resource, slot=number % 5, round=1 + number // 5)
    metadata, namespace = manifest["metadata"], manifest["metadata"]["namespace"]
    at = ended.strftime("%Y-%m-%dT%H:%M:%SZ")
    complete = [
        {"type": kind, "status": "True", "lastProbeTime": at, "lastTransitionTime": at}
        for kind in ("SuccessCriteriaMet", "Complete")
    ]
    created = server.create(manifest, namespace)
    status = {"conditions": complete, "startTime": at, "completionTime": at, "succeeded": 1}
    server.patch("jobs", metadata["name"], {"status": status}, namespace, subresource="status")
    if not pod:
        return
    owner = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": metadata["name"],
        "uid": created["metadata"]["uid"],
        "controller": True,
    }
    template = manifest["spec"]["template"]
    name = f"{metadata['name']}-abcde"
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**template["metadata"], "name": name, "ownerReferences": [owner]},
        "spec": template["spec"],
    }
    server.create(body, namespace)
    said = {"reason": "exhausted", "exit_code": 0, "duration_seconds": 9.5, "claimed": 60, "completed": 60, "requests": 4}
    terminated = {"exitCode": 0, "reason": "Completed", "startedAt": at, "finishedAt": at, "message": json.dumps(said)}
    container = {"name": "worker", "image": IMAGE, "imageID": "", "ready": False, "restartCount": 0}
    pod_status = {"phase": "Succeeded", "containerStatuses": [{**container, "state": {"terminated": terminated}}]}
    server.patch("pods", name, {"status": pod_status}, namespace, subresource="status")


def _transactions(postgres: Postgres) -> int:
    """Of all databases, committed and rolled back; exact once those who wait have told theirs."""
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        row = connection.execute(
            "SELECT sum(xact_commit + xact_rollback) FROM pg_stat_database WHERE datname LIKE 'test%'"
        ).fetchone()
    assert row is not None
    return int(row[0])


def one(bench: Bench) -> list[Figure]:
    """One resource at rest, with three finished Jobs and their pods."""
    return _many(bench, 1, 1)


def hundred(bench: Bench) -> list[Figure]:
    """100 resources at rest, each with its own Secret and three finished Jobs, one database."""
    return _many(bench, 100, 1)


def many(bench: Bench) -> list[Figure]:
    """1,000 resources at rest, each with its own Secret and three finished Jobs, one database."""
    return _many(bench, 1000, 1)


def many_databases(bench: Bench) -> list[Figure]:
    """500 resources at rest, each with its own Secret and three finished Jobs, 50 databases."""
    return _many(bench, 500, 50)


# -- who leads --------------------------------------------------------------------------------------------------------


def failover(bench: Bench) -> list[Figure]:
    """From the leader's end to the first Job that its standby makes; lease 15 s, tries every 2 s (the defaults)."""
    gaps: dict[signal.Signals, list[float]] = {signal.SIGKILL: [], signal.SIGTERM: []}
    with bench.databases(1) as (url,), bench.cluster() as cluster, connect(url, application_name="bench") as connection:
        assert cluster.server is not None
        launches = Launches()
        cluster.kube.create_secret("database", {"DATABASE_URL": url})
        cluster.kube.create(worker("bench", pollIntervalSeconds=30, maxJobs=1))
        pair = [bench.operator(cluster, name, LEADER_ELECTION="true") for name in ("first", "second")]
        with cluster.server.on_request(launches, "before"), ExitStack() as stack:
            for one in pair:
                stack.callback(one.stop)
            pair[0].start()
            for number in (signal.SIGKILL, signal.SIGTERM) * 4:
                leader, standby = pair
                standby.start(ready=False)
                eventually(lambda: "Waiting for leadership" in standby.log)  # noqa: B023
                eventually(lambda: at_rest(cluster, "bench"))
                time.sleep(random.uniform(3, 5))  # somewhere between two tries of the standby
                done, began = len(launches.at), time.monotonic()
                leader.send(number)
                leader.ends()
                insert(connection, done + 1)  # not before: one that is told to end takes up what comes while it does
                gaps[number].append(launches.next(done) - began)
                drain(connection)
                pair.reverse()
    return [
        Figure("kill -9, longest of 4", max(gaps[signal.SIGKILL]), "s", 20),
        Figure("kill -9, mean", statistics.mean(gaps[signal.SIGKILL]), "s"),
        Figure("SIGTERM, longest of 4", max(gaps[signal.SIGTERM]), "s", 3),
        Figure("SIGTERM, mean", statistics.mean(gaps[signal.SIGTERM]), "s"),
    ]


# -- a full namespace -------------------------------------------------------------------------------------------------


def full_namespace(bench: Bench) -> list[Figure]:
    """10,000 finished Jobs of one resource, that an operator before this one left behind, and work waiting."""
    with (
        bench.databases(1) as (url,),
        bench.server() as (server, kube),  # no controller: it would not leave alone what was never run
        connect(url, application_name="bench") as connection,
    ):
        kube.create_secret("database", {"DATABASE_URL": url})
        resource = parse(kube.create(worker("bench", pollIntervalSeconds=30, maxJobs=1)))
        for number in range(FINISHED):
            ended = datetime.now(UTC) - timedelta(minutes=40) + timedelta(seconds=number / 10)
            finished_job(server, resource, number, ended=ended, pod=False)
        insert(connection, 1)
        launches, before = Launches(), len(server.requests)
        began = time.monotonic()
        kubeconfig = server.kubeconfig(bench.folder)
        with (
            server.on_request(launches, "before"),
            Operator(kubeconfig, kube.namespace, bench.folder, name=f"full-{next(bench.names)}") as operator,
        ):
            launched = launches.next(0) - began
            drain(connection)
            ready, cpu = operator.memory_mib(), operator.cpu_seconds()
            eventually(lambda: len(server.objects("jobs", kube.namespace)) <= 4, seconds=300, every=0.5)
            emptied = time.monotonic() - began
            peak, after = _peak_mib(operator), operator.memory_mib()
            writes = sum(one.writes for one in of_operator(server.requests[before:]))
    return [
        Figure("finished Jobs", FINISHED, ""),
        Figure("start to a Job", launched, "s", 30),
        Figure("CPU until then", cpu, "s"),
        Figure("memory then", ready, "MiB"),
        Figure("start to all removed", emptied, "s"),
        Figure("API writes for that", writes, ""),
        Figure("memory, highest", peak, "MiB", 250),
        Figure("memory after that", after, "MiB"),
    ]


def _peak_mib(operator: Operator) -> float:
    for line in Path(f"/proc/{operator.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmHWM")


PARTS: dict[str, Callable[[Bench], list[Figure]]] = {
    "insert-to-job": insert_to_job,
    "one": one,
    "hundred": hundred,
    "many": many,
    "many-databases": many_databases,
    "failover": failover,
    "full-namespace": full_namespace,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=list(PARTS), action="append", help="run this part only (repeatable)")
    parser.add_argument("--list", action="store_true", help="name the parts")
    parser.add_argument("--seconds", type=float, default=60, help="how long a rest is watched (default 60)")
    parser.add_argument("--trials", type=int, default=100, help="inserts that are followed to their Job (default 100)")
    arguments = parser.parse_args()
    if arguments.list:
        for name, part in PARTS.items():
            print(f"{name:20} {part.__doc__}")
        return 0
    missed = 0
    with tempfile.TemporaryDirectory() as folder, embedded_postgres(durable=True) as postgres:
        with psycopg.connect(postgres.url(), autocommit=True) as admin:
            admin.execute("ALTER SYSTEM SET max_connections = 300")  # 50 databases are 100 connections of the operator
        postgres.restart()
        bench = Bench(postgres, Path(folder), arguments.seconds, arguments.trials)
        for name in arguments.only or PARTS:
            print(f"{name}: {PARTS[name].__doc__}", flush=True)
            for figure in PARTS[name](bench):
                verdict = "" if figure.most is None else f"   target <= {figure.most:g}: {'met' if figure.met else 'MISSED'}"
                print(f"  {figure.name:24} {figure.value:12,.2f} {figure.unit}{verdict}", flush=True)
                missed += not figure.met
    print("all targets met" if not missed else f"{missed} targets missed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
