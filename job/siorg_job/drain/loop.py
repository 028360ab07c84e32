"""The drain: claim, fetch, decide, apply, finish, until nothing is claimable and nothing is in flight.

One event loop holds the items in flight (at most ``WORKER_CONCURRENCY``). Fetches run beside each other; what has been
fetched is applied in groups on the database thread, so a group grows by itself while the one before it is applied.

What a failed fetch means is decided here, not where it failed. A passing trouble counts as an attempt only when SIORG is
known to work: until then the item is kept as a *suspect*. If an answer arrives, the suspects are retried later and their
attempt counts; if the breaker opens, SIORG is down, and every item goes back unharmed.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from siorg_job.database.shared_rate import SharedPace
from siorg_job.database.thread import DatabaseThread
from siorg_job.drain.in_flight import Flights
from siorg_job.drain.lease_keeper import LeaseKeeper
from siorg_job.drain.maintenance import Housekeeping
from siorg_job.drain.queue_client import GiveUp, PatientQueue
from siorg_job.fetch.fetcher import Gathered, Gatherer, Trouble, kind_of
from siorg_job.metrics import JobMetrics
from siorg_job.run_summary import RunReport
from siorg_job.settings import Settings
from siorg_job.siorg.errors import AccessRefused, BreakerOpen, RateLimited, SiorgError, SiorgUnavailable
from siorg_job.siorg_session import breaker_for, client_for
from siorg_job.sync.apply import Work, apply
from siorg_queue import DatabaseUnavailable, Outcome, Verdict
from siorg_runtime.logs import logger

log = logger("siorg_job.drain")

_APPLY_AT_MOST = 200  # items a transaction: short locks, and little to do again after a deadlock
_RECLAIM_SECONDS = 1.0  # after a claim that found nothing while items are in flight
_LONGEST_WAIT_SECONDS = 10.0  # with everything in flight: the chores beside the items have to be done too
_RATE_LIMIT_DELAY_SECONDS = 5.0  # where SIORG says 429 without Retry-After, or 0
_LOCKED_PAUSE_SECONDS = 0.2  # where something is due, and somebody else holds its row


class Drain:
    """One process's work on the queue."""

    def __init__(
        self, settings: Settings, *, report: RunReport, metrics: JobMetrics, stop: asyncio.Event, forever: bool = False
    ) -> None:
        """Nothing is opened before ``run``. ``stop`` is set when the process is asked to end."""
        self._settings = settings
        self._report = report
        self._metrics = metrics
        self._stop = stop
        self._forever = forever
        self._lease = timedelta(seconds=settings.worker_lease_secs)
        self._flights = Flights(report, metrics)
        self._queue = PatientQueue(settings, stop=stop, forever=forever, known=lambda: self._flights.ids)
        self._house = Housekeeping(settings, self._queue, report=report, metrics=metrics, stop=stop, forever=forever)
        self._reader = DatabaseThread(settings.database_url.get_secret_value(), "siorg-job fetch")
        self._ready: list[Gathered] = []
        self._suspects: dict[UUID, Trouble] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._fault: BaseException | None = None
        self._next_claim = 0.0
        self._locked_since: float | None = None
        self._useless_since: float | None = None
        self._limited_since: float | None = None
        self._limited_again_at = 0.0
        self._paused_since: float | None = None
        self._room_to_claim = min(settings.worker_batch_size, max(1, settings.worker_concurrency // 4))
        self._suspected_before: set[UUID] = set()

    async def run(self) -> str:
        """Drain, and return the reason for the end: ``exhausted`` or ``stopped``.

        Raises:
            GiveUp: database or SIORG stayed unavailable; what was claimed has been given back where that was possible.
        """
        settings = self._settings
        loop = asyncio.get_running_loop()

        def tell_of_lost(ids: set[UUID]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop may be closed: nobody is left to be told
                loop.call_soon_threadsafe(self._on_lost, ids)

        keeper = LeaseKeeper(
            settings.database_url.get_secret_value(),
            self._lease,
            on_lost=tell_of_lost,
            on_trouble=lambda why: log.warning("Leases could not be renewed; trying again", reason=why),
        )
        self._keeper = keeper
        self._breaker = breaker_for(settings)
        self._pace = SharedPace(
            self._reader, settings.siorg_max_requests_per_second, longest_wait_seconds=settings.worker_item_timeout_secs / 2
        )
        client = client_for(settings, self._pace, self._breaker, observe=self._on_call, observe_error=self._on_call_error)
        keeper.start()
        stop_watch = asyncio.create_task(self._watch_stop())
        try:
            async with client:
                self._client = client
                self._gatherer = Gatherer(
                    client, self._reader, fresh_seconds=settings.siorg_fresh_secs, item_seconds=settings.worker_item_timeout_secs
                )
                try:
                    return await self._loop()
                except GiveUp as trouble:
                    if trouble.reason != "database_unavailable":
                        await self._give_back(str(trouble))
                    raise
                except Exception:
                    with contextlib.suppress(Exception):  # what happened first is what has to be told
                        await self._give_back("given back: the worker has a fault")
                    raise
                finally:
                    await self._cancel_tasks()
                    await self._gatherer.close()
        finally:
            self._report.request_retries += client.retries
            stop_watch.cancel()
            keeper.stop()
            await self._queue.close()
            await self._reader.close()

    # -- the loop -----------------------------------------------------------------------------------------------------

    async def _loop(self) -> str:
        while True:
            if self._fault is not None:
                raise self._fault
            await self._apply_ready()
            await self._judge_suspects()
            if self._stop.is_set():
                await self._wind_down()
                return "stopped"
            if self._breaker.state == "open":
                await self._wait_for_siorg()
                continue
            self._give_up_when_limited()
            if not self._flights:
                self._give_up_when_useless("SIORG gave no answer to work with, again and again")
            await self._house.do(len(self._flights))
            if not await self._house.is_enabled():
                if not self._forever:
                    await self._wind_down()
                    return "disabled"
                await self._sleep(float(self._settings.worker_poll_interval_secs))
                continue
            if await self._take_more():
                await self._house.reap()
                return "exhausted"

    async def _take_more(self) -> bool:
        """Claim what there is room for, or wait until something happens; True: there is nothing left to do.

        Not for every slot that becomes free: a claim costs the same for one item as for many.
        """
        if not self._flights:
            self._next_claim = 0.0  # nothing else will wake us
        room = self._settings.worker_concurrency - len(self._flights)
        has_room = room >= self._room_to_claim or not self._flights
        now = time.monotonic()
        if has_room and now >= self._next_claim and not self._ready:
            pause = await self._pause_left()
            if pause > 0:
                return await self._sit_out(pause)
            if await self._claim(min(room, self._settings.worker_batch_size)):
                self._next_claim = 0.0
                return False
            if not self._flights:
                return await self._is_exhausted()
            self._next_claim = now + _RECLAIM_SECONDS
        await self._sleep(max(self._next_claim - now, 0.05) if has_room else _LONGEST_WAIT_SECONDS)
        return False

    async def _pause_left(self) -> float:
        """Seconds for which SIORG wants no requests from anybody on this database."""
        try:
            seconds = await self._pace.pause_left()
        except DatabaseUnavailable:
            return 0.0  # the claim waits for the database
        if seconds <= 0:
            self._paused_since = None
        return seconds

    async def _sit_out(self, pause: float) -> bool:
        """Claim nothing during a pause. True: there is nothing to claim after it either.

        Raises:
            GiveUp: it is longer than a run waits.
        """
        if self._flights:  # they end by themselves, and soon: they are not allowed to send either
            await self._sleep(min(pause, _LONGEST_WAIT_SECONDS))
            return False
        if not self._forever and await self._has_nothing_for_later():
            return await self._is_exhausted()
        now = time.monotonic()
        if self._paused_since is None:
            self._paused_since = now
            log.warning("SIORG wants no requests: nothing is claimed", seconds=round(pause))
        if not self._forever:
            since = self._paused_since if self._limited_since is None else min(self._limited_since, self._paused_since)
            if now + pause > since + self._longest_pause_seconds:
                raise _too_long(pause)
        await self._sleep(min(pause, _LONGEST_WAIT_SECONDS))
        return False

    async def _has_nothing_for_later(self) -> bool:
        """Whether nothing waits for the end of a pause: neither what is claimable, nor what met the 429 itself."""
        if await self._queue.call(lambda store: store.has_claimable()):
            return False
        return self._limited_since is None or await self._queue.call(lambda store: store.next_due_seconds()) is None

    @property
    def _longest_pause_seconds(self) -> float:
        """How long a run goes without an answer because SIORG wants to be left alone."""
        return max(self._settings.worker_unavailable_secs, self._settings.worker_linger_secs)

    async def _claim(self, limit: int) -> bool:
        claim = await self._queue.call(lambda store: store.claim(limit, lease=self._lease, worker=self._queue.worker))
        self._flights.lose(claim.lost)
        if claim.items:
            self._locked_since = None
            self._flights.take(claim.items)
            self._keeper.hold(claim.items)
            task = asyncio.create_task(self._gatherer.gather(claim.items, self._on_ready))
            self._tasks.add(task)
            task.add_done_callback(self._on_gathered)
        return bool(claim)

    async def _apply_ready(self) -> None:
        """Apply what has been fetched, and write down what needs no applying."""
        while self._ready:
            part, self._ready = self._ready[:_APPLY_AT_MOST], self._ready[_APPLY_AT_MOST:]
            works: list[Work] = []
            for entry in part:
                if not isinstance(entry, Trouble):
                    self._useless_since = self._limited_since = None
                    if entry[0] in self._flights:
                        works.append(entry)
                elif entry.item in self._flights:
                    verdict = self._verdict_on(entry)
                    if verdict is not None:
                        works.append((entry.item, verdict))
            if works:
                await self._settle(works)

    async def _settle(self, works: Sequence[Work]) -> None:
        if not works:
            return
        applied = await self._queue.call_with_connection(lambda connection, store: apply(connection, store, works))
        for item, _ in works:
            if self._flights.end(item, applied):
                self._suspects.pop(item.id, None)
                verdict = applied.verdicts.get(item.id)
                if verdict is None or verdict.outcome is not Outcome.RELEASED:
                    self._suspected_before.discard(item.id)
        self._keeper.drop(item for item, _ in works)

    def _verdict_on(self, trouble: Trouble) -> Verdict | None:
        """What a failed fetch means for its item; None when that is not known yet."""
        item, error = trouble.item, trouble.error
        if isinstance(error, AccessRefused):
            raise _SiorgRefuses(str(error))
        if isinstance(error, RateLimited):
            delay = error.retry_after or _RATE_LIMIT_DELAY_SECONDS
            self._limited_again_at = time.monotonic()
            if self._limited_since is None:
                self._limited_since = self._limited_again_at
            return Verdict(item, Outcome.RELEASED, error=str(error), delay_seconds=delay * (1 + random.random() / 10))  # noqa: S311
        if isinstance(error, BreakerOpen | DatabaseUnavailable):
            return Verdict(item, Outcome.RELEASED, error=str(error))
        self._suspects[item.id] = trouble
        return None

    async def _judge_suspects(self) -> None:
        if not self._suspects:
            return
        if self._breaker.state == "closed" and self._breaker.consecutive_failures > 0:
            if len(self._suspects) < len(self._flights) or self._ready:
                return  # others are under way; one of them will tell
            await self._ask_whether_siorg_lives()
        if self._breaker.state == "open":
            return  # all go back together, see _wait_for_siorg
        if self._breaker.consecutive_failures > 0:
            return  # not known yet, and we were asked to end: they go back at shutdown
        suspects = list(self._suspects.values())
        self._suspects.clear()
        self._useless_since = self._limited_since = None
        await self._settle([(trouble.item, self._retry_verdict(trouble)) for trouble in suspects])

    def _retry_verdict(self, trouble: Trouble) -> Verdict:
        error = trouble.error
        assert isinstance(error, SiorgError)
        retry_after = getattr(error, "retry_after", None)
        self._metrics.retry(trouble.item.entity_type)
        return Verdict(
            trouble.item,
            Outcome.RETRY,
            error=str(error),
            delay_seconds=retry_after,
            details={"kind": kind_of(error), "retryable": True, "details": dict(error.details)},
        )

    async def _ask_whether_siorg_lives(self) -> None:
        while self._breaker.state == "closed" and self._breaker.consecutive_failures > 0 and not self._stop.is_set():
            try:
                await self._probe(time.monotonic() + self._settings.siorg_timeout_secs)
            except AccessRefused as error:
                raise _SiorgRefuses(str(error)) from None
            except RateLimited as error:
                # It wants to be left alone: the suspects wait as everybody does, and are judged by their next attempt.
                self._ready.extend(Trouble(trouble.item, error) for trouble in self._suspects.values())
                self._suspects.clear()
                return
            except SiorgError as error:
                log.warning("SIORG does not answer", reason=str(error))
                await self._sleep(0.2)

    async def _probe(self, deadline: float) -> None:
        """Ask whether SIORG is alive, until ``deadline`` (monotonic) and not beyond being asked to end.

        Raises:
            SiorgError: it is not, or that was not to be learnt in time.
            GiveUp: the database, which holds the pace of all requests, stayed away.
        """
        probing = asyncio.create_task(self._client.probe())
        stopping = asyncio.create_task(self._stop.wait())
        try:
            seconds = max(deadline - time.monotonic(), 0.1)
            await asyncio.wait({probing, stopping}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if not probing.done():
                raise SiorgUnavailable("SIORG did not answer in time")
            await probing
        except DatabaseUnavailable as error:
            await self._queue.call(lambda store: store.has_claimable())  # waits until it answers, or gives up
            raise SiorgUnavailable(f"the pace towards SIORG could not be read: {error}") from None
        finally:
            probing.cancel()
            stopping.cancel()
            await asyncio.gather(probing, stopping, return_exceptions=True)

    def _count_as_useless(self) -> None:
        """SIORG gives nothing to work with at this moment; the first such moment in a row counts."""
        if self._useless_since is None:
            self._useless_since = time.monotonic()

    def _give_up_when_useless(self, reason: str) -> None:
        if self._forever or self._useless_since is None:
            return
        if time.monotonic() - self._useless_since > self._settings.worker_unavailable_secs:
            raise GiveUp("siorg_unavailable", reason)

    def _give_up_when_limited(self) -> None:
        if self._forever or self._limited_since is None:
            return
        # From 429 to 429: after a long pause the first answer may take its time.
        if self._limited_again_at - self._limited_since > self._longest_pause_seconds:
            raise GiveUp("siorg_rate_limited", "SIORG wants fewer requests (HTTP 429), again and again")

    # -- trouble ------------------------------------------------------------------------------------------------------

    async def _wait_for_siorg(self) -> None:
        """The breaker is open: give everything back unharmed, then ask again at growing intervals until it is closed.

        One exception: what stood among the suspects at an earlier opening already, after which SIORG was found alive, is
        itself what SIORG fails at. Its attempt counts, or a few such items would open the breaker for ever.
        """
        reason = next((str(trouble.error) for trouble in self._suspects.values()), "SIORG is unavailable")
        again = [trouble for trouble in self._suspects.values() if trouble.item.id in self._suspected_before]
        self._suspected_before.update(self._suspects)
        await self._cancel_tasks()
        await self._settle([(trouble.item, self._retry_verdict(trouble)) for trouble in again])
        await self._give_back(f"SIORG is unavailable: {reason}")
        self._metrics.siorg_available(available=False)
        log.warning("SIORG is unavailable; every item was given back", reason=reason)
        self._count_as_useless()
        assert self._useless_since is not None
        deadline = math.inf if self._forever else self._useless_since + self._settings.worker_unavailable_secs
        while not self._stop.is_set():
            self._give_up_when_useless(f"SIORG is unavailable: {reason}")
            try:
                await self._probe(min(deadline, time.monotonic() + self._settings.siorg_timeout_secs))
            except BreakerOpen as error:
                if time.monotonic() + error.retry_in > deadline:
                    raise GiveUp("siorg_unavailable", f"SIORG is unavailable: {reason}") from None
                await self._sleep(error.retry_in + 0.01)
            except AccessRefused as error:
                raise GiveUp("siorg_unavailable", str(error)) from None
            except RateLimited as error:
                reason = str(error)
                await self._sleep(min(error.retry_after or _RATE_LIMIT_DELAY_SECONDS, max(deadline - time.monotonic(), 0.1)))
            except SiorgError as error:
                reason = str(error)
                await self._sleep(0.05)
            else:
                if self._breaker.state == "closed":
                    break
        if self._breaker.state == "closed":
            self._metrics.siorg_available(available=True)
            log.info("SIORG answers again")

    async def _give_back(self, reason: str) -> None:
        """Stop what is under way and release every item in flight."""
        await self._cancel_tasks()
        self._ready.clear()
        self._suspects.clear()
        items = self._flights.items
        if items:
            await self._settle([(item, Verdict(item, Outcome.RELEASED, error=reason)) for item in items])

    async def _cancel_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def _wind_down(self) -> None:
        """Asked to end: finish what finishes within the grace, release the rest."""
        log.info("Stopping: no further claims", in_flight=len(self._flights))
        deadline = time.monotonic() + self._settings.worker_shutdown_grace_secs
        while len(self._flights) > len(self._suspects) and time.monotonic() < deadline and self._breaker.state != "open":
            await self._apply_ready()
            if len(self._flights) > len(self._suspects):
                await self._sleep(min(0.2, deadline - time.monotonic()), until_stop=False)
        await self._apply_ready()
        await self._give_back("given back at shutdown")

    # -- the end of the work ------------------------------------------------------------------------------------------

    async def _is_exhausted(self) -> bool:
        """Nothing in flight, nothing claimable. Waits for an item that is due within the linger; True: the end."""
        seconds = await self._queue.call(lambda store: store.next_due_seconds())
        if self._forever:
            pause = float(self._settings.worker_poll_interval_secs)
            await self._sleep(pause if seconds is None else min(pause, max(seconds, 0.05)))
            return False
        if seconds is None or seconds > self._settings.worker_linger_secs:
            return True
        if seconds > 0:
            self._locked_since = None
            await self._sleep(max(seconds, 0.02))
            return False
        # Due, and yet the claim did not get it: it fell due this moment, or somebody else holds the row. For a while.
        now = time.monotonic()
        if self._locked_since is None:
            self._locked_since = now
        elif now - self._locked_since > max(self._settings.worker_linger_secs, _LOCKED_PAUSE_SECONDS):
            return True
        await self._sleep(_LOCKED_PAUSE_SECONDS if now > self._locked_since else 0.02)
        return False

    # -- callbacks ----------------------------------------------------------------------------------------------------

    def _on_ready(self, gathered: Sequence[Gathered]) -> None:
        self._ready.extend(gathered)
        self._wake.set()

    def _on_gathered(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fault = error
        self._wake.set()

    def _on_lost(self, ids: set[UUID]) -> None:
        self._metrics.lease_lost(len(ids))
        log.warning("Leases were lost; what comes of these items will be refused", items=len(ids))

    def _on_call(self, endpoint: str, status: str, seconds: float) -> None:
        self._report.requests += 1
        self._report.siorg_seconds += seconds
        self._metrics.api_call(endpoint, status, seconds)

    def _on_call_error(self, endpoint: str, error_type: str) -> None:
        if error_type != "NotFound":  # an answer like any other, and often the one that was wanted
            self._report.request_errors += 1
        self._metrics.api_error(endpoint, error_type)

    async def _watch_stop(self) -> None:
        await self._stop.wait()
        self._wake.set()

    async def _sleep(self, seconds: float, *, until_stop: bool = True) -> None:
        """Until something happened, or for so long."""
        if until_stop and self._stop.is_set():
            return
        self._wake.clear()
        if self._ready:
            return
        try:
            async with asyncio.timeout(max(seconds, 0)):
                await self._wake.wait()
        except TimeoutError:
            pass


def _too_long(pause: float) -> GiveUp:
    return GiveUp("siorg_rate_limited", f"SIORG wants no requests for another {pause:.0f} s")


class _SiorgRefuses(GiveUp):
    def __init__(self, message: str) -> None:
        super().__init__("siorg_unavailable", message)
