"""A queue in a fresh database, and a PostgreSQL server to stop, start and forbid things on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from siorg_queue import Connection
from support.postgres import Postgres, embedded_postgres
from support.queue import Queue


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
