"""SIORG's rows: units, structures, changes, versions and domain tables, from the bytes of an answer to the model.

There are three verdicts: this is no whole answer of SIORG (``MalformedResponse``, try again), SIORG says no (the error of
its ``codigoErro``), or this one row cannot be used (``InvalidData``, which in a structure never touches the row beside
it; of several rows that cannot be used, and no other, the answer itself is ``UnusableAnswer``). Every reader of an answer
may raise the first two. Pure.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from siorg_job.siorg import values
from siorg_job.siorg.envelope import check_usable, read_envelope
from siorg_job.siorg.errors import AnswerTooLarge, InvalidData, MalformedResponse
from siorg_job.siorg.json_reader import DECODER, Body
from siorg_job.siorg.model import MAX_ACRONYM, MAX_CODE, MAX_NAME, DomainRow, DomainTable, Operation, RemoteUnit, Structure
from siorg_job.siorg.values import Row, Unusable, camel, check_text, excerpt, member, reject

_T = TypeVar("_T")

_DEEPEST = 50  # levels of nesting inside one row; a real one has four. Every reader of ``raw`` has its limit
_ROW_BYTES = 1024  # of memory for a row beside its texts: the objects, or what is wrong with it
_UNIT_KEYS = ("unidades", "unidade")
_VERSION_KEYS = ("unidades", "unidade", "versao", "tipoVersao")
_NAME = partial(values.text, limit=MAX_NAME)
_ACRONYM = partial(values.text, limit=MAX_ACRONYM)
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _raw(row: Row) -> str:
    """Compact JSON that PostgreSQL's jsonb and every UTF-8 reader take: the row as it came, but for NUL.

    Raises:
        InvalidData: some value in it cannot be stored; the error names its place.
    """
    try:
        raw = _ENCODER.encode(row)
        raw.encode()
    except (TypeError, ValueError, RecursionError):  # UnicodeEncodeError, for lone surrogates, is a ValueError
        raw = ""
    if not raw:  # raised here, so that it is not chained to an error that holds the whole row
        _check_storable(row, "", 0)
        raise InvalidData("the row cannot be stored as JSON", field="")
    has_nul = "\\u0000" in raw  # or the six characters of it, harmlessly
    # A bracket opens each level; only a row with very many of them can be too deep.
    if has_nul or raw.count("{") + raw.count("[") > _DEEPEST:
        _check_storable(row, "", 0)
    return _ENCODER.encode(_without_nul(row)) if has_nul else raw


def _without_nul(value: Any) -> Any:
    match value:
        case str():
            return value.replace("\x00", "")
        case dict():
            return {key: _without_nul(entry) for key, entry in value.items()}
        case list():
            return [_without_nul(entry) for entry in value]
    return value


def _check_storable(value: Any, field: str, depth: int) -> None:
    """Find the place of what cannot be stored."""
    if depth > _DEEPEST:
        field, allowed = field[:100], f"at most {_DEEPEST} levels"
        raise InvalidData(f"{field} … is nested deeper than {allowed}", field=field, shape="too deep", allowed=allowed)
    match value:
        case Unusable():
            reject(field, value, "a finite number of reasonable length")
        case str():
            check_text(value, field)
        case dict():
            for key, entry in value.items():
                check_text(key, f"{field}: a key")
                if "\x00" in key:
                    reject(f"{field}: a key", key, "text without NUL")
                name = excerpt(key)[:60]
                _check_storable(entry, f"{field}.{name}" if field else name, depth + 1)
        case list():
            for index, entry in enumerate(value):
                _check_storable(entry, f"{field}[{index}]", depth + 1)


def _identify(row: Any) -> tuple[int, dict[str, Any]]:
    """A unit's code, and its row with keys in lowerCamelCase."""
    if not isinstance(row, dict):
        reject("unidade", row, "an object")
    # Some documents print PascalCase; a code at the top level tells which form the row has.
    fields = row if "codigoUnidade" in row else {camel(key): value for key, value in row.items()}
    code = values.code(fields.get("codigoUnidade"), "codigoUnidade")
    if code is None:
        reject("codigoUnidade", None, f"the unit's code, 1 to {MAX_CODE}")
    return code, fields


