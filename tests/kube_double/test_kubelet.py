"""The test's node: pods run as real processes, on the small server and, bound by the real scheduler, on a real one."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from kube_double.kubelet import NODE_SELECTOR, TOLERATIONS
from kube_double.pod_environment import expand
from kube_double.server import ApiServer
from support.cluster import Cluster, small_cluster
from support.fleet import eventually
from support.kube import Body, Kube

ENVIRONMENT = "import json, os; print(json.dumps(dict(os.environ)))"


def pod(name: str, program: str = "print('done')", *, selector: Body | None = None, grace: int = 5, **container: Any) -> Body:
    main = {"name": "main", "image": "python:test", "args": ["-c", program], **container}
    spec = {"restartPolicy": "Never", "terminationGracePeriodSeconds": grace, "containers": [main],
            "nodeSelector": NODE_SELECTOR if selector is None else selector, "tolerations": TOLERATIONS}  # fmt: skip
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def state(body: Body) -> Body:
    """The one container's state."""
    statuses = body["status"].get("containerStatuses") or [{"state": {}}]
    found: Body = statuses[0]["state"]
    return found


def ends(kube: Kube, name: str) -> Body:
    body = kube.wait_for("pods", name, lambda body: body["status"]["phase"] in ("Succeeded", "Failed"))
    found: Body = state(body)["terminated"]
    return found


def test_a_process_gets_the_pods_environment_and_hardly_anything_else(
    cluster: Cluster, kube: Kube, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setenv("SIORG_API_TOKEN", "this process' own")
    kube.create_secret(name, {"url": "postgresql://x", "more": "1"})
    env = [
        {"name": "PLAIN", "value": "a"},
        {"name": "TWICE", "value": "$(PLAIN)$(PLAIN) $$(PLAIN) $(NOPE)"},
        {"name": "DATABASE_URL", "valueFrom": {"secretKeyRef": {"name": name, "key": "url"}}},
        {"name": "PERHAPS", "valueFrom": {"secretKeyRef": {"name": name, "key": "nope", "optional": True}}},
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "SPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
    ]
    kube.create(pod(name, ENVIRONMENT, env=env, envFrom=[{"prefix": "S_", "secretRef": {"name": name}}]))
    assert ends(kube, name)["exitCode"] == 0
    found = json.loads(cluster.kubelet.logs(name))
    beneath = {key: found.pop(key) for key in ("PATH", "HOME", "HOSTNAME", "WORKER_TERMINATION_LOG")}
    assert beneath["PATH"] == os.environ["PATH"]
    for key in ("PYTHONPATH", "LC_CTYPE"):
        found.pop(key, None)
    assert found == {
        "PLAIN": "a", "TWICE": "aa $(PLAIN) $(NOPE)", "DATABASE_URL": "postgresql://x", "POD": name, "SPACE": cluster.namespace,
        "S_url": "postgresql://x", "S_more": "1",
    }  # fmt: skip


def test_an_end_says_what_the_process_left(kube: Kube, name: str) -> None:
    program = "import os; open(os.environ['WORKER_TERMINATION_LOG'], 'w').write('drained 5' + 'x' * 9000)"
    kube.create(pod(name, program))
    ended = ends(kube, name)
    assert (ended["exitCode"], ended["reason"]) == (0, "Completed")
    assert ended["message"].startswith("drained 5xxx")
    assert len(ended["message"]) == 4096
    assert ended["startedAt"] <= ended["finishedAt"]


def test_deletion_kills_when_the_grace_is_over(cluster: Cluster, kube: Kube, name: str) -> None:
    program = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
    kube.create(pod(name, program, grace=1))
    eventually(lambda: cluster.kubelet.logs(name) == "ready\n")
    kube.delete("pods", name)
    kube.wait_gone("pods", name)
    assert not [each for each in cluster.kubelet.processes() if each.pod == name]


def test_a_pod_that_ends_or_goes_while_the_api_is_away_is_told_later(cluster: Cluster, kube: Kube, name: str) -> None:
    if cluster.server is None:
        pytest.skip("a real server is not ours to stop")
    kube.create(pod(f"{name}-ends", "import time; time.sleep(0.5)"))
    kube.create(pod(f"{name}-goes", "import time; time.sleep(60)"))
    eventually(lambda: len([each for each in cluster.kubelet.processes() if each.pod.startswith(name)]) == 2)
    kube.delete("pods", f"{name}-goes")
    with cluster.server.gone():
        eventually(lambda: not [each for each in cluster.kubelet.processes() if each.pod.startswith(name)])
    assert ends(kube, f"{name}-ends")["exitCode"] == 0
    kube.wait_gone("pods", f"{name}-goes")


def test_leaving_the_cluster_ends_everything(tmp_path: Path) -> None:
    program = "import subprocess, sys, time; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); time.sleep(60)"
    with ApiServer() as server, small_cluster(tmp_path, {"python:test": [sys.executable]}, server=server) as cluster:
        cluster.kube.create(pod("one", program))
        eventually(lambda: cluster.kubelet.logs("one"))
        pids = [cluster.kubelet.processes()[0].pid, int(cluster.kubelet.logs("one"))]
    eventually(lambda: not any(map(_is_running, pids)))


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_variables_expand_as_kubernetes_expands_them() -> None:
    assert expand("$(A)-$$(A)-$(B)-$A", {"A": "1"}) == "1-$(A)-$(B)-$A"
