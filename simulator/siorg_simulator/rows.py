"""SIORG's rows and the units they describe: read leniently (any captured form), write in the asked form. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from siorg_simulator.domain import number_tail, slug_tail
from siorg_simulator.quirks import Quirk
from siorg_simulator.structure import Difference, GivenDetails, Snapshot, Unit

HOST = "estruturaorganizacional.dados.gov.br"
"""The host of SIORG's identifiers; it names units, nothing is fetched from it."""

DETAIL_DEFAULTS: dict[str, object] = {
    "codigoCategoriaUnidade": None,
    "competencia": None,
    "finalidade": None,
    "missao": None,
    "descricaoAtoNormativo": None,
    "atoNormativo": None,
    "areaAtuacao": None,
    "endereco": [],
    "contato": [],
    "autoridade": None,
}
"""The keys that the complete form adds, in SIORG's order, as they are for a unit of which nothing more is known."""

_LATER_KEYS = ("codigoUnidadePaiAnterior", "codigoOrgaoEntidadeAnterior", "regulamentoEspecifico")

_MAX_CODE = 2**31 - 1

# IBGE's numbers of the states.
_STATE_NUMBERS = {
    "RO": 11, "AC": 12, "AM": 13, "RR": 14, "PA": 15, "AP": 16, "TO": 17, "MA": 21, "PI": 22, "CE": 23, "RN": 24,
    "PB": 25, "PE": 26, "AL": 27, "SE": 28, "BA": 29, "MG": 31, "ES": 32, "RJ": 33, "SP": 35, "PR": 41, "SC": 42,
    "RS": 43, "MS": 50, "MT": 51, "GO": 52, "DF": 53,
}  # fmt: skip


class SnapshotError(ValueError):
    """The text is not a SIORG body that can be served. The message is one line for a person."""


@dataclass(frozen=True, slots=True)
class RowForm:
    """How rows are written. The default is the observed form of 2026."""

    quirks: frozenset[Quirk] = frozenset()

    def unit_code(self, code: int | None, *, blank: str | None = None) -> object:
        """A unit's code as it stands in a row; ``blank`` when there is none."""
        if code is None:
            return blank
        if Quirk.CODES_AS_INT in self.quirks:
            return code
        if Quirk.PADDED_CODES in self.quirks:
            return f"{code:06d}"
        return self._uri("unidade-organizacional", str(code))

    def domain_code(self, path: str, tail: str | None) -> object:
        """A domain code as it stands in a row."""
        if not tail:
            return tail
        if Quirk.LEGACY_SLUGS in self.quirks:
            return self._uri(path, slug_tail(path, tail))
        if Quirk.CODES_AS_INT in self.quirks and tail.isdecimal():
            return int(tail)
        return self._uri(path, tail)

    def type_code(self, tail: str) -> str:
        """codigoTipoUnidade: a URI with a word at its end in every capture from 2015 to 2026."""
        return self._uri("tipo-unidade", tail)

    def category_code(self, tail: str) -> object:
        """codigoCategoriaUnidade: its URI has ended in a number in every capture."""
        if Quirk.CODES_AS_INT in self.quirks and tail.isdecimal():
            return int(tail)
        return self._uri("categoria-unidade", tail) if tail else tail

    def _uri(self, path: str, tail: str) -> str:
        scheme = "http" if Quirk.HTTP_URIS in self.quirks else "https"
        return f"{scheme}://{HOST}/id/{path}/{tail}"


PLAIN = RowForm()


def short_row(unit: Unit, form: RowForm = PLAIN, difference: Difference | None = None) -> dict[str, object]:
    """A unit in the short form (resumida); with ``operacao`` and where it was, if it is a difference."""
    row = _short_keys(unit, form, difference)
    if Quirk.NO_LATER_KEYS in form.quirks:
        for key in _LATER_KEYS:
            del row[key]
    return _finished(row, unit, form)


def complete_row(unit: Unit, form: RowForm = PLAIN) -> dict[str, object]:
    """A unit in the complete form (completa)."""
    row = _short_keys(unit, form, None)
    if Quirk.NO_LATER_KEYS in form.quirks:
        for key in _LATER_KEYS:
            del row[key]
    row |= complete_details(unit, form)
    return _finished(row, unit, form)


def complete_details(unit: Unit, form: RowForm = PLAIN) -> dict[str, object]:
    """What the complete form adds to the short one."""
    details = DETAIL_DEFAULTS | unit.details.fields()
    category = details["codigoCategoriaUnidade"]
    if isinstance(category, int | str):
        details["codigoCategoriaUnidade"] = form.category_code(tail_of(category))
    if Quirk.ADDRESS_INTS in form.quirks and isinstance(details["endereco"], list):
        details["endereco"] = [_with_ints(address) for address in details["endereco"]]
    return details


def _short_keys(unit: Unit, form: RowForm, difference: Difference | None) -> dict[str, object]:
    return {
        "codigoUnidade": form.unit_code(unit.code),
        # Captured: the parent of the national root is empty text, not null.
        "codigoUnidadePai": form.unit_code(unit.parent, blank="" if unit.type_slug == "ente" else None),
        "codigoOrgaoEntidade": form.unit_code(unit.organization),
        "codigoTipoUnidade": form.type_code(unit.type_slug),
        "nome": unit.name,
        "sigla": unit.acronym,
        "codigoEsfera": form.domain_code("esfera", unit.sphere),
        "codigoPoder": form.domain_code("poder", unit.power),
        "codigoNaturezaJuridica": form.domain_code("natureza-juridica", unit.nature),
        "codigoSubNaturezaJuridica": form.domain_code("subnatureza-juridica", unit.subnature),
        "nivelNormatizacao": unit.norm_level,
        "versaoConsulta": unit.version,
        "dataInicialVersaoConsulta": unit.since,
        "dataFinalVersaoConsulta": unit.until,
        "operacao": difference.operation.value if difference else None,
        "codigoUnidadePaiAnterior": form.unit_code(difference.previous_parent if difference else None),
        "codigoOrgaoEntidadeAnterior": form.unit_code(difference.previous_organization if difference else None),
        "regulamentoEspecifico": unit.regulation,
    }


