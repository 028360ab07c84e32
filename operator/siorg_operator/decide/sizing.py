"""How many Jobs the work asks for, and what limits them. Pure; the formula stands in ``plan``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from siorg_operator.api.resource import SiorgSyncWorker
from siorg_operator.decide.state import Backlog, Job, Reading, Unreadable, newest_last

CONNECTIONS_PER_JOB = 3
"""Database connections that a job process opens: queue, fetch bookkeeping, leases."""

_CONNECTIONS_LEFT_FREE = 5  # for people and their tools
_RATE_FROM = 20  # finished Jobs, the newest
_SLOWEST, _FASTEST = 0.001, 1e6  # items or requests a second that are believed of one Job
_LONGEST_DRAIN_SECONDS = 1e9


@dataclass(frozen=True, slots=True)
class Limit:
    """One thing that shaped the decision: what it allows (Jobs; None: it does not limit), and how that comes about."""

    name: str
    jobs: int | None
    how: str
    binding: bool = False


@dataclass(frozen=True, slots=True)
class Rates:
    """What one Job brings to an end, and asks of SIORG, a second; None: no Job has shown it yet."""

    items: float | None
    requests: float | None

    @classmethod
    def learn(cls, resource: SiorgSyncWorker, jobs: Sequence[Job]) -> Rates:
        """From the newest finished Jobs that did something; from what status remembers where there are none."""
        ended = sorted((job for job in jobs if job.finished_at is not None), key=newest_last)
        summaries = [job.summary for job in ended if job.summary is not None]
        told = [summary for summary in summaries if summary.ended > 0 and summary.duration_seconds > 0][-_RATE_FROM:]
        if not told:
            return cls(_believable(resource.status.rate), _believable(resource.status.request_rate))
        seconds = sum(summary.duration_seconds for summary in told)
        return cls(
            _believable(sum(summary.ended for summary in told) / seconds),
            _believable(sum(summary.requests for summary in told) / seconds),
        )


def _believable(rate: float | None) -> float | None:
    """``rate`` as it is shown and reckoned with; None for one that says nothing."""
    if rate is None or not rate >= _SLOWEST:  # this way round also for what is no number
        return None
    return round(min(rate, _FASTEST), 3)


def _ceil(number: float) -> int:
    """The next whole number; 3.0000000000000004 is 3."""
    return math.ceil(round(number, 6))


def drain_seconds(depth: int | None, rates: Rates, capacity: int) -> float | None:
    """Seconds until ``depth`` items are done by ``capacity`` Jobs; None: no telling."""
    if depth is None or (depth > 0 and not rates.items):
        return None
    return min(depth / (rates.items * max(capacity, 1)), _LONGEST_DRAIN_SECONDS) if rates.items else 0.0


@dataclass(frozen=True, slots=True)
class Size:
    """How many Jobs there should be, and everything that shaped it.

    Attributes:
        desired: within every limit.
        asked: before the ceilings.
        asked_by: what asked for so many: ``Size``, ``Time`` or ``MinJobs``.
        limits: all of them, one binding.
        steps: the sum, for a sentence.
        refused_by: why it is 0 although there is work, in one word.
        refused_message: and in one sentence.
    """

    desired: int
    asked: int
    asked_by: str
    limits: tuple[Limit, ...]
    steps: tuple[str, ...]
    refused_by: str = ""
    refused_message: str = ""


def size(resource: SiorgSyncWorker, backlog: Backlog, rates: Rates, unfinished: int) -> Size:
    """The formula at the top of ``plan``, with every step that shaped it. ``unfinished``: Jobs that the resource has."""
    scaling, reading, depth = resource.spec.scaling, backlog.reading, backlog.depth
    if isinstance(reading, Unreadable) or depth is None:
        return Size(0, 0, "", (), ("depth unknown",))
    if depth == 0:
        return Size(0, 0, "", (Limit("depth", 0, "nothing is claimable", binding=True),), ("depth 0",))
    by_size = -(-depth // scaling.items_per_job)
    by_time = None
    if scaling.target_drain_seconds and rates.items:
        by_time = _ceil(depth / (rates.items * scaling.target_drain_seconds))
    asked, asked_by = by_size, "Size"
    steps = [f"depth {depth}", f"{scaling.items_per_job} a Job → {by_size} wanted"]
    if by_time is not None:
        steps.append(f"{rates.items:g} items/s a Job and {scaling.target_drain_seconds} s → {by_time} wanted")
        if by_time > by_size:
            asked, asked_by = by_time, "Time"
    least = max(scaling.min_jobs, 1)
    if least > asked:
        asked, asked_by = least, "MinJobs"
        steps.append(f"minJobs {scaling.min_jobs} → {least}")
    ceilings = (
        Limit("maxJobs", scaling.max_jobs, "spec.scaling.maxJobs"),
        _connection_budget(reading, unfinished),
        _request_budget(resource, rates),
    )
    strictest = min((limit for limit in ceilings if limit.jobs is not None), key=lambda limit: limit.jobs or 0)
    assert strictest.jobs is not None  # chosen so
    desired = min(asked, strictest.jobs)
    limited = desired < asked
    if limited:
        steps.append(f"{strictest.name} {strictest.jobs} → {desired}")
    floor = Limit("minJobs", least, "at least 1 while there is work" if scaling.min_jobs < 1 else "spec.scaling.minJobs")
    by_size_limit = Limit("by size", by_size, f"ceil({depth} / itemsPerJob {scaling.items_per_job})")
    limits = (
        _marked(by_size_limit, not limited and asked_by == "Size"),
        _marked(Limit("by time", by_time, _how_by_time(resource, depth, rates)), not limited and asked_by == "Time"),
        _marked(floor, not limited and asked_by == "MinJobs"),
        *(_marked(limit, limited and limit is strictest) for limit in ceilings),
    )
    refused_by, refused_message = "", ""
    if desired == 0:
        refused_by, refused_message = (
            ("Suspended", "maxJobs is 0: nothing is launched")
            if strictest.name == "maxJobs"
            else ("ConnectionBudget", f"the database has no room for another Job: {strictest.how}; raise max_connections")
        )
    return Size(desired, asked, asked_by, limits, tuple(steps), refused_by, refused_message)


def _marked(limit: Limit, binding: bool) -> Limit:  # noqa: FBT001 - a value, not a switch
    return Limit(limit.name, limit.jobs, limit.how, binding)


def _how_by_time(resource: SiorgSyncWorker, depth: int, rates: Rates) -> str:
    target = resource.spec.scaling.target_drain_seconds
    if not target:
        return "no targetDrainSeconds is set"
    if not rates.items:
        return "no Job has shown its rate yet"
    return f"ceil({depth} / ({rates.items:g} items/s · targetDrainSeconds {target}))"


def _connection_budget(reading: Reading, unfinished: int) -> Limit:
    if reading.max_connections is None:
        return Limit("connection budget", None, "the database did not tell its limit")
    # Connections of jobs that are not ours: other resources share the server.
    others = reading.other_connections + max(reading.job_connections - CONNECTIONS_PER_JOB * unfinished, 0)
    free = reading.max_connections - others - _CONNECTIONS_LEFT_FREE
    return Limit(
        "connection budget",
        max(free // CONNECTIONS_PER_JOB, 0),
        f"({reading.max_connections} connections − {others} in use by others"
        f" − {_CONNECTIONS_LEFT_FREE} left free) / {CONNECTIONS_PER_JOB} a Job",
    )


def _request_budget(resource: SiorgSyncWorker, rates: Rates) -> Limit:
    most = resource.spec.siorg.max_requests_per_second
    if not most:
        return Limit("request budget", None, "maxRequestsPerSecond is 0: no limit")
    if not rates.requests:
        return Limit("request budget", None, "no Job has shown its requests yet")
    return Limit(
        "request budget",
        max(_ceil(most / rates.requests), 1),
        f"ceil(maxRequestsPerSecond {most:g} / {rates.requests:g} requests/s a Job)",
    )
