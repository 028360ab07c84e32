"""Whether tables, columns, indexes and triggers are as the migrations left them."""

from __future__ import annotations

from collections.abc import Iterator

from siorg_job.doctor.findings import Finding, error, ok
from siorg_job.settings import Settings
from siorg_queue import Connection, transaction
from siorg_queue.migrations import Made, made, missing_columns, pending
from siorg_queue.statements import load

_AGAIN = "siorg-job migrate makes it again"


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
    wanted = [each for each in made() if each.is_index]
    with transaction(connection):
        there = connection.execute(load("siorg_job.doctor", "doctor.sql")["indexes"], _names(wanted)).fetchall()
    usable = {row["name"]: row["usable"] for row in there}
    for index in wanted:
        if index.name not in usable:
            yield error(f"the index {index.name} of {index.table} is missing", _AGAIN)
        elif not usable[index.name]:
            yield error(f"the index {index.name} of {index.table} is invalid: its build was interrupted", _AGAIN)


def triggers(connection: Connection, _: Settings) -> Iterator[Finding]:
    wanted = [each for each in made() if not each.is_index]
    with transaction(connection):
        there = connection.execute(load("siorg_job.doctor", "doctor.sql")["triggers"], _names(wanted)).fetchall()
    enabled = {row["name"]: row["enabled"] for row in there}
    for trigger in wanted:
        if trigger.name not in enabled:
            yield error(f"the trigger {trigger.name} of {trigger.table} is missing", _AGAIN)
        elif not enabled[trigger.name]:
            remedy = f"ALTER TABLE {trigger.table} ENABLE TRIGGER {trigger.name};"
            yield error(f"the trigger {trigger.name} of {trigger.table} is disabled", remedy)


def _names(wanted: list[Made]) -> dict[str, list[str]]:
    return {"names": [one.name for one in wanted], "tables": [one.table for one in wanted]}


def gone(connection: Connection, settings: Settings) -> Iterator[Finding]:
    """Everything of all this that is not as the migrations left it."""
    for check in (columns, indexes, triggers):
        yield from (finding for finding in check(connection, settings) if finding.level == "error")
