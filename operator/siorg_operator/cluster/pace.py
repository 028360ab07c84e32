"""How soon something that should last is begun anew: at once where it lasted, later and later where it ended at once."""

from __future__ import annotations

import time
from collections.abc import Callable

from siorg_runtime.backoff import exponential


class Pace:
    """Of one such thing. Belongs to one thread."""

    def __init__(self, first: float, longest: float, lasts: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        """All in seconds.

        Args:
            first: the pause after it ended at once for the first time; doubles from there.
            longest: the longest pause.
            lasts: what was there for so long has lasted.
            clock: one that nobody sets.
        """
        self._first, self._longest, self._lasts = first, longest, lasts
        self._clock = clock
        self._began_at: float | None = None
        self._failures = 0

    def pause(self) -> float:
        """It is to begin (anew): seconds to wait before it does."""
        now = self._clock()
        lasted = self._began_at is None or now - self._began_at >= self._lasts
        self._failures = 0 if lasted else self._failures + 1
        pause = exponential(self._failures, self._first, self._longest) if self._failures else 0.0
        self._began_at = now + pause
        return pause
