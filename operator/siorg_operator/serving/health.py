"""What alive and ready mean, for ``/healthz`` and ``/readyz``. Judging is pure; ``Health`` takes note of what happens.

**Alive** (else the kubelet restarts us): the loop's heart beats, and no pass over a resource hangs. A standby is alive.
The database is no part of it, for a restart mends no database. **Ready**: a standby that reaches the API server, or a leader
that can list what it watches.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

BEAT_SECONDS: Final = 20.0
"""The last sign of life of the event loop may be so old. It beats each second; a laden loop may be late."""
PASS_SECONDS: Final = 180.0
"""A pass over a resource may take so long. Each wait in it has a limit of its own, all of them together stay below this."""
LEASE_SECONDS: Final = 60.0
"""A standby's last answer from the API server may be so old."""


class Role(StrEnum):
    """What this process is, among the replicas."""

    STARTING = "starting"
    STANDBY = "standby"
    LEADER = "leader"


@dataclass(frozen=True, slots=True)
class HealthState:
    """What is known of the process at one moment. Times are those of one monotonic clock, in seconds."""

    role: Role = Role.STARTING
    since: float = 0.0
    """When it took that role."""
    beat: float | None = None
    """When the event loop last showed that it runs."""
    passes: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """Passes in progress: what they are about, and when they began."""
    listed: bool = False
    """Whether everything that is watched could be listed."""
    tried: float | None = None
    """When the Lease was last asked for."""
    reached: bool = False
    """Whether the API server let us ask then."""


@dataclass(frozen=True, slots=True)
class Judgment:
    """Whether the process is alive and ready: None, or in one line why not."""

    not_alive: str | None = None
    not_ready: str | None = None


def judge(health: HealthState, now: float) -> Judgment:
    """Judge a process by what is known of it. Pure."""
    if health.role is Role.STARTING:
        return Judgment(not_ready="the operator is starting")
    if health.role is Role.STANDBY:
        return Judgment(not_ready=_why_not_standing_by(health, now))
    stuck = _what_is_stuck(health, now)
    waiting = None if health.listed else "what is watched has not been listed yet"
    return Judgment(not_alive=stuck, not_ready=stuck or waiting)


def _what_is_stuck(health: HealthState, now: float) -> str | None:
    silence = now - max(health.since, health.beat or 0.0)
    if silence > BEAT_SECONDS:
        return f"the event loop is stuck: no sign of life for {silence:.0f} s (limit {BEAT_SECONDS:g} s)"
    if health.passes:
        began, key = min((began, key) for key, began in health.passes.items())
        if now - began > PASS_SECONDS:
            return f"the pass over {key} is stuck: it began {now - began:.0f} s ago (limit {PASS_SECONDS:g} s)"
    return None


def _why_not_standing_by(health: HealthState, now: float) -> str | None:
    silence = now - max(health.since, health.tried or 0.0)
    if silence > LEASE_SECONDS:
        return f"standby: the API server has not been asked for the Lease for {silence:.0f} s (limit {LEASE_SECONDS:g} s)"
    if health.tried is None:
        return "standby: not asked for the Lease yet"
    if not health.reached:
        return "standby: the Lease cannot be asked for: no answer, or a refusal (the log says which)"
    return None


class Health:
    """Takes note of how this process fares. Safe to use from several threads; no call waits."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock``: monotonic seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        self._state = HealthState(since=clock())

    def standing_by(self) -> None:
        """This replica waits for its turn to lead."""
        self._note(role=Role.STANDBY, since=self._clock())

    def leading(self) -> None:
        """This replica leads; from now on the loop has to beat."""
        self._note(role=Role.LEADER, since=self._clock())

    def lease_tried(self, *, reached: bool) -> None:
        """The Lease was asked for, and the API server let us, or did not."""
        self._note(tried=self._clock(), reached=reached)

    def beat(self) -> None:
        """The event loop runs. To be called from it each second."""
        self._note(beat=self._clock())

    def pass_began(self, key: str) -> None:
        """A pass over the resource ``key`` began."""
        with self._lock:
            self._state = replace(self._state, passes={**self._state.passes, key: self._clock()})

    def pass_ended(self, key: str) -> None:
        """That pass ended, in whichever way."""
        with self._lock:
            passes = {other: began for other, began in self._state.passes.items() if other != key}
            self._state = replace(self._state, passes=passes)

    def listed(self) -> None:
        """Everything that is watched can be listed."""
        self._note(listed=True)

    def judged(self) -> Judgment:
        """Judge what is known at this moment."""
        return judge(self._state, self._clock())

    def _note(self, **changes: Any) -> None:
        with self._lock:
            self._state = replace(self._state, **changes)
