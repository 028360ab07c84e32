"""The base of the next merge: what we last wrote into a row, recorded field by field (column ``siorg_base``). Pure.

What SIORG said then is no base: each wrong write of ours would look like a person's edit for ever. Where nothing is recorded
(rows of the first worker, and those that it has written since) ``siorg_raw_data`` stands in, field by field.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from siorg_job.siorg.rows import parse_stored
from siorg_job.siorg.values import normalise
from siorg_job.sync.model import PLACE, OrganizationField, UnitField, Values, comparable, plain

_FORMAT = 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_SHORT: Mapping[str, str] = {
    UnitField.NAME: "n",
    UnitField.ACRONYM: "a",
    UnitField.ORGANIZATION: "o",
    UnitField.PARENT: "p",
    UnitField.UNIT_TYPE: "t",
    UnitField.CATEGORY: "c",
    UnitField.ACTIVITY_AREA: "r",
    UnitField.PHONES: "f",
    UnitField.EMAILS: "e",
    UnitField.WEBSITES: "w",
    UnitField.ADDRESS: "d",
    UnitField.IS_ACTIVE: "x",
    OrganizationField.ADDRESS: "d",
    OrganizationField.STATE: "s",
    OrganizationField.ZIP_CODE: "z",
    OrganizationField.PHONE: "f",
    OrganizationField.EMAIL: "e",
    OrganizationField.WEBSITE: "w",
}
"""Keys of the record: a hundred thousand rows have one each."""

_CONTACT = frozenset({UnitField.PHONES, UnitField.EMAILS, UnitField.WEBSITES})
_SAID_IN: Mapping[str, frozenset[UnitField]] = {
    "codigoUnidade": frozenset(),
    "operacao": frozenset({UnitField.IS_ACTIVE}),
    "nome": frozenset({UnitField.NAME}),
    "sigla": frozenset({UnitField.ACRONYM}),
    "codigoOrgaoEntidade": frozenset(PLACE),
    "codigoUnidadePai": frozenset(PLACE),
    "codigoTipoUnidade": frozenset({UnitField.UNIT_TYPE}),
    "codigoCategoriaUnidade": frozenset({UnitField.CATEGORY}),
    "areaAtuacao": frozenset({UnitField.ACTIVITY_AREA}),
    "contato": _CONTACT,
    "endereco": frozenset({UnitField.ADDRESS}),
}
"""Keys of SIORG's row, and the fields of a unit that are said there."""


@dataclass(frozen=True, slots=True)
class Base:
    """What is recorded of a row; a field that is not in it was never written by us."""

    values: Values = field(default_factory=dict)
    turned_down: Values = field(default_factory=dict)
    """What SIORG said where a person decided for another value: no news while it says so still."""

    def record(self, synced_at: datetime | None) -> dict[str, Any]:
        """As the column keeps it, with the time of the sync that it belongs to."""
        made = {
            "v": _FORMAT,
            "at": None if synced_at is None else (synced_at - _EPOCH) // _MICROSECOND,
            **_shortened(self.values),
        }
        return made | ({"no": _shortened(self.turned_down)} if self.turned_down else {})


def _shortened(values: Values) -> dict[str, Any]:
    return {_SHORT[name]: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def read_base(record: Any, synced_at: datetime | None, fields: Iterable[str]) -> Base | None:
    """The record of a row whose last sync was at ``synced_at``.

    None where there is none, where it has another form, and where it belongs to an earlier sync: somebody who does not know
    of records has written the row since.
    """
    if not isinstance(record, dict) or record.get("v") != _FORMAT or synced_at is None:
        return None
    if record.get("at") != (synced_at - _EPOCH) // _MICROSECOND:
        return None
    names = tuple(fields)
    return Base(_read(record, names), _read(record.get("no"), names))


def unrecorded(stored: Mapping[str, Any], base: Base | None) -> Mapping[str, Any]:
    """Of a unit's row as SIORG said it last, what stands in for what is not recorded: to read the rest is most of the work."""
    if base is None or "codigoUnidade" not in stored:
        return stored
    recorded = base.values.keys()
    return {key: stored[key] for key, fields in _SAID_IN.items() if key in stored and not (fields and fields <= recorded)}


def _read(found: Any, fields: Iterable[str]) -> Values:
    """What is recorded, but for what no field can have: somebody wrote that by hand."""
    stored = {name: found[_SHORT[name]] for name in fields if _SHORT[name] in found} if isinstance(found, dict) else {}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items() if _is_value(value)}


def _is_value(stored: Any) -> bool:
    if isinstance(stored, list):
        return all(isinstance(entry, str) for entry in stored)
    return stored is None or isinstance(stored, str | int)


def next_record(
    base: Base | None,
    after: Values,
    remote: Values,
    decided: Collection[str],
    turned_down: Mapping[str, Any] | None = None,
    together: Collection[frozenset[str]] = (),
) -> Base:
    """The record after a merge.

    A field that has SIORG's value now, written or agreed upon, is recorded so; a person's value never is.

    Args:
        base: what was recorded before.
        after: the row's values now.
        remote: what SIORG says.
        decided: fields about which a person decided just now.
        turned_down: by field, as JSON, what SIORG said where a person decided for another value: as it is recorded, and as the
            queue has it, which forgets it one day.
        together: fields that are one value.
    """
    values, still_down = (dict(base.values), dict(base.turned_down)) if base is not None else ({}, {})
    seen = turned_down or {}
    said = plain(remote) if seen else {}
    apart = {
        name
        for name, theirs in remote.items()
        if theirs not in (None, after.get(name)) and comparable(theirs) not in (None, comparable(after.get(name)))
    }
    for group in together:
        if group & apart:
            apart |= group
    for name, theirs in remote.items():
        if theirs is None:
            continue
        if name not in apart:
            values[name] = theirs
        if name in apart and (name in decided or (name in seen and seen[name] == said[name])):
            still_down[name] = theirs
        else:
            still_down.pop(name, None)
    return Base(values, still_down)


_CONTACTS = (("telefone", "phones"), ("email", "emails"), ("site", "websites"))


def next_raw(stored: Mapping[str, Any] | None, answer: str) -> dict[str, Any]:
    """SIORG's row as it is stored after ``answer`` (JSON text of a unit): what was said replaces, what was not said stays.

    Kinds of contact are fields by themselves although they share the key ``contato``: a kind that the answer leaves out
    stays too, as an entry of its own.
    """
    said = {key: value for key, value in json.loads(answer).items() if _says_something(value)}
    raw: dict[str, Any] = {**(stored or {}), **said}
    raw.pop("operacao", None)  # what happened, not how the unit is
    if stored and "contato" in said:
        before, after = parse_stored(stored), parse_stored(raw)
        left_out = [
            {key: list(getattr(before, name))}
            for key, name in _CONTACTS
            if before is not None and getattr(before, name) and getattr(after, name, ()) is None
        ]
        if left_out:
            contacts = said["contato"] if isinstance(said["contato"], list) else [said["contato"]]
            raw["contato"] = [*contacts, *left_out]
    return raw


def _says_something(value: Any) -> bool:
    return bool(normalise(value)) if isinstance(value, str) else value not in (None, [])


def ended_raw(stored: Mapping[str, Any] | None) -> dict[str, Any]:
    """SIORG's row as it is stored once SIORG has ended it."""
    return {**(stored or {}), "operacao": "EXCLUSAO"}
