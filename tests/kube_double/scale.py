"""The scale subresource: a custom resource seen as a number of replicas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kube_double.refused import Body, Fault, invalid


def _get(body: Body, path: str) -> Any:
    found: Any = body
    for key in path.strip(".").split("."):
        found = found.get(key) if isinstance(found, dict) else None
    return found


def scale_of(body: Body, paths: Mapping[str, str]) -> Body:
    """The Scale of an object."""
    metadata = {key: body["metadata"][key] for key in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
                if key in body["metadata"]}  # fmt: skip
    status: Body = {"replicas": _get(body, paths["statusReplicasPath"]) or 0}
    selector = _get(body, paths["labelSelectorPath"]) if "labelSelectorPath" in paths else None
    if selector:
        status["selector"] = selector
    replicas = _get(body, paths["specReplicasPath"])
    spec = {"replicas": replicas} if replicas else {}  # 0 is left out, as by Go's omitempty
    return {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status}


def scaled(body: Body, scale: Body, paths: Mapping[str, str]) -> Body:
    """A copy of ``body`` with as many replicas as ``scale`` says."""
    replicas = (scale.get("spec") or {}).get("replicas", 0)
    metadata = dict(body["metadata"])
    wanted = (scale.get("metadata") or {}).get("resourceVersion")
    if wanted:
        metadata["resourceVersion"] = wanted
    else:
        metadata.pop("resourceVersion", None)
    keys = paths["specReplicasPath"].strip(".").split(".")
    result: Body = {**body, "metadata": metadata}
    node = result
    for key in keys[:-1]:
        node[key] = dict(node.get(key) or {})
        node = node[key]
    node[keys[-1]] = replicas
    return result


def scale_faults(body: Body, paths: Mapping[str, str]) -> list[Fault]:
    """What keeps the object from being seen as a number of replicas."""
    path = paths["specReplicasPath"]
    found: Any = body
    for key in path.strip(".").split("."):
        if found is None:
            return []
        if not isinstance(found, dict):
            return [_inaccessible(path, found)]
        found = found.get(key)
    if found is None:
        return []
    if isinstance(found, bool) or not isinstance(found, int):
        return [_inaccessible(path, found)]
    return [invalid(path, found, "should be a non-negative integer")] if found < 0 else []


def _inaccessible(path: str, value: Any) -> Fault:
    kinds = {bool: "bool", float: "float64", str: "string", list: "[]interface {}", dict: "map[string]interface {}"}
    wanted = "map[string]interface {}" if isinstance(value, list) else "int64"
    return invalid(path, 0, f"{path} accessor error: {value} is of the type {kinds[type(value)]}, expected {wanted}")
