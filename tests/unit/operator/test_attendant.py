"""The loop over one resource: what wakes it, how far apart its passes are, what it does about a status that is not its own."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from siorg_operator.api.resource import SiorgSyncWorker
from siorg_operator.control.loop import Attendant
from siorg_operator.control.reconcile import Reconciler, Seen
from siorg_operator.decide.plan import Launch, Removal
from siorg_operator.decide.ports import ClusterError
from siorg_operator.decide.state import Backlog
from siorg_operator.decide.status import Event
from siorg_operator.serving.health import Health
from siorg_operator.serving.metrics import OperatorMetrics
from support.operator_values import NOW, backlog, body

NO_CRON_JOBS: dict[str, Any] = {"cleanup": {"enabled": False}, "discovery": {"enabled": False}}


class World:
    """A resource on an API server that counts its versions, and everything an attendant needs beside."""

    def __init__(self, **spec: Any) -> None:
        self.there = body(**(NO_CRON_JOBS | spec))
        self.there["metadata"]["resourceVersion"] = "9"
        self.shown = copy.deepcopy(self.there)
        self.queue = backlog(0)
        self.read_at: list[float] = []
        self.listened = 0
        self.patches: list[dict[str, Any]] = []
        self.events: list[Event] = []
        self.launches = 0
        self.refuses: ClusterError | None = None
        self.loses_answer = False
        self.registry = CollectorRegistry()
        metrics = OperatorMetrics(self.registry)
        reconciler = Reconciler(reader=self, launcher=self, cluster=self, metrics=metrics, clock=lambda: NOW)
        self.attendant = Attendant(
            self, reconciler, self, metrics=metrics, health=Health(), clock=lambda: NOW, default_image=None
        )

    def edit(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Somebody writes the object."""
        before = copy.deepcopy(self.there)
        change(self.there)
        if self.there != before:
            self.there["metadata"]["resourceVersion"] = str(int(self.there["metadata"]["resourceVersion"]) + 1)

    def show(self) -> None:
        """The watch tells how the object is."""
        self.shown = copy.deepcopy(self.there)
        self.attendant.changed()

    # -- attendant.World and the ports --------------------------------------------------------------------------------

    def body(self) -> Mapping[str, Any]:
        return self.shown

    def seen(self, resource: SiorgSyncWorker, now: datetime) -> Seen:
        return Seen(resource, {}, (), ())

    def listen(self, resource: SiorgSyncWorker, wake: Callable[[], None]) -> None:
        self.listened += 1

    async def read(self, resource: SiorgSyncWorker) -> Backlog:
        self.read_at.append(asyncio.get_running_loop().time())
        return self.queue

    async def launch(self, resource: SiorgSyncWorker, launch: Launch, *, credentials: str, decision: str) -> bool:
        if self.refuses is not None:
            raise self.refuses
        self.launches += 1
        return True

    async def end(self, resource: SiorgSyncWorker, removal: Removal) -> None:
        raise AssertionError

    async def remove(self, resource: SiorgSyncWorker, name: str) -> None:
        raise AssertionError

    async def write_status(self, resource: SiorgSyncWorker, patch: dict[str, Any]) -> dict[str, Any] | None:
        self.patches.append(patch)
        self.edit(lambda there: _merge(there["status"], patch))
        answer = copy.deepcopy(self.there)
        if self.loses_answer:
            raise ClusterError("no answer in time")
        return answer

    async def record(self, resource: SiorgSyncWorker, event: Event) -> None:
        self.events.append(event)

    async def apply_cron_job(self, resource: SiorgSyncWorker, manifest: dict[str, Any]) -> dict[str, Any]:
        raise AssertionError

    async def delete_cron_job(self, resource: SiorgSyncWorker, name: str) -> None:
        raise AssertionError

    # -----------------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def attended(self) -> AsyncIterator[None]:
        """The attendant is at work, and has made its first pass."""
        stop = asyncio.Event()
        task = asyncio.create_task(self.attendant.attend(stop.is_set))
        try:
            await until(lambda: self.read_at or self.events)
            await settled()
            yield
        finally:
            stop.set()
            self.attendant.hurry()
            await task


def _merge(target: dict[str, Any], patch: Mapping[str, Any]) -> None:
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, Mapping):
            _merge(target.setdefault(key, {}), value)
        else:
            target[key] = value


