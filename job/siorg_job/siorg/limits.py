"""How hard SIORG may be asked: the breaker of one process, and the rate that all processes share."""

from __future__ import annotations

import asyncio
import math
import random as _random
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from siorg_job.siorg.errors import BreakerOpen

_PROBE_RETRY_SECONDS = 1.0


class RateLimiter(Protocol):
    """Spaces requests out; the one that all processes of a database share lives in the database."""

    async def wait(self) -> None:
        """Return when one request may be sent."""

    async def pause(self, seconds: float) -> None:
        """Let nobody send for that long: SIORG asked for it (Retry-After)."""


class Unlimited:
    """No rate: a request may be sent at once, except during a pause. For one process alone."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._paused_until = -math.inf

    async def wait(self) -> None:
        """Return at once, or when the pause is over."""
        # A pause may be prolonged meanwhile.
        while (left := self._paused_until - self._clock()) > 0:  # noqa: ASYNC110 - time is what is waited for
            await asyncio.sleep(left)

    async def pause(self, seconds: float) -> None:
        """Pause from now on; a pause that lasts longer stays."""
        self._paused_until = max(self._paused_until, self._clock() + seconds)


class BreakerState(StrEnum):
    """What the breaker lets through."""

    CLOSED = "closed"
    """Everything."""
    OPEN = "open"
    """Nothing, until the cooldown is over; then the next request is the probe."""
    HALF_OPEN = "half-open"
    """Nothing: the one probe is under way."""


@dataclass(frozen=True, slots=True)
class Permit:
    """The right to send one request, to be given back with what came of it.

    The answer to a request of an earlier time says nothing about now: a permit from before a change of state counts for
    nothing.
    """

    generation: int


class Breaker:
    """Leaves SIORG alone after failures in a row, and lets exactly one request find out whether it is back.

    Closed → open after ``failure_threshold`` failures in a row → after the cooldown one probe passes (half-open) → its
    success closes, its failure opens again for twice as long, up to the maximum. Each cooldown is drawn from the upper
    half of its nominal length, so that many processes do not come back at once. For one event loop; not for threads.
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
            cooldown_seconds: nominal length of the first cooldown.
            max_cooldown_seconds: nominal length that doubling never exceeds.
            clock: monotonic seconds.
            random: uniform in [0, 1).

        Raises:
            ValueError: a limit makes no sense.
        """
        if failure_threshold < 1:
            raise ValueError("failure_threshold has to be at least 1")
        if not 0 < cooldown_seconds <= max_cooldown_seconds < math.inf:
            raise ValueError("cooldown_seconds has to be above 0 and at most max_cooldown_seconds")
        self._threshold = failure_threshold
        self._first_cooldown = cooldown_seconds
        self._max_cooldown = max_cooldown_seconds
        self._clock = clock
        self._random = random
        self._state = BreakerState.CLOSED
        self._generation = 0
        self._failures = 0
        self._nominal = cooldown_seconds
        self._opened_at: float | None = None
        self._retry_at = -math.inf

    @property
    def state(self) -> BreakerState:
        """What it lets through. It stays open after the cooldown until a request comes to be the probe."""
        return self._state

    @property
    def opened_at(self) -> float | None:
        """When it last left the closed state or a probe failed, by its clock; None while it is closed."""
        return self._opened_at

    @property
    def consecutive_failures(self) -> int:
        """Failures since the last success."""
        return self._failures

    @property
    def retry_in(self) -> float:
        """Seconds until a request may pass; 0 when one may now."""
        match self._state:
            case BreakerState.CLOSED:
                return 0.0
            case BreakerState.OPEN:
                return max(0.0, self._retry_at - self._clock())
            case BreakerState.HALF_OPEN:
                # The probe's answer may come at any moment.
                return min(_PROBE_RETRY_SECONDS, self._first_cooldown)

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
        if self._state is BreakerState.OPEN:
            self._change(BreakerState.HALF_OPEN)
        return Permit(self._generation)

    def success(self, permit: Permit | None = None) -> None:
        """SIORG answered; without a permit: it is known from elsewhere that SIORG answers now."""
        if permit is not None and permit.generation != self._generation:
            return
        if permit is None and self._state is BreakerState.OPEN:
            return  # only a probe ends the cooldown
        self._failures = 0
        if self._state is not BreakerState.CLOSED:
            self._nominal = self._first_cooldown
            self._opened_at = None
            self._change(BreakerState.CLOSED)

    def failure(self, permit: Permit | None = None) -> None:
        """SIORG did not answer, or not as itself."""
        if permit is not None and permit.generation != self._generation:
            return
        self._failures += 1
        if self._state is BreakerState.HALF_OPEN:
            self._nominal = min(self._nominal * 2, self._max_cooldown)
            self._open()
        elif self._state is BreakerState.CLOSED and self._failures >= self._threshold:
            self._open()

    def abandon(self, permit: Permit) -> None:
        """The request was cancelled or says nothing about SIORG's health. If it was the probe, the next request is."""
        if permit.generation == self._generation and self._state is BreakerState.HALF_OPEN:
            self._change(BreakerState.OPEN)

    def _open(self) -> None:
        now = self._clock()
        self._opened_at = now
        self._retry_at = now + self._nominal * (1 - self._random() / 2)
        self._change(BreakerState.OPEN)

    def _change(self, state: BreakerState) -> None:
        self._state = state
        self._generation += 1
