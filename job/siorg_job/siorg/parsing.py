"""From SIORG's bytes to the model: tolerant of every wobble that was seen, and of nothing else.

SIORG's answers vary (object or list, ``unidade`` or ``unidades``, codes as URI, digits or number, PascalCase in the
documents), its text is dirty, and a gateway may answer in its place. So there are three verdicts: this is no whole
answer of SIORG (``TornAnswer``, try again), SIORG says no (the error of its ``codigoErro``), or this one row cannot be
used (``InvalidAnswer``, which in a list never touches the row beside it).

Lists are read row by row: a ``completa`` body of 16 MB would otherwise stand in memory as some 100 MB of dictionaries.
Everything here is pure.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, NoReturn, TypeVar

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
from siorg_job.siorg.model import (
    MAX_ACRONYM,
    MAX_CODE,
    MAX_NAME,
    ActivityArea,
    DomainRow,
    DomainTable,
    Operation,
    RemoteUnit,
    Structure,
)

MAX_TEXT = 1000
"""Characters of a telephone, an e-mail address, a web site or a part of an address."""

MAX_CONTACTS = 200
"""Telephones (or e-mail addresses, or web sites) of one unit."""

MAX_DEPTH = 50
"""Levels of nesting inside one row; a real one has four. Every reader of ``raw`` has its limit."""

MAX_NUMBER = 300
"""Characters of a number. Python refuses to read integers beyond 4,300 digits, also when they come back from jsonb."""

Body = bytes | bytearray
Row = Mapping[str, Any]
_T = TypeVar("_T")

_UNIT_KEYS = ("unidades", "unidade")
_VERSION_KEYS = ("unidades", "unidade", "versao", "tipoVersao")
_IBGE_STATES = {
    "11": "RO", "12": "AC", "13": "AM", "14": "RR", "15": "PA", "16": "AP", "17": "TO", "21": "MA", "22": "PI",
    "23": "CE", "24": "RN", "25": "PB", "26": "PE", "27": "AL", "28": "SE", "29": "BA", "31": "MG", "32": "ES",
    "33": "RJ", "35": "SP", "41": "PR", "42": "SC", "43": "RS", "50": "MS", "51": "MT", "52": "GO", "53": "DF",
}  # fmt: skip
# The two-letter codes of the tipo-unidade table; rows carry the slug, but `EM` and `EN` are both printed for entidade.
_TYPE_LETTERS = {
    "et": "ente", "en": "entidade", "em": "entidade", "or": "orgao", "ua": "unidade-administrativa",
    "uc": "unidade-colegiada",
}  # fmt: skip
_AREAS: dict[str, ActivityArea] = {"FIM": "CORE", "MEIO": "SUPPORT"}
# EXTINCAO: tolerated by the first worker, never captured.
_OPERATIONS: dict[str, Operation] = {
    "INCLUSAO": "INCLUSAO",
    "ALTERACAO": "ALTERACAO",
    "EXCLUSAO": "EXCLUSAO",
    "EXTINCAO": "EXCLUSAO",
}

_JSON_SPACE = re.compile(r"[ \t\n\r]*")
_URI_CODE = re.compile(r"(?:https?://[^\s?#]+/)?([^\s/?#]+)/?", re.IGNORECASE)
_DIGITS = re.compile(r"0*([0-9]{1,10})")
_SLUG = re.compile(r"[a-z0-9]+(?:-+[a-z0-9]+)*")
_VERSION = re.compile(r"([0-9]{1,9})\.([0-9]{1,9})\.([0-9]{1,9})")
_DOUBLED_SCHEME = re.compile(r"(?:https?:/+)+(?=https?://)", re.IGNORECASE)
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]+")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]+")
_INVISIBLE = re.compile("[\u200b\u2060\ufeff]+")


# ── JSON ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Unusable:
    """Stands in a parsed row for a value that is JSON, or nearly, but can be neither stored nor used."""

    __slots__ = ("shape",)

    def __init__(self, shape: str) -> None:
        self.shape = shape


def _whole_number(text: str) -> int | _Unusable:
    return int(text) if len(text) <= MAX_NUMBER else _Unusable(f"a number of {len(text)} characters")


def _decimal_number(text: str) -> float | _Unusable:
    number = float(text) if len(text) <= MAX_NUMBER else float("inf")
    return number if math.isfinite(number) else _Unusable("a number too large")


_DECODER = json.JSONDecoder(
    parse_int=_whole_number,
    parse_float=_decimal_number,
    parse_constant=lambda name: _Unusable(f"{name}, which is no JSON number"),
)
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _decode(text: str, position: int) -> tuple[Any, int]:
    """The JSON value at a position, and where it ends."""
    try:
        return _DECODER.raw_decode(text, position)
    except json.JSONDecodeError as error:
        failure = TornAnswer(
            f"SIORG's answer is no whole JSON: it breaks off or goes wrong at character {error.pos} of {len(text)}",
            position=error.pos,
            length=len(text),
        )
    except RecursionError:
        failure = TornAnswer("SIORG's answer is nested too deeply to be one of its answers", length=len(text))
    # Raised here, so that it is not chained to the decoder's error, which holds the whole body.
    raise failure


def _next(text: str, position: int) -> int:
    match = _JSON_SPACE.match(text, position)
    return match.end() if match else position


def _expect(text: str, position: int, allowed: str) -> str:
    """The character at a position, which has to be one of the allowed."""
    found = text[position : position + 1]
    if not found or found not in allowed:
        what = "breaks off" if not found else "goes wrong"
        raise TornAnswer(
            f"SIORG's answer is no whole JSON: it {what} at character {position} of {len(text)}",
            position=position,
            length=len(text),
        )
    return found


def _members(text: str, take_list: Callable[[str], Callable[[Any], None] | None]) -> Iterator[tuple[str, Any]]:
    """The members of the one object that the text has to be.

    Args:
        text: the whole body.
        take_list: given a key, what is to be called with each element should its value be a list; then the elements
            are not kept, and None stands for the list. None: the value is handed over like any other.
    """
    position = _next(text, 1 if text.startswith("\ufeff") else 0)
    if text[position : position + 1] != "{":
        found = text[position : position + 1]
        kind = "HTML or XML" if found == "<" else "another kind of text"
        raise TornAnswer(f"SIORG's answer is no JSON object but {kind} ({len(text)} characters)", length=len(text))
    position = _next(text, position + 1)
    if text[position : position + 1] == "}":
        position = _next(text, position + 1)
    else:
        while True:
            _expect(text, position, '"')
            key, position = _decode(text, position)
            position = _next(text, position)
            _expect(text, position, ":")
            position = _next(text, position + 1)
            take = take_list(key) if text[position : position + 1] == "[" else None
            if take is None:
                value, position = _decode(text, position)
                yield key, value
            else:
                position = _elements(text, position, take)
                yield key, None
            position = _next(text, position)
            separator = _expect(text, position, ",}")
            position = _next(text, position + 1)
            if separator == "}":
                break
    if position != len(text):
        raise TornAnswer("SIORG's answer goes on after its end", position=position, length=len(text))


def _elements(text: str, position: int, take: Callable[[Any], None]) -> int:
    """Read a list element by element, so that only one of them is there at a time. Return where it ends."""
    position = _next(text, position + 1)
    if text[position : position + 1] == "]":
        return position + 1
    while True:
        element, position = _decode(text, position)
        take(element)
        position = _next(text, position)
        separator = _expect(text, position, ",]")
        position = _next(text, position + 1)
        if separator == "]":
            return position


# ── The envelope ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _camel(key: str) -> str:
    """The documents print ``CodigoErro``, production sends ``codigoErro``."""
    return key[:1].lower() + key[1:]


def _read_envelope(body: Body, keys: tuple[str, ...], read: Callable[[Any], _T], *, changes: bool = False) -> list[_T]:
    """Read the rows of an answer.

    Args:
        body: the whole body.
        keys: the names that the rows may have, the preferred first. The first that holds any rows counts.
        read: what to make of a row. Its errors wait until the envelope has been judged.
        changes: whether ``/alteradas`` was asked, where codigoErro 103 is about the version.

    Raises:
        TornAnswer: this is no whole answer of SIORG.
        SiorgError: the error that SIORG reports; rows are not looked at then.
    """
    if not body:
        raise TornAnswer("SIORG answered with an empty body", length=0)
    # Wrong bytes become lone surrogates, which spoil the row that they are in, not the whole list.
    text = body.decode("utf-8", "surrogateescape")
    rows = _Rows(keys, read)
    service: Any = None
    for key, value in _members(text, rows.collector):
        name = _camel(key)
        if name == "servico":
            service = value
        elif name in keys:
            rows.take_single(name, value)
    _raise_service_error(service, changes=changes)
    if rows.error is not None:
        raise rows.error
    return next((rows.found[key] for key in keys if rows.found.get(key)), [])


class _Rows(Generic[_T]):
    """The rows of an answer, read as they come by; what is wrong with them waits until the envelope has been judged."""

    def __init__(self, keys: tuple[str, ...], read: Callable[[Any], _T]) -> None:
        self.found: dict[str, list[_T]] = {}
        self.error: SiorgError | None = None
        self._keys = keys
        self._read = read

    def collector(self, key: str) -> Callable[[Any], None] | None:
        """What takes each element of the list under a key, if that is one of rows."""
        name = _camel(key)
        if name not in self._keys:
            return None
        rows = self.found[name] = []
        return lambda row: self._take(rows, row)

    def take_single(self, name: str, value: Any) -> None:
        """Take what stands where a list could be: an object is one row; null, "" and a list that was read are none."""
        if isinstance(value, dict):
            self._take(self.found.setdefault(name, []), value)
        elif value is not None and value != "" and self.error is None:
            self.error = TornAnswer(f"SIORG's envelope has {_shape(value)} where {name} should be an object or a list")

    def _take(self, rows: list[_T], row: Any) -> None:
        if self.error is None:
            try:
                rows.append(self._read(row))
            except InvalidAnswer as error:
                self.error = error


def _raise_service_error(service: Any, *, changes: bool) -> None:
    if not isinstance(service, dict):
        raise TornAnswer(
            f"the answer has no servico object but {_shape(service)} in its place: not SIORG's envelope; is SIORG_API_URL right?"
        )
    fields = {_camel(key): value for key, value in service.items()}
    code = fields.get("codigoErro")
    if isinstance(code, str) and code.isascii() and code.isdigit() and len(code) <= 9:
        code = int(code)
    if isinstance(code, bool) or not isinstance(code, int):
        raise TornAnswer(f"servico.codigoErro is {_shape(code)}, not a number: not SIORG's envelope; is SIORG_API_URL right?")
    if code == 0:
        return
    said = _excerpt(fields.get("mensagem"))
    ticket = _excerpt(fields.get("ticket"))
    message = f"SIORG reports error {code if abs(code) < 10**9 else 'of an unknown number'}"
    if said:
        message += f": {said}"
    if ticket:
        message += f" (ticket {ticket})"
    details = {
        "siorg_error": code if abs(code) < 10**9 else None,
        "siorg_message": said or None,
        "ticket": ticket or None,
    }
    kinds: dict[int, type[SiorgError]] = {1: SiorgUnavailable, 101: NotFound, 102: NotFound, 104: NotAnOrganization}
    if changes:
        kinds[103] = VersionUnknown
    raise kinds.get(code, RequestRefused)(message, **{key: value for key, value in details.items() if value is not None})


def _excerpt(value: Any) -> str:
    """A short, printable piece of what SIORG says about an error."""
    if not isinstance(value, str):
        return ""
    return " ".join(_UNPRINTABLE.sub(" ", value[:1000]).split())[:200]


def check_envelope(body: Body) -> None:
    """Check that a body is SIORG's envelope, and that it reports no error.

    Raises:
        TornAnswer: it is not SIORG's.
        SiorgError: the error that it reports.
    """
    _read_envelope(body, (), lambda _row: None)


# ── Single values ────────────────────────────────────────────────────────────────────────────────────────────────────


def _shape(value: Any) -> str:
    """What a value is, without repeating it: it may be long, secret or unprintable."""
    match value:
        case None:
            return "nothing"
        case _Unusable(shape=shape):
            return str(shape)
        case bool():
            return "true" if value else "false"
        case int():
            return f"a whole number of {len(str(abs(value)))} digits" + (" below zero" if value < 0 else "")
        case float():
            return "a decimal number"
        case str():
            return f"text of {len(value)} characters"
        case list():
            return f"a list of {len(value)}"
        case dict():
            return f"an object of {len(value)} keys"
        case _:
            return f"a {type(value).__name__}"


def _reject(field: str, value: Any, allowed: str) -> NoReturn:
    shape = _shape(value)
    raise InvalidAnswer(f"{field} is {shape}; allowed: {allowed}", field=field, shape=shape, allowed=allowed)


def normalise(text: str) -> str:
    """Text with every run of white space (NBSP, CR, LF, tabs …) as one space, none around it, no invisible marks."""
    if not text.isprintable():
        text = _CONTROL.sub(" ", _INVISIBLE.sub("", text))
    return " ".join(text.split())


def _text(value: Any, field: str, limit: int = MAX_TEXT) -> str | None:
    """Normalised text; blank is None."""
    if value is None:
        return None
    if not isinstance(value, str):
        _reject(field, value, f"text of at most {limit} characters, or null")
    if not value.isprintable():
        _check_text(value, field)
    text = normalise(value)
    if len(text) > limit:
        _reject(field, value, f"text of at most {limit} characters, or null")
    return text or None


def _label(value: Any, field: str) -> str | None:
    """Text that may have arrived as a number, as house numbers and CEPs do."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _text(value, field)


