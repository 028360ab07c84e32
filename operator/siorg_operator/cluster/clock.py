"""The cluster's time: that of the API server, by the Date of its answers.

Ages of pods and Jobs decide whether they are ended. They are counted from times that the API server wrote, or who runs beside
it, so they are told by its clock: that of this machine may be wrong by minutes. To count from when we first saw something would
need no other clock, but each restart and each new leader would begin all ages anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_DATE_SECONDS = 1.0  # a Date is cut to whole seconds


class ClusterClock:
    """Runs with the monotonic clock between answers; this machine's own time until the first one. For any thread."""

    def __init__(
        self,
        local: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``local``: this machine's time. ``monotonic``: seconds of a clock that nobody sets."""
        self._local = local
        self.monotonic = monotonic
        self._ahead: float | None = None
        """The cluster's time less the monotonic one (seconds)."""

    def now(self) -> datetime:
        """The cluster's time, in UTC."""
        return self._local() if self._ahead is None else datetime.fromtimestamp(self.monotonic() + self._ahead, UTC)

    def answered(self, date: str | None, asked_at: float, answered_at: float) -> None:
        """Learn from an answer's Date, written at some moment between the two (``monotonic``); what is no date is ignored.

        As long as what is known may be true it stays: a slow answer makes nothing worse, and time does not jump to and fro.
        """
        try:
            written = parsedate_to_datetime(date or "").timestamp()
        except ValueError:
            return
        least, most = written - answered_at, written + _DATE_SECONDS - asked_at
        known = (least + most) / 2 if self._ahead is None else self._ahead
        self._ahead = min(max(known, least), most)
