"""Where a run begins: looks whether there is work, and loads what the work needs only then."""

from __future__ import annotations

import time
from contextlib import aclosing, nullcontext

from siorg_job.drain.errors import CannotStart, GiveUp
from siorg_job.drain.linger import Linger
from siorg_job.drain.maintenance import Maintenance
from siorg_job.drain.queue_client import QueueClient
from siorg_job.drain.run import Run
from siorg_runtime.logs import logger

log = logger("siorg_job.drain")


async def drain(run: Run) -> str:
    """Drain the queue and return the reason for the end: ``exhausted``, ``stopped`` or ``disabled``.

    Raises:
        GiveUp: database or SIORG stayed unavailable; what was claimed has been given back where that was possible.
        CannotStart: the port for metrics cannot be opened.
    """
    async with aclosing(QueueClient(run)) as queue:
        maintenance = Maintenance(run, queue)
        try:
            reason = await _reason_not_to_begin(run, queue, maintenance)
            if reason is not None and (reason == "stopped" or not run.forever):
                return reason
            return await _work(run, queue, maintenance)
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
    from siorg_job.drain.loop import Drain  # noqa: PLC0415
    from siorg_job.metrics import JobMetrics, MetricsPortError  # noqa: PLC0415

    metrics, port = JobMetrics(), run.settings.worker_metrics_port
    try:
        with metrics.serve(port) if port is not None else nullcontext():
            return await Drain(run, queue, maintenance, metrics).run()
    except MetricsPortError as error:
        raise CannotStart(str(error)) from None
