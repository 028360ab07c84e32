"""What others change in objects of ours on their way in: a webhook of the small API server, a policy on a real one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from support.cluster import Cluster
from support.fleet import eventually
from support.kube import Body

_GROUP = "admissionregistration.k8s.io/v1"


@contextmanager
def sidecars(cluster: Cluster) -> Iterator[None]:
    """Istio's: every pod of ours gets a container more, which does not end by itself."""
    sidecar = {"name": "istio-proxy", "image": "istio"}
    cel = 'Object{spec: Object.spec{containers: [Object.spec.containers{name: "istio-proxy", image: "istio"}]}}'
    with _changed(cluster, "", "pods", lambda pod: pod["spec"]["containers"].append(sidecar), cel, _POD):
        yield


@contextmanager
def suspended(cluster: Cluster) -> Iterator[None]:
    """Kueue's: every Job begins suspended."""
    cel = "Object{spec: Object.spec{suspend: true}}"
    with _changed(cluster, "batch", "jobs", lambda job: job["spec"].update(suspend=True), cel, _JOB):
        yield


_POD: Body = {
    "apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "is-it-so-"},
    "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]},
}  # fmt: skip
_JOB: Body = {
    "apiVersion": "batch/v1", "kind": "Job", "metadata": {"generateName": "is-it-so-"},
    "spec": {"template": {"spec": _POD["spec"]}},
}  # fmt: skip


@contextmanager
def _changed(
    cluster: Cluster, group: str, resource: str, change: Callable[[Body], object], cel: str, example: Body
) -> Iterator[None]:  # fmt: skip
    """``cel`` says the same as ``change``; ``example`` shows when it is in force."""
    if cluster.server is not None:
        with cluster.server.webhook(resource, change):
            yield
        return
    kube, name = cluster.kube, f"{cluster.namespace}-{resource}"
    rule = {"apiGroups": [group], "apiVersions": ["v1"], "resources": [resource], "operations": ["CREATE"]}
    here = {"matchLabels": {"kubernetes.io/metadata.name": cluster.namespace}}
    policy = {
        "matchConstraints": {"resourceRules": [rule], "namespaceSelector": here},
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": cel}}],
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
    }

    def in_force() -> bool:
        there = kube.create(example, cluster.namespace, dryRun="All")["spec"]
        return bool(there.get("suspend") or there.get("containers", [])[1:])

    made = [("MutatingAdmissionPolicy", policy), ("MutatingAdmissionPolicyBinding", {"policyName": name})]
    try:
        for kind, spec in made:
            kube.create({"apiVersion": _GROUP, "kind": kind, "metadata": {"name": name}, "spec": spec})
        eventually(in_force)
        yield
    finally:
        for kind in ("mutatingadmissionpolicybindings", "mutatingadmissionpolicies"):
            kube.delete(kind, name)
        eventually(lambda: not in_force())
