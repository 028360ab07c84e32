"""Where secrets stand in a text, and the ways in which one may be written: for the logs of job and operator."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote, quote_plus

STARS: Final = "***"
SHORTEST_SECRET: Final = 4
"""Characters. A shorter secret is replaced only in the known places: a password ``a`` would turn every log into stars."""

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


def without_known_places(text: str) -> str:
    """``text`` without what stands where secrets stand.

    ``scheme://user:password@host``, ``password=…``, ``Authorization: …``, ``Bearer …``: whatever the secret is.
    """
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


def forms_of(secret: str) -> Iterator[str]:
    """The ways in which one secret may be written, that are long enough: plain, in a URL, in JSON, as Python shows it."""
    encodable = secret.encode("utf-8", "surrogateescape")
    written = [secret, repr(secret)[1:-1]]
    for encoded in (quote(encodable, safe=""), quote(encodable), quote_plus(encodable)):
        written += [encoded, re.sub(r"%[0-9A-F]{2}", lambda match: match[0].lower(), encoded)]
    written += [json.dumps(secret, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)]
    yield from (form for form in written if len(form) >= SHORTEST_SECRET)
