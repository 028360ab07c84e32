"""A world of one resource in which nothing goes wrong but what the scene says: for behaviour that is told in seconds and Jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from siorg_operator.api.resource import PLURAL
from siorg_operator.decide.manifests import DECISION_ANNOTATION
from support.simulation.cluster import Job
from support.simulation.operators import in_virtual_time
from support.simulation.settings import Demand, Settings
from support.simulation.virtual_time import VirtualTimeLoop
from support.simulation.world import World

_OPEN: list[Scene] = []


class Scene(World):
    """Goes on as far as it is told to; ``close_all`` ends it."""

    batch = 1

    def __init__(
        self,
        scaling: dict[str, Any],
        arrivals: Iterable[tuple[float, int]],
        start_seconds: Callable[[], float] = lambda: 20.0,
        item_seconds: Callable[[], float] = lambda: 1.0,
        *,
        notified: bool = True,
        siorg_down: Callable[[float], bool] = lambda now: False,
        crashes: Callable[[float], bool] = lambda now: False,
        cannot_start: Callable[[float], bool] = lambda now: False,
        **job: Any,
    ) -> None:
        """``arrivals``: when how many items come. ``crashes``: whether a Job that takes an item now dies of it."""
        job = {
            "activeDeadlineSeconds": 21_600, "backoffLimit": 0, "ttlSecondsAfterFinished": 3600, "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 3, **job,
        }  # fmt: skip
        scaling = {"maxJobs": 5, "minJobs": 0, "itemsPerJob": 50, "pollIntervalSeconds": 30, **scaling}
        demand = Demand("siorg", scaling, job, 1.0, 1.0, 0, notified, None, sidecar=False)
        settings = Settings(
            seed=0, hours=1e6, demands=(demand,), troubles={}, nodes=1, most_nodes=1, pods_per_node=1000, start_seconds=1.0,
            manager_ahead=0.0, node_clocks=(0.0,), operator_ahead=0.0, max_connections=1000, other_connections=0,
        )  # fmt: skip
        events = VirtualTimeLoop()
        self._starts, self._takes, self._crashes = start_seconds, item_seconds, crashes
        self._troubles = {"SIORG away": siorg_down, "image": cannot_start}
        super().__init__(settings, events, tell=None)
        self.is_calm = True
        (self.owner_of_all,) = self.owners
        self.queue = self.owner_of_all.queue
        self._run(self._begin(list(arrivals)))
        _OPEN.append(self)

    async def _begin(self, arrivals: list[tuple[float, int]]) -> None:
        self.begin()
        for when, items in arrivals:
            self.at(when, self.queue.arrive, items)

    def _run(self, work: Any) -> None:
        with in_virtual_time(self._events):
            self._events.run_until_complete(work)

    # -- what is different ----------------------------------------------------------------------------------------------

    def on(self, trouble: str) -> bool:
        return trouble in self._troubles and self._troubles[trouble](self.now)

    def start_seconds(self) -> float:
        return self._starts()

    def item_seconds(self, demand: Demand) -> float:
        return max(self._takes(), 0.01)

    def kills(self) -> bool:
        return self._crashes(self.now)

    # -- how it goes on -------------------------------------------------------------------------------------------------

    def until(self, end: float) -> None:
        """Go on up to ``end``."""
        self._run(asyncio.sleep(end - self.now))
        assert self.judge.violations == []

    def to_rest(self, *, within: float) -> None:
        """Until nothing waits and nothing runs."""
        deadline = self.now + within
        self.until(self.now + 1.0)
        while self.queue.claimable or self.queue.processing or self.unfinished:
            assert self.now < deadline, f"no rest within {within:g} s: {self.judge.said(self.owner_of_all)}"
            self.until(min(self.now + 1.0, deadline))

    def edit_job(self, **job: Any) -> None:
        self.owner_of_all.edit(job={**self.owner_of_all.spec["job"], **job})

    def forget_finished(self) -> None:
        """Remove the Jobs that have ended."""
        for job in [job for job in self.cluster.jobs.values() if job.finished]:
            self.cluster.remove_job(job)

    def close(self) -> None:
        self._run(self.end())
        self._events.close()

    # -- what came of it ------------------------------------------------------------------------------------------------

    @property
    def launches(self) -> list[float]:
        """When Jobs were made."""
        return self.judge.ledgers["siorg"].launched

    @property
    def probes(self) -> list[float]:
        """When those were that were to show whether trouble is over."""
        return [job.made for job in self.judge.made if "as a probe" in job.annotations[DECISION_ANNOTATION]]

    @property
    def decisions(self) -> list[str]:
        """Why each Job was made."""
        return [job.annotations[DECISION_ANNOTATION] for job in self.judge.made]

    @property
    def unfinished(self) -> list[Job]:
        return [job for job in self.cluster.jobs.values() if job.finished is None]

    @property
    def all_jobs(self) -> list[Job]:
        """That were ever made."""
        return self.judge.made

    @property
    def empty_handed(self) -> int:
        """Jobs that found nothing."""
        workers = [pod.worker for job in self.all_jobs for pod in job.pods if pod.worker is not None and not pod.worker.alive]
        return sum(worker.exit_code == 0 and worker.claimed == 0 for worker in workers)

    @property
    def working(self) -> int:
        """Jobs whose worker works."""
        return sum(job.works for job in self.unfinished)

    @property
    def passes(self) -> int:
        return self.queue.reads

    @property
    def status(self) -> dict[str, Any]:
        return dict(self.api.objects[PLURAL]["siorg"]["status"])


def close_all() -> None:
    """All scenes that are open."""
    while _OPEN:
        _OPEN.pop().close()
