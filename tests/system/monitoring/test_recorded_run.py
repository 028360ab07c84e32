"""Everything that the dashboard and the alerts ask for is there in a real run; and a real Prometheus finds it.

In the run everything happens that metrics tell of: Jobs and a worker on one queue, bad weather, an outage of SIORG.
"""

from __future__ import annotations

import re
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from siorg_queue import Connection
from support.cluster import small_cluster
from support.fleet import Fleet, eventually
from support.job import job_environment
from support.kube import condition
from support.monitoring import TARGET_LABELS, alerts, dashboard, grouped_by, metrics_of, queries
from support.operator_process import Operator
from support.prometheus import MISSING, PROGRAM, Prometheus, Target
from support.queue import number, verify
from support.siorg_server import SiorgServer
from support.siorg_world import ORGANIZATION, UNITS, World, siorg_world, unit_codes

PLAIN, CONFLICTS, FAILURES, REFUSED, DURING_THE_OUTAGE = 60, 12, 12, 40, 20
"""So many come to an end in a run."""

OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
UNKNOWN = 987_000
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


@contextmanager
def recorded_run(database_url: str, folder: Path) -> Iterator[tuple[Exposed, Prometheus | None]]:
    """A run that is over, and that can still be asked about; no Prometheus where the program is not installed."""
    with ExitStack() as stack:
        siorg = stack.enter_context(SiorgServer("--synthetic", str(UNITS)))
        cluster = stack.enter_context(small_cluster(folder, {"python:test": [sys.executable]}))
        world = stack.enter_context(siorg_world(cluster, siorg, database_url, folder))
        operator = world.operator(SIORG_PROBE_MAX_SECS=2)
        worker = stack.enter_context(forever(world))
        exposed = stack.enter_context(read_all_the_time(operator, worker))
        prometheus = None
        if PROGRAM is not None:
            # The labels that the PodMonitors would give.
            where = {"namespace": world.namespace}
            targets = [
                Target("operator", (operator.address or "").removeprefix("http://"), {**where, "pod": "siorg-operator-1"}),
                Target("worker", worker, {**where, "pod": "siorg-worker-1", "worker": "siorg-worker"}),
            ]
            prometheus = stack.enter_context(Prometheus(folder / "prometheus", targets))
        readings = (lambda: exposed.readings) if prometheus is None else prometheus.scrapes
        live(world, operator, lambda: read_again(readings))
        yield exposed, prometheus


def live(world: World, operator: Operator, be_read: Callable[[], None]) -> None:
    """Bad weather, a cluster that refuses, an outage; each is over when the queue is empty again.

    ``be_read`` waits until everything has been read as it is now.
    """
    # By the worker alone, which would else leave them to the Jobs where the machine is busy: its series begin here.
    enqueue(world, "MERGE", unit_codes(world.siorg.url)[-1:])
    enqueue(world, "UPDATE", [UNKNOWN - 1])
    eventually(lambda: {"CONFLICT/1", "FAILED/1"} <= world.outcomes().keys())
    world.secret()
    world.create(
        world.resource(
            env={"SIORG_FRESH_SECS": "0"},
            scaling={"maxJobs": 2, "itemsPerJob": 20, "pollIntervalSeconds": 2},
            worker={"batchSize": 4, "concurrency": 2, "maxRetries": 10},
            discovery={"enabled": True, "organizations": [ORGANIZATION]},
            verification={"enabled": True},
        )
    )
    verify(world.connection, "1 day", drift=2)
    world.wait_for_condition("Ready", "True")
    world.kube.wait_for("jobs", "sync-discovery-first", lambda job: condition(job, "Complete") == "True", seconds=60)
    world.wait_until_drained()
    be_read()

    world.siorg.control("PUT", "latency", {"latency": "30"})
    world.siorg.control("PUT", "faults", {"faults": "status=500:0.4"})
    enqueue(world, "UPDATE", unit_codes(world.siorg.url)[:PLAIN])
    enqueue(world, "MERGE", unit_codes(world.siorg.url)[-CONFLICTS:])  # SIORG does not say with whom: a CONFLICT
    enqueue(world, "UPDATE", list(range(UNKNOWN, UNKNOWN + FAILURES)))  # FAILED
    world.wait_until_drained()
    world.siorg.control("PUT", "faults", {"faults": ""})

    assert world.cluster.server is not None
    with world.cluster.server.fault(verb="create", resource="jobs", namespace=world.namespace, status=500) as refused:
        enqueue(world, "UPDATE", unit_codes(world.siorg.url)[:REFUSED])
        # The operator hears of the work at once, before the worker alone has done it.
        eventually(lambda: refused.hits >= 2)
    world.wait_until_drained()

    world.siorg.control("PUT", "down", {"down": True})
    enqueue(world, "UPDATE", unit_codes(world.siorg.url)[:DURING_THE_OUTAGE])
    world.kube.patch("cronjobs", "sync-discovery", {"spec": {"jobTemplate": {"spec": {"backoffLimit": 0}}}})
    world.kube.job_from_cronjob("sync-discovery", "in-vain")
    world.wait_for_condition("SiorgAvailable", "False", "SiorgUnavailable")
    world.kube.wait_for("jobs", "in-vain", lambda job: condition(job, "Failed") == "True")
    eventually(lambda: operator.metric("siorg_operator_cron_job_failing", "discovery") == 1)
    world.siorg.control("PUT", "down", {"down": False})
    world.wait_until_drained()
    be_read()


