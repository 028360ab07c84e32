"""For tests of ``siorg_operator.database``: a scenario on one event loop, and what the server sees of us."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from siorg_operator.database.connection import APPLICATION_NAME, Limits
from siorg_operator.database.databases import Databases
from siorg_operator.decide.state import Reading, Unreadable
from siorg_queue import Connection
from support.database_proxy import DatabaseProxy
from support.postgres import Postgres

T = TypeVar("T")

QUICK: Final = Limits(connect=0.5, read=0.5, first_pause=0.05, longest_pause=0.2, refused_pause=0.2)


def run(scenario: Callable[[Databases], Awaitable[T]], limits: Limits | None = None) -> T:
    async def main() -> T:
        databases = Databases(limits)
        try:
            async with asyncio.timeout(60):
                return await scenario(databases)
        finally:
            await databases.close()

    return asyncio.run(main())


def run_behind(
    server: Postgres, folder: Path, database_url: str, scenario: Callable[[Databases, DatabaseProxy, str], Awaitable[None]]
) -> None:
    """``run``, with a proxy in ``folder`` before the server; the scenario gets it, and the database's URL through it."""

    async def proxied(databases: Databases) -> None:
        async with DatabaseProxy(server.socket_folder, folder) as proxy:
            await scenario(databases, proxy, proxy.url(database_url))
            await databases.close()

    run(proxied)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - of the database, or of what another task does
            await asyncio.sleep(0.005)


def reading(found: Reading | Unreadable) -> Reading:
    assert isinstance(found, Reading), found
    return found


def unreadable(found: Reading | Unreadable) -> Unreadable:
    assert isinstance(found, Unreadable), found
    return found


def sessions(connection: Connection) -> list[dict[str, Any]]:
    """The operator's sessions in this database."""
    return connection.execute(
        "SELECT pid, query FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s",
        (APPLICATION_NAME,),
    ).fetchall()
