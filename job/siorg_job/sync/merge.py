"""The three-way merge: base (what was last synced), local (the row now), remote (the fetch). Pure.

Field by field: local = base → take remote; remote = base → keep local; both moved to the same value → agree; both moved
apart → conflict, and then nothing of the item is applied. What the remote does not say is no change: absence never erases.
A row without a base was never synced: there SIORG wins, and history keeps what was. A field on which SIORG was silent at the
last sync has nothing for its base: what a person filled in meanwhile is an edit like any other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from siorg_job.siorg.model import DomainRow, RemoteUnit
from siorg_job.sync.model import (
    Change,
    Conflict,
    Decision,
    DomainField,
    NoChange,
    OrganizationField,
    Refusal,
    Resolution,
    UnitField,
    Value,
    Values,
    plain,
)

_ALIASES = {
    "parent_id": UnitField.PARENT,
    "siorg_parent_code": UnitField.PARENT,
    "phones": UnitField.PHONES,
    "emails": UnitField.EMAILS,
    "websites": UnitField.WEBSITES,
}
# The API server builds merged_payload from the item's payload, which is a SIORG row: these are its words for our fields.
_SIORG_WORDS = {
    "nome": UnitField.NAME,
    "sigla": UnitField.ACRONYM,
}


class ResolutionError(ValueError):
    """A person's decision on the item cannot be read: the message names the field and what is allowed."""


def remote_unit_values(unit: RemoteUnit) -> Values:
    """A fetched unit in the words of ``UnitField``; None where SIORG did not say."""
    return {
        UnitField.NAME: unit.name,
        UnitField.ACRONYM: unit.acronym,
        UnitField.ORGANIZATION: unit.organization_code,
        UnitField.PARENT: unit.parent_code,
        UnitField.UNIT_TYPE: unit.type_slug,
        UnitField.CATEGORY: unit.category_code,
        UnitField.ACTIVITY_AREA: unit.activity_area,
        UnitField.PHONES: unit.phones,
        UnitField.EMAILS: unit.emails,
        UnitField.WEBSITES: unit.websites,
        UnitField.ADDRESS: unit.address,
        UnitField.IS_ACTIVE: not unit.ended,
    }


def remote_organization_values(unit: RemoteUnit) -> Values:
    """A fetched órgão or entidade in the words of ``OrganizationField``."""
    return {
        OrganizationField.NAME: unit.name,
        OrganizationField.ACRONYM: unit.acronym,
        OrganizationField.ADDRESS: unit.address,
        OrganizationField.STATE: unit.state,
        OrganizationField.ZIP_CODE: unit.zip_code,
        OrganizationField.PHONE: _first(unit.phones, 50),
        OrganizationField.EMAIL: _first(unit.emails, 255),
        OrganizationField.WEBSITE: _first(unit.websites, 255),
        OrganizationField.IS_ACTIVE: not unit.ended,
    }


def remote_domain_values(row: DomainRow) -> Values:
    """A row of a domain table in the words of ``DomainField``."""
    return {DomainField.NAME: row.name, DomainField.IS_ACTIVE: row.active}


def _first(values: tuple[str, ...] | None, longest: int) -> str | None:
    return next((value for value in values or () if len(value) <= longest), None)


