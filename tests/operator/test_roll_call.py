"""The roll call goes on, whatever becomes of one: silence would let what is gone take a slot for ever."""

from __future__ import annotations

import asyncio
import itertools
import logging

import pytest

from siorg_operator import roll_call
from siorg_operator.ports import ClusterError
from siorg_operator.roll_call import RollCall


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

    with caplog.at_level(logging.WARNING, logger="siorg_operator.roll_call"):
        asyncio.run(run())
    pauses = [later - earlier for earlier, later in itertools.pairwise(lists.asked_at)]
    assert [pause >= least for pause, least in zip(pauses, (0.1, 0.2, 0.4), strict=True)] == [True] * 3
    assert len(caplog.records) == 1
