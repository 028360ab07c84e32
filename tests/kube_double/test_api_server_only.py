"""What only the small API server has: trouble on demand, callbacks, who may do what; and its speed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kube_double.authorizer import Rule, rules_of
from kube_double.observed_requests import Moment, Request
from kube_double.refused import Refused
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


def config_map(name: str, **metadata: Any) -> Body:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}, "data": {"a": "1"}}


def job(name: str, **labels: str) -> Body:
    env = [{"name": f"VARIABLE_{each}", "value": "x" * 20} for each in range(20)]
    pod = {"restartPolicy": "Never", "containers": [{"name": "main", "image": "siorg-job:1", "env": env}]}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "labels": labels},
            "spec": {"template": {"spec": pod}}}  # fmt: skip


class TestRequests:
    def test_are_kept_in_kubernetes_words(self, server: ApiServer, kube: Kube) -> None:
        kube.create(config_map("one"))
        kube.list("jobs", "*")
        kube.get("configmaps", "nope")
        kube.delete("configmaps", "one")
        seen = [(each.verb, each.resource, each.namespace, each.name, each.status) for each in server.requests]
        assert seen == [
            ("create", "configmaps", "default", "", 201), ("list", "jobs", "", "", 200),
            ("get", "configmaps", "default", "nope", 404), ("delete", "configmaps", "default", "one", 200),
        ]  # fmt: skip
        assert {each.user_agent for each in server.requests} == {"siorg-tests"}
        assert [each.writes for each in server.requests] == [True, False, False, True]

    @pytest.mark.parametrize("moment", ["before", "after"])
    def test_call_back_around_their_answer(self, server: ApiServer, kube: Kube, moment: Moment) -> None:
        answered, seen = threading.Event(), list[tuple[Request, bool, bool]]()

        def callback(request: Request) -> None:
            # Before the answer goes out the client cannot have it, however long one waits.
            seen.append((request, server.get("configmaps", "one", "default") is not None, answered.wait(0.2)))

        with server.on_request(callback, moment):
            kube.create(config_map("one"))
            answered.set()
            eventually(lambda: seen)
        ((request, carried_out, heard),) = seen
        assert (request.verb, request.status, carried_out) == ("create", 201, True)
        assert heard is (moment == "after")
        kube.create(config_map("two"))
        assert len(seen) == 1

    def test_callbacks_may_use_the_server(self, server: ApiServer, kube: Kube) -> None:
        found = []

        def look(request: Request) -> None:
            if request.writes:
                found.append(kube.get("namespaces", "default"))

        with server.on_request(look, "before"):
            kube.create(config_map("one"))
        assert found


class TestFaults:
    @pytest.mark.parametrize(("status", "reason"), [(500, "InternalError"), (409, "Conflict"), (410, "Expired"),
                                                    (403, "Forbidden"), (429, "TooManyRequests")])  # fmt: skip
    def test_are_answered_in_kubernetes_words(self, server: ApiServer, kube: Kube, status: int, reason: str) -> None:
        with server.fault(verb="create", resource="configmaps", status=status), pytest.raises(ApiError) as error:
            kube.create(config_map("one"))
        assert (error.value.status, error.value.reason) == (status, reason)
        assert server.get("configmaps", "one", "default") is None
        kube.create(config_map("one"))

    def test_are_for_the_requests_that_they_name(self, server: ApiServer, kube: Kube) -> None:
        with server.fault(verb="patch", resource="configmaps", name="two", status=500) as fault:
            kube.create(config_map("one"))
            kube.create(config_map("two"))
            kube.patch("configmaps", "one", {})
            with pytest.raises(ApiError):
                kube.patch("configmaps", "two", {})
        assert fault.hits == 1

    def test_come_as_often_as_is_said(self, server: ApiServer, kube: Kube) -> None:
        with server.fault(resource="configmaps", status=500, count=2):
            for _ in range(2):
                with pytest.raises(ApiError):
                    kube.create(config_map("one"))
            kube.create(config_map("one"))

    def test_can_lose_the_answer_of_what_was_carried_out(self, server: ApiServer, kube: Kube) -> None:
        with server.fault(verb="create", drop=True, carried_out=True), pytest.raises(ApiError) as error:
            kube.create(config_map("one"))
        assert error.value.status == 0
        assert server.get("configmaps", "one", "default") is not None

    def test_can_take_their_time(self, server: ApiServer, kube: Kube) -> None:
        begun = time.monotonic()
        with server.fault(delay=0.3):
            kube.get("namespaces", "default")
        assert time.monotonic() - begun >= 0.3

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

    def test_of_a_watch_are_its_answer(self, server: ApiServer, kube: Kube) -> None:
        with server.fault(verb="watch", status=410), pytest.raises(ApiError) as error:
            next(iter(kube.watch("configmaps")))
        assert error.value.status == 410


class TestTheServerItself:
    def test_can_be_gone_and_comes_back_with_its_data(self, server: ApiServer, kube: Kube) -> None:
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

    def test_can_forget_the_past(self, server: ApiServer, kube: Kube) -> None:
        made = kube.create(config_map("one"))
        server.create(config_map("two"))
        server.compact()
        event = next(iter(kube.watch("configmaps", version=made["metadata"]["resourceVersion"])))
        assert (event["type"], event["object"]["code"]) == ("ERROR", 410)

    def test_forgets_pages_with_the_past(self, server: ApiServer, kube: Kube) -> None:
        for each in "abc":
            kube.create(config_map(each))
        page = kube.request("GET", kube.path("configmaps"), limit=1)
        server.compact()
        with pytest.raises(ApiError) as error:
            kube.request("GET", kube.path("configmaps"), limit=1, **{"continue": page["metadata"]["continue"]})
        assert (error.value.status, error.value.reason) == (410, "Expired")

    def test_lets_watches_run_on_when_it_forgets(self, server: ApiServer, kube: Kube) -> None:
        since = server.objects("serviceaccounts")[-1]["metadata"]["resourceVersion"]
        events = kube.watch("configmaps", version=since, seconds=10)
        kube.create(config_map("one"))
        assert next(events)["type"] == "ADDED"
        server.compact()
        kube.create(config_map("two"))
        assert next(events)["object"]["metadata"]["name"] == "two"

    def test_can_break_watches_off(self, server: ApiServer, kube: Kube) -> None:
        kube.create(config_map("one"))
        events = kube.watch("configmaps", seconds=30)
        next(events)
        server.break_watches()
        event = next(events)
        assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
        assert list(events) == []

    def test_can_be_used_without_http(self, server: ApiServer) -> None:
        server.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "mine"}})
        server.create(job("one", app="x"), "mine")
        server.patch("jobs", "one", {"status": {"succeeded": 1}}, "mine", subresource="status")
        (found,) = server.objects("jobs", "mine", labels="app=x")
        assert found["status"]["succeeded"] == 1
        with pytest.raises(Refused):
            server.create(job("one"), "mine")
        server.delete("jobs", "one", "mine")
        assert server.get("jobs", "one", "mine") is None


ROLE: Body = {
    "rules": [
        {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get", "list", "create"]},
        {"apiGroups": ["batch"], "resources": ["jobs/status"], "verbs": ["patch"]},
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["mine"], "verbs": ["get"]},
    ]
}


class TestRules:
    @pytest.fixture
    def operator(self, tmp_path: Path) -> Iterator[Kube]:
        with ApiServer(rules={"operator": rules_of(ROLE, "default")}) as server:
            made = Kube(server.kubeconfig(tmp_path, token="operator"))
            yield made
            made.close()

    def test_let_through_what_they_name(self, operator: Kube) -> None:
        operator.create(job("one"))
        operator.patch_status("jobs", "one", {"succeeded": 1})
        assert len(operator.list("jobs")) == 1
        assert operator.get("secrets", "mine") is None
        assert operator.request("GET", "/apis")["groups"]

    @pytest.mark.parametrize(
        ("ask", "told"),
        [
            (lambda kube: kube.delete("jobs", "one"), 'cannot delete resource "jobs" in API group "batch" in the namespace'),
            (lambda kube: kube.list("jobs", "*"), 'cannot list resource "jobs" in API group "batch" at the cluster scope'),
            (lambda kube: kube.create(job("one"), "kube-system"), 'in API group "batch" in the namespace "kube-system"'),
            (lambda kube: kube.get("secrets", "another"), 'secrets "another" is forbidden'),
            (lambda kube: kube.patch("jobs", "one", {}), 'cannot patch resource "jobs"'),
        ],
    )  # fmt: skip
    def test_refuse_the_rest_in_kubernetes_words(self, operator: Kube, ask: Any, told: str) -> None:
        with pytest.raises(ApiError) as error:
            ask(operator)
        assert (error.value.status, error.value.reason) == (403, "Forbidden")
        assert told in error.value.message
        assert 'is forbidden: User "system:serviceaccount:operator" cannot ' in error.value.message

    def test_can_be_asked_for(self, operator: Kube) -> None:
        for verb, allowed in (("create", True), ("delete", False)):
            attributes = {"verb": verb, "group": "batch", "resource": "jobs", "namespace": "default"}
            review = {"spec": {"resourceAttributes": attributes}}
            found = operator.request("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
            assert found["status"]["allowed"] is allowed

    def test_can_change(self, tmp_path: Path) -> None:
        with ApiServer(rules={"operator": []}) as server:
            kube = Kube(server.kubeconfig(tmp_path, token="operator"))
            with pytest.raises(ApiError):
                kube.list("jobs")
            assert server.rules is not None
            server.rules["operator"] = [Rule(("list",), ("batch",), ("jobs",))]
            assert kube.list("jobs") == []
            kube.close()

    def test_know_nobody_else(self, tmp_path: Path) -> None:
        with ApiServer(rules={}) as server:
            kube = Kube(server.kubeconfig(tmp_path, token="stranger"))
            with pytest.raises(ApiError) as error:
                kube.list("jobs")
            assert (error.value.status, error.value.reason) == (401, "Unauthorized")
            kube.close()


class TestSpeed:
    def test_does_not_sink_with_ten_thousand_jobs(self, server: ApiServer, kube: Kube) -> None:
        def create(first: int, count: int) -> float:
            begun = time.perf_counter()
            for at in range(first, first + count):
                server.create(job(f"job-{at:05}", app="siorg", slot=str(at % 10)))
            return (time.perf_counter() - begun) / count

        create(0, 100)
        early = min(create(100 + 300 * at, 300) for at in range(3))
        create(1000, 8100)
        late = min(create(9100 + 300 * at, 300) for at in range(3))
        assert late < 3 * early
        kube.list("jobs", labels="slot=1")
        begun = time.perf_counter()
        answer = kube._pool.request("GET", f"{kube.url}{kube.path('jobs')}?labelSelector=app%3Dsiorg,slot%20in%20(3)")
        assert time.perf_counter() - begun < 0.3
        assert answer.data.count(b'"job-name"') == 1000


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
