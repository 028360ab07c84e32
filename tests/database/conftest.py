"""A queue in a fresh database, and a PostgreSQL server to stop, start and forbid things on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from siorg_operator.database.databases import Databases
from siorg_queue import Connection
from support.database_proxy import DatabaseProxy
from support.postgres import Postgres, embedded_postgres
from support.queue import Queue
from support.queue_databases import Proxied, run


@pytest.fixture
def queue(connection: Connection) -> Queue:
    """The queue in the fresh database."""
    return Queue(connection)


@pytest.fixture(scope="session")
def own_postgres() -> Iterator[Postgres]:
    with embedded_postgres() as server:
        yield server


@pytest.fixture
def own_url(own_postgres: Postgres) -> Iterator[str]:
    """A fresh database on it."""
    url = own_postgres.database()
    yield url
    own_postgres.drop(url)


@pytest.fixture
def proxied(postgres: Postgres, database_url: str, tmp_path: Path) -> Proxied:
    def start(scenario: Callable[[Databases, DatabaseProxy, str], Awaitable[None]]) -> None:
        async def main(databases: Databases) -> None:
            async with DatabaseProxy(postgres.socket_folder, tmp_path) as proxy:
                await scenario(databases, proxy, proxy.url(database_url))
                await databases.close()

        run(main)

    return start
