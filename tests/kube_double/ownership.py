"""Who owns which field (managedFields), and server-side apply on top of it.

A field is a path of elements as FieldsV1 spells them: ``f:name`` for a field, ``k:{"name":"x"}`` for an item of a list
that is a map, ``v:"x"`` for an item of a list that is a set. An object's fields are its leaves and the items of its lists.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from kube_double.clock import now
from kube_double.refused import Body, Refused

Path = tuple[str, ...]
Fields = frozenset[Path]

_UNTRACKED = frozenset(
    ("f:metadata", f"f:{name}")
    for name in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp", "generation", "managedFields",
                 "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds")
) | {("f:apiVersion",), ("f:kind",)}  # fmt: skip


class Shape(Protocol):
    """What is known of a value's schema: how its parts are told apart."""

    def at(self, name: str) -> Shape:
        """The shape of a field."""

    def item(self) -> Shape:
        """The shape of a list's items."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of a list that is a map; empty otherwise."""

    @property
    def is_set(self) -> bool: ...

    @property
    def atomic(self) -> bool:
        """Whether a map is owned as a whole."""


_KEYS: Mapping[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "ephemeralContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "ports": ("containerPort", "protocol"),
    "imagePullSecrets": ("name",),
    "ownerReferences": ("uid",),
    "conditions": ("type",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "hostAliases": ("ip",),
    "podIPs": ("ip",),
}
_ATOMIC = frozenset({
    "nodeSelector", "selector", "labelSelector", "namespaceSelector", "secretKeyRef", "configMapKeyRef", "fieldRef",
    "resourceFieldRef", "involvedObject", "targetRef", "nodeSelectorTerms", "secretRef", "configMapRef", "claimRef",
})  # fmt: skip
_KEY_DEFAULTS = {"protocol": "TCP"}


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """The shape of a built-in kind's field, which its name tells."""

    name: str = ""

    def at(self, name: str) -> Shape:
        return BuiltIn(name)

    def item(self) -> Shape:
        return BuiltIn(f"{self.name}[]")

    @property
    def keys(self) -> tuple[str, ...]:
        return _KEYS.get(self.name, ())

    @property
    def is_set(self) -> bool:
        return self.name == "finalizers"

    @property
    def atomic(self) -> bool:
        return self.name in _ATOMIC or self.name == "ownerReferences[]"


BUILT_IN: Shape = BuiltIn()


def _key(shape: Shape, item: Body) -> str:
    values = {key: item.get(key, _KEY_DEFAULTS.get(key)) for key in shape.keys}
    return "k:" + json.dumps(values, separators=(",", ":"), sort_keys=True)


def leaves(shape: Shape, value: Any, at: Path = ()) -> dict[Path, Any]:
    """Every field of a value, and what it holds; an item of a list that is a map holds None."""
    if isinstance(value, dict) and not shape.atomic:
        found: dict[Path, Any] = {} if value or not at else {at: {}}
        for name, each in value.items():
            path = (*at, f"f:{name}")
            if path not in _UNTRACKED:
                found |= leaves(shape.at(name), each, path)
        return found
    if isinstance(value, list) and shape.keys and all(isinstance(item, dict) for item in value):
        found = {} if value else {at: []}
        for item in value:
            path = (*at, _key(shape, item))
            found[path] = None
            found |= leaves(shape.item(), item, path)
        return found
    if isinstance(value, list) and shape.is_set:
        return {(*at, f"v:{json.dumps(item)}"): None for item in value} if value else {at: []}
    return {at: value}


def _tree(fields: Fields) -> Body:
    tree: Body = {}
    for path in sorted(fields):
        node = tree
        for element in path:
            node = node.setdefault(element, {})
        node["."] = {}
    return _without_dots_at_leaves(tree)


def _without_dots_at_leaves(node: Body) -> Body:
    return {
        element: {} if set(child) == {"."} else _without_dots_at_leaves(child) if element != "." else {}
        for element, child in node.items()
    }


def _fields(tree: Body, at: Path = ()) -> set[Path]:
    found: set[Path] = set()
    for element, child in tree.items():
        if element == ".":
            found.add(at)
        elif child:
            found |= _fields(child, (*at, element))
        else:
            found.add((*at, element))
    return found


@dataclass(frozen=True, slots=True)
class Owner:
    """Who wrote, by which operation, on which endpoint."""

    manager: str
    operation: str
    api_version: str
    subresource: str


Owned = dict[Owner, tuple[Fields, str]]
"""What each owner has, and since when."""


def _owned(body: Body) -> Owned:
    found: Owned = {}
    for entry in body["metadata"].get("managedFields") or ():
        if not entry:
            continue
        owner = Owner(entry.get("manager", ""), entry["operation"], entry["apiVersion"], entry.get("subresource", ""))
        found[owner] = frozenset(_fields(entry.get("fieldsV1") or {})), entry.get("time", "")
    return found


def _with_owned(body: Body, owned: Owned) -> Body:
    entries = []
    for owner, (fields, since) in sorted(owned.items(), key=lambda each: (each[0].operation, each[1][1], each[0].manager)):
        if fields:
            entry = {"manager": owner.manager, "operation": owner.operation, "apiVersion": owner.api_version, "time": since,
                     "fieldsType": "FieldsV1", "fieldsV1": _tree(fields)}  # fmt: skip
            entries.append(entry | ({"subresource": owner.subresource} if owner.subresource else {}))
    metadata = {key: value for key, value in body["metadata"].items() if key != "managedFields"}
    return {**body, "metadata": metadata | ({"managedFields": entries} if entries else {})}


def same(one: Body, other: Body) -> bool:
    """Whether the same owners have the same fields; since when does not matter."""
    mine, theirs = _owned(one), _owned(other)
    return {owner: fields for owner, (fields, _) in mine.items()} == {owner: fields for owner, (fields, _) in theirs.items()}


def written(shape: Shape, old: Body | None, new: Body, manager: str, subresource: str = "") -> Body:
    """``new`` with its managedFields after a create, update or patch by ``manager``: what it changed is its own now."""
    before = leaves(shape, old) if old is not None else {}
    after = leaves(shape, new)
    changed = frozenset(path for path, value in after.items() if path not in before or before[path] != value)
    gone = frozenset(before.keys() - after.keys())
    said = new["metadata"].get("managedFields")
    owned = {} if old is None or said == [{}] else _owned(old)
    if not changed and not gone:
        return _with_owned(new, owned)
    me = Owner(manager, "Update", new["apiVersion"], subresource)
    owned = {
        owner: (fields - gone - (frozenset() if owner == me else changed), since) for owner, (fields, since) in owned.items()
    }
    mine = owned.get(me, (frozenset(), ""))[0] | changed
    return _with_owned(new, owned | {me: (mine, now())})


def owned_by_apply(shape: Shape, body: Body, config: Body, manager: str) -> Body:
    """A new object's managedFields after its creation by apply."""
    owner = Owner(manager, "Apply", body["apiVersion"], "")
    return _with_owned(body, {owner: (frozenset(leaves(shape, _without_nulls(config))), now())})


def applied(shape: Shape, current: Body, config: Body, manager: str, subresource: str, *, force: bool) -> Body:
    """``current`` after ``manager`` applied ``config`` to it.

    Raises:
        Refused: 409, when another manager owns a field that would change, unless ``force``.
    """
    config = _without_nulls(config)
    me = Owner(manager, "Apply", config["apiVersion"], subresource)
    owned = _owned(current)
    had = owned.get(me, (frozenset(), ""))[0]
    live, wanted = leaves(shape, current), leaves(shape, config)
    contested = {path for path, value in wanted.items() if live.get(path) != value and path in live}
    fights = [
        (owner, path) for owner, (fields, _) in owned.items() if owner != me for path in sorted(contested & fields)
    ]  # fmt: skip
    if fights and not force:
        raise _conflicts(fights)
    owned = {owner: (fields - (frozenset() if owner == me else contested), since) for owner, (fields, since) in owned.items()}
    merged = _merged(shape, current, config)
    for key in ("resourceVersion", "uid"):
        if key in config["metadata"]:
            merged["metadata"][key] = config["metadata"][key]
    others = frozenset().union(*(fields for owner, (fields, _) in owned.items() if owner != me))
    dropped = {path for path in had - wanted.keys() if not any(each[: len(path)] == path for each in others)}
    kept = wanted.keys() | others
    # An item goes before its fields: without its keys it could not be found.
    for path in sorted(dropped, key=len):
        _remove(shape, merged, path, kept)
    mine = frozenset(wanted)
    since = owned[me][1] if me in owned and mine == had and merged == current else now()
    return _with_owned(merged, owned | {me: (mine, since)})


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_without_nulls(each) for each in value]
    return value


