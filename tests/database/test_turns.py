"""Who takes turns with whom: applies to one organization, and whoever changes the domain tables with all others."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from siorg_queue import Connection, connect, transaction
from siorg_queue.statements import load

UFMT, ANOTHER = {"organizations": [471]}, {"organizations": [500]}
DOMAINS: dict[str, Any] = {"domains": True}


def take(connection: Connection, turn: dict[str, Any]) -> None:
    connection.execute(load("siorg_job.sync", "read.sql")["lock"], {"organizations": [], "codes": [], "domains": False, **turn})


@pytest.mark.parametrize(
    ("one", "other", "waits"),
    [
        (UFMT, UFMT, True),
        (UFMT, ANOTHER, False),
        (UFMT, DOMAINS, True),
        (DOMAINS, UFMT, True),
        (DOMAINS, DOMAINS, True),
        ({}, {}, False),
    ],
)
def test_turns(database_url: str, one: dict[str, Any], other: dict[str, Any], waits: bool) -> None:
    with connect(database_url, application_name="one") as first, connect(database_url, application_name="other") as second:
        with transaction(first):
            take(first, one)
            if waits:
                with pytest.raises(psycopg.errors.LockNotAvailable), transaction(second, lock_seconds=0.1):
                    take(second, other)
            else:
                with transaction(second, lock_seconds=0.1):
                    take(second, other)
        with transaction(second, lock_seconds=0.1):
            take(second, other)
