"""Reads the queue of one database. Who asks while a query is on its way is served by the next one, together with all others
who do: an answer is never older than its question, and 500 questions at one moment are two queries at most.

A reading is one message, with its transaction and its limits in it. Verifications are read in the same one; where that fails
(before their migration, or without the right to) the queue is read without them, so that launching goes on.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal, TypeAlias

import psycopg

from siorg_operator.database.connection import APPLICATION_NAME, FAILURES, Connection, Limits, connect, last_row, within
from siorg_operator.database.errors import unreadable, unverifiable
from siorg_operator.decide.reasons import Reason
from siorg_operator.decide.state import DEPARTURES, ConnectionLimit, Reading, Unreadable, Verification, Verifications
from siorg_queue.session import BY_INDEX, beginning_to_read
from siorg_queue.statements import load
from siorg_queue.system_settings import BOOLEAN_WORDS, SYNC_ENABLED, as_boolean
from siorg_runtime.application import JOB, tag_of
from siorg_runtime.logs import logger

_log = logger(__name__)

_WITHOUT_SECONDS = 30.0
"""For so long after they could not be read, verifications are left out."""
_NOT_THERE: Final = "42"  # SQLSTATE's class of what is missing, or not allowed

CLOSING: Final = Unreadable(Reason.DATABASE_UNAVAILABLE, "the operator is ending: the queue is not read any more")


class QueueReader:
    """Reads one database, one query at a time."""

    def __init__(self, url: str, limits: Limits, *, correct: str, ended: Callable[[], object]) -> None:
        """``correct``: what a person has to correct in a wrong URL. ``ended``: is called, once, when nobody asks any more."""
        self._url = url
        self._limits = limits
        self._correct = correct
        self._ended = ended
        self._connection: Connection | None = None
        self._unverifiable = ("", 0.0)
        """Why verifications could not be read, and until when they are left out for that (monotonic seconds)."""
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
                    waiting.set_result(CLOSING)
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
        while True:
            reused = self._connection is not None
            try:
                return await self._ask()
            except FAILURES as error:
                await self._disconnect()
                if not (reused and _broke(error)):
                    return unreadable(error, self._url, self._correct)
            # The server was restarted while the connection was at rest: only a new one tells whether it is there.

    async def _ask(self) -> Reading:
        if self._connection is None:
            self._connection = await connect(self._url, self._limits)
        why, until = self._unverifiable
        if time.monotonic() < until:
            return self._reading(await self._row(self._connection, "observe"), why)
        try:
            return self._reading(await self._row(self._connection, "observe_all"))
        except psycopg.Error as error:
            if not (error.sqlstate or "").startswith(_NOT_THERE):
                raise
            why = unverifiable(error, self._url)
        row = await self._row(self._connection, "observe", "ROLLBACK; ")
        self._unverifiable = why, time.monotonic() + _WITHOUT_SECONDS
        return self._reading(row, why)

    def _reading(self, row: dict[str, Any], unverifiable_because: str = "") -> Reading:
        # A pooler gives its clients numbers of its own.
        pooled = self._connection is not None and self._connection.info.backend_pid != row["backend"]
        return _reading(row, unverifiable_because, pooled=pooled)

    async def _row(self, connection: Connection, name: str, before: str = "") -> dict[str, Any]:
        statement = before + _reading_statement(name, connection.info.server_version, round(self._limits.read * 800))
        return await within(connection, last_row(connection, statement), self._limits.read)

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


@cache
def _reading_statement(name: str, server_version: int, milliseconds: int) -> str:
    # One message: a round trip is what a reading costs most, and a pooler keeps no session for us.
    return (
        f"{beginning_to_read(server_version)}; SET LOCAL statement_timeout = {milliseconds};"
        f" {BY_INDEX.decode()};"
        f" {load('siorg_queue', 'observe.sql')[name]}; COMMIT"
    )


def _reading(row: dict[str, Any], unverifiable_because: str = "", *, pooled: bool = False) -> Reading:
    names = {"database", "role"}
    queue = {name: value for name, value in row.items() if name in Reading.__slots__ and name not in names}
    queue["completed_by"] = queue["completed_by"] or {}
    verifications = Verifications(unreadable=unverifiable_because) if unverifiable_because else _verifications(row)
    counted = [_Connections(**group) for group in row["connections"] or ()]
    server = _limit("server", row["server"], row["max_connections"], counted)
    return Reading(
        **{**queue, "sync_enabled": _sync_enabled(row["sync_enabled"]), "verifications": verifications},
        other_connections=server.others,
        job_connections=server.jobs,
        named_connections=server.named,
        operator_connections=server.operator,
        database=_limit("database", row["database"], row["database_most"], [one for one in counted if one.database]),
        role=_limit("role", row["role"], row["role_most"], [one for one in counted if one.role]),
        pooled=pooled,
    )


@dataclass(frozen=True, slots=True)
class _Connections:
    """Connections of one application, by whether this database's and this role's limit counts them."""

    application: str
    database: bool
    role: bool
    count: int


_Kind: TypeAlias = Literal["server", "database", "role"]


def _limit(kind: _Kind, name: str, most: int | None, counted: list[_Connections]) -> ConnectionLimit:
    jobs = [one for one in counted if one.application.startswith(JOB)]
    named: Counter[str] = Counter()
    for one in jobs:
        if tag := tag_of(one.application):
            named[tag] += one.count
    return ConnectionLimit(
        kind,
        name,
        most,
        others=sum(one.count for one in counted) - sum(one.count for one in jobs),
        jobs=sum(one.count for one in jobs),
        named=dict(named),
        operator=sum(one.count for one in counted if one.application == APPLICATION_NAME),
    )


def _verifications(row: dict[str, Any]) -> Verifications:
    newest = None
    if row["verified_at"] is not None:
        departures = row["departures"] if isinstance(row["departures"], dict) else {}
        newest = Verification(
            finished_at=row["verified_at"],
            age_seconds=max(row["verified_seconds"], 0.0),
            organizations=row["verified_organizations"],
            rows=row["verified_rows"],
            drift=row["drift"],
            enqueued=row["enqueued"],
            departures={kind: max(count, 0) for kind in DEPARTURES if isinstance(count := departures.get(kind), int)},
        )
    return Verifications(newest, row["incomplete_seconds"], row["incomplete_reason"] or "")


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
    _log.warning(f"The setting {SYNC_ENABLED} must be a boolean; taken as false", value=found, allowed=BOOLEAN_WORDS)


def _broke(error: Exception) -> bool:
    """Whether the connection itself is gone, and no reason given that would hold for another one too."""
    if not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return False
    return error.sqlstate is None or error.sqlstate.startswith(("08", "57P"))
