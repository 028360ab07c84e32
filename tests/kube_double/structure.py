"""A custom resource's structural schema: pruning, defaulting and checking, as the API server does them."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

import jsonschema
import re2  # type: ignore[import-untyped]  # Go's regular expressions; celpy brings them

from kube_double.errors import Body, Fault

Schema = Mapping[str, Any]
Check = Callable[[Any], list[Fault]]

_REASONS = {"required": "FieldValueRequired", "maxLength": "FieldValueTooLong", "maxItems": "FieldValueTooMany",
            "maxProperties": "FieldValueTooMany", "type": "FieldValueTypeInvalid", "format": "FieldValueTypeInvalid",
            "enum": "FieldValueNotSupported", "x-kubernetes-list-type": "FieldValueDuplicate"}  # fmt: skip
_BLOCKING = frozenset(_REASONS.values()) - {"FieldValueDuplicate"}


def blocks_rules(found: list[Fault]) -> bool:
    """Whether CEL rules are left out because of what the schema forbids already."""
    return any(each.reason in _BLOCKING for each in found)


def prune(schema: Schema, value: Any, at: str = "") -> tuple[Any, list[str]]:
    """The value without what the schema does not know, and the paths that were dropped."""
    dropped: list[str] = []
    if isinstance(value, list):
        items = [prune(schema.get("items") or {}, item, f"{at}[{index}]") for index, item in enumerate(value)]
        return [item for item, _ in items], [path for _, paths in items for path in paths]
    if not isinstance(value, dict):
        return value, dropped
    properties, additional, kept = schema.get("properties") or {}, schema.get("additionalProperties"), {}
    for name, each in value.items():
        path = f"{at}.{name}" if at else name
        inner = properties.get(name, additional)
        if isinstance(inner, dict):
            kept[name], more = prune(inner, each, path)
            dropped += more
        elif schema.get("x-kubernetes-preserve-unknown-fields") or (not at and name in ("apiVersion", "kind")):
            kept[name] = each
        else:
            dropped.append(path)
    return kept, dropped


def default(schema: Schema, value: Any) -> None:
    """Fill in defaults, in place, for what is absent; null is absent."""
    if isinstance(value, dict):
        properties, additional = schema.get("properties") or {}, schema.get("additionalProperties")
        for name in [name for name, each in value.items() if each is None and (name in properties or additional)]:
            del value[name]
        for name, inner in properties.items():
            if name not in value and "default" in inner:
                value[name] = copy.deepcopy(inner["default"])
            if name in value:
                default(inner, value[name])
    elif isinstance(value, list):
        for item in value:
            default(schema.get("items") or {}, item)


def checker(schema: Schema) -> Check:
    """Tells everything of a value that the schema forbids, by field."""
    validator = _Validator(schema, format_checker=_FORMATS)

    def check(value: Any) -> list[Fault]:
        return [_fault(error) for error in validator.iter_errors(value)]

    return check


def faults(schema: Schema, value: Any) -> list[Fault]:
    """Everything of one value that the schema forbids."""
    return checker(schema)(value)


def _fault(error: jsonschema.ValidationError) -> Fault:
    at = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path).removeprefix(".")
    if error.validator == "required":
        found = re.match(r"'(.*)' is a required property", error.message)
        assert found is not None
        return Fault(f"{at}.{found[1]}".removeprefix("."), "FieldValueRequired", "Required value")
    reason = _REASONS.get(str(error.validator), "FieldValueInvalid")
    return Fault(at, reason, f"Invalid value: {at} in body: {error.message}")


Errors = Iterator[jsonschema.ValidationError]


def _pattern(_: Any, pattern: str, value: Any, _schema: Schema) -> Errors:
    if isinstance(value, str) and not re2.search(pattern, value):
        yield jsonschema.ValidationError(f"should match '{pattern}'")


def _unique(_: Any, kind: str, value: Any, schema: Schema) -> Errors:
    seen: list[Any] = []
    keys = schema.get("x-kubernetes-list-map-keys") or ()
    for index, item in enumerate(value if kind in ("map", "set") else ()):
        mark = {key: item.get(key) for key in keys} if isinstance(item, dict) else item
        if mark in seen:
            yield jsonschema.ValidationError(f"duplicate: {mark}", path=[index])
        seen.append(mark)


def _int_or_string(_: Any, wanted: bool, value: Any, _schema: Schema) -> Errors:
    if wanted and (isinstance(value, bool) or not isinstance(value, (int, str))):
        yield jsonschema.ValidationError("must be of type integer,string", validator="type")


def _format(validator: Any, form: str, value: Any, schema: Schema) -> Errors:
    bits = {"int32": 31, "int64": 63}.get(form)
    if bits and isinstance(value, int) and not -(2**bits) <= value < 2**bits:
        yield jsonschema.ValidationError(f"must be of format {form}")
    yield from jsonschema.Draft4Validator.VALIDATORS["format"](validator, form, value, schema)


_FORMATS = jsonschema.FormatChecker(())


@_FORMATS.checks("date-time", raises=ValueError)
def _is_time(value: object) -> bool:
    return not isinstance(value, str) or ("T" in value and datetime.fromisoformat(value).tzinfo is not None)


_Validator: Any = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
    jsonschema.Draft4Validator, {
    "pattern": _pattern, "format": _format, "x-kubernetes-list-type": _unique, "x-kubernetes-int-or-string": _int_or_string,
})  # fmt: skip


def at_status(schema: Schema) -> Schema:
    """Of the schema, what it says of status alone."""
    return {"type": "object", "properties": {"status": (schema.get("properties") or {}).get("status") or {}}}


def whole(schema: Schema) -> Body:
    """The schema of a whole object: its metadata is never pruned, and of it only what is said of the name counts."""
    properties = schema.get("properties") or {}
    name = (properties.get("metadata") or {}).get("properties") or {}
    metadata = {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": name}
    return {**schema, "properties": {**properties, "metadata": metadata}}
