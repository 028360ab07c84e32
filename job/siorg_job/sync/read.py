"""Reading the working copy: what a group of items touches, under lock."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias
from uuid import UUID

import psycopg

from siorg_job.siorg.model import DomainRow
from siorg_job.siorg.rows import parse_stored
from siorg_job.sync.domain_rows import pairs
from siorg_job.sync.local_rows import FALLBACK_CATEGORY, Ancestor, Child, Domain, HeldField, Kept, Organization, Unit
from siorg_job.sync.merge_base import read_base, unrecorded
from siorg_job.sync.model import DomainField, Fetched, OrganizationField, UnitField
from siorg_job.sync.outcomes import unreadable_value
from siorg_job.sync.resolution import codes_named
from siorg_job.sync.working_copy import WorkingCopy
from siorg_queue import Connection, Cursor, DatabaseBlocked, EntityType, Item, Operation, Unreadable, describe
from siorg_queue.statements import load
from siorg_queue.system_settings import MAX_DEPTH, STRICT_HIERARCHY, read_boolean, read_settings, read_whole_number

_Works: TypeAlias = Sequence[tuple[Item, Fetched]]
_Reading: TypeAlias = Callable[[], list[dict[str, Any]]]

_DEFAULT_DEPTH = 10
_DOMAINS = {EntityType.TYPE: "types", EntityType.CATEGORY: "categories"}


def take_turns(connection: Connection, works: _Works) -> Cursor:
    """Wait until no other process applies to the organizations, or changes the domain tables, that these items touch.

    Inside the caller's transaction, to the end of which it is our turn, and before the fence: a lease can be renewed while its
    item waits for its turn. Where others are sent along, the cursor tells whether it came: see ``out_of_turn``.

    Raises:
        DatabaseBlocked: the other one does not end.
    """
    organizations, codes, domains = sorted(_organizations_said(works)), sorted(_local_ids(works)), _changes_domains(works)
    parameters = {"organizations": organizations, "codes": codes, "domains": domains}
    try:
        return connection.execute(load("siorg_job.sync", "read.sql")["lock"], parameters)
    except psycopg.errors.LockNotAvailable as error:
        raise out_of_turn(error) from None


def out_of_turn(error: psycopg.Error) -> DatabaseBlocked:
    """What it means that a turn was waited for in vain."""
    return DatabaseBlocked(f"another process applies to the same organization, and does not end: {describe(error)}")


def read(connection: Connection, works: _Works) -> WorkingCopy:
    """Lock and read what the items touch. Inside the caller's transaction, after ``take_turns`` and the fence."""
    copy = _empty(connection)
    local_ids = _local_ids(works)
    _read_organizations(connection, works, sorted(local_ids), copy)
    if local_ids:
        _read_units(connection, works, local_ids, copy)
    _read_domains(connection, _DOMAINS.values(), copy, for_change=_changes_domains(works))
    codes = {item.siorg_code for item, _ in works} | {unit.code for _, fetched in works for unit in fetched.ancestors}
    codes |= {code for _, fetched in works for code in fetched.gone}
    _read_kept(connection, _entities(codes, copy) | {(item.entity_type, item.siorg_code) for item, _ in works}, copy)
    read_questions(connection, codes, copy)
    copy.as_read = {row.id: row for rows in (copy.organizations, copy.units, copy.domains) for row in rows.values()}
    return copy


def _empty(connection: Connection) -> WorkingCopy:
    """No rows yet, and the settings that decide about them."""
    settings = read_settings(connection, [STRICT_HIERARCHY, MAX_DEPTH])
    return WorkingCopy(
        strict_hierarchy=read_boolean(STRICT_HIERARCHY, settings.get(STRICT_HIERARCHY), unset=False, unreadable=True),
        max_depth=read_whole_number(MAX_DEPTH, settings.get(MAX_DEPTH), unset=_DEFAULT_DEPTH),
    )


def read_table(connection: Connection, entity_type: EntityType, table: Sequence[DomainRow]) -> WorkingCopy:
    """All categories or all types, and what people decided about those of SIORG's ``table``: to be compared, without locks."""
    copy = WorkingCopy()
    _read_domains(connection, [_DOMAINS[entity_type]], copy)
    numbers = (pair.number for pair in pairs(entity_type, copy.domains_of(entity_type), table))
    _read_kept(connection, {(entity_type, number) for number in numbers if number is not None}, copy)
    return copy


def _read_domains(connection: Connection, names: Iterable[str], copy: WorkingCopy, *, for_change: bool = False) -> None:
    for name in names:
        read = partial(_rows, connection, name)
        for row in _locked(partial(_rows, connection, f"{name}_for_change"), read) if for_change else read():
            _note_unreadable(row, f"organizational_unit_{name}", copy)
            row |= {"base": read_base(row.pop("record"), row["synced_at"], DomainField), "base_raw": _raw(row)}
            copy.put(Domain(**row | {"entity_type": EntityType(row["entity_type"])}))


