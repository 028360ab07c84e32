"""Which kinds are served, under which names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import RLock

from kube_double.refused import Body

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind in one version of its group."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    singular: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    definition: str = ""
    """Name of the CustomResourceDefinition behind it; empty for a built-in kind."""
    stored_as: tuple[str, str] = ("", "")
    """(group, plural) of the collection that holds the objects."""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def collection(self) -> tuple[str, str]:
        return self.stored_as if self.stored_as[1] else (self.group, self.plural)

    @property
    def list_kind(self) -> str:
        return f"{self.kind}List"

    @property
    def custom(self) -> bool:
        return bool(self.definition)

    def has(self, subresource: str) -> bool:
        return subresource in self.subresources


def _built_in() -> list[Kind]:
    batch, events = "batch", ("", "events")
    return [
        Kind("", "v1", "Namespace", "namespaces", False, "namespace", ("ns",), subresources=("status", "finalize")),
        Kind("", "v1", "Pod", "pods", True, "pod", ("po",), ("all",), ("status", "binding", "log", "eviction")),
        Kind("", "v1", "Secret", "secrets", True, "secret"),
        Kind("", "v1", "ConfigMap", "configmaps", True, "configmap", ("cm",)),
        Kind("", "v1", "ServiceAccount", "serviceaccounts", True, "serviceaccount", ("sa",)),
        Kind("", "v1", "Event", "events", True, "event", ("ev",)),
        Kind("", "v1", "Node", "nodes", False, "node", ("no",), subresources=("status",)),
        Kind("events.k8s.io", "v1", "Event", "events", True, "event", ("ev",), stored_as=events),
        Kind(batch, "v1", "Job", "jobs", True, "job", (), ("all",), ("status",)),
        Kind(batch, "v1", "CronJob", "cronjobs", True, "cronjob", ("cj",), ("all",), ("status",)),
        Kind("coordination.k8s.io", "v1", "Lease", "leases", True, "lease"),
        Kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", False,
             "customresourcedefinition", ("crd", "crds"), ("api-extensions",), ("status",)),
    ]  # fmt: skip


@dataclass(slots=True)
class Kinds:
    """All kinds served now; custom ones come and go with their definitions."""

    _lock: RLock
    _by_path: dict[tuple[str, str, str], Kind] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for kind in _built_in():
            self._by_path[kind.group, kind.version, kind.plural] = kind

    def __iter__(self) -> Iterator[Kind]:
        with self._lock:
            return iter(list(self._by_path.values()))

    def at(self, group: str, version: str, plural: str) -> Kind | None:
        with self._lock:
            return self._by_path.get((group, version, plural))

    def named(self, resource: str) -> Kind:
        """The kind of ``jobs``, ``jobs.batch``, ``Job`` or a short name.

        Raises:
            KeyError: There is none.
        """
        plural, _, group = resource.partition(".")
        for kind in self:
            if kind.plural == plural and group in ("", kind.group):
                return kind
        for kind in self:
            if resource in (kind.kind, kind.singular, *kind.short_names):
                return kind
        raise KeyError(f"no kind is called {resource!r}")

    def of(self, body: Body) -> Kind:
        """The kind that a manifest's apiVersion and kind name.

        Raises:
            KeyError: There is none.
        """
        for kind in self:
            if (kind.api_version, kind.kind) == (body.get("apiVersion"), body.get("kind")):
                return kind
        raise KeyError(f"no kind {body.get('kind')!r} in {body.get('apiVersion')!r}")

    def define(self, definition: str, kinds: list[Kind]) -> None:
        """Serve these kinds for a definition, and no others of it."""
        with self._lock:
            for path in [path for path, kind in self._by_path.items() if kind.definition == definition]:
                del self._by_path[path]
            for kind in kinds:
                self._by_path[kind.group, kind.version, kind.plural] = kind
