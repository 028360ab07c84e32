"""Stands for the Job part of kube-controller-manager, as a client of the API: makes Pods for Jobs and keeps their status.

Left out: indexed completion, success policies, backoffLimitPerIndex, events.
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

from support.informer import Informer
from support.kube import ApiError, Body, Kube

TRACKING = "batch.kubernetes.io/job-tracking"
"""The finalizer that keeps a Pod until it is counted in its Job's status."""
_JOB_NAME = "batch.kubernetes.io/job-name"
_AGAIN_SECONDS = 0.2


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _seconds_since(moment: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()


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
        self._jobs.start()
        self._pods.start()
        self._jobs.wait_synced()
        self._pods.wait_synced()
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

    def _job_changed(self, body: Body, there: bool) -> None:
        self._enqueue(body["metadata"]["uid"])

    def _pod_changed(self, body: Body, there: bool) -> None:
        owner = _controller(body)
        if owner:
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
        if job is None:
            self._pods_of.pop(uid, None) if not pods else None
            for pod in pods:
                self._release(pod)
            return
        if job["spec"].get("managedBy") not in (None, "kubernetes.io/job-controller"):
            return
        ended = _ended(job)
        if ended is not None:
            for pod in pods:
                self._release(pod)
            self._expire(job, ended)
            return
        self._keep(job, pods)

    def _expire(self, job: Body, ended: str) -> None:
        seconds = job["spec"].get("ttlSecondsAfterFinished")
        if seconds is None or "deletionTimestamp" in job["metadata"]:
            return
        left = seconds - _seconds_since(ended)
        if left > 0:
            self._enqueue(job["metadata"]["uid"], left)
            return
        metadata = job["metadata"]
        self._kube.delete("jobs", metadata["name"], metadata["namespace"], policy="Foreground", uid=metadata["uid"])

    def _keep(self, job: Body, pods: list[Body]) -> None:
        """Bring pods and status of an unfinished Job in line."""
        spec, metadata = job["spec"], job["metadata"]
        status = {**job.get("status", {})}
        conditions = [dict(each) for each in status.get("conditions") or ()]
        suspended = bool(spec.get("suspend"))
        active = [pod for pod in pods if _active(pod)]
        ended = [pod for pod in pods if not _active(pod) and self._uncounted(pod)]
        policy = spec.get("podFailurePolicy")
        only_failed = spec.get("podReplacementPolicy") == "Failed" or policy is not None
        counted = [pod for pod in ended if _phase(pod) in ("Succeeded", "Failed") or not only_failed]
        succeeded = status.get("succeeded", 0) + sum(_phase(pod) == "Succeeded" for pod in counted)
        failures = [pod for pod in counted if _phase(pod) != "Succeeded"]
        judged = [_judged(policy, pod) for pod in failures]
        failed = status.get("failed", 0) + sum(action != "Ignore" for action, _ in judged)
        self._note_failures(metadata["uid"], failed)
        if not suspended and "startTime" not in status:
            status["startTime"] = _now()
            self._started[metadata["uid"]] = time.monotonic()
        elif suspended:
            self._started.pop(metadata["uid"], None)
        _suspend(conditions, status, suspended=suspended)

        target = _find(conditions, "FailureTarget") or self._failure(job, status, failed, judged, active)
        if target is not None:
            _set(conditions, target)
            self._delete(active)
            active = []
        elif suspended or self._complete(spec, succeeded, active, conditions):
            self._delete(active)
            active = []
        elif "deletionTimestamp" not in metadata:
            terminating = sum(map(_going, pods)) if only_failed else 0
            active = self._adjust(job, active, succeeded, failed, terminating)

        pods = [self._pods.get(pod["metadata"]["uid"]) or pod for pod in pods]
        terminating = sum(_going(pod) and _phase(pod) not in ("Succeeded", "Failed") for pod in pods)
        if target is not None and not active and not terminating:
            _set(conditions, {**target, "type": "Failed"})
        if (met := _find(conditions, "SuccessCriteriaMet")) is not None and not active and not terminating:
            _set(conditions, {**met, "type": "Complete"})
            status["completionTime"] = _now()
        ready = sum(_ready(pod) for pod in active)
        status |= {"conditions": conditions, "terminating": terminating, "ready": ready, "uncountedTerminatedPods": {}}
        for key, value in (("active", len(active)), ("succeeded", succeeded), ("failed", failed)):
            if value or key in status:
                status[key] = value or None
        self._write(job, status)
        self._counted |= {pod["metadata"]["uid"] for pod in counted}
        for pod in pods:
            if pod["metadata"]["uid"] in self._counted:
                self._release(pod)

    def _uncounted(self, pod: Body) -> bool:
        return TRACKING in (pod["metadata"].get("finalizers") or ()) and pod["metadata"]["uid"] not in self._counted

    def _note_failures(self, uid: str, failed: int) -> None:
        if failed != self._failed_at.get(uid, (0, 0.0))[0]:
            self._failed_at[uid] = failed, time.monotonic()

    def _failure(
        self, job: Body, status: Body, failed: int, judged: list[tuple[str, str]], active: list[Body]
    ) -> Body | None:  # fmt: skip
        """The condition that ends the Job, if there is reason for one."""
        spec = job["spec"]
        for action, message in judged:
            if action == "FailJob":
                return _condition("FailureTarget", "PodFailurePolicy", message)
        restarts = 0
        if spec["template"]["spec"].get("restartPolicy") == "OnFailure":
            restarts = sum(each.get("restartCount", 0) for pod in active for each in pod["status"].get("containerStatuses") or ())
        limit = spec.get("backoffLimit", 6)
        if failed > limit or (restarts and restarts >= max(limit, 1)):
            return _condition("FailureTarget", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
        deadline = spec.get("activeDeadlineSeconds")
        if deadline is not None and "startTime" in status and not spec.get("suspend"):
            left = deadline - self._active_seconds(job, status)
            if left <= 0:
                return _condition("FailureTarget", "DeadlineExceeded", "Job was active longer than specified deadline")
            self._enqueue(job["metadata"]["uid"], left)
        return None

    def _active_seconds(self, job: Body, status: Body) -> float:
        # startTime has whole seconds only; when this controller set it, it knows better.
        started = self._started.get(job["metadata"]["uid"])
        return _seconds_since(status["startTime"]) if started is None else time.monotonic() - started

    def _complete(self, spec: Body, succeeded: int, active: list[Body], conditions: list[Body]) -> bool:
        wanted = spec.get("completions")
        done = (succeeded > 0 and not active) if wanted is None else succeeded >= wanted
        if done:
            _set(conditions, _condition("SuccessCriteriaMet", "CompletionsReached", "Reached expected number of succeeded pods"))
        return done

    def _adjust(self, job: Body, active: list[Body], succeeded: int, failed: int, terminating: int) -> list[Body]:
        """Make or delete Pods until as many are active as are wanted; the active ones."""
        spec, uid = job["spec"], job["metadata"]["uid"]
        wanted, completions = spec.get("parallelism", 1), spec.get("completions")
        if completions is not None:
            wanted = min(wanted, completions - succeeded)
        elif succeeded:
            wanted = len(active)
        if len(active) > wanted:
            self._delete(active[wanted:])
            return active[:wanted]
        missing = wanted - len(active) - terminating
        if missing > 0 and failed:
            since = time.monotonic() - self._failed_at.get(uid, (0, 0.0))[1]
            wait = min(self._backoff_seconds * 2 ** (failed - 1), 360.0) - since
            if wait > 0:
                self._enqueue(uid, wait)
                return active
        return active + [self._create(job) for _ in range(max(missing, 0))]

    def _create(self, job: Body) -> Body:
        template, metadata = job["spec"]["template"], job["metadata"]
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": metadata["uid"],
                 "controller": True, "blockOwnerDeletion": True}  # fmt: skip
        about = template.get("metadata") or {}
        pod = self._kube.create({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "generateName": f"{metadata['name']}-",
                "labels": about.get("labels") or {},
                "annotations": about.get("annotations") or {},
                "ownerReferences": [owner],
                "finalizers": [TRACKING],
            },
            "spec": template["spec"],
        }, metadata["namespace"])  # fmt: skip
        self._pods.learn(pod)
        with self._wake:
            self._pods_of.setdefault(metadata["uid"], set()).add(pod["metadata"]["uid"])
        return pod

    def _delete(self, pods: list[Body]) -> None:
        for pod in pods:
            metadata = pod["metadata"]
            gone = self._kube.delete("pods", metadata["name"], metadata["namespace"], uid=metadata["uid"])
            if gone is not None and gone["kind"] == "Pod":
                self._pods.learn(gone)

    def _release(self, pod: Body) -> None:
        finalizers = pod["metadata"].get("finalizers") or []
        if TRACKING not in finalizers:
            return
        metadata = pod["metadata"]
        left = [each for each in finalizers if each != TRACKING]
        try:
            released = self._kube.patch(
                "pods", metadata["name"], {"metadata": {"uid": metadata["uid"], "finalizers": left}}, metadata["namespace"]
            )
            self._pods.learn(released)
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    def _collected(self, pod: Body) -> Body:
        """The Pod garbage collector's part: one that goes and never came to a node has no kubelet that would end it."""
        if not _going(pod) or pod["spec"].get("nodeName") or _phase(pod) in ("Succeeded", "Failed"):
            return pod
        metadata = pod["metadata"]
        failed = self._kube.patch_status("pods", metadata["name"], {"phase": "Failed"}, metadata["namespace"])
        self._pods.learn(failed)
        return failed

    def _write(self, job: Body, status: Body) -> None:
        before = job.get("status", {})
        change = {key: value for key, value in status.items() if before.get(key) != value}
        if not change:
            return
        metadata = job["metadata"]
        self._jobs.learn(self._kube.patch_status("jobs", metadata["name"], change, metadata["namespace"]))