def _tail(value: str) -> str | None:
    """The last segment of a URI, or the whole of a plain code; None when it is neither."""
    match = _URI_CODE.fullmatch(value) if len(value) <= MAX_TEXT else None
    return match[1] if match else None


def _code(value: Any, field: str) -> int | None:
    """A code: a URI of any host, digits with or without leading zeros, or a number. Blank is None."""
    if value is None:
        return None
    number: int | None = None
    if isinstance(value, str):
        stripped = value.strip()
        if not stripped:
            return None
        tail = _tail(stripped)
        digits = _DIGITS.fullmatch(tail) if tail else None
        number = int(digits[1]) if digits else None
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    if number is None or not 1 <= number <= MAX_CODE:
        _reject(field, value, f"a URI that ends in a code, digits, or a whole number, 1 to {MAX_CODE}")
    return number


def _numeric_code(value: Any, field: str) -> int | None:
    """The number of a row in a domain table. A slug has none that is documented for all tables: it says nothing."""
    if isinstance(value, str):
        tail = _tail(value.strip())
        if tail and _SLUG.fullmatch(tail.lower()) and not tail.isdigit():
            return None
    return _code(value, field)


def _type_slug(value: Any, field: str) -> str | None:
    if value is None:
        return None
    allowed = "a URI that ends in a type such as unidade-administrativa"
    if not isinstance(value, str):
        _reject(field, value, allowed)
    stripped = value.strip()
    if not stripped:
        return None
    tail = (_tail(stripped) or "").lower()
    if len(tail) > 100 or not _SLUG.fullmatch(tail):
        _reject(field, value, allowed)
    return _TYPE_LETTERS.get(tail, tail)


