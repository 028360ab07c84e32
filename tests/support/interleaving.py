"""A person's transaction at one statement of ours: the whole of it before that statement, or open until ours waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

import psycopg

from siorg_queue import Connection, connect

_POLL_SECONDS = 0.002
_TABLES = (
    "siorg_history", "siorg_mappings", "siorg_sync_queue", "organizational_units", "organizational_unit_types",
    "organizational_unit_categories", "organizations", "system_settings",
)  # fmt: skip


class Way(StrEnum):
    BETWEEN = "a whole transaction between two statements of ours"
    OPEN = "open before a statement of ours, and committed while ours waits for it"


class Saved:
    """The rows of every table, to go back to."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        connection.execute("CREATE SCHEMA saved")
        for table in _TABLES:
            connection.execute(f"CREATE TABLE saved.{table} AS SELECT * FROM {table}".encode())

    def restore(self) -> None:
        inserts = "; ".join(f"INSERT INTO {table} SELECT * FROM saved.{table}" for table in _TABLES)
        self._connection.execute(
            f"BEGIN; SET LOCAL session_replication_role = replica; TRUNCATE {', '.join(_TABLES)}; {inserts}; COMMIT".encode()
        )


class Person:
    """Does statements in one transaction, at the statement of ours with this number."""

    def __init__(self, url: str, ours: Connection, statements: Sequence[str], at: int, way: Way) -> None:
        self._ours, self._statements, self._at, self._way = ours, statements, at, way
        self._connection = connect(url, application_name="person")
        self._watch = connect(url, application_name="watch")
        self._count = 0
        self._over = threading.Event()
        """Ours has come to its end."""
        self._done = threading.Event()
        """All that can be done before ours goes on."""
        self._thread: threading.Thread | None = None

    @contextmanager
    def beside(self) -> Iterator[None]:
        """While this lasts, the statements of our connection are counted."""
        execute = self._ours.execute

        def counted(*arguments: Any, **options: Any) -> Any:
            if self._count == self._at:
                self._begin()
            self._count += 1
            return execute(*arguments, **options)

        self._ours.execute = counted  # type: ignore[method-assign]
        try:
            yield
        finally:
            del self._ours.execute
            self._over.set()
            if self._thread is not None:
                self._thread.join()
            self._connection.close()
            self._watch.close()

    @property
    def has_come(self) -> bool:
        return self._thread is not None

    def _begin(self) -> None:
        self._thread = threading.Thread(target=self._work)
        self._thread.start()
        pid = self._connection.info.backend_pid
        while not self._done.is_set() and not self._is_blocked(pid):
            time.sleep(_POLL_SECONDS)

    def _is_blocked(self, pid: int) -> bool:
        row = self._watch.execute("SELECT cardinality(pg_blocking_pids(%s)) > 0 AS blocked", [pid]).fetchone()
        return row is not None and row["blocked"]

    def _work(self) -> None:
        try:
            with self._connection.transaction():
                for statement in self._statements:
                    self._connection.execute(statement.encode())
                if self._way is Way.OPEN:
                    self._done.set()
                    while not self._over.is_set() and not self._is_waited_for():
                        time.sleep(_POLL_SECONDS)
        except psycopg.errors.IntegrityError:
            pass  # they are told, and have done nothing
        finally:
            self._done.set()

    def _is_waited_for(self) -> bool:
        row = self._connection.execute(
            "SELECT pg_backend_pid() = ANY (pg_blocking_pids(%s)) AS waits", [self._ours.info.backend_pid]
        ).fetchone()
        return row is not None and row["waits"]
