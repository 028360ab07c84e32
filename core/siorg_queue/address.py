"""The address of a database: checked before libpq sees it."""

from __future__ import annotations

import re
from functools import cache
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
    # Taken apart as libpq does it: https://www.postgresql.org/docs/18/libpq-connect.html
    rest = url.partition("://")[2]
    behind_user = rest.partition("@")[2] if "@" in rest.partition("/")[0] else rest
    if "@" in behind_user:
        raise ValueError("has an @ too many (in a password, @ is written %40 and / is written %2F)")
    for host in re.split("[/?]", behind_user)[0].split(","):
        match = _HOST.fullmatch(host)
        if match is None or not (not match["port"] or 1 <= int(match["port"][:9]) <= 65_535):
            raise ValueError("has a wrong host or port (in a password, / is written %2F and : is written %3A)")
    query = behind_user.partition("?")[2]
    for name, sign, _ in (pair.partition("=") for pair in query.split("&") if query):
        if not name or not sign:
            raise ValueError("has a parameter after ? that is not name=value")
        if unquote(name) not in _parameter_names():
            raise ValueError("has a parameter after ? that PostgreSQL's client library does not know")


@cache
def _parameter_names() -> frozenset[str]:
    from psycopg import pq  # noqa: PLC0415 - whoever has a database URL is about to need it anyway

    return frozenset({"ssl"} | {option.keyword.decode() for option in pq.Conninfo.get_defaults()})
