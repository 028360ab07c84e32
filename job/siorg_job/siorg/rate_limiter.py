"""How often SIORG may be asked: the port of the rate that all processes share, and no rate at all for one alone."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Protocol


class RateLimiter(Protocol):
    """Spaces requests out; the one that all processes of a database share lives in the database."""

    async def wait(self) -> None:
        """Return when one request may be sent."""

    async def pause(self, seconds: float) -> None:
        """Let nobody send for that long: SIORG asked for it (Retry-After)."""


class Unlimited:
    """No rate: a request may be sent at once, except during a pause. For one process alone."""

    def __init__(self) -> None:
        self._paused_until = -math.inf

    async def wait(self) -> None:
        """Return at once, or when the pause is over."""
        # A pause may be prolonged meanwhile.
        while (left := self._paused_until - time.monotonic()) > 0:  # noqa: ASYNC110 - time is what is waited for
            await asyncio.sleep(left)

    async def pause(self, seconds: float) -> None:
        """Pause from now on; a pause that lasts longer stays."""
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)
