"""One resource's loop: wake, pass, wait. Everything that may happen only wakes it; what to do is decided anew each time."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any, Protocol

from siorg_operator.api.resource import ResourceError, SiorgSyncWorker, parse
from siorg_operator.control.reconcile import Passed, PassFailed, Reconciler, Seen, Tally
from siorg_operator.decide import status as statuses
from siorg_operator.decide import wording
from siorg_operator.decide.ports import Cluster, ClusterError
from siorg_operator.decide.reasons import Reason
from siorg_operator.decide.state import Job
from siorg_operator.serving.health import Health
from siorg_operator.serving.metrics import OperatorMetrics

log = logging.getLogger(__name__)

SPACING_SECONDS = 0.1
"""Passes of one resource begin at least so far apart: a burst of events is one pass and one more after it."""
_BUSY_SPACING_SECONDS = 1.0
"""And so far apart while there is work and nothing was launched for it: rows that trickle in, Jobs that come and go."""
_JITTER = 0.2
_EXPECTED_SECONDS = 30.0  # a Job that was made and is not shown by then has come and gone
_FIRST_RETRY_SECONDS = 1.0
_LONGEST_RETRY_SECONDS = 30.0
_REST_SECONDS = 5.0
"""After a pass that failed the next one waits so long, or until its retry comes, whatever happens meanwhile: news that come
all the time must not become a storm of refused requests. Only an edit of the resource is worth a try at once."""


class World(Protocol):
    """What the cluster shows, and what can be listened to."""

    def body(self) -> Mapping[str, Any]:
        """The resource's object as it is known now."""
        ...

    def seen(self, resource: SiorgSyncWorker, now: datetime) -> Seen:
        """What belongs to the resource."""
        ...

    def listen(self, resource: SiorgSyncWorker, wake: Callable[[], None]) -> None:
        """Be woken when there is new work on the resource's queue; called after each pass, and cheap when nothing changed."""
        ...