def _local_ids(works: _Works) -> dict[int, UUID | None]:
    """The units that these items touch, by code; with the local id where an item names one."""
    local_ids: dict[int, UUID | None] = {unit.code: None for _, fetched in works for unit in fetched.units}
    local_ids |= {code: None for _, fetched in works for code in fetched.gone}
    local_ids |= {item.siorg_code: item.local_id for item, _ in works if item.entity_type is EntityType.UNIT}
    return local_ids


def _organizations_said(works: _Works) -> set[int]:
    """The organizations that these items are about, or whose units they are as SIORG says."""
    said = {unit.organization_code for _, fetched in works for unit in fetched.units}
    return {code for code in said if code is not None} | {
        item.siorg_code for item, _ in works if item.entity_type is EntityType.ORGANIZATION
    }


def _changes_domains(works: _Works) -> bool:
    """Whether categories or types may be written: items about them, or units with a category that was not here."""
    return any(fetched.rows or item.entity_type in (EntityType.CATEGORY, EntityType.TYPE) for item, fetched in works)


def _read_organizations(connection: Connection, works: _Works, unit_codes: list[int], copy: WorkingCopy) -> None:
    codes = _organizations_said(works)
    changing = sorted(item.siorg_code for item, _ in works if item.siorg_code in codes)
    named = {code for item, _ in works for code in codes_named(item.error_details)}
    lock = partial(_rows, connection, "organizations_for_change", codes=changing)
    read = partial(_rows, connection, "organizations", codes=sorted(codes | named), unit_codes=unit_codes)
    for row in _locked(lock, read, lambda row: row["code"] in changing) if changing else read():
        _note_unreadable(row, "organizations", copy)
        copy.put(Organization(**_with_base(row, OrganizationField)))
    ending = [
        copy.organizations[item.siorg_code].id
        for item, _ in works
        if item.operation is not Operation.UPDATE and item.siorg_code in copy.organizations
    ]
    if ending:
        rows = _rows(connection, "active_units", ids=ending)
        copy.active_units = {row["organization_id"]: frozenset(row["codes"]) for row in rows}


def _read_units(connection: Connection, works: _Works, local_ids: dict[int, UUID | None], copy: WorkingCopy) -> None:
    meant = {"codes": sorted(local_ids), "local_ids": [local_ids[code] for code in sorted(local_ids)]}
    for row in _locked(partial(_rows, connection, "units_for_change", **meant), partial(_rows, connection, "units", **meant)):
        if row["code"] not in copy.units:
            _note_unreadable(row, "organizational_units", copy)
            copy.put(_unit(row))
    parents = {code for item, _ in works for code in codes_named(item.error_details)}
    parents |= {unit.parent_code for _, fetched in works for unit in fetched.units if unit.parent_code}
    above = {unit.parent_id for unit in copy.units.values() if unit.parent_id is not None}
    if parents or above:
        for row in _rows(connection, "ancestors", codes=sorted(parents), ids=list(above)):
            copy.ancestors[row["id"]] = Ancestor(**row)
    ended = [
        copy.units[item.siorg_code].id
        for item, fetched in works
        if item.entity_type is EntityType.UNIT and item.siorg_code in copy.units and (fetched.unit is None or fetched.unit.ended)
    ]
    if ended:
        for row in _rows(connection, "children", ids=ended):
            copy.children.setdefault(row.pop("parent_id"), []).append(Child(**row))


def _entities(codes: Iterable[int], copy: WorkingCopy) -> set[tuple[EntityType, int]]:
    """What items about these units, and organizations of the copy, may name; one may have been enqueued as a unit."""
    named = set(codes)
    return {(EntityType.UNIT, code) for code in named} | {
        (EntityType.ORGANIZATION, code) for code in named if code in copy.organizations
    }


def _about(entities: Iterable[tuple[EntityType, int]]) -> dict[str, list[Any]]:
    """The entities as parameters of a statement."""
    ordered = sorted(entities)
    return {"entity_types": [entity_type.value for entity_type, _ in ordered], "codes": [code for _, code in ordered]}


def _read_kept(connection: Connection, entities: Iterable[tuple[EntityType, int]], copy: WorkingCopy) -> None:
    for row in _rows(connection, "kept", **_about(entities)):
        entity_type = EntityType(row["entity_type"])
        if entity_type is EntityType.UNIT and row["code"] in copy.organizations and row["code"] not in copy.units:
            entity_type = EntityType.ORGANIZATION  # an organization that was enqueued as a unit
        if isinstance(row["detected_changes"], Unreadable):
            reason = unreadable_value("siorg_sync_queue", row["id"], "detected_changes", row["detected_changes"])
            copy.unreadable[entity_type, row["code"]] = reason
            continue
        found = row["detected_changes"].items()
        remote = {field: sides["remote"] for field, sides in found if isinstance(sides, dict) and "remote" in sides}
        copy.kept.setdefault((entity_type, row["code"]), []).append(Kept(row["decided_at"], remote))


