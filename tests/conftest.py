"""Fixtures for every test: an embedded PostgreSQL, a fresh database, a queue on it."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from siorg_queue import Connection, QueueStore, connect
from support.postgres import Postgres, embedded_postgres

# How long an example takes says more of the machine than of the code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server for all tests of this process."""
    with embedded_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def durable_postgres() -> Iterator[Postgres]:
    with embedded_postgres(durable=True) as server:
        yield server


@pytest.fixture
def own_postgres(durable_postgres: Postgres) -> Postgres:
    """A server to stop and start, which keeps what was committed. It runs at the beginning, whatever the test before did."""
    if not durable_postgres.running:
        durable_postgres.start()
    return durable_postgres


@pytest.fixture
def database_url(postgres: Postgres) -> Iterator[str]:
    """A fresh database with all tables."""
    url = postgres.database()
    yield url
    postgres.drop(url)


@pytest.fixture
def empty_database_url(postgres: Postgres) -> Iterator[str]:
    """A fresh database without any table."""
    url = postgres.database(migrated=False)
    yield url
    postgres.drop(url)


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    """A connection to the fresh database."""
    with connect(database_url, application_name="test") as opened:
        yield opened


@pytest.fixture
def store(connection: Connection) -> QueueStore:
    """The queue in the fresh database."""
    return QueueStore(connection)


@pytest.fixture
def handlers() -> Iterator[None]:
    """``main`` takes over the signals of its process; here that is pytest's."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
