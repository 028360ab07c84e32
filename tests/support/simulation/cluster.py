"""The cluster as it really is: the Job controller, a scheduler and an autoscaler, nodes and their kubelets, and what they tell
the API server, late, by clocks of their own, or not at all.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any

from siorg_operator.decide.manifests import CONTAINER
from siorg_operator.decide.ports import ClusterError
from support.operator_values import at, rfc3339
from support.simulation.work import Worker

if TYPE_CHECKING:
    from support.simulation.world import Owner, World

Body = dict[str, Any]

_UNNOTICED_SECONDS = 40.0
"""For so long the node controller waits for a node that is silent."""
_TOLERATED_SECONDS = 300.0
"""And after so many more its pods are deleted."""
_GRACE = 30.0
_BACKOFF_SECONDS = 10.0


class Node:
    """A machine with its kubelet."""

    def __init__(self, world: World, name: str, ahead: float, slots: int) -> None:
        self.world = world
        self.name = name
        self.ahead = ahead
        self.slots = slots
        self.pods: set[Pod] = set()
        self.connected = True
        self.alive = True
        self.reaches_database = True
        self.marked = False
        """Whether the node controller has noticed its silence."""
        self.silences = 0
        self._untold: list[Callable[[], None]] = []

    def clock(self) -> str:
        return rfc3339(at(self.world.now + self.ahead))

    def tell(self, what: Callable[[], None]) -> None:
        """The kubelet writes to the API server, once it reaches it."""
        if self.connected:
            what()
        else:
            self._untold.append(what)

    def free(self) -> bool:
        return sum(pod.occupies for pod in self.pods) < self.slots

    # -- trouble --------------------------------------------------------------------------------------------------------

    def lose(self, *, dies: bool, database_too: bool) -> None:
        """It answers no more."""
        self.connected, self.alive, self.reaches_database = False, not dies, not (dies or database_too)
        self.silences += 1
        if dies:
            for pod in sorted(self.pods, key=lambda pod: pod.number):
                pod.node_died()
        self.world.after(_UNNOTICED_SECONDS, self._noticed, self.silences)

    def _noticed(self, silence: int) -> None:
        if self.connected or silence != self.silences:
            return
        self.marked = True
        moment = self.world.cluster.clock()
        for pod in self._all():
            if not pod.is_terminal:
                pod.ready, pod.was_lost = ("False", "", moment), True
                pod.publish()
        self.world.after(_TOLERATED_SECONDS, self._tolerated, silence)

    def _tolerated(self, silence: int) -> None:
        if not self.connected and silence == self.silences:
            for pod in self._all():
                pod.delete(disrupted=True)

    def back(self) -> None:
        """It answers again."""
        if self.connected or self not in self.world.cluster.nodes:
            return
        rebooted, self.connected, self.alive, self.reaches_database, self.marked = not self.alive, True, True, True, False
        self.silences += 1
        untold, self._untold = self._untold, []
        for what in untold:
            what()
        for pod in self._all():
            pod.node_returned(rebooted=rebooted)
        self.world.cluster.place_soon()

    def vanish(self) -> None:
        """The machine is taken away for good."""
        if self not in self.world.cluster.nodes:
            return
        self.connected = False
        self.world.cluster.nodes.remove(self)
        self.silences += 1
        for pod in self._all():
            pod.node_died()
            pod.collected()

    def _all(self) -> list[Pod]:
        return sorted(self.pods, key=lambda pod: pod.number)


class Pod:
    """One pod: what is true of it, and what the API server was told."""

    def __init__(self, job: Job, number: int) -> None:
        self.job, self.world, self.number = job, job.world, number
        self.name = f"{job.name}-{number}"
        self.node: Node | None = None
        self.worker: Worker | None = None
        self.has_begun = False
        self.stuck_image = False
        self.is_gone = False
        self.counted = False
        self.was_lost = False
        """Whether the node controller said that its node does not answer."""
        self.sidecar_lives = job.owner.demand.sidecar and self.world.pick.random() < 0.7
        # what the API server has
        self.phase = "Pending"
        self.scheduled: tuple[str, str, str] | None = None
        self.ready: tuple[str, str, str] | None = None
        self.disrupted = ""
        self.deleted = ""
        self.grace = 0.0
        self.state: Body = {}
        self.sidecar: Body = {}
        self.reason = ""
        self.running_since: float | None = None
        """Since when the API server has known that its worker runs."""
        self.created = self.world.api.moment()

    # -- what is true ---------------------------------------------------------------------------------------------------

    @property
    def node_reaches_database(self) -> bool:
        return self.node is not None and self.node.reaches_database

    @property
    def is_terminal(self) -> bool:
        return self.phase in {"Succeeded", "Failed"}

    @property
    def occupies(self) -> bool:
        return not self.is_gone and not self.is_terminal

    @property
    def reachable(self) -> bool:
        return self.node is None or self.node.connected

    @property
    def works(self) -> bool:
        """Its worker runs, on a node that answers, and nobody has told it to end."""
        worker = self.worker
        return worker is not None and worker.alive and not worker.stopping and self.reachable

    @property
    def can_begin(self) -> bool:
        if self.is_gone or self.is_terminal or self.deleted or self.has_begun or self.stuck_image or not self.reachable:
            return False
        return self.scheduled is not None or not self.world.on("no scheduler")

    # -- its way --------------------------------------------------------------------------------------------------------

    def assigned(self, node: Node) -> None:
        self.node = node
        node.pods.add(self)
        self.scheduled = ("True", "", self.world.api.moment())
        self.publish()
        self.world.after(self.world.pick.uniform(0.05, 0.5), self._taken)

    def _taken(self) -> None:
        node = self.node
        if self.is_gone or self.deleted or node is None or not node.connected or self.has_begun:
            return  # it hears of the pod when it is back
        if self.world.on("rejection") and self.world.pick.random() < 0.5:
            node.tell(lambda: self._end_as("Failed", "OutOfpods"))
            return
        node.tell(lambda: self._container({"waiting": {"reason": "ContainerCreating"}}))
        self.world.after(self.world.start_seconds(), self._create)

    def _create(self) -> None:
        node = self.node
        if self.is_gone or self.deleted or node is None or not node.alive or self.has_begun:
            return
        if self.world.on("image"):
            if not self.stuck_image:
                self.stuck_image = True
                node.tell(lambda: self._container({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}))
            self.world.after(30.0, self._create)
            return
        self.stuck_image, self.has_begun = False, True
        self.worker, moment = Worker(self), node.clock()
        self.world.tell(f"{self.name} runs")
        node.tell(lambda: self._begun(moment))

    def _begun(self, moment: str) -> None:
        if self.sidecar_lives:
            self.sidecar = {"running": {"startedAt": moment}}
        self.ready, self.running_since = ("True", "", moment), self.world.now
        self._container({"running": {"startedAt": moment}}, "Running")

    def worker_ended(self, code: int, message: str) -> None:
        """Of its own, or killed."""
        node = self.node
        assert node is not None
        self.world.tell(f"the worker of {self.name} ends: {code} {message}")
        if node.alive and not self.is_gone:
            moment = node.clock()
            self.world.after(self.world.pick.uniform(0.05, 1.0), node.tell, lambda: self._worker_told(code, message, moment))

    def _worker_told(self, code: int, message: str, moment: str) -> None:
        if self.is_gone or self.is_terminal:
            return
        running = self.state.get("running", {})
        reason = "Completed" if code == 0 else "Error"
        self.state = {"terminated": {"exitCode": code, "reason": reason, "message": message, "finishedAt": moment, **running}}
        self.running_since = None
        self.ready = ("False", "ContainersNotReady", moment)
        if self.sidecar and not self.deleted:
            self.publish()
        else:
            self._end_as("Succeeded" if code == 0 else "Failed")

    def _end_as(self, phase: str, reason: str = "") -> None:
        if self.is_gone or self.is_terminal:
            return
        self.phase, self.reason, self.sidecar = phase, reason, {}
        self.running_since = None
        self.publish()
        self.world.cluster.sync_soon(self.job)
        self.world.cluster.place_soon()
        if self.deleted:
            self.world.after(self.world.pick.uniform(0.1, 1.0), self.remove)

    def _container(self, state: Body, phase: str = "") -> None:
        if not self.is_gone and not self.is_terminal:
            self.state, self.phase = state, phase or self.phase
            self.publish()

    # -- its end --------------------------------------------------------------------------------------------------------

    def delete(self, *, disrupted: bool = False) -> None:
        """With grace: its kubelet ends it, once it hears of it."""
        if self.is_gone or self.deleted:
            return
        if disrupted and not self.disrupted:
            self.disrupted = self.world.api.moment()
        self.grace = _GRACE
        self.deleted = rfc3339(at(self.world.now + _GRACE))
        if self.is_terminal:
            self.remove()
        elif self.node is None:
            self._end_as("Failed")
        else:
            self.publish()
            self.world.cluster.sync_soon(self.job)
            self.world.after(self.world.pick.uniform(0.1, 1.0), self._told_to_end)

    def _told_to_end(self) -> None:
        node = self.node
        if self.is_gone or self.is_terminal or node is None or not node.connected:
            return
        if self.worker is not None and self.worker.alive:
            self.worker.stop()
        elif self.has_begun:
            self._end_as("Failed" if self._exit_code() else "Succeeded")
        else:
            self._end_as("Failed")

    def _exit_code(self) -> int:
        return int((self.state.get("terminated") or {}).get("exitCode", 137))

    def force(self) -> None:
        """Deleted without grace: gone from the API server at once, killed a moment later."""
        if self.is_gone:
            return
        if self.worker is not None:
            self.world.after(0.5, self.worker.die)
        if not self.is_terminal and not self.counted:
            self.counted = True
            self.job.failed += 1
            self.job.failed_at = self.world.now
        self.remove()

    def collected(self) -> None:
        """The pod garbage collector's part: its node is no more."""
        if not self.is_gone:
            self.disrupted = self.disrupted or self.world.api.moment()
            self.deleted = self.deleted or self.world.api.moment()
            self._end_as("Failed")
            self.world.after(0.5, self.remove)

    def remove(self) -> None:
        if not self.is_gone:
            self.is_gone = True
            if self.node is not None:
                self.node.pods.discard(self)
            self.world.api.drop("pods", self.name)
            self.world.cluster.sync_soon(self.job)
            self.world.cluster.place_soon()

    def node_died(self) -> None:
        if self.worker is not None:
            self.worker.die()

    def node_returned(self, *, rebooted: bool) -> None:
        if self.is_gone or self.is_terminal:
            return
        node = self.node
        assert node is not None
        if self.deleted:
            if rebooted and (self.worker is None or not self.worker.alive):
                self._end_as("Failed")
            else:
                self._told_to_end()
        elif rebooted and self.has_begun:
            moment = node.clock()
            self._worker_told(137, "", moment)
            self._end_as("Failed")
        elif self.has_begun:
            if self.worker is not None and self.worker.alive:
                self.ready = ("True", "", node.clock())
            self.publish()
            self.job.returned(self.world.api.version)
        else:
            self.ready = None
            self.publish()
            self.job.returned(self.world.api.version)
            self._taken()

    # -- what is told of it ---------------------------------------------------------------------------------------------

    def publish(self) -> None:
        if not self.is_gone:
            self.world.api.put("pods", self._body())

    def _body(self) -> Body:
        metadata: Body = {
            "name": self.name, "uid": f"uid of {self.name}", "creationTimestamp": self.created, "labels": self.job.pod_labels,
            "ownerReferences": [{"kind": "Job", "name": self.job.name, "uid": self.job.uid, "controller": True}],
        }  # fmt: skip
        if self.deleted:
            metadata |= {"deletionTimestamp": self.deleted, "deletionGracePeriodSeconds": self.grace}
        conditions: list[Body] = []
        for kind, condition in (("PodScheduled", self.scheduled), ("Ready", self.ready)):
            if condition is not None:
                status, reason, since = condition
                why = {"reason": reason, "message": f"{reason}: so it is"} if reason else {}
                conditions.append({"type": kind, "status": status, "lastTransitionTime": since, **why})
        if self.disrupted:
            conditions.append({"type": "DisruptionTarget", "status": "True", "lastTransitionTime": self.disrupted})
        containers = [{"name": CONTAINER, "state": self.state}] if self.state else []
        if self.sidecar:
            containers.append({"name": "sidecar", "state": self.sidecar})
        pod: Body = {"phase": self.phase, "conditions": conditions, "containerStatuses": containers}
        if self.reason:
            pod |= {"reason": self.reason, "message": "Pod was rejected"}
        return {"metadata": metadata, "status": pod}


