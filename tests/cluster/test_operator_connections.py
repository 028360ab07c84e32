"""A database server whose connections are few: those who share it get along, and no Job dies for want of one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from siorg_queue import connect
from support.cluster import Cluster
from support.fleet import eventually
from support.postgres import Postgres, embedded_postgres
from support.siorg_server import SiorgServer
from support.siorg_world import HELD_IMAGE, SECRET_KEY, World, is_finished, siorg_world

RESOURCES = 10
ITEMS = 20
REFUSED = ("too many clients", "remaining connection slots", "too many connections")


@pytest.fixture(scope="module")
def crowded() -> Iterator[Postgres]:
    """A server of its own: 100 connections, of which 97 are for ordinary roles."""
    with embedded_postgres() as server:
        yield server


@pytest.fixture
def crowded_world(cluster: Cluster, siorg: SiorgServer, crowded: Postgres, tmp_path: Path) -> Iterator[World]:
    with siorg_world(cluster, siorg, crowded.database(), tmp_path) as made:
        yield made


def refusals(server: Postgres) -> list[str]:
    """What the server has logged of connections that it refused."""
    lines = (server.socket_folder / "log").read_text(errors="replace").splitlines()
    return [line for line in lines if any(words in line for words in REFUSED)]


def test_ten_resources_on_one_server_share_it_and_no_job_lacks_a_connection(crowded_world: World, crowded: Postgres) -> None:
    world, names = crowded_world, [f"s{number}" for number in range(RESOURCES)]
    scaling = {"maxJobs": 20, "itemsPerJob": 1, "maxLaunchesPerStep": 20, "pollIntervalSeconds": 2}
    with ExitStack() as connections:
        for name in names:
            url = crowded.database()
            world.secret(url, name=name)
            ref = {"urlSecretRef": {"name": name, "key": SECRET_KEY}}
            world.create(world.resource(name, database=ref, scaling=scaling, job={"image": HELD_IMAGE}))
            with connect(url, application_name="test") as connection:
                world.enqueue(ITEMS, connection)
        world.operator()

        # As many as there is room for, and each has its part; of these Jobs none has connected yet.
        most = (97 - 2 * RESOURCES - 5) // 3
        eventually(lambda: sum(len(world.unfinished_jobs(name)) for name in names) >= most - 1)
        counts = [len(world.unfinished_jobs(name)) for name in names]
        assert sum(counts) <= most
        assert min(counts) >= 1
        assert max(counts) <= 4
        eventually(lambda: all("connection budget of the server" in world.decision(name)["message"] for name in names))

        watch = connections.enter_context(psycopg.connect(crowded.url(), autocommit=True))
        seen: list[int] = []

        def drained() -> bool:
            row = watch.execute("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'").fetchone()
            seen.append(row[0] if row else 0)
            queues = [world.status(name).get("queue") or {} for name in names]
            return all(queue.get("claimable") == 0 and queue.get("processing") == 0 for queue in queues)

        world.release()
        eventually(drained, seconds=120)
        eventually(lambda: all(not world.unfinished_jobs(name) for name in names), seconds=60)
    jobs = [job for name in names for job in world.jobs(name)]
    failed = [one for job in jobs for one in job["status"].get("conditions") or () if one["type"] == "Failed"]
    assert (refusals(crowded), failed) == ([], [])
    assert max(seen) <= 97
    assert all(is_finished(job) for job in jobs)


def test_a_roles_limit_counts_that_roles_connections_beside_those_of_others(crowded_world: World, crowded: Postgres) -> None:
    world = crowded_world
    name = world.database_url.rsplit("@/", 1)[1].partition("?")[0]
    with psycopg.connect(world.database_url, autocommit=True) as admin:
        admin.execute("CREATE ROLE siorg LOGIN CONNECTION LIMIT 20")
        admin.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO siorg")
        admin.execute("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO siorg")
    world.secret(crowded.url(name).replace("postgres@", "siorg@", 1))
    world.enqueue(100)
    with ExitStack() as connections:
        for _ in range(25):
            connections.enter_context(psycopg.connect(crowded.url()))
        world.operator()
        world.create(world.resource(scaling={"maxJobs": 20, "itemsPerJob": 1}, job={"image": HELD_IMAGE}))
        # 20 − 1 or 2 of the operator − 5 left free, by three.
        eventually(lambda: len(world.unfinished_jobs()) == 4)
        eventually(lambda: "connection budget of the role siorg 4 → 4" in world.decision()["message"])
        world.wait_for_condition("Ready", "True")
        with psycopg.connect(crowded.url(), autocommit=True) as admin:
            held = [
                row[0]
                for row in admin.execute("SELECT application_name FROM pg_stat_activity WHERE application_name ~ '^siorg-job'")
            ]
            assert held == []  # they wait to begin, and are counted
            world.release()
            tags = {"-".join(job["metadata"]["name"].rsplit("-", 3)[1:]) for job in world.unfinished_jobs()}
            theirs = (
                "SELECT split_part(split_part(application_name, '/', 2), ' ', 1) FROM pg_stat_activity WHERE usename = 'siorg'"
            )
            assert tags & set(eventually(lambda: [tag for (tag,) in admin.execute(theirs) if tag]))
        world.wait_until_drained()
    assert world.outcomes() == {"COMPLETED/1": 100}
    assert not refusals(crowded)
