"""Versions and differences."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siorg_simulator.endpoints import Site
from siorg_simulator.rows import parse_row, short_row
from siorg_simulator.structure import Edition, History, Snapshot, Unit, format_version, parse_version

Ask = Callable[..., Any]
MakeSnapshot = Callable[..., Snapshot]
MakeRow = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("107.0.0", (107, 0, 0)),
        (" 99.0.12 ", (99, 0, 12)),
        ("99.0", None),
        ("a.b.c", None),
        ("1.2.3.4", None),
        ("", None),
    ],
)
def test_a_version_is_three_numbers(text: str, version: Any) -> None:
    assert parse_version(text) == version


def versions(history: History, organization: int = 10) -> list[str]:
    return [format_version(edition.versions[organization]) for edition in history.editions]


def test_the_version_is_that_of_the_organizations_own_row(snapshot: MakeSnapshot, row: MakeRow) -> None:
    history = History.of([snapshot(row(10, 1, versaoConsulta="107.0.0"), row(11, 10))])
    assert versions(history) == ["107.0.0"]


def test_a_grown_version_is_taken_as_it_is(snapshot: MakeSnapshot, row: MakeRow) -> None:
    history = History.of([snapshot(row(10, 1, versaoConsulta=v)) for v in ("9.0.0", "10.0.0")])
    assert versions(history) == ["9.0.0", "10.0.0"]


def test_changed_content_without_a_grown_version_raises_the_build_and_the_root_shows_it(
    snapshot: MakeSnapshot, row: MakeRow
) -> None:
    history = History.of([snapshot(row(10, 1), row(11, 10, nome=name)) for name in ("A", "B", "B", "C")])
    assert versions(history) == ["99.0.0", "99.0.1", "99.0.1", "99.0.2"]
    assert history.current.units[10].version == "99.0.2"


def test_going_back_to_an_older_snapshot_as_the_newest_still_raises_the_version(snapshot: MakeSnapshot, row: MakeRow) -> None:
    old = snapshot(row(10, 1, versaoConsulta="104.0.0"))
    new = snapshot(row(10, 1, versaoConsulta="107.0.0"), row(11, 10))
    assert versions(History.of([old, new, old])) == ["104.0.0", "107.0.0", "107.0.1"]


def test_an_organization_without_a_version_has_that_of_the_initial_load(snapshot: MakeSnapshot, row: MakeRow) -> None:
    assert versions(History.of([snapshot(row(10, 1, versaoConsulta=None))])) == ["99.0.0"]


def test_a_change_in_one_organization_leaves_the_version_of_another(snapshot: MakeSnapshot, row: MakeRow) -> None:
    other = row(20, 1, 20)
    history = History.of([snapshot(row(10, 1), other), snapshot(row(10, 1, nome="X"), other)])
    assert versions(history, 20) == ["99.0.0", "99.0.0"]


def test_an_organization_that_returns_goes_on_from_its_last_version(snapshot: MakeSnapshot, row: MakeRow) -> None:
    gone = snapshot(row(20, 1, 20))
    here = snapshot(row(10, 1), row(20, 1, 20))
    assert versions(History.of([here, gone, here])) == ["99.0.0", "99.0.0", "99.0.1"]


def changed(history: History, ask: Ask, version: str, limit: int | None = None) -> list[tuple[int, str]]:
    body = ask(Site(history, history_limit=limit), "unidade-organizacional/10/alteradas", versaoConsulta=version)
    assert body["servico"]["codigoErro"] == 0
    return [(int(row["codigoUnidade"].rsplit("/")[-1]), row["operacao"]) for row in body["unidades"]]


def error(history: History, ask: Ask, version: str | None, limit: int | None = None) -> int:
    query = {} if version is None else {"versaoConsulta": version}
    body = ask(Site(history, history_limit=limit), "unidade-organizacional/10/alteradas", **query)
    assert body["unidades"] == []
    return int(body["servico"]["codigoErro"])


@pytest.fixture
def three(snapshot: MakeSnapshot, row: MakeRow) -> History:
    return History.of(
        [
            snapshot(row(10, 1, versaoConsulta="100.0.0"), row(11, 10), row(12, 11)),
            snapshot(row(10, 1, versaoConsulta="102.0.0"), row(11, 10, nome="B"), row(12, 11)),
            snapshot(row(10, 1, versaoConsulta="104.0.0"), row(11, 10, nome="B"), row(13, 11)),
        ]
    )


def test_changes_since_a_version_are_those_since_the_newest_known_not_above_it(three: History, ask: Ask) -> None:
    latest = [(10, "ALTERACAO"), (13, "INCLUSAO"), (12, "EXCLUSAO")]
    assert changed(three, ask, "102.0.0") == changed(three, ask, "103.9.9") == latest
    assert changed(three, ask, "100.0.0") == [(10, "ALTERACAO"), (11, "ALTERACAO"), *latest[1:]]


def test_nothing_has_changed_since_the_current_version(three: History, ask: Ask) -> None:
    assert changed(three, ask, "104.0.0") == []


@pytest.mark.parametrize(("version", "code"), [(None, 100), ("", 100), ("x", 103), ("104.0.1", 103), ("99.9.9", 103)])
def test_a_missing_malformed_newer_or_too_old_version_is_refused(
    three: History, ask: Ask, version: str | None, code: int
) -> None:
    assert error(three, ask, version) == code


def test_the_history_limit_makes_older_versions_unknown(three: History, ask: Ask) -> None:
    assert error(three, ask, "100.0.0", limit=2) == 103
    assert len(changed(three, ask, "102.0.0", limit=2)) == 3
    assert error(three, ask, "102.0.0", limit=1) == 103
    assert changed(three, ask, "104.0.0", limit=1) == []


def test_an_earlier_snapshot_does_not_know_later_versions(three: History, ask: Ask) -> None:
    earlier = three.switched(1)
    assert changed(earlier, ask, "102.0.0") == []
    assert error(earlier, ask, "104.0.0") == 103


def test_an_excluded_unit_is_told_with_its_last_data_and_is_not_found_itself(three: History, ask: Ask) -> None:
    rows = ask(Site(three), "unidade-organizacional/10/alteradas", versaoConsulta="102.0.0")["unidades"]
    assert rows[-1]["nome"] == "Unidade 12"
    assert ask(Site(three), "unidade-organizacional/12")["servico"]["codigoErro"] == 102


def test_a_move_tells_where_the_unit_was(snapshot: MakeSnapshot, row: MakeRow, ask: Ask) -> None:
    others = [row(10, 1), row(11, 10), row(20, 1, 20)]
    history = History.of([snapshot(*others, row(12, 10)), snapshot(*others, row(12, 20, 20))])
    for organization in (10, 20):
        path = f"unidade-organizacional/{organization}/alteradas"
        rows = {row["sigla"]: row for row in ask(Site(history), path, versaoConsulta="99.0.0")["unidades"]}
        assert rows["U12"]["operacao"] == "ALTERACAO"
        assert rows["U12"]["codigoUnidadePaiAnterior"].endswith("/10")
        assert rows["U12"]["codigoOrgaoEntidadeAnterior"].endswith("/10")
        assert rows[f"U{organization}"]["codigoUnidadePaiAnterior"] is None


def _unit(code: int, parent: int, organization: int, name: str) -> Unit:
    kind = "entidade" if code == organization else "unidade-administrativa"
    return Unit(code, parent, organization, kind, name, None, "1", "1", None, None, None, "99.0.0", None)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """Two organizations (1 and 2), any hierarchy (cycles too), few codes and names so that much coincides."""
    units = {code: _unit(code, 99, code, draw(st.sampled_from("AB"))) for code in (1, 2)}
    for code in draw(st.lists(st.integers(3, 9), unique=True)):
        parent, organization = draw(st.integers(1, 9)), draw(st.sampled_from((1, 2)))
        units[code] = _unit(code, parent, organization, draw(st.sampled_from("AB")))
    order = draw(st.permutations(list(units)))
    return Snapshot("drawn", {code: units[code] for code in order})


@given(st.lists(snapshots(), min_size=1, max_size=4), st.data())
def test_the_old_structure_with_the_changes_applied_is_the_new_one(drawn: list[Snapshot], data: Any) -> None:
    history = History.of(drawn)
    old: Edition = data.draw(st.sampled_from(history.editions))
    organization = data.draw(st.sampled_from((1, 2)))
    query = {"versaoConsulta": format_version(old.versions[organization])}
    path = f"/doc/unidade-organizacional/{organization}/alteradas"
    body = json.loads(Site(history).answer(path, query, date="", caller=None).body)
    assert body["servico"]["codigoErro"] == 0

    units = {unit.code: unit for unit in old.organization_units(organization)}
    for row in body["unidades"]:
        unit = parse_row(row)
        if row["operacao"] == "EXCLUSAO":
            assert unit.code not in history.current.units
            del units[unit.code]
        else:
            # An inclusion is new to SIORG; a change may be new to this organization.
            assert row["operacao"] == "ALTERACAO" or unit.code not in units
            units[unit.code] = unit
    mine = {code: unit for code, unit in units.items() if unit.organization == organization}
    assert mine == {unit.code: parse_row(short_row(unit)) for unit in history.current.organization_units(organization)}


@given(st.lists(snapshots(), min_size=1, max_size=5))
def test_versions_never_go_back_and_grow_exactly_when_something_changed(drawn: list[Snapshot]) -> None:
    history = History.of(drawn)
    for before, after in zip(history.editions, history.editions[1:], strict=False):
        for organization in (1, 2):
            same = {u.code: u for u in before.organization_units(organization)} == {
                u.code: u for u in after.organization_units(organization)
            }
            assert before.versions[organization] <= after.versions[organization]
            assert same == (before.versions[organization] == after.versions[organization])
