"""Whether the copy is in line with SIORG, as far as the stored verifications tell. Pure; launches nothing and holds nothing."""

from __future__ import annotations

from typing import Literal, NamedTuple

from siorg_operator.api.cron import longest_interval
from siorg_operator.api.resource import SiorgSyncWorker
from siorg_operator.decide import wording
from siorg_operator.decide.reasons import Reason
from siorg_operator.decide.state import QueueState, Reading, Verifications

_INTERVALS = 2  # after so many a verification says nothing about now


class InSync(NamedTuple):
    """What the condition InSync says."""

    status: Literal["True", "False", "Unknown"]
    reason: Reason
    message: str


def in_sync(resource: SiorgSyncWorker, queue: QueueState) -> InSync:
    """Departures that have a name do not make it False: they are listed, and each says what ends it."""
    if not isinstance(queue.reading, Reading):
        return InSync("Unknown", Reason.NOT_VERIFIED, wording.VERIFICATIONS_UNREADABLE)
    stored = queue.reading.verifications
    if stored.unreadable:
        return InSync("Unknown", Reason.NOT_VERIFIED, wording.sentence(stored.unreadable))
    if not resource.spec.verification.enabled:
        return InSync("Unknown", Reason.NOT_VERIFIED, wording.not_verified_by_choice(stored))
    return _judged(stored, max_age_seconds(resource))


def max_age_seconds(resource: SiorgSyncWorker) -> float | None:
    """Up to which age a verification tells of the present: twice its interval. None: nothing limits it."""
    interval = longest_interval(resource.spec.verification.schedule)
    return None if interval is None else float(_INTERVALS * interval)


def expected_seconds(resource: SiorgSyncWorker) -> float | None:
    """After so long without a complete verification something is wrong; None: nobody wants any now."""
    spec = resource.spec
    runs = spec.verification.enabled and not spec.suspend and spec.mode == "Active"
    return max_age_seconds(resource) if runs else None


def _judged(stored: Verifications, max_age: float | None) -> InSync:
    newest, partial = stored.newest, stored.incomplete_seconds
    if newest is not None and (max_age is None or newest.age_seconds <= max_age):
        found = InSync("False", Reason.DRIFT_FOUND, wording.drift_found(newest)) if newest.drift else (
            InSync("True", Reason.VERIFIED, wording.verified(newest))
        )  # fmt: skip
        if partial is not None and partial < newest.age_seconds:
            found = found._replace(message=f"{found.message}. {wording.incomplete(stored)}")
        return found
    if partial is not None and (newest is None or partial < newest.age_seconds) and (max_age is None or partial <= max_age):
        return InSync("Unknown", Reason.INCOMPLETE, wording.incomplete(stored))
    if newest is not None and max_age is not None:
        return InSync("Unknown", Reason.VERIFICATION_OLD, wording.verification_old(newest, max_age / _INTERVALS))
    return InSync("Unknown", Reason.NOT_VERIFIED, wording.NOT_VERIFIED)
