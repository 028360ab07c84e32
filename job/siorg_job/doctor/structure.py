"""Whether tables, columns, indexes and triggers are as the migrations left them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from siorg_job.doctor.findings import Finding, error, ok
from siorg_job.settings import Settings
from siorg_queue import Connection, transaction
from siorg_queue.migrations import Migration, available, missing_columns, pending
from siorg_queue.statements import load

_INDEX = re.compile(
    r"CREATE (?:UNIQUE )?INDEX (?:CONCURRENTLY )?IF NOT EXISTS (?P<name>\w+)\s+ON (?P<table>\w+)[^;]*;", re.IGNORECASE
)
_TRIGGER = re.compile(r"CREATE OR REPLACE TRIGGER (?P<name>\w+)\s[^;]*?\sON (?P<table>\w+)[^;]*;", re.IGNORECASE)
_DROPPED = re.compile(r"DROP (?:INDEX|TRIGGER) (?:CONCURRENTLY )?(?:IF EXISTS )?(?P<name>\w+)", re.IGNORECASE)
_MADE_WITH_TABLES = 1  # the first migration makes what other installations have of their own


class Made(NamedTuple):
    """Something that a migration made."""

    name: str
    table: str
    statement: str
    """That makes it again."""


def made(pattern: re.Pattern[str]) -> list[Made]:
    """What the migrations make by statements of this form, and none of them drops again."""
    found: dict[str, Made] = {}
    for migration in available():
        if migration.version > _MADE_WITH_TABLES:
            text = _without_comments(migration)
            for name in (match["name"] for match in _DROPPED.finditer(text)):
                found.pop(name, None)
            for match in pattern.finditer(text):
                found[match["name"]] = Made(match["name"], match["table"], " ".join(match[0].split()))
    return list(found.values())


def _without_comments(migration: Migration) -> str:
    return "\n".join(line for line in migration.script.splitlines() if not line.startswith("--"))


def migrations(connection: Connection, _: Settings) -> Iterator[Finding]:
    if waiting := pending(connection):
        yield error(f"{len(waiting)} migrations are pending", "siorg-job migrate")


def columns(connection: Connection, _: Settings) -> Iterator[Finding]:
    if missing := missing_columns(connection):
        yield error("columns are missing: " + ", ".join(missing), "bring them back, with the names and types that siorg-job made")
    else:
        yield ok("tables are complete")


def indexes(connection: Connection, _: Settings) -> Iterator[Finding]:
    """Without one of them the same is done by reading whole tables: with a large queue, not within any limit."""
    wanted = made(_INDEX)
    with transaction(connection):
        there = connection.execute(load("siorg_job.doctor", "doctor.sql")["indexes"], _names(wanted)).fetchall()
    usable = {row["name"]: row["usable"] for row in there}
    for index in wanted:
        if index.name not in usable:
            yield error(f"the index {index.name} of {index.table} is missing", index.statement)
        elif not usable[index.name]:
            remedy = f"DROP INDEX CONCURRENTLY {index.name}; {index.statement}"
            yield error(f"the index {index.name} of {index.table} is invalid: its build was interrupted", remedy)


def triggers(connection: Connection, _: Settings) -> Iterator[Finding]:
    wanted = made(_TRIGGER)
    with transaction(connection):
        there = connection.execute(load("siorg_job.doctor", "doctor.sql")["triggers"], _names(wanted)).fetchall()
    enabled = {row["name"]: row["enabled"] for row in there}
    for trigger in wanted:
        if trigger.name not in enabled:
            yield error(f"the trigger {trigger.name} of {trigger.table} is missing", trigger.statement)
        elif not enabled[trigger.name]:
            remedy = f"ALTER TABLE {trigger.table} ENABLE TRIGGER {trigger.name};"
            yield error(f"the trigger {trigger.name} of {trigger.table} is disabled", remedy)


def _names(wanted: list[Made]) -> dict[str, list[str]]:
    return {"names": [one.name for one in wanted], "tables": [one.table for one in wanted]}


def gone(connection: Connection, settings: Settings) -> Iterator[Finding]:
    """Everything of all this that is not as the migrations left it."""
    for check in (columns, indexes, triggers):
        yield from (finding for finding in check(connection, settings) if finding.level == "error")
