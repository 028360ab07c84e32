"""Processes of the real operator: its handlers, loops, cache, client and clocks, in simulated time. One leads at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from unittest import mock

import kopf
from kubernetes import client

from siorg_operator.api.resource import PLURAL
from siorg_operator.cluster.fingerprint import Fingerprints
from siorg_operator.cluster.secrets import SecretQueueReader, Secrets
from siorg_operator.control import expectations, handlers, loop, reconcile, resync
from siorg_operator.control.cache import Cache
from siorg_operator.control.loop import Controller
from siorg_operator.control.reconcile import Context
from siorg_operator.serving.health import Health
from siorg_operator.serving.metrics import OperatorMetrics
from support.operator_values import IMAGE
from support.simulation.api_server import KINDS, Body, SimulatedKubernetes, Watch
from support.simulation.virtual_time import VirtualTimeLoop
from support.simulation.work import Databases

if TYPE_CHECKING:
    from support.simulation.world import World

NAMESPACE = "sync"
PROCESS: ContextVar[OperatorProcess | None] = ContextVar("PROCESS", default=None)
"""Of which process a task is."""
_API = client.ApiClient(client.Configuration(host="http://nowhere.invalid"))


class _Unmeasured:
    """Metrics that nobody looks at: a quarter of all time otherwise."""

    def __getattr__(self, name: str) -> _Unmeasured:
        return self

    def __call__(self, *_: object, **__: object) -> _Unmeasured:
        return self


_METRICS = cast("OperatorMetrics", _Unmeasured())


@contextmanager
def in_virtual_time(events: VirtualTimeLoop) -> Iterator[None]:
    """What the operator takes for the monotonic clock is the loop's."""
    with mock.patch.multiple(loop, time=events), mock.patch.multiple(reconcile, time=events), mock.patch.multiple(
        resync, time=events
    ), mock.patch.object(expectations.Expectations.__init__, "__defaults__", (events.time,)):  # fmt: skip
        yield


def _plain(handler: Any) -> Callable[..., Any]:
    """A handler of ours: kopf's types ask for more than it takes."""
    found: Callable[..., Any] = handler
    return found


class OperatorProcess:
    """From its first list until it ends. Every task but the world's own is of the process that leads."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.may_write = True
        self._context = copy_context()
        self._context.run(PROCESS.set, self)
        self.began = world.now
        self._databases = Databases(world)
        kubernetes = SimulatedKubernetes(world, _API, lambda: self.may_write, metrics=_METRICS)
        secrets = Secrets(kubernetes.read_secret, refresh_seconds=60.0, clock=lambda: world.now)
        fingerprints = Fingerprints(NAMESPACE, kubernetes.read_secret, kubernetes.patch_secret)
        cache = Cache()
        context = Context(
            launcher=kubernetes,
            reporter=kubernetes,
            new_reader=lambda: SecretQueueReader(secrets, fingerprints, self._databases.read),
            observe=cache.observe,
            databases=cast("Any", self._databases),
            metrics=_METRICS,
            health=Health(clock=lambda: world.now),
            cluster=kubernetes,
            default_image=IMAGE,
            clock=kubernetes.clock.now,
        )
        list_uids = partial(kubernetes.uids, namespace=NAMESPACE)
        self._controller = self._context.run(Controller, context)
        self._resync = handlers.resync(self._controller, cache, list_uids)
        watching = handlers.registry(self._controller, cache, self._resync, cast("Any", None))._watching.get_all_handlers()
        self._handlers = {str(handler.selector and handler.selector.any_name): _plain(handler.fn) for handler in watching}
        self.watches = {kind: Watch(world, kind, partial(self._heard, kind), self._resync.listed) for kind in KINDS}

    def start(self) -> None:
        self.spawn(self._resync.run(self._controller.begin))
        for watch in self.watches.values():
            watch.begin()

    def _heard(self, kind: str, told: str | None, body: Body) -> None:
        handler, uid = self._handlers[kind], body["metadata"]["uid"]
        seen = kopf.Body(cast("Any", body)) if kind == PLURAL else body
        self.spawn(handler(type=told, uid=uid, body=seen, resource=SimpleNamespace(plural=kind)))
        self.world.judge.heard(kind, body, self)

    def spawn(self, work: Any) -> None:
        """Run it as a part of this process."""
        self._context.run(asyncio.get_running_loop().create_task, work)

    async def stop(self) -> None:
        """As after SIGTERM."""
        self.cut_off(still_writes=True)
        await self._controller.close()
        self.may_write = False

    def cut_off(self, *, still_writes: bool = False) -> None:
        """It hears no more."""
        self.may_write = still_writes
        for watch in self.watches.values():
            watch.end()
        self._databases.drop()
