"""What a run did: counted while it runs, left behind when it ends.

A Job lives too briefly to be scraped for sure, so its last line on standard output, and in Kubernetes the pod's
termination message, is a summary of one line of JSON.
"""

from __future__ import annotations

import json
import math
import os
import time
from bisect import bisect_left
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from siorg_runtime.buckets import ITEM_SECONDS
from siorg_runtime.logs import logger
from siorg_runtime.version import version

LONGEST_SUMMARY: Final = 4096
"""Bytes. Kubernetes cuts a termination message there: https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/"""

_LARGEST = 2**63 - 1  # with every counter there, the summary is far below LONGEST_SUMMARY

log = logger("siorg_job.run_summary")


@dataclass(slots=True)
class RunSummary:
    """The counters of one run. Items unless said otherwise; not for use by two threads at once."""

    claimed: int = 0
    completed: int = 0
    conflict: int = 0
    skipped: int = 0
    failed: int = 0
    """Ended FAILED: nothing will be tried again."""
    retried: int = 0
    """Put back for a later attempt."""
    released: int = 0
    """Given back with the attempt uncounted."""
    stale: int = 0
    """Results that came after the lease had run out, and were refused."""
    batches: int = 0
    """Claims that took something."""
    largest_batch: int = 0
    """Items of the largest of them."""
    most_in_flight: int = 0
    """Items held at once, at most."""
    requests_at_once: int = 0
    """How many were allowed; 0: there was nothing to do."""
    requests: int = 0
    """HTTP requests to SIORG, repeated ones included."""
    request_retries: int = 0
    """HTTP requests that repeated one that had failed."""
    request_errors: int = 0
    """HTTP requests that brought no usable answer."""
    siorg_seconds: float = 0.0
    """Seconds of all requests together; more than the run's own where they ran beside each other."""
    item_seconds: float = 0.0
    """Seconds from claim to outcome, of all items together."""
    item_seconds_le: dict[float, int] = field(default_factory=dict)
    """How many of these items took at most so many seconds, and more than the next lower of ``ITEM_SECONDS``."""
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    """For people. By this machine's clock, and compared with nothing."""
    started_monotonic: float = field(default_factory=time.monotonic)

    @property
    def ended(self) -> int:
        """Items that this run brought to a terminal status."""
        return self.completed + self.conflict + self.skipped + self.failed

    def count(self, counter: str) -> None:
        """Add one to the counter of this name."""
        setattr(self, counter, getattr(self, counter) + 1)

    def item_took(self, seconds: float) -> None:
        """Count an item that came to an outcome ``seconds`` after its claim."""
        at = bisect_left(ITEM_SECONDS, seconds)
        bound = ITEM_SECONDS[at] if at < len(ITEM_SECONDS) else math.inf
        self.item_seconds += seconds
        self.item_seconds_le[bound] = self.item_seconds_le.get(bound, 0) + 1

    def line(self, reason: str, exit_code: int) -> str:
        """What the run did, as one line of JSON of at most ``LONGEST_SUMMARY`` bytes.

        Args:
            reason: the word for why it ended, such as ``exhausted`` or ``siorg_unavailable``.
            exit_code: of the process.
        """
        seconds = max(time.monotonic() - self.started_monotonic, 0.0)
        values = {
            "version": version(),
            "reason": reason,
            "exit_code": exit_code,
            "started_at": _rfc3339(self.started_at),
            "finished_at": _rfc3339(datetime.now(UTC)),
            "duration_seconds": round(seconds, 3),
            "items_per_second": round(self.ended / seconds, 1) if seconds > 0 else 0.0,
            **{name: min(getattr(self, name), _LARGEST) for name in _COUNTERS},
            "siorg_seconds": round(self.siorg_seconds, 3),
            "item_seconds": round(self.item_seconds, 3),
            # As Prometheus writes bounds; the operator makes a histogram of it.
            "item_seconds_le": {
                f"{bound:g}": min(self.item_seconds_le[bound], _LARGEST) for bound in sorted(self.item_seconds_le)
            },
        }
        return json.dumps(values, separators=(",", ":"))


_COUNTERS = tuple(counter.name for counter in fields(RunSummary) if counter.type == "int")


def write_termination_log(path: Path, text: str) -> None:
    """Leave ``text`` for Kubernetes to keep with the pod's status.

    Does nothing where ``path`` does not exist, which is everywhere but in a pod. A failure is logged and is no
    failure of the run.
    """
    try:
        # Not created: on a person's machine /dev/termination-log would be a file where none belongs.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC), "w", encoding="utf-8") as termination_log:
            termination_log.write(text)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        log.warning("The termination message could not be written", path=str(path), reason=str(error))


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
