"""What a client learns about the server: groups, versions, kinds; in one document or in many."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any

from kube_double.kinds import ALL_VERBS, Kind
from kube_double.refused import Body

VERSION: Body = {
    "major": "1", "minor": "36", "gitVersion": "v1.36.2", "gitCommit": "siorg-test", "gitTreeState": "clean",
    "buildDate": "2026-06-01T00:00:00Z", "goVersion": "go1.26.0", "compiler": "gc", "platform": "linux/amd64",
}  # fmt: skip

_SUBRESOURCES: dict[str, tuple[tuple[str, ...], Body]] = {
    "status": (("get", "patch", "update"), {}),
    "scale": (("get", "patch", "update"), {"group": "autoscaling", "version": "v1", "kind": "Scale"}),
    "binding": (("create",), {"kind": "Binding"}),
    "log": (("get",), {}),
    "eviction": (("create",), {"group": "policy", "version": "v1", "kind": "Eviction"}),
    "finalize": (("update",), {}),
}


def core_versions(host: str) -> Body:
    return {"kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": host}]}  # fmt: skip


def groups(kinds: Iterable[Kind]) -> Body:
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(name, each) for name, each in _by_group(kinds)]}


def group(kinds: Iterable[Kind], wanted: str) -> Body | None:
    for name, versions in _by_group(kinds):
        if name == wanted:
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, versions)}
    return None


def _by_group(kinds: Iterable[Kind]) -> list[tuple[str, list[str]]]:
    pairs = sorted({(kind.group, kind.version) for kind in kinds if kind.group} | {("authorization.k8s.io", "v1")})
    return [(name, [version for _, version in each]) for name, each in groupby(pairs, key=lambda pair: pair[0])]


def _group(name: str, versions: list[str]) -> Body:
    # Newest first: v1 before v1beta1 before v1alpha1.
    ordered = sorted(versions, key=lambda version: ("alpha" in version, "beta" in version, version))
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in ordered]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


_REVIEW: Body = {"name": "selfsubjectaccessreviews", "singularName": "selfsubjectaccessreview", "namespaced": False,
                 "kind": "SelfSubjectAccessReview", "verbs": ["create"]}  # fmt: skip


def resources(kinds: Iterable[Kind], group: str, version: str) -> Body | None:
    """The kinds of one group and version; None if it is not served."""
    found: list[Body] = [_REVIEW] if (group, version) == ("authorization.k8s.io", "v1") else []
    for kind in sorted((kind for kind in kinds if (kind.group, kind.version) == (group, version)), key=lambda kind: kind.plural):
        entry: Body = {"name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced, "kind": kind.kind,
                       "verbs": list(ALL_VERBS)}  # fmt: skip
        if kind.short_names:
            entry["shortNames"] = list(kind.short_names)
        if kind.categories:
            entry["categories"] = list(kind.categories)
        found.append(entry)
        for name in kind.subresources:
            verbs, more = _SUBRESOURCES[name]
            found.append({"name": f"{kind.plural}/{name}", "singularName": "", "namespaced": kind.namespaced,
                          "kind": kind.kind, **more, "verbs": list(verbs)})  # fmt: skip
    if not found:
        return None
    api_version = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": found}


def aggregated(kinds: Iterable[Kind], *, core: bool) -> Body:
    """Everything in one document, as kubectl asks for it."""
    kinds = list(kinds)
    items = []
    for name, versions in [("", ["v1"])] if core else _by_group(kinds):
        entries = []
        for version in versions:
            listed = resources(kinds, name, version)
            entries.append({"version": version, "freshness": "Current",
                            "resources": _aggregated(name, version, (listed or {}).get("resources", []))})  # fmt: skip
        items.append({"metadata": {"name": name} if name else {}, "versions": entries})
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}


def _aggregated(group: str, version: str, listed: list[Body]) -> list[Body]:
    found: dict[str, Body] = {}
    for entry in listed:
        kind: dict[str, Any] = {
            "group": entry.get("group", group),
            "version": entry.get("version", version),
            "kind": entry["kind"],
        }
        name, _, subresource = entry["name"].partition("/")
        if subresource:
            found[name].setdefault("subresources", []).append(
                {"subresource": subresource, "responseKind": kind, "verbs": entry["verbs"]}
            )
            continue
        found[name] = {"resource": name, "responseKind": kind, "scope": "Namespaced" if entry["namespaced"] else "Cluster",
                       "singularResource": entry["singularName"], "verbs": entry["verbs"]}  # fmt: skip
        for key in ("shortNames", "categories"):
            if key in entry:
                found[name][key] = entry[key]
    return list(found.values())
