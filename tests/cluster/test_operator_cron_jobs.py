"""The CronJobs of discovery, cleanup and verification: as the resource says, whatever anybody does to them."""

from __future__ import annotations

import sys
from typing import Any

from kube_double.server import ApiServer
from support.fleet import eventually
from support.kube import Body, condition
from support.queue import verify
from support.siorg_world import HELD_IMAGE, IMAGE, ORGANIZATION, UNITS, World

FAILING = "siorg-job:failing"
DISCOVERY = {"enabled": True, "schedule": "7 * * * *", "timeZone": "America/Cuiaba", "organizations": [ORGANIZATION]}
CLEANUP = {"enabled": True, "schedule": "17 3 * * *", "retentionDays": 90}
BOTH: dict[str, Any] = {"discovery": DISCOVERY, "cleanup": CLEANUP}


def container(cron_job: Body) -> Body:
    (found,) = cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    return dict(found)


def names(world: World) -> set[str]:
    return {cron_job["metadata"]["name"] for cron_job in world.kube.list("cronjobs")}


def complete(world: World, job: str) -> Body:
    return world.kube.wait_for("jobs", job, lambda found: condition(found, "Complete") == "True", seconds=60)


def test_the_first_discovery_comes_with_its_cron_job_once_and_feeds_the_queue_that_jobs_drain(world: World) -> None:
    world.secret()
    operator = world.operator()
    resource = world.create(world.resource(**BOTH))
    discovery = world.kube.wait_for("cronjobs", "sync-discovery")
    cleanup = world.kube.wait_for("cronjobs", "sync-cleanup")

    assert container(discovery)["args"] == ["discover", "--organization", str(ORGANIZATION)]
    assert (discovery["spec"]["schedule"], discovery["spec"]["timeZone"]) == ("7 * * * *", "America/Cuiaba")
    assert container(cleanup)["args"] == ["cleanup"]
    assert {"name": "WORKER_RETENTION_DAYS", "value": "90"} in container(cleanup)["env"]
    for cron_job in (discovery, cleanup):
        assert cron_job["spec"]["concurrencyPolicy"] == "Forbid"
        assert [owner["uid"] for owner in cron_job["metadata"]["ownerReferences"]] == [resource["metadata"]["uid"]]

    world.kube.job_from_cronjob("sync-cleanup", "clean")

    first = complete(world, "sync-discovery-first")
    complete(world, "clean")
    world.wait_until_drained()
    assert world.outcomes() == {"COMPLETED/1": UNITS}
    assert world.jobs()
    # As kubectl create job --from=cronjob/sync-discovery makes it.
    assert first["metadata"]["annotations"]["cronjob.kubernetes.io/instantiate"] == "manual"
    (owner,) = first["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("CronJob", discovery["metadata"]["uid"], True)
    assert first["spec"]["template"]["spec"]["containers"] == [container(discovery)]
    eventually(lambda: [event["type"] for event in world.events("FirstDiscovery")] == ["Normal"])
    world.kube.wait_for("cronjobs", "sync-discovery", lambda found: found["spec"]["suspend"] is False)

    # Once, whatever becomes of its Job, of the CronJob and of the operator.
    begun = world.status()["discovery"]["begunTime"]
    world.edit({"discovery": {"enabled": False}})
    world.kube.wait_gone("cronjobs", "sync-discovery")
    world.kube.wait_gone("jobs", "sync-discovery-first")
    operator.stop()
    operator.start()
    world.edit({"discovery": {"enabled": True}})
    again = world.kube.wait_for("cronjobs", "sync-discovery")
    eventually(lambda: world.status()["observedGeneration"] == world.get()["metadata"]["generation"])
    world.edit({"cleanup": {"retentionDays": 7}})  # more passes
    eventually(lambda: world.status()["observedGeneration"] == world.get()["metadata"]["generation"])
    assert not [job for job in world.kube.list("jobs") if again["metadata"]["uid"] in str(job["metadata"]["ownerReferences"])]
    assert world.status()["discovery"]["begunTime"] == begun
    eventually(lambda: world.status()["jobs"]["succeeded"] == len(world.jobs()))  # of the CronJobs' Jobs nothing is counted


def test_what_a_verification_stored_is_shown_and_decides_nothing(world: World) -> None:
    world.secret()
    operator = world.operator()
    world.create(world.resource(scaling={"pollIntervalSeconds": 1}, verification={"enabled": True}))
    assert container(world.kube.wait_for("cronjobs", "sync-verification"))["args"] == ["verify", "--stored", "--enqueue"]
    world.wait_for_condition("InSync", "Unknown", "NotVerified")
    for drift, status, reason in ((3, "False", "DriftFound"), (0, "True", "Verified")):
        verify(world.connection, "0 s", drift=drift, departures='{"edited": 2}')
        told = world.wait_for_condition("InSync", status, reason)["message"]
        assert "2 edited" in told
        assert told in operator.explain("sync").stdout
        assert world.status()["verification"]["drift"] == drift
        eventually(lambda drift=drift: operator.metric("siorg_operator_departures", "drift") == drift)  # type: ignore[misc]
        world.wait_for_condition("Ready", "True", "AsExpected")


def test_cron_jobs_follow_the_resource(world: World) -> None:
    world.secret()
    world.operator()
    world.create(world.resource(**BOTH))
    before = world.kube.wait_for("cronjobs", "sync-cleanup")["metadata"]["uid"]

    world.edit({"cleanup": {"schedule": "0 5 * * 0", "timeZone": "Etc/UTC", "retentionDays": 7}, "worker": {"logLevel": "debug"}})
    after = world.kube.wait_for("cronjobs", "sync-cleanup", lambda found: found["spec"]["schedule"] == "0 5 * * 0")
    assert after["metadata"]["uid"] == before
    assert after["spec"]["timeZone"] == "Etc/UTC"
    assert {"name": "WORKER_RETENTION_DAYS", "value": "7"} in container(after)["env"]
    assert {"name": "LOG_LEVEL", "value": "debug"} in container(after)["env"]
    world.edit({"cleanup": {"timeZone": None}})
    world.kube.wait_for("cronjobs", "sync-cleanup", lambda found: "timeZone" not in found["spec"])

    # They rest while it does.
    def rest(wanted: bool) -> None:
        eventually(lambda: {found["metadata"]["name"]: found["spec"]["suspend"] for found in world.kube.list("cronjobs")}
                   == {"sync-discovery": wanted, "sync-cleanup": wanted})  # fmt: skip

    rest(wanted=False)
    for change, wanted in (({"suspend": True}, True), ({"suspend": False}, False), ({"mode": "Observe"}, True)):
        world.edit(change)
        rest(wanted)

    # They go when they are disabled, and come back.
    world.edit({"cleanup": {"enabled": False}})
    eventually(lambda: names(world) == {"sync-discovery"})
    world.edit({"cleanup": {"enabled": True}, "discovery": {"enabled": False}})
    eventually(lambda: names(world) == {"sync-cleanup"})


def test_what_somebody_does_to_a_cron_job_is_mended(world: World) -> None:
    world.secret()
    world.operator()
    world.create(world.resource(**BOTH))
    world.kube.wait_for("cronjobs", "sync-discovery")

    others = {"metadata": {"annotations": {"team.example/owner": "somebody"}}, "spec": {"schedule": "* * * * *"}}
    world.kube.patch("cronjobs", "sync-discovery", others)
    mended = world.kube.wait_for("cronjobs", "sync-discovery", lambda found: found["spec"]["schedule"] == "7 * * * *")
    assert mended["metadata"]["annotations"]["team.example/owner"] == "somebody"  # what others add stays

    world.kube.patch("cronjobs", "sync-discovery", {"spec": {"suspend": True}})
    world.kube.wait_for("cronjobs", "sync-discovery", lambda found: found["spec"]["suspend"] is False)

    theirs = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "sync-discovery"}}
    world.kube.apply(theirs | {"spec": {"timeZone": "Etc/UTC"}}, manager="somebody", force=True)
    world.kube.wait_for("cronjobs", "sync-discovery", lambda found: found["spec"]["timeZone"] == "America/Cuiaba")

    uid = world.kube.wait_for("cronjobs", "sync-discovery")["metadata"]["uid"]
    world.kube.delete("cronjobs", "sync-discovery")
    world.kube.wait_for("cronjobs", "sync-discovery", lambda found: found["metadata"]["uid"] != uid)


