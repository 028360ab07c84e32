"""Times of other machines: the cluster's is kept by the Date of its answers, and what lies ahead of it is no reason to wait."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from email.utils import format_datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siorg_operator.cluster.clock import ClusterClock
from siorg_operator.decide.clocks import not_ahead
from siorg_operator.decide.jobs import JobRecord
from siorg_operator.decide.pods import PodRecord, pod_record
from siorg_operator.decide.state import Stuck
from support.job_objects import a_pod, complete, record_of, running, terminated
from support.operator_values import NOW, at

AHEAD = at(400 * 86_400)


@dataclass
class Machines:
    """Ours, whose clock is ``wrong`` by so many seconds, and the API server; ``seconds`` have gone by since the beginning."""

    wrong: float = 0.0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.clock = ClusterClock(lambda: at(self.seconds + self.wrong), lambda: 1000 + self.seconds)

    def ask(self, there: float = 0.0, back: float = 0.0) -> None:
        """One request: so many seconds on its way there and back. Its Date is cut to whole seconds."""
        asked_at = self.clock.monotonic()
        self.seconds += there
        date = format_datetime(at(self.seconds).replace(microsecond=0), usegmt=True)
        self.seconds += back
        self.clock.answered(date, asked_at, self.clock.monotonic())

    @property
    def error(self) -> float:
        return abs((self.clock.now() - at(self.seconds)).total_seconds())


@pytest.mark.parametrize("wrong", [-86_400.0, 0.0, 6 * 60.0, 16 * 60.0])
def test_the_clusters_time_is_the_api_servers_however_wrong_ours_is(wrong: float) -> None:
    machines = Machines(wrong)
    assert machines.error == abs(wrong)  # nothing else is known yet
    machines.ask()
    assert machines.error <= 0.5
    machines.seconds += 3600
    machines.wrong = 12_345.0  # somebody sets it
    assert machines.error <= 0.5


@given(st.lists(st.tuples(st.floats(0, 20), st.floats(0, 20), st.floats(0, 100)), min_size=1, max_size=20))
def test_no_answer_however_slow_makes_it_worse(requests: list[tuple[float, float, float]]) -> None:
    machines = Machines(wrong=960.0)
    errors = []
    for there, back, pause in requests:
        machines.ask(there, back)
        errors.append(machines.error)
        machines.seconds += pause
    # A thousandth is what the numbers are rounded by.
    assert all(error <= before + 0.001 or error <= 1.001 for before, error in pairwise(errors))
    assert errors[0] <= (requests[0][0] + requests[0][1]) / 2 + 0.501


@pytest.mark.parametrize("date", [None, "", "soon", "Sun, 99 Nov 2026 12:00:00 GMT"])
def test_what_is_no_date_is_not_learned_from(date: str | None) -> None:
    machines = Machines(wrong=5.0)
    machines.clock.answered(date, 1000.0, 1000.0)
    assert machines.error == 5.0


def test_a_server_whose_clock_was_set_is_followed() -> None:
    machines = Machines()
    machines.ask()
    machines.clock.answered(format_datetime(at(-500), usegmt=True), 1000.0, 1000.0)
    assert machines.clock.now() <= at(-499)


# -- what lies ahead --------------------------------------------------------------------------------------------------


def job(finished: datetime | None, created: datetime = NOW) -> JobRecord:
    return JobRecord("siorg-0-1", "uid", 0, 1, "template", created, finished, "BackoffLimitExceeded")


def pod(**fields: Any) -> PodRecord:
    return replace(PodRecord("pod", running=False, started_at=None), **fields)


def test_what_lies_ahead_happened_when_it_was_first_seen_also_once_its_own_time_comes() -> None:
    for raw in (AHEAD, at(360)):
        seen = not_ahead(job(raw, created=raw), None, at(10))
        assert (seen.created_at, seen.finished_at) == (at(10), at(10))
        for later in (20, 400):
            assert not_ahead(job(raw, created=raw), seen, at(later)) == seen
    assert not_ahead(pod(finished_at=AHEAD, started_at=at(1)), pod(), at(10)) == pod(finished_at=at(10), started_at=at(1))
    assert not_ahead(pod(silent_since=AHEAD), None, at(10)) == pod(silent_since=at(10))
    assert not_ahead(replace(job(None), ending_since=AHEAD), None, at(10)) == replace(job(None), ending_since=at(10))


def test_what_has_happened_keeps_its_time() -> None:
    ended, waiting = job(at(-5)), pod(stuck=Stuck("Unschedulable", "", at(-3)))
    assert not_ahead(ended, None, NOW) is not_ahead(ended, ended, at(100)) is ended
    assert not_ahead(waiting, None, NOW) is not_ahead(waiting, waiting, at(100)) is waiting


def test_the_grace_of_a_pod_whose_trouble_is_dated_ahead_runs_from_when_it_was_seen() -> None:
    for state in ("stuck", "on_its_way"):
        record = pod(**{state: Stuck("Unschedulable", "0/3 nodes", AHEAD)})
        seen = not_ahead(record, pod(), at(10))
        assert getattr(seen, state) == Stuck("Unschedulable", "0/3 nodes", at(10))
        assert not_ahead(record, seen, at(500)) == seen


def test_what_a_pod_waits_for_next_has_a_time_of_its_own() -> None:
    gated, creating = Stuck("SchedulingGated", "", NOW), Stuck("ContainerCreating", "", at(900))
    assert not_ahead(pod(on_its_way=creating), pod(on_its_way=gated), at(901)) == pod(on_its_way=creating)


# -- what lies behind -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("behind", "started", "finished"), [(0, -40, -10), (10, -50, -20), (95, -55, -25), (9000, -55, -25)])
def test_no_worker_started_before_its_pod_had_a_node_whatever_the_nodes_clock_says(
    behind: float, started: float, finished: float
) -> None:
    """Made 60 s ago, scheduled 55 s ago. By a clock that is behind a probe would have run for minutes in its first second."""
    worked = pod_record(a_pod(terminated(0, since=-40 - behind, until=-10 - behind)))
    assert (worked.started_at, worked.finished_at) == (at(started), at(finished))
    works = a_pod(running(-40 - behind))
    assert pod_record(works).started_at == at(started)
    works["status"]["conditions"] = []
    assert pod_record(works).started_at == at(max(-40 - behind, -60))


def test_no_job_ended_before_it_was_made_whatever_the_controller_managers_clock_says() -> None:
    for when, told in ((-10, -10), (-400, -60)):
        assert record_of(complete(when) | {"status": complete(when)["status"] | {"completionTime": None}}).finished_at == at(told)
