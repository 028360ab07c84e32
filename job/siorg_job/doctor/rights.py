"""What this database user may do: right by right, and what row-level security leaves of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from siorg_job.database.grants import NEEDED_TO_RUN, READ_AND_WRITE, pairs
from siorg_job.doctor.findings import Finding, error, warning
from siorg_job.settings import Settings
from siorg_queue import Connection, transaction
from siorg_queue.statements import load

NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    **NEEDED_TO_RUN,
    "siorg_sync_queue": (*READ_AND_WRITE, "DELETE"),
    "siorg_verifications": ("SELECT", "INSERT"),
    "siorg_sync_migrations": ("SELECT",),
}
"""The rights that all commands together need, but ``migrate``."""


def schema(connection: Connection, _: Settings) -> Iterator[Finding]:
    """Whether the tables are found at all: a schema that may not be used is passed over as if nothing were in it."""
    with transaction(connection):
        places = connection.execute(load("siorg_job.doctor", "doctor.sql")["schemas"]).fetchall()
    if not places or places[0]["is_found"]:
        return
    if unusable := [place for place in places if not place["usable"]]:
        place = unusable[0]
        remedy = f"GRANT USAGE ON SCHEMA {place['quoted']} TO {place['role']};"
        yield error(
            f"this database user ({place['role']}) may not use the schema {place['name']}, where the tables stand", remedy
        )
    else:
        place = places[0]
        remedy = f"ALTER ROLE {place['role']} IN DATABASE {place['database']} SET search_path = {place['quoted']};"
        yield error(f"the tables stand in the schema {place['name']}, which is not on the search_path of {place['role']}", remedy)


def tables(connection: Connection, _: Settings) -> Iterator[Finding]:
    with transaction(connection):
        rows = connection.execute(load("siorg_job.doctor", "doctor.sql")["missing_rights"], pairs(NEEDED)).fetchall()
    for row in rows:
        remedy = f"GRANT {row['rights']} ON {row['table']} TO {row['role']};"
        yield error(f"this database user ({row['role']}) has no {row['rights']} on {row['table']}", remedy)


def row_security(connection: Connection, _: Settings) -> Iterator[Finding]:
    with transaction(connection):
        rows = connection.execute(load("siorg_job.doctor", "doctor.sql")["row_security"], pairs(NEEDED)).fetchall()
    for row in rows:
        what, role = f"row-level security of {row['table']}", row["role"]
        if row["without"]:
            remedy = f"CREATE POLICY siorg_sync ON {row['table']} TO {role} USING (true) WITH CHECK (true);"
            kinds = ", ".join(row["without"])
            yield error(f"{what} keeps every row from this user ({role}): no policy of it is for {kinds}", remedy)
        else:
            remedy = f"compare the number of rows of {row['table']} with that which its owner sees"
            yield warning(f"{what} applies to this user ({role}): what its policies hide is not worked on", remedy)