def test_what_was_done_to_a_cron_job_while_no_operator_ran_is_mended_too(world: World) -> None:
    world.secret()
    operator = world.operator()
    world.create(world.resource(**BOTH))
    world.kube.wait_for("cronjobs", "sync-discovery")
    world.kube.wait_for("cronjobs", "sync-cleanup")
    operator.stop()
    world.kube.delete("cronjobs", "sync-discovery")
    world.kube.patch("cronjobs", "sync-cleanup", {"spec": {"jobTemplate": {"spec": {"activeDeadlineSeconds": 60}}}})

    operator.start()

    world.kube.wait_for("cronjobs", "sync-discovery")
    world.kube.wait_for(
        "cronjobs", "sync-cleanup", lambda found: found["spec"]["jobTemplate"]["spec"]["activeDeadlineSeconds"] == 21_600
    )


def test_cron_jobs_that_are_as_they_should_be_are_not_written_again(world: World, server: ApiServer) -> None:
    world.secret()
    operator = world.operator()
    world.create(world.resource(scaling={"pollIntervalSeconds": 1}, **BOTH))
    complete(world, "sync-discovery-first")
    world.wait_until_drained()
    world.kube.wait_for("cronjobs", "sync-discovery", lambda found: found["spec"]["suspend"] is False)
    world.kube.patch("cronjobs", "sync-cleanup", {"spec": {"successfulJobsHistoryLimit": 3, "startingDeadlineSeconds": 9}})
    world.kube.wait_for("cronjobs", "sync-cleanup", lambda found: found["spec"]["startingDeadlineSeconds"] == 600)
    operator.stop()
    operator.start()
    eventually(lambda: operator.metric("siorg_operator_reconcile_seconds_count") >= 1)
    before = len(server.requests)
    passes = operator.metric("siorg_operator_reconcile_seconds_count")

    eventually(lambda: operator.metric("siorg_operator_reconcile_seconds_count") >= passes + 3)

    written = [asked for asked in server.requests[before:] if asked.writes and asked.namespace == world.namespace]
    assert not written


