"""Keeps secrets out of everything that is printed, stored or raised.

Two nets, one behind the other:

* **Known secrets** (database URLs and libpq's keyword strings, the passwords in them, tokens) are replaced wherever they
  stand, also percent-encoded (any part of it, more than once), escaped with backslashes, and in base64, alone or amid
  other text, wrapped or not. Only from four characters on (amid base64 from five bytes on): a password ``a`` would turn
  every log into stars.
* **Known places** hold secrets whatever these are: ``scheme://user:password@host`` (of PostgreSQL's URLs also what was cut
  before the ``@``), ``password=…``, ``Authorization: …``, ``Bearer …``, and fields of those names. Here short ones are
  replaced too.
"""

from __future__ import annotations

import base64
import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import AnyStr, Final, NamedTuple
from urllib.parse import quote, quote_plus, unquote
from weakref import WeakKeyDictionary

from siorg_runtime.needles import SHORTEST, Needles

STARS: Final = "***"
LONGEST_TEXT: Final = 16_384
"""Characters of one text of a value: a body that ends up in an error must not flood the log."""

_SHORTEST_SECRET: Final = SHORTEST
_DEEPEST = 16  # levels: what is deeper is cut, and a structure that contains itself comes to an end
# Of libpq's.
_SECRET_PARAMETERS = frozenset({"password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"})
_FORGOTTEN_AFTER_SECONDS = 86_400.0  # since nobody uses it any more; Jobs that began with it may run for hours
_MOST_RETIRED = 256  # secrets that nobody uses any more; each costs memory for a dozen texts
_SHORTEST_CORE = 6  # characters of base64: 36 bits, which do not occur by chance
_SECRET_FIELDS = frozenset(
    {
        "authorization", "proxy-authorization", "password", "passwd", "sslpassword", "pgpassword",
        "access_token", "api_key", "apikey", "client_secret", "database_url", "siorg_api_token",
    }
)  # fmt: skip

# PostgreSQL's own URLs first, and greedily: a password with an unencoded / or ? or @ must not stick out.
_DATABASE_URL_USER = re.compile(r"(postgres(?:ql)?(?:\+\w+)?://)[^\s\"'<>]*@", re.IGNORECASE)
# Cut before its @, as PostgreSQL cuts names at 63 bytes: what is behind the user and is no port.
_CUT_DATABASE_URL = re.compile(
    r"(postgres(?:ql)?(?:\+\w+)?://[^\s/:@?\"'<>]+:)(?![0-9]{1,5}(?:[^0-9A-Za-z%._~-]|$)|\*{3})[^\s\"'<>]+", re.IGNORECASE
)
_URL_USER = re.compile(r"([a-z][a-z0-9+.-]{0,30}://)[^\s/?#\"'<>]*@", re.IGNORECASE)
_AUTHORIZATION = re.compile(
    r"((?:proxy-)?authorization\\?[\"']?\s*[:=,]\s*(?:b?\\?[\"'])?)(?:(basic|bearer|digest|negotiate|token)\s+)?[^\s\"',;\\]+",
    re.IGNORECASE,
)
_BEARER = re.compile(r"\b(bearer)\s+(?=[^\s]*[0-9._~+/=-])[A-Za-z0-9._~+/=-]+", re.IGNORECASE)
_PASSWORD = re.compile(
    r"\b((?:ssl|db|pg)?_?(?:password|passwd|pwd)|access_token|api_?key|(?:oauth_)?client_secret|scram_(?:client|server)_key)"
    # In quotes, or to the next space, as libpq reads it.
    r"(\s*=\s*)('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|(?:\\.|[^\s&'\"])(?:\\.|[^\s&\"])*)",
    re.IGNORECASE,
)
_KEYWORD = re.compile(r"(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)(?:[^\s\\]|\\.)*)", re.DOTALL)
_BASE64_RUN = re.compile(rb"[A-Za-z0-9+/_-]{6,}=*")


class _Writing(NamedTuple):
    """A way to write text, and how it is undone."""

    mark: bytes
    """Where this is not, nothing is written so."""
    pattern: re.Pattern[bytes]
    plain: Callable[[re.Match[bytes]], bytes]


