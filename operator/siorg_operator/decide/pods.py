"""What a Pod object tells of the worker in it: whether it works, can begin, has ended, or is out of reach.

How Kubernetes writes each of these: ``docs/operator.md`` ("What counts as capacity").
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from siorg_operator.decide.manifests import CONTAINER
from siorg_operator.decide.state import Stuck, later, rfc3339

CANNOT_START: Final = frozenset({
    "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError", "RegistryUnavailable",
    "CreateContainerConfigError", "CreateContainerError", "RunContainerError",
})  # fmt: skip
"""Reasons for which a container waits and that do not go away by waiting a moment."""

UNSCHEDULABLE: Final = "Unschedulable"
"""Kubernetes' word for a pod that no node takes, or none yet: an autoscaler may be making one."""
NOT_SCHEDULED: Final = "NotScheduled"
"""Our word for a pod that no scheduler has said anything of: of another name, or none runs."""
SCHEDULING_GATED: Final = "SchedulingGated"
NODE_SILENT: Final = "NodeSilent"
"""Our word for a pod of whose container the node that took it has said nothing."""
_ON_ITS_WAY: Final = frozenset({"ContainerCreating", "PodInitializing"})
_KUBELET_SAYS: Final = frozenset({
    "UnknownContainerStatuses", "PodCompleted", "PodFailed", "ContainersNotReady", "ContainersNotInitialized",
    "ReadinessGatesNotReady", "RestartAllContainersStarted",
})  # fmt: skip
"""Why a pod is not Ready, where its kubelet says so. The node controller, for a node that does not answer, gives no reason."""
_LOST_AFTER_SECONDS = 60.0
"""A node that does not answer may come back for so long; a pod that was deleted may take so long beyond its grace."""
_KILLED: Final = frozenset({137, 143})
LONG_AGO: Final = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class PodRecord:
    """What is kept of a Pod object."""

    name: str
    running: bool
    """Whether the worker's container runs, as far as was heard of its node."""
    started_at: datetime | None
    lives: bool = True
    """Whether it is neither Succeeded nor Failed."""
    succeeded: bool = False
    stuck: Stuck | None = None
    on_its_way: Stuck | None = None
    """For a pod that is neither stuck nor begun: since when, and a word for what it waits for."""
    silent_since: datetime | None = None
    """Since when its node has not answered, if it does not."""
    deleted_at: datetime | None = None
    """When the grace of its deletion is over, if it is on its way out."""
    deletion_grace: float = 0.0
    """Seconds."""
    disrupted: bool = False
    """Kubernetes itself takes it away (drain, preemption, lost node): its Job gets another one."""
    rejected: str = ""
    """Why the kubelet would not have it, or threw it out before its container had begun."""
    exit_code: int | None = None
    """Of the container, when it has ended."""
    exit_reason: str = ""
    termination_message: str = ""
    finished_at: datetime | None = None
    """By its node's clock."""
    ended_since: datetime | None = None
    """When it was first seen to have ended; None: not known."""

    def lost(self, now: datetime) -> bool:
        """Whether nothing more is to be expected of it, although it is not said to have ended."""
        return any(since is not None and now >= lost_from(since) for since in (self.silent_since, self.deleted_at))

    def overdue(self, now: datetime) -> bool:
        """Whether it was deleted and should have gone by now."""
        return self.deleted_at is not None and now >= lost_from(self.deleted_at)

    @property
    def was_killed(self) -> bool:
        """Whether its worker died of the deletion, and not by itself."""
        return self.deleted_at is not None and self.exit_code in _KILLED and self.exit_reason != "OOMKilled"


def lost_from(since: datetime) -> datetime:
    """When something is given up that has not answered, or not gone, ``since`` then."""
    return later(since, _LOST_AFTER_SECONDS)


def pod_record(body: Mapping[str, Any]) -> PodRecord:
    """What is kept of a Pod."""
    metadata, status = body["metadata"], body.get("status") or {}
    states = {container.get("name"): container.get("state") or {} for container in status.get("containerStatuses") or ()}
    state: Mapping[str, Any] = states.get(CONTAINER, {})
    running, terminated, waiting = state.get("running"), state.get("terminated") or {}, state.get("waiting") or {}
    started_at, finished_at = _life(metadata, status, running or terminated)
    lives = status.get("phase") not in {"Succeeded", "Failed"}
    begun = running is not None or bool(terminated)
    waits = lives and not begun and not metadata.get("deletionTimestamp")  # one that is on its way out has a successor
    stuck = _stuck(metadata, status, waiting) if waits else None
    return PodRecord(
        name=metadata["name"],
        running=running is not None,
        started_at=started_at,
        lives=lives,
        succeeded=status.get("phase") == "Succeeded",
        stuck=stuck,
        on_its_way=_on_its_way(metadata, status, waiting) if waits and stuck is None else None,
        silent_since=_silent_since(metadata, status) if running is not None else None,
        deleted_at=moment(metadata.get("deletionTimestamp")),
        deletion_grace=float(metadata.get("deletionGracePeriodSeconds") or 0),
        disrupted=bool(condition(status, "DisruptionTarget", "True")),
        rejected=_rejected(status) if status.get("phase") == "Failed" and not begun else "",
        exit_code=terminated.get("exitCode"),
        exit_reason=terminated.get("reason") or "",
        termination_message=terminated.get("message") or "",
        finished_at=finished_at,
    )


