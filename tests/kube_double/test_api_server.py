"""What every Kubernetes API server does. The small one and a real one pass the same tests: see ``cluster`` in conftest.py."""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Callable
from typing import Any

import pytest

from kube_double.server import ApiServer
from support.cluster import Cluster
from support.fleet import eventually
from support.kube import APPLY_PATCH, JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, ApiError, Body, Kube, condition

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


@pytest.fixture
def kube(cluster: Cluster) -> Kube:
    return cluster.kube


@pytest.fixture
def name() -> str:
    """A name of this test's own."""
    return f"t-{secrets.token_hex(4)}"


def job(name: str, *, metadata: Body | None = None, pod: Body | None = None, **spec: Any) -> Body:
    """A suspended Job, so that no controller does anything with it."""
    container = {"name": "main", "image": "python:test"}
    template = {"spec": {"restartPolicy": "Never", "containers": [container], **(pod or {})}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, **(metadata or {})},
            "spec": {"suspend": True, "template": template, **spec}}  # fmt: skip


def cron_job(name: str, **spec: Any) -> Body:
    template = {"spec": {"template": job(name)["spec"]["template"]}}
    return {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": name},
            "spec": {"schedule": "0 3 * * *", "suspend": True, "jobTemplate": template, **spec}}  # fmt: skip


def config_map(name: str, *, metadata: Body | None = None, **data: str) -> Body:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **(metadata or {})}, "data": data}


def owned_by(owner: Body, **more: Any) -> Body:
    reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
                 "uid": owner["metadata"]["uid"], **more}  # fmt: skip
    return {"ownerReferences": [reference]}


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
            ("/api/v1", {"pods", "pods/status", "pods/log", "secrets", "events", "namespaces", "nodes", "configmaps"}),
            ("/apis/batch/v1", {"jobs", "jobs/status", "cronjobs", "cronjobs/status"}),
            ("/apis/coordination.k8s.io/v1", {"leases"}),
            ("/apis/events.k8s.io/v1", {"events"}),
            ("/apis/apiextensions.k8s.io/v1", {"customresourcedefinitions", "customresourcedefinitions/status"}),
        ],
    )
    def test_lists_what_is_served(self, kube: Kube, path: str, resources: set[str]) -> None:
        found = kube.request("GET", path)
        assert found["kind"] == "APIResourceList"
        assert resources <= {each["name"] for each in found["resources"]}
        assert all({"list", "watch", "patch"} <= set(each["verbs"]) for each in found["resources"] if "/" not in each["name"]
                   and each["name"] in resources)  # fmt: skip

    def test_lists_groups_and_versions(self, kube: Kube) -> None:
        assert kube.request("GET", "/api")["versions"] == ["v1"]
        groups = {each["name"]: each["preferredVersion"]["groupVersion"] for each in kube.request("GET", "/apis")["groups"]}
        assert groups["batch"] == "batch/v1"
        assert groups["apiextensions.k8s.io"] == "apiextensions.k8s.io/v1"

    def test_tells_everything_in_one_document_when_asked(self, kube: Kube) -> None:
        accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
        found = kube.request("GET", "/apis", accept=accept)
        assert found["kind"] == "APIGroupDiscoveryList"
        batch = next(each for each in found["items"] if each["metadata"]["name"] == "batch")
        jobs = next(each for each in batch["versions"][0]["resources"] if each["resource"] == "jobs")
        assert (jobs["scope"], jobs["responseKind"]["kind"]) == ("Namespaced", "Job")
        assert [each["subresource"] for each in jobs["subresources"]] == ["status"]

    def test_tells_its_version_with_and_without_a_slash(self, kube: Kube) -> None:
        assert kube.request("GET", "/version")["major"] == "1"
        assert kube.request("GET", "/version/")["major"] == "1"

    @pytest.mark.parametrize("path", ["/apis/nope.example.com/v1", "/apis/batch/v1/nopes", "/apis/batch/v9/jobs", "/nope"])
    def test_says_404_where_nothing_is(self, kube: Kube, path: str) -> None:
        assert refusal(lambda: kube.request("GET", path)).status == 404

    @pytest.mark.parametrize("path", ["/healthz", "/readyz", "/livez"])
    def test_says_that_it_is_well(self, kube: Kube, path: str) -> None:
        assert kube.request("GET", path) == "ok"


