"""The resources and their forms, asked without HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from siorg_simulator.domain import slug
from siorg_simulator.endpoints import Site, endpoint_of
from siorg_simulator.quirks import DESCRIPTIONS, Quirk, parse_quirks
from siorg_simulator.structure import History, Snapshot
from support.simulated import SMALL, ask, codes, raw, row, small, snapshot

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


def test_the_body_is_compact_utf8_with_the_keys_of_2026_in_siorgs_order() -> None:
    reply = raw(small(), "/doc/unidade-organizacional/10.json")
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


def test_bodies_have_the_length_measured_live() -> None:
    measured: list[tuple[str, dict[str, str], int]] = [
        ("esfera", {}, 363),
        ("poder", {}, 432),
        ("tipo-unidade", {}, 493),
        ("natureza-juridica", {}, 738),
        ("unidade-organizacional", {"codigoUnidadePai": "26"}, 197),  # a missing code
    ]
    for path, query, length in measured:
        body = small().answer(f"/doc/{path}", query, date="2026-09-01", caller="200.19.123.45").body
        assert len(body.decode()) == length, path


def unit(site: Site, code: object, form: str = "completa", **query: str) -> dict[str, Any]:
    found: dict[str, Any] = ask(site, f"unidade-organizacional/{code}/{form}", **query)["unidade"]
    return found


def test_a_unit_in_its_forms() -> None:
    assert list(unit(small(), 11, "resumida")) == SHORT_KEYS
    whole, bare = unit(small(), 11), unit(small(), 12)
    assert list(whole) == SHORT_KEYS + COMPLETE_KEYS
    # Details that came with the snapshot are kept; what is not known is null or an empty list.
    assert (whole["areaAtuacao"], whole["codigoCategoriaUnidade"]) == ("FIM", f"{HOST}/categoria-unidade/6")
    assert whole["endereco"][0]["cep"] == "07061-908"
    assert [bare[key] for key in COMPLETE_KEYS] == [None] * 7 + [[], [], None]
    assert ask(small(), "unidade-organizacional/11/endereco-contato")["endereco"] == whole["endereco"]
    assert ask(small(), "unidade-organizacional/endereco-contato/11")["contato"] == []
    assert unit(small(), "000011")["sigla"] == "U11"


def test_lists_hold_what_was_asked_for_in_order() -> None:
    linked = {"retornarOrgaoEntidadeVinculados": "SIM"}
    executive = {"codigoPoder": "1", "codigoEsfera": "1"}
    lists: list[tuple[str, dict[str, str], list[int]]] = [
        ("estrutura-organizacional/completa", {"codigoUnidade": "10"}, [12, 11, 10]),
        ("estrutura-organizacional", {"codigoUnidade": "1"}, [1, 2]),
        ("estrutura-organizacional/resumida", {}, [12, 11, 1, 10, 2]),
        ("estrutura-organizacional", {"codigoUnidade": "1", **linked}, [1, 2, 12, 11, 10]),
        ("estrutura-organizacional/1/filha", linked, [2, 10]),
        ("estrutura-organizacional/filha", {"codigoUnidade": "1"}, [2]),
        ("orgao-entidade", executive, [1, 10]),
        ("orgao-entidade/resumida", executive, [1, 10]),
        ("orgao-entidade/completa.json", executive, [1, 10]),
    ]
    for path, query, expected in lists:
        assert codes(ask(small(), path, **query)["unidades"]) == expected, (path, query)


def test_the_tree_is_of_plain_integers_keeps_siblings_apart_and_survives_cycles_and_depth() -> None:
    tree: dict[str, Any] = {
        "codigoUnidade": 10,
        "estrutura": [{"codigoUnidade": 11, "estrutura": [{"codigoUnidade": 12, "estrutura": []}]}],
    }
    assert ask(small(), "unidade-organizacional/10/estrutura")["estrutura"] == tree
    assert ask(small(), "unidade-organizacional/11/estrutura")["estrutura"] == tree["estrutura"][0]
    wide = Site(History.of([snapshot(row(10, 1), row(11, 10), row(12, 10), row(13, 12), row(14, 15), row(15, 14))]))
    tree = ask(wide, "unidade-organizacional/10/estrutura")["estrutura"]
    assert [(child["codigoUnidade"], len(child["estrutura"])) for child in tree["estrutura"]] == [(11, 0), (12, 1)]
    assert ask(wide, "unidade-organizacional/14/estrutura")["estrutura"]["estrutura"] == [{"codigoUnidade": 15, "estrutura": []}]
    deep = Site(History.of([snapshot(row(10, 1), *(row(code, code - 1) for code in range(11, 5000)))]))
    assert raw(deep, "/doc/unidade-organizacional/10/estrutura").body.count(b"codigoUnidade") == 4990


def test_a_unit_can_be_asked_for_as_it_was() -> None:
    history = Site(History.of([snapshot(row(10, 1), row(11, 10, nome=name)) for name in ("A", "B")]))
    names = [unit(history, 11, versaoConsulta=version)["nome"] for version in ("99.0.0", "99.0.1", "200.0.0")]
    assert names == ["A", "B", "B"]
    assert ask(history, "unidade-organizacional/11", versaoConsulta="1.0.0")["servico"]["codigoErro"] == 103
    assert ask(small(), "unidade-organizacional/10/versao")["unidades"][0]["versaoConsulta"] == "107.0.0"


def test_changed_organizations_since_a_reference() -> None:
    first, second = snapshot(row(10, 1), row(20, 1, 20)), snapshot(row(10, 1, nome="X"), row(30, 1, 30))
    site = Site(History.of([first, second]))
    everything = ask(site, "estrutura-organizacional/alteracoes", versaoReferencia="1")["resposta"]
    assert [item["codigo"] for item in everything["orgaoEntidadeIncluido"]] == ["10", "30"]
    assert everything["versaoAtual"] == "3"
    since = ask(site, "estrutura-organizacional/alteracoes", versaoReferencia="2")["resposta"]
    assert [[item["codigo"] for item in since[key]] for key in list(since)[2:]] == [["30"], ["10"], ["20"]]
    assert since["orgaoEntidadeAlterado"][0] == {"codigo": "10", "versao": "99.0.1", "estruturaPerfeita": True}
    assert ask(site, "estrutura-organizacional/alteracoes")["servico"]["codigoErro"] == 100
    assert ask(site, "estrutura-organizacional/alteracoes", versaoReferencia="4")["servico"]["codigoErro"] == 103


def test_business_errors_are_http_200_with_the_key_empty() -> None:
    errors: list[tuple[str, dict[str, str], int, str]] = [
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
    ]
    for path, query, code, key in errors:
        body = ask(small(), path, **query)
        assert body["servico"]["codigoErro"] == code, (path, query)
        assert body["servico"]["mensagem"] != "Processamento sem erros", (path, query)
        assert list(body) == ["servico", key], (path, query)
        assert not body[key], (path, query)


def test_what_is_no_resource_is_refused_as_siorg_does() -> None:
    unknown = [
        "/", "/doc", "/doc/", "/nothing", "/doc/nothing", "/doc/unidade-organizacional/completa/26",
        "/doc/unidade-organizacional/lista/26", "/doc/estrutura-organizacional/26", "/doc/unidade-organizacional/x",
        "/doc/estrutura-organizacional/completa/26", "/doc/unidade-organizacional/10/nothing", "/id/nothing",
        "/doc/cargo-funcao",
    ]  # fmt: skip
    for path in unknown:
        reply = raw(small(), path)
        assert (reply.status, reply.content_type) == (404, "text/html;charset=UTF-8"), path
    xml = raw(small(), "/doc/unidade-organizacional/10.xml")
    assert xml.status == 406
    assert b"JSON only" in xml.body
    # Unknown parameters are ignored; identifiers lead to documents.
    assert raw(small(), "/doc/unidade-organizacional/10", nothing="1") == raw(small(), "/doc/unidade-organizacional/10")
    assert raw(small(), "/id/esfera/federal").location == "/doc/esfera/1"
    assert raw(small(), "/id/unidade-organizacional/10").location == "/doc/unidade-organizacional/10"


def test_domain_items() -> None:
    assert ask(small(), "poder/1")["poder"] == {"codigoPoder": 1, "descricaoPoder": "Executivo", "ativo": "SIM"}
    assert ask(small(), "tipo-unidade/or")["tipoUnidade"] == {"codigoTipoUnidade": "OR", "descricaoTipoUnidade": "Órgão"}
    (nature,) = ask(small(), "subnatureza-juridica", codigoNaturezaJuridica="2")["subNaturezaJuridica"]
    keys = ["codigoNaturezaJuridica", "codigoSubNaturezaJuridica", "descricaoSubNaturezaJuridica", "ativo"]
    assert list(nature) == keys
    assert nature["codigoSubNaturezaJuridica"] == 17
    assert len(ask(small(), "categoria-unidade")["categoriaUnidade"]) == 10
    assert len(ask(small(), "categoria-unidade", ativo="SIM")["categoriaUnidade"]) == 9
    # The rule for slugs gives the captured tails.
    assert slug("Fundação Pública - IFES") == "fundacao-publica---ifes"
    assert slug("Estadual/Distrital") == "estadual-distrital"


def test_paths_are_counted_by_their_template() -> None:
    templates = {
        "/doc/unidade-organizacional/471.json": "unidade-organizacional/{codigo}/resumida",
        "/doc/unidade-organizacional/471/versao": "unidade-organizacional/{codigo}/versao",
        "/doc/estrutura-organizacional": "estrutura-organizacional/resumida",
        "/doc/tipo-unidade/OR": "tipo-unidade/{codigo}",
        "/doc/estrutura-organizacional/26": "(unknown)",
        "/x": "(unknown)",
    }
    assert {path: endpoint_of(path) for path in templates} == templates


# ── Quirks ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_quirk_is_described_and_changes_some_answer() -> None:
    asked: list[tuple[str, dict[str, str]]] = [
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
        assert any(raw(small(), f"/doc/{p}", **q) != raw(small(quirk), f"/doc/{p}", **q) for p, q in asked), quirk


UNIT, STRUCTURE, CHANGES = "unidade-organizacional/10", "estrutura-organizacional", "unidade-organizacional/10/alteradas"
OF_10, OF_1, NOW = {"codigoUnidade": "10"}, {"codigoUnidade": "1"}, {"versaoConsulta": "107.0.0"}
WHOLE, LEAF = "estrutura-organizacional/completa", "unidade-organizacional/12/estrutura"

QUIRKY: list[tuple[set[Quirk], str, dict[str, str], Callable[[Any], Any], Any]] = [
    ({Quirk.UNIT_AS_ARRAY, Quirk.UNIT_KEY_PLURAL}, UNIT, {}, lambda body: body["unidades"][0]["sigla"], "U10"),
    ({Quirk.LIST_KEY_SINGULAR}, STRUCTURE, {}, lambda body: len(body["unidade"]), 5),
    ({Quirk.LIST_AS_OBJECT_WHEN_ONE, Quirk.ROOT_ONLY}, WHOLE, OF_10, lambda body: body["unidades"]["sigla"], "U10"),
    ({Quirk.LIST_AS_OBJECT_WHEN_ONE, Quirk.ROOT_ONLY}, STRUCTURE, {}, lambda body: len(body["unidades"]), 5),
    ({Quirk.LEGACY_SLUGS, Quirk.HTTP_URIS}, UNIT, {}, lambda body: body["unidade"]["codigoUnidade"],
     "http://estruturaorganizacional.dados.gov.br/id/unidade-organizacional/10"),
    ({Quirk.LEGACY_SLUGS}, UNIT, {}, lambda body: body["unidade"]["codigoEsfera"], f"{HOST}/esfera/federal"),
    ({Quirk.LEGACY_SLUGS}, UNIT, {}, lambda body: body["unidade"]["codigoSubNaturezaJuridica"],
     f"{HOST}/subnatureza-juridica/fundacao-publica---ifes"),
    ({Quirk.CODES_AS_INT}, "unidade-organizacional/11/completa", {},
     lambda body: [body["unidade"][key] for key in ("codigoUnidade", "codigoPoder", "codigoCategoriaUnidade")], [11, 1, 6]),
    ({Quirk.CODES_AS_INT}, UNIT, {}, lambda body: body["unidade"]["codigoTipoUnidade"], f"{HOST}/tipo-unidade/entidade"),
    ({Quirk.PADDED_CODES}, "unidade-organizacional/11", {}, lambda body: body["unidade"]["codigoUnidadePai"], "000010"),
    (set(), CHANGES, NOW, lambda body: body["unidades"], []),
    ({Quirk.EMPTY_NULL}, CHANGES, NOW, lambda body: body["unidades"], None),
    ({Quirk.EMPTY_ABSENT}, CHANGES, NOW, list, ["servico"]),
    ({Quirk.ROOT_ONLY}, WHOLE, OF_10, lambda body: codes(body["unidades"]), [10]),
    ({Quirk.ROOT_ONLY}, WHOLE, {**OF_10, "codigoPoder": "1", "codigoEsfera": "1"}, lambda body: len(body["unidades"]), 3),
    ({Quirk.VINCULADOS_LEAK}, STRUCTURE, OF_1, lambda body: codes(body["unidades"]), [1, 2, 10]),
    ({Quirk.FILHA_ANY_UNIT}, "estrutura-organizacional/11/filha", {}, lambda body: codes(body["unidades"]), [12]),
    ({Quirk.ADDRESS_INTS}, "unidade-organizacional/11/completa", {},  # the leading zero is lost
     lambda body: [body["unidade"]["endereco"][0][key] for key in ("numero", "cep", "municipio", "uf", "pais")],
     [12, 7061908, 5103403, 51, 1058]),
    ({Quirk.NO_LATER_KEYS}, UNIT, {}, lambda body: list(body["unidade"]), SHORT_KEYS[:15]),
    ({Quirk.NULLS_ABSENT}, UNIT, {}, lambda body: (len(body["unidade"]), None in body["unidade"].values()), (13, False)),
    ({Quirk.LEAF_NULL}, LEAF, {}, lambda body: body["estrutura"]["estrutura"], None),
    ({Quirk.LEAF_ABSENT}, LEAF, {}, lambda body: body["estrutura"], {"codigoUnidade": 12}),
    ({Quirk.PASCAL_CASE, Quirk.MESSAGE_DOT}, UNIT, {}, lambda body: body["Servico"]["Mensagem"], "Processamento sem erros."),
    ({Quirk.PASCAL_CASE}, UNIT, {}, lambda body: body["Unidade"]["CodigoUnidade"], f"{HOST}/unidade-organizacional/10"),
    ({Quirk.PASCAL_CASE}, STRUCTURE, {}, lambda body: body["Unidades"][0]["Nome"], "Unidade 12"),
    ({Quirk.DOMAIN_ITEM_AS_LIST}, "poder/1", {}, lambda body: body["poder"][0]["codigoPoder"], 1),
]  # fmt: skip


def test_quirks_have_the_forms_that_were_seen() -> None:
    for quirks, path, query, part, expected in QUIRKY:
        assert part(ask(small(*quirks), path, **query)) == expected, (quirks, path)
    assert raw(small(Quirk.NOT_FOUND_404), "/doc/unidade-organizacional/99").status == 404
    history = History.of([snapshot(row(10, 1, versaoConsulta=version)) for version in ("104.0.0", "107.0.0")])
    documented = ask(Site(history, frozenset({Quirk.VERSAO_DOC_SHAPE})), "unidade-organizacional/10/versao")["versao"]
    assert [documented[f"versao{which}"] for which in ("Anterior", "Consulta", "Posterior")] == ["104.0.0", "107.0.0", ""]


def test_wrong_and_contradicting_quirks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'nope' is none; allowed: unit-as-array, .*pascal-case"):
        parse_quirks(["nope"])
    with pytest.raises(ValueError, match="exclude each other"):
        parse_quirks(["empty-null", "empty-absent"])


def test_the_national_root_has_an_empty_parent() -> None:
    empty = {"sigla": " ", "codigoEsfera": "", "codigoPoder": "", "codigoNaturezaJuridica": None}
    nation = unit(Site(History.of([snapshot(row(200000, None, 200000, codigoTipoUnidade="ente", **empty))])), 200000)
    assert {key: nation[key] for key in empty} == empty
    assert nation["codigoUnidadePai"] == ""


def test_lone_surrogates_are_sent_as_escapes() -> None:
    odd = replace(SMALL.units[12], verbatim=json.dumps({"nome": "a\ud800b", "x": [1]}))
    site = Site(History.of([Snapshot("odd", {**SMALL.units, 12: odd})]))
    assert b'"nome":"a\\ud800b"' in raw(site, "/doc/unidade-organizacional/12").body