def _unescaped(match: re.Match[bytes]) -> bytes:
    code, byte, letter = match.groups()
    if code:
        return chr(int(code, 16)).encode("utf-8", "surrogatepass")
    return bytes.fromhex(byte.decode()) if byte else {b"n": b"\n", b"r": b"\r", b"t": b"\t"}.get(letter, letter)


_PERCENT = _Writing(b"%", re.compile(rb"%([0-9A-Fa-f]{2})"), lambda match: bytes.fromhex(match[1].decode()))
_BACKSLASH = _Writing(b"\\", re.compile(rb"\\(?:u([0-9A-Fa-f]{4})|x([0-9A-Fa-f]{2})|([^ux]))", re.DOTALL), _unescaped)
_WRAPPED = _Writing(b"\n", re.compile(rb"(?<=[A-Za-z0-9+/_-])\r?\n[ \t]*(?=[A-Za-z0-9+/_=-])"), lambda _: b"")
_CHAINS = ((_PERCENT, _PERCENT, _BACKSLASH, _WRAPPED), (_BACKSLASH, _PERCENT, _WRAPPED))


class _Known(NamedTuple):
    """What is looked for because of one secret."""

    forms: frozenset[str]
    """Ways to write it, or what is secret in it."""
    plain: frozenset[bytes]
    cores: frozenset[bytes]
    """What is in base64 of any text with it in it."""


class Redactor:
    """Replaces secrets with ``***``. Learns at run time; safe to use from several threads."""

    __slots__ = ("_clock", "_cores", "_for_good", "_forms", "_known", "_lock", "_plain", "_retired", "_users")

    def __init__(self, secrets: Iterable[str] = (), clock: Callable[[], float] = time.monotonic) -> None:
        """Know these ``secrets``, as ``remember`` does. ``clock``: monotonic seconds."""
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._for_good: set[str] = set()
        self._users: WeakKeyDictionary[object, frozenset[str]] = WeakKeyDictionary()
        self._retired: dict[str, float] = {}
        """Since when nobody has used those that are not forgotten yet; the oldest first."""
        self._forms: Needles[str] = Needles()
        self._plain: Needles[bytes] = Needles()
        self._cores: Needles[bytes] = Needles()
        self._lock = threading.Lock()
        for secret in secrets:
            self.remember(secret)

    def __repr__(self) -> str:
        return "Redactor(***)"

    def remember(self, secret: str) -> None:
        """Replace ``secret`` from now on, for good: a token, a password, or a URL with a password in it."""
        with self._lock:
            self._for_good.add(secret)
            self._learn(secret)

    def uses(self, user: object, secrets: Iterable[str]) -> None:
        """Replace these ``secrets`` from now on, of which ``user`` has no others any more.

        What nobody uses, also because its user is gone, may still be in an error that is yet to be logged, or in the last words
        of a Job that began with it: it is forgotten a day later, and earlier only if very many have come after it.
        """
        used = frozenset(secrets)
        with self._lock:
            oldest = next(iter(self._retired.values()), math.inf)
            if self._users.get(user) == used and self._clock() - oldest < _FORGOTTEN_AFTER_SECONDS:
                return  # the usual case: Secrets are read again and again
            for secret in used:
                self._learn(secret)
            self._users[user] = used
            self._forget()

    def _learn(self, secret: str) -> None:
        if secret in self._known:
            return
        parts = set(secrets_of(secret.strip()))
        plain = {part.encode("utf-8", "surrogatepass") for part in parts if len(part) >= _SHORTEST_SECRET}
        known = self._known[secret] = _Known(
            forms=frozenset(form for part in parts for form in _forms_of(part) if len(form) >= _SHORTEST_SECRET),
            plain=frozenset(plain),
            cores=frozenset(core for part in plain for core in _cores_of(part)),
        )
        self._forms.add(*known.forms)
        self._plain.add(*known.plain)
        self._cores.add(*known.cores)

    def _forget(self) -> None:
        """Forget what has not been used for long enough."""
        now, used = self._clock(), self._for_good.union(*self._users.values())
        self._retired = {secret: since for secret, since in self._retired.items() if secret not in used}
        self._retired |= dict.fromkeys(self._known.keys() - used - self._retired.keys(), now)
        surplus = len(self._retired) - _MOST_RETIRED
        for number, (secret, since) in enumerate([*self._retired.items()]):
            if number < surplus or now - since >= _FORGOTTEN_AFTER_SECONDS:
                del self._retired[secret]
                known = self._known.pop(secret)
                self._forms.discard(*known.forms)
                self._plain.discard(*known.plain)
                self._cores.discard(*known.cores)

    def text(self, text: str) -> str:
        """Return ``text`` without the secrets."""
        text = _starred(text, self._forms.spans(text), STARS)
        return without_known_places(self._without_other_writings(text))

    def value(self, value: object, name: str = "") -> object:
        """Return ``value`` without the secrets, and so that ``json.dumps`` takes it. Never raises.

        Mappings, sequences and sets are gone through (keys too); None, booleans and what JSON has of numbers stay; an
        exception becomes its type and message, anything else text of at most ``LONGEST_TEXT`` characters.

        Args:
            value: anything.
            name: of the field that it is the value of: ``***`` stands for a text where that says it is a secret.
        """
        return self._value(value, name, _DEEPEST)

    def _without_other_writings(self, text: str) -> str:
        """``text`` without the known secrets that only show once it is decoded, or amid base64."""
        data = text.encode("utf-8", "surrogatepass")
        spans = self._spans(data, [])
        for chain in _CHAINS:
            ways, view = list[_Writing](), data
            for way in chain:
                if way.mark in view:
                    ways.append(way)
                    view = way.pattern.sub(way.plain, view)
                    spans |= self._spans(data, ways) if self._is_in(view) else set()
        return _starred(data, spans, STARS.encode()).decode("utf-8", "surrogatepass") if spans else text

    def _is_in(self, data: bytes) -> bool:
        return self._plain.occur_in(data) or self._cores.occur_in(data)

    def _spans(self, data: bytes, ways: Iterable[_Writing]) -> set[tuple[int, int]]:
        """Where in ``data`` a known secret begins and ends, after these ways of writing were undone one after the other."""
        if not ways and not self._is_in(data):
            return set()
        places = [(at, at + 1) for at in range(len(data))]
        for way in ways:
            data, places = _undone(way, data, places)
        found = [*self._plain.spans(data)]
        # Of base64 the run as a whole: its first and last characters hold bits of the secret, too.
        found += [run.span() for run in _BASE64_RUN.finditer(data) if self._cores.occur_in(run[0])]
        return {(places[start][0], places[end - 1][1]) for start, end in found}

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


