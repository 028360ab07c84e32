"""Built-in kinds on their way into the store: the defaults that controllers rely on, and what clients can get wrong.

What Kubernetes' own schemas forbid is checked for who asks for it (fieldValidation=Strict). Left out: what the real server
checks beyond them in the specs of pods; the tests of the operator's manifests run on a real one for that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import jsonschema
from kubernetes_validate.utils import latest_version, schema_contents
from referencing import Registry, Resource

from kube_double.errors import Body, Fault, bad_request, invalid, required
from kube_double.kinds import Kind

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_GENERATIONS = frozenset({"pods", "jobs", "cronjobs", "customresourcedefinitions"})
_CONDITIONAL = frozenset({"leases", "customresourcedefinitions"})


def has_generation(kind: Kind) -> bool:
    """Whether changes of the object's spec are counted."""
    return kind.custom or kind.plural in _GENERATIONS


def needs_version(kind: Kind) -> bool:
    """Whether PUT has to say which version it replaces."""
    return kind.custom or kind.plural in _CONDITIONAL


@cache
def _validator(kind: Kind) -> Any:
    version = latest_version()
    group = f"{kind.group.partition('.')[0]}-" if kind.group else ""
    folder = f"kubernetes-json-schema/v{version}-local-strict"
    schema = schema_contents(f"{folder}/{kind.kind.lower()}-{group}{kind.version}.json", version)
    definitions = Resource.from_contents(schema_contents(f"{folder}/_definitions.json", version))
    registry: Any = Resource.from_contents(schema) @ (definitions @ Registry())
    return jsonschema.Draft202012Validator(schema, registry=registry)


def check_schema(kind: Kind, body: Body) -> None:
    """Hold an object to Kubernetes' own schema, in which no unknown field is allowed.

    Raises:
        Refused: 400, with the first thing that is wrong.
    """
    for error in _validator(kind).iter_errors(body):
        raise bad_request(f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: strict decoding error:'
                          f" {error.json_path.removeprefix('$.')}: {error.message}")  # fmt: skip


def default_new(kind: Kind, body: Body) -> None:
    """Fill in, in place, what the API server does at an object's creation."""
    metadata, spec = body["metadata"], body.setdefault("spec", {}) if "status" in kind.subresources else {}
    match kind.plural:
        case "namespaces":
            spec["finalizers"] = ["kubernetes"]
            body["status"] = {"phase": "Active"}
            metadata.setdefault("labels", {})["kubernetes.io/metadata.name"] = metadata.get("name", "")
        case "pods":
            _default_pod(spec)
            body["status"] = {"phase": "Pending"}
        case "jobs":
            if "completions" not in spec and "parallelism" not in spec:
                spec["completions"] = 1
            for key, number in (("parallelism", 1), ("backoffLimit", 6), ("suspend", False)):
                spec.setdefault(key, number)
            uid = metadata["uid"]
            spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
            template = spec.setdefault("template", {})
            labels = template.setdefault("metadata", {}).setdefault("labels", {})
            for prefix in ("", "batch.kubernetes.io/"):
                labels |= {f"{prefix}controller-uid": uid, f"{prefix}job-name": metadata.get("name", "")}
            metadata.setdefault("labels", dict(labels))
            _default_pod(template.setdefault("spec", {}))
        case "cronjobs":
            for name, value in (("concurrencyPolicy", "Allow"), ("suspend", False), ("successfulJobsHistoryLimit", 3),
                                ("failedJobsHistoryLimit", 1)):  # fmt: skip
                spec.setdefault(name, value)
        case "secrets":
            body.setdefault("type", "Opaque")


def _default_pod(spec: Body) -> None:
    for name, value in (("restartPolicy", "Always"), ("terminationGracePeriodSeconds", 30), ("dnsPolicy", "ClusterFirst")):
        spec.setdefault(name, value)
    for container in spec.get("containers") or ():
        container.setdefault("terminationMessagePolicy", "File")
        container.setdefault("imagePullPolicy", "IfNotPresent")


def faults(kind: Kind, body: Body) -> list[Fault]:
    """What is wrong with an object: its name, its labels; of a Job what no pod could be made from."""
    metadata, found = body["metadata"], list[Fault]()
    name = metadata.get("name") or ""
    longest = {"cronjobs": 52, "namespaces": 63}.get(kind.plural, 253)
    if not name:
        found.append(required("metadata.name", "name or generateName is required"))
    elif not _SUBDOMAIN.fullmatch(name):
        found.append(invalid("metadata.name", name, "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric"
                             " characters, '-' or '.', and must start and end with an alphanumeric character"))  # fmt: skip
    elif len(name) > longest:
        found.append(invalid("metadata.name", name, f"must be no more than {longest} characters"))
    found += _label_faults(metadata.get("labels"), "metadata.labels")
    if kind.plural == "jobs":
        template = body["spec"].get("template") or {}
        found += _label_faults((template.get("metadata") or {}).get("labels"), "spec.template.labels")
        containers = (template.get("spec") or {}).get("containers") or []
        if not containers:
            found.append(required("spec.template.spec.containers"))
        for at, container in enumerate(containers):
            if not container.get("image"):
                found.append(required(f"spec.template.spec.containers[{at}].image"))
        if (template.get("spec") or {}).get("restartPolicy") == "Always":
            found.append(required("spec.template.spec.restartPolicy", 'valid values: "OnFailure", "Never"'))
    return found


def _label_faults(labels: Mapping[str, Any] | None, field: str) -> list[Fault]:
    found = []
    for value in (labels or {}).values():
        if len(value) > 63:
            found.append(invalid(field, value, "must be no more than 63 bytes"))
        if not _LABEL_VALUE.fullmatch(value):
            found.append(invalid(field, value, "a valid label must be an empty string or consist of alphanumeric characters, '-',"
                                 " '_' or '.', and must start and end with an alphanumeric character"))  # fmt: skip
    return found
