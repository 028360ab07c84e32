"""Leases are kept by a thread with a connection of its own: what happens on the event loop cannot lose them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from uuid import UUID

import pytest

from siorg_job.drain.lease_keeper import LeaseKeeper
from siorg_job.fetch.fetcher import Fetcher, FetchResult
from siorg_queue import Item, Outcome, QueueStore, Verdict
from support.fleet import eventually

from .conftest import Scene, forgotten

LEASE = timedelta(seconds=2)


def test_a_blocked_event_loop_loses_no_lease(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.waiting(5)
    fetch = Fetcher.fetch

    async def block(self: Fetcher, items: Sequence[Item], ready: Callable[[Sequence[FetchResult]], None]) -> None:
        time.sleep(2 * LEASE.total_seconds())  # noqa: ASYNC251 - that is the point
        await fetch(self, items, ready)

    monkeypatch.setattr(Fetcher, "fetch", block)
    reason, summary = scene.drain()
    assert reason == "exhausted"
    assert scene.states() == {("COMPLETED", 1): 5}
    assert (summary.completed, summary.stale) == (5, 0)
    assert scene.audit() == {"claim": 5, "finish": 5}


def test_an_apply_that_waits_for_somebodys_lock_loses_no_lease(scene: Scene) -> None:
    scene.waiting(5)
    with forgotten(scene.url, "LOCK TABLE organizational_units IN SHARE MODE"):
        job = scene.start(WORKER_UNAVAILABLE_SECS="60")
        eventually(lambda: "Others hold a lock" in job.stderr)
        time.sleep(3 * LEASE.total_seconds())
    assert job.ends(within=60) == 0, job.stderr
    assert scene.states() == {("COMPLETED", 1): 5}
    assert scene.audit() == {"claim": 5, "finish": 5}


@contextmanager
def keeping(url: str, item: Item, seconds: float = 0.6) -> Iterator[tuple[LeaseKeeper, list[set[UUID]]]]:
    """A keeper of the item's lease of so many seconds, and what it reported as lost."""
    lost: list[set[UUID]] = []
    keeper = LeaseKeeper(url, timedelta(seconds=seconds), lost.append)
    keeper.hold([item])
    keeper.start()
    yield keeper, lost
    keeper.stop()


def test_a_lease_that_another_took_is_reported_once(scene: Scene, database_url: str, store: QueueStore) -> None:
    scene.waiting(1)
    (item,) = store.claim(1, lease=LEASE, worker="first").items
    scene.connection.execute("UPDATE siorg_sync_queue SET lease_expires_at = now() - interval '1 second'")
    (again,) = store.claim(1, lease=LEASE, worker="second").items
    with keeping(database_url, item) as (keeper, lost):
        eventually(lambda: lost)
        keeper.hold([again])
        keeper.drop([item])  # what is dropped late is the lost claim, not the new one
        renewals: set[int] = set()

        def renewed_often() -> bool:
            renewals.add(scene.number("SELECT extract(epoch FROM lease_expires_at) * 1e6 FROM siorg_sync_queue"))
            return len(renewals) > 5

        eventually(renewed_often)
    assert lost == [{item.id}]
    assert store.renew({again.id: again.lease_token}, lease=LEASE) == {again.id}


def test_what_was_finished_and_is_about_to_be_dropped_is_not_lost(scene: Scene, database_url: str, store: QueueStore) -> None:
    scene.waiting(1)
    (item,) = store.claim(1, lease=LEASE, worker="first").items
    store.finish([Verdict(item, Outcome.COMPLETED)])
    with keeping(database_url, item, seconds=3) as (keeper, lost):  # it looks once a second
        time.sleep(1.5)
        keeper.drop([item])
        time.sleep(1.0)
    assert lost == []


def test_its_connection_may_break(scene: Scene, database_url: str, store: QueueStore) -> None:
    scene.waiting(1)
    (item,) = store.claim(1, lease=LEASE, worker="first").items
    sessions = "FROM pg_stat_activity WHERE application_name = 'siorg-job lease' AND datname = current_database()"
    with keeping(database_url, item) as (_, lost):
        (killed,) = eventually(lambda: scene.connection.execute(f"SELECT pid, pg_terminate_backend(pid) {sessions}").fetchall())
        eventually(lambda: scene.connection.execute(f"SELECT {sessions} AND pid <> {killed['pid']}").fetchall())
    assert lost == []
    assert store.renew({item.id: item.lease_token}, lease=LEASE) == {item.id}
