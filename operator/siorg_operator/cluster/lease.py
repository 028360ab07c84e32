"""What a Lease says, to whom, and until when: times, and its spec. Pure; ``leader`` asks and writes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from siorg_operator.cluster.connection import REQUEST_SECONDS, Body

_MARGIN = 0.2  # of the time between renew deadline and lease duration: for the watchdog, and for the last words


@dataclass(frozen=True, slots=True)
class Observed:
    """The Lease's spec as it was read last."""

    spec: Body
    since: float
    """Since when it has stood so, in seconds of our clock."""

    @property
    def holder(self) -> str:
        """Who holds the lease; empty: nobody."""
        return self.spec.get("holderIdentity") or ""


def observe(before: Observed | None, spec: Body, now: float) -> Observed:
    """What is known once ``spec`` was read: only a change shows that its holder lives."""
    return before if before is not None and before.spec == spec else Observed(spec, now)


def remaining(observed: Observed | None, identity: str, duration: float, now: float) -> float:
    """Seconds for which ``identity`` has to respect another's lease; 0: it takes the lease, or renews its own.

    Args:
        observed: what was read last, also when the Lease has been deleted since: its holder makes it again, and whoever was
            faster would lead beside it.
        identity: who asks.
        duration: ours, in seconds. The longer one counts, ours or that in the Lease: replicas before and after a change of
            the setting may meet.
        now: in seconds of our clock.
    """
    if observed is None or observed.holder in ("", identity):
        return 0.0
    longest = max(float(observed.spec.get("leaseDurationSeconds") or 0), duration)
    return max(observed.since + longest - now, 0.0)


def leads_until(asked_at: float, answered_at: float, duration: float, renew: float) -> float:
    """Until when who renewed a lease may act, if it does not renew it again; all in seconds.

    For ``renew`` from the answer on: it was not known sooner. But a slow answer may have been true since it was asked for, and
    then another may lead when ``duration`` has passed since.
    """
    return min(answered_at + renew, asked_at + _respected(duration, renew))


def answer_seconds(duration: float, renew: float) -> float:
    """For how long an answer about a Lease is waited: if all take as long, the next one is there before the lead is over."""
    return min(_respected(duration, renew) / 2, renew, REQUEST_SECONDS)


def _respected(duration: float, renew: float) -> float:
    return duration - (duration - renew) * _MARGIN


def held(before: Body, identity: str, duration: float, at: datetime) -> Body:
    """The Lease's spec with ``identity`` as its holder, from the spec that it had; empty: there was no Lease."""
    time = _micro_time(at)
    spec = {**before, "holderIdentity": identity, "leaseDurationSeconds": int(duration), "renewTime": time}
    if before.get("holderIdentity") != identity:
        spec |= {"acquireTime": time, "leaseTransitions": before.get("leaseTransitions", 0) + 1 if before else 0}
    return spec


def released(before: Body, at: datetime) -> Body:
    """The Lease's spec with nobody as its holder, as client-go leaves it."""
    time = _micro_time(at)
    return {**before, "holderIdentity": "", "leaseDurationSeconds": 1, "acquireTime": time, "renewTime": time}


def _micro_time(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
