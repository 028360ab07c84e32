"""Stands for the Job part of kube-controller-manager, as a client of the API: makes Pods for Jobs and keeps their status.

A Job has one Pod at a time: several, indexed completion, success policies and restarts in place are left out.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kube_double.informer import Informer
from kube_double.store import now
from support.kube import ApiError, Body, Kube

TRACKING = "batch.kubernetes.io/job-tracking"
"""The finalizer that keeps a Pod until it is counted in its Job's status."""
_JOB_NAME = "batch.kubernetes.io/job-name"
_AGAIN_SECONDS = 0.2


@dataclass(order=True, slots=True)
class _Due:
    at: float
    uid: str = field(compare=False)


class JobController:
    """Works from entering the context until leaving it.

    Args:
        kubeconfig: The API server.
        backoff_seconds: Wait after the first failed Pod of a Job, doubled for each further one; Kubernetes has 10.
    """

    def __init__(self, kubeconfig: Path, *, backoff_seconds: float = 0.1) -> None:
        self._kube = Kube(kubeconfig, user_agent="job-controller")
        self._backoff_seconds = backoff_seconds
        self._jobs = Informer(self._kube, "jobs", self._job_changed)
        self._pods = Informer(self._kube, "pods", self._pod_changed, labels=_JOB_NAME)
        self._pods_of: dict[str, set[str]] = {}
        self._failed_at: dict[str, tuple[int, float]] = {}
        self._started: dict[str, float] = {}
        self._counted: set[str] = set()
        self._due: list[_Due] = []
        self._soon: set[str] = set()
        self._wake = threading.Condition()
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="job-controller", daemon=True)

    def __enter__(self) -> Self:
        for informer in (self._jobs, self._pods):
            informer.start()
        for informer in (self._jobs, self._pods):
            informer.wait_synced()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._jobs.stop()
        self._pods.stop()
        with self._wake:
            self._stop = True
            self._wake.notify()
        self._thread.join(10)
        self._kube.close()

    # What wakes it

    def _job_changed(self, body: Body, _there: bool) -> None:
        self._enqueue(body["metadata"]["uid"])

    def _pod_changed(self, body: Body, there: bool) -> None:
        owners = body["metadata"].get("ownerReferences") or ()
        for owner in [each["uid"] for each in owners if each.get("controller") and each["kind"] == "Job"]:
            with self._wake:
                pods = self._pods_of.setdefault(owner, set())
                (pods.add if there else pods.discard)(body["metadata"]["uid"])
            self._enqueue(owner)

    def _enqueue(self, uid: str, after: float = 0.0) -> None:
        with self._wake:
            if not after:
                if uid in self._soon:
                    return
                self._soon.add(uid)
            heapq.heappush(self._due, _Due(time.monotonic() + after, uid))
            self._wake.notify()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._stop and (not self._due or self._due[0].at > time.monotonic()):
                    self._wake.wait(self._due[0].at - time.monotonic() if self._due else None)
                if self._stop:
                    return
                uid = heapq.heappop(self._due).uid
                self._soon.discard(uid)
            try:
                self._sync(uid)
            except ApiError as error:
                if error.status != 404:
                    self._enqueue(uid, _AGAIN_SECONDS)

    # One Job

    def _sync(self, uid: str) -> None:
        with self._wake:
            uids = list(self._pods_of.get(uid, ()))
        pods = [self._collected(pod) for each in uids if (pod := self._pods.get(each)) is not None]
        job = self._jobs.get(uid)
        ended = None if job is None else _ended(job)
        if job is None or ended is not None:
            for pod in pods:
                self._release(pod)
            if job is not None and ended is not None:
                self._expire(job, ended)
        elif job["spec"].get("managedBy") in (None, "kubernetes.io/job-controller"):
            self._keep(job, pods)

    def _expire(self, job: Body, ended: str) -> None:
        seconds, metadata = job["spec"].get("ttlSecondsAfterFinished"), job["metadata"]
        if seconds is None or "deletionTimestamp" in metadata:
            return
        left = seconds - (datetime.now(UTC) - datetime.fromisoformat(ended)).total_seconds()
        if left > 0:
            self._enqueue(metadata["uid"], left)
        else:
            self._kube.delete("jobs", metadata["name"], metadata["namespace"], uid=metadata["uid"])

    def _keep(self, job: Body, pods: list[Body]) -> None:
        """Bring pods and status of an unfinished Job in line."""
        spec, metadata = job["spec"], job["metadata"]
        uid, suspended, policy = metadata["uid"], bool(spec.get("suspend")), spec.get("podFailurePolicy")
        status = {**job.get("status", {})}
        conditions = [dict(each) for each in status.get("conditions") or ()]
        active = [pod for pod in pods if _active(pod)]
        # With a policy a pod counts when it has ended, and without one as soon as it is going.
        counted = [pod for pod in pods if not _active(pod) and self._uncounted(pod) and (_done(pod) or policy is None)]
        succeeded = status.get("succeeded", 0) + sum(_phase(pod) == "Succeeded" for pod in counted)
        judged = [_judged(policy, pod) for pod in counted if _phase(pod) != "Succeeded"]
        failed = status.get("failed", 0) + sum(action != "Ignore" for action, _ in judged)
        if failed != self._failed_at.get(uid, (0, 0.0))[0]:
            self._failed_at[uid] = failed, time.monotonic()
        self._start_or_suspend(uid, status, conditions, suspended=suspended)

        target = _find(conditions, "FailureTarget") or self._failure(job, failed, judged)
        if target is None and succeeded:
            _set(conditions, _condition("SuccessCriteriaMet", "CompletionsReached", "Reached expected number of succeeded pods"))
        if target is not None:
            _set(conditions, target)
        if target is not None or succeeded or suspended:
            self._delete(active)
            active = []
        elif not active and "deletionTimestamp" not in metadata and not (policy is not None and any(map(_going, pods))):
            active = self._replaced(job, failed)

        terminating = sum(
            _going(pod) and not _done(pod) for pod in [self._pods.get(pod["metadata"]["uid"]) or pod for pod in pods]
        )
        if not active and not terminating:
            if target is not None:
                _set(conditions, {**target, "type": "Failed"})
            elif (met := _find(conditions, "SuccessCriteriaMet")) is not None:
                _set(conditions, {**met, "type": "Complete"})
                status["completionTime"] = now()
        status |= {"conditions": conditions, "terminating": terminating, "ready": sum(map(_ready, active))}
        for key, value in (("active", len(active)), ("succeeded", succeeded), ("failed", failed)):
            if value or key in status:
                status[key] = value or None
        self._write(job, status)
        self._counted |= {pod["metadata"]["uid"] for pod in counted}
        for pod in pods:
            if pod["metadata"]["uid"] in self._counted:
                self._release(self._pods.get(pod["metadata"]["uid"]) or pod)

    def _start_or_suspend(self, uid: str, status: Body, conditions: list[Body], *, suspended: bool) -> None:
        if suspended:
            _set(conditions, _condition("Suspended", "JobSuspended", "Job suspended"))
            if "startTime" in status:
                status["startTime"] = None
            self._started.pop(uid, None)
        elif status.get("startTime") is None:
            if _find(conditions, "Suspended") is not None:
                _set(conditions, _condition("Suspended", "JobResumed", "Job resumed", "False"))
            status["startTime"] = now()
            self._started[uid] = time.monotonic()

    def _uncounted(self, pod: Body) -> bool:
        return TRACKING in (pod["metadata"].get("finalizers") or ()) and pod["metadata"]["uid"] not in self._counted

    def _failure(self, job: Body, failed: int, judged: list[tuple[str, str]]) -> Body | None:
        """The condition that ends the Job, if there is reason for one."""
        spec, uid = job["spec"], job["metadata"]["uid"]
        for action, message in judged:
            if action == "FailJob":
                return _condition("FailureTarget", "PodFailurePolicy", message)
        if failed > spec.get("backoffLimit", 6):
            return _condition("FailureTarget", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
        deadline = spec.get("activeDeadlineSeconds")
        if deadline is not None and uid in self._started:
            left = deadline - (time.monotonic() - self._started[uid])
            if left <= 0:
                return _condition("FailureTarget", "DeadlineExceeded", "Job was active longer than specified deadline")
            self._enqueue(uid, left)
        return None

    def _replaced(self, job: Body, failed: int) -> list[Body]:
        """A Pod for a Job that has none, as soon as its backoff is over."""
        uid = job["metadata"]["uid"]
        if failed:
            since = time.monotonic() - self._failed_at.get(uid, (0, 0.0))[1]
            wait = min(self._backoff_seconds * 2 ** (failed - 1), 360.0) - since
            if wait > 0:
                self._enqueue(uid, wait)
                return []
        template, metadata = job["spec"]["template"], job["metadata"]
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": uid, "controller": True,
                 "blockOwnerDeletion": True}  # fmt: skip
        about = {key: value for key, value in (template.get("metadata") or {}).items() if key in ("labels", "annotations")}
        about |= {"generateName": f"{metadata['name']}-", "ownerReferences": [owner], "finalizers": [TRACKING]}
        pod = self._kube.create(
            {"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": template["spec"]}, metadata["namespace"]
        )
        self._pods.learn(pod)
        with self._wake:
            self._pods_of.setdefault(uid, set()).add(pod["metadata"]["uid"])
        return [pod]

    def _delete(self, pods: list[Body]) -> None:
        for pod in pods:
            metadata = pod["metadata"]
            gone = self._kube.delete("pods", metadata["name"], metadata["namespace"], uid=metadata["uid"])
            if gone is not None and gone["kind"] == "Pod":
                self._pods.learn(gone)

    def _release(self, pod: Body) -> None:
        metadata = pod["metadata"]
        if TRACKING not in (metadata.get("finalizers") or ()):
            return
        left = {"uid": metadata["uid"], "finalizers": [each for each in metadata["finalizers"] if each != TRACKING]}
        try:
            self._pods.learn(self._kube.patch("pods", metadata["name"], {"metadata": left}, metadata["namespace"]))
        except ApiError as error:
            if error.status not in (404, 409, 422):
                raise

    def _collected(self, pod: Body) -> Body:
        """The Pod garbage collector's part: one that goes and never came to a node has no kubelet that would end it."""
        if not _going(pod) or pod["spec"].get("nodeName") or _done(pod):
            return pod
        failed = self._kube.patch_status("pods", pod["metadata"]["name"], {"phase": "Failed"}, pod["metadata"]["namespace"])
        self._pods.learn(failed)
        return failed

    def _write(self, job: Body, status: Body) -> None:
        before, metadata = job.get("status", {}), job["metadata"]
        change = {key: value for key, value in status.items() if before.get(key) != value}
        if change:
            self._jobs.learn(self._kube.patch_status("jobs", metadata["name"], change, metadata["namespace"]))


