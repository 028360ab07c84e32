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
    _ask_libpq(url)


def _ask_libpq(url: str) -> None:
    """Let libpq read values of parameters, the environment's (PGSSLMODE …) and service files too, and connect to nothing.

    Raises:
        ValueError: it would refuse them before it looks for the server, which no waiting mends.
    """
    from psycopg import Error, conninfo, pq  # noqa: PLC0415 - whoever has a database URL is about to need it anyway

    try:
        given = conninfo.conninfo_to_dict(url)
        asked = conninfo.make_conninfo(url, host="/dev/null", hostaddr="", port="")  # no folder, so no socket in it
    except Error:
        raise ValueError("is nothing that PostgreSQL's client library can read") from None
    connection = pq.PGconn.connect_start(asked.encode())
    said = connection.error_message.decode(errors="replace")
    connection.finish()
    if said.startswith(("definition of service", "service file", "syntax error in service file")):
        raise ValueError("names a service (or PGSERVICE does) that no service file defines")
    if said.startswith("weak sslmode"):
        raise ValueError("asks for sslrootcert=system or a direct TLS negotiation with an sslmode that is too weak for it")
    wrong = re.match(r'invalid "?(\w+)"? value|invalid integer value .* for connection option "(\w+)"', said)
    names = [wrong[1] or wrong[2]] if wrong else []
    names += [name for name in _WHOLE_NUMBERS if not re.fullmatch(r"[+-]?[0-9]{1,9}", str(given.get(name, 0)))]
    if names:
        allowed = f"; it may be {_ALLOWED[names[0]]}" if names[0] in _ALLOWED else ""
        raise ValueError(f"has a value of {names[0]} (or the environment has) that PostgreSQL's client library refuses{allowed}")


# What libpq reads only while it connects, and https://www.postgresql.org/docs/18/libpq-connect.html has as numbers.
_WHOLE_NUMBERS = (
    *("connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"),
)
_ALLOWED = {
    "sslmode": "disable, allow, prefer, require, verify-ca, verify-full",
    "target_session_attrs": "any, read-write, read-only, primary, standby, prefer-standby",
    **dict.fromkeys(("gssencmode", "channel_binding"), "disable, prefer, require"),
    **dict.fromkeys(_WHOLE_NUMBERS, "a whole number"),
}


@cache
def _parameter_names() -> frozenset[str]:
    from psycopg import pq  # noqa: PLC0415 - whoever has a database URL is about to need it anyway

    return frozenset({"ssl"} | {option.keyword.decode() for option in pq.Conninfo.get_defaults()})
