"""The role's settings, and the schemas that we use: what in them could change what our statements do."""

from __future__ import annotations

from collections.abc import Iterator

from siorg_job.doctor.findings import Finding, error, ok
from siorg_job.settings import Settings
from siorg_queue import Connection, query
from siorg_queue.session import FOR_INDEXES, SET, differing_settings

_MOST = 5  # names in a sentence

# Owners of the schema and of our tables are no others; nor is a superuser, who may do everything anyway.
_OTHERS = """
WITH home AS (
    SELECT n.oid, n.nspname, n.nspowner, n.nspacl FROM pg_namespace AS n WHERE n.nspname = ANY (current_schemas(false))
), other AS (
    SELECT home.oid AS home, r.oid AS role, r.rolname FROM home CROSS JOIN pg_roles AS r
    WHERE NOT r.rolsuper AND r.rolname <> current_user AND r.oid <> home.nspowner
      AND r.oid IS DISTINCT FROM (SELECT c.relowner FROM pg_class AS c WHERE c.oid = to_regclass('siorg_sync_queue'))
)
SELECT quote_ident(home.nspname) AS schema,
       ARRAY(
           SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(o.rolname) END
           FROM aclexplode(coalesce(home.nspacl, acldefault('n', home.nspowner))) AS a
           LEFT JOIN other AS o ON o.home = home.oid AND o.role = a.grantee
           WHERE a.privilege_type = 'CREATE' AND (a.grantee = 0 OR o.role IS NOT NULL)
           ORDER BY 1
       ) AS creators,
       ARRAY(
           SELECT p.oid::regprocedure::text FROM pg_proc AS p JOIN other AS o ON o.home = home.oid AND o.role = p.proowner
           WHERE p.pronamespace = home.oid
           UNION
           SELECT p.oid::regoperator::text FROM pg_operator AS p JOIN other AS o ON o.home = home.oid AND o.role = p.oprowner
           WHERE p.oprnamespace = home.oid
           ORDER BY 1
       ) AS planted
FROM home ORDER BY home.nspname
"""


def session(connection: Connection, _: Settings) -> Iterator[Finding]:
    """Settings of a new session of this role that differ from what we rely on.

    Outside of a transaction of ours, which would set them.
    """
    for name, value in differing_settings(connection, SET).items():
        yield ok(f"{name} is {value} for this role or database; we set it to {SET[name].value}: else {SET[name].otherwise}")
    unset = {name: relied for name, relied in FOR_INDEXES.items() if name not in SET}
    for name, value in differing_settings(connection, unset).items():
        yield ok(
            f"{name} is {value} for this role or database; we set a limit of our own, but siorg-job migrate has to be connected"
            f" to the server itself, not to a pooler: else {FOR_INDEXES[name].otherwise}"
        )


def others(connection: Connection, _: Settings) -> Iterator[Finding]:
    """Whoever may create in a schema of ours can have functions and operators of their own run with our rights."""
    for schema, creators, planted in (row.values() for row in query(connection, _OTHERS)):
        if planted:
            named = f"{', '.join(planted[:_MOST])}{' …' if len(planted) > _MOST else ''}"
            yield error(
                f"others have made functions or operators in the schema {schema}, which we use; they could be run with our"
                f" rights: {named}",
                "let the schema's owner look at them, and drop them",
            )
        if creators:
            yield error(
                f"others may create objects in the schema {schema}, which we use: one of theirs could be run with our rights",
                f"REVOKE CREATE ON SCHEMA {schema} FROM {', '.join(creators)};",
            )
