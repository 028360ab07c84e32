"""The databases that resources name: what is in their queues now, and a call at once when there is new work.

Many resources share a database, so each URL has one connection that reads and one that listens. Who asks while a query is
on its way is served by the next one, together with all others who do: an answer is never older than its question, and
500 questions at one moment are two queries at most. No database waits for another.

Polling is the truth, LISTEN a hint: where it cannot be had (a hot standby, PgBouncer in transaction mode) nothing is
wrong. Nothing else needs session state: a reading is one message, with its transaction and its limits in it.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import socket
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeAlias, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row

from siorg_operator.database.errors import said, unreadable, where
from siorg_operator.decide.state import Reading, Unreadable
from siorg_queue import CHANNEL
from siorg_queue.address import check_database_url
from siorg_queue.statements import load
from siorg_queue.system_settings import BOOLEAN_WORDS, SYNC_ENABLED, as_boolean
from siorg_runtime.logs import logger

APPLICATION_NAME: Final = "siorg-operator"
"""By this the server knows our connections; those of jobs begin with ``siorg-job``."""

_T = TypeVar("_T")
_Connection: TypeAlias = psycopg.AsyncConnection[dict[str, Any]]

_log = logger(__name__)
_TROUBLE = (psycopg.Error, OSError, UnicodeError)  # TimeoutError is an OSError; UnicodeError: a name that can be no host's
_CLOSING = Unreadable("DatabaseUnavailable", "the operator is ending: the queue is not read any more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long anything may take, in seconds."""

    connect: float = 5.0
    """For each host that the URL names."""
    read: float = 10.0
    """One reading, or the start of listening. The server itself ends the statement a little earlier."""
    idle: float = 300.0
    """A connection that reads is closed when nobody asked for so long: the resource is gone, or its Secret was changed."""
    first_pause: float = 1.0
    """Between attempts to listen; each pause is up to twice the one before."""
    longest_pause: float = 30.0
    refused_pause: float = 300.0
    """When the server can be reached, and refuses to be listened to."""


class Watch:
    """Somebody who is called when there may be new work in a database."""

    __slots__ = ("_end",)

    def __init__(self, end: Callable[[Watch], None]) -> None:
        """``end``: takes this one from the list of those who are called."""
        self._end = end

    def close(self) -> None:
        """Be called no more. Closing twice is no error."""
        self._end(self)


class Backlogs:
    """The databases of all resources: for each URL one connection that reads and one that listens, shared by all.

    Belongs to one event loop.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        """Connect to nothing yet."""
        self._limits = limits or Limits()
        self._readers: dict[str, _Reader] = {}
        # The task beside the listener, not in it: a cancelled task keeps the frames that it was cancelled in, with whatever
        # socket was being connected there, and they would keep the task.
        self._listeners: dict[str, tuple[_Listener, asyncio.Task[None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def read(self, url: str) -> Reading | Unreadable:
        """Look at the queue behind ``url`` now. Never raises for a database that is away: unknown is a value.

        Takes as long as a connection and a reading may (see ``Limits``) at most; where another reading is on its way,
        that one's time comes first.
        """
        url = url.strip()
        try:
            check_database_url(url)
        except ValueError as wrong:
            return Unreadable("WrongUrl", f"the database's URL {wrong}: correct it in the Secret")
        if self._closed:
            return _CLOSING
        reader = self._readers.get(url)
        if reader is None:
            reader = self._readers[url] = _Reader(url, self._limits, ended=lambda: self._readers.pop(url, None))
            self._start(reader.serve())
        return await reader.read()

    def watch(self, url: str, wake: Callable[[], None]) -> Watch:
        """Call ``wake`` on each notification of new work in the database, and whenever listening begins (again).

        ``wake`` is called from the event loop, never before this returns; it has to be quick. A wrong URL is never heard of.
        """
        url = url.strip()
        watch = Watch(lambda watch: self._unwatch(url, watch))
        try:
            check_database_url(url)
        except ValueError:
            return watch
        if not self._closed:
            if url not in self._listeners:
                listener = _Listener(url, self._limits)
                self._listeners[url] = (listener, self._start(listener.listen()))
            self._listeners[url][0].add(watch, wake)
        return watch

    async def close(self) -> None:
        """End everything at once; whoever waits for a reading is told that there is none."""
        self._closed = True
        self._listeners.clear()
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _unwatch(self, url: str, watch: Watch) -> None:
        if url in self._listeners:
            listener, task = self._listeners[url]
            if listener.remove(watch):
                del self._listeners[url]
                task.cancel()

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


# -- reading ----------------------------------------------------------------------------------------------------------


class _Reader:
    """Reads one database, one query at a time."""

    def __init__(self, url: str, limits: Limits, *, ended: Callable[[], object]) -> None:
        """``ended``: is told, once, that nobody may ask any more."""
        self._url = url
        self._limits = limits
        self._ended = ended
        self._connection: _Connection | None = None
        self._asked = asyncio.Event()
        self._next: asyncio.Future[Reading | Unreadable] | None = None

    async def read(self) -> Reading | Unreadable:
        """The answer of the next query that begins."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
            self._asked.set()
        return await asyncio.shield(self._next)  # one who is cancelled takes nothing from the others

    async def serve(self) -> None:
        """Answer who asks, until nobody does."""
        answer: asyncio.Future[Reading | Unreadable] | None = None
        try:
            while await self._is_asked():
                answer, self._next = self._next, None
                assert answer is not None
                try:
                    answer.set_result(await self._look())
                except Exception as fault:  # noqa: BLE001 - it is theirs who wait; the next ones shall not wait for ever
                    answer.set_exception(fault)
                    await self._disconnect()
        finally:
            self._ended()
            for waiting in (answer, self._next):
                if waiting is not None and not waiting.done():
                    waiting.set_result(_CLOSING)
            await self._disconnect()

    async def _is_asked(self) -> bool:
        try:
            async with asyncio.timeout(self._limits.idle):
                await self._asked.wait()
        except TimeoutError:
            if self._next is None:
                return False
        self._asked.clear()
        return True

    async def _look(self) -> Reading | Unreadable:
        rested = self._connection is not None
        try:
            return await self._ask()
        except _TROUBLE as trouble:
            await self._disconnect()
            if not (rested and _broke(trouble)):
                return unreadable(trouble, self._url)
        # The server was restarted while the connection was at rest: only a new one tells whether it is there.
        try:
            return await self._ask()
        except _TROUBLE as trouble:
            await self._disconnect()
            return unreadable(trouble, self._url)

    async def _ask(self) -> Reading:
        if self._connection is None:
            self._connection = await _connect(self._url, self._limits)
        milliseconds = round(self._limits.read * 800)
        row = await _within(self._connection, _last_row(self._connection, _reading_statement(milliseconds)), self._limits.read)
        return _reading(row)

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


