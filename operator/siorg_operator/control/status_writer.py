"""What status was written for one resource, whether the cluster shows anything else, and what is worth a write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from siorg_operator.api.resource import SiorgSyncWorker
from siorg_operator.decide.ports import Reporter
from siorg_operator.decide.status import merge_patch

COUNTS_SECONDS = 5.0
"""A status of which only counts have changed is written once in so long: rows that trickle in change counts all the time."""

_COUNTS = frozenset({"queue", "predictedDrainSeconds", "lastDecision"})

Status = Mapping[str, Any]


class StatusWriter:
    """The status of one resource. What somebody else writes there is put right, and never believed."""

    def __init__(self, reporter: Reporter, wake: Callable[[], None]) -> None:
        """``wake``: is called when the status has to be written once more."""
        self._reporter = reporter
        self._wake = wake
        self._written: Status | None = None
        self._written_at: datetime | None = None
        self._shown: Status = {}
        """The status as the API server had it when we last knew."""
        self._version = ""
        """Of the object after our last write: what is shown of an older one is old."""
        self._foreign: Status | None = None
        """The status as it is there, where that is not what we wrote."""
        self._accepted: Status = {}
        """What the API server makes of ours and keeps making of it: a message may be cleansed of a secret."""

    @property
    def status(self) -> Status:
        """As we wrote it last."""
        return self._written or {}

    def look(self, body: Mapping[str, Any]) -> None:
        """Take note of the object before a pass. At the first one its status is that of the process before this one: ours."""
        if self._written is None:
            self._written = self._shown = dict(body.get("status") or {})
        elif self.has_drifted(body):
            self._foreign = self._shown = dict(body.get("status") or {})

    def has_drifted(self, body: Mapping[str, Any]) -> bool:
        """Whether the status is not what we wrote: by somebody else, or by a write of ours of which no answer came."""
        version = body["metadata"].get("resourceVersion")
        if self._written is None or not version or _is_older(version, self._version):
            return False
        return (body.get("status") or {}) != self._shown

    async def write(self, resource: SiorgSyncWorker, status: Status, now: datetime) -> float | None:
        """Make it ``status``, if it is not so already.

        Returns:
            The seconds after which it is worth a write, where it is not written now; ``status`` stays as it was then.

        Raises:
            ClusterError: it could not be written.
        """
        patch = merge_patch(self.status if self._foreign is None else self._foreign, status)
        if patch and self._foreign is None and (wait := self._may_wait(patch, now)):
            return wait
        if not patch:
            self._written, self._foreign = status, None
            return None
        answer = await self._reporter.write_status(resource, patch)
        self._written, self._written_at = status, now
        if answer is not None:
            self._version = answer["metadata"].get("resourceVersion") or ""
            self._shown = answer.get("status") or {}
            self._foreign = None
            if status != self._shown != self._accepted:  # somebody wrote in between? Once more is enough to know
                self._foreign = self._accepted = self._shown
                self._wake()
        return None

    def _may_wait(self, patch: Status, now: datetime) -> float | None:
        counts_alone = patch.keys() <= _COUNTS and (patch.get("lastDecision") or {}).keys() <= {"time", "message"}
        if self._written_at is None or not counts_alone:
            return None
        since = (now - self._written_at).total_seconds()
        return COUNTS_SECONDS - since if 0 <= since < COUNTS_SECONDS else None


def _is_older(version: str, other: str) -> bool:
    """Whether one resourceVersion came before another. The API server counts them; any other kind is old unless equal."""
    if version.isdecimal() and other.isdecimal():
        return int(version) < int(other)
    return bool(other) and version != other
