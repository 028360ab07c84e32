"""What each command does, tried: every statement as far as its plan, and the writes for real, in a transaction that is undone.

A plan needs the same rights, tables, columns and types as the statement itself, touches no row and waits for nobody. The writes
run everybody's triggers, constraints and policies, on rows of the trial's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import psycopg

from siorg_job.doctor.findings import Finding, error, ok, warning
from siorg_job.settings import Settings
from siorg_queue import Connection, describe, transaction
from siorg_queue.statements import load

_QUEUE, _SYNC, _RECONCILIATION = "siorg_queue", "siorg_job.sync", "siorg_job.reconciliation"
_ENTITIES = ((_SYNC, "read.sql"), (_SYNC, "held.sql"))

STATEMENTS: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "run": (
        *((_QUEUE, f"{name}.sql") for name in ("claim", "depth", "dangling", "lease", "people", "failures", "produce")),
        *(
            *_ENTITIES,
            (_SYNC, "write.sql"),
            (_SYNC, "blocked.sql"),
            ("siorg_job.database", "grants.sql"),
            ("siorg_job.fetch", "fetch.sql"),
            ("siorg_job.database", "shared_rate.sql"),
        ),
    ),
    "discover": (
        *((_QUEUE, f"{name}.sql") for name in ("produce", "failures", "held")),
        *(
            *_ENTITIES,
            (_RECONCILIATION, "discover.sql"),
            (_RECONCILIATION, "ended.sql"),
            ("siorg_job.database", "shared_rate.sql"),
        ),
    ),
    "verify": ((_RECONCILIATION, "verify.sql"), *_ENTITIES),
    "preview": ((_RECONCILIATION, "preview.sql"), *_ENTITIES),
    "cleanup": ((_QUEUE, "dangling.sql"),),
    "enqueue": ((_QUEUE, "produce.sql"),),
    "status": ((_QUEUE, "depth.sql"),),
    "conflicts": ((_QUEUE, "people.sql"),),
    "retry": ((_QUEUE, "failures.sql"), (_QUEUE, "people.sql")),
    "held": ((_QUEUE, "held.sql"),),
    "organizations": (("siorg_job", "organizations.sql"),),
    "the operator": ((_QUEUE, "observe.sql"),),
}
"""The files whose statements a command runs."""

_IS_STATEMENT = re.compile(r"\s*(SELECT|WITH|INSERT|UPDATE|DELETE)\b", re.IGNORECASE)  # others are parts of them
_PARAMETER = re.compile(r"%\(\w+\)[sb]")
_PATIENCE_SECONDS = 2.0


def statements(connection: Connection, _: Settings) -> Iterator[Finding]:
    """Plan every statement of every command."""
    refusals: dict[str, list[str]] = {}
    said: dict[tuple[str, str], set[str]] = {}
    for command, files in STATEMENTS.items():
        for place in files:
            if place not in said:
                said[place] = {_plan(connection, sql) for sql in load(*place).values()} - {""}
            for message in said[place]:
                refusals.setdefault(message, []).append(command)
    for message, commands in refusals.items():
        yield error(f"{', '.join(dict.fromkeys(commands))} cannot work: {message}")
    if not refusals:
        yield ok(f"the statements of {', '.join(STATEMENTS)} are understood and allowed")


def _plan(connection: Connection, sql: str) -> str:
    """Why the database refuses a statement; empty: it does not."""
    if _IS_STATEMENT.match(sql) is None:
        return ""
    try:
        with transaction(connection, lock_seconds=_PATIENCE_SECONDS):
            connection.execute(("EXPLAIN " + _PARAMETER.sub("NULL", sql).replace("%%", "%")).encode())
    except psycopg.Error as refused:
        if connection.closed:
            raise
        return describe(refused)
    return ""


def writes(connection: Connection, _: Settings) -> Iterator[Finding]:
    """Write a row into every table and change it; nothing of it stays."""
    with transaction(connection):
        row = connection.execute("SELECT current_setting('transaction_read_only')::boolean AS read_only").fetchone()
    if row is not None and row["read_only"]:
        return  # which is told already
    findings: list[Finding] = []
    try:
        with transaction(connection, lock_seconds=_PATIENCE_SECONDS):
            trial = _Trial(connection, findings)
            trial.queue()
            trial.entities()
            trial.notes()
            with trial.of("run", "what is checked at the end of a transaction"):
                connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
            raise _Undo
    except _Undo:
        pass
    yield from findings or [ok("every table can be written, tried in a transaction that was undone")]


class _Undo(Exception):
    """Ends the transaction without a trace."""


class _Trial:
    """The writes, inside one transaction. One that is refused is told, and what does not need it goes on."""

    def __init__(self, connection: Connection, findings: list[Finding]) -> None:
        self._connection = connection
        self._findings = findings
        self._sql = load("siorg_job.doctor", "doctor.sql")

    def queue(self) -> None:
        """An item comes, is worked on, fails, is opened again and goes."""
        with self.of("enqueue, discover", "adding to siorg_sync_queue"):
            item = self._write("add_item")["id"]
            seen = self._connection.execute(self._sql["see_item"], {"item": item}).fetchone()
            if seen is None:
                self._findings.append(error("run cannot work: an item that this user adds to siorg_sync_queue is hidden from it"))
                return
            if not seen["is_due"]:
                self._findings.append(
                    error("run cannot work: a new item is not due; some trigger of siorg_sync_queue changes it")
                )
            for step, commands in (("work_item", "run"), ("fail_item", "run"), ("reopen_item", "retry, discover")):
                with self.of(commands, "changing siorg_sync_queue"):
                    self._write(step, item=item)
            with self.of("cleanup", "deleting from siorg_sync_queue"):
                self._write("delete_item", item=item)
        with self.of("run", "writing siorg_history"):
            self._write("unlink_history", history=self._write("add_history")["id"])

    def entities(self) -> None:
        """A category, a type, an organization, units one below the other, their mapping."""
        with self.of("run", "writing organizational_unit_categories"):
            category = self._write("add_category")["id"]
            self._write("touch_category", category=category)
            with self.of("run", "writing organizational_unit_types"):
                type_ = self._write("add_type")["id"]
                self._write("touch_type", type=type_)
                with self.of("run", "writing organizations"):
                    found = self._connection.execute(self._sql["touch_organization"]).fetchone()
                    if found is not None:
                        with self.of("run", "writing organizational_units"):
                            self._units({"organization_id": found["id"], "category": category, "type": type_})

    def _units(self, common: Mapping[str, Any]) -> None:
        above = self._write("add_unit", parent=None, **common)
        with self.of("run", "adding a unit below another to organizational_units"):
            below = self._write("add_unit", parent=above["id"], **common)
            if (below["level"], below["path_ids"]) != (above["level"] + 1, [*(above["path_ids"] or []), below["id"]]):
                remedy = "bring back the trigger of the first worker's schema (trg_org_unit_integrity), or enable it"
                self._findings.append(error("no trigger gives units their level and path", remedy))
            self._write("touch_unit", unit=below["id"])
        with self.of("run", "writing siorg_mappings"):
            self._write("touch_mapping", mapping=self._write("add_mapping", unit=above["id"])["id"])

    def notes(self) -> None:
        """What commands note beside the entities."""
        with self.of("discover", "writing system_settings"):
            self._write("add_setting")
            self._write("touch_setting")
        with self.of("verify --stored", "adding to siorg_verifications"):
            self._write("add_verification")
        with self.of("run, discover, verify", "writing siorg_request_pace"):
            if not self._write("pace")["is_there"]:
                remedy = "INSERT INTO siorg_request_pace (name) VALUES ('siorg');"
                self._findings.append(
                    error("run, discover and verify cannot work: siorg_request_pace has no row for siorg", remedy)
                )
            self._connection.execute(self._sql["touch_pace"])

    @contextmanager
    def of(self, commands: str, what: str) -> Iterator[None]:
        """A part of the trial that these commands need."""
        self._connection.execute("SAVEPOINT part")
        try:
            yield
            self._connection.execute("RELEASE SAVEPOINT part")
        except _Hidden:
            self._back()
            self._findings.append(error(f"{commands} cannot work: {what} has no effect; a trigger or rule takes the row away"))
        except psycopg.errors.LockNotAvailable:
            self._back()
            self._findings.append(warning(f"{what} could not be tried: others hold a lock", "siorg-job doctor, once more"))
        except psycopg.Error as refused:
            if self._connection.closed:
                raise
            self._back()
            self._findings.append(error(f"{commands} cannot work: {what} is refused: {describe(refused)}{_where(refused)}"))

    def _back(self) -> None:
        self._connection.execute("ROLLBACK TO SAVEPOINT part; RELEASE SAVEPOINT part")

    def _write(self, name: str, **parameters: Any) -> dict[str, Any]:
        row = self._connection.execute(self._sql[name], parameters).fetchone()
        if row is None:
            raise _Hidden
        return row


class _Hidden(Exception):
    """A write returned nothing."""


def _where(refused: psycopg.Error) -> str:
    """The function that refused, which may be anybody's trigger."""
    match = re.search(r"(\S+\([^)]*\)) line \d+", refused.diag.context or "")
    return f" (by {match[1]})" if match else ""
