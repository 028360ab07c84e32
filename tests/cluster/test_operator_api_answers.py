"""An API server that answers slowly, wrongly, or not at all: the process goes on, and ends in time when it is told to."""

from __future__ import annotations

import itertools
import signal
from typing import Any

import pytest

from kube_double.server import ApiServer
from siorg_operator.cluster.connection import POOL_SIZE
from siorg_operator.control.handlers import WATCHED
from support.fleet import eventually
from support.job_census import job_census
from support.siorg_world import HASTE, HELD_IMAGE, RESOURCE, World

IMPATIENT = HASTE | {"siorg_operator.control.watches._FIRST_PAUSE_SECONDS": 0.05}
BROKEN = b'{"type":"MODIFIED","object":{"apiVersion":"batch/v1","kind":"Job","metadata":{"name":"sy\n'
CURTAIN = "<html>Bad Gateway</html>"

CURT = {
    "siorg_operator.control.loop._STOP_SECONDS": 0.5,
    "siorg_operator.cluster.client._CLOSING_SECONDS": 0.5,
    "siorg_operator.cluster.leader._RELEASE_SECONDS": 0.5,
}
"""Little patience with what hangs at the end."""

ANSWERS: dict[str, dict[str, Any]] = {
    # what kopf's next lists and watches are answered with, for a while
    "no longer authorized": {"status": 401},
    "not allowed": {"status": 403},
    "no such thing": {"verb": "list", "status": 404},
    "a method not allowed": {"status": 405},
    "a list that has expired": {"verb": "list", "status": 410},
    "a watch that has expired": {"verb": "watch", "status": 410},
    "too many requests": {"status": 429},
    "too many requests, until a date": {"status": 429, "retry_after": "Sun, 29 Nov 2026 12:00:00 GMT"},
    "an error": {"status": 500},
    "out of service": {"status": 503},
    "a time-out": {"status": 504},
    "half a list": {"verb": "list", "status": 200, "text": '{"kind": "JobList", "items": [{"metad'},
    "half an event": {"verb": "watch", "status": 200, "text": BROKEN.decode()},
    "a proxy's page": {"status": 200, "text": CURTAIN},
    "a connection that is reset": {"drop": True},
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_lists_and_watches_that_are_answered_wrongly_are_begun_anew(world: World, server: ApiServer, answer: str) -> None:
    world.secret()
    operator = world.operator(constants=IMPATIENT)
    world.create(world.resource(scaling={"maxJobs": 1}, job={"image": HELD_IMAGE}))
    world.enqueue(10)
    eventually(lambda: len(world.processes()) == 1)
    (job,) = world.jobs()
    pid = operator.pid
    with server.fault(namespace=world.namespace, user_agent="kopf", **ANSWERS[answer]) as trouble:
        server.break_watches()
        eventually(lambda: trouble.hits >= len(WATCHED))
        server.delete("jobs", job["metadata"]["name"], world.namespace)  # nobody watches
        server.compact()
    eventually(lambda: world.jobs() and world.jobs()[0]["metadata"]["uid"] != job["metadata"]["uid"])
    world.release()
    world.wait_until_drained()
    assert (operator.running, operator.pid) == (True, pid)


@pytest.mark.parametrize("code", [401, 403, 500, 504])
def test_an_error_event_in_a_watch_is_no_end(world: World, server: ApiServer, code: int) -> None:
    world.secret()
    operator = world.operator(constants=IMPATIENT)
    world.create(world.resource(scaling={"pollIntervalSeconds": 600}))
    world.wait_for_condition("Ready", "True")
    for limit in (2, 3):
        server.break_watches(code, user_agent="kopf")
        world.edit({"scaling": {"maxJobs": limit}})
        eventually(lambda: world.status()["observedGeneration"] == world.get()["metadata"]["generation"])
    server.break_watches(line=BROKEN, user_agent="kopf")
    world.enqueue(10)
    world.wait_until_drained()
    assert operator.running
    assert "Lost" not in operator.log


def test_watches_that_end_at_once_are_asked_for_more_and_more_rarely(world: World, server: ApiServer) -> None:
    operator = world.operator()
    with server.fault(verb="watch", resource=RESOURCE, namespace=world.namespace, status=200, text="") as ends:
        server.cut()
        eventually(lambda: ends.hits >= 6)
        times = [one.time for one in server.requests if one.resource == RESOURCE and one.verb == "watch"][-5:]
        assert operator.probe("healthz")[0] == 200
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(gap >= least for gap, least in zip(gaps, (0.1, 0.2, 0.4, 0.8), strict=True))


def test_a_token_that_is_refused_everywhere_for_a_while_ends_nobody(world: World, server: ApiServer) -> None:
    world.secret()
    operator = world.operator(constants=IMPATIENT)
    world.create()
    world.wait_for_condition("Ready", "True")
    with (
        server.fault(namespace=world.namespace, user_agent="kopf", status=401) as watches,
        server.fault(namespace=world.namespace, user_agent="siorg-operator", status=401) as refused,
    ):
        server.cut()
        world.enqueue(10)
        eventually(lambda: refused.hits > 3 and watches.hits > len(WATCHED))
    world.wait_until_drained()
    assert operator.running


def test_an_operator_ends_in_time_although_nothing_is_answered(world: World, server: ApiServer) -> None:
    world.secret()
    world.enqueue(10)
    operator = world.operator(LEADER_ELECTION="true", constants=HASTE | CURT)
    world.create()
    eventually(world.jobs)
    with (
        server.fault(hang=True, user_agent="siorg-operator", namespace=world.namespace) as hangs,
        server.fault(hang=True, user_agent="kopf", namespace=world.namespace) as watches,
    ):
        world.edit({"scaling": {"maxJobs": 2}})
        server.cut()
        eventually(lambda: hangs.hits and watches.hits >= len(WATCHED))
        operator.send(signal.SIGTERM)
        assert operator.ends() == 0
    assert '"Ended"' in operator.log


@pytest.mark.parametrize("election", ["true", "false"])
def test_an_operator_that_has_had_no_answer_yet_ends_in_time(world: World, server: ApiServer, election: str) -> None:
    operator = world.operator(start=False, LEADER_ELECTION=election, constants=HASTE | CURT)
    with server.fault(hang=True, user_agent="siorg-operator", namespace=world.namespace) as hangs:
        operator.start(ready=False)
        eventually(lambda: hangs.hits)
        operator.send(signal.SIGTERM)
        assert operator.ends() == 0


def test_an_operator_that_hangs_ends_by_force_and_says_so(world: World, server: ApiServer) -> None:
    operator = world.operator(LEADER_ELECTION="true", constants=HASTE | {"siorg_operator.control.run.GRACE_SECONDS": 1.0})
    with server.fault(hang=True, resource="leases", namespace=world.namespace) as hangs:
        eventually(lambda: hangs.hits)
        operator.send(signal.SIGTERM)
        assert operator.ends() == 1
    assert "Not ended 1 s after being asked to" in operator.log


def test_slow_admission_holds_up_launches_and_restarts_nobody(world: World, server: ApiServer) -> None:
    """More of them at once than there are threads: the last one ends later than a pass may be silent."""
    world.secret()
    world.enqueue(200)
    operator = world.operator(constants=HASTE | {"siorg_operator.serving.health.PASS_SECONDS": 6.0})
    many = world.resource(scaling={"maxJobs": POOL_SIZE + 1, "maxLaunchesPerStep": POOL_SIZE + 1}, job={"image": HELD_IMAGE})
    slow = server.fault(verb="create", resource="jobs", namespace=world.namespace, user_agent="siorg-operator", delay=3.5)
    with slow, job_census(world.cluster.kubeconfig, world.namespace) as census:
        world.create(many)
        eventually(lambda: operator.probe("healthz")[0] != 200 or len(world.jobs()) > POOL_SIZE)
        assert operator.probe("healthz")[0] == 200
    assert (census.most, census.doubled) == (POOL_SIZE + 1, [])
    world.release()
    world.wait_until_drained()


def test_launches_that_hang_in_admission_hold_up_no_other_resource(world: World, server: ApiServer) -> None:
    world.secret()
    world.enqueue(200)
    world.operator()
    many = world.resource(scaling={"maxJobs": POOL_SIZE, "maxLaunchesPerStep": POOL_SIZE})
    with server.fault(verb="create", resource="jobs", namespace=world.namespace, hang=True) as hangs:
        world.create(many)
        eventually(lambda: hangs.hits >= POOL_SIZE - 2)
        world.create(world.resource("other", suspend=True))
        eventually(lambda: world.status("other").get("conditions"))
        assert hangs.hits < POOL_SIZE
