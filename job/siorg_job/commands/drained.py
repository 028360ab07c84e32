"""The part of ``siorg-job run`` that is imported only when there is work."""

from __future__ import annotations

import asyncio
import signal
import threading

from siorg_job.commands.context import Context, Exit
from siorg_job.drain import Drain, GiveUp
from siorg_job.logs import logger
from siorg_job.metrics import JobMetrics
from siorg_job.report import RunReport


def drain(context: Context, report: RunReport, *, forever: bool) -> tuple[str, int]:
    """Run the event loop until the drain ends; returns the reason and the exit code."""
    log = logger("siorg_job.run")
    port = context.settings.worker_metrics_port
    metrics = JobMetrics() if port is not None else JobMetrics.unserved()
    if port is not None:
        metrics.serve(port)
    try:
        return asyncio.run(_drain(context, report, metrics, forever=forever)), Exit.DONE
    except GiveUp as trouble:
        log.error("Giving up for now; try again later", reason=str(trouble))
        return f"{trouble.what}_unavailable", Exit.TRY_LATER
    finally:
        metrics.close()


async def _drain(context: Context, report: RunReport, metrics: JobMetrics, *, forever: bool) -> str:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
    if context.stop.is_set():
        stop.set()
    return await Drain(context.settings, report=report, metrics=metrics, stop=stop, forever=forever).run()
