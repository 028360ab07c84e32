"""Migrations: a fresh database gets everything, an existing one only additions, nobody is blocked, twice is no change."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from siorg_queue import Connection, DatabaseUnavailable, EntityType, NewItem, Operation, QueueStore, connect, migrations
from siorg_queue.migrations import MigrationError, available, broken, migrate, missing_columns, pending
from siorg_queue.session import for_indexes
from support.postgres import Postgres
from support.queue import number

WATERSWAMP = (Path(__file__).parent / "waterswamp.sql").read_text()
TABLES = (
    "siorg_sync_queue", "siorg_history", "siorg_mappings", "organizations", "organizational_unit_categories",
    "organizational_unit_types", "organizational_units", "siorg_natureza_juridica", "siorg_poder", "siorg_esfera",
    "system_settings",
)  # fmt: skip

_CATALOG = """
SELECT 'column' AS kind, table_name || '.' || column_name AS name,
       concat_ws(' ', udt_name, character_maximum_length, is_nullable, column_default) AS definition
FROM information_schema.columns WHERE table_schema = 'public'
UNION ALL SELECT 'constraint', conrelid::regclass || '.' || conname, pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype <> 'n'
UNION ALL SELECT 'index', indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL SELECT 'trigger', tgrelid::regclass || '.' || tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT 'function', p.oid::regprocedure::text, prosrc FROM pg_proc p WHERE pronamespace = 'public'::regnamespace
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
UNION ALL SELECT 'type', t.typname, string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder)
FROM pg_type t JOIN pg_enum e ON e.enumtypid = t.oid GROUP BY t.typname
"""


def catalog(connection: Connection) -> dict[tuple[str, str], str]:
    return {(row["kind"], row["name"]): row["definition"] for row in connection.execute(_CATALOG)}


def contents(connection: Connection) -> dict[str, list[str]]:
    return {
        table: [row["row"] for row in connection.execute(f"SELECT t::text AS row FROM {table} t ORDER BY 1")] for table in TABLES
    }


def opened(url: str) -> Connection:
    return connect(url, application_name="test")


def run(url: str, **options: float) -> list[str]:
    with opened(url) as work, opened(url) as lock:
        return [migration.name for migration in migrate(work, lock, **options)]  # type: ignore[arg-type]


@pytest.fixture
def existing_url(empty_database_url: str) -> str:
    """A Waterswamp database, with rows."""
    with opened(empty_database_url) as connection:
        connection.execute(WATERSWAMP.encode())
        connection.execute(
            "INSERT INTO siorg_sync_queue (entity_type, siorg_code, operation, payload) VALUES ('UNIT', 1, 'UPDATE', '{}')"
        )
    return empty_database_url


def test_a_fresh_database_gets_every_table_and_the_seeded_organization(empty_database_url: str) -> None:
    assert run(empty_database_url) == [migration.name for migration in available()]
    with opened(empty_database_url) as connection:
        assert not missing_columns(connection)
        contents(connection)  # every table is there
        (row,) = connection.execute("SELECT siorg_code, cnpj, ug_code, acronym FROM organizations")
        assert row == {"siorg_code": 471, "cnpj": "33004540000100", "ug_code": 154045, "acronym": "UFMT"}


def test_a_fresh_database_has_the_columns_of_an_existing_one(empty_database_url: str, postgres: Postgres) -> None:
    run(empty_database_url)
    other = postgres.database(migrated=False)
    try:
        with opened(other) as existing, opened(empty_database_url) as fresh:
            existing.execute(WATERSWAMP.encode())
            theirs = {key: value for key, value in catalog(existing).items() if key[0] in ("column", "type")}
            ours = catalog(fresh)
    finally:
        postgres.drop(other)
    assert {key: _same_default(ours.get(key)) for key in theirs} == {key: _same_default(value) for key, value in theirs.items()}


def _same_default(definition: str | None) -> str | None:
    return definition.replace("uuid_generate_v4()", "gen_random_uuid()") if definition else definition


def _file(connection: Connection) -> int:
    return number(connection, "SELECT pg_relation_filenode('siorg_sync_queue')")


def test_an_existing_database_keeps_everything_and_gets_additions(existing_url: str) -> None:
    with opened(existing_url) as connection:
        before, rows_before, file = catalog(connection), contents(connection), _file(connection)
        run(existing_url)
        after, rows_after = catalog(connection), contents(connection)
        assert _file(connection) == file  # no row of a large table was written anew
        assert {key: after.get(key) for key in before} == before
        added = {key[1] for key in after.keys() - before.keys() if key[0] == "column"}
        ours = ("lease_token", "lease_expires_at", "claimed_by", "needed_at", "held_at")
        assert added >= {f"siorg_sync_queue.{column}" for column in ours}
        tables = ("organizations", "organizational_units", "organizational_unit_categories", "organizational_unit_types")
        bases = {f"{table}.siorg_base" for table in tables}
        assert added >= bases
        others = {name.split(".")[0] for name in added - bases}
        assert others == {"siorg_sync_queue", "siorg_request_pace", "siorg_sync_migrations", "siorg_verifications"}
        assert {table: len(rows_after[table]) for table in TABLES} == {table: len(rows_before[table]) for table in TABLES}
        assert rows_after["organizations"] == [row.removesuffix(")") + ",)" for row in rows_before["organizations"]]  # siorg_base
        store = QueueStore(connection)
        assert store.enqueue([NewItem(EntityType.UNIT, 2, Operation.UPDATE)]) == 1
        assert store.depth().claimable == 2


def test_twice_is_no_change(existing_url: str) -> None:
    run(existing_url)
    with opened(existing_url) as connection:
        before, rows = catalog(connection), contents(connection)
        assert run(existing_url) == []
        connection.execute("DELETE FROM siorg_sync_migrations")  # even when nobody remembers
        assert len(run(existing_url)) == len(available())
        assert catalog(connection) == before
        assert contents(connection) == rows


def test_two_at_once_each_end_well(empty_database_url: str) -> None:
    with ThreadPoolExecutor(3) as pool:
        assert sorted(map(len, pool.map(run, [empty_database_url] * 3))) == [0, 0, len(available())]


def test_an_advisory_lock_of_a_stranger_stops_no_migration(existing_url: str) -> None:
    with opened(existing_url) as owner:
        owner.execute("DROP ROLE IF EXISTS siorg_stranger; CREATE ROLE siorg_stranger LOGIN")
        with opened(existing_url.replace("//postgres@", "//siorg_stranger@")) as stranger:
            stranger.execute("SELECT pg_advisory_lock(hashtext('siorg_sync_queue'), hashtext('migrate'))")
            assert len(run(existing_url, patience_seconds=5)) == len(available())
            owner.execute("BEGIN")
            owner.execute("LOCK TABLE siorg_sync_migrations IN SHARE UPDATE EXCLUSIVE MODE")  # as another migration does
            with pytest.raises(DatabaseUnavailable, match="another migration"):
                run(existing_url, patience_seconds=0.1)
            owner.execute("ROLLBACK")
        owner.execute("DROP ROLE siorg_stranger")


def test_nobody_queues_behind_a_migration_that_waits_for_a_lock_and_it_gives_up_when_that_is_never_had(existing_url: str) -> None:
    with opened(existing_url) as busy, opened(existing_url) as reader:
        busy.execute("BEGIN")
        busy.execute("SELECT * FROM siorg_sync_queue")  # a long report of the API server
        with pytest.raises(DatabaseUnavailable, match="0002"):
            run(existing_url, patience_seconds=0.1)
        reader.execute("SET statement_timeout = '5s'")
        reports: list[str] = []
        with opened(existing_url) as work, opened(existing_url) as lock:
            migrating = threading.Thread(target=lambda: migrate(work, lock, report=reports.append))
            migrating.start()
            while not any("in use" in line for line in reports):
                reader.execute("SELECT count(*) FROM siorg_sync_queue")  # would time out behind a waiting ALTER TABLE
            busy.execute("COMMIT")
            migrating.join(timeout=30)
            assert not migrating.is_alive()
        assert pending(reader) == []


def test_an_index_left_invalid_by_an_interrupted_build_is_built_again(existing_url: str) -> None:
    run(existing_url)
    with opened(existing_url) as connection:
        connection.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'siorg_sync_queue_claim_idx'::regclass")
        connection.execute("DELETE FROM siorg_sync_migrations WHERE version = 4")
        run(existing_url)
        (row,) = connection.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = 'siorg_sync_queue_claim_idx'::regclass")
        assert row == {"indisvalid": True}


def test_what_is_missing_or_invalid_is_named_and_made_again(existing_url: str) -> None:
    run(existing_url)
    with opened(existing_url) as connection:
        before = catalog(connection)
        connection.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'siorg_sync_queue_claim_idx'::regclass")
        connection.execute("DROP INDEX siorg_sync_queue_lease_idx, siorg_verifications_complete_idx")
        connection.execute("DROP TRIGGER siorg_sync_queue_added ON siorg_sync_queue")
        assert [each.name for each in broken(connection)] == [
            "siorg_sync_queue_added", "siorg_sync_queue_claim_idx", "siorg_sync_queue_lease_idx",
            "siorg_verifications_complete_idx",
        ]  # fmt: skip
        assert run(existing_url) == []
        assert broken(connection) == []
        assert catalog(connection) == before


def test_it_goes_on_from_wherever_it_was_stopped(existing_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    statement = migrations._run
    for number_of_statements in itertools.count(1):
        left = iter(range(number_of_statements))

        def some(*arguments: Any, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            statement(*arguments)

        monkeypatch.setattr(migrations, "_run", some)
        with suppress(KeyboardInterrupt):
            run(existing_url)
            break
    with opened(existing_url) as connection:
        assert [*pending(connection), *broken(connection), *missing_columns(connection)] == []


def test_its_lock_outlasts_the_roles_limits_and_is_in_no_index_builds_way(existing_url: str) -> None:
    name = existing_url.rsplit("@/", 1)[1].split("?", 1)[0]
    with opened(existing_url) as admin:
        for setting in ("idle_in_transaction_session_timeout = '50ms'", "default_transaction_isolation = 'repeatable read'"):
            admin.execute(f"ALTER DATABASE {name} SET {setting}".encode())
        with (
            opened(existing_url) as lock,
            opened(existing_url) as other,
            migrations._exclusive(lock, time.monotonic(), lambda _: None),
        ):
            admin.execute("SELECT pg_sleep(0.2)")
            (holder,) = admin.execute("SELECT state, backend_xmin FROM pg_stat_activity WHERE pid = %s", [lock.info.backend_pid])
            assert holder == {"state": "idle in transaction", "backend_xmin": None}
            with (
                pytest.raises(DatabaseUnavailable, match="another migration"),
                migrations._exclusive(other, time.monotonic(), lambda _: None),
            ):
                pytest.fail("two at once")


def test_what_is_set_for_indexes_lasts_no_longer(connection: Connection) -> None:
    def limit() -> Any:
        row = connection.execute("SHOW lock_timeout").fetchone()
        return None if row is None else row["lock_timeout"]

    before = limit()
    with for_indexes(connection, lock_seconds=7):
        assert limit() == "7s"
    assert limit() == before


def test_a_table_of_the_same_name_that_is_another_one_is_refused_by_name(empty_database_url: str) -> None:
    with opened(empty_database_url) as connection:
        connection.execute("CREATE TABLE siorg_mappings (id int)")
    with pytest.raises(MigrationError, match=r"siorg_mappings\.local_id"):
        run(empty_database_url)
