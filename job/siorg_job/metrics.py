"""What Prometheus may ask of a job while it lives. The names are the first system's where it had one.

The only module that imports ``prometheus_client``, and only when metrics are served: a Job without
``WORKER_METRICS_PORT`` does not pay for them.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Protocol, Self

from siorg_queue.model import EntityType

if TYPE_CHECKING:
    from wsgiref.simple_server import WSGIServer

    from prometheus_client import CollectorRegistry

BUCKETS_SECONDS: Final = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
)  # fmt: skip
"""From a small answer on a good day to WORKER_ITEM_TIMEOUT_SECS."""

BUCKETS_ITEMS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Up to the largest WORKER_BATCH_SIZE."""


class MetricsPortError(Exception):
    """The port for metrics cannot be opened: taken by another program, or not allowed."""


class _Counter(Protocol):
    def labels(self, *values: str) -> _Counter: ...
    def inc(self, amount: float = 1) -> None: ...


class _Gauge(Protocol):
    def labels(self, *values: str) -> _Gauge: ...
    def set(self, value: float) -> None: ...


class _Histogram(Protocol):
    def labels(self, *values: str) -> _Histogram: ...
    def observe(self, amount: float) -> None: ...


class _Instruments(Protocol):
    """Makes the instruments: for a registry, or such that count nothing."""

    def counter(self, name: str, meaning: str, *labels: str) -> _Counter: ...
    def gauge(self, name: str, meaning: str, *labels: str) -> _Gauge: ...
    def histogram(self, name: str, meaning: str, *labels: str, buckets: tuple[float, ...] = ...) -> _Histogram: ...


