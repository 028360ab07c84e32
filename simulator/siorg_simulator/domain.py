"""SIORG's domain tables, and the two ways the tail of a domain URI has been written.

The tables esfera, poder, natureza-juridica and tipo-unidade are the real ones (their length was checked against a live
answer of 2026). The numbers of subnatureza-juridica and categoria-unidade are not known publicly: the descriptions are
real, the numbers are this simulator's own.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

ORGANIZATION_TYPES = frozenset({"orgao", "entidade", "ente"})
"""Tails of codigoTipoUnidade whose units are organizations (órgão ou entidade) and head a structure of their own."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a domain table."""

    code: int | str
    description: str
    active: bool = True
    nature: int | None = None
    """Of a subnatureza: the natureza it belongs to."""


@dataclass(frozen=True, slots=True)
class Table:
    """One domain table: its path under /doc and the key its rows come under."""

    path: str
    key: str
    rows: tuple[Row, ...]
    has_active: bool = True

    @property
    def suffix(self) -> str:
        """What follows ``codigo`` and ``descricao`` in the names of the row's keys."""
        return self.key[0].upper() + self.key[1:]


def slug(text: str) -> str:
    """The tail that SIORG used until 2020: lower case, no accents, everything else a hyphen (``" - "`` gives three)."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii").lower()
    return re.sub(r"[^a-z0-9]", "-", plain)


SPHERES = Table(
    "esfera",
    "esfera",
    (Row(1, "Federal"), Row(2, "Estadual/Distrital"), Row(3, "Municipal")),
)
POWERS = Table(
    "poder",
    "poder",
    (Row(1, "Executivo"), Row(2, "Legislativo"), Row(3, "Judiciário"), Row(4, "Funções Essenciais à Justiça")),
)
NATURES = Table(
    "natureza-juridica",
    "naturezaJuridica",
    (
        Row(1, "Empresa Pública"),
        Row(2, "Fundação Pública"),
        Row(3, "Administração Direta"),
        Row(4, "Autarquia"),
        # There is no 5.
        Row(6, "Sociedade de Economia Mista"),
        Row(7, "Órgão Público Autônomo Federal"),
    ),
)
SUBNATURES = Table(
    "subnatureza-juridica",
    "subNaturezaJuridica",
    (
        Row(5, "Órgão Autônomo", nature=3),
        Row(16, "Autarquia Especial", nature=4),
        Row(17, "Fundação Pública - IFES", nature=2),
        Row(18, "Autarquia - IFES", nature=4),
        Row(19, "Autarquia Especial - Agência Reguladora", nature=4),
        Row(20, "Autarquia - IFE", nature=4),
    ),
)
TYPES = Table(
    "tipo-unidade",
    "tipoUnidade",
    (
        Row("ET", "Ente"),
        Row("EN", "Entidade"),
        Row("OR", "Órgão"),
        Row("UA", "Unidade Administrativa"),
        Row("UC", "Unidade Colegiada"),
    ),
    has_active=False,
)
CATEGORIES = Table(
    "categoria-unidade",
    "categoriaUnidade",
    (
        Row(1, "Estrutura Básica"),
        Row(2, "Vinculado"),
        Row(3, "Essenciais da Presidência da República"),
        Row(4, "Assessoramento Imediato ao PR"),
        Row(5, "Vice-Presidência da República"),
        Row(6, "Organização Básica"),
        Row(7, "Específico Singular"),
        Row(8, "Autônomo"),
        Row(9, "Direção Geral"),
        # Clients have met two categories of one name; one of them is no longer in use.
        Row(10, "Vinculado", active=False),
    ),
)

TABLES: dict[str, Table] = {table.path: table for table in (SPHERES, POWERS, NATURES, SUBNATURES, TYPES, CATEGORIES)}

_SLUG_OF = {
    table.path: {str(row.code): slug(row.description) for row in table.rows} for table in (SPHERES, POWERS, NATURES, SUBNATURES)
}
_NUMBER_OF = {path: {tail: number for number, tail in tails.items()} for path, tails in _SLUG_OF.items()}
# A tail of the 2016 capture that is not its description's slug.
_NUMBER_OF["subnatureza-juridica"]["autarquia---agencia-reguladora"] = "19"


def number_tail(path: str, tail: str) -> str:
    """The numeric tail of a domain URI (the form of 2021 and later); an unknown slug stays as it is."""
    return _NUMBER_OF[path].get(tail, tail)


def slug_tail(path: str, tail: str) -> str:
    """The slug tail of a domain URI (the form until 2020); an unknown number stays as it is."""
    return _SLUG_OF[path].get(tail, tail)
