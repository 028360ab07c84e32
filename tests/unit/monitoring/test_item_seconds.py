"""How long items took, from the job that worked on them to the operator's histogram: a Job is too brief to be scraped."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from siorg_job.run_summary import RunSummary
from siorg_operator.decide.jobs import read_summary
from siorg_operator.decide.plan import plan
from siorg_operator.decide.state import Ending, Job, JobState, Summary
from siorg_operator.serving.metrics import OperatorMetrics
from support.operator_values import NOW, carried_out, queue_of, worker

NAME = "siorg_operator_item_duration_seconds"


def summary_of(*seconds: float) -> Summary:
    """What the operator reads of a run whose items took so long."""
    run = RunSummary(claimed=len(seconds), completed=len(seconds))
    for one in seconds:
        run.item_took(one)
    summary = read_summary(run.line("exhausted", 0))
    assert summary is not None
    return summary


def ended(summary: Summary) -> Job:
    return Job("main-1", 0, 1, JobState.SUCCEEDED, NOW, ending=Ending.DONE, summary=summary)


class Told:
    """An operator's metrics, and what they say of one resource."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self.metrics = OperatorMetrics(self.registry)

    def value(self, suffix: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"{NAME}_{suffix}", {"namespace": "siorg", "worker": "main", **labels})


@pytest.fixture
def told() -> Told:
    return Told()


def test_the_items_of_ended_jobs_make_one_histogram(told: Told) -> None:
    told.metrics.job_ended("siorg", "main", ended(summary_of(0.2, 0.25, 3.0)))
    told.metrics.job_ended("siorg", "main", ended(summary_of(0.004, 500.0)))
    assert told.value("count") == 5
    assert told.value("sum") == pytest.approx(503.454)
    buckets = {le: told.value("bucket", le=le) for le in ("0.005", "0.1", "0.25", "2.5", "5.0", "120.0", "+Inf")}
    assert buckets == {"0.005": 1, "0.1": 1, "0.25": 3, "2.5": 3, "5.0": 4, "120.0": 4, "+Inf": 5}


def test_a_resource_that_is_gone_has_no_histogram(told: Told) -> None:
    told.metrics.job_ended("siorg", "main", ended(summary_of(0.2)))
    told.metrics.forget("siorg", "main")
    assert told.value("count") is None
    told.metrics.forget("siorg", "main")


def test_a_bound_of_another_version_counts_for_the_next_larger(told: Told) -> None:
    summary = Summary("exhausted", 0, 1.0, {"completed": 3}, item_seconds=8.0, item_seconds_le={0.3: 1, 7.0: 1, 1000.0: 1})
    told.metrics.job_ended("siorg", "main", ended(summary))
    assert [told.value("bucket", le=le) for le in ("0.25", "0.5", "5.0", "10.0", "120.0", "+Inf")] == [0, 1, 1, 2, 2, 3]


def test_a_summary_without_times_counts_none(told: Told) -> None:
    told.metrics.job_ended("siorg", "main", ended(Summary("exhausted", 0, 1.0, {"completed": 3})))
    assert told.value("count") == 0
    assert told.value("sum") == 0


@pytest.mark.parametrize(
    "spread",
    [
        [1, 2],
        "0.1",
        {"soon": 1},
        {"-1": 1},
        {"0": 1},
        {"nan": 1},
        {"0.1": -1},
        {"0.1": "1"},
        {"0.1": True},
        {"1": 1, "1.0": 1},
        None,
    ],
)
def test_times_that_cannot_be_understood_are_none(spread: Any) -> None:
    summary = read_summary(json.dumps({"reason": "exhausted", "exit_code": 0, "completed": 3, "item_seconds_le": spread}))
    assert summary is not None
    assert summary.outcomes == {"completed": 3}
    assert summary.item_seconds_le == {}


def test_times_are_read_as_they_were_written() -> None:
    summary = read_summary(json.dumps({"reason": "exhausted", "exit_code": 0, "item_seconds_le": {"0.1": 2, "5": 0, "inf": 1}}))
    assert summary is not None
    assert summary.item_seconds_le == {0.1: 2, 5.0: 0, math.inf: 1}


def test_a_counter_is_there_before_it_counts(told: Told) -> None:
    # Else its first jump, from nothing to all the items of a Job, would be no growth to Prometheus.
    resource, read = worker(), queue_of(480)
    told.metrics.decided("siorg", "main", carried_out(plan(resource, read, [], NOW)), read, [])
    one = {"namespace": "siorg", "worker": "main"}
    for name, labels in (
        ("items_total", {"outcome": "completed"}),
        ("siorg_requests_total", {"result": "failed"}),
        ("jobs_ended_total", {"ending": "JobFailed"}),
        ("launches_total", {"reason": "Probe"}),
        ("enqueue_to_launch_seconds_count", {}),
        ("item_duration_seconds_count", {}),
    ):
        assert told.registry.get_sample_value(f"siorg_operator_{name}", one | labels) == 0, name
