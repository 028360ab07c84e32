"""Custom resources: what a definition makes the API server do. The small one and a real one pass the same tests."""

from __future__ import annotations

import copy
import secrets
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.cluster import Cluster
from support.fleet import eventually
from support.kube import JSON_PATCH, STRATEGIC_PATCH, ApiError, Body, Kube, condition

DEFINITION: Body = yaml.safe_load((Path(__file__).parent / "widgets.yaml").read_text())
UNCHECKED = (
    "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing"
    " errors to complete validation"
)


@pytest.fixture(scope="module")
def kube(cluster: Cluster) -> Kube:
    """A cluster that knows widgets."""
    cluster.kube.apply_crd(DEFINITION)
    return cluster.kube


@pytest.fixture
def name() -> str:
    return f"t-{secrets.token_hex(4)}"


def widget(name: str, *, metadata: Body | None = None, **spec: Any) -> Body:
    return {"apiVersion": "tests.siorg.dev/v1", "kind": "Widget", "metadata": {"name": name, **(metadata or {})},
            "spec": {"scaling": {}, **spec}}  # fmt: skip


def refused(kube: Kube, manifest: Body) -> ApiError:
    with pytest.raises(ApiError) as error:
        kube.create(manifest, dryRun="All")
    return error.value


class TestDefinition:
    def test_is_established_and_discovered(self, kube: Kube) -> None:
        found = kube.get("customresourcedefinitions", "widgets.tests.siorg.dev")
        assert found is not None
        assert (condition(found, "NamesAccepted"), condition(found, "Established")) == ("True", "True")
        assert found["status"]["acceptedNames"]["kind"] == "Widget"
        assert found["status"]["storedVersions"] == ["v1"]
        resources = {each["name"]: each for each in kube.request("GET", "/apis/tests.siorg.dev/v1")["resources"]}
        assert set(resources) == {"widgets", "widgets/status", "widgets/scale"}
        assert resources["widgets"]["shortNames"] == ["wdg"]
        assert resources["widgets"]["categories"] == ["tests"]
        assert (resources["widgets/scale"]["group"], resources["widgets/scale"]["kind"]) == ("autoscaling", "Scale")

    @pytest.mark.parametrize(
        ("schema", "field", "told"),
        [
            ({"properties": {"spec": {"properties": {}}}}, "properties[spec].type", "must not be empty for specified"),
            ({"properties": {"spec": {"type": "array", "items": {}}}}, "properties[spec].items.type", "must not be empty"),
            ({"properties": {"spec": {"type": "object", "x-kubernetes-validations": [{"rule": "self.a >"}]}}},
             "properties[spec].x-kubernetes-validations[0].rule", "compilation failed"),
            ({"properties": {"spec": {"type": "object", "x-kubernetes-validations": [
                {"rule": "true", "message": "m", "fieldPath": ".nope"}]}}},
             "properties[spec].x-kubernetes-validations[0].fieldPath", "must be a valid path"),
            ({"properties": {"spec": {"type": "object", "properties": {"a": {"type": "integer", "default": "one"}}}}},
             "properties[spec].properties[a].default", "must be of type integer"),
            # A default is checked as it stands, before what is inside of it is defaulted.
            ({"properties": {"spec": {"type": "object", "default": {}, "properties": {"a": {"type": "integer", "default": 1}},
                                      "x-kubernetes-validations": [{"rule": "self.a == 1", "message": "a is one"}]}}},
             "properties[spec].default", "no such key: a evaluating rule: a is one"),
        ],
    )  # fmt: skip
    def test_is_refused_when_its_schema_is_wrong(self, kube: Kube, schema: Body, field: str, told: str) -> None:
        names = {"plural": "gadgets", "singular": "gadget", "kind": "Gadget", "listKind": "GadgetList"}
        version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object", **schema}}}
        spec = {"group": "tests.siorg.dev", "scope": "Namespaced", "names": names, "versions": [version]}
        manifest = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                    "metadata": {"name": "gadgets.tests.siorg.dev"}, "spec": spec}  # fmt: skip
        error = refused(kube, manifest)
        assert error.status == 422
        assert f"spec.validation.openAPIV3Schema.{field}" in {cause["field"] for cause in error.causes}
        assert told in error.message

    def test_has_to_be_named_for_its_resource(self, kube: Kube) -> None:
        manifest = copy.deepcopy(DEFINITION)
        manifest["metadata"]["name"] = "other.tests.siorg.dev"
        assert 'metadata.name: Invalid value: "other.tests.siorg.dev"' in refused(kube, manifest).message

    def test_takes_its_objects_with_it(self, kube: Kube) -> None:
        manifest = copy.deepcopy(DEFINITION)
        manifest["metadata"]["name"] = "sprockets.tests.siorg.dev"
        manifest["spec"]["names"] = {"plural": "sprockets", "kind": "Sprocket"}
        kube.apply_crd(manifest)
        kube.create({**widget("one"), "kind": "Sprocket"})
        kube.delete("customresourcedefinitions", "sprockets.tests.siorg.dev")
        kube.wait_gone("customresourcedefinitions", "sprockets.tests.siorg.dev")
        eventually(lambda: kube.get("sprockets", "one") is None)


