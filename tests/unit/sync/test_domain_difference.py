"""In what the tables of categories and types differ from SIORG's, and which row is which."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from siorg_job.siorg.model import DomainRow
from siorg_job.sync.domain_difference import ComparedRow, compare
from siorg_job.sync.domain_rows import pairs
from siorg_job.sync.local_rows import Domain, Kept
from siorg_job.sync.merge import Rule
from siorg_job.sync.merge_base import Base
from siorg_job.sync.model import Fetched
from siorg_job.sync.working_copy import WorkingCopy
from siorg_queue import EntityType, Operation

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
_TAKE, _EDITED, _CONFLICT = Rule
_ANOTHER = DomainRow(1, "Outra", active=True, raw="{}")
"""Of which nobody here knows; so that SIORG's table is never empty."""


def _said(name: str, code: int | str = 6, *, active: bool = True) -> DomainRow:
    return DomainRow(code, name, active, json.dumps({"codigoTipoUnidade": code, "ativo": "SIM" if active else "NAO"}))


def _compare(rows: Sequence[Domain], *table: DomainRow, kept: dict[str, Any] | None = None) -> dict[int, ComparedRow]:
    copy = WorkingCopy(domains={row.id: row for row in rows})
    if kept is not None:
        copy.kept[EntityType.CATEGORY, 6] = [Kept(NOW, kept)]
    entity_type = rows[0].entity_type if rows else EntityType.CATEGORY
    return {row.code: row for row in compare(entity_type, Fetched(NOW, rows=table), copy)}


def _row(name: str = "A", *, active: bool = True, code: int | None = 6, **noted: Any) -> Domain:
    """A category that was never synced, but for what is ``noted``."""
    return Domain(uuid4(), EntityType.CATEGORY, code, None, name, is_active=active, **noted)


def _synced(
    name: str = "A", *, active: bool = True, said: str = "A", base: dict[str, Any] | None = None, down: str = ""
) -> Domain:
    """As SIORG had it an hour ago, recorded as ``base``; without one, as an older Job left it. ``down``: a name turned down."""
    recorded = None if base is None else Base(base, {"name": down} if down else {})
    at = NOW - timedelta(hours=1)
    return _row(name, active=active, siorg_name=said, base=recorded, base_raw={"ativo": "SIM"}, synced_at=at, managed=True)


_BASE = {"name": "A", "is_active": True}
_ENDED = {"name": "A", "is_active": False}


@dataclass(frozen=True)
class Case:
    """A category here and what SIORG says of it; the verdicts, and the operation of its item, if it needs one."""

    local: Domain
    remote: DomainRow | None
    verdicts: dict[str, Rule]
    item: Operation | None = None


_UPDATE, _END = Operation.UPDATE, Operation.EXTINCTION
_CASES = {
    "in line": Case(_synced(base=_BASE), _said("A"), {}),
    "renamed by SIORG": Case(_synced(base=_BASE), _said("B"), {"name": _TAKE}, _UPDATE),
    "renamed by a person": Case(_synced("X", base=_BASE), _said("A"), {"name": _EDITED}),
    "renamed by both": Case(_synced("X", base=_BASE), _said("B"), {"name": _CONFLICT}, _UPDATE),
    "renamed by both alike": Case(_synced("B", base=_BASE), _said("B"), {}, _UPDATE),  # what SIORG says is noted
    "a wrong write of ours": Case(_synced("W", base={"name": "W", "is_active": True}), _said("A"), {"name": _TAKE}, _UPDATE),
    "turned down": Case(_synced("X", said="B", base=_BASE, down="B"), _said("B"), {"name": _EDITED}),
    "turned down, and SIORG moved on": Case(
        _synced("X", said="B", base=_BASE, down="B"), _said("C"), {"name": _CONFLICT}, _UPDATE
    ),
    "turned down under a namesake's name": Case(
        _synced("X", said="B", base=_BASE, down="B (6)"), _said("B"), {"name": _EDITED}
    ),
    "recorded under a namesake's name, edited": Case(
        _synced("X", base={"name": "A (6)", "is_active": True}), _said("A"), {"name": _EDITED}
    ),
    "nothing recorded, renamed by a person": Case(_synced("X"), _said("A"), {"name": _EDITED}),
    "nothing recorded, renamed by SIORG": Case(_synced("A (6)"), _said("B"), {"name": _TAKE}, _UPDATE),
    "nothing recorded, renamed by both": Case(_synced("X"), _said("B"), {"name": _CONFLICT}, _UPDATE),
    "never synced": Case(_row("X"), _said("A"), {"name": _TAKE}, _UPDATE),
    "brought by a unit": Case(_row(siorg_name="A", managed=True), _said("A"), {}, _UPDATE),
    "brought by a unit, renamed by a person": Case(
        _row("X", siorg_name="A", managed=True), _said("A"), {"name": _EDITED}, _UPDATE
    ),
    "not in use any more": Case(_synced(base=_BASE), _said("A", active=False), {"is_active": _TAKE}, _END),
    "not in use any more, and renamed": Case(
        _synced(base=_BASE), _said("B", active=False), {"name": _TAKE, "is_active": _TAKE}, _END
    ),
    "not in use any more, and renamed by both": Case(
        _synced("X", base=_BASE), _said("B", active=False), {"name": _CONFLICT, "is_active": _TAKE}, _UPDATE
    ),
    "gone": Case(_synced(base=_BASE), None, {"is_active": _TAKE}, _END),
    "gone, renamed by a person": Case(_synced("X", base=_BASE), None, {"is_active": _TAKE}, _END),
    "gone, and opened again by a person": Case(
        _synced(base=_ENDED), None, {"is_active": _EDITED}
    ),
    "gone, and ended": Case(_synced(active=False, base=_BASE), None, {}),
    "a code that SIORG never had": Case(_row(), None, {"is_active": _EDITED}),
    "ended by a person": Case(_synced(active=False, base=_BASE), _said("A"), {"is_active": _EDITED}),
    "back in SIORG": Case(_synced(active=False, base=_ENDED), _said("A"), {"is_active": _TAKE}, _UPDATE),
    "too long": Case(_synced(base=_BASE), _said("B" * 101), {"name": _TAKE}, _UPDATE),
}  # fmt: skip


