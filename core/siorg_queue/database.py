"""Connections and transactions with a limit on every wait.

Nothing here needs session state, so PgBouncer in transaction mode works: limits are set inside each transaction. The statements
of the hot path are planned once where the way to the server bears it: see ``keeps_plans``.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, LiteralString, TypeAlias, TypeVar
from uuid import uuid4

import psycopg
from psycopg.abc import Params, PQGen, Query
from psycopg.generators import send
from psycopg.rows import dict_row

from siorg_queue import session
from siorg_queue.loaders import register

_T = TypeVar("_T")
Cursor: TypeAlias = psycopg.Cursor[dict[str, Any]]

_NEVER_BY_ITSELF = 1_000_000  # executions after which psycopg would prepare what nobody asked to
_THINKING_SECONDS = 600.0  # of silence in a transaction that only reads

# Classes and codes of SQLSTATE that say "not now" rather than "not this": connection, resources, operator intervention,
# deadlock, serialization, lock and statement timeouts, a standby or a server that is starting up.
_TRANSIENT_CLASSES = ("08", "53", "57", "58")
_TRANSIENT_CODES = ("40001", "40P01", "55P03", "25006", "25P03", "25P04")
# A plan that was kept, and is no more: on another connection it is looked anew whether any may be.
_PLAN_LOST_CODES = ("26000", "42P05")
_PLAN_LOST_FUNCTION = "RevalidateCachedQuery"  # the server's, where a migration has changed what a statement returns

_BLOCKED_CODES = ("55P03", "57014")


class DatabaseUnavailable(Exception):
    """The database cannot be used right now: try again later. The message names no secret."""


@dataclass(frozen=True, slots=True)
class _Beginning:
    """A transaction that nothing has been done in yet."""

    isolation: str
    lock_seconds: float
    idle_seconds: float
    by_index: bool

    def send(self, connection: Connection) -> None:
        connection.execute(f"BEGIN ISOLATION LEVEL {self.isolation}".encode())
        setting = session.setting(
            connection.info.server_version,
            lock_seconds=self.lock_seconds,
            idle_seconds=self.idle_seconds,
            by_index=self.by_index,
        )
        connection.execute(setting, prepare=True)


class _Pipeline(psycopg.Pipeline):
    """Whose end is one message and no more.

    psycopg's asks with another one (Flush) for what was not answered at once. It may come when all was answered: then a PgBouncer
    in transaction mode gives us a server for an answer that never comes, and nobody else gets it until we ask something.
    """

    def _exit_gen(self) -> PQGen[None]:
        if self.pgconn.status == psycopg.pq.ConnStatus.BAD:
            return  # what was executed within has told of it
        self._enqueue_sync()
        try:
            yield from self._communicate_gen()
            yield from send(self.pgconn)  # the rest of what is more than the socket takes at once: nothing is answered before it
        except psycopg.Error:
            with suppress(psycopg.Error):  # of those that were skipped for it
                yield from self._fetch_gen(flush=False)
            raise
        yield from self._fetch_gen(flush=False)


class Connection(psycopg.Connection[dict[str, Any]]):
    """A connection that is opened again where it was ended at rest: by the server's or a pooler's limit, or a restart.

    What begins a transaction goes along with its first statement: a round trip is what a short one costs most.
    """

    open_another: Callable[[], Connection]
    beginning: _Beginning | None = None
    """Of the transaction that is to be begun."""

    def execute(self, query: Query, params: Params | None = None, *, prepare: bool | None = None, binary: bool = False) -> Cursor:
        if self.beginning is not None:
            if params is not None:
                return in_one_trip(self, partial(self.execute, query, params, prepare=prepare, binary=binary))
            in_one_trip(self, lambda: None)  # what has no parameters may be several statements, which go by themselves
        return super().execute(query, params, prepare=prepare, binary=binary)  # type: ignore[arg-type]

    @contextmanager
    def pipeline(self) -> Iterator[psycopg.Pipeline]:
        """All that is executed within is sent together."""
        assert self._pipeline is None
        self._pipeline = _Pipeline(self)
        try:
            with self._pipeline as pipeline:
                yield pipeline
        finally:
            self._pipeline = None

    def open_again(self) -> None:
        fresh = self.open_another()
        self.pgconn, fresh.pgconn = fresh.pgconn, self.pgconn
        self._prepared, fresh._prepared = fresh._prepared, self._prepared
        fresh.close()

    def was_ended(self) -> bool:
        """Whether it is known that the other end has ended it, without asking: at rest, nothing but its end is to be read."""
        try:
            at_rest = select.poll()
            at_rest.register(self.pgconn.socket, select.POLLIN)
            while at_rest.poll(0):
                self.pgconn.consume_input()
        except (psycopg.OperationalError, OSError):
            return True
        return self.closed


def connect(url: str, *, application_name: str, plans_once: bool = False) -> Connection:
    """Open an autocommit connection whose rows are dictionaries; how their values are read, ``loaders`` says.

    Args:
        url: of the database.
        application_name: shows in pg_stat_activity.
        plans_once: what is executed with ``prepare=True`` is planned once, where the way to the server bears it.

    Raises:
        DatabaseUnavailable: no connection in time, or the server refused it.
        UnsuitableDatabase: a setting is one that we cannot work with.
    """
    try:
        connection = Connection.connect(
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
    connection.open_another = partial(connect, url, application_name=application_name, plans_once=plans_once)
    try:
        register(connection)
        session.check(connection)
        if plans_once and keeps_plans(connection):
            connection.prepare_threshold = _NEVER_BY_ITSELF
    except psycopg.Error as error:
        connection.close()
        raise DatabaseUnavailable(describe(error)) from None
    except BaseException:
        connection.close()
        raise
    return connection


def keeps_plans(connection: Connection) -> bool:
    """Whether what is prepared in one transaction can be used in the next: on the server, or behind a pooler that sees to it.

    Such a pooler (PgBouncer from 1.21 on, with max_prepared_statements) gives the statement a name of its own on the server.
    Another passes ours on, and the next transaction may come to another server: there nothing may be left of it.
    """
    row = connection.execute("SELECT pg_backend_pid() AS pid").fetchone()
    if row is None or row["pid"] == connection.info.backend_pid:
        return row is not None
    name = f"siorg_{uuid4().hex}"
    try:
        with transaction(connection):
            connection.execute("SELECT")
            prepared = connection.pgconn.prepare(name.encode(), b"SELECT")
            if prepared.status != psycopg.pq.ExecStatus.COMMAND_OK:
                raise psycopg.NotSupportedError
            ours = "SELECT FROM pg_prepared_statements WHERE name = %(name)s"
            is_passed_on = connection.execute(ours, {"name": name}).fetchone() is not None
            if is_passed_on:
                connection.execute(f"DEALLOCATE {name}".encode())
    except psycopg.Error:
        if connection.closed:
            raise
        return False
    return not is_passed_on


class DatabaseBlocked(DatabaseUnavailable):
    """Others hold a lock that was waited for in vain, or a statement was cancelled. The connection is well."""


@contextmanager
def transaction(
    connection: Connection,
    *,
    lock_seconds: float = 10.0,
    idle_seconds: float = 10.0,
    isolation: str = "READ COMMITTED",
    by_index: bool = False,
) -> Iterator[Connection]:
    """One transaction in which a statement, a lock and our own silence have limits, and what we rely on is set.

    The idle limit is what frees the rows of a process that was stopped in the middle: the server ends its transaction.
    It begins with its first statement. A connection that was ended while it was at rest is opened again.
    ``by_index``: no table is read from end to end where an index serves, as plans that are kept need it.
    """
    connection.beginning = _Beginning(isolation, lock_seconds, idle_seconds, by_index)
    try:
        yield connection
        if not _is_at_rest(connection):
            connection.execute("COMMIT")
    except BaseException:
        if not connection.closed and not _is_at_rest(connection):
            _roll_back(connection)
        raise
    finally:
        connection.beginning = None


def _roll_back(connection: Connection) -> None:
    # Past psycopg, which would forget all plans, and have the server forget them: poolers differ in what they make of that.
    try:
        is_done = connection.pgconn.exec_(b"ROLLBACK").status == psycopg.pq.ExecStatus.COMMAND_OK
    except psycopg.Error:
        is_done = False
    if not is_done:
        connection.close()


def reading(connection: Connection, *, at_one_moment: bool = False) -> AbstractContextManager[Connection]:
    """A transaction that locks no row, so that nobody waits for it: a large organization is thought over long.

    ``at_one_moment``: all is read as it was when the first statement came.
    """
    isolation = "REPEATABLE READ, READ ONLY" if at_one_moment else "READ COMMITTED"
    return transaction(connection, idle_seconds=_THINKING_SECONDS, isolation=isolation)


def in_one_trip(connection: Connection, work: Callable[[], _T], *, commit: bool = False) -> _T:
    """Do ``work``, whose statements are sent together, and what begins its transaction with them; answers are there after it.

    One statement an ``execute``. None sees an answer before; one that fails takes those after it along, and COMMIT.

    Args:
        connection: within a ``transaction``.
        work: executes statements, and returns their cursors.
        commit: with them the transaction ends.
    """
    beginning, connection.beginning = connection.beginning, None

    def go() -> _T:
        with connection.pipeline() if psycopg.capabilities.has_pipeline() else nullcontext():
            if beginning is not None:
                beginning.send(connection)
            result = work()
            if commit:
                connection.execute("COMMIT")
        return result

    if beginning is None:
        return go()
    if connection.was_ended():
        connection.open_again()
    return go() if commit else _first(connection, go)  # once COMMIT was sent it is not known what came of it


def _first(connection: Connection, work: Callable[[], _T]) -> _T:
    """Do ``work``, with which something new begins on the connection: where that was ended, it may be done on another one."""
    try:
        return work()
    except psycopg.OperationalError as error:
        was_ended = connection.closed if error.sqlstate is None else error.sqlstate.startswith(("08", "57P"))
        if not was_ended:
            raise
    connection.open_again()
    return work()


def query(connection: Connection, sql: LiteralString, /, **parameters: Any) -> list[dict[str, Any]]:
    """Run one statement in a transaction of its own, and give its rows; none where it has no result."""
    with transaction(connection):
        cursor = in_one_trip(connection, lambda: connection.execute(sql, parameters), commit=True)
    return cursor.fetchall() if cursor.description else []


def clock(connection: Connection) -> datetime:
    """The database's time now, also within a transaction. One round trip: there is nothing in it that could wait."""

    def read() -> datetime:
        # In binary: outside of a transaction the session has its own way to write times.
        row = connection.execute("SELECT clock_timestamp() AS now", binary=True).fetchone()
        assert row is not None
        now: datetime = row["now"]
        return now.astimezone(UTC)

    return _first(connection, read) if _is_at_rest(connection) else read()


def _is_at_rest(connection: Connection) -> bool:
    return connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def is_transient(error: psycopg.Error) -> bool:
    """Whether the same statement may succeed later: no connection, no room, a deadlock, a lock or a time limit."""
    code = error.sqlstate
    if code is None:  # libpq's own errors: the connection broke
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    if code in _PLAN_LOST_CODES or error.diag.source_function == _PLAN_LOST_FUNCTION:
        return True
    return code[:2] in _TRANSIENT_CLASSES or code in _TRANSIENT_CODES


def is_blocked(error: psycopg.Error) -> bool:
    """Whether others are in the way: a lock was waited for in vain, or the statement was cancelled, also by its limit of time."""
    return error.sqlstate in _BLOCKED_CODES


def describe(error: psycopg.Error) -> str:
    """One line of what went wrong: the server's primary message, or libpq's first line. Neither carries a password."""
    message = error.diag.message_primary or str(error) or type(error).__name__
    return " ".join(message.split())
