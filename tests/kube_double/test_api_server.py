"""What our operator relies on of an API server. The double and a real one pass the same tests: see conftest.py.

Custom resources have their own file, ``test_crd_rules.py``, on the very definition that is shipped.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import pytest

from kube_double.server import ApiServer
from support.cluster import Cluster
from support.fleet import eventually
from support.kube import MERGE_PATCH, ApiError, Body, Kube


def job(name: str, *, metadata: Body | None = None, pod: Body | None = None, **spec: Any) -> Body:
    """A suspended Job, so that no controller does anything with it."""
    container = {"name": "main", "image": "python:test"}
    template = {"spec": {"restartPolicy": "Never", "containers": [container], **(pod or {})}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, **(metadata or {})},
            "spec": {"suspend": True, "template": template, **spec}}  # fmt: skip


def cron_job(name: str, *, env: str = "", **spec: Any) -> Body:
    """A CronJob; of its pods' container the variables that ``env`` has, each a letter."""
    inner = job(name)["spec"]["template"]
    if env:
        inner["spec"]["containers"][0]["env"] = [{"name": each, "value": "1"} for each in env]
    return {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": name},
            "spec": {"schedule": "0 3 * * *", "suspend": True, "jobTemplate": {"spec": {"template": inner}}, **spec}}  # fmt: skip


def config_map(name: str, *, metadata: Body | None = None, **data: str) -> Body:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **(metadata or {})}, "data": data}


def owned_by(*owners: Body, **more: Any) -> Body:
    return {"ownerReferences": [{"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
                                 "uid": owner["metadata"]["uid"], **more} for owner in owners]}  # fmt: skip


def refusal(call: Callable[[], object]) -> ApiError:
    with pytest.raises(ApiError) as refused:
        call()
    return refused.value


def version(body: Body) -> str:
    return str(body["metadata"]["resourceVersion"])


class TestDiscovery:
    @pytest.mark.parametrize(
        ("path", "resources"),
        [
            ("/api/v1", {"pods", "pods/status", "secrets", "events", "namespaces", "nodes"}),
            ("/apis/batch/v1", {"jobs", "jobs/status", "cronjobs"}),
            ("/apis/coordination.k8s.io/v1", {"leases"}),
        ],
    )
    def test_lists_what_is_served(self, kube: Kube, path: str, resources: set[str]) -> None:
        found = {each["name"]: each for each in kube.request("GET", path)["resources"]}
        assert resources <= found.keys()
        assert all({"list", "watch", "patch"} <= set(found[name]["verbs"]) for name in resources if "/" not in name)
        groups = kube.request("GET", "/apis")["groups"]
        assert {"batch/v1", "apiextensions.k8s.io/v1"} <= {each["preferredVersion"]["groupVersion"] for each in groups}

    @pytest.mark.parametrize("path", ["/apis/nope.example.com/v1", "/apis/batch/v1/nopes", "/apis/batch/v9/jobs", "/nope"])
    def test_says_404_where_nothing_is(self, kube: Kube, path: str) -> None:
        assert refusal(lambda: kube.request("GET", path)).status == 404


