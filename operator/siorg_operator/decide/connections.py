"""How the connections of a database server are shared out among the resources that use it. Pure: counts in, a room out.

Each limit counts its own users: a role's the connections of that role, a database's those to it, the server's all. Of these

    room = (most − others − 3 · Jobs of other resources − 5 left free) / 3

A Job has its three from its launch to its end, whether it has connected yet or not, so others are only those connections that
belong to none of these Jobs. Where several resources want more than there is, one Job after the other goes to whoever has the
fewest, and among equals to whoever waits longest. What runs is never ended for that; so that nobody waits for others' long
Jobs, each resource that rests finds room for its first Job, as far as half of what a limit allows goes.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from siorg_operator.decide.state import ConnectionLimit

CONNECTIONS_PER_JOB: Final = 3
"""Database connections that a job process opens: queue, fetch bookkeeping, leases."""
CONNECTIONS_LEFT_FREE: Final = 5
"""For people and their tools."""
_OF_THE_OPERATOR: Final = 2  # in each database: one that reads, one that listens

_Key: TypeAlias = tuple[str, str]
"""A limit's kind and name: on one server, what it is."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """A resource among those that use one server."""

    uid: str
    limits: tuple[ConnectionLimit, ...]
    """What limits it, as it was read last."""
    jobs: Mapping[str, bool] = field(default_factory=dict)
    """Its unfinished Jobs by their tag, and whether the worker of each is known to run."""
    wanted: int = 0
    """Jobs that it would have if there were connections without end."""
    rests: bool = False
    """It wants no more at the moment, and may at any time."""
    waits_since: float = float("inf")
    """When it began to want more than it has: who began earlier comes first."""

    @property
    def keys(self) -> list[_Key]:
        return [(limit.kind, limit.name) for limit in self.limits]


@dataclass(frozen=True, slots=True)
class Room:
    """How many Jobs a resource may have.

    Attributes:
        jobs: so many, those that are there included.
        limit: the narrowest.
        others: connections that it counts and that are no Job's of a resource of ours.
        neighbours: Jobs of other resources that it counts.
        sharing: resources that share it, where that is what decides; 0: it is not.
    """

    jobs: int
    limit: ConnectionLimit
    others: int
    neighbours: int
    sharing: int = 0


def room(mine: Tenant, beside: Collection[Tenant] = ()) -> Room | None:
    """The room of ``mine`` on a server that it shares with ``beside``; None: nothing is known to limit it."""
    counted = [
        _Counted(limit, [mine, *(one for one in beside if key in one.keys)])
        for limit, key in zip(mine.limits, mine.keys, strict=True)
        if limit.most is not None
    ]
    if not counted:
        return None
    narrowest = min(counted, key=lambda one: one.slots - one.jobs)
    most = narrowest.slots - narrowest.jobs + len(mine.jobs)
    more, refuses = _share(mine, beside, counted, most - len(mine.jobs))
    decides = narrowest if refuses is None else refuses
    return Room(
        jobs=max(min(most, len(mine.jobs) + more), 0),
        limit=decides.limit,
        others=decides.others,
        neighbours=decides.jobs - len(mine.jobs),
        sharing=0 if refuses is None else len(decides.members),
    )


class _Counted:
    """A limit and the resources that it counts."""

    def __init__(self, limit: ConnectionLimit, members: Sequence[Tenant]) -> None:
        self.limit, self.members = limit, members
        jobs = {tag: runs for one in members for tag, runs in one.jobs.items()}
        self.jobs = len(jobs)
        nobodys = sum(count for tag, count in limit.named.items() if tag not in jobs)
        # A Job of an older image has nameless ones; of one that does not run yet there are none.
        silent = sum(runs and tag not in limit.named for tag, runs in jobs.items())
        nameless = limit.jobs - sum(limit.named.values())
        databases = {tuple(key for key in one.keys if key[0] != "server") for one in members}
        # Those for the other resources may be on their way; one of its own at least has read this.
        others = max(limit.others, limit.others - limit.operator + _OF_THE_OPERATOR * (len(databases) - 1))
        self.others = others + nobodys + max(nameless - CONNECTIONS_PER_JOB * silent, 0)
        self.slots = ((limit.most or 0) - self.others - CONNECTIONS_LEFT_FREE) // CONNECTIONS_PER_JOB
        """Jobs of all of them together."""
        self.free = self.slots - self.jobs
        self._having = sum(bool(one.jobs) for one in members)
        self._resting = sum(one.rests and not one.jobs for one in members)

    def has_room(self, level: int) -> bool:
        """Whether it can give another Job to a resource that has ``level`` of them."""
        kept = min(self._resting, max(self.slots // 2 - self._having, 0)) if level else 0
        return self.free > kept

    def give(self, level: int) -> None:
        self.free -= 1
        self._having += level == 0


def _share(mine: Tenant, beside: Collection[Tenant], counted: Sequence[_Counted], most: int) -> tuple[int, _Counted | None]:
    """How many more Jobs ``mine`` gets, at most ``most``, and the limit that refuses another one because it is shared."""
    everybody = [replace(mine, wanted=len(mine.jobs) + most), *beside]
    limits: dict[_Key, _Counted] = {(one.limit.kind, one.limit.name): one for one in counted}
    wanting = {one.uid: one for one in everybody if one.wanted > len(one.jobs)}
    for one in wanting.values():
        for its, key in zip(one.limits, one.keys, strict=True):
            if key not in limits and its.most is not None:
                limits[key] = _Counted(its, [each for each in everybody if key in each.keys])
    queue = [(len(one.jobs), one.waits_since, uid) for uid, one in wanting.items()]
    heapq.heapify(queue)
    while mine.uid in wanting and queue:
        level, since, uid = heapq.heappop(queue)
        counts = [limits[key] for key in wanting[uid].keys if key in limits]
        refuses = next((limit for limit in counts if not limit.has_room(level)), None)
        if refuses is None:
            for limit in counts:
                limit.give(level)
            if level + 1 < wanting[uid].wanted:
                heapq.heappush(queue, (level + 1, since, uid))
            elif uid == mine.uid:
                break
        elif uid == mine.uid:
            return level - len(mine.jobs), refuses
    return max(most, 0), None
