"""The outcomes that units, organizations and domain tables have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from siorg_job.sync.merge import as_json
from siorg_job.sync.model import Value
from siorg_queue import Item, Operation, Outcome, Verdict

_ASK_AGAIN_SECONDS = 1.5  # a claim at once would meet the same answer


def completed(item: Item, local_id: UUID | None) -> Verdict:
    """The item is done; what changed, if anything, is in the working copy."""
    return Verdict(item, Outcome.COMPLETED, local_id=local_id)


def refused(item: Item, reason: str, kind: str) -> Verdict:
    """The permanent end of an item, with the reason for people and programs."""
    return Verdict(item, Outcome.FAILED, error=reason, details={"kind": kind, "retryable": False})


def conflict(
    item: Item,
    reason: str,
    differences: Mapping[str, Mapping[str, Value]],
    local_id: UUID | None,
    kind: str = "conflict",
    details: Mapping[str, Any] | None = None,
) -> Verdict:
    """A person has to decide."""
    found = {"kind": kind, "retryable": False} | ({} if details is None else {"details": dict(details)})
    return Verdict(item, Outcome.CONFLICT, error=reason, changes=as_json(differences), details=found, local_id=local_id)


def unusable(item: Item, reason: object) -> Verdict:
    """The person's decision cannot be carried out: back to the list of conflicts, with the differences found before."""
    return Verdict(
        item,
        Outcome.CONFLICT,
        error=f"the resolution of this conflict cannot be used: {reason}",
        details={"kind": "invalid_resolution", "retryable": False},
    )


def not_extinct(item: Item, subject: str, local_id: UUID | None = None) -> Verdict:
    """The end that the item reports is not confirmed."""
    return Verdict(
        item,
        Outcome.SKIPPED,
        error=f"SIORG still has {subject}: it is not extinct",
        details={"kind": "not_extinct", "retryable": False},
        local_id=local_id,
    )


def superseded(item: Item, local_id: UUID, *, decided: bool) -> Verdict:
    """A newer answer than the item's was applied already: nothing is left to do, unless the item stands for more than that.

    Args:
        item: the item.
        local_id: the row that is newer.
        decided: a person's decision goes with the item; it is still to be carried out.
    """
    if decided or item.operation in (Operation.EXTINCTION, Operation.MERGE, Operation.SPLIT):
        return Verdict(
            item,
            Outcome.RELEASED,
            delay_seconds=_ASK_AGAIN_SECONDS,
            error="a newer answer of SIORG was applied meanwhile; asking again",
        )
    return completed(item, local_id)