@pytest.mark.parametrize("case", _CASES.values(), ids=_CASES)
def test_a_category(case: Case) -> None:
    row = _compare([case.local], _ANOTHER, *([] if case.remote is None else [case.remote]))[6]
    assert {each.field: each.rule for each in row.differences} == case.verdicts
    assert (row.operation if row.needs_item(None) else None) == case.item
    assert {each.code for each in row.differences} <= {6}


def test_a_difference_has_three_sides() -> None:
    (found,) = _compare([_synced("X", base=_BASE)], _said("B"))[6].differences
    assert found.sides == {"base": "A", "local": "X", "remote": "B"}


def test_what_a_person_kept_is_an_edit() -> None:
    (found,) = _compare([_synced("X", base=_BASE)], _said("B"), kept={"name": "B"})[6].differences
    assert found.rule is _EDITED


def test_a_row_that_is_new_and_in_use_is_to_be_made() -> None:
    found = _compare([], _said("A"), _said("A", 7), _said("B", 8, active=False), _said("C" * 101, 9))
    assert {code: (row.operation, {each.rule for each in row.differences}) for code, row in found.items()} == {
        6: (Operation.CREATION, {_TAKE}), 7: (Operation.CREATION, {_TAKE}), 9: (Operation.CREATION, {_TAKE}),
    }  # fmt: skip
    assert [each.remote for each in found[7].differences] == ["A (7)", True]


def test_a_table_without_rows_and_rows_without_a_code_say_nothing() -> None:
    assert _compare([_synced(base=_BASE)]) == {}
    assert _compare([_row(code=None)], _ANOTHER).keys() == {1}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (None, True),
        ({"name": {"base": "A", "local": "X", "remote": "B"}}, False),  # that is what the person is asked
        ({"name": {"base": "A", "local": "X", "remote": "C"}}, True),
        ({}, True),
    ],
)
def test_what_a_person_is_asked_already_needs_no_item(asked: dict[str, Any] | None, expected: bool) -> None:
    row = _compare([_synced("X", base=_BASE)], _said("B"))[6]
    assert row.needs_item(asked) is expected
    assert _compare([_synced(base=_BASE)], _said("A"))[6].needs_item(asked) is (asked is not None)  # its reason has gone


# -- types --------------------------------------------------------------------------------------------------------------


def _type(slug: str, *, code: int | None = None, letters: str | None = None) -> Domain:
    raw = None if letters is None else {"codigoTipoUnidade": letters}
    return Domain(uuid4(), EntityType.TYPE, code, slug, slug, base_raw=raw)


@pytest.mark.parametrize(
    ("local", "remote"),
    [
        (_type("comissao", code=12), _said("Diretoria", "12")),
        (_type("comissao", letters="CX"), _said("Diretoria", "CX")),
        (_type("unidade-colegiada"), _said("Colegiado", "UC")),
        (_type("comite-gestor"), _said("Comitê Gestor", "CG")),
        (_type("comite-gestor", code=12), _said("Comitê Gestor", "CG")),
    ],
)
def test_a_type_is_found_by_number_letters_known_slug_and_name(local: Domain, remote: DomainRow) -> None:
    other = _type("outra")
    found, rest = pairs(EntityType.TYPE, [other, local], [remote])
    assert (found.local, rest.local, rest.number) == (local, other, None)


def test_a_type_without_a_number_keeps_the_one_of_its_letters_when_it_is_gone() -> None:
    (here, *_) = pairs(EntityType.TYPE, [_type("x", letters="UA")], [_said("Unidade Administrativa", "UA")])
    _, gone = pairs(EntityType.TYPE, [_type("x", letters="UA")], [_said("Unidade Colegiada", "UC")])
    assert here.number == gone.number
    assert here.number is not None


def test_of_two_rows_for_one_type_the_better_match_is_taken() -> None:
    by_letters, by_slug = _type("velha", letters="UA"), _type("unidade-administrativa")
    found, rest = pairs(EntityType.TYPE, [by_slug, by_letters], [_said("Unidade Administrativa", "UA")])
    assert (found.local, rest.local) == (by_letters, by_slug)


def test_a_type_that_only_a_unit_brought_is_completed_and_never_ended() -> None:
    made = replace(
        _type("unidade-administrativa"), siorg_name="unidade-administrativa", name="Unidade Administrativa", managed=True
    )
    (row,) = _compare([made], _said("Unidade Administrativa", "UA")).values()
    assert (row.differences, row.needs_item(None), row.operation) == ((), True, Operation.UPDATE)
    assert all(row.local_id is None for row in _compare([made], _said("Unidade Colegiada", "UC")).values())
