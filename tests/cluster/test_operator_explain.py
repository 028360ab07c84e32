"""``siorg-operator explain NAME``: the decision that would be made now, from what the cluster and the queue are."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

from kube_double.server import ApiServer
from support.fleet import eventually
from support.siorg_world import HELD_IMAGE, World


def explain(
    world: World, *arguments: str, kubeconfig: Path | None = None, unset: str = "", **settings: Any
) -> subprocess.CompletedProcess[str]:
    operator = world.operator(start=False, kubeconfig=kubeconfig, **settings)
    operator.environment.pop(unset, None)
    return operator.explain(*arguments)


def test_prints_the_decision_and_every_limit_that_shaped_it(world: World) -> None:
    world.secret()
    world.enqueue(96)
    world.create(world.resource(scaling={"maxJobs": 3, "maxLaunchesPerStep": 2}))

    told = explain(world, "sync")

    assert told.returncode == 0, told.stderr
    assert "96 items are claimable" in told.stdout
    assert "depth 96, 20 a Job → 5 wanted, maxJobs 3 → 3, 0 unfinished → would launch 2 (maxLaunchesPerStep 2)" in told.stdout
    assert "Nothing was launched or written" in told.stdout
    for limit in ("by size", "by time", "minJobs", "maxJobs", "connection budget", "request budget"):
        assert limit in told.stdout
    (deciding,) = (line for line in told.stdout.splitlines() if "◀ decides" in line)
    assert "maxJobs" in deciding
    assert not world.kube.list("jobs")
    assert "status" not in world.get()


def test_counts_the_jobs_that_are_there(world: World) -> None:
    world.secret()
    world.enqueue(96)
    world.operator()
    world.create(world.resource(scaling={"maxJobs": 3}, job={"image": HELD_IMAGE}))
    eventually(lambda: len(world.processes()) == 3)
    eventually(lambda: world.status()["jobs"]["active"] == 3)

    told = explain(world, "sync")

    assert told.returncode == 0, told.stderr
    assert "3 unfinished → would launch 0" in told.stdout
    assert "3 with a running pod" in told.stdout
    supposed = explain(world, "sync", "--depth", "10")
    assert "depth 10, 20 a Job → 1 wanted" in supposed.stdout
    assert "did not tell its limit" not in supposed.stdout  # all but the depth is as it is read


def test_takes_the_image_and_the_pacing_that_the_operator_has(world: World) -> None:
    world.secret()
    world.enqueue(1)
    resource = world.resource(job={"image": ""})
    world.create(resource)
    assert "InvalidSpec" in explain(world, "sync", unset="SIORG_OPERATOR_JOB_IMAGE").stdout
    given = explain(world, "sync", JOB_IMAGE=HELD_IMAGE)
    assert given.returncode == 0, given.stderr
    assert f"Assumed: image {HELD_IMAGE} (from SIORG_OPERATOR_JOB_IMAGE" in given.stdout

    world.operator(JOB_IMAGE=HELD_IMAGE)
    eventually(lambda: len(world.processes()) == 1)
    of_the_job = explain(world, "sync", unset="SIORG_OPERATOR_JOB_IMAGE")
    assert f"Assumed: image {HELD_IMAGE} (from the newest Job, sync-" in of_the_job.stdout


def test_a_supposed_depth_leaves_the_trouble_that_there_is(world: World) -> None:
    world.secret()
    world.enqueue(1)
    world.operator(BACKOFF_BASE_SECS=300, BACKOFF_MAX_SECS=300)
    world.create(world.resource(env={"WORKER_LEASE_SECS": "1"}))  # which the job refuses
    world.wait_for_condition("Degraded", "True", "JobsFailing")

    for more in ((), ("--depth", "500")):
        told = explain(world, "sync", *more, BACKOFF_BASE_SECS=300, BACKOFF_MAX_SECS=300)
        assert "JobsFailing" in told.stdout, told.stdout
        assert "would launch" in told.stdout
        assert "one probe Job at" in told.stdout


def test_looks_in_the_namespace_of_the_kubeconfigs_context(world: World, tmp_path: Path) -> None:
    world.secret()
    world.create(world.resource(suspend=True))
    config = yaml.safe_load(world.cluster.kubeconfig.read_text())
    for context in config["contexts"]:
        context["context"]["namespace"] = world.namespace
    mine = tmp_path / "kubeconfig"
    mine.write_text(yaml.safe_dump(config))
    told = explain(world, "sync", kubeconfig=mine, unset="SIORG_OPERATOR_NAMESPACE")
    assert told.returncode == 0, told.stderr


def test_says_what_is_wrong_and_what_is_in_the_way(world: World) -> None:
    world.create(world.resource(suspend=True))
    missing = explain(world, "sync")
    assert missing.returncode == 75
    assert "kubectl create secret" in missing.stdout

    world.secret()
    world.enqueue(10)
    suspended = explain(world, "sync")
    assert suspended.returncode == 0
    assert "spec.suspend is true" in suspended.stdout
    assert "Suspended" in suspended.stdout

    unknown = explain(world, "nobody")
    assert unknown.returncode == 2
    assert f"there is no SiorgSyncWorker nobody in namespace {world.namespace}" in unknown.stderr
    elsewhere = explain(world, "sync", "--namespace", "default")
    assert elsewhere.returncode == 2


def test_an_api_server_that_is_away_is_no_traceback(world: World, server: ApiServer, tmp_path: Path) -> None:
    world.create()
    with server.gone():
        away = explain(world, "sync")
    assert away.returncode == 75
    assert "did not answer" in away.stderr
    assert "Traceback" not in away.stderr

    none = explain(world, "sync", kubeconfig=tmp_path / "none.yaml")
    assert none.returncode == 2
    assert "KUBECONFIG" in none.stderr
    assert "Traceback" not in none.stderr
