"""What a person should know of a role's settings and of the schemas that we use; for ``siorg-job doctor``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from siorg_queue.database import Connection, transaction
from siorg_queue.session import FOR_INDEXES, SET, differing_settings

Finding: TypeAlias = tuple[str, str]
"""``ok`` or ``error``, and a sentence."""

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


def findings(connection: Connection) -> list[Finding]:
    """Settings of a new session of this role that differ from what we rely on, and schemas in which others may create, or did."""
    with transaction(connection):
        schemas = connection.execute(_OTHERS).fetchall()
    return [*_settings(connection), *(finding for row in schemas for finding in _others(**row))]


def _settings(connection: Connection) -> Iterator[Finding]:
    """Outside of a transaction of ours, which would set them."""
    for name, value in differing_settings(connection, SET).items():
        yield "ok", f"{name} is {value} for this role or database; we set it to {SET[name].value}: else {SET[name].otherwise}"
    for name, value in differing_settings(
        connection, {name: FOR_INDEXES[name] for name in FOR_INDEXES if name not in SET}
    ).items():
        yield (
            "ok",
            (
                f"{name} is {value} for this role or database; we set a limit of our own, but siorg-job migrate has to be"
                f" connected to the server itself, not to a pooler: else {FOR_INDEXES[name].otherwise}"
            ),
        )


def _others(schema: str, creators: list[str], planted: list[str]) -> Iterator[Finding]:
    """Whoever may create there can have functions and operators of their own run with our rights."""
    if planted:
        yield (
            "error",
            (
                f"others have made functions or operators in the schema {schema}, which we use; they could be run with our"
                f" rights: {', '.join(planted[:_MOST])}{' …' if len(planted) > _MOST else ''}."
                " Let its owner look at them, and drop them"
            ),
        )
    if creators:
        yield (
            "error",
            (
                f"others may create objects in the schema {schema}, which we use: one of theirs could be run with our rights."
                f" Let its owner run: REVOKE CREATE ON SCHEMA {schema} FROM {', '.join(creators)}"
            ),
        )
