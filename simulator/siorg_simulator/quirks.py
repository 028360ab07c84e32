"""The documented ways in which SIORG's answers differ from each other, by name; each can be switched on."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Quirk(StrEnum):
    """A documented wobble. Without any, answers have the observed form of 2026."""

    UNIT_AS_ARRAY = "unit-as-array"
    UNIT_KEY_PLURAL = "unit-key-plural"
    LIST_KEY_SINGULAR = "list-key-singular"
    LIST_AS_OBJECT_WHEN_ONE = "list-as-object-when-one"
    LEGACY_SLUGS = "legacy-slugs"
    CODES_AS_INT = "codes-as-int"
    PADDED_CODES = "padded-codes"
    HTTP_URIS = "http-uris"
    VERSAO_DOC_SHAPE = "versao-doc-shape"
    NOT_FOUND_404 = "not-found-404"
    EMPTY_NULL = "empty-null"
    EMPTY_ABSENT = "empty-absent"
    NULLS_ABSENT = "nulls-absent"
    ROOT_ONLY = "root-only"
    VINCULADOS_LEAK = "vinculados-leak"
    FILHA_ANY_UNIT = "filha-any-unit"
    ADDRESS_INTS = "address-ints"
    NO_LATER_KEYS = "no-later-keys"
    LEAF_NULL = "leaf-null"
    LEAF_ABSENT = "leaf-absent"
    DOMAIN_ITEM_AS_LIST = "domain-item-as-list"
    MESSAGE_DOT = "message-dot"
    PASCAL_CASE = "pascal-case"


DESCRIPTIONS: dict[Quirk, str] = {
    Quirk.UNIT_AS_ARRAY: "single-unit endpoints give a list of one instead of an object",
    Quirk.UNIT_KEY_PLURAL: "single-unit endpoints use the key `unidades`",
    Quirk.LIST_KEY_SINGULAR: "list endpoints use the key `unidade`",
    Quirk.LIST_AS_OBJECT_WHEN_ONE: "a list of one unit is that unit, without the list",
    Quirk.LEGACY_SLUGS: "esfera, poder, natureza and subnatureza end in words (2015 to 2020), not numbers",
    Quirk.CODES_AS_INT: "codes are JSON integers instead of URIs (codigoTipoUnidade stays: it has no number)",
    Quirk.PADDED_CODES: 'unit codes are text of six digits ("000471") instead of URIs',
    Quirk.HTTP_URIS: "URIs begin with http:// (2015 to 2021)",
    Quirk.VERSAO_DOC_SHAPE: "/versao gives the documented `versao` object, not the observed `unidades` list",
    Quirk.NOT_FOUND_404: "an unknown unit is HTTP 404 instead of HTTP 200 with codigoErro 102",
    Quirk.EMPTY_NULL: "an empty list is null",
    Quirk.EMPTY_ABSENT: "the key of an empty list or missing unit is absent",
    Quirk.NULLS_ABSENT: "keys of a unit that are null are absent (as in the XML form)",
    Quirk.ROOT_ONLY: "estrutura-organizacional/completa gives only the root without codigoPoder and codigoEsfera",
    Quirk.VINCULADOS_LEAK: "structures also list the top rows of linked organizations without being asked",
    Quirk.FILHA_ANY_UNIT: "/filha answers for any unit, not for an organization alone",
    Quirk.ADDRESS_INTS: "numero, cep, municipio, uf (IBGE code) and pais of addresses are integers",
    Quirk.NO_LATER_KEYS: "the 15 keys of 2016, without codigoUnidadePaiAnterior and later ones",
    Quirk.LEAF_NULL: "/estrutura: a leaf's `estrutura` is null, not []",
    Quirk.LEAF_ABSENT: "/estrutura: a leaf has no key `estrutura`",
    Quirk.DOMAIN_ITEM_AS_LIST: "/poder/1 and the like give a list of one",
    Quirk.MESSAGE_DOT: "mensagem ends in a full stop, as the documents print it",
    Quirk.PASCAL_CASE: "keys are PascalCase, as the documents print them",
}

_EXCLUSIVE = (
    {Quirk.EMPTY_NULL, Quirk.EMPTY_ABSENT},
    {Quirk.LEAF_NULL, Quirk.LEAF_ABSENT},
    {Quirk.CODES_AS_INT, Quirk.PADDED_CODES},
)


def parse_quirks(names: Iterable[str]) -> frozenset[Quirk]:
    """Read quirk names.

    Raises:
        ValueError: A name that is none, or two that exclude each other.
    """
    allowed = {quirk.value: quirk for quirk in Quirk}
    found: set[Quirk] = set()
    for name in names:
        if name not in allowed:
            message = f"quirk: {name!r} is none; allowed: {', '.join(allowed)}"
            raise ValueError(message)
        found.add(allowed[name])
    for pair in _EXCLUSIVE:
        if pair <= found:
            message = f"quirk: {' and '.join(sorted(pair))} exclude each other"
            raise ValueError(message)
    return frozenset(found)