def _life(
    metadata: Mapping[str, Any], status: Mapping[str, Any], state: Mapping[str, Any]
) -> tuple[datetime | None, datetime | None]:
    """When a container started, and when it ended: its node's clock, put right where it is seen to be behind.

    No container starts before its pod was given to its node. By a clock that is behind, a probe would have run for minutes in
    its first second, and so prove that all is well.
    """
    started_at, finished_at = moment(state.get("startedAt")), moment(state.get("finishedAt"))
    if started_at is None:
        return None, finished_at
    assigned_at = moment(condition(status, "PodScheduled", "True").get("lastTransitionTime")) or _made(metadata)
    behind = max(assigned_at - started_at, timedelta())
    return started_at + behind, finished_at and finished_at + behind


def _stuck(metadata: Mapping[str, Any], status: Mapping[str, Any], waiting: Mapping[str, Any]) -> Stuck | None:
    scheduled = condition(status, "PodScheduled")
    since = moment(scheduled.get("lastTransitionTime")) or _made(metadata)
    if scheduled.get("status") == "False" and scheduled.get("reason") == UNSCHEDULABLE:
        return Stuck(UNSCHEDULABLE, scheduled.get("message") or "", since)
    if waiting.get("reason") in CANNOT_START:
        return Stuck(waiting["reason"], waiting.get("message") or "", since)
    # Before the container come those that others put in front of it: Vault, Istio.
    for container in status.get("initContainerStatuses") or ():
        first = (container.get("state") or {}).get("waiting") or {}
        if first.get("reason") in CANNOT_START:
            return Stuck(first["reason"], f"init container {container.get('name')}: {first.get('message') or ''}", since)
    return None


def _on_its_way(metadata: Mapping[str, Any], status: Mapping[str, Any], waiting: Mapping[str, Any]) -> Stuck | None:
    scheduled = condition(status, "PodScheduled")
    since = moment(scheduled.get("lastTransitionTime")) or _made(metadata)
    if scheduled.get("status") != "True":
        gated = scheduled.get("reason") == SCHEDULING_GATED
        return Stuck(SCHEDULING_GATED if gated else NOT_SCHEDULED, "", since)
    if waiting.get("reason") in _ON_ITS_WAY:
        return Stuck(waiting["reason"], "", since)
    return None if status.get("containerStatuses") else Stuck(NODE_SILENT, "", since)


def _silent_since(metadata: Mapping[str, Any], status: Mapping[str, Any]) -> datetime | None:
    ready = condition(status, "Ready")
    if ready.get("status", "True") == "True" or ready.get("reason") in _KUBELET_SAYS:
        return None
    return moment(ready.get("lastTransitionTime")) or _made(metadata)


def _rejected(status: Mapping[str, Any]) -> str:
    """As ``OutOfpods: Pod was rejected: Node didn't have enough resource: pods, …``."""
    return ": ".join(filter(None, (status.get("reason"), status.get("message"))))


def _made(metadata: Mapping[str, Any]) -> datetime:
    return moment(metadata.get("creationTimestamp")) or LONG_AGO


# -- how a worker ended, as an annotation of its Job --------------------------------------------------------------------


def last_words(pod: PodRecord) -> str:
    """How the worker of a pod ended, to be read by ``ended_worker`` once the pod is gone."""
    said = {
        "exitCode": pod.exit_code,
        "reason": pod.exit_reason,
        "startedAt": None if pod.started_at is None else rfc3339(pod.started_at),
        "finishedAt": None if pod.finished_at is None else rfc3339(pod.finished_at),
        "message": pod.termination_message,
    }
    return json.dumps(said, ensure_ascii=True, separators=(",", ":"))


def ended_worker(text: str) -> PodRecord | None:
    """What ``last_words`` wrote, as the pod that told it; None for anything else."""
    try:
        said = json.loads(text)
        code, times = said["exitCode"], {key: moment(said.get(key)) for key in ("startedAt", "finishedAt")}
        known = isinstance(code, int) and times["finishedAt"] is not None
    except (ValueError, RecursionError, TypeError, AttributeError, KeyError):
        return None
    if not known:
        return None
    return PodRecord(
        name="", running=False, lives=False, succeeded=code == 0, started_at=times["startedAt"], exit_code=code,
        exit_reason=str(said.get("reason") or ""), termination_message=str(said.get("message") or ""),
        finished_at=times["finishedAt"],
    )  # fmt: skip


# -- Kubernetes' ways of writing ----------------------------------------------------------------------------------------


def condition(status: Mapping[str, Any], kind: str, value: str = "") -> Mapping[str, Any]:
    """The condition of a type, where it has that status; empty: there is none."""
    conditions = (found for found in status.get("conditions") or () if found.get("type") == kind)
    return next((found for found in conditions if not value or found.get("status") == value), {})


def moment(text: str | None) -> datetime | None:
    """A moment as Kubernetes writes it."""
    return None if not text else datetime.fromisoformat(text)
