"""Discovery of the tables that units refer to: categories and types, each asked for once, and what differs enqueued."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from siorg_job.siorg.client import SiorgClient
from siorg_job.siorg.errors import SiorgError
from siorg_job.siorg.model import DomainTable
from siorg_job.sync.domain_difference import ComparedRow, compare
from siorg_job.sync.model import Fetched
from siorg_job.sync.read import read_table
from siorg_queue import Connection, EntityType, NewItem, QueueStore, clock, reading
from siorg_queue.statements import load
from siorg_runtime.logs import logger

log = logger("siorg_job.discover")

TABLES = {EntityType.CATEGORY: DomainTable.UNIT_CATEGORY, EntityType.TYPE: DomainTable.UNIT_TYPE}
"""What SIORG calls the tables of categories and types."""
_SQL = load("siorg_job.reconciliation", "discover.sql")


@dataclass(frozen=True, slots=True)
class TableDiscovery:
    """What the discovery of one table found."""

    items: list[NewItem]
    added: int
    """Items that were really enqueued; the others were waiting already."""


async def discover_tables(siorg: SiorgClient, connection: Connection, store: QueueStore) -> list[SiorgError]:
    """Discover both tables; of a table about which SIORG could not be asked nothing is enqueued, and the error returned.

    Raises:
        psycopg.Error, DatabaseUnavailable: the database could not be asked.
    """
    errors: list[SiorgError] = []
    for entity_type, table in TABLES.items():
        try:
            found = await discover_table(entity_type, siorg, connection, store)
        except SiorgError as error:
            errors.append(error)
            log.error("Discovery failed; nothing was enqueued", table=table.value, reason=str(error))
        else:
            log.info("Discovered", table=table.value, differences=len(found.items), enqueued=found.added)
    return errors


async def discover_table(
    entity_type: EntityType, siorg: SiorgClient, connection: Connection, store: QueueStore
) -> TableDiscovery:
    """Discover one table, CATEGORY or TYPE, and enqueue what differs and is no person's edit.

    Raises:
        SiorgError: SIORG could not be asked, or its answer cannot be trusted (an empty table, a row that cannot be read).
        psycopg.Error, DatabaseUnavailable: likewise, the database.
    """
    asked_at = clock(connection)
    rows = await siorg.domain(TABLES[entity_type])
    store.note_table(asked_at, entity_type)  # before the rows here are looked at: see QueueStore.note
    with reading(connection):
        compared = compare(entity_type, Fetched(asked_at, rows=tuple(rows)), read_table(connection, entity_type, rows))
        conflicts = open_conflicts(connection, entity_type)
    items = list(items_of(compared, conflicts, asked_at))
    failed = store.retry_found(items)
    added = sum(failed.values()) + store.enqueue([item for position, item in enumerate(items) if position not in failed])
    return TableDiscovery(items, added)


def open_conflicts(connection: Connection, entity_type: EntityType) -> dict[int, Any]:
    """``detected_changes`` of the conflicts about a table's rows that wait for a person, by code. In the caller's transaction."""
    rows = connection.execute(_SQL["open_conflicts"], {"entity_type": entity_type.value}).fetchall()
    return {row["code"]: row["changes"] for row in rows}


def items_of(compared: Iterable[ComparedRow], conflicts: Mapping[int, Any], asked_at: datetime) -> Iterable[NewItem]:
    """The items for what differs. Pure.

    Args:
        compared: the rows of one table.
        conflicts: ``detected_changes`` of the conflicts that wait for a person, by code.
        asked_at: when SIORG was asked, by the database's clock.
    """
    for row in compared:
        if row.needs_item(conflicts.get(row.code)):
            payload = {} if row.remote is None else json.loads(row.remote.raw)
            yield NewItem(row.entity_type, row.code, row.operation, payload, needed_at=asked_at)