class TestCreate:
    def test_gives_identity_time_and_version(self, kube: Kube, name: str, cluster: Cluster) -> None:
        made = kube.create(cron_job(name))
        metadata = made["metadata"]
        assert metadata["namespace"] == cluster.namespace
        assert metadata["generation"] == 1
        assert len(metadata["uid"]) == 36
        assert metadata["creationTimestamp"].endswith("Z")
        assert metadata["resourceVersion"].isdigit()
        assert kube.get("cronjobs", name) == made

    def test_makes_a_name_from_generate_name(self, kube: Kube) -> None:
        manifest = job("")
        manifest["metadata"] = {"generateName": "some-"}
        one, other = kube.create(manifest), kube.create(manifest)
        names = {one["metadata"]["name"], other["metadata"]["name"]}
        assert len(names) == 2
        assert all(each.startswith("some-") and len(each) == 10 for each in names)

    def test_what_a_creator_says_of_server_fields_is_not_kept(self, kube: Kube, name: str) -> None:
        said = {"uid": "mine", "generation": 7, "creationTimestamp": "2001-01-01T00:00:00Z"}
        made = kube.create({**job(name, metadata=said), "status": {"active": 3}})
        assert made["metadata"]["uid"] != "mine"
        assert made["metadata"]["generation"] == 1
        assert "active" not in made.get("status", {})

    def test_refuses_a_name_that_is_taken(self, kube: Kube, name: str) -> None:
        kube.create(job(name))
        refused = refusal(lambda: kube.create(job(name)))
        assert (refused.status, refused.reason) == (409, "AlreadyExists")
        assert refused.message == f'jobs.batch "{name}" already exists'
        assert refused.body["details"] == {"name": name, "group": "batch", "kind": "jobs"}

    def test_refuses_a_namespace_that_is_not_there(self, kube: Kube, name: str) -> None:
        refused = refusal(lambda: kube.create(job(name), "no-such-namespace"))
        assert (refused.status, refused.reason) == (404, "NotFound")
        assert refused.message == 'namespaces "no-such-namespace" not found'

    def test_refuses_another_namespace_than_the_urls(self, kube: Kube, name: str) -> None:
        manifest = job(name, metadata={"namespace": "default"})
        refused = refusal(lambda: kube.request("POST", kube.path("jobs"), manifest))
        assert (refused.status, refused.reason) == (400, "BadRequest")
        assert refused.message == "the namespace of the provided object does not match the namespace sent on the request"

    @pytest.mark.parametrize(
        ("metadata", "field", "told"),
        [
            ({"name": "UPPER"}, "metadata.name", "a lowercase RFC 1123 subdomain must consist of"),
            ({"name": "a" * 64}, "spec.template.labels", "must be no more than 63 bytes"),
            ({"name": "x", "labels": {"a": "x" * 64}}, "metadata.labels", "must be no more than 63 bytes"),
            ({"name": "x", "labels": {"a": "x y"}}, "metadata.labels", "a valid label must be an empty string or consist of"),
            ({"name": "x", "labels": {"a b": "x"}}, "metadata.labels", "name part must consist of alphanumeric characters"),
            ({"name": "x", "annotations": {"a": "x" * 262_144}}, "metadata.annotations", "262144 bytes"),
            ({"name": "x", "finalizers": ["nope"]}, "metadata.finalizers[0]", "nor is it fully qualified"),
            ({"name": ""}, "metadata.name", "name or generateName is required"),
        ],
    )
    def test_refuses_bad_metadata_and_names_the_field(self, kube: Kube, metadata: Body, field: str, told: str) -> None:
        manifest = job("x")
        manifest["metadata"] = metadata
        refused = refusal(lambda: kube.create(manifest))
        assert (refused.status, refused.reason) == (422, "Invalid")
        assert field in {cause["field"] for cause in refused.causes}
        assert told in refused.message

    @pytest.mark.parametrize(
        ("spec", "field", "reason"),
        [
            ({"backoffLimit": -1}, "spec.backoffLimit", "FieldValueInvalid"),
            ({"activeDeadlineSeconds": -1}, "spec.activeDeadlineSeconds", "FieldValueInvalid"),
            ({"pod": {"restartPolicy": "Always"}}, "spec.template.spec.restartPolicy", "FieldValueRequired"),
            ({"pod": {"containers": []}}, "spec.template.spec.containers", "FieldValueRequired"),
            ({"pod": {"containers": [{"name": "c"}]}}, "spec.template.spec.containers[0].image", "FieldValueRequired"),
            ({"pod": {"containers": [{"name": "c", "image": "x"}] * 2}}, "spec.template.spec.containers[1].name",
             "FieldValueDuplicate"),
            ({"pod": {"containers": [{"name": "c", "image": "x", "env": [{"name": "A=B"}]}]}},
             "spec.template.spec.containers[0].env[0].name", "FieldValueInvalid"),
            ({"pod": {"containers": [{"name": "c", "image": "x", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {
                "name": "s"}}}]}]}}, "spec.template.spec.containers[0].env[0].valueFrom.secretKeyRef.key", "FieldValueRequired"),
            ({"pod": {"containers": [{"name": "c", "image": "x", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}},
             "spec.template.spec.containers[0].volumeMounts[0].name", "FieldValueNotFound"),
            ({"podFailurePolicy": {"rules": [{"action": "Nope", "onExitCodes": {"operator": "In", "values": [3]}}]}},
             "spec.podFailurePolicy.rules[0].action", "FieldValueNotSupported"),
            ({"podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [0]}}]}},
             "spec.podFailurePolicy.rules[0].onExitCodes.values[0]", "FieldValueInvalid"),
        ],
    )  # fmt: skip
    def test_refuses_a_bad_job_and_names_the_field(self, kube: Kube, name: str, spec: Body, field: str, reason: str) -> None:
        refused = refusal(lambda: kube.create(job(name, **spec)))
        assert refused.status == 422
        assert (field, reason) in {(cause["field"], cause["reason"]) for cause in refused.causes}

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"backoffLimit": "six"}, "string into Go struct field JobSpec.spec.backoffLimit of type int32"),
            ({"suspend": "yes"}, "string into Go struct field JobSpec.spec.suspend of type bool"),
            ({"pod": {"containers": [{"name": "c", "image": "x", "env": [{"name": "A", "value": 1}]}]}},
             "number into Go struct field EnvVar.spec.template.spec.containers.env.value of type string"),
        ],
    )  # fmt: skip
    def test_refuses_values_of_a_wrong_type(self, kube: Kube, name: str, change: Body, told: str) -> None:
        refused = refusal(lambda: kube.create(job(name, **change)))
        assert (refused.status, refused.reason) == (400, "BadRequest")
        assert refused.message == f'Job in version "v1" cannot be handled as a Job: json: cannot unmarshal {told}'

    def test_drops_unknown_fields_unless_told_to_be_strict(self, kube: Kube, name: str) -> None:
        refused = refusal(lambda: kube.create(job(name, activeDeadline=5), fieldValidation="Strict"))
        assert refused.status == 400
        assert 'strict decoding error: unknown field "spec.activeDeadline"' in refused.message
        assert "activeDeadline" not in kube.create(job(name, activeDeadline=5))["spec"]

    def test_refuses_another_kind(self, kube: Kube, name: str) -> None:
        refused = refusal(lambda: kube.request("POST", kube.path("jobs"), {**job(name), "apiVersion": "batch/v7"}))
        assert refused.status == 400

    def test_a_dry_run_answers_as_if_and_keeps_nothing(self, kube: Kube, name: str) -> None:
        assert kube.create(job(name), dryRun="All")["spec"]["backoffLimit"] == 6
        assert kube.get("jobs", name) is None

    @pytest.mark.parametrize("body", [b"{nope", b"", b"[]"])
    def test_refuses_what_is_no_object(self, kube: Kube, body: bytes) -> None:
        assert refusal(lambda: kube.request("POST", kube.path("jobs"), body)).status == 400


