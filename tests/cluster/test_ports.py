"""What every implementation of the operator's ports does: a cluster, this machine, and the fake that unit tests use.

On a cluster Jobs are Jobs of the API server, on this machine they are processes; the queue is a database in both.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import pytest
from kubernetes import config
from prometheus_client import CollectorRegistry

from siorg_operator.api.resource import SiorgSyncWorker, parse
from siorg_operator.cluster.client import Kubernetes
from siorg_operator.cluster.fingerprint import Fingerprints
from siorg_operator.cluster.secrets import SecretQueueReader, Secrets
from siorg_operator.control.cache import Cache
from siorg_operator.database.databases import Databases
from siorg_operator.decide.manifests import job_name
from siorg_operator.decide.planned import Launch, Removal
from siorg_operator.decide.ports import ClusterError, Launcher, QueueReader, Reporter
from siorg_operator.decide.state import Ending, Job, JobState, Stuck, Unreadable
from siorg_operator.decide.status import Event
from siorg_operator.local.command import prepare
from siorg_operator.local.machine import LocalMachine
from siorg_operator.serving.metrics import OperatorMetrics
from support import admission
from support.event_loop import until
from support.fake_cluster import FakeCluster
from support.job import job_environment
from support.kube import condition
from support.operator_values import NOW, job
from support.queue import insert
from support.siorg_world import HELD_IMAGE, RESOURCE, World

NOWHERE = "postgresql://nobody:correct-horse@127.0.0.1:1/nothing"
STUCK = Stuck("ImagePullBackOff", "no such image", NOW)
EVENT = Event("Warning", "JobsFailing", "Jobs fail")


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One implementation, and what can be seen of it from outside."""

    resource: SiorgSyncWorker
    launcher: Launcher
    reporter: Reporter
    jobs: Callable[[], Sequence[Job]]
    status: Callable[[], dict[str, Any]]
    events: Callable[[], list[Event]]
    reader: Callable[[str], QueueReader] | None = None
    """Of the database behind a URL; None: a fake needs none."""
    close: Callable[[], Awaitable[object]] | None = None


def on_kubernetes(world: World) -> Side:
    world.secret()
    resource, databases = parse(world.create()), Databases()
    api = config.new_client_from_config(str(world.cluster.kubeconfig))  # type: ignore[no-untyped-call]
    kubernetes = Kubernetes(api, OperatorMetrics(CollectorRegistry()))

    def jobs() -> Sequence[Job]:
        cache = Cache()
        for kind in ("jobs", "pods"):
            for body in world.kube.list(kind):
                cache.update(kind, body, deleted=False)
        return cache.observe(resource, NOW).jobs

    def reader(url: str) -> QueueReader:
        world.secret(url)
        fingerprints = Fingerprints(world.namespace, kubernetes.read_secret, kubernetes.patch_secret)
        return SecretQueueReader(Secrets(kubernetes.read_secret, refresh_seconds=0), fingerprints, databases.read)

    async def close() -> None:
        await databases.close()
        kubernetes.close()

    return Side(
        resource=resource, launcher=kubernetes, reporter=kubernetes, jobs=jobs, status=world.status, reader=reader, close=close,
        events=lambda: [Event(one["type"], one["reason"], one["message"]) for one in world.kube.list("events")],
    )  # fmt: skip


def on_this_machine(world: World) -> Side:
    environment = job_environment(world.database_url, world.siorg.url)
    resource, environ = prepare(parse(world.resource()), environment)
    databases = Databases(correct="DATABASE_URL")
    machine = LocalMachine(resource, databases, world.folder, environ)

    async def close() -> None:
        await machine.stop()
        await databases.close()

    return Side(
        resource=resource, launcher=machine, reporter=machine, jobs=machine.jobs, status=lambda: machine.status,
        events=lambda: [event for _, event in machine.events], close=close,
        reader=lambda url: LocalMachine(resource, databases, world.folder, {"DATABASE_URL": url}),
    )  # fmt: skip


