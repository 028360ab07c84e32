"""A run in which everything happens that metrics tell of: Jobs and a worker on one queue, bad weather, an outage of SIORG."""

from __future__ import annotations

import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from support.cluster import small_cluster
from support.fleet import Fleet, eventually
from support.job import job_environment
from support.kube import condition
from support.operator_process import Operator
from support.prometheus import PROGRAM, Prometheus, Target
from support.siorg_server import SiorgServer
from support.siorg_world import ORGANIZATION, UNITS, World, siorg_world, unit_codes

_PLAIN, _CONFLICTS, _FAILURES, _REFUSED, _DURING_THE_OUTAGE = 100, 24, 24, 60, 40
ITEMS = _PLAIN + _CONFLICTS + _FAILURES + _REFUSED + _DURING_THE_OUTAGE
"""So many come to an end in a run."""

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_UNKNOWN = 987_000
"""The simulator has no unit of this code, nor of the next ones."""


@dataclass(slots=True)
class Exposed:
    """What could be read under ``/metrics`` at any time of a run: the labels of each name."""

    labels: dict[str, set[str]] = field(default_factory=dict)
    readings: int = 0
    """How often both were read."""

    def add(self, text: str) -> None:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self.labels.setdefault(sample.name, set()).update(sample.labels)


@dataclass(frozen=True, slots=True)
class Recording:
    """A run that is over, and that can still be asked about."""

    exposed: Exposed
    prometheus: Prometheus | None
    """None where the program is not installed."""
    since: float
    """Seconds since 1970."""


@contextmanager
def recorded_run(database_url: str, folder: Path) -> Iterator[Recording]:
    """Run it, in about half a minute.

    Args:
        database_url: of a migrated database.
        folder: for logs and Prometheus' data.
    """
    with ExitStack() as stack:
        siorg = stack.enter_context(SiorgServer("--synthetic", str(UNITS)))
        cluster = stack.enter_context(small_cluster(folder, {"python:test": [sys.executable]}))
        world = stack.enter_context(siorg_world(cluster, siorg, database_url, folder))
        operator = world.operator(SIORG_PROBE_MAX_SECS=2)
        worker = stack.enter_context(_worker(world))
        exposed = stack.enter_context(_read_all_the_time(operator, worker))
        prometheus = None
        if PROGRAM is not None:
            # The labels that the PodMonitors would give.
            where = {"namespace": world.namespace}
            targets = [
                Target("operator", (operator.address or "").removeprefix("http://"), {**where, "pod": "siorg-operator-1"}),
                Target("worker", worker, {**where, "pod": "siorg-worker-1", "worker": "siorg-worker"}),
            ]
            prometheus = stack.enter_context(Prometheus(folder / "prometheus", targets))
        since = time.time()
        readings = (lambda: exposed.readings) if prometheus is None else prometheus.scrapes
        _live(world, operator, lambda: _read_again(readings))
        yield Recording(exposed, prometheus, since)


def _live(world: World, operator: Operator, be_read: Callable[[], None]) -> None:
    """Bad weather, a cluster that refuses, an outage; each is over when the queue is empty again.

    Args:
        world: where all of it happens.
        operator: that of this world.
        be_read: waits until everything has been read as it is now.
    """
    world.secret()
    world.create(
        world.resource(
            env={"SIORG_FRESH_SECS": "0"},
            scaling={"maxJobs": 2, "itemsPerJob": 20, "pollIntervalSeconds": 2},
            worker={"batchSize": 4, "concurrency": 2, "maxRetries": 10},
            discovery={"enabled": True, "organizations": [ORGANIZATION]},
        )
    )
    world.wait_for_condition("Ready", "True")
    be_read()

    world.siorg.control("PUT", "latency", {"latency": "30"})
    world.siorg.control("PUT", "faults", {"faults": "status=500:0.4"})
    world.enqueue(_PLAIN)
    _enqueue(world, "MERGE", unit_codes(world.siorg.url)[-_CONFLICTS:])  # SIORG does not say with whom: a CONFLICT
    _enqueue(world, "UPDATE", list(range(_UNKNOWN, _UNKNOWN + _FAILURES)))  # FAILED
    world.wait_until_drained()
    world.siorg.control("PUT", "faults", {"faults": ""})

    assert world.cluster.server is not None
    with world.cluster.server.fault(verb="create", resource="jobs", namespace=world.namespace, status=500) as refused:
        world.enqueue(_REFUSED)
        # The operator hears of the work at once, before the worker alone has done it.
        eventually(lambda: refused.hits >= 2)
    world.wait_until_drained()

    world.siorg.control("PUT", "down", {"down": True})
    world.enqueue(_DURING_THE_OUTAGE)
    world.kube.patch("cronjobs", "sync-discovery", {"spec": {"jobTemplate": {"spec": {"backoffLimit": 0}}}})
    world.kube.job_from_cronjob("sync-discovery", "in-vain")
    world.wait_for_condition("SiorgAvailable", "False", "SiorgUnavailable")
    world.kube.wait_for("jobs", "in-vain", lambda job: condition(job, "Failed") == "True")
    eventually(lambda: operator.metric("siorg_operator_cron_job_failing", "discovery") == 1)
    world.siorg.control("PUT", "down", {"down": False})
    world.wait_until_drained()
    be_read()


def _read_again(readings: Callable[[], int]) -> None:
    """Wait for two more readings: a rate needs two."""
    before = readings()
    eventually(lambda: readings() >= before + 2, every=0.2)


def _enqueue(world: World, operation: str, codes: list[int]) -> None:
    world.connection.execute(
        "INSERT INTO siorg_sync_queue (entity_type, siorg_code, operation, payload)"
        " SELECT 'UNIT', code, %s::siorg_change_type_enum, '{}' FROM unnest(%s::integer[]) AS code",
        [operation, codes],
    )


@contextmanager
def _worker(world: World) -> Iterator[str]:
    """``siorg-job run --forever`` that serves metrics, slow enough to leave something for Jobs; where it serves them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    slow = {"WORKER_BATCH_SIZE": "2", "WORKER_CONCURRENCY": "2", "WORKER_POLL_INTERVAL_SECS": "1", "WORKER_MAX_RETRIES": "10"}
    hasty = {"WORKER_RETRY_BASE_DELAY_MS": "100", "WORKER_RETRY_MAX_DELAY_MS": "1000", "SIORG_BREAKER_COOLDOWN_SECS": "0.3"}
    env = job_environment(world.database_url, world.siorg.url, SIORG_FRESH_SECS="0", WORKER_METRICS_PORT=str(port))
    with Fleet({**env, **slow, **hasty}, world.folder) as fleet:
        fleet.start("run", "--forever", name="worker")
        address = f"127.0.0.1:{port}"
        eventually(lambda: _read(f"http://{address}/metrics"))
        yield address


@contextmanager
def _read_all_the_time(operator: Operator, worker: str) -> Iterator[Exposed]:
    """Read both as a scraper would: what was there for a moment only is seen too."""
    exposed, over = Exposed(), threading.Event()

    def read() -> None:
        while not over.wait(0.5):
            exposed.add(_read(f"{operator.address}/metrics"))
            exposed.add(_read(f"http://{worker}/metrics"))
            exposed.readings += 1

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield exposed
    finally:
        over.set()
        reader.join()


def _read(url: str) -> str:
    """What is exposed; empty while nobody answers."""
    try:
        with _OPENER.open(url, timeout=10) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""
