"""The PodMonitors beside what they are to find."""

from __future__ import annotations

from typing import Any

import pytest

from support.monitoring import COMPONENT, documents
from support.siorg_server import REPOSITORY


def monitor_named(name: str) -> dict[str, Any]:
    (found,) = (one for one in documents(COMPONENT / "pod-monitors.yaml") if one["metadata"]["name"] == name)
    return dict(found)


@pytest.mark.parametrize(
    ("monitor", "deployment"),
    [("siorg-operator", "base/operator.yaml"), ("siorg-worker", "overlays/deployment/worker.yaml")],
)
def test_a_monitor_finds_the_pods_and_their_port(monitor: str, deployment: str) -> None:
    spec = monitor_named(monitor)["spec"]
    (found,) = (one for one in documents(REPOSITORY / "manifests" / deployment) if one["kind"] == "Deployment")
    template = found["spec"]["template"]
    assert spec["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    ports = {port["name"] for container in template["spec"]["containers"] for port in container["ports"]}
    assert {endpoint["port"] for endpoint in spec["podMetricsEndpoints"]} <= ports


def test_the_operators_own_namespace_label_is_honoured() -> None:
    (endpoint,) = monitor_named("siorg-operator")["spec"]["podMetricsEndpoints"]
    assert endpoint["honorLabels"]