def read_again(readings: Callable[[], int]) -> None:
    """Wait for two more readings: a rate needs two."""
    before = readings()
    eventually(lambda: readings() >= before + 2, every=0.2)


def enqueue(world: World, operation: str, codes: list[int]) -> None:
    world.connection.execute(
        "INSERT INTO siorg_sync_queue (entity_type, siorg_code, operation, payload)"
        " SELECT 'UNIT', code, %s::siorg_change_type_enum, '{}' FROM unnest(%s::integer[]) AS code",
        [operation, codes],
    )


@contextmanager
def forever(world: World) -> Iterator[str]:
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
        eventually(lambda: metrics_at(f"http://{address}/metrics"))
        yield address


@contextmanager
def read_all_the_time(operator: Operator, worker: str) -> Iterator[Exposed]:
    """Read both as a scraper would: what was there for a moment only is seen too."""
    exposed, over = Exposed(), threading.Event()

    def read() -> None:
        while not over.wait(0.5):
            exposed.add(metrics_at(f"{operator.address}/metrics"))
            exposed.add(metrics_at(f"http://{worker}/metrics"))
            exposed.readings += 1

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield exposed
    finally:
        over.set()
        reader.join()


def metrics_at(url: str) -> str:
    """What is exposed; empty while nobody answers."""
    try:
        with OPENER.open(url, timeout=10) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


@pytest.mark.timeout(300)  # half a minute alone, a minute and a half beside two busy neighbours
def test_a_real_run_answers_everything_that_is_asked(database_url: str, connection: Connection, tmp_path: Path) -> None:
    since = time.time()
    with recorded_run(database_url, tmp_path) as (exposed, prometheus):
        everything_is_exposed(exposed)
        if prometheus is None:
            pytest.skip("every metric and label is exposed; to ask the queries " + MISSING.format("prometheus"))
        every_query_has_an_answer_and_every_legend_its_labels(prometheus, since)
        every_alert_can_be_asked(prometheus, since)
        every_item_is_counted_once(prometheus, since, number(connection, "SELECT count(*) FROM siorg_sync_queue"))
        the_variables_offer_what_there_is(prometheus, since)


def everything_is_exposed(exposed: Exposed) -> None:
    asked = [(query.panel, query.expression) for query in queries()] + [(alert["alert"], alert["expr"]) for alert in alerts()]
    for where, expression in asked:
        named = metrics_of(expression)
        for name, labels in named.items():
            assert name in exposed.labels, f"{where}: {name}"
            assert labels <= exposed.labels[name] | TARGET_LABELS, f"{where}: {name} has {exposed.labels[name]}"
        there = TARGET_LABELS.union(*(exposed.labels[name] for name in named))
        assert grouped_by(expression) <= there, f"{where}: {expression}"


def every_query_has_an_answer_and_every_legend_its_labels(prometheus: Prometheus, since: float) -> None:
    wrong = []
    for query in queries():
        series = prometheus.values(query.filled_in(), since)
        if not any(values for _, values in series):
            wrong.append(f"{query.panel}: no answer to {query.filled_in()}")
        missing = set(re.findall(r"{{(\w+)}}", query.legend)).difference(*(labels for labels, _ in series))
        if missing:
            wrong.append(f"{query.panel}: no series has the legend's {missing}")
    assert not wrong, "\n".join(wrong)


def every_alert_can_be_asked(prometheus: Prometheus, since: float) -> None:
    for alert in alerts():
        prometheus.values(alert["expr"], since)


def every_item_is_counted_once(prometheus: Prometheus, since: float, items: int) -> None:
    def last(expression: str) -> float:
        ((_, values),) = prometheus.values(expression, since)
        return values[-1]

    def counted() -> tuple[float, float]:
        by_jobs = last('sum(siorg_operator_items_total{outcome!~"retried|released"})')
        return by_jobs, last('sum(siorg_sync_operations_total{status!="PENDING"})')

    eventually(lambda: sum(counted()) >= items)  # the last Job's are exposed at once, and read with the next scrape
    by_jobs, by_the_worker = counted()
    assert by_jobs > 0
    assert by_the_worker > 0
    assert by_jobs + by_the_worker == items
    # What is tried again, or was given back, has come to an outcome too.
    assert last("sum(siorg_operator_item_duration_seconds_count)") == last("sum(siorg_operator_items_total)")


def the_variables_offer_what_there_is(prometheus: Prometheus, since: float) -> None:
    offered = {}
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            found = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
            assert found is not None
            offered[variable["name"]] = prometheus.label_values(found[1].replace("$namespace", ".+"), found[2], since)
    assert len(offered["namespace"]) == 1
    assert offered["worker"] == {"sync", "siorg-worker"}