async def until(reached: Callable[[], object], *, seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not reached():  # noqa: ASYNC110 - a condition of a fake, which tells nobody
            await asyncio.sleep(0.005)


async def settled() -> None:
    """Long enough for a pass that is due to come."""
    await asyncio.sleep(0.3)


def told(world: World) -> str:
    return str(world.there["status"]["conditions"][0]["reason"])


def break_status(there: dict[str, Any]) -> None:
    there["status"]["conditions"] = [{**there["status"]["conditions"][0], "reason": "Nonsense"}]
    there["status"]["backoff"] = {"reason": "JobFailed", "streak": 99}


# -- a status that is not ours ----------------------------------------------------------------------------------------


def test_its_own_echo_is_no_news() -> None:
    async def run() -> None:
        world = World()
        async with world.attended():
            world.show()
            await settled()
            assert (len(world.read_at), len(world.patches)) == (1, 1)

    asyncio.run(run())


def test_an_echo_that_comes_late_is_no_news() -> None:
    async def run() -> None:
        world = World()
        async with world.attended():
            late = copy.deepcopy(world.there)
            world.queue = backlog(50)
            world.attendant.wake()
            await until(lambda: len(world.patches) == 2)
            await settled()
            world.shown = late
            passes = len(world.read_at)
            world.attendant.changed()
            await settled()
            assert (len(world.read_at), len(world.patches)) == (passes, 2)

    asyncio.run(run())


def test_a_status_that_somebody_else_wrote_is_put_right() -> None:
    async def run() -> None:
        world = World()
        async with world.attended():
            world.show()
            meant = copy.deepcopy(world.there["status"])
            world.edit(break_status)
            world.show()
            await until(lambda: world.there["status"] == meant)
            world.show()
            await settled()
            assert len(world.patches) == 2
            assert world.events == []  # nothing that it said was believed

    asyncio.run(run())


def test_one_that_was_written_just_before_ours_is_put_right_too() -> None:
    async def run() -> None:
        world = World()
        async with world.attended():
            world.show()
            world.edit(lambda there: there["status"].update(selector="x"))  # not told by the watch yet
            world.queue = backlog(50)
            world.attendant.wake()
            await until(lambda: world.there["status"]["selector"] != "x")
            world.show()
            writes = len(world.patches)
            await settled()
            assert len(world.patches) == writes

    asyncio.run(run())


def test_a_write_whose_answer_was_lost_is_found_out_from_the_watch() -> None:
    async def run() -> None:
        world = World()
        world.loses_answer = True
        async with world.attended():
            world.loses_answer = False
            world.show()
            world.attendant.hurry()
            await until(lambda: len(world.read_at) >= 2)
            await settled()
            assert len(world.patches) == 1
            assert told(world) == "AsExpected"

    asyncio.run(run())


# -- passes -----------------------------------------------------------------------------------------------------------


def test_rows_that_trickle_in_cost_a_pass_a_second() -> None:
    async def run() -> None:
        world = World(suspend=True)
        async with world.attended():
            before = len(world.read_at)
            for depth in range(1, 31):
                world.queue = backlog(depth)
                world.attendant.wake()
                await asyncio.sleep(0.05)
            assert len(world.read_at) - before <= 3

    asyncio.run(run())


def test_from_rest_new_work_is_taken_up_at_once() -> None:
    async def run() -> None:
        world = World()
        async with world.attended():
            for jobs in (1, 2):  # the fake shows none of them, as if each had ended at once
                began = asyncio.get_running_loop().time()
                world.queue = backlog(50 * jobs)
                world.attendant.wake()
                await until(lambda jobs=jobs: world.launches >= jobs)  # type: ignore[misc]
                assert asyncio.get_running_loop().time() - began < 0.5
                world.queue = backlog(0)

    asyncio.run(run())


def test_a_pass_that_was_refused_listens_all_the_same() -> None:
    async def run() -> None:
        world = World()
        world.queue, world.refuses = backlog(50), ClusterError("exceeded quota", 403)
        async with world.attended():
            assert world.launches == 0
            assert world.listened == 1

    asyncio.run(run())


# -- a resource that cannot be understood -----------------------------------------------------------------------------


def test_what_cannot_be_understood_is_counted_and_its_event_names_the_field() -> None:
    async def run() -> None:
        world = World(job={"image": ""})
        async with world.attended():
            (event,) = world.events
            ready = world.there["status"]["conditions"][0]
            assert (ready["reason"], event.reason, event.message) == ("InvalidSpec", "InvalidSpec", ready["message"])
            assert "spec.job.image" in event.message
            labels = {"namespace": "sync", "worker": "siorg"}
            assert world.registry.get_sample_value("siorg_operator_held_back", {**labels, "reason": "InvalidSpec"}) == 1
            assert world.registry.get_sample_value("siorg_operator_queue_reachable", labels) is None
            assert world.read_at == []

    asyncio.run(run())


@pytest.mark.parametrize("version", ["8", "7", ""])
def test_an_object_without_a_newer_version_tells_nothing(version: str) -> None:
    async def run() -> None:
        world = World()
        async with world.attended():
            world.shown = copy.deepcopy(world.there)
            break_status(world.shown)
            world.shown["metadata"]["resourceVersion"] = version
            world.attendant.changed()
            await settled()
            assert len(world.patches) == 1

    asyncio.run(run())