def _starred(text: AnyStr, spans: Iterable[tuple[int, int]], stars: AnyStr) -> AnyStr:
    """``text`` with stars in place of what is in these spans; one of several that overlap."""
    shown, done = text[:0], 0
    for start, end in sorted(spans):
        if start >= done:
            shown += text[done:start] + stars
        done = max(done, end)
    return shown + text[done:]


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
        text = _CUT_DATABASE_URL.sub(rf"\1{STARS}", text)
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
    """The secret itself and, of a URL or libpq's keyword string, the passwords in it; also of one that was refused."""
    yield secret
    for keyword in _KEYWORD.finditer(secret):
        if keyword[1].lower() in _SECRET_PARAMETERS:
            yield keyword[2]
            yield from _written(re.sub(r"\\(.)", r"\1", keyword[2][1:-1] if keyword[2].startswith("'") else keyword[2]))
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
        yield encodable.hex()


def _cores_of(secret: bytes) -> Iterator[bytes]:
    """What is in base64 of any text with this secret in it: at each of the three places where it may begin, in both alphabets."""
    for shift in range(3):
        encoded = base64.b64encode(bytes(shift) + secret)
        core = encoded[(8 * shift + 5) // 6 : 8 * (shift + len(secret)) // 6]
        if len(core) >= _SHORTEST_CORE:
            yield core
            yield core.translate(bytes.maketrans(b"+/", b"-_"))


def _undone(way: _Writing, data: bytes, places: list[tuple[int, int]]) -> tuple[bytes, list[tuple[int, int]]]:
    """``data`` with a way of writing undone, and of each byte of it where that stands. ``places``: of the bytes of ``data``."""
    plain, at, done = bytearray(), [], 0
    for match in way.pattern.finditer(data):
        start, end = match.span()
        written = way.plain(match)
        plain += data[done:start] + written
        at += [*places[done:start], *[(places[start][0], places[end - 1][1])] * len(written)]
        done = end
    return bytes(plain + data[done:]), at + places[done:]


def _unreadable(value: object) -> str:
    return f"<unreadable {type(value).__name__}>"
