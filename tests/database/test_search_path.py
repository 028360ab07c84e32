"""Objects that others plant in a schema of ours are never run: what our statements name is pg_catalog's, or our own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from siorg_job.doctor.findings import Finding
from siorg_job.doctor.surroundings import others
from siorg_job.settings import Settings
from siorg_queue import Connection, connect
from siorg_queue.migrations import migrate
from siorg_queue.statements import load
from support.job import job_environment, run_job
from support.queue_databases import reading, run
from support.siorg_server import REPOSITORY, SiorgServer

_TYPES = (
    "sync_status_enum", "siorg_entity_type_enum", "siorg_change_type_enum", "mapping_status_enum", "activity_area_enum",
    "varchar", "bpchar", "text", "smallint", "integer", "bigint", "float8", "numeric", "boolean", "uuid", "uuid[]", "integer[]",
    "text[]", "jsonb", "timestamptz", "interval",
)  # fmt: skip
_COMPARE = ("=", "<>", "<", "<=", ">", ">=", "~", "~~", "&&", "@>")
_COMBINE = ("||", "+", "-", "*", "/", "^")

# Each is an exact match of its types, which wins wherever its schema stands on the path. Whoever runs one hears of it.
_PLANT = """
DO $$
DECLARE
    l text; r text; op text;
BEGIN
    FOREACH l IN ARRAY %(types)s::text[] LOOP
        CONTINUE WHEN to_regtype(l) IS NULL;
        FOREACH r IN ARRAY %(types)s::text[] LOOP
            CONTINUE WHEN to_regtype(r) IS NULL;
            EXECUTE format('CREATE FUNCTION public.planted_compare(%%s, %%s) RETURNS boolean LANGUAGE plpgsql AS '
                '$f$ BEGIN RAISE EXCEPTION ''planted''; END $f$', l, r);
            EXECUTE format('CREATE FUNCTION public.planted_combine(%%1$s, %%2$s) RETURNS %%1$s LANGUAGE plpgsql AS '
                '$f$ BEGIN RAISE EXCEPTION ''planted''; END $f$', l, r);
            FOREACH op IN ARRAY %(compare)s::text[] LOOP
                EXECUTE format('CREATE OPERATOR public.%%s (LEFTARG = %%s, RIGHTARG = %%s, '
                    'FUNCTION = public.planted_compare)', op, l, r);
            END LOOP;
            FOREACH op IN ARRAY %(combine)s::text[] LOOP
                EXECUTE format('CREATE OPERATOR public.%%s (LEFTARG = %%s, RIGHTARG = %%s, '
                    'FUNCTION = public.planted_combine)', op, l, r);
            END LOOP;
        END LOOP;
    END LOOP;
