"""``siorg-job run``: drain the queue and exit; ``--forever`` is the first worker's way, poll and clean up."""

from __future__ import annotations

import argparse
import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from siorg_job.commands.context import CommandError, Context, Exit
from siorg_job.drain.errors import CannotStart, GiveUp
from siorg_job.drain.run import Run
from siorg_job.drain.start import drain
from siorg_job.run_summary import RunSummary, write_termination_log
from siorg_runtime.logs import logger


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
    summary = RunSummary()
    reason, code = "error", Exit.ERROR
    try:
        reason, code = asyncio.run(_drain(context, summary, forever=arguments.forever)), Exit.DONE
    except GiveUp as error:
        logger("siorg_job.run").error("Giving up for now; try again later", reason=str(error))
        reason, code = error.reason, Exit.TRY_LATER
    except CannotStart as error:
        raise CommandError(str(error)) from None
    finally:
        line = summary.line(reason, code)
        print(line, flush=True)
        write_termination_log(context.settings.worker_termination_log, line)
    return code


async def _drain(context: Context, summary: RunSummary, *, forever: bool) -> str:
    with _set_by_signals(context.stop) as stop:
        return await drain(Run(context.settings, summary, stop, forever))


@contextmanager
def _set_by_signals(stopped: threading.Event) -> Iterator[asyncio.Event]:
    """An event of the running loop that SIGTERM and SIGINT set, beside ``stopped``."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stopped.set()
        loop.call_soon_threadsafe(stop.set)

    # Not loop.add_signal_handler: closing the loop would put back the default, and a second SIGTERM kill us on our way out.
    numbers = (signal.SIGTERM, signal.SIGINT) if threading.current_thread() is threading.main_thread() else ()
    before = [(number, signal.signal(number, on_signal)) for number in numbers]
    if stopped.is_set():
        stop.set()
    try:
        yield stop
    finally:
        for number, handler in before:
            signal.signal(number, handler)
