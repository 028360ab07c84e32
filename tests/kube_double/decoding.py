"""Built-in kinds as Go decodes them: wrong types are refused, unknown and empty fields are dropped.

Which fields there are, and of which types, is read from the official client's models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from kubernetes import client

from kube_double.kinds import Kind
from kube_double.refused import Body, Refused, bad_request

_ABSENT = object()
_MODELS = {"Event": "CoreV1Event"}
_GO_TYPES = {"str": "string", "int": "int32", "bool": "bool", "float": "float64", "datetime": "Time", "bytes": "string"}
_LONG = frozenset({"activeDeadlineSeconds", "terminationGracePeriodSeconds", "startingDeadlineSeconds", "generation",
                   "deletionGracePeriodSeconds", "tolerationSeconds", "runAsUser", "runAsGroup", "fsGroup", "maxLength",
                   "minLength", "maxItems", "minItems", "maxProperties", "minProperties"})  # fmt: skip
_POINTERS = frozenset({"timeZone", "holderIdentity", "storageClassName", "preferredHolder", "strategy"})
"""Optional strings that may be empty and still be there."""
_FALSE_IS_ABSENT = frozenset({"hostNetwork", "hostPID", "hostIPC", "stdin", "stdinOnce", "tty", "readOnly", "unschedulable"})
_ZERO_IS_ABSENT = frozenset({"active", "succeeded", "failed", "count", "weight"})


@dataclass(frozen=True, slots=True)
class _Field:
    """One field's type: a scalar, a list or map of something, or a model."""

    what: str
    inner: _Field | None = None
    model: str = ""
    required: bool = False


@cache
def _fields(model: str) -> Mapping[str, _Field]:
    found = getattr(client, model)
    required = {info.alias or name: info.is_required() for name, info in found.model_fields.items()}
    names: Mapping[str, str] = found.attribute_map
    return {names[name]: _field(kind, required=required.get(names[name], False)) for name, kind in found.openapi_types.items()}


def _field(kind: str, *, required: bool = False) -> _Field:
    if kind.startswith("List["):
        return _Field("list", _field(kind[5:-1]), required=required)
    if kind.startswith("Dict["):
        return _Field("map", _field(kind[5:-1].partition(", ")[2]), required=required)
    if kind in _GO_TYPES or kind == "object":
        return _Field(kind, required=required)
    return _Field("model", model=kind, required=required)


class _Wrong(Exception):
    """A value that Go cannot decode."""


@dataclass(slots=True)
class _Decoder:
    unknown: list[str]

    def model(self, model: str, value: Any, path: str, named: str) -> Body:
        fields = _fields(model)
        kept: Body = {}
        for name, each in value.items():
            field = fields.get(name)
            here = f"{path}.{name}" if path else name
            if field is None:
                self.unknown.append(f'unknown field "{here}"')
                continue
            found = self.value(field, each, here, f"{_go(model)}.{named}{name}", f"{named}{name}.")
            if found is not _ABSENT and not _is_omitted(name, field, found):
                kept[name] = found
        return kept

    def value(self, field: _Field, value: Any, path: str, struct: str, named: str) -> Any:
        if value is None:
            return _ABSENT
        match field.what:
            case "object":
                return value
            case "list" if isinstance(value, list) and field.inner is not None:
                inner = field.inner
                items = [self.value(inner, item, f"{path}[{at}]", struct, named) for at, item in enumerate(value)]
                return [item for item in items if item is not _ABSENT] or _ABSENT
            case "map" if isinstance(value, dict) and field.inner is not None:
                inner = field.inner
                items = [(key, self.value(inner, item, f"{path}.{key}", struct, named)) for key, item in value.items()]
                return {key: "" if item is _ABSENT else item for key, item in items} or _ABSENT
            case "model" if isinstance(value, dict):
                return self.model(field.model, value, path, named)
            case "str" | "datetime" | "bytes" if isinstance(value, str):
                return value
            case "str" if _is_quantity(path) and not isinstance(value, (bool, list, dict)):
                return str(value)
            case "int" if isinstance(value, int) and not isinstance(value, bool):
                return value
            case "float" if isinstance(value, (int, float)) and not isinstance(value, bool):
                return value
            case "bool" if isinstance(value, bool):
                return value
        raise _Wrong(f"json: cannot unmarshal {_json_type(value)} into Go struct field {struct} of type {_go_type(field, path)}")


def _is_quantity(path: str) -> bool:
    return any(f".{part}." in f".{path}." for part in ("limits", "requests", "capacity", "allocatable", "overhead", "sizeLimit"))


def _is_omitted(name: str, field: _Field, value: Any) -> bool:
    if value == "" and field.what == "str":
        return not field.required and name not in _POINTERS
    if value is False:
        return name in _FALSE_IS_ABSENT
    return value == 0 and field.what == "int" and name in _ZERO_IS_ABSENT


def _go(model: str) -> str:
    return model.removeprefix("Core").removeprefix("V1").removeprefix("V2")


def _go_type(field: _Field, path: str) -> str:
    match field.what:
        case "list":
            assert field.inner is not None
            return f"[]{_go_type(field.inner, path)}"
        case "map":
            assert field.inner is not None
            return f"map[string]{_go_type(field.inner, path)}"
        case "model":
            return f"v1.{_go(field.model)}"
    if field.what == "int" and path.rpartition(".")[2] in _LONG:
        return "int64"
    return _GO_TYPES[field.what]


def _json_type(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return "number"
    return "string" if isinstance(value, str) else "array" if isinstance(value, list) else "object"


def decoded(kind: Kind, body: Body) -> tuple[Body, list[str]]:
    """The object as Go has it, and which unknown fields were dropped.

    Raises:
        Refused: 400, a value has the wrong type.
    """
    decoder = _Decoder([])
    try:
        found = decoder.model(_MODELS.get(kind.kind, f"V1{kind.kind}"), body, "", "")
    except _Wrong as wrong:
        raise cannot_be_handled(kind, str(wrong)) from None
    return found, decoder.unknown


def decoded_metadata(kind: Kind, metadata: Any) -> Body:
    """A custom object's metadata.

    Raises:
        Refused: 400, a value has the wrong type.
    """
    try:
        found = _Decoder([]).value(_Field("model", model="V1ObjectMeta"), metadata, "", "metadata", "metadata.")
    except _Wrong as wrong:
        raise cannot_be_handled(kind, str(wrong)) from None
    return {} if found is _ABSENT else dict(found)


def cannot_be_handled(kind: Kind, why: str) -> Refused:
    return bad_request(f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {why}')
