"""SIORG's rows: a bad one never spoils the row beside it, and nothing but a whole answer is believed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from siorg_job.siorg import rows
from siorg_job.siorg.errors import InvalidData, MalformedResponse, NotFound, SiorgError, UnusableAnswer
from siorg_job.siorg.model import DomainTable, RemoteUnit
from support.scripted_server import envelope, unit_row
from support.siorg_server import CAPTURES

captured = pytest.mark.skipif(not CAPTURES.exists(), reason="the captured answers are not beside this checkout")


def read(code: int = 471, **fields: Any) -> RemoteUnit:
    return rows.parse_unit(envelope(value=unit_row(code, **fields)), code)


def refused(kind: type[SiorgError], said: str, parse: Callable[..., Any], *arguments: Any) -> SiorgError:
    with pytest.raises(SiorgError) as caught:
        pytest.fail(f"{arguments} were read as {parse(*arguments)!r}")
    assert type(caught.value) is kind, arguments
    assert said in str(caught.value), arguments
    return caught.value


# ── One unit ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_whole_unit_is_read() -> None:
    address = {
        "tipoEndereco": "Principal", "logradouro": "Av. Fernando  Corrêa da Costa", "numero": 2367, "complemento": None,
        "bairro": "Boa Esperança", "cep": 7061908, "uf": "mt", "municipio": 5103403, "pais": 1058, "horarioDeFuncionamento": "",
    }  # fmt: skip
    site = {"tipo": "Site", "site": "http://http://www.ufmt.br.", "outroTipoSite": None}
    unit = read(
        codigoTipoUnidade="https://x/id/tipo-unidade/entidade",
        codigoCategoriaUnidade="https://x/id/categoria-unidade/12",
        areaAtuacao="FIM",
        endereco=[address, {"logradouro": "Rua B"}],
        contato=[
            {"telefone": ["(55) (65) 36158267", "(55)  (65) 36158267 "], "email": [" ufmt@ufmt.br\r\n"], "site": [site]},
            {"telefone": ["(55) (65) 1"], "email": None, "site": ["https://ufmt.br/a b"]},
        ],
    )
    assert unit == RemoteUnit(
        code=471, parent_code=244, organization_code=471, type_slug="entidade", category_code=12, activity_area="CORE",
        name="Faculdade de Geociências", acronym="FAGEO", version="107.0.0", raw=unit.raw,
        phones=("(55) (65) 36158267", "(55) (65) 1"), emails=("ufmt@ufmt.br",),
        websites=("http://www.ufmt.br", "https://ufmt.br/ab"),
        address="Av. Fernando Corrêa da Costa, 2367 - Boa Esperança, MT, CEP 07061-908", zip_code="07061908", state="MT",
    )  # fmt: skip
    assert unit.is_organization
    assert json.loads(unit.raw)["endereco"][0]["numero"] == 2367
    assert ": " not in unit.raw
    assert [read(operacao=word).ended for word in ("INCLUSAO", "ALTERACAO", "EXCLUSAO", "EXTINCAO")] == [False, False, True, True]


def test_pascal_case_as_the_documents_print_it_is_read() -> None:
    def pascal(value: Any) -> Any:
        if isinstance(value, dict):
            return {key[0].upper() + key[1:]: pascal(entry) for key, entry in value.items()}
        return [pascal(entry) for entry in value] if isinstance(value, list) else value

    contact, address = {"telefone": ["1"], "site": [{"site": "x.br"}]}, {"logradouro": "Rua A", "cep": "78060900"}
    row = unit_row(9, contato=[contact], endereco=[address])
    unit = rows.parse_unit(json.dumps(pascal(json.loads(envelope(value=row)))).encode(), 9)
    assert (unit.code, unit.name, unit.phones, unit.websites) == (9, "Faculdade de Geociências", ("1",), ("x.br",))
    assert (unit.address, unit.zip_code) == ("Rua A, CEP 78060-900", "78060900")
    assert json.loads(unit.raw)["codigoUnidade"].endswith("/9")


def test_absent_null_and_blank_all_mean_that_siorg_did_not_say() -> None:
    bare = {"codigoUnidade": "9"}
    silent = {*unit_row(9), "codigoCategoriaUnidade", "areaAtuacao", "endereco", "contato"} - {"codigoUnidade"}
    for row in (bare, *({**bare, **dict.fromkeys(silent, nothing)} for nothing in (None, "", "  ", "\xa0\r\n\t"))):
        unit = rows.parse_unit(envelope(value=row), 9)
        assert unit == RemoteUnit(code=9, raw=unit.raw), row


def test_limits_of_names_count_after_white_space_is_normalised() -> None:
    assert len(read(nome=" " * 60 + "x" * 255).name or "") == 255
    assert len(read(sigla=" " * 60 + "x" * 50).acronym or "") == 50
    for key, longest in (("nome", 255), ("sigla", 50)):
        too_long = envelope(value={**unit_row(), key: " " + "x" * (longest + 1)})
        refused(InvalidData, f"{key} is text of {longest + 1} characters", rows.parse_unit, too_long, 471)


def test_what_is_not_the_one_unit_that_was_asked_for_is_not_taken() -> None:
    cases: list[tuple[Any, type[SiorgError], str]] = [
        (unit_row(471), InvalidData, "asked for unit 5 and answered with unit 471"),
        ([unit_row(5), unit_row(6)], InvalidData, "a list of 2"),
        ([5], InvalidData, "unidade is a whole number"),
        ({"nome": "x"}, InvalidData, "codigoUnidade is nothing"),
        # Success without a unit is no extinct unit.
        (None, MalformedResponse, "sends no unit"),
        ([], MalformedResponse, "sends no unit"),
        ("", MalformedResponse, "sends no unit"),
    ]
    for value, kind, said in cases:
        refused(kind, said, rows.parse_unit, envelope("unidades", value), 5)


def test_what_no_database_takes_is_refused_with_its_place() -> None:
    cases = {
        rb'"\ud800"': "lone surrogate", b'"\xff\xfe"': "wrong byte", b'"\xed\xa0\x80"': "wrong byte",
        b"NaN": "NaN", b"-Infinity": "-Infinity", b"1e999": "too large", b"0." + b"1" * 5000: "too large",
        b"1" * 5000: "a number of 5000 characters", b"[" * 60 + b"]" * 60: "deeper than",
        rb'{"k\u0000":1}': "NUL", rb'{"\udfff":1}': "lone surrogate",
    }  # fmt: skip
    for replacement, reason in cases.items():
        body = envelope(value=unit_row(9, novo={"x": ["HERE"]})).replace(b'"HERE"', replacement)
        error = refused(InvalidData, reason, rows.parse_unit, body, 9)
        place = "novo.x[0]: a key" if replacement.startswith(b"{") else "novo.x[0]"
        assert str(error.details["field"]).startswith(place), replacement
        str(error).encode()


def test_what_only_looks_dangerous_is_kept() -> None:
    unit = read(nome=r"C:\u0000 \ud83d", novo=10**200, many=[[[]] for _ in range(500)])
    assert unit.name == r"C:\u0000 \ud83d"
    assert json.loads(unit.raw)["novo"] == 10**200


def test_nul_is_removed_from_the_row_and_all_else_is_stored_as_it_came() -> None:
    unit = read(nome=" A\x00\u202e B ", finalidade=["\x00", {"x": r"\u0000" + "\x00"}])
    stored = json.loads(unit.raw)
    assert (unit.name, stored["nome"], stored["finalidade"]) == ("A B", " A\u202e B ", ["", {"x": r"\u0000"}])
    assert rows.parse_stored(stored) == unit


# ── Structures ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_bad_unit_never_spoils_the_others() -> None:
    bad = [{"nome": "no code"}, 5, None, unit_row(4, codigoUnidade="x")]
    units = [unit_row(471), unit_row(1, nome=["bad"]), unit_row(2, nome="a\ud800b"), unit_row(3), *bad]
    structure = rows.read_structure(envelope("unidades", units), 471)
    assert set(structure.units) == {471, 3}
    assert {code: error.details["field"] for code, error in structure.invalid.items()} == {1: "nome", 2: "nome"}
    assert structure.unidentified == 4
    assert structure.is_whole


def test_an_answer_without_one_usable_row_is_broken_and_says_nothing_about_its_units() -> None:
    bad = [unit_row(code, nome=5) for code in (471, *range(1, 41))]
    for value, said in ((bad, "none of the 41 rows of SIORG's answer can be used, the first because nome"), ([5, {}], "2 rows")):
        refused(UnusableAnswer, said, rows.read_structure, envelope("unidades", value), 471)
    structure = rows.read_structure(envelope("unidades", [*bad, unit_row(41)]), 471)
    assert (len(structure.invalid), set(structure.units)) == (41, {41})


def test_the_same_row_twice_is_one_unit_and_different_rows_are_none() -> None:
    reordered = dict(reversed(unit_row(2).items()))
    units = [unit_row(471), unit_row(1), unit_row(1), unit_row(2), reordered, unit_row(3), unit_row(3, nome="Other")]
    units += [unit_row(4, nome=5), unit_row(4), unit_row(5, nome="A B"), unit_row(5, nome=" A\xa0B\u202e")]
    structure = rows.read_structure(envelope("unidades", units), 471)
    assert set(structure.units) == {471, 1, 2, 5}
    assert set(structure.invalid) == {3, 4}
    assert "more than once" in str(structure.invalid[3])


def test_a_structure_is_whole_only_with_the_organization_itself() -> None:
    whole: list[Any] = [[unit_row(471)], unit_row(471), [unit_row(471, nome=5), unit_row(2)]]
    for value in whole:
        assert rows.read_structure(envelope("unidade", value), 471).is_whole, value
    partial: list[Any] = [[], None, [unit_row(1), unit_row(2)], [5]]
    for value in partial:
        assert not rows.read_structure(envelope("unidade", value), 471).is_whole, value


@captured
@pytest.mark.parametrize(("name", "count"), [("ufmt-2016-03-02", 459), ("ufmt-2016-06-30", 476)])
def test_captured_structures_are_read_whole(name: str, count: int) -> None:
    body = (CAPTURES / f"{name}.json").read_bytes()
    structure = rows.read_structure(body, 471)
    assert (len(structure.units), structure.invalid, structure.unidentified) == (count, {}, 0)
    assert structure.units[471].is_organization
    assert all(unit.organization_code == 471 for unit in structure.units.values())
    by_code = {rows.parse_stored(row).code: row for row in json.loads(body)["unidades"]}  # type: ignore[union-attr]
    assert {code: json.loads(unit.raw) for code, unit in structure.units.items()} == by_code


def test_power_and_sphere_are_read_where_they_are_numbers() -> None:
    assert rows.power_and_sphere(read(codigoPoder="https://x/id/poder/3", codigoEsfera="1")) == (3, 1)
    wrong: list[Any] = ["https://x/id/poder/judiciario", None, "", 1.5, []]
    for poder in wrong:
        assert rows.power_and_sphere(read(codigoPoder=poder, codigoEsfera=1)) is None, poder


# ── Versions, changes ────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_version_is_found_in_either_shape() -> None:
    cases: list[tuple[str, Any]] = [
        ("unidades", [{"versaoConsulta": "107.2.0"}]),
        ("unidades", {"versaoConsulta": "107.2.0"}),
        ("versao", {"versaoAnterior": "106.0.0", "versaoConsulta": " 107.2.0 ", "versaoPosterior": ""}),
        ("tipoVersao", {"versaoConsulta": "107.2.0"}),
        ("versao", {"tipoVersao": {"versaoConsulta": "107.2.0"}}),
        ("Versao", {"VersaoConsulta": "107.2.0"}),
        ("unidades", [{"versaoConsulta": "99.0.0"}, {"versaoConsulta": "107.2.0"}]),
        ("unidades", [{"versaoConsulta": v, "codigoUnidade": code} for v, code in (("200.0.0", 5), ("107.2.0", 471))]),
    ]
    for key, value in cases:
        assert rows.parse_version(envelope(key, value), 471) == "107.2.0", (key, value)


def test_a_version_that_is_none_is_an_error() -> None:
    cases: list[tuple[bytes, type[SiorgError]]] = [
        (envelope("unidades", []), MalformedResponse),
        (envelope("versao", "107.0.0"), MalformedResponse),
        (envelope("unidades", [{"versaoConsulta": None}]), InvalidData),
        (envelope("unidades", [{}]), InvalidData),
        (envelope("unidades", ["107.0.0"]), InvalidData),
        (envelope("unidades", [{"versaoConsulta": "107"}]), InvalidData),
        (envelope("unidades", [{"versaoConsulta": "107.0.0", "codigoUnidade": 5}]), InvalidData),
        (envelope("unidades", None, code=102), NotFound),
    ]
    for body, kind in cases:
        refused(kind, "", rows.parse_version, body, 471)


# ── Domain tables ────────────────────────────────────────────────────────────────────────────────────────────────────


@captured
def test_captured_domain_tables_are_read() -> None:
    tables = json.loads((CAPTURES / "domain-tables.json").read_text())
    for table in DomainTable:
        value = tables.get(table.key, tables.get(table.value))
        if value:
            assert len(rows.parse_domain(envelope(table.key, value), table)) == len(value)


def test_domain_rows() -> None:
    given: list[tuple[Any, str, Any]] = [(1, " Órgão\xa0Singular ", "SIM"), ("https://x/id/categoria-unidade/2", "B", "NAO")]
    given += [("03", "C", None), ("3\u202c", "C\xa0", "SIM")]
    keys = ("codigoCategoriaUnidade", "descricaoCategoriaUnidade", "ativo")
    body = envelope("categoriaUnidade", [dict(zip(keys, row, strict=True)) for row in given])
    read = rows.parse_domain(body, DomainTable.UNIT_CATEGORY)
    assert [(row.code, row.name, row.active) for row in read] == [(1, "Órgão Singular", True), (2, "B", False), (3, "C", True)]
    types = envelope("tipoUnidade", {"codigoTipoUnidade": "UA", "descricaoTipoUnidade": "Unidade Administrativa"})
    (row,) = rows.parse_domain(types, DomainTable.UNIT_TYPE)
    assert (row.code, row.name, row.active) == ("UA", "Unidade Administrativa", True)
    assert [table.key for table in DomainTable] == ["tipoUnidade", "categoriaUnidade", "naturezaJuridica", "poder", "esfera"]


def test_a_domain_table_is_read_whole_or_not_at_all() -> None:
    x = {"codigoPoder": 1, "descricaoPoder": "x"}
    invalid: list[list[Any]] = [
        [5], [{**x, "codigoPoder": None}], [{**x, "codigoPoder": True}], [{"codigoPoder": 1}], [{"codigoPoder": 1, "nome": "x"}],
        [{**x, "descricaoPoder": "x" * 256}], [{**x, "ativo": "TALVEZ"}], [x, {**x, "descricaoPoder": "y"}],
    ]  # fmt: skip
    for value in invalid:
        refused(InvalidData, "", rows.parse_domain, envelope("poder", value), DomainTable.POWER)
    refused(InvalidData, "", rows.parse_domain, envelope("poder", [5, x]), DomainTable.POWER)
    refused(UnusableAnswer, "2 rows", rows.parse_domain, envelope("poder", [5, {}]), DomainTable.POWER)
    for empty in (envelope("poder", []), envelope("poder", None)):
        refused(MalformedResponse, "", rows.parse_domain, empty, DomainTable.POWER)


# ── What was stored ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_was_stored_reads_back_the_same() -> None:
    whole = read(contato=[{"telefone": ["1"]}], endereco=[{"logradouro": "Rua A"}], operacao="ALTERACAO")
    assert rows.parse_stored(whole.raw) == rows.parse_stored(json.loads(whole.raw)) == whole
    # An unusable field is none, and spoils no other.
    contact, address = {"telefone": [True], "email": ["a@b"]}, {"cep": "78060900", "numero": []}
    unit = rows.parse_stored(unit_row(9, nome=5, contato=[contact], endereco=[address]))
    assert unit is not None
    assert (unit.name, unit.phones, unit.emails) == (None, None, ("a@b",))
    assert (unit.address, unit.zip_code, unit.acronym) == (None, "78060900", "FAGEO")
    nothing: list[Any] = [None, "", "x", "[]", "5", "{", "{}", {}, {"codigoUnidade": None}, {"codigoUnidade": "x"}, "[" * 100_000]
    for raw in nothing:
        assert rows.parse_stored(raw) is None, raw