class TestCreate:
    def test_gives_identity_time_and_version(self, kube: Kube, name: str, cluster: Cluster) -> None:
        said = {"uid": "mine", "generation": 7, "creationTimestamp": "2001-01-01T00:00:00Z"}
        made = kube.create({**job(name, metadata=said), "status": {"active": 3}})
        metadata = made["metadata"]
        assert (metadata["namespace"], metadata["generation"], len(metadata["uid"])) == (cluster.namespace, 1, 36)
        assert metadata["creationTimestamp"].endswith("Z")
        assert metadata["creationTimestamp"] > said["creationTimestamp"]
        assert metadata["resourceVersion"].isdigit()
        assert "active" not in made.get("status", {})
        found = kube.get("jobs", name)
        assert found is not None
        assert found["metadata"]["uid"] == metadata["uid"]

    def test_makes_a_name_from_generate_name(self, kube: Kube) -> None:
        names = {kube.create(job("", metadata={"name": "", "generateName": "some-"}))["metadata"]["name"] for _ in range(2)}
        assert len(names) == 2
        assert all(each.startswith("some-") and len(each) == 10 for each in names)

    def test_refuses_a_name_that_is_taken(self, kube: Kube, name: str) -> None:
        kube.create(job(name))
        refused = refusal(lambda: kube.create(job(name)))
        assert (refused.status, refused.reason) == (409, "AlreadyExists")
        assert refused.message == f'jobs.batch "{name}" already exists'

    def test_refuses_another_namespace_or_kind_than_the_urls(self, kube: Kube, name: str) -> None:
        missing = refusal(lambda: kube.create(job(name), "no-such-namespace"))
        assert (missing.status, missing.message) == (404, 'namespaces "no-such-namespace" not found')
        other = refusal(lambda: kube.request("POST", kube.path("jobs"), job(name, metadata={"namespace": "default"})))
        assert (other.status, other.reason) == (400, "BadRequest")
        assert other.message == "the namespace of the provided object does not match the namespace sent on the request"
        assert refusal(lambda: kube.request("POST", kube.path("jobs"), {**job(name), "apiVersion": "batch/v7"})).status == 400
        for body in (b"{nope", b"", b"[]"):
            assert refusal(lambda: kube.request("POST", kube.path("jobs"), body)).status == 400  # noqa: B023

    @pytest.mark.parametrize(
        ("manifest", "field", "told"),
        [
            (job("UPPER"), "metadata.name", "a lowercase RFC 1123 subdomain must consist of"),
            (job("a" * 64), "spec.template.labels", "must be no more than 63 bytes"),
            (job("x", metadata={"labels": {"a": "x" * 64}}), "metadata.labels", "must be no more than 63 bytes"),
            (job("x", metadata={"labels": {"a": "x y"}}), "metadata.labels", "a valid label must be an empty string or consist"),
            (job(""), "metadata.name", "name or generateName is required"),
            (job("x", pod={"restartPolicy": "Always"}), "spec.template.spec.restartPolicy", "Required value"),
            (job("x", pod={"containers": []}), "spec.template.spec.containers", "Required value"),
            (job("x", pod={"containers": [{"name": "c"}]}), "spec.template.spec.containers[0].image", "Required value"),
            (cron_job("c" * 53), "metadata.name", "must be no more than 52 characters"),
        ],
        ids=str,
    )
    def test_refuses_what_is_invalid_and_names_the_field(self, kube: Kube, manifest: Body, field: str, told: str) -> None:
        refused = refusal(lambda: kube.create(manifest))
        assert (refused.status, refused.reason) == (422, "Invalid")
        assert [cause for cause in refused.causes if cause["field"] == field and told in cause["message"]], refused

    def test_refuses_unknown_fields_and_wrong_types_when_told_to_be_strict(self, kube: Kube, name: str) -> None:
        for spec in ({"activeDeadline": 5}, {"backoffLimit": "six"}):
            refused = refusal(lambda: kube.create(job(name, **spec), fieldValidation="Strict"))  # noqa: B023
            assert (refused.status, refused.reason) == (400, "BadRequest")
            assert next(iter(spec)) in refused.message

    def test_a_dry_run_answers_as_if_and_keeps_nothing(self, kube: Kube, name: str) -> None:
        assert kube.create(job(name), dryRun="All")["spec"]["backoffLimit"] == 6
        assert kube.get("jobs", name) is None

    def test_fills_in_what_controllers_rely_on(self, kube: Kube, name: str) -> None:
        manifest = job(name)
        del manifest["spec"]["suspend"]
        made = kube.create(manifest, dryRun="All")
        spec, uid = made["spec"], made["metadata"]["uid"]
        assert spec.items() >= {"backoffLimit": 6, "parallelism": 1, "completions": 1, "suspend": False}.items()
        assert spec["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
        marks = {"batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": name, "controller-uid": uid,
                 "job-name": name}  # fmt: skip
        assert spec["template"]["metadata"]["labels"] == marks
        assert spec["template"]["spec"]["terminationGracePeriodSeconds"] == 30
        assert kube.create(job(name, metadata={"labels": {"app": "siorg"}}))["metadata"]["labels"] == {"app": "siorg"}

    def test_a_namespace_gets_its_name_as_a_label_and_an_account(self, kube: Kube, name: str) -> None:
        made = kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        assert made["metadata"]["labels"] == {"kubernetes.io/metadata.name": name}
        assert made["status"] == {"phase": "Active"}
        eventually(lambda: kube.get("serviceaccounts", "default", name))
        kube.delete("namespaces", name)


class TestUpdate:
    def test_put_replaces_and_counts_generations_of_the_spec(self, kube: Kube, name: str) -> None:
        made = kube.create(cron_job(name))
        made["spec"]["schedule"] = "0 4 * * *"
        changed = kube.replace(made)
        assert changed["metadata"]["generation"] == 2
        changed["metadata"]["labels"] = {"a": "b"}
        again = kube.replace(changed)
        assert (again["metadata"]["generation"], again["metadata"]["labels"]) == (2, {"a": "b"})
        assert int(version(again)) > int(version(changed)) > int(version(made))

    def test_with_an_old_version_or_another_uid_conflicts(self, kube: Kube, name: str) -> None:
        made = kube.create(config_map(name, a="1"))
        kube.patch("configmaps", name, {"data": {"a": "2"}})
        refused = refusal(lambda: kube.replace(made))
        assert (refused.status, refused.reason) == (409, "Conflict")
        assert refused.message.startswith(f'Operation cannot be fulfilled on configmaps "{name}": the object has been modified')
        old = {"metadata": {"resourceVersion": version(made)}, "data": {"a": "3"}}
        assert refusal(lambda: kube.patch("configmaps", name, old)).status == 409
        other = config_map(name, a="3")
        other["metadata"]["uid"] = "11111111-1111-1111-1111-111111111111"
        assert refusal(lambda: kube.replace(other)).status == 409
        patched = refusal(lambda: kube.patch("configmaps", name, {"metadata": {"uid": other["metadata"]["uid"]}}))
        assert patched.status == 422
        assert "metadata.uid: Invalid value" in patched.message

    def test_a_lease_is_renewed_only_with_the_version_that_was_read(self, kube: Kube, name: str) -> None:
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name},
                 "spec": {"holderIdentity": "a"}}  # fmt: skip
        made = kube.create(lease)
        blind = refusal(lambda: kube.replace(lease))
        assert blind.status == 422
        assert "metadata.resourceVersion: Invalid value: 0: must be specified for an update" in blind.message
        assert kube.replace({**made, "spec": {"holderIdentity": "b"}})["spec"] == {"holderIdentity": "b"}
        assert refusal(lambda: kube.replace({**made, "spec": {"holderIdentity": "c"}})).status == 409

    def test_nothing_changed_is_no_new_version_and_no_event(self, kube: Kube, name: str) -> None:
        made = kube.create(config_map(name, a="1"))
        assert version(kube.replace(made)) == version(made)
        assert version(kube.patch("configmaps", name, {"data": {"a": "1"}})) == version(made)
        kube.patch("configmaps", name, {"data": {"a": "2"}})
        events = watched(kube, name, version(made), until=lambda event: event["object"]["data"]["a"] == "2")
        assert [event["type"] for event in events] == ["MODIFIED"]

    def test_a_merge_patch_sets_removes_and_replaces_lists_whole(self, kube: Kube, name: str) -> None:
        kube.create(config_map(name, a="1", b="2"))
        assert kube.patch("configmaps", name, {"data": {"a": None, "c": "3"}})["data"] == {"b": "2", "c": "3"}
        kube.create(cron_job(name, env="AB"))
        pod = {"containers": [{"name": "other", "image": "z"}]}
        changed = kube.patch("cronjobs", name, {"spec": {"jobTemplate": {"spec": {"template": {"spec": pod}}}}})
        assert [each["name"] for each in containers(changed)] == ["other"]
        assert refusal(lambda: kube.patch("jobs", f"{name}-not", {}, content_type=MERGE_PATCH)).status == 404
        assert refusal(lambda: kube.patch("configmaps", name, {}, content_type="application/json")).status == 415

    def test_status_is_written_by_its_own_endpoint_and_counts_as_no_generation(self, kube: Kube, name: str) -> None:
        kube.create(cron_job(name))
        moment = {"lastScheduleTime": "2026-01-01T00:00:00Z"}
        assert "lastScheduleTime" not in kube.patch("cronjobs", name, {"status": moment}).get("status", {})
        changed = kube.patch("cronjobs", name, {"status": moment, "spec": {"schedule": "@daily"}}, subresource="status")
        assert changed["status"]["lastScheduleTime"] == moment["lastScheduleTime"]
        assert (changed["spec"]["schedule"], changed["metadata"]["generation"]) == ("0 3 * * *", 1)

    @pytest.mark.parametrize(
        "change", [{"activeDeadlineSeconds": 50}, {"ttlSecondsAfterFinished": 9}, {"suspend": False}], ids=str
    )
    def test_a_job_lets_this_change(self, kube: Kube, name: str, change: Body) -> None:
        kube.create(job(name, pod={"nodeSelector": {"no": "such-node"}}))
        changed = kube.patch("jobs", name, {"spec": change})
        assert changed["metadata"]["generation"] == 2
        assert changed["spec"].items() >= change.items()


