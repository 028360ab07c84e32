"""A person's decision on a conflict, read from the item that carries it. Pure.

A decision is about what the person was asked: the fields in dispute (``detected_changes``), and those that it names. All
other fields are merged as if there were no decision.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from siorg_job.siorg.model import RemoteUnit
from siorg_job.siorg.rows import parse_stored
from siorg_job.sync.model import OrganizationField, UnitField, Value, Values, plain
from siorg_queue import Item

ValuesOf: TypeAlias = Callable[[RemoteUnit], Values]
"""A SIORG row in the words of the fields."""

_ALIASES = {
    "parent_id": UnitField.PARENT,
    "siorg_parent_code": UnitField.PARENT,
    "phones": UnitField.PHONES,
    "emails": UnitField.EMAILS,
    "websites": UnitField.WEBSITES,
}
# The API server's merged_payload is a copy of the item's SIORG row: its keys, and the fields of a unit or organization there.
_SIORG_WORDS: Mapping[str, tuple[str, ...]] = {
    "nome": (UnitField.NAME,),
    "sigla": (UnitField.ACRONYM,),
    "codigoOrgaoEntidade": (UnitField.ORGANIZATION,),
    "codigoUnidadePai": (UnitField.PARENT,),
    "codigoTipoUnidade": (UnitField.UNIT_TYPE,),
    "codigoCategoriaUnidade": (UnitField.CATEGORY,),
    "areaAtuacao": (UnitField.ACTIVITY_AREA,),
    "contato": (
        *(UnitField.PHONES, UnitField.EMAILS, UnitField.WEBSITES),
        *(OrganizationField.PHONE, OrganizationField.EMAIL, OrganizationField.WEBSITE),
    ),
    "endereco": (UnitField.ADDRESS, OrganizationField.ADDRESS, OrganizationField.STATE, OrganizationField.ZIP_CODE),
}
# What field_resolutions may call our fields beside their names: columns, and SIORG's words.
_NAMES: Mapping[str, tuple[str, ...]] = {
    **{alias: (name,) for alias, name in _ALIASES.items()},
    **_SIORG_WORDS,
    "organization_id": (UnitField.ORGANIZATION,),
    "unit_type_id": (UnitField.UNIT_TYPE,),
    "category_id": (UnitField.CATEGORY,),
    "contact_info": (UnitField.PHONES, UnitField.EMAILS, UnitField.WEBSITES, UnitField.ADDRESS),
}


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a person decided about an earlier conflict, by field; about a field that is in none of these, nothing."""

    merged: Mapping[str, Value] = field(default_factory=dict)
    """The values to write."""
    keep: frozenset[str] = frozenset()
    """The fields that keep their local value."""
    take: frozenset[str] = frozenset()
    """The fields that take SIORG's value, as it is when the decision is carried out."""
    shown: Mapping[str, Any] = field(default_factory=dict)
    """What SIORG said, as JSON, when the person was asked: no other value was turned down."""

    def names(self, field: str) -> bool:
        """Whether the decision is about ``field``."""
        return field in self.merged or field in self.keep or field in self.take

    def was_shown(self, field: str, remote: Value) -> bool:
        """Whether the decision about ``field`` was made in view of this value of SIORG's."""
        return field not in self.shown or bool(plain({field: remote})[field] == self.shown[field])


class ResolutionError(ValueError):
    """A person's decision on the item cannot be read: the message names the field and what is allowed."""


def resolution_of(item: Item, fields: Iterable[str], values_of: ValuesOf | None = None) -> Resolution | None:
    """The decision that an item carries; see ``read_resolution``."""
    return read_resolution(item.error_details, fields, changes=item.detected_changes, payload=item.payload, values_of=values_of)


def read_resolution(
    error_details: Any, fields: Iterable[str], *, changes: Any = None, payload: Any = None, values_of: ValuesOf | None = None
) -> Resolution | None:
    """A person's decision from an item's ``error_details``; None when there is none.

    ACCEPT_SIORG takes SIORG's value of the fields in dispute (of all, where nothing says which those are).

    MERGE: a key of ``merged_payload`` that is one of our fields is the value to write, and ``field_resolutions`` says LOCAL or
    SIORG for a field. What is left of ``merged_payload`` may be a copied SIORG row. It counts only for fields in dispute, or
    named, about which nothing else decides; where the copy says what SIORG said, the field takes what SIORG says now.

    Args:
        error_details: the item's.
        fields: the fields of the entity.
        changes: the item's ``detected_changes``.
        payload: the item's SIORG row, of which the API server makes its copy.
        values_of: reads a copied row; without it copies do not count.

    Raises:
        ResolutionError: an unknown resolution, field or value.
    """
    if not isinstance(error_details, dict) or "resolution" not in error_details:
        return None
    known = set(fields)
    shown = _shown(changes, known)
    kind = error_details["resolution"]
    if kind == "ACCEPT_SIORG":
        return Resolution(take=frozenset(shown or known))
    if kind != "MERGE":
        raise ResolutionError(f"resolution is {kind!r}; allowed: ACCEPT_SIORG, MERGE")
    given, choices = ({} if (read := error_details.get(key)) is None else read for key in ("merged_payload", "field_resolutions"))
    if not isinstance(given, dict) or not isinstance(choices, dict):
        raise ResolutionError("merged_payload and field_resolutions must be JSON objects")
    words = _read_choices(choices, known)
    take = {name for name, word in words.items() if word == "SIORG"}
    merged = {name: value for name, value in _read_merged(given, known).items() if name not in take}
    keep = {name for name, word in words.items() if word == "LOCAL"} - merged.keys()
    asked = (shown.keys() | words.keys() if shown or choices else known) - merged.keys() - keep - take
    for name, value in _read_copy(given, payload, asked, values_of).items():
        if value is None or shown.get(name) == plain({name: value})[name]:
            take.add(name)
        else:
            merged[name] = value
    if undecided := words.keys() - merged.keys() - keep - take:
        name = min(undecided)
        raise ResolutionError(
            f"field_resolutions[{name!r}] is {words[name]!r} with no such value in merged_payload; allowed: LOCAL, SIORG"
        )
    if not merged and not take and not choices:
        raise ResolutionError(f"MERGE without any field; allowed: {', '.join(sorted(known))}")
    return Resolution(merged=merged, keep=frozenset(keep), take=frozenset(take), shown=shown)


