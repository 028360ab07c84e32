"""``siorg-operator explain NAME``: the decision that would be made now, from what the cluster and the queue are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.api_server.server import ApiServer
from support.fleet import eventually
from support.siorg_world import HELD_IMAGE, World


def explain(world: World, *arguments: str, kubeconfig: Path | None = None) -> subprocess.CompletedProcess[str]:
    operator = world.operator(start=False, kubeconfig=kubeconfig)
    return subprocess.run(
        [sys.executable, "-m", "siorg_operator", "explain", *arguments],
        env={**operator.environment, "COLUMNS": "160"}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip


def test_prints_the_decision_and_every_limit_that_shaped_it(world: World) -> None:
    world.secret()
    world.enqueue(480)
    world.create(world.resource(scaling={"maxJobs": 3, "maxLaunchesPerStep": 2}))

    told = explain(world, "sync")

    assert told.returncode == 0, told.stderr
    assert "480 items are claimable" in told.stdout
    assert "depth 480, 100 a Job → 5 wanted, maxJobs 3 → 3, 0 unfinished → launched 2 (maxLaunchesPerStep 2)" in told.stdout
    for limit in ("by size", "by time", "minJobs", "maxJobs", "connection budget", "request budget"):
        assert limit in told.stdout
    (deciding,) = (line for line in told.stdout.splitlines() if "◀ decides" in line)
    assert "maxJobs" in deciding
    assert not world.kube.list("jobs")
    assert "status" not in world.get()


def test_counts_the_jobs_that_are_there(world: World) -> None:
    world.secret()
    world.enqueue(480)
    world.operator()
    world.create(world.resource(scaling={"maxJobs": 3}, job={"image": HELD_IMAGE}))
    eventually(lambda: len(world.processes()) == 3)
    eventually(lambda: world.status()["jobs"]["active"] == 3)

    told = explain(world, "sync")

    assert told.returncode == 0, told.stderr
    assert "3 unfinished → launched 0" in told.stdout
    assert "3 with a running pod" in told.stdout
    supposed = explain(world, "sync", "--depth", "10")
    assert "depth 10, 100 a Job → 1 wanted" in supposed.stdout


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
    assert none.returncode in {2, 75}
    assert "KUBECONFIG" in none.stderr
    assert "Traceback" not in none.stderr
