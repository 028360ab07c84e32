"""A SIORG that does not answer: single probes at growing intervals, no attempt burned, full speed as soon as it is back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest

from support.cluster import Cluster
from support.fleet import eventually
from support.siorg_server import SiorgServer
from support.siorg_world import World, siorg_world

PAUSE = 12
"""Seconds that a SIORG which wants fewer requests asks for; of less than 10 nobody speaks."""
SLOW = {"batchSize": 4, "concurrency": 4}


def launched_at(world: World) -> list[datetime]:
    """When each Job was made, oldest first: as the operator's log has it, for Kubernetes tells whole seconds."""
    times: list[datetime] = []
    for operator in world.operators:
        for entry in operator.entries():
            times += [datetime.fromisoformat(entry["timestamp"])] * len(entry.get("jobs", ()))
    return times


def test_while_siorg_is_down_single_probes_leave_at_growing_intervals(world: World) -> None:
    world.siorg.control("PUT", "down", {"down": True})
    world.secret()
    world.enqueue(350)
    operator = world.operator()
    world.create(world.resource(job={"failedJobsHistoryLimit": 20}))

    told = world.wait_for_condition("SiorgAvailable", "False", "SiorgUnavailable")

    assert "SIORG does not answer" in told["message"]
    assert "one probe Job may leave at" in told["message"]
    assert "No attempt is counted meanwhile; check SIORG and spec.siorg.url if it lasts" in told["message"]
    assert world.condition("Ready")["reason"] == "SiorgUnavailable"
    assert world.condition("ScalingActive")["reason"] == "SiorgUnavailable"
    assert world.condition("Degraded")["status"] == "False"  # it is not ours that fails
    eventually(lambda: (world.status().get("backoff") or {}).get("streak", 0) >= 4, seconds=60)
    times = launched_at(world)
    # Four at first, since nobody knew, in one step; then one by one.
    assert times[3] - times[0] < times[4] - times[3]
    gaps = [(after - before).total_seconds() for before, after in pairwise(times[3:])]
    assert 3 <= len(gaps) <= 4, gaps
    assert all(gap >= 2**number for number, gap in enumerate(gaps)), gaps  # beside how long each of them lived
    assert len(world.unfinished_jobs()) <= 1
    assert world.outcomes() == {"PENDING": 350}
    assert operator.metric("siorg_operator_launches_total", "Probe") == len(gaps)
    assert operator.metric("siorg_operator_jobs_ended_total", "SiorgUnavailable") >= 4
    assert operator.metrics()["siorg_operator_decisions_held_back_total"][("SiorgUnavailable",)] >= 1
    assert [event["reason"] for event in world.events()].count("SiorgUnavailable") == 1
    assert [event["reason"] for event in world.events()].count("ScaledUp") <= 5

    world.siorg.control("PUT", "down", {"down": False})

    world.wait_until_drained()
    assert world.outcomes() == {"COMPLETED/1": 350}
    world.wait_for_condition("SiorgAvailable", "True")
    world.wait_for_condition("Ready", "True")
    assert "backoff" not in world.status()


def test_a_probe_that_is_at_work_brings_back_full_speed(world: World) -> None:
    world.siorg.control("PUT", "down", {"down": True})
    world.secret()
    world.enqueue(450)
    world.operator(HEALTHY_AFTER_SECS=2)
    world.create(world.resource(env={"SIORG_FRESH_SECS": "0"}, worker=SLOW))
    world.wait_for_condition("SiorgAvailable", "False")

    world.siorg.control("PUT", "latency", {"latency": "400"})
    world.siorg.control("PUT", "down", {"down": False})

    eventually(lambda: len(world.processes()) == 4)
    assert world.depth() > 0
    world.wait_for_condition("SiorgAvailable", "True")
    world.siorg.control("PUT", "latency", {"latency": "0"})
    world.wait_until_drained()
    assert world.outcomes() == {"COMPLETED/1": 450}


def test_work_that_comes_while_siorg_is_down_finds_one_probe_and_no_crowd(world: World) -> None:
    world.siorg.control("PUT", "down", {"down": True})
    world.secret()
    world.enqueue(10)
    world.operator()
    world.create()
    world.wait_for_condition("SiorgAvailable", "False", "SiorgUnavailable")
    before = len(launched_at(world))

    for _ in range(5):
        world.enqueue(80)
        assert len(world.unfinished_jobs()) <= 1
    eventually(lambda: world.status()["queue"]["claimable"] == 410)

    assert len(launched_at(world)) <= before + 2
    assert world.status()["jobs"]["desired"] == 4


@pytest.fixture
def strict(cluster: Cluster, database_url: str, tmp_path: Path) -> Iterator[World]:
    """A world whose SIORG can ask for a pause."""
    with (
        SiorgServer("--synthetic", "500", "--retry-after", str(PAUSE)) as server,
        siorg_world(cluster, server, database_url, tmp_path) as made,
    ):
        yield made


def test_a_pause_that_siorg_asks_for_is_kept_and_told(strict: World) -> None:
    world = strict
    world.secret()
    world.enqueue(350)
    operator = world.operator()
    world.siorg.control("PUT", "faults", {"faults": "429=1"})
    world.create()

    told = world.wait_for_condition("SiorgAvailable", "False", "SiorgRateLimited")

    assert "SIORG" in told["message"]
    assert world.condition("Ready")["reason"] == "SiorgRateLimited"
    eventually(lambda: not world.unfinished_jobs() and world.decision()["reason"] == "SiorgRateLimited")
    assert "held back" in world.decision()["message"]
    assert world.outcomes() == {"PENDING": 350}
    eventually(lambda: operator.metric("siorg_operator_held_back", "SiorgRateLimited") == 1)
    rows = world.connection.execute(
        "SELECT extract(epoch FROM paused_until - now())::float8 AS left FROM siorg_request_pace"
    ).fetchall()
    assert [row for row in rows if row["left"] <= PAUSE]
    # Only now: a Job that has not heard of the pause yet, which may take a second, would be answered.
    world.siorg.control("PUT", "faults", {"faults": ""})
    times = launched_at(world)
    assert all((later - times[0]).total_seconds() >= PAUSE - 1 for later in times[4:]), times

    world.wait_until_drained()

    assert world.outcomes() == {"COMPLETED/1": 350}
    world.wait_for_condition("SiorgAvailable", "True")
    world.wait_for_condition("Ready", "True")
