"""The registered organizations, in the database: listed, registered, corrected by a person.

SIORG serves neither CNPJ nor UG code, so that a registration is a person's. What SIORG serves of an organization may be
corrected too: the sync takes that for a person's edit, as every other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import psycopg

from siorg_queue import Connection, Unreadable, describe, transaction
from siorg_queue.statements import load

Columns: TypeAlias = Mapping[str, Any]
"""Columns of ``organizations`` that a person gives, and their values."""

_IN_PATHS = frozenset({"name", "acronym"})  # which of them begins the path of a unit, is the database's trigger's business


class Refused(Exception):
    """The database does not take this row; the message is for a person."""


@dataclass(frozen=True, slots=True)
class Edit:
    """What an edit changed."""

    acronym: str
    """As it is now."""
    changed: Mapping[str, tuple[Any, Any]]
    """Before and after, of every column that has another value now."""
    siorg_raw: Mapping[str, Any] | None
    """SIORG's row at the last sync; None: it was never synced."""
    other_main: tuple[str, ...]
    """Active organizations beside this one that are marked as main."""


def listed(connection: Connection) -> list[dict[str, Any]]:
    """Every registered organization, by code."""
    with transaction(connection):
        return connection.execute(_sql()["list"]).fetchall()


def acronym_of(connection: Connection, code: int) -> str | None:
    """The acronym of a registered organization; None: it is not registered."""
    with transaction(connection):
        return next((holder["acronym"] for holder in _holders(connection, code, None)), None)


def check_free(connection: Connection, code: int, cnpj: str) -> None:
    """Look whether an organization can still be registered under this code and CNPJ.

    Raises:
        Refused: it cannot; the message names the one that has it.
    """
    with transaction(connection):
        holders = _holders(connection, code, cnpj)
    for holder in holders:
        if holder["code"] == code:
            state, hint = ("", "edit {} corrects it") if holder["is_active"] else ("not active, ", "reactivate {} brings it back")
            raise Refused(
                f"the SIORG code {code} is registered already: {holder['acronym']}, {state}CNPJ {holder['cnpj']};"
                f" siorg-job organizations {hint.format(code)}"
            )
    _check_cnpj(holders, code, cnpj)


def register(connection: Connection, code: int, columns: Columns) -> None:
    """Register an organization.

    Raises:
        Refused: by the database.
    """
    with _in_plain_words(connection, columns), transaction(connection):
        connection.execute(_sql()["add"], {**columns, "code": code})


def edit(connection: Connection, code: int, columns: Columns) -> Edit | None:
    """Write these columns of a registered organization; None: it is not registered.

    Raises:
        Refused: by the database.
    """
    read, write = (load("siorg_job.sync", file) for file in ("read.sql", "write.sql"))
    with _in_plain_words(connection, columns), transaction(connection):
        # In turn with the sync, which writes whole rows and paths as it read them under this lock.
        connection.execute(read["lock"], {"organizations": [code], "codes": [], "domains": False})
        row = connection.execute(_sql()["for_edit"], {"code": code}).fetchone()
        if row is None:
            return None
        changed = {name: (row[name], value) for name, value in columns.items() if row[name] != value}
        if "cnpj" in changed:
            _check_cnpj(_holders(connection, code, columns["cnpj"]), code, columns["cnpj"])
        if changed:
            connection.execute(_sql()["edit"], {**row, **columns})
        if changed.keys() & _IN_PATHS:
            roots = [unit["id"] for unit in connection.execute(write["refresh_roots"], {"ids": [row["id"]]}).fetchall()]
            connection.execute(write["descendants_for_change"], {"ids": roots})
            connection.execute(write["refresh_descendants"], {"ids": roots})
        main = connection.execute(_sql()["other_main"], {"code": code}).fetchall()
    siorg_raw = row["base_raw"] if row["was_synced"] else None
    siorg_raw = {} if isinstance(siorg_raw, Unreadable) else siorg_raw
    others = tuple(f"{one['acronym']} ({one['code']})" for one in main)
    return Edit(columns.get("acronym", row["acronym"]), changed, siorg_raw, others)


@dataclass(frozen=True, slots=True)
class ForEnd:
    """An organization that a person wants to end."""

    code: int
    acronym: str
    name: str
    is_active: bool
    units: int
    """Active units that SIORG may know: those that it has nowhere end too."""
    unofficial: int
    """Active units without a SIORG code: they stay."""
    has_ended: bool
    """SIORG had it no more when it was last asked."""


def for_end(connection: Connection, codes: Sequence[int]) -> list[ForEnd]:
    """What would end with these organizations; those that are not here are left out."""
    with transaction(connection):
        return [ForEnd(**row) for row in connection.execute(_sql()["for_end"], {"codes": list(codes)}).fetchall()]


def decide_end(connection: Connection, codes: Sequence[int], *, by: str | None, note: str | None) -> None:
    """Put a person's decision on the queue that these end; the next run carries it out, if SIORG says so still."""
    with transaction(connection):
        connection.execute(load("siorg_queue", "produce.sql")["enqueue_lock"])
        connection.execute(_sql()["decide_end"], {"codes": list(codes), "by": by, "note": note})


def reactivate(connection: Connection, codes: Sequence[int], *, by: str | None, note: str | None) -> list[int]:
    """Make these organizations active again; returns those that were not."""
    lock = load("siorg_job.sync", "read.sql")["lock"]
    with transaction(connection):
        # In turn with the sync, as in "edit".
        connection.execute(lock, {"organizations": list(codes), "codes": [], "domains": False})
        rows = connection.execute(_sql()["reactivate"], {"codes": list(codes), "by": by, "note": note}).fetchall()
    return sorted(row["code"] for row in rows)


def _holders(connection: Connection, code: int, cnpj: str | None) -> list[dict[str, Any]]:
    return connection.execute(_sql()["holders"], {"code": code, "cnpj": cnpj}).fetchall()


def _check_cnpj(holders: Iterable[Columns], code: int, cnpj: str) -> None:
    for holder in holders:
        if holder["code"] != code:
            raise Refused(f"the CNPJ {cnpj} is registered already, as that of {holder['acronym']} ({holder['code']})")


@contextmanager
def _in_plain_words(connection: Connection, columns: Columns) -> Iterator[None]:
    """Says what the database has against a row. It has the last word: its constraints may be older or stricter than ours."""
    try:
        yield
    except psycopg.errors.IntegrityError as error:
        name = error.diag.constraint_name or ""
        with transaction(connection):
            found = connection.execute(_sql()["constraint"], {"name": name}).fetchone()
        rule = f"constraint {name} of table organizations: {found['definition']}" if found else describe(error)
        cnpj = columns.get("cnpj", "")
        if isinstance(error, psycopg.errors.CheckViolation) and "cnpj" in rule and not cnpj.isdigit():
            raise Refused(
                f"the check digits of the CNPJ {cnpj} are right, but this database does not take it ({rule})."
                " Whoever owns the table, the API server as a rule, has to allow letters there first"
            ) from None
        raise Refused(f"the database refuses the organization ({rule})") from None
    except psycopg.errors.DataError as error:
        raise Refused(f"the database refuses the organization ({describe(error)})") from None


def _sql() -> Mapping[str, Any]:
    return load("siorg_job", "organizations.sql")
