"""What SIORG's answers mean: every wobble that was seen is read, and nothing else is believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from siorg_job.siorg import parsing
from siorg_job.siorg.errors import (
    InvalidAnswer,
    NotAnOrganization,
    NotFound,
    RequestRefused,
    SiorgError,
    SiorgUnavailable,
    TornAnswer,
    VersionUnknown,
)
from siorg_job.siorg.model import DomainTable, RemoteUnit
from support.scripted_server import envelope, unit_row

CAPTURES = Path(__file__).resolve().parents[4] / "shared" / "data" / "siorg"


def read(code: int = 471, **fields: Any) -> RemoteUnit:
    return parsing.parse_unit(envelope(value=unit_row(code, **fields)), code)


# ── One unit ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_whole_unit_is_read() -> None:
    unit = read(
        codigoTipoUnidade="https://x/id/tipo-unidade/entidade",
        codigoCategoriaUnidade="https://x/id/categoria-unidade/12",
        areaAtuacao="FIM",
        endereco=[
            {
                "tipoEndereco": "Principal",
                "logradouro": "Av. Fernando  Corrêa da Costa",
                "numero": 2367,
                "complemento": None,
                "bairro": "Boa Esperança",
                "cep": 7061908,
                "uf": "mt",
                "municipio": 5103403,
                "pais": 1058,
                "horarioDeFuncionamento": "",
            },
            {"logradouro": "Rua B"},
        ],
        contato=[
            {
                "telefone": ["(55) (65) 36158267", "(55)  (65) 36158267 "],
                "email": [" ufmt@ufmt.br\r\n"],
                "site": [{"tipo": "Site", "site": "http://http://www.ufmt.br.", "outroTipoSite": None}],
            },
            {"telefone": ["(55) (65) 1"], "email": None, "site": ["https://ufmt.br/a b"]},
        ],
    )
    assert (unit.code, unit.parent_code, unit.organization_code) == (471, 244, 471)
    assert (unit.type_slug, unit.is_organization) == ("entidade", True)
    assert (unit.name, unit.acronym) == ("Faculdade de Geociências", "FAGEO")
    assert (unit.category_code, unit.activity_area) == (12, "CORE")
    assert unit.phones == ("(55) (65) 36158267", "(55) (65) 1")
    assert unit.emails == ("ufmt@ufmt.br",)
    assert unit.websites == ("http://www.ufmt.br", "https://ufmt.br/ab")
    assert unit.address == "Av. Fernando Corrêa da Costa, 2367 - Boa Esperança, MT, CEP 07061-908"
    assert (unit.zip_code, unit.state) == ("07061908", "MT")
    assert (unit.version, unit.operation, unit.ended) == ("107.0.0", None, False)
    assert json.loads(unit.raw)["endereco"][0]["numero"] == 2367
    assert ": " not in unit.raw


@pytest.mark.parametrize("key", ["unidade", "unidades", "Unidade", "Unidades"])
@pytest.mark.parametrize("shape", ["object", "list"])
def test_a_unit_is_found_under_either_key_in_either_shape(key: str, shape: str) -> None:
    row = unit_row(9)
    body = envelope(key, row if shape == "object" else [row])
    assert parsing.parse_unit(body, 9).code == 9


def test_pascal_case_as_the_documents_print_it_is_read() -> None:
    def pascal(value: Any) -> Any:
        if isinstance(value, dict):
            return {key[0].upper() + key[1:]: pascal(entry) for key, entry in value.items()}
        return [pascal(entry) for entry in value] if isinstance(value, list) else value

    row = unit_row(
        9,
        contato=[{"telefone": ["1"], "site": [{"site": "x.br"}]}],
        endereco=[{"logradouro": "Rua A", "cep": "78060900"}],
    )
    unit = parsing.parse_unit(json.dumps(pascal(json.loads(envelope(value=row)))).encode(), 9)
    assert (unit.code, unit.name, unit.phones, unit.websites) == (9, "Faculdade de Geociências", ("1",), ("x.br",))
    assert (unit.address, unit.zip_code) == ("Rua A, CEP 78060-900", "78060900")
    assert json.loads(unit.raw)["codigoUnidade"].endswith("/9")


@pytest.mark.parametrize("nothing", ["absent", None, "", "  ", "\xa0\r\n\t"])
def test_absent_null_and_blank_all_mean_that_siorg_did_not_say(nothing: str | None) -> None:
    keys = [
        "codigoUnidadePai",
        "codigoOrgaoEntidade",
        "codigoTipoUnidade",
        "nome",
        "sigla",
        "codigoCategoriaUnidade",
        "areaAtuacao",
        "endereco",
        "contato",
        "versaoConsulta",
        "operacao",
    ]
    row = unit_row(9)
    for key in keys:
        row.pop(key, None)
        if nothing != "absent":
            row[key] = nothing
    unit = parsing.parse_unit(envelope(value=row), 9)
    said: list[Any] = [
        unit.parent_code,
        unit.organization_code,
        unit.type_slug,
        unit.name,
        unit.acronym,
        unit.category_code,
    ]
    said += [unit.activity_area, unit.phones, unit.emails, unit.websites, unit.address, unit.zip_code, unit.state]
    said += [unit.version, unit.operation]
    assert said == [None] * len(said)
    assert unit.ended is False


@pytest.mark.parametrize(
    ("contact", "phones"),
    [
        ([], None),
        ([None], None),
        ({}, None),
        ([{}], None),
        ([{"telefone": None}], None),
        ([{"telefone": [""]}], None),
        ([{"telefone": []}], ()),
        ([{"telefone": "(65) 1"}], ("(65) 1",)),
        ([{"telefone": 36158267}], ("36158267",)),
        ({"telefone": ["1", " 1 ", None, "2"]}, ("1", "2")),
    ],
)
def test_telephones_keep_order_lose_doubles_and_an_empty_list_is_a_statement(
    contact: Any, phones: tuple[str, ...] | None
) -> None:
    assert read(contato=contact).phones == phones


@pytest.mark.parametrize(
    "value",
    [
        "http://estruturaorganizacional.dados.gov.br/id/unidade-organizacional/244",
        "HTTPS://other.host:8443/doc/unidade-organizacional/000244/",
        "244",
        "000244",
        " 244 ",
        244,
    ],
)
def test_codes_come_in_many_spellings(value: Any) -> None:
    assert read(codigoUnidadePai=value).parent_code == 244


@pytest.mark.parametrize(
    "value",
    [0, -1, 2147483648, 10 ** 30, 1.5, True, False, [], {}, ["244"], "x", "24 4", "٣", "²", "-1", "0", "1e3",
     "2147483648",
     "https://x/id/unidade-organizacional/", "ftp://x/id/244", "https://x/id/244?a=1", "1" * 400, "244\x00"],
)  # fmt: skip
def test_what_is_no_code_is_named_with_its_shape_and_what_is_allowed(value: Any) -> None:
    with pytest.raises(InvalidAnswer, match="codigoUnidadePai is") as caught:
        read(codigoUnidadePai=value)
    assert caught.value.field == "codigoUnidadePai"
    if "\x00" not in str(value):
        assert "allowed: a URI that ends in a code" in caught.value.message
        assert caught.value.details["shape"]
    json.dumps(dict(caught.value.details), allow_nan=False).encode()
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    ("field", "value", "shape"),
    [
        ("nome", 5, "a whole number of 1 digits"),
        ("nome", True, "true"),
        ("nome", ["a"], "a list of 1"),
        ("nome", "x" * 256, "text of 256 characters"),
        ("sigla", "x" * 51, "text of 51 characters"),
        ("sigla", {"a": 1}, "an object of 1 keys"),
        ("codigoTipoUnidade", 7, "a whole number"),
        ("codigoTipoUnidade", "https://x/id/tipo-unidade/Ünidade", "text of"),
        ("codigoTipoUnidade", "../../etc", "text of"),
        ("codigoCategoriaUnidade", 1.5, "a decimal number"),
        ("areaAtuacao", "OUTRA", "text of 5"),
        ("areaAtuacao", 1, "a whole number"),
        ("versaoConsulta", "107.0", "text of 5"),
        ("versaoConsulta", 107, "a whole number"),
        ("versaoConsulta", "1.2.-3", "text of 6"),
        ("versaoConsulta", "1.2.٣", "text of 5"),
        ("operacao", "FUSAO", "text of 5"),
        ("operacao", False, "false"),
        ("contato", "x", "text of 1"),
        ("contato", 5, "a whole number"),
        ("contato", [5], "a whole number"),
        ("contato", [{"telefone": [True]}], "true"),
        ("contato", [{"telefone": {"a": 1}}], "an object"),
        ("contato", [{"email": [5]}], "a whole number"),
        ("contato", [{"email": ["x" * 1001]}], "text of 1001"),
        ("contato", [{"email": [str(number) for number in range(201)]}], "a list of 201"),
        ("endereco", True, "true"),
        ("endereco", [[]], "a list of 0"),
        ("endereco", [{"logradouro": {}}], "an object"),
        ("endereco", [{"logradouro": "x", "numero": True}], "true"),
        ("endereco", [{"cep": [1]}], "a list of 1"),
    ],
)
def test_a_field_of_the_wrong_kind_is_named_with_its_shape(field: str, value: Any, shape: str) -> None:
    with pytest.raises(InvalidAnswer) as caught:
        read(**{field: value})
    assert caught.value.field.startswith(field)
    assert shape in caught.value.message
    assert "allowed: " in caught.value.message


def test_limits_apply_after_white_space_is_normalised() -> None:
    unit = read(nome="  a \r\n" + "\xa0" * 300 + "b\u200bc\t", sigla=" " * 60 + "X\u2028Y")
    assert (unit.name, unit.acronym) == ("a bc", "X Y")
    assert len(read(nome="x" * 255).name or "") == 255


@pytest.mark.parametrize(
    ("slug", "known"),
    [
        ("https://x/id/tipo-unidade/Unidade-Colegiada", "unidade-colegiada"),
        ("orgao", "orgao"),
        ("https://x/id/tipo-unidade/OR", "orgao"),
        ("EM", "entidade"),
        ("https://x/id/tipo-unidade/something-new", "something-new"),
    ],
)
def test_types_are_slugs(slug: str, known: str) -> None:
    assert read(codigoTipoUnidade=slug).type_slug == known


def test_a_category_slug_says_nothing_because_its_number_is_unknown() -> None:
    assert read(codigoCategoriaUnidade="https://x/id/categoria-unidade/orgao-singular").category_code is None


@pytest.mark.parametrize(
    ("operation", "read_as", "ended"),
    [
        ("INCLUSAO", "INCLUSAO", False),
        ("alteração", "ALTERACAO", False),
        ("EXCLUSAO", "EXCLUSAO", True),
        ("EXCLUSÃO", "EXCLUSAO", True),
        ("EXTINCAO", "EXCLUSAO", True),
    ],
)
def test_operations(operation: str, read_as: str, ended: bool) -> None:
    unit = read(operacao=operation)
    assert (unit.operation, unit.ended) == (read_as, ended)


@pytest.mark.parametrize(
    ("address", "line", "zip_code", "state"),
    [
        ({}, None, None, None),
        ({"uf": "MT", "cep": "78060-900"}, None, "78060900", "MT"),
        ({"uf": 51, "logradouro": "Rua A"}, "Rua A, MT", None, "MT"),
        ({"municipio": 5103403, "numero": 9}, None, None, "MT"),
        ({"municipio": "Cuiabá", "uf": "MT"}, "Cuiabá/MT", None, "MT"),
        (
            {"logradouro": "Rua A", "numero": "s/n", "complemento": "Bloco B", "bairro": "Centro", "cep": 78060900.0},
            "Rua A, s/n, Bloco B - Centro, CEP 78060-900",
            "78060900",
            None,
        ),
        ({"logradouro": "Rua A", "cep": "00000000", "uf": "??"}, "Rua A", None, None),
        ({"logradouro": "Rua A", "cep": "123", "uf": "Mato Grosso"}, "Rua A", None, None),
        ({"logradouro": "Rua A", "cep": -78060900}, "Rua A, CEP 78060-900", "78060900", None),
        ({"bairro": "Centro"}, "Centro", None, None),
    ],
)
def test_addresses_become_one_line_without_what_is_lacking(
    address: dict[str, Any], line: str | None, zip_code: str | None, state: str | None
) -> None:
    unit = read(endereco=[address])
    assert (unit.address, unit.zip_code, unit.state) == (line, zip_code, state)


def test_the_unit_that_was_not_asked_for_is_not_taken() -> None:
    with pytest.raises(InvalidAnswer, match="asked for unit 5 and answered with unit 471"):
        parsing.parse_unit(envelope(value=unit_row(471)), 5)


def test_two_units_where_one_was_asked_for_are_not_taken() -> None:
    with pytest.raises(InvalidAnswer, match="a list of 2"):
        parsing.parse_unit(envelope("unidades", [unit_row(1), unit_row(2)]), 1)


@pytest.mark.parametrize("value", [None, [], ""])
def test_success_without_a_unit_is_a_torn_answer_not_an_extinct_unit(value: Any) -> None:
    with pytest.raises(TornAnswer, match="sends no unit"):
        parsing.parse_unit(envelope(value=value), 5)


def test_a_row_that_is_no_object_or_has_no_code_cannot_be_used() -> None:
    with pytest.raises(InvalidAnswer, match="unidade is a whole number"):
        parsing.parse_unit(envelope("unidades", [5]), 5)
    with pytest.raises(InvalidAnswer, match="codigoUnidade is nothing"):
        parsing.parse_unit(envelope(value={"nome": "x"}), 5)


# ── What cannot be stored ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("replacement", "place", "reason"),
    [
        (rb'"a\u0000b"', "novo.x[0]", "NUL"),
        (rb'"\ud800"', "novo.x[0]", "lone surrogate"),
        (b'"\xff\xfe"', "novo.x[0]", "wrong byte"),
        (b'"\xed\xa0\x80"', "novo.x[0]", "wrong byte"),
        (b"NaN", "novo.x[0]", "NaN"),
        (b"-Infinity", "novo.x[0]", "-Infinity"),
        (b"1e999", "novo.x[0]", "too large"),
        (b"1" * 5000, "novo.x[0]", "a number of 5000 characters"),
        (b"0." + b"1" * 5000, "novo.x[0]", "too large"),
        (b"[" * 60 + b"]" * 60, "novo.x[0]", "deeper than"),
        (rb'{"k\u0000":1}', "novo.x[0]: a key", "NUL"),
        (rb'{"\udfff":1}', "novo.x[0]: a key", "lone surrogate"),
    ],
)
def test_what_no_database_takes_is_refused_with_its_place(replacement: bytes, place: str, reason: str) -> None:
    body = envelope(value=unit_row(9, novo={"x": ["HERE"]})).replace(b'"HERE"', replacement)
    with pytest.raises(InvalidAnswer) as caught:
        parsing.parse_unit(body, 9)
    assert reason in caught.value.message
    assert caught.value.field.startswith(place)
    caught.value.message.encode()


def test_escapes_that_only_look_dangerous_are_kept() -> None:
    body = envelope(value=unit_row(9, nome=r"C:\u0000 \ud83d", sigla="\U0001f600", novo=10**200))
    unit = parsing.parse_unit(body, 9)
    assert (unit.name, unit.acronym) == (r"C:\u0000 \ud83d", "\U0001f600")
    assert json.loads(unit.raw)["novo"] == 10**200


def test_many_brackets_are_not_depth() -> None:
    assert read(novo=[[[]] for _ in range(500)]).code == 471


# ── Envelopes ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"\x00",
        b"<html><body>502 Bad Gateway</body></html>",
        b"null",
        b"[]",
        b'"text"',
        b"471",
        b"{",
        b"{}",
        b'{"servico"',
        b'{"servico":}',
        b'{"servico":{"codigoErro":0}',
        b'{"servico":{"codigoErro":0},}',
        b'{"servico":{"codigoErro":0},"unidade":{}}x',
        b'{"servico":{"codigoErro":0}}{"servico":{"codigoErro":0}}',
        b'{servico:{"codigoErro":0}}',
        b'{"servico" {"codigoErro":0}}',
        b'{"servico":{"codigoErro":0} "unidade":null}',
        b'{"servico":{"codigoErro":0},"unidades":[{"codigoUnidade":9}',
        b'{"servico":{"codigoErro":0},"unidades":[{"codigoUnidade":9},]}',
        b'{"servico":{"codigoErro":0},"unidades":[{"codigoUnidade":9} {}]}',
        b'{"servico":{"codigoErro":0},"unidades":[',
        b'{"unidade":{"codigoUnidade":9}}',
        b'{"servico":null,"unidade":{"codigoUnidade":9}}',
        b'{"servico":[],"unidade":{"codigoUnidade":9}}',
        b'{"servico":{},"unidade":{"codigoUnidade":9}}',
        b'{"servico":{"codigoErro":null},"unidade":{"codigoUnidade":9}}',
        b'{"servico":{"codigoErro":false},"unidade":{"codigoUnidade":9}}',
        b'{"servico":{"codigoErro":0.0},"unidade":{"codigoUnidade":9}}',
        b'{"servico":{"codigoErro":"none"},"unidade":{"codigoUnidade":9}}',
        b'{"servico":{"codigoErro":0},"unidade":5}',
        b'{"servico":{"codigoErro":0},"unidade":"x"}',
        b'{"servico":{"codigoErro":0},"unidade":true}',
        b'{"servico":{"codigoErro":0},"unidade":{"codigoUnidade":9},"x":"\n"}',
        b'{"servico":{"codigoErro":0},"x":' + b"[" * 100_000,
        b'{"servico":{"codigoErro":0},"unidades":[' + b'{"a":' * 100_000,
        b'{"error":"not found","status":404}',
        '{"servico":{"codigoErro":0}}'.encode("utf-16"),
        b"\x1f\x8b\x08\x00garbage",
    ],
)
def test_what_is_no_whole_answer_of_siorg_is_torn(body: bytes) -> None:
    with pytest.raises(TornAnswer):
        parsing.parse_unit(body, 9)


def test_white_space_byte_order_mark_and_unknown_keys_do_no_harm() -> None:
    row = json.dumps(unit_row(9), indent=2)
    text = f'\ufeff \r\n{{ "x" : [1, {{}}], "unidades" : [ {row} ] , "servico" : {{ "codigoErro" : "0" }} }} \n'
    unit = parsing.parse_unit(text.encode(), 9)
    assert unit.code == 9
    assert "\n" not in unit.raw
    assert parsing.parse_unit(bytearray(text.encode()), 9) == unit


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (1, SiorgUnavailable),
        (100, RequestRefused),
        (101, NotFound),
        (102, NotFound),
        (103, RequestRefused),
        (104, NotAnOrganization),
        (105, RequestRefused),
        (-7, RequestRefused),
        (10**40, RequestRefused),
        ("102", NotFound),
    ],
)
@pytest.mark.parametrize("value", [None, [], {}, 5, "x", [5], {"codigoUnidade": True}, [{"nome": 5}]])
def test_an_error_of_siorg_comes_before_any_look_at_the_rows(code: Any, kind: type[SiorgError], value: Any) -> None:
    # The rows stand before the servico here, so that they are read first.
    body = json.dumps({"unidade": value, "servico": {"codigoErro": code, "mensagem": "Não encontrado", "ticket": "T-1"}})
    with pytest.raises(SiorgError) as caught:
        parsing.parse_unit(body.encode(), 9)
    assert type(caught.value) is kind
    assert "Não encontrado (ticket T-1)" in caught.value.message
    assert caught.value.details["siorg_message"] == "Não encontrado"
    json.dumps(dict(caught.value.details), allow_nan=False)


def test_what_siorg_says_about_an_error_is_cleaned_and_cut() -> None:
    with pytest.raises(RequestRefused) as caught:
        parsing.parse_unit(envelope(code=100, message="a\x00b\x1b[31m\r\n\ud800" + "x" * 5000), 9)
    assert "a b [31m x" in caught.value.message
    assert len(caught.value.message) < 300
    caught.value.message.encode()


@pytest.mark.parametrize("message", [None, 5, {}, "", []])
def test_an_error_without_words_is_still_the_error(message: Any) -> None:
    with pytest.raises(NotFound, match=r"SIORG reports error 102$"):
        parsing.parse_unit(envelope(code=102, message=message), 9)


# ── Structures ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_bad_unit_never_spoils_the_others() -> None:
    rows = [
        unit_row(471),
        unit_row(1, nome=["bad"]),
        unit_row(2, nome="a\x00b"),
        unit_row(3),
        {"nome": "no code"},
        5,
        None,
        unit_row(4, codigoUnidade="x"),
    ]
    structure = parsing.read_structure(envelope("unidades", rows), 471)
    assert set(structure.units) == {471, 3}
    assert {code: error.field for code, error in structure.invalid.items()} == {1: "nome", 2: "nome"}
    assert structure.unidentified == 4
    assert parsing.is_whole(structure)


def test_the_same_row_twice_is_one_unit_and_different_rows_are_none() -> None:
    reordered = dict(reversed(unit_row(2).items()))
    rows = [unit_row(471), unit_row(1), unit_row(1), unit_row(2), reordered, unit_row(3), unit_row(3, nome="Other")]
    rows += [unit_row(4, nome=5), unit_row(4)]
    structure = parsing.read_structure(envelope("unidades", rows), 471)
    assert set(structure.units) == {471, 1, 2}
    assert set(structure.invalid) == {3, 4}
    assert "more than once" in structure.invalid[3].message


@pytest.mark.parametrize(
    ("rows", "whole"),
    [
        ([], False),
        (None, False),
        ([unit_row(1), unit_row(2)], False),
        ([5, {}], False),
        ([unit_row(471)], True),
        (unit_row(471), True),
        ([unit_row(471, nome=5), unit_row(2)], True),
    ],
)
def test_a_structure_is_whole_only_with_the_organization_itself(rows: Any, whole: bool) -> None:
    for key in ("unidades", "unidade"):
        assert parsing.is_whole(parsing.read_structure(envelope(key, rows), 471)) is whole


def test_an_empty_preferred_key_does_not_hide_the_other() -> None:
    body = json.dumps({"servico": {"codigoErro": 0}, "unidades": [], "unidade": [unit_row(471)]}).encode()
    assert set(parsing.read_structure(body, 471).units) == {471}


@pytest.mark.skipif(not CAPTURES.exists(), reason="the captured answers are not beside this checkout")
@pytest.mark.parametrize(("name", "count"), [("ufmt-2016-03-02", 459), ("ufmt-2016-06-30", 476)])
def test_captured_structures_are_read_whole(name: str, count: int) -> None:
    body = (CAPTURES / f"{name}.json").read_bytes()
    structure = parsing.read_structure(body, 471)
    assert (len(structure.units), structure.invalid, structure.unidentified) == (count, {}, 0)
    assert structure.units[471].is_organization
    assert all(unit.organization_code == 471 for unit in structure.units.values())
    by_code = {parsing.parse_stored(row).code: row for row in json.loads(body)["unidades"]}  # type: ignore[union-attr]
    assert {code: json.loads(unit.raw) for code, unit in structure.units.items()} == by_code


# ── Versions, changes ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "body",
    [
        envelope("unidades", [{"versaoConsulta": "107.2.0"}]),
        envelope("unidades", {"versaoConsulta": "107.2.0"}),
        envelope("versao", {"versaoAnterior": "106.0.0", "versaoConsulta": " 107.2.0 ", "versaoPosterior": ""}),
        envelope("tipoVersao", {"versaoConsulta": "107.2.0"}),
        envelope("versao", {"tipoVersao": {"versaoConsulta": "107.2.0"}}),
        envelope("Versao", {"VersaoConsulta": "107.2.0"}),
        envelope("unidades", [{"versaoConsulta": "99.0.0"}, {"versaoConsulta": "107.2.0"}]),
        envelope(
            "unidades",
            [{"versaoConsulta": "200.0.0", "codigoUnidade": 5}, {"versaoConsulta": "107.2.0", "codigoUnidade": 471}],
        ),
    ],
)
def test_the_version_is_found_in_either_shape(body: bytes) -> None:
    assert parsing.parse_version(body, 471) == "107.2.0"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (envelope("unidades", []), TornAnswer),
        (envelope("versao", "107.0.0"), TornAnswer),
        (envelope("unidades", [{"versaoConsulta": None}]), InvalidAnswer),
        (envelope("unidades", [{}]), InvalidAnswer),
        (envelope("unidades", ["107.0.0"]), InvalidAnswer),
        (envelope("unidades", [{"versaoConsulta": "107"}]), InvalidAnswer),
        (envelope("unidades", [{"versaoConsulta": "107.0.0", "codigoUnidade": 5}]), InvalidAnswer),
        (envelope("unidades", None, code=102), NotFound),
    ],
)
def test_a_version_that_is_none_is_an_error(body: bytes, kind: type[SiorgError]) -> None:
    with pytest.raises(kind):
        parsing.parse_version(body, 471)


def test_versions_compare_as_numbers() -> None:
    assert parsing.version_key("99.0.0") < parsing.version_key("107.0.0") < parsing.version_key("107.0.10")
    for wrong in ("", "1.2", "1.2.3.4", "a.b.c", "1.2.٣", "-1.0.0", "1.2.3\n"):
        with pytest.raises(ValueError, match=r"major\.minor\.build"):
            parsing.version_key(wrong)


def test_changes_keep_every_code_even_of_rows_with_unusable_fields() -> None:
    rows = [
        unit_row(1, operacao="INCLUSAO"),
        unit_row(2, operacao="EXCLUSAO", nome=5),
        unit_row(3, operacao="ALTERACAO", nome="a\x00b", sigla="\ud800"),
        unit_row(4, operacao="??"),
    ]
    changes = parsing.parse_changes(envelope("unidades", rows))
    assert [(unit.code, unit.operation, unit.ended) for unit in changes] == [
        (1, "INCLUSAO", False),
        (2, "EXCLUSAO", True),
        (3, "ALTERACAO", False),
        (4, None, False),
    ]
    assert (changes[1].name, changes[2].name, changes[2].acronym) == (None, None, None)
    assert changes[2].raw == '{"codigoUnidade":3}'


def test_no_changes_is_an_answer_but_a_change_without_a_code_is_not() -> None:
    assert parsing.parse_changes(envelope("unidades", None)) == []
    with pytest.raises(InvalidAnswer, match="codigoUnidade"):
        parsing.parse_changes(envelope("unidades", [unit_row(1), {"operacao": "EXCLUSAO"}]))
    with pytest.raises(VersionUnknown):
        parsing.parse_changes(envelope("unidades", None, code=103))


# ── Domain tables ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(not CAPTURES.exists(), reason="the captured answers are not beside this checkout")
def test_captured_domain_tables_are_read() -> None:
    tables = json.loads((CAPTURES / "domain-tables.json").read_text())
    for table in DomainTable:
        value = tables.get(table.key, tables.get(table.value))
        if value:
            rows = parsing.parse_domain(envelope(table.key, value), table)
            assert len(rows) == len(value)


def test_domain_rows() -> None:
    body = envelope(
        "categoriaUnidade",
        [
            {"codigoCategoriaUnidade": 1, "descricaoCategoriaUnidade": " Órgão\xa0Singular ", "ativo": "SIM"},
            {
                "codigoCategoriaUnidade": "https://x/id/categoria-unidade/2",
                "descricaoCategoriaUnidade": "B",
                "ativo": "NAO",
            },
            {"codigoCategoriaUnidade": "03", "descricaoCategoriaUnidade": "C"},
            {"codigoCategoriaUnidade": "03", "descricaoCategoriaUnidade": "C"},
        ],
    )
    rows = parsing.parse_domain(body, DomainTable.UNIT_CATEGORY)
    assert [(row.code, row.name, row.active) for row in rows] == [
        (1, "Órgão Singular", True),
        (2, "B", False),
        (3, "C", True),
    ]
    types = envelope("tipoUnidade", {"codigoTipoUnidade": "UA", "descricaoTipoUnidade": "Unidade Administrativa"})
    (row,) = parsing.parse_domain(types, DomainTable.UNIT_TYPE)
    assert (row.code, row.name, row.active) == ("UA", "Unidade Administrativa", True)
    assert [table.key for table in DomainTable] == [
        "tipoUnidade",
        "categoriaUnidade",
        "naturezaJuridica",
        "poder",
        "esfera",
    ]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ([], TornAnswer),
        (None, TornAnswer),
        ([5], InvalidAnswer),
        ([{"codigoPoder": None, "descricaoPoder": "x"}], InvalidAnswer),
        ([{"codigoPoder": True, "descricaoPoder": "x"}], InvalidAnswer),
        ([{"codigoPoder": 1}], InvalidAnswer),
        ([{"codigoPoder": 1, "nome": "x"}], InvalidAnswer),
        ([{"codigoPoder": 1, "descricaoPoder": "x" * 256}], InvalidAnswer),
        ([{"codigoPoder": 1, "descricaoPoder": "x", "ativo": "TALVEZ"}], InvalidAnswer),
        ([{"codigoPoder": 1, "descricaoPoder": "x"}, {"codigoPoder": 1, "descricaoPoder": "y"}], InvalidAnswer),
    ],
)
def test_a_domain_table_is_read_whole_or_not_at_all(value: Any, kind: type[SiorgError]) -> None:
    with pytest.raises(kind):
        parsing.parse_domain(envelope("poder", value), DomainTable.POWER)


# ── What was stored ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_was_stored_reads_back_the_same() -> None:
    unit = read(contato=[{"telefone": ["1"]}], endereco=[{"logradouro": "Rua A"}], operacao="ALTERACAO")
    assert parsing.parse_stored(unit.raw) == unit
    assert parsing.parse_stored(json.loads(unit.raw)) == unit


def test_an_unusable_field_of_what_was_stored_is_none_and_spoils_no_other() -> None:
    row = unit_row(9, nome=5, contato=[{"telefone": [True], "email": ["a@b"]}], endereco=[{"cep": "78060900", "numero": []}])
    unit = parsing.parse_stored(row)
    assert unit is not None
    assert (unit.name, unit.phones, unit.emails) == (None, None, ("a@b",))
    assert (unit.address, unit.zip_code, unit.acronym) == (None, "78060900", "FAGEO")


@pytest.mark.parametrize(
    "raw", [None, "", "x", "[]", "5", "{", "{}", {}, {"codigoUnidade": None}, {"codigoUnidade": "x"}, "[" * 100_000]
)
def test_what_was_stored_without_a_unit_is_nothing(raw: Any) -> None:
    assert parsing.parse_stored(raw) is None


def test_power_and_sphere_are_read_where_they_are_numbers() -> None:
    assert parsing.power_and_sphere(read(codigoPoder="https://x/id/poder/3", codigoEsfera="1")) == (3, 1)
    wrong: list[Any] = ["https://x/id/poder/judiciario", None, "", 1.5, []]
    for poder in wrong:
        assert parsing.power_and_sphere(read(codigoPoder=poder, codigoEsfera=1)) is None
