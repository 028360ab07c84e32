"""How many Jobs the work asks for, and what limits them. Pure; the formula stands in ``plan``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from siorg_operator.api.resource import SiorgSyncWorker
from siorg_operator.decide import connections
from siorg_operator.decide.connections import Room, Tenant
from siorg_operator.decide.reasons import Reason
from siorg_operator.decide.state import Job, QueueState, Reading, newest_last

_RATE_FROM = 20  # finished Jobs, the newest
_SLOWEST, _FASTEST = 0.001, 1e6  # items or requests a second that are believed of one Job
_LONGEST_DRAIN_SECONDS = 1e9

LimitName = Literal["depth", "by size", "by time", "minJobs", "maxJobs", "connection budget", "request budget"]
_ASKED_BY: Final[dict[LimitName, str]] = {"by size": "Size", "by time": "Time", "minJobs": "MinJobs"}


@dataclass(frozen=True, slots=True)
class Rates:
    """What one Job brings to an end, and asks of SIORG, a second; None: no Job has shown it yet."""

    items: float | None
    requests: float | None

    @classmethod
    def learn(cls, resource: SiorgSyncWorker, jobs: Sequence[Job]) -> Rates:
        """From the newest finished Jobs that did something; from what status remembers where there are none."""
        finished = sorted((job for job in jobs if job.finished_at is not None), key=newest_last)
        summaries = [job.summary for job in finished if job.summary is not None]
        newest = [summary for summary in summaries if summary.ended > 0 and summary.duration_seconds > 0][-_RATE_FROM:]
        if not newest:
            return cls(_believable(resource.status.rate), _believable(resource.status.request_rate))
        seconds = sum(summary.duration_seconds for summary in newest)
        return cls(
            _believable(sum(summary.ended for summary in newest) / seconds),
            _believable(sum(summary.requests for summary in newest) / seconds),
        )


def _believable(rate: float | None) -> float | None:
    """``rate`` as it is shown and reckoned with; None for one that says nothing."""
    if rate is None or not rate >= _SLOWEST:  # this way round also for what is no number
        return None
    return round(min(rate, _FASTEST), 3)


@dataclass(frozen=True, slots=True)
class Size:
    """How many Jobs there should be, and everything that shaped it.

    Attributes:
        depth: claimable items; None: unknown, and then nothing is asked for.
        rates: of one Job.
        desired: Jobs, within every limit.
        most: Jobs that the ceilings allow.
        asked: before the ceilings.
        asked_by: what asked for so many: ``Size``, ``Time`` or ``MinJobs``.
        at_least: whether there may be more than ``depth``: no more are counted.
        limits: everything that shaped it, and what each allows (Jobs; None: it does not limit).
        binding: the one that decides; None while the depth is unknown.
        wanted: Jobs, if there were connections without end.
        room: what the database's connections allow, and by which limit; None: not known to limit.
    """

    depth: int | None
    rates: Rates
    desired: int = 0
    most: int = 0
    asked: int = 0
    asked_by: str = ""
    at_least: bool = False
    limits: Mapping[LimitName, int | None] = field(default_factory=dict)
    binding: LimitName | None = None
    wanted: int = 0
    room: Room | None = None

    @property
    def refused_by(self) -> Reason | None:
        """Why there should be no Job although there is work; None: there should, or there is none."""
        if not self.depth or self.desired:
            return None
        return Reason.SUSPENDED if self.binding == "maxJobs" else Reason.CONNECTION_BUDGET

    def drain_seconds(self, capacity: int) -> float | None:
        """Seconds until everything is done by ``capacity`` Jobs; None: no telling."""
        if self.depth is None or (self.depth > 0 and not self.rates.items):
            return None
        return min(self.depth / (self.rates.items * max(capacity, 1)), _LONGEST_DRAIN_SECONDS) if self.rates.items else 0.0


def size(
    resource: SiorgSyncWorker, queue: QueueState, rates: Rates, unfinished: Mapping[str, bool], tenants: Sequence[Tenant] = ()
) -> Size:
    """The formula at the top of ``plan``.

    ``unfinished``: the Jobs that the resource has, as ``Tenant.jobs``. ``tenants``: those that use the same server.
    """
    scaling, reading = resource.spec.scaling, queue.reading
    if not isinstance(reading, Reading):
        return Size(None, rates)
    depth = reading.claimable
    if depth == 0:
        return Size(0, rates, limits={"depth": 0}, binding="depth")
    uid = resource.metadata.uid or ""
    mine = next((one for one in tenants if one.uid == uid), Tenant(uid, ()))
    mine = replace(mine, limits=reading.connection_limits, jobs=unfinished, rests=False)
    room = connections.room(mine, [one for one in tenants if one.uid != uid])
    target, most_requests = scaling.target_drain_seconds, resource.spec.siorg.max_requests_per_second
    floors: dict[LimitName, int | None] = {
        "by size": -(-depth // scaling.items_per_job),
        "by time": _ceil(depth / (rates.items * target)) if target and rates.items else None,
        "minJobs": max(scaling.min_jobs, 1),
    }
    ceilings: dict[LimitName, int | None] = {
        "maxJobs": scaling.max_jobs,
        "connection budget": None if room is None else room.jobs,
        "request budget": max(_ceil(most_requests / rates.requests), 1) if most_requests and rates.requests else None,
    }
    asked, asking = max(((jobs, name) for name, jobs in floors.items() if jobs is not None), key=lambda floor: floor[0])
    most, ceiling = min(((jobs, name) for name, jobs in ceilings.items() if jobs is not None), key=lambda ceiling: ceiling[0])
    binding = ceiling if most < asked else asking
    unconnected = (jobs for name, jobs in ceilings.items() if jobs is not None and name != "connection budget")
    return Size(
        depth=depth,
        rates=rates,
        desired=min(asked, most),
        most=most,
        asked=asked,
        asked_by=_ASKED_BY[asking],
        at_least=reading.at_least,
        limits=floors | ceilings,
        binding=binding,
        wanted=min(asked, *unconnected),
        room=room,
    )


def _ceil(number: float) -> int:
    """The next whole number; 3.0000000000000004 is 3."""
    return math.ceil(round(number, 6))
