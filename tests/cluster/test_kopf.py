"""A kopf operator in a process of its own lives on the API server: create, Job, status, delete, garbage collection."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from support.cluster import Cluster
from support.fleet import eventually
from support.kube import Body

HERE = Path(__file__).parent


@pytest.fixture
def operator(cluster: Cluster, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    cluster.kube.apply_crd(yaml.safe_load((HERE / "widgets.yaml").read_text()))
    with (tmp_path / "operator.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "kopf", "run", "--standalone", "-n", cluster.namespace, str(HERE / "small_operator.py")],
            env={**os.environ, "KUBECONFIG": str(cluster.kubeconfig)}, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        sys.stdout.write((tmp_path / "operator.log").read_text())


def widget(name: str, **spec: object) -> Body:
    return {"apiVersion": "tests.siorg.dev/v1", "kind": "Widget", "metadata": {"name": name}, "spec": {"scaling": {}, **spec}}


def test_a_resource_gets_its_job_its_status_and_its_end(cluster: Cluster, operator: subprocess.Popen[bytes]) -> None:
    kube = cluster.kube
    kube.create(widget("first"))
    kube.wait_for("jobs", "first-1")
    done = kube.wait_for("widgets", "first", lambda body: body.get("status", {}).get("phase") == "Done")
    assert done["metadata"]["finalizers"] == ["tests.siorg.dev/finalizer"]
    assert done["metadata"]["generation"] == 1
    pods = kube.list("pods", labels="batch.kubernetes.io/job-name=first-1")
    assert [pod["status"]["phase"] for pod in pods] == ["Succeeded"]
    assert cluster.kubelet.logs(pods[0]["metadata"]["name"]) == "done\n"
    kube.delete("widgets", "first")
    kube.wait_gone("widgets", "first")
    kube.wait_gone("jobs", "first-1")
    eventually(lambda: not kube.list("pods", labels="batch.kubernetes.io/job-name=first-1"))


def test_deleting_a_resource_ends_the_process_of_its_job(cluster: Cluster, operator: subprocess.Popen[bytes]) -> None:
    kube = cluster.kube
    kube.create(widget("second", program="import time; time.sleep(30)"))
    eventually(lambda: [each.pod for each in cluster.kubelet.processes(cluster.namespace)])
    kube.delete("widgets", "second")
    kube.wait_gone("widgets", "second")
    eventually(lambda: not cluster.kubelet.processes(cluster.namespace), seconds=60)


def test_a_watch_that_breaks_and_a_server_that_was_away_are_no_end(
    cluster: Cluster, operator: subprocess.Popen[bytes]
) -> None:  # fmt: skip
    if cluster.server is None:
        pytest.skip("a real server is not ours to break")
    kube, server = cluster.kube, cluster.server
    kube.create(widget("third"))
    kube.wait_for("widgets", "third", lambda body: body.get("status", {}).get("phase") == "Done")
    server.compact()
    server.break_watches()
    kube.create(widget("fourth"))
    kube.wait_for("widgets", "fourth", lambda body: body.get("status", {}).get("phase") == "Done")
    with server.gone():
        time.sleep(0.5)
    kube.create(widget("fifth"))
    kube.wait_for("widgets", "fifth", lambda body: body.get("status", {}).get("phase") == "Done", seconds=60)
