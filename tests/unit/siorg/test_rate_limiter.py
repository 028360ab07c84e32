"""No rate but the pause that SIORG asks for."""

from __future__ import annotations

import asyncio
import time

from siorg_job.siorg.rate_limiter import Unlimited


def test_without_a_rate_nothing_waits_but_for_a_pause() -> None:
    async def scenario() -> None:
        limiter = Unlimited()
        await limiter.wait()
        began = time.monotonic()
        await limiter.pause(0.05)
        await limiter.pause(0.001)  # a shorter one does not end it
        await asyncio.gather(*(limiter.wait() for _ in range(5)))
        assert time.monotonic() - began >= 0.05

    asyncio.run(scenario())
