"""Bringing the database to the working copy: a fixed handful of set-based statements, whatever the number of items."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import cache, partial
from operator import attrgetter
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from siorg_job.sync.local_rows import Domain, HistoryRow, Row, Unit
from siorg_job.sync.working_copy import WorkingCopy
from siorg_queue import Connection, EntityType
from siorg_queue.statements import load

_WRITTEN = re.compile(r"\b(?:INSERT INTO|UPDATE) (?!SET\b)(\w+)")
_RECORD = re.compile(r" AS r \(([^)]*)\)")
_dumps = partial(json.dumps, default=str, ensure_ascii=False)  # default: ids and times
_unit_path = attrgetter("organization_id", "parent_id", "name")
_organization_path = attrgetter("name", "acronym")  # which of them, is the database's trigger's business


class LookedTooEarly(Exception):
    """What was read is not so any more: the transaction has to be rolled back, and begun anew."""


class HierarchyTooDeep(Exception):
    """A move would push units below it over ``units.max_hierarchy_depth``."""


def write(connection: Connection, copy: WorkingCopy, steps: list[str]) -> None:
    """Write everything that differs from what was read, parents before children, and one history row a change.

    Args:
        connection: within a transaction.
        copy: what is to be.
        steps: each statement's name is added before it is run.

    Raises:
        HierarchyTooDeep, LookedTooEarly: see there; the transaction has to be rolled back.
        psycopg.Error: a constraint or trigger refused a row; likewise.
    """

    def step(name: str, **parameters: Any) -> int:
        steps.append(name)
        return connection.execute(load("siorg_job.sync", "write.sql")[name], parameters).rowcount

    def run(name: str, rows: Iterable[Row | HistoryRow]) -> int:
        records = [{column: getattr(row, column) for column in _columns(name)} for row in rows]
        return step(name, rows=Jsonb(records, dumps=_dumps)) if records else 0

    read = copy.as_read
    run("set_aside_categories", _names_taken_over(copy))
    for name, entity_type in (("types", EntityType.TYPE), ("categories", EntityType.CATEGORY)):
        domains = copy.domains_of(entity_type)
        run(f"update_{name}", (row for row in domains if row != read.get(row.id, row)))
        run(f"insert_{name}", (row for row in domains if row.id not in read))  # maybe under a name that was freed

    organizations = [(read[row.id], row) for row in copy.organizations.values()]
    run("update_organizations", (row for before, row in organizations if row != before))

    new = [unit for unit in copy.units.values() if unit.id not in read]
    noted = [(read[unit.id], unit) for unit in copy.units.values() if unit is not read.get(unit.id, unit)]
    changed = [unit for before, unit in noted if unit.values() != before.values()]
    # A person who renames or moves a unit leaves the paths below as they were: mended whatever became of the item.
    stale = [unit for unit in copy.units.values() if unit.off_path and unit.id in read]
    relocated = stale + [unit for before, unit in noted if not unit.off_path and _unit_path(unit) != _unit_path(before)]
    levels: dict[int, list[Unit]] = {}
    for unit in (*new, *relocated):
        levels.setdefault(len(copy.chain(unit.parent_id)), []).append(unit)
    for _, level in sorted(levels.items()):
        run("insert_units", (unit for unit in level if unit.id not in read))
        run("relocate_units", (unit for unit in level if unit.id in read))
    run("update_units", changed)
    known = {unit.id for unit in changed}
    run("touch_units", (unit for _, unit in noted if unit.id not in known))

    renamed = [row.id for before, row in organizations if _organization_path(row) != _organization_path(before)]
    beside = {unit.parent_id for unit in stale if unit.parent_id is not None}  # so are the paths of what no item is about
    steps.append("refresh_descendants")
    _refresh_paths(connection, copy, [*beside, *(unit.id for unit in relocated)], renamed)
    if run("insert_mappings", new) < len(new):
        if run("mapped_elsewhere", new):
            raise LookedTooEarly
        run("upsert_mappings", new)
    run("upsert_mappings", changed)
    if relocated:
        step("refresh_mapping_paths", ids=[unit.id for unit in relocated])
    run("insert_history", copy.history)


def table_of(step: str) -> str | None:
    """The table that a statement of ``write`` writes; None where the step is none of these."""
    found = _WRITTEN.search(load("siorg_job.sync", "write.sql").get(step, ""))
    return None if found is None else found[1]


def _names_taken_over(copy: WorkingCopy) -> list[Domain]:
    """The categories that give up a name which another one that is here takes over."""
    renamed = [
        (before.name, row)
        for row in copy.domains_of(EntityType.CATEGORY)
        if isinstance(before := copy.as_read.get(row.id), Domain) and before.name != row.name
    ]
    taken = {row.name for _, row in renamed}
    return [row for name, row in renamed if name in taken]


def _refresh_paths(connection: Connection, copy: WorkingCopy, units: list[UUID], organizations: list[UUID]) -> None:
    """Level and path of everything below the units that were relocated, and in the organizations that were renamed."""
    sql = load("siorg_job.sync", "write.sql")
    if organizations:
        units = units + [row["id"] for row in connection.execute(sql["refresh_roots"], {"ids": organizations}).fetchall()]
    if not units:
        return
    connection.execute(sql["descendants_for_change"], {"ids": units})
    row = connection.execute(sql["refresh_descendants"], {"ids": units}).fetchone()
    if row is not None and row["deepest"] > copy.max_depth:
        raise HierarchyTooDeep(
            f"units would come to level {row['deepest']}; setting units.max_hierarchy_depth allows {copy.max_depth}"
        )


@cache
def _columns(name: str) -> tuple[str, ...]:
    """The columns that a statement takes from its rows, as it names them itself."""
    record = _RECORD.search(load("siorg_job.sync", "write.sql")[name])
    assert record is not None, name
    return tuple(column.split()[0] for column in record[1].split(","))
