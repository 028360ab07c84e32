"""Refusals in Kubernetes' own words: the Status objects that clients read reason, code and message from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Body = dict[str, Any]
"""A JSON object as the API serves it. What the store holds is never changed in place."""

_CAUSES = {
    "FieldValueRequired": "Required value",
    "FieldValueInvalid": "Invalid value",
    "FieldValueNotSupported": "Unsupported value",
    "FieldValueForbidden": "Forbidden",
    "FieldValueTooLong": "Too long",
    "FieldValueTooMany": "Too many",
    "FieldValueDuplicate": "Duplicate value",
    "FieldValueTypeInvalid": "Invalid value",
    "FieldValueNotFound": "Not found",
}
_NOTHING = object()


@dataclass(frozen=True, slots=True)
class Fault:
    """One invalid field of an object, worded as Kubernetes' ``field.Error``."""

    field: str
    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


def shown(value: object) -> str:
    """A value as Go's field errors show it: strings quoted, numbers and booleans plain, the rest as JSON."""
    if value is None:
        return "null"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def fault(field: str, reason: str, detail: str = "", value: object = _NOTHING) -> Fault:
    """A Fault; ``value`` is shown for the reasons that show one."""
    message = _CAUSES[reason]
    if value is not _NOTHING:
        message += f": {shown(value)}"
    if detail:
        message += f": {detail}"
    return Fault(field, reason, message)


def required(field: str, detail: str = "") -> Fault:
    return fault(field, "FieldValueRequired", detail)


def invalid(field: str, value: object, detail: str) -> Fault:
    return fault(field, "FieldValueInvalid", detail, value)


def forbidden(field: str, detail: str) -> Fault:
    return fault(field, "FieldValueForbidden", detail)


def unsupported(field: str, value: object, allowed: Sequence[object]) -> Fault:
    names = ", ".join(shown(each) for each in allowed)
    return fault(field, "FieldValueNotSupported", f"supported values: {names}", value)


class Refused(Exception):
    """A request that is answered with a Status of status Failure."""

    def __init__(self, code: int, reason: str, message: str, details: Body | None = None) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code, self.reason, self.message, self.details = code, reason, message, details

    @property
    def status(self) -> Body:
        body: Body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": self.message}
        if self.reason:
            body["reason"] = self.reason
        if self.details is not None:
            body["details"] = self.details
        return body | {"code": self.code}


def qualified(group: str, plural: str) -> str:
    """``jobs.batch``, ``pods``: how messages call a resource."""
    return f"{plural}.{group}" if group else plural


def _details(group: str, name: str, what: str, **more: Any) -> Body:
    details: Body = {"name": name} if name else {}
    if group:
        details["group"] = group
    if what:
        details["kind"] = what
    return details | more


def not_found(group: str, plural: str, name: str) -> Refused:
    return Refused(404, "NotFound", f'{qualified(group, plural)} "{name}" not found', _details(group, name, plural))


def no_such_path() -> Refused:
    return Refused(404, "NotFound", "the server could not find the requested resource", {})


def already_exists(group: str, plural: str, name: str, *, going: bool = False) -> Refused:
    message = f'{qualified(group, plural)} "{name}" already exists'
    if going:
        message = f"object is being deleted: {message}"
    return Refused(409, "AlreadyExists", message, _details(group, name, plural))


def conflict(group: str, plural: str, name: str, why: str = "") -> Refused:
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    message = f'Operation cannot be fulfilled on {qualified(group, plural)} "{name}": {why}'
    return Refused(409, "Conflict", message, _details(group, name, plural))


def invalid_object(group: str, kind: str, name: str, faults: Sequence[Fault]) -> Refused:
    """422, naming every field at fault."""
    causes = [{"reason": each.reason, "message": each.message, "field": each.field} for each in faults]
    different = dict.fromkeys(map(str, faults))
    told = ", ".join(different)
    told = f"[{told}]" if len(different) > 1 else told
    message = f'{qualified(group, kind)} "{name}" is invalid: {told}'
    return Refused(422, "Invalid", message, _details(group, name, kind, causes=causes))


def bad_request(message: str) -> Refused:
    return Refused(400, "BadRequest", message)


def expired(message: str) -> Refused:
    return Refused(410, "Expired", message)


def not_allowed(user: str, verb: str, group: str, plural: str, name: str, namespace: str) -> Refused:
    """403 of the authorizer; ``plural`` with its subresource, as ``jobs/status``."""
    place = f' in the namespace "{namespace}"' if namespace else " at the cluster scope"
    resource, _, _ = plural.partition("/")
    message = f'{qualified(group, resource)} {f"{chr(34)}{name}{chr(34)} " if name else ""}is forbidden: User "{user}"'
    message += f' cannot {verb} resource "{plural}" in API group "{group}"{place}'
    return Refused(403, "Forbidden", message, _details(group, name, resource))


def unsupported_media_type(accepted: Sequence[str]) -> Refused:
    message = "the body of the request was in an unknown format - accepted media types include: " + ", ".join(accepted)
    return Refused(415, "UnsupportedMediaType", message)
