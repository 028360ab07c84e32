"""What the operator's metrics say after what happened; what is not known has no series."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from siorg_operator.decide.planned import Hold, Launch, Plan
from siorg_operator.decide.reasons import Reason
from siorg_operator.decide.sizing import Rates, Size
from siorg_operator.decide.state import (
    DEPARTURES,
    Ending,
    Job,
    JobState,
    QueueState,
    Reading,
    Summary,
    Unreadable,
    Verifications,
)
from siorg_operator.serving.metrics import OperatorMetrics, operator_registry
from support.operator_values import carried_out, verification

NOW = datetime(2026, 11, 24, tzinfo=UTC)
SIZE = Size(480, Rates(2.5, 1.0), desired=5, asked=5, asked_by="Size")
PLAN = Plan(Reason.LAUNCHED, SIZE, 3, (Launch(3, 1), Launch(4, 1)), predicted_drain_seconds=38.4, poll_seconds=5.0)
RESTING = replace(PLAN, launches=(), reason=Reason.ENOUGH_JOBS)


def held(reason: Reason) -> Plan:
    return replace(RESTING, reason=reason, hold=Hold(reason))


SUSPENDED = held(Reason.SUSPENDED)
READING = Reading(480, due=478, scheduled=7, processing=20, failed=3, conflict=1, held=4, oldest_due_seconds=12.5)
READ = QueueState(READING)
UNREAD = QueueState(Unreadable(Reason.DATABASE_UNAVAILABLE, "…"))
ONE = {"namespace": "siorg", "worker": "main"}


def job(state: JobState, ending: Ending | None = None, summary: Summary | None = None) -> Job:
    return Job("main-1", 0, 1, state, NOW, ending=ending, summary=summary)


class Exported:
    """Metrics, and what they say."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self.metrics = OperatorMetrics(self.registry)

    def decided(self, plan: Plan = RESTING, queue: QueueState = READ, *jobs: Job) -> None:
        self.metrics.decided("siorg", "main", carried_out(plan), queue, jobs)

    def says(self, name: str) -> dict[str, float]:
        """The values of the series of this name, by their labels but for whose they are."""
        return {
            " ".join(value for label, value in sample.labels.items() if label not in {"namespace", "worker"}): sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == f"siorg_operator_{name}"
        }

    def series(self) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
        return {
            (sample.name, tuple(sorted(sample.labels.items())))
            for family in text_string_to_metric_families(generate_latest(self.registry).decode())
            for sample in family.samples
        }


@pytest.fixture
def exported() -> Exported:
    return Exported()


def test_the_queue_is_told_as_it_was_read_and_one_that_cannot_be_read_has_no_depth_any_more(exported: Exported) -> None:
    known = {"due": 478, "scheduled": 7, "processing": 20, "failed": 3, "conflict": 1, "held": 4}
    names = ("queue_reachable", "queue_depth", "queue_depth_at_least", "queue_oldest_due_seconds", "predicted_drain_seconds")
    unknown = replace(held(Reason.DEPTH_UNKNOWN), size=Size(None, Rates(None, None)), predicted_drain_seconds=None)
    for plan, queue, sizes, values in (
        (RESTING, READ, known, (1, 480, 0, 12.5, 38.4)),
        (unknown, UNREAD, {}, (0, None, None, None, None)),
        (RESTING, QueueState(replace(READING, claimable=25_001, at_least=True)), known, (1, 25_001, 1, 12.5, 38.4)),
        (RESTING, QueueState(Reading(0)), dict.fromkeys(known, 0), (1, 0, 0, 0, 38.4)),  # an empty queue has waited no time
    ):
        exported.decided(plan, queue)
        found = {
            status: exported.registry.get_sample_value("siorg_sync_queue_size", {**ONE, "status": status}) for status in known
        }
        assert {status: size for status, size in found.items() if size is not None} == sizes
        assert tuple(exported.says(name).get("") for name in names) == values


