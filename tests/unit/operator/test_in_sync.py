"""Whether the copy is in line: what the condition InSync says of the stored verifications; nothing depends on it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from siorg_operator.decide.in_sync import expected_seconds, in_sync
from siorg_operator.decide.state import Verification, Verifications
from support.fake_cluster import NO_CRON_JOBS, FakeCluster, FakeOperator
from support.operator_values import at, queue_of, unreadable, verification, worker

DAY = 86_400
NO_RIGHT = (
    "permission denied for table siorg_verifications: let the tables' owner run GRANT SELECT ON siorg_verifications TO siorg"
)
DAILY: dict[str, Any] = {"verification": {"schedule": "@daily"}}
OFF: dict[str, Any] = {"verification": {"enabled": False}}


@pytest.mark.parametrize(
    ("stored", "spec", "expected"),
    [
        (Verifications(), {}, ("Unknown", "NotVerified", "No complete verification is stored yet")),
        (Verifications(verification(3 * DAY)), {}, ("True", "Verified", "Verified 3 days ago: 74350 rows of 328 organizations")),
        (Verifications(verification(30)), {}, ("True", "Verified", "Verified less than two hours ago: ")),
        (Verifications(verification(3 * 3600)), {}, ("True", "Verified", "Verified 3 hours ago: ")),
        (Verifications(verification(14 * DAY)), {}, ("True", "Verified", "Verified 14 days ago: ")),
        (Verifications(verification(14 * DAY + 1)), {}, ("Unknown", "VerificationOld", "(7 days)")),
        (Verifications(verification(3 * DAY)), DAILY, ("Unknown", "VerificationOld", "its interval (24 hours)")),
        (Verifications(verification(DAY, drift=5, enqueued=4)), {}, (
            "False", "DriftFound", "5 values differ from SIORG without a reason; 74350 rows of 328 organizations compared; 4",
        )),
        (Verifications(verification(15 * DAY, drift=5)), {}, ("Unknown", "VerificationOld", "found 5 drift")),
        # Departures with a name are told, and are no drift.
        (Verifications(verification(DAY, departures={"edited": 3, "conflict": 12, "failed": 0})), {}, (
            "True", "Verified", "and no drift (departures with a reason: 12 conflict, 3 edited)",
        )),
        # One that could not compare everything never replaces a complete one.
        (Verifications(verification(DAY), 60.0, "SIORG answered 503 for 471"), {}, (
            "True", "Verified", "could not compare everything: SIORG answered 503 for 471",
        )),
        (Verifications(verification(DAY), 2.0 * DAY, "long over"), {}, ("True", "Verified", "compared, and no drift")),
        (Verifications(None, 3.0 * DAY, "SIORG is away"), {}, (
            "Unknown", "Incomplete", "The verification 3 days ago could not compare everything: SIORG is away",
        )),
        (Verifications(verification(20 * DAY), 60.0), {}, ("Unknown", "Incomplete", "could not compare everything")),
        (Verifications(verification(20 * DAY), 19.0 * DAY), {}, ("Unknown", "VerificationOld", "20 days ago")),
        (Verifications(unreadable=NO_RIGHT), {}, ("Unknown", "NotVerified", "GRANT SELECT ON siorg_verifications")),
        (Verifications(), OFF, ("Unknown", "NotVerified", "spec.verification.enabled is false: nothing is verified")),
        (Verifications(verification(DAY, drift=5)), OFF, ("Unknown", "NotVerified", "the last one, 24 hours ago, found 5 drift")),
    ],
)  # fmt: skip
def test_what_is_stored_is_judged(stored: Verifications, spec: dict[str, Any], expected: tuple[str, str, str]) -> None:
    found = in_sync(worker(**spec), queue_of(9, verifications=stored))
    assert (found.status, found.reason) == expected[:2]
    assert expected[2] in found.message


def test_of_a_queue_that_cannot_be_read_nothing_is_known() -> None:
    assert in_sync(worker(), unreadable())[:2] == ("Unknown", "NotVerified")


@pytest.mark.parametrize(
    "stored",
    [Verifications(), Verifications(verification(9, drift=5)), Verifications(unreadable=NO_RIGHT), Verifications(None, 9.0)],
)
def test_nothing_depends_on_it(stored: Verifications) -> None:
    cluster = FakeCluster(queue_of(50, verifications=stored), **NO_CRON_JOBS | {"verification": {}})
    FakeOperator(cluster).reconcile()
    assert len(cluster.unfinished) == 1
    assert cluster.conditions["InSync"][0] != "True"
    assert cluster.conditions["Ready"][:2] == ("True", "AsExpected")
    assert cluster.conditions["Degraded"][0] == "False"


def test_the_status_holds_the_newest_result_also_while_it_cannot_be_read() -> None:
    stored = Verifications(verification(DAY, drift=5, enqueued=4, departures={"edited": 3}))
    cluster = FakeCluster(queue_of(0, verifications=stored))
    operator = FakeOperator(cluster)
    operator.reconcile()
    shown = {
        "finishedTime": "2026-11-23T12:00:00Z", "organizations": 328, "rows": 74350, "drift": 5, "enqueued": 4,
        "departures": dict.fromkeys(("conflict", "held", "ended", "failed", "waiting", "outside"), 0) | {"edited": 3},
    }  # fmt: skip
    assert cluster.status["verification"] == shown
    for queue in (unreadable(), queue_of(0, verifications=Verifications(unreadable=NO_RIGHT))):
        cluster.queue = queue
        operator.reconcile()
        assert cluster.status["verification"] == shown
        assert cluster.conditions["InSync"][0] == "Unknown"
    cluster.queue = queue_of(0)
    operator.reconcile()
    assert "verification" not in cluster.status


def test_drift_is_told_once_when_it_is_found_and_when_it_is_gone() -> None:
    cluster = FakeCluster(queue_of(0))
    operator = FakeOperator(cluster)
    clean, drifted = verification(60), verification(50, drift=5)
    for found in (clean, drifted, replace(drifted, drift=6), clean):
        cluster.queue = queue_of(0, verifications=Verifications(found))
        operator.reconcile()
    assert [(event.type, event.reason) for event in cluster.events] == [("Warning", "DriftFound"), ("Normal", "InSync")]


def test_an_age_that_grows_is_written_anew_only_when_its_words_change() -> None:
    def aged(seconds: float) -> Verification:
        return replace(verification(0), age_seconds=seconds)

    cluster = FakeCluster(queue_of(0, verifications=Verifications(aged(2 * DAY))))
    operator = FakeOperator(cluster)
    operator.reconcile()
    cluster.steps.clear()
    for minutes in range(1, 24 * 60, 10):
        cluster.now = at(60 * minutes)
        cluster.queue = queue_of(0, verifications=Verifications(aged(2 * DAY + 60 * minutes)))
        operator.reconcile()
    assert cluster.steps == []


@pytest.mark.parametrize(
    ("spec", "seconds"),
    [({}, 14 * DAY), (DAILY, 2 * DAY), (OFF, None), ({"suspend": True}, None),
     ({"mode": "Observe"}, None), ({"verification": {"schedule": "0 0 30 2 *"}}, None)],
)  # fmt: skip
def test_one_is_missing_after_twice_its_interval_where_it_is_wanted(spec: dict[str, Any], seconds: float | None) -> None:
    assert expected_seconds(worker(**spec)) == seconds
