"""From an empty namespace to a drained queue and back to nothing, on a real cluster with real pods: one story, told in order.

``make e2e`` runs it on the cluster of KUBECONFIG, ``make kind-test`` on one that it makes. Each step stands on those before it,
so the first that fails ends the story (``--exitfirst``).
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace

import pytest

from support.fleet import eventually
from support.installation import CLUSTER_WIDE, ORGANIZATION, Installation, namespace, succeeded
from support.kubectl import Body, listed

pytestmark = pytest.mark.timeout(600)

MAX_JOBS = 4
LONGEST_TAKEOVER_SECONDS = 60
"""A leader that was killed is replaced within 20 s; a busy cluster takes its time to start pods besides."""
LEAF = (
    "SELECT max(siorg_code) FROM organizational_units unit WHERE is_active"
    " AND NOT EXISTS (SELECT FROM organizational_units WHERE parent_id = unit.id)"
)
GONE = 999_999
"""A code that SIORG does not have."""
COLUMNS = ["NAME", "READY", "INSYNC", "DEPTH", "OLDEST", "ACTIVE", "MAX", "REASON", "AGE"]


@pytest.fixture(scope="module")
def empty(system: Installation) -> Iterator[Installation]:
    """A second namespace, as restricted, in which nothing is ever made."""
    name = f"{system.namespace}-empty"
    with namespace(system.kubectl, name):
        yield replace(system, kubectl=replace(system.kubectl, namespace=name))


def most_at_once(system: Installation, done: int) -> int:
    """Watch until so many items are completed and no Job is left; how many Jobs there were at most."""
    most = 0

    def drained() -> bool:
        nonlocal most
        most = max(most, len(system.unfinished()))
        counts = system.queue()
        return counts["completed"] >= done and counts["due"] == 0 and counts["processing"] == 0

    eventually(drained, seconds=300, every=0.2)
    eventually(lambda: not system.unfinished(), seconds=60, every=0.5)
    return most


def test_everything_comes_up_and_nothing_is_refused(system: Installation) -> None:
    operators = system.kubectl.list("pods", "app.kubernetes.io/name=siorg-sync,app.kubernetes.io/component=operator")
    assert len(operators) == 2
    assert system.leader()
    assert system.refusals() == []
    assert system.tool("cat", "/certs/ca.pem") == "of-an-authority-of-ours"


@pytest.mark.parametrize(
    "folders",
    [
        "namespace",
        "base",
        "migrate",
        "tools",
        "overlays/kind",
        "overlays/deployment",
        "base components/cluster-role",
        "base components/monitoring",
    ],
)
def test_every_manifest_is_accepted_by_the_api_server(empty: Installation, folders: str) -> None:
    bodies = empty.manifests(*folders.split())
    if not empty.kubectl("api-versions").count("monitoring.coreos.com/"):
        # Kinds of the Prometheus operator, which not every cluster has.
        bodies = [body for body in bodies if not body["apiVersion"].startswith("monitoring.coreos.com/")]
    answer = empty.kubectl.apply(*bodies, options=("--dry-run=server", "--validate=strict"))
    assert len(answer.splitlines()) == len(bodies)
    assert "Warning" not in answer


def test_the_example_is_ready_and_idle(system: Installation) -> None:
    system.kubectl.apply(
        system.example(
            scaling={"maxJobs": MAX_JOBS, "itemsPerJob": 100},
            worker={"batchSize": 10, "concurrency": 4},
            discovery={"organizations": [ORGANIZATION]},
            mode="Observe",  # else the first discovery begins at once
        )
    )
    system.kubectl("wait", "--for=condition=Ready", "ssw/siorg", "--timeout=60s", seconds=70)
    assert system.worker()["status"]["lastDecision"]["reason"] == "QueueEmpty"
    assert system.kubectl("get", "ssw").splitlines()[0].split() == COLUMNS
    assert not system.jobs()
    explained = system.kubectl("exec", "deployment/siorg-operator", "--", "siorg-operator", "explain", "siorg")
    assert "siorg: what would be decided now" in explained
    assert "QueueEmpty" in explained


def test_the_first_discovery_fills_the_queue_and_jobs_come_drain_it_and_go(system: Installation) -> None:
    began = time.monotonic()
    system.kubectl("patch", "ssw/siorg", "--type=merge", '--patch={"spec":{"mode":"Active"}}')
    job = system.ended_job("siorg-discovery-first")
    assert succeeded(job), system.log(job["metadata"]["name"])
    counts = system.queue()
    total = sum(counts[status] for status in ("completed", "due", "processing", "scheduled"))
    assert total > 100

    most = most_at_once(system, total)

    print(f"\n{total} items, at most {most} Jobs at once, {time.monotonic() - began:.1f} s from discovery to none")  # noqa: T201
    assert 2 <= most <= MAX_JOBS
    assert all(succeeded(job) for job in system.jobs())
    status = system.worker()["status"]
    assert status["jobs"]["active"] == 0
    assert system.condition("Ready") == ("True", "AsExpected")
    assert system.rows("SELECT count(*) FROM organizational_units WHERE is_active")[0][0] >= total - 1
    system.tool("siorg-job", "doctor")  # exit code 0: all that a run needs is there
    # Of a Job's last words the operator's metrics are made.
    metrics = system.kubectl("get", "--raw", f"/api/v1/namespaces/{system.namespace}/pods/{system.leader()}:8080/proxy/metrics")
    told = [
        line for line in metrics.splitlines() if line.startswith("siorg_operator_items_total") and 'outcome="completed"' in line
    ]
    assert float(told[0].split()[-1]) == total


def test_an_operator_that_is_killed_mid_way_costs_nothing(system: Installation) -> None:
    codes = [
        str(code)
        for (code,) in system.rows("SELECT siorg_code FROM organizational_units WHERE siorg_code IS NOT NULL ORDER BY 1")
    ]
    done = system.queue()["completed"]
    system.tool("siorg-job", "enqueue", *codes)
    eventually(lambda: bool(system.unfinished()), seconds=60, every=0.2)
    killed = system.leader()

    began = time.monotonic()
    system.kubectl("delete", "pod", killed, "--grace-period=0", "--force")
    successor = eventually(lambda: system.leader() not in ("", killed) and system.leader(), seconds=LONGEST_TAKEOVER_SECONDS)
    print(f"\n{successor} leads {time.monotonic() - began:.1f} s after {killed} was deleted by force")  # noqa: T201

    most = most_at_once(system, done + len(codes))
    assert most <= MAX_JOBS
    assert system.queue()["completed"] == done + len(codes)
    assert system.rows("SELECT max(attempts) FROM siorg_sync_queue") == [[1]]  # nothing was done twice
    assert not any(job["status"].get("failed") for job in system.jobs())
    system.kubectl("rollout", "status", "deployment/siorg-operator", "--timeout=120s", seconds=130)


def test_cleanup_removes_what_is_old_enough(system: Installation) -> None:
    before = system.queue()["completed"]
    system.change(
        "UPDATE siorg_sync_queue SET created_at = now() - interval '60 days', processed_at = now() - interval '60 days'"
        " WHERE id IN (SELECT id FROM siorg_sync_queue WHERE status = 'COMPLETED' LIMIT 10)"
    )
    job = system.run_cron_job("siorg-cleanup")
    assert succeeded(job), system.log(job["metadata"]["name"])
    assert system.queue()["completed"] == before - 10


def verified(system: Installation) -> Body:
    """What the status tells of a verification that is made now."""
    before = system.worker()["status"].get("verification")

    def told() -> Body | None:
        found: Body | None = system.worker()["status"].get("verification")
        return found if found != before else None

    job = system.run_cron_job("siorg-verification")
    assert succeeded(job), system.log(job["metadata"]["name"])  # whatever it found
    found = eventually(told, every=0.5)
    assert found is not None
    return found


def test_verification_tells_of_drift_has_it_mended_and_tells_that_all_is_in_line(system: Installation) -> None:
    assert system.condition("InSync") == ("Unknown", "NotVerified")
    system.change(f"UPDATE organizational_units SET path_names = 'torn' WHERE siorg_code = ({LEAF})")
    # Besides, the categories and types that no unit here has: a discovery of chosen organizations leaves them out.
    found = verified(system)
    assert found["drift"] == found["enqueued"] >= 1
    assert system.condition("InSync") == ("False", "DriftFound")
    eventually(lambda: not system.rows("SELECT 1 FROM organizational_units WHERE path_names = 'torn'"), seconds=60, every=0.5)
    eventually(lambda: not system.unfinished() and system.queue()["due"] == 0, seconds=60, every=0.5)

    found = verified(system)

    assert (found["organizations"], found["drift"], found["enqueued"]) == (1, 0, 0)
    assert found["rows"] > system.rows("SELECT count(*) FROM organizational_units")[0][0]
    assert not any(found["departures"].values())
    assert system.condition("InSync") == ("True", "Verified")
    assert system.shown("INSYNC") == "True"


def test_an_end_beyond_the_limit_of_the_resource_is_held_and_released(system: Installation) -> None:
    copied = "organization_id, category_id, unit_type_id, parent_id, activity_area, siorg_base, siorg_raw_data, siorg_synced_at"
    system.change(
        f"INSERT INTO organizational_units (name, siorg_code, {copied}) SELECT 'Gone', {GONE}, {copied}"
        f" FROM organizational_units WHERE siorg_code = ({LEAF})"
    )
    limits = {"maxEnds": 0, "maxEndsPercent": 0, "maxEndsTotalPercent": 0}
    system.kubectl("patch", "ssw/siorg", "--type=merge", f"--patch={json.dumps({'spec': {'discovery': limits}})}")
    generation = system.worker()["metadata"]["generation"]
    eventually(lambda: system.worker()["status"]["observedGeneration"] == generation, every=0.5)
    job = system.run_cron_job("siorg-discovery")
    assert succeeded(job), system.log(job["metadata"]["name"])

    eventually(lambda: system.worker()["status"]["queue"]["held"] == 1, every=0.5)
    assert system.shown("HELD") == "1"
    found = verified(system)
    assert (found["drift"], found["departures"]["held"]) == (0, 1)
    assert system.condition("InSync") == ("True", "Verified")

    system.tool("siorg-job", "held", "release", "--organization", str(ORGANIZATION), "--yes")
    ended = f"SELECT 1 FROM organizational_units WHERE siorg_code = {GONE} AND NOT is_active"
    eventually(lambda: system.rows(ended), seconds=60, every=0.5)
    eventually(lambda: system.worker()["status"]["queue"]["held"] == 0, every=0.5)


def test_scaled_to_zero_it_launches_nothing_and_goes_on_afterwards(system: Installation) -> None:
    system.kubectl("scale", "ssw/siorg", "--replicas=0")
    eventually(lambda: system.condition("ScalingActive")[0] == "False", every=0.5)
    code = system.rows("SELECT min(siorg_code) FROM organizational_units")[0][0]
    done, jobs = system.queue()["completed"], {job["metadata"]["name"] for job in system.jobs()}
    system.tool("siorg-job", "enqueue", str(code))
    eventually(lambda: system.worker()["status"]["queue"]["claimable"] == 1, every=0.5)
    assert {job["metadata"]["name"] for job in system.jobs()} <= jobs
    assert system.worker()["status"]["lastDecision"]["reason"] == "Suspended"

    system.kubectl("scale", "ssw/siorg", f"--replicas={MAX_JOBS}")
    eventually(lambda: system.queue()["completed"] == done + 1, seconds=60, every=0.5)


def test_what_the_operator_may_not_see_stays_hidden(system: Installation) -> None:
    account = f"system:serviceaccount:{system.namespace}:siorg-operator"
    for right in (
        ("list", "secrets"),
        ("create", "pods"),
        ("get", "nodes"),
        ("delete", "siorgsyncworkers"),
        ("get", "configmaps"),
    ):
        assert system.kubectl.run("auth", "can-i", *right, f"--as={account}").stdout.strip() == "no", right
    assert system.kubectl.run("auth", "can-i", "get", "secrets", f"--as={account}").stdout.strip() == "yes"
    elsewhere = system.kubectl.run("auth", "can-i", "get", "secrets", f"--as={account}", "--namespace=default")
    assert elsewhere.stdout.strip() == "no"


def test_no_secret_stands_in_any_log_or_object(system: Installation) -> None:
    secret = system.kubectl.get("secret", "siorg-database")
    assert secret is not None
    value = base64.b64decode(secret["data"]["DATABASE_URL"]).decode()
    shown = system.kubectl("get", "siorgsyncworkers,jobs,cronjobs,pods,events,leases", "--output=yaml")
    for pod in system.kubectl.list("pods"):
        shown += system.kubectl.run("logs", pod["metadata"]["name"], "--all-containers").stdout
    assert "siorg-database" in shown
    assert value not in shown


def older(definition: Body) -> Body:
    """The definition as it was before there was verification, and without limits for ends."""
    made = deepcopy(definition)
    [version] = made["spec"]["versions"]
    version["additionalPrinterColumns"] = [
        column for column in version["additionalPrinterColumns"] if column["name"] not in {"InSync", "Held"}
    ]
    parts = version["schema"]["openAPIV3Schema"]["properties"]
    spec, status = parts["spec"]["properties"], parts["status"]["properties"]
    for name in ("maxEnds", "maxEndsPercent", "maxEndsTotalPercent"):
        del spec["discovery"]["properties"][name]
    del spec["verification"], status["verification"], status["queue"]["properties"]["held"]
    return made


def test_the_definition_is_brought_up_to_date_below_a_resource_and_an_operator_at_work(system: Installation) -> None:
    [definition] = [body for body in system.manifests("base") if body["kind"] == "CustomResourceDefinition"]
    before = system.worker()
    try:
        system.kubectl.apply(older(definition))
        eventually(lambda: "INSYNC" not in system.kubectl("get", "ssw"), every=0.5)
        assert "verification" not in system.worker()["spec"]
        code, done = system.rows(LEAF)[0][0], system.queue()["completed"]
        system.tool("siorg-job", "enqueue", str(code))
        eventually(lambda: system.queue()["completed"] == done + 1, seconds=60, every=0.5)
    finally:
        system.kubectl.apply(definition)
    eventually(lambda: "INSYNC" in system.kubectl("get", "ssw"), every=0.5)
    found = verified(system)
    assert found["organizations"] == 1
    assert system.shown("INSYNC") == "True"
    after = system.worker()
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["spec"]["scaling"] == before["spec"]["scaling"]
    assert after["spec"]["verification"]["enabled"]
    assert system.condition("Ready") == ("True", "AsExpected")


def test_deleted_it_leaves_nothing_behind(system: Installation) -> None:
    assert system.refusals() == []
    system.kubectl("delete", "ssw/siorg", "--wait=true", "--timeout=60s", seconds=70)
    eventually(
        lambda: not system.kubectl.list("jobs,cronjobs", "siorg.waterswamp.dev/worker=siorg")
        and not system.kubectl.list("pods", "siorg.waterswamp.dev/worker=siorg"),
        seconds=90, every=0.5,
    )  # fmt: skip
    own = [body for body in system.manifests("base") if f"{body['kind'].lower()}/{body['metadata']['name']}" not in CLUSTER_WIDE]
    system.kubectl("delete", "--filename=-", "--wait=true", stdin=listed(own), seconds=120)
    system.kubectl("delete", "pod/siorg-tools", "job/siorg-migrate", "--ignore-not-found", "--wait=true", seconds=60)
    left = "app.kubernetes.io/name=siorg-sync,app.kubernetes.io/component notin (database,simulator)"
    eventually(
        lambda: not system.kubectl.list("all,roles,rolebindings,serviceaccounts,poddisruptionbudgets", left),
        seconds=90,
        every=0.5,
    )
