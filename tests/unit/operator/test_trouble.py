"""When Jobs come home with trouble: what counts as one failure, what ends it, and when the next one may try."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from siorg_operator.decide.job_failures import Pacing, Trouble, assess, later
from siorg_operator.decide.state import Ending, Job, Summary
from support.operator_values import NOW, active, at, ended, job, pending, summary, template_of

PACING = Pacing()
FAILED, SIORG, LIMITED, DATABASE = (
    Ending.FAILED,
    Ending.SIORG_UNAVAILABLE,
    Ending.SIORG_RATE_LIMITED,
    Ending.DATABASE_UNAVAILABLE,
)


def found(jobs: Sequence[Job], remembered: Trouble | None = None, **more: Any) -> Trouble | None:
    values: dict[str, Any] = {"template": template_of(), "now": NOW, "pacing": PACING} | more
    return assess(jobs, remembered, **values)


def streak(*jobs: Job, remembered: Trouble | None = None, **more: Any) -> int:
    trouble = found(jobs, remembered, **more)
    return 0 if trouble is None else trouble.streak


def trouble_since(when: float, ending: Ending = FAILED, *, times: int = 1, template: str | None = None) -> Trouble:
    return Trouble(ending, times, at(when), at(when), "remembered", template_of() if template is None else template)


# -- what counts ------------------------------------------------------------------------------------------------------


def test_there_is_none_without_jobs() -> None:
    assert found([]) is None


@pytest.mark.parametrize("ending", sorted(set(Ending) - {Ending.DONE, Ending.DEADLINE, Ending.NOTHING}))
def test_every_end_but_a_good_one_is_trouble(ending: Ending) -> None:
    one = ended(-10, ending, message="what is known")
    assert found([one]) == Trouble(ending, 1, at(-10), at(-10), f"{one.name}: what is known", template_of())


def test_an_end_that_nobody_can_explain_is_none() -> None:
    assert found([replace(ended(-10, FAILED), ending=None)]) is None


def test_failures_one_after_the_other_count_each() -> None:
    jobs = [ended(-300, FAILED, round_=1), ended(-200, FAILED, round_=2), ended(-100, SIORG, round_=3, message="the last")]
    assert found(jobs) == Trouble(SIORG, 3, at(-300), at(-100), f"{jobs[-1].name}: the last", template_of())


def test_failures_beside_one_another_count_once() -> None:
    # All of them made before the first one failed: they met the same trouble.
    jobs = [ended(-60 + slot, FAILED, slot=slot, made=-100) for slot in range(5)]
    assert found(jobs) == Trouble(FAILED, 1, at(-60), at(-56), jobs[-1].name, template_of())


def test_one_that_was_made_in_the_second_of_the_failure_was_beside_it() -> None:
    assert streak(ended(-60, FAILED), ended(-30, FAILED, slot=1, made=-60)) == 1


def test_failures_in_the_same_second_count_once() -> None:
    assert streak(ended(-60, FAILED, slot=0), ended(-60, FAILED, slot=1)) == 1


def test_the_order_in_which_jobs_are_listed_does_not_matter() -> None:
    jobs = [ended(-300, FAILED), ended(-200, Ending.DONE, round_=2), ended(-100, SIORG, round_=3), ended(-50, SIORG, round_=4)]
    assert found(jobs) == found(jobs[::-1])
    assert streak(*jobs) == 2


# -- what ends it -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [FAILED, DATABASE, Ending.WRONG_SETTINGS, Ending.STUCK])
@pytest.mark.parametrize("what", [summary(5), summary(0), None], ids=["work", "empty", "untold"])
def test_a_success_ends_it(ending: Ending, what: Summary | None) -> None:
    assert streak(ended(-60, ending), ended(-10, round_=2, summary=what)) == 0


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
def test_what_never_asked_siorg_does_not_end_siorgs_trouble(ending: Ending, what: Summary | None, ends: bool) -> None:
    assert streak(ended(-60, ending), ended(-10, round_=2, summary=what)) == (0 if ends else 1)


def test_an_older_success_ends_nothing() -> None:
    assert streak(ended(-60, summary=summary(5)), ended(-10, FAILED, round_=2)) == 1


def test_of_two_ends_in_one_second_the_failure_counts() -> None:
    jobs = [ended(-10, FAILED, slot=0), ended(-10, slot=1, summary=summary(5))]
    assert streak(*jobs) == streak(*jobs[::-1]) == 1


def test_after_a_success_counting_begins_anew() -> None:
    jobs = [
        ended(-90, FAILED),
        ended(-80, FAILED, round_=2),
        ended(-50, round_=3, summary=summary(1)),
        ended(-10, FAILED, round_=4),
    ]
    assert streak(*jobs) == 1


@pytest.mark.parametrize(("runs_for", "left"), [(59, 1), (60, 0)])
def test_a_probe_that_has_run_for_long_enough_ends_it(runs_for: float, left: int) -> None:
    assert streak(ended(-300, FAILED, lived=5), *active(1, started=-runs_for)) == left


@pytest.mark.parametrize(("runs_for", "left"), [(149, 1), (150, 0)])
def test_it_has_to_outlive_those_that_failed(runs_for: float, left: int) -> None:
    assert streak(ended(-300, FAILED, lived=100), *active(1, started=-runs_for)) == left


def test_a_job_that_ran_before_the_failure_proves_nothing_by_its_age() -> None:
    assert streak(ended(-59, FAILED, lived=5), *active(1, first_slot=1, started=-10_000)) == 1
    assert streak(ended(-60, FAILED, lived=5), *active(1, first_slot=1, started=-10_000)) == 0


def test_a_pod_that_is_on_its_way_proves_nothing() -> None:
    assert streak(ended(-9000, FAILED, lived=5), *pending(1, first_slot=1, created_at=at(-8000))) == 1


def test_a_crash_after_hours_does_not_hold_back_for_hours() -> None:
    # Backing off for minutes changes nothing about Jobs that live for hours.
    crash = ended(-450, FAILED, lived=7200)
    assert streak(crash, *active(1, first_slot=1, started=-9000)) == 0


def test_a_job_that_worked_for_hours_before_siorg_went_need_not_be_outlived() -> None:
    # It gave up after 30 s of waiting, however long it had worked: its life says nothing about how long to wait.
    assert streak(ended(-4000, SIORG, lived=10_790), *active(1, started=-59)) == 1
    assert streak(ended(-4000, SIORG, lived=10_790), *active(1, started=-61)) == 0


def test_jobs_that_wait_for_siorg_patiently_have_to_be_outlived_all_the_same() -> None:
    assert streak(ended(-4000, SIORG, lived=3600), *active(1, started=-500), patience=600) == 1
    assert streak(ended(-4000, SIORG, lived=3600), *active(1, started=-901), patience=600) == 0


# -- nothing to claim -------------------------------------------------------------------------------------------------

NOTHING = Ending.NOTHING


def nothing(when: float = -10, *, slot: int = 0, **more: Any) -> Job:
    """A Job that claimed nothing and ended well."""
    return ended(when, slot=slot, summary=summary(0), **more)


def test_a_job_that_claimed_nothing_alone_is_trouble() -> None:
    assert found([nothing()]) == Trouble(NOTHING, 1, at(-10), at(-10), nothing().name, template_of())


def test_such_jobs_one_after_the_other_count_each() -> None:
    assert streak(nothing(-200, round_=1), nothing(-100, round_=2), nothing(-10, round_=3)) == 3


@pytest.mark.parametrize(
    "beside",
    [
        ended(-20, slot=1, lived=30, summary=summary(50)),
        ended(-20, slot=1, lived=30, ending=FAILED),
        *active(1, started=-30, first_slot=1),
    ],
    ids=["that took what there was", "that nobody knows of", "that is at it"],
)
def test_one_that_came_too_late_beside_another_is_none(beside: Job) -> None:
    trouble = found([nothing(), beside])
    assert trouble is None or trouble.ending is not NOTHING


def test_one_that_was_told_to_stop_or_to_do_nothing_is_none() -> None:
    told = replace(summary(0), reason="disabled")
    assert found([ended(-10, summary=told)]) is None


def test_a_job_that_claims_something_ends_it_and_an_empty_one_does_not_end_siorgs() -> None:
    assert streak(nothing(-60), ended(-10, round_=2, summary=summary(1))) == 0
    trouble = found([ended(-60, SIORG), nothing(-10, round_=2)])
    assert trouble is not None
    assert (trouble.ending, trouble.streak) == (SIORG, 1)


def test_running_on_over_rows_that_it_cannot_claim_ends_nothing() -> None:
    assert streak(nothing(-3000), *active(1, started=-2000, created_at=at(-2010))) == 1


# -- the deadline -----------------------------------------------------------------------------------------------------


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
    assert streak(ended(-10, Ending.DEADLINE, lived=lived, made=-10 - lived, summary=what)) == int(counts)


def test_the_deadline_ends_no_trouble() -> None:
    assert streak(ended(-60, FAILED), ended(-10, Ending.DEADLINE, round_=2, summary=summary(9))) == 1


# -- templates --------------------------------------------------------------------------------------------------------


def test_failures_of_another_template_are_no_news() -> None:
    assert streak(ended(-10, FAILED, template="before")) == 0


def test_trouble_of_another_template_is_over() -> None:
    assert streak(remembered=trouble_since(-10, times=7, template="before")) == 0


def test_trouble_of_an_unnamed_template_stays() -> None:
    assert streak(remembered=trouble_since(-10, times=7, template="")) == 7


def test_while_the_template_is_not_known_nothing_is_forgotten() -> None:
    assert streak(remembered=trouble_since(-10, times=7, template="before"), template=None) == 7
    assert streak(ended(-10, FAILED, template="whatever"), template=None) == 1


def test_what_was_made_from_an_older_template_proves_nothing_about_the_new_one() -> None:
    assert streak(ended(-60, FAILED), ended(-10, slot=1, template="before", summary=summary(3))) == 1
    assert streak(ended(-600, FAILED), *active(1, first_slot=1, started=-9000, template="before")) == 1


# -- memory -----------------------------------------------------------------------------------------------------------


def test_is_remembered_when_its_jobs_are_gone() -> None:
    remembered = trouble_since(-30, SIORG, times=4)
    assert found([], remembered) == remembered


def test_what_is_remembered_is_not_counted_again() -> None:
    jobs = [ended(-90, FAILED), ended(-60, FAILED, round_=2), ended(-30, FAILED, round_=3)]
    assert streak(*jobs, remembered=trouble_since(-30, times=3)) == 3


def test_a_failure_that_is_seen_late_is_not_counted_again() -> None:
    assert streak(ended(-40, FAILED), remembered=trouble_since(-30, times=3)) == 3


def test_what_is_new_counts_on() -> None:
    one = ended(-5, SIORG, lived=3, made=-20, message="new")
    assert found([one], trouble_since(-30, times=3)) == Trouble(SIORG, 4, at(-30), at(-5), f"{one.name}: new", template_of())


def test_a_newer_success_ends_what_is_remembered() -> None:
    assert streak(ended(-5, summary=summary(1)), remembered=trouble_since(-30, times=9)) == 0


def test_a_running_probe_ends_what_is_remembered() -> None:
    assert streak(*active(1, started=-61), remembered=trouble_since(-300, times=9)) == 0


def test_what_was_settled_before_is_not_raised_again() -> None:
    jobs = [ended(-90, FAILED), ended(-60, FAILED, round_=2)]
    assert streak(*jobs, settled=at(-60)) == 0
    assert streak(*jobs, ended(-30, FAILED, round_=3), settled=at(-60)) == 1


# -- when the next one may try ----------------------------------------------------------------------------------------


def pause(times: int, ending: Ending = FAILED, identity: str = "x", pacing: Pacing = PACING) -> float:
    trouble = trouble_since(0, ending, times=times)
    return (trouble.retry_at(pacing, identity) - trouble.last_failure).total_seconds()


@pytest.mark.parametrize(("times", "seconds"), [(1, 10), (2, 20), (3, 40), (5, 160), (6, 300), (7, 300), (10**9, 300)])
def test_the_pause_doubles_up_to_its_longest(times: int, seconds: float) -> None:
    assert seconds <= pause(times) <= seconds * 1.2


@pytest.mark.parametrize(("times", "seconds"), [(1, 30), (2, 60), (6, 600), (10**9, 600)])
@pytest.mark.parametrize("ending", [SIORG, LIMITED])
def test_siorg_is_given_longer(times: int, seconds: float, ending: Ending) -> None:
    assert seconds <= pause(times, ending) <= seconds * 1.2


def test_resources_do_not_all_try_at_one_moment() -> None:
    assert len({pause(3, identity=f"resource-{n}") for n in range(50)}) > 25
    assert pause(3, identity="one") == pause(3, identity="one")


def test_patience_can_be_chosen() -> None:
    assert 1 <= pause(1, pacing=Pacing(failing_base=1)) <= 1.2
    assert streak(ended(-30, FAILED, lived=1), *active(1, started=-5), pacing=Pacing(healthy_after=5)) == 0


def test_the_end_of_time_is_late_enough() -> None:
    end = datetime.max.replace(tzinfo=NOW.tzinfo)
    assert later(end, 1) == end
    assert later(NOW, 1e300) == end
    assert Trouble(FAILED, 99, NOW, end).retry_at(PACING, "x") == end


def test_an_unfinished_job_is_no_trouble() -> None:
    assert found([job(0), *active(1, first_slot=1)]) is None
