"""Asking ahead: several are asked about at a time, and used in their order."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable

import pytest

from siorg_job.reconciliation.ahead import ask_ahead, to_its_end


class Asking:
    """What is in hand, and what became of it."""

    def __init__(self, *, slow: int | None = None, failing: int | None = None) -> None:
        self.slow, self.failing = slow, failing
        self.in_hand = 0
        self.most = 0
        self.used: list[int | str] = []
        self.cancelled: list[int] = []

    async def ask(self, number: int) -> int:
        self.in_hand += 1
        self.most = max(self.most, self.in_hand)
        try:
            for _ in range(50 if number == self.slow else number % 3):
                await asyncio.sleep(0)
            if number == self.failing:
                raise ValueError(number)
        except asyncio.CancelledError:
            self.cancelled.append(number)
            raise
        return number

    async def use(self, number: int, answer: Awaitable[int]) -> None:
        try:
            self.used.append(await answer)
        except ValueError as error:
            self.used.append(f"failed: {error}")
        finally:
            self.in_hand -= 1


@pytest.mark.parametrize("at_once", [1, 4])
def test_answers_are_used_in_their_order_however_slow_one_is_and_no_more_are_in_hand(at_once: int) -> None:
    asking = Asking(slow=2)
    asyncio.run(ask_ahead(range(20), asking.ask, asking.use, at_once=at_once))
    assert asking.used == list(range(20))
    assert (asking.most, asking.in_hand) == (at_once, 0)


def test_one_that_fails_leaves_the_others_alone() -> None:
    asking = Asking(failing=1)
    asyncio.run(ask_ahead(range(4), asking.ask, asking.use, at_once=2))
    assert asking.used == [0, "failed: 1", 2, 3]


def test_what_use_raises_ends_all_and_what_is_in_hand_is_asked_no_more() -> None:
    asking = Asking(slow=1)

    async def use(number: int, answer: Awaitable[int]) -> None:
        await answer
        raise KeyError(number)

    with pytest.raises(KeyError, match="0"):
        asyncio.run(ask_ahead(range(9), asking.ask, use, at_once=3))
    assert asking.cancelled == [1, 2]
    assert asking.most == 3


def test_who_is_cancelled_while_work_is_done_on_a_thread_goes_on_to_its_end_and_no_further() -> None:
    started, may_end = threading.Event(), threading.Event()
    done: list[str] = []

    def work() -> str:
        started.set()
        may_end.wait(20)
        done.append("work")
        return "result"

    async def several() -> None:
        done.append(await to_its_end(work))
        await asyncio.sleep(0)
        done.append("and more")

    async def cancel_it() -> None:
        task = asyncio.create_task(several())
        await asyncio.to_thread(started.wait, 20)
        task.cancel()
        await asyncio.sleep(0)
        assert not done
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel_it())
    assert done == ["work", "result"]


def test_what_work_on_a_thread_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        asyncio.run(to_its_end(lambda: 1 // 0))
