"""As much OpenAPI as kubectl asks for: that fieldValidation is understood, and what custom resources look like."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kube_double.kinds import Kind
from kube_double.refused import Body

_ROOT = "/openapi/v3"


def _path(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


def index(kinds: Iterable[Kind]) -> Body:
    """Where the document of each group and version is."""
    paths = sorted({_path(kind.group, kind.version) for kind in kinds})
    return {"paths": {path: {"serverRelativeURL": f"{_ROOT}/{path}"} for path in paths}}


def document(kinds: Iterable[Kind], path: str, schema_of: Callable[[Kind], Mapping[str, Any] | None]) -> Body | None:
    """The document of one group and version; None if it is not served."""
    paths: Body = {}
    schemas: Body = {}
    for kind in kinds:
        if f"{_ROOT}/{_path(kind.group, kind.version)}" != path:
            continue
        gvk = {"group": kind.group, "version": kind.version, "kind": kind.kind}
        where = f"/{_path(kind.group, kind.version)}/{'namespaces/{namespace}/' if kind.namespaced else ''}{kind.plural}/{{name}}"
        answer = {"200": {"description": "OK"}}
        parameter = {"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}
        paths[where] = {"patch": {"parameters": [parameter], "responses": answer, "x-kubernetes-group-version-kind": gvk}}
        schema = schema_of(kind)
        if schema is not None:
            name = ".".join([*reversed(kind.group.split(".")), kind.version, kind.kind])
            schemas[name] = {**schema, "x-kubernetes-group-version-kind": [gvk]}
    if not paths:
        return None
    info = {"title": "siorg-test", "version": "v1.36.2"}
    return {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": schemas}}
