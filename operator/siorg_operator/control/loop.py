"""One control loop for each resource: wake, pass, wait. Everything that may happen only wakes it; what to do is decided anew.

A loop owns all that this process remembers of its resource, and is dropped whole when the resource goes.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from siorg_operator.api.resource import Metadata, ResourceError, SiorgSyncWorker, parse
from siorg_operator.control.reconcile import Context, Reconciled, Reconciler
from siorg_operator.control.status_writer import StatusWriter
from siorg_operator.decide import status as statuses
from siorg_operator.decide.ports import ClusterError
from siorg_operator.decide.reasons import Reason
from siorg_runtime.backoff import exponential
from siorg_runtime.logs import logger

log = logger(__name__)

SPACING_SECONDS = 0.1
"""Passes of one resource begin at least so far apart: a burst of events is one pass and one more after it."""
_BUSY_SPACING_SECONDS = 1.0
"""And so far apart while there is work and nothing was launched for it: rows that trickle in, Jobs that come and go."""
_JITTER = 0.2
_FIRST_RETRY_SECONDS = 1.0
_LONGEST_RETRY_SECONDS = 30.0
_INVALID_SECONDS = 300.0
_REST_SECONDS = 5.0
"""After a pass that failed the next one waits so long, or until its retry comes, whatever happens meanwhile: news that come
all the time must not become a storm of refused requests. Only an edit of the resource is worth a try at once."""
_RESTART_SECONDS = 1.0
_STOP_SECONDS = 5.0  # a pass that is under way may come to its end for so long; then it is cancelled


class ControlLoop:
    """Reconciles one resource until it is stopped."""

    def __init__(self, context: Context, body: Mapping[str, Any]) -> None:
        self._context = context
        self._body = body
        self._where = {"namespace": body["metadata"].get("namespace") or "", "worker": body["metadata"]["name"]}
        self.names = (self._where["namespace"], self._where["worker"])
        self._reader = context.new_reader()
        self._status = StatusWriter(context.reporter, self.wake)
        self._reconciler = Reconciler(context, self.names, self._reader, self._status)
        self._listening: tuple[str, Callable[[], None]] | None = None
        self._woken = asyncio.Event()
        self._hurried = asyncio.Event()
        self._stopped = False
        self._passing = False
        self._generation: int | None = None
        self._failures = 0
        self._rest = 0.0
        self._spacing = SPACING_SECONDS

    # -- what happens -------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Look again soon."""
        self._woken.set()

    def hurry(self) -> None:
        """Look again at once, even after a pass that failed."""
        self._hurried.set()
        self._woken.set()

    def stop(self) -> None:
        """End after the pass that is under way."""
        self._stopped = True
        self.hurry()

    def show(self, body: Mapping[str, Any]) -> None:
        """The object was written: worth a look when it was its spec, or its status by somebody else."""
        self._body = body
        if body["metadata"].get("generation") != self._generation:
            self.hurry()
        elif not self._passing and self._status.has_drifted(body):
            self.wake()

    def job_deleted(self, uid: str) -> None:
        self._reconciler.job_deleted(uid)
        self.wake()

    # -- the loop -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        try:
            while not self._stopped:
                self._woken.clear()  # before anything is read: what happens from here on is not lost
                self._hurried.clear()
                began = time.monotonic()
                self._spacing = SPACING_SECONDS
                pause = await self._pass()
                if self._status.has_drifted(self._body):
                    self.wake()
                await self._wait(pause, began)
        finally:
            self._listen(None)

    async def _wait(self, pause: float, began: float) -> None:
        rest = min(pause, self._rest) if self._failures else 0.0
        if rest:
            await _within(rest, self._hurried)
        if not await self._is_woken(pause - rest):
            return
        await asyncio.sleep(max(began + SPACING_SECONDS - time.monotonic(), 0.0))
        await _within(max(began + self._spacing - time.monotonic(), 0.0), self._hurried)

    async def _is_woken(self, seconds: float) -> bool:
        """Wait to be woken, or for a Secret to change: the queue may not be polled for an hour. Whether that came in time."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if await _within(min(left, self._context.secrets_seconds), self._woken) or await self._reader.changed():
                return True
        return self._woken.is_set()

    async def _pass(self) -> float:
        """One pass; returns how long to wait before the next one (seconds)."""
        context, key, began = self._context, "/".join(self.names), time.monotonic()
        self._passing = True
        context.health.pass_began(key)
        try:
            self._generation = self._body["metadata"].get("generation")
            self._status.look(self._body)
            resource = self._resource()
            done = await self._reconciler.reconcile(resource)
        except ResourceError as error:
            return await self._refuse(str(error))
        except Exception as error:
            # A bug must neither end the loop nor spin it.
            log.exception("Reconcile crashed", **self._where)
            context.metrics.pass_errors.labels(*self.names, type(error).__name__).inc()
            return self._retry_pause()
        finally:
            context.metrics.pass_seconds.labels(*self.names).observe(time.monotonic() - began)
            context.health.pass_ended(key)
            self._passing = False
        self._listen(self._reader.url)
        plan = done.result.plan
        if not done.result.launched and not plan.remove and (plan.depth != 0 or plan.unfinished):
            self._spacing = _BUSY_SPACING_SECONDS
        if (failure := done.failure) is not None:
            context.metrics.pass_errors.labels(*self.names, str(failure.code or "NoAnswer")).inc()
            log.warning("Reconcile incomplete", **self._where, reason=str(failure))
            return self._retry_pause(failure.retry_after)
        self._failures = 0
        return _pause(done)

    def _resource(self) -> SiorgSyncWorker:
        """The resource as it is known, with the status that we ourselves wrote last."""
        resource = parse({**self._body, "status": self._status.status})
        image = resource.spec.job.image or self._context.default_image
        if not image:
            problem = "is not set, and the operator has no default (SIORG_OPERATOR_JOB_IMAGE); allowed: an image reference"
            raise ResourceError([f"spec.job.image: {problem}"])
        return resource.with_image(image)

    async def _refuse(self, message: str) -> float:
        """Tell that the resource cannot be understood; look again when it was changed."""
        context, metadata = self._context, self._body["metadata"]
        log.warning("Invalid spec", **self._where, reason=message)
        context.metrics.refused(*self.names, Reason.INVALID_SPEC)
        context.tenants.forget(metadata.get("uid") or "")
        before, now = self._status.status, context.clock()
        status = statuses.invalid(before, metadata.get("generation") or 0, message, now)
        namespace, name = self.names
        identity = Metadata.model_construct(namespace=namespace, name=name, uid=metadata.get("uid") or "")
        bare = SiorgSyncWorker.model_construct(metadata=identity)  # more is not asked of it
        try:
            await self._status.write(bare, status, now)
        except ClusterError as error:
            log.warning("Status not written", **self._where, reason=str(error))
            return self._retry_pause()
        for event in statuses.transitions(before, self._status.status):
            if event.reason == Reason.INVALID_SPEC:  # it comes of a condition that does not name the field
                event = replace(event, message=message)  # noqa: PLW2901
            await context.reporter.record(bare, event)
        return _INVALID_SECONDS

    def _retry_pause(self, at_least: float = 0.0) -> float:
        self._failures += 1
        self._rest = max(_REST_SECONDS, at_least)
        return max(exponential(self._failures, _FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS), at_least) * _jitter()

    def _listen(self, url: str | None) -> None:
        """Be woken when there is new work behind ``url``."""
        if self._listening is not None and self._listening[0] != url:
            self._listening[1]()
            self._listening = None
        if self._listening is None and url is not None:
            self._listening = url, self._context.databases.watch(url, self.wake)


class Controller:
    """All control loops of a process: one for each resource, from when it is first seen until it goes."""

    def __init__(self, context: Context) -> None:
        self.loops: dict[str, ControlLoop] = {}
        """By the uid of the resource."""
        self._context = context
        self._tasks: dict[ControlLoop, asyncio.Task[None]] = {}
        self._begun = asyncio.Event()
        self._outer = contextvars.copy_context()  # a handler's keeps the event that it was called for

    def begin(self) -> None:
        """Reconcile from now on: what there is has been seen. Before, a resource would seem to have no Jobs."""
        self._context.tenants.gather(self.loops)
        self._begun.set()

    def show(self, uid: str, body: Mapping[str, Any]) -> None:
        """A resource is there, or has changed."""
        if (found := self.loops.get(uid)) is not None:
            found.show(body)
            return
        loop = self.loops[uid] = ControlLoop(self._context, body)
        self._tasks[loop] = asyncio.create_task(self._run(loop), context=self._outer.copy())

    async def _run(self, loop: ControlLoop) -> None:
        """Run a loop, whatever happens: a bug of ours must not leave a resource alone."""
        await self._begun.wait()
        while True:
            try:
                return await loop.run()
            except Exception as error:
                log.error("Control loop crashed; restarting", exc_info=error, worker="/".join(loop.names))
                await asyncio.sleep(_RESTART_SECONDS)

    def wake(self) -> None:
        for loop in self.loops.values():
            loop.wake()

    async def stop(self, uid: str) -> None:
        """A resource is gone, or on its way: nothing more is done for it."""
        if (loop := self.loops.pop(uid, None)) is not None:
            await self._stop(loop)
            self._context.metrics.forget(*loop.names)
            self._context.tenants.forget(uid)

    async def close(self) -> None:
        """Stop all and read no more, because the process ends. The Jobs go on."""
        loops = list(self.loops.values())
        self.loops.clear()
        for loop in loops:
            loop.stop()  # first: who waits to begin would begin
        self._begun.set()
        await asyncio.gather(*map(self._stop, loops))
        await self._context.databases.close()

    async def _stop(self, loop: ControlLoop) -> None:
        loop.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS):
                await self._tasks.pop(loop)


async def _within(seconds: float, event: asyncio.Event) -> bool:
    """Wait for ``event``; whether it came in time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


def _pause(done: Reconciled) -> float:
    """Until the next look: the poll, jittered so that resources do not look in step, or what is known to come sooner."""
    sooner = (seconds for seconds in (done.result.plan.wake_seconds, done.retry_seconds) if seconds is not None)
    return min([done.result.plan.poll_seconds * _jitter(), *(max(seconds, SPACING_SECONDS) for seconds in sooner)])


def _jitter() -> float:
    return 1 + _JITTER * random.random()  # noqa: S311 - jitter
