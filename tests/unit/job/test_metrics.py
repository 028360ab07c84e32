import socket
import urllib.request

import pytest
from prometheus_client import generate_latest

from siorg_job.metrics import JobMetrics, MetricsPortError


def samples(text: str) -> dict[str, float]:
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def test_the_names_are_the_documented_ones() -> None:
    metrics = JobMetrics()
    metrics.operations.labels("UNIT", "UPDATE", "COMPLETED").inc()
    metrics.operation_seconds.labels("UNIT", "UPDATE").observe(0.2)
    metrics.queue_size.labels("PENDING").set(7)
    metrics.conflicts.labels("UNIT").inc()
    metrics.retries.labels("UNIT").inc()
    metrics.batch_size.observe(10)
    metrics.batch_seconds.observe(1.5)
    metrics.call_seconds.labels("estrutura", "200").observe(0.05)
    metrics.call_errors.labels("estrutura", "timeout").inc()
    metrics.leases_lost.inc(2)
    metrics.in_flight.set(4)
    metrics.siorg_available.set(0)
    found = samples(generate_latest(metrics.registry).decode())
    expected = {
        'siorg_sync_operations_total{entity_type="UNIT",operation="UPDATE",status="COMPLETED"}': 1,
        'siorg_sync_operation_duration_seconds_count{entity_type="UNIT",operation="UPDATE"}': 1,
        'siorg_sync_queue_size{status="PENDING"}': 7,
        'siorg_sync_conflicts_total{entity_type="UNIT"}': 1,
        'siorg_sync_retry_attempts_total{entity_type="UNIT"}': 1,
        "siorg_worker_batch_duration_seconds_sum": 1.5,
        "siorg_worker_batch_size_sum": 10,
        'siorg_external_api_call_duration_seconds_count{endpoint="estrutura",status="200"}': 1,
        'siorg_external_api_errors_total{endpoint="estrutura",error_type="timeout"}': 1,
        "siorg_worker_lease_lost_total": 2,
        "siorg_worker_items_in_flight": 4,
        "siorg_siorg_available": 0,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert not [name for name in found if "_created" in name]


def test_metrics_are_served_over_http_while_the_context_lasts() -> None:
    metrics, other = JobMetrics(), JobMetrics()
    other.in_flight.set(9)  # two sets of metrics do not mix
    with metrics.serve(0) as port:
        metrics.in_flight.set(3)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            assert samples(answer.read().decode())["siorg_worker_items_in_flight"] == 3
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5)


def test_a_port_in_use_is_told_with_the_setting() -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(MetricsPortError, match=rf"port {port} .*WORKER_METRICS_PORT.*in use"), JobMetrics().serve(port):
            pass
