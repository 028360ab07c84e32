"""What the rows of SIORG's tables of categories and types are here: which is which, and what was written of them. Pure.

A category has one number, in SIORG and here. Of a type SIORG has letters (``UA``), its units have a slug
(``unidade-administrativa``), and a number is known only where a person gave one: it is found by that, by the letters it was
last synced with, by the slug that these are known to have, and by the slug of its name, in this order. Items and history,
which need a number, have for a type without one a number made of SIORG's letters; the row does not get it.
"""

from __future__ import annotations

import contextlib
import re
import unicodedata
from binascii import crc32
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from siorg_job.siorg import values
from siorg_job.siorg.errors import InvalidData
from siorg_job.siorg.model import MAX_CODE, DomainRow
from siorg_job.siorg.rows import stored_is_active
from siorg_job.siorg.values import member
from siorg_job.sync.local_rows import Domain
from siorg_job.sync.model import DomainField, Values, comparable
from siorg_queue import EntityType

LONGEST_NAME = 100
LONGEST_BEFORE_CODE = 80


@dataclass(frozen=True, slots=True)
class Pair:
    """A row here and SIORG's; one of the two may be missing."""

    local: Domain | None
    remote: DomainRow | None
    number: int | None
    """By which items and history name it; None for a row here that SIORG never had."""


def pairs(entity_type: EntityType, rows: Sequence[Domain], table: Sequence[DomainRow]) -> list[Pair]:
    """Every row of SIORG's with the one that it is here, and what is left of the rows here."""
    left = {row.id: row for row in rows}
    found: dict[int | str, Domain] = {}
    for is_same in _SAME[entity_type]:
        for remote in table:
            same = next((row for row in left.values() if is_same(row, remote)), None) if remote.code not in found else None
            if same is not None:
                found[remote.code] = left.pop(same.id)
    both = [Pair(found.get(remote.code), remote, _number(found.get(remote.code), remote.code)) for remote in table]
    return both + [Pair(row, None, _number(row, _stored_letters(row))) for row in left.values()]


def code_of(remote: DomainRow) -> int | None:
    """The number that SIORG's row has as such."""
    text = str(remote.code)
    return int(text) if text.isdecimal() and 0 < int(text) <= MAX_CODE else None


def slug_of(remote: DomainRow) -> str:
    """The slug by which SIORG's units refer to a type: known for its letters, else that of its name (reference §7)."""
    letters = str(remote.code).lower()
    slug = values.type_slug(letters, "")
    return slug if slug is not None and slug != letters else _slug(remote.name)


def _slug(name: str) -> str:
    """Lower case, no accents, everything else a hyphen."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]", "-", ascii_name.lower()).strip("-")


def _number(local: Domain | None, code: int | str | None) -> int | None:
    if local is not None and local.code is not None:
        return local.code
    if code is None or isinstance(code, int):
        return code
    return int(code) if code.isdecimal() and 0 < int(code) <= MAX_CODE else crc32(code.upper().encode()) % MAX_CODE + 1


def _stored_letters(row: Domain) -> str | None:
    with contextlib.suppress(InvalidData):
        return values.type_letters(member(row.base_raw or {}, "codigoTipoUnidade"), "codigoTipoUnidade")
    return None


_SAME: Mapping[EntityType, Sequence[Callable[[Domain, DomainRow], bool]]] = {
    EntityType.CATEGORY: (lambda row, remote: row.code == remote.code,),
    EntityType.TYPE: (
        lambda row, remote: row.code is not None and row.code == code_of(remote),
        lambda row, remote: _stored_letters(row) == remote.code,
        lambda row, remote: row.slug == slug_of(remote),
        lambda row, remote: row.slug == _slug(remote.name),
    ),
}


# -- the base of the merge ----------------------------------------------------------------------------------------------


def is_of(name: str, said: str | None, code: int | None) -> bool:
    """Whether a name is one that a sync makes of SIORG's (but for white space), and no person's edit."""
    if said is None:
        return False
    name = " ".join(name.split())
    bare = re.escape(said[:LONGEST_BEFORE_CODE])
    return name == said[:LONGEST_NAME] or re.fullmatch(rf"{bare} \({code}(, \d+)?\)", name) is not None


def base_of(row: Domain) -> Values | None:
    """What we last wrote, where it is recorded; else what SIORG said last stands in. None of a row that was never synced.

    A row that a unit brought has the name that was written then (``siorg_name``), although nobody asked for the table.
    """
    recorded = {} if row.base is None else row.base.values
    if not recorded and row.siorg_name is None and row.base_raw is None:
        return None
    stand_in: Values = {
        DomainField.NAME: row.name if is_of(row.name, row.siorg_name, row.code) else row.siorg_name,
        DomainField.IS_ACTIVE: row.base_raw is None or stored_is_active(row.base_raw),
    }
    return {**stand_in, **recorded}


def is_ours(row: Domain, said: str) -> bool:
    """Whether the name of a row is ours: as we last wrote it, never synced, or made of what SIORG says now."""
    base = base_of(row)
    return base is None or comparable(row.name) == comparable(base.get(DomainField.NAME)) or is_of(row.name, said, row.code)


def remote_values(row: Domain, remote: DomainRow, name: str, turned_down: Mapping[str, Any]) -> Values:
    """SIORG's row in the words of ``DomainField``, as the merge compares it.

    A name that SIORG did not change is no news for a row that a person renamed, whatever it would be called here by now.

    Args:
        row: the row here.
        remote: SIORG's.
        name: what it would be called here.
        turned_down: what SIORG said where a person decided for another value.
    """
    if not is_ours(row, remote.name):
        known = ((base_of(row) or {}).get(DomainField.NAME), turned_down.get(DomainField.NAME))
        name = next((old for old in known if isinstance(old, str) and is_of(old, remote.name, row.code)), name)
    return {DomainField.NAME: name, DomainField.IS_ACTIVE: remote.active}