def test_the_cron_job_of_somebody_else_is_left_alone(world: World) -> None:
    pod = {"restartPolicy": "Never", "containers": [{"name": "theirs", "image": "theirs:1"}]}
    theirs = world.kube.create({
        "apiVersion": "batch/v1", "kind": "CronJob",
        "metadata": {"name": "sync-cleanup", "namespace": world.namespace},
        "spec": {"schedule": "@yearly", "jobTemplate": {"spec": {"template": {"spec": pod}}}},
    })  # fmt: skip
    world.secret()
    world.operator()
    world.create(world.resource(**BOTH))

    told = world.wait_for_condition("Degraded", "True", "CronJobRefused")["message"]
    assert "sync-cleanup exists that this resource does not own: rename or delete it" in told
    world.kube.wait_for("cronjobs", "sync-discovery")
    assert world.kube.wait_for("cronjobs", "sync-cleanup")["metadata"]["resourceVersion"] == theirs["metadata"]["resourceVersion"]

    world.kube.delete("cronjobs", "sync-cleanup")
    world.wait_for_condition("Degraded", "False")
    assert world.kube.wait_for("cronjobs", "sync-cleanup")["metadata"]["ownerReferences"]


def test_cron_jobs_that_are_refused_hold_up_no_launch(world: World, server: ApiServer) -> None:
    world.secret()
    world.operator()
    with server.fault(verb="patch", resource="cronjobs", namespace=world.namespace, status=403):
        world.create(world.resource(**BOTH))
        world.wait_for_condition("Ready", "False", "CronJobRefused")
        assert "raise the quota" in world.condition("Degraded")["message"]
        world.enqueue(5)
        world.wait_until_drained()
        world.enqueue(5)
        world.wait_until_drained()
        assert len(world.events("CronJobRefused")) == 1
    world.wait_for_condition("Ready", "True")
    assert names(world) == {"sync-discovery", "sync-cleanup"}


def test_suspended_to_stop_a_discovery_that_runs_ends_too_and_is_not_told_as_failing(world: World) -> None:
    world.siorg.control("PUT", "latency", {"latency": "8000"})
    world.secret()
    world.operator()
    world.create(world.resource(whenSuspended="Stop", **BOTH))
    eventually(world.processes)

    world.edit({"suspend": True})

    stopped = world.kube.wait_for("jobs", "sync-discovery-first", lambda job: condition(job, "Failed") == "True", seconds=60)
    assert stopped["metadata"]["annotations"]["siorg.waterswamp.dev/stopped"] == "spec.suspend is true"
    eventually(lambda: not world.processes())
    world.wait_for_condition("Ready", "True", "Suspended")
    assert world.condition("Degraded")["status"] == "False"


def test_a_job_that_runs_ends_before_its_disabled_cron_job_goes(world: World) -> None:
    world.secret()
    world.operator()
    world.create(world.resource(job={"image": HELD_IMAGE}, **BOTH))
    eventually(world.processes)  # the first discovery

    world.edit({"discovery": {"enabled": False}})

    world.kube.wait_for("cronjobs", "sync-discovery", lambda found: found["spec"]["suspend"] is True)
    world.release()
    world.kube.wait_gone("cronjobs", "sync-discovery")
    row = world.connection.execute("SELECT count(*) AS n FROM siorg_sync_queue").fetchone()
    assert row == {"n": UNITS}


def test_discovery_that_fails_is_told_until_it_succeeds(world: World) -> None:
    world.secret()
    operator = world.operator()
    world.cluster.kubelet.images[FAILING] = [sys.executable, "-c", "import sys; sys.exit(1)"]
    world.create(world.resource(job={"image": FAILING}, **BOTH))

    told = world.wait_for_condition("Degraded", "True", "DiscoveryFailing", seconds=120)["message"]  # after its retries
    assert "kubectl logs job/sync-discovery-first" in told
    assert operator.metric("siorg_operator_cron_job_failing", "discovery") == 1

    world.edit({"job": {"image": IMAGE}})
    world.kube.wait_for("cronjobs", "sync-discovery", lambda found: container(found)["image"] == IMAGE)
    world.kube.job_from_cronjob("sync-discovery", "good")
    world.wait_for_condition("Degraded", "False", "AsExpected", seconds=60)
    assert operator.metric("siorg_operator_cron_job_failing", "discovery") == 0
    eventually(lambda: world.events("Recovered"))
    assert [event["reason"] for event in world.events() if event["reason"] in {"DiscoveryFailing", "Recovered"}] == [
        "DiscoveryFailing",
        "Recovered",
    ]
