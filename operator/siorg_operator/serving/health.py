"""What alive and ready mean, for ``/healthz`` and ``/readyz``.

**Alive** (else the kubelet restarts us): the loop's heart beats, and no pass over a resource is stuck. A slow one is not: each
request to the API server that begins or ends is progress, and for who waits for a thread, so is that the queue moves. A standby
is alive. The database is no part of it, for a restart mends no database. **Ready**: a standby that reaches the API server, or a
leader that has listed what it watches, and whose lists and watches are answered: the Lease alone does not show that. How often
there is news, and whether there is a resource at all, is no part of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Final

BEAT_SECONDS: Final = 20.0
"""The last sign of life of the event loop may be so old. It beats each second; a laden loop may be late."""
PASS_SECONDS: Final = 180.0
"""A pass over a resource may show no progress for so long. Each wait in it has a limit of its own, well below this."""
LEASE_SECONDS: Final = 60.0
"""A standby's last answer from the API server may be so old."""
WATCH_SECONDS: Final = 120.0
"""A list or a watch may be without an answer for so long. The tries in it are at most half a minute apart."""

EVERYTHING: Final = "all that is watched"
"""A kind that stands for all of them: for watches that fail together, whatever is answered in between."""

_pass: ContextVar[str] = ContextVar("pass", default="")
"""The resource whose pass this is, in all that the pass has begun."""


class Health:
    """Takes note of how this process fares, and judges it.

    Safe to use from several threads without a lock: each note has one thread that writes it, with one assignment.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock``: monotonic seconds."""
        self._clock = clock
        self._standby_since: float | None = None
        self._leader_since: float | None = None
        self._beat_at = 0.0
        self._passes: dict[str, float] = {}
        """When each that is under way showed progress last."""
        self._queued: dict[str, int] = {}
        """How many of its requests wait for a thread."""
        self._queue_moved_at = 0.0
        self._watched: frozenset[str] = frozenset()
        self._unlisted: frozenset[str] = frozenset()
        self._unanswered: dict[str, float] = {}
        self._lease_tried: tuple[float, bool] | None = None

    def standing_by(self) -> None:
        """This replica waits for its turn to lead."""
        self._standby_since = self._clock()

    def leading(self, watched: Iterable[str]) -> None:
        """This replica leads; from now on the loop has to beat, and these kinds have to be listed and watched."""
        now = self._clock()
        self._watched = self._unlisted = frozenset(watched)
        self._unanswered = dict.fromkeys(self._watched, now)
        self._leader_since = now

    def lease_tried(self, *, reached: bool) -> None:
        """The Lease was asked for, and the API server let us, or did not."""
        self._lease_tried = self._clock(), reached

    def beat(self) -> None:
        """The event loop runs. To be called from it each second."""
        self._beat_at = self._clock()

    def pass_began(self, key: str) -> None:
        """A pass over the resource ``key`` began; what it does, this task does, or one that it has made since."""
        _pass.set(key)
        self._passes = {**self._passes, key: self._clock()}

    def pass_ended(self, key: str) -> None:
        """That pass ended, in whichever way."""
        self._passes = {other: began for other, began in self._passes.items() if other != key}

    def request_queued(self) -> None:
        """A request to the API server waits for a thread."""
        key = _pass.get()
        self._queued = {**self._queued, key: self._queued.get(key, 0) + 1}

    def request_began(self) -> None:
        """One that waited does so no more."""
        key = _pass.get()
        left = self._queued[key] - 1
        others = {other: waiting for other, waiting in self._queued.items() if other != key}
        self._queued = {**others, key: left} if left else others
        self._progressed(key)

    def request_ended(self) -> None:
        """One that began has ended, in whichever way."""
        self._queue_moved_at = self._clock()
        self._progressed(_pass.get())

    def _progressed(self, key: str) -> None:
        if key in self._passes:
            self._passes = {**self._passes, key: self._clock()}

    def asked(self, kind: str) -> None:
        """A list or a watch of a kind was asked for. Kinds that are not watched do not matter."""
        if kind in self._watched or kind == EVERYTHING:
            self._unanswered = {kind: self._clock(), **self._unanswered}

    def answered(self, kind: str) -> None:
        """That was answered: not with a refusal."""
        self._unlisted -= {kind}
        self._unanswered = {other: since for other, since in self._unanswered.items() if other != kind}

    @property
    def unanswered_seconds(self) -> float:
        """For how long a list or a watch has been without an answer; 0: all have one, or none is asked for."""
        unanswered = self._unanswered
        return self._clock() - min(unanswered.values()) if unanswered else 0.0

    def why_not_alive(self) -> str | None:
        """What is stuck, in one line; None: the process is alive."""
        if self._leader_since is None:
            return None
        now, queued, moved_at = self._clock(), self._queued, self._queue_moved_at
        passes = {key: max(at, moved_at) if key in queued else at for key, at in self._passes.items()}
        silence = now - max(self._leader_since, self._beat_at)
        if silence > BEAT_SECONDS:
            return f"the event loop is stuck: no sign of life for {silence:.0f} s (limit {BEAT_SECONDS:g} s)"
        if passes:
            last, key = min((last, key) for key, last in passes.items())
            if now - last > PASS_SECONDS:
                return f"the pass over {key} is stuck: no progress for {now - last:.0f} s (limit {PASS_SECONDS:g} s)"
        return None

    def why_not_ready(self) -> str | None:
        """What is missing, in one line; None: the process is ready."""
        if self._leader_since is not None:
            return self.why_not_alive() or self._why_blind()
        if self._standby_since is None:
            return "the operator is starting"
        tried_at, reached = self._lease_tried or (0.0, False)
        silence = self._clock() - max(self._standby_since, tried_at)
        if silence > LEASE_SECONDS:
            return f"standby: the API server has not been asked for the Lease for {silence:.0f} s (limit {LEASE_SECONDS:g} s)"
        if self._lease_tried is None:
            return "standby: not asked for the Lease yet"
        return None if reached else "standby: the Lease cannot be asked for: no answer, or a refusal (the log says which)"

    def _why_blind(self) -> str | None:
        if self._unlisted:
            return "what is watched has not been listed yet"
        now = self._clock()
        silent = {kind: now - since for kind, since in self._unanswered.items() if now - since > WATCH_SECONDS}
        if not silent:
            return None
        kinds, longest = ", ".join(sorted(silent)), max(silent.values())
        return f"{kinds}: no list or watch was answered for {longest:.0f} s (limit {WATCH_SECONDS:g} s; the log says why)"
