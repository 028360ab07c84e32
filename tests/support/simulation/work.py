"""The queues, their one database server, SIORG, and the workers that drain: what really happens in the pods."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from siorg_operator.decide.connections import CONNECTIONS_PER_JOB
from siorg_operator.decide.manifests import job_tag
from siorg_operator.decide.reasons import Reason
from siorg_operator.decide.state import Reading, Unreadable
from support.simulation.settings import Demand

if TYPE_CHECKING:
    from support.simulation.cluster import Pod
    from support.simulation.world import World

_PATIENCE_SECONDS = 30.0
_ASKS_AGAIN_SECONDS = 7.5  # a Job that waits for SIORG
_LEASE_SECONDS = 60.0
_AWAY = Unreadable(Reason.DATABASE_UNAVAILABLE, "the database at db:5432 does not answer: check that it runs")


class Queue:
    """Of one resource."""

    def __init__(self, world: World, demand: Demand) -> None:
        self.world = world
        self.demand = demand
        self.claimable = 0
        self.processing = 0
        self.arrived = 0
        self.done = 0
        self.since: float | None = None
        """When the oldest claimable item came."""
        self.completed: dict[str, float] = {}
        """When each worker completed its newest item."""
        self.listeners: list[Callable[[], None]] = []
        self.reads = 0

    def put(self, items: int) -> None:
        """Items arrive, or come back."""
        self.since = self.world.now if not self.claimable else self.since
        self.claimable += items
        if self.demand.notified and not self.world.on("database away"):
            for wake in self.listeners:
                self.world.after(0.01, wake)

    def arrive(self, items: int) -> None:
        self.arrived += items
        self.put(items)

    def claim(self, most: int) -> int:
        taken = min(most, self.claimable)
        self.claimable -= taken
        self.processing += taken
        self.since = self.world.now if self.claimable else None
        return taken

    def finish(self, items: int, worker: str) -> None:
        self.processing -= items
        self.done += items
        self.completed[worker] = self.world.now

    def give_back(self, items: int) -> None:
        self.processing -= items
        self.put(items)

    def reading(self) -> Reading | Unreadable:
        """As the operator reads it."""
        self.reads += 1
        if self.world.on("database away"):
            return _AWAY
        server = self.world.database
        return Reading(
            claimable=self.claimable,
            due=self.claimable,
            processing=self.processing,
            oldest_due_seconds=None if self.since is None else self.world.now - self.since,
            max_connections=server.most,
            other_connections=server.others,
            job_connections=server.of_jobs,
            named_connections={job_tag(name): CONNECTIONS_PER_JOB for name in server.jobs},
            server="db",
            completed_by={worker: self.world.now - moment for worker, moment in self.completed.items()},
        )


class DatabaseServer:
    """All queues are on it: connections are what they share."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.most = world.settings.max_connections
        self.others = world.settings.other_connections
        self.jobs: list[str] = []
        """Names of the Jobs that are connected."""

    @property
    def of_jobs(self) -> int:
        """Connections."""
        return CONNECTIONS_PER_JOB * len(self.jobs)

    def connect(self, job: str) -> bool:
        """A job connects; whether there was room."""
        if self.others + self.of_jobs + CONNECTIONS_PER_JOB > self.most:
            self.world.judge.no_connection_left()
            return False
        self.jobs.append(job)
        return True

    def disconnect(self, job: str) -> None:
        self.jobs.remove(job)


