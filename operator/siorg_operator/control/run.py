"""``siorg-operator run``: the process from its start to its end. Puts the parts together; decides nothing."""

from __future__ import annotations

import asyncio
import signal
import threading
from functools import partial
from typing import Any, cast

import kopf

from siorg_operator.cluster.client import Kubernetes
from siorg_operator.cluster.connection import api_client
from siorg_operator.cluster.leader import Leadership
from siorg_operator.cluster.secrets import SecretQueueReader, Secrets
from siorg_operator.control import handlers
from siorg_operator.control.cache import Cache
from siorg_operator.control.loop import Controller
from siorg_operator.control.reconcile import Context
from siorg_operator.database.databases import Databases
from siorg_operator.decide.ports import ClusterError
from siorg_operator.serving.health import Health
from siorg_operator.serving.http import HttpServer
from siorg_operator.serving.metrics import OperatorMetrics, operator_registry
from siorg_operator.settings import OperatorSettings
from siorg_runtime.logs import logger

_ACCESS_RETRY_SECONDS = 2.0

log = logger(__name__)


def run(settings: OperatorSettings) -> int:
    """Run until a signal comes; returns the exit code.

    Raises:
        ClusterError: no cluster is configured.
        HttpPortError: the port for probes and metrics is taken.
    """
    registry = operator_registry()
    metrics, health = OperatorMetrics(registry), Health()
    api = api_client()
    http = HttpServer(health, registry)
    port = http.start(settings.http_address, settings.http_port)
    log.info("Started", namespace=settings.namespace, address=settings.http_address, port=port)
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    leadership = None
    if settings.leader_election:
        leadership = Leadership(api, settings, on_try=lambda reached: health.lease_tried(reached=reached))
    # Before the election: the client's modules take longer to load than a standby may take to act.
    kubernetes = Kubernetes(api, metrics, may_write=None if leadership is None else lambda: leadership.is_leader)
    try:
        if leadership is not None:
            health.standing_by()
            if not leadership.wait_until_leading(stop):
                return 0
        health.leading()
        metrics.leader.set(1)
        log.info("Leading", namespace=settings.namespace)
        return asyncio.run(_lead(settings, kubernetes, metrics, health, stop))
    finally:
        if leadership is not None:
            leadership.release()
        for number, handler in before.items():
            signal.signal(number, handler)
        http.close()
        log.info("Ended")


async def _lead(
    settings: OperatorSettings, kubernetes: Kubernetes, metrics: OperatorMetrics, health: Health, stop: threading.Event
) -> int:
    """Reconcile every resource of the namespace until ``stop``."""
    databases, cache = Databases(), Cache()
    secrets = Secrets(kubernetes.read_secret, refresh_seconds=settings.secret_refresh_secs)
    controller = Controller(
        Context(
            launcher=kubernetes,
            reporter=kubernetes,
            new_reader=lambda: SecretQueueReader(secrets, databases.read),
            observe=cache.observe,
            databases=databases,
            metrics=metrics,
            health=health,
            cluster=kubernetes,
            pacing=settings.pacing,
            default_image=settings.job_image,
            secrets_seconds=max(settings.secret_refresh_secs, 1.0),
        )
    )
    registry = kopf.OperatorRegistry()
    handlers.register(registry, controller, cache, partial(kubernetes.uids, namespace=settings.namespace))
    kopf_settings = kopf.OperatorSettings()
    handlers.configure(kopf_settings)
    # kopf would wait for a threading.Event on a thread, which nothing could end.
    stopped = asyncio.Event()
    beating = asyncio.create_task(_beat(health, stop, stopped))

    @kopf.on.cleanup(registry=registry)
    async def ended(**_: Any) -> None:
        stopped.set()  # kopf would look for it for some seconds more

    try:
        if not await _access(settings, kubernetes, stop):
            return 0
        health.listed()
        # From here on SIGTERM and SIGINT are kopf's: it stops every control loop and returns. A watch that fails raises.
        await kopf.operator(
            registry=registry,
            settings=kopf_settings,
            namespaces=[settings.namespace],
            standalone=True,
            # Only for peering, but kopf would ask who runs it, and a container's user has no name.
            identity=cast("Any", settings.identity),
            stop_flag=stopped,
        )
        return 0
    finally:
        beating.cancel()
        await databases.close()
        kubernetes.close()


async def _access(settings: OperatorSettings, kubernetes: Kubernetes, stop: threading.Event) -> bool:
    """Wait until everything that is watched can be listed; False when told to stop first.

    kopf looks only once which kinds there are: a CRD that comes later than the operator would never be watched.
    """
    logged = ""
    while not stop.is_set():
        try:
            await kubernetes.check_access(settings.namespace)
        except ClusterError as error:
            if str(error) != logged:
                logged = str(error)
                log.warning("Waiting for the cluster", reason=logged)
            await asyncio.sleep(_ACCESS_RETRY_SECONDS)
        else:
            return not stop.is_set()
    return False


async def _beat(health: Health, stop: threading.Event, stopped: asyncio.Event) -> None:
    """Show that the event loop turns; and pass on a signal that came before kopf's own handlers were there."""
    while True:
        health.beat()
        if stop.is_set():
            stopped.set()
        await asyncio.sleep(1.0)
