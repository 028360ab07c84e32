"""The operator dies at every step and is started again: the limits hold at each moment, and the end is the same."""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kube_double.observed_requests import Moment, Request
from kube_double.server import ApiServer
from siorg_operator.decide.manifests import MANAGED_BY
from support.cluster import Cluster
from support.fleet import eventually
from support.job_census import job_census
from support.kube import Body, condition
from support.postgres import Postgres
from support.relay import LateLink
from support.siorg_server import SiorgServer
from support.siorg_world import HELD_IMAGE, World, forked_image, is_finished, siorg_world

ITEMS, MAX_JOBS = 30, 3
QUICK = "siorg-job:quick"
SHARDS = 3
LEASE: dict[str, Any] = {"LEADER_ELECTION": "true", "LEASE_SECS": 3, "LEASE_RENEW_SECS": 2, "LEASE_RETRY_SECS": 1}


@pytest.fixture
def world(world: World) -> World:
    return with_quick_image(world)


def with_quick_image(world: World) -> World:
    """Jobs with the image ``QUICK`` drain quickly."""
    world.cluster.kubelet.images[QUICK] = forked_image("support.quick_job")
    return world


def manifest(world: World, **changes: Any) -> Body:
    """A resource with everything that the operator writes for one."""
    cron = {"enabled": True, "schedule": "0 3 1 1 *"}
    spec: Body = {
        "scaling": {"maxJobs": MAX_JOBS, "itemsPerJob": ITEMS // MAX_JOBS, "pollIntervalSeconds": 1},
        "job": {"image": QUICK, "successfulJobsHistoryLimit": 1},
        "cleanup": cron,
        "discovery": cron,
    }
    parts: dict[str, Any] = {key: {**spec.get(key, {}), **changes.get(key, {})} for key in spec | changes}
    return world.resource(**parts)


def by_operator(request: Request, namespace: str) -> bool:
    return request.namespace == namespace and request.user_agent.startswith((MANAGED_BY, "kopf"))


class Killer:
    """Kills the operator at one of its writes."""

    def __init__(self, world: World, at: int, *, kind: str | None = None) -> None:
        """``at``: counted from 1; ``kind``: count only those, as ``create jobs``; None: all but those of Leases."""
        self._namespace = world.namespace
        self._at = at
        self._kind = kind
        self._lock = threading.Lock()
        self.pid: int | None = None
        """Whom to kill; None: nobody."""
        self.writes: list[str] = []
        self.killed = threading.Event()

    def __call__(self, request: Request) -> None:
        if not (by_operator(request, self._namespace) and request.writes):
            return
        kind = f"{request.verb} {request.resource}"
        with self._lock:
            if kind != self._kind and (self._kind is not None or request.resource == "leases"):
                return
            self.writes.append(kind)
            if len(self.writes) == self._at and self.pid is not None:
                os.kill(self.pid, signal.SIGKILL)
                self.killed.set()


def at_rest(world: World) -> bool:
    """Whether everything was done and told."""
    status = world.status()
    queue, jobs = status.get("queue") or {}, status.get("jobs") or {}
    return (
        queue.get("claimable") == world.depth() == 0  # what nobody has looked at since is not told yet
        and not jobs.get("active")
        and not jobs.get("pending")
        and not world.unfinished_jobs()
        and len(world.jobs()) == jobs.get("succeeded", 0) + jobs.get("failed", 0)
    )


def end_state(world: World) -> Body:
    """What does not depend on when who died."""
    status, uid = world.status(), world.get()["metadata"]["uid"]
    owners = {owner["uid"] for job in world.jobs() for owner in job["metadata"]["ownerReferences"]}
    jobs = {job["metadata"]["uid"] for job in world.kube.list("jobs")}
    orphans = [pod["metadata"]["name"] for pod in world.pods() if pod["metadata"]["ownerReferences"][0]["uid"] not in jobs]
    return {
        "conditions": {one["type"]: (one["status"], one["reason"], one["message"]) for one in status["conditions"]},
        "observedGeneration": status["observedGeneration"],
        "queue": status["queue"],
        "jobs": {key: status["jobs"].get(key) for key in ("desired", "active", "pending", "succeeded", "failed")},
        "items": sum(count for outcome, count in world.outcomes().items() if outcome.startswith("COMPLETED")),
        "finished": [condition(job, "Complete") for job in world.jobs()],
        "owned": owners == {uid},
        "orphans": orphans,
        "cron jobs": sorted(cron["metadata"]["name"] for cron in world.kube.list("cronjobs")),
    }


def expected(world: World) -> Body:
    """The end state when nobody dies."""
    told = {
        "Ready": ("True", "AsExpected", "The queue is read and Jobs are launched as it needs them"),
        "InSync": (
            "Unknown",
            "NotVerified",
            "spec.verification.enabled is false: nothing is verified by the clock; none is stored",
        ),
        "QueueReachable": ("True", "Connected", "The queue is read"),
        "SiorgAvailable": ("Unknown", "NotAskedYet", "No Job has ended yet that tells whether SIORG answers"),
        "ScalingActive": ("True", "Scaling", "Jobs are launched as the queue needs them"),
        "Degraded": ("False", "AsExpected", "Jobs start and end as they should"),
    }
    nothing = dict.fromkeys(("claimable", "due", "scheduled", "processing", "failed", "conflict", "held"), 0) | {"atLeast": False}
    return {
        "conditions": told,
        "observedGeneration": world.get()["metadata"]["generation"],
        "queue": nothing,
        "jobs": {"desired": 0, "active": 0, "pending": 0, "succeeded": 1, "failed": 0},
        "items": ITEMS,
        "finished": ["True"],
        "owned": True,
        "orphans": [],
        "cron jobs": ["sync-cleanup", "sync-discovery"],
    }


def prepare(world: World, **changes: Any) -> None:
    world.secret()
    world.enqueue(ITEMS)
    world.create(manifest(world, **changes))


def requests(world: World, verb: str, resource: str) -> list[Request]:
    assert world.cluster.server is not None
    asked = world.cluster.server.requests
    return [one for one in asked if (one.namespace, one.verb, one.resource) == (world.namespace, verb, resource)]


def drain_with_a_crash(world: World, killer: Killer, moment: Moment, **settings: Any) -> None:
    """One run from the start to rest, with a crash where ``killer`` says; what must hold at each moment is asserted."""
    server = world.cluster.server
    assert server is not None
    prepare(world)
    with job_census(world.cluster.kubeconfig, world.namespace) as census, server.on_request(killer, moment):
        one = world.operator(start=False, **settings)
        try:
            killer.pid = one.start(ready=False).pid
            eventually(lambda: killer.killed.is_set() or at_rest(world))
            if killer.killed.is_set():
                killer.pid = None
                one.kill()
                one.start(ready=False)
            eventually(lambda: at_rest(world))
        finally:
            one.stop()
    assert census.most <= MAX_JOBS
    assert census.doubled == []
    assert end_state(world) == expected(world)


@contextmanager
def fresh_world(cluster: Cluster, siorg: SiorgServer, postgres: Postgres, folder: Path) -> Iterator[World]:
    folder.mkdir()
    url = postgres.database()
    with siorg_world(cluster, siorg, url, folder) as made:
        yield with_quick_image(made)
    postgres.drop(url)


def test_nobody_dies(world: World, server: ApiServer) -> None:
    killer = Killer(world, 0)
    drain_with_a_crash(world, killer, "before")
    kinds = Counter(killer.writes)
    assert kinds["create jobs"] == MAX_JOBS + 1  # and the first discovery
    assert 2 <= kinds["patch cronjobs"] <= 4  # discovery is suspended while the first one runs
    assert kinds["delete jobs"] == MAX_JOBS - 1
    assert kinds["create events"] >= 2
    assert kinds["patch siorgsyncworkers"] >= 3


@pytest.mark.parametrize("shard", range(SHARDS))
@pytest.mark.parametrize("moment", ["before", "after"])
def test_dies_at_each_write_in_turn(
    cluster: Cluster, server: ApiServer, siorg: SiorgServer, postgres: Postgres, tmp_path: Path, moment: Moment, shard: int
) -> None:
    """Before it hears the answer, or after; all writes, shared out among the shards."""
    for at in itertools.count(shard + 1, SHARDS):
        with fresh_world(cluster, siorg, postgres, tmp_path / str(at)) as world:
            killer = Killer(world, at)
            drain_with_a_crash(world, killer, moment)
        if not killer.killed.is_set():  # this run has fewer writes: all of them had their turn
            break
    assert at > 10


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("kind", ["patch jobs", "delete cronjobs"])
def test_dies_at_what_is_written_in_trouble_and_after_edits(world: World, server: ApiServer, kind: str, moment: Moment) -> None:
    prepare(world, job={"image": "registry.invalid/none:1"})
    killer = Killer(world, 1, kind=kind)
    with job_census(world.cluster.kubeconfig, world.namespace) as census, server.on_request(killer, moment):
        one = world.operator(start=False)
        try:
            killer.pid = one.start(ready=False).pid
            eventually(lambda: killer.killed.is_set() or world.condition("Degraded")["status"] == "True")
            eventually(lambda: killer.killed.is_set() or any(is_finished(job) for job in world.jobs()))
            if not killer.killed.is_set():
                world.edit({"job": {"image": QUICK}, "cleanup": {"enabled": False}, "discovery": {"enabled": False}})
            assert killer.killed.wait(20)
            killer.pid = None
            one.kill()
            world.edit({"job": {"image": QUICK}, "cleanup": {"enabled": False}, "discovery": {"enabled": False}})
            one.start(ready=False)
            eventually(lambda: at_rest(world) and not world.kube.list("cronjobs"))
        finally:
            one.stop()
    assert census.most <= MAX_JOBS
    assert census.doubled == []
    assert world.outcomes().keys() == {"COMPLETED/1"}
    assert [world.condition(kind)["status"] for kind in ("Ready", "Degraded")] == ["True", "False"]


@pytest.mark.parametrize(
    ("kind", "moment"), [("create leases", "before"), ("update leases", "before"), ("update leases", "after")]
)
def test_dies_at_what_it_writes_to_its_lease(world: World, server: ApiServer, kind: str, moment: Moment) -> None:
    killer = Killer(world, 1, kind=kind)
    drain_with_a_crash(world, killer, moment, **LEASE)
    assert killer.killed.is_set()


def test_dies_again_and_again_at_any_moment(world: World) -> None:
    """Nobody helps here, so that a real API server does as well."""
    prepare(world)
    with job_census(world.cluster.kubeconfig, world.namespace) as census:
        one = world.operator(start=False)
        try:
            for life in range(8):
                one.start(ready=False)
                time.sleep(random.uniform(0.1, 1.2))  # not for luck: every moment is as good as any other
                one.kill()
                if life % 3 == 2:
                    world.enqueue(20)
            one.start(ready=False)
            eventually(lambda: at_rest(world), seconds=60)
        finally:
            one.stop()
    assert census.most <= MAX_JOBS
    assert census.doubled == []
    assert end_state(world) == expected(world) | {"items": ITEMS + 40}


def test_a_job_that_the_api_server_makes_long_after_its_operator_died_is_no_second_one(world: World, server: ApiServer) -> None:
    world.secret()
    world.enqueue(ITEMS)
    world.create(manifest(world, job={"image": HELD_IMAGE}))
    with (
        job_census(world.cluster.kubeconfig, world.namespace) as census,
        LateLink(world.cluster.kubeconfig, world.folder, held="POST /apis/batch/v1/") as link,
        world.operator(start=False, kubeconfig=link.kubeconfig, name="first") as first,
    ):
        eventually(lambda: link.holds.is_set() and len(world.jobs()) == MAX_JOBS - 1)
        first.kill()
        with world.operator(start=False, name="second"):
            eventually(lambda: len(world.unfinished_jobs()) == MAX_JOBS)
            before = len(requests(world, "create", "jobs"))
            link.let_go()
            eventually(lambda: len(requests(world, "create", "jobs")) > before)
            world.release()
            eventually(lambda: at_rest(world))
    assert census.most == MAX_JOBS
    assert census.doubled == []


def test_acts_on_nothing_before_it_has_seen_every_job(world: World, server: ApiServer) -> None:
    """An operator that is started again and has not heard of the Jobs yet would launch them anew."""
    world.secret()
    world.enqueue(ITEMS)
    world.create(manifest(world, job={"image": HELD_IMAGE}))
    with job_census(world.cluster.kubeconfig, world.namespace) as census:
        with world.operator(start=False, name="first"):
            eventually(lambda: len(world.unfinished_jobs()) == MAX_JOBS)
        since = time.monotonic()
        with (
            server.fault(verb="list", resource="jobs", namespace=world.namespace, user_agent="kopf", delay=2.0) as slow,
            server.fault(verb="list", resource="pods", namespace=world.namespace, user_agent="kopf", delay=2.0),
            world.operator(start=False, name="second"),
        ):
            eventually(lambda: slow.hits and time.monotonic() > since + 1)
            assert [one for one in by_operator_since(world, since) if one.writes] == []
            world.release()
            eventually(lambda: at_rest(world))
    assert census.most == MAX_JOBS
    assert census.doubled == []


def by_operator_since(world: World, since: float) -> list[Request]:
    assert world.cluster.server is not None
    return [one for one in world.cluster.server.requests if one.time >= since and by_operator(one, world.namespace)]
