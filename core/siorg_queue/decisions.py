"""What waits for a person on the queue, and what a person decides."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID

from psycopg.types.json import Jsonb

from siorg_queue.database import Connection, clock, query, transaction
from siorg_queue.model import Attention, Decision, EntityType, HeldRow, Operation, Status
from siorg_queue.session import BY_INDEX
from siorg_queue.statements import load
from siorg_queue.store import RetryPolicy

_ENUMS: Mapping[str, Callable[[str], Any]] = {"entity_type": EntityType, "operation": Operation, "status": Status}
_Made = TypeVar("_Made", Attention, HeldRow)


class Decisions:
    """Conflicts, what is held, and what FAILED. Each method is one short transaction; the next run carries out what it writes."""

    def __init__(self, connection: Connection, retry: RetryPolicy | None = None) -> None:
        """Use an autocommit ``connection`` (see ``database.connect``)."""
        self._connection = connection
        self._retry = retry or RetryPolicy()

    def conflicts(self, *, id: UUID | None = None, limit: int = 100) -> list[Attention]:  # noqa: A002 - the column's name
        """Items in CONFLICT, newest first, or the one with ``id``."""
        return [_made(Attention, row) for row in self._run("people.sql", "conflicts", id=id, limit=limit)]

    def reopen_conflict(self, id: UUID, decision: Mapping[str, Any], *, notes: str | None = None) -> bool:  # noqa: A002
        """Put a CONFLICT back to PENDING with a person's ``decision``; False when it is no CONFLICT any more."""
        return bool(self._run("people.sql", "reopen_conflict", id=id, decision=Jsonb(dict(decision)), notes=notes))

    def decide(self, decisions: Sequence[Decision], *, notes: str | None = None) -> int:
        """Put decisions of a person on the queue; returns how many did not wait there already."""
        found = self._run(
            "people.sql",
            "decide",
            entity_types=[each.entity_type.value for each in decisions],
            codes=[each.siorg_code for each in decisions],
            decisions=[Jsonb(each.decision) for each in decisions],
            changes=[Jsonb(each.changes) for each in decisions],
            max_attempts=self._retry.max_attempts,
            notes=notes,
        )
        return len(found)

    def skip_conflict(self, id: UUID, *, notes: str | None = None) -> bool:  # noqa: A002
        """End a CONFLICT as SKIPPED: a person decides later; False when it is no CONFLICT any more."""
        return bool(self._run("people.sql", "skip_conflict", id=id, notes=notes))

    def held(self, *, organization: int | None = None) -> list[HeldRow]:
        """What is held, of one organization or of all, the oldest first."""
        return [_made(HeldRow, row) for row in self._run("held.sql", "held", organization=organization)]

    def release_held(self, ids: Collection[UUID], *, notes: str | None, by: str) -> int:
        """Let SIORG's values be applied after all, of exactly these rows; returns how many were held still.

        Args:
            ids: of rows as ``held`` returned them.
            notes: kept with the rows.
            by: who decided.
        """
        return len(self._run("held.sql", "release", ids=list(ids), notes=notes, by=by))

    def drop_held(self, ids: Collection[UUID], *, notes: str | None, by: str) -> int:
        """As ``release_held``, but the local values stay, until SIORG says something else."""
        return len(self._run("held.sql", "drop", ids=list(ids), notes=notes, by=by))

    def failures(self, *, id: UUID | None = None, limit: int = 100) -> list[Attention]:  # noqa: A002 - the column's name
        """FAILED items, newest first, or the one with ``id``."""
        return [_made(Attention, row) for row in self._run("people.sql", "failures", id=id, limit=limit)]

    def retry(self, *, ids: Sequence[UUID] | None = None, codes: Sequence[int] | None = None) -> int:
        """Open FAILED items again with all their attempts: those named, or all. Returns how many."""
        return len(self._run("failures.sql", "retry", ids=None if ids is None else list(ids), codes=codes))

    def retry_all(self, *, page: int = 5000) -> Iterator[int]:
        """Open all FAILED items again with all their attempts, the longest ago first, but for those that fail meanwhile.

        Gives how many each transaction opened, ``page`` at most.
        """
        after, began = "-infinity", clock(self._connection)
        while True:
            with transaction(self._connection):
                self._connection.execute(BY_INDEX)
                row = self._connection.execute(
                    load("siorg_queue", "failures.sql")["retry_page"], {"after": after, "began": began, "limit": page}
                ).fetchone()
            assert row is not None  # aggregates always have their one row
            if not row["found"]:
                return
            yield row["opened"]
            after = row["last"]

    def _run(self, file: str, name: str, /, **parameters: Any) -> list[dict[str, Any]]:
        return query(self._connection, load("siorg_queue", file)[name], **parameters)


def _made(kind: type[_Made], row: Mapping[str, Any]) -> _Made:
    """A ``kind`` from the columns that are called as its fields."""
    return kind(**{name: _ENUMS[name](row[name]) if name in _ENUMS else row[name] for name in kind.__slots__})
