"""What is wrong with a resource, in lines that a person can act on and that hold no secret.

A line names the field as it is written, what is wrong, the value's shape, and what is allowed. A value itself is shown
only where it can be nothing secret: a number or a switch where one belongs, a short word where a few words are allowed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError

from siorg_operator.api.rules import BROKEN, Rule
from siorg_operator.api.schema import Schema, at, structural

_SHOWN_AT_MOST = 12  # characters of a wrong word: enough to recognise it, too few for most secrets
_KEY_AT_MOST = 64  # characters of a key that nobody knows
_FIELDS_AT_MOST = 24  # fields told where one is not known

_WRONG = {
    "missing": "is required and missing",
    "extra_forbidden": "is no field",
    "invalid_key": "is no field",
    "int_type": "is no whole number",
    "float_type": "is no number",
    "bool_type": "is neither true nor false",
    "string_type": "is no text",
    "string_unicode": "is no UTF-8 text",
    "quantity_type": "is no quantity",
    "tuple_type": "is no list",
    "dict_type": "is no object",
    "model_type": "is no object",
    "greater_than_equal": "is too small",
    "less_than_equal": "is too large",
    "string_too_short": "is too short",
    "string_too_long": "is too long",
    "too_long": "has too many entries",
    "string_pattern_mismatch": "is not in the form that Kubernetes takes",
    "literal_error": "is none of the words allowed",
}
_KINDS = {"boolean": "true or false", "object": "an object", "array": "a list", "string": "text"}


class ResourceError(ValueError):
    """The resource cannot be used. One line for each problem: ``field: what is wrong; value: …; allowed: …``."""

    def __init__(self, problems: Iterable[str]) -> None:
        """``problems``: one line each, without secrets."""
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def lines(error: ValidationError, given: Mapping[str, Any], model: type[BaseModel], forms: Mapping[str, str]) -> Iterator[str]:
    """One line for each thing that is wrong.

    Args:
        error: what pydantic found.
        given: what it looked at, in camelCase.
        model: what it was looking for.
        forms: what the patterns of texts mean, in words.
    """
    schema = _schema(model)
    for one in error.errors(include_input=False, include_url=False):
        place = one["loc"]
        if one["type"] == BROKEN:
            yield from (_broken(rule, place, given, schema) for rule in one["ctx"]["broken"])
        elif one["type"] in {"extra_forbidden", "invalid_key"}:
            yield _unknown(place, schema)
        else:
            wrong = _WRONG.get(one["type"], "is not right")
            allowed = _allowed(at(schema, place), forms)
            value = "" if one["type"] == "missing" else f"; value: {_shape_at(given, place, schema)}"
            yield f"{written(place)}: {wrong}{value}; allowed: {allowed}"


def written(place: Iterable[str | int]) -> str:
    """A place as people write it: ``spec.job.podTemplate.spec.env[2].name``."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{key(step)}" for step in place).removeprefix(".")


def key(name: object) -> str:
    """A key that somebody wrote, safe to print."""
    return ascii(str(name)[:_KEY_AT_MOST])[1:-1]


def shape(value: object, node: Schema | None = None) -> str:
    """What kind of value it is, and how long; the value itself only where ``node`` says that it can be nothing secret."""
    place = node or {}
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value) if place.get("type") in {"integer", "number"} and abs(value) < 1e18 else "a number"
        case str() if "enum" in place and 0 < len(value) <= _SHOWN_AT_MOST:
            return ascii(value)
        case str():
            return f"text of {_counted(len(value), 'character')}"
        case Mapping():
            return f"an object of {_counted(len(value), 'field')}"
        case _:
            return f"a list of {_counted(len(value), 'entry')}" if isinstance(value, list | tuple) else "something else"


@cache
def _schema(model: type[BaseModel]) -> Schema:
    return structural(model)


def _counted(number: int, noun: str) -> str:
    return (
        f"{number} {noun}" if number == 1 else f"{number} {noun.removesuffix('y')}ies" if noun[-1] == "y" else f"{number} {noun}s"
    )


def _broken(rule: Rule, place: tuple[str | int, ...], given: Mapping[str, Any], schema: Schema) -> str:
    steps = (int(rule.field),) if rule.field.isdigit() else tuple(rule.field.split(".")) if rule.field else ()
    to_blame = (*place, *steps)
    return f"{written(to_blame)}: {rule.wrong}; value: {_shape_at(given, to_blame, schema)}; allowed: {rule.allowed}"


def _unknown(place: tuple[str | int, ...], schema: Schema) -> str:
    known = at(schema, place[:-1]).get("properties", {})
    near = difflib.get_close_matches(str(place[-1]), known, n=1, cutoff=0.5)
    meant = f"; did you mean {near[0]}?" if near else ""
    names = ", ".join(list(known)[:_FIELDS_AT_MOST]) + (" …" if len(known) > _FIELDS_AT_MOST else "")
    return f"{written(place)}: is no field{meant}; allowed: {names}"


def _shape_at(given: Any, place: Iterable[str | int], schema: Schema) -> str:
    node, value, known = schema, given, True
    for step in place:
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
        number = "a whole number" if node["type"] == "integer" else "a number"
        if "maximum" in node:
            return f"{number}, {node['minimum']} to {node['maximum']}"
        return f"{number}, {node['minimum']} or more" if "minimum" in node else number
    told = forms.get(node.get("pattern", "")) or _KINDS.get(node.get("type", ""), "see the documentation")
    if node.get("properties"):
        told += f" of {', '.join(list(node['properties'])[:_FIELDS_AT_MOST])}"
    if "maxLength" in node:
        told += (
            f", {node['minLength']} to {node['maxLength']} characters"
            if node.get("minLength")
            else (f", at most {node['maxLength']} characters")
        )
    for limit in ("maxItems", "maxProperties"):
        if limit in node:
            told += f", at most {node[limit]} entries"
    return told
