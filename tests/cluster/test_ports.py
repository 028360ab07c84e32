"""What every implementation of the operator's ports does: a cluster, this machine, and the fake that unit tests use.

On a cluster Jobs are Jobs of the API server, on this machine they are processes; the queue is a database in both.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable
from typing import Any, Protocol
from urllib.parse import urlsplit

import pytest
from kubernetes import config
from prometheus_client import CollectorRegistry

from siorg_operator.api.resource import SiorgSyncWorker, parse
from siorg_operator.cluster.client import Kubernetes
from siorg_operator.cluster.secrets import SecretQueueReader, Secrets
from siorg_operator.control.cache import Cache
from siorg_operator.control.reconcile import Observed
from siorg_operator.database.databases import Databases
from siorg_operator.decide.manifests import job_name
from siorg_operator.decide.plan import Launch, Removal
from siorg_operator.decide.ports import Launcher, QueueReader, Reporter
from siorg_operator.decide.state import Ending, Job, Stuck, Unreadable
from siorg_operator.decide.status import Event
from siorg_operator.local.command import prepare
from siorg_operator.local.machine import LocalMachine, LocalQueueReader
from siorg_operator.serving.metrics import OperatorMetrics
from support.fake_cluster import FakeCluster
from support.job import job_environment
from support.operator_values import NOW
from support.queue import insert
from support.siorg_world import RESOURCE, World

NOWHERE = "postgresql://nobody:correct-horse@127.0.0.1:1/nothing"
EVENT = Event("Warning", "JobsFailing", "Jobs fail")


class Side(Protocol):
    """One implementation, and what can be seen of it from outside."""

    resource: SiorgSyncWorker
    launcher: Launcher
    reporter: Reporter

    def reader(self, url: str) -> QueueReader:
        """Of the database behind a URL."""
        ...

    def jobs(self) -> list[Job]:
        """That it shows of the resource."""
        ...

    def status(self) -> dict[str, Any]: ...

    def events(self) -> list[Event]: ...

    async def close(self) -> None: ...


class OnKubernetes:
    def __init__(self, world: World) -> None:
        self._world = world
        world.secret()
        self.resource = parse(world.create())
        api = config.new_client_from_config(str(world.cluster.kubeconfig))  # type: ignore[no-untyped-call]
        self._kubernetes = Kubernetes(api, OperatorMetrics(CollectorRegistry()))
        self.launcher, self.reporter = self._kubernetes, self._kubernetes
        self._databases = Databases()

    def reader(self, url: str) -> QueueReader:
        self._world.secret(url)
        secrets = Secrets(self._kubernetes.read_secret, refresh_seconds=0)
        return SecretQueueReader(secrets, self._databases.read, remember_secret=lambda _: None)

    def jobs(self) -> list[Job]:
        cache = Cache()
        for kind in ("jobs", "pods"):
            for body in self._world.kube.list(kind):
                cache.update(kind, body, deleted=False)
        return list(cache.observe(self.resource, NOW).jobs)

    def status(self) -> dict[str, Any]:
        return self._world.status()

    def events(self) -> list[Event]:
        return [Event(one["type"], one["reason"], one["message"]) for one in self._world.kube.list("events")]

    async def close(self) -> None:
        await self._databases.close()
        self._kubernetes.close()


class OnThisMachine:
    def __init__(self, world: World) -> None:
        environment = {**os.environ, **job_environment(world.database_url, world.siorg.url)}
        self.resource, environ = prepare(parse(world.resource()), environment)
        self._databases = Databases()
        self._machine = LocalMachine(self.resource, LocalQueueReader(self._databases, world.database_url), world.folder, environ)
        self.launcher, self.reporter = self._machine, self._machine

    def reader(self, url: str) -> QueueReader:
        return LocalQueueReader(self._databases, url)

    def jobs(self) -> list[Job]:
        return self._machine.jobs()

    def status(self) -> dict[str, Any]:
        return self._machine.status

    def events(self) -> list[Event]:
        return [event for _, event in self._machine.events]

    async def close(self) -> None:
        await self._machine.stop()
        await self._databases.close()


class InMemory:
    def __init__(self, world: World) -> None:
        del world
        self._cluster = FakeCluster()
        self.resource = self._cluster.resource
        self.launcher, self.reporter = self._cluster, self._cluster

    def reader(self, url: str) -> QueueReader:
        raise NotImplementedError

    def jobs(self) -> list[Job]:
        observed: Observed = self._cluster.observe(self.resource, NOW)
        return list(observed.jobs)

    def status(self) -> dict[str, Any]:
        return self._cluster.status

    def events(self) -> list[Event]:
        return self._cluster.events

    async def close(self) -> None: ...


REAL = [OnKubernetes, OnThisMachine]
ALL = [*REAL, InMemory]


def on(sides: list[Any]) -> Callable[[Callable[..., Awaitable[None]]], Any]:
    """Run a test on each of the sides."""

    def decorate(test: Callable[..., Awaitable[None]]) -> Any:
        @pytest.mark.parametrize("make", sides)
        @functools.wraps(test)
        def run(make: Callable[[World], Side], world: World) -> None:
            async def main() -> None:
                side = make(world)
                try:
                    await test(side, world)
                finally:
                    await side.close()

            asyncio.run(main())

        run.__dict__.pop("__wrapped__")  # pytest would look for the arguments of that one
        return run

    return decorate


async def launch(side: Side, slot: int = 0, round_: int = 1) -> bool:
    return await side.launcher.launch(side.resource, Launch(slot, round_), credentials="c0ffee", decision="launched 1")


async def until(reached: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not reached():  # noqa: ASYNC110 - a process ends, which tells nobody here
            await asyncio.sleep(0.1)


# -- Launcher ---------------------------------------------------------------------------------------------------------


@on(ALL)
async def test_a_launched_job_is_capacity_at_its_place(side: Side, world: World) -> None:
    assert await launch(side, 2, 5)
    (job,) = side.jobs()
    assert (job.name, job.slot, job.round) == (job_name(side.resource, 2, 5), 2, 5)
    assert job.template


@on(ALL)
async def test_what_is_launched_again_is_there_once(side: Side, world: World) -> None:
    assert [await launch(side), await launch(side)] == [True, False]
    assert len(side.jobs()) == 1
    assert sorted(await asyncio.gather(launch(side, 1), launch(side, 1))) == [False, True]
    assert sorted(job.slot for job in side.jobs()) == [0, 1]


@on(REAL)
async def test_a_job_tells_how_it_ended_and_is_kept_until_it_is_removed(side: Side, world: World) -> None:
    await launch(side)
    await until(lambda: all(job.finished_at for job in side.jobs()))
    (job,) = side.jobs()
    assert job.ending is Ending.DONE
    assert job.summary is not None
    assert job.summary.claimed == 0
    await side.launcher.remove(side.resource, job.name)
    await until(lambda: not side.jobs())


@on(ALL)
async def test_a_job_that_is_gone_is_ended_and_removed_without_an_error(side: Side, world: World) -> None:
    name = job_name(side.resource, 0, 1)
    await side.launcher.end(side.resource, Removal(name, Stuck("ImagePullBackOff", "no such image", NOW)))
    await side.launcher.remove(side.resource, name)
    assert side.jobs() == []


# -- Reporter ---------------------------------------------------------------------------------------------------------


@on(ALL)
async def test_a_status_is_merged_and_the_object_is_answered(side: Side, world: World) -> None:
    await side.reporter.write_status(side.resource, {"jobs": {"active": 1, "failed": 2}, "rate": 0.5})
    answer = await side.reporter.write_status(side.resource, {"jobs": {"active": None, "pending": 3}, "rate": None})
    assert answer is not None
    assert answer["metadata"]["name"] == side.resource.metadata.name
    assert answer["status"] == side.status()
    jobs = {key: value for key, value in side.status()["jobs"].items() if key != "lastRound"}
    assert (jobs, "rate" in side.status()) == ({"failed": 2, "pending": 3}, False)


@on(ALL)
async def test_an_event_is_recorded(side: Side, world: World) -> None:
    await side.reporter.record(side.resource, EVENT)
    assert EVENT in side.events()


@on([OnKubernetes])
async def test_nothing_can_be_told_of_a_resource_that_is_gone_and_that_is_no_error(side: Side, world: World) -> None:
    world.kube.delete(RESOURCE, side.resource.metadata.name)
    world.kube.wait_gone(RESOURCE, side.resource.metadata.name)
    assert await side.reporter.write_status(side.resource, {"rate": 0.5}) is None


# -- QueueReader ------------------------------------------------------------------------------------------------------


@on(REAL)
async def test_the_queue_is_read(side: Side, world: World) -> None:
    for code in (1, 2, 3):
        insert(world.connection, siorg_code=code)
    reader = side.reader(world.database_url)
    backlog = await reader.read(side.resource)
    assert (backlog.depth, reader.url, backlog.siorg_token_problem) == (3, world.database_url, None)
    assert not await reader.changed()


@on(REAL)
async def test_a_database_that_is_away_is_no_error_and_no_empty_queue(side: Side, world: World) -> None:
    reader = side.reader(NOWHERE)
    backlog = await reader.read(side.resource)
    assert isinstance(backlog.reading, Unreadable)
    assert (backlog.depth, backlog.reading.reason) == (None, "DatabaseUnavailable")
    password = urlsplit(NOWHERE).password
    assert password is not None
    assert password not in backlog.reading.message
