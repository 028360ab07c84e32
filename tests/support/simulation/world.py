"""One world, from its beginning to its end: hours of trouble, then one of calm in which everything has to come right."""

from __future__ import annotations

import asyncio
import base64
import logging
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from siorg_operator.api.resource import PLURAL
from siorg_operator.cluster.fingerprint import KEY_SECRET
from support.fake_cluster import NO_CRON_JOBS
from support.operator_values import body
from support.simulation.api_server import ApiServer
from support.simulation.cluster import Cluster, Pod
from support.simulation.judge import Judge
from support.simulation.operators import PROCESS, OperatorProcess, in_virtual_time
from support.simulation.settings import HOUR, Demand, Settings, settings
from support.simulation.virtual_time import VirtualTimeLoop
from support.simulation.work import DatabaseServer, Queue

_LASTS: dict[str, tuple[float, float]] = {
    "image": (30, 900), "no scheduler": (30, 900), "quota": (30, 1800), "rejection": (30, 300), "crashes": (60, 900),
    "manager away": (20, 300), "API slow": (60, 600), "API fails": (60, 600), "API away": (20, 300), "jobs lag": (60, 600),
    "pods lag": (60, 600), "jobs silent": (30, 600), "pods silent": (30, 600), "siorgsyncworkers silent": (30, 600),
    "SIORG away": (60, 5000), "database away": (20, 1200), "clock jumps": (1, 20),
}  # fmt: skip
"""Troubles that last, and for how many seconds."""
_DISTURBS = ("API", "jobs", "pods", "siorgsyncworkers", "manager")
_SETTLED_SECONDS = 60.0

Tell: TypeAlias = Callable[[str], None]


class Owner:
    """A resource, with its queue."""

    def __init__(self, world: World, demand: Demand) -> None:
        self.world = world
        self.demand = demand
        self.name = demand.name
        self.uid = f"uid of {demand.name}"
        self.queue = Queue(world, demand)
        self.generation = 1
        labels = {"kueue.x-k8s.io/queue-name": "siorg"} if demand.admitted is not None else {}
        self.spec: dict[str, Any] = body(
            scaling=demand.scaling, job={**demand.job, "podTemplate": {"metadata": {"labels": labels}}},
            siorg={"maxRequestsPerSecond": 0}, **NO_CRON_JOBS,
        )["spec"]  # fmt: skip
        self.spec["database"] = {"urlSecretRef": {"name": self.name}}
        self.most_ever = self.max_jobs

    @property
    def max_jobs(self) -> int:
        return int(self.spec["scaling"]["maxJobs"])

    @property
    def url(self) -> str:
        return f"postgresql://siorg:secret@db:5432/{self.name}"

    def write(self) -> None:
        """As a person applies it."""
        there = self.world.api.objects[PLURAL].get(self.name, {})
        metadata = {"name": self.name, "namespace": "sync", "uid": self.uid, "generation": self.generation}
        self.world.api.put(PLURAL, {"metadata": metadata, "spec": self.spec, "status": there.get("status") or {}})

    def edit(self, **spec: Any) -> None:
        self.generation += 1
        self.spec = {**self.spec, **spec}
        self.most_ever = max(self.most_ever, self.max_jobs)
        self.write()