def test_a_verification_and_what_is_held_are_told_as_they_were_read_and_what_is_not_known_has_no_series(
    exported: Exported,
) -> None:
    found = verification(60, drift=5, departures={"edited": 3})
    read = QueueState(Reading(0, held=2, held_oldest_seconds=90_000.0, verifications=Verifications(found)))
    kinds = dict.fromkeys(DEPARTURES, 0) | {"edited": 3, "drift": 5}
    for queue, departures, age, oldest in (
        (read, kinds, {"": 60}, {"": 90_000}),
        (UNREAD, {}, {}, {}),
        (read, kinds, {"": 60}, {"": 90_000}),
        (QueueState(Reading(0, verifications=Verifications(unreadable="no right"))), {}, {}, {"": 0}),  # nothing is held
    ):
        exported.decided(RESTING, queue)
        assert exported.says("departures") == departures
        assert (exported.says("verification_age_seconds"), exported.says("held_oldest_seconds")) == (age, oldest)
    for seconds, told in ((1209600.0, {"": 1209600}), (None, {})):
        exported.metrics.expects_verification("siorg", "main", seconds)
        assert exported.says("verification_expected_seconds") == told


def test_of_a_resource_that_cannot_be_understood_nothing_is_told_of_its_database(exported: Exported) -> None:
    exported.decided(RESTING, QueueState(Reading(5, verifications=Verifications(verification(60)))))
    exported.metrics.expects_verification("siorg", "main", 60.0)
    exported.metrics.refused("siorg", "main", Reason.INVALID_SPEC)
    for name in ("queue_depth", "held_oldest_seconds", "departures", "verification_age_seconds", "verification_expected_seconds"):
        assert exported.says(name) == {}, name


def test_jobs_are_counted_by_state_and_launches_by_what_asked_for_them(exported: Exported) -> None:
    exported.decided(RESTING, READ, job(JobState.ACTIVE), job(JobState.ACTIVE), job(JobState.PENDING), job(JobState.FAILED))
    assert exported.says("jobs") == {
        "suspended": 0, "pending": 1, "active": 2, "lost": 0, "succeeded": 0, "failed": 1,
    }  # fmt: skip
    assert exported.says("jobs_desired") == {"": 5}
    exported.decided(PLAN)
    exported.decided(PLAN)
    exported.decided(replace(PLAN, launches=(Launch(0, 2),), reason=Reason.PROBING))
    assert exported.says("launches_total") == {"Size": 4, "Probe": 1, "Time": 0, "MinJobs": 0}


def test_the_reason_that_holds_launches_back_stands_alone_and_goes(exported: Exported) -> None:
    exported.decided(SUSPENDED)
    exported.decided(SUSPENDED)
    assert exported.says("held_back") == {"Suspended": 1}
    exported.decided(held(Reason.JOBS_FAILING))
    assert exported.says("held_back") == {"JobsFailing": 1}
    exported.decided(PLAN)
    assert exported.says("held_back") == {}
    assert exported.says("decisions_held_back_total") == {"Suspended": 2, "JobsFailing": 1}


def test_the_rate_has_no_series_before_it_is_learned(exported: Exported) -> None:
    exported.decided(replace(RESTING, size=replace(SIZE, rates=Rates(None, None)), predicted_drain_seconds=None))
    assert exported.says("items_per_second") == {}
    exported.decided()
    assert exported.says("items_per_second") == {"": 2.5}
    assert exported.says("predicted_drain_seconds") == {"": 38.4}


def test_what_ended_jobs_did_is_counted(exported: Exported) -> None:
    did = {"completed": 40, "conflict": 1, "skipped": 2, "failed": 3, "retried": 4, "released": 5}
    summary = Summary("done", 0, 9.5, did, claimed=55, requests=50, request_errors=6)
    exported.metrics.job_ended("siorg", "main", job(JobState.SUCCEEDED, Ending.DONE, summary))
    exported.metrics.job_ended("siorg", "main", job(JobState.FAILED, Ending.DEADLINE))
    exported.metrics.job_ended("siorg", "main", job(JobState.FAILED, Ending.OUT_OF_MEMORY))
    assert exported.says("items_total") == did
    assert exported.says("siorg_requests_total") == {"ok": 44, "failed": 6}
    assert exported.says("jobs_ended_total") == {"Done": 1, "DeadlineExceeded": 1, "JobFailed": 1}
    assert exported.says("jobs_empty_total") == {}


