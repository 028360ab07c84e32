"""What the cluster refuses beside launches: CronJobs, the ends of stuck Jobs, the removal of old ones. Pure.

None of it may hold up a launch, so each is tried again by itself, after a pause that grows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from siorg_operator.decide.state import Fault

_FIRST_PAUSE = timedelta(seconds=1)
_LONGEST_PAUSE = timedelta(seconds=60)
_TOLD_AFTER = 3  # failures in a row without a word of the cluster that it will not: it may be away for a moment
_BUSY = frozenset({408, 429})


@dataclass(frozen=True, slots=True)
class _Refusal:
    fault: Fault
    told: bool
    failures: int
    again_at: datetime


class Refusals:
    """Of one resource. What is asked for has a key each; another key is another request, tried at once."""

    def __init__(self) -> None:
        """Nothing was refused yet."""
        self._all: dict[str, _Refusal] = {}

    def wait(self, key: str, now: datetime) -> bool:
        """Whether it was refused a moment ago, and is not to be asked for yet."""
        found = self._all.get(key)
        return found is not None and now < found.again_at <= now + _LONGEST_PAUSE  # a clock that was set back silences nothing

    def refused(self, key: str, fault: Fault, code: int, now: datetime) -> None:
        """It was refused with ``code`` (HTTP, or 0 without an answer)."""
        before = self._all.get(key)
        failures = 1 if before is None else before.failures + 1
        pause = min(_FIRST_PAUSE * 2 ** min(failures - 1, 10), _LONGEST_PAUSE)
        told = (400 <= code < 500 and code not in _BUSY) or failures >= _TOLD_AFTER
        self._all[key] = _Refusal(fault, told, failures, now + pause)

    def carried_out(self, key: str) -> None:
        """It was done."""
        self._all.pop(key, None)

    def keep(self, keys: Iterable[str]) -> None:
        """Nothing else is asked for any more."""
        wanted = set(keys)
        self._all = {key: one for key, one in self._all.items() if key in wanted}

    def faults(self) -> list[Fault]:
        """What a person should know of."""
        return [one.fault for one in self._all.values() if one.told]

    def seconds(self, now: datetime) -> float | None:
        """Until the next of them may be tried; None: nothing is refused."""
        return min((max((one.again_at - now).total_seconds(), 0.0) for one in self._all.values()), default=None)
