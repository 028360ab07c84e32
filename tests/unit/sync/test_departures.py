"""The kind of a departure: of all reasons that apply, the first."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import combinations
from typing import Any
from uuid import uuid4

import pytest

from siorg_job.reconciliation.departures import ENDS, Departure, Kind, OnQueue, departures
from siorg_job.siorg.errors import InvalidData
from siorg_job.siorg.model import RemoteUnit, Structure, Told
from siorg_job.sync.compare import EXISTS, Comparison, Difference
from siorg_job.sync.local_rows import Organization, Unit
from siorg_job.sync.merge import Rule
from siorg_job.sync.working_copy import WorkingCopy
from siorg_queue import EntityType

NOW = datetime(2026, 11, 28, tzinfo=UTC)
_OTHERS = 423
"""An organization that is not registered."""
_ABOVE = 9


def _remote(code: int, parent: int = 471, organization: int = 471) -> RemoteUnit:
    return RemoteUnit(code, "{}", parent_code=parent, organization_code=organization, name=f"U{code}")


def _copy(*codes: int) -> WorkingCopy:
    home = Organization(
        uuid4(), 471, "UFMT", "UFMT", None, None, None, None, None, None,
        is_active=True, synced_at=NOW, base=None, said=None, base_raw=None,
    )  # fmt: skip
    copy = WorkingCopy()
    copy.put(home)
    for code in codes:
        ids: dict[str, Any] = {"id": uuid4(), "organization_id": home.id, "category_id": uuid4(), "unit_type_id": uuid4()}
        copy.put(Unit(**ids, code=code, organization_code=471, category_code=1, type_slug="x", name="A", activity_area="SUPPORT",
                      contact_info={}))  # fmt: skip
    return copy


def _told(*units: RemoteUnit, invalid: dict[int, InvalidData] | None = None, **told: Any) -> Told:
    return Told(Structure(471, {unit.code: unit for unit in units}, invalid or {}), **told)


def _departures(told: Told, *differences: Difference, copy: WorkingCopy, **queue: OnQueue) -> list[Departure]:
    by_entity: dict[tuple[EntityType, int], list[Difference]] = {}
    for each in differences:
        by_entity.setdefault((each.entity_type, each.code), []).append(each)
    known = {(EntityType.UNIT, int(code.removeprefix("u"))): found for code, found in queue.items()}
    return list(departures(told, Comparison(by_entity), copy, {471}, known))


def _difference(field: str = "name", rule: Rule = Rule.TAKE, code: int = 1) -> Difference:
    return Difference(EntityType.UNIT, code, field, rule, "A", "B", "C")


# What makes each kind apply to the field "parent" of unit 1; ended needs another field, and has a test of its own.
_APPLIES: dict[Kind, dict[str, Any]] = {
    Kind.CONFLICT: {"conflicts": {"parent": NOW}},
    Kind.HELD: {"held": {"parent": NOW}},
    Kind.FAILED: {"failed_since": NOW, "error": "too long"},
    Kind.WAITING: {"open_since": NOW},
    Kind.OUTSIDE: {},
    Kind.EDITED: {},
}


@pytest.mark.parametrize("kinds", [pair for n in (1, 2, 6) for pair in combinations(_APPLIES, n)], ids="-".join)
def test_of_several_reasons_the_first_counts(kinds: tuple[Kind, ...]) -> None:
    queue = OnQueue(**{key: value for kind in kinds for key, value in _APPLIES[kind].items()})
    outside = Kind.OUTSIDE in kinds
    told = _told(_remote(1, parent=_ABOVE if outside else 471), answers={_ABOVE: _remote(_ABOVE, organization=_OTHERS)})
    # What a person wrote and SIORG did not contest is nobody's question, and no failure.
    rule = Rule.EDITED if {Kind.OUTSIDE, Kind.EDITED} >= {*kinds} or kinds[0] is Kind.WAITING else Rule.TAKE
    (found,) = _departures(told, _difference("parent", rule), copy=_copy(1), u1=queue)
    assert found.kind is kinds[0]  # they are declared in this order
    assert found.since == (None if found.kind in (Kind.OUTSIDE, Kind.EDITED) else NOW)


@pytest.mark.parametrize(
    ("known", "kind"),
    [
        ({}, Kind.ENDED),
        ({"conflicts": {"is_active": NOW}}, Kind.ENDED),  # which asks nothing else
        ({"held": {"is_active": NOW}}, Kind.HELD),
        ({"failed_since": NOW, "open_since": NOW}, Kind.ENDED),
    ],
)
def test_an_ended_organization_and_its_units(known: dict[str, Any], kind: Kind) -> None:
    told = _told(ended=True, answers={1: None})
    found = list(departures(told, Comparison(gone=(1,)), _copy(1), {471}, {(EntityType.UNIT, 1): OnQueue(**known)}))
    assert [(each.entity_type, each.field, each.kind) for each in found] == [
        (EntityType.ORGANIZATION, "is_active", Kind.ENDED), (EntityType.UNIT, "is_active", kind),
    ]  # fmt: skip


def test_what_nothing_explains_is_drift_also_where_its_parent_is_elsewhere() -> None:
    told = _told(_remote(1, parent=_ABOVE), answers={_ABOVE: _remote(_ABOVE, organization=_OTHERS)})
    (found,) = _departures(told, _difference("parent"), copy=_copy(1))
    assert found.kind is Kind.DRIFT


def test_fields_beside_a_conflict_wait_for_its_decision_but_for_edits_and_paths() -> None:
    differences = (
        _difference("name", Rule.APART), _difference("acronym"), _difference("activity_area", Rule.EDITED), _difference("level"),
    )  # fmt: skip
    found = _departures(_told(_remote(1)), *differences, copy=_copy(1), u1=OnQueue(conflicts={"name": NOW}))
    assert [each.kind for each in found] == [Kind.CONFLICT, Kind.CONFLICT, Kind.EDITED, Kind.DRIFT]


@pytest.mark.parametrize("is_listed", [True, False])
def test_a_child_of_what_failed_is_failed_naming_it(*, is_listed: bool) -> None:
    """Also one further down; whether the parent's row is in the structure and its item failed, or cannot be read there."""
    parents = [_remote(_ABOVE)] if is_listed else []
    told = _told(_remote(1, _ABOVE), _remote(2, 1), *parents, invalid={} if is_listed else {_ABOVE: InvalidData("too long")})
    failed = {"u9": OnQueue(failed_since=NOW, error="too long")} if is_listed else {}
    waiting = OnQueue(open_since=NOW)
    differences = [_difference(EXISTS, code=code) for code in (1, 2)]
    found = _departures(told, *differences, copy=_copy(), u1=waiting, u2=waiting, **failed)
    assert [(each.kind, each.reason) for each in found if each.code in (1, 2)] == [(Kind.FAILED, "its parent 9: too long")] * 2


def test_what_is_outside_is_listed_although_nothing_differs() -> None:
    told = _told(
        _remote(1, parent=8), _remote(2, parent=_ABOVE), _remote(3, parent=7),
        answers={8: _remote(8, organization=_OTHERS), _ABOVE: None, 7: InvalidData("too long")},
    )  # fmt: skip
    found = _departures(told, copy=_copy(1, 2, 3))
    assert [(each.code, each.field, each.kind) for each in found] == [
        (1, "parent", Kind.OUTSIDE), (2, "parent", Kind.FAILED), (3, "parent", Kind.FAILED),
    ]  # fmt: skip


def test_an_older_answer_as_base_is_told_of_what_it_decided() -> None:
    found = [
        _departures(_told(_remote(1)), Difference(EntityType.UNIT, 1, "name", rule, "A", "B", "C", adopted=True), copy=_copy(1))
        for rule in (Rule.EDITED, Rule.TAKE)
    ]
    assert [each.adopted for some in found for each in some] == [True, False]


def test_every_kind_says_what_ends_it() -> None:
    assert ENDS.keys() == {*Kind}
