"""Tests that are coroutines, and what they wait for."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any


def in_a_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a test in an event loop of its own."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        async def main() -> None:
            await test(*arguments, **named)

        asyncio.run(main())

    return run


async def until(reached: Callable[[], object], *, seconds: float = 10.0) -> None:
    """Wait for a condition of something that tells nobody; ``TimeoutError`` when it does not come."""
    async with asyncio.timeout(seconds):
        while not reached():  # noqa: ASYNC110 - it is not ours to tell when
            await asyncio.sleep(0.005)
