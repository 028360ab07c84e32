"""Numbered plain-SQL migrations, and the small runner that applies them once each, in order.

Only additions; safe to run twice, by two at once, and on a database in use: a lock that is not had at once is given up and
tried again, so that nobody queues behind a migration; indexes are built CONCURRENTLY. Whatever stopped it, it goes on from there
the next time; an index that was left invalid, or a trigger or an index that somebody dropped, is made again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import resources
from typing import NamedTuple

import psycopg
from psycopg import sql

from siorg_queue.database import Connection, DatabaseUnavailable, describe, is_transient, query, transaction
from siorg_queue.session import UnsuitableDatabase, for_indexes

_LOCK = """
SELECT pg_try_advisory_xact_lock(k.class, k.object) OR NOT EXISTS (
    SELECT FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
      AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
      AND l.classid = (k.class::bigint & 4294967295)::oid AND l.objid = (k.object::bigint & 4294967295)::oid
      AND coalesce(pg_has_role(a.usesysid, (
          SELECT c.relowner FROM pg_class AS c WHERE c.oid = to_regclass('siorg_sync_queue')
      ), 'USAGE'), true)
) AS held, to_regclass('siorg_sync_migrations') IS NOT NULL AS has_ledger
FROM (SELECT hashtext('siorg_sync_queue') AS class, hashtext('migrate') AS object) AS k
"""
_LOCK_SECONDS = 0.3  # how long readers may have to queue behind us at a time
_MADE = re.compile(
    r"^CREATE (?:OR REPLACE TRIGGER (?P<trigger>\w+)\s[^;]*?|INDEX (?:CONCURRENTLY )?IF NOT EXISTS (?P<index>\w+))"
    r"\s+ON (?P<table>\w+)[^;]*",
    re.MULTILINE,
)
"""What is made again where it is missing: indexes and triggers beside those of the old tables."""
_DROPPED = re.compile(r"^DROP (?:INDEX|TRIGGER) (?:CONCURRENTLY )?(?:IF EXISTS )?(?P<name>\w+)", re.MULTILINE)
_STATES = """
SELECT CASE
    WHEN i.indexrelid IS NULL AND t.oid IS NULL THEN 'missing'
    WHEN NOT (i.indisvalid AND i.indisready) THEN 'invalid'
    WHEN t.tgenabled::text = 'D' THEN 'disabled'
END AS state
FROM unnest(%(names)s::text[], %(tables)s::text[]) WITH ORDINALITY AS m (name, "table", position)
LEFT JOIN pg_index AS i ON i.indexrelid = to_regclass(m.name) AND i.indrelid = to_regclass(m."table")
LEFT JOIN pg_trigger AS t ON t.tgrelid = to_regclass(m."table") AND t.tgname = m.name::name
ORDER BY m.position
"""
_LEDGER = """
CREATE TABLE IF NOT EXISTS siorg_sync_migrations (
    version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())
