"""What only the double has, as far as tests with an operator would not notice its want. And that nobody's own cluster is used."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kube_double.observed_requests import Moment, Request
from kube_double.server import ApiServer
from support.cluster import WrongCluster, real_kubeconfig
from support.fleet import eventually
from support.kube import ApiError, Body, Kube


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer() as made:
        yield made


@pytest.fixture
def kube(server: ApiServer, tmp_path: Path) -> Iterator[Kube]:
    made = Kube(server.kubeconfig(tmp_path))
    yield made
    made.close()


def config_map(name: str) -> Body:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}}


def test_requests_are_kept_in_kubernetes_words(server: ApiServer, kube: Kube) -> None:
    kube.create(config_map("one"))
    kube.list("jobs", "*")
    kube.get("configmaps", "nope")
    kube.delete("configmaps", "one")
    seen = [(each.verb, each.resource, each.namespace, each.name, each.status, each.writes) for each in server.requests]
    assert seen == [
        ("create", "configmaps", "default", "", 201, True), ("list", "jobs", "", "", 200, False),
        ("get", "configmaps", "default", "nope", 404, False), ("delete", "configmaps", "default", "one", 200, True),
    ]  # fmt: skip
    assert {each.user_agent for each in server.requests} == {"siorg-tests"}


@pytest.mark.parametrize("moment", ["before", "after"])
def test_callbacks_come_around_the_answer_of_what_was_carried_out(server: ApiServer, kube: Kube, moment: Moment) -> None:
    answered, seen = threading.Event(), list[tuple[Request, bool, bool]]()

    def callback(request: Request) -> None:
        # Before the answer goes out the client cannot have it, however long one waits.
        seen.append((request, server.get("configmaps", "one", "default") is not None, answered.wait(0.2)))

    with server.on_request(callback, moment):
        kube.create(config_map("one"))
        answered.set()
        eventually(lambda: seen)
    ((request, carried_out, heard),) = seen
    assert (request.verb, request.status, carried_out, heard) == ("create", 201, True, moment == "after")
    kube.create(config_map("two"))
    assert len(seen) == 1


def test_the_answer_of_what_was_carried_out_can_be_lost(server: ApiServer, kube: Kube) -> None:
    with server.fault(verb="create", drop=True, carried_out=True), pytest.raises(ApiError) as error:
        kube.create(config_map("one"))
    assert error.value.status == 0
    assert server.get("configmaps", "one", "default") is not None


def test_watches_that_run_can_be_broken_off(server: ApiServer, kube: Kube) -> None:
    kube.create(config_map("one"))
    events = kube.watch("configmaps", seconds=30)
    assert next(events)["type"] == "ADDED"
    server.break_watches()
    event = next(events)
    assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
    assert list(events) == []


class TestWhichCluster:
    def test_a_persons_own_cluster_is_left_alone(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "config").write_text("")
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
        monkeypatch.delenv("SIORG_TEST_CLUSTER", raising=False)
        assert real_kubeconfig() is None
        monkeypatch.setenv("SIORG_TEST_CLUSTER", "1")
        assert real_kubeconfig() == tmp_path / "config"

    def test_a_cluster_that_is_not_there_is_told(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nope"))
        monkeypatch.setenv("SIORG_TEST_CLUSTER", "1")
        with pytest.raises(WrongCluster, match="needs KUBECONFIG to name the kubeconfig of a cluster that tests may use"):
            real_kubeconfig()
        monkeypatch.setenv("SIORG_TEST_CLUSTER", "yes")
        with pytest.raises(WrongCluster, match="'yes'; it may be 1, 0 or unset"):
            real_kubeconfig()
