"""What must never happen, told by what is true in the world. Nothing here asks the product what it thinks of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from siorg_operator.api.resource import PLURAL
from siorg_operator.decide.manifests import DECISION_ANNOTATION
from support.simulation.api_server import Body

if TYPE_CHECKING:
    from support.simulation.cluster import Job
    from support.simulation.operators import OperatorProcess
    from support.simulation.world import Owner, World

_LOOK_SECONDS = 20.0
_PASS_SECONDS = 45.0
"""What a pass saw when it began may be so old when its last request arrives, where everything is slow."""
_ARRIVES_SECONDS = 10.0
"""The same of one request."""
_STARVES_SECONDS = 420.0
"""Work may wait for so long while all is said to be well: a node's loss is noticed after 100 s, what nobody schedules after 60,
and what no node takes is told after a grace of five minutes."""
_SETTLES_SECONDS = 120.0
"""Jobs that are on their way when SIORG goes away are no probes."""
_PROBES_FIRST = 30
_PROBES_AN_HOUR = 20.0


@dataclass
class Told:
    """What the operator knew of a resource's maxJobs."""

    most: int
    until: float | None = None


@dataclass
class Ledger:
    """Of one resource."""

    told: list[Told] = field(default_factory=list)
    starving: float = 0.0
    launched: list[float] = field(default_factory=list)
    anew: list[float] = field(default_factory=list)
    """When its Jobs were to be made otherwise: a reason to try at once."""


