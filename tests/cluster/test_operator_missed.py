"""What happened while nobody watched: an API server that was away tells only what is there now, never what is gone."""

from __future__ import annotations

from typing import Any

from kube_double.server import ApiServer
from support.fleet import eventually
from support.job_census import job_census
from support.operator_process import Operator
from support.siorg_world import HASTE, HELD_IMAGE, RESOURCE, World


def hasty(world: World) -> Operator:
    """One that compares soon what it knows with what there is; not started."""
    return world.operator(start=False, constants=HASTE | {"siorg_operator.control.resync._DEBOUNCE_SECONDS": 0.5})


def one_job(world: World) -> dict[str, Any]:
    return world.resource(scaling={"maxJobs": 1}, job={"image": HELD_IMAGE})


def uids(bodies: list[dict[str, Any]]) -> set[str]:
    return {body["metadata"]["uid"] for body in bodies}


def test_a_job_that_was_deleted_meanwhile_takes_no_slot(world: World, server: ApiServer) -> None:
    world.secret()
    world.enqueue(10)
    world.create(one_job(world))
    with hasty(world):
        eventually(lambda: world.status().get("jobs", {}).get("active") == 1)
        job, pods = world.jobs()[0], uids(world.pods())
        with server.gone():
            server.delete("jobs", job["metadata"]["name"], world.namespace)
            server.compact()
        eventually(lambda: not pods & uids(world.pods()))  # or the old process would do the work
        world.release()
        eventually(lambda: uids(world.jobs()) - uids([job]))
        world.wait_until_drained()


def test_a_resource_that_was_deleted_meanwhile_is_left_alone(world: World, server: ApiServer) -> None:
    world.secret()
    world.create(one_job(world))
    world.create(world.resource("other"))
    with hasty(world) as running:
        world.wait_for_condition("Ready", "True")
        with server.gone():
            server.delete(RESOURCE, "sync", world.namespace)
            server.compact()
        eventually(lambda: 'worker="sync"' not in running.probe("metrics")[1])
        world.enqueue(1)
        eventually(lambda: world.jobs("other"))
        assert world.jobs("sync") == []


def test_a_resource_that_was_made_anew_meanwhile_is_another_one(world: World, server: ApiServer) -> None:
    world.secret()
    world.enqueue(10)
    world.create(one_job(world))
    with hasty(world):
        eventually(lambda: world.status().get("jobs", {}).get("active") == 1)
        pods = uids(world.pods())
        with server.gone():
            server.delete(RESOURCE, "sync", world.namespace)
            uid = server.create(one_job(world), world.namespace)["metadata"]["uid"]
            server.compact()
        eventually(lambda: not pods & uids(world.pods()))
        world.release()
        world.wait_until_drained()
        assert {job["metadata"]["ownerReferences"][0]["uid"] for job in world.jobs()} == {uid}


def test_a_watch_that_is_silent_neither_stops_the_work_nor_makes_the_jobs_too_many(world: World, server: ApiServer) -> None:
    world.secret()
    world.create(world.resource(scaling={"maxJobs": 2}, job={"successfulJobsHistoryLimit": 0}))
    constants = HASTE | {"siorg_operator.control.expectations._SHOWN_WITHIN_SECONDS": 0.5}
    silent = server.fault(verb="watch", resource="jobs", user_agent="kopf", hang=True)
    with (
        silent,
        job_census(world.cluster.kubeconfig, world.namespace) as census,
        world.operator(start=False, constants=constants),
    ):
        for burst in range(1, 4):
            world.enqueue(40)
            eventually(lambda: world.outcomes() == {"COMPLETED/1": 40 * burst})  # noqa: B023
    assert (census.most, census.doubled) == (2, [])