class Job:
    """One Job."""

    def __init__(self, world: World, owner: Owner, manifest: Body, number: int) -> None:
        self.world, self.owner = world, owner
        self.name: str = manifest["metadata"]["name"]
        self.uid = f"uid {number}"
        self.manifest = manifest
        self.annotations: dict[str, str] = dict(manifest["metadata"].get("annotations") or {})
        self.pod_labels = manifest["spec"]["template"]["metadata"]["labels"]
        self.deadline = float(manifest["spec"]["activeDeadlineSeconds"])
        self.suspended = owner.demand.admitted is not None
        self.pods: list[Pod] = []
        self.made = world.now
        self.created = world.api.moment()
        self.started: float | None = None
        self.started_at = ""
        self.failed = 0
        self.failed_at = 0.0
        self.succeeded = 0
        self.target: Body | None = None
        self.finished: Body | None = None
        self.finished_at = 0.0
        self.is_gone = False
        self.ended_by_operator = False
        self.returns: list[tuple[int, float | None]] = []
        """Versions at which a pod of it came back from a lost node, and when the operator was shown that."""

    # -- what is true ---------------------------------------------------------------------------------------------------

    @property
    def works(self) -> bool:
        return any(pod.works for pod in self.pods)

    @property
    def is_capacity(self) -> bool:
        """Whether its worker works or can."""
        if self.works:
            return True
        if self.is_gone or self.finished or self.target is not None or self.ended_by_operator or self.succeeded:
            return False
        if self.suspended:
            return True
        live = [pod for pod in self.pods if not pod.is_gone and not pod.is_terminal]
        if live:
            return any(pod.can_begin for pod in live)
        return not self.world.on("quota") and all(pod.phase != "Succeeded" for pod in self.pods)

    def returned(self, version: int) -> None:
        """It was lost, and can work again."""
        self.returns.append((version, None))
        self.world.judge.job_returned(version, self)

    # -- what is told of it ---------------------------------------------------------------------------------------------

    def publish(self) -> None:
        if not self.is_gone:
            self.world.api.put("jobs", self.body())

    def body(self) -> Body:
        live = [pod for pod in self.pods if not pod.is_gone and not pod.is_terminal]
        metadata = self.manifest["metadata"]
        status: Body = {
            "active": sum(not pod.deleted for pod in live),
            "terminating": sum(bool(pod.deleted) for pod in live),
            "failed": self.failed,
        }
        conditions = []
        if self.suspended:
            conditions.append({"type": "Suspended", "status": "True", "lastTransitionTime": self.created})
        if self.target is not None:
            conditions.append(self.target)
        if self.finished is not None:
            conditions.append(self.finished)
            if self.finished["type"] == "Complete":
                status["completionTime"] = self.finished["lastTransitionTime"]
        status["conditions"] = conditions
        return {
            "metadata": {**metadata, "uid": self.uid, "creationTimestamp": self.created, "annotations": self.annotations},
            "spec": {"suspend": self.suspended, "activeDeadlineSeconds": self.deadline},
            "status": status,
        }


