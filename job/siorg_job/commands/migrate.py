"""``siorg-job migrate``: tables for a fresh database, additions for an existing Waterswamp one."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from siorg_job.commands.context import Context, Exit


def add_to(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "migrate",
        help="make or complete the tables",
        description="A fresh database gets every table; an existing Waterswamp database gets only additions, without blocking"
        " it. Run again, or twice at once, it changes nothing.",
    )
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when something is pending")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, context: Context) -> int:
    from siorg_queue.migrations import migrate, pending

    with context.database() as connection, context.database() as lock_connection:
        if arguments.check:
            missing = pending(connection)
            for migration in missing:
                print(f"pending: {migration.version:04} {migration.name}")
            if not missing:
                print("up to date: nothing is pending")
            return Exit.ERROR if missing else Exit.DONE
        done = migrate(connection, lock_connection, report=lambda line: print(line, file=sys.stderr))
    print(f"{len(done)} migrations applied" if done else "nothing to do: the database is up to date")
    return Exit.DONE
