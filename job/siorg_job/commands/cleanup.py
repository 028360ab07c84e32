"""``siorg-job cleanup``: for the CronJob."""

from __future__ import annotations

import argparse
from typing import Any

from siorg_job.cleanup import cleanup
from siorg_job.commands.context import Context, Exit, integer


def add_to(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "cleanup",
        help="end dangling items, delete expired and old ones",
        description="Never touches items in work or in conflict. History is kept; its link to a deleted item becomes null."
        " Small transactions: safe while everything else runs.",
    )
    parser.add_argument("--retention-days", type=integer(1, 3650), metavar="DAYS", help="instead of WORKER_RETENTION_DAYS")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, context: Context) -> int:
    days = arguments.retention_days if arguments.retention_days is not None else context.settings.worker_retention_days
    with context.queue() as store:
        cleanup(store, retention_days=days, stopped=context.stop.is_set)
    return Exit.DONE
