"""A resource from its creation to its deletion, with an operator, Jobs and job processes that are real."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from support.fleet import eventually
from support.kube import condition
from support.operator_process import Operator
from support.siorg_world import HELD_IMAGE, RESOURCE, UNITS, World

MAX_JOBS = 4


def columns(world: World) -> dict[str, Any]:
    """What ``kubectl get ssw`` shows of the one resource."""
    table = world.kube.request("GET", world.kube.path(RESOURCE), accept="application/json;as=Table;v=v1;g=meta.k8s.io")
    (row,) = table["rows"]
    return dict(zip((column["name"] for column in table["columnDefinitions"]), row["cells"], strict=True))


def reasons(world: World) -> list[str]:
    return [event["reason"] for event in world.events()]


def counted(operator: Operator, name: str) -> dict[tuple[str, ...], float]:
    """The samples of a counter that are not 0."""
    return {labels: value for labels, value in operator.metrics()[name].items() if value}


def all_run(world: World, count: int) -> bool:
    """Whether so many drains run, and the status knows."""
    return len(world.processes()) == count and world.status().get("jobs", {}).get("active") == count


def test_work_is_drained_by_jobs_that_come_and_go_and_everything_is_told(world: World) -> None:
    # On a real cluster this makes the API server refuse every pod that is not as it should be.
    enforced = {"pod-security.kubernetes.io/enforce": "restricted"}
    world.kube.patch("namespaces", world.namespace, {"metadata": {"labels": enforced}})
    operator = world.operator(forked=False)

    # Nothing to read the queue with.
    slow = {"batchSize": 4, "concurrency": 4}  # so that each Job gets its share, however late its process starts
    scaling = {"maxJobs": MAX_JOBS, "itemsPerJob": UNITS // 5}
    world.create(world.resource(env={"SIORG_FRESH_SECS": "0"}, worker=slow, scaling=scaling, job={"image": HELD_IMAGE}))
    missing = world.wait_for_condition("Ready", "False", "SecretMissing")
    assert f"{world.namespace}/database" in missing["message"]
    assert "kubectl create secret" in missing["message"]
    assert columns(world) | {"Ready": "False", "Reason": "SecretMissing", "Max": MAX_JOBS} == columns(world)

    # Nothing to do.
    world.secret()
    world.wait_for_condition("Ready", "True", "AsExpected")
    assert world.condition("QueueReachable")["status"] == "True"
    assert world.condition("SiorgAvailable")["status"] == "Unknown"
    assert world.condition("ScalingActive")["status"] == "True"
    assert world.condition("Degraded")["status"] == "False"
    assert world.status()["observedGeneration"] == 1
    assert world.decision()["reason"] == "QueueEmpty"
    assert columns(world) | {"Ready": "True", "Depth": 0, "Active": 0, "Reason": "AsExpected"} == columns(world)
    assert not world.jobs()
    assert operator.metric("siorg_operator_queue_depth") == 0

    # Work comes.
    world.siorg.control("PUT", "latency", {"latency": "60"})
    assert world.discover() == UNITS
    eventually(lambda: all_run(world, MAX_JOBS))
    eventually(lambda: world.status()["queue"]["claimable"] == UNITS)
    status = world.status()
    assert status["jobs"]["desired"] == MAX_JOBS
    assert status["queue"]["due"] == UNITS
    assert f"depth {UNITS}, 50 a Job → 5 wanted, maxJobs 4 → 4" in world.decision()["message"]
    shown = columns(world)
    assert (shown["Ready"], shown["Depth"], shown["Active"], shown["Max"]) == ("True", UNITS, MAX_JOBS, MAX_JOBS)
    assert isinstance(shown["Oldest"], int)
    eventually(lambda: reasons(world) == ["SecretMissing", "QueueReachable", "ScalingResumed", "ScaledUp"])
    (scaled_up,) = world.events("ScaledUp")
    assert "wanted" in scaled_up["message"]
    assert "launched" in scaled_up["message"]
    assert operator.metric("siorg_operator_jobs", "active") == MAX_JOBS
    assert operator.metric("siorg_operator_queue_depth") == UNITS
    assert operator.metric("siorg_sync_queue_size", "due") == UNITS
    assert operator.metric("siorg_operator_jobs_desired") == MAX_JOBS
    assert counted(operator, "siorg_operator_launches_total") == {("Size",): MAX_JOBS}
    assert operator.metric("siorg_operator_enqueue_to_launch_seconds_count") == 1

    # Work goes.
    world.release()
    world.wait_until_drained()
    assert world.outcomes() == {"COMPLETED/1": UNITS}
    assert not world.processes()
    jobs = world.jobs()
    assert len(jobs) <= MAX_JOBS
    assert {condition(job, "Complete") for job in jobs} == {"True"}
    eventually(lambda: operator.metric("siorg_operator_items_total", "completed") == UNITS)
    assert counted(operator, "siorg_operator_items_total") == {("completed",): UNITS}
    assert counted(operator, "siorg_operator_jobs_ended_total") == {("Done",): MAX_JOBS}
    assert operator.metric("siorg_operator_jobs_empty_total") == 0
    assert operator.metric("siorg_operator_queue_depth") == 0
    assert operator.metric("siorg_operator_siorg_requests_total", "ok") > 0
    assert world.condition("SiorgAvailable")["reason"] == "Answering"
    assert world.status()["rate"] > 0
    assert world.status()["predictedDrainSeconds"] == 0
    eventually(lambda: reasons(world)[4:] == ["QueueDrained"])
    assert reasons(world)[:4] == ["SecretMissing", "QueueReachable", "ScalingResumed", "ScaledUp"]

    # The end.
    world.kube.delete(RESOURCE, "sync")
    eventually(lambda: not world.kube.list("jobs") and not world.kube.list("pods"))
    eventually(lambda: not any("siorg_operator_jobs" in name for name in operator.metrics()))
    assert operator.stop() == 0
    assert not [entry for entry in operator.entries() if entry["level"] in {"ERROR", "CRITICAL"}]


def test_deleting_the_resource_ends_what_runs_and_gives_its_items_back(world: World) -> None:
    world.siorg.control("PUT", "latency", {"latency": "20000"})
    world.secret()
    world.enqueue(40)
    world.operator()
    world.create()
    eventually(lambda: len(world.processes()) == 2 and world.outcomes().get("PROCESSING/1", 0) > 0)
    pids = [process.pid for process in world.processes()]

    world.kube.delete(RESOURCE, "sync")
    world.siorg.control("PUT", "latency", {"latency": "0"})

    eventually(lambda: not world.processes())
    eventually(lambda: not world.kube.list("jobs") and not world.kube.list("pods") and not world.kube.list("cronjobs"))
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    left = world.outcomes()
    assert set(left) <= {"PENDING", "COMPLETED/1"}, left
    assert sum(left.values()) == 40


def test_a_resource_can_be_deleted_while_no_operator_runs(world: World) -> None:
    world.secret()
    world.enqueue(30)
    operator = world.operator()
    world.create(world.resource(job={"image": HELD_IMAGE}, cleanup={"enabled": True}))
    eventually(lambda: len(world.processes()) == 2 and world.kube.list("cronjobs"))
    assert "finalizers" not in world.get()["metadata"]
    operator.stop()

    world.kube.delete(RESOURCE, "sync")

    world.kube.wait_gone(RESOURCE, "sync")
    eventually(lambda: not world.kube.list("jobs") and not world.kube.list("cronjobs") and not world.kube.list("pods"))
    eventually(lambda: not world.processes())


def test_an_operator_that_ends_leaves_its_jobs_alone_and_the_next_one_counts_them(world: World) -> None:
    world.secret()
    world.enqueue(80)
    first = world.operator(name="first")
    world.create(world.resource(job={"image": HELD_IMAGE}))
    eventually(lambda: all_run(world, MAX_JOBS))
    before = {process.pid for process in world.processes()}

    first.send(signal.SIGTERM)
    assert first.ends() == 0
    second = world.operator(name="second")

    eventually(lambda: second.metric("siorg_operator_jobs", "active") == MAX_JOBS)
    assert {process.pid for process in world.processes()} == before
    world.release()
    world.wait_until_drained()
    assert world.outcomes() == {"COMPLETED/1": 80}
    eventually(lambda: second.metric("siorg_operator_items_total", "completed") == 80)
    assert len(world.jobs()) == 3  # successfulJobsHistoryLimit


def test_it_runs_as_a_user_that_has_no_name(world: World) -> None:
    """As in its container: the user is a number, and nobody there has heard of it."""
    nobody = "import getpass\n\ndef getuser():\n    raise OSError('No username set')\n\ngetpass.getuser = getuser\n"
    (world.folder / "sitecustomize.py").write_text(nobody)
    operator = world.operator(start=False, forked=False)
    operator.environment["PYTHONPATH"] += f":{world.folder}"
    world.secret()
    world.create()

    operator.start()

    world.wait_for_condition("Ready", "True")
