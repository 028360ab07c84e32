"""Keeps secrets out of everything that is printed, stored or raised.

Two nets, one behind the other:

* **Known secrets** (database URLs, passwords, tokens) are replaced wherever they stand, also percent-encoded,
  JSON-escaped and in base64, as Kubernetes keeps them. Only from four characters on: a password ``a`` would turn every
  log into stars.
* **Known places** hold secrets whatever these are: ``scheme://user:password@host``, ``password=…``,
  ``Authorization: …``, ``Bearer …``, and fields of those names. Here short ones are replaced too.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from bisect import insort
from collections.abc import Iterable, Iterator, Mapping
from typing import Final
from urllib.parse import quote, quote_plus, unquote

STARS: Final = "***"
LONGEST_TEXT: Final = 16_384
"""Characters of one text of a value: a body that ends up in an error must not flood the log."""

_SHORTEST_SECRET = 4  # characters
_DEEPEST = 16  # levels: what is deeper is cut, and a structure that contains itself comes to an end
_SECRET_PARAMETERS = frozenset({"password", "sslpassword"})  # of a database's URL
_SECRET_FIELDS = frozenset(
    {
        "authorization", "proxy-authorization", "password", "passwd", "sslpassword", "pgpassword",
        "access_token", "api_key", "apikey", "client_secret", "database_url", "siorg_api_token",
    }
)  # fmt: skip

# PostgreSQL's own URLs first, and greedily: a password with an unencoded / or ? or @ must not stick out.
_DATABASE_URL_USER = re.compile(r"(postgres(?:ql)?(?:\+\w+)?://)[^\s\"'<>]*@", re.IGNORECASE)
_URL_USER = re.compile(r"([a-z][a-z0-9+.-]{0,30}://)[^\s/?#\"'<>]*@", re.IGNORECASE)
_AUTHORIZATION = re.compile(
    r"((?:proxy-)?authorization\\?[\"']?\s*[:=,]\s*(?:b?\\?[\"'])?)(?:(basic|bearer|digest|negotiate|token)\s+)?[^\s\"',;\\]+",
    re.IGNORECASE,
)
_BEARER = re.compile(r"\b(bearer)\s+(?=[^\s]*[0-9._~+/=-])[A-Za-z0-9._~+/=-]+", re.IGNORECASE)
_PASSWORD = re.compile(
    r"\b((?:ssl|db|pg)?_?(?:password|passwd|pwd)|access_token|api_?key|client_secret)(\s*=\s*)"
    r"('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^\s&,;'\")]+)",
    re.IGNORECASE,
)


class Redactor:
    """Replaces secrets with ``***``. Learns at run time, forgets nothing; safe to use from several threads."""

    __slots__ = ("_known", "_lock", "_remembered")

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """Know these ``secrets``, as ``remember`` does."""
        self._remembered: set[str] = set()
        self._known: tuple[str, ...] = ()
        self._lock = threading.Lock()
        for secret in secrets:
            self.remember(secret)

    def __repr__(self) -> str:
        return "Redactor(***)"

    def remember(self, secret: str) -> None:
        """Replace ``secret`` from now on: a token, a password, or a URL with a password in it.

        Never forgotten again: a Secret that was replaced may still be in an error that is yet to be logged.
        """
        if secret in self._remembered:  # the usual case: Secrets are read again and again
            return
        forms = {form for part in secrets_of(secret.strip()) for form in _forms_of(part) if len(form) >= _SHORTEST_SECRET}
        with self._lock:
            # Put in their places, not sorted anew: with hundreds of resources that took more than a second at the start.
            known = list(self._known)
            for form in forms.difference(known):
                insort(known, form, key=lambda form: -len(form))  # of a URL and its password, the URL goes as a whole
            self._known = tuple(known)
            self._remembered.add(secret)

    def text(self, text: str) -> str:
        """Return ``text`` without the secrets."""
        # A plain search for each: an alternation of thousands is much slower, and 500 resources may bring so many.
        for known in self._known:
            if known in text:
                text = text.replace(known, STARS)
        return without_known_places(text)

    def value(self, value: object, name: str = "") -> object:
        """Return ``value`` without the secrets, and so that ``json.dumps`` takes it. Never raises.

        Mappings, sequences and sets are gone through (keys too); None, booleans and what JSON has of numbers stay; an
        exception becomes its type and message, anything else text of at most ``LONGEST_TEXT`` characters.

        Args:
            value: anything.
            name: of the field that it is the value of: ``***`` stands for a text where that says it is a secret.
        """
        return self._value(value, name, _DEEPEST)

    def _value(self, value: object, name: object, levels: int) -> object:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            return value if abs(value) < 2**63 else hex(value)[:64]  # Python itself refuses the decimal text of huge ones
        if isinstance(value, float):
            return str(value) if value - value != 0 else value  # infinite, or not a number
        if isinstance(name, str) and isinstance(value, str | bytes) and value and name.lower() in _SECRET_FIELDS:
            return STARS
        if isinstance(value, str):  # nearly always
            return self._short(as_text(value))
        if isinstance(value, BaseException):
            message = as_text(value)
            return self._short(f"{type(value).__name__}: {message}" if message else type(value).__name__)
        if not isinstance(value, Mapping | list | tuple | set | frozenset):
            return self._short(as_text(value))
        if levels == 0:
            return "…"
        try:
            if isinstance(value, Mapping):
                return {self._short(as_text(key)): self._value(inner, key, levels - 1) for key, inner in value.items()}
            return [self._value(inner, "", levels - 1) for inner in value]
        except Exception:  # noqa: BLE001 - a mapping of another's making may raise anything
            return _unreadable(value)

    def _short(self, text: str) -> str:
        # Redacted before it is cut, or half a secret could stay at the end.
        text = self.text(text if text.isascii() else text.encode("utf-8", "backslashreplace").decode())
        return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}… ({len(text)} characters)"


redactor: Final = Redactor()
"""The one of this process: its logs pass it unless ``logs.configure`` is given another."""


def as_text(value: object) -> str:
    r"""``str(value)`` that never raises; bytes are read as UTF-8, with ``\xNN`` for what is none."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "backslashreplace")
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - any class may have any __str__
        return _unreadable(value)


