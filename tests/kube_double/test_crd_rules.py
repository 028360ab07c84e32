"""The API server refuses what the model refuses, names the same field, and fills in the same defaults.

Every constraint of the CRD has a bad manifest in ``support.worker_manifests``. Both API servers, the double and a real one,
are held to that table, and the model too (``tests/unit/operator/test_resource.py``): neither may be stricter than the other.
What else the operator relies on of custom resources is here as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from siorg_operator.api.resource import API_VERSION, PLURAL, Status, parse, read_file
from siorg_operator.decide import manifests
from support.cluster import Cluster
from support.fleet import eventually
from support.kube import ApiError, Body, Kube
from support.rows import holds_for
from support.worker_manifests import BAD, BAD_STATUS, GOOD, STATUS, Bad, Good, manifest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def kube(cluster: Cluster) -> Kube:
    cluster.kube.apply_crd(yaml.safe_load((ROOT / "crds" / "siorgsyncworkers.yaml").read_text()))
    return cluster.kube


@pytest.fixture
def worker(kube: Kube) -> Iterator[str]:
    """The name of a resource that is there."""
    kube.create(manifest())
    yield "worker"
    kube.delete(PLURAL, "worker")
    kube.wait_gone(PLURAL, "worker")


def refusal(kube: Kube, body: Body) -> ApiError:
    with pytest.raises(ApiError) as refused:
        kube.create(body, dryRun="All", fieldValidation="Strict")
    return refused.value


def test_the_example_is_taken(kube: Kube) -> None:
    example = yaml.safe_load((ROOT / "manifests" / "siorgsyncworker.yaml").read_text())
    made = kube.create(example, dryRun="All", fieldValidation="Strict")
    assert made["spec"]["scaling"].items() >= example["spec"]["scaling"].items()


def without_empty(value: Any) -> Any:
    """Absent, null and empty are the same in a spec, wherever they stand."""
    if isinstance(value, dict):
        return {key: kept for key, inner in value.items() if (kept := without_empty(inner)) not in (None, {}, [])}
    return [without_empty(inner) for inner in value] if isinstance(value, list) else value


def test_a_bad_manifest_is_refused_and_the_field_is_named(kube: Kube) -> None:
    def check(bad: Bad) -> None:
        refused = refusal(kube, bad.manifest)
        assert (refused.status, refused.reason) == (422, "Invalid")
        told = [cause["message"] for cause in refused.causes if cause["field"] == bad.field]
        assert told, refused
        assert any(bad.says in message for message in told), refused

    holds_for((bad for bad in BAD if bad.breaks != "unknown"), check)


def test_an_unknown_field_is_refused_from_a_person_and_dropped_from_a_program(kube: Kube) -> None:
    def check(bad: Bad) -> None:
        refused = refusal(kube, bad.manifest)
        assert (refused.status, refused.reason) == (400, "BadRequest")
        assert f'unknown field "{bad.field}"' in refused.message
        if bad.field.endswith("hostPath"):
            return  # dropped, it leaves a volume that is right
        stored = kube.create(bad.manifest, dryRun="All", fieldValidation="Ignore")
        assert parse(bad.manifest).spec == parse(stored).spec

    holds_for((bad for bad in BAD if bad.breaks == "unknown"), check)


def test_a_good_manifest_is_stored_with_the_defaults_that_the_model_has(kube: Kube) -> None:
    def check(good: Good) -> None:
        stored = kube.create(good.manifest, dryRun="All", fieldValidation="Strict")
        assert without_empty(stored["spec"]) == without_empty(read_file(json.dumps(good.manifest)).spec.body())
        assert parse(stored).spec == read_file(json.dumps(good.manifest)).spec

    holds_for(GOOD, check)


def test_the_smallest_manifest_is_filled_in(kube: Kube) -> None:
    stored = kube.create(manifest(), dryRun="All", fieldValidation="Strict")
    assert stored["spec"] == {
        "suspend": False,
        "whenSuspended": "Drain",
        "mode": "Active",
        "database": {"urlSecretRef": {"name": "database", "key": "DATABASE_URL"}},
        "siorg": {"url": "https://api.siorg.gov.br", "maxRequestsPerSecond": 50, "allowInsecure": False},
        "scaling": {"minJobs": 0, "maxJobs": 5, "itemsPerJob": 50, "maxLaunchesPerStep": 10, "pollIntervalSeconds": 30},
        "worker": {
            "maxRetries": 3,
            "retryBaseDelayMilliseconds": 1000,
            "retryMaxDelayMilliseconds": 60000,
            "lingerSeconds": 10,
            "logFormat": "json",
            "logLevel": "info",
        },
        "job": {
            "image": "",
            "imagePullPolicy": "IfNotPresent",
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
            "activeDeadlineSeconds": 21600,
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": 3600,
            "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 3,
            "podTemplate": {"spec": {"terminationGracePeriodSeconds": 30}},
        },
        "cleanup": {"enabled": True, "schedule": "17 3 * * *", "retentionDays": 30},
        "discovery": {
            "enabled": True,
            "schedule": "7 * * * *",
            "maxEnds": 10,
            "maxEndsPercent": 5,
            "maxEndsTotalPercent": 2,
        },
        "verification": {"enabled": True, "schedule": "47 4 * * 0", "enqueue": True},
    }


def test_resources_are_taken_as_given_and_not_mixed_with_the_default(kube: Kube) -> None:
    given = {"limits": {"memory": "64Mi"}}
    stored = kube.create(manifest({"spec.job.resources": given}), dryRun="All")
    assert stored["spec"]["job"]["resources"] == given


def test_what_the_resource_lets_through_makes_jobs_that_kubernetes_takes(kube: Kube) -> None:
    def check(good: Good) -> None:
        body = manifest({"spec.job.image": "siorg-job", **good.changes})
        body["metadata"] |= {"namespace": kube.namespace, "uid": "00000000-0000-0000-0000-000000000000"}
        if not body["spec"]["job"].get("image"):
            body["spec"]["job"]["image"] = "siorg-job"  # as the operator does where none is given
        resource = parse(body)
        for made in (
            manifests.drain_job(resource, slot=999, round=999_999),
            *(manifests.cron_job(resource, component) for component in manifests.CRON_COMPONENTS),
        ):
            kube.create(made, dryRun="All", fieldValidation="Strict")

    holds_for(GOOD, check)


# -- status and scale -------------------------------------------------------------------------------------------------


def test_a_status_is_stored_as_it_was_written_and_leaves_the_spec_alone(kube: Kube, worker: str) -> None:
    stored = kube.patch_status(PLURAL, worker, dict(STATUS))
    assert stored["status"] == STATUS
    assert stored["metadata"]["generation"] == 1
    assert parse(stored).status.body() == {
        **STATUS,
        "conditions": [{"message": "", "observedGeneration": 0, **condition} for condition in STATUS["conditions"]],
    }


def test_status_and_the_rest_are_written_apart(kube: Kube, worker: str) -> None:
    both = {"spec": {"suspend": True}, "status": {"selector": "a=b"}, "metadata": {"labels": {"a": "b"}}}
    by_status = kube.patch(PLURAL, worker, both, subresource="status")
    assert (by_status["status"], by_status["spec"]["suspend"]) == ({"selector": "a=b"}, False)
    assert "labels" not in by_status["metadata"]
    assert by_status["metadata"]["generation"] == 1
    again = kube.patch_status(PLURAL, worker, {"selector": "a=b"})
    assert again["metadata"]["resourceVersion"] == by_status["metadata"]["resourceVersion"]
    by_itself = kube.patch(PLURAL, worker, {**both, "status": {"selector": "c=d"}})
    assert (by_itself["status"], by_itself["spec"]["suspend"]) == ({"selector": "a=b"}, True)
    assert by_itself["metadata"]["generation"] == 2
    assert kube.patch(PLURAL, worker, {"metadata": {"labels": {"a": "c"}}})["metadata"]["generation"] == 2
    with pytest.raises(ApiError) as old:
        kube.replace({**by_status, "status": {"selector": "e=f"}}, subresource="status")
    assert old.value.status == 409
    with pytest.raises(ApiError) as blind:
        kube.replace(manifest())
    assert blind.value.status == 422
    assert "metadata.resourceVersion: Invalid value: 0: must be specified for an update" in blind.value.message


def test_a_definition_takes_its_objects_with_it(kube: Kube) -> None:
    definition = yaml.safe_load((ROOT / "crds" / "siorgsyncworkers.yaml").read_text())
    definition["metadata"] = {"name": "sprockets.tests.siorg.dev"}
    definition["spec"] |= {"group": "tests.siorg.dev", "names": {"plural": "sprockets", "kind": "Sprocket"}}
    kube.apply_crd(definition)
    kube.create({**manifest(), "apiVersion": "tests.siorg.dev/v1alpha1", "kind": "Sprocket"})
    kube.delete("customresourcedefinitions", "sprockets.tests.siorg.dev")
    kube.wait_gone("customresourcedefinitions", "sprockets.tests.siorg.dev")
    eventually(lambda: kube.get("sprockets", "worker") is None)


def test_a_bad_status_is_refused_and_the_field_is_named(kube: Kube, shared_worker: str) -> None:
    def check(bad: Bad) -> None:
        with pytest.raises(ApiError) as refused:
            kube.patch(PLURAL, shared_worker, {"status": bad.manifest["status"]}, subresource="status", dryRun="All")
        assert refused.value.status == 422
        assert bad.field in [cause["field"] for cause in refused.value.causes]
        if bad.breaks != "type":  # the model reads the operator's own words with less severity
            with pytest.raises(ValueError, match="validation error"):
                Status.model_validate(bad.manifest["status"], by_alias=True, by_name=False)

    holds_for(BAD_STATUS, check)


@pytest.fixture(scope="module")
def shared_worker(kube: Kube) -> Iterator[str]:
    """The name of a resource that no test changes."""
    kube.create({**manifest(), "metadata": {"name": "shared"}})
    yield "shared"
    kube.delete(PLURAL, "shared")


def test_a_status_in_a_new_object_is_dropped(kube: Kube) -> None:
    assert "status" not in kube.create(manifest({"status": STATUS}), dryRun="All")


def scale(kube: Kube, name: str, replicas: int | None = None) -> Body:
    path = kube.path(PLURAL, name=name, subresource="scale")
    if replicas is None:
        got: Body = kube.request("GET", path)
        return got
    patch = {"spec": {"replicas": replicas}}
    patched: Body = kube.request("PATCH", path, patch, content_type="application/merge-patch+json")
    return patched


def test_kubectl_scale_sets_the_most_jobs_and_may_set_none(kube: Kube, worker: str) -> None:
    kube.patch_status(PLURAL, worker, dict(STATUS))
    seen = scale(kube, worker)
    assert (seen["spec"]["replicas"], seen["status"]["replicas"]) == (5, 3)
    assert seen["status"]["selector"] == "siorg.waterswamp.dev/worker=worker"
    for replicas in (7, 0):
        scale(kube, worker, replicas)
        stored = kube.get(PLURAL, worker)
        assert stored is not None
        assert parse(stored).spec.scaling.max_jobs == replicas


def test_kubectl_scale_below_the_fewest_is_refused_but_for_none(kube: Kube, worker: str) -> None:
    kube.patch(PLURAL, worker, {"spec": {"scaling": {"minJobs": 2}}})
    with pytest.raises(ApiError) as refused:
        scale(kube, worker, 1)
    assert refused.value.status == 422
    assert "is more than maxJobs" in refused.value.message
    assert scale(kube, worker, 0)["spec"] == {}  # Kubernetes leaves a 0 out


def test_kubectl_get_shows_the_columns(kube: Kube, worker: str) -> None:
    kube.patch_status(PLURAL, worker, dict(STATUS))
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
    table = kube.request("GET", kube.path(PLURAL, name=worker), accept=accept)
    columns = [(column["name"], column["priority"]) for column in table["columnDefinitions"]]
    narrow, wide = ("Name", "Ready", "InSync", "Depth", "Oldest", "Active", "Max", "Reason", "Age"), (
        "Mode", "Failed", "Conflicts", "Held", "Rate", "Decided", "Message",
    )  # fmt: skip
    assert columns == [*((name, 0) for name in narrow), *((name, 1) for name in wide)]
    cells = table["rows"][0]["cells"]
    assert cells[:8] == ["worker", "True", "False", 480, 61, 3, 5, "Draining"]
    assert cells[9:14] == ["Active", 1, 2, 4, 12.5]
    assert cells[15] == "depth 480, 50 a Job → 10 wanted"


def test_the_kind_is_found_by_its_short_name_and_category(kube: Kube) -> None:
    group, version = API_VERSION.split("/")
    found = {one["name"]: one for one in kube.request("GET", f"/apis/{group}/{version}")["resources"]}
    assert found[PLURAL]["shortNames"] == ["ssw"]
    assert found[PLURAL]["categories"] == ["siorg"]
    assert {f"{PLURAL}/status", f"{PLURAL}/scale"} <= set(found)