class World:
    """Everything, and how it goes wrong."""

    def __init__(self, drawn: Settings, events: VirtualTimeLoop, *, tell: Tell | None) -> None:
        self.settings = drawn
        self._tell = tell
        self.pick = random.Random(drawn.seed)
        self.is_calm = False
        self.leader: OperatorProcess | None = None
        self._events = events
        self._on: Counter[str] = Counter()
        self._processes: list[OperatorProcess] = []
        self._tasks: dict[OperatorProcess, set[asyncio.Task[Any]]] = {}
        self.judge = Judge(self)
        self.api = ApiServer(self)
        self.database = DatabaseServer(self)
        self.cluster = Cluster(self)
        self.owners = [Owner(self, demand) for demand in drawn.demands]

    # -- for everybody in it --------------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Seconds from the beginning."""
        return self._events.time()

    def after(self, seconds: float, what: Callable[..., object], *arguments: Any) -> asyncio.TimerHandle:
        return self._events.call_later(max(seconds, 0.0), what, *arguments)

    def at(self, moment: float, what: Callable[..., object], *arguments: Any) -> asyncio.TimerHandle:
        return self._events.call_at(moment, what, *arguments)

    def on(self, trouble: str) -> bool:
        """Whether it is there now."""
        return self._on[trouble] > 0

    def is_silent(self, kind: str) -> bool:
        """Whether nothing is heard of objects of a kind."""
        return self.on(f"{kind} silent")

    batch = 20
    """Items that a worker claims at once."""

    def start_seconds(self) -> float:
        """That a container takes to start."""
        return self.pick.uniform(0.5, self.settings.start_seconds)

    def item_seconds(self, demand: Demand) -> float:
        """That a worker takes for one item."""
        return demand.item_seconds

    def kills(self) -> bool:
        """Whether a worker dies of what it has claimed now."""
        return self.on("crashes") and self.pick.random() < 0.3

    @property
    def undisturbed(self) -> bool:
        """Whether the operator is there, has been for a while, and what it hears and asks is heard and answered."""
        leads = self.leader is not None and self.leader.may_write and self.now - self.leader.began > _SETTLED_SECONDS
        return leads and not any(count and name.startswith(_DISTURBS) for name, count in self._on.items())

    def tell(self, what: str) -> None:
        """A line of its story."""
        if self._tell is not None:
            self._tell(f"{self.now:9.1f}  {what}")

    def owner(self, uid: str) -> Owner:
        return next(owner for owner in self.owners if owner.uid == uid)

    def queue_behind(self, url: str) -> Queue:
        return next(owner.queue for owner in self.owners if owner.url == url)

    # -- its life -------------------------------------------------------------------------------------------------------

    async def live(self) -> None:
        """Until its end."""
        self.begin()
        await asyncio.sleep(self.settings.calm_at)
        self._calm()
        left = self.settings.hours * HOUR - self.now
        await asyncio.sleep(left / 2)
        for owner in self.owners:
            owner.queue.arrive(min(owner.spec["scaling"]["itemsPerJob"] * owner.max_jobs, 200))
        await asyncio.sleep(left / 4)
        self.judge.calm_is_kept()
        await asyncio.sleep(left / 4)
        self.judge.calm_is_kept()
        await self.end()

    async def end(self) -> None:
        """Stop whoever acts in it."""
        for process in self._processes:
            self._kill(process)
        await asyncio.sleep(1.0)

    def begin(self) -> None:
        """Put everything in its place."""
        self._events.set_task_factory(self._task)
        key = base64.b64encode(bytes(range(32))).decode()
        self.api.put("secrets", {"metadata": {"name": KEY_SECRET}, "data": {"key": key}})
        for owner in self.owners:
            secret = {"metadata": {"name": owner.name}, "data": {"DATABASE_URL": base64.b64encode(owner.url.encode()).decode()}}
            self.api.put("secrets", secret)
            owner.write()
            if owner.demand.burst:
                self.after(self.pick.uniform(0, 60), self._arrive, owner)
        self.judge.begin()
        self._lead()
        for name, gap in self.settings.troubles.items():
            self.after(self.pick.expovariate(1 / gap), self._trouble, name, gap)

    def _arrive(self, owner: Owner) -> None:
        if not self.is_calm:
            items = self.pick.randint(1, owner.demand.burst)
            self.tell(f"{owner.name}: {items} items arrive")
            owner.queue.arrive(items)
            self.after(self.pick.expovariate(1 / owner.demand.burst_every), self._arrive, owner)

    def _calm(self) -> None:
        self.tell("calm")
        if self._on["SIORG away"]:
            self._on["SIORG away"] = 1
            self._siorg_back()
        self._on.clear()
        self.is_calm = True
        self.cluster.grow_more()
        for node in list(self.cluster.nodes):
            node.back()
        for process in self._leading():
            for watch in process.watches.values():
                watch.list_anew()
        for owner in self.owners:
            if owner.spec.get("suspend"):
                owner.edit(suspend=False)

    # -- processes of the operator --------------------------------------------------------------------------------------

    def _task(self, events: asyncio.AbstractEventLoop, work: Any, **more: Any) -> asyncio.Task[Any]:
        task = asyncio.Task(work, loop=events, **more)
        if (process := PROCESS.get()) is not None:
            tasks = self._tasks.setdefault(process, set())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        return task

    def _leading(self) -> list[OperatorProcess]:
        return [] if self.leader is None else [self.leader]

    def _lead(self) -> None:
        self.tell("an operator begins")
        process = self.leader = OperatorProcess(self)
        self._processes.append(process)
        process.start()

    def _replace(self, how: str) -> None:
        process = self.leader
        if process is None:
            return
        self.leader = None
        if how == "operator killed":
            self._kill(process)
            self.after(self.pick.uniform(15, 60), self._lead)
        elif how == "operator asleep":
            process.may_write = False
            self.after(self.pick.uniform(1, 60), self._kill, process)
            self.after(self.pick.uniform(1, 20), self._lead)
        else:
            process.spawn(self._stopped(process))

    async def _stopped(self, process: OperatorProcess) -> None:
        await process.stop()
        self.after(self.pick.uniform(0.1, 3), self._lead)
        self.after(0.0, self._kill, process)

    def _kill(self, process: OperatorProcess) -> None:
        process.cut_off()
        for task in list(self._tasks.pop(process, ())):
            task.cancel()

    # -- trouble --------------------------------------------------------------------------------------------------------

    def _trouble(self, name: str, gap: float) -> None:
        if self.is_calm:
            return
        self.after(self.pick.expovariate(1 / gap), self._trouble, name, gap)
        if name in _LASTS:
            lasts = self.pick.uniform(*_LASTS[name])
            self.tell(f"{name}, for {lasts:.0f} s")
            self._on[name] += 1
            ends = self._siorg_back if name == "SIORG away" else self._over
            if name == "SIORG away" and self._on[name] == 1:
                self._away_since = self.now
            self.after(lasts, ends, *([] if name == "SIORG away" else [name]))
        else:
            self.tell(name)
            self._befall(name)

    def _over(self, name: str) -> None:
        self._on[name] = max(self._on[name] - 1, 0)

    def _siorg_back(self) -> None:
        if self.on("SIORG away"):
            self._over("SIORG away")
            if not self.on("SIORG away"):
                self.judge.siorg_was_away(self._away_since)

    def _befall(self, name: str) -> None:
        pick, owner = self.pick, self.pick.choice(self.owners)
        if name.startswith("node"):
            self._lose_a_node(dies=name == "node dies")
        elif name.startswith("operator"):
            self._replace(name)
        elif name == "eviction":
            self._to_a_pod(lambda pod: pod.delete(disrupted=True))
        elif name == "pod force-deleted":
            self._to_a_pod(Pod.force)
        elif name == "Job deleted by a person":
            if self.cluster.jobs:
                self.cluster.remove_job(pick.choice(list(self.cluster.jobs.values())))
        elif name.endswith(" lost"):
            for process in self._leading():
                watch = process.watches[name.split(maxsplit=1)[0]]
                watch.lose()
                lasts = pick.uniform(1, 400)
                self._on[name] += 1
                self.after(lasts, watch.list_anew)
                self.after(lasts, self._over, name)
        elif name == "maxJobs changed":
            owner.edit(scaling={**owner.spec["scaling"], "maxJobs": pick.randint(max(owner.spec["scaling"]["minJobs"], 1), 10)})
        elif name == "template changed":
            owner.edit(job={**owner.spec["job"], "image": f"registry.example/siorg-job:{self.now:.0f}"})
            self.judge.ledgers[owner.name].anew.append(self.now)
        elif name == "Secret touched":
            secret = self.api.objects["secrets"][owner.name]
            self.api.put("secrets", {**secret, "metadata": {**secret["metadata"], "annotations": {"touched": str(self.now)}}})
        elif name == "suspension":
            if not owner.spec.get("suspend"):
                owner.edit(suspend=True)
                self.after(pick.uniform(5, 900), self._resume, owner)
        elif name == "readmission":
            jobs = [job for job in self.cluster.jobs.values() if job.owner.demand.admitted is not None]
            if jobs:
                self.cluster.readmit(pick.choice(jobs))

    def _resume(self, owner: Owner) -> None:
        if owner.spec.get("suspend"):
            owner.edit(suspend=False)

    def _to_a_pod(self, what: Callable[[Pod], None]) -> None:
        if pods := [pod for pod in self.cluster.all_pods() if not pod.is_terminal]:
            what(self.pick.choice(pods))

    def _lose_a_node(self, *, dies: bool) -> None:
        nodes = [node for node in self.cluster.nodes if node.connected]
        if not nodes:
            return
        node = self.pick.choice(nodes)
        self.tell(f"{node.name}, with {sorted(pod.name for pod in node.pods)}")
        node.lose(dies=dies, database_too=self.pick.random() < 0.5)
        lasts = self.pick.choice([30.0, 90.0, 200.0, 600.0, 5000.0]) * self.pick.uniform(0.5, 1.5)
        self.after(lasts, node.back if len(self.cluster.nodes) < 2 or self.pick.random() < 0.7 else node.vanish)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a world."""

    seed: int
    violations: list[str]
    jobs: int
    """That were launched."""
    done: int
    """Items."""
    seconds: float
    """Of the processor."""

    def __str__(self) -> str:
        head = f"seed {self.seed}: {self.jobs} Jobs, {self.done} items, {self.seconds:.1f} s"
        return "\n  ".join([head, *self.violations])


class _Errors(logging.Handler):
    """What the operator logs as an error is a bug of it."""

    def __init__(self, found: Callable[[str, str], None]) -> None:
        super().__init__(logging.ERROR)
        self._found = found
        self._format = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        trace = "" if record.exc_info is None else self._format.formatException(record.exc_info)
        self._found("error logged", f"{record.getMessage()} {trace}")


def run(seed: int, hours: float = 5.0, *, tell: Tell | None = None) -> Outcome:
    """Live through the world of a seed. ``tell``: is given its story, line by line."""
    began, events = time.process_time(), VirtualTimeLoop()
    state, root = random.getstate(), logging.getLogger()
    random.seed(seed)  # the operator's jitter
    with in_virtual_time(events), asyncio.Runner(loop_factory=lambda: events) as runner:
        world = World(settings(seed, hours), events, tell=tell)
        events.set_exception_handler(lambda _, about: world.judge.violate("crash", str(about.get("exception") or about)))
        errors = _Errors(world.judge.violate)
        root.addHandler(errors)
        try:
            runner.run(world.live())
        finally:
            root.removeHandler(errors)
            random.setstate(state)
    jobs = sum(len(ledger.launched) for ledger in world.judge.ledgers.values())
    done = sum(owner.queue.done for owner in world.owners)
    return Outcome(seed, world.judge.violations, jobs, done, time.process_time() - began)
