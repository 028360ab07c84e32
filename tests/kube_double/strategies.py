"""What each built-in kind does with an object on its way into the store: defaults, checks, what belongs to which endpoint."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kube_double.jobs import (
    cron_job_faults,
    default_cron_job,
    default_job,
    job_spec_faults,
    job_update_faults,
)
from kube_double.pods import default_pod, default_pod_spec, pod_spec_faults, pod_update_faults
from kube_double.refused import Body, Fault, forbidden, invalid


def _nothing(_: Body) -> None:
    return


def _no_faults(_: Body) -> list[Fault]:
    return []


def _no_update_faults(_new: Body, _old: Body) -> list[Fault]:
    return []


@dataclass(frozen=True, slots=True)
class Strategy:
    """One built-in kind's own rules. Defaults change the object in place."""

    default_new: Callable[[Body], None] = _nothing
    """At creation, after uid and name are set."""
    default: Callable[[Body], None] = _nothing
    """At every write."""
    faults: Callable[[Body], list[Fault]] = _no_faults
    update_faults: Callable[[Body, Body], list[Fault]] = _no_update_faults
    generation: bool = False
    unconditional: bool = True
    """Whether PUT may come without a resourceVersion."""
    status_at_creation: bool = False
    """Whether what a creator says of status is kept."""


def _default_namespace(body: Body) -> None:
    body["spec"] = {"finalizers": ["kubernetes"]}
    body["status"] = {"phase": "Active"}
    labels = body["metadata"].setdefault("labels", {})
    labels["kubernetes.io/metadata.name"] = body["metadata"].get("name", "")


def _default_secret(body: Body) -> None:
    body.setdefault("type", "Opaque")
    plain = body.pop("stringData", None)
    for key, value in (plain or {}).items():
        body.setdefault("data", {})[key] = base64.b64encode(value.encode()).decode()


_DATA_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_SAY_DATA_KEY = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or"
    " 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)


def _data_faults(body: Body) -> list[Fault]:
    return [
        invalid(f"data[{key}]", key, _SAY_DATA_KEY) for key in body.get("data") or {} if not _DATA_KEY.fullmatch(key)
    ]  # fmt: skip


def undecodable_secret(body: Body) -> str:
    """Why a Secret's data is no base64; empty if it is."""
    for value in (body.get("data") or {}).values():
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            return "illegal base64 data at input byte 0"
    return ""


def _secret_update_faults(new: Body, old: Body) -> list[Fault]:
    faults = []
    if new.get("type") != old.get("type"):
        faults.append(invalid("type", new.get("type"), "field is immutable"))
    return faults + _immutable_data_faults(new, old)


def _immutable_data_faults(new: Body, old: Body) -> list[Fault]:
    if not old.get("immutable"):
        return []
    faults = [] if new.get("immutable") else [forbidden("immutable", "field is immutable when `immutable` is set")]
    if new.get("data") != old.get("data"):
        faults.append(forbidden("data", "field is immutable when `immutable` is set"))
    return faults


def _default_node(body: Body) -> None:
    body.setdefault("spec", {})
    body.setdefault("status", {})


def _lease_faults(body: Body) -> list[Fault]:
    spec = body.get("spec") or {}
    faults = []
    duration, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
    if duration is not None and duration <= 0:
        faults.append(invalid("spec.leaseDurationSeconds", duration, "must be greater than 0"))
    if transitions is not None and transitions < 0:
        faults.append(invalid("spec.leaseTransitions", transitions, "must be greater than or equal to 0"))
    return faults


def _default_event(body: Body) -> None:
    """What Go always writes, even when it is empty."""
    for key in ("eventTime", "firstTimestamp", "lastTimestamp"):
        body.setdefault(key, None)
    body.setdefault("source", {})
    for key in ("reportingComponent", "reportingInstance"):
        body.setdefault(key, "")


def _event_faults(body: Body) -> list[Fault]:
    namespace = (body.get("involvedObject") or {}).get("namespace") or ""
    mine = body["metadata"].get("namespace")
    if (namespace or "default") != mine:
        return [invalid("involvedObject.namespace", namespace, "does not match event.namespace")]
    return []


def _job_faults(body: Body) -> list[Fault]:
    return job_spec_faults(body["spec"])


def _default_old_job(body: Body) -> None:
    default_pod_spec(body["spec"].setdefault("template", {}).setdefault("spec", {}))


def _pod_faults(body: Body) -> list[Fault]:
    return pod_spec_faults(body["spec"], "spec", pod=True)


def _default_old_pod(body: Body) -> None:
    default_pod_spec(body["spec"])


_STRATEGIES: Mapping[str, Strategy] = {
    "namespaces": Strategy(default_new=_default_namespace),
    "pods": Strategy(default_pod, _default_old_pod, _pod_faults, pod_update_faults, generation=True),
    "secrets": Strategy(default=_default_secret, faults=_data_faults, update_faults=_secret_update_faults),
    "configmaps": Strategy(faults=_data_faults, update_faults=_immutable_data_faults),
    "nodes": Strategy(default_new=_default_node, status_at_creation=True),
    "jobs": Strategy(default_job, _default_old_job, _job_faults, job_update_faults, generation=True),
    "cronjobs": Strategy(default=default_cron_job, faults=cron_job_faults, generation=True),
    "leases": Strategy(faults=_lease_faults, unconditional=False),
    "events": Strategy(default=_default_event, faults=_event_faults),
    "customresourcedefinitions": Strategy(unconditional=False, generation=True),
}


def strategy_of(plural: str) -> Strategy:
    return _STRATEGIES.get(plural, Strategy())
