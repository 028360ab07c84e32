"""An event loop whose time jumps to the next event: its own heap of timers is the simulation's heap of events."""

from __future__ import annotations

import asyncio
from typing import Any


class NothingMore(Exception):
    """Everything waits, and nothing is going to happen."""


class VirtualTimeLoop(asyncio.BaseEventLoop):
    """Runs coroutines and timers as any loop; to wait costs nothing. No sockets, no threads."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._selector = self
        self._clock_resolution = 1e-6

    def time(self) -> float:
        """Seconds since the simulation began."""
        return self._now

    def monotonic(self) -> float:
        """The same, for what stands for the module ``time``."""
        return self._now

    def select(self, timeout: float | None) -> list[Any]:
        """Called by the loop when nothing can run now."""
        if timeout is None:
            raise NothingMore
        self._now += max(timeout, 0.0)
        return []

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps who had to be woken."""
