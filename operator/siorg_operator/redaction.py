"""Keeps secrets out of what the operator logs.

Two nets, one behind the other: **known secrets** (``remember``: database URLs, passwords, tokens) are replaced wherever
they stand, also percent-encoded, JSON-escaped and in base64, as Kubernetes keeps them; from four characters on, for a
password ``a`` would turn every log into stars. **Known places** hold secrets whatever these are:
``scheme://user:password@host``, ``password=…``, ``Authorization: …``, ``Bearer …``.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from bisect import insort
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote, quote_plus, unquote

STARS: Final = "***"
SHORTEST_SECRET: Final = 4
"""Characters. A shorter secret is replaced only in the known places."""

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
_SECRET_PARAMETER = re.compile(r"[?&](?:ssl)?password=([^&#]*)", re.IGNORECASE)


class Redactor:
    """Replaces secrets with ``***``. Learns at run time; safe to use from several threads."""

    __slots__ = ("_known", "_lock", "_remembered")

    def __init__(self) -> None:
        """Know no secret yet."""
        self._remembered: set[str] = set()
        self._known: tuple[str, ...] = ()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        """Say what this is and nothing of what it knows."""
        return "Redactor(***)"

    def remember(self, secret: str) -> None:
        """Replace ``secret`` from now on: a token, a password, or a URL with a password in it. Never forgotten again.

        A Secret that was replaced may still be in an error that is yet to be logged.
        """
        if secret in self._remembered:  # the usual case: Secrets are read again and again
            return
        forms = {form for one in _parts(secret) for form in _forms(one) if len(form) >= SHORTEST_SECRET}
        with self._lock:
            # Put in their places, not sorted anew: with hundreds of resources that took more than a second at the start.
            known = list(self._known)
            for form in forms.difference(known):
                insort(known, form, key=_longest_first)
            self._known = tuple(known)
            self._remembered.add(secret)

    def text(self, text: str) -> str:
        """Return ``text`` without the secrets."""
        # A plain search for each: an alternation of thousands is much slower, and 500 resources may bring so many.
        for known in self._known:
            if known in text:
                text = text.replace(known, STARS)
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


def _longest_first(form: str) -> int:
    """Of a URL and the password in it, the URL goes as a whole."""
    return -len(form)


def _parts(secret: str) -> Iterator[str]:
    """The secret itself, and the passwords in it where it is a URL."""
    secret = secret.strip()
    yield secret
    _, scheme, rest = secret.partition("://")
    if not scheme:
        return
    # Both readings of a URL that is ambiguous: up to the first @, as libpq does it, and up to the last one.
    for user_information in {rest.partition("@")[0], rest.rpartition("@")[0]}:
        _, colon, password = user_information.partition(":")
        if colon and "@" in rest:
            yield user_information
            yield from (password, unquote(password))
    for password in _SECRET_PARAMETER.findall(rest):
        yield from (password, unquote(password))


def _forms(secret: str) -> Iterator[str]:
    """The ways in which one secret may be written."""
    yield secret
    encodable = secret.encode("utf-8", "surrogateescape")
    for encoded in (quote(encodable, safe=""), quote(encodable), quote_plus(encodable)):
        yield encoded
        yield re.sub(r"%[0-9A-F]{2}", lambda match: match[0].lower(), encoded)
    for ascii_only in (True, False):
        yield json.dumps(secret, ensure_ascii=ascii_only)[1:-1]
    yield repr(secret)[1:-1]
    yield base64.b64encode(encodable).decode()
    yield base64.b64encode(encodable + b"\n").decode()  # as `echo … | base64` makes it
