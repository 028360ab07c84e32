"""``siorg-job run``: drain the queue and exit; ``--forever`` is the first worker's way, poll and clean up.

Looks whether there is work, and loads what the work needs only then.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from contextlib import aclosing, nullcontext
from typing import Any

import psycopg

from siorg_job.commands.context import CommandError, Context, Exit
from siorg_job.database.grants import missing_grants, told
from siorg_job.drain.maintenance import Maintenance
from siorg_job.drain.queue_client import QueueClient
from siorg_job.drain.run import Broken, GiveUp, Linger, Run
from siorg_job.run_summary import RunSummary, write_termination_log
from siorg_queue import UnsuitableDatabase, describe
from siorg_runtime.logs import logger

log = logger("siorg_job.drain")


def add_to(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "run",
        help="drain the queue and exit",
        description="Claims items, fetches from SIORG, applies, and exits 0 when nothing is claimable and nothing is in flight."
        " Exits 75 when the database or SIORG stays unavailable, or SIORG wants no requests for longer than a run waits:"
        " every claimed item was given back. Exits 1, likewise, when a table or the worker itself is at fault: no item"
        " gets through, and several fail alike."
        " SIGTERM: finishes what finishes within WORKER_SHUTDOWN_GRACE_SECS, gives the rest back, exits 0."
        " The last line on stdout is a JSON summary.",
    )
    parser.add_argument("--forever", action="store_true", help="do not exit: poll every WORKER_POLL_INTERVAL_SECS, clean up too")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Drain; print and leave the summary whatever the end."""
    summary = RunSummary()
    reason, code = "error", Exit.ERROR
    try:
        reason, code = asyncio.run(_drain(context, summary, forever=arguments.forever)), Exit.DONE
    except GiveUp as error:
        logger("siorg_job.run").error("Giving up for now; try again later", reason=str(error))
        reason, code = error.reason, Exit.TRY_LATER
    except UnsuitableDatabase:
        reason, code = "wrong_settings", Exit.USAGE
        raise
    except Broken as error:
        logger("siorg_job.run").error("No item gets through, and none pays for it", reason=str(error))
        reason = error.reason
    finally:
        line = summary.line(reason, code)
        print(line, flush=True)
        write_termination_log(context.settings.worker_termination_log, line)
    return code


async def _drain(context: Context, summary: RunSummary, *, forever: bool) -> str:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    # Not loop.add_signal_handler: closing the loop would put back the default, and a second SIGTERM kill us on our way out.
    context.on_stop.append(lambda: loop.call_soon_threadsafe(stop.set))
    if context.stop.is_set():
        stop.set()
    try:
        return await drain(Run(context.settings, summary, stop, forever))
    finally:
        context.on_stop.clear()


async def drain(run: Run) -> str:
    """Drain the queue and return the reason for the end: ``exhausted``, ``stopped`` or ``disabled``.

    Raises:
        GiveUp: database or SIORG stayed unavailable; what was claimed has been given back where that was possible.
        Broken: no item gets through; likewise.
        CommandError: the port for metrics cannot be opened.
    """
    async with aclosing(QueueClient(run)) as queue, aclosing(Maintenance(run, queue)) as maintenance:
        try:
            reason = await _reason_not_to_begin(run, queue, maintenance)
            if reason is not None and (reason == "stopped" or not run.forever):
                return reason
            return await _work(run, queue, maintenance)
        except psycopg.errors.InsufficientPrivilege as error:
            grants = await queue.call(lambda connection, _: missing_grants(connection))
            raise Broken("database_refuses", f"the database refuses: {describe(error)}{told(grants)}") from None
        except GiveUp:
            if run.stop.is_set() and not queue.has_claimed:
                return "stopped"  # while it waited for the database: nothing is held, nothing is to be given back
            raise


async def _reason_not_to_begin(run: Run, queue: QueueClient, maintenance: Maintenance) -> str | None:
    """``disabled``, ``exhausted``, ``stopped``, or None: there is work."""
    if not await maintenance.is_enabled():
        return "disabled"
    # All of it, or thousands that only look like waiting would be left; where there is work, the drain goes on with it.
    while await maintenance.reap_page() and not run.stop.is_set() and not await queue.has_claimable():
        pass
    if run.stop.is_set():
        return "stopped"
    if await queue.has_claimable():
        return None
    if Linger(run.settings, forever=False).pause(await queue.next_due_seconds(), time.monotonic()) is not None:
        return None
    log.info("No pending items in sync queue")
    return "exhausted"


async def _work(run: Run, queue: QueueClient, maintenance: Maintenance) -> str:
    # 60 ms of CPU, a third of what a run that finds nothing takes in all.
    from siorg_job.drain.loop import Drain
    from siorg_job.metrics import JobMetrics, MetricsPortError

    metrics, port = JobMetrics(), run.settings.worker_metrics_port
    try:
        with metrics.serve(port) if port is not None else nullcontext():
            return await Drain(run, queue, maintenance, metrics).run()
    except MetricsPortError as error:
        raise CommandError(str(error)) from None