def test_a_job_that_found_nothing_is_one_in_vain(exported: Exported) -> None:
    exported.decided()
    assert exported.says("jobs_empty_total") == {"": 0}
    away = Summary("siorg_unavailable", 75, 0.3)
    exported.metrics.job_ended("siorg", "main", job(JobState.SUCCEEDED, Ending.DONE, Summary("done", 0, 0.3)))
    exported.metrics.job_ended("siorg", "main", job(JobState.FAILED, Ending.SIORG_UNAVAILABLE, away))
    assert exported.says("jobs_empty_total") == {"": 1}


def test_times_are_told_in_buckets_fine_enough_for_what_is_promised(exported: Exported) -> None:
    exported.metrics.enqueue_to_launch.labels("siorg", "main").observe(0.04)
    exported.metrics.enqueue_to_launch.labels("siorg", "main").observe(0.24)
    counted = exported.says("enqueue_to_launch_seconds_bucket")
    assert {le: counted[le] for le in ("0.025", "0.05", "0.2", "0.25")} == {"0.025": 0, "0.05": 1, "0.2": 1, "0.25": 2}


def test_the_process_tells_of_itself(exported: Exported) -> None:
    exported.metrics.leader.set(1)
    assert exported.says("leader") == {"": 1}
    exported.metrics.api_call("create", "jobs", 201, 0.02)
    exported.metrics.api_call("create", "jobs", 0, 10.0)
    assert exported.says("api_calls_total") == {"create jobs 201": 1, "create jobs 0": 1}
    assert exported.says("api_call_seconds_count") == {"create jobs": 2}
    (version,) = exported.says("build_info")
    assert re.match(r"\d+\.\d+", version)


def everything(metrics: OperatorMetrics, worker: str) -> None:
    metrics.decided("siorg", worker, carried_out(PLAN), READ, [job(JobState.ACTIVE)])
    metrics.decided("siorg", worker, carried_out(SUSPENDED), READ, [])
    summary = Summary("done", 0, 1.0, {"completed": 1}, claimed=1, requests=1)
    metrics.job_ended("siorg", worker, job(JobState.SUCCEEDED, Ending.DONE, summary))
    metrics.decided("siorg", worker, carried_out(PLAN), QueueState(Reading(0, verifications=Verifications(verification(9)))), [])
    metrics.expects_verification("siorg", worker, 9.0)
    metrics.enqueue_to_launch.labels("siorg", worker).observe(0.1)
    metrics.pass_seconds.labels("siorg", worker).observe(0.1)
    metrics.read_seconds.labels("siorg", worker).observe(0.1)
    metrics.pass_errors.labels("siorg", worker, "500").inc()


def test_a_resource_that_is_gone_leaves_nothing_and_others_stay(exported: Exported) -> None:
    everything(exported.metrics, "other")
    before = exported.series()
    everything(exported.metrics, "main")
    assert exported.series() > before
    exported.metrics.forget("siorg", "main")
    assert exported.series() == before
    exported.metrics.forget("siorg", "main")
    everything(exported.metrics, "main")  # made again under the same name, it begins anew
    assert exported.series() > before
    assert exported.registry.get_sample_value("siorg_operator_decisions_held_back_total", {**ONE, "reason": "Suspended"}) == 1


def test_names_and_helps_are_as_prometheus_wants_them(exported: Exported) -> None:
    everything(exported.metrics, "main")
    exported.metrics.api_call("create", "jobs", 201, 0.02)
    for family in exported.registry.collect():
        assert re.fullmatch(r"siorg_[a-z_]+", family.name)
        assert family.documentation
        assert family.type != "counter" or all(sample.name.endswith("_total") for sample in family.samples)
        if family.type == "histogram" or family.name.endswith("_seconds"):
            assert family.name.endswith("_seconds")
            assert "Seconds" in family.documentation
        assert not [sample.name for sample in family.samples if sample.name.endswith("_created")]


def test_the_operators_registry_tells_of_the_process_too() -> None:
    registry = operator_registry()
    OperatorMetrics(registry)
    text = generate_latest(registry).decode()
    assert "process_resident_memory_bytes" in text
    assert "python_info" not in text
