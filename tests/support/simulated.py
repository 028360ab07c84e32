"""Small structures of the simulator's, and how to ask it without HTTP."""

from __future__ import annotations

import json
from typing import Any

from siorg_simulator.answers import Reply
from siorg_simulator.endpoints import Site
from siorg_simulator.quirks import Quirk
from siorg_simulator.rows import parse_body
from siorg_simulator.structure import History, Snapshot

_ADDRESS = {
    "tipoEndereco": "Principal", "logradouro": "Rua A", "numero": "12", "complemento": None, "bairro": "Centro",
    "cep": "07061-908", "uf": "MT", "municipio": "5103403", "pais": "1058", "horarioDeFuncionamento": None,
}  # fmt: skip


def row(code: int, parent: int | None, organization: int | None = 10, **changes: object) -> dict[str, Any]:
    """A unit as SIORG writes it; ``changes`` replace or add."""
    kind = "entidade" if code == organization else "unidade-administrativa"
    return {
        "codigoUnidade": code, "codigoUnidadePai": parent, "codigoOrgaoEntidade": organization, "codigoTipoUnidade": kind,
        "nome": f"Unidade {code}", "sigla": f"U{code}", "codigoEsfera": "federal", "codigoPoder": "executivo",
        "codigoNaturezaJuridica": "fundacao-publica", "codigoSubNaturezaJuridica": "fundacao-publica---ifes",
        "nivelNormatizacao": "ATO_INTERNO", "versaoConsulta": "99.0.0", "dataInicialVersaoConsulta": "2013-11-11", **changes,
    }  # fmt: skip


def snapshot(*rows: dict[str, Any]) -> Snapshot:
    """A structure of these rows."""
    return parse_body(json.dumps({"servico": {}, "unidades": list(rows)}), "test")


SMALL = snapshot(
    row(12, 11),
    row(11, 10, areaAtuacao="FIM", codigoCategoriaUnidade="https://x/id/categoria-unidade/6", endereco=[_ADDRESS]),
    row(1, None, 1, codigoTipoUnidade="orgao", versaoConsulta="100.0.0"),
    row(10, 1, versaoConsulta="107.0.0"),
    row(2, 1, 1),
)
"""An entidade (10) under an órgão (1), with two levels, a unit outside and an address."""


def small(*quirks: Quirk) -> Site:
    """A site over the small structure, with these quirks."""
    return Site(History.of([SMALL]), frozenset(quirks))


def raw(site: Site, path: str, **query: str) -> Reply:
    """An answer, whatever it is."""
    return site.answer(path, query, date="2026-11-24", caller="127.0.0.1")


def ask(site: Site, path: str, **query: str) -> Any:
    """The body of an answer, which must be HTTP 200 and JSON."""
    reply = raw(site, f"/doc/{path}", **query)
    assert (reply.status, reply.content_type) == (200, "application/json"), reply
    return json.loads(reply.body)


def codes(rows: list[dict[str, Any]]) -> list[int]:
    """The codes of rows, from their URIs."""
    return [int(row["codigoUnidade"].rsplit("/", 1)[1]) for row in rows]