def in_memory(_: World) -> Side:
    fake = FakeCluster()
    return Side(
        resource=fake.resource, launcher=fake, reporter=fake, jobs=lambda: fake.observe(fake.resource, NOW).jobs,
        status=lambda: fake.status, events=lambda: fake.events,
    )  # fmt: skip


REAL = [on_kubernetes, on_this_machine]
ALL = [*REAL, in_memory]


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
                    if side.close is not None:
                        await side.close()

            asyncio.run(main())

        run.__dict__.pop("__wrapped__")  # pytest would look for the arguments of that one
        return run

    return decorate


async def launch(side: Side, slot: int = 0, round_: int = 1) -> Job:
    return await side.launcher.launch(side.resource, Launch(slot, round_), secrets_hash="c0ffee", decision="launched 1")


# -- Launcher ---------------------------------------------------------------------------------------------------------


@on(ALL)
async def test_a_launched_job_is_capacity_at_its_place_and_one_that_is_launched_again_is_there_once(
    side: Side, world: World
) -> None:
    answered = [await launch(side, 2, 5), await launch(side, 2, 5)]
    (job,) = side.jobs()
    assert (job.name, job.slot, job.round) == (job_name(side.resource, 2, 5), 2, 5)
    assert job.template
    assert {(one.name, one.uid, one.template) for one in answered} == {(job.name, job.uid, job.template)}
    first, second = await asyncio.gather(launch(side, 1), launch(side, 1))
    assert first.uid == second.uid != job.uid
    assert sorted(job.slot for job in side.jobs()) == [1, 2]
    assert {job.uid for job in await side.launcher.find(side.resource)} == {job.uid, first.uid}


@on(REAL)
async def test_a_job_tells_how_it_ended_and_is_kept_until_it_is_removed(side: Side, world: World) -> None:
    await launch(side)
    await until(lambda: all(job.finished_at for job in side.jobs()), seconds=60)
    (job,) = side.jobs()
    assert job.ending is Ending.DONE
    assert job.summary is not None
    assert job.summary.claimed == 0
    again = await launch(side)
    assert (again.uid, again.unfinished) == (job.uid, False)  # not launched once more
    await side.launcher.remove(side.resource, job)
    await until(lambda: not side.jobs(), seconds=60)


@on(ALL)
async def test_a_job_that_is_gone_is_ended_and_removed_without_an_error(side: Side, world: World) -> None:
    name = job_name(side.resource, 0, 1)
    await side.launcher.end(side.resource, Removal(name, STUCK, "gone"))
    await side.launcher.terminate(side.resource, job(uid="gone"), why="spec.suspend is true")
    await side.launcher.remove(side.resource, job(uid="gone"))
    assert side.jobs() == []


@on([on_kubernetes])
async def test_what_is_meant_for_an_older_job_leaves_the_one_alone_that_has_its_name(side: Side, world: World) -> None:
    made = replace(await launch(side), uid="older")
    before = world.jobs()
    await side.launcher.end(side.resource, Removal(made.name, STUCK, made.uid))
    await side.launcher.terminate(side.resource, made, why="spec.suspend is true")
    await side.launcher.remove(side.resource, made)
    assert [one["metadata"]["uid"] for one in world.jobs()] == [before[0]["metadata"]["uid"]]
    assert world.jobs()[0]["spec"]["activeDeadlineSeconds"] == before[0]["spec"]["activeDeadlineSeconds"]


@on([on_kubernetes])
async def test_a_job_that_has_come_to_run_unseen_is_not_ended_as_stuck(side: Side, world: World) -> None:
    made = await side.launcher.launch(
        side.resource.with_image(HELD_IMAGE), Launch(0, 1), secrets_hash="c0ffee", decision="launched 1"
    )
    await until(lambda: [job.state for job in side.jobs()] == [JobState.ACTIVE], seconds=60)
    with pytest.raises(ClusterError, match="has come to run"):
        await side.launcher.end(side.resource, Removal(made.name, STUCK, made.uid))
    world.release()
    await until(lambda: [job.ending for job in side.jobs()] == [Ending.DONE], seconds=60)


