"""``siorg-job cleanup``: for the CronJob."""

from __future__ import annotations

import argparse
import time
from typing import Any

from siorg_job.cleanup import Cleaned, cleanup
from siorg_job.commands.context import Context, Exit
from siorg_runtime.logs import logger

_TELL_EVERY_SECONDS = 5.0


def add_to(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "cleanup",
        help="end dangling items, delete expired and old ones",
        description="Never touches items in work or in conflict. History is kept; its link to a deleted item becomes null."
        " Small transactions: safe while everything else runs.",
    )
    parser.add_argument("--retention-days", type=_days, metavar="DAYS", help="instead of WORKER_RETENTION_DAYS")
    parser.set_defaults(run=run)


def _days(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:6]) <= 3650:
        raise argparse.ArgumentTypeError(f"{text[:20]!r}: a whole number of days from 1 to 3650")
    return int(text)


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Clean up once."""
    log = logger("siorg_job.cleanup")
    days = arguments.retention_days if arguments.retention_days is not None else context.settings.worker_retention_days
    told = time.monotonic()

    def report(done: Cleaned) -> None:
        nonlocal told
        if time.monotonic() - told > _TELL_EVERY_SECONDS:
            told = time.monotonic()
            log.info("Cleaning up", scanned=done.scanned, deleted=done.deleted)

    with context.queue() as store:
        done = cleanup(store, retention_days=days, report=report, stopped=context.stop.is_set)
    log.info(
        "Cleanup complete",
        ended=done.ended,
        deleted=done.deleted,
        history_unlinked=done.unlinked,
        scanned=done.scanned,
        retention_days=days,
    )
    return Exit.DONE
