"""One value of SIORG's: text, code, version, contact or address, in all the spellings that were seen.

Each reader takes a value and the name of its place, gives None where SIORG did not say (absent, null, blank), and raises
``InvalidData`` for what cannot be used. Pure.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, TypeAlias, TypeVar

from siorg_job.siorg.errors import InvalidData
from siorg_job.siorg.model import MAX_CODE, ActivityArea, Operation

_LONGEST_TEXT = 1000  # characters of a telephone, an e-mail address, a web site or a part of an address
_MOST_CONTACTS = 200  # telephones (or e-mail addresses, or web sites) of one unit

Row = Mapping[str, Any]
_T = TypeVar("_T")
_Read: TypeAlias = Callable[[Any, str], _T | None]

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
_OPERATIONS: dict[str, Operation] = {
    "INCLUSAO": "INCLUSAO", "ALTERACAO": "ALTERACAO", "EXCLUSAO": "EXCLUSAO",
    "EXTINCAO": "EXCLUSAO",  # tolerated by the first worker, never captured
}  # fmt: skip
_YES_OR_NO = {"SIM": True, "S": True, "1": True, "NAO": False, "N": False, "0": False}
_WITHOUT_ACCENTS = str.maketrans("ÃÇ", "AC")

_URI_CODE = re.compile(r"(?:https?://[^\s?#]+/)?([^\s/?#]+)/?", re.IGNORECASE)
_DIGITS = re.compile(r"0*([0-9]{1,10})")
_SLUG = re.compile(r"[a-z0-9]+(?:-+[a-z0-9]+)*")
_VERSION = re.compile(r"([0-9]{1,9})\.([0-9]{1,9})\.([0-9]{1,9})")
_DOUBLED_SCHEME = re.compile(r"(?:https?:/+)+(?=https?://)", re.IGNORECASE)
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
# Controls that are no white space; what Unicode calls default ignorable (bidi marks and overrides, zero-width characters, soft
# hyphens, variation selectors, tags, fillers); and the marks of interlinear annotations.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]+"
)


@dataclass(frozen=True, slots=True)
class Unusable:
    """Stands in a parsed row for a value that is JSON, or nearly, but can be neither stored nor used."""

    shape: str


def shape_of(value: Any) -> str:
    """What a value is, without repeating it: it may be long, secret or unprintable."""
    match value:
        case None:
            return "nothing"
        case Unusable(shape=shape):
            return shape
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
        case _:
            return f"an object of {len(value)} keys"


def reject(field: str, value: Any, allowed: str) -> NoReturn:
    """Raise ``InvalidData`` that names the field, what stands in it, and what may."""
    shape = shape_of(value)
    raise InvalidData(f"{field} is {shape}; allowed: {allowed}", field=field, shape=shape, allowed=allowed)


def excerpt(value: Any) -> str:
    """A short, printable piece of a text of SIORG's; of anything else nothing."""
    return normalise(_HALF_CHARACTER.sub(" ", value[:1000]))[:200] if isinstance(value, str) else ""


def camel(key: str) -> str:
    """The documents print ``CodigoErro``, production sends ``codigoErro``."""
    return key[:1].lower() + key[1:]


def member(row: Row, key: str) -> Any:
    """The value under a key in either spelling."""
    value = row.get(key)
    return value if value is not None else row.get(key[:1].upper() + key[1:])


def check_text(text: str, field: str) -> None:
    """Refuse text that is damaged beyond reading: what was there is not known, and PostgreSQL cannot store it."""
    if _HALF_CHARACTER.search(text):
        reason = "with half a character (a lone surrogate or a wrong byte); allowed: whole Unicode text"
        raise InvalidData(f"{field} is {shape_of(text)} {reason}", field=field, shape="text with half a character")