def _name(value: Any, field: str) -> str | None:
    return _text(value, field, MAX_NAME)


def _acronym(value: Any, field: str) -> str | None:
    return _text(value, field, MAX_ACRONYM)


def _area(value: Any, field: str) -> ActivityArea | None:
    text = _text(value, field)
    if text is None:
        return None
    area = _AREAS.get(text.upper())
    if area is None:
        _reject(field, value, "MEIO, FIM or null")
    return area


def _operation(value: Any, field: str) -> Operation | None:
    text = _text(value, field)
    if text is None:
        return None
    operation = _OPERATIONS.get(text.upper().replace("Ã", "A").replace("Ç", "C"))
    if operation is None:
        _reject(field, value, "INCLUSAO, ALTERACAO, EXCLUSAO or null")
    return operation


def _version(value: Any, field: str) -> str | None:
    text = _text(value, field)
    if text is None:
        return None
    match = _VERSION.fullmatch(text)
    if match is None or not text.isascii():
        _reject(field, value, "a version of the form major.minor.build, or null")
    return ".".join(str(int(part)) for part in match.groups())


def version_key(version: str) -> tuple[int, int, int]:
    """A version as numbers, for comparison: ``99.0.0`` is older than ``107.0.0``.

    Raises:
        ValueError: it is not of the form major.minor.build.
    """
    match = _VERSION.fullmatch(version)
    if match is None or not version.isascii():
        raise ValueError("a SIORG version has the form major.minor.build")
    major, minor, build = match.groups()
    return int(major), int(minor), int(build)


