"""What our statements rely on of a session, whatever a role's or a database's own settings are.

What may be set is set within each transaction, in the message that begins it: so it costs no round trip, and holds behind
PgBouncer too. What may not be set is looked at when a connection is opened. Read-only is obeyed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import psycopg

Connection = psycopg.Connection[dict[str, Any]]

ENCODING: Final = "utf8"
"""The client's encoding: set when a connection is opened, which PgBouncer passes on."""


@dataclass(frozen=True, slots=True)
class Relied:
    """A setting that we rely on."""

    value: str
    """As ``pg_settings`` shows it."""
    otherwise: str
    """What would happen with another value."""
    since: int = 0
    """The first version of the server that knows it, as ``server_version`` counts."""


SET: Final[Mapping[str, Relied]] = {
    "DateStyle": Relied("ISO, MDY", "times could not be read"),
    "TimeZone": Relied("UTC", "times would be told in that zone"),
    "standard_conforming_strings": Relied("on", "patterns in our statements would mean something else"),
    "extra_float_digits": Relied("1", "seconds would be rounded"),
    "array_nulls": Relied("on", "what is unknown would be the word NULL"),
    "gin_fuzzy_search_limit": Relied("0", "rows that an index finds would be left out at random"),
    "row_security": Relied("on", "tables with row-level security could not be read"),
    "transaction_timeout": Relied("0", "a transaction could be ended in the middle", since=170_000),
}
"""What each transaction of ours sets."""

FOR_INDEXES: Final[Mapping[str, Relied]] = {
    "standard_conforming_strings": SET["standard_conforming_strings"],
    "statement_timeout": Relied("0", "an index that takes longer could not be built"),
    "lock_timeout": Relied("0", "an index could not be built beside a longer transaction"),
    "transaction_timeout": Relied("0", "an index that takes longer could not be built", since=170_000),
}
"""What an index is built with; CREATE INDEX CONCURRENTLY takes no SET LOCAL."""


BY_INDEX: Final = b"SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off"
"""Within a transaction, for statements that want the beginning of an index and no more: whatever the statistics say of the table,
it is not read as a whole."""


class UnsuitableDatabase(Exception):
    """A setting of the server, the database or the role is one that we may not change and cannot work with.

    The message begins with the setting's name, and says what to do.
    """


@cache
def beginning_to_read(server_version: int) -> str:
    """What begins a transaction that only reads, and sets what ``setting`` does: several statements, for who sends text alone."""
    local = [f"SET LOCAL {name} = '{value}'" for name, value in _settings(server_version, 10.0, 10.0).items()]
    return "; ".join(["BEGIN READ ONLY, ISOLATION LEVEL READ COMMITTED", *local])


_FOR_KEPT_PLANS: Final[Mapping[str, str]] = {"enable_seqscan": "off"}
"""What a statement is planned with whose plan is kept: one that was made for an empty table reads all of what is there later."""


@cache
def setting(server_version: int, *, lock_seconds: float, idle_seconds: float, by_index: bool = False) -> bytes:
    """The statement that sets, as its transaction's first, what we rely on, and limits a statement, a lock and our own silence.

    Only a server's own default says whether it may write. ``by_index``: for plans that are kept, too.
    """
    settings = {**_settings(server_version, lock_seconds, idle_seconds), **(_FOR_KEPT_PLANS if by_index else {})}
    calls = [f"pg_catalog.set_config('{name}', '{value}', true)" for name, value in settings.items()]
    return f"SELECT {', '.join(calls)}".encode()


def _settings(server_version: int, lock_seconds: float, idle_seconds: float) -> dict[str, str]:
    return {name: setting.value for name, setting in SET.items() if setting.since <= server_version} | {
        "statement_timeout": "30s",
        "lock_timeout": f"{round(lock_seconds * 1000)}",
        "idle_in_transaction_session_timeout": f"{round(idle_seconds * 1000)}",
        "jit": "off",  # a plan that looks dear with old statistics would be compiled for longer than it runs
    }


def check(connection: Connection) -> None:
    """Look at what has to be right and cannot be set.

    Raises:
        UnsuitableDatabase: it is not.
        psycopg.Error: the connection broke.
    """
    encoding = connection.info.parameter_status("server_encoding")
    if encoding is not None and encoding != "UTF8":
        raise UnsuitableDatabase(
            f"server_encoding is {encoding}: SIORG's texts need a database in UTF8 (CREATE DATABASE … ENCODING 'UTF8'"
            " TEMPLATE template0, then dump and restore)"
        )
    row = connection.execute("SELECT current_setting('session_replication_role') AS value").fetchone()
    if row is not None and row["value"] == "replica":
        raise UnsuitableDatabase(
            "session_replication_role is replica: triggers and foreign keys would not be heeded, paths of units and times of"
            " changes would be wrong. End it for this role and database: ALTER ROLE … RESET session_replication_role"
        )


@contextmanager
def for_indexes(connection: Connection, *, lock_seconds: float) -> Iterator[None]:
    """Within this, nothing limits how long an index takes but ``lock_seconds`` for each wait for others.

    Raises:
        UnsuitableDatabase: a setting does, and a pooler stands between, behind which nothing can be set for longer than a
            transaction.
    """
    row = connection.execute("SELECT pg_backend_pid() AS pid").fetchone()
    assert row is not None
    differing = differing_settings(connection, FOR_INDEXES)
    if row["pid"] != connection.info.backend_pid:
        for name, value in differing.items():
            raise UnsuitableDatabase(
                f"{name} is {value}: {FOR_INDEXES[name].otherwise}, and behind a connection pooler it cannot be changed for"
                f" that. Give siorg-job migrate a DATABASE_URL that leads to the server itself, or: ALTER ROLE … RESET {name}"
            )
        yield
        return
    wanted = {name: FOR_INDEXES[name].value for name in differing} | {"lock_timeout": f"{round(lock_seconds * 1000)}"}
    for name, value in wanted.items():
        connection.execute(f"SET {name} = '{value}'".encode())
    try:
        yield
    finally:
        if not connection.closed:
            for name in wanted:
                connection.execute(f"RESET {name}".encode())


def differing_settings(connection: Connection, relied: Mapping[str, Relied]) -> dict[str, str]:
    """Of these settings, those that a new session of this role has otherwise, with their values."""
    rows = connection.execute(
        "SELECT s.name, s.setting, s.unit FROM pg_settings AS s WHERE s.name = ANY (%(names)s::text[])", {"names": list(relied)}
    ).fetchall()
    return {
        row["name"]: row["setting"] + (f" {row['unit']}" if row["unit"] else "")
        for row in rows
        if row["setting"] != relied[row["name"]].value
    }
