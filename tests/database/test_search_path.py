"""Objects that others plant in a schema of ours are never run: what our statements name is pg_catalog's, or our own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from siorg_queue import Connection, connect
from siorg_queue.statements import load
from support.siorg_server import REPOSITORY

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
    "organization": "integer", "asked_at": "timestamptz", "after": "uuid", "id": "uuid", "longest_wait": "float8",
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
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", sql)))
    text = re.sub(r"%\((\w+)\)s", lambda match: f"${names.index(match[1]) + 1}", sql).replace("%%", "%")
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
