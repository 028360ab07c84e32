"""The three-way merge by itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siorg_job.sync.merge import differences, differing, is_as_said, merge, remote_unit_values
from siorg_job.sync.merge_base import Base, next_raw, next_record
from siorg_job.sync.model import Conflict, UnitField, Value, comparable
from siorg_job.sync.resolution import Resolution, ResolutionError, read_resolution

FIELDS = (UnitField.NAME, UnitField.ACRONYM, UnitField.PARENT, UnitField.PHONES, UnitField.IS_ACTIVE)
ACCEPT = Resolution(take=frozenset(FIELDS))

_ONE_FIELD: tuple[tuple[Value, Value, Value, str], ...] = (
    # base, local, remote, and what becomes of the field
    ("A", "A", "A", "keep"),
    ("A", "A", "B", "take"),
    ("A", "B", "A", "keep"),
    ("A", "B", "B", "keep"),
    ("A", "B", None, "keep"),
    ("A", "A", None, "keep"),
    ("A", " A ", "B", "take"),
    ("A B", "A\u00a0B", "C", "take"),
    ("A", "\u202eA", "B", "take"),
    ("A", "B\u200b", "B", "take"),
    (("1", "2"), ("2", "1"), ("3",), "take"),
    (("1", "2"), ("3",), ("2", "1"), "keep"),
    (("1", "2"), ("1", "2"), ("2", "1"), "keep"),
    (None, None, "B", "take"),
    (None, "", "B", "take"),
    ("A", "B", "C", "conflict"),
    (None, "B", "C", "conflict"),
    # True and False are values and not emptiness, and an empty list that SIORG states is a statement.
    (True, False, True, "keep"),
    (False, False, True, "take"),
    (True, True, False, "take"),
    (("1",), ("1",), (), "take"),
)


def test_one_field() -> None:
    for base, local, remote, expected in _ONE_FIELD:
        decision = merge(base={"f": base}, local={"f": local}, remote={"f": remote})
        if expected == "conflict":
            assert isinstance(decision, Conflict), (base, local, remote)
            assert decision.differences == {"f": {"base": base, "local": local, "remote": remote}}
        else:
            assert decision == ({"f": remote} if expected == "take" else {}), (base, local, remote)
    assert merge(base=None, local={"f": "B"}, remote={"f": "C"}) == {"f": "C"}, "without a base SIORG wins"


def test_a_persons_value_stands_unless_siorg_says_what_the_person_never_saw() -> None:
    mine = Resolution(merged={UnitField.NAME: "Minha"}, shown={UnitField.NAME: "Nova"})

    def merged(said: Value, here: Value = "Daqui") -> Any:
        return merge(base={UnitField.NAME: "Velha"}, local={UnitField.NAME: here}, remote={UnitField.NAME: said}, resolution=mine)

    for said in ("Nova", "Velha", "Daqui", "Minha", None):
        assert merged(said) == {UnitField.NAME: "Minha"}, said
    assert merged("Minha", "Minha") == {}
    assert isinstance(merged("Outra"), Conflict)


def test_strict_hierarchy_holds_up_a_move_with_all_that_comes_with_it_unless_a_person_decided() -> None:
    base: dict[str, Value] = {UnitField.NAME: "Secretaria", UnitField.PARENT: 471}
    remote: dict[str, Value] = {UnitField.NAME: "X", UnitField.PARENT: 9}
    decision = merge(base=base, local=base, remote=remote, strict_hierarchy=True)
    assert isinstance(decision, Conflict)
    assert decision.differences == {"parent": {"base": 471, "local": 471, "remote": 9}}
    assert merge(base=base, local=base, remote=remote, strict_hierarchy=True, resolution=ACCEPT) == remote
    about_the_name = Resolution(take=frozenset({UnitField.NAME}))
    assert isinstance(merge(base=base, local=base, remote=remote, strict_hierarchy=True, resolution=about_the_name), Conflict)


def test_differences_leave_out_what_siorg_does_not_say() -> None:
    assert differences(base=None, local={"name": "A", "acronym": "B"}, remote={"name": "C", "acronym": None}) == {
        "name": {"base": None, "local": "A", "remote": "C"}
    }


def test_no_resolution_is_none() -> None:
    rows: tuple[object, ...] = (None, {}, [], "MERGE", 5, {"kind": "conflict"})
    for details in rows:
        assert read_resolution(details, UnitField) is None, details


# -- the stored base ----------------------------------------------------------------------------------------------------


def test_the_base_keeps_what_an_answer_leaves_out() -> None:
    stored = {"codigoUnidade": 1, "nome": "A", "x": "y", "contato": [{"telefone": ["1"], "email": ["a@x"], "site": None}]}
    answer = '{"codigoUnidade": 1, "nome": "B", "x": "\\u202e", "contato": [{"telefone": ["2"]}], "operacao": "ALTERACAO"}'
    assert next_raw(stored, answer) == {
        "codigoUnidade": 1, "nome": "B", "x": "y", "contato": [{"telefone": ["2"]}, {"email": ["a@x"]}]
    }  # fmt: skip


def test_the_base_does_not_grow_by_repetition() -> None:
    answer = '{"codigoUnidade": 1, "contato": {"telefone": ["2"]}}'
    once = next_raw({"codigoUnidade": 1, "contato": [{"email": ["a@x"]}]}, answer)
    assert next_raw(once, answer) == once


# -- properties ---------------------------------------------------------------------------------------------------------

_texts = st.sampled_from(["A", "B", "C", " A ", ""])
_value: dict[str, st.SearchStrategy[Any]] = {
    UnitField.NAME: _texts,
    UnitField.ACRONYM: st.none() | _texts,
    UnitField.PARENT: st.sampled_from([1, 2, 3]),
    UnitField.PHONES: st.sampled_from([(), ("1",), ("2",), ("1", "2")]),
    UnitField.IS_ACTIVE: st.booleans(),
}
_local = st.fixed_dictionaries(_value)
_said = st.fixed_dictionaries({field: st.none() | strategy for field, strategy in _value.items()})
# Normalised, as parsing leaves it.
_remote = _said.map(
    lambda said: {key: (value.strip() or None) if isinstance(value, str) else value for key, value in said.items()}
)


def _after(local: dict[str, Any], decision: object) -> dict[str, Any]:
    return {**local, **decision} if isinstance(decision, dict) else local


def _next_base(base: dict[str, Any] | None, remote: dict[str, Any]) -> dict[str, Any]:
    return {field: remote[field] if remote[field] is not None else (base or {}).get(field) for field in FIELDS}


@given(st.none() | _remote, _local, _remote)
def test_absence_never_erases_and_accepting_makes_local_what_siorg_says(
    base: dict[str, Any] | None, local: dict[str, Any], remote: dict[str, Any]
) -> None:
    after = _after(local, merge(base=base, local=local, remote=remote))
    assert all(after[field] == local[field] for field in FIELDS if remote[field] is None)
    after = _after(local, merge(base=base, local=local, remote=remote, resolution=ACCEPT))
    assert after == {field: local[field] if remote[field] is None else remote[field] for field in FIELDS}


@given(st.none() | _remote, _local, _remote)
def test_a_conflict_names_exactly_what_moved_apart_and_all_else_applied_twice_is_applied_once(
    base: dict[str, Any] | None, local: dict[str, Any], remote: dict[str, Any]
) -> None:
    decision = merge(base=base, local=local, remote=remote)
    if not isinstance(decision, Conflict):
        assert merge(base=_next_base(base, remote), local=_after(local, decision), remote=remote) == {}
        return
    assert base is not None
    for field, sides in decision.differences.items():
        assert sides == {"base": base[field], "local": local[field], "remote": remote[field]}
        assert remote[field] not in (None, base[field], local[field])
        assert local[field] != base[field]


@given(st.none() | _remote, _local, st.sets(st.sampled_from([field for field in FIELDS if field != UnitField.PARENT])), _remote)
def test_a_row_that_is_as_siorg_says_at_a_glance_differs_nowhere(
    base: dict[str, Any] | None, local: dict[str, Any], silent: set[str], other: dict[str, Any]
) -> None:
    remote = {field: None if field in silent else value for field, value in local.items()}
    assert is_as_said(local, remote)
    for said in (remote, other):
        assert not is_as_said(local, said) or differing(base=base, local=local, remote=said) == {}


@given(_local, _remote)
def test_where_nobody_edited_siorg_is_taken(local: dict[str, Any], remote: dict[str, Any]) -> None:
    after = _after(local, merge(base=local, local=local, remote=remote))
    assert all(comparable(after[field]) == comparable(remote[field]) for field in FIELDS if remote[field] is not None)


@given(_remote, _local)
def test_where_siorg_stood_still_edits_stay(base: dict[str, Any], local: dict[str, Any]) -> None:
    after = _after(local, merge(base=base, local=local, remote=base))
    for field in FIELDS:
        if isinstance(local[field], str) and isinstance(base[field], str) and local[field].split() == base[field].split():
            continue  # white space is no edit
        assert after[field] == local[field] or not local[field]


@given(_remote, _local, _remote, st.sampled_from(["keep", "take"]))
def test_a_decision_about_all_that_is_in_dispute_leaves_no_conflict_and_touches_nothing_else(
    base: dict[str, Any], local: dict[str, Any], remote: dict[str, Any], choice: str
) -> None:
    found = merge(base=base, local=local, remote=remote)
    disputed = frozenset(found.differences if isinstance(found, Conflict) else ())
    resolution = Resolution(keep=disputed) if choice == "keep" else Resolution(take=disputed)
    decision = merge(base=base, local=local, remote=remote, resolution=resolution)
    assert not isinstance(decision, Conflict)
    assert {field for field in disputed if field in decision} == (disputed if choice == "take" else set())
    rest = {field: value for field, value in remote.items() if field not in disputed}
    assert {field: decision[field] for field in decision if field not in disputed} == merge(base=base, local=local, remote=rest)


# -- what a decision says -----------------------------------------------------------------------------------------------

_CHANGES = {"contact_info.phones": {"base": ["1"], "local": ["9"], "remote": ["2"]}}
_COPY = {"nome": "A", "contato": [{"telefone": ["2"], "email": ["a@x"]}]}


@pytest.mark.parametrize(
    ("details", "changes", "expected"),
    [
        ({"resolution": "ACCEPT_SIORG"}, _CHANGES, {"take": {"contact_info.phones"}}),
        ({"resolution": "ACCEPT_SIORG"}, None, {"take": set(UnitField)}),
        ({"merged_payload": _COPY}, _CHANGES, {"take": {"contact_info.phones"}}),
        ({"merged_payload": _COPY, "field_resolutions": {"contato": "LOCAL", "emails": "SIORG"}}, _CHANGES, {
            "keep": {"contact_info.phones", "contact_info.websites"}, "take": {"contact_info.emails"}}),
        ({"merged_payload": {"contato": [{"telefone": ["3"], "email": ["a@x"]}]}}, _CHANGES, {
            "merged": {"contact_info.phones": ("3",)}}),
        ({"merged_payload": {"contact_info": {"phones": ["3"]}}, "field_resolutions": {"contact_info": "SIORG"}}, _CHANGES, {
            "take": {f"contact_info.{kind}" for kind in ("phones", "emails", "websites", "address")}}),
        ({"merged_payload": {"nome": "B", "areaAtuacao": "FIM"}}, None, {"merged": {"name": "B", "activity_area": "CORE"}}),
        ({"field_resolutions": {"organization_id": "LOCAL", "codigoUnidadePai": "SIORG"}}, None, {
            "keep": {"organization"}, "take": {"parent"}}),
    ],
)  # fmt: skip
def test_what_a_decision_says_of_each_field(details: dict[str, Any], changes: object, expected: dict[str, Any]) -> None:
    said = {"resolution": "MERGE", **details}
    found = read_resolution(said, UnitField, changes=changes, payload=_COPY, values_of=remote_unit_values)
    assert found is not None
    assert {"merged": found.merged, "keep": found.keep, "take": found.take} == {
        "merged": {}, "keep": set(), "take": set(), **expected
    }  # fmt: skip


def test_a_copy_whose_disputed_field_cannot_be_read_is_refused_by_its_key() -> None:
    said = {"resolution": "MERGE", "merged_payload": {"contato": [{"telefone": 5.5}]}}
    with pytest.raises(ResolutionError, match=r"merged_payload\.contato"):
        read_resolution(said, UnitField, changes=_CHANGES, payload=_COPY, values_of=remote_unit_values)


def test_of_fields_that_are_one_value_none_is_recorded_where_one_is_not_siorgs() -> None:
    place = (frozenset({UnitField.PARENT, UnitField.ORGANIZATION}),)
    base = Base({UnitField.PARENT: 1, UnitField.ORGANIZATION: 10})
    after: dict[str, Value] = {UnitField.PARENT: 5, UnitField.ORGANIZATION: 20}
    remote: dict[str, Value] = {UnitField.PARENT: 2, UnitField.ORGANIZATION: 20}
    assert next_record(base, after, remote, (), together=place).values == base.values
    assert next_record(base, {**after, UnitField.PARENT: 2}, remote, (), together=place).values == remote