class TestPruningAndDefaulting:
    def test_fills_in_nested_defaults(self, kube: Kube, name: str) -> None:
        made = kube.create(widget(name, parts=[{"name": "a"}, {"name": "b", "size": 9}]))
        assert made["spec"] == {
            "mode": "Active", "suspend": False, "scaling": {"minJobs": 0, "maxJobs": 5},
            "parts": [{"name": "a", "size": 7}, {"name": "b", "size": 9}],
        }  # fmt: skip
        assert made["metadata"]["generation"] == 1

    def test_null_is_absent_where_it_is_not_allowed(self, kube: Kube, name: str) -> None:
        made = kube.create(widget(name, mode=None, note=None, url=None))
        assert made["spec"]["mode"] == "Active"
        assert made["spec"]["note"] is None
        assert "url" not in made["spec"]

    def test_drops_unknown_fields_except_where_they_are_free(self, kube: Kube, name: str) -> None:
        manifest = widget(name, nope=1, free={"a": {"b": 1}}, labels={"k": "v"}, scaling={"maxJobs": 5, "zip": 2})
        made = kube.create({**manifest, "extra": 1, "metadata": {"name": name, "wrong": 1}})
        assert made["spec"]["free"] == {"a": {"b": 1}}
        assert made["spec"]["labels"] == {"k": "v"}
        assert "nope" not in made["spec"]
        assert "zip" not in made["spec"]["scaling"]
        assert "extra" not in made
        assert "wrong" not in made["metadata"]

    def test_refuses_unknown_fields_when_told_to_be_strict(self, kube: Kube, name: str) -> None:
        with pytest.raises(ApiError) as error:
            kube.create(widget(name, nope=1), fieldValidation="Strict")
        assert error.value.status == 400
        assert error.value.message == (
            'Widget in version "v1" cannot be handled as a Widget: strict decoding error: unknown field "spec.nope"'
        )

    def test_status_is_not_for_the_creator(self, kube: Kube, name: str) -> None:
        assert "status" not in kube.create({**widget(name), "status": {"phase": "x"}})


