"""Secrets: missing, wrong, changed; and nowhere to be seen."""

from __future__ import annotations

import base64
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from siorg_queue import QueueStore, connect
from support.cluster import Cluster
from support.fleet import eventually
from support.postgres import Postgres, embedded_postgres
from support.siorg_server import SiorgServer
from support.siorg_world import HELD_IMAGE, IMAGE, SECRET, TOKEN_KEY, TOKEN_SECRET, World, siorg_world

PASSWORD = "p@ss/W0rd:Zx81#%"
TOKEN = "tok-7Q2vK9xW41pLs0"


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[Postgres]:
    """A server whose user ``watcher`` needs a password."""
    with embedded_postgres() as server:
        with connect(server.url(), application_name="test") as connection:
            connection.execute(f"CREATE ROLE watcher LOGIN SUPERUSER PASSWORD '{PASSWORD}'".encode())
            row = connection.execute("SHOW hba_file").fetchone()
        assert row is not None
        rules = Path(row["hba_file"])
        rules.write_text(f"local all watcher scram-sha-256\n{rules.read_text()}")
        server.control("reload")
        yield server


@pytest.fixture
def password_url(own_postgres: Postgres) -> str:
    """A new database of that user, with the password."""
    return own_postgres.database().replace("postgres@", f"watcher:{quote(PASSWORD, safe='')}@", 1)


WRONG = (
    ({"key": "url"}, "SecretKeyMissing", "has no key DATABASE_URL; its keys: url"),
    ({"url": "mysql://root@127.0.0.1/siorg"}, "WrongUrl", "correct the URL in the Secret"),
    ({"url": "postgresql://postgres@127.0.0.1:1/siorg"}, "DatabaseUnavailable", "does not answer"),
    ({"url": " \n"}, "SecretKeyMissing", "is empty or not text"),
)


def test_whatever_is_wrong_with_the_secret_is_named_and_the_right_one_used(world: World) -> None:
    world.enqueue(20)
    world.operator()
    world.create(world.resource(cleanup={"enabled": True}))
    told = world.wait_for_condition("QueueReachable", "False", "SecretMissing")
    assert f"Secret {world.namespace}/{SECRET} of spec.database.urlSecretRef does not exist" in told["message"]
    assert "kubectl create secret generic" in told["message"]
    assert world.decision()["reason"] == "DepthUnknown"
    for given, reason, says in WRONG:
        world.secret(**given)
        eventually(lambda: reason == (found := world.condition("QueueReachable"))["reason"] and says in found["message"])  # noqa: B023
    assert not world.kube.list("jobs")

    world.secret()

    eventually(world.jobs)
    world.wait_until_drained()
    assert world.condition("Ready")["status"] == "True"


def test_a_key_that_the_secret_has_can_be_named(world: World) -> None:
    world.enqueue(10)
    world.secret(key="url")
    world.operator()
    world.create()
    world.wait_for_condition("QueueReachable", "False", "SecretKeyMissing")
    world.edit({"database": {"urlSecretRef": {"key": "url"}}})
    world.wait_until_drained()


def test_a_wrong_password_is_told_and_the_right_one_taken(
    cluster: Cluster, siorg: SiorgServer, password_url: str, tmp_path: Path
) -> None:
    with siorg_world(cluster, siorg, password_url, tmp_path) as world:
        world.secret(password_url.replace("W0rd", "W1rd"))
        world.enqueue(20)
        operator = world.operator()
        world.create()
        told = world.wait_for_condition("QueueReachable", "False", "AccessDenied")
        assert 'password authentication failed for user "watcher"' in told["message"]
        assert "W1rd" not in json.dumps(world.status()) + operator.log

        world.secret()

        eventually(world.jobs)
        world.wait_until_drained()
        assert world.outcomes() == {"COMPLETED/1": 20}


