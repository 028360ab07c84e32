"""Versions and differences."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siorg_simulator.endpoints import Site
from siorg_simulator.rows import parse_row, short_row
from siorg_simulator.structure import Edition, History, Snapshot, Unit, format_version, parse_version
from support.simulated import ask, codes, row, snapshot


def test_a_version_is_three_numbers() -> None:
    assert (parse_version("107.0.0"), parse_version(" 99.0.12 ")) == ((107, 0, 0), (99, 0, 12))
    assert [parse_version(wrong) for wrong in ("99.0", "a.b.c", "1.2.3.4", "")] == [None] * 4


def versions(*snapshots: Snapshot, organization: int = 10) -> list[str]:
    return [format_version(edition.versions[organization]) for edition in History.of(snapshots).editions]


def test_the_version_is_that_of_the_organizations_own_row() -> None:
    assert versions(snapshot(row(10, 1, versaoConsulta="107.0.0"), row(11, 10))) == ["107.0.0"]
    assert versions(snapshot(row(10, 1, versaoConsulta=None))) == ["99.0.0"]  # that of the initial load


def test_a_version_grows_with_the_row_or_with_what_changed_and_never_goes_back() -> None:
    old = snapshot(row(10, 1, versaoConsulta="9.0.0"))
    new = snapshot(row(10, 1, versaoConsulta="10.0.0"), row(11, 10))
    assert versions(old, new) == ["9.0.0", "10.0.0"]
    assert versions(old, new, old) == ["9.0.0", "10.0.0", "10.0.1"]
    renamed = [snapshot(row(10, 1), row(11, 10, nome=name)) for name in ("A", "B", "B", "C")]
    assert versions(*renamed) == ["99.0.0", "99.0.1", "99.0.1", "99.0.2"]
    assert History.of(renamed).current.units[10].version == "99.0.2"


def test_each_organization_has_a_version_of_its_own() -> None:
    other = row(20, 1, 20)
    here, gone = snapshot(row(10, 1), other), snapshot(other)
    assert versions(here, snapshot(row(10, 1, nome="X"), other), organization=20) == ["99.0.0", "99.0.0"]
    assert versions(here, gone, here) == ["99.0.0", "99.0.0", "99.0.1"]  # it goes on from its last


def changed(history: History, version: str, limit: int | None = None) -> list[tuple[int, str]]:
    body = ask(Site(history, history_limit=limit), "unidade-organizacional/10/alteradas", versaoConsulta=version)
    assert body["servico"]["codigoErro"] == 0
    return list(zip(codes(body["unidades"]), (unit["operacao"] for unit in body["unidades"]), strict=True))


def error(history: History, version: str | None, limit: int | None = None) -> int:
    query = {} if version is None else {"versaoConsulta": version}
    body = ask(Site(history, history_limit=limit), "unidade-organizacional/10/alteradas", **query)
    assert body["unidades"] == []
    return int(body["servico"]["codigoErro"])


@pytest.fixture
def three() -> History:
    roots = [row(10, 1, versaoConsulta=version) for version in ("100.0.0", "102.0.0", "104.0.0")]
    below = [[row(11, 10), row(12, 11)], [row(11, 10, nome="B"), row(12, 11)], [row(11, 10, nome="B"), row(13, 11)]]
    return History.of([snapshot(root, *units) for root, units in zip(roots, below, strict=True)])


def test_changes_since_a_version_are_those_since_the_newest_known_not_above_it(three: History) -> None:
    latest = [(10, "ALTERACAO"), (13, "INCLUSAO"), (12, "EXCLUSAO")]
    assert changed(three, "102.0.0") == changed(three, "103.9.9") == latest
    assert changed(three, "100.0.0") == [(10, "ALTERACAO"), (11, "ALTERACAO"), *latest[1:]]


def test_a_missing_malformed_newer_or_too_old_version_is_refused(three: History) -> None:
    assert changed(three, "104.0.0") == []
    refused = {None: 100, "": 100, "x": 103, "104.0.1": 103, "99.9.9": 103}
    assert {version: error(three, version) for version in refused} == refused


def test_older_versions_may_be_unknown(three: History) -> None:
    assert error(three, "100.0.0", limit=2) == 103
    assert len(changed(three, "102.0.0", limit=2)) == 3
    assert error(three, "102.0.0", limit=1) == 103
    assert changed(three, "104.0.0", limit=1) == []
    earlier = three.switched(1)
    assert changed(earlier, "102.0.0") == []
    assert error(earlier, "104.0.0") == 103


def test_an_excluded_unit_is_told_with_its_last_data_and_is_not_found_itself(three: History) -> None:
    rows = ask(Site(three), "unidade-organizacional/10/alteradas", versaoConsulta="102.0.0")["unidades"]
    assert rows[-1]["nome"] == "Unidade 12"
    assert ask(Site(three), "unidade-organizacional/12")["servico"]["codigoErro"] == 102


def test_a_move_tells_where_the_unit_was() -> None:
    others = [row(10, 1), row(11, 10), row(20, 1, 20)]
    history = History.of([snapshot(*others, row(12, 10)), snapshot(*others, row(12, 20, 20))])
    for organization in (10, 20):
        path = f"unidade-organizacional/{organization}/alteradas"
        rows = {unit["sigla"]: unit for unit in ask(Site(history), path, versaoConsulta="99.0.0")["unidades"]}
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
    for changed_row in body["unidades"]:
        unit, operation = parse_row(changed_row), changed_row["operacao"]
        if operation == "EXCLUSAO":
            assert unit.code not in history.current.units
            del units[unit.code]
        else:
            # An inclusion is new to SIORG; a change may be new to this organization.
            assert operation == "ALTERACAO" or unit.code not in units
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
