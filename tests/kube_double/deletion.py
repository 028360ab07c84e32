"""DELETE: preconditions, grace, finalizers, propagation; one object or a collection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from kube_double.clock import written
from kube_double.definitions import FINALIZER as DEFINITION
from kube_double.kinds import Kind
from kube_double.refused import Body, Fault, Refused, bad_request, conflict, invalid, invalid_object, unsupported
from kube_double.registry import Registry
from kube_double.store import Entry

ORPHAN, FOREGROUND = "orphan", "foregroundDeletion"
_POLICIES = ("Foreground", "Background", "Orphan")
_ANSWERED_WITH_OBJECT = frozenset({"pods", "serviceaccounts"})


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """What a DELETE says of itself."""

    policy: str = ""
    """Background, Foreground or Orphan; empty for the kind's own default, which for Jobs is Orphan."""
    grace_seconds: int | None = None
    uid: str = ""
    version: str = ""
    dry_run: bool = False

    @classmethod
    def of(cls, query: Callable[[str], str], body: Body | None) -> DeleteOptions:
        """From the body, or from the query where the body says nothing.

        Raises:
            Refused: They make no sense.
        """
        body = body or {}
        policy = body.get("propagationPolicy") or query("propagationPolicy")
        if policy and policy not in _POLICIES:
            raise _wrong(unsupported("propagationPolicy", policy, (*_POLICIES, "nil")))
        orphans = body.get("orphanDependents", {"true": True, "false": False}.get(query("orphanDependents")))
        if orphans is not None:
            if policy:
                both = "orphanDependents and deletionPropagation cannot be both set"
                raise _wrong(invalid("propagationPolicy", policy, both))
            policy = "Orphan" if orphans else "Background"
        grace = body.get("gracePeriodSeconds", query("gracePeriodSeconds") or None)
        try:
            seconds = None if grace is None else int(grace)
        except ValueError:
            raise bad_request(f'invalid gracePeriodSeconds: "{grace}"') from None
        preconditions = body.get("preconditions") or {}
        dry_run = body.get("dryRun") or query("dryRun")
        return cls(policy, seconds, preconditions.get("uid") or "", preconditions.get("resourceVersion") or "", bool(dry_run))


def _wrong(problem: Fault) -> Refused:
    return invalid_object("meta.k8s.io", "DeleteOptions", "", [problem])


def delete(registry: Registry, kind: Kind, namespace: str, name: str, options: DeleteOptions) -> Body:
    """Delete an object, or mark it as going when finalizers or a grace period hold it; what is answered.

    Raises:
        Refused: As Kubernetes does.
    """
    with registry.store.lock:
        entry = registry.entry(kind, namespace, name)
        _check(kind, entry, options)
        metadata = dict(entry.body["metadata"])
        metadata["finalizers"] = _finalizers(kind, metadata.get("finalizers") or [], options.policy)
        if kind.plural == "customresourcedefinitions" and DEFINITION not in metadata["finalizers"]:
            metadata["finalizers"].append(DEFINITION)
        grace = _grace(kind, entry.body, options.grace_seconds)
        body = {**entry.body, "metadata": metadata}
        held = bool(metadata["finalizers"]) or grace > 0 or _held_as_namespace(kind, entry)
        if not metadata["finalizers"]:
            del metadata["finalizers"]
        if not held:
            if kind.plural == "pods" and "deletionTimestamp" in metadata:
                metadata["deletionGracePeriodSeconds"] = 0
            last = body if options.dry_run else registry.store.remove(kind.collection, entry.key, body).body
            return last if kind.plural in _ANSWERED_WITH_OBJECT else _success(kind, entry)
        going = _going(kind, body, grace)
        if options.dry_run or going == entry.body:
            return going
        return registry.store.put(kind.collection, entry.key, going).body


def _check(kind: Kind, entry: Entry, options: DeleteOptions) -> None:
    metadata = entry.body["metadata"]
    for given, key, what, perhaps in (
        (options.uid, "uid", "UID", "deleted and then recreated"),
        (options.version, "resourceVersion", "ResourceVersion", "modified"),
    ):
        if given and given != metadata[key]:
            why = (f"the {what} in the precondition ({given}) does not match the {what} in record ({metadata[key]})."
                   f" The object might have been {perhaps}")  # fmt: skip
            raise conflict(kind.group, kind.kind, metadata["name"], why)


def _finalizers(kind: Kind, finalizers: list[str], policy: str) -> list[str]:
    policy = policy or ("Orphan" if kind.plural == "jobs" else "")
    wanted = {"Orphan": ORPHAN, "Foreground": FOREGROUND}.get(policy)
    if policy:
        finalizers = [each for each in finalizers if each not in (ORPHAN, FOREGROUND) or each == wanted]
    return [*finalizers] if wanted is None or wanted in finalizers else [*finalizers, wanted]


def _grace(kind: Kind, body: Body, asked: int | None) -> int:
    if kind.plural != "pods":
        return 0
    spec, phase = body["spec"], body.get("status", {}).get("phase")
    grace = int(spec.get("terminationGracePeriodSeconds", 30)) if asked is None else asked
    if not spec.get("nodeName") or phase in ("Succeeded", "Failed"):
        return 0
    running = body["metadata"].get("deletionGracePeriodSeconds")
    return max(grace, 0) if running is None else min(max(grace, 0), running)


def _held_as_namespace(kind: Kind, entry: Entry) -> bool:
    return kind.plural == "namespaces" and bool(entry.body["spec"].get("finalizers"))


def _going(kind: Kind, body: Body, grace: int) -> Body:
    metadata: Body = body["metadata"]
    before = metadata.get("deletionGracePeriodSeconds")
    if "deletionTimestamp" not in metadata or (before is not None and grace < before):
        if "generation" in metadata and "deletionTimestamp" not in metadata:
            metadata["generation"] += 1
        metadata["deletionTimestamp"] = written(datetime.now(UTC) + timedelta(seconds=grace))
        metadata["deletionGracePeriodSeconds"] = grace
    if kind.plural == "namespaces":
        return {**body, "status": {**body["status"], "phase": "Terminating"}}
    return body


def _success(kind: Kind, entry: Entry) -> Body:
    details: dict[str, Any] = {"name": entry.key[1]} | ({"group": kind.group} if kind.group else {})
    details |= {"kind": kind.plural, "uid": entry.body["metadata"]["uid"]}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def delete_collection(
    registry: Registry, kind: Kind, namespace: str | None, wanted: Callable[[Entry], bool] | None, options: DeleteOptions
) -> list[Entry]:
    """Delete all that ``wanted`` says; what was there."""
    with registry.store.lock:
        entries = registry.page(kind, namespace, wanted).entries
        for entry in entries:
            delete(registry, kind, *entry.key, options)
        return entries
