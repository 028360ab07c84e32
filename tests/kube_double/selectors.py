"""Label and field selectors, parsed into predicates."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from kube_double.errors import Body, bad_request

Labels = Mapping[str, str]

_KEY = r"[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?"
_TERM = re.compile(
    rf"\s*(?:(?P<no>!)?(?P<key>{_KEY})\s*(?:(?P<operator>==|=|!=)\s*(?P<value>[A-Za-z0-9._-]*)"
    r"|\s(?P<set>in|notin)\s*\((?P<values>[^()]*)\))?)\s*(?:,(?!\s*$)|$)"
)


def by_labels(text: str) -> Callable[[Body], bool]:
    """A predicate over objects.

    Raises:
        Refused: The selector cannot be read.
    """
    tests, at = list[Callable[[Labels], bool]](), 0
    while at < len(text.rstrip()):
        term = _TERM.match(text, at)
        if term is None or term.end() == at:
            raise bad_request(f"unable to parse requirement: invalid label selector {text!r}")
        at = term.end()
        tests.append(_label_test(term))
    return lambda body: all(test(body["metadata"].get("labels") or {}) for test in tests)


def _label_test(term: re.Match[str]) -> Callable[[Labels], bool]:
    key: str = term["key"]
    if term["no"]:
        return lambda labels: key not in labels
    if term["set"]:
        values, wanted = {value.strip() for value in term["values"].split(",")}, term["set"] == "in"
        return lambda labels: (labels.get(key) in values) is wanted
    if term["operator"]:
        value, equal = term["value"], term["operator"] != "!="
        return lambda labels: (labels.get(key) == value) is equal
    return lambda labels: key in labels


def by_fields(text: str) -> Callable[[Body], bool]:
    """A predicate over objects: ``metadata.name=x,spec.nodeName=y``."""
    terms = [term.partition("=") for term in text.split(",")]

    def value(body: Any, path: str) -> str:
        for key in path.split("."):
            body = body.get(key) if isinstance(body, dict) else None
        return "" if body is None else str(body)

    return lambda body: all(value(body, path) == wanted for path, _, wanted in terms)
