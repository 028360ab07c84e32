"""``x-kubernetes-validations``: a custom resource's CEL rules, evaluated with celpy. Transition rules are left out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import celpy
from celpy import celtypes
from celpy.evaluation import CELEvalError

from kube_double.errors import Fault
from kube_double.structure import Schema

_ENVIRONMENT = celpy.Environment()
_RESERVED = frozenset({"as", "break", "const", "continue", "else", "for", "function", "if", "import", "in", "let", "loop",
                       "namespace", "package", "return", "var", "void", "while"})  # fmt: skip
_outcomes: dict[tuple[str, str], str | None] = {}
"""What came of rules for values: celpy takes two milliseconds for each, and objects hardly differ."""
_MOST_OUTCOMES = 20_000


@lru_cache(maxsize=1024)
def _program(rule: str) -> celpy.Runner:
    return _ENVIRONMENT.program(_ENVIRONMENT.compile(rule))


def _as_cel(schema: Schema, value: Any) -> Any:
    """A JSON value as CEL sees it through its schema."""
    match value:
        case dict():
            properties, additional = schema.get("properties") or {}, schema.get("additionalProperties")
            found = {}
            for name, each in value.items():
                inner = properties.get(name, additional)
                if isinstance(inner, dict):
                    known = f"__{name}__" if name in properties and name in _RESERVED else name
                    found[celtypes.StringType(known)] = _as_cel(inner, each)
            return celtypes.MapType(found)
        case list():
            return celtypes.ListType([_as_cel(schema.get("items") or {}, item) for item in value])
        case bool():
            return celtypes.BoolType(value)
        case int() | float():
            return celtypes.DoubleType(value) if schema.get("type") == "number" else celtypes.IntType(int(value))
        case str() if schema.get("format") == "date-time":
            return celtypes.TimestampType(value)
        case str():
            return celtypes.StringType(value)
    return None


def rule_faults(schema: Schema, value: Any, old: Any = None, at: str = "") -> Iterator[Fault]:
    """What the rules of a value and of its parts find wrong; what has not changed is not checked again."""
    if value is None or value == old:
        return
    for rule in schema.get("x-kubernetes-validations") or ():
        if (message := _broken(rule, schema, value)) is not None:
            yield Fault(
                f"{at}{rule.get('fieldPath', '')}".lstrip(".") or "<nil>", "FieldValueInvalid", f"Invalid value: {message}"
            )
    if isinstance(value, dict):
        properties, additional = schema.get("properties") or {}, schema.get("additionalProperties")
        for name, each in value.items():
            inner = properties.get(name, additional)
            if isinstance(inner, dict):
                was = old.get(name) if isinstance(old, dict) else None
                yield from rule_faults(inner, each, was, f"{at}.{name}" if at else name)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for index, item in enumerate(value):
            yield from rule_faults(schema["items"], item, None, f"{at}[{index}]")


def _broken(rule: Mapping[str, Any], schema: Schema, value: Any) -> str | None:
    """The rule's message, if the value breaks it."""
    text: str = rule["rule"]
    asked = text, json.dumps(value, sort_keys=True)
    if asked not in _outcomes:
        if len(_outcomes) > _MOST_OUTCOMES:
            _outcomes.clear()
        try:
            _outcomes[asked] = None if _program(text).evaluate({"self": _as_cel(schema, value)}) else str(rule["message"])
        except CELEvalError as error:
            _outcomes[asked] = f"{error} evaluating rule: {text}"
    return _outcomes[asked]
