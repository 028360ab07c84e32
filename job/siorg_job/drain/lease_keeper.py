"""Keeping leases alive, on a thread with a connection of its own: a blocked event loop cannot lose them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from datetime import timedelta
from uuid import UUID

import psycopg

from siorg_queue import Connection, DatabaseUnavailable, Item, QueueStore, connect, describe
from siorg_runtime.application import job_application
from siorg_runtime.logs import logger

log = logger("siorg_job.drain")


class LeaseKeeper:
    """Renews the leases of everything that is held, three times in a lease.

    A lease that is lost is not fought for: the fence refuses whatever comes late. The keeper only says so.
    """

    def __init__(self, url: str, lease: timedelta, on_lost: Callable[[set[UUID]], None]) -> None:
        """``on_lost`` is called on the keeper's thread."""
        self._url = url
        self._lease = lease
        self._on_lost = on_lost
        self._held: dict[UUID, int] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease-keeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(timeout=5)

    def hold(self, items: Iterable[Item]) -> None:
        with self._lock:
            self._held.update({item.id: item.lease_token for item in items})

    def drop(self, items: Iterable[Item]) -> None:
        """Keep these no longer; a later claim of the same item stays."""
        with self._lock:
            for item in items:
                if self._held.get(item.id) == item.lease_token:
                    del self._held[item.id]

    def _run(self) -> None:
        connection: Connection | None = None
        missed: dict[UUID, int] = {}
        pause = self._lease.total_seconds() / 3
        while not self._stopped.wait(pause):
            with self._lock:
                held = dict(self._held)
            if not held:
                continue
            try:
                if connection is None or connection.closed:
                    connection = connect(self._url, application_name=job_application("lease"))
                ours = QueueStore(connection).renew(held, lease=self._lease)
            except (psycopg.Error, DatabaseUnavailable) as error:
                if connection is not None:
                    connection.close()
                reason = describe(error) if isinstance(error, psycopg.Error) else str(error)
                log.warning("Leases could not be renewed; trying again", reason=reason)
                continue
            with self._lock:
                # One that ended between the copy and the renewal is about to be dropped: it is lost when it is missed twice.
                still = {id_: token for id_, token in held.items() if id_ not in ours and self._held.get(id_) == token}
                lost = {id_ for id_, token in still.items() if missed.get(id_) == token}
                missed = still
                for id_ in lost:
                    del self._held[id_]
            if lost:
                self._on_lost(lost)
        if connection is not None:
            connection.close()
