"""The outcomes that units, organizations and domain tables have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from siorg_job.sync.model import Value, plain
from siorg_queue import Item, Operation, Outcome, Verdict

_ASK_AGAIN_SECONDS = 1.5  # a claim at once would meet the same answer


def completed(item: Item, local_id: UUID | None) -> Verdict:
    """The item is done; what changed, if anything, is in the working copy."""
    return Verdict(item, Outcome.COMPLETED, local_id=local_id)


def refused(item: Item, reason: str, kind: str, details: Mapping[str, Any] | None = None) -> Verdict:
    """The permanent end of an item, with the reason for people and programs."""
    return Verdict(item, Outcome.FAILED, error=reason, details=_details(kind, details))


def failed_for_now(item: Item, reason: str, kind: str) -> Verdict:
    """The item is tried again while it has attempts."""
    return Verdict(item, Outcome.RETRY, error=reason, details=_details(kind, retryable=True))


def conflict(
    item: Item,
    reason: str,
    differences: Mapping[str, Mapping[str, Value]],
    local_id: UUID | None,
    kind: str = "conflict",
    details: Mapping[str, Any] | None = None,
) -> Verdict:
    """A person has to decide."""
    changes = {field: plain(sides) for field, sides in differences.items()}
    return Verdict(item, Outcome.CONFLICT, reason, _details(kind, details), changes, local_id=local_id)


def unusable(item: Item, reason: object) -> Verdict:
    """The person's decision cannot be carried out: back to the list of conflicts, with the differences found before."""
    error = f"the resolution of this conflict cannot be used: {reason}"
    return Verdict(item, Outcome.CONFLICT, error, _details("invalid_resolution"))


def not_extinct(item: Item, subject: str, local_id: UUID | None = None) -> Verdict:
    """The end that the item reports is not confirmed."""
    error = f"SIORG still has {subject}: it is not extinct"
    return Verdict(item, Outcome.SKIPPED, error, _details("not_extinct"), local_id=local_id)


def superseded(item: Item, local_id: UUID, *, decided: bool) -> Verdict:
    """A newer answer than the item's was applied already: nothing is left to do, unless the item stands for more than that.

    Args:
        item: the item.
        local_id: the row that is newer.
        decided: a person's decision goes with the item; it is still to be carried out.
    """
    if decided or item.operation in (Operation.EXTINCTION, Operation.MERGE, Operation.SPLIT):
        error = "a newer answer of SIORG was applied meanwhile; asking again"
        return Verdict(item, Outcome.RELEASED, error, delay_seconds=_ASK_AGAIN_SECONDS)
    return completed(item, local_id)


def _details(kind: str, details: Mapping[str, Any] | None = None, *, retryable: bool = False) -> dict[str, Any]:
    return {"kind": kind, "retryable": retryable} | ({} if details is None else {"details": dict(details)})
