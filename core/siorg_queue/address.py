"""The address of a database: checked before libpq sees it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Self
from urllib.parse import unquote

_SCHEMES = ("postgresql://", "postgres://")
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[^\[\]:@]*)(?::(?P<port>[0-9]*))?")


def check_database_url(url: str) -> None:
    """Refuse what libpq would not take, or would take apart in another way than it was meant.

    libpq ends the user information at the first ``@`` before a ``/``. Of a password with such a character it would put
    the rest into the host name, and so into its error messages: hence the care.

    Raises:
        ValueError: with what is wrong, and nothing of the URL.
    """
    if not url.startswith(_SCHEMES):
        raise ValueError("does not begin with postgresql:// or postgres://")
    if any(character.isspace() or not character.isprintable() for character in url):
        raise ValueError("has a space or a control character in it (%20 in a URL)")
    if re.search(r"%(?![0-9A-Fa-f]{2})|%00", url):
        raise ValueError("has a % that begins no %XX (a % itself is written %25)")
    try:
        unquote(url, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("has %XX that do not make UTF-8") from None
    parts = _DatabaseUrl.of(url)
    if "@" in url.removeprefix(f"{url.partition('://')[0]}://{parts.user_information}@"):
        raise ValueError("has an @ too many (in a password, @ is written %40 and / is written %2F)")
    for host in parts.hosts.split(","):
        match = _HOST.fullmatch(host)
        if match is None or not (not match["port"] or 1 <= int(match["port"][:9]) <= 65_535):
            raise ValueError("has a wrong host or port (in a password, / is written %2F and : is written %3A)")
    for parameter in parts.parameters:
        if not parameter[0] or "=" not in "".join(parameter[1:2]):
            raise ValueError("has a parameter after ? that is not name=value")
        if unquote(parameter[0]) not in _parameter_names():
            raise ValueError("has a parameter after ? that PostgreSQL's client library does not know")


@cache
def _parameter_names() -> frozenset[str]:
    from psycopg import pq  # noqa: PLC0415 - whoever has a database URL is about to need it anyway

    return frozenset({"ssl"} | {option.keyword.decode() for option in pq.Conninfo.get_defaults()})


@dataclass(frozen=True, slots=True)
class _DatabaseUrl:
    """A connection URL, taken apart as libpq does it: https://www.postgresql.org/docs/18/libpq-connect.html."""

    user_information: str
    hosts: str
    parameters: tuple[tuple[str, str], ...]  # the value with its =, and empty where there is none

    @classmethod
    def of(cls, url: str) -> Self:
        rest = url.partition("://")[2]
        before_path = rest.partition("/")[0]
        user_information, at, after = before_path.partition("@")
        if not at:
            user_information, after = "", before_path
        hosts = after.partition("?")[0]
        query = (after + rest[len(before_path) :]).partition("?")[2]
        pairs = (pair.partition("=") for pair in query.split("&")) if query else ()
        return cls(user_information, hosts, tuple((name, sign + value) for name, sign, value in pairs))
