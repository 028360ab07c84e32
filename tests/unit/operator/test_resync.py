"""Everything that there is has been seen before anybody acts; what went while nobody watched is found, whatever fails."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from siorg_operator.control import resync
from siorg_operator.control.resync import Resync
from siorg_operator.decide.ports import ClusterError
from support.event_loop import in_a_loop, until


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resync, "_DEBOUNCE_SECONDS", 0.01)
    monkeypatch.setattr(resync, "_LIST_AGAIN_SECONDS", 0.05)
    monkeypatch.setattr(resync, "_LOOK_SECONDS", 0.001)


class Cluster:
    """What there is, what is held to be there, and what was found to be gone."""

    def __init__(self, jobs: str = "", *, pods: str = "", known: str = "", failures: list[Exception] | None = None) -> None:
        self.there = {"jobs": set(jobs), "pods": set(pods)}
        self.known = {"jobs": set(known), "pods": set(pods)}
        self.deleted: list[tuple[str, set[str]]] = []
        self.failures = failures or []
        self.listed_at: list[float] = []
        self.on_list: Callable[[], None] = lambda: None
        self.resync = Resync(self.list_uids, ("jobs", "pods"), lambda kind: set(self.known[kind]), self.lose)

    async def list_uids(self, kind: str) -> set[str]:
        self.listed_at.append(asyncio.get_running_loop().time())
        if self.failures:
            raise self.failures.pop(0)
        there = set(self.there[kind])
        self.on_list()
        return there

    async def lose(self, kind: str, uids: set[str]) -> None:
        self.deleted.append((kind, uids))
        self.known[kind] -= uids

    @asynccontextmanager
    async def running(self, seen: str | None = None) -> AsyncIterator[asyncio.Event]:
        """``seen``: what the watch has shown; None: all that there is, which has been found out. Yields: the beginning."""
        for uid in set().union(*self.there.values()) if seen is None else seen:
            self.resync.seen(uid)
        self.resync.listed()
        begun = asyncio.Event()
        failures, self.failures = self.failures, [] if seen is None else self.failures
        task = asyncio.create_task(self.resync.run(begun.set))
        try:
            if seen is None:
                await begun.wait()
                self.failures, self.listed_at = failures, []
            async with asyncio.timeout(10):
                yield begun
        finally:
            task.cancel()


# -- the initial list -------------------------------------------------------------------------------------------------


@in_a_loop
async def test_waits_until_everything_was_seen() -> None:
    cluster = Cluster("ab", pods="c")
    async with cluster.running(seen="") as begun:
        for uid in "ab":
            await asyncio.sleep(0.01)
            assert not begun.is_set()
            cluster.resync.seen(uid)
        cluster.resync.seen("c")
        await begun.wait()


@in_a_loop
async def test_does_not_wait_for_what_went_before_it_was_seen() -> None:
    cluster = Cluster("ab")
    cluster.on_list = lambda: cluster.there["jobs"].discard("b")
    async with cluster.running(seen="a") as begun:
        await begun.wait()
        assert len(cluster.listed_at) == 3


@pytest.mark.parametrize("error", [ClusterError("no answer"), KeyError("items")], ids=["refused", "bug"])
@in_a_loop
async def test_waits_for_a_cluster_that_does_not_answer(error: Exception) -> None:
    cluster = Cluster(failures=[error] * 2)
    async with cluster.running(seen="") as begun:
        await begun.wait()
        assert len(cluster.listed_at) == 4


# -- what was missed --------------------------------------------------------------------------------------------------


@in_a_loop
async def test_after_a_new_listing_missed_deletions_are_found() -> None:
    cluster = Cluster("a", pods="c", known="ab")
    async with cluster.running():
        cluster.resync.listed()
        await until(lambda: cluster.deleted)
    assert cluster.deleted == [("jobs", {"b"})]


@in_a_loop
async def test_what_comes_while_it_is_listed_is_not_missed() -> None:
    cluster = Cluster("a", known="a")
    async with cluster.running():
        cluster.on_list = lambda: cluster.known["jobs"].add("new")
        cluster.resync.listed()
        await until(lambda: cluster.listed_at)
        await asyncio.sleep(0.01)
    assert cluster.deleted == []


@in_a_loop
async def test_a_change_alone_asks_for_no_list() -> None:
    cluster = Cluster("a", known="a")
    async with cluster.running():
        cluster.resync.seen("a")
        await asyncio.sleep(0.05)
    assert cluster.listed_at == []


@pytest.mark.parametrize("error", [ClusterError("no answer"), KeyError("items")], ids=["refused", "bug"])
@in_a_loop
async def test_failures_are_made_up_for_more_and_more_rarely_and_logged_once(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(resync, "_DEBOUNCE_SECONDS", 0.05)
    cluster = Cluster("a", known="ab", failures=[error] * 3)
    with caplog.at_level(logging.WARNING, logger="siorg_operator.control.resync"):
        async with cluster.running():
            cluster.resync.listed()
            await until(lambda: cluster.deleted)
    pauses = [later - earlier for earlier, later in itertools.pairwise(cluster.listed_at)][:3]
    assert [pause >= least for pause, least in zip(pauses, (0.1, 0.2, 0.4), strict=True)] == [True] * 3
    assert len(caplog.records) == 1
