"""Jobs that fail: fewer and fewer of them, a condition that says what to do, and nothing lost."""

from __future__ import annotations

import os
import signal
import sys
import time
from datetime import datetime, timedelta

from support.fleet import eventually
from support.siorg_world import IMAGE, World

FAILING = "siorg-job:failing"


def test_jobs_that_always_fail_become_rare_and_a_change_is_tried_at_once(world: World) -> None:
    program = "import sys; sys.exit('cannot open /etc/siorg/rules.yaml')"
    world.cluster.kubelet.images[FAILING] = [sys.executable, "-c", program]
    world.secret()
    world.enqueue(70)
    operator = world.operator()
    began = time.monotonic()
    world.create(world.resource(job={"image": FAILING, "failedJobsHistoryLimit": 50}))

    told = world.wait_for_condition("Degraded", "True", "JobsFailing")

    assert "exit code 1: cannot open /etc/siorg/rules.yaml" in told["message"]
    assert "kubectl logs job/" in told["message"]
    assert "one probe Job may leave at" in told["message"]
    assert world.condition("Ready")["reason"] == "JobsFailing"
    # 1, 2, 4 s and a little: with a Job each tick there would be dozens.
    eventually(lambda: (world.status().get("backoff") or {}).get("streak", 0) >= 3, seconds=60)
    took, backoff = time.monotonic() - began, world.status()["backoff"]
    jobs = world.jobs()
    assert 6 <= len(jobs) <= 7, f"{len(jobs)} Jobs in {took:.0f} s"
    assert took > 1 + 2 - 2  # Kubernetes tells whole seconds, so each pause may be almost one shorter
    pause = datetime.fromisoformat(backoff["retryTime"]) - datetime.fromisoformat(backoff["lastFailureTime"])
    assert pause >= timedelta(seconds=2 ** (backoff["streak"] - 1))
    assert operator.metric("siorg_operator_launches_total", "Probe") <= 3
    assert operator.metric("siorg_operator_jobs_ended_total", "JobFailed") >= 6
    assert [event["reason"] for event in world.events()].count("JobsFailing") == 1
    assert world.outcomes() == {"PENDING": 70}

    probes = operator.metric("siorg_operator_launches_total", "Probe")
    world.edit({"job": {"image": IMAGE}})

    eventually(world.processes)
    assert operator.metric("siorg_operator_launches_total", "Probe") == probes  # a change waits for no pause
    world.wait_until_drained()
    world.wait_for_condition("Degraded", "False")
    assert world.outcomes() == {"COMPLETED/1": 70}


def test_a_setting_that_jobs_refuse_is_named(world: World) -> None:
    world.secret()
    world.enqueue(10)
    world.operator()
    world.create(world.resource(env={"SIORG_TIMEOUT_SECS": "soon"}))

    told = world.wait_for_condition("Degraded", "True", "JobsFailing")

    assert "Jobs refuse their settings" in told["message"]
    assert "SIORG_TIMEOUT_SECS" in told["message"]
    assert "Correct what the message names" in told["message"]
    world.replace_spec(world.resource()["spec"])
    eventually(world.processes)
    world.wait_until_drained()
    world.wait_for_condition("Degraded", "False")


def test_jobs_that_cannot_reach_the_database_are_no_storm_on_it(world: World) -> None:
    elsewhere = "import os, sys; os.environ['DATABASE_URL'] = 'postgresql://postgres@127.0.0.1:1/siorg'"
    program = f"{elsewhere}; os.execv(sys.executable, [sys.executable, '-m', 'siorg_job', *sys.argv[1:]])"
    world.cluster.kubelet.images[FAILING] = [sys.executable, "-c", program]
    world.secret()
    world.enqueue(70)
    world.operator()
    impatient = {"WORKER_UNAVAILABLE_SECS": "0.2"}
    world.create(world.resource(env=impatient, job={"image": FAILING, "failedJobsHistoryLimit": 50}))

    told = world.wait_for_condition("Degraded", "True", "JobsFailing")

    assert "Jobs cannot reach the database" in told["message"]
    assert "where it is True, only the pods fail; check network policies" in told["message"]
    assert world.condition("QueueReachable")["status"] == "True"
    eventually(lambda: world.status()["backoff"]["streak"] >= 2)
    assert len(world.jobs()) <= 4 + 2


def test_a_job_process_that_is_killed_is_replaced_and_nothing_is_lost(world: World) -> None:
    world.siorg.control("PUT", "latency", {"latency": "1000"})
    world.secret()
    world.enqueue(40)
    world.operator()
    slow = {"batchSize": 4, "concurrency": 4}
    world.create(world.resource(env={"WORKER_LEASE_SECS": "2", "SIORG_FRESH_SECS": "0"}, worker=slow))
    eventually(lambda: len(world.processes()) == 2 and world.outcomes().get("PROCESSING/1", 0) >= 8)

    victim = world.processes()[0]
    os.kill(victim.pid, signal.SIGKILL)
    world.siorg.control("PUT", "latency", {"latency": "100"})

    eventually(lambda: world.status()["jobs"]["failed"] == 1)
    eventually(lambda: world.condition("Degraded")["reason"] == "JobsFailing" or world.depth() == 0)
    world.wait_until_drained()
    assert world.outcomes() == {"COMPLETED/1": 40}  # what it had in hand paid nothing for it
    world.wait_for_condition("Degraded", "False")
    world.wait_for_condition("Ready", "True")
