"""Everything that there is has been told before anybody acts; what went while nobody watched is found, whatever fails."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from siorg_operator.control import resync as roll_call
from siorg_operator.control.resync import RollCall
from siorg_operator.decide.ports import ClusterError


class Lists:
    """Fails as often as it is told to."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.asked_at: list[float] = []

    async def uids(self, kind: str, namespace: str) -> set[str]:
        self.asked_at.append(asyncio.get_running_loop().time())
        if self.failures:
            raise self.failures.pop(0)
        return {"there"}


@pytest.mark.parametrize("error", [ClusterError("no answer"), KeyError("items")], ids=["refused", "bug"])
def test_failures_are_made_up_for_more_and_more_rarely_and_told_once(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(roll_call, "_SOON_SECONDS", 0.05)
    lists, gone = Lists(error, error, error), asyncio.Event()

    async def run() -> None:
        async def tell(kind: str, uids: set[str]) -> None:
            assert (kind, uids) == ("jobs", {"gone"})
            gone.set()

        calls = RollCall(lists, "sync", ["jobs"], lambda kind: {"there", "gone"}, tell)
        calls._told = None
        calls.told("there", listed=True)
        task = asyncio.create_task(calls.run())
        async with asyncio.timeout(10):
            await gone.wait()
        task.cancel()

    with caplog.at_level(logging.WARNING, logger="siorg_operator.control.resync"):
        asyncio.run(run())
    pauses = [later - earlier for earlier, later in itertools.pairwise(lists.asked_at)]
    assert [pause >= least for pause, least in zip(pauses, (0.1, 0.2, 0.4), strict=True)] == [True] * 3
    assert len(caplog.records) == 1


class Cluster:
    """What there is, and what has gone."""

    def __init__(self) -> None:
        self.there: dict[str, set[str]] = {"jobs": set(), "pods": set()}
        self.known: dict[str, set[str]] = {"jobs": set(), "pods": set()}
        self.gone: list[tuple[str, set[str]]] = []
        self.failures = 0
        self.lists = 0
        self.on_list: Callable[[], None] = lambda: None

    async def uids(self, kind: str, namespace: str) -> set[str]:
        self.lists += 1
        if self.failures:
            self.failures -= 1
            raise ClusterError("list jobs: the API server did not answer")
        there = set(self.there[kind])
        self.on_list()
        return there

    async def lose(self, kind: str, uids: set[str]) -> None:
        self.gone.append((kind, uids))
        self.known[kind] -= uids

    def roll_call(self) -> RollCall:
        return RollCall(self, "siorg", ("jobs", "pods"), lambda kind: set(self.known[kind]), self.lose)


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roll_call, "_SOON_SECONDS", 0.01)
    monkeypatch.setattr(roll_call, "_LIST_AGAIN_SECONDS", 0.05)
    monkeypatch.setattr(roll_call, "_LOOK_SECONDS", 0.001)


@contextmanager
def running(called: RollCall) -> Iterator[None]:
    task = asyncio.create_task(called.run())
    try:
        yield
    finally:
        task.cancel()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - it is not ours to tell when
            await asyncio.sleep(0.001)


def test_waits_until_everything_was_told(hurry: None) -> None:
    async def main() -> None:
        cluster = Cluster()
        cluster.there = {"jobs": {"a", "b"}, "pods": {"c"}}
        called = cluster.roll_call()
        waiting = asyncio.create_task(called.all_told())
        for uid in "ab":
            await asyncio.sleep(0.01)
            assert not waiting.done()
            called.told(uid, listed=True)
        called.told("c", listed=False)  # it changed before it was listed: that is told as well
        async with asyncio.timeout(5):
            await waiting

    asyncio.run(main())


def test_does_not_wait_for_what_went_before_it_was_told(hurry: None) -> None:
    async def main() -> None:
        cluster = Cluster()
        cluster.there["jobs"] = {"a", "b"}
        called = cluster.roll_call()
        called.told("a", listed=True)
        cluster.on_list = lambda: cluster.there["jobs"].discard("b")
        async with asyncio.timeout(5):
            await called.all_told()
        assert cluster.lists == 3

    asyncio.run(main())


def test_waits_for_a_cluster_that_does_not_answer(hurry: None) -> None:
    async def main() -> None:
        cluster = Cluster()
        cluster.failures = 2
        async with asyncio.timeout(5):
            await cluster.roll_call().all_told()
        assert cluster.lists == 4

    asyncio.run(main())


def test_after_a_new_listing_what_is_gone_is_found(hurry: None) -> None:
    async def main() -> None:
        cluster = Cluster()
        cluster.known = {"jobs": {"a", "b"}, "pods": {"c"}}
        cluster.there = {"jobs": {"a"}, "pods": {"c"}}
        called = cluster.roll_call()
        called._told = None
        with running(called):
            called.told("a", listed=True)
            await until(lambda: cluster.gone)
        assert cluster.gone == [("jobs", {"b"})]

    asyncio.run(main())


def test_what_comes_while_it_is_listed_is_not_missed(hurry: None) -> None:
    async def main() -> None:
        cluster = Cluster()
        cluster.known["jobs"] = cluster.there["jobs"] = {"a"}
        cluster.on_list = lambda: cluster.known["jobs"].add("new")
        called = cluster.roll_call()
        called._told = None
        with running(called):
            called.told("a", listed=True)
            await until(lambda: cluster.lists >= 1)
            await asyncio.sleep(0.01)
        assert cluster.gone == []

    asyncio.run(main())


def test_what_merely_changes_asks_for_none(hurry: None) -> None:
    async def main() -> None:
        cluster = Cluster()
        cluster.known["jobs"] = {"a"}
        called = cluster.roll_call()
        called._told = None
        with running(called):
            called.told("a", listed=False)
            await asyncio.sleep(0.05)
        assert cluster.lists == 0

    asyncio.run(main())