def normalise(text: str) -> str:
    """Text as it is compared and written: the only place where that is decided. Doing it again changes nothing.

    * Invisible characters are removed: NUL and all other controls of C0 and C1 but white space, bidi marks, embeddings,
      overrides and isolates (U+202E), zero-width characters, soft hyphens, byte order marks, variation selectors.
    * Accents stay, in the one form of NFC: ``a`` with U+0303 is ``ã``.
    * White space of every kind (NBSP, CR, LF, tabs, U+2028 …), however much of it, is one space; around the text is none.
    * Everything else is carried as it comes: case, punctuation, and damage such as ``ORGAO ¿ SEDE`` or U+FFFD, of which
      nobody knows what it was.

    What is empty then says nothing. Lengths are counted afterwards.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", _INVISIBLE.sub("", text))
    elif not text.isprintable():
        text = _INVISIBLE.sub("", text)
    return " ".join(text.split())


def text(value: Any, field: str, limit: int = _LONGEST_TEXT) -> str | None:
    """Normalised text of at most so many characters."""
    if value is None:
        return None
    if isinstance(value, str):
        if not value.isprintable():
            check_text(value, field)
        value = normalise(value)
        if len(value) <= limit:
            return value or None
    reject(field, value, f"text of at most {limit} characters, or null")


def label(value: Any, field: str) -> str | None:
    """Text that may have arrived as a number, as house numbers and CEPs do."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return text(value, field)


def _choice(value: Any, field: str, choices: Mapping[str, _T], allowed: str) -> _T | None:
    word = text(value, field)
    if word is None:
        return None
    chosen = choices.get(word.upper().translate(_WITHOUT_ACCENTS))
    if chosen is None:
        reject(field, value, allowed)
    return chosen


area: _Read[ActivityArea] = partial(_choice, choices=_AREAS, allowed="MEIO, FIM or null")
operation: _Read[Operation] = partial(_choice, choices=_OPERATIONS, allowed="INCLUSAO, ALTERACAO, EXCLUSAO or null")


def active(value: Any, field: str) -> bool:
    """Whether a row of a domain table is in use: unless SIORG says otherwise (``tipo-unidade`` has no such key)."""
    if isinstance(value, int):
        return value != 0
    return _choice(value, field, _YES_OR_NO, "SIM or NAO") is not False


def _tail(value: Any) -> str | None:
    """The last segment of a URI, or the whole of a plain code; "" of null and blank text, None of what is neither."""
    if value is None:
        return ""
    if not isinstance(value, str):
        return None
    written = normalise(value)
    match = _URI_CODE.fullmatch(written) if len(written) <= _LONGEST_TEXT else None
    return match[1] if match else None if written else ""


def code(value: Any, field: str) -> int | None:
    """A code: a URI of any host or digits, with or without leading zeros, or a number; the same code in every form."""
    tail = _tail(value)
    if tail == "":
        return None
    digits = _DIGITS.fullmatch(tail) if tail else None
    number = int(digits[1]) if digits else value
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= MAX_CODE:
        reject(field, value, f"a URI that ends in a code, digits, or a whole number, 1 to {MAX_CODE}")
    return number


def numeric_code(value: Any, field: str) -> int | None:
    """The number of a row in a domain table. A slug has none that is documented for all tables: it says nothing."""
    tail = _tail(value)
    if tail and _SLUG.fullmatch(tail.lower()) and not tail.isdigit():
        return None
    return code(value, field)


def _letters(value: Any, field: str, allowed: str) -> str | None:
    tail = _tail(value)
    if tail == "":
        return None
    if tail is None or len(tail) > 100 or not _SLUG.fullmatch(tail.lower()):
        reject(field, value, allowed)
    return tail


def type_slug(value: Any, field: str) -> str | None:
    """A unit's type, ``unidade-administrativa``; also from the letters of the type table."""
    slug = (_letters(value, field, "a URI that ends in a type such as unidade-administrativa") or "").lower()
    return _TYPE_LETTERS.get(slug, slug) or None


type_letters: _Read[str] = partial(_letters, allowed="letters such as UA")