def containers(body: Body) -> list[Body]:
    found: list[Body] = body["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    return found


def variables(body: Body) -> str:
    return "".join(each["name"] for each in containers(body)[0].get("env", ()))


class TestApply:
    """Server-side apply."""

    def test_creates_what_is_not_there_and_changes_nothing_the_second_time(self, kube: Kube, name: str) -> None:
        made = kube.apply(cron_job(name), manager="operator")
        assert made["spec"]["concurrencyPolicy"] == "Allow"
        assert version(kube.apply(cron_job(name), manager="operator")) == version(made)

    def test_removes_what_the_manager_no_longer_wants(self, kube: Kube, name: str) -> None:
        kube.apply(cron_job(name, startingDeadlineSeconds=60, timeZone="UTC"), manager="operator")
        changed = kube.apply(cron_job(name, timeZone="UTC"), manager="operator")
        assert "startingDeadlineSeconds" not in changed["spec"]
        assert changed["spec"]["timeZone"] == "UTC"

    def test_merges_environments_by_name(self, kube: Kube, name: str) -> None:
        kube.apply(cron_job(name, env="AB"), manager="operator")
        assert variables(kube.apply(cron_job(name, env="BC"), manager="operator")) == "BC"
        assert "env" not in containers(kube.apply(cron_job(name), manager="operator"))[0]

    def test_conflicts_with_another_manager_unless_forced(self, kube: Kube, name: str) -> None:
        kube.apply(cron_job(name), manager="operator")
        human = cron_job(name, schedule="0 4 * * *")
        refused = refusal(lambda: kube.apply(human, manager="human"))
        assert (refused.status, refused.reason) == (409, "Conflict")
        assert refused.message == 'Apply failed with 1 conflict: conflict with "operator": .spec.schedule'
        assert kube.apply(human, manager="human", force=True)["spec"]["schedule"] == "0 4 * * *"
        again = refusal(lambda: kube.apply(cron_job(name), manager="operator"))
        assert 'conflict with "human": .spec.schedule' in again.message

    def test_knows_who_wrote_what(self, kube: Kube, name: str) -> None:
        def writers() -> set[tuple[str, str]]:
            found = kube.wait_for("cronjobs", name)["metadata"]["managedFields"]
            return {(each["manager"], each["operation"]) for each in found if "f:spec" in each["fieldsV1"]}

        kube.apply(cron_job(name), manager="operator")
        assert writers() == {("operator", "Apply")}
        kube.patch("cronjobs", name, {"spec": {"schedule": "0 5 * * *"}}, fieldManager="editor")
        assert writers() == {("operator", "Apply"), ("editor", "Update")}
        refused = refusal(lambda: kube.apply(cron_job(name), manager="operator"))
        assert 'conflict with "editor" using batch/v1: .spec.schedule' in refused.message
        kube.apply(cron_job(name), manager="operator", force=True)
        assert writers() == {("operator", "Apply")}

    def test_takes_back_by_force_what_somebody_else_wrote(self, kube: Kube, name: str) -> None:
        kube.apply(cron_job(name), manager="operator")
        kube.patch("cronjobs", name, {"spec": {"schedule": "0 5 * * *", "startingDeadlineSeconds": 9}}, fieldManager="editor")
        taken = kube.apply(cron_job(name), manager="operator", force=True)
        assert (taken["spec"]["schedule"], taken["spec"]["startingDeadlineSeconds"]) == ("0 3 * * *", 9)

    def test_keeps_what_others_own(self, kube: Kube, name: str) -> None:
        kube.apply(config_map(name, a="1", c="3"), manager="one")
        kube.apply(config_map(name, b="2", c="3"), manager="two")
        assert kube.apply(config_map(name), manager="one")["data"] == {"b": "2", "c": "3"}
        kube.patch("configmaps", name, {"metadata": {"annotations": {"a": "b"}}})
        assert kube.apply(config_map(name, b="2"), manager="two")["metadata"]["annotations"] == {"a": "b"}


@pytest.fixture(scope="module")
def labels(cluster: Cluster) -> str:
    """A selector of four Jobs: a and b have the color red, c blue, d none."""
    mark = f"m{secrets.token_hex(3)}"
    for each, color in (("a", "red"), ("b", "red"), ("c", "blue"), ("d", "")):
        marks = {"mark": mark} | ({"color": color} if color else {})
        cluster.kube.create(job(f"{mark}-{each}", metadata={"labels": marks}))
    return f"mark={mark}"


def endings(items: list[Body]) -> str:
    return "".join(each["metadata"]["name"][-1] for each in items)


class TestList:
    @pytest.mark.parametrize(
        ("selector", "expected"),
        [
            ("color=red", "ab"), ("color==red", "ab"), ("color!=red", "cd"), ("color in (red, blue)", "abc"),
            ("color notin (red)", "cd"), ("color", "abc"), ("!color", "d"), ("color=red,!color", ""), ("color=green", ""),
        ],
    )  # fmt: skip
    def test_selects_by_label(self, kube: Kube, labels: str, selector: str, expected: str) -> None:
        assert endings(kube.list("jobs", labels=f"{labels},{selector}")) == expected

    @pytest.mark.parametrize("selector", ["color in", "a b", "==", "color=red,"])
    def test_refuses_a_selector_that_it_cannot_read(self, kube: Kube, selector: str) -> None:
        assert refusal(lambda: kube.list("jobs", labels=selector)).status == 400

    def test_selects_by_name(self, kube: Kube, labels: str) -> None:
        name = f"{labels.partition('=')[2]}-b"
        assert [each["metadata"]["name"] for each in kube.list("jobs", fields=f"metadata.name={name}")] == [name]

    def test_goes_page_by_page(self, kube: Kube, labels: str) -> None:
        pages: list[str] = []
        token: str | None = ""
        while token is not None:
            page = kube.request("GET", kube.path("jobs"), labelSelector=labels, limit=2, **{"continue": token})
            pages.append(endings(page["items"]))
            token = page["metadata"].get("continue")
        # Perhaps there is an empty page at the end: whether anything more is selected is not known before.
        assert pages[:2] == ["ab", "cd"]
        assert not any(pages[2:])

    def test_all_pages_show_one_moment(self, kube: Kube, name: str) -> None:
        for each in "ab":
            kube.create(config_map(f"{name}-{each}", metadata={"labels": {"page": name}}))
        first = kube.request("GET", kube.path("configmaps"), labelSelector=f"page={name}", limit=1)
        kube.create(config_map(f"{name}-c", metadata={"labels": {"page": name}}))
        rest = kube.request("GET", kube.path("configmaps"), labelSelector=f"page={name}", limit=9,
                            **{"continue": first["metadata"]["continue"]})  # fmt: skip
        assert endings(rest["items"]) == "b"
        assert version(rest) == version(first)

    def test_items_of_built_in_kinds_have_no_type(self, kube: Kube, labels: str, cluster: Cluster) -> None:
        found = kube.request("GET", kube.path("jobs", "*"), labelSelector=labels)
        assert (found["kind"], found["apiVersion"]) == ("JobList", "batch/v1")
        assert "kind" not in found["items"][0]
        assert {each["metadata"]["namespace"] for each in found["items"]} == {cluster.namespace}
        assert kube.list("jobs", "no-such-namespace") == []
        assert refusal(lambda: kube.request("GET", kube.path("jobs"), resourceVersion="abc")).status == 400

    def test_of_metadata_only(self, kube: Kube, labels: str) -> None:
        accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json"
        found = kube.request("GET", kube.path("jobs"), labelSelector=labels, accept=accept)
        assert found["kind"] == "PartialObjectMetadataList"
        assert all("spec" not in each and each["metadata"]["uid"] for each in found["items"])
        none = kube.request("GET", kube.path("jobs"), labelSelector="no=such", accept=accept)
        assert none["items"] is None  # unlike any other empty list


def watched(kube: Kube, name: str, since: str, until: Callable[[Body], bool], *, labels: str = "") -> list[Body]:
    """Events of one ConfigMap from a version on, up to the first that ``until`` says."""
    found = []
    for event in kube.watch("configmaps", version=since, labels=labels, seconds=20):
        if event["type"] == "ERROR" or event["object"]["metadata"].get("name") == name:
            found.append(event)
            if until(event):
                return found
    raise AssertionError(f"the watch ended: {found}")


class TestWatch:
    def test_tells_all_changes_in_order_from_a_version_on(self, kube: Kube, name: str) -> None:
        made = kube.create(config_map(name, a="1"))
        since = str(int(version(made)) - 1)
        kube.patch("configmaps", name, {"data": {"a": "2"}})
        kube.patch("configmaps", name, {"data": {"a": "3"}})
        kube.delete("configmaps", name)
        events = watched(kube, name, since, until=lambda event: event["type"] == "DELETED")
        assert [(event["type"], event["object"]["data"]["a"]) for event in events] == [
            ("ADDED", "1"), ("MODIFIED", "2"), ("MODIFIED", "3"), ("DELETED", "3"),
        ]  # fmt: skip
        versions = [int(version(event["object"])) for event in events]
        assert versions == sorted(set(versions))
        assert all(event["object"]["kind"] == "ConfigMap" for event in events)

    def test_tells_what_is_there_when_no_version_is_given(self, kube: Kube, name: str) -> None:
        kube.create(config_map(name, a="1"))
        assert [event["type"] for event in watched(kube, name, "", until=lambda event: True)] == ["ADDED"]

    def test_what_begins_to_match_is_added_and_what_no_longer_does_is_deleted(self, kube: Kube, name: str) -> None:
        made = kube.create(config_map(name))
        kube.patch("configmaps", name, {"metadata": {"labels": {"color": "red"}}})
        kube.patch("configmaps", name, {"data": {"a": "1"}})
        last = kube.patch("configmaps", name, {"metadata": {"labels": {"color": "blue"}}})
        events = watched(kube, name, version(made), labels="color=red", until=lambda event: event["type"] == "DELETED")
        assert [event["type"] for event in events] == ["ADDED", "MODIFIED", "DELETED"]
        assert version(events[-1]["object"]) == version(last)

    def test_ends_when_its_time_is_over(self, kube: Kube) -> None:
        now = str(kube.request("GET", kube.path("secrets"))["metadata"]["resourceVersion"])
        assert list(kube.watch("secrets", version=now, fields="metadata.name=no-such-secret", seconds=1)) == []

    def test_says_where_it_is_to_who_wants_bookmarks(self, name: str, kube: Kube, cluster: Cluster) -> None:
        made = kube.create(config_map(name))
        seconds = 2 if cluster.server is not None else 90  # a real server says so once a minute
        for event in kube.watch("configmaps", version=version(made), seconds=seconds, allowWatchBookmarks="true"):
            if event["type"] == "BOOKMARK":
                assert event["object"]["kind"] == "ConfigMap"
                assert int(version(event["object"])) >= int(version(made))
                return
        raise AssertionError("no bookmark")

    def test_from_a_version_that_is_forgotten_says_gone(self, kube: Kube, cluster: Cluster, name: str) -> None:
        if not isinstance(cluster.server, ApiServer):
            pytest.skip("a real server forgets when it pleases")
        kube.create(config_map(name))
        cluster.server.compact()
        event = next(iter(kube.watch("configmaps", version="1", seconds=5)))
        assert (event["type"], event["object"]["kind"]) == ("ERROR", "Status")
        assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")
        assert event["object"]["message"].startswith("too old resource version: 1 (")


class TestDelete:
    def test_answers_with_success_and_identity(self, kube: Kube, name: str) -> None:
        made = kube.create(config_map(name))
        gone = kube.delete("configmaps", name)
        assert gone is not None
        assert (gone["kind"], gone["status"]) == ("Status", "Success")
        assert gone["details"] == {"name": name, "kind": "configmaps", "uid": made["metadata"]["uid"]}
        assert kube.get("configmaps", name) is None
        refused = refusal(lambda: kube.request("DELETE", kube.path("configmaps", name=name)))
        assert (refused.status, refused.message) == (404, f'configmaps "{name}" not found')

    def test_waits_for_finalizers_and_leaves_no_room_meanwhile(self, kube: Kube, name: str) -> None:
        kube.create(config_map(name, metadata={"finalizers": ["tests.dev/one", "tests.dev/two"]}))
        going = kube.delete("configmaps", name)
        assert going is not None
        assert going["metadata"]["deletionTimestamp"].endswith("Z")
        assert kube.delete("configmaps", name) == going
        refused = refusal(lambda: kube.create(config_map(name)))
        assert (refused.status, refused.reason) == (409, "AlreadyExists")
        assert refused.message == f'object is being deleted: configmaps "{name}" already exists'
        left = kube.patch("configmaps", name, {"metadata": {"finalizers": ["tests.dev/two"]}})
        assert left["metadata"]["finalizers"] == ["tests.dev/two"]
        kube.patch("configmaps", name, {"metadata": {"finalizers": None}})
        assert kube.get("configmaps", name) is None

    @pytest.mark.parametrize("precondition", [{"uid": "another"}, {"resourceVersion": "1"}], ids=str)
    def test_with_a_precondition_that_does_not_hold_conflicts(self, kube: Kube, name: str, precondition: Body) -> None:
        kube.create(config_map(name))
        path = kube.path("configmaps", name=name)
        refused = refusal(lambda: kube.request("DELETE", path, {"preconditions": precondition}))
        assert (refused.status, refused.reason) == (409, "Conflict")
        assert "in the precondition" in refused.message

    def test_of_a_pod_without_a_node_is_done_at_once(self, kube: Kube, name: str) -> None:
        kube.create(pod(name, nodeSelector={"no": "such-node"}))
        gone = kube.delete("pods", name)
        assert gone is not None
        assert gone["kind"] == "Pod"
        kube.wait_gone("pods", name)

    def test_of_a_pod_on_a_node_waits_for_its_grace_or_the_nodes_word(self, kube: Kube, name: str) -> None:
        kube.create(pod(name, nodeName="a-node-that-is-not-there"))
        for grace in (20, 5):
            going = kube.delete("pods", name, grace=grace)
            assert going is not None
            assert going["metadata"]["deletionGracePeriodSeconds"] == grace
        kube.delete("pods", name, grace=0)
        kube.wait_gone("pods", name)

    def test_of_a_namespace_takes_all_that_is_in_it(self, kube: Kube, name: str) -> None:
        kube.create_namespace(name)
        kube.create(config_map("inside"), name)
        kube.create(config_map("held", metadata={"finalizers": ["tests.dev/hold"]}), name)
        kube.delete("namespaces", name)
        kube.wait_for("namespaces", name, lambda body: body["status"]["phase"] == "Terminating")
        refused = refusal(lambda: kube.create(config_map("late"), name))
        assert (refused.status, refused.reason) == (403, "Forbidden")
        assert f"unable to create new content in namespace {name} because it is being terminated" in refused.message
        eventually(lambda: kube.get("configmaps", "inside", name) is None, seconds=60)
        kube.patch("configmaps", "held", {"metadata": {"finalizers": None}}, name)
        kube.wait_gone("namespaces", name, seconds=60)


def pod(name: str, **spec: Any) -> Body:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}], **spec}}  # fmt: skip


