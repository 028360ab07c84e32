"""What Prometheus may ask of the operator. Jobs live too briefly to be scraped for sure: what they did is counted here too.

What is about one resource carries its namespace and its name (``worker``), and goes when the resource goes. What is not
known has no series: unknown is not zero, and a value of yesterday is not today's.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from siorg_operator.decide.planned import Result
from siorg_operator.decide.state import DEPARTURES, OUTCOMES, Ending, Job, JobState, QueueState, Reading
from siorg_runtime.buckets import ITEM_SECONDS
from siorg_runtime.version import version

_M = TypeVar("_M", Counter, Gauge, Histogram)

_LABELS: Final = ("namespace", "worker")
_PASS_SECONDS: Final = (0.005, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 120.0)
_CALL_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_WAIT_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_STATUSES: Final = ("due", "scheduled", "processing", "failed", "conflict", "held")
_RESULTS: Final = ("ok", "failed")
_LAUNCH_REASONS: Final = ("Size", "Time", "MinJobs", "Probe")


def operator_registry() -> CollectorRegistry:
    """A registry for ``OperatorMetrics``, with those of this process: CPU and start (seconds), memory (bytes), files."""
    registry = CollectorRegistry(auto_describe=True)
    ProcessCollector(registry=registry)
    return registry


class OperatorMetrics:
    """The metrics of one operator. Safe to use from several threads."""

    def __init__(self, registry: CollectorRegistry) -> None:
        # Without this a counter brings a second series with the time of its making: twice the series, used by nobody.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = registry
        self._of_worker: list[Counter | Gauge | Histogram] = []
        self._begun: set[tuple[str, str]] = set()
        self._held_because: dict[tuple[str, str], str] = {}

        make = self._make_of_worker
        # the queue
        self._size = make(Gauge, "siorg_sync_queue_size", "Items in the queue, when last counted", "status")
        self._depth = make(Gauge, "siorg_operator_queue_depth", "Claimable items: what Jobs are launched for")
        self._at_least = make(
            Gauge,
            "siorg_operator_queue_depth_at_least",
            "1 while there may be more than siorg_operator_queue_depth: no more are counted",
        )
        self._oldest = make(
            Gauge, "siorg_operator_queue_oldest_due_seconds", "Seconds that the oldest due item has waited; 0: none is due"
        )
        self._reachable = make(
            Gauge, "siorg_operator_queue_reachable", "1 while the queue can be read, 0 while it cannot: its depth is unknown then"
        )
        self._held_oldest = make(
            Gauge,
            "siorg_operator_held_oldest_seconds",
            "Seconds that the oldest held item has waited for a person; 0: none is held",
        )
        # the copy
        self._departures = make(
            Gauge,
            "siorg_operator_departures",
            "Values that were not SIORG's at the last complete verification, by the reason for it; drift: without one",
            "kind",
        )
        self._verification_age = make(
            Gauge, "siorg_operator_verification_age_seconds", "Seconds since the last complete verification"
        )
        self._verification_expected = make(
            Gauge,
            "siorg_operator_verification_expected_seconds",
            "Seconds since the last complete verification from which on one is missing: twice the interval of its schedule",
        )
        self.read_seconds = make(
            Histogram,
            "siorg_operator_backlog_read_seconds",
            "Seconds that reading a queue took, failures included",
            buckets=_PASS_SECONDS,
        )
        # its Jobs
        self._jobs = make(Gauge, "siorg_operator_jobs", "Jobs that are there; finished ones while history keeps them", "state")
        self._desired = make(Gauge, "siorg_operator_jobs_desired", "Jobs that the depth asks for, within the limits")
        self._launches = make(Counter, "siorg_operator_launches_total", "Jobs launched, by what asked for them", "reason")
        self._ended = make(Counter, "siorg_operator_jobs_ended_total", "Jobs that ended, by how", "ending")
        self._empty = make(Counter, "siorg_operator_jobs_empty_total", "Jobs that found nothing: launched in vain")
        self._items = make(
            Counter, "siorg_operator_items_total", "Items that ended Jobs had in hand, by what became of them", "outcome"
        )
        self._requests = make(Counter, "siorg_operator_siorg_requests_total", "Requests to SIORG that ended Jobs made", "result")
        self._item_seconds = _CountedHistogram(
            "siorg_operator_item_duration_seconds", "Seconds from claim to outcome of one item, of Jobs that ended", ITEM_SECONDS
        )
        registry.register(self._item_seconds)
        self._rate = make(Gauge, "siorg_operator_items_per_second", "Items that one Job brings to an end in a second, as learned")
        self._drain = make(
            Gauge, "siorg_operator_predicted_drain_seconds", "Seconds until the queue is empty, at the learned rate"
        )
        self._cron_job_failing = make(
            Gauge,
            "siorg_operator_cron_job_failing",
            "1 while the last Job of discovery, cleanup or verification failed",
            "component",
        )
        # decisions
        self._held_back = make(
            Gauge, "siorg_operator_held_back", "1 for the reason for which there is work and nothing is launched", "reason"
        )
        self._held_back_total = make(
            Counter,
            "siorg_operator_decisions_held_back_total",
            "Decisions that launched nothing although there was work",
            "reason",
        )
        self.pass_seconds = make(
            Histogram, "siorg_operator_reconcile_seconds", "Seconds that a pass over a resource took", buckets=_PASS_SECONDS
        )
        self.pass_errors = make(
            Counter, "siorg_operator_reconcile_errors_total", "Passes over a resource that did not come to their end", "reason"
        )
        self.enqueue_to_launch = make(
            Histogram,
            "siorg_operator_enqueue_to_launch_seconds",
            "Seconds from an item falling due until the Job was made, where no Job was there yet",
            buckets=_WAIT_SECONDS,
        )
        # this process
        self.leader = Gauge("siorg_operator_leader", "1 while this process leads, 0 while it stands by", registry=registry)
        self.watch_unanswered = Gauge(
            "siorg_operator_watch_unanswered_seconds",
            "Seconds for which the leader's lists or watches of a kind have had no answer; 0: all have one",
            registry=registry,
        )
        self._calls = Counter(
            "siorg_operator_api_calls_total",
            "Calls of the API server, by HTTP status; 0: no answer",
            ("verb", "resource", "code"),
            registry=registry,
        )
        self._call_seconds = Histogram(
            "siorg_operator_api_call_seconds",
            "Seconds that a call of the API server took",
            ("verb", "resource"),
            registry=registry,
            buckets=_CALL_SECONDS,
        )
        build = Gauge("siorg_operator_build_info", "1; the version is in the label", ("version",), registry=registry)
        build.labels(version()).set(1)

    def _make_of_worker(self, kind: type[_M], name: str, meaning: str, *labels: str, **options: Any) -> _M:
        metric = kind(name, meaning, (*_LABELS, *labels), registry=self._registry, **options)
        self._of_worker.append(metric)
        return metric

    # -- what happened to a resource ----------------------------------------------------------------------------------

    def decided(self, namespace: str, worker: str, result: Result, queue: QueueState, jobs: Sequence[Job]) -> None:
        """A pass saw ``queue`` and ``jobs``, and this came of it."""
        key, plan = (namespace, worker), result.plan
        self._saw_queue(key, queue)
        for state in JobState:
            self._jobs.labels(*key, state.value.lower()).set(sum(job.state is state for job in jobs))
        self._desired.labels(*key).set(plan.desired)
        self._begin_counters(key)
        if result.launched:
            self._launches.labels(*key, plan.launch_reason).inc(len(result.launched))
        self._set_or_unknown(self._rate, key, plan.size.rates.items)
        self._set_or_unknown(self._drain, key, plan.predicted_drain_seconds)
        self._holds_back(key, result.reason if result.held_back else None)

    def _begin_counters(self, key: tuple[str, str]) -> None:
        """Begin at 0. A counter that comes into being at 480 has, to Prometheus, never grown: those items would not be seen."""
        if key in self._begun:
            return
        self._begun.add(key)
        self._empty.labels(*key)
        self.enqueue_to_launch.labels(*key)
        self._item_seconds.add(key, {}, 0.0)
        for counter, values in (
            (self._items, OUTCOMES),
            (self._requests, _RESULTS),
            (self._launches, _LAUNCH_REASONS),
            (self._ended, [_ending(ending) for ending in Ending if ending is not Ending.NOTHING]),  # which is not how a Job ends
        ):
            for value in values:
                counter.labels(*key, value)

    def _saw_queue(self, key: tuple[str, str], queue: QueueState) -> None:
        reading = queue.reading
        known = isinstance(reading, Reading)
        self._reachable.labels(*key).set(1 if known else 0)
        for status in _STATUSES:
            self._set_or_unknown(self._size, (*key, status), getattr(reading, status) if known else None)
        self._set_or_unknown(self._depth, key, queue.depth)
        self._set_or_unknown(self._at_least, key, float(reading.at_least) if isinstance(reading, Reading) else None)
        self._set_or_unknown(self._oldest, key, (reading.oldest_due_seconds or 0.0) if isinstance(reading, Reading) else None)
        self._set_or_unknown(
            self._held_oldest, key, (reading.held_oldest_seconds or 0.0) if isinstance(reading, Reading) else None
        )
        self._saw_verifications(key, queue)

    def _saw_verifications(self, key: tuple[str, str], queue: QueueState) -> None:
        newest = queue.reading.verifications.newest if isinstance(queue.reading, Reading) else None
        self._set_or_unknown(self._verification_age, key, None if newest is None else newest.age_seconds)
        for kind in DEPARTURES:
            self._set_or_unknown(self._departures, (*key, kind), None if newest is None else newest.departures.get(kind, 0))
        self._set_or_unknown(self._departures, (*key, "drift"), None if newest is None else newest.drift)

    def expects_verification(self, namespace: str, worker: str, seconds: float | None) -> None:
        """From which age of the last complete verification on one is missing; None: none is wanted now."""
        self._set_or_unknown(self._verification_expected, (namespace, worker), seconds)

    def _holds_back(self, key: tuple[str, str], reason: str | None) -> None:
        # To remove each reason that it is not would take longer than the decision.
        before = self._held_because.pop(key, None)
        if before is not None and before != reason:
            self._held_back.remove(*key, before)
        if reason is not None:
            self._held_because[key] = reason
            self._held_back.labels(*key, reason).set(1)
            self._held_back_total.labels(*key, reason).inc()

    def job_ended(self, namespace: str, worker: str, job: Job) -> None:
        """A Job has ended. To be called once for each."""
        key = (namespace, worker)
        self._ended.labels(*key, _ending(job.ending or Ending.FAILED)).inc()
        summary = job.summary
        if summary is None:
            return
        for outcome, items in summary.outcomes.items():
            self._items.labels(*key, outcome).inc(items)
        self._item_seconds.add(key, summary.item_seconds_le, summary.item_seconds)
        failed = min(summary.request_errors, summary.requests)
        for result, requests in (("ok", summary.requests - failed), ("failed", failed)):
            if requests:
                self._requests.labels(*key, result).inc(requests)
        if job.ending is Ending.DONE and summary.claimed == 0 and not job.stopped:
            self._empty.labels(*key).inc()

    def cron_job_failing(self, namespace: str, worker: str, component: str, failing: bool | None) -> None:  # noqa: FBT001 - a value
        """Whether the last Job of a CronJob failed; None: none has finished, or there is no such CronJob."""
        self._set_or_unknown(self._cron_job_failing, (namespace, worker, component), failing)

    def refused(self, namespace: str, worker: str, reason: str) -> None:
        """The resource cannot be understood: its queue is not looked at, and nothing is launched."""
        key = (namespace, worker)
        for status in _STATUSES:
            self._size.remove(*key, status)
        for kind in (*DEPARTURES, "drift"):
            self._departures.remove(*key, kind)
        for gauge in (
            self._reachable, self._depth, self._at_least, self._oldest, self._desired, self._drain, self._held_oldest,
            self._verification_age, self._verification_expected,
        ):  # fmt: skip
            gauge.remove(*key)
        self._holds_back(key, reason)

    def forget(self, namespace: str, worker: str) -> None:
        """The resource is gone: so are its series."""
        for metric in self._of_worker:
            metric.remove_by_labels({"namespace": namespace, "worker": worker})
        self._item_seconds.remove((namespace, worker))
        self._begun.discard((namespace, worker))
        self._held_because.pop((namespace, worker), None)

    # -- what happened to this process --------------------------------------------------------------------------------

    def api_call(self, verb: str, resource: str, code: int, seconds: float) -> None:
        """The API server was called.

        Args:
            verb: as RBAC has it: get, create, patch, …
            resource: kind of what was called for, never a name.
            code: HTTP status of the answer, 0 without one.
            seconds: that it took.
        """
        self._calls.labels(verb, resource, str(code)).inc()
        self._call_seconds.labels(verb, resource).observe(seconds)

    def _set_or_unknown(self, gauge: Gauge, labels: tuple[str, ...], value: float | None) -> None:
        if value is None:
            gauge.remove(*labels)
        else:
            gauge.labels(*labels).set(value)


def _ending(ending: Ending) -> str:
    return Ending.FAILED if ending is Ending.OUT_OF_MEMORY else ending  # one label for both, as dashboards know it


class _CountedHistogram(Collector):
    """A histogram of what others have counted: it takes counts, where the library's own takes one observation at a time."""

    def __init__(self, name: str, meaning: str, bounds: Sequence[float]) -> None:
        self._name, self._meaning, self._bounds = name, meaning, (*bounds, math.inf)
        self._counts: dict[tuple[str, str], tuple[list[int], float]] = {}
        self._lock = threading.Lock()

    def add(self, key: tuple[str, str], counts: Mapping[float, int], total: float) -> None:
        """Add ``counts`` by their upper bounds, and the sum of what was counted. A bound that is not ours counts for the next."""
        with self._lock:
            kept, before = self._counts.get(key, ([0] * len(self._bounds), 0.0))
            for bound, count in counts.items():
                kept[bisect_left(self._bounds, bound)] += count
            self._counts[key] = kept, before + (total if counts else 0.0)

    def remove(self, key: tuple[str, str]) -> None:
        with self._lock:
            self._counts.pop(key, None)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        family = HistogramMetricFamily(self._name, self._meaning, labels=_LABELS)
        with self._lock:
            for key, (counts, total) in self._counts.items():
                so_far = 0
                buckets: list[tuple[str, float]] = []
                for bound, count in zip(self._bounds, counts, strict=True):
                    so_far += count
                    buckets.append(("+Inf" if bound == math.inf else str(bound), so_far))
                family.add_metric(key, buckets, total)
        yield family
