"""Which kind, object and verb a path means."""

from __future__ import annotations

from dataclasses import dataclass

from kube_double.kinds import Kind, Kinds

_WRITES = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True, slots=True)
class Route:
    """One request's target."""

    kind: Kind
    verb: str
    namespace: str | None
    """None for all namespaces, and for what belongs to none."""
    name: str = ""
    subresource: str = ""

    @property
    def place(self) -> str:
        """The namespace, or the empty one."""
        return self.namespace or ""

    @property
    def resource(self) -> str:
        return f"{self.kind.plural}/{self.subresource}" if self.subresource else self.kind.plural


def route(kinds: Kinds, method: str, path: str, *, watch: bool) -> Route | None:
    """The route of a path below /api or /apis; None if nothing is served there."""
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) >= 3:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) >= 4:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace: str | None = None
    if rest[0] == "watch":
        rest, watch = rest[1:], True
    if rest[0] == "namespaces" and len(rest) >= 3 and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    kind = kinds.at(group, version, rest[0])
    if kind is None or len(rest) > 3 or (namespace is not None and not kind.namespaced):
        return None
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    if subresource and not kind.has(subresource):
        return None
    if name and kind.namespaced and namespace is None:
        return None
    if method in ("GET", "HEAD"):
        verb = "watch" if watch else "get" if name else "list"
    elif method in _WRITES:
        verb = _WRITES[method] if name or method != "DELETE" else "deletecollection"
    else:
        return None
    return Route(kind, verb, namespace, name, subresource)
