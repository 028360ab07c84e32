"""`make bench-operator`: what the operator promises, measured on its own process.

Everything but the API server is real: the operator as a subprocess, an embedded PostgreSQL with fsync on, NOTIFY. The API
server is the tests' small one and runs in this process, so only the operator's own CPU and memory count. Times are taken by
this process's one monotonic clock. Exit 1 when a target is missed. `--only NAME` runs one part, `--list` names them.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import yaml

from siorg_operator.manifests import drain_job
from siorg_operator.resource import parse
from siorg_queue import connect
from support.api_server.observed_requests import Request
from support.cluster import Cluster, small_cluster
from support.fleet import eventually
from support.kube import Body, condition
from support.operator_process import Operator
from support.postgres import Postgres, embedded_postgres
from support.siorg_server import REPOSITORY

CRD = REPOSITORY / "crds" / "siorgsyncworkers.yaml"
AGENTS = ("siorg-operator", "kopf")
IMAGE = "nothing:bench"


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
    def databases(self, count: int) -> Iterator[list[str]]:
        urls = [self.postgres.database() for _ in range(count)]
        try:
            yield urls
        finally:
            for url in urls:
                self.postgres.drop(url)

    def operator(self, cluster: Cluster, name: str = "operator", **settings: object) -> Operator:
        return Operator(
            cluster.kubeconfig, cluster.namespace, self.folder, name=f"{name}-{next(self.names)}", JOB_IMAGE=IMAGE, **settings
        )


def worker(name: str, *, secret: str = "database", **scaling: Any) -> Body:
    return {
        "apiVersion": "siorg.waterswamp.dev/v1alpha1",
        "kind": "SiorgSyncWorker",
        "metadata": {"name": name},
        "spec": {
            "database": {"urlSecretRef": {"name": secret}},
            "siorg": {"url": "http://127.0.0.1:9/doc", "allowInsecure": True},
            "scaling": scaling,
            "job": {"podTemplate": {"spec": {"nodeSelector": {"siorg-test-node": "true"}}}},
        },
    }


def of_operator(requests: Sequence[Request]) -> list[Request]:
    """What the operator asked: by its own client, and kopf's by aiohttp."""
    return [one for one in requests if one.user_agent.startswith(AGENTS)]


def percentile(values: Sequence[float], part: float) -> float:
    """The smallest value that at least ``part`` of all are not above."""
    return sorted(values)[math.ceil(part * len(values)) - 1]


# -- from a committed insert to the Job -------------------------------------------------------------------------------


def insert_to_job(bench: Bench) -> list[Figure]:
    """From just before the INSERT is sent, at rest, to just after the API server made the Job; poll interval 30 s."""
    made: list[float] = []

    def on_request(request: Request) -> None:
        if (request.verb, request.resource, request.status) == ("create", "jobs", 201):
            made.append(time.monotonic())

    seconds = []
    with bench.databases(1) as (url,), bench.cluster() as cluster, connect(url, application_name="bench") as connection:
        assert cluster.server is not None
        cluster.kube.create_secret("database", {"DATABASE_URL": url})
        cluster.kube.create(worker("bench", pollIntervalSeconds=30, maxJobs=1))
        with bench.operator(cluster), cluster.server.on_request(on_request, "before"):
            for trial in range(bench.trials):
                eventually(lambda: at_rest(cluster, "bench"))
                time.sleep(random.uniform(0.2, 0.7))  # at no particular moment of whatever the operator does at rest
                began = time.monotonic()
                connection.execute(
                    "INSERT INTO siorg_sync_queue (entity_type, siorg_code, operation, payload)"
                    f" VALUES ('UNIT', {trial + 1}, 'UPDATE', '{{}}')"
                )
                ended = eventually(lambda: made[trial : trial + 1], seconds=60, every=0.002)[0]
                seconds.append(ended - began)
                # The Job's process does nothing: its work is done here.
                connection.execute("UPDATE siorg_sync_queue SET status = 'COMPLETED', processed_at = now() WHERE status = 'PENDING'")
    return [
        Figure("trials", len(seconds), ""),
        Figure("p50", percentile(seconds, 0.5) * 1000, "ms"),
        Figure("p90", percentile(seconds, 0.9) * 1000, "ms"),
        Figure("p99", percentile(seconds, 0.99) * 1000, "ms", 250),
        Figure("max", max(seconds) * 1000, "ms"),
    ]


def at_rest(cluster: Cluster, name: str) -> bool:
    assert cluster.server is not None
    status = (cluster.server.get("siorgsyncworkers", name, cluster.namespace) or {}).get("status") or {}
    jobs, queue = status.get("jobs") or {}, status.get("queue") or {}
    return not (jobs.get("active") or jobs.get("pending") or queue.get("claimable")) and bool(queue)


# -- many resources ---------------------------------------------------------------------------------------------------


def _many(bench: Bench, resources: int, databases: int) -> list[Figure]:
    with bench.databases(databases) as urls, bench.cluster() as cluster:
        server = cluster.server
        assert server is not None
        for number in range(resources):
            name = f"worker-{number}"
            cluster.kube.create_secret(name, {"DATABASE_URL": urls[number % databases]})
            cluster.kube.create(worker(name, secret=name, pollIntervalSeconds=30))
        began = time.monotonic()
        with bench.operator(cluster) as operator:
            eventually(lambda: all_ready(cluster, resources), seconds=300, every=0.2)
            started, startup = time.monotonic() - began, operator.cpu_seconds()
            startup_peak = operator.memory_mib()
            settle(cluster, 40)
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
        Figure("memory at rest", memory, "MiB", 250),
        Figure("API reads", (len(asked) - writes) * per_minute, "a minute"),
        Figure("API writes", writes * per_minute, "a minute", 0),
        Figure("transactions", transactions * per_minute, "a minute", resources * 2 + 2 * databases),
    ]


def all_ready(cluster: Cluster, count: int) -> bool:
    assert cluster.server is not None
    there = cluster.server.objects("siorgsyncworkers", cluster.namespace)
    return len(there) == count and all(condition(one, "Ready") == "True" for one in there)


def settle(cluster: Cluster, seconds: float) -> None:
    """Until the first round of looks is over: kopf's workers of the first events end, status is written."""
    del cluster
    time.sleep(seconds)


def _transactions(postgres: Postgres) -> int:
    """Of all databases, committed and rolled back; exact once those who wait have told theirs."""
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        row = connection.execute(
            "SELECT sum(xact_commit + xact_rollback) FROM pg_stat_database WHERE datname LIKE 'test%'"
        ).fetchone()
    assert row is not None
    return int(row[0])


def one(bench: Bench) -> list[Figure]:
    """One resource at rest."""
    return _many(bench, 1, 1)


def hundred(bench: Bench) -> list[Figure]:
    """100 resources at rest, each with its own Secret, one database."""
    return _many(bench, 100, 1)


def many(bench: Bench) -> list[Figure]:
    """500 resources at rest, each with its own Secret, one database."""
    return _many(bench, 500, 1)


def many_databases(bench: Bench) -> list[Figure]:
    """500 resources at rest, each with its own Secret, 50 databases."""
    return _many(bench, 500, 50)


PARTS: dict[str, Callable[[Bench], list[Figure]]] = {
    "insert-to-job": insert_to_job,
    "one": one,
    "hundred": hundred,
    "many": many,
    "many-databases": many_databases,
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