def version(value: Any, field: str) -> str | None:
    """A version without leading zeros, ``107.0.0``."""
    written = text(value, field)
    if written is None:
        return None
    if not _VERSION.fullmatch(written):
        reject(field, value, "a version of the form major.minor.build, or null")
    return ".".join(map(str, version_key(written)))


def version_key(version: str) -> tuple[int, int, int]:
    """A version as numbers, for comparison: ``99.0.0`` is older than ``107.0.0``.

    Raises:
        ValueError: it is not of the form major.minor.build.
    """
    match = _VERSION.fullmatch(version)
    if match is None:
        raise ValueError("a SIORG version has the form major.minor.build")
    return int(match[1]), int(match[2]), int(match[3])


def objects(value: Any, field: str) -> list[tuple[str, Row]]:
    """The objects of a value that may be a list, a single object, null, or blank text; with the place of each."""
    if value is None or (isinstance(value, str) and not normalise(value)):
        return []
    if isinstance(value, dict):
        return [(field, value)]
    if not isinstance(value, list):
        reject(field, value, "a list of objects, an object, or null")
    found = [(f"{field}[{index}]", entry) for index, entry in enumerate(value) if entry is not None]
    for place, entry in found:
        if not isinstance(entry, dict):
            reject(place, entry, "an object")
    return found


def texts(contacts: list[tuple[str, Row]], key: str, read: _Read[str]) -> tuple[str, ...] | None:
    """One kind of contact data out of all contacts: unique, in order; None when SIORG did not say."""
    said = False
    found: dict[str, None] = {}
    for place, contact in contacts:
        value = member(contact, key)
        field = f"{place}.{key}"
        if value is None:
            continue
        entries = value if isinstance(value, list) else [value]
        said = said or not entries
        found |= dict.fromkeys(filter(None, (read(entry, field) for entry in entries)))
        if len(found) > _MOST_CONTACTS:
            reject(field, value, f"at most {_MOST_CONTACTS} entries")
    return tuple(found) if found or said else None


def website(value: Any, field: str) -> str | None:
    """A web site's address, as text or in an object."""
    written = text(member(value, "site") if isinstance(value, dict) else value, field) or ""
    return normalise(_DOUBLED_SCHEME.sub("", written.replace(" ", "")).rstrip(".")) or None


def zip_code(address: Row, place: str) -> str | None:
    """Eight digits; SIORG loses the leading zero where it sends a number. What is no CEP says nothing."""
    written = label(member(address, "cep"), f"{place}.cep") or ""
    digits = "".join(character for character in written if character in "0123456789")
    return digits.zfill(8) if 7 <= len(digits) <= 8 and int(digits) else None


def state(address: Row, place: str) -> str | None:
    """The two letters of the federal unit, also from an IBGE number: the state's or a (seven-digit) municipality's."""
    written = label(member(address, "uf"), f"{place}.uf")
    if written is None:
        city = label(member(address, "municipio"), f"{place}.municipio")
        return _IBGE_STATES.get(city[:2]) if city and len(city) == 7 and city.isdigit() else None
    if len(written) == 2 and written.isascii() and written.isalpha():
        return written.upper()
    return _IBGE_STATES.get(written)


def address_line(address: Row, place: str) -> str | None:
    """One readable line: ``Av. X, 2367 - Boa Esperança, Cuiabá/MT, CEP 78060-900``, without what is lacking."""
    parts = ("logradouro", "numero", "complemento", "bairro", "municipio")
    street, number, complement, district, city = (label(member(address, key), f"{place}.{key}") for key in parts)
    if city and city.isdigit():
        city = None  # an IBGE number, which says nothing to a reader
    federal_state, zipped = state(address, place), zip_code(address, place)
    line = ", ".join(filter(None, (street, number if street else None, complement)))
    line = " - ".join(filter(None, (line, district)))
    where = "/".join(filter(None, (city, federal_state)))
    line = ", ".join(filter(None, (line, where, f"CEP {zipped[:5]}-{zipped[5:]}" if zipped else None)))
    # A state or a CEP alone is no address.
    return line if street or district or city else None
