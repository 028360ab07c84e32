"""``siorg-job migrate``: tables for a fresh database, additions for an existing Waterswamp one."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from siorg_job.commands.context import Context, Exit
from siorg_queue import Connection


def add_to(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "migrate",
        help="make or complete the tables",
        description="A fresh database gets every table; an existing Waterswamp database gets only additions, without blocking"
        " it. Run again, or twice at once, it changes nothing.",
    )
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when something is pending or has gone")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, context: Context) -> int:
    from siorg_queue.migrations import migrate

    with context.database() as connection, context.database() as lock_connection:
        if arguments.check:
            return _check(connection, context)
        done = migrate(connection, lock_connection, report=lambda line: print(line, file=sys.stderr))
    print(f"{len(done)} migrations applied" if done else "nothing to do: the database is up to date")
    return Exit.DONE


def _check(connection: Connection, context: Context) -> int:
    from siorg_job.doctor.structure import gone
    from siorg_queue.migrations import pending

    missing = [f"pending: {migration.version:04} {migration.name}" for migration in pending(connection)]
    if not missing:  # what migrations made may have gone since
        missing = [f"{finding.sentence}: {finding.remedy}" for finding in gone(connection, context.settings)]
    print("\n".join(missing) or "up to date: nothing is pending")
    return Exit.ERROR if missing else Exit.DONE
