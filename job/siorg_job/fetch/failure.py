"""Fetches that failed, and the outcomes that follow where it is known whose fault it was. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from siorg_job.siorg.errors import SiorgError
from siorg_queue import DatabaseUnavailable, Item, Outcome, Verdict


@dataclass(frozen=True, slots=True)
class FetchFailure:
    """An item whose fetch failed for a reason that may pass; what it means for the item is decided by who drains."""

    item: Item
    error: SiorgError | DatabaseUnavailable


def permanent(item: Item, error: SiorgError) -> Verdict:
    """The end of an item whose answer will not get better."""
    return Verdict(item, Outcome.FAILED, error=str(error), details=_details(error, retryable=False))


def retry(failure: FetchFailure) -> Verdict:
    """The attempt counts, and another is made later: when SIORG says so, else after the queue's own backoff."""
    error = failure.error
    assert isinstance(error, SiorgError)  # a database that is away is nobody's fault, and no item pays for it
    return Verdict(
        failure.item,
        Outcome.RETRY,
        error=str(error),
        delay_seconds=getattr(error, "retry_after", None),
        details=_details(error, retryable=True),
    )


def internal_error(item: Item, error: Exception) -> Verdict:
    """A fault of ours: the item alone is tried again, the others go on."""
    return Verdict(
        item,
        Outcome.RETRY,
        error=f"internal error: {type(error).__name__}: {error}",
        details={"kind": "internal_error", "retryable": True},
    )


def _details(error: SiorgError, *, retryable: bool) -> dict[str, object]:
    return {"kind": error.kind, "retryable": retryable, "details": dict(error.details)}
