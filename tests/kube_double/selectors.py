"""Label and field selectors, parsed into predicates."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from kube_double.kinds import Kind
from kube_double.names import labels_faults
from kube_double.refused import Body, bad_request

Predicate = Callable[[Body], bool]

_KEY = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?(?:/[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)?"
_TERM = re.compile(
    rf"\s*(?:(?P<absent>!)\s*(?P<absent_key>{_KEY})"
    rf"|(?P<key>{_KEY})\s*(?:(?P<operator>==|=|!=|>|<)\s*(?P<value>[A-Za-z0-9._-]*)"
    rf"|\s(?P<set>in|notin)\s*\((?P<values>[^()]*)\))?)\s*(?:,|$)"
)

_FIELDS = {
    "pods": ("spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "status.phase",
             "status.podIP", "status.nominatedNodeName"),
    "events": ("involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid",
               "involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath", "reason",
               "reportingComponent", "source", "type"),
    "secrets": ("type",),
    "namespaces": ("status.phase",),
    "nodes": ("spec.unschedulable",),
    "jobs": ("status.successful",),
}  # fmt: skip
"""Which fields Kubernetes lets one select by, beside metadata.name and metadata.namespace."""


def labels_of(body: Body) -> Mapping[str, str]:
    return body.get("metadata", {}).get("labels") or {}


def by_labels(text: str) -> Callable[[Mapping[str, str]], bool]:
    """A predicate over labels.

    Raises:
        Refused: The selector cannot be read.
    """
    tests: list[Callable[[Mapping[str, str]], bool]] = []
    if text.rstrip().endswith(","):
        raise bad_request("found '', expected: identifier after ','")
    at = 0
    while at < len(text.rstrip()):
        term = _TERM.match(text, at)
        if term is None or term.end() == at:
            raise bad_request(f"unable to parse requirement: invalid label selector {text!r}")
        at = term.end()
        tests.append(_label_test(term))
    return lambda labels: all(test(labels) for test in tests)


def _label_test(term: re.Match[str]) -> Callable[[Mapping[str, str]], bool]:
    if term["absent"]:
        absent: str = term["absent_key"]
        return lambda labels: absent not in labels
    key: str = term["key"]
    if term["set"]:
        values = {value.strip() for value in term["values"].split(",")}
        if term["set"] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    value: str = term["value"]
    if term["operator"] and (problems := labels_faults({key: value}, f"values[0][{key}]")):
        raise bad_request(f"unable to parse requirement: {problems[0]}")
    match term["operator"]:
        case "=" | "==":
            return lambda labels: labels.get(key) == value
        case "!=":
            return lambda labels: labels.get(key) != value
        case ">":
            return lambda labels: labels.get(key, "").isdigit() and int(labels[key]) > int(value)
        case "<":
            return lambda labels: labels.get(key, "").isdigit() and int(labels[key]) < int(value)
    return lambda labels: key in labels


def by_fields(kind: Kind, text: str, more: tuple[str, ...] = ()) -> Predicate:
    """A predicate over objects.

    Raises:
        Refused: The selector cannot be read, or names a field that this kind cannot be selected by.
    """
    known = ("metadata.name", "metadata.namespace", *_FIELDS.get(kind.plural, ()), *more)
    tests: list[Predicate] = []
    for term in filter(None, (part.strip() for part in text.split(","))):
        found = re.fullmatch(r"([^=!]+)(==|=|!=)(.*)", term)
        if found is None:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{term}'")
        path, operator, value = found.groups()
        if path not in known:
            raise bad_request(f"field label not supported: {path}" if kind.custom else
                              f'field label "{path}" not supported for {kind.kind}')  # fmt: skip
        tests.append(_field_test(path, value, equal=operator != "!="))
    return lambda body: all(test(body) for test in tests)


def _field_test(path: str, value: str, *, equal: bool) -> Predicate:
    keys = ["status", "succeeded"] if path == "status.successful" else path.split(".")
    absent = "0" if path == "status.successful" else ""

    def test(body: Body) -> bool:
        found: Any = body
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        text = absent if found is None else str(found).lower() if isinstance(found, bool) else str(found)
        return (text == value) is equal

    return test
