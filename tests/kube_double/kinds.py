"""Which kinds are served under which paths, and what a client learns of them by discovery."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from threading import RLock
from typing import Any

from kube_double.errors import Body

_VERBS = ("create", "delete", "get", "list", "patch", "update", "watch")
_WRITES = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind in the one version of its group."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    subresources: tuple[str, ...] = ("status",)
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    definition: str = ""
    """Name of the CustomResourceDefinition behind it; empty for a built-in kind."""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def collection(self) -> tuple[str, str]:
        return self.group, self.plural

    @property
    def custom(self) -> bool:
        return bool(self.definition)


@dataclass(frozen=True, slots=True)
class Route:
    kind: Kind
    verb: str
    namespace: str | None
    """None for all namespaces, and for what belongs to none."""
    name: str = ""
    subresource: str = ""

    @property
    def place(self) -> str:
        return self.namespace or ""

    @property
    def resource(self) -> str:
        return f"{self.kind.plural}/{self.subresource}" if self.subresource else self.kind.plural


_BUILT_IN = (
    Kind("", "v1", "Namespace", "namespaces", namespaced=False),
    Kind("", "v1", "Node", "nodes", namespaced=False),
    Kind("", "v1", "Pod", "pods", subresources=("status", "binding")),
    Kind("", "v1", "Secret", "secrets", subresources=()),
    Kind("", "v1", "ConfigMap", "configmaps", subresources=()),
    Kind("", "v1", "ServiceAccount", "serviceaccounts", subresources=()),
    Kind("", "v1", "Event", "events", subresources=()),
    Kind("batch", "v1", "Job", "jobs"),
    Kind("batch", "v1", "CronJob", "cronjobs"),
    Kind("coordination.k8s.io", "v1", "Lease", "leases", subresources=()),
    Kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False),
)


@dataclass(slots=True)
class Kinds:
    """All kinds served now; custom ones come and go with their definitions."""

    _lock: RLock
    _by_collection: dict[tuple[str, str], Kind] = field(default_factory=lambda: {kind.collection: kind for kind in _BUILT_IN})

    def __iter__(self) -> Iterator[Kind]:
        with self._lock:
            return iter(list(self._by_collection.values()))

    def at(self, collection: tuple[str, str]) -> Kind | None:
        return self._by_collection.get(collection)

    def named(self, plural: str) -> Kind:
        return next(kind for kind in self if kind.plural == plural)

    def of(self, body: Body) -> Kind:
        return next(kind for kind in self if (kind.api_version, kind.kind) == (body["apiVersion"], body["kind"]))

    def define(self, definition: str, kind: Kind | None) -> None:
        """Serve this kind for a definition, and no other of it."""
        with self._lock:
            for collection in [each.collection for each in self if each.definition == definition]:
                del self._by_collection[collection]
            if kind is not None:
                self._by_collection[kind.collection] = kind

    def route(self, method: str, path: str, *, watch: bool) -> Route | None:
        """What a path below /api or /apis means; None if nothing is served there."""
        parts = path.strip("/").split("/")
        match parts:
            case ["api", version, *rest] if rest:
                group = ""
            case ["apis", group, version, *rest] if rest:
                pass
            case _:
                return None
        namespace: str | None = None
        if rest[0] == "namespaces" and len(rest) >= 3 and rest[2] != "status":
            namespace, rest = rest[1], rest[2:]
        plural, name, subresource = (*rest, "", "")[:3]
        kind = self.at((group, plural))
        if kind is None or kind.version != version or len(rest) > 3 or (namespace is not None and not kind.namespaced):
            return None
        if (subresource and subresource not in kind.subresources) or (name and kind.namespaced and namespace is None):
            return None
        if method == "GET":
            return Route(kind, "watch" if watch else "get" if name else "list", namespace, name, subresource)
        return Route(kind, _WRITES[method], namespace, name, subresource) if method in _WRITES else None

    def discovery(self, path: str) -> Body | None:
        """The document of /api, /apis or one group's version; None if there is none."""
        groups = sorted({(kind.group, kind.version) for kind in self if kind.group})
        match path.strip("/").split("/"):
            case ["api"]:
                return {"kind": "APIVersions", "versions": ["v1"]}
            case ["apis"]:
                return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(*each) for each in groups]}
            case ["api", version]:
                return _resources("", version, self)
            case ["apis", group, version]:
                return _resources(group, version, self)
        return None


def _group(name: str, version: str) -> Body:
    served = {"groupVersion": f"{name}/{version}", "version": version}
    return {"name": name, "versions": [served], "preferredVersion": served}


def _resources(group: str, version: str, kinds: Iterable[Kind]) -> Body | None:
    found: list[dict[str, Any]] = []
    for kind in kinds:
        if (kind.group, kind.version) == (group, version):
            about = {"namespaced": kind.namespaced, "kind": kind.kind, "singularName": kind.kind.lower()}
            found.append({"name": kind.plural, "verbs": list(_VERBS), "shortNames": list(kind.short_names),
                          "categories": list(kind.categories), **about})  # fmt: skip
            found += [
                {"name": f"{kind.plural}/{each}", "verbs": ["get", "patch", "update"], **about} for each in kind.subresources
            ]
    version = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": found} if found else None
