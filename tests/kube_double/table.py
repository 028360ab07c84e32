"""Tables: what ``kubectl get`` shows of an object."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from kube_double.clock import parsed
from kube_double.refused import Body
from kube_double.store import Entry

Cell = Callable[[Body], Any]

_STEP = re.compile(r"\.?([^.\[\]]+)|\[(\d+|\*)\]|\[\?\(@\.([A-Za-z0-9_.]+)\s*==\s*[\"']([^\"']*)[\"']\)\]|\['([^']+)'\]")


def json_path(body: Any, path: str) -> list[Any]:
    """What a simple JSONPath finds: fields, indices, ``[*]`` and ``[?(@.key=="value")]``."""
    found = [body]
    for name, index, key, value, quoted in _STEP.findall(path.replace("\\.", "\0")):
        field = (name or quoted).replace("\0", ".")
        if field:
            found = [each[field] for each in found if isinstance(each, dict) and field in each]
        elif index == "*":
            found = [item for each in found if isinstance(each, list) for item in each]
        elif index:
            found = [each[int(index)] for each in found if isinstance(each, list) and int(index) < len(each)]
        else:
            found = [item for each in found if isinstance(each, list) for item in each if str(item.get(key)) == value]
    return found


def age(moment: str | None) -> str:
    """How long ago, as kubectl writes it: 45s, 3m20s, 26h, 4d."""
    if not moment:
        return "<unknown>"
    return _duration((datetime.now(UTC) - parsed(moment)).total_seconds())


def _duration(seconds: float) -> str:
    whole = max(int(seconds), 0)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if whole < 120:
        return f"{whole}s"
    if minutes < 10:
        return f"{minutes}m{whole % 60}s" if whole % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    return f"{days}d"


def _column(name: str, kind: str = "string", priority: int = 0, form: str = "", description: str = "") -> Body:
    return {"name": name, "type": kind, "format": form, "description": description or name, "priority": priority}


def _created(body: Body) -> str:
    return age(body["metadata"].get("creationTimestamp"))


def _name(body: Body) -> str:
    return str(body["metadata"]["name"])


def _ready(body: Body) -> str:
    statuses = body.get("status", {}).get("containerStatuses") or []
    return f"{sum(bool(each.get('ready')) for each in statuses)}/{len(body['spec'].get('containers') or ())}"


def _pod_status(body: Body) -> str:
    status = body.get("status", {})
    if "deletionTimestamp" in body["metadata"]:
        return "Terminating"
    for each in status.get("containerStatuses") or ():
        state = each.get("state") or {}
        for kind in ("waiting", "terminated"):
            if (state.get(kind) or {}).get("reason"):
                return str(state[kind]["reason"])
    return str(status.get("reason") or status.get("phase") or "Unknown")


def _restarts(body: Body) -> int:
    return sum(each.get("restartCount", 0) for each in body.get("status", {}).get("containerStatuses") or ())


def _job_status(body: Body) -> str:
    conditions = {each["type"]: each["status"] for each in body.get("status", {}).get("conditions") or ()}
    for kind in ("Complete", "Failed", "Suspended", "FailureTarget", "SuccessCriteriaMet"):
        if conditions.get(kind) == "True":
            return kind
    return "Terminating" if "deletionTimestamp" in body["metadata"] else "Running"


def _completions(body: Body) -> str:
    return f"{body.get('status', {}).get('succeeded', 0)}/{body['spec'].get('completions', 1)}"


def _job_duration(body: Body) -> str:
    status = body.get("status", {})
    if "startTime" not in status:
        return ""
    end = parsed(status["completionTime"]) if "completionTime" in status else datetime.now(UTC)
    return _duration((end - parsed(status["startTime"])).total_seconds())


def _node_status(body: Body) -> str:
    conditions = {each["type"]: each["status"] for each in body.get("status", {}).get("conditions") or ()}
    return "Ready" if conditions.get("Ready") == "True" else "NotReady"


_NAME = _column("Name", form="name", description="Name must be unique within a namespace.")
_AGE = _column("Age", description="CreationTimestamp is a timestamp representing the server time when this object was created.")

_BUILT_IN: Mapping[str, tuple[tuple[Body, Cell], ...]] = {
    "pods": ((_column("Ready"), _ready), (_column("Status"), _pod_status), (_column("Restarts"), _restarts), (_AGE, _created),
             (_column("IP", priority=1), lambda body: body.get("status", {}).get("podIP", "<none>")),
             (_column("Node", priority=1), lambda body: body["spec"].get("nodeName", "<none>"))),
    "jobs": ((_column("Status"), _job_status),
             (_column("Completions"), _completions),
             (_column("Duration"), _job_duration), (_AGE, _created)),
    "cronjobs": ((_column("Schedule"), lambda body: body["spec"]["schedule"]),
                 (_column("Timezone"), lambda body: body["spec"].get("timeZone", "<none>")),
                 (_column("Suspend"), lambda body: str(body["spec"].get("suspend", False))),
                 (_column("Active", "integer"), lambda body: len(body.get("status", {}).get("active") or ())),
                 (_column("Last Schedule"), lambda body: age(body["status"]["lastScheduleTime"])
                  if body.get("status", {}).get("lastScheduleTime") else "<none>"), (_AGE, _created)),
    "nodes": ((_column("Status"), _node_status), (_column("Roles"), lambda _: "<none>"), (_AGE, _created),
              (_column("Version"), lambda body: body.get("status", {}).get("nodeInfo", {}).get("kubeletVersion", ""))),
    "namespaces": ((_column("Status"), lambda body: body.get("status", {}).get("phase", "")), (_AGE, _created)),
    "secrets": ((_column("Type"), lambda body: body.get("type", "")),
                (_column("Data", "integer"), lambda body: len(body.get("data") or ())), (_AGE, _created)),
    "configmaps": ((_column("Data", "integer"), lambda body: len(body.get("data") or ())), (_AGE, _created)),
    "leases": ((_column("Holder"), lambda body: (body.get("spec") or {}).get("holderIdentity", "")), (_AGE, _created)),
    "customresourcedefinitions": ((_column("Created At", "date"), lambda body: body["metadata"]["creationTimestamp"]),),
    "events": ((_column("Last Seen"), lambda body: age(body.get("lastTimestamp") or body["metadata"]["creationTimestamp"])),
               (_column("Type"), lambda body: body.get("type", "")), (_column("Reason"), lambda body: body.get("reason", "")),
               (_column("Object"), lambda body: "{kind}/{name}".format(
                   kind=str(body.get("involvedObject", {}).get("kind", "")).lower(),
                   name=body.get("involvedObject", {}).get("name", ""))),
               (_column("Message"), lambda body: body.get("message", ""))),
}  # fmt: skip


def _custom(columns: Sequence[Mapping[str, Any]]) -> list[tuple[Body, Cell]]:
    def cell(path: str, kind: str) -> Cell:
        def show(body: Body) -> Any:
            found = json_path(body, path)
            if not found:
                return None
            if kind == "date":
                return age(str(found[0]))
            return ",".join(map(str, found)) if len(found) > 1 else found[0]

        return show

    return [
        (_column(str(each["name"]), str(each["type"]), int(each.get("priority", 0)), str(each.get("format", "")),
                 str(each.get("description") or f"Custom resource definition column (in JSONPath format): {each['jsonPath']}")),
         cell(str(each["jsonPath"]), str(each["type"])))
        for each in columns
    ]  # fmt: skip


def table(
    plural: str, columns: Sequence[Mapping[str, Any]] | None, entries: Iterable[Entry], metadata: Body, include: str = "Metadata"
) -> Body:
    """A meta.k8s.io/v1 Table.

    Args:
        plural: The kind's plural.
        columns: additionalPrinterColumns of a custom kind; None for a built-in one.
        entries: The rows.
        metadata: The list's metadata.
        include: Metadata, Object or None: what each row carries beside its cells.
    """
    shown = list(_BUILT_IN.get(plural, ((_AGE, _created),))) if columns is None else _custom(columns) or [(_AGE, _created)]
    head: list[tuple[Body, Cell]] = [] if plural == "events" else [(_NAME, _name)]
    cells = head + shown
    rows = []
    for entry in entries:
        row: Body = {"cells": [cell(entry.body) for _, cell in cells]}
        if include == "Metadata":
            row["object"] = partial(entry.body)
        elif include == "Object":
            row["object"] = entry.body
        rows.append(row)
    return {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
            "columnDefinitions": [column for column, _ in cells], "rows": rows}  # fmt: skip


def partial(body: Body) -> Body:
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": body["metadata"]}
