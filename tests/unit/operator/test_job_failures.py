"""When Jobs fail: what counts as one failure, what ends the row, and when the next one may try."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from siorg_operator.decide.job_failures import Failures, Pacing, assess
from siorg_operator.decide.state import Ending, Job, Summary, later
from support.operator_values import NOW, active, at, ended, job, pending, summary, template_of

FAILED, SIORG, LIMITED, NOTHING = Ending.FAILED, Ending.SIORG_UNAVAILABLE, Ending.SIORG_RATE_LIMITED, Ending.NOTHING
DEADLINE, LOST = Ending.DEADLINE, Ending.LOST


def found(jobs: Sequence[Job], remembered: Failures | None = None, **more: Any) -> Failures | None:
    values: dict[str, Any] = {"template": template_of(), "now": NOW, "pacing": Pacing()} | more
    return assess(jobs, remembered, **values)


def streak(*jobs: Job, remembered: Failures | None = None, **more: Any) -> int:
    failures = found(jobs, remembered, **more)
    return 0 if failures is None or failures.recovered_at is not None else failures.streak


def failures_at(when: float, ending: Ending = FAILED, *, times: int = 1, template: str | None = None) -> Failures:
    return Failures(ending, times, at(when), at(when), "remembered", template_of() if template is None else template)


def nothing(when: float = -10, *, slot: int = 0, **more: Any) -> Job:
    """A Job that claimed nothing and ended well."""
    return ended(when, slot=slot, summary=summary(0), **more)


# -- what counts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", sorted(set(Ending) - {Ending.DONE, DEADLINE, NOTHING}))
def test_every_end_but_a_good_one_is_a_failure(ending: Ending) -> None:
    one = ended(-10, ending, message="what is known")
    assert found([one]) == Failures(ending, 1, at(-10), at(-10), f"{one.name}: what is known", template_of())


def test_what_has_not_ended_or_nobody_can_explain_is_none() -> None:
    for jobs in ([], [job(0), *active(1, first_slot=1)], [replace(ended(-10, FAILED), ending=None)]):
        assert found(jobs) is None


def test_failures_one_after_the_other_count_each() -> None:
    jobs = [ended(-300, FAILED, round_=1), ended(-200, FAILED, round_=2), ended(-100, SIORG, round_=3, message="the last")]
    assert found(jobs) == Failures(SIORG, 3, at(-300), at(-100), f"{jobs[-1].name}: the last", template_of())


def test_failures_beside_one_another_count_once() -> None:
    # All of them made before the first one failed: they met the same failure.
    jobs = [ended(-60 + slot, FAILED, slot=slot, made=-100) for slot in range(5)]
    assert found(jobs) == Failures(FAILED, 1, at(-60), at(-56), jobs[-1].name, template_of())
    assert streak(ended(-60, FAILED), ended(-30, FAILED, slot=1, made=-60)) == 1  # made in that very second
    assert streak(ended(-60, FAILED, slot=0), ended(-60, FAILED, slot=1)) == 1


@pytest.mark.parametrize(
    ("what", "lived", "counts"),
    [
        (summary(9), 60, False),
        (summary(0), 21_600, True),
        (None, 59, True),
        (None, 60, False),
        (None, 21_600, False),  # the Job controller removes the pod, and with it what it did
    ],
    ids=["worked", "did nothing", "short", "a minute", "long"],
)
def test_the_deadline_is_a_failure_only_for_one_that_did_nothing(what: Summary | None, lived: float, counts: bool) -> None:
    assert streak(ended(-10, DEADLINE, lived=lived, made=-10 - lived, summary=what)) == int(counts)


def test_a_lost_pod_is_a_failure_only_where_it_befalls_all_of_them_soon_after_their_start() -> None:
    lost = ended(-10, LOST, lived=5)
    assert streak(lost) == 1
    assert streak(lost, *active(1, first_slot=1, started=-20)) == 0
    assert streak(lost, ended(-5, slot=1, lived=20)) == 0
    assert streak(lost, *active(1, first_slot=1, started=-9), ended(-5, FAILED, slot=2, template="older")) == 1
    assert streak(ended(-10, LOST, lived=60)) == 0
    assert streak(ended(-60, FAILED), lost, *active(1, first_slot=1, started=-20)) == 1  # nor does it end any


# -- what ends it -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [FAILED, Ending.DATABASE_UNAVAILABLE, Ending.WRONG_SETTINGS, Ending.STUCK])
def test_a_success_ends_it(ending: Ending) -> None:
    for what in (summary(5), summary(0), None):
        assert streak(ended(-60, ending), ended(-10, round_=2, summary=what)) == 0, what


@pytest.mark.parametrize("ending", [SIORG, LIMITED])
@pytest.mark.parametrize(
    ("what", "ends"),
    [
        (summary(5), True),
        (summary(0, requests=3), True),
        (summary(0, requests=3, request_errors=3), False),
        (summary(0), False),  # found an empty queue, and never asked
        (summary(0, released=10, requests=0), False),
        (summary(0, skipped=1, requests=0), True),
        (None, True),
    ],
    ids=["work", "answers", "errors", "empty", "released", "skipped", "untold"],
)
def test_what_never_asked_siorg_does_not_end_siorgs_failures(ending: Ending, what: Summary | None, ends: bool) -> None:
    assert streak(ended(-60, ending), ended(-10, round_=2, summary=what)) == (0 if ends else 1)


@pytest.mark.parametrize(
    "jobs",
    [
        [ended(-60, summary=summary(5)), ended(-10, FAILED, round_=2)],
        # Of two ends in one second the failure counts.
        [ended(-10, FAILED, slot=0), ended(-10, slot=1, summary=summary(5))],
        # After a success counting begins anew.
        [ended(-90, FAILED), ended(-50, round_=3, summary=summary(1)), ended(-10, FAILED, round_=4)],
        [ended(-60, FAILED), ended(-10, DEADLINE, round_=2, summary=summary(9))],
        [ended(-300, FAILED), ended(-200, round_=2), ended(-110, SIORG, round_=3), ended(-100, SIORG, slot=1, made=-120)],
    ],
    ids=["older", "same second", "anew", "deadline", "beside"],
)
def test_what_does_not_end_it(jobs: list[Job]) -> None:
    assert streak(*jobs) == 1
    assert found(jobs) == found(jobs[::-1])  # in whatever order they are listed


@pytest.mark.parametrize(
    ("failed", "started", "more", "left"),
    [
        (ended(-300, FAILED, lived=5), -59, {}, 1),
        (ended(-300, FAILED, lived=5), -60, {}, 0),
        (ended(-30, FAILED, lived=1), -5, {"pacing": Pacing(healthy_after=5)}, 0),
        # It has to outlive those that failed …
        (ended(-300, FAILED, lived=100), -149, {}, 1),
        (ended(-300, FAILED, lived=100), -150, {}, 0),
        # … since they failed: that it ran before proves nothing.
        (ended(-59, FAILED, lived=5), -10_000, {}, 1),
        (ended(-60, FAILED, lived=5), -10_000, {}, 0),
        # Backing off for minutes changes nothing about Jobs that live for hours.
        (ended(-450, FAILED, lived=7200), -9000, {}, 0),
        # It gave up after 30 s of waiting, however long it had worked: its life says nothing about how long to wait.
        (ended(-4000, SIORG, lived=10_790), -59, {}, 1),
        (ended(-4000, SIORG, lived=10_790), -61, {}, 0),
        (ended(-4000, SIORG, lived=3600), -500, {"patience": 600}, 1),
        (ended(-4000, SIORG, lived=3600), -901, {"patience": 600}, 0),
        # It runs on over rows that it cannot claim.
        (nothing(-3000), -2000, {}, 1),
    ],
)
def test_a_job_that_has_run_for_long_enough_ends_it(failed: Job, started: float, more: dict[str, Any], left: int) -> None:
    assert streak(failed, *active(1, first_slot=1, started=started), **more) == left


def test_a_pod_that_is_on_its_way_proves_nothing() -> None:
    assert streak(ended(-9000, FAILED, lived=5), *pending(1, first_slot=1, created_at=at(-8000))) == 1


@pytest.mark.parametrize(
    ("ending", "completed", "over"),
    [
        # The pause is of 5 s, and of the rest of the failure's second.
        (SIORG, -44, "recovery"),
        (LIMITED, -44, "recovery"),
        (SIORG, -45, "trouble"),
        (SIORG, None, "trouble"),
        (Ending.DATABASE_UNAVAILABLE, -39, "recovery"),
        (Ending.DATABASE_UNAVAILABLE, -40, "trouble"),
        (Ending.STUCK, -30, "well"),
        (Ending.WRONG_SETTINGS, -30, "well"),
        (NOTHING, -30, "well"),
        # To these a Job may come after it has completed a good deal.
        (FAILED, -30, "trouble"),
        (Ending.OUT_OF_MEMORY, -30, "trouble"),
        (DEADLINE, -30, "trouble"),
        (LOST, -30, "trouble"),
    ],
)
def test_the_first_item_that_a_job_completes_after_the_pause_ends_it(ending: Ending, completed: float | None, over: str) -> None:
    completed_at = None if completed is None else at(completed)
    failures = found(active(1, first_slot=1, started=-55, completed_at=completed_at), failures_at(-50, ending))
    assert ("well" if failures is None else "trouble" if failures.recovered_at is None else "recovery") == over
    if failures is not None and failures.recovered_at is not None:
        assert failures == replace(failures_at(-50, ending), recovered_at=at(completed or 0))


def test_what_jobs_of_another_template_complete_proves_nothing() -> None:
    jobs = active(1, first_slot=1, started=-45, completed_at=at(-40), template="before")
    assert streak(*jobs, remembered=failures_at(-60, SIORG)) == 1


# -- recovery ---------------------------------------------------------------------------------------------------------


def recovered(when: float, ending: Ending = SIORG, *, times: int = 4) -> Failures:
    return replace(failures_at(when - 30, ending, times=times), recovered_at=at(when))


@pytest.mark.parametrize(
    ("since", "jobs", "left"),
    [
        (-299, [], "recovering 4"),
        (-300, [], "well"),
        # A relapse goes on counting, once for those beside one another.
        (-200, [ended(-10, SIORG, made=-150)], "trouble 5"),
        (-200, [ended(-10, SIORG, slot=slot, made=-150 + slot) for slot in range(8)], "trouble 5"),
        (-200, [ended(-10, LIMITED, made=-150)], "trouble 5"),
        (-200, [ended(-10, SIORG, made=-1000)], "trouble 5"),  # one that was there all the time
        (-200, [ended(-60, SIORG, made=-90), ended(-10, SIORG, slot=1, made=-50)], "trouble 6"),
        (-200, [ended(-200, SIORG, made=-250)], "trouble 5"),  # in the same second
        # Well for five minutes, or another trouble: from the start.
        (-320, [ended(-10, SIORG, made=-150)], "trouble 1"),
        (-200, [ended(-10, FAILED, made=-150)], "trouble 1"),
        (-200, [nothing(-10, made=-150)], "trouble 1"),
        # No relapse.
        (-200, [ended(-201, SIORG, slot=1, made=-250)], "recovering 4"),
        (-200, [ended(-10, SIORG, made=-150, template="before")], "recovering 4"),
        (-200, [ended(-10, made=-150, summary=summary(5))], "recovering 4"),
    ],
)
def test_an_absence_again_within_five_minutes_is_the_same_trouble(since: float, jobs: list[Job], left: str) -> None:
    failures = found(jobs, recovered(since))
    told = "well" if failures is None else f"{'trouble' if failures.recovered_at is None else 'recovering'} {failures.streak}"
    assert told == left
    assert found(jobs, failures) == failures  # nothing counts twice


@pytest.mark.parametrize(
    ("jobs", "room"),
    [
        ([], 1),
        (active(1, completed_at=NOW), 1),
        (active(2, completed_at=NOW), 2),
        (active(4, completed_at=NOW), 4),
        # Not yet seen to bear the last ones.
        (active(2, created_at=at(-10), completed_at=at(-9)), 2),
        (active(2, created_at=at(-10), completed_at=at(-9.1)), 0),
        (active(2, created_at=at(-10)), 0),
        # It does not wait for pods.
        ([*active(1, completed_at=at(-5)), *pending(1, first_slot=1, created_at=at(-10))], 2),
        (pending(2, created_at=at(-10)), 0),
        # Jobs that complete nothing, yet go on.
        (active(2, created_at=at(-60)), 2),
        (pending(2, created_at=at(-60)), 2),
    ],
)
def test_jobs_double_as_they_complete_items(jobs: list[Job], room: int) -> None:
    assert recovered(-70).room(jobs, NOW, Pacing()) == room


# -- nothing to claim -------------------------------------------------------------------------------------------------


def test_jobs_that_claimed_nothing_alone_count_each() -> None:
    assert found([ended(-10, summary=replace(summary(0), reason="disabled"))]) is None  # told to do nothing
    assert found([nothing()]) == Failures(NOTHING, 1, at(-10), at(-10), nothing().name, template_of())
    assert streak(nothing(-200, round_=1), nothing(-100, round_=2), nothing(-10, round_=3)) == 3


def test_one_that_came_too_late_beside_another_is_none() -> None:
    took, unknown = ended(-20, slot=1, summary=summary(50)), ended(-20, slot=1, ending=FAILED)
    for beside in (took, unknown, *active(1, started=-30, first_slot=1)):
        failures = found([nothing(), beside])
        assert failures is None or failures.ending is not NOTHING, beside


def test_a_job_that_claims_something_ends_it_and_an_empty_one_does_not_end_siorgs() -> None:
    assert streak(nothing(-60), ended(-10, round_=2, summary=summary(1))) == 0
    assert found([ended(-60, SIORG), nothing(-10, round_=2)]) == found([ended(-60, SIORG)])


# -- templates and memory ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("jobs", "remembered", "template", "times"),
    [
        ([ended(-10, FAILED, template="before")], None, template_of(), 0),
        ([], failures_at(-10, times=7, template="before"), template_of(), 0),
        ([], failures_at(-10, times=7, template=""), template_of(), 7),
        # While the template is not known nothing is forgotten.
        ([], failures_at(-10, times=7, template="before"), None, 7),
        ([ended(-10, FAILED, template="whatever")], None, None, 1),
        # What was made from an older template proves nothing about the new one.
        ([ended(-60, FAILED), ended(-10, slot=1, template="before", summary=summary(3))], None, template_of(), 1),
        ([ended(-600, FAILED), *active(1, first_slot=1, started=-9000, template="before")], None, template_of(), 1),
    ],
)
def test_another_template_is_another_matter(
    jobs: list[Job], remembered: Failures | None, template: str | None, times: int
) -> None:
    assert streak(*jobs, remembered=remembered, template=template) == times


@pytest.mark.parametrize(
    ("jobs", "remembered", "times"),
    [
        ([], failures_at(-30, SIORG, times=4), 4),
        # What is remembered is not counted again, nor what is seen late.
        ([ended(-90, FAILED), ended(-60, FAILED, round_=2), ended(-30, FAILED, round_=3)], failures_at(-30, times=3), 3),
        ([ended(-40, FAILED)], failures_at(-30, times=3), 3),
        ([ended(-5, summary=summary(1))], failures_at(-30, times=9), 0),
        (active(1, started=-61), failures_at(-300, times=9), 0),
    ],
    ids=["gone", "counted", "late", "success", "running probe"],
)
def test_is_remembered_when_its_jobs_are_gone(jobs: list[Job], remembered: Failures, times: int) -> None:
    assert streak(*jobs, remembered=remembered) == times


def test_what_is_new_counts_on_and_what_was_settled_before_is_not_raised_again() -> None:
    one = ended(-5, SIORG, lived=3, made=-20, message="new")
    assert found([one], failures_at(-30, times=3)) == Failures(SIORG, 4, at(-30), at(-5), f"{one.name}: new", template_of())
    jobs = [ended(-90, FAILED), ended(-61, FAILED, round_=2), ended(-60, round_=2)]
    assert streak(*jobs, settled=at(-60)) == 0
    # Kubernetes tells whole seconds: this one was still running when the one before it was judged.
    assert streak(*jobs, ended(-60, FAILED, round_=3), settled=at(-60)) == 1
    assert streak(*jobs, ended(-30, FAILED, round_=3), settled=at(-60)) == 1


# -- when the next one may try ----------------------------------------------------------------------------------------


def pause(
    times: int, ending: Ending = FAILED, identity: str = "x", pacing: Pacing | None = None, patience: float = 30.0
) -> float:
    failures = failures_at(0, ending, times=times)
    return (failures.retry_at(pacing or Pacing(), identity, patience) - failures.last_failure).total_seconds()


@pytest.mark.parametrize(
    ("endings", "pauses"),
    [
        ([FAILED, NOTHING, Ending.OUT_OF_MEMORY], {1: 10, 2: 20, 3: 40, 5: 160, 6: 300, 7: 300, 10**9: 300}),
        ([LIMITED], {1: 5, 2: 10, 6: 160, 8: 600, 10**9: 600}),
        # Eight probes that wait for 30 s each, and a pause between them: five minutes.
        ([SIORG], {1: 5, 9: 5, 10: 10, 11: 20, 15: 320, 16: 600, 10**9: 600}),
    ],
)
def test_the_pause_doubles_up_to_its_longest(endings: list[Ending], pauses: dict[int, float]) -> None:
    for ending in endings:
        for times, seconds in pauses.items():
            assert seconds <= pause(times, ending) - 1 <= seconds * 1.2, (ending, times)
    assert 1 <= pause(1, pacing=Pacing(failing_base=1)) - 1 <= 1.2


@pytest.mark.parametrize(("patience", "eager"), [(0.0, 51), (0.2, 49), (30.0, 9), (600.0, 1)])
def test_siorg_is_probed_eagerly_for_about_five_minutes_however_patient_jobs_are(patience: float, eager: int) -> None:
    assert [pause(times, SIORG, patience=patience) < 8 for times in (eager, eager + 1)] == [True, False]


def test_a_probe_leaves_when_the_second_of_the_failure_is_over() -> None:
    """Times are cut to whole seconds: what fails within the same one is not told apart."""
    failures = failures_at(0)
    assert failures.retry_at(Pacing(failing_base=0), "x") >= failures.last_failure + timedelta(seconds=1)


def test_resources_do_not_all_try_at_one_moment() -> None:
    assert len({pause(3, identity=f"resource-{n}") for n in range(50)}) > 25
    assert pause(3, identity="one") == pause(3, identity="one")


def test_the_end_of_time_is_late_enough() -> None:
    end = datetime.max.replace(tzinfo=NOW.tzinfo)
    assert later(end, 1) == later(NOW, 1e300) == end
    assert Failures(FAILED, 99, NOW, end).retry_at(Pacing(), "x") == end
