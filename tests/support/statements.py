"""Counts what is asked of a database in this process: time is noisy, counts are not."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import psycopg


class Counted:
    """Statements and transactions, by the name of the thread that asked."""

    def __init__(self) -> None:
        self._statements: Counter[str] = Counter()
        self._transactions: Counter[str] = Counter()

    def statements(self, thread: str = "") -> int:
        """Of threads whose name begins so; what a transaction sets counts, too, as it does in ``pg_stat_statements``."""
        return sum(count for name, count in self._statements.items() if name.startswith(thread))

    def transactions(self, thread: str = "") -> int:
        """Those that were begun."""
        return sum(count for name, count in self._transactions.items() if name.startswith(thread))

    def note(self, query: object) -> None:
        text = query.decode() if isinstance(query, bytes) else str(query)
        thread = threading.current_thread().name
        self._transactions[thread] += text.startswith("BEGIN")
        self._statements[thread] += text.count("; ") + 1 if text.startswith("BEGIN") else 1


@contextmanager
def counted() -> Iterator[Counted]:
    """Count everything that is asked meanwhile."""
    counts, execute = Counted(), psycopg.Cursor.execute

    def counting(cursor: psycopg.Cursor[Any], query: Any, *arguments: Any, **options: Any) -> psycopg.Cursor[Any]:
        counts.note(query)
        return execute(cursor, query, *arguments, **options)

    patched: Callable[..., Any] = counting
    with mock.patch.object(psycopg.Cursor, "execute", patched):
        yield counts
