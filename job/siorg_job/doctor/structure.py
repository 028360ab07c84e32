"""Whether tables, columns, indexes and triggers are as the migrations left them."""

from __future__ import annotations

from collections.abc import Iterator

from siorg_job.doctor.findings import Finding, error, ok
from siorg_job.settings import Settings
from siorg_queue import Connection
from siorg_queue.migrations import missing_columns, pending, states

_AGAIN = "siorg-job migrate makes it again"


def migrations(connection: Connection, _: Settings) -> Iterator[Finding]:
    if waiting := pending(connection):
        yield error(f"{len(waiting)} migrations are pending", "siorg-job migrate")


def columns(connection: Connection, _: Settings) -> Iterator[Finding]:
    if missing := missing_columns(connection):
        yield error("columns are missing: " + ", ".join(missing), "bring them back, with the names and types that siorg-job made")
    else:
        yield ok("tables are complete")


def objects(connection: Connection, _: Settings) -> Iterator[Finding]:
    """Indexes, without which the same is done by reading whole tables: with a large queue, not within any limit; and triggers."""
    for each, state in states(connection):
        what = f"the {'index' if each.is_index else 'trigger'} {each.name} of {each.table}"
        if state == "missing":
            yield error(f"{what} is missing", _AGAIN)
        elif state == "invalid":
            yield error(f"{what} is invalid: its build was interrupted", _AGAIN)
        elif state == "disabled":
            yield error(f"{what} is disabled", f"ALTER TABLE {each.table} ENABLE TRIGGER {each.name};")


def gone(connection: Connection, settings: Settings) -> Iterator[Finding]:
    """Everything of all this that is not as the migrations left it."""
    for check in (columns, objects):
        yield from (finding for finding in check(connection, settings) if finding.level == "error")
