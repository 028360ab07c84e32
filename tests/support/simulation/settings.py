"""What is different from world to world: drawn from its seed, before anything happens."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Demand:
    """Work of one resource, and how its Jobs fare with it."""

    name: str
    scaling: dict[str, Any]
    job: dict[str, Any]
    item_seconds: float
    """That a Job needs for one item."""
    burst_every: float
    """Seconds between arrivals, on average."""
    burst: int
    """Most items that arrive at once; 0: none arrive by themselves."""
    notified: bool
    """Whether new items wake the operator, as LISTEN does."""
    admitted: int | None
    """Of its Jobs so many are admitted at once, as Kueue does; None: nobody asks for admission."""
    sidecar: bool
    """Whether a container of somebody else's is in its pods, and outlives the worker."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One world."""

    seed: int
    hours: float
    demands: tuple[Demand, ...]
    troubles: dict[str, float]
    """Kinds of trouble, and how many seconds of peace lie between two of them on average."""
    nodes: int
    most_nodes: int
    """Up to which the autoscaler makes more."""
    pods_per_node: int
    start_seconds: float
    """That a pod takes to start, at most."""
    manager_ahead: float
    """The controller manager's clock less the API server's (seconds)."""
    node_clocks: tuple[float, ...]
    """The same of nodes, in turn."""
    operator_ahead: float
    max_connections: int
    """Of the one database server."""
    other_connections: int
    calm_at: float = field(init=False)
    """Seconds from the beginning; from here on nothing goes wrong any more."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "calm_at", max(self.hours - 1.0, self.hours * 0.5) * HOUR)


TROUBLES = (
    "node dies", "node is cut off", "eviction", "pod force-deleted", "Job deleted by a person", "image", "no scheduler", "quota",
    "rejection", "crashes", "manager away", "API slow", "API fails", "API away", "jobs lag", "pods lag", "jobs silent",
    "pods silent", "jobs lost", "pods lost", "siorgsyncworkers silent", "SIORG away", "database away", "operator killed",
    "operator stopped", "operator asleep", "maxJobs changed", "template changed", "Secret touched", "suspension", "readmission",
    "clock jumps",
)  # fmt: skip


def settings(seed: int, hours: float = 5.0) -> Settings:
    """The world of a seed."""
    pick = random.Random(seed)
    clocks = (0.0, 0.0, 2.0, -2.0, 95.0, -95.0, 400.0, -400.0, 1000.0)
    demands = tuple(_demand(pick, f"worker-{number}") for number in range(pick.choice([1, 1, 1, 1, 2, 3, 6])))
    troubles = {name: pick.choice([20, 40, 90]) * 60.0 for name in TROUBLES if pick.random() < pick.choice([0.2, 0.5])}
    nodes = pick.randint(1, 4)
    return Settings(
        seed=seed,
        hours=hours,
        demands=demands,
        troubles=troubles,
        nodes=nodes,
        most_nodes=nodes + pick.randint(1, 8),
        pods_per_node=pick.randint(2, 6),
        start_seconds=pick.choice([2.0, 10.0, 60.0, 150.0]),
        manager_ahead=pick.choice(clocks),
        node_clocks=tuple(pick.choice((*clocks, 400 * 86_400.0)) for _ in range(5)),
        operator_ahead=pick.choice((*clocks, -3600.0, 86_400.0)),
        max_connections=pick.choice([47, 97, 997]),
        other_connections=pick.randint(0, 40),
    )


def _demand(pick: random.Random, name: str) -> Demand:
    most = pick.randint(1, 10)
    scaling = {
        "maxJobs": most,
        "minJobs": pick.choice([0, 0, pick.randint(0, most)]),
        "itemsPerJob": pick.choice([1, 5, 20, 100]),
        "maxLaunchesPerStep": pick.choice([1, 3, 10]),
        "pollIntervalSeconds": pick.choice([30, 60, 120, 300]),
    }
    job = {
        "activeDeadlineSeconds": pick.choice([1200, 3600, 21_600]),
        "backoffLimit": pick.choice([0, 0, 1, 3]),
        "ttlSecondsAfterFinished": pick.choice([60, 600, 3600]),
        "successfulJobsHistoryLimit": pick.choice([0, 1, 3]),
        "failedJobsHistoryLimit": pick.choice([1, 3]),
    }
    return Demand(
        name=name,
        scaling=scaling,
        job=job,
        item_seconds=pick.choice([0.5, 2.0, 5.0]),
        burst_every=pick.choice([300.0, 900.0, 1800.0]),
        burst=pick.choice([1, 20, 200, 1000]),
        notified=pick.random() < 0.7,
        admitted=pick.choice([None] * 4 + [1, 3]),
        sidecar=pick.random() < 0.25,
    )