def _unit(row: Row, code: int, raw: str, forgive: type[InvalidData] | tuple[()] = ()) -> RemoteUnit:
    """Make a unit of a row. A field that cannot be used gives the unit up, or is None where that is forgiven."""

    def read(key: str, parse: Callable[[Any, str], _T | None]) -> _T | None:
        value = row.get(key)
        if value is None:
            return None
        try:
            return parse(value, key)
        except forgive:
            return None

    contacts = read("contato", values.objects) or []
    places = read("endereco", values.objects) or []

    def contact(key: str, clean: Callable[[Any, str], str | None]) -> tuple[str, ...] | None:
        return read("contato", lambda _value, _field: values.texts(contacts, key, clean)) if contacts else None

    def place(parse: Callable[[Row, str], str | None]) -> str | None:
        return read("endereco", lambda _value, _field: parse(places[0][1], places[0][0])) if places else None

    operation: Operation | None = read("operacao", values.operation)
    return RemoteUnit(
        code=code,
        raw=raw,
        parent_code=read("codigoUnidadePai", values.code),
        organization_code=read("codigoOrgaoEntidade", values.code),
        type_slug=read("codigoTipoUnidade", values.type_slug),
        name=read("nome", _NAME),
        acronym=read("sigla", _ACRONYM),
        category_code=read("codigoCategoriaUnidade", values.numeric_code),
        activity_area=read("areaAtuacao", values.area),
        phones=contact("telefone", values.label),
        emails=contact("email", values.text),
        websites=contact("site", values.website),
        address=place(values.address_line),
        zip_code=place(values.zip_code),
        state=place(values.state),
        version=read("versaoConsulta", values.version),
        ended=operation == "EXCLUSAO",
        operation=operation,
    )


def parse_unit(body: Body, code: int) -> RemoteUnit:
    """Read the answer to ``/unidade-organizacional/{code}/completa``.

    Raises:
        MalformedResponse: also when it holds no unit at all.
        InvalidData: the unit cannot be used, or is another one.
    """
    seen = 0

    def read(row: Any) -> Any:  # thousands are none that was asked for, and are not kept
        nonlocal seen
        seen += 1
        return row if seen <= 2 else None

    rows = read_envelope(body, _UNIT_KEYS, read)
    if not rows:
        raise MalformedResponse(f"SIORG reports success for unit {code} but sends no unit", code=code)
    if len(rows) > 1:
        reject("unidade", rows, "one unit")
    answered, fields = _identify(rows[0])
    unit = _unit(fields, answered, _raw(fields))
    if answered != code:
        message = f"SIORG was asked for unit {code} and answered with unit {answered}"
        raise InvalidData(message, field="codigoUnidade", asked=code, answered=answered)
    return unit


def read_structure(body: Body, organization: int, max_bytes: int | None = None) -> Structure:
    """Read the answer to ``/estrutura-organizacional/completa``; its ``is_whole`` tells whether to believe it.

    Args:
        body: the whole body.
        organization: the code that was asked for.
        max_bytes: of memory that the units may take; None: as many as they do.

    Raises:
        AnswerTooLarge: they would take more.
        UnusableAnswer: of several rows none can be used. Of one alone, what is wrong is that row's own.
    """
    units: dict[int, RemoteUnit] = {}
    invalid: dict[int, InvalidData] = {}
    unidentified = weight = 0

    def read(row: Any) -> None:
        nonlocal unidentified
        try:
            code, fields = _identify(row)
        except InvalidData:
            unidentified += 1
            return
        try:
            unit = _unit(fields, code, _raw(fields))
        except InvalidData as error:
            invalid[code] = error.with_traceback(None)  # which holds the row
            weigh(_ROW_BYTES)
            return
        weigh(_weight(unit))
        known = units.setdefault(code, unit)
        if known is not unit and replace(known, raw=unit.raw) != unit:
            message = f"SIORG lists unit {code} more than once, with different data"
            invalid[code] = InvalidData(message, field="codigoUnidade", code=code)

    def weigh(more: int) -> None:
        nonlocal weight
        weight += more
        if max_bytes is not None and weight > max_bytes:
            message = f"the units of SIORG's answer take over {max_bytes} bytes of memory"
            raise AnswerTooLarge(message, max_bytes=max_bytes)

    read_envelope(body, _UNIT_KEYS, read)
    for code in invalid:
        units.pop(code, None)
    check_usable(units, len(invalid) + unidentified, next(iter(invalid.values()), None))
    return Structure(organization, units, invalid, unidentified, weight)


