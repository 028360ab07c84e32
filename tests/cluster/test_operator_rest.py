"""At rest nothing is written and next to nothing is asked; new work is seen at once, and without NOTIFY by polling."""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from siorg_operator.database.connection import APPLICATION_NAME
from support.database_proxy import DatabaseProxy
from support.fleet import eventually
from support.postgres import Postgres
from support.siorg_world import HELD_IMAGE, RESOURCE, World

ROUNDS = 6
NEVER_POLLED = 3600  # seconds: what is seen within a test was seen at once


class _Timed(DatabaseProxy):
    def __init__(self, server: Path, folder: Path) -> None:
        super().__init__(server, folder)
        self.said: list[tuple[float, bytes]] = []

    def _heard(self, data: bytes) -> None:
        self.said.append((time.monotonic(), data))


class CountedDatabase:
    """Leads to the same database as ``url``, which is behind a socket in ``socket``, and keeps when it was asked what."""

    def __init__(self, url: str, socket: Path, folder: Path) -> None:
        self._proxy = _Timed(socket, folder)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.url = self._proxy.url(url)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._proxy.__aenter__(), self._loop).result(10)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._proxy.__aexit__(kind, error, traceback), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def readings(self) -> list[float]:
        """When the queue was read, by ``time.monotonic``."""
        return [when for when, said in list(self._proxy.said) if b"BEGIN READ ONLY" in said]

    @property
    def messages(self) -> list[float]:
        """When anything was asked."""
        return [when for when, _ in list(self._proxy.said)]


@pytest.fixture
def counted(postgres: Postgres, database_url: str) -> Iterator[CountedDatabase]:
    with (
        tempfile.TemporaryDirectory(prefix="siorg-") as folder,  # a socket's path must not be long
        CountedDatabase(database_url, postgres.socket_folder, Path(folder)) as database,
    ):
        yield database


def writes(world: World, since: float) -> list[str]:
    """What the operator wrote; its Lease does not count."""
    if world.cluster.server is None:
        return []
    return [
        f"{one.verb} {one.resource}"
        for one in world.cluster.server.requests
        if one.writes and one.time >= since and one.namespace == world.namespace and one.resource != "leases"
        and one.user_agent.startswith(("siorg-operator", "kopf"))
    ]  # fmt: skip


def rounds_of_rest(world: World, counted: CountedDatabase) -> list[float]:
    """When the queue was read in some intervals of rest; nothing else was asked or written meanwhile."""
    before = len(counted.readings)
    eventually(lambda: len(counted.readings) >= before + 3)
    version, since, first = world.get()["metadata"]["resourceVersion"], time.monotonic(), len(counted.readings)
    eventually(lambda: len(counted.readings) > first + ROUNDS)
    readings = counted.readings[first:]
    assert writes(world, since) == []
    assert world.get()["metadata"]["resourceVersion"] == version
    assert [when for when in counted.messages if readings[0] <= when <= readings[-1]] == readings
    return readings


def assert_jittered(readings: list[float], interval: float) -> None:
    pauses = [later - earlier for earlier, later in pairwise(readings)]
    assert min(pauses) >= interval  # so there is at most one query an interval
    assert max(pauses) - min(pauses) > interval * 0.01


def test_at_rest_the_queue_is_read_once_an_interval_and_nothing_is_written(world: World, counted: CountedDatabase) -> None:
    world.secret(counted.url)
    world.create(world.resource(scaling={"pollIntervalSeconds": 1}))
    with world.operator(start=False, constants={}, LEADER_ELECTION="true"):
        world.wait_for_condition("Ready", "True")
        assert_jittered(rounds_of_rest(world, counted), 1)


def test_a_suspended_resource_with_old_work_is_at_rest(world: World, counted: CountedDatabase) -> None:
    world.secret(counted.url)
    world.enqueue(20)
    world.connection.execute("UPDATE siorg_sync_queue SET scheduled_for = now() - interval '1 hour'")
    world.create(world.resource(suspend=True, scaling={"pollIntervalSeconds": 1}))
    with world.operator(start=False, constants={}):
        eventually(lambda: world.decision()["reason"] == "Suspended")
        assert_jittered(rounds_of_rest(world, counted), 1)
        assert world.status()["queue"]["claimable"] == 20
        assert world.jobs() == []


def test_while_jobs_hold_the_work_the_status_is_not_written_each_time(world: World, counted: CountedDatabase) -> None:
    world.secret(counted.url)
    world.enqueue(20)
    world.connection.execute("UPDATE siorg_sync_queue SET scheduled_for = now() - interval '1 hour'")
    world.create(world.resource(scaling={"pollIntervalSeconds": 1}, job={"image": HELD_IMAGE}))
    with world.operator(start=False, constants={}):
        eventually(lambda: world.status().get("jobs", {}).get("active") == 1)
        rounds_of_rest(world, counted)