"""

# What the job reads and writes of the old tables: an installation that lacks one of these is told so before work begins.
REQUIRED_COLUMNS = {
    "siorg_sync_queue": "id entity_type siorg_code local_id operation priority payload detected_changes status attempts"
    " max_attempts last_attempt_at processed_at scheduled_for expires_at last_error error_details processed_by"
    " resolution_notes created_at lease_token lease_expires_at claimed_by needed_at held_at failures losses",
    "siorg_history": "id entity_type siorg_code local_id change_type previous_data new_data affected_fields siorg_version"
    " source sync_queue_id requires_review created_at",
    "siorg_mappings": "entity_type local_id siorg_code siorg_parent_code siorg_hierarchy_path mapping_status",
    "organizations": "id acronym name siorg_code address state zip_code phone email website is_active siorg_synced_at"
    " siorg_raw_data siorg_base",
    "organizational_unit_categories": "id name siorg_code siorg_name is_siorg_managed is_active siorg_synced_at"
    " siorg_sync_status siorg_raw_data siorg_base",
    "organizational_unit_types": "id code name siorg_code siorg_name is_siorg_managed is_active siorg_synced_at"
    " siorg_sync_status siorg_raw_data siorg_base",
    "organizational_units": "id organization_id parent_id category_id unit_type_id name acronym siorg_code"
    " siorg_parent_code siorg_url siorg_last_version is_siorg_managed activity_area contact_info level path_ids path_names"
    " is_active deactivated_at deactivation_reason siorg_synced_at siorg_sync_status siorg_raw_data siorg_base",
    "system_settings": "key value value_type description category",
    "siorg_request_pace": "name next_at paused_until",
    "siorg_verifications": "id started_at finished_at complete organizations compared drift enqueued departures reason",
}


class MigrationError(Exception):
    """A migration cannot be applied: the message says which, why, and what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file."""

    version: int
    name: str
    script: str

    @property
    def transactional(self) -> bool:
        """False for files that say ``-- transaction: none``: their statements run one by one."""
        return not self.script.startswith("-- transaction: none")

    def statements(self) -> list[str]:
        """The single statements of a non-transactional file (which therefore has no ``;`` inside a statement)."""
        text = "\n".join(line for line in self.script.splitlines() if not line.startswith("--"))
        return [part.strip() for part in text.split(";") if part.strip()]


def available() -> list[Migration]:
    """All migrations of this version, in order."""
    found = (
        Migration(int(match[1]), match[2], file.read_text(encoding="utf-8"))
        for file in resources.files(__name__).iterdir()
        if (match := re.fullmatch(r"(\d{4})_(\w+)\.sql", file.name))
    )
    return sorted(found, key=lambda migration: migration.version)


def pending(connection: Connection) -> list[Migration]:
    """The migrations that this database has not had yet."""
    with transaction(connection):
        applied = set[int]()
        if connection.execute("SELECT FROM pg_class WHERE oid = to_regclass('siorg_sync_migrations')").fetchone() is not None:
            applied = {row["version"] for row in connection.execute("SELECT version FROM siorg_sync_migrations")}
    return [migration for migration in available() if migration.version not in applied]


def migrate(
    connection: Connection,
    lock_connection: Connection,
    *,
    patience_seconds: float = 60.0,
    report: Callable[[str], None] = lambda _: None,
) -> list[Migration]:
    """Apply what is pending and return it; the second of two that run at once waits and then finds nothing to do.

    Args:
        connection: autocommit connection that does the work.
        lock_connection: another one, which holds the migration lock in an open transaction: a session's lock would not
            survive PgBouncer, and CREATE INDEX CONCURRENTLY must not run inside the transaction that holds it.
        patience_seconds: how long to try for a lock that others hold, before giving up.
        report: called with what is being done, a line at a time.

    Raises:
        MigrationError: the database refused a statement, or is not what the migrations expect.
        DatabaseUnavailable: a lock could not be had within the patience, or nothing may be written now.
        UnsuitableDatabase: a setting, such as a limit of time in which no index can be built, and that we may not change.
    """
    deadline = time.monotonic() + patience_seconds
    with _exclusive(lock_connection, deadline, report):
        _patiently("the table of migrations", partial(_run, connection, _LEDGER, deadline), deadline, report)
        done = []
        for migration in pending(connection):
            report(f"applying {migration.version:04} {migration.name}")
            _apply(connection, migration, deadline, report)
            done.append(migration)
        for each in broken(connection):
            report(f"making {each.name} again")
            _patiently(f"making {each.name}", partial(_run, connection, each.statement, deadline), deadline, report)
        missing = missing_columns(connection)
    if missing:
        raise MigrationError("the database has tables of these names that lack columns this version needs: " + ", ".join(missing))
    return done


class Made(NamedTuple):
    """An index or a trigger that a migration made, beside those of the old tables."""

    name: str
    table: str
    statement: str
    """That makes it again."""
    is_index: bool


def made() -> list[Made]:
    """What the migrations make and do not drop again; where several make one, as the last one does."""
    found: dict[str, Made] = {}
    for migration in available():
        for match in _DROPPED.finditer(migration.script):
            found.pop(match["name"], None)
        for match in _MADE.finditer(migration.script):
            name = match["index"] or match["trigger"]
            found[name] = Made(name, match["table"], match[0], match["index"] is not None)
    return list(found.values())


def states(connection: Connection) -> list[tuple[Made, str | None]]:
    """What became of what the migrations made: ``missing``, an index ``invalid``, a trigger ``disabled``; None: it is well."""
    every = made()
    rows = query(connection, _STATES, names=[each.name for each in every], tables=[each.table for each in every])
    return [(each, row["state"]) for each, row in zip(every, rows, strict=True)]


def broken(connection: Connection) -> list[Made]:
    """The indexes and triggers of ours that are missing, or (an index) invalid, although their migration was applied."""
    return [each for each, state in states(connection) if state in ("missing", "invalid")]


def missing_columns(connection: Connection) -> list[str]:
    """``table.column`` of everything the job needs and this database (on its search path) does not have."""
    with transaction(connection):
        rows = connection.execute(
            "SELECT t.name || '.' || c.name AS missing FROM unnest(%(tables)s::text[], %(columns)s::text[]) AS t (name, columns)"
            " CROSS JOIN LATERAL unnest(string_to_array(t.columns, ' ')) AS c (name)"
            " WHERE NOT EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = to_regclass(t.name) AND a.attname = c.name"
            " AND NOT a.attisdropped) ORDER BY 1",
            {"tables": list(REQUIRED_COLUMNS), "columns": list(REQUIRED_COLUMNS.values())},
        ).fetchall()
    return [row["missing"] for row in rows]


@contextmanager
def _exclusive(connection: Connection, deadline: float, report: Callable[[str], None]) -> Iterator[None]:
    # Tried again and again rather than waited for: a waiting statement holds a snapshot, and CREATE INDEX CONCURRENTLY
    # of the one before us would wait for that snapshot for ever.
    reported = False
    while True:
        # Without a snapshot and for as long as it takes, whatever the role's settings are: else that build would wait for this
        # transaction, or the lock be lost with it.
        with transaction(connection, idle_seconds=0):
            if _is_our_turn(connection):
                yield
                return
        if time.monotonic() > deadline:
            raise DatabaseUnavailable("another migration is running on this database")
        if not reported:
            report("waiting for another migration of this database")
            reported = True
        time.sleep(0.2)


def _is_our_turn(connection: Connection) -> bool:
    """Take the migration lock, to the end of the transaction; False: another migration has it.

    The table of migrations is what excludes, once there is one. An advisory lock excludes release 0.1.0, and on a fresh database;
    any role may take that, for ever, so it counts only where its holder may migrate.
    """
    row = connection.execute(_LOCK).fetchone()
    if row is None or not row["held"]:
        return False
    try:
        if row["has_ledger"]:
            connection.execute("LOCK TABLE siorg_sync_migrations IN SHARE UPDATE EXCLUSIVE MODE NOWAIT")
    except psycopg.errors.LockNotAvailable:
        return False
    return True


def _apply(connection: Connection, migration: Migration, deadline: float, report: Callable[[str], None]) -> None:
    record = "INSERT INTO siorg_sync_migrations (version, name) VALUES (%s, %s) ON CONFLICT DO NOTHING"

    def once() -> None:
        if not migration.transactional:
            for statement in migration.statements():
                _run(connection, statement, deadline)
        with transaction(connection, lock_seconds=_LOCK_SECONDS):
            if migration.transactional:
                connection.execute(migration.script.encode())
            connection.execute(record, (migration.version, migration.name))

    _patiently(f"migration {migration.version:04} ({migration.name})", once, deadline, report)


def _patiently(what: str, work: Callable[[], None], deadline: float, report: Callable[[str], None]) -> None:
    """Do ``work``, again and again while somebody else is in the way, until the deadline."""
    while True:
        try:
            work()
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            if time.monotonic() > deadline:
                raise DatabaseUnavailable(f"{what} could not lock its table: a long transaction is in the way") from None
            report("a table is in use; trying again")
            time.sleep(0.5)
        except psycopg.errors.InvalidSchemaName as error:
            raise UnsuitableDatabase(f"search_path names no schema to make tables in: {describe(error)}") from None
        except psycopg.Error as error:
            if is_transient(error):
                raise DatabaseUnavailable(f"{what}: {describe(error)}") from None
            raise MigrationError(f"{what} was refused: {describe(error)}") from error
        else:
            return


def _run(connection: Connection, statement: str, deadline: float) -> None:
    """Run one statement of its own: one that builds an index with no limit but for the wait for others, which ends."""
    match = _MADE.match(statement)
    if "CONCURRENTLY" not in statement:
        with transaction(connection, lock_seconds=_LOCK_SECONDS):
            connection.execute(statement.encode())
        return
    with for_indexes(connection, lock_seconds=max(deadline - time.monotonic(), 1.0)):
        if match:
            row = connection.execute(
                "SELECT 1 AS broken FROM pg_index WHERE indexrelid = to_regclass(%s) AND NOT indisvalid", (match["index"],)
            ).fetchone()
            if row is not None:
                connection.execute(sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier(match["index"])))
        connection.execute(statement.encode())
