"""Bringing the database to the working copy: a fixed handful of set-based statements, whatever the number of items."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import fields
from datetime import datetime
from enum import Enum
from itertools import groupby
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from siorg_job.sync.working_copy import HistoryRow, Local, LocalDomain, LocalOrganization, LocalUnit
from siorg_queue import Connection, EntityType
from siorg_queue.statements import load


class HierarchyTooDeep(Exception):
    """A move would push units below it over ``units.max_hierarchy_depth``."""


def write(connection: Connection, local: Local) -> None:
    """Write everything that differs, parents before children, and one history row a change.

    Raises:
        HierarchyTooDeep: see there; the transaction has to be rolled back.
        psycopg.Error: a constraint or trigger refused a row; likewise.
    """
    sql = load("siorg_job.sync", "write.sql")

    def run(name: str, rows: Iterable[dict[str, Any]]) -> None:
        if listed := list(rows):
            connection.execute(sql[name], {"rows": Jsonb(listed, dumps=_dumps)})

    domains = [*local.types.values(), *local.categories]
    for name, entity_type in (("types", EntityType.TYPE), ("categories", EntityType.CATEGORY)):
        of_kind = [domain for domain in domains if domain.entity_type is entity_type]
        run(f"insert_{name}", (_domain(domain) for domain in of_kind if domain.new))
        run(f"update_{name}", (_domain(d) for d in of_kind if not d.new and (d.changed or d.touched)))

    organizations = list(local.organizations.values())
    run("update_organizations", (_organization(row) for row in organizations if row.changed or row.touched))

    units = list(local.units.values())
    placed = sorted((local.depth(unit.parent_id), unit.id) for unit in units if unit.new or unit.relocated)
    for _, level in groupby(placed, key=lambda pair: pair[0]):
        here = [local.units_by_id[unit_id] for _, unit_id in level]
        run("insert_units", (_unit(unit) for unit in here if unit.new))
        run("relocate_units", (_unit(unit) for unit in here if not unit.new))
    run("update_units", (_unit(unit) for unit in units if not unit.new and unit.changed))
    run("touch_units", (_unit(unit) for unit in units if not unit.new and unit.touched and not unit.changed))

    tops = [unit.id for unit in units if unit.relocated and not unit.new]
    renamed = [row.id for row in organizations if row.renamed]
    if renamed:
        tops += [row["id"] for row in connection.execute(sql["refresh_roots"], {"ids": renamed}).fetchall()]
    if tops:
        row = connection.execute(sql["refresh_descendants"], {"ids": tops}).fetchone()
        if row is not None and row["deepest"] > local.max_depth:
            raise HierarchyTooDeep(
                f"units would come to level {row['deepest']}; setting units.max_hierarchy_depth allows {local.max_depth}"
            )
    run("upsert_mappings", (_mapping(unit) for unit in units if unit.new or unit.changed))
    if moved := [unit.id for unit in units if unit.relocated and not unit.new]:
        connection.execute(sql["refresh_mapping_paths"], {"ids": moved})
    run("insert_history", (_history(entry) for entry in local.history))


def _unit(unit: LocalUnit) -> dict[str, Any]:
    return {
        "id": unit.id,
        "organization_id": unit.organization_id,
        "parent_id": unit.parent_id,
        "category_id": unit.category_id,
        "unit_type_id": unit.unit_type_id,
        "name": unit.name,
        "acronym": unit.acronym,
        "code": unit.code,
        "siorg_parent_code": unit.siorg_parent_code,
        "url": unit.url,
        "version": unit.version,
        "activity_area": unit.activity_area,
        "contact_info": unit.contact_info,
        "is_active": unit.is_active,
        "deactivation_reason": unit.deactivation_reason,
        "synced_at": unit.synced_at,
        "raw": unit.base_raw,
    }


def _mapping(unit: LocalUnit) -> dict[str, Any]:
    return {
        "entity_type": EntityType.UNIT,
        "local_id": unit.id,
        "code": unit.code,
        "parent_code": unit.siorg_parent_code,
        "status": "ACTIVE" if unit.is_active else "DEPRECATED",
    }


def _organization(row: LocalOrganization) -> dict[str, Any]:
    return {"id": row.id, **row.fields, "synced_at": row.synced_at, "raw": row.base_raw}


def _domain(row: LocalDomain) -> dict[str, Any]:
    return {
        "id": row.id,
        "slug": row.slug,
        "name": row.name,
        "code": row.code,
        "siorg_name": row.siorg_name,
        "managed": row.managed,
        "is_active": row.is_active,
        "synced_at": row.synced_at,
        "raw": row.base_raw,
    }


_HISTORY_COLUMNS = tuple(column.name for column in fields(HistoryRow))


def _history(entry: HistoryRow) -> dict[str, Any]:
    return {column: getattr(entry, column) for column in _HISTORY_COLUMNS}


def _dumps(value: Any) -> str:
    return json.dumps(value, default=_plain, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    raise TypeError(type(value).__name__)
