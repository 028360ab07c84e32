"""Leases are kept by a thread with a connection of its own: what happens on the event loop cannot lose them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from siorg_job.drain.lease_keeper import LeaseKeeper
from siorg_job.drain.start import drain
from siorg_job.fetch.fetcher import Fetcher, FetchResult
from siorg_job.run_summary import RunSummary
from siorg_job.settings import Settings
from siorg_queue import Connection, Item, Outcome, QueueStore, Verdict
from support import ledger
from support.fleet import eventually
from support.siorg_server import SiorgServer

from .conftest import QUICK

Waiting = Callable[[int], list[int]]
States = Callable[[], dict[tuple[str, int], int]]
LEASE = timedelta(seconds=2)


def test_a_blocked_event_loop_loses_no_lease(
    connection: Connection,
    database_url: str,
    siorg: SiorgServer,
    waiting: Waiting,
    states: States,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waiting(5)
    fetch = Fetcher.fetch

    async def block(self: Fetcher, items: Sequence[Item], ready: Callable[[Sequence[FetchResult]], None]) -> None:
        time.sleep(3 * LEASE.total_seconds())  # noqa: ASYNC251 - that is the point
        await fetch(self, items, ready)

    monkeypatch.setattr(Fetcher, "fetch", block)
    settings = Settings.from_environment(
        {"DATABASE_URL": database_url, "SIORG_API_URL": siorg.url, "SIORG_ALLOW_INSECURE": "true", **QUICK}
    )
    summary = RunSummary()

    async def run() -> str:
        return await drain(settings, summary, stop=asyncio.Event())

    assert asyncio.run(run()) == "exhausted"
    assert states() == {("COMPLETED", 1): 5}
    assert (summary.completed, summary.stale) == (5, 0)
    assert ledger.audit(connection) == {"claim": 5, "finish": 5}


@pytest.fixture
def reported() -> dict[str, list[Any]]:
    return {"lost": [], "errors": []}


def keeper(url: str, reported: dict[str, list[Any]], lease: timedelta = timedelta(seconds=0.6)) -> LeaseKeeper:
    return LeaseKeeper(url, lease, on_lost=reported["lost"].append, on_error=reported["errors"].append)


def test_a_lease_that_another_took_is_reported_once(
    connection: Connection, database_url: str, store: QueueStore, waiting: Waiting, reported: dict[str, list[Any]]
) -> None:
    waiting(1)
    (item,) = store.claim(1, lease=LEASE, worker="first").items
    connection.execute("UPDATE siorg_sync_queue SET lease_expires_at = now() - interval '1 second'")
    (again,) = store.claim(1, lease=LEASE, worker="second").items
    kept = keeper(database_url, reported)
    kept.hold([item])
    kept.start()
    eventually(lambda: reported["lost"])
    kept.hold([again])
    kept.drop([item])  # what is dropped late is the lost claim, not the new one
    time.sleep(2 * LEASE.total_seconds())
    kept.stop()
    assert reported == {"lost": [{item.id}], "errors": []}
    assert store.renew({again.id: again.lease_token}, lease=LEASE) == {again.id}


def test_what_was_finished_and_is_about_to_be_dropped_is_not_lost(
    database_url: str, store: QueueStore, waiting: Waiting, reported: dict[str, list[Any]]
) -> None:
    waiting(1)
    (item,) = store.claim(1, lease=LEASE, worker="first").items
    kept = keeper(database_url, reported, lease=timedelta(seconds=3))  # it looks once a second
    kept.hold([item])
    store.finish([Verdict(item, Outcome.COMPLETED)])
    kept.start()
    time.sleep(1.5)
    kept.drop([item])
    time.sleep(1.0)
    kept.stop()
    assert reported == {"lost": [], "errors": []}


def test_its_connection_may_break(
    connection: Connection, database_url: str, store: QueueStore, waiting: Waiting, reported: dict[str, list[Any]]
) -> None:
    waiting(1)
    (item,) = store.claim(1, lease=LEASE, worker="first").items
    kept = keeper(database_url, reported)
    kept.hold([item])
    kept.start()
    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'siorg-job lease'"
    eventually(lambda: connection.execute(kill).fetchall())
    eventually(lambda: reported["errors"])
    time.sleep(2 * LEASE.total_seconds())
    kept.stop()
    assert reported["lost"] == []
