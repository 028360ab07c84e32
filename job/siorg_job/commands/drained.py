"""The part of ``siorg-job run`` that is imported only when there is work."""

from __future__ import annotations

import asyncio
import signal
import threading
from types import FrameType
from typing import Any

from siorg_job.commands.context import CommandError, Context, Exit
from siorg_job.drain.loop import Drain
from siorg_job.drain.queue_client import GiveUp
from siorg_job.metrics import JobMetrics, MetricsPortError
from siorg_job.run_summary import RunReport
from siorg_runtime.logs import logger


def drain(context: Context, report: RunReport, *, forever: bool) -> tuple[str, int]:
    """Run the event loop until the drain ends; returns the reason and the exit code."""
    log = logger("siorg_job.run")
    port = context.settings.worker_metrics_port
    metrics = JobMetrics() if port is not None else JobMetrics.unserved()
    if port is not None:
        try:
            metrics.serve(port)
        except MetricsPortError as error:
            raise CommandError(str(error)) from None
    try:
        return asyncio.run(_drain(context, report, metrics, forever=forever)), Exit.DONE
    except GiveUp as trouble:
        log.error("Giving up for now; try again later", reason=str(trouble))
        return trouble.reason, Exit.TRY_LATER
    finally:
        metrics.close()


async def _drain(context: Context, report: RunReport, metrics: JobMetrics, *, forever: bool) -> str:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        context.stop.set()
        loop.call_soon_threadsafe(stop.set)

    # Not loop.add_signal_handler: closing the loop would put back the default, and a second SIGTERM kill us on our way out.
    before: list[tuple[int, Any]] = []
    if threading.current_thread() is threading.main_thread():
        before = [(number, signal.signal(number, on_signal)) for number in (signal.SIGTERM, signal.SIGINT)]
    if context.stop.is_set():
        stop.set()
    try:
        return await Drain(context.settings, report=report, metrics=metrics, stop=stop, forever=forever).run()
    finally:
        for number, handler in before:
            signal.signal(number, handler)