# ── Contact and address ──────────────────────────────────────────────────────────────────────────────────────────────


def _objects(value: Any, field: str) -> list[tuple[str, dict[str, Any]]]:
    """The objects of a value that may be a list, a single object, null, or blank text; with the place of each."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return []
    if isinstance(value, dict):
        return [(field, value)]
    if not isinstance(value, list):
        _reject(field, value, "a list of objects, an object, or null")
    found = []
    for index, entry in enumerate(value):
        if entry is None:
            continue
        if not isinstance(entry, dict):
            _reject(f"{field}[{index}]", entry, "an object")
        found.append((f"{field}[{index}]", entry))
    return found


def _texts(
    contacts: list[tuple[str, dict[str, Any]]], key: str, clean: Callable[[Any, str], str | None]
) -> tuple[str, ...] | None:
    """One kind of contact data out of all contacts: unique, in order; None when SIORG did not say."""
    said = False
    found: dict[str, None] = {}
    for place, contact in contacts:
        value = _value(contact, key)
        field = f"{place}.{key}"
        if value is None:
            continue
        entries = value if isinstance(value, list) else [value]
        said = said or not entries
        for entry in entries:
            text = clean(entry, field)
            if text is not None:
                found[text] = None
        if len(found) > MAX_CONTACTS:
            _reject(field, value, f"at most {MAX_CONTACTS} entries")
    return tuple(found) if found or said else None


def _website(value: Any, field: str) -> str | None:
    if isinstance(value, dict):
        value = _value(value, "site")
    text = _text(value, field)
    if text is None:
        return None
    return _DOUBLED_SCHEME.sub("", text.replace(" ", "")).rstrip(".") or None


def _value(row: Row, key: str) -> Any:
    value = row.get(key)
    return value if value is not None else row.get(key[:1].upper() + key[1:])


def _zip_code(value: Any, field: str) -> str | None:
    """Eight digits; SIORG loses the leading zero where it sends a number. What is no CEP says nothing."""
    text = _label(value, field)
    digits = "".join(character for character in text or "" if character in "0123456789")
    return digits.zfill(8) if 7 <= len(digits) <= 8 and int(digits) else None


def _state(address: Row, place: str) -> str | None:
    """The two letters of the federal unit, also from an IBGE number: the state's or a (seven-digit) municipality's."""
    text = _label(_value(address, "uf"), f"{place}.uf")
    if text is None:
        city = _label(_value(address, "municipio"), f"{place}.municipio")
        return _IBGE_STATES.get(city[:2]) if city and len(city) == 7 and city.isdigit() else None
    if len(text) == 2 and text.isascii() and text.isalpha():
        return text.upper()
    return _IBGE_STATES.get(text)


def _address(address: Row, place: str) -> str | None:
    """One readable line: ``Av. X, 2367 - Boa Esperança, Cuiabá/MT, CEP 78060-900``, without what is lacking."""

    def part(key: str) -> str | None:
        return _label(_value(address, key), f"{place}.{key}")

    street, number, complement, district, city = map(part, ("logradouro", "numero", "complemento", "bairro", "municipio"))
    if city and city.isdigit():
        city = None  # an IBGE number, which says nothing to a reader
    state, zip_code = _state(address, place), _zip_code(_value(address, "cep"), f"{place}.cep")
    line = ", ".join(filter(None, (street, number if street else None, complement)))
    line = " - ".join(filter(None, (line, district)))
    where = "/".join(filter(None, (city, state)))
    line = ", ".join(filter(None, (line, where, f"CEP {zip_code[:5]}-{zip_code[5:]}" if zip_code else None)))
    # A state or a CEP alone is no address.
    return line if street or district or city else None


# ── Rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _raw(row: Row) -> str:
    """Compact JSON that PostgreSQL's jsonb and every UTF-8 reader take.

    Raises:
        InvalidAnswer: some value in it cannot be stored; the error names its place.
    """
    try:
        raw = _ENCODER.encode(row)
        raw.encode()
    except (TypeError, ValueError, RecursionError):  # UnicodeEncodeError, for lone surrogates, is a ValueError
        _check_storable(row, "", 0)
        raise InvalidAnswer("the row cannot be stored as JSON", field="") from None
    # A bracket opens each level; only a row with very many of them can be too deep. Text may hold \\u0000 harmlessly.
    if "\\u0000" in raw or raw.count("{") + raw.count("[") > MAX_DEPTH:
        _check_storable(row, "", 0)
    return raw


def _check_storable(value: Any, field: str, depth: int) -> None:
    """Find the place of what cannot be stored."""
    if depth > MAX_DEPTH:
        allowed = f"at most {MAX_DEPTH} levels"
        raise InvalidAnswer(
            f"{field[:100]} … is nested deeper than {allowed}", field=field[:100], shape="too deep", allowed=allowed
        )
    match value:
        case _Unusable():
            _reject(field, value, "a finite number of reasonable length")
        case str():
            _check_text(value, field)
        case dict():
            for key, entry in value.items():
                _check_text(key, f"{field}: a key")
                name = _excerpt(key)[:60]
                _check_storable(entry, f"{field}.{name}" if field else name, depth + 1)
        case list():
            for index, entry in enumerate(value):
                _check_storable(entry, f"{field}[{index}]", depth + 1)
        case _:
            pass


def _check_text(text: str, field: str) -> None:
    if "\x00" in text:
        raise InvalidAnswer(
            f"{field} is {_shape(text)}, one of them NUL; allowed: text without NUL", field=field, shape="text with NUL"
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidAnswer(
            f"{field} is {_shape(text)} with half a character (a lone surrogate or a wrong byte); allowed: whole Unicode text",
            field=field,
            shape="text with half a character",
        ) from None


def _unit_row(row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        _reject("unidade", row, "an object")
    # Some documents print PascalCase; a code at the top level tells which form the row has.
    return row if "codigoUnidade" in row else {_camel(key): value for key, value in row.items()}


def _required_code(row: Row) -> int:
    code = _code(row.get("codigoUnidade"), "codigoUnidade")
    if code is None:
        _reject("codigoUnidade", None, f"the unit's code, 1 to {MAX_CODE}")
    return code


def _unit(row: Row, code: int, raw: str, bad: Callable[[InvalidAnswer], None]) -> RemoteUnit:
    """Make a unit of a row. ``bad`` hears of each field that cannot be used; it raises to give the unit up."""

    def read(key: str, parse: Callable[[Any, str], _T | None]) -> _T | None:
        value = row.get(key)
        if value is None:
            return None
        try:
            return parse(value, key)
        except InvalidAnswer as error:
            bad(error)
            return None

    contacts = read("contato", _objects) or []
    places = read("endereco", _objects) or []

    def contact(key: str, clean: Callable[[Any, str], str | None]) -> tuple[str, ...] | None:
        return read("contato", lambda _value, _field: _texts(contacts, key, clean)) if contacts else None

    def place(parse: Callable[[Row, str], str | None]) -> str | None:
        return read("endereco", lambda _value, _field: parse(places[0][1], places[0][0])) if places else None

    operation: Operation | None = read("operacao", _operation)
    return RemoteUnit(
        code=code,
        raw=raw,
        parent_code=read("codigoUnidadePai", _code),
        organization_code=read("codigoOrgaoEntidade", _code),
        type_slug=read("codigoTipoUnidade", _type_slug),
        name=read("nome", _name),
        acronym=read("sigla", _acronym),
        category_code=read("codigoCategoriaUnidade", _numeric_code),
        activity_area=read("areaAtuacao", _area),
        phones=contact("telefone", _label),
        emails=contact("email", _text),
        websites=contact("site", _website),
        address=place(_address),
        zip_code=place(lambda address, where: _zip_code(_value(address, "cep"), f"{where}.cep")),
        state=place(_state),
        version=read("versaoConsulta", _version),
        ended=operation == "EXCLUSAO",
        operation=operation,
    )


def _raise(error: InvalidAnswer) -> None:
    raise error


def _ignore(_error: InvalidAnswer) -> None:
    pass


def _strict_unit(row: Any) -> RemoteUnit:
    fields = _unit_row(row)
    code = _required_code(fields)
    return _unit(fields, code, _raw(fields), _raise)


# ── Answers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def parse_unit(body: Body, code: int) -> RemoteUnit:
    """Read the answer to ``/unidade-organizacional/{code}/completa``.

    Raises:
        TornAnswer: it is no whole answer of SIORG, or holds no unit at all.
        InvalidAnswer: the unit cannot be used, or is another one.
        SiorgError: the error that SIORG reports.
    """
    rows = _read_envelope(body, _UNIT_KEYS, lambda row: row)
    if not rows:
        raise TornAnswer(f"SIORG reports success for unit {code} but sends no unit", code=code)
    if len(rows) > 1:
        _reject("unidade", rows, "one unit")
    unit = _strict_unit(rows[0])
    if unit.code != code:
        raise InvalidAnswer(
            f"SIORG was asked for unit {code} and answered with unit {unit.code}",
            field="codigoUnidade",
            asked=code,
            answered=unit.code,
        )
    return unit


def read_structure(body: Body, organization: int) -> Structure:
    """Read the answer to ``/estrutura-organizacional/completa``; ``is_whole`` tells whether to believe it.

    Raises:
        TornAnswer: it is no whole answer of SIORG.
        SiorgError: the error that SIORG reports.
    """
    units: dict[int, RemoteUnit] = {}
    invalid: dict[int, InvalidAnswer] = {}
    unidentified = 0

    def read(row: Any) -> None:
        nonlocal unidentified
        try:
            fields = _unit_row(row)
            code = _required_code(fields)
        except InvalidAnswer:
            unidentified += 1
            return
        try:
            unit = _unit(fields, code, _raw(fields), _raise)
        except InvalidAnswer as error:
            invalid[code] = error
            return
        known = units.setdefault(code, unit)
        if known is not unit and known.raw != unit.raw and json.loads(known.raw) != json.loads(unit.raw):
            invalid[code] = InvalidAnswer(
                f"SIORG lists unit {code} more than once, with different data", field="codigoUnidade", code=code
            )

    _read_envelope(body, _UNIT_KEYS, read)
    for code in invalid:
        units.pop(code, None)
    return Structure(organization, units, invalid, unidentified)


def is_whole(structure: Structure) -> bool:
    """Whether an answer may be believed to be the organization's structure: its own row is in it, readable or not.

    An empty list or one without the root is what a filter that does not fit or a failing SIORG sends; taken for the
    truth it would end every unit.
    """
    return structure.organization in structure.units or structure.organization in structure.invalid


def power_and_sphere(unit: RemoteUnit) -> tuple[int, int] | None:
    """A unit's poder and esfera, by which SIORG filters structures; None where they are not both numeric."""
    row = json.loads(unit.raw)
    try:
        power = _numeric_code(row.get("codigoPoder"), "codigoPoder")
        sphere = _numeric_code(row.get("codigoEsfera"), "codigoEsfera")
    except InvalidAnswer:
        return None
    return None if power is None or sphere is None else (power, sphere)


