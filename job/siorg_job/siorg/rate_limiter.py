"""How often SIORG may be asked: the port of the rate that all processes share, and no rate at all for one question."""

from __future__ import annotations

from typing import Protocol


class RateLimiter(Protocol):
    """Spaces requests out; the one that all processes of a database share lives in the database."""

    async def wait(self) -> None:
        """Return when one request may be sent."""

    async def pause(self, seconds: float) -> None:
        """Let nobody send for that long: SIORG asked for it (Retry-After)."""


class Unlimited:
    """No rate and no pause, for a process that asks one question and ends (``doctor``)."""

    async def wait(self) -> None:
        pass

    async def pause(self, seconds: float) -> None:
        pass
