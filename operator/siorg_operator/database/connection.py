"""One connection to a queue's database, and whatever is done on it within a limit.

Nothing needs session state but listening: a pooler in transaction mode may stand between.
"""

from __future__ import annotations

import asyncio
import math
import os
import socket
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row

from siorg_queue.loaders import register
from siorg_queue.session import ENCODING

APPLICATION_NAME: Final = "siorg-operator"
"""By this the server knows our connections; those of jobs begin with ``siorg-job``."""

FAILURES: Final = (psycopg.Error, OSError, UnicodeError)
"""How a database can be away. TimeoutError is an OSError; UnicodeError: a name that can be no host's."""

Connection: TypeAlias = psycopg.AsyncConnection[dict[str, Any]]
_T = TypeVar("_T")


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


async def connect(url: str, limits: Limits) -> Connection:
    """Open an autocommit connection that prepares nothing on the server.

    Raises:
        psycopg.Error, TimeoutError, UnicodeError: there is none within the limit.
    """
    hosts = 1 + str(conninfo_to_dict(url).get("host", "")).count(",")
    async with asyncio.timeout(limits.connect * hosts):
        connection = await psycopg.AsyncConnection.connect(
            url,
            autocommit=True,
            prepare_threshold=None,
            row_factory=dict_row,
            connect_timeout=math.ceil(limits.connect),
            application_name=APPLICATION_NAME,
            client_encoding=ENCODING,
            keepalives_idle=20,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=5_000,  # a dead connection is noticed before a reading's time is up, and a new one tried
        )
    register(connection)
    return connection


async def last_row(connection: Connection, statements: str) -> dict[str, Any]:
    """Send ``statements`` as one message; the row of the last one that has any."""
    cursor = await connection.execute(statements.encode())
    row = None
    async for results in cursor.results():
        if results.description is not None:
            row = await results.fetchone()
    assert row is not None  # neither a SELECT of one function nor one of aggregates comes back empty
    return row


async def within(connection: Connection, work: Coroutine[Any, Any, _T], seconds: float) -> _T:
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
            # The number of the socket stays taken until the query is over: closed, another connection could get it meanwhile.
            with suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as end:
                end.shutdown(socket.SHUT_RDWR)
            await asyncio.wait({task}, timeout=1)
            task.cancel()
        if task.done() and not task.cancelled():
            task.exception()  # retrieved: asyncio need not log it
