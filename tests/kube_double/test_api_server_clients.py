"""The clients that people and our operator use, on the small API server and on a real one."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client, config, dynamic, watch

from support.cluster import Cluster
from support.fleet import eventually

DEFINITION = yaml.safe_load((Path(__file__).parent / "widgets.yaml").read_text())
GROUP = ("tests.siorg.dev", "v1")


@pytest.fixture(scope="module")
def api(cluster: Cluster) -> Any:
    """The official client, as ``kubernetes.config`` makes it."""
    cluster.kube.apply_crd(DEFINITION)
    return config.new_client_from_config(str(cluster.kubeconfig))  # type: ignore[no-untyped-call]


@pytest.fixture
def name() -> str:
    return f"t-{secrets.token_hex(4)}"


def job(name: str) -> dict[str, Any]:
    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"suspend": True, "template": {"spec": pod}}}  # fmt: skip


class TestOfficialClient:
    def test_creates_from_a_dict_and_from_a_model(self, api: Any, cluster: Cluster, name: str) -> None:
        batch: Any = client.BatchV1Api(api)
        made = batch.create_namespaced_job(cluster.namespace, job(name))
        assert made.spec.backoff_limit == 6
        secret = client.V1Secret(metadata=client.V1ObjectMeta(name=name), string_data={"a": "b"})
        assert client.CoreV1Api(api).create_namespaced_secret(cluster.namespace, secret).data == {"a": "Yg=="}
        with pytest.raises(client.ApiException) as error:
            batch.create_namespaced_job(cluster.namespace, job(name))
        assert (error.value.status, error.value.reason) == (409, "Conflict")

    def test_lists_patches_and_deletes(self, api: Any, cluster: Cluster, name: str) -> None:
        batch: Any = client.BatchV1Api(api)
        batch.create_namespaced_job(cluster.namespace, job(name))
        listed = batch.list_namespaced_job(cluster.namespace, label_selector=f"app={name}").items
        assert [each.metadata.name for each in listed] == [name]
        patched = batch.patch_namespaced_job(name, cluster.namespace, {"spec": {"activeDeadlineSeconds": 9}})
        assert patched.spec.active_deadline_seconds == 9
        batch.delete_namespaced_job(name, cluster.namespace, propagation_policy="Background")
        eventually(lambda: not batch.list_namespaced_job(cluster.namespace, label_selector=f"app={name}").items)

    def test_applies(self, api: Any, cluster: Cluster, name: str) -> None:
        manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}}
        core: Any = client.CoreV1Api(api)
        applied = core.patch_namespaced_config_map(
            name, cluster.namespace, manifest, field_manager="siorg-operator", force=True,
            _content_type="application/apply-patch+yaml",
        )  # fmt: skip
        assert applied.metadata.managed_fields[0].operation == "Apply"

    def test_knows_custom_objects(self, api: Any, cluster: Cluster, name: str) -> None:
        custom: Any = client.CustomObjectsApi(api)
        manifest = {"apiVersion": "tests.siorg.dev/v1", "kind": "Widget", "metadata": {"name": name}, "spec": {"scaling": {}}}
        made = custom.create_namespaced_custom_object(*GROUP, cluster.namespace, "widgets", manifest)
        assert made["spec"]["scaling"]["maxJobs"] == 5
        patched = custom.patch_namespaced_custom_object_status(
            *GROUP, cluster.namespace, "widgets", name, {"status": {"phase": "Ready"}}
        )
        assert patched["status"] == {"phase": "Ready"}

    def test_watches(self, api: Any, cluster: Cluster, name: str) -> None:
        core: Any = client.CoreV1Api(api)
        manifest: dict[str, Any] = {"metadata": {"name": name, "labels": {"watch": name}}}
        made = core.create_namespaced_config_map(cluster.namespace, manifest)
        core.patch_namespaced_config_map(name, cluster.namespace, {"data": {"a": "1"}})
        core.delete_namespaced_config_map(name, cluster.namespace)
        kinds = []
        stream: Any = watch.Watch()  # type: ignore[no-untyped-call]
        for event in stream.stream(
            core.list_namespaced_config_map, cluster.namespace, label_selector=f"watch={name}", timeout_seconds=10,
            resource_version=str(int(made.metadata.resource_version) - 1),
        ):  # fmt: skip
            kinds.append(event["type"])
            if event["type"] == "DELETED":
                stream.stop()
        assert kinds == ["ADDED", "MODIFIED", "DELETED"]

    def test_finds_resources_by_itself(self, api: Any, cluster: Cluster, name: str) -> None:
        found: Any = dynamic.DynamicClient(api)  # type: ignore[no-untyped-call]
        widgets = found.resources.get(api_version="tests.siorg.dev/v1", kind="Widget")
        manifest = {"apiVersion": "tests.siorg.dev/v1", "kind": "Widget", "metadata": {"name": name}, "spec": {"scaling": {}}}
        assert widgets.create(manifest, namespace=cluster.namespace).metadata.generation == 1
        assert widgets.get(name=name, namespace=cluster.namespace).spec.mode == "Active"

    def test_renews_a_lease_only_with_the_version_it_read(self, api: Any, cluster: Cluster, name: str) -> None:
        coordination: Any = client.CoordinationV1Api(api)
        body: dict[str, Any] = {"metadata": {"name": name}, "spec": {"holderIdentity": "one", "leaseDurationSeconds": 15}}
        coordination.create_namespaced_lease(cluster.namespace, body)
        lease, stale = (coordination.read_namespaced_lease(name, cluster.namespace) for _ in range(2))
        lease.spec.holder_identity = "two"
        assert coordination.replace_namespaced_lease(name, cluster.namespace, lease).spec.holder_identity == "two"
        with pytest.raises(client.ApiException) as error:
            coordination.replace_namespaced_lease(name, cluster.namespace, stale)
        assert error.value.status == 409


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl on PATH")
class TestKubectl:
    @pytest.fixture
    def kubectl(self, api: Any, cluster: Cluster, tmp_path: Path) -> Any:
        """Runs kubectl in the test's namespace; what it printed."""

        def run(*arguments: str, read: str = "", code: int = 0) -> str:
            env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "KUBECONFIG": str(cluster.kubeconfig)}
            command = ["kubectl", "-n", cluster.namespace, *arguments]
            done = subprocess.run(command, input=read, env=env, capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == code, done.stdout + done.stderr
            return done.stdout + done.stderr

        return run

    def test_applies_shows_waits_and_deletes(self, kubectl: Any, cluster: Cluster, name: str) -> None:
        manifest = yaml.safe_dump({"apiVersion": "tests.siorg.dev/v1", "kind": "Widget", "metadata": {"name": name},
                                   "spec": {"scaling": {"maxJobs": 4}}})  # fmt: skip
        assert kubectl("apply", "-f", "-", read=manifest) == f"widget.tests.siorg.dev/{name} created\n"
        assert kubectl("apply", "-f", "-", read=manifest) == f"widget.tests.siorg.dev/{name} unchanged\n"
        cluster.kube.patch_status("widgets", name, {"conditions": [{"type": "Ready", "status": "True"}]})
        kubectl("wait", "--for=condition=Ready", f"wdg/{name}", "--timeout=10s")
        head, row = kubectl("get", "wdg", name).splitlines()
        assert head.split() == ["NAME", "READY", "MAX", "AGE"]
        assert row.split()[:3] == [name, "True", "4"]
        kubectl("scale", f"wdg/{name}", "--replicas=6")
        assert kubectl("get", "wdg", name, "-o", "jsonpath={.spec.scaling.maxJobs}") == "6"
        assert "Max Jobs:  6" in kubectl("describe", "wdg", name)
        assert name in kubectl("get", "tests")
        kubectl("delete", "wdg", name)
        assert "NotFound" in kubectl("get", "wdg", name, code=1)

    def test_is_told_what_is_wrong(self, kubectl: Any, name: str) -> None:
        manifest = yaml.safe_dump({"apiVersion": "tests.siorg.dev/v1", "kind": "Widget", "metadata": {"name": name},
                                   "spec": {"scaling": {"maxJops": 4}}})  # fmt: skip
        assert 'unknown field "spec.scaling.maxJops"' in kubectl("apply", "-f", "-", read=manifest, code=1)
        told = kubectl("apply", "-f", "-", read=manifest.replace("maxJops: 4", "maxJobs: 0"), code=1)
        assert "spec.scaling.maxJobs in body should be greater than or equal to 1" in told

    def test_explains_a_custom_resource(self, kubectl: Any) -> None:
        eventually(lambda: "maxJobs" in kubectl("explain", "wdg.spec.scaling"))


def test_the_small_servers_pods_have_logs(cluster: Cluster, name: str) -> None:
    if cluster.server is None:
        pytest.skip("a real server asks a real kubelet")
    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "python:test", "args": ["-c", "print(5)"]}]}
    cluster.kube.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": pod})
    cluster.kube.wait_for("pods", name, lambda body: body["status"]["phase"] == "Succeeded")
    assert cluster.kube.request("GET", cluster.kube.path("pods", name=name, subresource="log")) == 5
