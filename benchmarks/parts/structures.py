"""Structures in SIORG's form, made up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = 471
"""The organization that every database of ours begins with."""

_BASE = "https://estruturaorganizacional.dados.gov.br/id"
_HEAD = '{"servico": {"codigoErro": 0, "mensagem": "Processamento sem erros", "data": "2026-01-01"}, "unidades": ['


def flat(units: int) -> Iterator[dict[str, Any]]:
    """One organization whose units, from code 100,000 on, all hang directly under it."""

    def row(code: int, kind: str, name: str) -> dict[str, Any]:
        return {
            "codigoUnidade": f"{_BASE}/unidade-organizacional/{code}",
            "codigoUnidadePai": f"{_BASE}/unidade-organizacional/{244 if code == ROOT else ROOT}",
            "codigoOrgaoEntidade": f"{_BASE}/unidade-organizacional/{ROOT}",
            "codigoTipoUnidade": f"{_BASE}/tipo-unidade/{kind}",
            "nome": name,
            "sigla": f"U{code}",
            "codigoEsfera": f"{_BASE}/esfera/1",
            "codigoPoder": f"{_BASE}/poder/1",
            "codigoNaturezaJuridica": f"{_BASE}/natureza-juridica/2",
            "codigoSubNaturezaJuridica": None,
            "nivelNormatizacao": "ATO_INTERNO",
            "versaoConsulta": "100.0.0",
            "dataInicialVersaoConsulta": "2020-01-01",
            "dataFinalVersaoConsulta": None,
            "operacao": None,
        }

    yield row(ROOT, "entidade", "Universidade de Teste")
    for number in range(units):
        yield row(100_000 + number, "unidade-administrativa", f"Unidade {number}")


def government(organizations: int, units: int, largest: int) -> Iterator[dict[str, Any]]:
    """As many units in as many organizations, one of them with ``largest``; ten below each, with telephones and an address."""
    code = 1_000_000
    for number in range(organizations):
        home = ROOT if number == 0 else 100_000 + number
        others, more = divmod(units - largest, organizations - 1)
        size = largest if number == 0 else others + (number <= more)
        codes = [home, *range(code, code + size - 1)]
        code += size - 1
        for position, unit in enumerate(codes):
            yield {
                "codigoUnidade": f"{_BASE}/unidade-organizacional/{unit}",
                "codigoUnidadePai": f"{_BASE}/unidade-organizacional/{244 if unit == home else codes[(position - 1) // 10]}",
                "codigoOrgaoEntidade": f"{_BASE}/unidade-organizacional/{home}",
                "codigoTipoUnidade": f"{_BASE}/tipo-unidade/{'entidade' if unit == home else 'unidade-administrativa'}",
                "nome": f"Coordenação de Planejamento e Desenvolvimento Institucional {unit}",
                "sigla": f"CPDI{unit}",
                "codigoEsfera": f"{_BASE}/esfera/1",
                "codigoPoder": f"{_BASE}/poder/1",
                "codigoNaturezaJuridica": f"{_BASE}/natureza-juridica/2",
                "nivelNormatizacao": "ATO_INTERNO",
                "versaoConsulta": "100.0.0",
                "areaAtuacao": "FIM",
                "competencia": "Planejar, coordenar e executar as atividades da sua área. " * 3,
                "contato": [{"telefone": ["(65) 3615-8000"], "email": [f"u{unit}@example.org"], "site": []}],
                "endereco": [{"logradouro": "Avenida Fernando Corrêa da Costa", "numero": "2367", "cep": "78060900", "uf": "MT"}],
                "operacao": None,
            }


def write(path: Path, rows: Iterator[dict[str, Any]]) -> Path:
    """As a snapshot of the simulator; row by row: the peak of a child counts what its parent has in memory."""
    with path.open("w", encoding="utf-8") as file:
        file.write(_HEAD)
        for number, row in enumerate(rows):
            file.write("," * (number > 0) + json.dumps(row))
        file.write("]}")
    return path
