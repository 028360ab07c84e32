"""The election on an API server: the small one, and a real one (KUBECONFIG, SIORG_TEST_CLUSTER=1), where the Lease is judged."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.cluster import Cluster
from support.fleet import eventually
from support.lease_replicas import Replica, Replicas

LEASE, RENEW, RETRY = 4, 3, 1  # seconds
SLACK = 1.5  # seconds that a busy machine may add
NAME = "siorg-operator"


@pytest.fixture
def replicas(cluster: Cluster, tmp_path: Path) -> Iterator[Replicas]:
    times = (f"lease_secs={LEASE}", f"lease_renew_secs={RENEW}", f"lease_retry_secs={RETRY}")
    started = Replicas(
        "kubeconfig", tmp_path, times, KUBECONFIG=str(cluster.kubeconfig), POD_NAMESPACE=cluster.namespace
    )  # fmt: skip
    yield started
    started.end()
    if cluster.kube.get("leases", NAME) is not None:
        cluster.kube.delete("leases", NAME)
        cluster.kube.wait_gone("leases", NAME)


def spec(cluster: Cluster) -> dict[str, Any]:
    lease = cluster.kube.get("leases", NAME)
    return {} if lease is None else dict(lease["spec"])


def a_pair(cluster: Cluster, replicas: Replicas) -> tuple[Replica, Replica]:
    """A leader, and a standby that has seen it."""
    first = replicas.start("first")
    first.leads()
    second = replicas.start("second")
    second.stands_by()
    seen = time.monotonic()
    eventually(lambda: time.monotonic() > seen + RETRY + 0.2)  # at least one try
    return first, second


def test_the_lease_says_who_leads(cluster: Cluster, replicas: Replicas) -> None:
    replicas.start("first").leads()
    found = spec(cluster)
    assert re.fullmatch(r"first_[0-9a-f]{6}", found["holderIdentity"])
    assert found["leaseDurationSeconds"] == LEASE
    eventually(lambda: spec(cluster)["renewTime"] > found["renewTime"])
    assert spec(cluster)["acquireTime"] == found["acquireTime"]


def test_of_two_that_start_at_once_one_leads(cluster: Cluster, replicas: Replicas) -> None:
    both = [replicas.start("first"), replicas.start("second")]
    leading = eventually(lambda: [one for one in both if one.acts])
    began = leading[0].acts[0]
    eventually(lambda: time.monotonic() > began + 2 * RETRY)
    assert sum(bool(one.acts) for one in both) == 1


def test_a_standby_takes_over_from_a_leader_that_was_killed(cluster: Cluster, replicas: Replicas) -> None:
    first, second = a_pair(cluster, replicas)
    killed = first.send(signal.SIGKILL)
    assert second.leads(within=LEASE + RETRY + SLACK) - killed < LEASE + RETRY + SLACK
    assert replicas.never_acted_together()
    assert spec(cluster)["holderIdentity"].startswith("second_")
    assert spec(cluster)["leaseTransitions"] == 1


def test_a_leader_that_is_told_to_stop_gives_the_lead_back(cluster: Cluster, replicas: Replicas) -> None:
    first, second = a_pair(cluster, replicas)
    stopped = first.send(signal.SIGTERM)
    assert first.ends(within=5) == 0
    assert first.last_words == "Gave the lead back"
    assert second.leads() - stopped < RETRY + SLACK
    assert replicas.never_acted_together()
    second.send(signal.SIGTERM)
    assert second.ends(within=5) == 0
    assert not spec(cluster).get("holderIdentity")


def test_a_leader_that_was_stopped_beyond_its_lease_ends_when_it_is_continued(cluster: Cluster, replicas: Replicas) -> None:
    first, second = a_pair(cluster, replicas)
    first.send(signal.SIGSTOP)
    second.leads(within=LEASE + RETRY + SLACK)
    continued = first.send(signal.SIGCONT)
    assert first.ends(within=5) == 1
    assert [act for act in first.acts if act > continued] == []
    assert replicas.never_acted_together()
    assert second.running


def test_an_api_server_that_is_gone_ends_the_leader_and_leaves_the_standby_waiting(cluster: Cluster, replicas: Replicas) -> None:
    if cluster.server is None:
        pytest.skip("a real API server is not taken away")
    first, second = a_pair(cluster, replicas)
    with cluster.server.gone():
        assert first.ends(within=RENEW + SLACK) == 1
        eventually(lambda: any(entry["level"] == "WARN" for entry in second.said))
        assert second.running
    second.leads()
    assert replicas.never_acted_together()


def test_no_more_rights_are_needed_than_to_get_create_and_update(cluster: Cluster, replicas: Replicas) -> None:
    if cluster.server is None:
        pytest.skip("a real API server does not tell who asked what")
    first, second = a_pair(cluster, replicas)
    for one in (first, second):
        one.send(signal.SIGTERM)
        assert one.ends(within=5) == 0
    leases = [one for one in cluster.server.requests if one.resource == "leases" and one.namespace == cluster.namespace]
    assert {one.verb for one in leases if one.user_agent != "siorg-tests"} == {"get", "create", "update"}
