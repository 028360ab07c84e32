"""A custom resource's structural schema: pruning, defaulting and checking, in the order and words of the API server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import re2  # type: ignore[import-untyped]  # Go's regular expressions; celpy brings them

from kube_double.refused import Body, Fault, fault, invalid, required, shown, unsupported

Schema = Mapping[str, Any]

_META: dict[str, Any] = {
    "type": "object",
    "properties": {
        name: {"x-kubernetes-preserve-unknown-fields": True}
        for name in ("name", "generateName", "namespace", "selfLink", "uid", "resourceVersion", "generation",
                     "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "labels", "annotations",
                     "ownerReferences", "finalizers", "managedFields")
    },
}  # fmt: skip


def with_root(schema: Schema) -> Schema:
    """The schema of a whole object: apiVersion, kind and metadata are always there and never pruned.

    What the schema says of metadata.name and metadata.generateName counts; of the rest of metadata it may say nothing.
    """
    properties = schema.get("properties") or {}
    metadata = {**_META, "properties": _META["properties"] | ((properties.get("metadata") or {}).get("properties") or {})}
    known = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": metadata}
    return {**schema, "type": "object", "properties": {**properties, **known}}


def prune(schema: Schema, value: Any, at: str = "") -> tuple[Any, list[str]]:
    """The value without what the schema does not know, and the paths that were dropped."""
    if schema.get("x-kubernetes-preserve-unknown-fields") and not (schema.get("properties") or schema.get("items")):
        return value, []
    if isinstance(value, dict):
        return _prune_object(schema, value, at)
    if isinstance(value, list):
        items, dropped = [], list[str]()
        for index, item in enumerate(value):
            kept, more = prune(schema.get("items") or {}, item, f"{at}[{index}]")
            items.append(kept)
            dropped += more
        return items, dropped
    return value, []


def _prune_object(schema: Schema, value: Body, at: str) -> tuple[Body, list[str]]:
    if schema.get("x-kubernetes-embedded-resource"):
        schema = with_root(schema)
    properties = schema.get("properties") or {}
    additional = schema.get("additionalProperties")
    keep_all = schema.get("x-kubernetes-preserve-unknown-fields") is True
    kept: Body = {}
    dropped: list[str] = []
    for name, each in value.items():
        path = f"{at}.{name}" if at else name
        if name in properties:
            kept[name], more = prune(properties[name], each, path)
            dropped += more
        elif isinstance(additional, dict):
            kept[name], more = prune(additional, each, path)
            dropped += more
        elif keep_all or additional is True:
            kept[name] = each
        else:
            dropped.append(path)
    return kept, dropped


def default(schema: Schema, value: Any) -> None:
    """Fill in defaults, in place, for what is absent; null is absent where it is not allowed."""
    if isinstance(value, dict):
        for name, inner in (schema.get("properties") or {}).items():
            if name in value and value[name] is None and not inner.get("nullable"):
                del value[name]
            if name not in value and "default" in inner:
                value[name] = json.loads(json.dumps(inner["default"]))
            if name in value:
                default(inner, value[name])
        additional = schema.get("additionalProperties")
        if isinstance(additional, dict):
            for name in value.keys() - (schema.get("properties") or {}).keys():
                if value[name] is None and not additional.get("nullable"):
                    del value[name]
                else:
                    default(additional, value[name])
    elif isinstance(value, list):
        for item in value:
            default(schema.get("items") or {}, item)


@dataclass(frozen=True, slots=True)
class Shaped:
    """A schema as server-side apply sees it."""

    schema: Schema

    def at(self, name: str) -> Shaped:
        inner = (self.schema.get("properties") or {}).get(name)
        if inner is None:
            if not self.schema and name == "metadata":
                return Shaped({})
            additional = self.schema.get("additionalProperties")
            inner = additional if isinstance(additional, dict) else {}
        return Shaped(inner)

    def item(self) -> Shaped:
        return Shaped(self.schema.get("items") or {})

    @property
    def keys(self) -> tuple[str, ...]:
        if self.schema.get("x-kubernetes-list-type") != "map":
            return ()
        return tuple(self.schema.get("x-kubernetes-list-map-keys") or ())

    @property
    def is_set(self) -> bool:
        return self.schema.get("x-kubernetes-list-type") == "set"

    @property
    def atomic(self) -> bool:
        return self.schema.get("x-kubernetes-map-type") == "atomic"


_BLOCKING = frozenset({"FieldValueRequired", "FieldValueTooLong", "FieldValueTooMany", "FieldValueTypeInvalid",
                       "FieldValueNotSupported"})  # fmt: skip
UNCHECKED = Fault(
    "<nil>", "FieldValueInvalid", "Invalid value: null: some validation rules were not checked because the object was invalid;"
    " correct the existing errors to complete validation",
)  # fmt: skip


def faults(schema: Schema, value: Any, at: str = "") -> list[Fault]:
    """Everything of ``value`` that the schema forbids."""
    return list(_faults(schema, value, at))


def block_rules(found: list[Fault]) -> bool:
    """Whether CEL rules are left out because of what the schema forbids already."""
    return any(each.reason in _BLOCKING for each in found)


def _type_of(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "integer" if value.is_integer() else "number"
    return {str: "string", list: "array", dict: "object", type(None): "null"}[type(value)]


def _faults(schema: Schema, value: Any, at: str) -> Iterator[Fault]:
    if value is None and schema.get("nullable"):
        return
    wanted, found = schema.get("type"), _type_of(value)
    if schema.get("x-kubernetes-int-or-string"):
        if found not in ("integer", "string"):
            yield _type_fault(at, "integer,string", found)
            return
    elif wanted and found != wanted and not (wanted == "number" and found == "integer"):
        if wanted == "integer" and found == "number" and schema.get("format"):
            yield _type_fault(at, schema["format"], "float64")
            yield _format_fault(at, schema["format"])
        else:
            yield _type_fault(at, wanted, found)
        return
    allowed = schema.get("enum")
    if allowed is not None and value not in allowed:
        yield unsupported(at, value, allowed)
    match value:
        case bool() | None:
            pass
        case str():
            yield from _string_faults(schema, value, at)
        case int() | float():
            yield from _number_faults(schema, value, at)
        case list():
            yield from _list_faults(schema, value, at)
        case dict():
            yield from _object_faults(schema, value, at)
    yield from _combined_faults(schema, value, at)


def _format_fault(at: str, form: str) -> Fault:
    what = f"Checked value must be of type integer with format {form} in {at}"
    return Fault("<nil>", "FieldValueInvalid", f'Invalid value: "": {what}')


def _type_fault(at: str, wanted: str, found: str) -> Fault:
    return Fault(at, "FieldValueTypeInvalid", f'Invalid value: "{found}": {at} in body must be of type {wanted}: "{found}"')


def _string_faults(schema: Schema, value: str, at: str) -> Iterator[Fault]:
    longest, shortest, pattern, form = (schema.get(key) for key in ("maxLength", "minLength", "pattern", "format"))
    if longest is not None and len(value) > longest:
        yield Fault(at, "FieldValueTooLong", f"Too long: may not be more than {longest} bytes")
    if shortest is not None and len(value) < shortest:
        yield invalid(at, value, f"{at} in body should be at least {shortest} chars long")
    if pattern is not None and not re2.search(pattern, value):
        yield invalid(at, value, f"{at} in body should match '{pattern}'")
    if form is not None and not _is_formatted(form, value):
        yield fault(at, "FieldValueTypeInvalid", f"{at} in body must be of type {form}: {shown(value)}", value)


def _is_formatted(form: str, value: str) -> bool:
    try:
        match form:
            case "date-time":
                return "T" in value.upper() and datetime.fromisoformat(value).tzinfo is not None
            case "date":
                return bool(datetime.strptime(value, "%Y-%m-%d"))
            case "uri":
                return bool(re.match(r"[A-Za-z][A-Za-z0-9+.-]*:|/", value))
            case "duration":
                return bool(re.fullmatch(r"([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h))+|0", value))
            case "uuid":
                return bool(re.fullmatch(r"(?i)[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}", value))
    except ValueError:
        return False
    return True


def _number_faults(schema: Schema, value: float, at: str) -> Iterator[Fault]:
    least, most, step = schema.get("minimum"), schema.get("maximum"), schema.get("multipleOf")
    if least is not None:
        exclusive = schema.get("exclusiveMinimum")
        if value < least or (exclusive and value == least):
            yield invalid(at, value, f"{at} in body should be greater than {'' if exclusive else 'or equal to '}{shown(least)}")
    if most is not None:
        exclusive = schema.get("exclusiveMaximum")
        if value > most or (exclusive and value == most):
            yield invalid(at, value, f"{at} in body should be less than {'' if exclusive else 'or equal to '}{shown(most)}")
    if step and value % step:
        yield invalid(at, value, f"{at} in body should be a multiple of {shown(step)}")
    bits = {"int32": 31, "int64": 63}.get(schema.get("format", ""))
    if bits and isinstance(value, int) and not -(2**bits) <= value < 2**bits:
        yield _format_fault(at, schema["format"])


def _list_faults(schema: Schema, value: list[Any], at: str) -> Iterator[Fault]:
    most, least = schema.get("maxItems"), schema.get("minItems")
    if most is not None and len(value) > most:
        yield Fault(at, "FieldValueTooMany", f"Too many: {len(value)}: must have at most {most} items")
    if least is not None and len(value) < least:
        yield invalid(at, len(value), f"{at} in body should have at least {least} items")
    for index, item in enumerate(value):
        yield from _faults(schema.get("items") or {}, item, f"{at}[{index}]")
    kind = schema.get("x-kubernetes-list-type")
    if kind not in ("set", "map"):
        return
    keys = schema.get("x-kubernetes-list-map-keys") or ()
    seen = []
    for index, item in enumerate(value):
        mark = {key: item.get(key) for key in keys} if kind == "map" and isinstance(item, dict) else item
        if mark in seen:
            yield fault(f"{at}[{index}]", "FieldValueDuplicate", value=mark)
        seen.append(mark)


def _object_faults(schema: Schema, value: Body, at: str) -> Iterator[Fault]:
    properties = schema.get("properties") or {}
    most, least = schema.get("maxProperties"), schema.get("minProperties")
    if most is not None and len(value) > most:
        yield Fault(at, "FieldValueTooMany", f"Too many: {len(value)}: must have at most {most} items")
    if least is not None and len(value) < least:
        yield invalid(at, len(value), f"{at} in body should have at least {least} properties")
    for name in schema.get("required") or ():
        if name not in value:
            yield required(f"{at}.{name}" if at else name)
    additional = schema.get("additionalProperties")
    for name, each in value.items():
        inner = properties.get(name, additional if isinstance(additional, dict) else None)
        if inner is not None:
            path = f"{at}.{name}" if at else name
            yield from _faults(inner, each, path)


def _combined_faults(schema: Schema, value: Any, at: str) -> Iterator[Fault]:
    for inner in schema.get("allOf") or ():
        yield from _faults(inner, value, at)
    options = schema.get("anyOf")
    if options and not any(not faults(inner, value, at) for inner in options):
        yield invalid(at, value, f"{at} in body must validate at least one schema (anyOf)")
    options = schema.get("oneOf")
    if options and sum(not faults(inner, value, at) for inner in options) != 1:
        yield invalid(at, value, f"{at} in body must validate one and only one schema (oneOf)")
    if schema.get("not") is not None and not faults(schema["not"], value, at):
        yield invalid(at, value, f"{at} in body must not validate the schema (not)")
