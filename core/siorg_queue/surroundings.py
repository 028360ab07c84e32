"""What a person should know of a role's settings and of the schemas that we use; for ``siorg-job doctor``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from siorg_queue.database import Connection, transaction
from siorg_queue.session import FOR_INDEXES, SET, differing_settings

Finding: TypeAlias = tuple[str, str]
"""``ok`` or ``error``, and a sentence."""

# Owners of the schema and of our tables are no others, nor is who has their rights.
_OPEN_SCHEMAS = """
SELECT n.nspname AS schema, quote_ident(n.nspname) AS quoted,
       array_agg(CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(r.rolname) END ORDER BY a.grantee) AS others
FROM pg_namespace AS n
CROSS JOIN LATERAL aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) AS a
LEFT JOIN pg_class AS queue ON queue.oid = to_regclass('siorg_sync_queue')
LEFT JOIN pg_roles AS r ON r.oid = a.grantee
WHERE n.nspname = ANY (current_schemas(false)) AND a.privilege_type = 'CREATE'
  AND a.grantee <> n.nspowner AND a.grantee IS DISTINCT FROM queue.relowner AND NOT coalesce(r.rolsuper, false)
  AND (a.grantee = 0 OR r.rolname <> current_user)
GROUP BY n.oid, n.nspname
ORDER BY n.nspname
"""


def findings(connection: Connection) -> list[Finding]:
    """Settings of a new session of this role that differ from what we rely on, and schemas in which others may create."""
    with transaction(connection):
        open_schemas = connection.execute(_OPEN_SCHEMAS).fetchall()
    return [*_settings(connection), *(_open_schema(row["quoted"], row["others"]) for row in open_schemas)]


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


def _open_schema(schema: str, others: list[str]) -> Finding:
    """Whoever may create there can have functions and operators of their own run with our rights."""
    return "error", (
        f"others may create objects in the schema {schema}, which we use: one of theirs could be run with our rights."
        f" Let its owner run: REVOKE CREATE ON SCHEMA {schema} FROM {', '.join(others)}"
    )