def test_a_secret_that_names_another_database_is_followed_and_ends_no_job(world: World, postgres: Postgres) -> None:
    other_url = postgres.database()
    with connect(other_url, application_name="test") as other:
        world.secret()
        world.enqueue(20)
        world.operator()
        world.create(world.resource(job={"image": HELD_IMAGE}, scaling={"pollIntervalSeconds": 1}))
        eventually(lambda: len(world.processes()) == 1)
        (process,) = world.processes()
        world.enqueue(20, other)

        world.secret(other_url)
        world.enqueue(20, other)

        eventually(lambda: len(world.processes()) == 2)
        assert process in world.processes()
        first, second = world.jobs()
        template = "siorg.waterswamp.dev/template"
        assert first["metadata"]["labels"][template] != second["metadata"]["labels"][template]
        world.release()
        eventually(lambda: not world.unfinished_jobs())
        assert world.outcomes() == {"COMPLETED/1": 20}
        eventually(lambda: QueueStore(other).counts().completed == 40)
        # There is where it listens now, too.
        world.edit({"scaling": {"pollIntervalSeconds": 600}})
        eventually(lambda: world.status()["observedGeneration"] == 2 and world.decision()["reason"] == "QueueEmpty")
        world.enqueue(4, other)
        eventually(lambda: QueueStore(other).counts().completed == 44)
    postgres.drop(other_url)


def test_a_changed_secret_is_noticed_however_seldom_the_queue_is_polled(world: World, postgres: Postgres) -> None:
    other_url = postgres.database()
    with connect(other_url, application_name="test") as other:
        world.secret()
        world.operator()
        world.create(world.resource(scaling={"pollIntervalSeconds": 3600}))
        world.wait_for_condition("Ready", "True")
        world.enqueue(20, other)

        world.secret(other_url)

        eventually(lambda: QueueStore(other).counts().completed == 20)
        world.kube.delete("secrets", SECRET)
        world.wait_for_condition("QueueReachable", "False", "SecretMissing")
        listening = "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
        eventually(lambda: other.execute(listening).fetchone() == {"n": 0})
    postgres.drop(other_url)


def test_neither_a_touch_of_the_secret_nor_another_leader_resets_the_back_off(world: World) -> None:
    """Reloader and external-secrets write Secrets all the time, with the data that they have."""
    world.cluster.kubelet.images["siorg-job:failing"] = [sys.executable, "-c", "import sys; sys.exit(1)"]
    world.secret()
    world.enqueue(10)
    operator = world.operator()
    world.create(world.resource(job={"image": "siorg-job:failing", "failedJobsHistoryLimit": 50}, scaling={"maxJobs": 1}))

    for streak in (1, 2, 3):
        eventually(lambda: (world.status().get("backoff") or {}).get("streak") == streak, seconds=60)  # noqa: B023
        world.kube.patch("secrets", SECRET, {"metadata": {"annotations": {"touched": str(streak)}}})
        if streak == 2:
            operator.stop()
            operator.start()

    assert len({job["metadata"]["labels"]["siorg.waterswamp.dev/template"] for job in world.jobs()}) == 1
    assert len(world.jobs()) - world.status()["backoff"]["streak"] in {0, 1}  # one may be on its way


def test_a_missing_token_is_named_and_nothing_is_launched_until_it_is_there(
    cluster: Cluster, database_url: str, tmp_path: Path
) -> None:
    with (
        SiorgServer("--synthetic", "100", token=TOKEN) as guarded,
        siorg_world(cluster, guarded, database_url, tmp_path, token=TOKEN) as world,
    ):
        world.secret()
        world.enqueue(12)
        operator = world.operator()
        world.create(world.resource(siorg={"tokenSecretRef": {"name": TOKEN_SECRET, "key": TOKEN_KEY}}))

        told = world.wait_for_condition("Degraded", "True", "SecretMissing")

        assert f"Secret {world.namespace}/{TOKEN_SECRET} of spec.siorg.tokenSecretRef does not exist" in told["message"]
        assert world.condition("Ready")["reason"] == "SecretMissing"
        assert world.condition("QueueReachable")["status"] == "True"
        assert world.condition("ScalingActive")["reason"] == "SecretMissing"
        assert operator.metric("siorg_operator_held_back", "SecretMissing") == 1
        assert not world.jobs()

        world.secret(TOKEN, name=TOKEN_SECRET, key=TOKEN_KEY)

        eventually(world.jobs)
        world.wait_until_drained()
        assert world.outcomes() == {"COMPLETED/1": 12}
        world.wait_for_condition("Ready", "True")


