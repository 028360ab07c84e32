"""Stands for a node, as a client of the API: runs the first container of each of its Pods as a real process.

Those beside it are sidecars: nothing runs for them, and they go on until the Pod is ended.

On a server without a scheduler it also does the scheduler's part, for this one node. Containers are not restarted: what
runs for us has the restartPolicy Never.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeAlias

from kube_double.informer import Informer
from kube_double.pod_environment import ConfigError, environment, expand
from kube_double.store import now
from support.kube import ApiError, Body, Kube

NODE = "siorg-test-node"
NODE_SELECTOR = {"siorg-test-node": "true"}
TOLERATIONS = [{"key": "siorg-test-node", "operator": "Exists", "effect": "NoSchedule"}]
"""What pods need that are meant for the node: on a real cluster it must not draw anybody else's."""
_MESSAGE_BYTES = 4096
_LOG_MESSAGE_BYTES = 2048
_HEARTBEAT_SECONDS = 8.0
_END_SECONDS = 5.0
_AGAIN_SECONDS = 0.2
_NOT_YET: Body = {"waiting": {"reason": "ContainerCreating"}}
_ALLOCATABLE = {"cpu": "64", "memory": "256Gi", "pods": "10000", "ephemeral-storage": "100Gi"}
_UNFIT = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."


class Process(Protocol):
    """Of ``subprocess.Popen``, what is used here."""

    pid: int

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, number: int, /) -> None: ...


Program: TypeAlias = Callable[[Sequence[str], Mapping[str, str], Path, Path], Process]
"""Starts a process that leads a session of its own, given its arguments, environment, folder and the file for its output."""
Images: TypeAlias = Mapping[str, Sequence[str] | Program]
"""For each image the command or the program that stands for its entry point."""


@dataclass(frozen=True, slots=True)
class Running:
    """One pod's process."""

    namespace: str
    pod: str
    pid: int
    started: float
    """By ``time.monotonic``."""
    labels: Mapping[str, str]


