"""Where a run begins: looks whether there is work, and loads what the work needs only then."""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext

from siorg_job.drain.errors import CannotStart, GiveUp
from siorg_job.drain.linger import Linger
from siorg_job.drain.maintenance import Maintenance
from siorg_job.drain.queue_client import QueueClient
from siorg_job.logs import logger
from siorg_job.run_summary import RunSummary
from siorg_job.settings import Settings

log = logger("siorg_job.drain")


async def drain(settings: Settings, summary: RunSummary, *, stop: asyncio.Event, forever: bool = False) -> str:
    """Drain the queue and return the reason for the end: ``exhausted``, ``stopped`` or ``disabled``.

    Args:
        settings: of this job.
        summary: counts what is done.
        stop: set when the process is asked to end.
        forever: poll for ever instead of ending when nothing is left, and clean up at an interval.

    Raises:
        GiveUp: database or SIORG stayed unavailable; what was claimed has been given back where that was possible.
        CannotStart: the port for metrics cannot be opened.
    """
    queue = QueueClient(settings, stop=stop, forever=forever)
    maintenance = Maintenance(settings, queue, summary=summary, stop=stop, forever=forever)
    try:
        reason = await _reason_not_to_begin(settings, queue, maintenance, stop)
        if reason is not None and (reason == "stopped" or not forever):
            return reason
        return await _work(settings, queue, maintenance, summary=summary, stop=stop, forever=forever)
    except GiveUp:
        if stop.is_set() and not queue.has_claimed:
            return "stopped"  # while it waited for the database: nothing is held, nothing is to be given back
        raise
    finally:
        await queue.aclose()


async def _reason_not_to_begin(
    settings: Settings, queue: QueueClient, maintenance: Maintenance, stop: asyncio.Event
) -> str | None:
    """``disabled``, ``exhausted``, ``stopped``, or None: there is work."""
    if not await maintenance.is_enabled():
        return "disabled"
    # All of it, or thousands that only look like waiting would be left; where there is work, the drain goes on with it.
    while await maintenance.reap_page() and not stop.is_set() and not await queue.call(lambda store: store.has_claimable()):
        pass
    if stop.is_set():
        return "stopped"
    if await queue.call(lambda store: store.has_claimable()):
        return None
    due_seconds = await queue.call(lambda store: store.next_due_seconds())
    if Linger(settings, forever=False).pause(due_seconds, time.monotonic()) is not None:
        return None
    log.info("No pending items in sync queue")
    return "exhausted"


async def _work(
    settings: Settings, queue: QueueClient, maintenance: Maintenance, *, summary: RunSummary, stop: asyncio.Event, forever: bool
) -> str:
    # 60 ms of CPU, a third of what a run that finds nothing takes in all.
    from siorg_job.drain.loop import Drain  # noqa: PLC0415
    from siorg_job.metrics import JobMetrics, MetricsPortError  # noqa: PLC0415

    metrics, port = JobMetrics(), settings.worker_metrics_port
    try:
        with metrics.serve(port) if port is not None else nullcontext():
            return await Drain(settings, queue, maintenance, summary=summary, metrics=metrics, stop=stop, forever=forever).run()
    except MetricsPortError as error:
        raise CannotStart(str(error)) from None
