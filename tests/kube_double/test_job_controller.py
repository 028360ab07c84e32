"""Jobs become Pods, and Pods' ends become the Job's: our controller on the small server, Kubernetes' own on a real one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kube_double.kubelet import NODE_SELECTOR, TOLERATIONS, Running
from kube_double.store import now
from support.cluster import Cluster
from support.fleet import eventually
from support.kube import Body, Kube, condition

LONG = "import time; time.sleep(60)"


def job(name: str, program: str = "print('done')", **spec: Any) -> Body:
    pod = {
        "restartPolicy": "Never", "nodeSelector": NODE_SELECTOR, "tolerations": TOLERATIONS, "terminationGracePeriodSeconds": 5,
        "containers": [{"name": "main", "image": "python:test", "args": ["-c", program]}],
    }  # fmt: skip
    template = {"metadata": {"labels": {"app": name}}, "spec": pod}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": template, **spec}}


def second_try_succeeds(folder: Path, *, first: int = 1) -> str:
    """A program that ends with exit code ``first`` the first time, and with 0 from then on."""
    tries = str(folder / "tries")
    return f"import pathlib; p = pathlib.Path({tries!r}); p.open('a').write('x'); exit({first} * (len(p.read_text()) < 2))"


def pods_of(kube: Kube, name: str) -> list[Body]:
    return kube.list("pods", labels=f"batch.kubernetes.io/job-name={name}")


def processes_of(cluster: Cluster, name: str) -> list[Running]:
    return [each for each in cluster.kubelet.processes(cluster.namespace) if each.labels.get("app") == name]


def ended(kube: Kube, name: str, kind: str) -> Body:
    """The Job once it is Complete or Failed, and has counted all its Pods."""
    return kube.wait_for("jobs", name, lambda body: condition(body, kind) == "True", seconds=60)


def reasons(body: Body) -> dict[str, tuple[str, str]]:
    return {each["type"]: (each["reason"], each["message"]) for each in body["status"]["conditions"] if each["status"] == "True"}


def test_a_job_has_a_pod_of_its_own(cluster: Cluster, kube: Kube, name: str) -> None:
    made = kube.create(job(name, LONG))
    (pod,) = eventually(lambda: pods_of(kube, name))
    metadata = pod["metadata"]
    assert metadata["name"].startswith(f"{name}-")
    assert len(metadata["name"]) == len(name) + 6
    (owner,) = metadata["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("Job", made["metadata"]["uid"], True)
    assert metadata["labels"] == {
        "app": name, "job-name": name, "batch.kubernetes.io/job-name": name, "controller-uid": made["metadata"]["uid"],
        "batch.kubernetes.io/controller-uid": made["metadata"]["uid"],
    }  # fmt: skip
    assert metadata["finalizers"] == ["batch.kubernetes.io/job-tracking"]
    running = kube.wait_for("jobs", name, lambda body: body.get("status", {}).get("ready") == 1)
    assert running["status"]["active"] == 1
    assert running["status"]["startTime"].endswith("Z")
    kube.delete("jobs", name)
    eventually(lambda: not processes_of(cluster, name) and not pods_of(kube, name))


def test_a_job_whose_pod_succeeds_is_complete(cluster: Cluster, kube: Kube, name: str) -> None:
    kube.create(job(name))
    body = ended(kube, name, "Complete")
    reached = ("CompletionsReached", "Reached expected number of succeeded pods")
    assert reasons(body) == {"SuccessCriteriaMet": reached, "Complete": reached}
    assert body["status"]["succeeded"] == 1
    assert body["status"]["completionTime"].endswith("Z")
    assert not body["status"].get("active")
    assert not body["status"].get("failed")
    (pod,) = pods_of(kube, name)
    assert pod["status"]["phase"] == "Succeeded"
    eventually(lambda: "finalizers" not in pods_of(kube, name)[0]["metadata"])
    assert cluster.kubelet.logs(pod["metadata"]["name"]) == "done\n"


def test_a_job_without_retries_fails_with_its_first_pod(kube: Kube, name: str) -> None:
    kube.create(job(name, "raise SystemExit(3)", backoffLimit=0))
    body = ended(kube, name, "Failed")
    limit = ("BackoffLimitExceeded", "Job has reached the specified backoff limit")
    assert reasons(body) == {"FailureTarget": limit, "Failed": limit}
    assert body["status"]["failed"] == 1
    assert "completionTime" not in body["status"]
    (pod,) = pods_of(kube, name)
    (container,) = pod["status"]["containerStatuses"]
    assert (pod["status"]["phase"], container["state"]["terminated"]["exitCode"]) == ("Failed", 3)


def test_a_failed_pod_is_replaced_as_often_as_the_limit_allows(kube: Kube, name: str, tmp_path: Path) -> None:
    program = second_try_succeeds(tmp_path)
    kube.create(job(name, program, backoffLimit=3))
    body = ended(kube, name, "Complete")
    assert (body["status"]["failed"], body["status"]["succeeded"]) == (1, 1)
    assert len(pods_of(kube, name)) == 2


def test_a_deadline_set_on_a_running_job_ends_it(cluster: Cluster, kube: Kube, name: str) -> None:
    kube.create(job(name, LONG))
    eventually(lambda: processes_of(cluster, name))
    kube.patch("jobs", name, {"spec": {"activeDeadlineSeconds": 1}})
    body = ended(kube, name, "Failed")
    exceeded = ("DeadlineExceeded", "Job was active longer than specified deadline")
    assert reasons(body) == {"FailureTarget": exceeded, "Failed": exceeded}
    assert body["status"]["failed"] == 1
    assert not body["status"].get("active")
    assert not processes_of(cluster, name)
    eventually(lambda: not pods_of(kube, name))


def test_a_policy_fails_the_job_at_an_exit_code(kube: Kube, name: str) -> None:
    rule = {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [2, 42]}}
    kube.create(job(name, "raise SystemExit(42)", podFailurePolicy={"rules": [rule]}))
    body = ended(kube, name, "Failed")
    (pod,) = pods_of(kube, name)
    told = (f"Container main for pod {pod['metadata']['namespace']}/{pod['metadata']['name']} failed with exit code 42 matching"
            " FailJob rule at index 0")  # fmt: skip
    assert reasons(body)["Failed"] == ("PodFailurePolicy", told)
    assert body["status"]["failed"] == 1


def test_a_policy_ignores_a_failure(kube: Kube, name: str, tmp_path: Path) -> None:
    rule = {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [75]}}
    program = second_try_succeeds(tmp_path, first=75)
    kube.create(job(name, program, backoffLimit=0, podFailurePolicy={"rules": [rule]}))
    body = ended(kube, name, "Complete")
    assert not body["status"].get("failed")
    assert body["status"]["succeeded"] == 1


def test_a_policy_looks_at_the_pods_conditions(cluster: Cluster, kube: Kube, name: str) -> None:
    rules = [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]
    kube.create(job(name, LONG, backoffLimit=0, podFailurePolicy={"rules": rules}))
    (first,) = eventually(lambda: processes_of(cluster, name))
    # Without its time Kubernetes' disruption controller takes it for one of long ago, and sets it to False.
    disrupted = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "lastTransitionTime": now()}
    # Only then the node has nothing to tell that would replace all conditions.
    seen = kube.wait_for("pods", first.pod, lambda body: body["status"]["phase"] == "Running")["status"]["conditions"]
    kube.patch_status("pods", first.pod, {"conditions": [*seen, disrupted]})
    kube.delete("pods", first.pod)
    eventually(lambda: [each.pod for each in processes_of(cluster, name) if each.pod != first.pod], seconds=60)
    body = kube.get("jobs", name)
    assert body is not None
    assert not body["status"].get("failed")
    kube.delete("jobs", name)


def test_a_pod_that_somebody_deletes_is_replaced(cluster: Cluster, kube: Kube, name: str) -> None:
    kube.create(job(name, LONG))
    (first,) = eventually(lambda: processes_of(cluster, name))
    kube.delete("pods", first.pod)
    eventually(lambda: [each.pod for each in processes_of(cluster, name) if each.pod != first.pod], seconds=60)
    kube.wait_for("jobs", name, lambda body: body["status"].get("failed") == 1)
    kube.delete("jobs", name)


def test_a_suspended_job_waits_and_one_that_is_suspended_ends_its_pods(cluster: Cluster, kube: Kube, name: str) -> None:
    kube.create(job(name, LONG, suspend=True))
    body = kube.wait_for("jobs", name, lambda body: condition(body, "Suspended") == "True")
    assert reasons(body)["Suspended"] == ("JobSuspended", "Job suspended")
    assert "startTime" not in body["status"]
    assert not pods_of(kube, name)
    kube.patch("jobs", name, {"spec": {"suspend": False}})
    eventually(lambda: processes_of(cluster, name))
    kube.wait_for("jobs", name, lambda body: condition(body, "Suspended") == "False" and body["status"]["ready"] == 1)
    kube.patch("jobs", name, {"spec": {"suspend": True}})
    eventually(lambda: not processes_of(cluster, name) and not pods_of(kube, name))
    kube.wait_for("jobs", name, lambda body: condition(body, "Suspended") == "True" and "startTime" not in body["status"])


def test_an_ended_job_goes_when_its_time_is_over(kube: Kube, name: str) -> None:
    kube.create(job(name, ttlSecondsAfterFinished=0))
    eventually(lambda: kube.get("jobs", name) is None)
    eventually(lambda: not pods_of(kube, name))


def test_a_job_of_a_cron_job_can_be_started_by_hand(kube: Kube, name: str) -> None:
    kube.create({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": name}, "spec": {
        "schedule": "0 0 1 1 *", "suspend": True, "jobTemplate": {"spec": job(name)["spec"]}}})  # fmt: skip
    kube.job_from_cronjob(name, f"{name}-now")
    ended(kube, f"{name}-now", "Complete")
    kube.delete("cronjobs", name)
    kube.wait_gone("jobs", f"{name}-now")
