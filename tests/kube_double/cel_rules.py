"""``x-kubernetes-validations``: a custom resource's CEL rules, evaluated with celpy.

Left out: optional types (``?.``, ``optionalOldSelf``), the types of expressions, and what rules are estimated to cost;
the real server refuses definitions for the latter two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import celpy
import re2  # type: ignore[import-untyped]
from celpy import celtypes
from celpy.celparser import CELParseError
from celpy.evaluation import CELEvalError

from kube_double.refused import Body, Fault, fault, forbidden, invalid, required
from kube_double.structure import Schema

_RESERVED = frozenset({
    "as", "break", "const", "continue", "else", "false", "for", "function", "if", "import", "in", "let", "loop", "null",
    "package", "namespace", "return", "true", "var", "void", "while",
})  # fmt: skip
_ENVIRONMENT = celpy.Environment()
_KEY = re.compile(r"no such (?:member in mapping|key)[^']*'([^']+)'")


def _strings(values: list[str]) -> celtypes.ListType:
    return celtypes.ListType([celtypes.StringType(each) for each in values])


def _url(text: Any) -> celtypes.MapType:
    parts = urlsplit(str(text))
    if not parts.scheme and not str(text).startswith("/"):
        raise ValueError(f"URL parse error during conversion from string: parse {str(text)!r}: invalid URI for request")
    values = {"scheme": parts.scheme, "host": parts.netloc.rpartition("@")[2], "hostname": parts.hostname or "",
              "port": str(parts.port or ""), "path": parts.path}  # fmt: skip
    return celtypes.MapType({celtypes.StringType(key): celtypes.StringType(value) for key, value in values.items()})


def _is_url(text: Any) -> celtypes.BoolType:
    try:
        _url(text)
    except ValueError:
        return celtypes.BoolType(False)
    return celtypes.BoolType(True)


def _part(name: str) -> Callable[[Any], Any]:
    return lambda url: url[celtypes.StringType(name)]


def _substring(text: Any, start: Any, end: Any = None) -> celtypes.StringType:
    return celtypes.StringType(str(text)[int(start) : None if end is None else int(end)])


def _find(text: Any, pattern: Any) -> celtypes.StringType:
    found = re2.search(str(pattern), str(text))
    return celtypes.StringType(found[0] if found else "")


def _is_sorted(items: Any) -> celtypes.BoolType:
    return celtypes.BoolType(all(one <= other for one, other in pairwise(items)))


_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "trim": lambda text: celtypes.StringType(str(text).strip()),
    "lowerAscii": lambda text: celtypes.StringType(str(text).lower()),
    "upperAscii": lambda text: celtypes.StringType(str(text).upper()),
    "replace": lambda text, old, new: celtypes.StringType(str(text).replace(str(old), str(new))),
    "split": lambda text, by: _strings(str(text).split(str(by))),
    "join": lambda items, by="": celtypes.StringType(str(by).join(map(str, items))),
    "substring": _substring,
    "charAt": lambda text, at: celtypes.StringType(str(text)[int(at)]),
    "indexOf": lambda text, what: celtypes.IntType(str(text).find(str(what))),
    "lastIndexOf": lambda text, what: celtypes.IntType(str(text).rfind(str(what))),
    "find": _find,
    "findAll": lambda text, pattern: _strings([found[0] for found in re2.finditer(str(pattern), str(text))]),
    "isURL": _is_url,
    "url": _url,
    "getScheme": _part("scheme"),
    "getHost": _part("host"),
    "getHostname": _part("hostname"),
    "getPort": _part("port"),
    "getEscapedPath": _part("path"),
    "isSorted": _is_sorted,
    "sum": lambda items: celtypes.IntType(sum(map(int, items))),
    "min": min,
    "max": max,
}


@lru_cache(maxsize=1024)
def _program(rule: str) -> celpy.Runner:
    return _ENVIRONMENT.program(_ENVIRONMENT.compile(rule), functions=dict(_FUNCTIONS))


def unreadable(rule: str) -> str:
    """Why a rule cannot be compiled; empty if it can."""
    try:
        _program(rule)
    except CELParseError as error:
        return f"compilation failed: ERROR: <input>:1:1: Syntax error: {str(error).splitlines()[0]}"
    return ""


def _escaped(name: str) -> str:
    if name in _RESERVED:
        return f"__{name}__"
    for what, by in (("__", "__underscores__"), (".", "__dot__"), ("-", "__dash__"), ("/", "__slash__")):
        name = name.replace(what, by)
    return name


def as_cel(schema: Schema, value: Any) -> Any:
    """A JSON value as CEL sees it through its schema."""
    if isinstance(value, dict):
        return _object_as_cel(schema, value)
    if isinstance(value, list):
        return celtypes.ListType([as_cel(schema.get("items") or {}, item) for item in value])
    if value is None:
        return None
    if isinstance(value, bool):
        return celtypes.BoolType(value)
    if isinstance(value, (int, float)):
        return celtypes.DoubleType(value) if schema.get("type") == "number" else celtypes.IntType(int(value))
    match schema.get("format"):
        case "date-time":
            return celtypes.TimestampType(value)
        case "duration":
            return celtypes.DurationType(value)
    return celtypes.StringType(value)


def _object_as_cel(schema: Schema, value: Body) -> Any:
    properties, additional = schema.get("properties") or {}, schema.get("additionalProperties")
    found: dict[Any, Any] = {}
    for name, each in value.items():
        if name in properties:
            found[celtypes.StringType(_escaped(name))] = as_cel(properties[name], each)
        elif isinstance(additional, dict):
            found[celtypes.StringType(name)] = as_cel(additional, each)
    return celtypes.MapType(found)


_NONE = object()


def rule_faults(schema: Schema, body: Body, old: Body | None) -> list[Fault]:
    """What the rules of a whole object find wrong.

    Args:
        schema: The object's.
        body: The object.
        old: What it was before an update: transition rules look at it, and what has not changed is not checked again.
    """
    # Of metadata, rules see the name and nothing else.
    name = {"name": {"type": "string"}, "generateName": {"type": "string"}}
    schema = {**schema, "properties": {**schema.get("properties", {}), "metadata": {"type": "object", "properties": name}}}
    return list(_faults(schema, body, _NONE if old is None else old, ""))


def value_faults(schema: Schema, value: Any, at: str) -> list[Fault]:
    """What the rules of a part of an object, as a default, find wrong."""
    return list(_faults(schema, value, _NONE, at))


def _faults(schema: Schema, value: Any, old: Any, at: str) -> Iterator[Fault]:
    if value is None:
        return
    for rule in schema.get("x-kubernetes-validations") or ():
        found = _check(rule, schema, value, old, at)
        if found is not None:
            yield found
    if isinstance(value, dict):
        properties, additional = schema.get("properties") or {}, schema.get("additionalProperties")
        for name, each in value.items():
            inner = properties.get(name, additional if isinstance(additional, dict) else None)
            if inner:
                was = old.get(name, _NONE) if isinstance(old, dict) else _NONE
                path = f"{at}.{name}" if at and name in properties else f"{at}[{name}]" if at else name
                yield from _faults(inner, each, was, path)
    elif isinstance(value, list):
        keys = schema.get("x-kubernetes-list-map-keys") or ()
        for index, item in enumerate(value):
            yield from _faults(schema.get("items") or {}, item, _counterpart(keys, item, old), f"{at}[{index}]")


def _counterpart(keys: Any, item: Any, old: Any) -> Any:
    """The old item of the same keys; only lists that are maps have one."""
    if not keys or not isinstance(old, list):
        return _NONE
    return next((each for each in old if all(each.get(key) == item.get(key) for key in keys)), _NONE)


def _check(rule: Mapping[str, Any], schema: Schema, value: Any, old: Any, at: str) -> Fault | None:
    text = str(rule["rule"])
    transition = re.search(r"\boldSelf\b", text) is not None
    if old is _NONE and transition:
        return None
    if old is not _NONE and not transition and old == value:
        return None
    known = {"self": as_cel(schema, value)} | ({"oldSelf": as_cel(schema, old)} if transition else {})
    message = str(rule.get("message") or f"failed rule: {text.strip()}")
    try:
        if _program(text).evaluate(known):
            return None
        if "messageExpression" in rule:
            message = str(_program(str(rule["messageExpression"])).evaluate(known)).strip() or message
    except CELEvalError as error:
        told = rule.get("message") or text
        return Fault(
            at or "<nil>", "FieldValueInvalid", f'Invalid value: "{schema.get("type")}": {_why(error)} evaluating rule: {told}'
        )
    return _fault(rule, value, f"{at}{rule.get('fieldPath', '')}".lstrip(".") or "<nil>", message)


def _why(error: CELEvalError) -> str:
    text = str(error.args[0]) if error.args else str(error)
    key = _KEY.search(text)
    return f"no such key: {key[1]}" if key else text


def _fault(rule: Mapping[str, Any], value: Any, at: str, message: str) -> Fault:
    match rule.get("reason"):
        case "FieldValueForbidden":
            return forbidden(at, message)
        case "FieldValueRequired":
            return required(at, message)
        case "FieldValueDuplicate":
            return fault(at, "FieldValueDuplicate", value=value)
    if isinstance(value, (dict, list)):
        return Fault(at, "FieldValueInvalid", f"Invalid value: {message}")
    return invalid(at, value, message)