END $$
"""
_USED = """
SELECT o.oid::regoperator::text AS operator FROM pg_depend AS d JOIN pg_operator AS o ON o.oid = d.refobjid
WHERE d.refclassid = 'pg_operator'::regclass AND d.objid <> o.oid AND o.oprnamespace = 'public'::regnamespace
"""


def plant(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection, psycopg.ClientCursor(connection) as cursor:
        cursor.execute(_PLANT, {"types": list(_TYPES), "compare": list(_COMPARE), "combine": list(_COMBINE)})


@pytest.fixture
def planted(database_url: str) -> Iterator[Connection]:
    plant(database_url)
    with connect(database_url, application_name="test") as connection:
        yield connection


# What psycopg calls a value that a statement does not cast; the others' types are those of their casts.
_PARAMETERS = {
    "limit": "smallint", "lease_seconds": "float8", "retention_days": "smallint", "max_attempts": "smallint", "code": "integer",
    "organization": "integer", "asked_at": "timestamptz", "after": "text", "id": "uuid", "longest_wait": "float8",
    "longest_pause": "float8", "seconds": "float8",
}  # fmt: skip


def _statements() -> Iterator[tuple[str, str]]:
    """Every statement of ours with the name of its file; fragments are in those that use them."""
    for root in ("core/siorg_queue", "job/siorg_job"):
        for path in sorted((REPOSITORY / root).rglob("sql/*.sql")):
            package = ".".join(path.parent.parent.relative_to(REPOSITORY / Path(root).parent).parts)
            for name, sql in load(package, path.name).items():
                if re.match(r"(WITH|SELECT|INSERT|UPDATE|DELETE)\b", sql):
                    yield f"{path.name}: {name}", sql


def _operators(connection: Connection, sql: str) -> list[str]:
    """The planted operators that a statement would run: as the body of a function it depends on what it names."""
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)[sb]", sql)))
    text = re.sub(r"%\((\w+)\)[sb]", lambda match: f"${names.index(match[1]) + 1}", sql).replace("%%", "%")
    types = ", ".join(_PARAMETERS.get(name, "unknown") for name in names)
    connection.execute(f"PREPARE one {f'({types})' if types else ''} AS {text}".encode())
    row = connection.execute("SELECT parameter_types::text[] AS types FROM pg_prepared_statements WHERE name = 'one'").fetchone()
    assert row is not None
    arguments = ", ".join(row["types"])
    connection.execute(f"CREATE FUNCTION pg_temp.one({arguments}) RETURNS void BEGIN ATOMIC {text}; END".encode())
    found = [each["operator"] for each in connection.execute(_USED)]
    connection.execute(f"DROP FUNCTION pg_temp.one({arguments}); DEALLOCATE one".encode())
    return found


def test_no_statement_is_resolved_to_an_operator_of_anybody_else(planted: Connection) -> None:
    assert _operators(planted, "SELECT FROM siorg_sync_queue WHERE status = 'PENDING'")  # as it would be
    found = {where: _operators(planted, sql) for where, sql in _statements()}
    assert len(found) > 80
    assert {where: operators for where, operators in found.items() if operators} == {}


def test_no_index_trigger_or_constraint_of_ours_is_made_with_one(empty_database_url: str) -> None:
    with (
        connect(empty_database_url, application_name="test") as work,
        connect(empty_database_url, application_name="test") as lock,
    ):
        for enum in (
            "CREATE TYPE activity_area_enum AS ENUM ('SUPPORT', 'CORE')",
            "CREATE TYPE siorg_entity_type_enum AS ENUM ('ORGANIZATION', 'UNIT', 'CATEGORY', 'TYPE')",
            (
                "CREATE TYPE siorg_change_type_enum AS ENUM"
                " ('CREATION', 'UPDATE', 'EXTINCTION', 'HIERARCHY_CHANGE', 'MERGE', 'SPLIT')"
            ),
            "CREATE TYPE sync_status_enum AS ENUM ('PENDING', 'PROCESSING', 'COMPLETED', 'FAILED', 'CONFLICT', 'SKIPPED')",
            "CREATE TYPE mapping_status_enum AS ENUM ('ACTIVE', 'DEPRECATED', 'MERGED', 'UNMAPPED')",
        ):
            work.execute(enum)
        plant(empty_database_url)
        migrate(work, lock)
        assert [row["operator"] for row in work.execute(_USED)] == []


def test_every_function_of_ours_has_a_search_path_of_its_own(connection: Connection) -> None:
    functions = connection.execute(
        "SELECT proname, array_to_string(proconfig, ' ') AS config FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
    ).fetchall()
    assert len(functions) >= 6
    assert all((row["config"] or "").startswith("search_path=pg_catalog, ") for row in functions), functions


def _work(url: str, siorg: SiorgServer) -> None:
    """Every command, at a first sync and at a change."""
    env = job_environment(url, siorg.url)
    for snapshot in (0, 1):
        siorg.control("PUT", "snapshot", {"index": snapshot})
        for words in ("preview", "discover", "run", "verify", "held", "conflicts", "status", "retry", "cleanup", "doctor"):
            run_job(*words.split(), env=env)
    run_job("organizations", "edit", "471", "--city", "Sinop", env=env)


@pytest.fixture(scope="module")
def siorg() -> Iterator[SiorgServer]:
    with SiorgServer("--synthetic", "30", "--synthetic-changes", "8") as server:
        yield server


def test_no_command_runs_what_others_plant(planted: Connection, database_url: str, siorg: SiorgServer) -> None:
    _work(database_url, siorg)
    ended = planted.execute("SELECT status::text, count(*) AS items FROM siorg_sync_queue GROUP BY 1").fetchall()
    assert [row["status"] for row in ended] == ["COMPLETED"]


def test_the_tables_may_stand_in_another_schema(empty_database_url: str, siorg: SiorgServer) -> None:
    """That is the first of the search path of the URL, or of the role."""
    url = f"{empty_database_url}&options=-csearch_path%3Dregistry"
    with connect(empty_database_url, application_name="test") as connection:
        connection.execute("CREATE SCHEMA registry")
        run_job("migrate", env=job_environment(url))
        _work(url, siorg)
        run_job("migrate", "--check", env=job_environment(url))
        schemas = connection.execute(
            "SELECT DISTINCT n.nspname AS name FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
            " WHERE c.relname ~ '^(siorg|organi|system_settings)'"
        ).fetchall()
        assert [row["name"] for row in schemas] == ["registry"]
        assert connection.execute("SELECT FROM registry.siorg_sync_queue WHERE status <> 'COMPLETED'").rowcount == 0
    assert reading(run(lambda databases: databases.read(url))).claimable == 0


def errors(connection: Connection) -> list[Finding]:
    return list(others(connection, Settings.from_environment({"DATABASE_URL": "postgresql://x"})))


@pytest.mark.parametrize("other", ["PUBLIC", '"an other"'])
def test_who_may_create_in_our_schema_is_told_with_the_statement_that_ends_it(connection: Connection, other: str) -> None:
    connection.execute('DROP ROLE IF EXISTS "an other"; CREATE ROLE "an other"')
    try:
        connection.execute(f"GRANT CREATE ON SCHEMA public TO {other}".encode())
        (told,) = errors(connection)
        connection.execute(
            'SET ROLE "an other"; CREATE FUNCTION public.lower(varchar) RETURNS text LANGUAGE sql RETURN $1; RESET ROLE'
        )
        (planted, again) = errors(connection)
        assert again == told
        connection.execute(told.remedy.encode())
        assert errors(connection) == [planted]  # what they made already stays
        assert "lower(character varying)" in planted.sentence
        connection.execute("DROP FUNCTION public.lower(varchar)")
        assert errors(connection) == []
    finally:
        connection.execute('DROP OWNED BY "an other"; DROP ROLE "an other"')
