"""Connections and transactions with a limit on every wait.

Nothing here needs session state, so PgBouncer in transaction mode works: limits are set inside each transaction, and no
statement is prepared on the server.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, LiteralString, TypeAlias

import psycopg
from psycopg.rows import dict_row

from siorg_queue.loaders import register

Connection: TypeAlias = psycopg.Connection[dict[str, Any]]

# Classes and codes of SQLSTATE that say "not now" rather than "not this": connection, resources, operator intervention,
# deadlock, serialization, lock and statement timeouts, a standby or a server that is starting up.
_TRANSIENT_CLASSES = ("08", "53", "57", "58")
_TRANSIENT_CODES = ("40001", "40P01", "55P03", "25006", "25P03")

_BLOCKED_CODES = ("55P03", "57014")


class DatabaseUnavailable(Exception):
    """The database cannot be used right now: try again later. The message names no secret."""


def connect(url: str, *, application_name: str) -> Connection:
    """Open an autocommit connection whose rows are dictionaries; how their values are read, ``loaders`` says.

    Raises:
        DatabaseUnavailable: no connection in time, or the server refused it.
    """
    try:
        connection = psycopg.connect(
            url,
            autocommit=True,
            prepare_threshold=None,
            row_factory=dict_row,
            connect_timeout=10,
            application_name=application_name,
            keepalives_idle=20,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=30_000,
        )
    except psycopg.Error as error:
        raise DatabaseUnavailable(describe(error)) from None
    register(connection)
    return connection


class DatabaseBlocked(DatabaseUnavailable):
    """Others hold a lock that was waited for in vain, or a statement was cancelled. The connection is well."""


@contextmanager
def transaction(connection: Connection, *, lock_seconds: float = 10.0) -> Iterator[Connection]:
    """One transaction in which a statement, a lock and our own silence have limits.

    The idle limit is what frees the rows of a process that was stopped in the middle: the server ends its transaction.
    """
    # One message for all of it: a round trip is what a transaction costs most.
    connection.execute(
        f"BEGIN; SET LOCAL statement_timeout = '30s'; SET LOCAL lock_timeout = {round(lock_seconds * 1000)};"
        " SET LOCAL idle_in_transaction_session_timeout = '10s'".encode()
    )
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if not connection.closed and connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            try:
                connection.execute("ROLLBACK")
            except psycopg.Error:
                connection.close()
        raise


def query(connection: Connection, sql: LiteralString, /, **parameters: Any) -> list[dict[str, Any]]:
    """Run one statement in a transaction of its own, and give its rows; none where it has no result."""
    with transaction(connection):
        cursor = connection.execute(sql, parameters)
        return cursor.fetchall() if cursor.description else []


def clock(connection: Connection) -> datetime:
    """The database's time now, also within a transaction. One round trip: there is nothing in it that could wait."""
    row = connection.execute("SELECT clock_timestamp() AS now").fetchone()
    assert row is not None
    now: datetime = row["now"]
    return now


def is_transient(error: psycopg.Error) -> bool:
    """Whether the same statement may succeed later: no connection, no room, a deadlock, a lock or a time limit."""
    code = error.sqlstate
    if code is None:  # libpq's own errors: the connection broke
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return code[:2] in _TRANSIENT_CLASSES or code in _TRANSIENT_CODES


def is_blocked(error: psycopg.Error) -> bool:
    """Whether others are in the way: a lock was waited for in vain, or the statement was cancelled, also by its limit of time."""
    return error.sqlstate in _BLOCKED_CODES


def describe(error: psycopg.Error) -> str:
    """One line of what went wrong: the server's primary message, or libpq's first line. Neither carries a password."""
    message = error.diag.message_primary or str(error) or type(error).__name__
    return " ".join(message.split())