class Kubelet:
    """A node with its Pods, from entering the context until leaving it; then everything it started is ended.

    Args:
        kubeconfig: The API server.
        images: Those that there are. May be changed at any time.
        folder: Where output and termination messages go.
        schedule: Whether to bind Pods that have no node yet; leave it to the scheduler where there is one.
        namespace: Only Pods of this one: on a shared cluster several tests stand for the same node.
    """

    def __init__(
        self, kubeconfig: Path, images: Images, folder: Path, *, schedule: bool = True, namespace: str = "*"
    ) -> None:  # fmt: skip
        self.images: dict[str, Sequence[str] | Program] = dict(images)
        self.kube = Kube(kubeconfig, user_agent="kubelet")
        self.folder = folder
        self._schedule = schedule
        self._pods: dict[str, _Pod] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        fields = "" if schedule else f"spec.nodeName={NODE}"
        self._informer = Informer(self.kube, "pods", self._changed, fields=fields, namespace=namespace)
        self._heart = threading.Thread(target=self._beat, name="kubelet-heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
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
            pod.thread.join(_END_SECONDS)
        self.kube.close()

    # What tests ask

    def processes(self, namespace: str | None = None) -> list[Running]:
        """The processes that run now, oldest first."""
        with self._lock:
            found = [pod.running for pod in self._pods.values()]
        there = [each for each in found if each is not None and namespace in (None, each.namespace)]
        return sorted(there, key=lambda each: each.started)

    def logs(self, pod: str) -> str:
        """What a Pod (the newest, if several had the name) wrote; also after it is gone."""
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob(f"{pod}.log")))

    def all_logs(self) -> dict[str, str]:
        """What every Pod that ever ran here wrote, by its name."""
        return {path.stem: path.read_text(errors="replace") for path in sorted(self.folder.glob("*.log"))}

    # The node

    def _register(self) -> None:
        spec = {"taints": [{"key": "siorg-test-node", "value": "true", "effect": "NoSchedule"}]}
        labels = {**NODE_SELECTOR, "kubernetes.io/hostname": NODE, "kubernetes.io/os": "linux"}
        try:
            self.kube.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE, "labels": labels}, "spec": spec})
        except ApiError as error:
            if error.status != 409:
                raise
            self.kube.patch("nodes", NODE, {"spec": spec})
        self._report()

    def _report(self) -> None:
        moment = now()
        about = {"lastHeartbeatTime": moment, "lastTransitionTime": moment, "message": ""}
        conditions = [{"type": "Ready", "status": "True", "reason": "KubeletReady", **about}]
        conditions += [{"type": f"{what}Pressure", "status": "False", "reason": "KubeletHasSufficient", **about}
                       for what in ("Memory", "Disk", "PID")]  # fmt: skip
        self.kube.patch_status("nodes", NODE, {"conditions": conditions, "capacity": _ALLOCATABLE, "allocatable": _ALLOCATABLE})
        renewed = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": NODE, "leaseDurationSeconds": 40, "renewTime": renewed}
        try:
            self.kube.patch("leases", NODE, {"spec": spec}, "kube-node-lease")
        except ApiError as error:
            if error.status != 404:
                raise
            lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": NODE}, "spec": spec}
            self.kube.create(lease, "kube-node-lease")

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
            pod = _Pod(body, self)
            with self._lock:
                self._pods[uid] = pod
            pod.thread.start()
        elif not node and self._schedule and "deletionTimestamp" not in body["metadata"]:
            self._place(body)

    def forget(self, uid: str) -> None:
        with self._lock:
            self._pods.pop(uid, None)

    def _place(self, body: Body) -> None:
        """The scheduler's part: bind the Pod here, or say why not."""
        name, namespace = body["metadata"]["name"], body["metadata"]["namespace"]
        fits = (body["spec"].get("nodeSelector") or {}).items() <= NODE_SELECTOR.items()
        conditions = (body.get("status") or {}).get("conditions") or []
        try:
            if fits:
                target = {"apiVersion": "v1", "kind": "Node", "name": NODE}
                binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
                self.kube.request("POST", self.kube.path("pods", namespace, name, "binding"), binding)
            elif not any(each["type"] == "PodScheduled" for each in conditions):
                unfit = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": _UNFIT,
                         "lastTransitionTime": now()}  # fmt: skip
                self.kube.patch_status("pods", name, {"conditions": [unfit]}, namespace)
        except ApiError as error:
            if error.status not in (0, 404, 409, 422):
                raise