class Judge:
    """Watches one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.violations: list[str] = []
        self.counts: Counter[str] = Counter()
        self.ledgers: dict[str, Ledger] = {}
        self.made: list[Job] = []
        self._not_known_to_be_back: list[tuple[int, Job]] = []

    def begin(self) -> None:
        self.ledgers = {owner.name: Ledger() for owner in self.world.owners}
        self.world.after(_LOOK_SECONDS, self._look)

    def violate(self, kind: str, what: str) -> None:
        self.counts[kind] += 1
        if self.counts[kind] <= 3:
            self.violations.append(f"{kind} at {self.world.now:.1f} s: {what}")
        self.world.tell(f"VIOLATION {kind}: {what}")

    # -- over maxJobs ---------------------------------------------------------------------------------------------------

    def job_created(self, job: Job) -> None:
        owner, now = job.owner, self.world.now
        ledger = self.ledgers[owner.name]
        ledger.launched.append(now)
        self.made.append(job)
        self.world.tell(f"{job.name} is made: {job.annotations.get(DECISION_ANNOTATION)}")
        known = [told.most for told in ledger.told if told.until is None or now - told.until < _PASS_SECONDS]
        limit = max([owner.max_jobs, *known])
        capacity = [other for other in self._jobs(owner) if other.is_capacity and not self._may_be_unknown(other)]
        if len(capacity) > limit:
            names = ", ".join(sorted(other.name for other in capacity))
            self.violate("over maxJobs", f"{owner.name}: {len(capacity)} of {limit} with {job.name}: {names}")

    def _may_be_unknown(self, job: Job) -> bool:
        """Whether its node was lost, so that it was replaced, and the operator could not know yet that it is back."""
        return any(known is None or self.world.now - known < _PASS_SECONDS for _, known in job.returns)

    def job_returned(self, version: int, job: Job) -> None:
        self._not_known_to_be_back.append((version, job))

    def heard(self, kind: str, body: Body, process: OperatorProcess) -> None:
        """The operator was told of an object."""
        if process is not self.world.leader:
            return
        if kind == "pods" and self._not_known_to_be_back:
            version = process.watches["pods"].version
            for of, job in [each for each in self._not_known_to_be_back if each[0] <= version]:
                job.returns = [(back, self.world.now if back == of and known is None else known) for back, known in job.returns]
            self._not_known_to_be_back = [each for each in self._not_known_to_be_back if each[0] > version]
        elif kind == PLURAL:
            told = self.ledgers[body["metadata"]["name"]].told
            most = body["spec"]["scaling"]["maxJobs"]
            if not told or told[-1].most != most:
                if told:
                    told[-1].until = self.world.now
                told.append(Told(most))

    # -- running Jobs ---------------------------------------------------------------------------------------------------

    def job_ended_by_operator(self, job: Job) -> None:
        if (since := self._runs_since(job)) is not None:
            self.violate("running Job ended", f"{job.name} ({job.uid}), whose worker has run since {since:.1f} s")

    def job_removed_by_operator(self, job: Job) -> None:
        if (since := self._runs_since(job)) is not None:
            self.violate("running Job removed", f"{job.name} ({job.uid}), whose worker has run since {since:.1f} s")
        elif job.is_capacity and not job.suspended:
            self.violate("running Job removed", f"{job.name} ({job.uid}), whose worker could work still")

    def _runs_since(self, job: Job) -> float | None:
        """Since when its worker has been known to run, if for longer than a request takes to arrive."""
        known = [pod.running_since for pod in job.pods if pod.works and pod.running_since is not None]
        since = min(known, default=self.world.now)
        return since if self.world.now - since > _ARRIVES_SECONDS else None

    # -- starvation -----------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        self.world.after(_LOOK_SECONDS, self._look)
        for owner in self.world.owners:
            ledger = self.ledgers[owner.name]
            wanted, capacity = self.wanted(owner), self.capacity(owner)
            if capacity >= wanted or not self._says_well(owner):
                ledger.starving = 0.0
            elif self.world.undisturbed:
                ledger.starving += _LOOK_SECONDS
                if ledger.starving > _STARVES_SECONDS + 1.2 * owner.demand.scaling["pollIntervalSeconds"]:
                    ledger.starving = 0.0
                    waits = f"{owner.queue.claimable} wait, {capacity} of {wanted} Jobs"
                    self.violate("starvation", f"{owner.name}: {waits}, and all is said to be well: {self.said(owner)}")

    def wanted(self, owner: Owner) -> int:
        """Jobs that the work asks for, and may have."""
        scaling: dict[str, int] = owner.spec["scaling"]
        depth, database = owner.queue.claimable, self.world.database
        if depth == 0 or owner.spec.get("suspend") or self.world.on("database away"):
            return 0
        asked = max(-(-depth // scaling["itemsPerJob"]), scaling["minJobs"], 1)
        asked = min(asked, scaling["maxJobs"])
        roomy = database.most - database.others > 3 * sum(one.max_jobs + 2 for one in self.world.owners) + 10
        return asked if roomy else min(asked, int(database.most - database.others - database.of_jobs > 30))

    def capacity(self, owner: Owner) -> int:
        return sum(job.is_capacity for job in self._jobs(owner))

    def _jobs(self, owner: Owner) -> list[Job]:
        return [job for job in self.world.cluster.jobs.values() if job.owner is owner]

    def _conditions(self, owner: Owner) -> dict[str, Body]:
        status = self.world.api.objects[PLURAL][owner.name].get("status") or {}
        return {one["type"]: one for one in status.get("conditions") or ()}

    def _says_well(self, owner: Owner) -> bool:
        ready = self._conditions(owner).get("Ready")
        return ready is None or (ready["status"], ready["reason"]) == ("True", "AsExpected")

    def said(self, owner: Owner) -> str:
        """The decision, and what is wrong."""
        status = self.world.api.objects[PLURAL][owner.name].get("status") or {}
        wrong = [f"{kind} {one['status']}/{one['reason']}" for kind, one in self._conditions(owner).items()]
        return f"{(status.get('lastDecision') or {}).get('message')} ({'; '.join(wrong)})"

    # -- SIORG and the database -----------------------------------------------------------------------------------------

    def no_connection_left(self) -> None:
        self.violate("connection limit exceeded", f"{self.world.database.of_jobs} of Jobs")

    def siorg_was_away(self, since: float) -> None:
        """Jobs that were launched meanwhile are probes."""
        hours = (self.world.now - since) / 3600.0
        for owner in self.world.owners:
            ledger = self.ledgers[owner.name]
            anew = sum(moment > since for moment in ledger.anew) * (owner.most_ever + 2)
            probes = sum(moment > since + _SETTLES_SECONDS for moment in ledger.launched)
            if probes > _PROBES_FIRST + _PROBES_AN_HOUR * hours + anew:
                self.violate("Jobs against a dead SIORG", f"{owner.name}: {probes} in {hours:.1f} h")

    # -- calm -----------------------------------------------------------------------------------------------------------

    def calm_is_kept(self) -> None:
        """Some minutes after new work came, long after the last trouble."""
        for owner in self.world.owners:
            wanted, capacity = self.wanted(owner), self.capacity(owner)
            if capacity < wanted:
                self.violate("launches held after calm", f"{owner.name}: {capacity} of {wanted} Jobs: {self.said(owner)}")
