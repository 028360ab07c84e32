"""Refusals in Kubernetes' own words: the Status objects that clients read reason, code and message from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Body = dict[str, Any]
"""A JSON object as the API serves it. What the store holds is never changed in place."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One invalid field of an object, as Kubernetes' ``field.Error`` has it."""

    field: str
    reason: str
    message: str


def invalid(field: str, value: object, detail: str) -> Fault:
    return Fault(field, "FieldValueInvalid", f"Invalid value: {json.dumps(value, ensure_ascii=False)}: {detail}")


def required(field: str, detail: str = "") -> Fault:
    return Fault(field, "FieldValueRequired", f"Required value: {detail}" if detail else "Required value")


class Refused(Exception):
    """A request that is answered with a Status of status Failure."""

    def __init__(self, code: int, reason: str, message: str, **details: Any) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code, self.reason, self.message, self.details = code, reason, message, details

    @property
    def status(self) -> Body:
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": self.message,
                "reason": self.reason, "details": self.details, "code": self.code}  # fmt: skip


def qualified(group: str, plural: str) -> str:
    """``jobs.batch``, ``pods``: how messages call a resource."""
    return f"{plural}.{group}" if group else plural


def not_found(group: str, plural: str, name: str) -> Refused:
    return Refused(404, "NotFound", f'{qualified(group, plural)} "{name}" not found', name=name, group=group, kind=plural)


def already_exists(group: str, plural: str, name: str, *, going: bool) -> Refused:
    message = f'{"object is being deleted: " if going else ""}{qualified(group, plural)} "{name}" already exists'
    return Refused(409, "AlreadyExists", message, name=name, group=group, kind=plural)


def conflict(group: str, plural: str, name: str, why: str = "") -> Refused:
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    message = f'Operation cannot be fulfilled on {qualified(group, plural)} "{name}": {why}'
    return Refused(409, "Conflict", message, name=name, group=group, kind=plural)


def invalid_object(group: str, kind: str, name: str, faults: Sequence[Fault]) -> Refused:
    """422, naming every field at fault."""
    causes = [{"reason": each.reason, "message": each.message, "field": each.field} for each in faults]
    different = list(dict.fromkeys(f"{each.field}: {each.message}" for each in faults))
    told = f"[{', '.join(different)}]" if len(different) > 1 else different[0]
    message = f'{qualified(group, kind)} "{name}" is invalid: {told}'
    return Refused(422, "Invalid", message, name=name, group=group, kind=kind, causes=causes)


def bad_request(message: str) -> Refused:
    return Refused(400, "BadRequest", message)


def expired(message: str) -> Refused:
    return Refused(410, "Expired", message)


def forbidden(user: str, verb: str, group: str, resource: str, name: str, namespace: str) -> Refused:
    """403 of the authorizer; ``resource`` with its subresource, as ``jobs/status``."""
    plural, place = resource.partition("/")[0], f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    what = f'{qualified(group, plural)} {f"{json.dumps(name)} " if name else ""}is forbidden: User "{user}"'
    message = f'{what} cannot {verb} resource "{resource}" in API group "{group}" {place}'
    return Refused(403, "Forbidden", message, name=name, group=group, kind=plural)
