"""The definition is what the model says, field by field, and what the file in crds/ says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import yaml
from pydantic import AwareDatetime, BaseModel
from pydantic.fields import FieldInfo

from siorg_operator.api.crd import crd, crd_yaml
from siorg_operator.api.formats import FORMS
from siorg_operator.api.resource import KIND, SiorgSyncWorker, Status
from siorg_operator.api.rules import Part, Rule, UniqueBy
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


def test_the_file_is_what_the_model_makes() -> None:
    assert FILE.read_text() == crd_yaml(), "run: siorg-operator crd > crds/siorgsyncworkers.yaml"
    assert yaml.safe_load(FILE.read_text()) == crd()


def test_the_file_says_how_it_is_made() -> None:
    assert "siorg-operator crd > crds/siorgsyncworkers.yaml" in FILE.read_text().partition("apiVersion")[0]


def test_the_file_is_small() -> None:
    assert FILE.stat().st_size < 64 * 1024


# -- field by field ---------------------------------------------------------------------------------------------------


def parts(model: type[BaseModel], schema: Schema, path: str) -> Iterator[tuple[str, type[BaseModel], Schema]]:
    """Every model and the schema that has to say the same."""
    yield path, model, schema
    for name, field in model.model_fields.items():
        alias = field.alias or name
        inner, _ = unwrapped(field.annotation)
        below = schema["properties"][alias]
        if get_origin(inner) is tuple:
            below, (inner, _) = below["items"], unwrapped(get_args(inner)[0])
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from parts(inner, below, f"{path}.{alias}")


def unwrapped(annotation: Any) -> tuple[Any, list[Any]]:
    """A type without None and Annotated, and what Annotated said of it."""
    metadata: list[Any] = []
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation, *more = get_args(annotation)
            metadata += more
        elif origin in {UnionType, Union} and NoneType in get_args(annotation):
            (annotation,) = [one for one in get_args(annotation) if one is not NoneType]
        else:
            return annotation, metadata


def limits(metadata: list[Any], kind: str) -> dict[str, Any]:
    """The keywords of a schema that constraints stand for."""
    flat = [inner for one in metadata for inner in (one.metadata if isinstance(one, FieldInfo) else [one])]
    length = {"string": ("minLength", "maxLength"), "array": ("minItems", "maxItems")}.get(
        kind, ("minProperties", "maxProperties")
    )
    found: dict[str, Any] = {}
    for one in flat:
        match one:
            case annotated_types.Ge(ge=value):
                found["minimum"] = value
            case annotated_types.Le(le=value):
                found["maximum"] = value
            case annotated_types.MinLen(min_length=value):
                found[length[0]] = value
            case annotated_types.MaxLen(max_length=value):
                found[length[1]] = value
            case UniqueBy(key=key):
                found |= (
                    {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}
                    if key
                    else {"x-kubernetes-list-type": "set"}
                )
            case Rule():
                found.setdefault("x-kubernetes-validations", []).append(one.validation)
            case _ if isinstance(getattr(one, "pattern", None), str):
                found["pattern"] = one.pattern
    return found


KINDS: Mapping[Any, str] = {bool: "boolean", int: "integer", float: "number", str: "string", AwareDatetime: "string"}
CHECKED = ("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "pattern",
           "x-kubernetes-validations", "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "enum")  # fmt: skip

PARTS = [
    *parts(Spec, SCHEMA["properties"]["spec"], "spec"),
    *parts(Status, SCHEMA["properties"]["status"], "status"),
]


def kind_of(inner: Any) -> str:
    if get_origin(inner) is Literal:
        return "string"
    if get_origin(inner) in {tuple, dict}:
        return "array" if get_origin(inner) is tuple else "object"
    return KINDS.get(inner, "object")


def test_a_part_has_the_fields_of_its_model_and_no_others() -> None:
    def check(part: tuple[str, type[BaseModel], Schema]) -> None:
        _, model, schema = part
        assert issubclass(model, Part)
        assert list(schema["properties"]) == [field.alias for field in model.model_fields.values()]
        assert schema.get("required", []) == [field.alias for field in model.model_fields.values() if field.is_required()]
        rules = [rule.validation for rule in model.rules]
        assert schema.get("x-kubernetes-validations", [])[: len(rules)] == rules

    holds_for(PARTS, check)


FIELDS = [
    (f"{path}.{field.alias}", field, schema["properties"][field.alias])
    for path, model, schema in PARTS
    for field in model.model_fields.values()
]


def test_a_field_has_the_type_and_the_limits_that_its_model_has() -> None:
    def check(row: tuple[str, FieldInfo, Schema]) -> None:
        _, field, schema = row
        inner, metadata = unwrapped(field.annotation)
        assert schema["type"] == kind_of(inner)
        wanted = limits([*field.metadata, *metadata], schema["type"])
        if schema["type"] == "array":
            wanted.setdefault("x-kubernetes-list-type", "atomic")
        if get_origin(inner) is Literal:
            wanted["enum"] = list(get_args(inner))
        if isinstance(inner, type) and issubclass(inner, Part) and inner.rules:
            wanted["x-kubernetes-validations"] = [rule.validation for rule in inner.rules]
        assert {key: schema[key] for key in CHECKED if key in schema} == wanted
        formats = {AwareDatetime: {"date-time"}, int: {"int32", "int64"}, float: {"double"}}
        assert schema.get("format") in formats.get(inner, {None})

    holds_for(FIELDS, check)


def test_a_field_is_explained_in_a_sentence() -> None:
    def check(row: tuple[str, FieldInfo, Schema]) -> None:
        described = row[2]["description"]
        assert re.fullmatch(r"[A-Z/0-9].*[.…]", described), described
        assert "  " not in described

    holds_for(FIELDS, check)


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


def test_only_the_name_of_the_metadata_is_limited_as_kubernetes_wants_it() -> None:
    metadata = SCHEMA["properties"]["metadata"]
    assert list(metadata["properties"]) == ["name"]
    assert metadata["properties"]["name"]["maxLength"] == 40


def test_every_pattern_can_be_told_in_words() -> None:
    patterns = {schema["pattern"] for path, schema in nodes(SCHEMA["properties"]["spec"]) if "pattern" in schema}
    assert patterns <= set(FORMS)


def test_a_status_has_no_defaults_that_would_read_like_observations() -> None:
    assert not [path for path, schema in nodes(SCHEMA["properties"]["status"]) if "default" in schema]


def test_the_description_of_the_kind_says_what_it_does() -> None:
    assert SCHEMA["description"] == SiorgSyncWorker.__doc__
    assert crd()["spec"]["names"]["kind"] == KIND


# -- the table of bad manifests ---------------------------------------------------------------------------------------


def test_every_rule_has_a_manifest_that_breaks_it() -> None:
    """Of what is no rule the table is made from the definition."""
    table = [(generic(SCHEMA, bad.field), bad.says) for bad in BAD if bad.breaks == "rule"]

    def check(rule: tuple[str, str]) -> None:
        path, message = rule
        assert any(field == path and says and message.startswith(says) for field, says in table)

    holds_for(rules(SCHEMA["properties"]["spec"], "spec"), check)
    assert not list(rules(SCHEMA["properties"]["status"], "status"))


def test_every_variable_with_a_field_of_its_own_has_a_manifest_that_gives_it() -> None:
    name = at(SCHEMA, ["spec", "job", "podTemplate", "spec", "env", 0, "name"])
    refused = {found[1] for rule in name["x-kubernetes-validations"] if (found := re.fullmatch(r"self != '(.*)'", rule["rule"]))}
    tried = {bad.value[1]["name"] for bad in BAD if bad.says == "has a field of its own"}
    assert refused == tried


# -- what kubectl uses ------------------------------------------------------------------------------------------------


def test_kubectl_finds_scales_and_lists_it() -> None:
    names = crd()["spec"]["names"]
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
        assert node["type"] == column["type"]

    holds_for(VERSION["additionalPrinterColumns"], check)