def test_no_secret_is_told_anywhere(cluster: Cluster, password_url: str, tmp_path: Path) -> None:
    """A life with wrong passwords, Jobs that fail and a drain; then everything that can be read is read."""
    with (
        SiorgServer("--synthetic", "100", token=TOKEN) as guarded,
        siorg_world(cluster, guarded, password_url, tmp_path, token=TOKEN) as world,
    ):
        world.secret(f"postgresql://watcher:{quote(PASSWORD, safe='')}@127.0.0.1:1/siorg")
        world.secret(TOKEN, name=TOKEN_SECRET, key=TOKEN_KEY)
        operator = world.operator(forked=False, LOG_LEVEL="debug")
        world.cluster.kubelet.images[IMAGE] = [sys.executable, "-m", "siorg_job"]  # with a command line of their own
        token = {"tokenSecretRef": {"name": TOKEN_SECRET, "key": TOKEN_KEY}}
        world.create(world.resource(siorg=token, worker={"logLevel": "debug"}, cleanup={"enabled": True}))
        world.wait_for_condition("QueueReachable", "False", "DatabaseUnavailable")
        world.secret(password_url.replace("W0rd", "W0rd1"))
        world.wait_for_condition("QueueReachable", "False", "AccessDenied")
        world.secret()
        world.wait_for_condition("QueueReachable", "True")
        world.siorg.control("PUT", "faults", {"faults": "status=500:0.5,torn=0.2"})
        world.enqueue(40)
        eventually(world.processes)
        lines = command_lines(operator.pid, *(process.pid for process in world.processes()))
        world.siorg.control("PUT", "faults", {"faults": ""})
        world.wait_until_drained()

        seen = [*lines, operator.log, operator.probe("metrics")[1], *logs_of(world)]
        for resource in ("siorgsyncworkers", "jobs", "pods", "cronjobs", "events"):
            seen += [json.dumps(body) for body in world.kube.list(resource)]
        assert "siorg_operator" in lines[0]
        assert_untold("\n".join(seen))


def test_what_a_job_of_another_image_blurts_out_is_not_repeated(
    cluster: Cluster, siorg: SiorgServer, password_url: str, tmp_path: Path
) -> None:
    with siorg_world(cluster, siorg, password_url, tmp_path) as world:
        blurt = "import os, sys; sys.exit('refused: ' + os.environ['DATABASE_URL'])"
        world.cluster.kubelet.images["another:test"] = [sys.executable, "-c", blurt]
        world.secret()
        world.enqueue(10)
        operator = world.operator()
        world.create(world.resource(job={"image": "another:test"}))

        told = world.wait_for_condition("Degraded", "True", "JobsFailing")

        assert "exit code 1: refused: ***" in told["message"]
        seen = [operator.log, json.dumps(world.get()), json.dumps(world.kube.list("jobs")), json.dumps(world.kube.list("events"))]
        assert_untold("\n".join(seen))


def logs_of(world: World) -> list[str]:
    """What the Jobs of this world wrote."""
    logs = world.cluster.kubelet.all_logs()
    found = [log for name, log in logs.items() if any(name.startswith(job["metadata"]["name"]) for job in world.jobs())]
    assert found
    return found


def assert_untold(everything: str) -> None:
    for secret in (PASSWORD, "W0rd", TOKEN):
        for form in {secret, quote(secret, safe=""), json.dumps(secret)[1:-1], base64.b64encode(secret.encode()).decode()}:
            found = re.search(re.escape(form), everything)
            assert found is None, f"{form!r} is told: …{everything[max(found.start() - 200, 0) : found.end() + 50]}…"


def command_lines(*pids: int) -> list[str]:
    """Of processes that may be gone by now."""
    found = []
    for pid in pids:
        try:
            found.append(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found