class TestSchema:
    @pytest.mark.parametrize(
        ("spec", "field", "told"),
        [
            ({"scaling": {"maxJobs": 0}}, "spec.scaling.maxJobs", "Invalid value: 0: @ in body should be greater than or equal"),
            ({"scaling": {"maxJobs": 101}}, "spec.scaling.maxJobs", "Invalid value: 101: @ in body should be less than or"),
            ({"ratio": 0}, "spec.ratio", "Invalid value: 0: @ in body should be greater than 0"),
            ({"url": "http://a.b"}, "spec.url", "Invalid value: \"http://a.b\": @ in body should match '^https://'"),
            ({"tags": ["a"]}, "spec.tags[0]", 'Invalid value: "a": @ in body should be at least 2 chars long'),
            ({"tags": ["aa", "aa"]}, "spec.tags[1]", 'Duplicate value: "aa"'),
            ({"parts": [{"name": "a"}, {"name": "a"}]}, "spec.parts[1]", 'Duplicate value: {"name":"a"}'),
        ],
    )
    def test_names_the_field_and_what_is_wrong(self, kube: Kube, name: str, spec: Body, field: str, told: str) -> None:
        error = refused(kube, widget(name, **spec))
        assert (error.status, error.reason) == (422, "Invalid")
        assert f"{field}: {told.replace('@', field)}" in error.message
        assert error.message.startswith(f'Widget.tests.siorg.dev "{name}" is invalid: ')

    @pytest.mark.parametrize(
        ("spec", "field", "told", "reason"),
        [
            ({"suspend": "yes"}, "spec.suspend", 'Invalid value: "string": @ in body must be of type boolean: "string"',
             "TypeInvalid"),
            ({"mode": "X"}, "spec.mode", 'Unsupported value: "X": supported values: "Active", "Observe"', "NotSupported"),
            ({"program": "x" * 201}, "spec.program", "Too long: may not be more than 200 bytes", "TooLong"),
            ({"tags": ["aa", "bb", "cc", "dd"]}, "spec.tags", "Too many: 4: must have at most 3 items", "TooMany"),
            ({"labels": dict.fromkeys("abcd", "1")}, "spec.labels", "Too many: 4: must have at most 3 items", "TooMany"),
            ({"labels": {"a": 1}}, "spec.labels.a", 'Invalid value: "integer": @ in body must be of type string: "integer"',
             "TypeInvalid"),
            ({"parts": [{}]}, "spec.parts[0].name", "Required value", "Required"),
            ({"when": "yesterday"}, "spec.when", 'Invalid value: "yesterday": @ in body must be of type date-time: "yesterday"',
             "TypeInvalid"),
            ({"port": 1.5}, "spec.port", 'Invalid value: "number": @ in body must be of type integer,string: "number"',
             "TypeInvalid"),
        ],
    )  # fmt: skip
    def test_does_not_look_at_rules_when_the_shape_is_wrong(
        self, kube: Kube, name: str, spec: Body, field: str, told: str, reason: str
    ) -> None:  # fmt: skip
        error = refused(kube, widget(name, **spec))
        assert f"{field}: {told.replace('@', field)}" in error.message
        assert UNCHECKED in error.message
        assert (field, f"FieldValue{reason}") in {(cause["field"], cause["reason"]) for cause in error.causes}

    def test_tells_all_that_is_wrong_at_once(self, kube: Kube, name: str) -> None:
        error = refused(kube, widget(name, scaling={"maxJobs": 0, "minJobs": -1}, ratio=2))
        assert {"spec.scaling.maxJobs", "spec.scaling.minJobs", "spec.ratio"} <= {cause["field"] for cause in error.causes}

    def test_wants_a_spec(self, kube: Kube, name: str) -> None:
        manifest = widget(name)
        del manifest["spec"]
        assert "spec: Required value" in refused(kube, manifest).message

    @pytest.mark.parametrize("port", [80, "http"])
    def test_int_or_string_is_either(self, kube: Kube, name: str, port: object) -> None:
        assert kube.create(widget(name, port=port), dryRun="All")["spec"]["port"] == port


class TestRules:
    @pytest.mark.parametrize(
        ("spec", "field", "message", "reason"),
        [
            ({"scaling": {"minJobs": 9}}, "spec.scaling.minJobs", "Invalid value: minJobs may not be more than maxJobs",
             "FieldValueInvalid"),
            ({"scaling": {"maxJobs": 13}}, "spec.scaling", "Forbidden: maxJobs may not be thirteen", "FieldValueForbidden"),
            ({"url": "https://X"}, "spec", "Invalid value: url has to be a plain https URL", "FieldValueInvalid"),
            ({"parts": [{"name": "a", "color": "green"}]}, "spec", "Invalid value: parts are red or blue", "FieldValueInvalid"),
        ],
    )  # fmt: skip
    def test_name_the_field_and_say_their_message(
        self, kube: Kube, name: str, spec: Body, field: str, message: str, reason: str
    ) -> None:  # fmt: skip
        error = refused(kube, widget(name, **spec))
        assert error.status == 422
        assert error.causes == [{"field": field, "message": message, "reason": reason}]

    def test_of_the_root_see_the_name(self, kube: Kube) -> None:
        error = refused(kube, widget("n" * 21))
        assert error.causes == [{"field": "<nil>", "reason": "FieldValueInvalid",
                                 "message": "Invalid value: the name has to fit into the names of Jobs"}]  # fmt: skip

    def test_are_looked_at_when_only_numbers_are_wrong(self, kube: Kube, name: str) -> None:
        error = refused(kube, widget(name, scaling={"minJobs": 9}, ratio=2))
        assert {cause["field"] for cause in error.causes} == {"spec.scaling.minJobs", "spec.ratio"}

    def test_of_transition_compare_with_what_was(self, kube: Kube, name: str) -> None:
        kube.create(widget(name, owner="me"))
        kube.patch("widgets", name, {"spec": {"mode": "Observe"}})
        with pytest.raises(ApiError) as error:
            kube.patch("widgets", name, {"spec": {"owner": "you"}})
        assert error.value.causes == [
            {"field": "spec.owner", "message": 'Invalid value: "you": the owner stays', "reason": "FieldValueInvalid"}
        ]
        assert "owner" not in kube.patch("widgets", name, {"spec": {"owner": None}})["spec"]