@cache
def _reading_statement(milliseconds: int) -> str:
    # One message: a round trip is what a reading costs most, and a pooler keeps no session for us. Compiling the statement
    # would take longer than running it does.
    return (
        f"BEGIN READ ONLY; SET LOCAL statement_timeout = {milliseconds}; SET LOCAL jit = off;"
        f" {load('siorg_queue', 'observe.sql')['observe']}; COMMIT"
    )


def _reading(row: dict[str, Any]) -> Reading:
    return Reading(**{**row, "sync_enabled": _sync_enabled(row["sync_enabled"])})


def _sync_enabled(value: object) -> bool:
    """As jobs take it: true where it is not set, false where it cannot be read."""
    if value is None:
        return True
    enabled = as_boolean(value)
    if enabled is None:
        _warn_of_setting(repr(value)[:80])
    return bool(enabled)


@cache  # once for each value, however often it is read
def _warn_of_setting(found: str) -> None:
    _log.warning(f"The setting {SYNC_ENABLED} cannot be read: it is {found}; allowed: {BOOLEAN_WORDS}. Taken as false")


# -- listening --------------------------------------------------------------------------------------------------------


class _Listener:
    """Listens to one database, and comes back to it by itself."""

    def __init__(self, url: str, limits: Limits) -> None:
        self._url = url
        self._limits = limits
        self._wakes: dict[Watch, Callable[[], None]] = {}
        self._since: float | None = None  # when listening began; None: it does not
        self._in_trouble = False

    def add(self, watch: Watch, wake: Callable[[], None]) -> None:
        """Somebody more to call."""
        self._wakes[watch] = wake
        if self._since is not None:  # what this one did not hear so far, it may have missed
            asyncio.get_running_loop().call_soon(lambda: self._call([wake] if watch in self._wakes else []))

    def remove(self, watch: Watch) -> bool:
        """Call this one no more; returns whether it was the last."""
        return self._wakes.pop(watch, None) is not None and not self._wakes

    async def listen(self) -> None:
        """Until it is cancelled."""
        pause = self._limits.first_pause
        loop = asyncio.get_running_loop()
        while True:
            try:
                await self._listen_once()
            except _TROUBLE as trouble:
                if self._since is not None and loop.time() - self._since > self._limits.longest_pause:
                    pause = self._limits.first_pause  # it worked for a while: this is new trouble
                if _refused(trouble):
                    pause = self._limits.refused_pause
                self._since = None
                self._tell(trouble)
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - jitter: not all operators at one moment
            pause = min(pause * 2, self._limits.longest_pause)

    async def _listen_once(self) -> None:
        connection = await _connect(self._url, self._limits)
        try:
            statements = f"LISTEN {CHANNEL}; SELECT pg_backend_pid() AS pid"
            row = await _within(connection, _last_row(connection, statements), self._limits.read)
            self._since = asyncio.get_running_loop().time()
            self._tell_that_it_works(pooled=row["pid"] != connection.info.backend_pid)
            self._call(self._wakes.values())  # nobody knows what was missed
            await self._hear(connection)
        finally:
            await connection.close()

    async def _hear(self, connection: _Connection) -> None:
        """Until the connection breaks.

        Not ``connection.notifies()``, which looks at its socket ten times a second: at rest this does nothing at all. That
        the other side is gone, TCP's keepalives find out.
        """
        loop = asyncio.get_running_loop()
        pgconn, socket_number = connection.pgconn, connection.fileno()
        broken: asyncio.Future[None] = loop.create_future()

        def on_input() -> None:
            try:
                pgconn.consume_input()
                heard = False
                while pgconn.notifies() is not None:
                    heard = True
            except psycopg.Error as error:
                if not broken.done():
                    broken.set_exception(error)
            else:
                if heard:
                    self._call(self._wakes.values())

        loop.add_reader(socket_number, on_input)
        try:
            await broken
        finally:
            loop.remove_reader(socket_number)

    def _call(self, wakes: Iterable[Callable[[], None]]) -> None:
        for wake in list(wakes):
            try:
                wake()
            except Exception:  # noqa: BLE001 - the others are to be woken all the same
                _log.exception("Waking a resource failed; this is a fault of ours")

    def _tell(self, trouble: Exception) -> None:
        """Once for each time that it begins: a reading tells what is wrong, and polling finds the work."""
        if not self._in_trouble:
            self._in_trouble = True
            reason = said(trouble, self._url)
            _log.info("Not told of new work at once: polling finds it", database=where(self._url), reason=reason)

    def _tell_that_it_works(self, *, pooled: bool) -> None:
        if self._in_trouble:
            self._in_trouble = False
            _log.info("Told of new work at once again", database=where(self._url))
        if pooled:
            _tell_of_pooler(where(self._url))


