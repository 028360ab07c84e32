"""The circuit breaker of one process: it leaves a failing SIORG alone, and finds out with one request whether it is back."""

from __future__ import annotations

import math
import random as _random
import time
from collections.abc import Callable
from enum import StrEnum
from typing import NewType

from siorg_job.siorg.errors import BreakerOpen
from siorg_runtime.backoff import exponential

_PROBE_RETRY_SECONDS = 1.0
_EAGER_COOLDOWN_SECONDS = 7.0
_EAGER_SHARE = 1 / 30
"""Of the time that it has been down: what is back after a short absence is found out soon, and a long one costs few probes."""

Permit = NewType("Permit", int)
"""The right to send one request, to be given back with what came of it: the generation of the breaker's state."""


class BreakerState(StrEnum):
    """What the breaker lets through."""

    CLOSED = "closed"  # everything
    OPEN = "open"  # nothing, until the cooldown is over; then the next request is the probe
    HALF_OPEN = "half-open"  # nothing: the one probe is under way


class Breaker:
    """Leaves SIORG alone after failures in a row, and lets exactly one request find out whether it is back.

    Closed → open after ``failure_threshold`` failures in a row → after the cooldown one probe passes (half-open) → its
    success closes, its failure opens again for twice as long, up to 7 s, later up to a thirtieth of the time that it has been
    down, and never beyond the maximum. Each cooldown is drawn from the upper half of its nominal length, so that many
    processes do not come back at once. The answer to a request of an earlier time
    says nothing about now: a permit from before a change of state counts for nothing. For one event loop; not for threads.

    Attributes:
        state: what it lets through. It stays open after the cooldown until a request comes to be the probe.
        consecutive_failures: failures since the last success.
    """

    def __init__(
        self,
        failure_threshold: int,
        cooldown_seconds: float,
        max_cooldown_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = _random.random,
    ) -> None:
        """Make a closed breaker.

        Args:
            failure_threshold: failures in a row that open it, at least 1.
            cooldown_seconds: nominal length of the first cooldown, above 0.
            max_cooldown_seconds: nominal length that doubling never exceeds.
            clock: monotonic seconds.
            random: uniform in [0, 1).
        """
        self._threshold = failure_threshold
        self._first_cooldown = cooldown_seconds
        self._max_cooldown = max_cooldown_seconds
        self._clock = clock
        self._random = random
        self._generation = 0
        self._openings = 0
        self._down_since = 0.0
        self._retry_at = -math.inf
        self.state = BreakerState.CLOSED
        self.consecutive_failures = 0

    @property
    def retry_in(self) -> float:
        """Seconds until a request may pass; 0 when one may now."""
        if self.state is BreakerState.HALF_OPEN:  # the probe's answer may come at any moment
            return min(_PROBE_RETRY_SECONDS, self._first_cooldown)
        return max(0.0, self._retry_at - self._clock()) if self.state is BreakerState.OPEN else 0.0

    def check(self) -> None:
        """Refuse what could not be sent now, without sending or promising anything.

        Raises:
            BreakerOpen: ``before_request`` would refuse too.
        """
        if (seconds := self.retry_in) > 0:
            raise BreakerOpen(seconds)

    def before_request(self) -> Permit:
        """Ask to send one request. What came of it has to be reported with ``success``, ``failure`` or ``abandon``.

        Raises:
            BreakerOpen: nothing may be sent now.
        """
        self.check()
        if self.state is BreakerState.OPEN:
            self._change(BreakerState.HALF_OPEN)
        return Permit(self._generation)

    def success(self, permit: Permit) -> None:
        """SIORG answered."""
        if permit == self._generation:
            self.consecutive_failures = self._openings = 0
            if self.state is not BreakerState.CLOSED:
                self._change(BreakerState.CLOSED)

    def failure(self, permit: Permit) -> None:
        """SIORG did not answer, or not as itself."""
        if permit != self._generation:
            return
        self.consecutive_failures += 1
        if self.state is BreakerState.HALF_OPEN or self.consecutive_failures >= self._threshold:
            now, upper_half = self._clock(), 1 - self._random() / 2
            if not self._openings:
                self._down_since = now
            self._openings += 1
            eager = max(self._first_cooldown, _EAGER_COOLDOWN_SECONDS, (now - self._down_since) * _EAGER_SHARE)
            longest = min(eager, self._max_cooldown)
            self._retry_at = now + exponential(self._openings, self._first_cooldown, longest, upper_half)
            self._change(BreakerState.OPEN)

    def abandon(self, permit: Permit) -> None:
        """The request was cancelled or says nothing about SIORG's health. If it was the probe, the next request is."""
        if permit == self._generation and self.state is BreakerState.HALF_OPEN:
            self._change(BreakerState.OPEN)

    def _change(self, state: BreakerState) -> None:
        self.state = state
        self._generation += 1
