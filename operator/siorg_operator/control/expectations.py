"""Jobs that were launched and that the watch does not show yet: capacity all the same.

Watches are late, and now and then silent for minutes. An expectation ends when the watch has shown its Job or told of its
deletion, or when a list no longer has it: never by time alone, or each silence would be another set of Jobs.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence

from siorg_operator.decide.state import Job

_SHOWN_WITHIN_SECONDS = 5.0
"""What is not shown by then is asked for, and again after as long: the watch may be silent."""


class Expectations:
    """Those of one resource."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock``: seconds of a clock that nobody sets."""
        self._clock = clock
        self._jobs: dict[str, Job] = {}
        self._doubtful = False
        self._ask_at = 0.0

    def expect(self, job: Job) -> None:
        """A Job will be shown."""
        if self.seconds() is None:
            self._ask_at = self._clock() + _SHOWN_WITHIN_SECONDS
        self._jobs[job.name] = job

    def doubt(self) -> None:
        """How things stand is not known: a list has to say, at once."""
        self._doubtful, self._ask_at = True, self._clock()

    def deleted(self, uid: str) -> None:
        """The watch told that a Job is gone."""
        self._jobs = {name: job for name, job in self._jobs.items() if job.uid != uid}

    def seconds(self) -> float | None:
        """Until a list is due; None: nothing is expected, and nothing in doubt."""
        return max(self._ask_at - self._clock(), 0.0) if self._jobs or self._doubtful else None

    async def ask(self, find: Callable[[], Awaitable[Sequence[Job]]]) -> None:
        """Let a list say what there is, whatever the watch has shown. Raises what ``find`` raises: nothing ends by that."""
        self._ask_at = self._clock() + _SHOWN_WITHIN_SECONDS
        self._jobs = {job.name: job for job in await find()}
        self._doubtful = False

    def beside(self, shown: Sequence[Job]) -> list[Job]:
        """The Jobs that the watch shows, and those that are expected still."""
        uids, names = {job.uid for job in shown}, {job.name for job in shown}
        self._jobs = {
            name: job for name, job in self._jobs.items() if not (job.uid in uids if job.uid else job.name in names)
        }  # fmt: skip
        return [*shown, *self._jobs.values()]
