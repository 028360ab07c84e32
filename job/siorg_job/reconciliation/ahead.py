"""Asking ahead: SIORG is asked about several subjects at a time, and what it says is used in their order, one after the other.

The one way for whatever goes over all organizations. What SIORG takes to answer about one is spent on the others; memory is
bounded by what is in hand; and what becomes of an answer is what it would be if each were asked for when its turn has come.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from itertools import islice
from typing import Any, Final, TypeVar

AT_ONCE: Final = 4
"""Subjects in hand: their structures are in memory."""

_S = TypeVar("_S")
_T = TypeVar("_T")


async def ask_ahead(
    subjects: Iterable[_S],
    ask: Callable[[_S], Coroutine[Any, Any, _T]],
    use: Callable[[_S, Awaitable[_T]], Awaitable[object]],
    *,
    at_once: int,
) -> None:
    """Ask about all of these, the next ones while an earlier one is waited for or in use.

    Args:
        subjects: in the order in which their answers are used.
        ask: asks about one. What it raises is raised where ``use`` awaits the answer.
        use: does with one, and its answer, what is to be done; what it raises ends all.
        at_once: subjects that were asked about and are not done with, at most.
    """
    left = iter(subjects)
    in_hand: deque[tuple[_S, asyncio.Task[_T]]] = deque()
    try:
        while True:
            in_hand += [(subject, asyncio.create_task(ask(subject))) for subject in islice(left, at_once - len(in_hand))]
            if not in_hand:
                return
            await use(*in_hand[0])
            in_hand.popleft()
    finally:
        for _, task in in_hand:
            task.cancel()
        await asyncio.gather(*(task for _, task in in_hand), return_exceptions=True)


async def to_its_end(work: Callable[[], _T]) -> _T:
    """Do ``work`` on a thread, so that answers come in meanwhile. Who is cancelled is so at its next wait: not halfway."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    was_cancelled = False
    while not running.done():
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            was_cancelled = True
        except BaseException:  # noqa: BLE001 - that of the work, raised below
            break
    if was_cancelled and (task := asyncio.current_task()) is not None:
        task.cancel()
    return running.result()
