"""From a pydantic model to a structural schema, the part of OpenAPI that Kubernetes takes in a CRD.

What pydantic writes, and what becomes of it: references are put in their place; ``X | None`` is X that is not required;
titles go; ``additionalProperties: false`` goes (the API server drops or refuses what is not named); an object of any
content gets ``x-kubernetes-preserve-unknown-fields``; the default of a part whose fields all have defaults is ``{}``, so
that they are filled in one by one; an empty list or map is no default, since absent means the same.
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

Schema = dict[str, Any]

_ORDER = ("description", "type", "format", "default", "enum", "minimum", "maximum", "minLength", "maxLength", "pattern")
_GREATEST_INT32 = 2**31 - 1


def structural(model: type[BaseModel]) -> Schema:
    """The structural schema of ``model``, camelCase."""
    written = model.model_json_schema(by_alias=True, mode="validation")
    return _structural(written, written.get("$defs", {}))


def at(schema: Schema, path: Iterable[str | int]) -> Schema:
    """The schema of the value at ``path``; empty where the schema says nothing of it."""
    for step in path:
        inner = schema.get("items") if isinstance(step, int) else schema.get("properties", {}).get(step)
        schema = inner or schema.get("additionalProperties") or {}
    return schema


def _structural(written: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    node = _resolved(written, definitions)
    kind = node.get("type")
    schema = {key: value for key, value in node.items() if key not in {"$defs", "title", "default", "additionalProperties"}}
    default = _without_empty(node.get("default"))
    if default not in (None, [], {}):
        schema["default"] = default
    if kind == "object" and "properties" in node:
        schema["properties"] = {
            name: _property(inner, definitions, required=name in node.get("required", ()))
            for name, inner in node["properties"].items()
        }
    elif kind == "object" and isinstance(node.get("additionalProperties"), Mapping):
        schema["additionalProperties"] = _structural(node["additionalProperties"], definitions)
    elif kind == "object":
        schema["x-kubernetes-preserve-unknown-fields"] = True
    elif kind == "array":
        schema["items"] = _structural(node["items"], definitions)
        schema.setdefault("x-kubernetes-list-type", "atomic")
    elif kind == "integer":
        # With int32, what is just beyond would be refused without the field's name.
        schema["format"] = "int32" if node.get("maximum", _GREATEST_INT32) < _GREATEST_INT32 else "int64"
    elif kind == "number":
        schema["format"] = "double"
    return {key: schema[key] for key in (*_ORDER, *schema) if key in schema}


def _resolved(written: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    """The node itself: behind a reference, or the one alternative that is not null; what stands beside it wins."""
    node = dict(written)
    if "anyOf" in node:
        (only,) = [branch for branch in node.pop("anyOf") if branch.get("type") != "null"]
        node = {**only, **node}
    if "$ref" in node:
        node = {**definitions[node.pop("$ref").removeprefix("#/$defs/")], **node}
        return _resolved(node, definitions)
    return node


def _property(written: Mapping[str, Any], definitions: Mapping[str, Any], *, required: bool) -> Schema:
    """A property's schema, with {} for a default that its own properties' defaults make up."""
    schema = _structural(written, definitions)
    if required:
        schema.pop("default", None)
    elif schema.get("default") == _filled_in(schema) and "x-kubernetes-validations" not in schema:
        # With rules, {} will not do: the API server tries them on the default before it fills in what is below.
        schema["default"] = {}
    return schema


def _filled_in(schema: Schema) -> Schema:
    """What the API server makes of {}."""
    return {
        name: inner["default"] or _filled_in(inner) if "properties" in inner else inner["default"]
        for name, inner in schema.get("properties", {}).items()
        if "default" in inner
    }


def _without_empty(value: Any) -> Any:
    """``value`` without what is the same as absent: null, an empty list, an empty map."""
    if not isinstance(value, Mapping):
        return value
    kept = {key: _without_empty(inner) for key, inner in value.items()}
    return {key: inner for key, inner in kept.items() if inner not in (None, [], {})}
