"""A database that cannot be reached: nothing is launched, nothing is ended, and it goes on by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from siorg_queue import connect
from siorg_queue.migrations import migrate
from support.cluster import Cluster
from support.fleet import eventually
from support.postgres import Postgres
from support.siorg_server import SiorgServer
from support.siorg_world import HELD_IMAGE, World, siorg_world


@pytest.fixture
def own_world(cluster: Cluster, siorg: SiorgServer, own_postgres: Postgres, tmp_path: Path) -> Iterator[World]:
    """A world whose database runs at the beginning."""
    with siorg_world(cluster, siorg, own_postgres.database(), tmp_path) as made:
        yield made
    try:
        psycopg.connect(made.database_url).close()
    except psycopg.OperationalError:  # a test failed while it was down
        own_postgres.start()


def running(world: World) -> set[int]:
    return {process.pid for process in world.processes()}


def test_a_database_that_is_down_at_the_start_is_waited_for(own_world: World, own_postgres: Postgres) -> None:
    world = own_world
    own_postgres.stop()
    world.secret()
    operator = world.operator()
    world.create()

    told = world.wait_for_condition("QueueReachable", "False", "DatabaseUnavailable")

    assert "does not answer" in told["message"]
    assert "nothing new is launched until it does" in told["message"]
    assert world.condition("Ready")["reason"] == "DatabaseUnavailable"
    assert world.condition("ScalingActive")["reason"] == "DepthUnknown"
    assert world.decision()["reason"] == "DepthUnknown"
    assert operator.metric("siorg_operator_queue_reachable") == 0
    assert "siorg_operator_queue_depth" not in operator.metrics()  # unknown is not 0
    assert operator.probe("healthz")[0] == operator.probe("readyz")[0] == 200  # a restart would mend nothing
    assert not world.jobs()

    own_postgres.start()
    world.wait_for_condition("QueueReachable", "True")
    world.wait_for_condition("Ready", "True")
    world.enqueue(30)
    world.wait_until_drained()
    assert world.outcomes() == {"COMPLETED/1": 30}
    assert [event["reason"] for event in world.events()][:2] == ["DatabaseUnavailable", "QueueReachable"]


def test_a_database_that_goes_in_the_middle_ends_no_job_and_work_goes_on_by_itself(
    own_world: World, own_postgres: Postgres
) -> None:
    world = own_world
    world.secret()
    world.enqueue(50)
    operator = world.operator()
    world.create(world.resource(job={"image": HELD_IMAGE}, scaling={"maxJobs": 2}))
    eventually(lambda: len(running(world)) == 2)
    eventually(lambda: world.status()["queue"]["claimable"] == 50)
    pids = running(world)

    own_postgres.stop("immediate")
    world.wait_for_condition("QueueReachable", "False", "DatabaseUnavailable")
    world.edit({"scaling": {"maxJobs": 4}})  # three would be wanted now
    eventually(lambda: world.status()["observedGeneration"] == 2)
    assert "depth unknown, 2 unfinished" in world.decision()["message"]
    assert {"queue", "predictedDrainSeconds"}.isdisjoint(world.status())  # nor are the columns that show it
    assert world.status()["jobs"]["active"] == 2
    assert operator.metric("siorg_operator_held_back", "DepthUnknown") == 1
    assert running(world) == pids
    assert len(world.jobs()) == 2

    own_postgres.start()
    world.wait_for_condition("QueueReachable", "True")
    eventually(lambda: len(running(world)) == 3)
    assert pids < running(world)
    logged = [(entry["level"], entry["message"]) for entry in operator.entries() if "reason" in entry and "worker" in entry]
    assert logged == [("WARN", "DatabaseUnavailable"), ("INFO", "QueueReachable")]
    world.release()
    world.wait_until_drained()
    assert world.outcomes() == {"COMPLETED/1": 50}


def test_a_database_without_tables_says_what_to_run(
    cluster: Cluster, siorg: SiorgServer, empty_database_url: str, tmp_path: Path
) -> None:
    with siorg_world(cluster, siorg, empty_database_url, tmp_path) as world:
        world.secret()
        world.operator()
        world.create()
        told = world.wait_for_condition("QueueReachable", "False", "NotMigrated")
        assert "siorg-job migrate" in told["message"]

        with (
            connect(empty_database_url, application_name="test") as work,
            connect(empty_database_url, application_name="test") as lock,
        ):
            migrate(work, lock)

        world.wait_for_condition("Ready", "True")


def test_a_database_without_room_for_connections_is_no_unknown_depth(world: World, database_url: str) -> None:
    world.secret()
    world.enqueue(100)
    world.operator()
    crowd = [psycopg.connect(database_url) for _ in range(70)]  # of the server's 100
    try:
        world.create(world.resource(scaling={"maxJobs": 50, "itemsPerJob": 1}))
        eventually(lambda: "connection budget" in world.decision()["message"])
        limited = world.status()["jobs"]["desired"]
        assert 0 < limited < 10
        assert len(world.jobs()) <= limited
    finally:
        for one in crowd:
            one.close()
    world.wait_until_drained()