class JobMetrics:
    """The metrics of one process. Safe to use from several threads."""

    def __init__(self) -> None:
        """Metrics that count, in a registry of their own."""
        from prometheus_client import CollectorRegistry  # noqa: PLC0415 - not paid for by Jobs that serve no metrics

        registry = CollectorRegistry(auto_describe=True)
        self._make(_ForRegistry(registry))
        self._registry: CollectorRegistry | None = registry

    @classmethod
    def unserved(cls) -> Self:
        """Metrics that nobody will ask for: every method does nothing, and nothing is imported."""
        self = cls.__new__(cls)
        self._registry = None
        self._make(_Nothing())
        return self

    def _make(self, instruments: _Instruments) -> None:
        make = instruments
        self._server: WSGIServer | None = None
        self._thread: threading.Thread | None = None
        self._operations = make.counter(
            "siorg_sync_operations_total",
            "Items that came to an outcome, by what that was",
            "entity_type", "operation", "status",
        )  # fmt: skip
        self._operation_seconds = make.histogram(
            "siorg_sync_operation_duration_seconds", "From claim to outcome of one item", "entity_type", "operation"
        )
        self._queue_size = make.gauge("siorg_sync_queue_size", "Items in the queue, when last counted", "status")
        self._conflicts = make.counter("siorg_sync_conflicts_total", "Items that a person has to decide", "entity_type")
        self._retries = make.counter(
            "siorg_sync_retry_attempts_total", "Attempts that failed and will be made again", "entity_type"
        )
        for entity_type in EntityType:
            # 0 is told too: a counter that comes into being at 1 has, to Prometheus, never grown.
            self._conflicts.labels(entity_type)
            self._retries.labels(entity_type)
        self._batch_seconds = make.histogram(
            "siorg_worker_batch_duration_seconds", "From a claim to the outcome of its last item"
        )
        self._batch_size = make.histogram(
            "siorg_worker_batch_size", "Items of one claim that came to an outcome", buckets=BUCKETS_ITEMS
        )
        self._call_seconds = make.histogram(
            "siorg_external_api_call_duration_seconds", "One HTTP request to SIORG", "endpoint", "status"
        )
        self._call_errors = make.counter(
            "siorg_external_api_errors_total", "Requests to SIORG without a usable answer", "endpoint", "error_type"
        )
        self._leases_lost = make.counter("siorg_worker_lease_lost_total", "Items whose lease ran out while they were worked on")
        self._in_flight = make.gauge("siorg_worker_items_in_flight", "Items claimed and not yet at an outcome")
        self._available = make.gauge("siorg_siorg_available", "1 while SIORG answers, 0 while it does not")
        self._available.set(1)

    def operation(self, entity_type: str, operation: str, status: str, seconds: float) -> None:
        """Count an item that came to ``status``, ``seconds`` after its claim."""
        self._operations.labels(entity_type, operation, status).inc()
        self._operation_seconds.labels(entity_type, operation).observe(seconds)

    def queue_sizes(self, items_by_status: Mapping[str, int]) -> None:
        """Set how many items of each status there are."""
        for status, items in items_by_status.items():
            self._queue_size.labels(status).set(items)

    def conflict(self, entity_type: str) -> None:
        """Count an item that a person has to decide."""
        self._conflicts.labels(entity_type).inc()

    def retry(self, entity_type: str) -> None:
        """Count an attempt that failed and will be made again."""
        self._retries.labels(entity_type).inc()

    def batch(self, items: int, seconds: float) -> None:
        """Count a claim whose last item came to its outcome ``seconds`` after it."""
        self._batch_size.observe(items)
        self._batch_seconds.observe(seconds)

    def api_call(self, endpoint: str, status: str, seconds: float) -> None:
        """Count a request to SIORG. ``endpoint`` is the kind of request, never an address with a code in it."""
        self._call_seconds.labels(endpoint, status).observe(seconds)

    def api_error(self, endpoint: str, error_type: str) -> None:
        """Count a request to SIORG that brought no usable answer."""
        self._call_errors.labels(endpoint, error_type).inc()

    def lease_lost(self, items: int = 1) -> None:
        """Count items whose lease ran out while they were worked on."""
        self._leases_lost.inc(items)

    def in_flight(self, items: int) -> None:
        """Set how many items are claimed and not yet at an outcome."""
        self._in_flight.set(items)

    def siorg_available(self, *, available: bool) -> None:
        """Set whether SIORG answers."""
        self._available.set(1 if available else 0)

    def exposition(self) -> str:
        """Everything, in Prometheus' text form. Empty for unserved metrics."""
        if self._registry is None:
            return ""
        from prometheus_client import generate_latest  # noqa: PLC0415 - see __init__

        return generate_latest(self._registry).decode()

    def serve(self, port: int) -> int:
        """Serve the metrics over HTTP on every address of this machine: whoever scrapes a pod comes from outside it.

        Args:
            port: 0 takes a free one.

        Returns:
            The port.

        Raises:
            MetricsPortError: the port is taken or not allowed.
            RuntimeError: these metrics are unserved ones, or served already.
        """
        if self._registry is None or self._server is not None:
            raise RuntimeError("metrics are served once, and not when they are unserved ones")
        from prometheus_client import start_http_server  # noqa: PLC0415 - see __init__

        error: OSError | None = None
        # One socket for both families; where the kernel has no IPv6, IPv4 alone.
        for address in ("::", "0.0.0.0") if socket.has_dualstack_ipv6() else ("0.0.0.0",):  # noqa: S104 - meant
            try:
                self._server, self._thread = start_http_server(port, address, registry=self._registry)
                return self._server.server_port
            except OSError as failed:
                error = error or failed
        raise MetricsPortError(f"port {port} cannot be opened for metrics (WORKER_METRICS_PORT): {error}") from error

    def close(self) -> None:
        """Stop serving. May be called twice, and when nothing was served."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        if self._thread is not None:
            self._thread.join()
            self._thread = None


class _ForRegistry:
    """Instruments of ``prometheus_client`` in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        import prometheus_client  # noqa: PLC0415 - see JobMetrics.__init__

        # Without these a counter brings a second series with the time of its making: twice the series, used by nobody.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = registry
        self._library = prometheus_client

    def counter(self, name: str, meaning: str, *labels: str) -> _Counter:
        return self._library.Counter(name, meaning, labels, registry=self._registry)

    def gauge(self, name: str, meaning: str, *labels: str) -> _Gauge:
        return self._library.Gauge(name, meaning, labels, registry=self._registry)

    def histogram(self, name: str, meaning: str, *labels: str, buckets: tuple[float, ...] = BUCKETS_SECONDS) -> _Histogram:
        return self._library.Histogram(name, meaning, labels, registry=self._registry, buckets=buckets)


class _Nothing:
    """Instruments that count nothing, and one such instrument."""

    def counter(self, name: str, meaning: str, *labels: str) -> _Counter:  # noqa: ARG002
        return self

    def gauge(self, name: str, meaning: str, *labels: str) -> _Gauge:  # noqa: ARG002
        return self

    def histogram(self, name: str, meaning: str, *labels: str, buckets: tuple[float, ...] = ()) -> _Histogram:  # noqa: ARG002
        return self

    def labels(self, *values: str) -> _Nothing:  # noqa: ARG002
        return self

    def inc(self, amount: float = 1) -> None:
        pass

    def set(self, value: float) -> None:
        pass

    def observe(self, amount: float) -> None:
        pass