def collector_has_had_its_turn(kube: Kube) -> None:
    """It acts some time after a change: until it has taken a dependent of an owner that never was."""
    nobody = config_map("nobody", metadata={"uid": "11111111-2222-3333-4444-555555555555"})
    name = f"t-{secrets.token_hex(4)}"
    kube.create(config_map(name, metadata=owned_by(nobody)))
    kube.wait_gone("configmaps", name)


class TestGarbageCollection:
    def test_takes_dependents_and_their_dependents(self, kube: Kube, name: str) -> None:
        owner = kube.create(config_map(name))
        middle = kube.create(job(f"{name}-middle", metadata=owned_by(owner, controller=True, blockOwnerDeletion=True)))
        kube.create(config_map(f"{name}-leaf", metadata=owned_by(middle)))
        kube.delete("configmaps", name)
        kube.wait_gone("jobs", f"{name}-middle")
        kube.wait_gone("configmaps", f"{name}-leaf")

    def test_a_job_deleted_without_a_policy_leaves_its_dependents(self, kube: Kube, name: str) -> None:
        owner = kube.create(job(name))
        kube.create(config_map(f"{name}-leaf", metadata=owned_by(owner)))
        collector_has_had_its_turn(kube)
        kube.delete("jobs", name, policy="")
        kube.wait_gone("jobs", name)
        kube.wait_for("configmaps", f"{name}-leaf", lambda body: "ownerReferences" not in body["metadata"])

    def test_goes_by_uid_and_keeps_what_still_has_an_owner(self, kube: Kube, name: str) -> None:
        one, two = kube.create(config_map(f"{name}-1")), kube.create(config_map(f"{name}-2"))
        kube.create(config_map(f"{name}-leaf", metadata=owned_by(one, two)))
        collector_has_had_its_turn(kube)
        kube.delete("configmaps", f"{name}-1")
        left = kube.wait_for("configmaps", f"{name}-leaf", lambda body: len(body["metadata"]["ownerReferences"]) == 1)
        assert left["metadata"]["ownerReferences"][0]["name"] == f"{name}-2"

    def test_an_owner_that_is_held_holds_its_dependents(self, kube: Kube, name: str) -> None:
        owner = kube.create(config_map(name, metadata={"finalizers": ["tests.dev/hold"]}))
        kube.create(config_map(f"{name}-leaf", metadata=owned_by(owner)))
        kube.delete("configmaps", name)
        collector_has_had_its_turn(kube)
        assert kube.get("configmaps", f"{name}-leaf") is not None
        kube.patch("configmaps", name, {"metadata": {"finalizers": None}})
        kube.wait_gone("configmaps", f"{name}-leaf")


def test_events_are_told_of_an_object(kube: Kube, name: str, cluster: Cluster) -> None:
    kube.create({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": name}, "reason": "Launched", "message": "launched 2",
        "involvedObject": {"kind": "Job", "namespace": cluster.namespace, "name": name}, "type": "Normal",
    })  # fmt: skip
    (listed,) = kube.list("events", fields=f"involvedObject.name={name},reason=Launched")
    assert listed["message"] == "launched 2"
