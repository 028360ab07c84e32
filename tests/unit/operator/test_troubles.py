"""What the log tells of troubles: once that one begins, once that it is over."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from siorg_operator.decide.state import Ending, Job, QueueState
from support.fake_cluster import NO_CRON_JOBS, FakeCluster, FakeOperator
from support.operator_values import at, ended, queue_of, summary, unreadable

DOWN = ended(-5, Ending.SIORG_UNAVAILABLE, lived=5)
UP = ended(200, round_=2, lived=2, summary=summary(5))
LOOKS: dict[str, list[tuple[QueueState, list[Job], float, list[str]]]] = {
    "the database": [
        (queue_of(0), [], 0, []),
        *((unreadable(), [], when, ["WARNING DatabaseUnavailable"] if when == 1 else []) for when in (1, 2, 3)),
        *((unreadable(reason), [], 4, told) for reason, told in (
            ("AccessDenied", ["WARNING AccessDenied"]), ("DatabaseUnavailable", []), ("AccessDenied", []),
        )),
        (queue_of(0), [], 5, ["INFO QueueReachable"]),
        (queue_of(0), [], 6, []),
        (unreadable(), [], 7, ["WARNING DatabaseUnavailable"]),
    ],
    "its Secret": [
        (unreadable("SecretMissing"), [], 0, ["WARNING SecretMissing"]),
        (unreadable("SecretMissing"), [], 1, []),
        (queue_of(0), [], 2, ["INFO QueueReachable"]),
    ],
    "SIORG, which nobody asks for a while": [
        (queue_of(9), [DOWN], 0, ["WARNING SiorgUnavailable"]),
        (queue_of(0), [DOWN], 100, []),
        (queue_of(9), [DOWN], 110, []),
        (queue_of(0), [DOWN, UP], 201, ["INFO SiorgAvailable"]),
    ],
    "a wish": [(queue_of(9, sync_enabled=False), [], 0, ["INFO SyncDisabled"]), (queue_of(0), [], 1, ["INFO ScalingResumed"])],
}  # fmt: skip


@pytest.mark.parametrize("story", LOOKS)
def test_each_is_told_when_it_begins_and_when_it_is_over(story: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    cluster = FakeCluster(**NO_CRON_JOBS)
    operator = FakeOperator(cluster)
    for number, (queue, jobs, when, expected) in enumerate(LOOKS[story]):
        cluster.queue, cluster.jobs, cluster.now = queue, {job.name: job for job in jobs}, at(when)
        caplog.clear()
        operator.reconcile()
        assert lines(caplog) == expected, number


def test_what_has_begun_before_is_news_to_a_new_process(caplog: pytest.LogCaptureFixture) -> None:
    cluster = FakeCluster(unreadable(), **NO_CRON_JOBS)
    for _ in range(2):
        FakeOperator(cluster).reconcile()
    assert lines(caplog) == ["WARNING DatabaseUnavailable"] * 2


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    def told(record: Any) -> bool:
        return "reason" in getattr(record, "siorg_fields", {})

    return [f"{record.levelname} {record.getMessage()}" for record in caplog.records if told(record)]


def test_an_outage_is_told_also_where_the_status_cannot_be_written(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    cluster = FakeCluster(unreadable(), **NO_CRON_JOBS)
    cluster.refuses = lambda step: OSError("gone") if step == "status" else None
    with pytest.raises(OSError, match="gone"):
        FakeOperator(cluster).reconcile()
    assert lines(caplog) == ["WARNING DatabaseUnavailable"]