def test_a_suspended_resource_is_polled_no_more_often_for_the_work_that_it_has(world: World, counted: CountedDatabase) -> None:
    world.secret(counted.url)
    world.enqueue(20)
    world.create(world.resource(suspend=True, scaling={"pollIntervalSeconds": 3}))
    with world.operator(start=False, constants={}):
        eventually(lambda: world.decision()["reason"] == "Suspended")
        first = len(counted.readings)
        eventually(lambda: len(counted.readings) >= first + 2)
        assert counted.readings[first + 1] - counted.readings[first] >= 3


def test_new_work_is_seen_at_once_however_seldom_the_queue_is_polled(world: World) -> None:
    world.secret()
    world.create(world.resource(scaling={"pollIntervalSeconds": NEVER_POLLED}))
    with world.operator(start=False, constants={}):
        eventually(lambda: listeners(world))
        for _ in range(2):
            world.enqueue(1)
            eventually(lambda: world.unfinished_jobs() or world.depth() == 0)
            world.wait_until_drained()


def test_work_that_nobody_is_notified_of_is_found_by_polling(world: World) -> None:
    world.connection.execute("ALTER TABLE siorg_sync_queue DISABLE TRIGGER USER")
    world.secret()
    world.create(world.resource(scaling={"pollIntervalSeconds": 1}))
    with world.operator(start=False, constants={}):
        world.wait_for_condition("Ready", "True")
        world.enqueue(1)
        world.wait_until_drained()
        assert world.jobs()


def test_listening_that_breaks_off_comes_back(world: World) -> None:
    world.secret()
    world.create(world.resource(scaling={"pollIntervalSeconds": NEVER_POLLED}))
    with world.operator(start=False, constants={}):
        lost = eventually(lambda: listeners(world))
        world.connection.execute("SELECT pg_terminate_backend(%s)", lost)
        # What comes while nobody listens is seen when somebody does again.
        world.enqueue(1)
        eventually(lambda: listeners(world) not in ([], lost))
        world.wait_until_drained()
        world.enqueue(1)
        eventually(lambda: world.unfinished_jobs() or world.depth() == 0)
        world.wait_until_drained()


def test_an_edit_is_seen_at_once_however_seldom_the_queue_is_polled(world: World) -> None:
    world.secret()
    world.create(world.resource(scaling={"pollIntervalSeconds": NEVER_POLLED}))
    with world.operator(start=False, constants={}):
        world.wait_for_condition("Ready", "True")
        generation = world.kube.patch(RESOURCE, "sync", {"spec": {"suspend": True}})["metadata"]["generation"]
        eventually(lambda: world.status()["observedGeneration"] == generation)


def test_a_status_that_somebody_else_wrote_is_put_right(world: World) -> None:
    world.secret()
    world.create(world.resource(scaling={"pollIntervalSeconds": NEVER_POLLED}))
    with world.operator(start=False, constants={}):
        world.wait_for_condition("Ready", "True")
        eventually(lambda: listeners(world))
        meant = world.status()
        backoff = {"reason": "JobFailed", "streak": 9, "lastFailureTime": "2026-01-02T03:04:05Z"}
        world.kube.patch_status(RESOURCE, "sync", {"conditions": [], "queue": {"claimable": 7}, "backoff": backoff})
        eventually(lambda: world.status() == meant)


def test_rows_that_trickle_in_are_not_told_one_by_one(world: World, counted: CountedDatabase) -> None:
    world.secret(counted.url)
    world.create(world.resource(suspend=True, scaling={"itemsPerJob": 100, "pollIntervalSeconds": NEVER_POLLED}))
    with world.operator(start=False, constants={}):
        eventually(lambda: listeners(world))
        since, first = time.monotonic(), len(counted.readings)
        for _ in range(60):
            world.enqueue(1)
            time.sleep(0.05)  # the trickle itself
        took = time.monotonic() - since
        assert len(counted.readings) - first <= took + 2
        eventually(lambda: world.status()["queue"]["claimable"] == 60)
        assert len(writes(world, since)) <= took / 5 + 3


def listeners(world: World) -> list[int]:
    """Process numbers of the connections that listen for the operator."""
    rows = world.connection.execute(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s AND query LIKE 'LISTEN%%'",
        [APPLICATION_NAME],
    )
    return [row["pid"] for row in rows]