def parse_changes(body: Body) -> list[RemoteUnit]:
    """Read the answer to ``/unidade-organizacional/{code}/alteradas``: what changed, each with its ``operation``.

    A field that cannot be used is None here, because the unit itself is still fetched and judged then; a row without a
    code would be a lost change, and spoils the answer.

    Raises:
        TornAnswer: it is no whole answer of SIORG.
        InvalidAnswer: a row has no readable code.
        VersionUnknown: SIORG cannot tell what changed since that version.
        SiorgError: the error that SIORG reports.
    """
    return _read_envelope(body, _UNIT_KEYS, _change, changes=True)


def _change(row: Any) -> RemoteUnit:
    fields = _unit_row(row)
    code = _required_code(fields)
    try:
        raw = _raw(fields)
    except InvalidAnswer:
        raw = f'{{"codigoUnidade":{code}}}'
    return _unit(fields, code, raw, _ignore)


def parse_version(body: Body, organization: int) -> str:
    """Read the answer to ``/unidade-organizacional/{code}/versao``, as documented or as observed (``unidades``).

    Raises:
        TornAnswer: it is no whole answer of SIORG, or holds no version at all.
        InvalidAnswer: the version is null or unreadable (some organizations have none), or that of another unit.
        SiorgError: the error that SIORG reports.
    """
    rows = _read_envelope(body, _VERSION_KEYS, _version_row)
    if not rows:
        raise TornAnswer(f"SIORG reports success for the version of {organization} but sends none", code=organization)
    own = [version for code, version in rows if code == organization] or [version for code, version in rows if code is None]
    if not own:
        raise InvalidAnswer(
            f"SIORG was asked for the version of {organization} and answered with another unit's",
            field="codigoUnidade",
            asked=organization,
        )
    versions = [version for version in own if version is not None]
    if not versions:
        _reject("versaoConsulta", None, "a version of the form major.minor.build")
    return max(versions, key=version_key)


