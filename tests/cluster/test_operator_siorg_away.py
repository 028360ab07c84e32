"""A SIORG that does not answer: single probes, no attempt burned, full speed as soon as it is back."""

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

PAUSE = 60
"""Seconds that a SIORG which wants fewer requests asks for; of less than 10 nobody speaks."""
SLOW = {"batchSize": 4, "concurrency": 4}
IMPATIENT = {"WORKER_UNAVAILABLE_SECS": "0.2"}
"""A Job that finds SIORG down ends at once."""


def launched_at(world: World, *, as_probe: bool = False) -> list[datetime]:
    """When each Job (or each probe) was made, oldest first: by the operator's log, for Kubernetes tells whole seconds."""
    times: list[datetime] = []
    for operator in world.operators:
        for entry in operator.entries():
            if not as_probe or entry["message"].endswith("as a probe"):
                times += [datetime.fromisoformat(entry["timestamp"])] * len(entry.get("jobs", ()))
    return times


def test_while_siorg_is_down_single_probes_leave(world: World) -> None:
    world.siorg.control("PUT", "down", {"down": True})
    world.secret()
    world.enqueue(70)
    operator = world.operator()
    world.create(world.resource(env=IMPATIENT, worker=SLOW, job={"failedJobsHistoryLimit": 20}))

    told = world.wait_for_condition("SiorgAvailable", "False", "SiorgUnavailable")

    assert "SIORG does not answer" in told["message"]
    assert "one probe Job may leave at" in told["message"]
    assert "No attempt is counted meanwhile; check SIORG and spec.siorg.url if it lasts" in told["message"]
    assert world.condition("Ready")["reason"] == "SiorgUnavailable"
    assert world.condition("ScalingActive")["reason"] == "SiorgUnavailable"
    assert world.condition("Degraded")["status"] == "False"  # it is not ours that fails
    eventually(lambda: (world.status().get("backoff") or {}).get("streak", 0) >= 3, seconds=60)
    assert len(world.unfinished_jobs()) <= 1
    assert world.outcomes() == {"PENDING": 70}
    assert operator.metric("siorg_operator_jobs_ended_total", "SiorgUnavailable") >= 4
    assert operator.metrics()["siorg_operator_decisions_held_back_total"][("SiorgUnavailable",)] >= 1
    assert [event["reason"] for event in world.events()].count("SiorgUnavailable") == 1
    assert [event["reason"] for event in world.events()].count("ScaledUp") <= 5

    world.siorg.control("PUT", "down", {"down": False})

    world.wait_until_drained()
    assert world.outcomes() == {"COMPLETED/1": 70}
    world.wait_for_condition("SiorgAvailable", "True")
    world.wait_for_condition("Ready", "True")
    assert world.status()["backoff"]["recoveredTime"]  # kept for five minutes: it may go again
    launches, probes = launched_at(world), launched_at(world, as_probe=True)
    assert len(probes) >= 3  # the last of them found SIORG back
    # At first nobody knew: four, and one in the place of each that came too late to claim anything.
    first = [time for time in launches if time < probes[0]]
    assert 4 <= len(first) < 8
    gaps = [(after - before).total_seconds() for before, after in pairwise([first[-1], *probes])]
    assert all(gap > 1 for gap in gaps), gaps


def test_the_first_item_that_a_probe_completes_ends_the_trouble_and_jobs_double_from_there(world: World) -> None:
    world.secret()
    world.enqueue(90)
    world.operator(HEALTHY_AFTER_SECS=600)
    world.siorg.control("PUT", "latency", {"latency": "1000"})
    world.siorg.control("PUT", "down", {"down": True})
    keep_all = {"failedJobsHistoryLimit": 20, "successfulJobsHistoryLimit": 20}
    world.create(world.resource(env={"SIORG_FRESH_SECS": "0"} | IMPATIENT, worker=SLOW, job=keep_all))
    world.wait_for_condition("SiorgAvailable", "False")
    before = launched_at(world)
    eventually(lambda: len(launched_at(world, as_probe=True)) >= 3)
    assert world.outcomes() == {"PENDING": 90}

    world.siorg.control("PUT", "down", {"down": False})

    world.wait_for_condition("SiorgAvailable", "True")
    assert world.status()["backoff"]["recoveredTime"]
    assert world.outcomes()["COMPLETED/1"] >= 1
    eventually(lambda: len(world.processes()) == 4)
    assert world.depth() > 0
    world.siorg.control("PUT", "latency", {"latency": "0"})
    world.wait_until_drained()
    assert world.outcomes() == {"COMPLETED/1": 90}
    # One at a time until it was over, and then 1, 2, 4: each Job is made when the one before it has ended.
    after, probes = launched_at(world)[len(before) :], launched_at(world, as_probe=True)
    assert after[: len(probes)] == probes
    steps = [after.count(moment) for moment in sorted(set(after[len(probes) :]))]
    assert steps[:2] == [1, 2]


def test_work_that_comes_while_siorg_is_down_finds_one_probe_and_no_crowd(world: World) -> None:
    world.siorg.control("PUT", "down", {"down": True})
    world.secret()
    world.enqueue(2)
    world.operator()
    world.create()
    world.wait_for_condition("SiorgAvailable", "False", "SiorgUnavailable")
    before = len(launched_at(world))

    for _ in range(5):
        world.enqueue(16)
        assert len(world.unfinished_jobs()) <= 1
    eventually(lambda: world.status()["queue"]["claimable"] == 82)

    assert len(launched_at(world)) <= before + 2
    assert world.status()["jobs"]["desired"] == 4


@pytest.fixture
def strict(cluster: Cluster, database_url: str, tmp_path: Path) -> Iterator[World]:
    """A world whose SIORG can ask for a pause."""
    with (
        SiorgServer("--synthetic", "100", "--retry-after", str(PAUSE)) as server,
        siorg_world(cluster, server, database_url, tmp_path) as made,
    ):
        yield made


def test_a_pause_that_siorg_asks_for_is_kept_and_told(strict: World) -> None:
    world = strict
    world.secret()
    world.enqueue(70)
    operator = world.operator()
    world.siorg.control("PUT", "faults", {"faults": "429=1"})
    world.create(world.resource(worker=SLOW))  # so that some items are left that wait for nothing but the pause

    told = world.wait_for_condition("SiorgAvailable", "False", "SiorgRateLimited")

    assert "SIORG" in told["message"]
    assert world.condition("Ready")["reason"] == "SiorgRateLimited"
    eventually(lambda: not world.unfinished_jobs() and world.decision()["reason"] == "SiorgRateLimited")
    assert "held back" in world.decision()["message"]
    assert world.outcomes() == {"PENDING": 70}
    eventually(lambda: operator.metric("siorg_operator_held_back", "SiorgRateLimited") == 1)
    rows = world.connection.execute(
        "SELECT extract(epoch FROM paused_until - now())::float8 AS left FROM siorg_request_pace"
    ).fetchall()
    assert [row for row in rows if row["left"] <= PAUSE]
    # Only now: a Job that has not heard of the pause yet, which may take a second, would be answered.
    world.siorg.control("PUT", "faults", {"faults": ""})
    assert len(launched_at(world)) == 4

    # The pause is over.
    world.connection.execute("UPDATE siorg_request_pace SET paused_until = now()")
    world.connection.execute("UPDATE siorg_sync_queue SET scheduled_for = now()")  # those that met it

    world.wait_until_drained()

    assert world.outcomes() == {"COMPLETED/1": 70}
    world.wait_for_condition("SiorgAvailable", "True")
    world.wait_for_condition("Ready", "True")