@on(REAL)
async def test_a_job_that_is_told_to_stop_gives_back_what_it_holds_and_stays_as_one_that_did(side: Side, world: World) -> None:
    world.siorg.control("PUT", "latency", {"latency": "20000"})
    world.enqueue(5)
    made = await launch(side)
    await until(lambda: world.outcomes() == {"PROCESSING/1": 5}, seconds=60)
    await side.launcher.terminate(side.resource, replace(made, uid="older"), why="spec.suspend is true")
    for _ in range(2):
        await side.launcher.terminate(side.resource, made, why="spec.suspend is true")
    assert [(job.uid, job.stopped) for job in side.jobs()] == [(made.uid, True)]
    await until(lambda: [job.ending for job in side.jobs()] == [Ending.DONE], seconds=60)
    (job,) = side.jobs()
    assert (job.state, job.stopped, world.outcomes()) == (JobState.SUCCEEDED, True, {"PENDING": 5})


@on([on_kubernetes])
async def test_a_suspended_job_that_has_changed_since_it_was_seen_is_not_removed(side: Side, world: World) -> None:
    with admission.suspended(world.cluster):
        await launch(side)
        await until(lambda: condition(world.jobs()[0], "Suspended") == "True", seconds=60)
    (job,) = side.jobs()
    assert job.state is JobState.SUSPENDED
    await side.launcher.remove(side.resource, replace(job, version="1"))
    assert [one.uid for one in side.jobs()] == [job.uid]
    await side.launcher.remove(side.resource, job)
    await until(lambda: not side.jobs(), seconds=60)


# -- Reporter ---------------------------------------------------------------------------------------------------------


@on(ALL)
async def test_a_status_is_merged_and_answered_with_its_object_and_an_event_is_recorded(side: Side, world: World) -> None:
    await side.reporter.write_status(side.resource, {"jobs": {"active": 1, "failed": 2}, "rate": 0.5})
    answer = await side.reporter.write_status(side.resource, {"jobs": {"active": None, "pending": 3}, "rate": None})
    assert answer is not None
    assert answer["metadata"]["name"] == side.resource.metadata.name
    assert answer["status"] == side.status()
    jobs = {key: value for key, value in side.status()["jobs"].items() if key != "lastRound"}
    assert (jobs, "rate" in side.status()) == ({"failed": 2, "pending": 3}, False)
    await side.reporter.record(side.resource, EVENT)
    assert EVENT in side.events()


@on([on_kubernetes])
async def test_nothing_can_be_told_of_a_resource_that_is_gone_and_that_is_no_error(side: Side, world: World) -> None:
    world.kube.delete(RESOURCE, side.resource.metadata.name)
    world.kube.wait_gone(RESOURCE, side.resource.metadata.name)
    assert await side.reporter.write_status(side.resource, {"rate": 0.5}) is None


# -- QueueReader ------------------------------------------------------------------------------------------------------


def reader_of(side: Side, url: str) -> QueueReader:
    assert side.reader is not None
    return side.reader(url)


@on(REAL)
async def test_the_queue_is_read(side: Side, world: World) -> None:
    for code in (1, 2, 3):
        insert(world.connection, siorg_code=code)
    reader = reader_of(side, world.database_url)
    queue = await reader.read(side.resource)
    assert (queue.depth, reader.url, queue.siorg_token_error) == (3, world.database_url, None)
    assert not await reader.changed()


@on(REAL)
async def test_a_database_that_is_away_is_no_error_and_no_empty_queue(side: Side, world: World) -> None:
    reader = reader_of(side, NOWHERE)
    queue = await reader.read(side.resource)
    assert isinstance(queue.reading, Unreadable)
    assert (queue.depth, queue.reading.reason) == (None, "DatabaseUnavailable")
    password = urlsplit(NOWHERE).password
    assert password is not None
    assert password not in queue.reading.message
