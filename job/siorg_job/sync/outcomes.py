"""The outcomes that units, organizations and domain tables have in common."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from siorg_job.sync.model import Value, plain
from siorg_queue import Item, Operation, Outcome, Unreadable, Verdict


def completed(item: Item, local_id: UUID | None) -> Verdict:
    """The item is done; what changed, if anything, is in the working copy."""
    return Verdict(item, Outcome.COMPLETED, local_id=local_id)


def refused(
    item: Item, reason: str, kind: str, details: Mapping[str, Any] | None = None, waits_for: Collection[int] = ()
) -> Verdict:
    """The end of an item until discovery asks again, with the reason for people and programs.

    ``waits_for``: the codes of units; as soon as one of them comes to its place, or leaves it, the item is tried again.
    """
    if waits_for:
        details = {**(details or {}), "waits_for": sorted(waits_for)}
    return Verdict(item, Outcome.FAILED, error=reason, details=_details(kind, details))


def failed_for_now(item: Item, reason: str, kind: str, details: Mapping[str, Any] | None = None) -> Verdict:
    """The item is tried again while it has attempts."""
    return Verdict(item, Outcome.RETRY, error=reason, details=_details(kind, details, retryable=True))


def internal_error(item: Item, error: Exception) -> Verdict:
    """A fault of ours that this item alone brings out: it is tried again, the others go on."""
    name = type(error).__name__
    return failed_for_now(item, f"internal error: {name}: {error}", "internal_error", {"error": name})


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


def held(item: Item, reason: str, differences: Mapping[str, Mapping[str, Value]], local_id: UUID | None) -> Verdict:
    """A person has to release it: it is beyond a limit."""
    return replace(conflict(item, reason, differences, local_id, kind="held"), held=True)


def held_already(item: Item, holder: UUID, local_id: UUID | None) -> Verdict:
    """The same is held, or was and a person has decided: the other item carries that out."""
    error = f"item {holder} is about the same, and is held or decided by a person"
    return Verdict(item, Outcome.SKIPPED, error, _details("held"), local_id=local_id)


def says_all(verdict: Verdict) -> bool:
    """Whether what people were asked about the entity before is over, or stands in this verdict; of an end that is held, too."""
    return verdict.outcome in (Outcome.COMPLETED, Outcome.CONFLICT) or (verdict.details or {}).get("kind") == "held"


def unusable(item: Item, reason: object) -> Verdict:
    """The person's decision cannot be carried out: back to the list of conflicts, with the differences found before."""
    error = f"the resolution of this conflict cannot be used: {reason}"
    return Verdict(item, Outcome.CONFLICT, error, _details("invalid_resolution"))


def not_extinct(item: Item, subject: str, local_id: UUID | None = None) -> Verdict:
    """The end that the item reports is not confirmed."""
    error = f"SIORG still has {subject}: it is not extinct"
    return Verdict(item, Outcome.SKIPPED, error, _details("not_extinct"), local_id=local_id)


def unreadable(item: Item) -> Verdict | None:
    """The end of an item of which a value cannot be read that it needs, and the payload is only a hint; None where all can."""
    for column, value in (("error_details", item.error_details), ("detected_changes", item.detected_changes)):
        if isinstance(value, Unreadable) and (column == "error_details" or "resolution" in (item.error_details or ())):
            return refused(item, unreadable_value("siorg_sync_queue", item.id, column, value), "unreadable")
    return None


def unreadable_value(table: str, id_: UUID, column: str, value: Unreadable) -> str:
    """For people: what cannot be read, and what they can do."""
    return f"column {column} of {table} {id_} cannot be read ({value.reason}): correct it, then siorg-job retry"


def part_of_an_end(item: Item, organization: int) -> Verdict:
    """The organization has ended, and its units with it: a person decides about all of it at once."""
    subject = "" if item.siorg_code == organization else f", which holds unit {item.siorg_code} here"
    error = (
        f"SIORG has no organization {organization} any more{subject}: it and its units are one decision,"
        f" siorg-job organizations deactivate {organization}"
    )
    return Verdict(item, Outcome.SKIPPED, error, _details("organization_ended", {"organization": organization}))


def superseded(item: Item, local_id: UUID, synced_at: datetime, *, decided: bool) -> Verdict:
    """A newer answer than the item's was applied already: nothing is left to do, unless the item stands for more than that.

    Args:
        item: the item.
        local_id: the row that is newer.
        synced_at: when the answer that it has was asked for.
        decided: a person's decision goes with the item; it is still to be carried out.
    """
    if decided or item.operation in (Operation.EXTINCTION, Operation.MERGE, Operation.SPLIT):
        return asked_too_early(item, synced_at, "a newer answer of SIORG was applied meanwhile")
    return completed(item, local_id)


def asked_too_early(item: Item, needed_at: datetime, reason: str) -> Verdict:
    """The item goes back unharmed, to be worked on with an answer that is asked for at ``needed_at`` or later."""
    return Verdict(item, Outcome.RELEASED, f"{reason}; asking again", needed_at=needed_at)


def _details(kind: str, details: Mapping[str, Any] | None = None, *, retryable: bool = False) -> dict[str, Any]:
    return {"kind": kind, "retryable": retryable} | ({} if details is None else {"details": dict(details)})