class Cluster:
    """Everything that runs."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.jobs: dict[str, Job] = {}
        """By name: those that are there."""
        self.nodes: list[Node] = []
        self._numbers = count(1)
        self._dirty: dict[Job, None] = {}
        self._placing = False
        self._growing = False
        for _ in range(world.settings.nodes):
            self._add_node()

    def clock(self) -> str:
        """Of the controller manager."""
        ahead = self.world.settings.manager_ahead + (400 * 86_400.0 if self.world.on("clock jumps") else 0.0)
        return rfc3339(at(self.world.now + ahead))

    def _add_node(self) -> None:
        number, settings = next(self._numbers), self.world.settings
        clocks = settings.node_clocks
        self.nodes.append(Node(self.world, f"node-{number}", clocks[number % len(clocks)], settings.pods_per_node))

    def all_pods(self) -> list[Pod]:
        return [pod for job in self.jobs.values() for pod in job.pods if not pod.is_gone]

    # -- requests -------------------------------------------------------------------------------------------------------

    def create_job(self, manifest: Body) -> Body:
        name = manifest["metadata"]["name"]
        if name in self.jobs:
            raise ClusterError(f'jobs.batch "{name}" already exists', 409)
        owner = self.world.owner(manifest["metadata"]["ownerReferences"][0]["uid"])
        job = self.jobs[name] = Job(self.world, owner, manifest, next(self._numbers))
        job.publish()
        self.world.judge.job_created(job)
        self.sync_soon(job)
        self.world.after(1.0, self.admit)
        return self.world.api.objects["jobs"][name]

    def patch_job(self, name: str, patch: Body) -> Body:
        job = self._of_name(name)
        if patch["metadata"]["uid"] != job.uid:
            raise ClusterError("field is immutable", 422)
        self.world.judge.job_ended_by_operator(job)
        self.world.tell(f"the operator ends {name}: {patch['metadata']['annotations']}")
        job.annotations = {**job.annotations, **patch["metadata"]["annotations"]}
        job.deadline, job.ended_by_operator = float(patch["spec"]["activeDeadlineSeconds"]), True
        job.publish()
        self.sync_soon(job)
        return self.world.api.objects["jobs"][name]

    def delete_job(self, name: str, preconditions: Body) -> Body:
        job = self._of_name(name)
        metadata = self.world.api.objects["jobs"][name]["metadata"]
        if any(metadata[key] != value for key, value in preconditions.items()):
            raise ClusterError("the precondition does not hold", 409)
        self.world.judge.job_removed_by_operator(job)
        self.remove_job(job)
        return {}

    def _of_name(self, name: str) -> Job:
        job = self.jobs.get(name)
        if job is None:
            raise ClusterError(f'jobs.batch "{name}" not found', 404)
        return job

    def remove_job(self, job: Job) -> None:
        """In the background: its pods go after it."""
        if job.is_gone:
            return
        job.is_gone = True
        del self.jobs[job.name]
        self.world.api.drop("jobs", job.name)
        for pod in job.pods:
            self.world.after(self.world.pick.uniform(0.1, 1.0), pod.delete)
        self.world.after(1.0, self.admit)

    # -- the Job controller ---------------------------------------------------------------------------------------------

    def sync_soon(self, job: Job) -> None:
        if job not in self._dirty:
            self._dirty[job] = None
            self.world.after(self.world.pick.uniform(0.02, 0.5), self._sync, job)

    def _sync(self, job: Job) -> None:
        if self.world.on("manager away"):
            self.world.after(5.0, self._sync, job)
            return
        self._dirty.pop(job, None)
        if job.is_gone or job.finished is not None:
            return
        judged = self._count(job)
        if job.suspended:
            job.started = None
        elif job.started is None:
            job.started = self.world.now
            self.world.after(job.deadline + 0.5, self.sync_soon, job)
        if job.target is None:
            job.target = self._target(job, fails=judged)
        live = [pod for pod in job.pods if not pod.is_gone and not pod.is_terminal]
        if job.target is not None or job.suspended:
            for pod in live:
                pod.delete()
        elif not live:
            self._replace(job)
        live = [pod for pod in job.pods if not pod.is_gone and not pod.is_terminal]
        if job.target is not None and not live:
            kind = "Complete" if job.target["type"] == "SuccessCriteriaMet" else "Failed"
            job.finished = {**job.target, "type": kind, "lastTransitionTime": self.clock()}
            job.finished_at = self.world.now
            self.world.tell(f"{job.name} is {kind}: {job.target['reason']}")
            self.world.after(job.owner.demand.job["ttlSecondsAfterFinished"], self._expire, job)
            self.world.after(1.0, self.admit)
            if job.target["reason"] == "DeadlineExceeded":
                for pod in job.pods:
                    pod.remove()
        job.publish()

    def _count(self, job: Job) -> bool:
        """Count the pods that have ended; whether one of them fails the Job by its exit code."""
        fails = False
        for pod in job.pods:
            if not pod.is_terminal or pod.counted:
                continue
            pod.counted = True
            code = (pod.state.get("terminated") or {}).get("exitCode")
            if pod.phase == "Succeeded":
                job.succeeded += 1
            elif pod.disrupted:
                pass
            elif code in {2, 75}:
                fails = True
            else:
                job.failed, job.failed_at = job.failed + 1, self.world.now
        return fails

    def _target(self, job: Job, *, fails: bool) -> Body | None:
        if fails:
            reason = "PodFailurePolicy"
        elif job.failed > job.owner.demand.job["backoffLimit"]:
            reason = "BackoffLimitExceeded"
        elif job.succeeded:
            return self._condition("SuccessCriteriaMet", "CompletionsReached")
        elif job.started is not None and self.world.now - job.started >= job.deadline:
            reason = "DeadlineExceeded"
        else:
            return None
        return self._condition("FailureTarget", reason)

    def _condition(self, kind: str, reason: str) -> Body:
        return {"type": kind, "status": "True", "reason": reason, "message": reason, "lastTransitionTime": self.clock()}

    def _replace(self, job: Job) -> None:
        if self.world.on("quota"):
            self.world.after(10.0, self.sync_soon, job)
            return
        left = job.failed_at + _BACKOFF_SECONDS * 2.0 ** (job.failed - 1) - self.world.now if job.failed else 0.0
        if left > 0:
            self.world.after(left + 0.1, self.sync_soon, job)
            return
        pod = Pod(job, next(self._numbers))
        comes_back = any(other.was_lost for other in job.pods)
        job.pods.append(pod)
        pod.publish()
        if comes_back:
            job.returned(self.world.api.version)
        self.place_soon()

    def _expire(self, job: Job) -> None:
        if self.world.on("manager away"):
            self.world.after(10.0, self._expire, job)
        else:
            self.remove_job(job)

    # -- admission ------------------------------------------------------------------------------------------------------

    def admit(self) -> None:
        """As Kueue does, the oldest first."""
        for owner in self.world.owners:
            room = owner.demand.admitted
            if room is None:
                continue
            jobs = [job for job in self.jobs.values() if job.owner is owner and job.finished is None]
            free = room - sum(not job.suspended for job in jobs)
            for job in [job for job in jobs if job.suspended][: max(free, 0)]:
                job.suspended = False
                job.publish()
                self.sync_soon(job)

    def readmit(self, job: Job) -> None:
        """Its admission is taken back."""
        if job.finished is None and job.target is None and not job.is_gone:
            job.suspended = True
            job.publish()
            self.sync_soon(job)
            self.world.after(30.0, self.admit)

    # -- the scheduler and the autoscaler -------------------------------------------------------------------------------

    def place_soon(self) -> None:
        if not self._placing:
            self._placing = True
            self.world.after(self.world.pick.uniform(0.05, 0.5), self._place)

    def _place(self) -> None:
        self._placing = False
        waiting = [pod for pod in self.all_pods() if pod.node is None and not pod.deleted and not pod.is_terminal]
        if not waiting:
            return
        if self.world.on("no scheduler"):
            self.world.after(5.0, self.place_soon)
            return
        for pod in waiting:
            node = next((node for node in self.nodes if not node.marked and node.free()), None)
            if node is not None:
                pod.assigned(node)
            elif pod.scheduled is None:
                pod.scheduled = ("False", "Unschedulable", self.world.api.moment())
                pod.publish()
                self._grow()

    def _grow(self) -> None:
        most = self.world.settings.most_nodes
        if not self._growing and (len(self.nodes) < most or self.world.is_calm):
            self._growing = True
            self.world.after(self.world.pick.uniform(60.0, 240.0), self._grown)

    def _grown(self) -> None:
        self._growing = False
        self._add_node()
        self.place_soon()
        self.world.after(1.0, self.grow_more)

    def grow_more(self) -> None:
        """Where pods wait for a node."""
        if any(pod.node is None for pod in self.all_pods()):
            self._grow()
