"""CustomResourceDefinitions: what they make the server serve, and how it treats the objects of their kinds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kube_double.cel_rules import rule_faults, unreadable, value_faults
from kube_double.clock import now
from kube_double.decoding import cannot_be_handled
from kube_double.kinds import Kind, Kinds
from kube_double.names import metadata_faults
from kube_double.refused import Body, Fault, invalid, invalid_object, required
from kube_double.scale import scale_faults
from kube_double.store import Change, Place, Store
from kube_double.structure import UNCHECKED, Schema, Shaped, block_rules, default, faults, prune, with_root

PLACE: Place = ("apiextensions.k8s.io", "customresourcedefinitions")
FINALIZER = "customresourcecleanup.apiextensions.k8s.io"


@dataclass(frozen=True, slots=True)
class Version:
    """One served version of a custom resource."""

    schema: Schema
    columns: tuple[Mapping[str, Any], ...] = ()
    selectable: tuple[str, ...] = ()
    scale: Mapping[str, str] | None = None
    has_status: bool = False


@dataclass(slots=True)
class Definitions:
    """All definitions that are there now."""

    store: Store
    kinds: Kinds
    _versions: dict[tuple[str, str, str], Version] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store.on_change(self._changed)

    def version(self, kind: Kind) -> Version | None:
        return self._versions.get((kind.group, kind.version, kind.plural))

    def shape(self, kind: Kind) -> Shaped:
        return Shaped(self._versions[kind.group, kind.version, kind.plural].schema)

    def _changed(self, place: Place, change: Change) -> None:
        if place != PLACE:
            return
        if change.after is None:
            self.kinds.define(change.last.key[1], [])
            return
        if not any(each["type"] == "Established" for each in change.after.body.get("status", {}).get("conditions") or ()):
            return
        spec = change.after.body["spec"]
        kinds = []
        for version in spec["versions"]:
            if not version.get("served"):
                continue
            kind = _kind(spec, version, change.after.key[1])
            kinds.append(kind)
            subresources = version.get("subresources") or {}
            self._versions[kind.group, kind.version, kind.plural] = Version(
                with_root((version.get("schema") or {}).get("openAPIV3Schema") or {"x-kubernetes-preserve-unknown-fields": True}),
                tuple(version.get("additionalPrinterColumns") or ()),
                tuple(each["jsonPath"].removeprefix(".") for each in version.get("selectableFields") or ()),
                subresources.get("scale"),
                "status" in subresources,
            )
        self.kinds.define(change.after.key[1], kinds)

    def prepare(self, body: Body, old: Body | None) -> list[Fault]:
        """Default and check a definition itself, in place."""
        spec = body.get("spec") or {}
        problems = _definition_faults(body, spec)
        if problems:
            return problems
        names = spec["names"]
        names.setdefault("singular", names["kind"].lower())
        names.setdefault("listKind", f"{names['kind']}List")
        spec.setdefault("conversion", {"strategy": "None"})
        if old is None:
            stored = [version["name"] for version in spec["versions"] if version.get("storage")]
            body["status"] = {"conditions": [], "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": stored}
        return []

    def established(self, body: Body) -> Body:
        """The definition with the status that its controller gives it."""
        moment = now()
        conditions = [
            {"type": "NamesAccepted", "status": "True", "lastTransitionTime": moment, "reason": "NoConflicts",
             "message": "no conflicts found"},
            {"type": "Established", "status": "True", "lastTransitionTime": moment, "reason": "InitialNamesAccepted",
             "message": "the initial names have been accepted"},
        ]  # fmt: skip
        return {**body, "status": {**body["status"], "conditions": conditions, "acceptedNames": body["spec"]["names"]}}

    def admit(
        self, kind: Kind, body: Body, old: Body | None, validation: str, subresource: str
    ) -> tuple[Body, tuple[str, ...]]:  # fmt: skip
        """Prune, default and check a custom object on its way into the store.

        Raises:
            Refused: 400 for unknown fields when ``validation`` is Strict; 422 for what the schema or its rules forbid.
        """
        version = self._versions[kind.group, kind.version, kind.plural]
        if old is None and version.has_status:
            body.pop("status", None)
        body, dropped = prune(version.schema, body)
        unknown = [f'unknown field "{path}"' for path in dropped]
        if unknown and validation == "Strict":
            raise cannot_be_handled(kind, f"strict decoding error: {', '.join(unknown)}")
        if old is not None:
            # Parts of it are the stored object's, and defaults are filled in in place.
            body = json.loads(json.dumps(body))
        default(version.schema, body)
        if old is None:
            body["metadata"]["generation"] = 1
        problems = metadata_faults(body["metadata"], kind.plural, built_in=False)
        wrong = _status_faults(version.schema, body) if subresource == "status" else faults(version.schema, body)
        if old is not None:
            wrong = [each for each in wrong if not _unchanged(each, body, old)]
        problems += wrong
        if version.scale is not None and subresource != "status":
            problems += scale_faults(body, version.scale)
        problems += [UNCHECKED] if block_rules(wrong) else rule_faults(version.schema, body, old)
        if problems:
            raise invalid_object(kind.group, kind.kind, body["metadata"].get("name") or "", problems)
        return body, tuple(unknown) if validation == "Warn" else ()


def _kind(spec: Body, version: Body, definition: str) -> Kind:
    names = spec["names"]
    subresources = version.get("subresources") or {}
    return Kind(
        spec["group"], version["name"], names["kind"], names["plural"], spec["scope"] == "Namespaced",
        names.get("singular") or names["kind"].lower(), tuple(names.get("shortNames") or ()),
        tuple(names.get("categories") or ()), tuple(subresources), definition,
    )  # fmt: skip


def _definition_faults(body: Body, spec: Body) -> list[Fault]:
    found: list[Fault] = []
    names = spec.get("names") or {}
    for path, value in (("spec.group", spec.get("group")), ("spec.scope", spec.get("scope")),
                        ("spec.names.plural", names.get("plural")), ("spec.names.kind", names.get("kind")),
                        ("spec.versions", spec.get("versions"))):  # fmt: skip
        if not value:
            found.append(required(path))
    if found:
        return found
    expected = f"{names['plural']}.{spec['group']}"
    if body["metadata"].get("name") != expected:
        found.append(invalid("metadata.name", body["metadata"].get("name"), 'must be spec.names.plural+"."+spec.group'))
    if sum(bool(version.get("storage")) for version in spec["versions"]) != 1:
        found.append(invalid("spec.versions", spec["versions"], "must have exactly one version marked as storage version"))
    for at, version in enumerate(spec["versions"]):
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        path = f"spec.versions[{at}].schema.openAPIV3Schema"
        if not schema:
            found.append(required(path))
        else:
            found += _schema_faults(schema, "spec.validation.openAPIV3Schema" if len(spec["versions"]) == 1 else path)
    return found


def _schema_faults(schema: Schema, at: str, *, root: bool = True) -> list[Fault]:
    """What makes a schema not structural, its rules unreadable, or its defaults invalid."""
    found: list[Fault] = []
    free = schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields")
    if not schema.get("type") and not free:
        where = "at the root" if root else "for specified array items" if at.endswith(".items") else "for specified object fields"
        found.append(required(f"{at}.type", f"must not be empty {where}"))
    for index, rule in enumerate(schema.get("x-kubernetes-validations") or ()):
        problem = unreadable(str(rule.get("rule")))
        if problem:
            found.append(invalid(f"{at}.x-kubernetes-validations[{index}].rule", _as_go(rule), problem))
        path = str(rule.get("fieldPath", ""))
        if path and not _is_declared(schema, path):
            found.append(invalid(f"{at}.x-kubernetes-validations[{index}].fieldPath", path, "must be a valid path"))
    if "default" in schema and not found:
        # The default as it stands: what is inside it is not filled in before it is checked.
        value = schema["default"]
        found += [*faults(schema, value, f"{at}.default"), *value_faults(schema, value, f"{at}.default")]
    for name, inner in (schema.get("properties") or {}).items():
        if not (root and name == "metadata"):
            found += _schema_faults(inner, f"{at}.properties[{name}]", root=False)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            found += _schema_faults(schema[key], f"{at}.{key}", root=False)
    return found


def _as_go(rule: Mapping[str, Any]) -> Body:
    return {"Rule": rule.get("rule", ""), "Message": rule.get("message", ""),
            "MessageExpression": rule.get("messageExpression", ""), "Reason": rule.get("reason"),
            "FieldPath": rule.get("fieldPath", ""), "OptionalOldSelf": rule.get("optionalOldSelf")}  # fmt: skip


def _is_declared(schema: Schema, path: str) -> bool:
    for name in path.strip(".").split("."):
        properties = schema.get("properties") or {}
        if name not in properties:
            return False
        schema = properties[name]
    return True


def _status_faults(schema: Schema, body: Body) -> list[Fault]:
    """What is wrong with the status alone; messages name fields from there on."""
    inner = (schema.get("properties") or {}).get("status")
    if inner is None or "status" not in body:
        return []
    return [
        Fault(each.field, each.reason, each.message.replace(f"{each.field} in body", f"{each.field[7:]} in body"))
        for each in faults(inner, body["status"], "status")
    ]


def _unchanged(problem: Fault, body: Body, old: Body) -> bool:
    """Ratcheting: what was wrong before and did not change does not stand in the way of an update."""
    path = problem.field.replace("[", ".[").split(".")
    if problem.reason == "FieldValueRequired":
        path = path[:-1]
    was: Any = old
    is_now: Any = body
    for step in filter(None, path):
        key: Any = int(step[1:-1]) if step.startswith("[") else step
        try:
            was, is_now = was[key], is_now[key]
        except (KeyError, IndexError, TypeError):
            return False
    return bool(was == is_now)
