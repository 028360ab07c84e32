"""Validation errors of a resource, as lines that a person can act on and that hold no secret.

A line names the field as it is written, what is wrong, the value's shape, and what is allowed. A value itself is shown
only where it can be nothing secret: a number or a switch where one belongs, a short word where a few words are allowed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError

from siorg_operator.api.rules import BROKEN, Rule
from siorg_operator.api.schema import Schema, at, structural

_SHOWN_AT_MOST = 12  # characters of a wrong word: enough to recognise it, too few for most secrets
_KEY_AT_MOST = 64  # characters of an unknown key
_FIELDS_AT_MOST = 24  # fields named where one is not known

_WRONG = {
    "missing": "is required",
    "int_type": "must be an integer",
    "float_type": "must be a number",
    "bool_type": "must be a boolean",
    "string_type": "must be a string",
    "string_unicode": "must be UTF-8 text",
    "quantity_type": "must be a quantity",
    "tuple_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "greater_than_equal": "is too small",
    "less_than_equal": "is too large",
    "string_too_short": "is too short",
    "string_too_long": "is too long",
    "too_long": "has too many entries",
    "string_pattern_mismatch": "is not in the form that Kubernetes takes",
    "literal_error": "is not one of the allowed values",
}
"""What is wrong, by the type of pydantic's error."""
_structural = cache(structural)
_KINDS = {"boolean": "true or false", "object": "an object", "array": "a list", "string": "a string"}


class ResourceError(ValueError):
    """The resource cannot be used. One line for each error: ``field: what is wrong; value: …; allowed: …``."""

    def __init__(self, errors: Iterable[str]) -> None:
        """``errors``: one line each, without secrets."""
        self.errors = tuple(errors)
        super().__init__("\n".join(self.errors))


def lines(error: ValidationError, given: Mapping[str, Any], model: type[BaseModel], forms: Mapping[str, str]) -> Iterator[str]:
    """One line for each thing that pydantic found in ``given``. ``forms``: what the patterns of texts mean, in words."""
    schema = _structural(model)
    for found in error.errors(include_input=False, include_url=False):
        path = found["loc"]
        if found["type"] == BROKEN:
            yield from (_broken(rule, path, given, schema) for rule in found["ctx"]["broken"])
        elif found["type"] in {"extra_forbidden", "invalid_key"}:
            yield unknown(path, list(at(schema, path[:-1]).get("properties", {})))
        else:
            wrong = _WRONG.get(found["type"], "is not valid")
            value = "" if found["type"] == "missing" else f"; value: {_shape_at(given, path, schema)}"
            yield f"{written(path)}: {wrong}{value}; allowed: {_allowed(at(schema, path), forms)}"


def unknown(path: Sequence[str | int], known: Sequence[str]) -> str:
    """The line for a field that does not exist where ``known`` do."""
    near = difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=0.5)
    meant = f"; did you mean {near[0]}?" if near else ""
    names = ", ".join(known[:_FIELDS_AT_MOST]) + (" …" if len(known) > _FIELDS_AT_MOST else "")
    return f"{written(path)}: unknown field{meant}; allowed: {names}"


def written(path: Iterable[str | int]) -> str:
    """A path as people write it: ``spec.job.podTemplate.spec.env[2].name``."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{key(step)}" for step in path).removeprefix(".")


def key(name: object) -> str:
    """A key that somebody wrote, safe to print."""
    return ascii(str(name)[:_KEY_AT_MOST])[1:-1]


def shape(value: object, node: Schema | None = None) -> str:
    """What kind of value it is, and how long; the value itself only where ``node`` says that it can be nothing secret."""
    schema = node or {}
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value) if schema.get("type") in {"integer", "number"} and abs(value) < 1e18 else "a number"
        case str() if "enum" in schema and 0 < len(value) <= _SHOWN_AT_MOST:
            return ascii(value)
        case str():
            return f"a string of {_counted(len(value), 'character', 'characters')}"
        case Mapping():
            return f"an object of {_counted(len(value), 'field', 'fields')}"
        case list() | tuple():
            return f"a list of {_counted(len(value), 'entry', 'entries')}"
        case _:
            return "something else"


def _counted(number: int, singular: str, plural: str) -> str:
    return f"{number} {singular if number == 1 else plural}"


def _broken(rule: Rule, path: tuple[str | int, ...], given: Mapping[str, Any], schema: Schema) -> str:
    steps = (int(rule.field),) if rule.field.isdigit() else tuple(rule.field.split(".")) if rule.field else ()
    to_blame = (*path, *steps)
    return f"{written(to_blame)}: {rule.wrong}; value: {_shape_at(given, to_blame, schema)}; allowed: {rule.allowed}"


def _shape_at(given: Any, path: Iterable[str | int], schema: Schema) -> str:
    node, value, known = schema, given, True
    for step in path:
        node = at(node, [step])
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            known = False
    if known and value is not None:
        return shape(value, node)
    return f"{shape(node['default'], node)} (the default)" if "default" in node else "none"


def _allowed(node: Schema, forms: Mapping[str, str]) -> str:
    if "enum" in node:
        return ", ".join(node["enum"])
    if node.get("type") in {"integer", "number"}:
        number = "an integer" if node["type"] == "integer" else "a number"
        if "maximum" in node:
            return f"{number}, {node['minimum']} to {node['maximum']}"
        return f"{number}, {node['minimum']} or more" if "minimum" in node else number
    text = forms.get(node.get("pattern", "")) or _KINDS.get(node.get("type", ""), "see the documentation")
    if node.get("properties"):
        text += f" of {', '.join(list(node['properties'])[:_FIELDS_AT_MOST])}"
    if "maxLength" in node:
        least = f"{node['minLength']} to" if node.get("minLength") else "at most"
        text += f", {least} {node['maxLength']} characters"
    for limit in ("maxItems", "maxProperties"):
        if limit in node:
            text += f", at most {node[limit]} entries"
    return text