def _controller(pod: Body) -> str:
    for owner in pod["metadata"].get("ownerReferences") or ():
        if owner.get("controller") and owner["kind"] == "Job":
            return str(owner["uid"])
    return ""


def _phase(pod: Body) -> str:
    return str((pod.get("status") or {}).get("phase", ""))


def _going(pod: Body) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def _active(pod: Body) -> bool:
    return _phase(pod) not in ("Succeeded", "Failed") and not _going(pod)


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
    moment = _now()
    return {"type": kind, "status": status, "lastProbeTime": moment, "lastTransitionTime": moment, "reason": reason,
            "message": message}  # fmt: skip


def _find(conditions: list[Body], kind: str) -> Body | None:
    return next((each for each in conditions if each["type"] == kind and each["status"] == "True"), None)


def _set(conditions: list[Body], condition: Body) -> None:
    for at, each in enumerate(conditions):
        if each["type"] == condition["type"]:
            if each["status"] != condition["status"]:
                conditions[at] = condition
            return
    conditions.append(condition)


def _suspend(conditions: list[Body], status: Body, *, suspended: bool) -> None:
    if suspended:
        if _find(conditions, "Suspended") is None:
            _set(conditions, _condition("Suspended", "JobSuspended", "Job suspended"))
        if "startTime" in status:
            status["startTime"] = None
    elif _find(conditions, "Suspended") is not None:
        _set(conditions, _condition("Suspended", "JobResumed", "Job resumed", "False"))
        status["startTime"] = _now()


def _judged(policy: Mapping[str, Any] | None, pod: Body) -> tuple[str, str]:
    """What the podFailurePolicy says of a failed Pod: the action, and the message of a FailJob."""
    place = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
    for at, rule in enumerate((policy or {}).get("rules") or ()):
        for each in pod["status"].get("conditions") or ():
            for wanted in rule.get("onPodConditions") or ():
                if each["type"] == wanted["type"] and each["status"] == wanted.get("status", "True"):
                    found = f"Pod {place} has condition {each['type']}"
                    return rule["action"], f"{found} matching {rule['action']} rule at index {at}"
        exit_codes = rule.get("onExitCodes")
        if exit_codes is None:
            continue
        for each in pod["status"].get("containerStatuses") or ():
            ended = (each.get("state") or {}).get("terminated")
            if not ended or ended["exitCode"] == 0 or exit_codes.get("containerName", each["name"]) != each["name"]:
                continue
            if (ended["exitCode"] in exit_codes["values"]) is (exit_codes["operator"] == "In"):
                return rule["action"], (f"Container {each['name']} for pod {place} failed with exit code {ended['exitCode']}"
                                        f" matching {rule['action']} rule at index {at}")  # fmt: skip
    return "Count", ""
