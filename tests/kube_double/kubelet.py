"""Stands for a node, as a client of the API: runs the containers of its Pods as real processes.

On a server without a scheduler it also does the scheduler's part, for this one node.
"""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from support.images import Waiting, full_name, never_pulled, pull_backed_off, pull_failed, refused_reference
from support.informer import Informer
from support.kube import ApiError, Body, Kube
from support.pod_environment import ConfigError, environment, expand

NODE = "siorg-test-node"
NODE_SELECTOR = {"siorg-test-node": "true"}
TOLERATIONS = [{"key": "siorg-test-node", "operator": "Exists", "effect": "NoSchedule"}]
"""What pods need that are meant for the node: on a real cluster it must not draw anybody else's."""
_MESSAGE_BYTES = 4096
_LOG_MESSAGE_BYTES = 2048
_HEARTBEAT_SECONDS = 8.0
_END_SECONDS = 5.0
_AGAIN_SECONDS = 0.2
_ALLOCATABLE = {"cpu": "64", "memory": "256Gi", "pods": "10000", "ephemeral-storage": "100Gi"}
_UNITS = {"m": 0.001, "": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def quantity(text: str | float) -> float:
    """A Kubernetes quantity as a number."""
    found = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(text))
    assert found is not None, f"no quantity: {text!r}"
    return float(found[1]) * _UNITS[found[2]]


@dataclass(frozen=True, slots=True)
class Running:
    """One container's process."""

    namespace: str
    pod: str
    container: str
    pid: int
    argv: tuple[str, ...]
    env: Mapping[str, str]
    started: float
    """By ``time.monotonic``."""
    labels: Mapping[str, str]


@dataclass(slots=True)
class _Container:
    """One container of a pod: what it is to be, and how it stands."""

    spec: Body
    process: subprocess.Popen[bytes] | None = None
    state: Body = field(default_factory=lambda: {"waiting": {"reason": "ContainerCreating"}})
    last_state: Body = field(default_factory=dict)
    restarts: int = 0
    again_at: float = 0.0
    """When to try (again) to start it."""
    pulls: int = 0
    started_at: str = ""
    termination_log: Path = Path()
    log: Path = Path()

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    @property
    def ended(self) -> Body | None:
        return self.state.get("terminated")

    def status(self) -> Body:
        running = "running" in self.state
        return {
            "name": self.name,
            "image": self.spec["image"],
            "imageID": f"test/{full_name(self.spec['image'])}" if running else "",
            "state": self.state,
            "lastState": self.last_state,
            "ready": running,
            "started": running,
            "restartCount": self.restarts,
        }


