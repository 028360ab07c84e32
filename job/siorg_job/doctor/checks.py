"""The list of checks of a database, in the order in which they are told. New kinds of checks are added here."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg

from siorg_job.doctor import rights, server, state, structure, surroundings, trials, vacuum
from siorg_job.doctor.findings import Check, Finding, Level, error
from siorg_job.settings import Settings
from siorg_queue import Connection, DatabaseUnavailable, describe

CHECKS: tuple[Check, ...] = (
    *(server.version, server.writable, server.encryption, server.plans, surroundings.session, surroundings.others),
    *(rights.schema, rights.tables, rights.row_security),
    *(structure.migrations, structure.columns, structure.objects),
    *(trials.statements, trials.writes),
    *(state.settings, state.organizations, state.pause, state.queue, vacuum.held_back),
)
_MAKE_THE_REST_MOOT = (rights.schema, structure.migrations)
"""Where the tables are not there, or not seen, all others would say the same."""
_NEEDS: dict[Check, tuple[Check, ...]] = {trials.writes: (rights.tables, server.writable)}
"""What has to be well first, or it would be told twice."""


def look(connection: Connection, settings: Settings) -> Iterator[Finding]:
    """Look at everything.

    Raises:
        DatabaseUnavailable: the connection broke.
    """
    failed = set[Check]()
    for check in CHECKS:
        if failed.intersection(_MAKE_THE_REST_MOOT) or failed.intersection(_NEEDS.get(check, ())):
            continue
        for finding in _findings(check, connection, settings):
            if finding.level is Level.ERROR:
                failed.add(check)
            yield finding


def _findings(check: Check, connection: Connection, settings: Settings) -> Iterator[Finding]:
    try:
        yield from check(connection, settings)
    except psycopg.Error as refused:
        if connection.closed:
            raise DatabaseUnavailable(describe(refused)) from None
        yield error(f"{check.__module__.rpartition('.')[2]}: {check.__name__} could not be looked at: {describe(refused)}")
