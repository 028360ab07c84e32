"""The election on an API server: within this process, and as processes that are stopped and killed.

How long a Lease is respected, and what is written into it: ``tests/unit/operator/test_leader.py``. The processes also run on
a real API server.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes import client

from kube_double.server import ApiServer
from siorg_operator.cluster.leader import Leadership
from support.cluster import Cluster
from support.fleet import eventually
from support.lease_replicas import Replica, Replicas

LEASE, RENEW, RETRY = 3, 2, 1  # seconds
SLACK = 3  # seconds that a busy machine may add
NAME = "siorg-operator"
OTHERS = ("one-release", "another-release")
"""By which older versions led."""


@pytest.fixture(autouse=True)
def no_lease(cluster: Cluster) -> Iterator[None]:
    yield
    for name in (NAME, *OTHERS):
        if cluster.kube.get("leases", name) is not None:
            cluster.kube.delete("leases", name)
            cluster.kube.wait_gone("leases", name)


def spec(cluster: Cluster, name: str = NAME) -> dict[str, Any]:
    lease = cluster.kube.get("leases", name)
    return {} if lease is None else dict(lease["spec"])


# -- within this process ----------------------------------------------------------------------------------------------


class Member:
    """A replica on threads of this process, and what became of it."""

    def __init__(
        self, server: ApiServer, namespace: str, lease: float, renew: float, on_try: Callable[[int], object], name: str
    ) -> None:
        settings: Any = SimpleNamespace(
            namespace=namespace, lease_name=name, identity="me", lease_secs=lease, lease_renew_secs=renew, lease_retry_secs=0.1
        )
        api = client.ApiClient(client.Configuration(host=server.url))
        api.user_agent = "member"
        self.lost: list[str] = []
        self.reached: list[bool] = []
        self.stop = threading.Event()

        def tried(reached: bool) -> None:
            self.reached.append(reached)
            on_try(len(self.reached))

        self.leadership = Leadership(api, settings, on_lost=self.lost.append, on_try=tried)
        self.waiting = threading.Thread(target=self.leadership.wait_until_leading, args=(self.stop,))
        self.waiting.start()

    def tries(self, number: int = 3, *, reached: bool = True) -> None:
        """Wait until it has tried so often from now on."""
        before = self.reached.count(reached)
        eventually(lambda: self.reached.count(reached) >= before + number)

    def leads(self) -> None:
        eventually(lambda: self.leadership.is_leader)

    def end(self) -> None:
        self.stop.set()
        self.waiting.join(10)
        self.leadership.release()


Join = Callable[..., Member]


@pytest.fixture
def join(cluster: Cluster, server: ApiServer) -> Iterator[Join]:
    """Let a replica take part; by default with a lease that no busy machine loses."""
    members: list[Member] = []

    def started(
        lease: float = 20, renew: float = 15, on_try: Callable[[int], object] = lambda _: None, name: str = NAME
    ) -> Member:
        members.append(Member(server, cluster.namespace, lease, renew, on_try, name))
        return members[-1]

    yield started
    for member in members:
        member.end()


def lost(member: Member) -> str:
    (reason,) = eventually(lambda: member.lost)
    assert not member.leadership.is_leader
    return reason


def seize(cluster: Cluster, holder: str, name: str = NAME) -> None:
    """Write to the Lease as somebody else; it is made where there is none."""
    namespace = cluster.namespace
    body = {"metadata": {"name": name, "namespace": namespace}, "spec": {"holderIdentity": holder, "leaseDurationSeconds": 60}}
    assert cluster.server is not None
    if cluster.server.get("leases", name, namespace) is None:
        cluster.server.create({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", **body}, namespace)
    else:
        cluster.server.patch("leases", name, {"spec": body["spec"]}, namespace)


def test_the_lease_says_who_leads_and_nobody_after_the_release(
    cluster: Cluster, join: Join, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    member = join()
    member.leads()
    found = spec(cluster)
    assert re.fullmatch(r"me_[0-9a-f]{6}", found["holderIdentity"])
    assert found["holderIdentity"] == member.leadership.identity
    assert (found["leaseDurationSeconds"], found["leaseTransitions"]) == (20, 0)
    eventually(lambda: spec(cluster)["renewTime"] > found["renewTime"])
    assert spec(cluster)["acquireTime"] == found["acquireTime"]
    member.end()
    assert not spec(cluster).get("holderIdentity")
    assert "Released leadership" in caplog.text
    successor = join()
    successor.leads()
    assert successor.leadership.identity != member.leadership.identity  # the same setting, another random end
    assert spec(cluster)["leaseTransitions"] == 1


@pytest.mark.parametrize("names", [OTHERS, (NAME, OTHERS[1]), (OTHERS[0], NAME)])
def test_a_second_installation_in_the_namespace_stands_by_and_says_so(
    cluster: Cluster, join: Join, caplog: pytest.LogCaptureFixture, names: tuple[str, str]
) -> None:
    caplog.set_level("INFO")
    first = join(name=names[0])
    first.leads()
    second = join(name=names[1])
    second.tries()
    assert not second.leadership.is_leader
    said = [entry for entry in caplog.records if entry.message.startswith("Standing by: another one reconciles this namespace")]
    assert len(said) == 1
    first.end()
    second.leads()
    assert spec(cluster)["holderIdentity"] == spec(cluster, names[1])["holderIdentity"] == second.leadership.identity
    assert first.lost == second.lost == []


def test_before_and_after_an_upgrade_replicas_never_lead_together(cluster: Cluster, join: Join) -> None:
    """The older ones lead by a Lease of another name, and know of no other."""
    seize(cluster, "an older one", OTHERS[0])
    upgraded = join(name=OTHERS[0])
    upgraded.tries()
    assert not upgraded.leadership.is_leader
    seize(cluster, "", OTHERS[0])
    upgraded.leads()
    seize(cluster, "an older one", OTHERS[0])  # by force; of itself it would wait
    assert f"an older one holds the lease {cluster.namespace}/{OTHERS[0]}" in lost(upgraded)


TROUBLES: dict[str, tuple[dict[str, Any], str]] = {
    # the API server's fault; none: there is no API server
    "hangs": ({"hang": True}, "did not answer: TimeoutError: timed out"),
    "fails": ({"status": 500, "message": "etcd: request timed out"}, "500: etcd: request"),
    "forbids": ({"status": 403, "message": "leases is forbidden"}, "403: leases is"),
    "drops": ({"drop": True}, "did not answer: "),
    "refuses connections": ({}, "Connection refused"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_leader_that_cannot_renew_ends_itself_and_a_standby_goes_on_trying(
    server: ApiServer, join: Join, caplog: pytest.LogCaptureFixture, trouble: str
) -> None:
    caplog.set_level("INFO")
    leader = join(lease=3, renew=2)
    leader.leads()
    standby = join(lease=3, renew=2)
    standby.tries()
    fault, reason = TROUBLES[trouble]
    with server.fault(resource="leases", **fault) if fault else server.gone():
        why = lost(leader)
        assert re.search(r"was last renewed \d+\.\d s ago \(limit 2 s\); the last try: (get|update) leases: ", why)
        assert reason in why
        standby.tries(2, reached=False)
        assert not standby.leadership.is_leader
    standby.leads()
    assert caplog.text.count("can be read and renewed again") == 1
    assert [record for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("name", [NAME, OTHERS[0]], ids=["one lease", "two leases"])
def test_answers_that_take_half_of_the_renew_deadline_end_no_leader_and_keep_nobody_from_leading(
    server: ApiServer, join: Join, name: str
) -> None:
    with server.fault(resource="leases", delay=1.0):
        leader = join(lease=3, renew=2, name=name)
        leader.leads()
        standby = join(lease=3, renew=2, name=name)
        leader.tries(4)
        assert leader.leadership.is_leader
        assert not standby.leadership.is_leader
        leader.end()
        standby.leads()
    assert leader.lost == standby.lost == []


def test_a_lost_answer_and_a_short_trouble_end_nobody_and_are_logged_once(
    server: ApiServer, join: Join, caplog: pytest.LogCaptureFixture
) -> None:
    with server.fault(verb="create", resource="leases", drop=True, carried_out=True, count=1):
        member = join()
        member.leads()
    caplog.clear()
    caplog.set_level("INFO")
    with server.fault(resource="leases", status=500, message="etcd: request timed out"):
        member.tries(3, reached=False)
    member.tries()
    assert member.leadership.is_leader
    assert not member.lost
    logged = [record.getMessage() for record in caplog.records if "read" in record.getMessage()]
    assert logged == ["The lease cannot be read or renewed", "The lease can be read and renewed again"]


def test_a_leader_that_reads_anothers_name_ends_at_once_and_a_standby_that_stops_leaves_it_alone(
    cluster: Cluster, join: Join
) -> None:
    member = join()
    member.leads()
    seize(cluster, "a-person")
    assert lost(member) == f"a-person holds the lease {cluster.namespace}/{NAME}"
    standby = join()
    standby.tries()
    for ended in (member, standby, standby):
        ended.end()
        assert not ended.waiting.is_alive()
    assert spec(cluster)["holderIdentity"] == "a-person"


def test_a_lease_that_somebody_removes_goes_back_to_who_led(cluster: Cluster, server: ApiServer, join: Join) -> None:
    leader = join()
    leader.leads()
    standby = join()
    standby.tries()
    server.delete("leases", NAME, cluster.namespace)
    eventually(lambda: spec(cluster).get("holderIdentity"))
    standby.tries()
    assert spec(cluster)["holderIdentity"] == leader.leadership.identity
    assert leader.leadership.is_leader
    assert not standby.leadership.is_leader


def test_a_write_that_came_between_is_not_overwritten(cluster: Cluster, server: ApiServer, join: Join) -> None:
    with server.on_request(lambda request: seize(cluster, "faster") if request.verb == "get" and request.resource == "leases"
                           and request.user_agent == "member" else None):  # fmt: skip
        member = join()
        member.tries()
    assert spec(cluster)["holderIdentity"] == "faster"
    assert all(member.reached)
    assert not member.leadership.is_leader


def test_a_renewing_thread_that_hangs_or_breaks_ends_the_process(join: Join) -> None:
    hanging = threading.Event()
    member = join(lease=3, renew=2, on_try=lambda tries: tries > 1 and hanging.wait(20))
    member.leads()
    assert re.search(r"was last renewed [2-9]\.\d s ago", lost(member))  # and not when the thread goes on
    hanging.set()
    member.end()

    def broken(_tries: int) -> None:
        raise RuntimeError("a bug")

    assert lost(join(on_try=broken)) == "the election failed: RuntimeError: a bug"


def test_a_release_that_fails_is_no_error(
    cluster: Cluster, server: ApiServer, join: Join, caplog: pytest.LogCaptureFixture
) -> None:
    member = join()
    member.leads()
    with server.gone():
        member.end()
    assert not member.leadership.is_leader
    assert "Leadership could not be released" in caplog.text
    assert spec(cluster)["holderIdentity"] == member.leadership.identity


# -- processes --------------------------------------------------------------------------------------------------------


@pytest.fixture
def replicas(cluster: Cluster, tmp_path: Path) -> Iterator[Replicas]:
    started = Replicas(cluster, tmp_path, f"lease_secs={LEASE}", f"lease_renew_secs={RENEW}", f"lease_retry_secs={RETRY}")
    yield started
    started.end()


def pair(replicas: Replicas) -> tuple[Replica, Replica]:
    """A leader, and a standby that has seen it."""
    first = replicas.start("first")
    first.leads()
    second = replicas.start("second")
    eventually(lambda: "Waiting for leadership" in second.messages)
    seen = time.monotonic()
    eventually(lambda: time.monotonic() > seen + RETRY + 0.2)  # at least one try
    assert second.acts == []
    return first, second


def test_of_three_that_start_at_once_one_leads_and_the_next_follows_when_it_is_killed(
    cluster: Cluster, replicas: Replicas
) -> None:
    waiting = {replicas.start(name) for name in ("a", "b", "c")}
    while waiting:
        leading = eventually(lambda: [one for one in waiting if one.acts], seconds=20)
        assert len(leading) == 1
        waiting.discard(leading[0])
        time_to_overlap = leading[0].acts[0] + RETRY + 0.5
        eventually(lambda: not waiting or time.monotonic() > time_to_overlap)  # noqa: B023 - read at once
        leading[0].send(signal.SIGKILL)
    replicas.end()
    assert replicas.never_acted_together()
    assert spec(cluster)["leaseTransitions"] == 2


def test_a_leader_that_is_told_to_stop_releases_the_lead(cluster: Cluster, replicas: Replicas) -> None:
    first, second = pair(replicas)
    first.send(signal.SIGTERM)
    assert first.process.wait(10) == 0
    assert first.messages[-1] == "Released leadership"
    second.leads()
    assert replicas.never_acted_together()
    second.send(signal.SIGTERM)
    assert second.process.wait(10) == 0
    assert not spec(cluster).get("holderIdentity")


@pytest.mark.parametrize("taken", [True, False])
def test_a_leader_that_was_stopped_beyond_its_deadline_ends_when_it_is_continued(replicas: Replicas, taken: bool) -> None:
    if taken:
        first, second = pair(replicas)
        first.send(signal.SIGSTOP)
        second.leads(within=LEASE + RETRY + SLACK)
    else:
        first = replicas.start("first")
        first.leads()
        stopped = first.send(signal.SIGSTOP)
        eventually(lambda: time.monotonic() > stopped + RENEW + 0.2)
    continued = first.send(signal.SIGCONT)
    assert first.process.wait(10) == 1
    assert [act for act in first.acts if act > continued] == []
    assert first.messages[-1].startswith("Lost leadership; exiting at once: ")
    assert replicas.never_acted_together()


def test_last_words_that_nobody_reads_do_not_keep_a_process_alive() -> None:
    program = """
import logging, os, sys, threading
from siorg_operator.cluster.leader import end_process
from siorg_runtime.logs import configure
configure("json", "info")
threading.Thread(target=lambda: [logging.getLogger("siorg_operator").error("x" * 1000) for _ in range(1000)], daemon=True).start()
print("ready", flush=True)
threading.Event().wait(0.3)
end_process("test")
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.wait(15) == 1  # its standard error is a pipe that is full
    finally:
        process.kill()
        process.communicate()
