"""How objects go out: in the version, and in the form (whole, metadata only, table), that was asked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from kube_double.core_events import as_new
from kube_double.definitions import Definitions
from kube_double.kinds import Kind
from kube_double.patches import with_api_version
from kube_double.refused import Body
from kube_double.store import Entry, serialized
from kube_double.table import partial, table


class Form(Enum):
    WHOLE = "whole"
    PARTIAL = "partial"
    TABLE = "table"


def form_of(accept: str) -> Form:
    """What the first acceptable of the Accept header's types asks for."""
    for each in accept.split(","):
        words = {word.strip() for word in each.split(";")}
        if "as=Table" in words:
            return Form.TABLE
        if words & {"as=PartialObjectMetadata", "as=PartialObjectMetadataList"}:
            return Form.PARTIAL
        if "application/json" in words or "*/*" in words:
            return Form.WHOLE
    return Form.WHOLE


@dataclass(frozen=True, slots=True)
class Shown:
    """How one request wants its objects."""

    kind: Kind
    definitions: Definitions
    form: Form = Form.WHOLE
    include: str = "Metadata"

    def body(self, body: Body) -> Body:
        """One object, in this kind's version."""
        if self.kind.group == "events.k8s.io":
            return as_new(body)
        return with_api_version(body, self.kind.api_version)

    def one(self, entry: Entry) -> bytes:
        """One object, serialized."""
        match self.form:
            case Form.TABLE:
                return serialized(self._table([entry], {"resourceVersion": str(entry.version)}))
            case Form.PARTIAL:
                return serialized(partial(entry.body))
        if self.kind.group == "events.k8s.io":
            return serialized(as_new(entry.body))
        return self._type + entry.text[1:]

    @property
    def _type(self) -> bytes:
        return f'{{"kind":"{self.kind.kind}","apiVersion":"{self.kind.api_version}",'.encode()

    def many(self, entries: Iterable[Entry], metadata: Body) -> bytes:
        """A list, serialized. Items of built-in kinds have neither apiVersion nor kind."""
        if self.form is Form.TABLE:
            return serialized(self._table(entries, metadata))
        partially = self.form is Form.PARTIAL
        head = {
            "kind": "PartialObjectMetadataList" if partially else self.kind.list_kind,
            "apiVersion": "meta.k8s.io/v1" if partially else self.kind.api_version,
            "metadata": metadata,
        }
        items: Iterable[bytes]
        if partially or self.kind.custom:
            items = map(self.one, entries)
        elif self.kind.group == "events.k8s.io":
            items = (serialized({k: v for k, v in as_new(entry.body).items() if k not in head}) for entry in entries)
        else:
            items = (entry.text for entry in entries)
        texts = list(items)
        # Kubernetes makes no empty list of metadata, but null.
        inner = b"null" if partially and not texts else b"[" + b",".join(texts) + b"]"
        return serialized(head)[:-1] + b',"items":' + inner + b"}"

    def _table(self, entries: Iterable[Entry], metadata: Body) -> Body:
        version = self.definitions.version(self.kind) if self.kind.custom else None
        columns = version.columns if version is not None else None
        return table(self.kind.plural, columns, entries, metadata, self.include)
