"""The drain: claim, fetch, decide, apply, finish, until nothing is claimable and nothing is in flight.

One event loop holds the items in flight: as many as the fetches that run beside each other can serve. What has been fetched is
applied in groups on the database thread, so a group grows by itself while the one before it is applied.

What a failed fetch means for its item, when to wait for SIORG and when to give up is decided by ``siorg_health``; whose fault a
failure is by ``suspects``; how long to wait for more work by ``run.Linger``.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Collection, Sequence
from datetime import timedelta
from uuid import UUID

import psycopg

from siorg_job.database.shared_rate import SharedRate
from siorg_job.database.thread import DatabaseThread
from siorg_job.drain.faults import broken, of_our_own, of_refusal, refuses_all
from siorg_job.drain.in_flight import InFlight
from siorg_job.drain.lease_keeper import LeaseKeeper
from siorg_job.drain.maintenance import Maintenance
from siorg_job.drain.queue_client import QueueClient
from siorg_job.drain.run import Broken, GiveUp, Linger, Run
from siorg_job.drain.siorg_health import SiorgHealth, State
from siorg_job.drain.suspects import APPLYING, FETCHING, UNIT, Place, Suspects, Suspicion, Where
from siorg_job.fetch.failure import FetchFailure, FetchFault
from siorg_job.fetch.fetcher import Fetcher, Fetching
from siorg_job.metrics import JobMetrics
from siorg_job.siorg.errors import AccessRefused, BreakerOpen, RateLimited, SiorgError, SiorgUnavailable
from siorg_job.siorg_session import breaker_for, client_for
from siorg_job.sync.apply import Work, apply
from siorg_job.sync.blocked import AGAIN_SECONDS, look_at_tables
from siorg_job.sync.limits import Limits
from siorg_queue import DatabaseBlocked, DatabaseUnavailable, Outcome, Status, Verdict
from siorg_queue.statements import load
from siorg_runtime.application import job_application
from siorg_runtime.logs import logger

log = logger("siorg_job.drain")

_APPLY_AT_MOST = 200  # items a transaction: short locks, and little to do again after a deadlock
_RECLAIM_SECONDS = 1.0  # after a claim that found nothing while items are in flight
_SUSPECTS_AT_MOST = 1000  # of what nobody gets past: more would tell nothing new
_TURN_SECONDS = 0.001  # what is given back for another's fault waits behind the others: the next run begins with these
_LONGEST_WAIT_SECONDS = 10.0  # with everything in flight: the chores beside the items have to be done too


class Drain:
    """One process's work on the queue."""

    def __init__(self, run: Run, queue: QueueClient, maintenance: Maintenance, metrics: JobMetrics) -> None:
        self._settings = settings = run.settings
        self._summary, self._stop, self._forever = run.summary, run.stop, run.forever
        self._queue, self._maintenance, self._metrics = queue, maintenance, metrics
        self._in_flight = InFlight(run.summary, metrics)
        self._limits = Limits.of(settings)
        self._linger = Linger(settings, forever=run.forever)
        self._next_claim = 0.0
        url = settings.database_url.get_secret_value()
        self._reader = DatabaseThread(url, job_application("fetch"))
        breaker, patience = breaker_for(settings), math.inf if run.forever else settings.worker_unavailable_secs
        self._patience_seconds = patience
        self._blocked_since: float | None = None
        self._waited_at = -math.inf
        """When others were last in the way of what was applied (monotonic seconds)."""
        paused = max(patience, settings.worker_linger_secs)
        self._suspects = Suspects()
        self._health = SiorgHealth(breaker, self._suspects, unavailable_seconds=patience, paused_seconds=paused)
        fresh, longest = settings.siorg_fresh_secs, settings.worker_item_timeout_secs
        self._rate = SharedRate(self._reader, settings.siorg_max_requests_per_second, longest_wait_seconds=longest / 2)
        self._client = client_for(
            settings,
            self._rate,
            breaker,
            structure_breaker=breaker_for(settings),
            observe=self._on_call,
            observe_error=self._on_call_error,
            observe_answer=lambda endpoint: self._suspects.passed(Place(Where.SIORG, endpoint)),
        )
        at_once = settings.requests_at_once
        self._fetching = Fetching(Fetcher(self._client, self._reader, fresh_seconds=fresh, item_seconds=longest, at_once=at_once))
        self._summary.requests_at_once = at_once
        self._few = max(1, min(settings.items_in_flight, at_once) // 4)
        """Room for fewer items is worth no claim."""
        self._keeper = LeaseKeeper(url, timedelta(seconds=settings.worker_lease_secs), self._on_leases_lost)

    async def run(self) -> str:
        """Drain, and return the reason for the end: ``exhausted``, ``stopped`` or ``disabled``.

        Raises:
            GiveUp: database or SIORG stayed unavailable; what was claimed has been given back where that was possible.
            Broken: no item gets through; likewise.
        """
        self._keeper.start()
        stop_watch = asyncio.create_task(self._stop.wait())
        stop_watch.add_done_callback(lambda _: self._fetching.wake())
        try:
            async with self._client, contextlib.aclosing(self._fetching):
                return await self._loop()
        finally:
            self._summary.request_retries += self._client.retries
            stop_watch.cancel()
            self._keeper.stop()
            await self._reader.aclose()

    async def _loop(self) -> str:
        try:
            while (reason := await self._step()) is None:
                pass
            if reason != "exhausted":
                await self._wind_down()
        except GiveUp as error:
            if error.can_give_back:
                with contextlib.suppress(GiveUp):  # what happened first is what has to be told
                    await self._give_back(str(error))
            raise
        except Broken as error:
            await self._give_back(str(error), delay_seconds=_TURN_SECONDS)
            raise
        except Exception:
            with contextlib.suppress(Exception):  # what happened first is what has to be told
                await self._give_back("given back: the worker has a fault")
            raise
        return reason

    async def _step(self) -> str | None:
        """Take one turn of the loop; returns the reason why there is no further one."""
        await self._apply_ready()
        await self._judge_suspects()
        if self._stop.is_set():
            return "stopped"
        if self._health.state is State.DOWN:
            await self._wait_for_siorg()
            return None
        self._health.check_patience(time.monotonic(), in_flight=len(self._in_flight))
        await self._maintenance.run_due(len(self._in_flight), self._metrics)
        if not await self._maintenance.is_enabled():
            if not self._forever:
                return "disabled"
            await self._sleep(self._settings.worker_poll_interval_secs)
        elif await self._take_more():
            await self._maintenance.reap()
            return "exhausted"
        return None

    # -- claim --------------------------------------------------------------------------------------------------------

    async def _take_more(self) -> bool:
        """Claim what there is room for, or wait until something happens; True: there is nothing left to do.

        Not for every slot that becomes free: a claim costs the same for one item as for many.
        """
        limit, busy = self._settings.items_a_claim, self._busy
        if not busy:
            self._next_claim = 0.0  # nothing else will wake us
        room = 0 if self._in_flight.is_alone else self._room
        has_room = room >= min(limit, self._few) or not busy
        now = time.monotonic()
        if has_room and now >= self._next_claim and not self._fetching.has_ready:
            pause = await self._pause_left()
            if pause > 0:
                return await self._sit_out(pause)
            self._health.paused(0.0, now)
            if room > 0 and await self._claim(min(room, limit)):
                self._next_claim = 0.0
                return False
            if not self._in_flight:
                return await self._is_exhausted()
            if not busy:
                await self._judge_without_comparison()
                return False
            self._next_claim = now + _RECLAIM_SECONDS
        await self._sleep(max(self._next_claim - now, 0.05) if has_room else _LONGEST_WAIT_SECONDS)
        return False

    async def _claim(self, limit: int) -> bool:
        claim = await self._queue.claim(limit, lambda: {item.id: item.lease_token for item in self._in_flight.items})
        self._in_flight.count_lost(claim.lost)
        if claim.items:
            self._linger.claimed()
            self._suspects.give_back({item.id for item in claim.items})  # held by us until their leases ran out
            self._in_flight.add(claim.items)
            self._keeper.hold(claim.items)
            self._fetching.start(claim.items)
        return bool(claim)

    async def _is_exhausted(self) -> bool:
        """Nothing in flight, nothing claimed: wait for what falls due soon; True: that is nothing."""
        pause = self._linger.pause(await self._queue.next_due_seconds(), time.monotonic())
        if pause is not None:
            await self._sleep(pause)
        return pause is None

    async def _pause_left(self) -> float:
        """Seconds for which SIORG wants no requests from anybody on this database."""
        try:
            return await self._rate.pause_left()
        except DatabaseUnavailable:
            return 0.0  # the claim waits for the database

    async def _sit_out(self, pause: float) -> bool:
        """Claim nothing during a pause. True: there is nothing to claim after it either."""
        if not self._busy:
            await self._give_back("given back: SIORG wants no requests, and there is nothing to compare with")
        if not self._in_flight:  # else they end by themselves, and soon: they are not allowed to send either
            # Is there anything that waits for the end of the pause: claimable, or postponed because it met the 429 itself?
            idle = not self._forever and not await self._queue.has_claimable()
            if idle and (not self._health.is_limited or await self._queue.next_due_seconds() is None):
                return await self._is_exhausted()
            if self._health.state is not State.PAUSED:
                log.warning("SIORG wants no requests: nothing is claimed", seconds=round(pause))
            self._health.paused(pause, time.monotonic())
        await self._sleep(min(pause, _LONGEST_WAIT_SECONDS))
        return False

    # -- decide and apply ---------------------------------------------------------------------------------------------

    async def _apply_ready(self) -> None:
        """Apply what has been fetched, and finish what needs no applying."""
        while part := self._fetching.take(_APPLY_AT_MOST):
            works: list[Work] = []
            for result in part:
                if isinstance(result, FetchFault):
                    if result.item in self._in_flight:
                        self._suspects.add(of_our_own(result.item, result.error, FETCHING))
                elif not isinstance(result, FetchFailure):
                    self._health.answered()
                    self._blocked_since = None
                    self._suspects.passed(FETCHING)
                    if result[0] in self._in_flight:
                        works.append(result)
                elif result.item in self._in_flight:
                    if isinstance(result.error, DatabaseBlocked):
                        await self._wait_for_locks(result.error)
                    verdict = self._health.failed(result, now=time.monotonic(), jitter=random.random())  # noqa: S311
                    if verdict is not None:
                        works.append((result.item, verdict))
            await self._finish(works)

    async def _wait_for_locks(self, error: DatabaseBlocked) -> None:
        """A fetch waited for a lock in vain: while a table is locked, nothing goes on.

        Raises:
            GiveUp: nothing was fetched for too long.
        """
        now = time.monotonic()
        if self._blocked_since is None:
            self._blocked_since = now
        if now - self._blocked_since > self._patience_seconds:
            raise GiveUp("database_unavailable", f"others hold a lock: {error}", can_give_back=True)
        await self._queue.call(lambda connection, _: look_at_tables(connection))

    async def _finish(self, works: Sequence[Work]) -> None:
        """Apply, and write down each item's outcome, in one transaction."""
        if not works:
            return
        # Else a forgotten transaction that is in the way of a whole organization costs each group of its items the whole wait.
        hurried = time.monotonic() - self._waited_at < AGAIN_SECONDS
        applied = await self._queue.call(lambda conn, store: apply(conn, store, works, self._limits, hurried=hurried))
        if applied.waited:
            self._waited_at = time.monotonic()
        for refusal in applied.refusals:
            self._suspects.add(of_refusal(refusal))
        got_through = any(item.id in applied.settled and not isinstance(found, Verdict) for item, found in works)
        self._suspects.passed(*(Place(Where.DATABASE, step) for step in applied.passed), *([APPLYING] if got_through else []))
        refused = {refusal.item.id for refusal in applied.refusals}
        ended = [item for item, _ in works if item.id not in refused]
        for item in ended:
            settled = applied.settled.get(item.id)
            if self._in_flight.end(item, applied) and settled is not None and settled.status is not Status.PENDING:
                self._suspects.ended(item.id)
        self._keeper.drop(ended)

    async def _finish_judged(self) -> None:
        """What others got past: it goes back and is tried again, or pays."""
        verdicts = self._suspects.judged()
        for verdict in verdicts:
            if verdict.outcome is Outcome.RETRY:
                self._metrics.retries.labels(verdict.item.entity_type).inc()
        await self._finish([(verdict.item, verdict) for verdict in verdicts])

    async def _give_back(self, reason: str, *, but: Collection[UUID] = (), delay_seconds: float | None = None) -> None:
        """Stop what is under way and release every item in flight, ``but`` these."""
        await self._fetching.cancel()
        items = [item for item in self._in_flight.items if item.id not in but]
        self._suspects.give_back({item.id for item in items})
        verdicts = [Verdict(item, Outcome.RELEASED, error=reason, delay_seconds=delay_seconds) for item in items]
        await self._finish([(verdict.item, verdict) for verdict in verdicts])

    async def _wind_down(self) -> None:
        """Asked to end: finish what finishes within the grace, release the rest."""
        log.info("Stopping: no further claims", in_flight=len(self._in_flight))
        deadline = time.monotonic() + self._settings.worker_shutdown_grace_secs
        while self._busy and time.monotonic() < deadline and self._health.state is not State.DOWN:
            await self._apply_ready()
            await self._finish_judged()
            if self._busy:
                await self._fetching.wait(min(0.2, deadline - time.monotonic()))
        await self._apply_ready()
        await self._give_back("given back at shutdown")

    # -- SIORG's health -----------------------------------------------------------------------------------------------

    async def _judge_suspects(self) -> None:
        """Ask the control, where nothing else can tell, until it is known whether the suspects or SIORG are at fault."""
        await self._finish_judged()
        asks = not self._fetching.has_ready
        while asks and self._health.needs_control(len(self._in_flight)) and not self._stop.is_set():
            try:
                await self._ask_control(self._settings.siorg_timeout_secs + 1.0)  # that it is late is for the breaker to know
            except AccessRefused as error:
                raise GiveUp("siorg_unavailable", str(error)) from None
            except RateLimited as error:
                verdicts = self._health.limit_suspects(error, now=time.monotonic(), jitter=random.random())  # noqa: S311
                await self._finish([(verdict.item, verdict) for verdict in verdicts])
            except SiorgError as error:
                log.warning("SIORG does not answer", reason=str(error))
                await self._sleep(0.2)
            await self._finish_judged()

    async def _wait_for_siorg(self) -> None:
        """SIORG is down: give everything back unharmed, then ask the control until it is answered."""
        health = self._health
        health.went_down(time.monotonic())
        reason = health.down_reason
        await self._give_back(f"SIORG is unavailable: {reason}", but=self._suspects.repeated())
        self._metrics.siorg_available.set(0)
        log.warning("SIORG is unavailable; every item was given back", reason=reason)
        while health.state is State.DOWN and not self._stop.is_set():
            now = time.monotonic()
            health.check_patience(now, in_flight=0)
            try:
                await self._ask_control(min(health.probe_seconds(now), self._settings.siorg_timeout_secs))
            except SiorgError as error:
                if self._in_flight and not isinstance(error, BreakerOpen):
                    await self._give_back(f"SIORG is unavailable: {error}")
                await self._sleep(health.probe_failed(error, time.monotonic()))
        if health.state is not State.DOWN:
            self._metrics.siorg_available.set(1)
            log.info("SIORG answers again")

    async def _ask_control(self, seconds: float) -> None:
        """Ask what the suspects' endpoint is asked, about another organization: for so long at most, and until asked to end.

        Raises:
            SiorgError: it does not answer, or that was not to be learnt in time.
            GiveUp: the database, which holds the rate of all requests, stayed away.
        """
        suspects = self._suspects.of(Where.SIORG)
        place = suspects[0].place if suspects else self._health.trouble
        asking = asyncio.create_task(self._control(place))
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({asking, stopping}, timeout=max(seconds, 0.1), return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise SiorgUnavailable("SIORG did not answer in time")
            await asking
            self._suspects.passed(place)
        except DatabaseUnavailable as error:
            await self._queue.has_claimable()  # waits until it answers, or gives up
            raise SiorgUnavailable(f"the shared request rate could not be read: {error}") from None
        finally:
            asking.cancel()
            stopping.cancel()
            await asyncio.gather(asking, stopping, return_exceptions=True)

    async def _control(self, place: Place) -> None:
        code = None
        if place == UNIT:
            codes = [suspicion.item.siorg_code for suspicion in self._suspects.of(Where.SIORG)]
            rows = await self._reader.rows(load("siorg_job.fetch", "fetch.sql")["another"], codes=codes)
            code = rows[0]["code"] if rows else None
        await self._client.probe(code)

    # -- faults of ours -----------------------------------------------------------------------------------------------

    async def _judge_without_comparison(self) -> None:
        """Nothing else is under way or claimable, and nobody got past where these failed.

        Raises:
            Broken: several failed alike, or it is certain without that: no item is at fault.
        """
        if alike := self._suspects.common():
            raise await broken(alike, self._queue)
        for suspicion in self._suspects.alone():
            if await self._is_ours(suspicion):
                raise await broken([suspicion], self._queue)
        self._suspects.passed(*{suspicion.place for suspicion in self._suspects.of(Where.DATABASE, Where.WORKER)})

    async def _is_ours(self, suspicion: Suspicion) -> bool:
        """Whether an item that is alone with its failure is certainly not at fault."""
        if isinstance(suspicion.error, psycopg.Error):
            return await refuses_all(suspicion.error, self._queue)
        if suspicion.place != FETCHING:
            return False
        try:
            await self._ask_control(self._settings.siorg_timeout_secs)
        except SiorgError:
            return False
        except (GiveUp, asyncio.CancelledError):
            raise
        except Exception:  # noqa: BLE001 - another question fails by a fault of ours too
            return True
        return False

    # -- callbacks ----------------------------------------------------------------------------------------------------

    def _on_leases_lost(self, ids: set[UUID]) -> None:
        """Called on the lease keeper's thread."""
        self._metrics.leases_lost.inc(len(ids))
        log.warning("Leases were lost; what comes of these items will be refused", items=len(ids))

    def _on_call(self, endpoint: str, status: str, seconds: float) -> None:
        self._summary.requests += 1
        self._summary.siorg_seconds += seconds
        self._metrics.call_seconds.labels(endpoint, status).observe(seconds)

    def _on_call_error(self, endpoint: str, error_type: str) -> None:
        if error_type != "NotFound":  # an answer like any other, and often the one that was wanted
            self._summary.request_errors += 1
        self._metrics.call_errors.labels(endpoint, error_type).inc()

    @property
    def _room(self) -> int:
        """How many more items can be held."""
        free = min(self._settings.items_in_flight - self._busy, _SUSPECTS_AT_MOST - len(self._suspects))
        return min(free, self._fetching.room if self._busy else max(self._fetching.room, 1))

    @property
    def _busy(self) -> int:
        """How many items in flight are no suspects."""
        return len(self._in_flight) - len(self._suspects)

    async def _sleep(self, seconds: float) -> None:
        """Until something happens, or for so long; not at all when asked to end."""
        if not self._stop.is_set():
            await self._fetching.wait(seconds)
