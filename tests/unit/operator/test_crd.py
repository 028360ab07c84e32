"""The definition is what the model says, field by field, and what the file in crds/ says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from siorg_operator.api.crd import crd, crd_yaml
from siorg_operator.api.formats import FORMS
from siorg_operator.api.pods import SET_BY_THE_OPERATOR
from siorg_operator.api.resource import KIND, SiorgSyncWorker, Status
from siorg_operator.api.schema import at
from siorg_operator.api.spec import Spec
from support.rows import holds_for
from support.worker_manifests import BAD, generic, rules

FILE = Path(__file__).resolve().parents[3] / "crds" / "siorgsyncworkers.yaml"
VERSION = crd()["spec"]["versions"][0]
SCHEMA: dict[str, Any] = VERSION["schema"]["openAPIV3Schema"]
Schema = Mapping[str, Any]


def nodes(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}")
    for keyword in ("items", "additionalProperties"):
        if isinstance(schema.get(keyword), Mapping):
            yield from nodes(schema[keyword], f"{path}.{keyword}")


def test_the_file_is_what_the_model_makes_and_says_so() -> None:
    assert FILE.read_text() == crd_yaml(), "run: siorg-operator crd > crds/siorgsyncworkers.yaml"
    assert yaml.safe_load(FILE.read_text()) == crd()
    assert "siorg-operator crd > crds/siorgsyncworkers.yaml" in FILE.read_text().partition("apiVersion")[0]
    assert FILE.stat().st_size < 96 * 1024  # the annotation of a client-side kubectl apply holds 256 KiB


# -- field by field: that model and definition refuse the same, ``tests/kube_double/test_crd_rules.py`` shows ----------

KEYWORDS = ("minimum", "maximum", "minLength", "maxLength", "maxItems", "maxProperties", "pattern", "enum", "format",
            "x-kubernetes-validations", "x-kubernetes-list-type", "x-kubernetes-list-map-keys")  # fmt: skip


def test_the_definition_leaves_out_nothing_that_the_model_says() -> None:
    def compare(model: Schema, whole: Schema, ours: Schema, path: str) -> None:
        while "$ref" in model or "anyOf" in model:
            if "$ref" in model:
                model = whole["$defs"][model["$ref"].rpartition("/")[2]]
            else:
                model = next(one for one in model["anyOf"] if one.get("type") != "null")
        said = {keyword: model[keyword] for keyword in KEYWORDS if keyword in model}
        assert said.items() <= {**ours}.items(), path
        assert model.get("required", []) == ours.get("required", []), path
        for name, inner in model.get("properties", {}).items():
            compare(inner, whole, ours["properties"][name], f"{path}.{name}")
        for keyword in ("items", "additionalProperties"):
            if isinstance(model.get(keyword), Mapping) and keyword in ours:
                compare(model[keyword], whole, ours[keyword], f"{path}.{keyword}")

    for part, model in (("spec", Spec), ("status", Status)):
        whole = model.model_json_schema(by_alias=True)
        compare(whole, whole, SCHEMA["properties"][part], part)


def test_a_field_is_explained_in_a_sentence() -> None:
    def check(row: tuple[str, Schema]) -> None:
        for name, field in row[1].get("properties", {}).items():
            assert re.fullmatch(r"[A-Z/0-9].*[.…]", field["description"]), (name, field["description"])
            assert "  " not in field["description"]

    holds_for([*nodes(SCHEMA["properties"]["spec"], "spec"), *nodes(SCHEMA["properties"]["status"], "status")], check)


def test_defaults_are_those_of_the_model() -> None:
    def filled_in(schema: Schema) -> Any:
        if "properties" not in schema:
            return schema["default"]
        own = {name: filled_in(inner) for name, inner in schema["properties"].items() if "default" in inner}
        return {**own, **{name: value for name, value in schema["default"].items() if value != {}}}

    spec = SCHEMA["properties"]["spec"]["properties"]
    made = Spec.model_validate({"database": {"urlSecretRef": {"name": "a"}}}, by_alias=True, by_name=False).body()
    for name, schema in spec.items():
        if name != "database":
            assert _without_empty(filled_in(schema)) == _without_empty(made[name]), name


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: kept for key, inner in value.items() if (kept := _without_empty(inner)) not in ({}, [])}
    return value


# -- what Kubernetes wants of a schema --------------------------------------------------------------------------------


def test_the_schema_is_structural() -> None:
    allowed = {
        "type", "format", "description", "default", "enum", "required", "properties", "items", "additionalProperties", "minimum",
        "maximum", "minLength", "maxLength", "maxItems", "maxProperties", "pattern", "x-kubernetes-validations",
        "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-int-or-string",
        "x-kubernetes-preserve-unknown-fields",
    }  # fmt: skip
    for path, schema in nodes(SCHEMA):
        assert set(schema) <= allowed, path
        assert "type" in schema or schema.get("x-kubernetes-int-or-string"), path
        assert not ("properties" in schema and "additionalProperties" in schema), path
        if schema.get("type") == "object" and path:
            inside = {"properties", "additionalProperties", "x-kubernetes-preserve-unknown-fields"} & set(schema)
            assert len(inside) == 1, path


def test_everything_is_bounded_so_that_the_cost_of_rules_can_be_estimated() -> None:
    for path, schema in nodes(SCHEMA["properties"]["spec"]):
        match schema.get("type"):
            case "string":
                assert {"maxLength", "enum", "format"} & set(schema), path
            case "array":
                assert "maxItems" in schema, path
            case "integer":
                assert {"minimum", "maximum"} <= set(schema), path
            case "object" if "additionalProperties" in schema:
                assert "maxProperties" in schema, path


def test_of_metadata_the_name_is_limited_and_a_status_has_no_defaults_that_would_read_like_observations() -> None:
    metadata = SCHEMA["properties"]["metadata"]
    assert list(metadata["properties"]) == ["name"]
    assert metadata["properties"]["name"]["maxLength"] == 40
    assert not [path for path, schema in nodes(SCHEMA["properties"]["status"]) if "default" in schema]


def test_every_pattern_can_be_told_in_words() -> None:
    patterns = {schema["pattern"] for path, schema in nodes(SCHEMA["properties"]["spec"]) if "pattern" in schema}
    assert patterns <= set(FORMS)


# -- the table of bad manifests ---------------------------------------------------------------------------------------


def test_every_rule_has_a_manifest_that_breaks_it() -> None:
    """Of what is no rule the table is made from the definition."""
    table = [(generic(SCHEMA, bad.field), bad.says) for bad in BAD if bad.breaks == "rule"]

    def check(rule: tuple[str, str]) -> None:
        path, message = rule
        assert any(field == path and says and message.startswith(says) for field, says in table)

    holds_for(rules(SCHEMA["properties"]["spec"], "spec"), check)
    assert not list(rules(SCHEMA["properties"]["status"], "status"))


def test_a_variable_with_a_field_of_its_own_names_a_field_that_there_is() -> None:
    name = at(SCHEMA, ["spec", "job", "podTemplate", "spec", "env", 0, "name"])
    refused = {found[1] for rule in name["x-kubernetes-validations"] if (found := re.fullmatch(r"self != '(.*)'", rule["rule"]))}
    assert refused == set(SET_BY_THE_OPERATOR)
    assert [path for path in SET_BY_THE_OPERATOR.values() if not at(SCHEMA, path.split("."))] == []


# -- what kubectl uses ------------------------------------------------------------------------------------------------


def test_kubectl_finds_scales_and_lists_it() -> None:
    assert SCHEMA["description"] == SiorgSyncWorker.__doc__
    names = crd()["spec"]["names"]
    assert names["kind"] == KIND
    assert (names["plural"], names["singular"], names["shortNames"], names["categories"]) == (
        "siorgsyncworkers", "siorgsyncworker", ["ssw"], ["siorg"],
    )  # fmt: skip
    assert crd()["spec"]["scope"] == "Namespaced"
    assert VERSION["subresources"]["status"] == {}
    assert VERSION["subresources"]["scale"] == {
        "specReplicasPath": ".spec.scaling.maxJobs",
        "statusReplicasPath": ".status.jobs.active",
        "labelSelectorPath": ".status.selector",
    }


def test_a_column_shows_a_field_that_there_is_with_its_type() -> None:
    def check(column: dict[str, Any]) -> None:
        path = re.sub(r"\[\?\(@\.type==\"(\w+)\"\)\]", "[0]", column["jsonPath"])
        if path.startswith(".metadata"):
            assert (path, column["type"]) == (".metadata.creationTimestamp", "date")
            return
        node: Schema = SCHEMA
        for step in path.replace("[", ".[").split(".")[1:]:
            node = node["items"] if step.startswith("[") else node["properties"][step]
        assert column["type"] == ("date" if node.get("format") == "date-time" else node["type"])

    holds_for(VERSION["additionalPrinterColumns"], check)