def decide(
    *,
    base: Values | None,
    local: Values,
    remote: Values,
    resolution: Resolution | None = None,
    strict_hierarchy: bool = False,
) -> Decision:
    """Merge one entity that exists locally.

    Args:
        base: the values at the last sync; None when it was never synced.
        local: the row now.
        remote: what SIORG says.
        resolution: a person's decision about an earlier conflict.
        strict_hierarchy: a move is a conflict (setting ``siorg.hierarchy_strict_mode``), unless a person decided.
    """
    changed: dict[str, Value] = {}
    apart: dict[str, Mapping[str, Value]] = {}
    for field, theirs in remote.items():
        mine = local.get(field)
        before = None if base is None else base.get(field)
        if resolution is not None and (decided := _decided(field, mine, theirs, resolution)) is not None:
            changed.update(decided)
            continue
        if theirs is None or mine == theirs:
            continue
        if base is None or _same(mine, before) or _same(mine, theirs):
            changed[field] = theirs
        elif theirs != before:
            apart[field] = {"base": before, "local": mine, "remote": theirs}
    moved = UnitField.PARENT in changed or UnitField.ORGANIZATION in changed
    if apart:
        return Conflict(apart, "changed here and in SIORG: " + ", ".join(sorted(apart)))
    if moved and strict_hierarchy and base is not None and resolution is None:
        fields = [field for field in (UnitField.PARENT, UnitField.ORGANIZATION) if field in changed]
        return Conflict(
            {field: {"base": base.get(field), "local": local.get(field), "remote": remote[field]} for field in fields},
            "the unit moved in SIORG, and siorg.hierarchy_strict_mode is on",
        )
    return Change(changed, moved=moved) if changed else NoChange()


def _decided(field: str, mine: Value, theirs: Value, resolution: Resolution) -> dict[str, Value] | None:
    """What the person's decision writes into this field (nothing where it has the value); None: it does not name the field."""
    if field in resolution.merged:
        wanted = resolution.merged[field]
    elif field in resolution.keep:
        wanted = mine
    elif theirs is not None and (resolution.accept_siorg or field in resolution.take):
        wanted = theirs
    else:
        return None
    return {} if wanted == mine else {field: wanted}


def differences(*, base: Values | None, local: Values, remote: Values) -> dict[str, Mapping[str, Value]]:
    """Everything in which local and remote differ, for a person to look at."""
    return {
        field: {"base": None if base is None else base.get(field), "local": local.get(field), "remote": theirs}
        for field, theirs in remote.items()
        if theirs is not None and theirs != local.get(field)
    }


def check_creation(unit: RemoteUnit) -> Refusal | None:
    """What a unit must say of itself to be created; None when it says enough."""
    for word, value in (("nome", unit.name), ("codigoTipoUnidade", unit.type_slug)):
        if value is None:
            return Refusal(f"SIORG gives no {word} for unit {unit.code}: it cannot be created", "invalid_answer")
    return None


def _same(one: Value, other: Value) -> bool:
    """Equal but for white space: dirt of an earlier import is no edit of a person."""
    if isinstance(one, str) and isinstance(other, str):
        return " ".join(one.split()) == " ".join(other.split())
    return one == other or (not one and not other and not isinstance(one, bool) and not isinstance(other, bool))


def read_resolution(error_details: Any, fields: Iterable[str]) -> Resolution | None:
    """A person's decision from an item's ``error_details``; None when there is none.

    MERGE: a key of ``merged_payload`` that is one of our fields is the value to write; ``field_resolutions`` says LOCAL or
    SIORG for a field; what is left of ``merged_payload`` may be a SIORG row (the API server copies it), and only its name
    and acronym are taken from there.

    Raises:
        ResolutionError: an unknown resolution, field or value.
    """
    if not isinstance(error_details, dict) or "resolution" not in error_details:
        return None
    kind = error_details["resolution"]
    if kind == "ACCEPT_SIORG":
        return Resolution(accept_siorg=True)
    if kind != "MERGE":
        raise ResolutionError(f"resolution is {kind!r}; allowed: ACCEPT_SIORG, MERGE")
    payload = error_details.get("merged_payload")
    if payload is None:
        payload = {}
    choices = error_details.get("field_resolutions")
    if choices is None:
        choices = {}
    if not isinstance(payload, dict) or not isinstance(choices, dict):
        raise ResolutionError("merged_payload and field_resolutions must be JSON objects")
    known = set(fields)
    merged = _read_merged(payload, known)
    keep, take = _read_choices(choices, known, decided=set(merged))
    for key, field in _SIORG_WORDS.items():
        if key in payload and field in known - merged.keys() - keep - take:
            merged[field] = _merged_value(field, payload[key])
    if not merged and not choices:
        raise ResolutionError(f"MERGE without any field; allowed: {', '.join(sorted(known))}")
    return Resolution(accept_siorg=False, merged=merged, keep=frozenset(keep), take=frozenset(take))


