"""The process at its edges: a signal that comes early, and requests that are under way when it ends."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from kubernetes import client, config
from prometheus_client import CollectorRegistry

from siorg_operator.cluster.client import Kubernetes
from siorg_operator.cluster.connection import api_client
from siorg_operator.control import run
from siorg_operator.serving.health import Health
from siorg_operator.serving.metrics import OperatorMetrics
from siorg_operator.settings import OperatorSettings
from support.event_loop import in_a_loop


def test_a_signal_while_the_cluster_is_looked_at_is_not_lost() -> None:
    stop = threading.Event()

    class Cluster:
        async def check_access(self, namespace: str) -> None:
            stop.set()

    settings = OperatorSettings.from_environment({"SIORG_OPERATOR_NAMESPACE": "sync"})
    cluster: Any = Cluster()
    assert asyncio.run(run._access(settings, cluster, stop)) is False


@in_a_loop
async def test_a_signal_that_comes_before_kopf_takes_them_ends_it_too() -> None:
    stop, stopped = threading.Event(), asyncio.Event()
    beating = asyncio.create_task(run._beat(Health(), stop, stopped))
    await asyncio.sleep(0)
    assert not stopped.is_set()
    stop.set()
    async with asyncio.timeout(5):
        await stopped.wait()
    beating.cancel()


def test_a_call_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "load_kube_config", lambda client_configuration: None)
    assert api_client().configuration.retries is False


@pytest.mark.parametrize("hangs", [False, True])
@in_a_loop
async def test_requests_that_are_under_way_come_to_their_end_first_but_not_for_ever(
    monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    release, ended = threading.Event(), threading.Event()

    def slow(*_: Any, **__: Any) -> Any:
        release.wait(60 if hangs else 0.3)
        ended.set()
        raise OSError("no answer")

    if hangs:
        monkeypatch.setattr("siorg_operator.cluster.client._CLOSING_SECONDS", 0.1)
    api = client.ApiClient(client.Configuration())
    monkeypatch.setattr(api, "call_api", slow)
    cluster = Kubernetes(api, OperatorMetrics(CollectorRegistry()))
    call = asyncio.create_task(cluster._call("create", "jobs", "siorg"))
    await asyncio.sleep(0.05)
    call.cancel()  # as the pass of a control loop is, when it takes too long
    cluster.close()
    assert ended.is_set() is not hangs
    release.set()
