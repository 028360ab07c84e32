"""How objects go out: whole, metadata only, or, of a custom kind, as the table that ``kubectl get`` shows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kube_double.errors import Body
from kube_double.kinds import Kind
from kube_double.store import Entry, serialized

_STEP = re.compile(r"\.?([^.\[\]]+)|\[\?\(@\.(\w+)==\"([^\"]*)\"\)\]")


def json_path(body: Any, path: str) -> Any:
    """What a column's JSONPath finds first, of fields and ``[?(@.key=="value")]``; None if nothing."""
    for name, key, value in _STEP.findall(path):
        if name:
            body = body.get(name) if isinstance(body, dict) else None
        else:
            body = next((item for item in body or () if item.get(key) == value), None)
    return body


@dataclass(frozen=True, slots=True)
class Form:
    """How one request wants its objects."""

    kind: Kind
    one: Callable[[Entry], bytes]
    many: Callable[[Iterable[Entry], Body], bytes]


def form_of(kind: Kind, accept: str, columns: Sequence[Mapping[str, Any]]) -> Form:
    if "as=PartialObjectMetadataList" in accept:
        about = {"apiVersion": "meta.k8s.io/v1"}

        def partially(entry: Entry) -> bytes:
            return serialized(about | {"kind": "PartialObjectMetadata", "metadata": entry.body["metadata"]})

        return Form(kind, partially, lambda entries, metadata: _listed("PartialObjectMetadataList", about["apiVersion"], metadata,
                                                                       map(partially, entries)))  # fmt: skip
    if "as=Table" in accept and kind.custom:
        return Form(
            kind, lambda entry: _table([entry], {}, columns), lambda entries, metadata: _table(entries, metadata, columns)
        )
    head = f'{{"kind":"{kind.kind}","apiVersion":"{kind.api_version}",'.encode()

    def whole(entry: Entry) -> bytes:
        return head + entry.text[1:]

    # Items of a list of a built-in kind have neither apiVersion nor kind.
    item: Callable[[Entry], bytes] = whole if kind.custom else lambda entry: entry.text
    return Form(
        kind, whole, lambda entries, metadata: _listed(f"{kind.kind}List", kind.api_version, metadata, map(item, entries))
    )


def _listed(kind: str, api_version: str, metadata: Body, items: Iterable[bytes]) -> bytes:
    texts = list(items)
    # Kubernetes makes no empty list of metadata, but null.
    inner = b"null" if kind.startswith("Partial") and not texts else b"[" + b",".join(texts) + b"]"
    return serialized({"kind": kind, "apiVersion": api_version, "metadata": metadata})[:-1] + b',"items":' + inner + b"}"


def _table(entries: Iterable[Entry], metadata: Body, columns: Sequence[Mapping[str, Any]]) -> bytes:
    shown = [{"name": "Name", "type": "string", "jsonPath": ".metadata.name"}, *columns]
    rows = [{"cells": [json_path(entry.body, str(each["jsonPath"])) for each in shown]} for entry in entries]
    heads = [{"name": each["name"], "type": each["type"], "priority": each.get("priority", 0)} for each in shown]
    return serialized({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": heads,
                       "rows": rows})  # fmt: skip
