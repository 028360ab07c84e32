"""CustomResourceDefinitions: what they make the server serve, and how it treats the objects of their kinds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kube_double.cel_rules import rule_faults
from kube_double.errors import Body, Fault, bad_request, invalid_object
from kube_double.kinds import Kind, Kinds
from kube_double.store import Change, Place, Store, now
from kube_double.structure import Check, Schema, at_status, blocks_rules, checker, default, prune, whole

PLACE: Place = ("apiextensions.k8s.io", "customresourcedefinitions")
FINALIZER = "customresourcecleanup.apiextensions.k8s.io"
_UNCHECKED = Fault("<nil>", "FieldValueInvalid", "Invalid value: null: some validation rules were not checked because the object"
                   " was invalid; correct the existing errors to complete validation")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Version:
    """The one served version of a custom resource."""

    schema: Schema
    check: Check
    check_status: Check
    columns: tuple[Mapping[str, Any], ...]
    scale: Mapping[str, str] | None


@dataclass(slots=True)
class Definitions:
    """All definitions that are there now."""

    store: Store
    kinds: Kinds
    _versions: dict[Place, Version] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store.listeners.append(self._changed)

    def version(self, kind: Kind) -> Version | None:
        return self._versions.get(kind.collection)

    def _changed(self, place: Place, change: Change) -> None:
        if place != PLACE:
            return
        name, kind = change.last.key[1], None
        if change.after is not None:
            spec = change.after.body["spec"]
            (version,) = spec["versions"]
            names, subresources = spec["names"], version.get("subresources") or {}
            more = tuple(names.get("shortNames") or ()), tuple(names.get("categories") or ()), name
            kind = Kind(spec["group"], version["name"], names["kind"], names["plural"], spec["scope"] == "Namespaced",
                        tuple(subresources), *more)  # fmt: skip
            schema = whole(version["schema"]["openAPIV3Schema"])
            columns = tuple(version.get("additionalPrinterColumns") or ())
            self._versions[kind.collection] = Version(schema, checker(schema), checker(at_status(schema)), columns,
                                                      subresources.get("scale"))  # fmt: skip
        self.kinds.define(name, kind)

    def admit(self, kind: Kind, body: Body, old: Body | None, subresource: str, *, strict: bool) -> Body:
        """Prune, default and check a custom object on its way into the store.

        Raises:
            Refused: 400 for unknown fields when ``strict``; 422 for what the schema or its rules forbid.
        """
        version = self._versions[kind.collection]
        if old is None:
            body.pop("status", None)
        body, dropped = prune(version.schema, body)
        if dropped and strict:
            told = ", ".join(f'unknown field "{path}"' for path in dropped)
            raise bad_request(f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: strict decoding'
                              f" error: {told}")  # fmt: skip
        default(version.schema, body)
        found = (version.check_status if subresource == "status" else version.check)(body)
        found += [_UNCHECKED] if blocks_rules(found) else rule_faults(version.schema, body, old)
        if found:
            raise invalid_object(kind.group, kind.kind, body["metadata"].get("name") or "", found)
        return body


def established() -> Body:
    """The status that its controller gives a definition."""
    about = {"status": "True", "lastTransitionTime": now(), "reason": "NoConflicts", "message": ""}
    return {"conditions": [{"type": kind, **about} for kind in ("NamesAccepted", "Established")]}