class Kubelet:
    """A node with its Pods, from entering the context until leaving it; then everything it started is ended.

    Args:
        kubeconfig: The API server.
        images: For each image that there is, the command that stands for its entry point. May be changed at any time.
        folder: Where output and termination messages go.
        schedule: Whether to bind Pods that have no node yet; leave it to the scheduler where there is one.
        namespace: Only Pods of this one: on a shared cluster several tests stand for the same node.
        start_seconds: How long a Pod takes from its binding to its first process; a number, or asked for each Pod.
        retry_seconds: How soon to try again what failed: pulling an image, reading a Secret, restarting a container.
        path: The PYTHONPATH beneath the Pod's own environment, as an image would have its programs.
        allocatable: What the node offers.
    """

    def __init__(
        self,
        kubeconfig: Path,
        images: Mapping[str, Sequence[str]],
        *,
        folder: Path | None = None,
        schedule: bool = True,
        namespace: str = "*",
        start_seconds: float | Callable[[Body], float] = 0.0,
        retry_seconds: float = 1.0,
        path: Sequence[str | Path] = (),
        allocatable: Mapping[str, str] | None = None,
    ) -> None:
        self.images = dict(images)
        self.start_seconds = start_seconds
        self._kube = Kube(kubeconfig, user_agent="kubelet")
        self._folder = folder or Path(tempfile.mkdtemp(prefix="kubelet-"))
        self._schedule = schedule
        self._retry_seconds = retry_seconds
        self._path = os.pathsep.join(map(str, path)) or os.environ.get("PYTHONPATH", "")
        self._allocatable = {"cpu": "64", "memory": "256Gi", "pods": "10000", "ephemeral-storage": "100Gi"} | dict(
            allocatable or {}
        )
        self._pods: dict[str, _Pod] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        fields = "" if schedule else f"spec.nodeName={NODE}"
        self._informer = Informer(self._kube, "pods", self._changed, fields=fields, namespace=namespace)
        self._heart = threading.Thread(target=self._beat, name="kubelet-heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._register()
        self._heart.start()
        self._informer.start()
        self._informer.wait_synced()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._stop.set()
        self._informer.stop()
        with self._lock:
            pods = list(self._pods.values())
        for pod in pods:
            pod.abandon()
        for pod in pods:
            pod.join()
        self._kube.close()

    # What tests ask

    def processes(self, namespace: str | None = None) -> list[Running]:
        """The processes that run now, oldest first."""
        with self._lock:
            pods = list(self._pods.values())
        found = [each for pod in pods for each in pod.running() if namespace in (None, each.namespace)]
        return sorted(found, key=lambda each: each.started)

    def logs(self, pod: str, container: str | None = None) -> str:
        """What the containers of a Pod (of the newest, if several had the name) wrote; also after the Pod is gone."""
        wanted = f"{pod}.{container or '*'}.log"
        return "".join(path.read_text(errors="replace") for path in sorted(self._folder.glob(wanted)))

    def all_logs(self) -> dict[str, str]:
        """What every container that ever ran here wrote, by pod.container."""
        return {path.stem: path.read_text(errors="replace") for path in sorted(self._folder.glob("*.log"))}

    # The node

    def _register(self) -> None:
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": NODE, "labels": {**NODE_SELECTOR, "kubernetes.io/hostname": NODE, "kubernetes.io/os": "linux"}},
            "spec": {"taints": [{"key": "siorg-test-node", "value": "true", "effect": "NoSchedule"}]},
        }
        try:
            self._kube.create(node)
        except ApiError as error:
            if error.status != 409:
                raise
            self._kube.patch("nodes", NODE, {"spec": node["spec"]})
        self._report()

    def _report(self) -> None:
        moment = _now()
        conditions = [
            {"type": kind, "status": status, "lastHeartbeatTime": moment, "lastTransitionTime": moment, "reason": reason,
             "message": message}
            for kind, status, reason, message in (
                ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
                ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
                ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
                ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            )
        ]  # fmt: skip
        info = {"kubeletVersion": "v1.36.2", "operatingSystem": "linux", "architecture": "amd64", "osImage": "test",
                "kernelVersion": "test", "containerRuntimeVersion": "process://1", "machineID": "", "systemUUID": "",
                "bootID": "", "kubeProxyVersion": ""}  # fmt: skip
        status = {"conditions": conditions, "capacity": self._allocatable, "allocatable": self._allocatable, "nodeInfo": info,
                  "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]}  # fmt: skip
        self._kube.patch_status("nodes", NODE, status)
        self._renew_lease()

    def _renew_lease(self) -> None:
        renewed = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": NODE, "leaseDurationSeconds": 40, "renewTime": renewed}
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": NODE}, "spec": spec}
        try:
            self._kube.patch("leases", NODE, {"spec": spec}, "kube-node-lease")
        except ApiError as error:
            if error.status != 404:
                raise
            self._kube.create(lease, "kube-node-lease")

    def _beat(self) -> None:
        while not self._stop.wait(_HEARTBEAT_SECONDS):
            with suppress(ApiError):
                try:
                    self._report()
                except ApiError as error:
                    if error.status == 404 and not self._stop.is_set():
                        self._register()

    # Pods come and go

    def _changed(self, body: Body, there: bool) -> None:
        uid = body["metadata"]["uid"]
        if self._stop.is_set():
            return
        with self._lock:
            pod = self._pods.get(uid)
        if pod is not None:
            pod.learn(body, there=there)
            return
        if not there or (body.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            return
        node = body["spec"].get("nodeName")
        if node == NODE:
            pod = _Pod(body, self._kube, self)
            with self._lock:
                self._pods[uid] = pod
            pod.start()
        elif not node and self._schedule and "deletionTimestamp" not in body["metadata"]:
            self._place(body)

    def forget(self, uid: str) -> None:
        """A Pod has ended for good."""
        with self._lock:
            self._pods.pop(uid, None)

    def _place(self, body: Body) -> None:
        """The scheduler's part: bind the Pod here, or say why not."""
        metadata = body["metadata"]
        why = self._unfit(body["spec"])
        path = self._kube.path("pods", metadata["namespace"], metadata["name"])
        try:
            if why is None:
                target = {"apiVersion": "v1", "kind": "Node", "name": NODE}
                self._kube.request("POST", f"{path}/binding", {"apiVersion": "v1", "kind": "Binding",
                                   "metadata": {"name": metadata["name"]}, "target": target})  # fmt: skip
                return
            conditions = (body.get("status") or {}).get("conditions") or []
            if any(each["type"] == "PodScheduled" and each.get("message") == why for each in conditions):
                return
            unfit = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why, "lastProbeTime": None,
                     "lastTransitionTime": _now()}  # fmt: skip
            self._kube.patch_status("pods", metadata["name"], {"conditions": [unfit]}, metadata["namespace"])
        except ApiError as error:
            if error.status not in (0, 404, 409):
                raise

    def _unfit(self, spec: Body) -> str | None:
        labels = NODE_SELECTOR | {"kubernetes.io/hostname": NODE, "kubernetes.io/os": "linux"}
        tail = " no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
        if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
            return f"0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.{tail}"
        for resource in ("cpu", "memory"):
            wanted = sum(
                quantity(((each.get("resources") or {}).get("requests") or {}).get(resource, 0)) for each in spec["containers"]
            )
            if wanted > quantity(self._allocatable[resource]):
                return f"0/1 nodes are available: 1 Insufficient {resource}.{tail}"
        return None

    # For one pod

    def delay(self, body: Body) -> float:
        return self.start_seconds(body) if callable(self.start_seconds) else self.start_seconds

    @property
    def retry_seconds(self) -> float:
        return self._retry_seconds

    def waiting_for_image(self, container: _Container) -> Waiting | None:
        """Why the container's image cannot be run; None when it can."""
        image = container.spec["image"]
        refused = refused_reference(image)
        if refused is not None:
            return refused
        if image in self.images:
            return None
        if container.spec.get("imagePullPolicy") == "Never":
            return never_pulled(image)
        container.pulls += 1
        return pull_failed(image) if container.pulls == 1 else pull_backed_off(image)

    def launch(self, body: Body, container: _Container) -> Running:
        """Start the container's process.

        Raises:
            ConfigError: Its environment cannot be made.
            ApiError: The API cannot say.
            OSError: The program cannot be run.
        """
        spec, metadata = container.spec, body["metadata"]
        own = environment(self._kube, body, spec, NODE)
        entry, tail = list(self.images[spec["image"]]), spec.get("args") or []
        argv = [*(spec.get("command") or entry), *tail]
        argv = [expand(str(each), own) for each in argv]
        stem = f"{metadata['name']}.{container.name}"
        container.log = self._folder / f"{stem}.log"
        container.termination_log = self._folder / f"{stem}.termination"
        container.termination_log.write_bytes(b"")
        home = self._folder / f"{stem}.home"
        home.mkdir(exist_ok=True)
        beneath = {"PATH": os.environ.get("PATH", ""), "HOME": str(home), "HOSTNAME": metadata["name"]}
        if self._path:
            beneath["PYTHONPATH"] = self._path
        env = beneath | own | {"WORKER_TERMINATION_LOG": str(container.termination_log)}
        with container.log.open("ab") as log:
            container.process = subprocess.Popen(
                argv, env=env, cwd=home, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        container.started_at = _now()
        container.state = {"running": {"startedAt": container.started_at}}
        return Running(metadata["namespace"], metadata["name"], container.name, container.process.pid, tuple(argv), env,
                       time.monotonic(), metadata.get("labels") or {})  # fmt: skip


class _Pod:
    """One pod on this node, in a thread of its own."""

    def __init__(self, body: Body, kube: Kube, kubelet: Kubelet) -> None:
        self._body, self._kube, self._kubelet = body, kube, kubelet
        self._containers = [_Container(spec) for spec in body["spec"]["containers"]]
        self._running: dict[str, Running] = {}
        self._wake = threading.Condition()
        self._gone = False
        self._abandoned = False
        self._changed = False
        self._stop_by: float | None = None
        self._said: Body = {}
        self._begun = _now()
        self._thread = threading.Thread(target=self._run, name=f"pod-{body['metadata']['name']}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join(_END_SECONDS)

    def running(self) -> list[Running]:
        with self._wake:
            return list(self._running.values())

    def learn(self, body: Body, *, there: bool) -> None:
        """The pod's object changed."""
        with self._wake:
            self._body = body
            self._gone = self._gone or not there
            self._changed = True
            self._wake.notify()

    def abandon(self) -> None:
        """The node goes down: kill everything, say nothing."""
        with self._wake:
            self._abandoned = self._changed = True
            self._wake.notify()

    # The thread

    def _run(self) -> None:
        begin = time.monotonic() + self._kubelet.delay(self._body)
        for container in self._containers:
            container.again_at = begin
        try:
            while not self._over():
                self._step()
                with self._wake:
                    if not self._changed:
                        self._wake.wait(self._pause())
                    self._changed = False
            self._kill()
            if not self._abandoned and not self._gone:
                self._finish()
        except ApiError as error:
            # The object is gone, or another one has its name.
            if error.status not in (0, 404, 409):
                raise
        finally:
            self._kill()
            if not self._abandoned:
                self._kubelet.forget(self._body["metadata"]["uid"])

    def _over(self) -> bool:
        if self._gone or self._abandoned:
            return True
        stopped = not any(container.process for container in self._containers)
        if "deletionTimestamp" in self._body["metadata"]:
            return stopped
        return all(self._settled(container) for container in self._containers) and self._told(self._status())

    def _settled(self, container: _Container) -> bool:
        ended = container.ended
        return ended is not None and not self._restarts(ended["exitCode"])

    def _restarts(self, code: int) -> bool:
        policy = self._body["spec"].get("restartPolicy", "Always")
        return policy == "Always" or (policy == "OnFailure" and code != 0)

    def _await(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        with self._wake:
            self._changed = True
            self._wake.notify()

    def _pause(self) -> float:
        """How long nothing will happen that neither the watch nor a process' end tells."""
        moments = [container.again_at for container in self._containers if not container.process and not self._settled(container)]
        if self._stop_by is not None:
            moments.append(self._stop_by)
        return min(max(min(moments, default=math.inf) - time.monotonic(), 0.01), 1.0)

    def _step(self) -> None:
        for container in self._containers:
            if container.process is not None:
                self._look_at(container)
        if "deletionTimestamp" in self._body["metadata"]:
            self._terminate()
        else:
            now = time.monotonic()
            for container in self._containers:
                if container.process is None and not self._settled(container) and container.again_at <= now:
                    self._try_to_start(container)
        self._told(self._status())

    def _try_to_start(self, container: _Container) -> None:
        waiting = self._kubelet.waiting_for_image(container)
        if waiting is None:
            try:
                if container.ended is not None:
                    container.restarts += 1
                    container.last_state = container.state
                running = self._kubelet.launch(self._body, container)
                with self._wake:
                    self._running[container.name] = running
                threading.Thread(target=self._await, args=(container.process,), daemon=True).start()
                return
            except ConfigError as error:
                waiting = Waiting("CreateContainerConfigError", str(error))
            except OSError as error:
                waiting = Waiting("RunContainerError", f"failed to start container: {error.strerror}: {error.filename}")
            except ApiError as error:
                if error.status in (401, 403):
                    waiting = Waiting("CreateContainerConfigError", error.message)
                else:
                    waiting = Waiting("ContainerCreating", "")
        container.again_at = time.monotonic() + self._kubelet.retry_seconds
        told = {"reason": waiting.reason} | ({"message": waiting.message} if waiting.message else {})
        container.state = {"waiting": told}

    def _look_at(self, container: _Container) -> None:
        process = container.process
        assert process is not None
        code = process.poll()
        if code is None:
            return
        with self._wake:
            self._running.pop(container.name, None)
        container.process = None
        code = 128 - code if code < 0 else code
        ended = {"exitCode": code, "reason": "Completed" if code == 0 else "Error", "startedAt": container.started_at,
                 "finishedAt": _now()}  # fmt: skip
        message = self._message(container, code)
        container.state = {"terminated": ended | ({"message": message} if message else {})}
        container.again_at = time.monotonic() + self._kubelet.retry_seconds * min(2**container.restarts, 64)

    def _message(self, container: _Container, code: int) -> str:
        said = container.termination_log.read_bytes()[:_MESSAGE_BYTES].decode(errors="replace")
        if not said and code and container.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            lines = container.log.read_bytes()[-_LOG_MESSAGE_BYTES:].decode(errors="replace").splitlines(keepends=True)
            said = "".join(lines[-80:])
        return said

    def _terminate(self) -> None:
        """SIGTERM once, SIGKILL when the grace is over."""
        if self._stop_by is None:
            grace = self._body["metadata"].get("deletionGracePeriodSeconds", 30)
            self._stop_by = time.monotonic() + grace
            self._signal(signal.SIGTERM)
        elif time.monotonic() >= self._stop_by:
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        for container in self._containers:
            if container.process is not None and container.process.poll() is None:
                container.process.send_signal(number)

    def _kill(self) -> None:
        for container in self._containers:
            if container.process is not None:
                if container.process.poll() is None:
                    # The whole session: what the process started goes with it, as a container would.
                    with suppress(ProcessLookupError):  # it ended this very moment
                        os.killpg(container.process.pid, signal.SIGKILL)
                container.process.wait(_END_SECONDS)
                if not self._abandoned:
                    self._look_at(container)
                container.process = None
        with self._wake:
            self._running.clear()

    def _finish(self) -> None:
        """Say how it ended; if it was deleted, let its object go. The API may be away meanwhile."""
        metadata = self._body["metadata"]
        while not (self._gone or self._abandoned):
            told = self._told(self._status())
            try:
                if told and "deletionTimestamp" in self._body["metadata"]:
                    self._kube.delete("pods", metadata["name"], metadata["namespace"], grace=0, uid=metadata["uid"])
                if told:
                    return
            except ApiError as error:
                if error.status in (404, 409):
                    return
            with self._wake:
                self._wake.wait(_AGAIN_SECONDS)

    # What is told

    def _status(self) -> Body:
        containers = [container.status() for container in self._containers]
        phase = self._phase()
        ready = bool(containers) and all(each["ready"] for each in containers)
        conditions = [
            self._condition("PodReadyToStartContainers", value=phase not in ("Succeeded", "Failed")),
            self._condition("Initialized", value=True, done=phase == "Succeeded"),
            self._condition("Ready", value=ready, done=phase == "Succeeded"),
            self._condition("ContainersReady", value=ready, done=phase == "Succeeded"),
            self._condition("PodScheduled", value=True),
        ]
        kept = [each for each in (self._body.get("status") or {}).get("conditions") or () if each["type"] == "DisruptionTarget"]
        return {"phase": phase, "startTime": self._begun, "hostIP": "127.0.0.1", "hostIPs": [{"ip": "127.0.0.1"}],
                "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}], "conditions": conditions + kept,
                "containerStatuses": containers}  # fmt: skip

    def _phase(self) -> str:
        ended = [container.ended for container in self._containers]
        stopping = "deletionTimestamp" in self._body["metadata"]
        if all(each is not None and (stopping or not self._restarts(each["exitCode"])) for each in ended):
            return "Succeeded" if all(each is not None and each["exitCode"] == 0 for each in ended) else "Failed"
        started = any(container.process or container.ended or container.restarts for container in self._containers)
        if stopping and not started:
            return "Failed"
        return "Running" if started else "Pending"

    def _condition(self, kind: str, *, value: bool, done: bool = False) -> Body:
        status = "True" if value else "False"
        before = next((each for each in self._said.get("conditions") or () if each["type"] == kind), None)
        since = before["lastTransitionTime"] if before is not None and before["status"] == status else _now()
        condition = {"type": kind, "status": status, "lastProbeTime": None, "lastTransitionTime": since}
        if done:
            condition["reason"] = "PodCompleted"
        elif not value and kind in ("Ready", "ContainersReady"):
            names = " ".join(container.name for container in self._containers if "running" not in container.state)
            condition |= {"reason": "ContainersNotReady", "message": f"containers with unready status: [{names}]"}
        return condition

    def _told(self, status: Body) -> bool:
        """Whether the API knows this status; tells it if not."""
        if status == self._said:
            return True
        metadata = self._body["metadata"]
        change = {"metadata": {"uid": metadata["uid"]}, "status": status}
        try:
            self._kube.patch("pods", metadata["name"], change, metadata["namespace"], subresource="status")
        except ApiError as error:
            if error.status in (404, 409):
                raise
            return False
        self._said = status
        return True
