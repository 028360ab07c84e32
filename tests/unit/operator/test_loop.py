"""The loop over one resource: what wakes it, how far apart its passes are, when it begins and ends."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from siorg_operator.control import loop as loops
from siorg_operator.control.loop import Controller
from siorg_operator.decide.ports import ClusterError
from support.event_loop import in_a_loop, until
from support.fake_cluster import NO_CRON_JOBS, FakeCluster, FakeOperator
from support.operator_values import UID, queue_of


class Scene:
    """A resource on a cluster, and the control loops of an operator."""

    def __init__(self, spec: dict[str, Any] | None = None, **context: Any) -> None:
        self.cluster = FakeCluster(**NO_CRON_JOBS | (spec or {}))
        self.operator = FakeOperator(self.cluster)
        self.controller = Controller(replace(self.operator.context, **context))
        self.wake = self.controller.wake

    def show(self) -> None:
        """The watch tells how the object is."""
        self.controller.show(UID, copy.deepcopy(self.cluster.object))

    @property
    def passes(self) -> int:
        return len(self.cluster.read_at)

    @property
    def writes(self) -> int:
        return self.cluster.steps.count("status")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Its first pass is over."""
        self.show()
        self.controller.begin()
        try:
            await until(lambda: self.passes or self.cluster.events)
            await settled()
            yield
        finally:
            await self.controller.close()


async def settled() -> None:
    """Long enough for a pass that is due to come."""
    await asyncio.sleep(0.3)


# -- from when until when ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("begins", [False, True])
@in_a_loop
async def test_nothing_is_done_before_everything_was_seen_not_even_at_the_end(begins: bool) -> None:
    scene = Scene()
    scene.show()
    await settled()
    assert scene.passes == 0
    if begins:
        scene.controller.begin()
        await until(lambda: scene.passes)
    await scene.controller.close()
    assert scene.passes == begins


@in_a_loop
async def test_a_resource_that_goes_is_left_alone_and_nothing_of_it_stays() -> None:
    scene = Scene()
    async with scene.running():
        assert set(scene.controller.loops) == {UID}
        assert scene.operator.metric("siorg_operator_jobs_desired") == 0
        await scene.controller.stop(UID)
        await scene.controller.stop(UID)
        assert scene.controller.loops == {}
        assert scene.operator.metric("siorg_operator_jobs_desired") is None
        assert scene.cluster.watches == {}


@in_a_loop
async def test_a_loop_that_crashes_is_restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "_RESTART_SECONDS", 0.01)
    scene = Scene()
    crashes = [ZeroDivisionError()]
    monkeypatch.setattr(loops, "_pause", lambda done: (_ for _ in crashes).throw(crashes.pop()) if crashes else 60.0)
    async with scene.running():
        await until(lambda: scene.passes == 2)


# -- passes -----------------------------------------------------------------------------------------------------------


@in_a_loop
async def test_its_own_echo_is_no_news_and_a_status_that_somebody_else_wrote_is_put_right() -> None:
    scene = Scene()
    async with scene.running():
        scene.show()
        await settled()
        assert (scene.passes, scene.writes) == (1, 1)
        meant = copy.deepcopy(scene.cluster.status)
        scene.cluster.edit(lambda there: there["status"].update(conditions=[], selector="x"))
        scene.show()
        await until(lambda: scene.cluster.status == meant)
        scene.show()
        await settled()
        assert (scene.writes, scene.cluster.events) == (2, [])


@in_a_loop
async def test_rows_that_trickle_in_cost_a_pass_a_second() -> None:
    scene = Scene({"suspend": True})
    async with scene.running():
        before = scene.passes
        for depth in range(1, 31):
            scene.cluster.queue = queue_of(depth)
            scene.wake()
            await asyncio.sleep(0.05)
        assert scene.passes - before <= 3


@in_a_loop
async def test_from_rest_new_work_is_taken_up_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "_BUSY_SPACING_SECONDS", 60.0)
    scene = Scene()
    async with scene.running():
        for jobs in (1, 2):  # as if each had ended at once
            scene.cluster.queue = queue_of(50)
            scene.wake()
            await until(lambda jobs=jobs: scene.cluster.event_reasons().count("ScaledUp") >= jobs)  # type: ignore[misc]
            scene.cluster.queue = queue_of(0)
            scene.controller.loops[UID].job_deleted(scene.cluster.jobs.popitem()[1].uid)
            await settled()


@in_a_loop
async def test_new_work_wakes_it_also_after_a_pass_that_was_refused() -> None:
    scene = Scene()
    scene.cluster.queue = queue_of(50)
    scene.cluster.refuses = lambda step: ClusterError("exceeded quota", 403) if step.startswith("launch") else None
    async with scene.running():
        assert scene.cluster.unfinished == []
        assert list(scene.cluster.watches) == [scene.cluster.url]
        assert scene.operator.metric("siorg_operator_reconcile_errors_total", reason="403") == 1


@in_a_loop
async def test_for_as_long_as_the_api_server_asks_nothing_wakes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for pause in ("_FIRST_RETRY_SECONDS", "_REST_SECONDS"):
        monkeypatch.setattr(loops, pause, 0.01)
    scene = Scene()
    scene.cluster.queue = queue_of(50)
    scene.cluster.refuses = lambda step: ClusterError("busy", 429, retry_after=1.0) if step.startswith("launch") else None
    async with scene.running():
        while scene.passes < 2:
            scene.wake()
            await asyncio.sleep(0.02)
        first, second = scene.cluster.read_at[:2]
        assert second - first >= 1.0


@in_a_loop
async def test_a_bug_is_no_storm_of_passes() -> None:
    scene = Scene()
    scene.cluster.refuses = lambda step: ZeroDivisionError()
    async with scene.running():
        for _ in range(20):
            scene.wake()
            await asyncio.sleep(0.02)
        assert scene.passes == 1
        assert scene.operator.metric("siorg_operator_reconcile_errors_total", reason="ZeroDivisionError") == 1
        scene.cluster.refuses = lambda step: None
        scene.cluster.edit(lambda there: there["metadata"].update(generation=2))
        scene.show()  # but an edit is worth a try at once
        await until(lambda: scene.passes == 2, seconds=4)


@in_a_loop
async def test_a_changed_secret_wakes_it() -> None:
    scene = Scene(secrets_seconds=0.05)
    async with scene.running():
        assert scene.passes == 1
        scene.cluster.credentials_changed = True
        await until(lambda: scene.passes >= 2)


# -- a resource that cannot be understood -----------------------------------------------------------------------------


@in_a_loop
async def test_an_invalid_spec_is_counted_and_its_event_names_the_field() -> None:
    scene = Scene({"job": {"image": ""}})
    async with scene.running():
        (event,) = scene.cluster.events
        ready = scene.cluster.conditions["Ready"]
        assert (ready[1:], event.reason) == (("InvalidSpec", event.message), "InvalidSpec")
        assert "spec.job.image" in event.message
        assert scene.operator.metric("siorg_operator_held_back", reason="InvalidSpec") == 1
        assert scene.operator.metric("siorg_operator_queue_reachable") is None
        assert scene.passes == 0
        scene.cluster.edit_spec(**NO_CRON_JOBS)
        scene.cluster.object["metadata"]["generation"] = 2
        scene.show()
        await until(lambda: scene.passes == 1)


@in_a_loop
async def test_the_operators_image_is_taken_where_the_resource_names_none() -> None:
    scene = Scene({"job": {"image": ""}}, default_image="registry.example/siorg-job:2")
    async with scene.running():
        assert scene.cluster.conditions["Ready"][0] == "True"
