"""Leases are kept by a thread with a connection of its own: what happens on the event loop cannot lose them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from siorg_job.drain.lease_keeper import LeaseKeeper
from siorg_job.drain.loop import Drain
from siorg_job.fetch.fetcher import Gathered, Gatherer
from siorg_job.metrics import JobMetrics
from siorg_job.run_summary import RunReport
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
    gather = Gatherer.gather

    async def block(self: Gatherer, items: Sequence[Item], ready: Callable[[Sequence[Gathered]], None]) -> None:
        time.sleep(3 * LEASE.total_seconds())  # noqa: ASYNC251 - that is the point
        await gather(self, items, ready)

    monkeypatch.setattr(Gatherer, "gather", block)
    settings = Settings.from_environment(
        {"DATABASE_URL": database_url, "SIORG_API_URL": siorg.url, "SIORG_ALLOW_INSECURE": "true", **QUICK}
    )
    report = RunReport()

    async def drain() -> str:
        return await Drain(settings, report=report, metrics=JobMetrics.unserved(), stop=asyncio.Event()).run()

    assert asyncio.run(drain()) == "exhausted"
    assert states() == {("COMPLETED", 1): 5}
    assert (report.completed, report.stale) == (5, 0)
    assert ledger.audit(connection) == {"claim": 5, "finish": 5}


@pytest.fixture
def told() -> dict[str, list[Any]]:
    return {"lost": [], "trouble": []}


def keeper(url: str, told: dict[str, list[Any]], lease: timedelta = timedelta(seconds=0.6)) -> LeaseKeeper:
    return LeaseKeeper(url, lease, on_lost=told["lost"].append, on_trouble=told["trouble"].append)


def test_a_lease_that_another_took_is_told_once(
    connection: Connection, database_url: str, store: QueueStore, waiting: Waiting, told: dict[str, list[Any]]
) -> None:
    waiting(1)
    (item,) = store.claim(1, lease=LEASE, worker="first").items
    connection.execute("UPDATE siorg_sync_queue SET lease_expires_at = now() - interval '1 second'")
    (again,) = store.claim(1, lease=LEASE, worker="second").items
    kept = keeper(database_url, told)
    kept.hold([item])
    kept.start()
    eventually(lambda: told["lost"])
    kept.hold([again])
    kept.drop([item])  # what is dropped late is the lost claim, not the new one
    time.sleep(2 * LEASE.total_seconds())
    kept.stop()
    assert told == {"lost": [{item.id}], "trouble": []}
    assert store.renew({again.id: again.lease_token}, lease=LEASE) == {again.id}


def test_what_was_finished_and_is_about_to_be_dropped_is_not_lost(
    database_url: str, store: QueueStore, waiting: Waiting, told: dict[str, list[Any]]
) -> None:
    waiting(1)
    (item,) = store.claim(1, lease=LEASE, worker="first").items
    kept = keeper(database_url, told, lease=timedelta(seconds=3))  # it looks once a second
    kept.hold([item])
    store.finish([Verdict(item, Outcome.COMPLETED)])
    kept.start()
    time.sleep(1.5)
    kept.drop([item])
    time.sleep(1.0)
    kept.stop()
    assert told == {"lost": [], "trouble": []}


def test_its_connection_may_break(
    connection: Connection, database_url: str, store: QueueStore, waiting: Waiting, told: dict[str, list[Any]]
) -> None:
    waiting(1)
    (item,) = store.claim(1, lease=LEASE, worker="first").items
    kept = keeper(database_url, told)
    kept.hold([item])
    kept.start()
    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'siorg-job lease'"
    eventually(lambda: connection.execute(kill).fetchall())
    eventually(lambda: told["trouble"])
    time.sleep(2 * LEASE.total_seconds())
    kept.stop()
    assert told["lost"] == []