class Databases:
    """``database.Databases`` of one process of the operator."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._closed: list[Callable[[], None]] = []

    async def read(self, url: str) -> Reading | Unreadable:
        await asyncio.sleep(5.0 if self.world.on("database away") else 0.005)
        return self.world.queue_behind(url).reading()

    def watch(self, url: str, wake: Callable[[], None]) -> Callable[[], None]:
        listeners = self.world.queue_behind(url).listeners
        listeners.append(wake)
        self.world.after(0.01, wake)

        def unwatch() -> None:
            if wake in listeners:
                listeners.remove(wake)

        self._closed.append(unwatch)
        return unwatch

    def drop(self) -> None:
        """The process is gone."""
        for unwatch in self._closed:
            unwatch()

    async def close(self) -> None:
        self.drop()


class Worker:
    """The process in a pod, from its begin until its end."""

    def __init__(self, pod: Pod) -> None:
        self.pod = pod
        self.world = pod.world
        self.queue = pod.job.owner.queue
        self.began = self.world.now
        self.alive = True
        self.exit_code: int | None = None
        self.stopping = False
        """It was told to end, and claims nothing more."""
        self.connected = False
        self.in_hand = 0
        self.completed = 0
        self.claimed = 0
        self.errors = 0
        self._timer = self.world.after(0.5, self._connect)

    def _then(self, seconds: float, what: Callable[..., None], *arguments: Any) -> None:
        self._timer.cancel()
        self._timer = self.world.after(seconds, what, *arguments)

    # -- its life -------------------------------------------------------------------------------------------------------

    def _database_away(self) -> bool:
        return self.world.on("database away") or not self.pod.node_reaches_database

    def _connect(self) -> None:
        if self._database_away():
            self._then(_PATIENCE_SECONDS, self._give_up, "database_unavailable", self._database_away)
        elif self.world.database.connect(self.pod.job.name):
            self.connected = True
            self._take()
        else:
            self._then(_PATIENCE_SECONDS, self._end, 75, "database_unavailable")

    def _take(self) -> None:
        if self._database_away():
            self._then(_PATIENCE_SECONDS, self._give_up, "database_unavailable", self._database_away)
            return
        self.in_hand = self.queue.claim(self.world.batch)
        self.claimed += self.in_hand
        if not self.in_hand:
            self._end(0, "exhausted")
        elif self.world.kills():
            self._then(self.world.pick.uniform(0.1, 5.0), self.die, 1)
        elif self.world.on("SIORG away"):
            self._wait_for_siorg()
        else:
            self._then(self.in_hand * self.world.item_seconds(self.queue.demand), self._finish)

    def _wait_for_siorg(self) -> None:
        self._release()
        self._ask_siorg_again(self.world.now + _PATIENCE_SECONDS)

    def _ask_siorg_again(self, until: float) -> None:
        if not self.world.on("SIORG away"):
            self._take()
            return
        self.errors += 1
        if self.world.now >= until:
            self._end(75, "siorg_unavailable")
        else:
            self._then(min(_ASKS_AGAIN_SECONDS, until - self.world.now), self._ask_siorg_again, until)

    def _finish(self) -> None:
        if self.world.on("SIORG away"):
            self._wait_for_siorg()
            return
        if self._database_away():
            self._then(1.0, self._finish)  # its lease is not renewed either; who is right is not the subject here
            return
        self.queue.finish(self.in_hand, self.pod.name)
        self.completed += self.in_hand
        self.in_hand = 0
        self._take()

    def _give_up(self, reason: str, still: Callable[[], bool]) -> None:
        if still():
            self._end(75, reason)
        elif not self.connected:
            self._connect()
        else:
            self._take()

    def _release(self) -> None:
        if self.in_hand:
            self.queue.give_back(self.in_hand)
            self.in_hand = 0

    def _end(self, code: int, reason: str) -> None:
        self._release()
        self._over(code, reason)

    def _over(self, code: int, reason: str) -> None:
        self.alive, self.exit_code = False, code
        self._timer.cancel()
        if self.connected:
            self.world.database.disconnect(self.pod.job.name)
        self.pod.worker_ended(code, self._summary(code, reason) if reason else "")

    def _summary(self, code: int, reason: str) -> str:
        return json.dumps({
            "reason": reason, "exit_code": code, "duration_seconds": self.world.now - self.began, "claimed": self.claimed,
            "completed": self.completed, "requests": self.completed + self.errors, "request_errors": self.errors,
        })  # fmt: skip

    # -- what is done to it ---------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """SIGTERM."""
        if self.alive and not self.stopping:
            self.stopping = True
            self._release()
            self._then(self.world.pick.uniform(0.2, 5.0), self._end, 0, "stopped")

    def die(self, code: int = 137) -> None:
        """Without a word: its lease has to run out."""
        if not self.alive:
            return
        if self.in_hand:
            self.world.after(_LEASE_SECONDS, self.queue.give_back, self.in_hand)
            self.in_hand = 0
        self._over(code, "")
