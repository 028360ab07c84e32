"""The PostgreSQL that is measured, and what it has counted."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from siorg_queue import connect
from siorg_queue.migrations import migrate

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_SETTLE_SECONDS = 60.0
_CLIENTS = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'"


@dataclass(frozen=True, slots=True)
class Counts:
    """What a stretch of work cost the server. None: it cannot be told here."""

    cpu: float | None
    """Seconds, of all its processes: also of those that ended, and of checkpoints."""
    transactions: int
    statements: int | None
    buffers: int
    """Pages that were looked at, in memory or not."""

    def __sub__(self, before: Counts) -> Counts:
        return Counts(
            None if self.cpu is None or before.cpu is None else self.cpu - before.cpu,
            self.transactions - before.transactions,
            None if self.statements is None or before.statements is None else self.statements - before.statements,
            self.buffers - before.buffers,
        )


class Server:
    """A server by its superuser's URL. Each database of the bench is made on it and dropped again."""

    def __init__(self, admin_url: str) -> None:
        self._admin_url = admin_url
        self._numbers = itertools.count(1)
        self._empty: str | None = None
        with self._admin() as admin:
            self.version = _text(admin, "SHOW server_version")
            self.is_durable = {_text(admin, "SHOW fsync"), _text(admin, "SHOW synchronous_commit")} == {"on"}
            self._pid = _parent(_number(admin, "SELECT pg_backend_pid()"))
            self._counts_statements = "pg_stat_statements" in _text(admin, "SHOW shared_preload_libraries")
            if self._counts_statements:
                admin.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")

    @contextmanager
    def database(self, like: str | None = None) -> Iterator[str]:
        """The URL of a new database with all our tables, or of a copy of one that nobody is connected to."""
        url = self.copy(like or self.empty())
        try:
            yield url
        finally:
            self.drop(url)

    @contextmanager
    def bare(self) -> Iterator[str]:
        """The URL of a new database with nothing in it."""
        url = self.copy(self._url("template1"))
        try:
            yield url
        finally:
            self.drop(url)

    def empty(self) -> str:
        """The database that the others are copies of: our tables, and nothing in them."""
        if self._empty is None:
            self._empty = self.copy(self._url("template1"))
            with (
                connect(self._empty, application_name="bench") as work,
                connect(self._empty, application_name="bench") as lock,
            ):
                migrate(work, lock)
        return self._empty

    def copy(self, url: str) -> str:
        name = f"siorg_bench_{os.getpid()}_{next(self._numbers)}"
        self.settle(url)
        with self._admin() as admin:
            statement = "CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy"
            admin.execute(sql.SQL(statement).format(sql.Identifier(name), sql.Identifier(_name(url))))
        return self._url(name)

    def drop(self, url: str) -> None:
        with self._admin() as admin:
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(_name(url))))

    def close(self) -> None:
        if self._empty is not None:
            self.drop(self._empty)

    def counts(self, url: str) -> Counts:
        """So far, of this database; CPU of the whole server. Waits until its sessions have ended and told theirs."""
        self.settle(url)
        with self._admin() as admin:
            name = _name(url)
            counters = "FROM pg_stat_database WHERE datname = %s"
            statements = "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements WHERE dbid = (SELECT oid FROM pg_database"
            return Counts(
                cpu=_cpu_seconds(self._pid),
                transactions=_number(admin, f"SELECT xact_commit + xact_rollback {counters}", name),
                statements=_number(admin, f"{statements} WHERE datname = %s)", name) if self._counts_statements else None,
                buffers=_number(admin, f"SELECT blks_hit + blks_read {counters}", name),
            )

    def settle(self, url: str) -> None:
        """Wait until nobody is connected: who has just left may still be there for a moment."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        with self._admin() as admin:
            while _number(admin, _CLIENTS, _name(url)):
                if time.monotonic() > deadline:
                    raise SystemExit(f"somebody stays connected to {_name(url)}")
                time.sleep(0.02)

    def _admin(self) -> psycopg.Connection:
        return psycopg.connect(self._admin_url, autocommit=True, application_name="bench")

    def _url(self, database: str) -> str:
        parts = urlsplit(self._admin_url)
        return f"{parts.scheme}://{parts.netloc}/{database}" + (f"?{parts.query}" if parts.query else "")


def _name(url: str) -> str:
    return urlsplit(url).path.removeprefix("/")


def _text(admin: psycopg.Connection, query: str, *parameters: object) -> str:
    row = admin.execute(query.encode(), parameters).fetchone()
    return "0" if row is None else str(row[0])


def _number(admin: psycopg.Connection, query: str, *parameters: object) -> int:
    return int(_text(admin, query, *parameters))


def _cpu_seconds(pid: int | None) -> float | None:
    """Of the server's first process, its children, and those whose end it has seen; None: they are not on this machine."""
    if pid is None:
        return None
    ticks = sum(_stat(pid)[11:15])
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and (stat := _stat(int(folder.name))) and stat[1] == pid:
            ticks += sum(stat[11:15])
    return ticks / _TICKS_PER_SECOND


def _parent(pid: int) -> int | None:
    """The parent of a backend, where that is a process of this machine."""
    try:
        if "postgres" not in Path(f"/proc/{pid}/comm").read_text():
            return None
    except OSError:
        return None
    return _stat(pid)[1] or None


def _stat(pid: int) -> list[int]:
    """The fields of /proc/PID/stat from the state (0 here) on: [1] is the parent, [11:15] are ticks; empty: it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return [0, *map(int, text.rpartition(")")[2].split()[1:])]