class _Pod:
    """One pod on this node, in a thread of its own."""

    def __init__(self, body: Body, kubelet: Kubelet) -> None:
        self.running: Running | None = None
        self.thread = threading.Thread(target=self._run, name=f"pod-{body['metadata']['name']}", daemon=True)
        self._body, self._kubelet, self._kube = body, kubelet, kubelet.kube
        self._container, *others = body["spec"]["containers"]
        self._sidecars = {each["name"]: _NOT_YET for each in others}
        self._process: Process | None = None
        self._state: Body = _NOT_YET
        self._again_at = 0.0
        self._pulls = 0
        self._started_at = ""
        self._log = kubelet.folder / f"{body['metadata']['name']}.log"
        self._termination_log = self._log.with_suffix(".termination")
        self._wake = threading.Condition()
        self._gone = self._abandoned = self._changed = False
        self._stop_by: float | None = None
        self._said: Body = {}
        self._begun = now()

    def learn(self, body: Body, *, there: bool) -> None:
        with self._wake:
            self._body = body
            self._gone = self._gone or not there
            self._notify()

    def abandon(self) -> None:
        """The node goes down: kill everything, say nothing."""
        with self._wake:
            self._abandoned = True
            self._notify()

    def _notify(self) -> None:
        with self._wake:
            self._changed = True
            self._wake.notify()

    # The thread

    def _run(self) -> None:
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
            if error.status not in (0, 404, 409, 422):
                raise
        finally:
            self._kill()
            if not self._abandoned:
                self._kubelet.forget(self._body["metadata"]["uid"])

    @property
    def _going(self) -> bool:
        return "deletionTimestamp" in self._body["metadata"]

    @property
    def _ended(self) -> Body | None:
        return self._state.get("terminated")

    def _over(self) -> bool:
        if self._gone or self._abandoned:
            return True
        return self._process is None if self._going else self._ended is not None and not self._sidecars and self._told()

    def _pause(self) -> float:
        """How long nothing will happen that neither the watch nor the process' end tells."""
        waits = self._process is None and self._ended is None
        moments = [self._again_at] if waits else [] if self._stop_by is None else [self._stop_by]
        return min(max(min(moments, default=float("inf")) - time.monotonic(), 0.01), 1.0)

    def _step(self) -> None:
        self._look()
        if self._going:
            self._terminate()
        elif self._process is None and self._ended is None and self._again_at <= time.monotonic():
            self._try_to_start()
        self._told()

    def _try_to_start(self) -> None:
        try:
            waiting = self._waits_for_image()
            if waiting is None:
                self._launch()
                return
        except ConfigError as error:
            waiting = {"reason": "CreateContainerConfigError", "message": str(error)}
        except OSError as error:
            message = f"failed to start container: {error.strerror}: {error.filename}"
            waiting = {"reason": "RunContainerError", "message": message}
        except ApiError:
            waiting = {"reason": "ContainerCreating"}
        self._again_at = time.monotonic() + _AGAIN_SECONDS
        self._state = {"waiting": waiting}

    def _waits_for_image(self) -> Body | None:
        """Why the image cannot be run; None when it can."""
        image = self._container["image"]
        if image in self._kubelet.images:
            return None
        if self._container.get("imagePullPolicy") == "Never":
            message = f'Container image "{image}" is not present with pull policy of Never'
            return {"reason": "ErrImageNeverPull", "message": message}
        self._pulls += 1
        failed = f'failed to pull and unpack image "{image}": failed to resolve image: {image}: not found'
        if self._pulls == 1:
            return {"reason": "ErrImagePull", "message": failed}
        return {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{image}": ErrImagePull: {failed}'}

    def _launch(self) -> None:
        """Start the process.

        Raises:
            ConfigError: Its environment cannot be made.
            ApiError: The API cannot say.
            OSError: The program cannot be run.
        """
        container, metadata = self._container, self._body["metadata"]
        own = environment(self._kube, self._body, container)
        command, arguments = ([expand(str(each), own) for each in container.get(key) or ()] for key in ("command", "args"))
        entry = command or self._kubelet.images[container["image"]]
        start = entry if callable(entry) else partial(_started, entry)
        self._termination_log.write_bytes(b"")
        home = self._log.with_suffix(".home")
        home.mkdir(exist_ok=True)
        beneath = {"PATH": os.environ.get("PATH", ""), "HOME": str(home), "HOSTNAME": metadata["name"]}
        if path := os.environ.get("PYTHONPATH"):
            beneath["PYTHONPATH"] = path  # as an image would have its programs
        env = beneath | own | {"WORKER_TERMINATION_LOG": str(self._termination_log)}
        self._log.touch()  # one that is forked may not have begun to write when it is looked at
        process = start(arguments, env, home, self._log)
        self._process, self._started_at = process, now()
        self._state = {"running": {"startedAt": self._started_at}}
        self._sidecars = dict.fromkeys(self._sidecars, self._state)
        self.running = Running(
            metadata["namespace"], metadata["name"], process.pid, time.monotonic(), metadata.get("labels") or {}
        )
        threading.Thread(target=self._await, args=(process,), daemon=True).start()

    def _await(self, process: Process) -> None:
        process.wait()
        self._notify()

    def _look(self) -> None:
        if self._process is None or (code := self._process.poll()) is None:
            return
        self.running = self._process = None
        code = 128 - code if code < 0 else code
        message = self._termination_log.read_bytes()[:_MESSAGE_BYTES].decode(errors="replace")
        if not message and code and self._container.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            lines = self._log.read_bytes()[-_LOG_MESSAGE_BYTES:].decode(errors="replace").splitlines(keepends=True)
            message = "".join(lines[-80:])
        ended = {"exitCode": code, "reason": "Error" if code else "Completed", "startedAt": self._started_at, "finishedAt": now()}
        self._state = {"terminated": ended | ({"message": message} if message else {})}

    def _terminate(self) -> None:
        """SIGTERM once, SIGKILL when the grace is over."""
        if self._process is None:
            return
        if self._stop_by is None:
            self._stop_by = time.monotonic() + self._body["metadata"].get("deletionGracePeriodSeconds", 30)
            self._process.send_signal(signal.SIGTERM)
        elif time.monotonic() >= self._stop_by:
            self._process.send_signal(signal.SIGKILL)

    def _kill(self) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            # The whole session: what the process started goes with it, as a container would.
            with suppress(ProcessLookupError):  # it ended this very moment, or does not lead its session yet
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(_END_SECONDS)
        self._look()

    def _finish(self) -> None:
        """Say how it ended; if it was deleted, let its object go. The API may be away meanwhile."""
        metadata, over = self._body["metadata"], {"exitCode": 0, "reason": "Completed", "finishedAt": now()}
        self._sidecars = {name: {"terminated": over} for name in self._sidecars}
        while not (self._gone or self._abandoned):
            with suppress(ApiError):
                if self._told():
                    if self._going:
                        self._kube.delete("pods", metadata["name"], metadata["namespace"], grace=0, uid=metadata["uid"])
                    return
            with self._wake:
                self._wake.wait(_AGAIN_SECONDS)

    # What is told

    def _status(self) -> Body:
        ended, is_running = self._ended, "running" in self._state
        states = {self._container["name"]: self._state, **self._sidecars}
        if any("running" in state for state in states.values()):
            phase = "Running"
        elif ended is not None:
            phase = "Failed" if ended["exitCode"] else "Succeeded"
        else:
            phase = "Failed" if self._going else "Pending"
        kept = [each for each in (self._body.get("status") or {}).get("conditions") or () if each["type"] == "DisruptionTarget"]
        conditions = [self._condition("Ready", value=is_running), self._condition("PodScheduled", value=True), *kept]
        about = {"image": self._container["image"], "imageID": "", "restartCount": 0}
        containers = [
            {"name": name, **about, "state": state, "ready": "running" in state, "started": "running" in state}
            for name, state in states.items()
        ]
        return {"phase": phase, "startTime": self._begun, "conditions": conditions, "containerStatuses": containers}

    def _condition(self, kind: str, *, value: bool) -> Body:
        status = "True" if value else "False"
        before = next((each for each in self._said.get("conditions") or () if each["type"] == kind), None)
        since = before["lastTransitionTime"] if before is not None and before["status"] == status else now()
        why = {"reason": "ContainersNotReady"} if kind == "Ready" and not value else {}
        return {"type": kind, "status": status, "lastTransitionTime": since, **why}

    def _told(self) -> bool:
        """Whether the API knows how the pod stands; tells it if not."""
        status, metadata = self._status(), self._body["metadata"]
        if status == self._said:
            return True
        change = {"metadata": {"uid": metadata["uid"]}, "status": status}
        try:
            self._kube.patch("pods", metadata["name"], change, metadata["namespace"], subresource="status")
        except ApiError as error:
            if error.status in (404, 409, 422):
                raise
            return False
        self._said = status
        return True


def _started(
    command: Sequence[str], arguments: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path
) -> subprocess.Popen[bytes]:
    with log.open("ab") as out:
        return subprocess.Popen(
            [*command, *arguments], env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
