"""What the simulator's tests share: rows, sites and how to ask them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from siorg_simulator.answers import Reply
from siorg_simulator.endpoints import Site
from siorg_simulator.quirks import Quirk
from siorg_simulator.rows import parse_body
from siorg_simulator.structure import History, Snapshot

Row = dict[str, Any]


def _row(code: int, parent: int | None, organization: int | None = 10, **changes: object) -> Row:
    return {
        "codigoUnidade": code,
        "codigoUnidadePai": parent,
        "codigoOrgaoEntidade": organization,
        "codigoTipoUnidade": "entidade" if code == organization else "unidade-administrativa",
        "nome": f"Unidade {code}",
        "sigla": f"U{code}",
        "codigoEsfera": "federal",
        "codigoPoder": "executivo",
        "codigoNaturezaJuridica": "fundacao-publica",
        "codigoSubNaturezaJuridica": "fundacao-publica---ifes",
        "nivelNormatizacao": "ATO_INTERNO",
        "versaoConsulta": "99.0.0",
        "dataInicialVersaoConsulta": "2013-11-11",
        **changes,
    }


def _snapshot(*rows: Row) -> Snapshot:
    return parse_body(json.dumps({"servico": {}, "unidades": list(rows)}), "test")


def _ask(site: Site, path: str, **query: str) -> Any:
    """The body of an answer, which must be HTTP 200 and JSON."""
    reply = site.answer(f"/doc/{path}", query, date="2026-11-24", caller="127.0.0.1")
    assert (reply.status, reply.content_type) == (200, "application/json"), reply
    return json.loads(reply.body)


@pytest.fixture
def row() -> Callable[..., Row]:
    return _row


@pytest.fixture
def snapshot() -> Callable[..., Snapshot]:
    return _snapshot


@pytest.fixture
def ask() -> Callable[..., Any]:
    return _ask


@pytest.fixture
def raw() -> Callable[..., Reply]:
    def answer(site: Site, path: str, **query: str) -> Reply:
        return site.answer(path, query, date="2026-11-24", caller="127.0.0.1")

    return answer


@pytest.fixture
def small() -> Snapshot:
    """An entidade (10) under an órgão (1), with two levels, a unit outside and an address."""
    address = {
        "tipoEndereco": "Principal",
        "logradouro": "Rua A",
        "numero": "12",
        "complemento": None,
        "bairro": "Centro",
    }
    address |= {"cep": "07061-908", "uf": "MT", "municipio": "5103403", "pais": "1058", "horarioDeFuncionamento": None}
    return _snapshot(
        _row(12, 11),
        _row(11, 10, areaAtuacao="FIM", codigoCategoriaUnidade="https://x/id/categoria-unidade/6", endereco=[address]),
        _row(1, None, 1, codigoTipoUnidade="orgao", versaoConsulta="100.0.0"),
        _row(10, 1, versaoConsulta="107.0.0"),
        _row(2, 1, 1),
    )


@pytest.fixture
def site(small: Snapshot) -> Callable[..., Site]:
    """A site over the small structure, with the given quirks."""

    def build(*quirks: Quirk) -> Site:
        return Site(History.of([small]), frozenset(quirks))

    return build
