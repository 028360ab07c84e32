"""Each arrow of the table in ``suspects``'s docstring."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from siorg_job.drain.suspects import APPLYING, FETCHING, UNIT, Place, Suspects, Suspicion, Where
from siorg_queue import EntityType, Item, Operation, Outcome, Verdict

HISTORY = Place(Where.DATABASE, "insert_history")
UNITS = Place(Where.DATABASE, "insert_units")
DETAILS = {"kind": "refused_by_database", "retryable": False, "details": {"sqlstate": "42501"}}
PLACES = [UNIT, HISTORY, FETCHING, APPLYING]


def an_item(code: int = 900, details: Any = None) -> Item:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return Item(uuid4(), EntityType.UNIT, code, Operation.UPDATE, 5, {}, 1, 3, 1, at, error_details=details)


def fails(suspects: Suspects, item: Item, place: Place = HISTORY, alike: str = "42501", above: tuple[int, ...] = ()) -> Item:
    verdict = Verdict(item, Outcome.FAILED, "refused", DETAILS)
    suspects.add(Suspicion(item, place, ValueError(), verdict, alike, frozenset(above)))
    return item


def outcomes(suspects: Suspects) -> list[Outcome]:
    return [verdict.outcome for verdict in suspects.judged()]


@pytest.mark.parametrize("place", PLACES)
def test_it_is_tried_again_when_others_get_past_and_pays_when_it_fails_again(place: Place) -> None:
    suspects = Suspects()
    item = fails(suspects, an_item(), place)
    assert (outcomes(suspects), len(suspects)) == ([], 1)
    suspects.passed(place)
    assert len(suspects) == 1  # until its outcome is taken
    assert (outcomes(suspects), len(suspects)) == ([Outcome.RELEASED], 0)
    fails(suspects, item, place)
    assert outcomes(suspects) == []
    suspects.passed(place)
    assert outcomes(suspects) == [Outcome.FAILED]
    suspects.ended(item.id)
    fails(suspects, item, place)
    suspects.passed(place)
    assert outcomes(suspects) == [Outcome.RELEASED]


def test_who_gets_past_another_place_or_got_past_before_says_nothing() -> None:
    suspects = Suspects()
    suspects.passed(HISTORY)
    fails(suspects, an_item())
    suspects.passed(UNITS, UNIT, APPLYING)
    assert (outcomes(suspects), len(suspects)) == ([], 1)


def test_who_failed_elsewhere_before_is_tried_again_here() -> None:
    suspects = Suspects()
    item = fails(suspects, an_item(), UNITS)
    suspects.passed(UNITS)
    suspects.judged()
    fails(suspects, item, HISTORY)
    suspects.passed(HISTORY)
    assert outcomes(suspects) == [Outcome.RELEASED]


def test_several_that_fail_alike_and_that_nobody_gets_past_are_the_places_fault() -> None:
    suspects = Suspects()
    for _ in range(40):
        fails(suspects, an_item(900))
        assert suspects.common() == []  # items about one and the same unit
    fails(suspects, an_item(901), alike="23514 odd")
    fails(suspects, an_item(902), UNITS)
    fails(suspects, an_item(903), UNIT)
    assert suspects.common() == []
    fails(suspects, an_item(904))
    assert len(suspects.common()) == 41


def test_what_is_below_a_suspect_is_no_further_proof() -> None:
    suspects = Suspects()
    fails(suspects, an_item(900))
    for code in range(901, 941):
        fails(suspects, an_item(code), above=(900,))
    assert suspects.common() == []
    fails(suspects, an_item(950))
    assert len(suspects.common()) == 42


def test_those_that_others_got_past_are_no_proof_however_many_are_left_alone() -> None:
    suspects = Suspects()
    items = [fails(suspects, an_item(code)) for code in range(900, 940)]
    suspects.passed(HISTORY)
    suspects.judged()
    for item in items:
        fails(suspects, item)
    assert (suspects.common(), suspects.alone()) == ([], [])


def test_what_ended_just_so_before_is_no_proof_either() -> None:
    suspects = Suspects()
    fails(suspects, an_item(900, {**DETAILS, "resolution": "MERGE"}))
    fails(suspects, an_item(901, {**DETAILS, "details": {"sqlstate": "42703"}}))
    fails(suspects, an_item(902, {"kind": "internal_error"}))
    assert [suspicion.item.siorg_code for suspicion in suspects.alone()] == [901, 902]
    suspects.passed(HISTORY)
    assert outcomes(suspects) == [Outcome.FAILED, Outcome.RELEASED, Outcome.RELEASED]


@pytest.mark.parametrize(("place", "again"), [(UNIT, Outcome.FAILED), (HISTORY, Outcome.RELEASED)])
def test_who_is_given_back_undecided_has_failed_before_where_the_control_tells(place: Place, again: Outcome) -> None:
    suspects = Suspects()
    item = fails(suspects, an_item(), place)
    suspects.give_back([item.id])
    assert len(suspects) == 0
    fails(suspects, item, place)
    suspects.passed(place)
    assert outcomes(suspects) == [again]


def test_what_is_given_back_is_not_judged_as_well() -> None:
    suspects = Suspects()
    item = fails(suspects, an_item())
    suspects.passed(HISTORY)
    suspects.give_back([item.id])
    assert (outcomes(suspects), len(suspects)) == ([], 0)
