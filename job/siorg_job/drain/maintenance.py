"""What a run does beside its items: ends what dangles, tells how far it is, cleans up, and looks whether it may go on."""

from __future__ import annotations

import asyncio
import math
import time

from siorg_job.cleanup import cleanup
from siorg_job.database.switch import is_enabled
from siorg_job.drain.queue_client import PatientQueue
from siorg_job.metrics import JobMetrics
from siorg_job.run_summary import RunReport
from siorg_job.settings import Settings
from siorg_queue import QueueStore, Status
from siorg_runtime.logs import logger

log = logger("siorg_job.drain")

_PROGRESS_SECONDS = 10.0
_REAP_SECONDS = 60.0
_REAP_PAGE = 1000  # rows a transaction
_ENABLED_SECONDS = 5.0
_GAUGES_SECONDS = 60.0
_COUNT_OF = {
    Status.PENDING: "waiting",
    Status.PROCESSING: "processing",
    Status.COMPLETED: "completed",
    Status.FAILED: "failed",
    Status.CONFLICT: "conflict",
    Status.SKIPPED: "skipped",
}


class Housekeeping:
    """Each chore at its own interval; ``do`` is called as often as one likes."""

    def __init__(
        self,
        settings: Settings,
        queue: PatientQueue,
        *,
        report: RunReport,
        metrics: JobMetrics,
        stop: asyncio.Event,
        forever: bool,
    ) -> None:
        """``forever``: also clean up at ``WORKER_CLEANUP_INTERVAL_SECS``, as the first worker did."""
        self._settings = settings
        self._queue = queue
        self._report = report
        self._metrics = metrics
        self._stop = stop
        self._cleans_up = forever and settings.worker_enable_cleanup
        self._cleaned_at = -math.inf
        self._told_at = self._reaped_at = time.monotonic()
        self._ended_before = 0
        self._enabled_until = -math.inf
        self._told_disabled = False
        # The counts read every finished row: only for who looks at them, and seldom.
        self._serves_gauges = settings.worker_metrics_port is not None
        self._counted_at = -math.inf

    async def do(self, in_flight: int) -> None:
        """Do what is due."""
        now = time.monotonic()
        if self._cleans_up and now - self._cleaned_at > self._settings.worker_cleanup_interval_secs:
            self._cleaned_at = now
            await self._clean_up()
        if now - self._reaped_at > _REAP_SECONDS and not await self._reap_page():
            self._reaped_at = now
        if self._serves_gauges and now - self._counted_at > _GAUGES_SECONDS:
            self._counted_at = now
            counts = await self._queue.call(lambda store: store.counts())
            self._metrics.queue_sizes({status.value: getattr(counts, _COUNT_OF[status]) for status in Status})
        if now - self._told_at > _PROGRESS_SECONDS:
            seconds, self._told_at = now - self._told_at, now
            await self._tell_progress(in_flight, seconds)

    async def reap(self) -> None:
        """End everything that nothing else would: at the end of a run, nothing that only looks like waiting is left."""
        while not self._stop.is_set() and await self._reap_page():
            pass

    async def is_enabled(self) -> bool:
        """The setting ``siorg.sync_enabled``, looked at every few seconds; a change is told once."""
        now = time.monotonic()
        if now < self._enabled_until:
            return True
        enabled = await self._queue.call_with_connection(lambda connection, _: is_enabled(connection))
        if enabled:
            self._enabled_until = now + _ENABLED_SECONDS
            if self._told_disabled:
                log.info("Claiming again: the setting siorg.sync_enabled is true again")
        elif not self._told_disabled:
            log.warning("Nothing more is claimed: the setting siorg.sync_enabled is false")
        self._told_disabled = not enabled
        return enabled

    async def _reap_page(self) -> bool:
        """Whether there may be more."""
        ended = await self._queue.call(lambda store: store.reap(_REAP_PAGE))
        if ended:
            log.info("Ended items that nothing else would", **{status.lower(): count for status, count in ended.items()})
        return sum(ended.values()) >= _REAP_PAGE

    async def _clean_up(self) -> None:
        days = self._settings.worker_retention_days

        def run(store: QueueStore) -> str:
            done = cleanup(store, retention_days=days, stopped=self._stop.is_set)
            return f"Cleanup complete: {done.ended} ended, {done.deleted} deleted, {done.unlinked} history rows unlinked"

        log.info(await self._queue.call(run))

    async def _tell_progress(self, in_flight: int, seconds: float) -> None:
        depth = await self._queue.call(lambda store: store.depth())
        log.info(
            "Progress",
            ended=self._report.ended,
            in_flight=in_flight,
            claimable=depth.claimable,
            items_per_second=round((self._report.ended - self._ended_before) / seconds, 1),
        )
        self._ended_before = self._report.ended
