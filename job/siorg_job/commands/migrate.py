"""``siorg-job migrate``: tables for a fresh database, additions for an existing Waterswamp one."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from siorg_job.commands.context import CommandError, Context, Exit
from siorg_queue import Connection


def add_to(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "migrate",
        help="make or complete the tables",
        description="A fresh database gets every table; an existing Waterswamp database gets only additions, without blocking"
        " it. Run again, or twice at once, it changes nothing; what was stopped goes on, and an index or a trigger that is"
        " missing or invalid is made again.",
    )
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 when something is pending, missing or invalid"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, context: Context) -> int:
    from siorg_queue.migrations import MigrationError, migrate

    told: list[str] = []

    def tell(line: str) -> None:
        told.append(line)
        print(line, file=sys.stderr)

    with context.database() as connection, context.database() as lock_connection:
        if arguments.check:
            return _check(connection, context)
        try:
            done = migrate(connection, lock_connection, report=tell)
        except MigrationError as error:
            raise CommandError(str(error)) from None
    print(f"{len(done)} migrations applied" if done else "done" if told else "nothing to do: the database is up to date")
    return Exit.DONE


def _check(connection: Connection, context: Context) -> int:
    from siorg_job.doctor.structure import gone
    from siorg_queue.migrations import pending

    missing = [f"pending: {migration.version:04} {migration.name}" for migration in pending(connection)]
    if not missing:  # what migrations made may have gone since
        missing = [f"{finding.sentence}: {finding.remedy}" for finding in gone(connection, context.settings)]
    print("\n".join(missing) or "up to date: nothing is pending")
    return Exit.ERROR if missing else Exit.DONE