class TestJobDefaults:
    def test_are_what_controllers_rely_on(self, kube: Kube, name: str) -> None:
        manifest = job(name)
        del manifest["spec"]["suspend"]
        made = kube.create(manifest, dryRun="All")
        spec, uid = made["spec"], made["metadata"]["uid"]
        expected = {"backoffLimit": 6, "parallelism": 1, "completions": 1, "suspend": False, "completionMode": "NonIndexed",
                    "manualSelector": False, "podReplacementPolicy": "TerminatingOrFailed"}  # fmt: skip
        assert {key: spec[key] for key in expected} == expected
        assert spec["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
        marks = {"batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": name, "controller-uid": uid,
                 "job-name": name}  # fmt: skip
        assert spec["template"]["metadata"]["labels"] == marks
        assert made["metadata"]["labels"] == marks
        pod = spec["template"]["spec"]
        assert (pod["terminationGracePeriodSeconds"], pod["dnsPolicy"]) == (30, "ClusterFirst")
        assert pod["containers"][0]["terminationMessagePath"] == "/dev/termination-log"

    def test_a_jobs_own_labels_stay_as_they_are(self, kube: Kube, name: str) -> None:
        made = kube.create(job(name, metadata={"labels": {"app": "siorg"}}))
        assert made["metadata"]["labels"] == {"app": "siorg"}

    @pytest.mark.parametrize(("image", "policy"), [("a", "Always"), ("a:latest", "Always"), ("a:1", "IfNotPresent"),
                                                   ("reg:5000/a", "Always"), ("reg:5000/a:1", "IfNotPresent")])  # fmt: skip
    def test_the_pull_policy_follows_the_tag(self, kube: Kube, name: str, image: str, policy: str) -> None:
        made = kube.create(job(name, pod={"containers": [{"name": "c", "image": image}]}), dryRun="All")
        assert made["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"] == policy


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

    def test_put_with_an_old_version_conflicts(self, kube: Kube, name: str) -> None:
        made = kube.create(config_map(name, a="1"))
        kube.patch("configmaps", name, {"data": {"a": "2"}})
        refused = refusal(lambda: kube.replace(made))
        assert (refused.status, refused.reason) == (409, "Conflict")
        assert refused.message == (
            f'Operation cannot be fulfilled on configmaps "{name}": the object has been modified; please apply your changes to'
            " the latest version and try again"
        )

    def test_put_without_a_version_overwrites_where_that_is_allowed(self, kube: Kube, name: str) -> None:
        kube.create(config_map(name, a="1"))
        assert kube.replace(config_map(name, a="2"))["data"] == {"a": "2"}

    def test_put_without_a_version_is_refused_for_a_lease(self, kube: Kube, name: str) -> None:
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name},
                 "spec": {"holderIdentity": "a"}}  # fmt: skip
        kube.create(lease)
        refused = refusal(lambda: kube.replace(lease))
        assert refused.status == 422
        assert "metadata.resourceVersion: Invalid value: 0: must be specified for an update" in refused.message

    def test_put_of_another_name_is_refused(self, kube: Kube, name: str) -> None:
        kube.create(config_map(name))
        refused = refusal(lambda: kube.request("PUT", kube.path("configmaps", name=name), config_map("other")))
        assert refused.status == 400
        assert refused.message == f"the name of the object (other) does not match the name on the URL ({name})"

    def test_put_of_another_uid_conflicts(self, kube: Kube, name: str) -> None:
        kube.create(config_map(name))
        manifest = config_map(name, metadata={"uid": "11111111-1111-1111-1111-111111111111"})
        assert refusal(lambda: kube.replace(manifest)).status == 409

    def test_nothing_changed_is_no_new_version_and_no_event(self, kube: Kube, name: str) -> None:
        made = kube.create(config_map(name, a="1"))
        assert version(kube.replace(made)) == version(made)
        assert version(kube.patch("configmaps", name, {"data": {"a": "1"}})) == version(made)
        kube.patch("configmaps", name, {"data": {"a": "2"}})
        events = _events(kube, name, version(made), until=lambda event: event["object"]["data"]["a"] == "2")
        assert [event["type"] for event in events] == ["MODIFIED"]

    @pytest.mark.parametrize(
        "change",
        [
            {"completions": 3},
            {"completionMode": "Indexed"},
            {"selector": {"matchLabels": {"a": "b"}}},
            {"podFailurePolicy": {"rules": [{"action": "Ignore", "onExitCodes": {"operator": "In", "values": [3]}}]}},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_a_job_keeps_what_it_was_made_with(self, kube: Kube, name: str, change: Body) -> None:
        kube.create(job(name))
        refused = refusal(lambda: kube.patch("jobs", name, {"spec": change}))
        assert refused.status == 422
        assert any(cause["field"] == f"spec.{next(iter(change))}" for cause in refused.causes)

    def test_a_started_job_keeps_its_template(self, kube: Kube, name: str) -> None:
        kube.create(job(name, suspend=False, pod={"nodeSelector": {"no": "such-node"}}))
        change = {"spec": {"template": {"spec": {"nodeSelector": {"another": "node"}}}}}
        refused = refusal(lambda: kube.patch("jobs", name, change))
        assert refused.status == 422
        assert "spec.template: Invalid value" in refused.message
        assert "field is immutable" in refused.message

    @pytest.mark.parametrize(
        "change",
        [
            {"activeDeadlineSeconds": 50},
            {"parallelism": 3},
            {"backoffLimit": 1},
            {"ttlSecondsAfterFinished": 9},
            {"suspend": False},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_a_job_lets_the_rest_change(self, kube: Kube, name: str, change: Body) -> None:
        kube.create(job(name, pod={"nodeSelector": {"no": "such-node"}}))
        changed = kube.patch("jobs", name, {"spec": change})
        assert changed["metadata"]["generation"] == 2
        assert {key: changed["spec"][key] for key in change} == change

    def test_a_deadline_can_be_taken_back(self, kube: Kube, name: str) -> None:
        kube.create(job(name, activeDeadlineSeconds=50))
        assert "activeDeadlineSeconds" not in kube.patch("jobs", name, {"spec": {"activeDeadlineSeconds": None}})["spec"]


class TestStatus:
    def test_is_written_by_its_own_endpoint_only(self, kube: Kube, name: str) -> None:
        kube.create(job(name))
        kube.patch("jobs", name, {"status": {"succeeded": 9}})
        found = kube.get("jobs", name)
        assert found is not None
        assert "succeeded" not in found.get("status", {})

    def test_endpoint_leaves_the_spec_alone(self, kube: Kube, name: str) -> None:
        kube.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
        try:
            change = {"spec": {"unschedulable": True}, "status": {"capacity": {"pods": "5"}}}
            changed = kube.patch("nodes", name, change, subresource="status")
            assert changed["status"]["capacity"] == {"pods": "5"}
            assert "unschedulable" not in changed["spec"]
        finally:
            kube.delete("nodes", name)

    def test_does_not_count_as_a_generation(self, kube: Kube, name: str) -> None:
        kube.create(job(name))
        changed = eventually(lambda: _patched_status(kube, name))
        assert changed["metadata"]["generation"] == 1


def _patched_status(kube: Kube, name: str) -> Body:
    return kube.patch("jobs", name, {"status": {"ready": 0, "terminating": 0}}, subresource="status")


class TestPatch:
    def test_merge_sets_and_removes(self, kube: Kube, name: str) -> None:
        kube.create(config_map(name, a="1", b="2"))
        assert kube.patch("configmaps", name, {"data": {"a": None, "c": "3"}})["data"] == {"b": "2", "c": "3"}

    def test_json_changes_by_path(self, kube: Kube, name: str) -> None:
        kube.create(config_map(name, a="1"))
        patch = [
            {"op": "test", "path": "/data/a", "value": "1"},
            {"op": "add", "path": "/data/b", "value": "2"},
            {"op": "remove", "path": "/data/a"},
            {"op": "add", "path": "/metadata/labels", "value": {"x.y/z": "1", "k": "v"}},
            {"op": "remove", "path": "/metadata/labels/x.y~1z"},
        ]
        changed = kube.patch("configmaps", name, patch, content_type=JSON_PATCH)
        assert changed["data"] == {"b": "2"}
        assert changed["metadata"]["labels"] == {"k": "v"}

    @pytest.mark.parametrize(
        "operation",
        [{"op": "test", "path": "/metadata/resourceVersion", "value": "1"}, {"op": "remove", "path": "/data/nope"},
         {"op": "replace", "path": "/nope/nope", "value": 1}, {"op": "zap", "path": "/data"}],
        ids=lambda operation: operation["op"],
    )  # fmt: skip
    def test_json_that_does_not_fit_is_422(self, kube: Kube, name: str, operation: Body) -> None:
        kube.create(config_map(name, a="1"))
        refused = refusal(lambda: kube.patch("configmaps", name, [operation], content_type=JSON_PATCH))
        assert (refused.status, refused.reason) == (422, "Invalid")
        assert refused.message == "the server rejected our request due to an error in our request"

    def test_with_an_old_version_conflicts(self, kube: Kube, name: str) -> None:
        kube.create(config_map(name, a="1"))
        patch = {"metadata": {"resourceVersion": "1"}, "data": {"a": "2"}}
        assert refusal(lambda: kube.patch("configmaps", name, patch)).status == 409

    @pytest.mark.parametrize("content_type", [MERGE_PATCH, JSON_PATCH, STRATEGIC_PATCH])
    def test_of_what_is_not_there_is_404(self, kube: Kube, name: str, content_type: str) -> None:
        patch: Any = [] if content_type == JSON_PATCH else {}
        assert refusal(lambda: kube.patch("jobs", name, patch, content_type=content_type)).status == 404

    def test_of_an_unknown_format_is_415(self, kube: Kube, name: str) -> None:
        kube.create(config_map(name))
        assert refusal(lambda: kube.patch("configmaps", name, {}, content_type="application/json")).status == 415

    def test_strategic_merges_lists_by_their_key(self, kube: Kube, name: str) -> None:
        containers = [{"name": "a", "image": "x", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
                      {"name": "b", "image": "y"}]  # fmt: skip
        manifest = cron_job(name)
        manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"] = containers
        kube.create(manifest)
        change = {"containers": [{"name": "a", "env": [{"name": "B", "value": "3"}, {"name": "A", "$patch": "delete"}]}]}
        patch = {"spec": {"jobTemplate": {"spec": {"template": {"spec": change}}}}}
        changed = kube.patch("cronjobs", name, patch, content_type=STRATEGIC_PATCH)
        found = changed["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        assert [(each["name"], each["image"]) for each in found] == [("a", "x"), ("b", "y")]
        assert found[0]["env"] == [{"name": "B", "value": "3"}]

    def test_strategic_merges_owners_and_conditions(self, kube: Kube, name: str) -> None:
        kube.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
        try:
            for kind in ("One", "Two", "One"):
                patch = {"status": {"conditions": [{"type": kind, "status": "True"}]}}
                changed = kube.patch("nodes", name, patch, subresource="status", content_type=STRATEGIC_PATCH)
            assert sorted(each["type"] for each in changed["status"]["conditions"]) == ["One", "Two"]
        finally:
            kube.delete("nodes", name)

    def test_merge_replaces_lists_whole(self, kube: Kube, name: str) -> None:
        kube.create(cron_job(name))
        pod = {"containers": [{"name": "other", "image": "z"}]}
        changed = kube.patch("cronjobs", name, {"spec": {"jobTemplate": {"spec": {"template": {"spec": pod}}}}})
        found = changed["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        assert [each["name"] for each in found] == ["other"]


class TestApply:
    """Server-side apply."""

    def test_creates_what_is_not_there(self, kube: Kube, name: str) -> None:
        made = kube.apply(cron_job(name), manager="operator")
        assert made["spec"]["concurrencyPolicy"] == "Allow"
        (entry,) = made["metadata"]["managedFields"]
        assert (entry["manager"], entry["operation"], entry["apiVersion"]) == ("operator", "Apply", "batch/v1")
        assert entry["fieldsV1"]["f:spec"]["f:schedule"] == {}

    def test_of_the_same_changes_nothing(self, kube: Kube, name: str) -> None:
        made = kube.apply(cron_job(name), manager="operator")
        assert version(kube.apply(cron_job(name), manager="operator")) == version(made)

    def test_removes_what_the_manager_no_longer_wants(self, kube: Kube, name: str) -> None:
        kube.apply(cron_job(name, startingDeadlineSeconds=60, timeZone="UTC"), manager="operator")
        changed = kube.apply(cron_job(name, timeZone="UTC"), manager="operator")
        assert "startingDeadlineSeconds" not in changed["spec"]
        assert changed["spec"]["timeZone"] == "UTC"

    def test_merges_environments_by_name(self, kube: Kube, name: str) -> None:
        def with_env(*names: str) -> Body:
            manifest = cron_job(name)
            container = manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
            container["env"] = [{"name": each, "value": "1"} for each in names]
            return manifest

        kube.apply(with_env("A", "B"), manager="operator")
        changed = kube.apply(with_env("B", "C"), manager="operator")
        container = changed["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
        assert [each["name"] for each in container["env"]] == ["B", "C"]
        assert "env" not in kube.apply(cron_job(name), manager="operator")["spec"]["jobTemplate"]["spec"]["template"]["spec"][
            "containers"][0]  # fmt: skip

    def test_conflicts_with_another_manager_unless_forced(self, kube: Kube, name: str) -> None:
        kube.apply(cron_job(name), manager="operator")
        human = cron_job(name, schedule="0 4 * * *")
        refused = refusal(lambda: kube.apply(human, manager="human"))
        assert (refused.status, refused.reason) == (409, "Conflict")
        assert refused.message == 'Apply failed with 1 conflict: conflict with "operator": .spec.schedule'
        assert refused.causes == [
            {"reason": "FieldManagerConflict", "message": 'conflict with "operator"', "field": ".spec.schedule"}
        ]
        assert kube.apply(human, manager="human", force=True)["spec"]["schedule"] == "0 4 * * *"
        again = refusal(lambda: kube.apply(cron_job(name), manager="operator"))
        assert 'conflict with "human": .spec.schedule' in again.message

    def test_conflicts_with_who_wrote_otherwise(self, kube: Kube, name: str) -> None:
        kube.apply(cron_job(name), manager="operator")
        kube.patch("cronjobs", name, {"spec": {"schedule": "0 5 * * *"}}, fieldManager="editor")
        refused = refusal(lambda: kube.apply(cron_job(name), manager="operator"))
        assert 'conflict with "editor" using batch/v1: .spec.schedule' in refused.message

    def test_keeps_what_others_own(self, kube: Kube, name: str) -> None:
        kube.apply(config_map(name, a="1"), manager="one")
        kube.apply(config_map(name, b="2"), manager="two")
        assert kube.apply(config_map(name), manager="one")["data"] == {"b": "2"}

    def test_two_managers_may_want_the_same(self, kube: Kube, name: str) -> None:
        kube.apply(config_map(name, a="1"), manager="one")
        kube.apply(config_map(name, a="1"), manager="two")
        assert kube.apply(config_map(name), manager="one")["data"] == {"a": "1"}

    def test_needs_a_manager(self, kube: Kube, name: str) -> None:
        refused = refusal(lambda: kube.patch("configmaps", name, config_map(name), content_type=APPLY_PATCH))
        assert refused.status == 422
        assert "fieldManager: Required value: is required for apply patch" in refused.message

    def test_takes_yaml(self, kube: Kube, name: str) -> None:
        text = f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{a: 'yes'}}\n"
        made = kube.patch("configmaps", name, text.encode(), content_type=APPLY_PATCH, fieldManager="one")
        assert made["data"] == {"a": "yes"}


@pytest.fixture(scope="module")
def labels(cluster: Cluster) -> str:
    """A selector of four Jobs: a and b have the color red, c blue, d none."""
    mark = f"m{secrets.token_hex(3)}"
    for each, color in (("a", "red"), ("b", "red"), ("c", "blue"), ("d", "")):
        marks = {"mark": mark} | ({"color": color} if color else {})
        cluster.kube.create(job(f"{mark}-{each}", metadata={"labels": marks}))
    return f"mark={mark}"


class TestList:
    @pytest.mark.parametrize(
        ("selector", "expected"),
        [
            ("color=red", "ab"), ("color==red", "ab"), ("color!=red", "cd"), ("color in (red, blue)", "abc"),
            ("color notin (red)", "cd"), ("color", "abc"), ("!color", "d"), ("color=red,!color", ""), ("color=green", ""),
        ],
    )  # fmt: skip
    def test_selects_by_label(self, kube: Kube, labels: str, selector: str, expected: str) -> None:
        found = kube.list("jobs", labels=f"{labels},{selector}")
        assert "".join(each["metadata"]["name"][-1] for each in found) == expected

    @pytest.mark.parametrize("selector", ["color in", "a b", "==", "color=red,", "color=-"])
    def test_refuses_a_selector_that_it_cannot_read(self, kube: Kube, selector: str) -> None:
        assert refusal(lambda: kube.list("jobs", labels=selector)).status == 400

    def test_selects_by_field(self, kube: Kube, labels: str) -> None:
        mark = labels.partition("=")[2]
        assert [each["metadata"]["name"] for each in kube.list("jobs", fields=f"metadata.name={mark}-b")] == [f"{mark}-b"]
        assert len(kube.list("jobs", labels=labels, fields=f"metadata.name!={mark}-b")) == 3

    def test_refuses_a_field_that_is_none_to_select_by(self, kube: Kube) -> None:
        refused = refusal(lambda: kube.list("jobs", fields="spec.nope=1"))
        assert (refused.status, refused.message) == (400, 'field label "spec.nope" not supported for Job')

    def test_goes_page_by_page(self, kube: Kube, labels: str) -> None:
        pages: list[str] = []
        token: str | None = ""
        while token is not None:
            page = kube.request("GET", kube.path("jobs"), labelSelector=labels, limit=2, **{"continue": token})
            pages.append("".join(each["metadata"]["name"][-1] for each in page["items"]))
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
        assert [each["metadata"]["name"] for each in rest["items"]] == [f"{name}-b"]
        assert version(rest) == version(first)

    def test_items_of_built_in_kinds_have_no_type(self, kube: Kube, labels: str) -> None:
        found = kube.request("GET", kube.path("jobs"), labelSelector=labels)
        assert (found["kind"], found["apiVersion"]) == ("JobList", "batch/v1")
        assert "kind" not in found["items"][0]

    def test_of_all_namespaces_has_this_one(self, kube: Kube, labels: str, cluster: Cluster) -> None:
        assert {each["metadata"]["namespace"] for each in kube.list("jobs", "*", labels=labels)} == {cluster.namespace}

    def test_of_a_namespace_that_is_not_there_is_empty(self, kube: Kube) -> None:
        assert kube.list("jobs", "no-such-namespace") == []

    def test_refuses_versions_that_are_none(self, kube: Kube) -> None:
        assert refusal(lambda: kube.request("GET", kube.path("jobs"), resourceVersion="abc")).status == 400
        assert refusal(lambda: kube.request("GET", kube.path("jobs"), resourceVersionMatch="Exact")).status == 422

    def test_refuses_a_version_of_long_ago(self, kube: Kube) -> None:
        refused = refusal(lambda: kube.request("GET", kube.path("jobs"), resourceVersion="1", resourceVersionMatch="Exact"))
        assert (refused.status, refused.reason) == (410, "Expired")

    def test_as_a_table_has_columns(self, kube: Kube, labels: str) -> None:
        found = kube.request("GET", kube.path("jobs"), labelSelector=labels, accept=TABLE)
        assert found["kind"] == "Table"
        names = [each["name"] for each in found["columnDefinitions"]]
        assert names[:5] == ["Name", "Status", "Completions", "Duration", "Age"]
        assert [row["cells"][0][-1] for row in found["rows"]] == ["a", "b", "c", "d"]
        assert found["rows"][0]["object"]["kind"] == "PartialObjectMetadata"

    def test_of_metadata_only(self, kube: Kube, labels: str) -> None:
        accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json"
        found = kube.request("GET", kube.path("jobs"), labelSelector=labels, accept=accept)
        assert found["kind"] == "PartialObjectMetadataList"
        assert all("spec" not in each for each in found["items"])
        none = kube.request("GET", kube.path("jobs"), labelSelector="no=such", accept=accept)
        assert none["items"] is None  # unlike any other empty list


def _events(kube: Kube, name: str, since: str, until: Callable[[Body], bool], *, labels: str = "") -> list[Body]:
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
        events = _events(kube, name, since, until=lambda event: event["type"] == "DELETED")
        assert [(event["type"], event["object"]["data"]["a"]) for event in events] == [
            ("ADDED", "1"), ("MODIFIED", "2"), ("MODIFIED", "3"), ("DELETED", "3"),
        ]  # fmt: skip
        versions = [int(version(event["object"])) for event in events]
        assert versions == sorted(set(versions))
        assert all(event["object"]["kind"] == "ConfigMap" for event in events)

    def test_tells_what_is_there_when_no_version_is_given(self, kube: Kube, name: str) -> None:
        kube.create(config_map(name, a="1"))
        events = _events(kube, name, "", until=lambda event: True)
        assert [event["type"] for event in events] == ["ADDED"]

    def test_what_begins_to_match_is_added_and_what_no_longer_does_is_deleted(self, kube: Kube, name: str) -> None:
        made = kube.create(config_map(name))
        kube.patch("configmaps", name, {"metadata": {"labels": {"color": "red"}}})
        kube.patch("configmaps", name, {"data": {"a": "1"}})
        last = kube.patch("configmaps", name, {"metadata": {"labels": {"color": "blue"}}})
        events = _events(kube, name, version(made), labels="color=red", until=lambda event: event["type"] == "DELETED")
        assert [event["type"] for event in events] == ["ADDED", "MODIFIED", "DELETED"]
        assert version(events[-1]["object"]) == version(last)

    def test_of_one_object_by_its_name(self, kube: Kube, name: str) -> None:
        made = kube.create(config_map(name))
        kube.create(config_map(f"{name}-other"))
        kube.patch("configmaps", name, {"data": {"a": "1"}})
        events = list(kube.watch("configmaps", version=version(made), fields=f"metadata.name={name}", seconds=1))
        assert [event["object"]["metadata"]["name"] for event in events] == [name]

    def test_ends_when_its_time_is_over(self, kube: Kube) -> None:
        now = str(kube.request("GET", kube.path("secrets"))["metadata"]["resourceVersion"])
        begun = time.monotonic()
        assert list(kube.watch("secrets", version=now, fields="metadata.name=no-such-secret", seconds=1)) == []
        assert 0.5 < time.monotonic() - begun < 5

    def test_says_where_it_is_to_who_wants_bookmarks(self, kube: Kube, name: str, cluster: Cluster) -> None:
        if cluster.server is None:
            pytest.skip("a real server says so once a minute")
        made = kube.create(config_map(name))
        events = list(kube.watch("configmaps", version=version(made), seconds=1, allowWatchBookmarks="true"))
        bookmarks = [event for event in events if event["type"] == "BOOKMARK"]
        assert bookmarks
        assert int(version(bookmarks[-1]["object"])) >= int(version(made))
        assert bookmarks[-1]["object"]["kind"] == "ConfigMap"

    def test_can_begin_with_a_consistent_list(self, kube: Kube, name: str) -> None:
        kube.create(config_map(name))
        events = kube.watch("configmaps", seconds=5, sendInitialEvents="true", allowWatchBookmarks="true",
                            resourceVersionMatch="NotOlderThan")  # fmt: skip
        seen = []
        for event in events:
            if event["type"] == "BOOKMARK":
                assert event["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
                break
            seen.append(event["object"]["metadata"]["name"])
        assert name in seen

    def test_from_a_version_that_is_forgotten_says_gone(self, kube: Kube, cluster: Cluster, name: str) -> None:
        kube.create(config_map(name))
        if isinstance(cluster.server, ApiServer):
            cluster.server.compact()
        event = next(iter(kube.watch("configmaps", version="1", seconds=5)))
        assert event["type"] == "ERROR"
        assert event["object"]["kind"] == "Status"
        assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")
        assert event["object"]["message"].startswith("too old resource version: 1 (")

    def test_sees_a_change_at_once(self, kube: Kube, name: str) -> None:
        made = kube.create(config_map(name))
        events = kube.watch("configmaps", version=version(made), seconds=10)
        kube.patch("configmaps", name, {"data": {"a": "1"}})
        begun = time.monotonic()
        assert next(events)["type"] == "MODIFIED"
        assert time.monotonic() - begun < 1
        events.close()  # type: ignore[attr-defined]  # it is a generator


class TestDelete:
    def test_answers_with_success_and_identity(self, kube: Kube, name: str) -> None:
        made = kube.create(config_map(name))
        gone = kube.delete("configmaps", name)
        assert gone is not None
        assert (gone["kind"], gone["status"]) == ("Status", "Success")
        assert gone["details"] == {"name": name, "kind": "configmaps", "uid": made["metadata"]["uid"]}
        assert refusal(lambda: kube.request("DELETE", kube.path("configmaps", name=name))).status == 404

    def test_waits_for_finalizers(self, kube: Kube, name: str) -> None:
        kube.create(job(name, metadata={"finalizers": ["tests.dev/one", "tests.dev/two"]}))
        going = kube.delete("jobs", name)
        assert going is not None
        assert going["metadata"]["deletionTimestamp"].endswith("Z")
        assert going["metadata"]["deletionGracePeriodSeconds"] == 0
        assert going["metadata"]["generation"] == 2
        left = kube.patch("jobs", name, {"metadata": {"finalizers": ["tests.dev/two"]}})
        assert left["metadata"]["finalizers"] == ["tests.dev/two"]
        kube.patch("jobs", name, {"metadata": {"finalizers": None}})
        assert kube.get("jobs", name) is None

    def test_again_changes_nothing(self, kube: Kube, name: str) -> None:
        kube.create(config_map(name, metadata={"finalizers": ["tests.dev/one"]}))
        one, other = kube.delete("configmaps", name), kube.delete("configmaps", name)
        assert one == other
        kube.patch("configmaps", name, {"metadata": {"finalizers": None}})

    def test_leaves_no_room_for_a_new_one_while_the_old_is_going(self, kube: Kube, name: str) -> None:
        kube.create(config_map(name, metadata={"finalizers": ["tests.dev/one"]}))
        kube.delete("configmaps", name)
        refused = refusal(lambda: kube.create(config_map(name)))
        assert (refused.status, refused.reason) == (409, "AlreadyExists")
        assert refused.message == f'object is being deleted: configmaps "{name}" already exists'
        kube.patch("configmaps", name, {"metadata": {"finalizers": None}})

    def test_lets_no_finalizer_be_added(self, kube: Kube, name: str) -> None:
        kube.create(config_map(name, metadata={"finalizers": ["tests.dev/one"]}))
        kube.delete("configmaps", name)
        change = {"metadata": {"finalizers": ["tests.dev/one", "tests.dev/two"]}}
        refused = refusal(lambda: kube.patch("configmaps", name, change))
        assert refused.status == 422
        assert "no new finalizers can be added if the object is being deleted" in refused.message
        kube.patch("configmaps", name, {"metadata": {"finalizers": None}})

    @pytest.mark.parametrize("precondition", [{"uid": "another"}, {"resourceVersion": "1"}])
    def test_with_a_precondition_that_does_not_hold_conflicts(self, kube: Kube, name: str, precondition: Body) -> None:
        kube.create(config_map(name))
        path = kube.path("configmaps", name=name)
        refused = refusal(lambda: kube.request("DELETE", path, {"preconditions": precondition}))
        assert (refused.status, refused.reason) == (409, "Conflict")
        assert "in the precondition" in refused.message

    def test_of_a_collection_takes_what_is_selected(self, kube: Kube, name: str) -> None:
        for each in ("a", "b", "c"):
            kube.create(config_map(f"{name}-{each}", metadata={"labels": {"mark": name, "keep": str(each == "c")}}))
        kube.request("DELETE", kube.path("configmaps"), labelSelector=f"mark={name},keep=False")
        assert [each["metadata"]["name"] for each in kube.list("configmaps", labels=f"mark={name}")] == [f"{name}-c"]

    def test_as_a_dry_run_keeps_everything(self, kube: Kube, name: str) -> None:
        kube.create(config_map(name))
        kube.request("DELETE", kube.path("configmaps", name=name), {"dryRun": ["All"]})
        assert kube.get("configmaps", name) is not None

    def test_refuses_an_unknown_policy(self, kube: Kube, name: str) -> None:
        kube.create(config_map(name))
        refused = refusal(lambda: kube.delete("configmaps", name, policy="Nope"))
        assert refused.status == 422
        assert 'propagationPolicy: Unsupported value: "Nope"' in refused.message


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
        time.sleep(1)  # A real collector has to have seen the dependent.
        kube.delete("jobs", name, policy="")
        kube.wait_gone("jobs", name)
        left = kube.wait_for("configmaps", f"{name}-leaf", lambda body: "ownerReferences" not in body["metadata"])
        assert left["metadata"]["name"] == f"{name}-leaf"

    def test_in_the_foreground_the_owner_goes_last(self, kube: Kube, name: str) -> None:
        owner = kube.create(config_map(name))
        held = owned_by(owner, blockOwnerDeletion=True) | {"finalizers": ["tests.dev/hold"]}
        kube.create(config_map(f"{name}-leaf", metadata=held))
        time.sleep(1)  # A real collector has to have seen the dependent.
        going = kube.delete("configmaps", name, policy="Foreground")
        assert going is not None
        assert going["metadata"]["finalizers"] == ["foregroundDeletion"]
        kube.wait_for("configmaps", f"{name}-leaf", lambda body: "deletionTimestamp" in body["metadata"])
        assert kube.get("configmaps", name) is not None
        kube.patch("configmaps", f"{name}-leaf", {"metadata": {"finalizers": None}})
        kube.wait_gone("configmaps", name)

    def test_goes_by_uid_not_by_name(self, kube: Kube, name: str) -> None:
        owner = kube.create(config_map(name))
        other = {**owner, "metadata": {**owner["metadata"], "uid": "11111111-2222-3333-4444-555555555555"}}
        kube.create(config_map(f"{name}-leaf", metadata=owned_by(other)))
        kube.wait_gone("configmaps", f"{name}-leaf")

    def test_keeps_what_still_has_an_owner(self, kube: Kube, name: str) -> None:
        one, two = kube.create(config_map(f"{name}-1")), kube.create(config_map(f"{name}-2"))
        owners = {"ownerReferences": owned_by(one)["ownerReferences"] + owned_by(two)["ownerReferences"]}
        kube.create(config_map(f"{name}-leaf", metadata=owners))
        kube.delete("configmaps", f"{name}-1")
        left = kube.wait_for("configmaps", f"{name}-leaf", lambda body: len(body["metadata"]["ownerReferences"]) == 1)
        assert left["metadata"]["ownerReferences"][0]["name"] == f"{name}-2"

    def test_an_owner_that_is_held_holds_its_dependents(self, kube: Kube, name: str) -> None:
        owner = kube.create(config_map(name, metadata={"finalizers": ["tests.dev/hold"]}))
        kube.create(config_map(f"{name}-leaf", metadata=owned_by(owner)))
        kube.delete("configmaps", name)
        time.sleep(0.5)  # Nothing may happen, and there is nothing to wait for.
        assert kube.get("configmaps", f"{name}-leaf") is not None
        kube.patch("configmaps", name, {"metadata": {"finalizers": None}})
        kube.wait_gone("configmaps", f"{name}-leaf")


class TestNamespace:
    def test_goes_with_all_that_is_in_it(self, kube: Kube, name: str) -> None:
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

    def test_gets_a_default_service_account_and_its_name_as_a_label(self, kube: Kube, name: str) -> None:
        made = kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        assert made["metadata"]["labels"] == {"kubernetes.io/metadata.name": name}
        assert made["status"] == {"phase": "Active"}
        eventually(lambda: kube.get("serviceaccounts", "default", name))
        kube.delete("namespaces", name)


class TestCronJob:
    def test_name_leaves_room_for_its_jobs(self, kube: Kube) -> None:
        kube.create(cron_job("c" * 52), dryRun="All")
        refused = refusal(lambda: kube.create(cron_job("c" * 53), dryRun="All"))
        assert "metadata.name: Invalid value" in refused.message
        assert "must be no more than 52 characters" in refused.message

    @pytest.mark.parametrize(
        "schedule", ["0 3 * * *", "*/5 * * * *", "0 9-17 * * MON-FRI", "@hourly", "@every 5m", "0 0 1,15 jan *"]
    )
    def test_takes_a_good_schedule(self, kube: Kube, name: str, schedule: str) -> None:
        assert kube.create(cron_job(name, schedule=schedule), dryRun="All")["spec"]["schedule"] == schedule

    @pytest.mark.parametrize(
        ("schedule", "told"),
        [
            ("nope", "expected exactly 5 fields, found 1: [nope]"),
            ("61 * * * *", "end of range (61) above maximum (59): 61"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("* * * * 7", "end of range (7) above maximum (6): 7"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("a * * * *", 'failed to parse int from a: strconv.Atoi: parsing "a": invalid syntax'),
            ("@nope", "unrecognized descriptor: @nope"),
            ("TZ=UTC * * * * *", "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"),
        ],
    )
    def test_refuses_a_bad_schedule(self, kube: Kube, name: str, schedule: str, told: str) -> None:
        refused = refusal(lambda: kube.create(cron_job(name, schedule=schedule), dryRun="All"))
        assert {"reason": "FieldValueInvalid", "field": "spec.schedule",
                "message": f"Invalid value: {json.dumps(schedule)}: {told}"} in refused.causes  # fmt: skip

    @pytest.mark.parametrize("zone", ["Nope/Nope", "Local", ""])
    def test_refuses_a_time_zone_that_is_none(self, kube: Kube, name: str, zone: str) -> None:
        refused = refusal(lambda: kube.create(cron_job(name, timeZone=zone), dryRun="All"))
        assert [cause["field"] for cause in refused.causes] == ["spec.timeZone"]


class TestSecrets:
    def test_plain_values_are_kept_as_data(self, kube: Kube, name: str) -> None:
        made = kube.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"a": "b"}})
        assert (made["type"], made["data"]) == ("Opaque", {"a": base64.b64encode(b"b").decode()})
        assert "stringData" not in made

    def test_data_has_to_be_base64(self, kube: Kube, name: str) -> None:
        manifest = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": {"a": "!"}}
        refused = refusal(lambda: kube.create(manifest))
        assert (refused.status, refused.reason) == (400, "BadRequest")
        assert "illegal base64 data" in refused.message

    def test_immutable_means_it(self, kube: Kube, name: str) -> None:
        kube.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "immutable": True})
        refused = refusal(lambda: kube.patch("secrets", name, {"stringData": {"a": "b"}}))
        assert refused.status == 422
        assert "field is immutable when `immutable` is set" in refused.message


class TestEvents:
    def test_have_two_shapes(self, kube: Kube, name: str, cluster: Cluster) -> None:
        about = {"kind": "Job", "namespace": cluster.namespace, "name": name}
        moment = "2026-01-01T00:00:00.000000Z"
        kube.create({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": name}, "involvedObject": about, "reason": "Launched",
            "message": "launched 2", "type": "Normal", "reportingComponent": "siorg-operator", "reportingInstance": "i",
            "action": "Launch", "eventTime": moment,
        })  # fmt: skip
        found = kube.request("GET", f"/apis/events.k8s.io/v1/namespaces/{cluster.namespace}/events/{name}")
        assert (found["note"], found["regarding"]["name"], found["apiVersion"]) == ("launched 2", name, "events.k8s.io/v1")
        (listed,) = kube.list("events", fields=f"involvedObject.name={name},reason=Launched")
        assert listed["message"] == "launched 2"

    def test_belong_where_their_object_is(self, kube: Kube, name: str) -> None:
        event = {"apiVersion": "v1", "kind": "Event", "metadata": {"name": name}, "reason": "R", "message": "m", "type": "Normal",
                 "involvedObject": {"kind": "Job", "name": name, "namespace": "elsewhere"}}  # fmt: skip
        refused = refusal(lambda: kube.create(event))
        assert 'involvedObject.namespace: Invalid value: "elsewhere": does not match event.namespace' in refused.message


class TestPods:
    def test_of_no_node_go_at_once(self, kube: Kube, name: str) -> None:
        pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}], "nodeSelector": {"no": "such-node"}}
        made = kube.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": pod})
        assert made["status"]["phase"] == "Pending"
        gone = kube.delete("pods", name)
        assert gone is not None
        assert gone["kind"] == "Pod"
        kube.wait_gone("pods", name)

    def test_of_a_node_go_when_their_grace_is_over_or_the_node_says_so(self, kube: Kube, name: str) -> None:
        pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}], "nodeName": "a-node-that-is-not-there"}
        kube.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": pod})
        going = kube.delete("pods", name, grace=20)
        assert going is not None
        assert going["metadata"]["deletionGracePeriodSeconds"] == 20
        shorter = kube.delete("pods", name, grace=5)
        assert shorter is not None
        assert shorter["metadata"]["deletionGracePeriodSeconds"] == 5
        kube.delete("pods", name, grace=0)
        kube.wait_gone("pods", name)

    def test_keep_their_spec(self, kube: Kube, name: str) -> None:
        pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}], "nodeSelector": {"no": "such-node"}}
        kube.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": pod})
        refused = refusal(lambda: kube.patch("pods", name, {"spec": {"restartPolicy": "Always"}}))
        assert "spec: Forbidden: pod updates may not change fields other than" in refused.message
        kube.delete("pods", name)


class TestAccess:
    def test_an_administrator_may(self, kube: Kube) -> None:
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {
            "resourceAttributes": {"verb": "create", "group": "batch", "resource": "jobs", "namespace": "default"}}}  # fmt: skip
        found = kube.request("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
        assert found["status"]["allowed"] is True


def test_conditions_are_read_by_type() -> None:
    assert condition({"status": {"conditions": [{"type": "A", "status": "True"}]}}, "A") == "True"
    assert condition({}, "A") == ""