def _finished(row: dict[str, object], unit: Unit, form: RowForm) -> dict[str, object]:
    if Quirk.NULLS_ABSENT in form.quirks:
        row = {key: value for key, value in row.items() if value is not None}
    if unit.verbatim:
        row |= json.loads(unit.verbatim)
    return row


def _with_ints(address: object) -> object:
    if not isinstance(address, dict):
        return address
    changed = dict(address)
    for key in ("numero", "cep", "municipio", "pais"):
        digits = str(changed.get(key)).replace("-", "").replace(".", "").strip()
        if digits.isdecimal():
            changed[key] = int(digits)
    changed["uf"] = _STATE_NUMBERS.get(str(changed.get("uf")).strip(), changed.get("uf"))
    return changed


def tail_of(value: object) -> str:
    """The last part of a URI, or the value itself as text; empty for null."""
    return "" if value is None else str(value).strip().rstrip("/").rsplit("/", 1)[-1]


def parse_code(value: object, key: str) -> int | None:
    """A unit's code out of a URI, digits or an integer; None for null and empty text.

    Raises:
        SnapshotError: It is none of these.
    """
    if isinstance(value, bool) or not isinstance(value, int | str | None):
        message = f"{key} is {value!r}, not a code"
        raise SnapshotError(message)
    tail = tail_of(value)
    if not tail:
        return None
    if not (tail.isascii() and tail.isdigit()) or not 0 < int(tail) <= _MAX_CODE:
        message = f"{key} is {value!r}, not a code from 1 to {_MAX_CODE}"
        raise SnapshotError(message)
    return int(tail)


def parse_row(row: object, *, known: Unit | None = None) -> Unit:
    """A unit out of a row of any captured form.

    Args:
        row: The row.
        known: The unit as it was; its details stay unless the row brings some.

    Raises:
        SnapshotError: Not a row, or without a usable code.
    """
    if not isinstance(row, dict):
        message = f"a unit is {type(row).__name__}, not an object"
        raise SnapshotError(message)
    code = parse_code(row.get("codigoUnidade"), "codigoUnidade")
    if code is None:
        message = "a unit has no codigoUnidade"
        raise SnapshotError(message)
    details = {key: row[key] for key in DETAIL_DEFAULTS if key in row}
    return Unit(
        code=code,
        parent=parse_code(row.get("codigoUnidadePai"), "codigoUnidadePai"),
        organization=parse_code(row.get("codigoOrgaoEntidade"), "codigoOrgaoEntidade"),
        type_slug=tail_of(row.get("codigoTipoUnidade")),
        name=_text(row, "nome"),
        acronym=_text(row, "sigla"),
        sphere=_domain_tail(row, "codigoEsfera", "esfera"),
        power=_domain_tail(row, "codigoPoder", "poder"),
        nature=_domain_tail(row, "codigoNaturezaJuridica", "natureza-juridica"),
        subnature=_domain_tail(row, "codigoSubNaturezaJuridica", "subnatureza-juridica"),
        norm_level=_text(row, "nivelNormatizacao"),
        version=_text(row, "versaoConsulta"),
        since=_text(row, "dataInicialVersaoConsulta"),
        until=_text(row, "dataFinalVersaoConsulta"),
        regulation=_text(row, "regulamentoEspecifico"),
        details=GivenDetails(_compact(details)) if details else known.details if known else GivenDetails(),
        verbatim=known.verbatim if known else "",
    )


def parse_body(text: str | bytes, source: str) -> Snapshot:
    """A snapshot out of a SIORG body, as a file of captured or written data holds it.

    Raises:
        SnapshotError: Not JSON, not SIORG's envelope, an error envelope, no units, a unit without code, or one twice.
    """
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        message = f"{source}: not JSON ({error})"
        raise SnapshotError(message) from None
    rows = _rows(body)
    if not isinstance(rows, list) or not rows:
        message = f"{source}: no units in it (wanted: a SIORG body with the key `unidades`, not empty)"
        raise SnapshotError(message)
    units: dict[int, Unit] = {}
    for number, row in enumerate(rows):
        try:
            unit = parse_row(row)
        except SnapshotError as error:
            message = f"{source}: unit {number}: {error}"
            raise SnapshotError(message) from None
        if unit.code in units:
            message = f"{source}: unit {number}: codigoUnidade {unit.code} comes twice"
            raise SnapshotError(message)
        units[unit.code] = unit
    return Snapshot(source, units)


def _rows(body: object) -> object:
    if not isinstance(body, dict):
        return None
    rows = body.get("unidades") or body.get("unidade")
    return [rows] if isinstance(rows, dict) else rows


def _text(row: Mapping[str, object], key: str) -> str | None:
    value = row.get(key)
    return None if value is None else str(value)


def _domain_tail(row: Mapping[str, object], key: str, path: str) -> str | None:
    value = row.get(key)
    return None if value is None else number_tail(path, tail_of(value))


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
