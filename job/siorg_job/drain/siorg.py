"""SIORG as a drain has it: the client with its breaker and the rate that all processes share, its health, and probes."""

from __future__ import annotations

import asyncio
import math
import time

from siorg_job.database.shared_rate import SharedRate
from siorg_job.database.thread import DatabaseThread
from siorg_job.drain.queue_client import QueueClient
from siorg_job.drain.run import Run
from siorg_job.drain.siorg_health import SiorgHealth
from siorg_job.metrics import JobMetrics
from siorg_job.siorg.errors import SiorgUnavailable
from siorg_job.siorg_session import breaker_for, client_for
from siorg_queue import DatabaseUnavailable


class Siorg:
    """Counts every request in the summary and the metrics. ``client`` is opened and closed by its user."""

    def __init__(self, run: Run, database: DatabaseThread, queue: QueueClient, metrics: JobMetrics) -> None:
        """``run.forever``: patience has no end."""
        self._summary, self._stop = run.summary, run.stop
        self._queue = queue
        self._metrics = metrics
        settings = run.settings
        breaker = breaker_for(settings)
        self.health = SiorgHealth(
            breaker,
            unavailable_seconds=math.inf if run.forever else settings.worker_unavailable_secs,
            paused_seconds=math.inf if run.forever else max(settings.worker_unavailable_secs, settings.worker_linger_secs),
        )
        longest_wait = settings.worker_item_timeout_secs / 2
        self._rate = SharedRate(database, settings.siorg_max_requests_per_second, longest_wait_seconds=longest_wait)
        self.client = client_for(settings, self._rate, breaker, observe=self._on_call, observe_error=self._on_call_error)

    async def pause_left(self) -> float:
        """Seconds for which SIORG wants no requests from anybody on this database."""
        try:
            seconds = await self._rate.pause_left()
        except DatabaseUnavailable:
            return 0.0  # the claim waits for the database
        if seconds <= 0:
            self.health.paused(0.0, time.monotonic())
        return seconds

    async def probe(self, seconds: float) -> None:
        """Ask whether SIORG is alive, for so long at most and not beyond being asked to end.

        Raises:
            SiorgError: it is not, or that was not to be learnt in time.
            GiveUp: the database, which holds the rate of all requests, stayed away.
        """
        probing = asyncio.create_task(self.client.probe())
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({probing, stopping}, timeout=max(seconds, 0.1), return_when=asyncio.FIRST_COMPLETED)
            if not probing.done():
                raise SiorgUnavailable("SIORG did not answer in time")
            await probing
        except DatabaseUnavailable as error:
            await self._queue.has_claimable()  # waits until it answers, or gives up
            raise SiorgUnavailable(f"the shared request rate could not be read: {error}") from None
        finally:
            probing.cancel()
            stopping.cancel()
            await asyncio.gather(probing, stopping, return_exceptions=True)

    def _on_call(self, endpoint: str, status: str, seconds: float) -> None:
        self._summary.requests += 1
        self._summary.siorg_seconds += seconds
        self._metrics.call_seconds.labels(endpoint, status).observe(seconds)

    def _on_call_error(self, endpoint: str, error_type: str) -> None:
        if error_type != "NotFound":  # an answer like any other, and often the one that was wanted
            self._summary.request_errors += 1
        self._metrics.call_errors.labels(endpoint, error_type).inc()
