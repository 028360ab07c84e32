"""Who wrote which field (managedFields), and server-side apply on top of it.

A field is the path to it; an item of a list that is a map has its key in it: ``("env", "[A]", "value")``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kube_double.errors import Body, Refused

Path = tuple[str, ...]
Owner = tuple[str, str]
"""A manager, and by what it wrote: Apply or Update."""
Owners = Mapping[Owner, frozenset[Path]]
"""The fields of each."""

_KEYS = {"containers": "name", "env": "name", "volumes": "name", "volumeMounts": "mountPath", "imagePullSecrets": "name",
         "ownerReferences": "uid", "conditions": "type"}  # fmt: skip
"""By which key the items of a list are told apart; other lists are owned whole."""
_UNTRACKED = frozenset({("apiVersion",), ("kind",)} | {("metadata", name) for name in (
    "name", "namespace", "uid", "resourceVersion", "creationTimestamp", "generation", "deletionTimestamp",
    "managedFields")})  # fmt: skip


def fields(value: Any, name: str = "", at: Path = ()) -> dict[Path, Any]:
    """Every field of a value, and what it holds."""
    found: dict[Path, Any] = {}
    if isinstance(value, dict) and value:
        for key, each in value.items():
            if (*at, key) not in _UNTRACKED:
                found |= fields(each, key, (*at, key))
        return found
    if isinstance(value, list) and value and name in _KEYS:
        for item in value:
            path = (*at, f"[{item.get(_KEYS[name])}]")
            found |= {path: None} | fields(item, "", path)
        return found
    return {at: value}


def applied(current: Body, config: Body, manager: str, owners: Owners, *, force: bool) -> tuple[Body, Owners]:
    """``current`` after ``manager`` applied ``config`` to it, and who owns what then.

    Raises:
        Refused: 409, when somebody else owns a field that would change, unless ``force``.
    """
    live, wanted, me = fields(current), fields(config), (manager, "Apply")
    contested = {path for path, value in wanted.items() if path in live and live[path] != value}
    fights = [(owner, path) for owner, theirs in owners.items() if owner != me for path in sorted(contested & theirs)]
    if fights and not force:
        causes = [{"reason": "FieldManagerConflict", "message": f'conflict with "{name}"{_using(operation, current)}',
                   "field": f".{'.'.join(path)}"} for (name, operation), path in fights]  # fmt: skip
        told = ", ".join(f"{cause['message']}: {cause['field']}" for cause in causes)
        raise Refused(409, "Conflict", f"Apply failed with {len(fights)} conflict{'s'[: len(fights) > 1]}: {told}", causes=causes)
    others = {owner: theirs - contested for owner, theirs in owners.items() if owner != me}
    kept = wanted.keys() | frozenset[Path]().union(*others.values())
    merged = _merged(current, config)
    for path in sorted(owners.get(me, frozenset()) - kept, key=len):
        if not any(other[: len(path)] == path for other in kept):
            _remove(merged, path)
    return merged, {**others, me: frozenset(wanted)}


def _using(operation: str, current: Body) -> str:
    return "" if operation == "Apply" else f" using {current['apiVersion']}"


def written(before: Body, after: Body, manager: str, owners: Owners) -> Owners:
    """Who owns what after a write: what it changed is ``manager``'s own now."""
    was, is_now, me = fields(before), fields(after), (manager, "Update")
    changed = frozenset(path for path in was.keys() | is_now.keys() if path not in was or was[path] != is_now.get(path, was))
    left = {owner: theirs - changed for owner, theirs in owners.items()}
    return left | {me: left.get(me, frozenset()) | (changed & is_now.keys())}


def managed_fields(owners: Owners, api_version: str) -> list[Body]:
    """As an object's metadata shows it; with items of lists called otherwise than there."""
    entries = []
    for (manager, operation), theirs in owners.items():
        tree: Body = {}
        for path in theirs:
            node = tree
            for step in path:
                node = node.setdefault(f"f:{step}", {})
        if tree:
            entries.append({"manager": manager, "operation": operation, "apiVersion": api_version, "fieldsType": "FieldsV1",
                            "fieldsV1": tree})  # fmt: skip
    return entries


def _merged(live: Any, config: Any, name: str = "") -> Any:
    if isinstance(config, dict) and isinstance(live, dict):
        return live | {key: _merged(live[key], value, key) if key in live else value for key, value in config.items()}
    if isinstance(config, list) and isinstance(live, list) and name in _KEYS:
        items = {item.get(_KEYS[name]): item for item in live}
        for item in config:
            key = item.get(_KEYS[name])
            items[key] = _merged(items.get(key, {}), item)
        return list(items.values())
    return config


def _remove(value: Any, path: Path) -> None:
    """Take ``path`` out of ``value``, in place, and what becomes empty by that."""
    step, rest = path[0], path[1:]
    if isinstance(value, list):
        for item in [item for item in value if any(step == f"[{item.get(key)}]" for key in set(_KEYS.values()))]:
            if rest:
                _remove(item, rest)
            else:
                value.remove(item)
    elif isinstance(value, dict) and step in value:
        if rest:
            _remove(value[step], rest)
        if not rest or value[step] in ({}, []):
            del value[step]
