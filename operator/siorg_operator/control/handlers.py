"""Everything that kopf calls. Decorators and wake-ups only: what to do is decided in a pass, never here."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

import kopf

from siorg_operator.api.resource import FINALIZER, GROUP, PLURAL, VERSION
from siorg_operator.cluster.connection import REQUEST_SECONDS
from siorg_operator.cluster.sessions import Sessions
from siorg_operator.control.cache import Cache
from siorg_operator.control.loop import Controller
from siorg_operator.control.resync import Resync
from siorg_operator.decide.manifests import MANAGED_BY
from siorg_runtime.backoff import exponential

_OWNED = {"jobs": ("batch", "v1"), "pods": ("", "v1"), "cronjobs": ("batch", "v1")}
"""Kinds of the things that belong to resources, by their plurals."""
WATCHED = (PLURAL, *_OWNED)
"""Kinds that are listed and watched."""
_LOGIN_AGAIN_SECONDS = 5.0  # when there was no token to be had, or no certificate
_OURS = {"app.kubernetes.io/managed-by": MANAGED_BY}


def settings() -> kopf.OperatorSettings:
    """Kopf's own settings; each says what it bounds or avoids."""
    settings = kopf.OperatorSettings()
    # Handlers of events put no finalizer and store nothing; should kopf ever do so, not under a name that others use too.
    settings.persistence.finalizer = FINALIZER
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
    settings.persistence.diffbase_storage = NothingCompared()
    settings.posting.enabled = False  # events are recorded by ports.Reporter, on transitions only
    settings.scanning.disabled = True  # no listing of namespaces and CRDs: a Role is enough
    settings.peering.standalone = True  # a Lease decides who leads
    settings.watching.server_timeout = 300  # a silent stream is opened anew after this
    settings.watching.client_timeout = 310
    settings.watching.connect_timeout = 10
    settings.watching.chunk_size = 500  # of a listing: never all bodies in memory at once
    settings.queueing.idle_timeout = 1.0  # a worker keeps the body that it saw last for so long
    for plural, (group, _) in _OWNED.items():
        selector = ",".join(f"{key}={value}" for key, value in _OURS.items())
        settings.watching.label_selectors[group, plural] = selector  # the server sends nobody else's
    settings.networking.request_timeout = REQUEST_SECONDS
    settings.networking.connect_timeout = 10
    settings.networking.error_backoffs = ForEver()
    settings.process.ultimate_exiting_timeout = None  # it would kill the process so long after watches failed, see watches.py
    return settings


class ForEver(Iterable[float]):
    """Pauses (seconds) after 403, 429, 5xx and no answer: kopf gives up when there are no more."""

    def __iter__(self) -> Iterator[float]:
        return (exponential(failures, 1.0, 20.0) * random.uniform(0.75, 1.0) for failures in itertools.count(1))  # noqa: S311


class NothingCompared(kopf.DiffBaseStorage):
    """What an object was before is of no interest. kopf's own storages copy each one for every event: half of a start's time."""

    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> None:
        pass

    def store(self, **_: Any) -> None:
        pass


def resync(controller: Controller, cache: Cache, list_uids: Callable[[str], Awaitable[set[str]]]) -> Resync:
    """Finds what was deleted while nobody watched. ``list_uids``: see ``Resync``."""

    def known(kind: str) -> set[str]:
        return set(controller.loops) if kind == PLURAL else cache.uids(kind)

    async def deleted(kind: str, uids: set[str]) -> None:
        if kind == PLURAL:
            await asyncio.gather(*(controller.stop(uid) for uid in uids))
        else:
            cache.drop(kind, uids)
            controller.wake()

    return Resync(list_uids, WATCHED, known, deleted)


def registry(controller: Controller, cache: Cache, resync: Resync, sessions: Sessions) -> kopf.OperatorRegistry:
    """What kopf is to call."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry, backoff=_LOGIN_AGAIN_SECONDS)
    async def login(**_: Any) -> kopf.AiohttpSession:
        return kopf.AiohttpSession(server=sessions.server, aiohttp_session=await sessions.open())

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def resource_changed(*, type: str | None, uid: str, body: kopf.Body, **_: Any) -> None:  # noqa: A002 - kopf's word
        resync.seen(uid)
        if type == "DELETED" or body.metadata.deletion_timestamp:
            await controller.stop(uid)
        else:
            controller.show(uid, body)

    async def owned_changed(
        *, type: str | None, uid: str, body: kopf.Body, resource: kopf.Resource, **_: Any  # noqa: A002 - kopf's word
    ) -> None:  # fmt: skip
        kind = resource.plural
        owner = cache.update(kind, body, deleted=type == "DELETED")
        resync.seen(uid)
        if (loop := controller.loops.get(owner)) is None:
            return
        if kind == "jobs" and type == "DELETED":
            loop.job_deleted(uid)
        else:
            loop.wake()

    for plural, (group, version) in _OWNED.items():
        kopf.on.event(group, version, plural, labels=_OURS, registry=registry)(owned_changed)

    return registry
