"""Reading the working copy: what a group of items touches, under lock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from siorg_job.database.system_settings import MAX_DEPTH, STRICT_HIERARCHY, read_boolean, read_settings, read_whole_number
from siorg_job.siorg.rows import parse_stored
from siorg_job.sync.model import Evidence, OrganizationField
from siorg_job.sync.working_copy import Ancestor, Child, Kept, Local, LocalDomain, LocalOrganization, LocalUnit
from siorg_queue import Connection, EntityType, Item, Operation
from siorg_queue.statements import load

_DEFAULT_DEPTH = 10


def read(connection: Connection, works: Sequence[tuple[Item, Evidence]]) -> Local:
    """Lock and read what the items touch. Inside the caller's transaction, fence first."""
    sql = load("siorg_job.sync", "read.sql")
    local = Local()
    settings = read_settings(connection, [STRICT_HIERARCHY, MAX_DEPTH])
    local.strict_hierarchy = read_boolean(STRICT_HIERARCHY, settings.get(STRICT_HIERARCHY), unset=False, unreadable=True)
    local.max_depth = read_whole_number(MAX_DEPTH, settings.get(MAX_DEPTH), unset=_DEFAULT_DEPTH)

    remotes = [unit for _, evidence in works for unit in (evidence.unit, *evidence.ancestors) if unit is not None]
    unit_items = [item for item, _ in works if item.entity_type is EntityType.UNIT]
    organization_codes = {unit.organization_code for unit in remotes if unit.organization_code is not None}
    organization_codes |= {item.siorg_code for item, _ in works if item.entity_type is EntityType.ORGANIZATION}
    merged = {code for item, _ in works for code in _merged_codes(item.error_details)}
    local_ids: dict[int, UUID | None] = {unit.code: None for unit in remotes}
    local_ids |= {item.siorg_code: item.local_id for item in unit_items}
    codes = sorted(local_ids)

    connection.execute(sql["lock_organizations"], {"organizations": sorted(organization_codes), "codes": codes})
    changing = [item.siorg_code for item, _ in works if item.siorg_code in organization_codes]
    if changing:
        connection.execute(sql["organizations_for_change"], {"codes": sorted(changing)})
    for row in connection.execute(
        sql["organizations"], {"codes": sorted(organization_codes | merged), "unit_codes": codes}
    ).fetchall():
        local.organizations[row["code"]] = _organization(row)
    ending = [
        local.organizations[item.siorg_code].id
        for item, _ in works
        if item.operation is not Operation.UPDATE and item.siorg_code in local.organizations
    ]
    if ending:
        units = {row["organization_id"]: row["units"] for row in connection.execute(sql["active_units"], {"ids": ending})}
        for organization in local.organizations.values():
            organization.active_units = units.get(organization.id, 0)

    if codes:
        rows = connection.execute(sql["units"], {"codes": codes, "local_ids": [local_ids[code] for code in codes]}).fetchall()
        for row in rows:
            if row["code"] not in local.units:
                local.add(_unit(row))
        parents = {unit.parent_code for unit in remotes if unit.parent_code is not None} | merged
        above = {unit.parent_id for unit in local.units.values() if unit.parent_id is not None}
        if parents or above:
            for row in connection.execute(sql["ancestors"], {"codes": sorted(parents), "ids": list(above)}).fetchall():
                local.ancestors[row["id"]] = Ancestor(**row)
        ended = [
            local.units[item.siorg_code].id
            for item, evidence in works
            if item.entity_type is EntityType.UNIT
            and item.siorg_code in local.units
            and (evidence.unit is None or evidence.unit.ended)
        ]
        if ended:
            for row in connection.execute(sql["children"], {"ids": ended}).fetchall():
                local.children.setdefault(row.pop("parent_id"), []).append(Child(**row))
    _read_domains(connection, local)
    _read_kept(connection, local, works)
    return local


def _read_kept(connection: Connection, local: Local, works: Sequence[tuple[Item, Evidence]]) -> None:
    sql = load("siorg_job.sync", "read.sql")
    codes = {item.siorg_code for item, _ in works} | {unit.code for _, evidence in works for unit in evidence.ancestors}
    for row in connection.execute(sql["kept"], {"codes": sorted(codes)}).fetchall():
        entity_type = EntityType(row["entity_type"])
        if entity_type is EntityType.UNIT and row["code"] in local.organizations:
            entity_type = EntityType.ORGANIZATION  # an organization that was enqueued as a unit
        remote = {field: sides["remote"] for field, sides in row["detected_changes"].items() if _has_remote(sides)}
        local.kept.setdefault((entity_type, row["code"]), []).append(Kept(row["decided_at"], remote))


def _has_remote(sides: Any) -> bool:
    return isinstance(sides, dict) and "remote" in sides


def _merged_codes(error_details: Any) -> Iterable[int]:
    """Codes that a person's merge names: a parent, an organization."""
    payload = error_details.get("merged_payload") if isinstance(error_details, dict) else None
    for key in ("parent", "parent_id", "siorg_parent_code", "organization"):
        value = payload.get(key) if isinstance(payload, dict) else None
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31:
            yield value


def _organization(row: dict[str, Any]) -> LocalOrganization:
    raw = row["siorg_raw_data"] if isinstance(row["siorg_raw_data"], dict) else None
    return LocalOrganization(
        id=row["id"],
        code=row["code"],
        fields={str(field): row[field] for field in OrganizationField},
        synced_at=row["synced_at"],
        base=parse_stored(raw) if raw is not None and row["was_synced"] else None,
        base_raw=raw,
    )


def _unit(row: dict[str, Any]) -> LocalUnit:
    raw = row["siorg_raw_data"] if isinstance(row["siorg_raw_data"], dict) else None
    return LocalUnit(
        id=row["id"],
        code=row["code"],
        organization_id=row["organization_id"],
        organization_code=row["organization_code"],
        parent_id=row["parent_id"],
        parent_code=row["parent_code"],
        siorg_parent_code=row["siorg_parent_code"],
        siorg_parent_is_local=row["siorg_parent_is_local"],
        category_id=row["category_id"],
        category_code=row["category_code"],
        unit_type_id=row["unit_type_id"],
        type_slug=row["type_slug"],
        name=row["name"],
        acronym=row["acronym"],
        activity_area=row["activity_area"],
        contact_info=row["contact_info"] if isinstance(row["contact_info"], dict) else {},
        level=row["level"],
        is_active=row["is_active"],
        synced_at=row["synced_at"],
        base=parse_stored(raw) if raw is not None and row["was_synced"] else None,
        base_raw=raw,
        url=row["siorg_url"],
        version=row["siorg_last_version"],
    )


def _read_domains(connection: Connection, local: Local) -> None:
    sql = load("siorg_job.sync", "read.sql")
    for row in connection.execute(sql["types"]).fetchall():
        local.types[row["slug"]] = _domain(row, EntityType.TYPE)
    local.categories = [_domain(row, EntityType.CATEGORY) for row in connection.execute(sql["categories"]).fetchall()]


def _domain(row: dict[str, Any], entity_type: EntityType) -> LocalDomain:
    return LocalDomain(
        id=row["id"],
        entity_type=entity_type,
        code=row["siorg_code"],
        slug=row["slug"] if entity_type is EntityType.TYPE else None,
        name=row["name"],
        is_active=row["is_active"],
        siorg_name=row["siorg_name"],
        synced_at=row["synced_at"],
        base_raw=row["siorg_raw_data"] if isinstance(row["siorg_raw_data"], dict) else None,
        managed=row["managed"],
    )