def _version_row(row: Any) -> tuple[int | None, str | None]:
    if not isinstance(row, dict):
        _reject("versao", row, "an object")
    for key in ("versao", "tipoVersao"):
        inner = _value(row, key)
        if isinstance(inner, dict):
            row = inner
    return _code(_value(row, "codigoUnidade"), "codigoUnidade"), _version(_value(row, "versaoConsulta"), "versaoConsulta")


def parse_domain(body: Body, table: DomainTable) -> list[DomainRow]:
    """Read a domain table.

    Raises:
        TornAnswer: it is no whole answer of SIORG, or an empty table (which none of them is).
        InvalidAnswer: a row cannot be used. The whole table is given up then: a row left out would look ended.
        SiorgError: the error that SIORG reports.
    """
    rows = _read_envelope(body, (table.key,), lambda row: _domain_row(row, table))
    if not rows:
        raise TornAnswer(f"SIORG reports success for {table.value} but sends no rows")
    unique = {row.code: row for row in rows}
    for row in rows:
        if row != unique[row.code]:
            raise InvalidAnswer(f"{table.value} lists a code more than once, with different data", field=table.key)
    return list(unique.values())


def _domain_row(row: Any, table: DomainTable) -> DomainRow:
    if not isinstance(row, dict):
        _reject(table.key, row, "an object")
    suffix = table.key[:1].upper() + table.key[1:]
    code_key, name_key = f"codigo{suffix}", f"descricao{suffix}"
    value = _value(row, code_key)
    code = _domain_letters(value, code_key) if table is DomainTable.UNIT_TYPE else _code(value, code_key)
    if code is None:
        _reject(code_key, value, "a code")
    name = _text(_value(row, name_key), name_key, MAX_NAME)
    if name is None:
        _reject(name_key, None, f"text of at most {MAX_NAME} characters")
    return DomainRow(code=code, name=name, active=_active(_value(row, "ativo")), raw=_raw(row))


