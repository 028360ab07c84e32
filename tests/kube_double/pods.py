"""What Kubernetes defaults and checks in pods and pod templates, as far as Jobs need it."""

from __future__ import annotations

import re
from typing import Any

from kube_double.names import generated, label_faults
from kube_double.refused import Body, Fault, forbidden, invalid, required, unsupported

_ENV = re.compile(r"[ -<>-~]+")
_FIELD_PATH = re.compile(
    r"metadata\.(name|namespace|uid|(labels|annotations)\['.+'\])|spec\.(nodeName|serviceAccountName)|status\.(hostIPs?|podIPs?)"
)
_NOT_READY = [
    {"key": f"node.kubernetes.io/{what}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
    for what in ("not-ready", "unreachable")
]


def default_pod_spec(spec: Body) -> None:
    """Fill in, in place, what the API server does for templates and pods alike."""
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")
    if "serviceAccountName" in spec:
        spec.setdefault("serviceAccount", spec["serviceAccountName"])
    for volume in spec.get("volumes") or ():
        _default_volume(volume)
    for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        if isinstance(container, dict):
            _default_container(container)


def _default_container(container: Body) -> None:
    image = container.get("image") or ""
    if image and "imagePullPolicy" not in container:
        tag = image.rpartition("/")[2].partition(":")[2]
        container["imagePullPolicy"] = "Always" if tag == "latest" or (not tag and "@" not in image) else "IfNotPresent"
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    container.setdefault("resources", {})
    for port in container.get("ports") or ():
        port.setdefault("protocol", "TCP")
    for variable in container.get("env") or ():
        reference = (variable.get("valueFrom") or {}).get("fieldRef")
        if reference is not None:
            reference.setdefault("apiVersion", "v1")


def _default_volume(volume: Body) -> None:
    for source in ("secret", "configMap", "projected", "downwardAPI"):
        if isinstance(volume.get(source), dict):
            volume[source].setdefault("defaultMode", 420)
    if set(volume) == {"name"}:
        volume["emptyDir"] = {}


def default_pod(body: Body) -> None:
    """A pod itself, beyond its template."""
    spec = body.setdefault("spec", {})
    default_pod_spec(spec)
    for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        for name, amount in (container["resources"].get("limits") or {}).items():
            container["resources"].setdefault("requests", {}).setdefault(name, amount)
    spec.setdefault("serviceAccountName", "default")
    spec.setdefault("serviceAccount", spec["serviceAccountName"])
    spec.setdefault("enableServiceLinks", True)
    spec.setdefault("priority", 0)
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
    tolerations = spec.setdefault("tolerations", [])
    for toleration in _NOT_READY:
        if not any(each.get("key") == toleration["key"] for each in tolerations):
            tolerations.append(dict(toleration))
    if spec.get("automountServiceAccountToken") is not False:
        _mount_token(spec)
    body["status"] = {"phase": "Pending", "qosClass": _quality(spec)}


def _mount_token(spec: Body) -> None:
    """The service account's token, as admission mounts it."""
    name = generated("kube-api-access-")
    sources = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
        ]}},
    ]  # fmt: skip
    spec.setdefault("volumes", []).append({"name": name, "projected": {"defaultMode": 420, "sources": sources}})
    for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        mount = {"name": name, "readOnly": True, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
        container.setdefault("volumeMounts", []).append(mount)


def _quality(spec: Body) -> str:
    resources = [container.get("resources") or {} for container in spec.get("containers") or ()]
    if not any(each.get("requests") or each.get("limits") for each in resources):
        return "BestEffort"
    guaranteed = all(
        each.get("limits") and each.get("requests") == each["limits"] and {"cpu", "memory"} <= set(each["limits"])
        for each in resources
    )
    return "Guaranteed" if guaranteed else "Burstable"


def pod_spec_faults(spec: Body, field: str, *, pod: bool = False) -> list[Fault]:
    """What is wrong with a spec; a pod's own is looked at closer than a template's."""
    faults: list[Fault] = []
    volumes = {volume.get("name") for volume in spec.get("volumes") or ()}
    containers = spec.get("containers") or []
    if not containers:
        faults.append(required(f"{field}.containers"))
    seen: set[Any] = set()
    for at, container in enumerate(containers):
        faults += _container_faults(container, f"{field}.containers[{at}]", volumes, seen)
        image = container.get("image") or ""
        if pod and image != image.strip():
            faults.append(invalid(f"{field}.containers[{at}].image", image, "must not have leading or trailing whitespace"))
    for at, container in enumerate(spec.get("initContainers") or ()):
        faults += _container_faults(container, f"{field}.initContainers[{at}]", volumes, seen)
    for key, allowed in (("restartPolicy", ("Always", "OnFailure", "Never")),
                         ("dnsPolicy", ("Default", "ClusterFirst", "ClusterFirstWithHostNet", "None"))):  # fmt: skip
        if spec.get(key) not in allowed:
            faults.append(unsupported(f"{field}.{key}", spec.get(key), allowed))
    return faults


def _container_faults(container: Body, field: str, volumes: set[Any], seen: set[Any]) -> list[Fault]:
    faults: list[Fault] = []
    name = container.get("name") or ""
    if not name:
        faults.append(required(f"{field}.name"))
    else:
        faults += label_faults(name, f"{field}.name")
        if name in seen:
            faults.append(Fault(f"{field}.name", "FieldValueDuplicate", f'Duplicate value: "{name}"'))
        seen.add(name)
    if not container.get("image"):
        faults.append(required(f"{field}.image"))
    if container.get("imagePullPolicy", "Always") not in ("Always", "IfNotPresent", "Never"):
        faults.append(unsupported(f"{field}.imagePullPolicy", container["imagePullPolicy"], ("Always", "IfNotPresent", "Never")))
    for at, variable in enumerate(container.get("env") or ()):
        faults += _env_faults(variable, f"{field}.env[{at}]")
    for at, mount in enumerate(container.get("volumeMounts") or ()):
        if mount.get("name") not in volumes:
            faults.append(Fault(f"{field}.volumeMounts[{at}].name", "FieldValueNotFound", f'Not found: "{mount.get("name")}"'))
    return faults


def _env_faults(variable: Body, field: str) -> list[Fault]:
    name = variable.get("name") or ""
    faults = []
    if not name:
        faults.append(required(f"{field}.name"))
    elif not _ENV.fullmatch(name):
        faults.append(invalid(f"{field}.name", name, "a valid environment variable name must consist only of printable ASCII"
                              " characters other than '='"))  # fmt: skip
    source = variable.get("valueFrom")
    if source is not None:
        if variable.get("value"):
            faults.append(invalid(f"{field}.valueFrom", "", "may not be specified when `value` is not empty"))
        if len(source) != 1:
            faults.append(invalid(f"{field}.valueFrom", "", "must specify one of: `fieldRef`, `resourceFieldRef`,"
                                  " `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"))  # fmt: skip
        reference = source.get("secretKeyRef")
        if reference is not None and not reference.get("key"):
            faults.append(required(f"{field}.valueFrom.secretKeyRef.key"))
        path = (source.get("fieldRef") or {}).get("fieldPath")
        if path is not None and not _FIELD_PATH.fullmatch(path):
            faults.append(invalid(f"{field}.valueFrom.fieldRef.fieldPath", path,
                                  f"error converting fieldPath: field label not supported: {path}"))  # fmt: skip
    return faults


_CHANGEABLE = frozenset({"activeDeadlineSeconds", "terminationGracePeriodSeconds", "tolerations"})


def pod_update_faults(new: Body, old: Body) -> list[Fault]:
    """A pod's spec stays as it was, but for images, deadline and tolerations."""

    def fixed(spec: Body) -> Body:
        kept = {key: value for key, value in spec.items() if key not in _CHANGEABLE}
        kept["containers"] = [{**each, "image": ""} for each in spec.get("containers") or ()]
        kept["initContainers"] = [{**each, "image": ""} for each in spec.get("initContainers") or ()]
        return kept

    if fixed(new["spec"]) != fixed(old["spec"]):
        return [forbidden("spec", "pod updates may not change fields other than `spec.containers[*].image`,"
                          "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to"
                          " existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was"
                          " previously negative)")]  # fmt: skip
    return []
