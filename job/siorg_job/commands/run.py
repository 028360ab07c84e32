"""``siorg-job run``: drain the queue and exit; ``--forever`` is the first worker's way, poll and clean up."""

from __future__ import annotations

import argparse
import math
import time
from typing import Any

import psycopg

from siorg_job.commands.context import Context, Exit
from siorg_job.database.switch import is_enabled
from siorg_job.retry_policy import retry_policy
from siorg_job.run_summary import RunReport, one_line, write_termination_log
from siorg_queue import DatabaseUnavailable, QueueStore, connect, describe, is_transient
from siorg_runtime.logs import logger

_ASK_AGAIN_SECONDS = 0.5


def add_to(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "run",
        help="drain the queue and exit",
        description="Claims items, fetches from SIORG, applies, and exits 0 when nothing is claimable and nothing is in flight."
        " Exits 75 when the database or SIORG stays unavailable, or SIORG wants no requests for longer than a run waits:"
        " every claimed item was given back."
        " SIGTERM: finishes what finishes within WORKER_SHUTDOWN_GRACE_SECS, gives the rest back, exits 0."
        " The last line on stdout is a JSON summary.",
    )
    parser.add_argument("--forever", action="store_true", help="do not exit: poll every WORKER_POLL_INTERVAL_SECS, clean up too")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Drain; print and leave the summary whatever the end."""
    report = RunReport()
    reason, code = "error", int(Exit.ERROR)
    try:
        reason, code = _run(context, report, forever=arguments.forever)
    finally:
        summary = one_line(report.summary(reason, code))
        print(summary, flush=True)
        write_termination_log(context.settings.worker_termination_log, summary)
    return code


def _run(context: Context, report: RunReport, *, forever: bool) -> tuple[str, int]:
    log = logger("siorg_job.run")
    try:
        reason = _reason_not_to_start(context, forever=forever)
    except DatabaseUnavailable as error:
        log.error("The database is unavailable: nothing was claimed; try again later", reason=str(error))
        return "database_unavailable", Exit.TRY_LATER
    if reason == "disabled" and not forever:  # else the drain tells, and goes on looking
        log.warning("Nothing is done: the setting siorg.sync_enabled is false")
    elif reason == "exhausted":
        log.info("No pending items in sync queue")
    if reason == "stopped" or (reason is not None and not forever):
        return reason, Exit.DONE
    # Only now: the drain's imports cost more than all of the above, and an empty queue does not need them.
    from siorg_job.commands.drained import drain

    return drain(context, report, forever=forever)


def _reason_not_to_start(context: Context, *, forever: bool) -> str | None:
    """``disabled``, ``exhausted``, ``stopped``, or None: there is work.

    Raises:
        DatabaseUnavailable: no connection within ``WORKER_UNAVAILABLE_SECS``; never with ``forever``.
    """
    log = logger("siorg_job.run")
    since: float | None = None
    while not context.stop.is_set():
        try:
            reason = _look(context)
        except DatabaseUnavailable as error:
            now = time.monotonic()
            if since is None:
                since = now
                log.warning("The database is unavailable; trying again", reason=str(error))
            if now - since >= (math.inf if forever else context.settings.worker_unavailable_secs):
                raise
            context.stop.wait(_ASK_AGAIN_SECONDS)
        else:
            if since is not None:
                log.info("The database answers again", seconds=round(time.monotonic() - since, 1))
            return reason
    return "stopped"


def _look(context: Context) -> str | None:
    settings = context.settings
    try:
        with connect(settings.database_url.get_secret_value(), application_name="siorg-job") as connection:
            if not is_enabled(connection):
                return "disabled"
            store = QueueStore(connection, retry_policy(settings))
            while store.reap() and not store.has_claimable() and not context.stop.is_set():
                pass  # all of it, or thousands that only look like waiting would be left; where there is work, the drain goes on
            if context.stop.is_set():
                return "stopped"
            if store.has_claimable():
                return None
            seconds = store.next_due_seconds()
            return None if seconds is not None and seconds <= settings.worker_linger_secs else "exhausted"
    except psycopg.Error as error:
        if is_transient(error):
            raise DatabaseUnavailable(describe(error)) from None
        raise
