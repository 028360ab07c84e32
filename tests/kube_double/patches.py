"""JSON Patch (RFC 6902), JSON Merge Patch (RFC 7386) and Kubernetes' strategic merge patch.

All change their first argument, which has to be the caller's own copy, and return the result.
"""

from __future__ import annotations

import copy
from typing import Any

from kube_double.refused import Body, Refused, bad_request

MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
    "imagePullSecrets": "name",
    "secrets": "name",
    "ownerReferences": "uid",
    "conditions": "type",
    "addresses": "type",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
    "resourceClaims": "name",
    "podIPs": "ip",
}
"""By which key the items of a built-in kind's list are told apart."""
PRIMITIVE_SETS = frozenset({"finalizers", "volumesInUse", "podCIDRs"})


class PatchTestFailed(Refused):
    """A JSON Patch that does not fit the object: a test failed, or a path is not there."""

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(422, "Invalid", "the server rejected our request due to an error in our request", {})


def json_patch(body: Any, operations: Any) -> Any:
    """Apply JSON Patch operations in turn.

    Raises:
        PatchTestFailed: An operation does not fit.
        Refused: It is no JSON Patch.
    """
    if not isinstance(operations, list):
        raise bad_request("error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp")
    for operation in operations:
        body = _operate(body, operation)
    return body


def _operate(body: Any, operation: Any) -> Any:
    try:
        name, path = operation["op"], _pointer(operation["path"])
    except (KeyError, TypeError):
        raise bad_request("a JSON Patch operation needs op and path") from None
    match name:
        case "test":
            if _at(body, path, missing=None) != operation.get("value"):
                raise PatchTestFailed(f"testing path {operation['path']} failed")
            return body
        case "add":
            return _put(body, path, operation.get("value"), replace=False)
        case "replace":
            _at(body, path[:-1])
            return _put(body, path, operation.get("value"), replace=True)
        case "remove":
            return _take(body, path)
        case "copy":
            return _put(body, path, copy.deepcopy(_at(body, _pointer(operation["from"]))), replace=False)
        case "move":
            source = _pointer(operation["from"])
            value = _at(body, source)
            return _put(_take(body, source), path, value, replace=False)
    raise PatchTestFailed(f"unexpected operation {name}")


def _pointer(path: str) -> list[str]:
    if path == "":
        return []
    return [part.replace("~1", "/").replace("~0", "~") for part in path.removeprefix("/").split("/")]


_MUST = object()


def _at(body: Any, path: list[str], missing: Any = _MUST) -> Any:
    for part in path:
        try:
            body = body[int(part)] if isinstance(body, list) else body[part]
        except (KeyError, IndexError, ValueError, TypeError):
            if missing is _MUST:
                raise PatchTestFailed(f"path {'/'.join(path)} is missing") from None
            return missing
    return body


def _put(body: Any, path: list[str], value: Any, *, replace: bool) -> Any:
    if not path:
        return value
    parent, last = _at(body, path[:-1]), path[-1]
    if isinstance(parent, list):
        try:
            at = len(parent) if last == "-" else int(last)
        except ValueError:
            raise PatchTestFailed(f"{last} is no index") from None
        if at > len(parent) - replace:
            raise PatchTestFailed(f"index {at} is out of bounds")
        if replace:
            parent[at] = value
        else:
            parent.insert(at, value)
    elif isinstance(parent, dict):
        parent[last] = value
    else:
        raise PatchTestFailed(f"{'/'.join(path[:-1])} holds no fields")
    return body


def _take(body: Any, path: list[str]) -> Any:
    _at(body, path)
    parent, last = _at(body, path[:-1]), path[-1]
    del parent[int(last) if isinstance(parent, list) else last]
    return body


def merge_patch(body: Any, patch: Any) -> Any:
    """Apply a JSON Merge Patch: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    if not isinstance(body, dict):
        body = {}
    for key, value in patch.items():
        if value is None:
            body.pop(key, None)
        else:
            body[key] = merge_patch(body.get(key), value)
    return body


def strategic_merge(body: Any, patch: Any, name: str = "") -> Any:
    """Apply a strategic merge patch; lists whose items have a merge key are merged item by item.

    Args:
        body: What is patched; changed in place.
        patch: With $patch, $setElementOrder/… , $deleteFromPrimitiveList/… and $retainKeys understood.
        name: The field that ``body`` is the value of.
    """
    if isinstance(patch, list):
        return _strategic_list(body if isinstance(body, list) else [], patch, name)
    if not isinstance(patch, dict):
        return patch
    if patch.get("$patch") == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    if patch.get("$patch") == "delete":
        return {}
    if not isinstance(body, dict):
        body = {}
    retained = patch.get("$retainKeys")
    if retained is not None:
        body = {key: value for key, value in body.items() if key in retained}
    for key, value in patch.items():
        directive, _, target = key.partition("/")
        if directive == "$deleteFromPrimitiveList":
            body[target] = [item for item in body.get(target) or [] if item not in value]
        elif directive.startswith("$"):
            continue
        elif value is None:
            body.pop(key, None)
        else:
            body[key] = strategic_merge(body.get(key), value, key)
    for key, order in patch.items():
        directive, _, target = key.partition("/")
        if directive == "$setElementOrder" and isinstance(body.get(target), list):
            body[target] = _ordered(body[target], order, target)
    return body


def _strategic_list(items: list[Any], patch: list[Any], name: str) -> list[Any]:
    if name in PRIMITIVE_SETS:
        return items + [item for item in patch if item not in items]
    key = MERGE_KEYS.get(name)
    if key is None or not all(isinstance(item, dict) for item in [*items, *patch]):
        return patch
    if any(item.get("$patch") == "replace" for item in patch):
        return [item for item in patch if item.get("$patch") != "replace"]
    for item in patch:
        at = next((n for n, each in enumerate(items) if each.get(key) == item.get(key)), None)
        if item.get("$patch") == "delete":
            if at is not None:
                items.pop(at)
        elif at is None:
            items.append(strategic_merge({}, item))
        else:
            items[at] = strategic_merge(items[at], item)
    return items


def _ordered(items: list[Any], order: list[Any], name: str) -> list[Any]:
    key = MERGE_KEYS.get(name)

    def rank(item: Any) -> int:
        for at, wanted in enumerate(order):
            if (item.get(key) == wanted.get(key)) if key and isinstance(wanted, dict) else item == wanted:
                return at
        return len(order)

    return sorted(items, key=rank)


def with_api_version(body: Body, api_version: str) -> Body:
    """The object as another version of its group serves it (conversion strategy None)."""
    return body if body.get("apiVersion") == api_version else {**body, "apiVersion": api_version}