def without_known_places(text: str) -> str:
    """``text`` without what stands where secrets stand."""
    # Most lines have none of these in them; a plain search is much cheaper than the patterns.
    if "://" in text:
        text = _DATABASE_URL_USER.sub(rf"\1{STARS}@", text)
        text = _URL_USER.sub(rf"\1{STARS}@", text)
    lower = text.lower()
    if "authorization" in lower:
        text = _AUTHORIZATION.sub(lambda match: f"{match[1]}{match[2] + ' ' if match[2] else ''}{STARS}", text)
    if "bearer" in lower:
        text = _BEARER.sub(rf"\1 {STARS}", text)
    if "=" in text:
        text = _PASSWORD.sub(rf"\1\2{STARS}", text)
    return text


def secrets_of(secret: str) -> Iterator[str]:
    """The secret itself and, where it is a URL, the passwords in it; also of a URL that was refused."""
    yield secret
    rest = secret.partition("://")[2]
    if "@" in rest:
        # Both readings of a URL that is ambiguous: up to the first @, as libpq does it, and up to the last one.
        for user_information in {rest.partition("@")[0], rest.rpartition("@")[0]}:
            password = user_information.partition(":")[2]
            if password:  # without one, "postgres:" would become stars wherever a message names that user
                yield user_information
                yield from _written(password)
    for parameter in re.split(r"[?&]", rest)[1:]:
        name, _, value = parameter.partition("=")
        if unquote(name).lower() in _SECRET_PARAMETERS:
            yield from _written(value)


def _written(password: str) -> Iterator[str]:
    yield password
    yield unquote(password)
    yield quote(unquote(password), safe="")


def _forms_of(secret: str) -> Iterator[str]:
    """The ways in which one secret may be written: plain, in a URL, in JSON, as Python shows it, in base64."""
    encodable = secret.encode("utf-8", "surrogateescape")
    yield secret
    yield repr(secret)[1:-1]
    for encoded in (quote(encodable, safe=""), quote(encodable), quote_plus(encodable)):
        yield encoded
        yield re.sub(r"%[0-9A-F]{2}", lambda match: match[0].lower(), encoded)
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    if len(secret) >= _SHORTEST_SECRET:
        for kept in (encodable, encodable + b"\n"):  # the second as `echo … | base64` makes it
            yield base64.b64encode(kept).decode()


def _unreadable(value: object) -> str:
    return f"<unreadable {type(value).__name__}>"
