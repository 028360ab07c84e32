"""What one run is, how long it waits for more to do, and how it ends before its work does."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Literal

from siorg_job.run_summary import RunSummary
from siorg_job.settings import Settings

_LOCKED_SECONDS = 0.2  # where something is due, and somebody else holds its row


@dataclass(frozen=True, slots=True)
class Run:
    """One run of ``siorg-job run``, in one event loop: handed to everything that takes part in it."""

    settings: Settings
    summary: RunSummary = field(default_factory=RunSummary)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the process is asked to end."""
    forever: bool = False
    """Poll for ever instead of ending when nothing is left, and clean up at an interval."""


class Linger:
    """How long to wait when nothing could be claimed and nothing is in flight. Pure; all times in seconds, ``now`` monotonic."""

    def __init__(self, settings: Settings, *, forever: bool) -> None:
        """``forever``: there is always more to wait for."""
        self._forever = forever
        self._poll_seconds = settings.worker_poll_interval_secs
        self._linger_seconds = settings.worker_linger_secs
        self._locked_since: float | None = None

    def claimed(self) -> None:
        self._locked_since = None

    def pause(self, due_seconds: float | None, now: float) -> float | None:
        """How long to wait before the next claim; None: nothing is worth waiting for.

        Args:
            due_seconds: until the next waiting item falls due (0: one is due); None: none waits.
            now: monotonic.
        """
        if self._forever:
            return self._poll_seconds if due_seconds is None else min(self._poll_seconds, max(due_seconds, 0.05))
        if due_seconds is None or due_seconds > self._linger_seconds:
            return None
        if due_seconds > 0:
            self._locked_since = None
            return max(due_seconds, 0.02)
        # Due, and yet the claim did not get it: it fell due this moment, or somebody else holds the row. For a while.
        if self._locked_since is None:
            self._locked_since = now
            return 0.02
        return _LOCKED_SECONDS if now - self._locked_since <= max(self._linger_seconds, _LOCKED_SECONDS) else None


class Broken(Exception):
    """Nothing gets through, and waiting does not mend it (exit 1). The message says what is at fault; no item is."""

    def __init__(self, reason: Literal["database_refuses", "worker_fault"], message: str) -> None:
        """``reason``: the summary's word for it."""
        super().__init__(message)
        self.reason = reason


class GiveUp(Exception):
    """The run cannot go on now: try again later (exit 75). The message says what is unavailable."""

    def __init__(
        self,
        reason: Literal["database_unavailable", "siorg_unavailable", "siorg_rate_limited"],
        message: str,
        *,
        can_give_back: bool | None = None,
    ) -> None:
        """Args:
        reason: the summary's word for it.
        message: what is unavailable.
        can_give_back: whether the queue can be written; None: as the reason says.
        """
        super().__init__(message)
        self.reason = reason
        self.can_give_back = reason != "database_unavailable" if can_give_back is None else can_give_back