def _merged(shape: Shape, live: Any, config: Any) -> Any:
    if isinstance(config, dict) and isinstance(live, dict) and not shape.atomic:
        merged = dict(live)
        for name, value in config.items():
            merged[name] = _merged(shape.at(name), live[name], value) if name in live else value
        return merged
    if isinstance(config, list) and isinstance(live, list) and shape.keys:
        items = {_key(shape, item): item for item in live}
        for item in config:
            key = _key(shape, item)
            items[key] = _merged(shape.item(), items[key], item) if key in items else item
        return list(items.values())
    if isinstance(config, list) and isinstance(live, list) and shape.is_set:
        return live + [item for item in config if item not in live]
    return config


def _remove(shape: Shape, value: Any, path: Path, kept: Any, at: Path = ()) -> bool:
    """Take ``path`` out of ``value`` in place; whether ``value`` is empty after it and nobody keeps it."""
    element, rest = path[0], path[1:]
    here = (*at, element)
    match element[:2]:
        case "f:":
            name = element[2:]
            if isinstance(value, dict) and name in value:
                if rest:
                    value[name] = list(value[name]) if isinstance(value[name], list) else dict(value[name]) if isinstance(
                        value[name], dict) else value[name]  # fmt: skip
                if not rest or _remove(shape.at(name), value[name], rest, kept, here):
                    del value[name]
        case "k:":
            for index, item in enumerate(value):
                if _key(shape, item) == element:
                    value[index] = dict(item)
                    if not rest:
                        del value[index]
                    else:
                        _remove(shape.item(), value[index], rest, kept, here)
                    break
        case _:
            item = json.loads(element[2:])
            if item in value:
                value.remove(item)
    return not value and at not in kept and bool(at)


