"""What a run does beside its items: ends what dangles, tells how far it is, cleans up, and looks whether it may go on."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING

from siorg_job.cleanup import cleanup
from siorg_job.database.thread import DatabaseThread
from siorg_job.drain.queue_client import QueueClient
from siorg_job.drain.run import Run
from siorg_queue import DatabaseUnavailable, QueueStore, Status
from siorg_queue.system_settings import is_enabled
from siorg_runtime.application import job_application
from siorg_runtime.logs import logger

if TYPE_CHECKING:  # it brings the library for metrics, which a run that finds nothing does without
    from siorg_job.metrics import JobMetrics

log = logger("siorg_job.drain")

_PROGRESS_SECONDS = 10.0
_REAP_SECONDS = 60.0
_REAP_PAGE = 1000  # rows a transaction
_ENABLED_SECONDS = 5.0
_GAUGES_SECONDS = 60.0


class Maintenance:
    """Each chore at its own interval; ``run_due`` is called as often as one likes."""

    def __init__(self, run: Run, queue: QueueClient) -> None:
        """``run.forever``: also clean up at ``WORKER_CLEANUP_INTERVAL_SECS``, as the first worker did."""
        self._run, self._settings, self._summary = run, run.settings, run.summary
        self._queue = queue
        self._cleaned_at = -math.inf
        self._cleaning: asyncio.Task[None] | None = None
        self._is_over = False
        self._progress_at = self._reaped_at = time.monotonic()
        self._ended_before = 0
        self._enabled_until = -math.inf
        self._was_disabled = False
        self._counted_at = -math.inf

    async def run_due(self, in_flight: int, metrics: JobMetrics) -> None:
        now = time.monotonic()
        cleans_up = self._run.forever and self._settings.worker_enable_cleanup
        if self._cleaning is not None and self._cleaning.done():
            cleaned, self._cleaning = self._cleaning, None
            cleaned.result()  # a fault of ours is one of the run
        if cleans_up and self._cleaning is None and now - self._cleaned_at > self._settings.worker_cleanup_interval_secs:
            self._cleaned_at = now
            self._cleaning = asyncio.create_task(self._clean_up())
        if now - self._reaped_at > _REAP_SECONDS and not await self.reap_page():
            self._reaped_at = now
        # The counts may read tens of thousands of rows: only for who looks at them, and seldom.
        if self._settings.worker_metrics_port is not None and now - self._counted_at > _GAUGES_SECONDS:
            self._counted_at = now
            counts = await self._queue.call(lambda _, store: store.counts())
            for status in Status:
                metrics.queue_size.labels(status).set(
                    counts.waiting if status is Status.PENDING else getattr(counts, status.lower())
                )
            metrics.queue_size.labels("HELD").set(counts.held)
        if now - self._progress_at > _PROGRESS_SECONDS:
            seconds, self._progress_at = now - self._progress_at, now
            depth = await self._queue.call(lambda _, store: store.depth())
            log.info(
                "Progress",
                ended=self._summary.ended,
                in_flight=in_flight,
                claimable=depth.claimable,
                items_per_second=round((self._summary.ended - self._ended_before) / seconds, 1),
            )
            self._ended_before = self._summary.ended

    async def _clean_up(self) -> None:
        """Beside the items, on a connection of its own: whatever there is to delete, no claim waits for it."""
        days = self._settings.worker_retention_days
        thread = DatabaseThread(self._settings.database_url.get_secret_value(), job_application("cleanup"))
        try:
            await thread.call(lambda connection: cleanup(QueueStore(connection), retention_days=days, stopped=self._stopped))
        except DatabaseUnavailable as error:
            log.warning("Cleanup was interrupted; the next one goes on from there", reason=str(error))
        finally:
            await thread.aclose()

    def _stopped(self) -> bool:
        return self._is_over or self._run.stop.is_set()

    async def aclose(self) -> None:
        """End a cleanup that is under way, after its page."""
        self._is_over = True
        if self._cleaning is not None:
            await asyncio.gather(self._cleaning, return_exceptions=True)

    async def reap(self) -> None:
        """End everything that nothing else would: at the end of a run, nothing that only looks like waiting is left."""
        while not self._run.stop.is_set() and await self.reap_page():
            pass

    async def is_enabled(self) -> bool:
        """The setting ``siorg.sync_enabled``, looked at every few seconds; a change is told once."""
        now = time.monotonic()
        if now < self._enabled_until:
            return True
        enabled = await self._queue.call(lambda connection, _: is_enabled(connection))
        if enabled:
            self._enabled_until = now + _ENABLED_SECONDS
            if self._was_disabled:
                log.info("Claiming again: the setting siorg.sync_enabled is true again")
        elif not self._was_disabled:
            log.warning("Nothing is claimed: the setting siorg.sync_enabled is false")
        self._was_disabled = not enabled
        return enabled

    async def reap_page(self) -> bool:
        """End at most a thousand of them; whether there may be more."""
        ended = await self._queue.call(lambda _, store: store.reap(_REAP_PAGE))
        if ended:
            log.info("Reaped dangling items", **{status.lower(): count for status, count in ended.items()})
        return sum(ended.values()) >= _REAP_PAGE