def _weight(unit: RemoteUnit) -> int:
    """Bytes of memory that a unit takes, about."""
    texts = [unit.raw, unit.name, unit.acronym, unit.address, *(unit.phones or ()), *(unit.emails or ()), *(unit.websites or ())]
    return _ROW_BYTES + sum(map(sys.getsizeof, texts)) + 8 * len(texts)


def power_and_sphere(unit: RemoteUnit) -> tuple[int, int] | None:
    """A unit's poder and esfera, by which SIORG filters structures; None where they are not both numeric."""
    row = json.loads(unit.raw)
    try:
        power, sphere = (values.numeric_code(row.get(key), key) for key in ("codigoPoder", "codigoEsfera"))
    except InvalidData:
        return None
    return None if power is None or sphere is None else (power, sphere)


def parse_version(body: Body, organization: int) -> str:
    """Read the answer to ``/unidade-organizacional/{code}/versao``, as documented or as observed (``unidades``).

    Raises:
        MalformedResponse: also when it holds no version at all.
        InvalidData: the version is null or unreadable (some organizations have none), or that of another unit.
    """
    rows = read_envelope(body, _VERSION_KEYS, _version_row)
    if not rows:
        raise MalformedResponse(f"SIORG reports success for the version of {organization} but sends none", code=organization)
    own = [version for code, version in rows if code == organization] or [version for code, version in rows if code is None]
    if not own:
        message = f"SIORG was asked for the version of {organization} and answered with another unit's"
        raise InvalidData(message, field="codigoUnidade", asked=organization)
    versions = [version for version in own if version is not None]
    if not versions:
        reject("versaoConsulta", None, "a version of the form major.minor.build")
    return max(versions, key=values.version_key)


def _version_row(row: Any) -> tuple[int | None, str | None]:
    if not isinstance(row, dict):
        reject("versao", row, "an object")
    for key in ("versao", "tipoVersao"):
        inner = member(row, key)
        if isinstance(inner, dict):
            row = inner
    code = values.code(member(row, "codigoUnidade"), "codigoUnidade")
    return code, values.version(member(row, "versaoConsulta"), "versaoConsulta")


def parse_domain(body: Body, table: DomainTable) -> list[DomainRow]:
    """Read a domain table.

    Raises:
        MalformedResponse: also when the table is empty, which none of them is.
        UnusableAnswer: no row of several can be used.
        InvalidData: a row cannot be used. The whole table is given up then: a row left out would look ended.
    """
    rows = read_envelope(body, (table.key,), lambda row: _domain_row(row, table))
    if not rows:
        raise MalformedResponse(f"SIORG reports success for {table.value} but sends no rows")
    unique = {row.code: row for row in rows}
    if len({(row.code, row.name, row.active) for row in rows}) > len(unique):
        raise InvalidData(f"{table.value} lists a code more than once, with different data", field=table.key)
    return list(unique.values())


def _domain_row(row: Any, table: DomainTable) -> DomainRow:
    if not isinstance(row, dict):
        reject(table.key, row, "an object")
    suffix = table.key[:1].upper() + table.key[1:]
    code_key, name_key = f"codigo{suffix}", f"descricao{suffix}"
    value = member(row, code_key)
    code = values.type_letters(value, code_key) if table is DomainTable.UNIT_TYPE else values.code(value, code_key)
    if code is None:
        reject(code_key, value, "a code")
    name = _NAME(member(row, name_key), name_key)
    if name is None:
        reject(name_key, None, f"text of at most {MAX_NAME} characters")
    return DomainRow(code=code, name=name, active=values.active(member(row, "ativo"), "ativo"), raw=_raw(row))


def parse_stored(raw: str | Row | None) -> RemoteUnit | None:
    """Read ``siorg_raw_data`` back: the base of the three-way merge.

    Lenient, because rules may have become stricter since it was stored: a field that cannot be used is None. None when
    there is no unit in it at all.
    """
    row: Any = raw
    if isinstance(raw, str):
        try:
            row = DECODER.decode(raw)
        except (ValueError, RecursionError):
            return None
    try:
        code, fields = _identify(row)
        return _unit(fields, code, _raw(fields), InvalidData)
    except InvalidData:
        return None


def stored_is_active(raw: Row) -> bool:
    """Whether a stored row of a domain table was in use; as lenient as ``parse_stored``."""
    try:
        return values.active(member(raw, "ativo"), "ativo")
    except InvalidData:
        return True