def _conflicts(fights: list[tuple[Owner, Path]]) -> Refused:
    causes, by_owner = [], dict[str, list[str]]()
    for owner, path in fights:
        who = f'conflict with "{owner.manager}"'
        if owner.subresource:
            who += f' with subresource "{owner.subresource}"'
        if owner.operation != "Apply":
            who += f" using {owner.api_version}"
        causes.append({"reason": "FieldManagerConflict", "message": who, "field": _shown(path)})
        by_owner.setdefault(who, []).append(_shown(path))
    noun = "conflict" if len(fights) == 1 else "conflicts"
    if len(fights) == 1:
        told = f"{causes[0]['message']}: {causes[0]['field']}"
    else:
        told = "\n".join(
            f"{who.replace('conflict with', 'conflicts with', 1)}:\n" + "\n".join(f"- {path}" for path in paths)
            for who, paths in by_owner.items()
        )
    return Refused(409, "Conflict", f"Apply failed with {len(fights)} {noun}: {told}", {"causes": causes})


def _shown(path: Path) -> str:
    text = ""
    for element in path:
        match element[:2]:
            case "f:":
                text += f".{element[2:]}"
            case "k:":
                keys = json.loads(element[2:])
                text += "[" + ",".join(f"{key}={json.dumps(value)}" for key, value in keys.items()) + "]"
            case _:
                text += f"[={element[2:]}]"
    return text
