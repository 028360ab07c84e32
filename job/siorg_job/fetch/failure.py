"""Fetches that failed, and the outcomes that follow where it is known whose fault it was. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from siorg_job.siorg.errors import PermanentError, SiorgError
from siorg_queue import DatabaseUnavailable, Item, Outcome, Verdict


@dataclass(frozen=True, slots=True)
class FetchFailure:
    """An item whose fetch failed. If the reason may pass, what it means for the item is decided by who drains."""

    item: Item
    error: SiorgError | DatabaseUnavailable

    @property
    def endpoint(self) -> str:
        """The kind of question that failed."""
        return getattr(self.error, "endpoint", None) or "unit"

    def verdict(self) -> Verdict:
        """The item pays: it ends where the answer will not get better, else it is tried again.

        That is when SIORG says so, or after the queue's own backoff.
        """
        error = self.error
        assert isinstance(error, SiorgError)  # a database that is away is nobody's fault, and no item pays for it
        retryable = not isinstance(error, PermanentError)
        return Verdict(
            self.item,
            Outcome.RETRY if retryable else Outcome.FAILED,
            error=str(error),
            delay_seconds=getattr(error, "retry_after", None),
            details={"kind": error.kind, "retryable": retryable, "details": dict(error.details)},
        )


@dataclass(frozen=True, slots=True)
class FetchFault:
    """An item whose answer could not be worked with, for a reason that is none of SIORG's."""

    item: Item
    error: Exception
