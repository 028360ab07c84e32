"""What a request does to the objects: create, get, list, update, patch, apply, delete.

Every method holds the store's lock, so that a check and the write it guards are one step.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from kube_double import builtin
from kube_double.apply import Owners, applied, fields, managed_fields, written
from kube_double.definitions import FINALIZER, Definitions, established
from kube_double.errors import (
    Body,
    Fault,
    Refused,
    already_exists,
    bad_request,
    conflict,
    expired,
    invalid_object,
    not_found,
)
from kube_double.kinds import Kind, Kinds
from kube_double.patches import merge_patch
from kube_double.store import Entry, Key, Store, now

MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
ORPHAN = "orphan"
_OF_THE_SERVER = ("uid", "resourceVersion", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds",
                  "managedFields")  # fmt: skip
_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"
_PAGES = 100


@dataclass(frozen=True, slots=True)
class Options:
    """What a write says of itself beside the object."""

    manager: str = "unknown"
    dry_run: bool = False
    force: bool = False
    strict: bool = False
    """fieldValidation=Strict."""


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    policy: str = ""
    """Background or Orphan; empty for the kind's own default, which for Jobs is Orphan."""
    grace_seconds: int | None = None
    uid: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    entries: list[Entry]
    version: int
    token: str = ""


@dataclass(slots=True)
class Registry:
    """Reads and writes of objects, as the API server carries them out."""

    store: Store
    kinds: Kinds
    definitions: Definitions
    _pages: dict[str, tuple[int, list[Entry]]] = field(default_factory=dict)
    _owners: dict[str, Owners] = field(default_factory=dict)
    """Who wrote which fields of an object, by its uid."""
    webhooks: list[tuple[str, Callable[[Body], object]]] = field(default_factory=list)
    """Change what is created of a kind (its plural), as mutating webhooks do."""

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
        self, kind: Kind, namespace: str | None, wanted: Callable[[Body], bool] | None, limit: int = 0, token: str = ""
    ) -> Page:  # fmt: skip
        """Objects in key order, at most ``limit`` of them (0: all), going on where ``token`` says; all pages show one moment."""
        with self.store.lock:
            if token and token not in self._pages:
                raise expired("The provided continue parameter is too old to display a consistent list result.")
            version, found = self._pages.get(token) or (
                self.store.version,
                self.store.collection(kind.collection).entries(namespace),
            )
            if wanted is not None:
                found = [entry for entry in found if wanted(entry.body)]
            if not limit or len(found) <= limit:
                return Page(found, version)
            following = uuid4().hex
            self._pages[following] = version, found[limit:]
            while len(self._pages) > _PAGES:
                self._pages.pop(next(iter(self._pages)))
            return Page(found[:limit], version, following)

    def forget(self) -> None:
        """Compact: old versions can neither be watched from nor be listed on."""
        self.store.forget()
        self._pages.clear()

    # Writing

    def create(
        self, kind: Kind, namespace: str, body: Any, options: Options = Options(), owners: Owners | None = None
    ) -> Body:  # fmt: skip
        """POST.

        Raises:
            Refused: As Kubernetes does.
        """
        with self.store.lock:
            body = self._decoded(kind, namespace, body, options)
            metadata = body["metadata"]
            self._check_namespace(kind, namespace, metadata.get("name") or metadata.get("generateName") or "")
            if not metadata.get("name") and metadata.get("generateName"):
                metadata["name"] = metadata["generateName"][:58] + "".join(random.choices(_SUFFIX, k=5))
            for each in _OF_THE_SERVER:
                metadata.pop(each, None)
            metadata |= {"uid": str(uuid4()), "creationTimestamp": now()}
            if builtin.has_generation(kind):
                metadata["generation"] = 1
            for plural, change in self.webhooks:
                if plural == kind.plural:
                    change(body)
            made = self._admitted(kind, body, None, options)
            key = (namespace, str(made["metadata"].get("name")))
            existing = self.store.get(kind.collection, key)
            if existing is not None:
                raise already_exists(kind.group, kind.plural, key[1], going="deletionTimestamp" in existing.body["metadata"])
            if options.dry_run:
                return made
            stored = self._put(kind, key, made, owners or written({}, made, options.manager, {}))
            if kind.plural == "namespaces":
                self.create(self.kinds.named("serviceaccounts"), key[1], {"metadata": {"name": "default"}})
            return stored

    def _put(self, kind: Kind, key: Key, body: Body, owners: Owners) -> Body:
        """Write ``body`` as the object's next version; of whom its fields are then."""
        self._owners[body["metadata"]["uid"]] = owners
        metadata = {**body["metadata"], "managedFields": managed_fields(owners, kind.api_version)}
        return self.store.put(kind.collection, key, {**body, "metadata": metadata}).body

    def update(
        self, kind: Kind, namespace: str, name: str, body: Any, options: Options = Options(), subresource: str = ""
    ) -> Body:  # fmt: skip
        """PUT; to the object itself, or to its status.

        Raises:
            Refused: As Kubernetes does.
        """
        with self.store.lock:
            body = self._decoded(kind, namespace, body, options)
            entry = self.entry(kind, namespace, name)
            if not body["metadata"].get("resourceVersion") and builtin.needs_version(kind):
                fault = Fault(
                    "metadata.resourceVersion", "FieldValueInvalid", "Invalid value: 0: must be specified for an update"
                )
                raise invalid_object(kind.group, kind.plural, name, [fault])
            return self._replace(kind, entry, body, options, subresource)

    def patch(
        self, kind: Kind, namespace: str, name: str, content_type: str, patch: Any, options: Options = Options(),
        subresource: str = "",
    ) -> Body:  # fmt: skip
        """PATCH: a merge patch, or server-side apply.

        Raises:
            Refused: As Kubernetes does; 415 for the other formats, which nobody here uses.
        """
        with self.store.lock:
            if content_type == APPLY_PATCH:
                return self._apply(kind, namespace, name, patch, options)
            if content_type != MERGE_PATCH:
                raise Refused(415, "UnsupportedMediaType", f"accepted media types include: {MERGE_PATCH}, {APPLY_PATCH}")
            entry = self.entry(kind, namespace, name)
            new = self._decoded(kind, namespace, merge_patch(entry.copy(), patch), options)
            uid, wanted = entry.body["metadata"]["uid"], new["metadata"].get("uid")
            if subresource == "status" and kind.custom:
                new["metadata"]["uid"] = uid  # of which nothing is looked at
            elif wanted not in (None, uid):
                fault = Fault("metadata.uid", "FieldValueInvalid", f'Invalid value: "{wanted}": field is immutable')
                raise invalid_object(kind.group, kind.kind, name, [fault])
            return self._replace(kind, entry, new, options, subresource)

    def _apply(self, kind: Kind, namespace: str, name: str, config: Any, options: Options) -> Body:
        config = self._decoded(kind, namespace, config, options)
        entry = self.store.get(kind.collection, (namespace, name))
        if entry is None:
            owners: Owners = {(options.manager, "Apply"): frozenset(fields(config))}
            return self.create(kind, namespace, json.loads(json.dumps(config)), options, owners)
        known = self._owners[entry.body["metadata"]["uid"]]
        merged, owners = applied(entry.copy(), config, options.manager, known, force=options.force)
        return self._replace(kind, entry, merged, options, "", owners)

    def _replace(
        self, kind: Kind, entry: Entry, body: Body, options: Options, subresource: str, owners: Owners | None = None
    ) -> Body:  # fmt: skip
        """Make ``body`` the object's next version, unless it changes nothing."""
        old, name = entry.body, entry.body["metadata"]["name"]
        was, wanted = old["metadata"], body["metadata"]
        if wanted.get("uid") not in (None, was["uid"]):
            raise conflict(kind.group, kind.plural, name, f"Precondition failed: UID in precondition: {wanted['uid']}")
        if wanted.get("resourceVersion") not in (None, was["resourceVersion"]):
            raise conflict(kind.group, kind.plural, name)
        new = self._of_endpoint(kind, old, body, subresource)
        new = self._admitted(kind, json.loads(json.dumps(new)), old, options, subresource)
        parts = (old.keys() | new.keys()) - {"metadata", "status"}
        if builtin.has_generation(kind) and any(old.get(part) != new.get(part) for part in parts):
            new["metadata"]["generation"] = was.get("generation", 0) + 1
        if was.get("finalizers") and not new["metadata"].get("finalizers") and "deletionTimestamp" in was and (
            not was.get("deletionGracePeriodSeconds")
        ):  # fmt: skip
            return self._removed(kind, entry.key, new)
        known = self._owners[was["uid"]]
        if options.dry_run or (new == old and owners in (None, known)):
            return new
        return self._put(kind, entry.key, new, owners or written(old, new, options.manager, known))

    def _of_endpoint(self, kind: Kind, old: Body, body: Body, subresource: str) -> Body:
        """What this endpoint may change, on top of what it may not."""
        if subresource == "status":
            metadata = old["metadata"] if kind.custom else self._kept(old, body)
            new = {**old, "metadata": metadata, "status": body.get("status")}
        else:
            new = {**body, "metadata": self._kept(old, body)}
            if "status" in kind.subresources:
                new["status"] = old.get("status")
        if new.get("status") is None:
            new.pop("status", None)
        return new

    def _kept(self, old: Body, body: Body) -> Body:
        kept = {name: old["metadata"][name] for name in (*_OF_THE_SERVER, "name", "namespace") if name in old["metadata"]}
        return {name: each for name, each in body["metadata"].items() if name not in _OF_THE_SERVER} | kept

    def _admitted(self, kind: Kind, body: Body, old: Body | None, options: Options, subresource: str = "") -> Body:
        """Default and check an object on its way into the store."""
        body["metadata"] = {name: value for name, value in body["metadata"].items() if value not in (None, "", [], {})}
        if old is None and not kind.custom:
            if "status" in kind.subresources and kind.plural != "nodes":
                body.pop("status", None)
            builtin.default_new(kind, body)
            if kind.plural == "customresourcedefinitions":
                body["status"] = established()
        if found := builtin.faults(kind, body):
            raise invalid_object(kind.group, kind.kind, body["metadata"].get("name") or "", found)
        return self.definitions.admit(kind, body, old, subresource, strict=options.strict) if kind.custom else body

    def _decoded(self, kind: Kind, namespace: str, body: Any, options: Options) -> Body:
        if not isinstance(body, dict):
            raise bad_request("the object provided is unrecognized: couldn't get version/kind")
        decoded: Body = {"apiVersion": kind.api_version, "kind": kind.kind} | body
        if (decoded["apiVersion"], decoded["kind"]) != (kind.api_version, kind.kind):
            raise bad_request(f"{decoded['kind']} in version {decoded['apiVersion']} cannot be handled as a {kind.kind}")
        metadata = dict(decoded.get("metadata") or {})
        if metadata.pop("namespace", namespace) not in (None, "", namespace):
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
        decoded["metadata"] = metadata | ({"namespace": namespace} if kind.namespaced else {})
        if options.strict and not kind.custom:
            builtin.check_schema(kind, decoded)
        return decoded

    def _check_namespace(self, kind: Kind, namespace: str, name: str) -> None:
        if not kind.namespaced:
            return
        entry = self.store.get(("", "namespaces"), ("", namespace))
        if entry is None:
            raise not_found("", "namespaces", namespace)
        if "deletionTimestamp" in entry.body["metadata"]:
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            raise Refused(403, "Forbidden", f'{kind.plural} "{name}" is forbidden: {why}', name=name, kind=kind.plural)

    # Deleting

    def delete(self, kind: Kind, namespace: str, name: str, options: DeleteOptions) -> Body:
        """Delete an object, or mark it as going when finalizers or a grace period hold it; what is answered.

        Raises:
            Refused: As Kubernetes does; 422 for the policy Foreground, which nobody here uses.
        """
        if options.policy not in ("", "Background", "Orphan"):
            fault = Fault("propagationPolicy", "FieldValueNotSupported", f'Unsupported value: "{options.policy}"')
            raise invalid_object("meta.k8s.io", "DeleteOptions", "", [fault])
        with self.store.lock:
            entry = self.entry(kind, namespace, name)
            metadata = dict(entry.body["metadata"])
            for given, each in ((options.uid, "uid"), (options.version, "resourceVersion")):
                if given not in ("", metadata[each]):
                    why = f"the {each} in the precondition ({given}) does not match the {each} in record ({metadata[each]})"
                    raise conflict(kind.group, kind.kind, name, why)
            finalizers = list(metadata.get("finalizers") or ())
            if (options.policy or ("Orphan" if kind.plural == "jobs" else "")) == "Orphan":
                finalizers.append(ORPHAN)
            if kind.plural == "customresourcedefinitions":
                finalizers.append(FINALIZER)
            if finalizers:
                metadata["finalizers"] = list(dict.fromkeys(finalizers))
            grace = _grace(kind, entry.body, options.grace_seconds)
            body = {**entry.body, "metadata": metadata}
            if not finalizers and not grace and kind.plural != "namespaces":
                last = self._removed(kind, entry.key, body)
                details = {"name": name, "kind": kind.plural, "uid": metadata["uid"]}
                return (
                    last
                    if kind.plural == "pods"
                    else {"kind": "Status", "apiVersion": "v1", "status": "Success", "details": details}
                )
            if "deletionTimestamp" not in metadata or grace < metadata.get("deletionGracePeriodSeconds", 0):
                if "generation" in metadata and "deletionTimestamp" not in metadata:
                    metadata["generation"] += 1
                moment = datetime.now(UTC) + timedelta(seconds=grace)
                metadata |= {"deletionTimestamp": moment.strftime("%Y-%m-%dT%H:%M:%SZ"), "deletionGracePeriodSeconds": grace}
            if kind.plural == "namespaces":
                body["status"] = {"phase": "Terminating"}
            return entry.body if body == entry.body else self.store.put(kind.collection, entry.key, body).body

    def _removed(self, kind: Kind, key: Key, body: Body) -> Body:
        self._owners.pop(body["metadata"]["uid"], None)
        return self.store.remove(kind.collection, key, body).body


def _grace(kind: Kind, body: Body, asked: int | None) -> int:
    """For how long a pod may still run; a shorter grace than the one that runs counts, a longer one does not."""
    if kind.plural != "pods" or not body["spec"].get("nodeName") or body["status"].get("phase") in ("Succeeded", "Failed"):
        return 0
    grace = int(body["spec"]["terminationGracePeriodSeconds"]) if asked is None else asked
    return min(grace, int(body["metadata"].get("deletionGracePeriodSeconds", grace)))
