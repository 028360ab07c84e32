"""A person's decision on a conflict, read from an item's ``error_details``. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from siorg_job.sync.model import OrganizationField, UnitField, Value

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


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a person decided about an earlier conflict."""

    accept_siorg: bool
    merged: Mapping[str, Value] = field(default_factory=dict)
    """MERGE: the values to write, by field."""
    keep: frozenset[str] = frozenset()
    """MERGE: the fields that keep their local value."""
    take: frozenset[str] = frozenset()
    """MERGE: the fields that take SIORG's value."""


class ResolutionError(ValueError):
    """A person's decision on the item cannot be read: the message names the field and what is allowed."""


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
    payload, choices = (
        {} if (given := error_details.get(key)) is None else given for key in ("merged_payload", "field_resolutions")
    )
    if not isinstance(payload, dict) or not isinstance(choices, dict):
        raise ResolutionError("merged_payload and field_resolutions must be JSON objects")
    known = set(fields)
    merged = _read_merged(payload, known)
    keep, take = _read_choices(choices, known, decided=set(merged))
    for key, name in _SIORG_WORDS.items():
        if key in payload and name in known - merged.keys() - keep - take:
            merged[name] = _merged_value(name, payload[key])
    if not merged and not choices:
        raise ResolutionError(f"MERGE without any field; allowed: {', '.join(sorted(known))}")
    return Resolution(accept_siorg=False, merged=merged, keep=frozenset(keep), take=frozenset(take))


def codes_named(error_details: Any) -> set[int]:
    """The codes of a parent and an organization that a MERGE names: they have to be looked up before it is carried out."""
    payload = error_details.get("merged_payload") if isinstance(error_details, dict) else None
    if not isinstance(payload, dict):
        return set()
    places = (UnitField.PARENT, UnitField.ORGANIZATION)
    return {value for key, value in payload.items() if _ALIASES.get(key, key) in places and _is_code(value)}


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
    {UnitField.ACRONYM, UnitField.PARENT, UnitField.ADDRESS, *OrganizationField}
    - {OrganizationField.NAME, OrganizationField.IS_ACTIVE}
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
        if _is_code(value):
            return int(value)
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


def _is_code(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31