class TestRatcheting:
    def test_what_was_wrong_before_the_rule_does_not_stand_in_the_way(self, kube: Kube, name: str) -> None:
        kube.create(widget(name, program="x" * 100, scaling={"maxJobs": 50}))
        tighter = copy.deepcopy(DEFINITION)
        spec = tighter["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        spec["program"]["maxLength"] = 10
        spec["scaling"]["properties"]["maxJobs"]["maximum"] = 20
        kube.apply_crd(tighter)
        try:
            probe = widget(f"{name}-p", program="x" * 11)
            eventually(lambda: _is_refused(kube, probe))
            assert kube.patch("widgets", name, {"spec": {"suspend": True}})["spec"]["suspend"] is True
            with pytest.raises(ApiError) as error:
                kube.patch("widgets", name, {"spec": {"program": "y" * 100}})
            assert "spec.program: Too long" in error.value.message
        finally:
            kube.apply_crd(DEFINITION)
            eventually(lambda: not _is_refused(kube, probe))


def _is_refused(kube: Kube, manifest: Body) -> bool:
    try:
        kube.create(manifest, dryRun="All")
    except ApiError:
        return True
    return False


class TestEndpoints:
    def test_status_and_the_rest_are_apart(self, kube: Kube, name: str) -> None:
        kube.create(widget(name))
        both = {"spec": {"suspend": True}, "status": {"phase": "Ready", "nope": 1}, "metadata": {"labels": {"a": "b"}}}
        changed = kube.patch("widgets", name, both, subresource="status")
        assert changed["status"] == {"phase": "Ready"}
        assert changed["spec"]["suspend"] is False
        assert "labels" not in changed["metadata"]
        assert changed["metadata"]["generation"] == 1
        changed = kube.patch("widgets", name, {**both, "status": {"phase": "Wrong"}})
        assert changed["status"] == {"phase": "Ready"}
        assert changed["spec"]["suspend"] is True
        assert changed["metadata"]["labels"] == {"a": "b"}
        assert changed["metadata"]["generation"] == 2

    def test_labels_do_not_count_as_a_generation(self, kube: Kube, name: str) -> None:
        kube.create(widget(name))
        assert kube.patch("widgets", name, {"metadata": {"labels": {"a": "b"}}})["metadata"]["generation"] == 1

    def test_a_wrong_status_is_refused(self, kube: Kube, name: str) -> None:
        kube.create(widget(name))
        with pytest.raises(ApiError) as error:
            kube.patch("widgets", name, {"status": {"conditions": [{"type": "Ready"}]}}, subresource="status")
        assert "status.conditions[0].status: Required value" in error.value.message
        with pytest.raises(ApiError) as error:
            kube.patch("widgets", name, {"status": {"phase": 1}}, subresource="status")
        assert 'status.phase: Invalid value: "integer": phase in body must be of type string: "integer"' in error.value.message

    def test_an_old_version_conflicts_on_status_too(self, kube: Kube, name: str) -> None:
        made = kube.create(widget(name))
        kube.patch_status("widgets", name, {"phase": "a"})
        with pytest.raises(ApiError) as error:
            kube.replace({**made, "status": {"phase": "b"}}, subresource="status")
        assert error.value.status == 409

    def test_the_same_status_again_is_no_new_version(self, kube: Kube, name: str) -> None:
        kube.create(widget(name))
        one, other = (kube.patch_status("widgets", name, {"phase": "a"}) for _ in range(2))
        assert one["metadata"]["resourceVersion"] == other["metadata"]["resourceVersion"]

    def test_put_needs_a_version(self, kube: Kube, name: str) -> None:
        kube.create(widget(name))
        with pytest.raises(ApiError) as error:
            kube.replace(widget(name))
        assert error.value.status == 422
        assert "metadata.resourceVersion: Invalid value: 0: must be specified for an update" in error.value.message

    def test_there_is_no_strategic_merge(self, kube: Kube, name: str) -> None:
        kube.create(widget(name))
        with pytest.raises(ApiError) as error:
            kube.patch("widgets", name, {"spec": {}}, content_type=STRATEGIC_PATCH)
        assert (error.value.status, error.value.reason) == (415, "UnsupportedMediaType")

    def test_a_json_patch_is_checked_as_well(self, kube: Kube, name: str) -> None:
        kube.create(widget(name))
        with pytest.raises(ApiError) as error:
            kube.patch("widgets", name, [{"op": "replace", "path": "/spec/scaling/maxJobs", "value": 0}], content_type=JSON_PATCH)
        assert "should be greater than or equal to 1" in error.value.message

    def test_scale_reads_and_writes_a_number(self, kube: Kube, name: str) -> None:
        kube.create(widget(name))
        kube.patch_status("widgets", name, {"jobs": 3, "selector": "a=b"})
        found = kube.request("GET", kube.path("widgets", name=name, subresource="scale"))
        assert (found["kind"], found["apiVersion"]) == ("Scale", "autoscaling/v1")
        assert (found["spec"], found["status"]) == ({"replicas": 5}, {"replicas": 3, "selector": "a=b"})
        found["spec"]["replicas"] = 7
        assert kube.request("PUT", kube.path("widgets", name=name, subresource="scale"), found)["spec"]["replicas"] == 7
        kube.patch("widgets", name, {"spec": {"replicas": 8}}, subresource="scale")
        changed = kube.get("widgets", name)
        assert changed is not None
        assert changed["spec"]["scaling"]["maxJobs"] == 8
        assert changed["metadata"]["generation"] == 3
        with pytest.raises(ApiError) as error:
            kube.patch("widgets", name, {"spec": {"replicas": 1000}}, subresource="scale")
        assert "should be less than or equal to 100" in error.value.message

    def test_a_table_has_the_definitions_columns(self, kube: Kube, name: str) -> None:
        kube.create(widget(name, metadata={"labels": {"table": name}}))
        kube.patch_status("widgets", name, {"conditions": [{"type": "Ready", "status": "True"}]})
        accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
        found = kube.request("GET", kube.path("widgets"), labelSelector=f"table={name}", accept=accept)
        assert [(each["name"], each["priority"]) for each in found["columnDefinitions"]] == [
            ("Name", 0), ("Ready", 0), ("Max", 0), ("Phase", 1), ("Age", 0),
        ]  # fmt: skip
        (row,) = found["rows"]
        assert row["cells"][:4] == [name, "True", 5, None]

    def test_can_be_selected_by_name_only(self, kube: Kube, name: str) -> None:
        kube.create(widget(name))
        assert len(kube.list("widgets", fields=f"metadata.name={name}")) == 1
        with pytest.raises(ApiError) as error:
            kube.list("widgets", fields="spec.mode=Active")
        assert (error.value.status, error.value.message) == (400, "field label not supported: spec.mode")


class TestApply:
    def test_lists_that_are_maps_are_merged_by_key_and_sets_are_united(self, kube: Kube, name: str) -> None:
        kube.apply(widget(name, parts=[{"name": "a", "size": 1}, {"name": "b"}], tags=["aa"]), manager="one")
        changed = kube.apply(widget(name, parts=[{"name": "c"}], tags=["bb"], mode="Observe"), manager="two")
        assert [each["name"] for each in changed["spec"]["parts"]] == ["a", "b", "c"]
        assert changed["spec"]["tags"] == ["aa", "bb"]
        changed = kube.apply(widget(name, parts=[{"name": "a"}]), manager="one")
        assert [(each["name"], each["size"]) for each in changed["spec"]["parts"]] == [("a", 7), ("c", 7)]
        assert changed["spec"]["tags"] == ["bb"]

    def test_conflicts_are_told_field_by_field(self, kube: Kube, name: str) -> None:
        kube.apply(widget(name, parts=[{"name": "a", "size": 1}]), manager="one")
        kube.apply(widget(name, mode="Observe"), manager="two")
        with pytest.raises(ApiError) as error:
            kube.apply(widget(name, mode="Active", parts=[{"name": "a", "size": 9}]), manager="three")
        assert error.value.status == 409
        assert {(cause["field"], cause["message"]) for cause in error.value.causes} == {
            ('.spec.parts[name="a"].size', 'conflict with "one"'), (".spec.mode", 'conflict with "two"'),
        }  # fmt: skip
        assert "Apply failed with 2 conflicts: conflicts with" in error.value.message

    def test_of_status_owns_status_only(self, kube: Kube, name: str) -> None:
        kube.create(widget(name))
        config = {**widget(name, suspend=True), "status": {"phase": "p"}}
        changed = kube.patch("widgets", name, config, subresource="status", content_type="application/apply-patch+yaml",
                             fieldManager="statuses")  # fmt: skip
        assert changed["status"] == {"phase": "p"}
        assert changed["spec"]["suspend"] is False
        (entry,) = [each for each in changed["metadata"]["managedFields"] if each["manager"] == "statuses"]
        assert (entry["subresource"], set(entry["fieldsV1"])) == ("status", {"f:status"})
