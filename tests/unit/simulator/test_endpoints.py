"""The resources and their forms, asked without HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from siorg_simulator.answers import Reply
from siorg_simulator.domain import slug
from siorg_simulator.endpoints import Site, endpoint_of
from siorg_simulator.quirks import DESCRIPTIONS, Quirk, parse_quirks
from siorg_simulator.structure import History, Snapshot

Sites = Callable[..., Site]
Ask = Callable[..., Any]
Raw = Callable[..., Reply]
MakeSnapshot = Callable[..., Snapshot]
MakeRow = Callable[..., dict[str, Any]]
Rows = list[dict[str, Any]]

HOST = "https://estruturaorganizacional.dados.gov.br/id"

SHORT_KEYS = [
    "codigoUnidade", "codigoUnidadePai", "codigoOrgaoEntidade", "codigoTipoUnidade", "nome", "sigla", "codigoEsfera",
    "codigoPoder", "codigoNaturezaJuridica", "codigoSubNaturezaJuridica", "nivelNormatizacao", "versaoConsulta",
    "dataInicialVersaoConsulta", "dataFinalVersaoConsulta", "operacao", "codigoUnidadePaiAnterior",
    "codigoOrgaoEntidadeAnterior", "regulamentoEspecifico",
]  # fmt: skip
COMPLETE_KEYS = [
    "codigoCategoriaUnidade", "competencia", "finalidade", "missao", "descricaoAtoNormativo", "atoNormativo",
    "areaAtuacao", "endereco", "contato", "autoridade",
]  # fmt: skip


def codes(rows: Rows) -> list[int]:
    return [int(row["codigoUnidade"].rsplit("/", 1)[1]) for row in rows]


def test_the_body_is_compact_utf8_with_the_keys_of_2026_in_siorgs_order(site: Sites, raw: Raw) -> None:
    reply = raw(site(), "/doc/unidade-organizacional/10.json")
    service = (
        '{"codigoErro":0,"mensagem":"Processamento sem erros","data":"2026-11-24","versaoServico":"4.0.2",'
        '"ipRequisitante":"127.0.0.1","ticket":null}'
    )
    unit = (
        f'{{"codigoUnidade":"{HOST}/unidade-organizacional/10","codigoUnidadePai":"{HOST}/unidade-organizacional/1",'
        f'"codigoOrgaoEntidade":"{HOST}/unidade-organizacional/10","codigoTipoUnidade":"{HOST}/tipo-unidade/entidade",'
        f'"nome":"Unidade 10","sigla":"U10","codigoEsfera":"{HOST}/esfera/1","codigoPoder":"{HOST}/poder/1",'
        f'"codigoNaturezaJuridica":"{HOST}/natureza-juridica/2",'
        f'"codigoSubNaturezaJuridica":"{HOST}/subnatureza-juridica/17",'
        '"nivelNormatizacao":"ATO_INTERNO","versaoConsulta":"107.0.0","dataInicialVersaoConsulta":"2013-11-11",'
        '"dataFinalVersaoConsulta":null,"operacao":null,"codigoUnidadePaiAnterior":null,'
        '"codigoOrgaoEntidadeAnterior":null,"regulamentoEspecifico":null}'
    )
    assert reply.body.decode() == f'{{"servico":{service},"unidade":{unit}}}'


@pytest.mark.parametrize(("path", "length"), [("esfera", 363), ("poder", 432), ("tipo-unidade", 493), ("natureza-juridica", 738)])
def test_domain_tables_have_the_length_measured_live(site: Sites, path: str, length: int) -> None:
    body = site().answer(f"/doc/{path}", {}, date="2026-09-01", caller="200.19.123.45").body
    assert len(body.decode()) == length


def test_a_missing_code_has_the_length_measured_live(site: Sites) -> None:
    body = (
        site().answer("/doc/unidade-organizacional", {"codigoUnidadePai": "26"}, date="2026-09-01", caller="200.19.123.45").body
    )
    assert len(body.decode()) == 197


def test_short_and_complete_forms_have_their_keys_in_order(site: Sites, ask: Ask) -> None:
    assert list(ask(site(), "unidade-organizacional/11/resumida")["unidade"]) == SHORT_KEYS
    assert list(ask(site(), "unidade-organizacional/11/completa")["unidade"]) == SHORT_KEYS + COMPLETE_KEYS


def test_what_is_not_known_of_a_unit_is_null_or_an_empty_list(site: Sites, ask: Ask) -> None:
    unit = ask(site(), "unidade-organizacional/12/completa")["unidade"]
    assert [unit[key] for key in COMPLETE_KEYS] == [None] * 7 + [[], [], None]


def test_details_that_came_with_the_snapshot_are_kept(site: Sites, ask: Ask) -> None:
    unit = ask(site(), "unidade-organizacional/11/completa")["unidade"]
    assert unit["areaAtuacao"] == "FIM"
    assert unit["codigoCategoriaUnidade"] == f"{HOST}/categoria-unidade/6"
    assert unit["endereco"][0]["cep"] == "07061-908"
    assert ask(site(), "unidade-organizacional/11/endereco-contato")["endereco"] == unit["endereco"]
    assert ask(site(), "unidade-organizacional/endereco-contato/11")["contato"] == []


def test_codes_may_have_leading_zeros(site: Sites, ask: Ask) -> None:
    assert ask(site(), "unidade-organizacional/000011")["unidade"]["sigla"] == "U11"


def test_a_structure_holds_the_organizations_own_units_and_its_root(site: Sites, ask: Ask) -> None:
    assert codes(ask(site(), "estrutura-organizacional/completa", codigoUnidade="10")["unidades"]) == [12, 11, 10]
    assert codes(ask(site(), "estrutura-organizacional", codigoUnidade="1")["unidades"]) == [1, 2]
    assert codes(ask(site(), "estrutura-organizacional/resumida")["unidades"]) == [12, 11, 1, 10, 2]


def test_linked_organizations_are_added_when_asked_for(site: Sites, ask: Ask) -> None:
    query = {"codigoUnidade": "1", "retornarOrgaoEntidadeVinculados": "SIM"}
    assert codes(ask(site(), "estrutura-organizacional", **query)["unidades"]) == [1, 2, 12, 11, 10]
    assert codes(ask(site(), "estrutura-organizacional/1/filha", retornarOrgaoEntidadeVinculados="SIM")["unidades"]) == [2, 10]
    assert codes(ask(site(), "estrutura-organizacional/filha", codigoUnidade="1")["unidades"]) == [2]


def test_organizations_are_listed_alone(site: Sites, ask: Ask) -> None:
    for path in ("orgao-entidade", "orgao-entidade/resumida", "orgao-entidade/completa.json"):
        assert codes(ask(site(), path, codigoPoder="1", codigoEsfera="1")["unidades"]) == [1, 10]


def test_the_tree_is_of_plain_integers(site: Sites, ask: Ask) -> None:
    tree: dict[str, Any] = {
        "codigoUnidade": 10,
        "estrutura": [{"codigoUnidade": 11, "estrutura": [{"codigoUnidade": 12, "estrutura": []}]}],
    }
    assert ask(site(), "unidade-organizacional/10/estrutura")["estrutura"] == tree
    assert ask(site(), "unidade-organizacional/11/estrutura")["estrutura"] == tree["estrutura"][0]


def test_the_tree_keeps_siblings_apart_and_survives_cycles_and_depth(
    snapshot: MakeSnapshot, row: MakeRow, ask: Ask, raw: Raw
) -> None:
    wide = Site(History.of([snapshot(row(10, 1), row(11, 10), row(12, 10), row(13, 12), row(14, 15), row(15, 14))]))
    tree = ask(wide, "unidade-organizacional/10/estrutura")["estrutura"]
    assert [(child["codigoUnidade"], len(child["estrutura"])) for child in tree["estrutura"]] == [(11, 0), (12, 1)]
    assert ask(wide, "unidade-organizacional/14/estrutura")["estrutura"]["estrutura"] == [{"codigoUnidade": 15, "estrutura": []}]
    deep = Site(History.of([snapshot(row(10, 1), *(row(code, code - 1) for code in range(11, 5000)))]))
    assert raw(deep, "/doc/unidade-organizacional/10/estrutura").body.count(b"codigoUnidade") == 4990


def test_the_version_has_the_observed_form(site: Sites, ask: Ask) -> None:
    (row,) = ask(site(), "unidade-organizacional/10/versao")["unidades"]
    assert row["versaoConsulta"] == "107.0.0"


def test_a_unit_can_be_asked_for_as_it_was(snapshot: MakeSnapshot, row: MakeRow, ask: Ask) -> None:
    history = History.of([snapshot(row(10, 1), row(11, 10, nome=name)) for name in ("A", "B")])
    names = {
        version: ask(Site(history), "unidade-organizacional/11/completa", versaoConsulta=version)["unidade"]["nome"]
        for version in ("99.0.0", "99.0.1", "200.0.0")
    }
    assert names == {"99.0.0": "A", "99.0.1": "B", "200.0.0": "B"}
    assert ask(Site(history), "unidade-organizacional/11", versaoConsulta="1.0.0")["servico"]["codigoErro"] == 103


def test_changed_organizations_since_a_reference(snapshot: MakeSnapshot, row: MakeRow, ask: Ask) -> None:
    first = snapshot(row(10, 1), row(20, 1, 20))
    second = snapshot(row(10, 1, nome="X"), row(30, 1, 30))
    site = Site(History.of([first, second]))
    everything = ask(site, "estrutura-organizacional/alteracoes", versaoReferencia="1")["resposta"]
    assert [item["codigo"] for item in everything["orgaoEntidadeIncluido"]] == ["10", "30"]
    assert everything["versaoAtual"] == "3"
    since = ask(site, "estrutura-organizacional/alteracoes", versaoReferencia="2")["resposta"]
    assert [[item["codigo"] for item in since[key]] for key in list(since)[2:]] == [["30"], ["10"], ["20"]]
    assert since["orgaoEntidadeAlterado"][0] == {"codigo": "10", "versao": "99.0.1", "estruturaPerfeita": True}
    assert ask(site, "estrutura-organizacional/alteracoes")["servico"]["codigoErro"] == 100
    assert ask(site, "estrutura-organizacional/alteracoes", versaoReferencia="4")["servico"]["codigoErro"] == 103


@pytest.mark.parametrize(
    ("path", "query", "code", "key"),
    [
        ("unidade-organizacional", {}, 100, "unidade"),
        ("unidade-organizacional/99", {}, 102, "unidade"),
        ("unidade-organizacional/999999999999/completa", {}, 102, "unidade"),
        ("unidade-organizacional/99/versao", {}, 102, "unidade"),
        ("unidade-organizacional/99/estrutura", {}, 102, "estrutura"),
        ("unidade-organizacional/99/endereco-contato", {}, 102, "endereco"),
        ("unidade-organizacional/99/alteradas", {"versaoConsulta": "1.0.0"}, 102, "unidades"),
        ("unidade-organizacional/11/alteradas", {"versaoConsulta": "1.0.0"}, 104, "unidades"),
        ("unidade-organizacional/11", {"versaoConsulta": "abc"}, 103, "unidade"),
        ("estrutura-organizacional", {"codigoUnidade": "11"}, 104, "unidades"),
        ("estrutura-organizacional/completa", {"codigoUnidade": "99"}, 102, "unidades"),
        ("estrutura-organizacional", {"codigoUnidade": "x"}, 103, "unidades"),
        ("estrutura-organizacional", {"codigoPoder": "9"}, 101, "unidades"),
        ("estrutura-organizacional", {"retornarOrgaoEntidadeVinculados": "SIM"}, 105, "unidades"),
        ("estrutura-organizacional", {"codigoUnidade": "1", "retornarOrgaoEntidadeVinculados": "x"}, 103, "unidades"),
        ("estrutura-organizacional/11/filha", {}, 104, "unidades"),
        ("estrutura-organizacional/filha", {}, 100, "unidades"),
        ("orgao-entidade", {"codigoEsfera": "3"}, 101, "unidades"),
        ("poder/9", {}, 102, "poder"),
    ],
)
def test_business_errors_are_http_200_with_the_key_empty(
    site: Sites, ask: Ask, *, path: str, query: dict[str, str], code: int, key: str
) -> None:
    body = ask(site(), path, **query)
    assert body["servico"]["codigoErro"] == code
    assert body["servico"]["mensagem"] != "Processamento sem erros"
    assert list(body) == ["servico", key]
    assert not body[key]


@pytest.mark.parametrize(
    "path",
    [
        "/", "/doc", "/doc/", "/nothing", "/doc/nothing", "/doc/unidade-organizacional/completa/26",
        "/doc/unidade-organizacional/lista/26", "/doc/estrutura-organizacional/26", "/doc/unidade-organizacional/x",
        "/doc/estrutura-organizacional/completa/26", "/doc/unidade-organizacional/10/nothing", "/id/nothing",
        "/doc/cargo-funcao",
    ],
)  # fmt: skip
def test_unknown_paths_are_404_html(site: Sites, raw: Raw, path: str) -> None:
    reply = raw(site(), path)
    assert (reply.status, reply.content_type) == (404, "text/html;charset=UTF-8")


def test_unknown_parameters_are_ignored(site: Sites, raw: Raw) -> None:
    assert raw(site(), "/doc/unidade-organizacional/10", nothing="1") == raw(site(), "/doc/unidade-organizacional/10")


def test_xml_is_refused_clearly(site: Sites, raw: Raw) -> None:
    reply = raw(site(), "/doc/unidade-organizacional/10.xml")
    assert reply.status == 406
    assert b"JSON only" in reply.body


def test_identifiers_lead_to_documents(site: Sites, raw: Raw) -> None:
    assert raw(site(), "/id/esfera/federal").location == "/doc/esfera/1"
    assert raw(site(), "/id/unidade-organizacional/10").location == "/doc/unidade-organizacional/10"


def test_domain_items(site: Sites, ask: Ask) -> None:
    assert ask(site(), "poder/1")["poder"] == {"codigoPoder": 1, "descricaoPoder": "Executivo", "ativo": "SIM"}
    assert ask(site(), "tipo-unidade/or")["tipoUnidade"] == {"codigoTipoUnidade": "OR", "descricaoTipoUnidade": "Órgão"}
    rows = ask(site(), "subnatureza-juridica", codigoNaturezaJuridica="2")["subNaturezaJuridica"]
    assert list(rows[0]) == [
        "codigoNaturezaJuridica",
        "codigoSubNaturezaJuridica",
        "descricaoSubNaturezaJuridica",
        "ativo",
    ]
    assert [row["codigoSubNaturezaJuridica"] for row in rows] == [17]
    assert len(ask(site(), "categoria-unidade")["categoriaUnidade"]) == 10
    assert len(ask(site(), "categoria-unidade", ativo="SIM")["categoriaUnidade"]) == 9


def test_the_slug_rule_gives_the_captured_tails() -> None:
    assert slug("Fundação Pública - IFES") == "fundacao-publica---ifes"
    assert slug("Estadual/Distrital") == "estadual-distrital"


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/doc/unidade-organizacional/471.json", "unidade-organizacional/{codigo}/resumida"),
        ("/doc/unidade-organizacional/471/versao", "unidade-organizacional/{codigo}/versao"),
        ("/doc/estrutura-organizacional", "estrutura-organizacional/resumida"),
        ("/doc/tipo-unidade/OR", "tipo-unidade/{codigo}"),
        ("/doc/estrutura-organizacional/26", "(unknown)"),
        ("/x", "(unknown)"),
    ],
)
def test_paths_are_counted_by_their_template(path: str, template: str) -> None:
    assert endpoint_of(path) == template


# Quirks


def test_every_quirk_is_described_and_changes_some_answer(small: Snapshot, site: Sites, raw: Raw) -> None:
    asked = [
        ("unidade-organizacional/10", {}), ("unidade-organizacional/11/completa", {}),
        ("unidade-organizacional/99", {}),
        ("unidade-organizacional/10/versao", {}), ("unidade-organizacional/10/estrutura", {}), ("poder/1", {}),
        ("unidade-organizacional/10/alteradas", {"versaoConsulta": "107.0.0"}),
        ("estrutura-organizacional/completa", {"codigoUnidade": "10"}),
        ("estrutura-organizacional", {"codigoUnidade": "1"}),
        ("estrutura-organizacional/11/filha", {}),
    ]  # fmt: skip
    for quirk in Quirk:
        assert DESCRIPTIONS[quirk]
        assert any(raw(site(), f"/doc/{p}", **q) != raw(site(quirk), f"/doc/{p}", **q) for p, q in asked), quirk


def test_a_unit_as_array_or_under_the_plural_key(site: Sites, ask: Ask) -> None:
    body = ask(site(Quirk.UNIT_AS_ARRAY, Quirk.UNIT_KEY_PLURAL), "unidade-organizacional/10")
    assert body["unidades"][0]["sigla"] == "U10"


def test_a_list_under_the_singular_key_or_as_the_object_itself(site: Sites, ask: Ask) -> None:
    assert len(ask(site(Quirk.LIST_KEY_SINGULAR), "estrutura-organizacional")["unidade"]) == 5
    one = site(Quirk.LIST_AS_OBJECT_WHEN_ONE, Quirk.ROOT_ONLY)
    assert ask(one, "estrutura-organizacional/completa", codigoUnidade="10")["unidades"]["sigla"] == "U10"
    assert len(ask(one, "estrutura-organizacional")["unidades"]) == 5


def test_legacy_slugs_and_http(site: Sites, ask: Ask) -> None:
    unit = ask(site(Quirk.LEGACY_SLUGS, Quirk.HTTP_URIS), "unidade-organizacional/10")["unidade"]
    host = "http://estruturaorganizacional.dados.gov.br/id"
    assert unit["codigoUnidade"] == f"{host}/unidade-organizacional/10"
    assert unit["codigoEsfera"] == f"{host}/esfera/federal"
    assert unit["codigoSubNaturezaJuridica"] == f"{host}/subnatureza-juridica/fundacao-publica---ifes"


def test_codes_as_integers_or_padded(site: Sites, ask: Ask) -> None:
    unit = ask(site(Quirk.CODES_AS_INT), "unidade-organizacional/11/completa")["unidade"]
    assert (unit["codigoUnidade"], unit["codigoPoder"], unit["codigoCategoriaUnidade"]) == (11, 1, 6)
    assert unit["codigoTipoUnidade"].endswith("/unidade-administrativa")
    assert ask(site(Quirk.PADDED_CODES), "unidade-organizacional/11")["unidade"]["codigoUnidadePai"] == "000010"


def test_the_documented_version_object(snapshot: MakeSnapshot, row: MakeRow, ask: Ask) -> None:
    history = History.of([snapshot(row(10, 1, versaoConsulta=v)) for v in ("104.0.0", "107.0.0")])
    body = ask(Site(history, frozenset({Quirk.VERSAO_DOC_SHAPE})), "unidade-organizacional/10/versao")
    assert (body["versao"]["versaoAnterior"], body["versao"]["versaoConsulta"]) == ("104.0.0", "107.0.0")
    assert body["versao"]["versaoPosterior"] == ""


def test_not_found_as_http_404(site: Sites, raw: Raw) -> None:
    assert raw(site(Quirk.NOT_FOUND_404), "/doc/unidade-organizacional/99").status == 404


@pytest.mark.parametrize(
    ("quirk", "data"), [(None, {"unidades": []}), (Quirk.EMPTY_NULL, {"unidades": None}), (Quirk.EMPTY_ABSENT, {})]
)
def test_an_empty_list_in_three_forms(site: Sites, ask: Ask, quirk: Quirk | None, data: Any) -> None:
    body = ask(site(*[quirk] if quirk else []), "unidade-organizacional/10/alteradas", versaoConsulta="107.0.0")
    assert body.pop("servico")["codigoErro"] == 0
    assert body == data


def test_root_only_without_power_and_sphere(site: Sites, ask: Ask) -> None:
    quirky = site(Quirk.ROOT_ONLY)
    assert codes(ask(quirky, "estrutura-organizacional/completa", codigoUnidade="10")["unidades"]) == [10]
    query = {"codigoUnidade": "10", "codigoPoder": "1", "codigoEsfera": "1"}
    assert len(ask(quirky, "estrutura-organizacional/completa", **query)["unidades"]) == 3


def test_rows_of_linked_organizations_leak(site: Sites, ask: Ask) -> None:
    quirky = site(Quirk.VINCULADOS_LEAK)
    assert codes(ask(quirky, "estrutura-organizacional", codigoUnidade="1")["unidades"]) == [1, 2, 10]


def test_children_of_any_unit(site: Sites, ask: Ask) -> None:
    assert codes(ask(site(Quirk.FILHA_ANY_UNIT), "estrutura-organizacional/11/filha")["unidades"]) == [12]


def test_addresses_in_integers_lose_the_leading_zero(site: Sites, ask: Ask) -> None:
    (address,) = ask(site(Quirk.ADDRESS_INTS), "unidade-organizacional/11/completa")["unidade"]["endereco"]
    assert [address[key] for key in ("numero", "cep", "municipio", "uf", "pais")] == [12, 7061908, 5103403, 51, 1058]


def test_keys_of_2016_and_absent_nulls(site: Sites, ask: Ask) -> None:
    assert list(ask(site(Quirk.NO_LATER_KEYS), "unidade-organizacional/10")["unidade"]) == SHORT_KEYS[:15]
    unit = ask(site(Quirk.NULLS_ABSENT), "unidade-organizacional/10")["unidade"]
    assert None not in unit.values()
    assert len(unit) == 13


def test_leaves_of_the_tree(site: Sites, ask: Ask) -> None:
    assert ask(site(Quirk.LEAF_NULL), "unidade-organizacional/12/estrutura")["estrutura"]["estrutura"] is None
    assert ask(site(Quirk.LEAF_ABSENT), "unidade-organizacional/12/estrutura")["estrutura"] == {"codigoUnidade": 12}


def test_the_documents_spelling(site: Sites, ask: Ask) -> None:
    body = ask(site(Quirk.PASCAL_CASE, Quirk.MESSAGE_DOT), "unidade-organizacional/10")
    assert body["Servico"]["Mensagem"] == "Processamento sem erros."
    assert body["Unidade"]["CodigoUnidade"]
    assert ask(site(Quirk.PASCAL_CASE), "estrutura-organizacional")["Unidades"][0]["Nome"]


def test_a_domain_item_as_a_list(site: Sites, ask: Ask) -> None:
    assert ask(site(Quirk.DOMAIN_ITEM_AS_LIST), "poder/1")["poder"][0]["codigoPoder"] == 1


def test_wrong_and_contradicting_quirks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'nope' is none; allowed: unit-as-array, .*pascal-case"):
        parse_quirks(["nope"])
    with pytest.raises(ValueError, match="exclude each other"):
        parse_quirks(["empty-null", "empty-absent"])


def test_the_national_root_has_an_empty_parent(snapshot: MakeSnapshot, row: MakeRow, ask: Ask) -> None:
    nation = row(
        200000,
        None,
        200000,
        codigoTipoUnidade="ente",
        sigla=" ",
        codigoEsfera="",
        codigoPoder="",
        codigoNaturezaJuridica=None,
    )
    unit = ask(Site(History.of([snapshot(nation)])), "unidade-organizacional/200000")["unidade"]
    assert (unit["codigoUnidadePai"], unit["sigla"], unit["codigoEsfera"], unit["codigoNaturezaJuridica"]) == (
        "",
        " ",
        "",
        None,
    )


def test_lone_surrogates_are_sent_as_escapes(site: Sites, small: Snapshot) -> None:
    odd = replace(small.units[12], verbatim=json.dumps({"nome": "a\ud800b", "x": [1]}))
    reply = Site(History.of([Snapshot("odd", {**small.units, 12: odd})])).answer(
        "/doc/unidade-organizacional/12", {}, date="", caller=None
    )
    assert b'"nome":"a\\ud800b"' in reply.body
    assert json.loads(reply.body)["unidade"]["x"] == [1]
