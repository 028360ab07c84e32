"""What Prometheus may ask of a job while it lives. The names are the first system's where it had one."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, start_http_server

from siorg_queue.model import EntityType
from siorg_runtime.buckets import ITEM_SECONDS

_BATCH_ITEMS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # up to the largest WORKER_BATCH_SIZE


class MetricsPortError(Exception):
    """The port for metrics cannot be opened: taken by another program, or not allowed."""


class JobMetrics:
    """The metrics of one process, an attribute each, in a registry of their own. Safe to use from several threads."""

    def __init__(self) -> None:
        # Without this a counter brings a second series with the time of its making: twice the series, used by nobody.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry(auto_describe=True)

        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        histogram = partial(Histogram, registry=registry, buckets=ITEM_SECONDS)
        self.operations = counter(
            "siorg_sync_operations_total",
            "Items that came to an outcome, by what that was",
            ("entity_type", "operation", "status"),
        )
        self.operation_seconds = histogram(
            "siorg_sync_operation_duration_seconds", "From claim to outcome of one item", ("entity_type", "operation")
        )
        self.queue_size = gauge("siorg_sync_queue_size", "Items in the queue, when last counted", ("status",))
        self.conflicts = counter("siorg_sync_conflicts_total", "Items that a person has to decide", ("entity_type",))
        self.retries = counter("siorg_sync_retry_attempts_total", "Attempts that failed and will be made again", ("entity_type",))
        for entity_type in EntityType:
            # 0 is told too: a counter that comes into being at 1 has, to Prometheus, never grown.
            self.conflicts.labels(entity_type)
            self.retries.labels(entity_type)
        self.batch_seconds = histogram("siorg_worker_batch_duration_seconds", "From a claim to the outcome of its last item")
        self.batch_size = histogram("siorg_worker_batch_size", "Items of one claim that came to an outcome", buckets=_BATCH_ITEMS)
        # "endpoint" is the kind of request, never an address with a code in it.
        self.call_seconds = histogram(
            "siorg_external_api_call_duration_seconds", "One HTTP request to SIORG", ("endpoint", "status")
        )
        self.call_errors = counter(
            "siorg_external_api_errors_total", "Requests to SIORG without a usable answer", ("endpoint", "error_type")
        )
        self.leases_lost = counter("siorg_worker_lease_lost_total", "Items whose lease ran out while they were worked on")
        self.in_flight = gauge("siorg_worker_items_in_flight", "Items claimed and not yet at an outcome")
        self.siorg_available = gauge("siorg_siorg_available", "1 while SIORG answers, 0 while it does not")
        self.siorg_available.set(1)

    @contextmanager
    def serve(self, port: int) -> Iterator[int]:
        """Serve the metrics over HTTP on every address of this machine: whoever scrapes a pod comes from outside it.

        Args:
            port: 0 takes a free one.

        Yields:
            The port. At the end of the context it is closed.

        Raises:
            MetricsPortError: the port is taken or not allowed.
        """
        errors = []
        # One socket for both families; where the kernel has no IPv6, IPv4 alone.
        for address in ("::", "0.0.0.0") if socket.has_dualstack_ipv6() else ("0.0.0.0",):  # noqa: S104 - meant
            try:
                server, thread = start_http_server(port, address, registry=self.registry)
                break
            except OSError as error:
                errors.append(error)
        else:
            raise MetricsPortError(f"port {port} cannot be opened for metrics (WORKER_METRICS_PORT): {errors[0]}") from errors[0]
        try:
            yield server.server_port
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