def codes_named(error_details: Any) -> set[int]:
    """The codes of a parent and an organization that a MERGE names: they have to be looked up before it is carried out."""
    payload = error_details.get("merged_payload") if isinstance(error_details, dict) else None
    if not isinstance(payload, dict):
        return set()
    places = (UnitField.PARENT, UnitField.ORGANIZATION)
    named = {value for key, value in payload.items() if _ALIASES.get(key, key) in places and _is_code(value)}
    copy = _unit_of(payload) if _SIORG_WORDS.keys() & payload.keys() else None
    return named | ({code for code in (copy.parent_code, copy.organization_code) if code is not None} if copy else set())


def _shown(changes: Any, known: Collection[str]) -> dict[str, Any]:
    """What SIORG said in the fields that were found in dispute."""
    found = changes.items() if isinstance(changes, dict) else ()
    return {name: sides["remote"] for name, sides in found if name in known and isinstance(sides, dict) and "remote" in sides}


def _read_merged(payload: Mapping[str, Any], known: Collection[str]) -> dict[str, Value]:
    """The keys of ``merged_payload`` that are fields of ours, contact_info taken apart."""
    contact = payload.get("contact_info")
    nested = {f"contact_info.{key}": value for key, value in contact.items()} if isinstance(contact, dict) else {}
    named = {_ALIASES.get(key, key): value for key, value in {**payload, **nested}.items()}
    return {str(field): _merged_value(field, value) for field, value in named.items() if field in known}


def _read_choices(choices: Mapping[str, Any], known: Collection[str]) -> dict[str, str]:
    """What ``field_resolutions`` says of each field, in capitals; a name of one field outdoes one of several."""
    words: dict[str, str] = {}
    named = {key: [str(field) for field in _NAMES.get(key, (key,)) if field in known] for key in choices}
    for key in sorted(choices, key=lambda key: -len(named[key])):
        word = str(choices[key]).upper()
        if not named[key] and word != "LOCAL":  # a column that SIORG does not have keeps its value anyway
            raise ResolutionError(f"field_resolutions names {key!r}; allowed: {', '.join(sorted(known))}")
        words.update(dict.fromkeys(named[key], word))
    return words


def _read_copy(copy: Mapping[str, Any], original: Any, asked: Collection[str], values_of: ValuesOf | None) -> dict[str, Value]:
    """What a copied SIORG row says of the fields ``asked``: the value that a person put there, or None for SIORG's own.

    Raises:
        ResolutionError: what a person put there cannot be used.
    """
    said = {key: value for key, value in copy.items() if key in _SIORG_WORDS and value not in (None, "", [])}
    unit = _unit_of(said)
    if unit is None or values_of is None:
        return {}
    values = values_of(unit)
    before = original if isinstance(original, dict) else {}
    found: dict[str, Value] = {}
    for key, value in said.items():
        names = [str(name) for name in _SIORG_WORDS[key] if name in asked]
        if before.get(key) == value:
            found.update(dict.fromkeys(names))
        elif stated := {name: values[name] for name in names if values.get(name) is not None}:
            found |= stated
        elif names:
            raise ResolutionError(f"merged_payload.{key} cannot be read as SIORG writes it")
    return found


def _unit_of(row: Mapping[str, Any]) -> RemoteUnit | None:
    return parse_stored({**row, "codigoUnidade": 1})  # whose row it is, is known


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
        if isinstance(value, list) and all(isinstance(entry, str) and _is_printable(entry) for entry in value):
            return tuple(value)
        raise ResolutionError(f"merged_payload.{field} must be a list of texts that can be printed, not {type(value).__name__}")
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
    if not isinstance(value, str) or not value.strip() or not _is_printable(value) or len(value) > longest:
        raise ResolutionError(f"merged_payload.{field} must be a text of 1 to {longest} characters that can be printed")
    return " ".join(value.split())


def _is_printable(text: str) -> bool:
    return "".join(text.split()).isprintable()


def _is_code(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31