class Attendant:
    """Attends to one resource until it is gone."""

    def __init__(
        self,
        world: World,
        reconciler: Reconciler,
        cluster: Cluster,
        *,
        metrics: OperatorMetrics,
        health: Health,
        clock: Callable[[], datetime],
        default_image: str | None,
    ) -> None:
        """``default_image``: of Jobs whose resource names none."""
        self._world = world
        self._reconciler = reconciler
        self._cluster = cluster
        self._metrics = metrics
        self._health = health
        self._clock = clock
        self._default_image = default_image
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()
        self._generation: int | None = None
        self._status: Mapping[str, Any] | None = None
        self._shown: Mapping[str, Any] = {}
        self._drifted: Mapping[str, Any] | None = None
        self._odd: Mapping[str, Any] = {}
        self._version = ""
        self._passing = False
        self._spacing = SPACING_SECONDS
        self._tally: Tally | None = None
        self._expected: dict[str, tuple[Job, float]] = {}
        self._failures = 0
        self._where = ("", "")

    def wake(self) -> None:
        """Look again soon."""
        self._wake.set()

    def hurry(self) -> None:
        """Look again at once, even after a pass that failed."""
        self._hurry.set()
        self._wake.set()

    def changed(self) -> None:
        """The object was written: worth a look when it was its spec, or its status by somebody else."""
        body = self._world.body()
        if body["metadata"].get("generation") != self._generation:
            self.hurry()
        elif not self._passing and self._status is not None and self._has_drifted(body):
            self.wake()

    def gone(self, job: str) -> None:
        """A Job was removed: nobody need expect it any more."""
        self._expected.pop(job, None)
        self.wake()

    async def attend(self, stopped: Callable[[], bool]) -> None:
        """Pass after pass until ``stopped``."""
        while not stopped():
            self._wake.clear()  # before anything is read: what happens from here on is not lost
            self._hurry.clear()
            began = time.monotonic()
            self._spacing = SPACING_SECONDS
            self._passing = True
            try:
                pause = await self._pass()
            finally:
                self._passing = False
            if self._has_drifted(self._world.body()):
                self.wake()
            await self._wait(pause, began)

    async def _wait(self, pause: float, began: float) -> None:
        rest = min(pause, _REST_SECONDS) if self._failures else 0.0
        if rest:
            await _within(rest, self._hurry)
        if not await _within(pause - rest, self._wake):
            return
        await asyncio.sleep(max(began + SPACING_SECONDS - time.monotonic(), 0.0))
        await _within(max(began + self._spacing - time.monotonic(), 0.0), self._hurry)

    async def _pass(self) -> float:
        """One pass; returns how long to wait before the next one (seconds)."""
        body = self._world.body()
        metadata = body["metadata"]
        namespace, name = metadata.get("namespace") or "", metadata["name"]
        self._generation = metadata.get("generation")
        if self._status is None:
            self._status = self._shown = dict(body.get("status") or {})
            self._tally = Tally((self._status.get("jobs") or {}).get("lastFinishedTime") or "")
        elif self._has_drifted(body):
            self._drifted = self._shown = dict(body.get("status") or {})
        self._where = (namespace, name)
        key = f"{namespace}/{name}"
        self._health.pass_began(key)
        began = time.monotonic()
        try:
            resource = self._resource(body)
            seen = self._look(resource)
            assert self._tally is not None  # set above
            passed = await self._reconciler.step(seen, self._tally)
        except ResourceError as error:
            return await self._refuse(body, str(error))
        except PassFailed as error:
            self._keep(resource, error.passed)
            self._world.listen(resource, self.wake)
            return self._failed(namespace, name, error)
        except ClusterError as error:
            return self._failed(namespace, name, error)
        except Exception as error:
            # A bug must neither end the loop nor spin it.
            log.exception("A pass failed unexpectedly", extra={"namespace": namespace, "worker": name})
            self._metrics.reconcile_failed(namespace, name, type(error).__name__)
            return self._retry_pause()
        finally:
            self._metrics.reconciled(namespace, name, time.monotonic() - began)
            self._health.pass_ended(key)
        self._failures = 0
        self._keep(resource, passed)
        self._world.listen(resource, self.wake)
        return _pause(passed)

    def _resource(self, body: Mapping[str, Any]) -> SiorgSyncWorker:
        """The resource as it is known, with the status that we ourselves wrote last.

        Raises:
            ResourceError: it cannot be understood.
        """
        resource = parse({**body, "status": self._status or {}})
        if resource.spec.job.image:
            return resource
        if not self._default_image:
            problem = "is not set, and the operator has no default (SIORG_OPERATOR_JOB_IMAGE); allowed: an image reference"
            raise ResourceError([f"spec.job.image: {problem}"])
        job = resource.spec.job.model_copy(update={"image": self._default_image})
        return resource.model_copy(update={"spec": resource.spec.model_copy(update={"job": job})})

    def _has_drifted(self, body: Mapping[str, Any]) -> bool:
        """Whether the status is not what we wrote: by somebody else, or by a write of ours of which no answer came."""
        version = body["metadata"].get("resourceVersion")
        return bool(version) and not _is_older(version, self._version) and (body.get("status") or {}) != self._shown

    def _wrote(self, meant: Mapping[str, Any], answer: Mapping[str, Any] | None) -> None:
        """The object as it was after a write of its status: until that is shown, what is shown is old."""
        self._status = meant
        if answer is None:
            self._drifted = None if self._drifted == meant else self._drifted
            return
        self._version = answer["metadata"].get("resourceVersion") or ""
        self._shown = answer.get("status") or {}
        # Somebody wrote in between? Once more is enough to know: a message may have been cleansed of a secret.
        self._drifted = None
        if meant != self._shown != self._odd:
            self._drifted = self._odd = self._shown
            self.wake()

    def _look(self, resource: SiorgSyncWorker) -> Seen:
        """What the cluster shows, and the Jobs that we made and that it does not show yet."""
        seen = self._world.seen(resource, self._clock())
        now = time.monotonic()
        shown = {job.name for job in seen.jobs}
        self._expected = {
            name: (job, until) for name, (job, until) in self._expected.items() if name not in shown and until > now
        }
        jobs = [*seen.jobs, *(job for job, _ in self._expected.values())]
        # In one order, so that what is said of the first of them does not change from pass to pass.
        jobs.sort(key=lambda job: (job.slot, job.round))
        return replace(seen, status=self._status or {}, jobs=jobs, drifted=self._drifted)

    def _keep(self, resource: SiorgSyncWorker, passed: Passed) -> None:
        self._wrote(passed.status, passed.written)
        result, plan = passed.result, passed.result.plan
        if not result.launched and not plan.remove and (plan.depth != 0 or plan.unfinished):
            self._spacing = _BUSY_SPACING_SECONDS
        until = time.monotonic() + _EXPECTED_SECONDS
        self._expected |= {job.name: (job, until) for job in result.launched}
        where = {"namespace": self._where[0], "worker": self._where[1]}
        if result.launched:
            log.info("%s", wording.decision(resource, result), extra={**where, "jobs": [job.name for job in result.launched]})
        for removal in result.ended:
            log.warning("Ended a Job whose pod cannot start: %s", removal.stuck.message, extra={**where, "job": removal.name})

    async def _refuse(self, body: Mapping[str, Any], message: str) -> float:
        """Tell that the resource cannot be understood; look again when it was changed."""
        metadata = body["metadata"]
        where = {"namespace": metadata.get("namespace"), "worker": metadata["name"]}
        log.warning("The resource cannot be understood: %s", message, extra=where)
        self._metrics.refused(metadata.get("namespace") or "", metadata["name"], Reason.INVALID_SPEC)
        new = statuses.invalid(self._status or {}, metadata.get("generation") or 0, message, self._clock())
        patch = statuses.merge_patch((self._status or {}) if self._drifted is None else self._drifted, new)
        if patch:
            bare = SiorgSyncWorker.model_construct(metadata=_Names(metadata))  # its names are all that is asked
            try:
                answer = await self._cluster.write_status(bare, patch)
            except ClusterError as error:
                log.warning("The status could not be written: %s", error)
                return self._retry_pause()
            before = self._status or {}
            self._wrote(new, answer)
            for event in statuses.transitions(before, new):
                # Only one condition has an event, and not the one that names the field.
                told = replace(event, message=message) if event.reason == Reason.INVALID_SPEC else event
                await self._cluster.record(bare, told)
        return _LONGEST_RETRY_SECONDS * 10

    def _failed(self, namespace: str, name: str, error: ClusterError | PassFailed) -> float:
        self._metrics.reconcile_failed(namespace, name, str(error.code or "NoAnswer"))
        log.warning("A pass was not carried out in full: %s", error, extra={"namespace": namespace, "worker": name})
        return self._retry_pause()

    def _retry_pause(self) -> float:
        pause = min(_FIRST_RETRY_SECONDS * 2.0 ** min(self._failures, 10), _LONGEST_RETRY_SECONDS)
        self._failures += 1
        return pause * (1 + _JITTER * random.random())  # noqa: S311 - jitter


class _Names:
    """The names of an object whose spec cannot be understood."""

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self.name, self.namespace, self.uid = metadata["name"], metadata.get("namespace"), metadata.get("uid")


async def _within(seconds: float, event: asyncio.Event) -> bool:
    """Wait for ``event``; whether it came in time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


def _pause(passed: Passed) -> float:
    """Until the next look: the poll, jittered so that resources do not look in step, or what is known to come sooner."""
    poll = passed.result.plan.poll_seconds * (1 + _JITTER * random.random())  # noqa: S311 - jitter
    return min(
        [
            poll,
            *(max(wake, SPACING_SECONDS) for wake in (passed.result.plan.wake_seconds, passed.retry_seconds) if wake is not None),
        ]
    )


def _is_older(version: str, other: str) -> bool:
    """Whether one resourceVersion came before another. The API server counts them; any other kind is old unless equal."""
    if version.isdecimal() and other.isdecimal():
        return int(version) < int(other)
    return bool(other) and version != other