@cache  # once for each database, however often it is connected to
def _tell_of_pooler(database: str) -> None:
    _log.info(
        "A connection pooler stands before the database: in transaction mode it passes no word of new work on; polling finds it",
        database=database,
    )


# -- connections ------------------------------------------------------------------------------------------------------


async def _connect(url: str, limits: Limits) -> _Connection:
    """Open an autocommit connection that prepares nothing on the server.

    Raises:
        psycopg.Error, TimeoutError, UnicodeError: there is none within the limit.
    """
    hosts = 1 + str(conninfo_to_dict(url).get("host", "")).count(",")
    async with asyncio.timeout(limits.connect * hosts):
        return await psycopg.AsyncConnection.connect(
            url,
            autocommit=True,
            prepare_threshold=None,
            row_factory=dict_row,
            connect_timeout=math.ceil(limits.connect),
            application_name=APPLICATION_NAME,
            keepalives_idle=20,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=5_000,  # a dead connection is noticed before a reading's time is up, and a new one tried
        )


async def _last_row(connection: _Connection, statements: str) -> dict[str, Any]:
    """Send ``statements`` as one message; the row of the last one that has any."""
    cursor = await connection.execute(statements.encode())
    row = None
    async for results in cursor.results():
        if results.description is not None:
            row = await results.fetchone()
    assert row is not None  # neither a SELECT of one function nor one of aggregates comes back empty
    return row


async def _within(connection: _Connection, work: Coroutine[Any, Any, _T], seconds: float) -> _T:
    """Await ``work`` on ``connection``, which is unusable when that fails.

    Cancelled, psycopg would first ask the server to end the query, and wait up to 10 s for one that does not answer. Here
    the socket is shut, and the query ends by itself; the server ends its part by the statement's own limit.

    Raises:
        TimeoutError: it takes longer than ``seconds``.
    """
    task = asyncio.get_running_loop().create_task(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
        if not done:
            raise TimeoutError(f"no answer within {seconds:g} s")
        return task.result()
    finally:
        if not task.done():
            _shut(connection)
            await asyncio.wait({task}, timeout=1)
            task.cancel()
        if task.done() and not task.cancelled():
            task.exception()  # seen: nobody is to be told of it once more


def _shut(connection: _Connection) -> None:
    # The number of the socket stays taken until the query is over: closed, another connection could get it meanwhile.
    with suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)


def _broke(trouble: Exception) -> bool:
    """Whether the connection itself is gone, and no reason given that would hold for another one too."""
    if not isinstance(trouble, psycopg.OperationalError | psycopg.InterfaceError):
        return False
    return trouble.sqlstate is None or trouble.sqlstate.startswith(("08", "57P"))


def _refused(trouble: Exception) -> bool:
    """Whether a server that is there will not be listened to: not soon will it think better of it."""
    code = trouble.sqlstate if isinstance(trouble, psycopg.Error) else None
    return code is not None and not code.startswith(("08", "53", "57"))
