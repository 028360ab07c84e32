"""What is asked of the cluster beside launches: CronJobs, the ends of stuck Jobs, the removal of old ones.

None of it may hold up a launch, so each request stands for itself; one that was refused is tried again after a pause that grows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from siorg_operator.decide.ports import ClusterError
from siorg_operator.decide.reasons import Reason
from siorg_operator.decide.state import Fault
from siorg_runtime.backoff import exponential
from siorg_runtime.logs import logger

_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
_REPORTED_AFTER = 3  # failures in a row without a word of the cluster that it will not: it may be away for a moment
_BUSY = frozenset({408, 429})

log = logger(__name__)

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Request:
    """One request to the cluster."""

    key: str
    """Another key is another request, tried at once."""
    reason: Reason
    """The word for it when it is refused."""
    send: Callable[[], Awaitable[object]]
    once: bool = False
    """Whether it is not sent again while it is wanted still: its effect takes a moment to be seen."""


@dataclass(frozen=True, slots=True)
class _Refusal:
    fault: Fault
    is_final: bool
    failures: int
    retry_at: datetime


class Retries:
    """The requests of one resource that were refused."""

    def __init__(self) -> None:
        self._refused: dict[str, _Refusal] = {}
        self._done: set[str] = set()

    async def send(self, requests: Sequence[Request], now: datetime, **where: object) -> set[str]:
        """Send all of them that are due, whatever becomes of each. What is not among ``requests`` is wanted no more.

        ``where``: fields of a log entry, which say of which resource. Returns the keys of those that were carried out.
        """
        wanted = {request.key for request in requests}
        self._refused = {key: refusal for key, refusal in self._refused.items() if key in wanted}
        self._done &= {request.key for request in requests if request.once}
        due = [request for request in requests if request.key not in self._done and not self._waits(request.key, now)]
        done = set()
        for request, refusal in zip(due, await send_all(request.send() for request in due), strict=True):
            if not isinstance(refusal, ClusterError):
                self._refused.pop(request.key, None)
                done.add(request.key)
            else:
                log.warning(request.reason, **where, reason=str(refusal))
                self._keep(request, refusal, now)
        self._done |= {request.key for request in due if request.once and request.key in done}
        return done

    def faults(self) -> list[Fault]:
        """What a person should know of."""
        return [refusal.fault for refusal in self._refused.values() if refusal.is_final or refusal.failures >= _REPORTED_AFTER]

    def seconds(self, now: datetime) -> float | None:
        """Until the next of them may be tried; None: nothing is refused."""
        return min((max((refusal.retry_at - now).total_seconds(), 0.0) for refusal in self._refused.values()), default=None)

    def _waits(self, key: str, now: datetime) -> bool:
        # No longer than the longest pause: a clock that was set back silences nothing.
        refusal = self._refused.get(key)
        return refusal is not None and 0 < (refusal.retry_at - now).total_seconds() <= _LONGEST_PAUSE_SECONDS

    def _keep(self, request: Request, error: ClusterError, now: datetime) -> None:
        before = self._refused.get(request.key)
        failures = 1 if before is None else before.failures + 1
        pause = timedelta(seconds=max(exponential(failures, _FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS), error.retry_after))
        is_final = 400 <= error.code < 500 and error.code not in _BUSY
        self._refused[request.key] = _Refusal(Fault(request.reason, str(error)), is_final, failures, now + pause)


async def send_all(calls: Iterable[Awaitable[_Answer]]) -> list[_Answer | ClusterError]:
    """The answers, or what the cluster said to those that it refused, whatever becomes of each. A bug is raised."""
    answers = await asyncio.gather(*calls, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, ClusterError):
            raise answer
    return [answer for answer in answers if isinstance(answer, ClusterError) or not isinstance(answer, BaseException)]
