"""What only the double has: faults on demand, callbacks, accounts by token. And that nobody's own cluster is tested on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kube_double.authorizer import Rule, rules_of
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


class TestFaults:
    @pytest.mark.parametrize(("status", "reason"), [(500, "InternalError"), (503, "ServiceUnavailable"), (409, "Conflict"),
                                                    (403, "Forbidden"), (429, "TooManyRequests")])  # fmt: skip
    def test_are_answered_in_kubernetes_words_as_often_as_is_said(
        self, server: ApiServer, kube: Kube, status: int, reason: str
    ) -> None:
        with server.fault(verb="create", resource="configmaps", status=status, count=2) as fault:
            for _ in range(2):
                with pytest.raises(ApiError) as error:
                    kube.create(config_map("one"))
                assert (error.value.status, error.value.reason) == (status, reason)
            assert server.get("configmaps", "one", "default") is None
            kube.create(config_map("one"))
        assert fault.hits == 2

    def test_are_for_the_requests_that_they_name(self, server: ApiServer, kube: Kube) -> None:
        with server.fault(verb="patch", resource="configmaps", name="two", status=500) as fault:
            kube.create(config_map("one"))
            kube.create(config_map("two"))
            kube.patch("configmaps", "one", {})
            with pytest.raises(ApiError):
                kube.patch("configmaps", "two", {})
        assert fault.hits == 1
        with server.fault(verb="watch", status=410), pytest.raises(ApiError) as error:
            next(iter(kube.watch("configmaps")))
        assert error.value.status == 410

    def test_can_lose_the_answer_of_what_was_carried_out(self, server: ApiServer, kube: Kube) -> None:
        with server.fault(verb="create", drop=True, carried_out=True), pytest.raises(ApiError) as error:
            kube.create(config_map("one"))
        assert error.value.status == 0
        assert server.get("configmaps", "one", "default") is not None

    def test_can_hang_until_they_are_over(self, server: ApiServer, kube: Kube) -> None:
        answered = threading.Event()

        def ask() -> None:
            kube.get("namespaces", "default")
            answered.set()

        thread = threading.Thread(target=ask)
        with server.fault(verb="get", hang=True) as fault:
            thread.start()
            eventually(lambda: fault.hits)
            assert not answered.wait(0.2)
        thread.join(10)
        assert answered.is_set()


def test_it_can_be_gone_and_comes_back_with_its_data(server: ApiServer, kube: Kube) -> None:
    kube.create(config_map("one"))
    events = kube.watch("configmaps", seconds=30)
    next(events)
    with server.gone():
        with pytest.raises(ApiError) as error:
            kube.get("configmaps", "one")
        assert error.value.status == 0
        with pytest.raises(ApiError):
            next(events)
    assert kube.get("configmaps", "one") is not None


def test_it_can_forget_the_past_and_break_watches_off(server: ApiServer, kube: Kube) -> None:
    for each in "abc":
        kube.create(config_map(each))
    page = kube.request("GET", kube.path("configmaps"), limit=1)
    events = kube.watch("configmaps", version=page["metadata"]["resourceVersion"], seconds=30)
    kube.create(config_map("d"))
    assert next(events)["type"] == "ADDED"
    server.compact()
    kube.create(config_map("e"))
    assert next(events)["type"] == "ADDED"  # watches that run go on
    with pytest.raises(ApiError) as error:
        kube.request("GET", kube.path("configmaps"), limit=1, **{"continue": page["metadata"]["continue"]})
    assert (error.value.status, error.value.reason) == (410, "Expired")
    server.break_watches()
    event = next(events)
    assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
    assert list(events) == []


ROLE: Body = {
    "rules": [
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "create"]},
        {"apiGroups": ["batch"], "resources": ["jobs/status"], "verbs": ["patch"]},
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["mine"], "verbs": ["get"]},
    ]
}


class TestAccounts:
    @pytest.fixture
    def operator(self, tmp_path: Path) -> Iterator[Kube]:
        with ApiServer(rules={"operator": rules_of(ROLE, "default")}) as server:
            made = Kube(server.kubeconfig(tmp_path, token="operator"))
            yield made
            made.close()

    def test_may_what_their_rules_name(self, operator: Kube) -> None:
        operator.create(config_map("one"))
        assert len(operator.list("configmaps")) == 1
        assert operator.get("secrets", "mine") is None
        assert operator.request("GET", "/apis")["groups"]
        for verb, allowed in (("create", True), ("delete", False)):
            attributes = {"verb": verb, "group": "", "resource": "configmaps", "namespace": "default"}
            review = {"spec": {"resourceAttributes": attributes}}
            found = operator.request("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
            assert found["status"]["allowed"] is allowed

    @pytest.mark.parametrize(
        ("ask", "told"),
        [
            (lambda kube: kube.delete("configmaps", "one"), 'cannot delete resource "configmaps" in API group "" in the'),
            (lambda kube: kube.list("configmaps", "*"), 'cannot list resource "configmaps" in API group "" at the cluster scope'),
            (lambda kube: kube.create(config_map("one"), "kube-system"), 'in API group "" in the namespace "kube-system"'),
            (lambda kube: kube.get("secrets", "another"), 'secrets "another" is forbidden'),
            (lambda kube: kube.patch("jobs", "one", {}), 'jobs.batch "one" is forbidden'),
        ],
    )  # fmt: skip
    def test_are_refused_the_rest_in_kubernetes_words(self, operator: Kube, ask: Any, told: str) -> None:
        with pytest.raises(ApiError) as error:
            ask(operator)
        assert (error.value.status, error.value.reason) == (403, "Forbidden")
        assert told in error.value.message
        assert 'is forbidden: User "system:serviceaccount:operator" cannot ' in error.value.message

    def test_can_change_and_no_others_are_known(self, tmp_path: Path) -> None:
        with ApiServer(rules={"operator": []}) as server:
            kube = Kube(server.kubeconfig(tmp_path, token="operator"))
            with pytest.raises(ApiError):
                kube.list("jobs")
            assert server.rules is not None
            server.rules["operator"] = [Rule(("list",), ("batch",), ("jobs",))]
            assert kube.list("jobs") == []
            del server.rules["operator"]
            with pytest.raises(ApiError) as error:
                kube.list("jobs")
            assert (error.value.status, error.value.reason) == (401, "Unauthorized")
            kube.close()


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