def read_for_comparison(connection: Connection, organization: int, codes: Sequence[int]) -> WorkingCopy:
    """Read one organization with its units, and the units that are named wherever they are here; nothing is locked.

    One of the largest has 6,600: of what SIORG said last only the values are kept.
    """
    copy = _empty(connection)
    for row in _rows(connection, "organizations", codes=[organization], unit_codes=list(codes)):
        copy.put(Organization(**_with_base(row, OrganizationField)))
    sql = load("siorg_job.sync", "read.sql")["units_to_compare"]
    for row in connection.execute(sql, {"organization": organization, "codes": list(codes)}):
        unit = _unit(row)
        said = unit.said if unit.said is None or unit.base is not None else replace(unit.said, raw="")
        copy.put(replace(unit, said=said, base_raw=None))
    return copy


def read_registered(connection: Connection) -> set[int]:
    """Codes of the organizations that are registered here, and active."""
    return {row["code"] for row in _rows(connection, "registered")}


def read_decisions(connection: Connection, codes: Sequence[int], copy: WorkingCopy) -> set[tuple[EntityType, int, str, str]]:
    """What people turned down about these entities, into ``copy``; and what they have been asked and did not decide yet.

    What is held is read of all units in the copy, for a difference may have gone.
    """
    read_questions(connection, sorted(copy.units), copy)
    if not codes:
        return set()
    _read_kept(connection, _entities(codes, copy), copy)
    asked = [(entity_type, code) for entity_type in (EntityType.UNIT, EntityType.ORGANIZATION) for code in codes]
    return {
        (EntityType(row["entity_type"]), row["code"], field, json.dumps(sides["remote"]))
        for row in _rows(connection, "open_conflicts", **_about(asked))
        if isinstance(row["detected_changes"], dict)
        for field, sides in row["detected_changes"].items()
        if isinstance(sides, dict) and "remote" in sides
    }


def read_questions(connection: Connection, codes: Iterable[int], copy: WorkingCopy) -> None:
    """What is held about these entities, into ``copy``."""
    for row in connection.execute(load("siorg_job.sync", "held.sql")["questions"], {"codes": list(codes)}).fetchall():
        entity = EntityType(row["entity_type"]), row["code"]
        if isinstance(row["changes"], Unreadable):
            copy.unreadable[entity] = unreadable_value("siorg_sync_queue", row["id"], "detected_changes", row["changes"])
            continue
        copy.held_fields.setdefault(entity, []).extend(
            HeldField(row["id"], name, sides["remote"], row["decided"])
            for name, sides in row["changes"].items()
            if isinstance(sides, dict) and "remote" in sides
        )


def hanging_wrong(connection: Connection, copy: WorkingCopy) -> list[int]:
    """Codes of units that hang elsewhere than below the units that came or left, or no longer can. After ``write``."""
    return [row["code"] for row in _rows(connection, "hanging_wrong", ids=list(copy.resettled))] if copy.resettled else []


def _rows(connection: Connection, name: str, **parameters: Any) -> list[dict[str, Any]]:
    return connection.execute(load("siorg_job.sync", "read.sql")[name], parameters).fetchall()


def _locked(lock: _Reading, read: _Reading, must_be: Callable[[dict[str, Any]], bool] = lambda _: True) -> list[dict[str, Any]]:
    """What ``read`` returns, of which those rows that ``must_be`` were locked before, and stay as they were read.

    Another row may be meant by the time that the lock is there: a person has given it the code, or made it.
    """
    locked: set[UUID] = set()
    while True:
        locked |= {row["id"] for row in lock()}
        rows = read()
        if all(row["id"] in locked for row in rows if must_be(row)):
            return rows


def _note_unreadable(row: dict[str, Any], table: str, copy: WorkingCopy) -> None:
    """Note of a row which value of it cannot be read, if one is."""
    for key, column in (("base_raw", "siorg_raw_data"), ("record", "siorg_base"), ("contact_info", "contact_info")):
        if isinstance(row.get(key), Unreadable):
            copy.unreadable[row["id"]] = unreadable_value(table, row["id"], column, row[key])


def _unit(row: dict[str, Any]) -> Unit:
    contact = row["contact_info"] if isinstance(row["contact_info"], dict) else {}
    name = row.pop("category_name")
    own_category = row["category_code"] is None and name != FALLBACK_CATEGORY
    return Unit(**_with_base(row | {"contact_info": contact, "own_category": own_category}, UnitField))


def _with_base(row: dict[str, Any], fields: Iterable[str]) -> dict[str, Any]:
    """The row with what we last wrote, as it is recorded, and with what SIORG said last, if the row was ever synced."""
    was_synced, raw, base = row.pop("was_synced"), _raw(row), read_base(row.pop("record"), row["synced_at"], fields)
    said = None if raw is None or not was_synced else parse_stored(raw if fields is OrganizationField else unrecorded(raw, base))
    return row | {"base_raw": raw, "said": said, "base": base}


def _raw(row: dict[str, Any]) -> dict[str, Any] | None:
    return row["base_raw"] if isinstance(row["base_raw"], dict) else None
