"""Events have two shapes for one set of objects: core/v1, which is what is stored, and events.k8s.io/v1."""

from __future__ import annotations

from kube_double.refused import Body

_NAMES = {
    "message": "note",
    "involvedObject": "regarding",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
    "reportingComponent": "reportingController",
}
_BACK = {new: old for old, new in _NAMES.items()}


def as_new(body: Body) -> Body:
    """A core/v1 Event as events.k8s.io/v1 shows it."""
    return {_NAMES.get(key, key): value for key, value in body.items()} | {"apiVersion": "events.k8s.io/v1"}


def as_core(body: Body) -> Body:
    """An events.k8s.io/v1 Event as it is stored."""
    return {_BACK.get(key, key): value for key, value in body.items()} | {"apiVersion": "v1"}
