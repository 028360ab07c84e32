"""Connections and transactions with a limit on every wait.

Nothing here needs session state, so PgBouncer in transaction mode works: limits are set inside each transaction, and no
statement is prepared on the server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any, LiteralString, TypeAlias, TypeVar

import psycopg
from psycopg.rows import dict_row

from siorg_queue import session
from siorg_queue.loaders import register

Connection: TypeAlias = psycopg.Connection[dict[str, Any]]
_T = TypeVar("_T")

_THINKING_SECONDS = 600.0  # of silence in a transaction that only reads

# Classes and codes of SQLSTATE that say "not now" rather than "not this": connection, resources, operator intervention,
# deadlock, serialization, lock and statement timeouts, a standby or a server that is starting up.
_TRANSIENT_CLASSES = ("08", "53", "57", "58")
_TRANSIENT_CODES = ("40001", "40P01", "55P03", "25006", "25P03", "25P04")

_BLOCKED_CODES = ("55P03", "57014")


class DatabaseUnavailable(Exception):
    """The database cannot be used right now: try again later. The message names no secret."""


class _Lasting(psycopg.Connection[dict[str, Any]]):
    """A connection that is opened again where it was ended at rest: by the server's or a pooler's limit, or a restart."""

    open_another: Callable[[], Connection]

    def open_again(self) -> None:
        fresh = self.open_another()
        self.pgconn, fresh.pgconn = fresh.pgconn, self.pgconn
        fresh.close()


def connect(url: str, *, application_name: str) -> Connection:
    """Open an autocommit connection whose rows are dictionaries; how their values are read, ``loaders`` says.

    Raises:
        DatabaseUnavailable: no connection in time, or the server refused it.
        UnsuitableDatabase: a setting is one that we cannot work with.
    """
    try:
        connection = _Lasting.connect(
            url,
            autocommit=True,
            prepare_threshold=None,
            row_factory=dict_row,
            connect_timeout=10,
            application_name=application_name,
            client_encoding=session.ENCODING,
            keepalives_idle=20,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=30_000,
        )
    except psycopg.Error as error:
        raise DatabaseUnavailable(describe(error)) from None
    connection.open_another = partial(connect, url, application_name=application_name)
    try:
        register(connection)
        session.check(connection)
    except psycopg.Error as error:
        connection.close()
        raise DatabaseUnavailable(describe(error)) from None
    except BaseException:
        connection.close()
        raise
    return connection


class DatabaseBlocked(DatabaseUnavailable):
    """Others hold a lock that was waited for in vain, or a statement was cancelled. The connection is well."""


@contextmanager
def transaction(connection: Connection, *, lock_seconds: float = 10.0, idle_seconds: float = 10.0) -> Iterator[Connection]:
    """One transaction in which a statement, a lock and our own silence have limits, and what we rely on is set.

    The idle limit is what frees the rows of a process that was stopped in the middle: the server ends its transaction.
    A connection that was ended while it was at rest is opened again.
    """
    # One message for all of it: a round trip is what a transaction costs most.
    limits = {"lock_seconds": lock_seconds, "idle_seconds": idle_seconds}
    _first(connection, lambda: connection.execute(session.beginning(connection.info.server_version, **limits)))
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


def reading(connection: Connection) -> AbstractContextManager[Connection]:
    """A transaction that locks no row, so that nobody waits for it: a large organization is thought over long."""
    return transaction(connection, idle_seconds=_THINKING_SECONDS)


def _first(connection: Connection, work: Callable[[], _T]) -> _T:
    """Do ``work``, with which something new begins on the connection: where that was ended, it may be done on another one."""
    try:
        return work()
    except psycopg.OperationalError as error:
        was_ended = connection.closed if error.sqlstate is None else error.sqlstate.startswith(("08", "57P"))
        if not isinstance(connection, _Lasting) or not was_ended:
            raise
    connection.open_again()
    return work()


def query(connection: Connection, sql: LiteralString, /, **parameters: Any) -> list[dict[str, Any]]:
    """Run one statement in a transaction of its own, and give its rows; none where it has no result."""
    with transaction(connection):
        cursor = connection.execute(sql, parameters)
        return cursor.fetchall() if cursor.description else []


def clock(connection: Connection) -> datetime:
    """The database's time now, also within a transaction. One round trip: there is nothing in it that could wait."""

    def read() -> datetime:
        # In binary: outside of a transaction the session has its own way to write times.
        row = connection.execute("SELECT clock_timestamp() AS now", binary=True).fetchone()
        assert row is not None
        now: datetime = row["now"]
        return now.astimezone(UTC)

    is_at_rest = connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    return _first(connection, read) if is_at_rest else read()


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
