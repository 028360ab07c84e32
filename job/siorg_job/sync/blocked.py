"""What others hold: somebody's transaction has locked a row, or a table, that a group of items needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias
from uuid import UUID

import psycopg

from siorg_job.sync.model import Fetched
from siorg_job.sync.read import take_turns
from siorg_queue import Connection, DatabaseBlocked, EntityType, Item, Outcome, Verdict, describe, transaction
from siorg_queue.statements import load

AGAIN_SECONDS: Final = 60.0
"""Until somebody's transaction may have ended: one that was forgotten lasts for hours."""
_LOOK_SECONDS = 5.0

_Want: TypeAlias = tuple[int, str, int | None, UUID | None]
"""Position of the item, kind of row, code, id."""


@dataclass(frozen=True, slots=True)
class Held:
    """What of a group others hold."""

    items: dict[UUID, str] = field(default_factory=dict)
    """By id of the item, the row that it needs."""
    queue_rows: set[UUID] = field(default_factory=set)
    """Items whose own row it is: nothing can be written of them, not even that they go back."""


def put_back(item: Item, what: str) -> Verdict:
    """The item waits unharmed until somebody else's transaction may have ended."""
    return Verdict(item, Outcome.RELEASED, error=f"somebody else's transaction holds {what}", delay_seconds=AGAIN_SECONDS)


def look_at_tables(connection: Connection) -> None:
    """Go on, unless somebody has locked a whole table that items are applied to.

    Raises:
        DatabaseBlocked: somebody has; names it.
    """
    with transaction(connection):
        _look_at_tables(connection)


def look(connection: Connection, works: Sequence[tuple[Item, Fetched | Verdict]]) -> Held:
    """Find out what others hold of these items' rows, without waiting for any.

    Raises:
        DatabaseBlocked: a whole table.
    """
    fetched = [(item, found) for item, found in works if isinstance(found, Fetched)]
    wants = list(_wants(works))
    parameters = dict(zip(("positions", "kinds", "codes", "ids"), map(list, zip(*wants, strict=True)), strict=True))
    statements = load("siorg_job.sync", "blocked.sql")
    with transaction(connection, lock_seconds=_LOOK_SECONDS):
        _look_at_tables(connection)
        take_turns(connection, fetched)  # what other jobs hold is theirs for a moment only
        rows = connection.execute(statements["rows"], parameters).fetchall()
        if not rows:
            rows = connection.execute(statements["rows_below"], parameters).fetchall()
    return Held(
        items={works[row["position"]][0].id: row["what"] for row in rows},
        queue_rows={works[row["position"]][0].id for row in rows if row["kind"] == "item"},
    )


def _look_at_tables(connection: Connection) -> None:
    try:
        connection.execute(load("siorg_job.sync", "blocked.sql")["tables"])
    except psycopg.errors.LockNotAvailable as error:
        raise DatabaseBlocked(f"somebody has locked a whole table: {describe(error)}") from None


def _wants(works: Sequence[tuple[Item, Fetched | Verdict]]) -> Iterator[_Want]:
    for position, (item, found) in enumerate(works):
        yield position, "item", None, item.id
        if isinstance(found, Verdict):
            continue
        if item.entity_type is EntityType.UNIT:
            yield position, "unit", item.siorg_code, item.local_id
        elif item.entity_type is EntityType.ORGANIZATION:
            yield position, "organization", item.siorg_code, None
        if found.rows or item.entity_type in (EntityType.CATEGORY, EntityType.TYPE):
            yield position, "domains", None, None
        for code in found.gone:
            yield position, "unit", code, None
        for unit in found.units:
            yield position, "unit", unit.code, None
            yield position, "parent", unit.parent_code, None
            yield position, "home", unit.organization_code, None
            yield position, "category", unit.category_code, None
