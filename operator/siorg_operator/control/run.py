"""``siorg-operator run``: the process from its start to its end. Puts the parts together; decides nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from functools import partial

from siorg_operator.cli import DONE
from siorg_operator.cluster.client import Kubernetes
from siorg_operator.cluster.connection import api_client
from siorg_operator.cluster.fingerprint import Fingerprints
from siorg_operator.cluster.leader import Leadership, exit_at_once
from siorg_operator.cluster.secrets import SecretQueueReader, Secrets
from siorg_operator.cluster.sessions import Sessions
from siorg_operator.control import handlers
from siorg_operator.control.cache import Cache
from siorg_operator.control.loop import Controller
from siorg_operator.control.reconcile import Context
from siorg_operator.control.watches import watch
from siorg_operator.database.databases import Databases
from siorg_operator.decide.ports import ClusterError
from siorg_operator.serving.health import Health
from siorg_operator.serving.http import HttpServer
from siorg_operator.serving.metrics import OperatorMetrics, operator_registry
from siorg_operator.settings import OperatorSettings
from siorg_runtime.logs import logger

_ACCESS_RETRY_SECONDS = 2.0
GRACE_SECONDS = 25.0
"""After SIGTERM the process has ended, whatever hangs: less than the pod's ``terminationGracePeriodSeconds``."""
_ENDING = (signal.SIGTERM, signal.SIGINT)

log = logger(__name__)


def run(settings: OperatorSettings) -> None:
    """Run until a signal comes. ``UsageError``: no cluster is configured, or the port for probes and metrics is taken."""
    registry = operator_registry()
    metrics, health = OperatorMetrics(registry), Health()
    metrics.watch_unanswered.set_function(lambda: health.unanswered_seconds)
    api = api_client()
    http = HttpServer(health, registry)
    port = http.start(settings.http_address, settings.http_port)
    log.info("Started", namespace=settings.namespace, address=settings.http_address, port=port)
    stop = threading.Event()
    for number in _ENDING:
        signal.signal(number, lambda *_: _end(stop))
    leadership = None
    if settings.leader_election:
        leadership = Leadership(api, settings, on_try=lambda reached: health.lease_tried(reached=reached))
    # Before the election: the client's modules take longer to load than a standby may take to act.
    may_write = None if leadership is None else lambda: leadership.is_leader
    kubernetes = Kubernetes(api, metrics, may_write=may_write, health=health)
    try:
        if leadership is not None:
            health.standing_by()
        if leadership is None or leadership.wait_until_leading(stop):
            health.leading(handlers.WATCHED)
            metrics.leader.set(1)
            log.info("Leading", namespace=settings.namespace)
            asyncio.run(_lead(settings, kubernetes, Sessions(api.configuration, health), metrics, health, stop))
    finally:
        if leadership is not None:
            leadership.release()
        http.close()
        log.info("Ended")
    if kubernetes.in_flight:
        os._exit(DONE)  # the interpreter would wait for an answer that may never come


def _end(stop: threading.Event) -> None:
    """Asked to end: by ourselves, or by force where that hangs. The kubelet's SIGKILL would leave no word of why."""
    stop.set()

    def force() -> None:
        time.sleep(GRACE_SECONDS)
        exit_at_once(f"Not ended {GRACE_SECONDS:g} s after being asked to; exiting at once")

    threading.Thread(target=force, name="grace", daemon=True).start()


async def _lead(
    settings: OperatorSettings,
    kubernetes: Kubernetes,
    sessions: Sessions,
    metrics: OperatorMetrics,
    health: Health,
    stop: threading.Event,
) -> None:
    """Reconcile every resource of the namespace until ``stop``."""
    databases, cache = Databases(), Cache()
    secrets = Secrets(kubernetes.read_secret, refresh_seconds=settings.secret_refresh_secs)
    fingerprints = Fingerprints(settings.namespace, kubernetes.read_secret, kubernetes.patch_secret)
    context = Context(
        launcher=kubernetes,
        reporter=kubernetes,
        new_reader=lambda: SecretQueueReader(secrets, fingerprints, databases.read),
        observe=cache.observe,
        databases=databases,
        metrics=metrics,
        health=health,
        cluster=kubernetes,
        pacing=settings.pacing,
        default_image=settings.job_image,
        secrets_seconds=max(settings.secret_refresh_secs, 1.0),
        clock=kubernetes.clock.now,
    )
    # kopf would wait for a threading.Event on a thread, which nothing could end.
    stopped = asyncio.Event()
    controller = Controller(context)
    resync = handlers.resync(controller, cache, partial(kubernetes.uids, namespace=settings.namespace))
    sessions.listed = resync.listed
    tasks = [asyncio.create_task(_beat(health, stop, stopped)), asyncio.create_task(resync.run(controller.begin))]
    try:
        await watch(
            handlers.registry(controller, cache, resync, sessions),
            settings,
            health,
            stopped,
            ready=partial(_access, settings, kubernetes, stop),
            listen=partial(_listen, stop, stopped),
        )
    finally:
        for task in tasks:
            task.cancel()
        await controller.close()
        await databases.close()
        kubernetes.close()


def _listen(stop: threading.Event, stopped: asyncio.Event) -> None:
    """Hear SIGTERM and SIGINT on this event loop from now on."""

    def heard() -> None:
        _end(stop)
        stopped.set()

    for number in _ENDING:
        asyncio.get_running_loop().add_signal_handler(number, heard)


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
    """Show that the event loop turns; and pass on a signal that came before the loop heard them."""
    while True:
        health.beat()
        if stop.is_set():
            stopped.set()
        await asyncio.sleep(1.0)
