"""What a request does to the objects: create, get, list, update, patch. Deletion is in ``deletion.py``.

Every method holds the store's lock, so that a check and the write it guards are one step.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from kube_double import ownership
from kube_double.clock import now
from kube_double.decoding import cannot_be_handled, decoded, decoded_metadata
from kube_double.definitions import Definitions
from kube_double.kinds import Kind, Kinds
from kube_double.names import generated, metadata_faults
from kube_double.patches import json_patch, merge_patch, strategic_merge, with_api_version
from kube_double.refused import (
    Body,
    Fault,
    Refused,
    already_exists,
    bad_request,
    conflict,
    expired,
    forbidden,
    invalid,
    invalid_object,
    not_found,
    unsupported_media_type,
)
from kube_double.store import Entry, Key, Store, serialized
from kube_double.strategies import strategy_of, undecodable_secret

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
_SNAPSHOTS = 100


@dataclass(frozen=True, slots=True)
class Options:
    """What a write says of itself beside the object."""

    manager: str = "unknown"
    dry_run: bool = False
    force: bool = False
    validation: str = "Warn"
    """fieldValidation: Ignore, Warn or Strict."""


@dataclass(frozen=True, slots=True)
class Written:
    """The outcome of a write."""

    body: Body
    created: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """A list or a part of one."""

    entries: list[Entry]
    version: int
    token: str = ""
    remaining: int | None = None


@dataclass(slots=True)
class Registry:
    """Reads and writes of objects, as the API server carries them out."""

    store: Store
    kinds: Kinds
    definitions: Definitions
    _snapshots: dict[str, tuple[int, list[Entry]]] = field(default_factory=dict)

    # Reading

    def entry(self, kind: Kind, namespace: str, name: str) -> Entry:
        """The object as it is stored.

        Raises:
            Refused: 404.
        """
        found = self.store.get(kind.collection, (namespace, name))
        if found is None:
            raise not_found(kind.group, kind.plural, name)
        return found

    def page(
        self,
        kind: Kind,
        namespace: str | None,
        wanted: Callable[[Entry], bool] | None,
        limit: int = 0,
        token: str = "",
    ) -> Page:
        """Objects in key order, at most ``limit`` of them (0: all), going on where ``token`` says."""
        with self.store.lock:
            version = self.store.version
            if token:
                version, source = self._continued(token)
            else:
                source = list(self.store.collection(kind.collection).entries(namespace))
            if limit <= 0:
                return Page(source if wanted is None else [entry for entry in source if wanted(entry)], version)
            found: list[Entry] = []
            at = 0
            while at < len(source) and len(found) < limit:
                if wanted is None or wanted(source[at]):
                    found.append(source[at])
                at += 1
            rest = source[at:]
            if not rest:
                return Page(found, version)
            # Whether any of the rest is wanted is not looked at: the last page may be empty.
            return Page(found, version, self._keep(version, rest), len(rest) if wanted is None else None)

    def _keep(self, version: int, rest: list[Entry]) -> str:
        start = "/".join(rest[0].key).lstrip("/")
        token = base64.urlsafe_b64encode(serialized({"v": "meta.k8s.io/v1", "rv": version, "start": start, "id": str(uuid4())}))
        self._snapshots[token.decode()] = (version, rest)
        while len(self._snapshots) > _SNAPSHOTS:
            self._snapshots.pop(next(iter(self._snapshots)))
        return token.decode()

    def _continued(self, token: str) -> tuple[int, list[Entry]]:
        try:
            json.loads(base64.urlsafe_b64decode(token))
        except ValueError:
            raise bad_request("invalid continue token: continue key is not valid: illegal base64 data at input byte 0") from None
        kept = self._snapshots.get(token)
        if kept is None:
            raise expired("The provided continue parameter is too old to display a consistent list result. You can start a new"
                          " list without the continue parameter, or use the continue token in this response to retrieve the"
                          " remainder of the results. Continuing with the provided token results in an inconsistent list -"
                          " objects that were created, modified, or deleted between the time the first chunk was returned and"
                          " now may show up in the list.")  # fmt: skip
        return kept

    def forget(self) -> None:
        """Compact: old versions can neither be watched from nor be listed on."""
        self.store.forget()
        self._snapshots.clear()

    # Writing

    def create(self, kind: Kind, namespace: str, body: Body, options: Options = Options()) -> Written:
        """POST.

        Raises:
            Refused: As Kubernetes does.
        """
        with self.store.lock:
            body, unknown = self._decode(kind, body, options.validation)
            metadata = self._metadata_of(kind, namespace, body)
            self._check_namespace(kind, namespace, metadata.get("name") or metadata.get("generateName") or "")
            if not metadata.get("name") and metadata.get("generateName"):
                metadata["name"] = generated(metadata["generateName"])
            for key in ("uid", "resourceVersion", "creationTimestamp", "generation", "deletionTimestamp", "selfLink",
                        "deletionGracePeriodSeconds", "managedFields"):  # fmt: skip
                metadata.pop(key, None)
            metadata |= {"uid": str(uuid4()), "creationTimestamp": now()}
            body["metadata"] = metadata
            body, warnings = self._admit(kind, body, None, options, unknown)
            place = (namespace, str(metadata["name"]))
            existing = self.store.get(kind.collection, place)
            if existing is not None:
                raise already_exists(kind.group, kind.plural, place[1], going="deletionTimestamp" in existing.body["metadata"])
            body = ownership.written(self._shape(kind), None, body, options.manager)
            if options.dry_run:
                return Written(body, created=True, warnings=warnings)
            return self._stored(kind, place, body, warnings)

    def _stored(self, kind: Kind, key: Key, body: Body, warnings: tuple[str, ...]) -> Written:
        """Put a new object into the store, and do what a controller would do about it at once."""
        entry = self.store.put(kind.collection, key, body)
        if kind.plural == "customresourcedefinitions":
            self.store.put(kind.collection, key, self.definitions.established(entry.body))
        elif kind.plural == "namespaces":
            self.create(self.kinds.named("serviceaccounts"), key[1], {"metadata": {"name": "default"}})
        return Written(entry.body, created=True, warnings=warnings)

    def update(
        self, kind: Kind, namespace: str, name: str, body: Body, options: Options = Options(), subresource: str = ""
    ) -> Written:  # fmt: skip
        """PUT; to the object itself, or to its status.

        Raises:
            Refused: As Kubernetes does.
        """
        with self.store.lock:
            body, unknown = self._decode(kind, body, options.validation)
            metadata = self._metadata_of(kind, namespace, body)
            if metadata.get("name") != name:
                raise _wrong_name(metadata.get("name") or "", name)
            entry = self.entry(kind, namespace, name)
            if not metadata.get("resourceVersion") and (kind.custom or not strategy_of(kind.plural).unconditional):
                raise invalid_object(kind.group, kind.plural, name, [_unconditional()])
            return self._replace(kind, entry, body, options, subresource, unknown)

    def patch(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        content_type: str,
        patch: Any,
        options: Options = Options(),
        subresource: str = "",
    ) -> Written:
        """PATCH in any of the four formats.

        Raises:
            Refused: As Kubernetes does.
        """
        with self.store.lock:
            accepted = [JSON_PATCH, MERGE_PATCH, *([] if kind.custom else [STRATEGIC_PATCH]), APPLY_PATCH]
            if content_type == STRATEGIC_PATCH and kind.custom:
                raise unsupported_media_type(accepted)
            if content_type not in accepted:
                raise Refused(415, "UnsupportedMediaType", "415: Unsupported Media Type", {})
            if content_type == APPLY_PATCH:
                return self._apply(kind, namespace, name, patch, options, subresource)
            entry = self.entry(kind, namespace, name)
            current = entry.copy(kind.api_version)
            match content_type:
                case "application/json-patch+json":
                    new = json_patch(current, patch)
                case "application/merge-patch+json":
                    new = merge_patch(current, patch)
                case _:
                    new = strategic_merge(current, patch)
            new, unknown = self._decode(kind, new, options.validation)
            metadata = self._metadata_of(kind, namespace, new)
            if metadata.get("name") != name:
                raise _wrong_name(metadata.get("name") or "", name)
            uid = metadata.get("uid")
            if uid and uid != entry.body["metadata"]["uid"]:
                raise invalid_object(kind.group, kind.kind, name, [invalid("metadata.uid", uid, "field is immutable")])
            return self._replace(kind, entry, new, options, subresource, unknown)

    def _apply(self, kind: Kind, namespace: str, name: str, config: Any, options: Options, subresource: str) -> Written:
        if not isinstance(config, dict):
            raise bad_request("error decoding YAML: an object is expected")
        if "apiVersion" not in config or "kind" not in config:
            group, _, version = str(config.get("apiVersion", "")).rpartition("/")
            raise bad_request(f"invalid object type: {group}/{version}, Kind={config.get('kind', '')}")
        config, unknown = self._decode(kind, config, options.validation)
        metadata = self._metadata_of(kind, namespace, config)
        if metadata.get("name", name) != name:
            raise _wrong_name(metadata["name"], name)
        if metadata.get("managedFields"):
            raise bad_request("metadata.managedFields must be nil")
        config["metadata"] = {**metadata, "name": name}
        entry = self.store.get(kind.collection, (namespace, name))
        if entry is None:
            if subresource:
                raise not_found(kind.group, kind.plural, name)
            return self._create_by_apply(kind, namespace, config, options, unknown)
        current = entry.copy(kind.api_version)
        if metadata.get("uid") and metadata["uid"] != current["metadata"]["uid"]:
            raise conflict(kind.group, kind.plural, name, "uid mismatch: the provided object specified uid"
                           f" {metadata['uid']}, and no existing object was found")  # fmt: skip
        for part in [part for part in config if kind.has("status") and (part == "status") is not (subresource == "status")]:
            if part not in ("apiVersion", "kind", "metadata"):
                del config[part]
        new = ownership.applied(self._shape(kind), current, config, options.manager, subresource, force=options.force)
        return self._replace(kind, entry, new, options, subresource, unknown, applied=True)

    def _create_by_apply(
        self, kind: Kind, namespace: str, config: Body, options: Options, unknown: Sequence[str]
    ) -> Written:  # fmt: skip
        applied_config = json.loads(json.dumps(config))
        self._check_namespace(kind, namespace, config["metadata"]["name"])
        if config["metadata"].get("uid"):
            raise conflict(kind.group, kind.plural, config["metadata"]["name"], "uid mismatch: the provided object specified uid"
                           f" {config['metadata']['uid']}, and no existing object was found")  # fmt: skip
        body = json.loads(json.dumps(config))
        for name in ("resourceVersion", "creationTimestamp", "generation"):
            body["metadata"].pop(name, None)
        body["metadata"] |= {"uid": str(uuid4()), "creationTimestamp": now()}
        body, warnings = self._admit(kind, body, None, options, unknown)
        body = ownership.owned_by_apply(self._shape(kind), body, applied_config, options.manager)
        if options.dry_run:
            return Written(body, created=True, warnings=warnings)
        return self._stored(kind, (namespace, body["metadata"]["name"]), body, warnings)

    def _replace(
        self, kind: Kind, entry: Entry, body: Body, options: Options, subresource: str, unknown: Sequence[str], *,
        applied: bool = False,
    ) -> Written:  # fmt: skip
        """Make ``body`` the object's next version, unless it changes nothing."""
        old = with_api_version(entry.body, kind.api_version)
        self._check_preconditions(kind, old, body)
        self._check_finalizers(kind, old, body)
        body = self._of_endpoint(kind, old, body, subresource)
        body, warnings = self._admit(kind, body, old, options, unknown, subresource)
        self._set_generation(kind, old, body)
        if not applied:
            body = ownership.written(self._shape(kind), old, body, options.manager, subresource)
        if not body["metadata"].get("finalizers") and _only_finalizers_held(old["metadata"]):
            return self._let_go(kind, entry, body, options, warnings)
        if _same(old, body, with_ownership=applied) or options.dry_run:
            return Written(old if _same(old, body, with_ownership=applied) else body, warnings=warnings)
        return Written(self.store.put(kind.collection, entry.key, body).body, warnings=warnings)

    def _let_go(self, kind: Kind, entry: Entry, body: Body, options: Options, warnings: tuple[str, ...]) -> Written:
        if options.dry_run:
            return Written(body, warnings=warnings)
        return Written(self.store.remove(kind.collection, entry.key, body).body, warnings=warnings)

    def _check_preconditions(self, kind: Kind, old: Body, body: Body) -> None:
        was, wanted = old["metadata"], body["metadata"]
        if wanted.get("uid") and wanted["uid"] != was["uid"]:
            why = f"Precondition failed: UID in precondition: {wanted['uid']}, UID in object meta: {was['uid']}"
            if not kind.custom:
                where = f"/registry/{kind.plural}/{'/'.join(filter(None, (was.get('namespace'), was['name'])))}"
                why = f"StorageError: invalid object, Code: 4, Key: {where}, ResourceVersion: 0, AdditionalErrorMsg: {why}"
            raise conflict(kind.group, kind.plural, was["name"], why)
        version = wanted.get("resourceVersion")
        if version and version != was["resourceVersion"]:
            raise conflict(kind.group, kind.plural, was["name"])

    def _check_finalizers(self, kind: Kind, old: Body, body: Body) -> None:
        if "deletionTimestamp" not in old["metadata"]:
            return
        new = [each for each in body["metadata"].get("finalizers") or () if each not in (old["metadata"].get("finalizers") or ())]
        if new:
            told = ", ".join(f'"{each}"' for each in new)
            why = f"no new finalizers can be added if the object is being deleted, found new finalizers []string{{{told}}}"
            raise invalid_object(kind.group, kind.kind, old["metadata"]["name"], [forbidden("metadata.finalizers", why)])

    def _of_endpoint(self, kind: Kind, old: Body, body: Body, subresource: str) -> Body:
        """What this endpoint may change, on top of what it may not."""
        metadata = body["metadata"]
        for key in ("name", "namespace", "uid", "creationTimestamp", "resourceVersion", "generation", "deletionTimestamp",
                    "deletionGracePeriodSeconds", "generateName"):  # fmt: skip
            metadata.pop(key, None)
            if key in old["metadata"]:
                metadata[key] = old["metadata"][key]
        if subresource == "status":
            if kind.custom:
                metadata = {**old["metadata"], "managedFields": metadata.get("managedFields")}
            new = {**old, "metadata": metadata}
            new.pop("status", None)
            return new | ({"status": body["status"]} if body.get("status") is not None else {})
        if kind.has("status") and subresource != "scale":
            body.pop("status", None)
            if "status" in old:
                body["status"] = old["status"]
        body["metadata"] = metadata
        return body

    def _admit(
        self, kind: Kind, body: Body, old: Body | None, options: Options, unknown: Sequence[str], subresource: str = ""
    ) -> tuple[Body, tuple[str, ...]]:  # fmt: skip
        """Default, prune and check an object on its way into the store."""
        _normalize(body["metadata"])
        if kind.custom:
            return self.definitions.admit(kind, body, old, options.validation, subresource)
        strategy = strategy_of(kind.plural)
        name = body["metadata"].get("name") or ""
        if old is None and kind.has("status") and not strategy.status_at_creation:
            body.pop("status", None)
        if kind.plural == "secrets" and (problem := undecodable_secret(body)):
            raise bad_request(f'Secret in version "v1" cannot be handled as a Secret: {problem}')
        # Before defaults: a Job gets its template's labels, whose faults are told as the template's.
        faults = metadata_faults(body["metadata"], kind.plural, built_in=kind.group != "apiextensions.k8s.io")
        if old is None:
            strategy.default_new(body)
            if strategy.generation:
                body["metadata"]["generation"] = 1
        if subresource != "status":
            strategy.default(body)
        faults += strategy.faults(body)
        if old is not None and subresource != "status":
            faults += strategy.update_faults(body, old)
        if kind.plural == "customresourcedefinitions":
            faults += self.definitions.prepare(body, old)
        if faults:
            raise invalid_object(kind.group, kind.kind, name, faults)
        if kind.has("status"):
            body.setdefault("status", {})
        return body, tuple(unknown)

    def _set_generation(self, kind: Kind, old: Body, body: Body) -> None:
        if not (kind.custom or strategy_of(kind.plural).generation):
            return
        parts = {*old, *body} - {"metadata", "apiVersion", "kind"}
        if kind.has("status") or not kind.custom:
            parts.discard("status")
        if any(old.get(part) != body.get(part) for part in parts):
            body["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1

    def _shape(self, kind: Kind) -> ownership.Shape:
        return self.definitions.shape(kind) if kind.custom else ownership.BUILT_IN

    def _decode(self, kind: Kind, body: Any, validation: str) -> tuple[Body, tuple[str, ...]]:
        """The object as its kind has it, and what to warn of."""
        if not isinstance(body, dict):
            raise bad_request(f"the object provided is unrecognized (must be of type {kind.kind}): couldn't get version/kind;"
                              " json parse error: json: cannot unmarshal into an object")  # fmt: skip
        body = {"apiVersion": kind.api_version, "kind": kind.kind} | body
        if (body["apiVersion"], body["kind"]) != (kind.api_version, kind.kind):
            raise self._wrong_type(kind, body)
        if kind.custom:
            body["metadata"] = decoded_metadata(kind, body.get("metadata"))
            return body, ()
        body, unknown = decoded(kind, body)
        if unknown and validation == "Strict":
            raise cannot_be_handled(kind, f"strict decoding error: {', '.join(unknown)}")
        return body, tuple(unknown) if validation == "Warn" else ()

    def _wrong_type(self, kind: Kind, body: Body) -> Refused:
        said, version = body["kind"], body["apiVersion"]
        if any((each.api_version, each.kind) == (version, said) for each in self.kinds) or kind.custom:
            if version != kind.api_version:
                return bad_request(f"the API version in the data ({version}) does not match the expected API version"
                                   f" ({kind.api_version})")  # fmt: skip
            return bad_request(f'{said} in version "{kind.version}" cannot be handled as a {kind.kind}')
        short = str(version).rpartition("/")[2]
        return bad_request(f'{said} in version "{short}" cannot be handled as a {kind.kind}: no kind "{said}" is registered for'
                           f' version "{version}" in scheme "pkg/api/legacyscheme/scheme.go:30"')  # fmt: skip

    def _metadata_of(self, kind: Kind, namespace: str, body: Body) -> Body:
        metadata = body.setdefault("metadata", {})
        if kind.namespaced:
            if metadata.get("namespace") not in (None, "", namespace):
                raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
            metadata["namespace"] = namespace
        else:
            metadata.pop("namespace", None)
        found: Body = metadata
        return found

    def _check_namespace(self, kind: Kind, namespace: str, name: str) -> None:
        if not kind.namespaced:
            return
        entry = self.store.get(("", "namespaces"), ("", namespace))
        if entry is None:
            raise not_found("", "namespaces", namespace)
        if "deletionTimestamp" in entry.body["metadata"]:
            what = f"{kind.plural}.{kind.group}" if kind.group else kind.plural
            message = f"namespace {namespace} is being terminated"
            causes = [{"reason": "NamespaceTerminating", "message": message, "field": "metadata.namespace"}]
            details = {"name": name, "group": kind.group, "kind": kind.plural, "causes": causes}
            raise Refused(403, "Forbidden", f'{what} "{name}" is forbidden: unable to create new content in namespace'
                          f" {namespace} because it is being terminated", details)  # fmt: skip


def _wrong_name(said: str, asked: str) -> Refused:
    if not said:
        return bad_request(f"the name of the object ({asked} based on URL) was undeterminable: name must be provided")
    return bad_request(f"the name of the object ({said}) does not match the name on the URL ({asked})")


def _unconditional() -> Fault:
    return Fault("metadata.resourceVersion", "FieldValueInvalid", "Invalid value: 0: must be specified for an update")


def _normalize(metadata: Body) -> None:
    """Empty and null metadata is not kept."""
    for key in [key for key, value in metadata.items() if value in (None, "", [], {})]:
        del metadata[key]


def _only_finalizers_held(metadata: Body) -> bool:
    """Whether the object was going and only its finalizers kept it."""
    return "deletionTimestamp" in metadata and bool(metadata.get("finalizers")) and not metadata.get("deletionGracePeriodSeconds")


def _same(old: Body, new: Body, *, with_ownership: bool) -> bool:
    """Whether a write changes nothing but, perhaps, the time at which somebody owned a field."""
    if {**old, "metadata": 0} != {**new, "metadata": 0}:
        return False
    was, now_ = ({key: value for key, value in body["metadata"].items() if key not in ("managedFields", "resourceVersion")}
                 for body in (old, new))  # fmt: skip
    if was != now_:
        return False
    return not with_ownership or ownership.same(old, new)
