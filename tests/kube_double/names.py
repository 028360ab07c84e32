"""Names, labels and the rest of metadata: what Kubernetes allows, and how it says no."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import Any

from kube_double.refused import Fault, fault, invalid, required

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")

_SAY_LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an"
    " alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_SAY_SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end"
    " with an alphanumeric character (e.g. 'example.com', regex used for validation is"
    " '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_SAY_QUALIFIED = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
    " (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_SAY_VALUE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with"
    " an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is"
    " '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"
_FINALIZERS = frozenset({"kubernetes", "orphan", "foregroundDeletion"})
_LABEL_KINDS = frozenset({"namespaces"})
_ANNOTATIONS_BYTES = 262_144


def generated(prefix: str) -> str:
    """``prefix`` and five random characters, as generateName makes them."""
    return prefix[:58] + "".join(random.choices(_SUFFIX, k=5))


def label_faults(name: str, field: str) -> list[Fault]:
    """Why ``name`` is no DNS-1123 label."""
    faults = []
    if len(name) > 63:
        faults.append(invalid(field, name, "must be no more than 63 bytes"))
    if not _LABEL.fullmatch(name):
        faults.append(invalid(field, name, _SAY_LABEL))
    return faults


def subdomain_faults(name: str, field: str) -> list[Fault]:
    """Why ``name`` is no DNS-1123 subdomain."""
    faults = []
    if len(name) > 253:
        faults.append(invalid(field, name, "must be no more than 253 characters"))
    if not _SUBDOMAIN.fullmatch(name):
        faults.append(invalid(field, name, _SAY_SUBDOMAIN))
    return faults


def metadata_faults(metadata: Mapping[str, Any], plural: str, *, built_in: bool, field: str = "metadata") -> list[Fault]:
    """Everything that is wrong with an object's metadata."""
    faults: list[Fault] = []
    name = metadata.get("name") or ""
    if not name:
        faults.append(required(f"{field}.name", "name or generateName is required"))
    elif plural not in _LABEL_KINDS:
        faults += subdomain_faults(name, f"{field}.name")
    elif "." in name:
        faults.append(invalid(f"{field}.name", name, "must not contain dots"))
    else:
        faults += label_faults(name, f"{field}.name")
    faults += labels_faults(metadata.get("labels") or {}, f"{field}.labels")
    annotations = metadata.get("annotations") or {}
    for key in annotations:
        faults += qualified_faults(key.lower(), f"{field}.annotations")
    if sum(len(key) + len(str(value)) for key, value in annotations.items()) > _ANNOTATIONS_BYTES:
        faults.append(fault(f"{field}.annotations", "FieldValueTooLong", f"may not be more than {_ANNOTATIONS_BYTES} bytes"))
    owners = metadata.get("ownerReferences") or ()
    for owner in owners:
        for key, what in (("apiVersion", "version "), ("kind", ""), ("name", ""), ("uid", "")):
            if not owner.get(key):
                faults.append(invalid(f"{field}.ownerReferences.{key}", owner.get(key) or "", f"{what}must not be empty"))
    controllers = [f"{owner['kind']}/{owner['name']}" for owner in owners if owner.get("controller")]
    if len(controllers) > 1:
        both = f"{controllers[0]} and {controllers[1]}"
        what = f'Only one reference can have Controller set to true. Found "true" in references for {both}'
        faults.append(invalid(f"{field}.ownerReferences", owners, what))
    for at, finalizer in enumerate(metadata.get("finalizers") or ()):
        faults += qualified_faults(finalizer, f"{field}.finalizers")
        if built_in and "/" not in finalizer and finalizer not in _FINALIZERS:
            what = "name is neither a standard finalizer name nor is it fully qualified"
            faults.append(invalid(f"{field}.finalizers[{at}]", finalizer, what))
    return faults


def labels_faults(labels: Mapping[str, Any], field: str) -> list[Fault]:
    faults: list[Fault] = []
    for key, value in labels.items():
        faults += qualified_faults(key, field)
        if len(str(value)) > 63:
            faults.append(invalid(field, value, "must be no more than 63 bytes"))
        if not _VALUE.fullmatch(str(value)):
            faults.append(invalid(field, value, _SAY_VALUE))
    return faults


def qualified_faults(key: str, field: str) -> list[Fault]:
    """Why ``key`` is no qualified name: an optional DNS prefix, a slash, and a name of at most 63 characters."""
    prefix, slash, name = key.rpartition("/")
    faults = []
    if slash and not prefix:
        faults.append(invalid(field, key, "prefix part must be non-empty"))
    elif slash and not _SUBDOMAIN.fullmatch(prefix):
        faults.append(invalid(field, key, f"prefix part {_SAY_SUBDOMAIN}"))
    if not name:
        faults.append(invalid(field, key, "name part must be non-empty"))
    elif len(name) > 63:
        faults.append(invalid(field, key, "name part must be no more than 63 bytes"))
    if not _QUALIFIED.fullmatch(name):
        faults.append(invalid(field, key, _SAY_QUALIFIED))
    return faults