def _domain_letters(value: Any, field: str) -> str | None:
    if isinstance(value, str):
        tail = _tail(value.strip()) or ""
        if 1 <= len(tail) <= 100 and _SLUG.fullmatch(tail.lower()):
            return tail
        if value.strip():
            _reject(field, value, "letters such as UA")
    elif value is not None:
        _reject(field, value, "letters such as UA")
    return None


def _active(value: Any) -> bool:
    """SIM unless SIORG says otherwise; ``tipo-unidade`` has no such key."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value != 0
    text = _text(value, "ativo")
    if text is None:
        return True
    if text.upper() not in {"SIM", "NAO", "NÃO", "S", "N", "0", "1"}:
        _reject("ativo", value, "SIM or NAO")
    return text.upper() in {"SIM", "S", "1"}


# ── Our own database ─────────────────────────────────────────────────────────────────────────────────────────────────


def parse_stored(raw: str | Row | None) -> RemoteUnit | None:
    """Read ``siorg_raw_data`` back: the base of the three-way merge.

    Lenient, because rules may have become stricter since it was stored: a field that cannot be used is None. None when
    there is no unit in it at all.
    """
    row: Any = raw
    if isinstance(raw, str):
        try:
            row = _DECODER.decode(raw)
        except (ValueError, RecursionError):
            return None
    if not isinstance(row, dict):
        return None
    fields = _unit_row(row)
    try:
        code = _required_code(fields)
        text = _raw(fields)
    except InvalidAnswer:
        return None
    return _unit(fields, code, text, _ignore)
