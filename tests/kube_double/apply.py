"""Server-side apply: who applied which field, and what an apply changes of an object.

A field is the path to it; an item of a list that is a map has its key in it: ``("env", "[A]", "value")``. Only those who
apply own fields here; the real server keeps account of every writer, in managedFields.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kube_double.errors import Body, Refused

Path = tuple[str, ...]
Owners = Mapping[str, frozenset[Path]]
"""The fields of each manager."""

_KEYS = {"containers": "name", "env": "name", "volumes": "name", "volumeMounts": "mountPath", "imagePullSecrets": "name",
         "ownerReferences": "uid", "conditions": "type"}  # fmt: skip
"""By which key the items of a list are told apart; other lists are owned whole."""
_UNTRACKED = frozenset({("apiVersion",), ("kind",)} | {("metadata", name) for name in (
    "name", "namespace", "uid", "resourceVersion", "creationTimestamp", "generation", "deletionTimestamp")})  # fmt: skip


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
        Refused: 409, when another manager owns a field that would change, unless ``force``.
    """
    live, wanted = fields(current), fields(config)
    contested = {path for path, value in wanted.items() if path in live and live[path] != value}
    fights = [(owner, path) for owner, theirs in owners.items() if owner != manager for path in sorted(contested & theirs)]
    if fights and not force:
        told = ", ".join(f'conflict with "{owner}": .{".".join(path)}' for owner, path in fights)
        causes = [{"reason": "FieldManagerConflict", "message": f'conflict with "{owner}"', "field": f".{'.'.join(path)}"}
                  for owner, path in fights]  # fmt: skip
        raise Refused(409, "Conflict", f"Apply failed with {len(fights)} conflict{'s'[: len(fights) > 1]}: {told}", causes=causes)
    others = {owner: theirs - contested for owner, theirs in owners.items() if owner != manager}
    kept = wanted.keys() | frozenset[Path]().union(*others.values())
    merged = _merged(current, config)
    for path in sorted(owners.get(manager, frozenset()) - kept, key=len):
        if not any(other[: len(path)] == path for other in kept):
            _remove(merged, path)
    return merged, {**others, manager: frozenset(wanted)}


def written(before: Body, after: Body, owners: Owners) -> Owners:
    """Who owns what after somebody else's write: nobody what that has changed."""
    was, is_now = fields(before), fields(after)
    changed = {path for path in was.keys() | is_now.keys() if was.get(path) != is_now.get(path)}
    return {owner: theirs - changed for owner, theirs in owners.items()}


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