def _phase(pod: Body) -> str:
    return str((pod.get("status") or {}).get("phase", ""))


def _done(pod: Body) -> bool:
    return _phase(pod) in ("Succeeded", "Failed")


def _going(pod: Body) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def _active(pod: Body) -> bool:
    return not _done(pod) and not _going(pod)


def _ready(pod: Body) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _ended(job: Body) -> str | None:
    """When the Job ended; None while it has not."""
    for each in job.get("status", {}).get("conditions") or ():
        if each["type"] in ("Complete", "Failed") and each["status"] == "True":
            return str(each["lastTransitionTime"])
    return None


def _condition(kind: str, reason: str, message: str, status: str = "True") -> Body:
    moment = now()
    return {"type": kind, "status": status, "lastProbeTime": moment, "lastTransitionTime": moment, "reason": reason,
            "message": message}  # fmt: skip


def _find(conditions: list[Body], kind: str) -> Body | None:
    return next((each for each in conditions if each["type"] == kind and each["status"] == "True"), None)


def _set(conditions: list[Body], condition: Body) -> None:
    """Put a condition in its type's place, unless it says what is said already."""
    there = next((each for each in conditions if each["type"] == condition["type"]), None)
    if there is None:
        conditions.append(condition)
    elif there["status"] != condition["status"]:
        conditions[conditions.index(there)] = condition


def _judged(policy: Mapping[str, Any] | None, pod: Body) -> tuple[str, str]:
    """What the podFailurePolicy says of a failed Pod: the action, and the message of a FailJob."""
    place, status = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}", pod["status"]
    for at, rule in enumerate((policy or {}).get("rules") or ()):
        tail = f"matching {rule['action']} rule at index {at}"
        for wanted in rule.get("onPodConditions") or ():
            if any((each["type"], each["status"]) == (wanted["type"], "True") for each in status.get("conditions") or ()):
                return rule["action"], f"Pod {place} has condition {wanted['type']} {tail}"
        exit_codes = rule.get("onExitCodes") or {"values": (), "operator": "In"}
        for each in status.get("containerStatuses") or ():
            code = ((each.get("state") or {}).get("terminated") or {}).get("exitCode", 0)
            if code and (code in exit_codes["values"]) is (exit_codes["operator"] == "In"):
                return rule["action"], f"Container {each['name']} for pod {place} failed with exit code {code} {tail}"
    return "Count", ""