def _read_merged(payload: Mapping[str, Any], known: Collection[str]) -> dict[str, Value]:
    """The keys of ``merged_payload`` that are fields of ours, contact_info taken apart."""
    contact = payload.get("contact_info")
    nested = {f"contact_info.{key}": value for key, value in contact.items()} if isinstance(contact, dict) else {}
    named = {_ALIASES.get(key, key): value for key, value in {**payload, **nested}.items()}
    return {str(field): _merged_value(field, value) for field, value in named.items() if field in known}


def _read_choices(choices: Mapping[str, Any], known: Collection[str], decided: Collection[str]) -> tuple[set[str], set[str]]:
    """The fields that keep their local value, and those that take SIORG's."""
    keep, take = set[str](), set[str]()
    for key, choice in choices.items():
        field = str(_ALIASES.get(key, _SIORG_WORDS.get(key, key)))
        word = str(choice).upper()
        if field not in known:
            if word == "LOCAL":
                continue  # a column that SIORG does not have keeps its value anyway
            raise ResolutionError(f"field_resolutions names {key!r}; allowed: {', '.join(sorted(known))}")
        if field in decided:
            continue
        if word not in ("LOCAL", "SIORG"):
            raise ResolutionError(
                f"field_resolutions[{key!r}] is {choice!r} with no such value in merged_payload; allowed: LOCAL, SIORG"
            )
        (keep if word == "LOCAL" else take).add(field)
    return keep, take


# Null clears these; without a parent a unit is directly under its organization.
_CLEARABLE: frozenset[str] = frozenset(
    {
        UnitField.ACRONYM,
        UnitField.PARENT,
        UnitField.ADDRESS,
        OrganizationField.ADDRESS,
        OrganizationField.STATE,
        OrganizationField.ZIP_CODE,
        OrganizationField.PHONE,
        OrganizationField.EMAIL,
        OrganizationField.WEBSITE,
    }
)
_LONGEST: dict[str, int] = {"name": 255, "acronym": 50, "state": 2, "zip_code": 10, "phone": 50}


def _merged_value(field: str, value: Any) -> Value:
    """One value of a merged payload in our form.

    Raises:
        ResolutionError: the value is not of the field's type.
    """
    if field in (UnitField.PHONES, UnitField.EMAILS, UnitField.WEBSITES):
        if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
            return tuple(value)
        raise ResolutionError(f"merged_payload.{field} must be a list of texts, not {type(value).__name__}")
    if value is None and field in _CLEARABLE:
        return None
    if field in (UnitField.PARENT, UnitField.ORGANIZATION, UnitField.CATEGORY):
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31:
            return value
        raise ResolutionError(f"merged_payload.{field} must be a SIORG code (a positive integer)")
    if field == UnitField.IS_ACTIVE:
        if isinstance(value, bool):
            return value
        raise ResolutionError("merged_payload.is_active must be true or false")
    if field == UnitField.ACTIVITY_AREA and value not in ("CORE", "SUPPORT"):
        raise ResolutionError("merged_payload.activity_area must be CORE or SUPPORT")
    longest = _LONGEST.get(field, 255)
    if not isinstance(value, str) or not value.strip() or "\0" in value or len(value) > longest:
        raise ResolutionError(f"merged_payload.{field} must be a text of 1 to {longest} characters")
    return " ".join(value.split())


def with_kept(base: Values | None, remote: Values, kept: Mapping[str, Any]) -> Values | None:
    """The base of the merge after a person kept local values: SIORG's values they were shown then, where it still says them.

    Args:
        base: the values at the last sync.
        remote: what SIORG says now.
        kept: by field, as JSON, what SIORG said when the person decided.
    """
    if base is None or not kept:
        return base
    now = plain(remote)
    seen = {field: value for field, value in remote.items() if value is not None and field in kept and kept[field] == now[field]}
    return {**base, **seen}


def as_json(differences: Mapping[str, Mapping[str, Value]]) -> dict[str, Any]:
    """``detected_changes`` as it is stored."""
    return {field: plain(sides) for field, sides in differences.items()}
