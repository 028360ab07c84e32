"""What must hold of a value beyond its type, range and length: said once, and checked twice.

A ``Rule`` has a CEL expression for the API server, which refuses a wrong object before anybody acts on it, and a
predicate for the model, which reads the same object from a file. A rule about one value stands in that value's
annotation, one about several fields in their class's ``rules``; pydantic runs both, and ``schema`` writes both into
the CRD. Only the standard functions of CEL are used, so that every evaluator understands the expressions.

CEL and not ``pattern`` where nobody could make out from the pattern what is wrong. And a rule of the object, not of the
text, where the text may hold a secret: the API server repeats the text that is at fault, but no object.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, model_validator
from pydantic.alias_generators import to_camel, to_snake
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

BROKEN = "broken_rules"
"""The type of the pydantic error whose context holds ``broken``: the rules, and ``below``: where, from the error's place."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that must hold. In an annotation it is checked of that value; in a class's ``rules``, of its instances.

    Attributes:
        cel: the expression over ``self``.
        holds: the same over the parsed value.
        wrong: what is wrong where it does not hold, in words that follow the field's name.
        allowed: what would be right.
        field: of the value, the field that is to blame, in camelCase; empty: the value itself.
    """

    cel: str
    holds: Callable[[Any], bool]
    wrong: str
    allowed: str
    field: str = ""

    @property
    def validation(self) -> dict[str, str]:
        """This rule as an entry of ``x-kubernetes-validations``."""
        written = {"rule": self.cel, "message": f"{self.wrong}; allowed: {self.allowed}"}
        return written | {"fieldPath": f".{self.field}"} if self.field else written

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(lambda value: _checked(value, (self,)), handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return with_validations(handler(core), (self,))


def matches(pattern: str, *, wrong: str, allowed: str) -> Rule:
    """A rule that a text is in a form. ``pattern`` holds to what RE2 and Python read alike, with its own ^ and $."""
    form = re.compile(pattern, re.ASCII)

    def holds(text: str) -> bool:
        # Python's $ also matches before a last line feed, RE2's does not. No form that we have allows a line feed.
        return "\n" not in text and form.search(text) is not None

    return Rule(cel=f"self.matches({literal(pattern)})", holds=holds, wrong=wrong, allowed=allowed)


def matches_not(pattern: str, *, wrong: str, allowed: str) -> Rule:
    """A rule that a text is not in a form."""
    rule = matches(pattern, wrong=wrong, allowed=allowed)
    return replace(rule, cel=f"!{rule.cel}", holds=lambda text: not rule.holds(text))


def literal(text: str) -> str:
    """``text`` as a CEL literal that needs no escapes: patterns stay readable."""
    if "'" in text or "\n" in text:
        raise ValueError("a quote or a line feed cannot stand in a raw literal")
    return f"r'{text}'"


def _checked(value: Any, rules: Sequence[Rule]) -> Any:
    return _unless_broken(value, [rule for rule in rules if not rule.holds(value)])


def _unless_broken(value: Any, broken: Sequence[Rule]) -> Any:
    if broken:
        raise PydanticCustomError(BROKEN, "does not hold: {count}", {"count": len(broken), "broken": broken})
    return value


def with_validations(schema: Mapping[str, Any], rules: Sequence[Rule]) -> dict[str, Any]:
    """``schema`` with ``rules`` after those that it has."""
    written = [*schema.get("x-kubernetes-validations", []), *(rule.validation for rule in rules)]
    return {**schema, "x-kubernetes-validations": written} if written else dict(schema)


@dataclass(frozen=True, slots=True)
class UniqueBy:
    """No two entries of a list may have the same ``key``, or without one be the same. Kubernetes merges by it, too."""

    key: str = ""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        kind = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [self.key]} if self.key else {}
        return {**handler(core), "x-kubernetes-list-type": "set", **kind}

    def _check(self, entries: tuple[Any, ...]) -> Any:
        seen: set[object] = set()
        again = []
        for place, entry in enumerate(entries):
            value = getattr(entry, to_snake(self.key)) if self.key else entry
            if value in seen:
                allowed = f"each {self.key} once" if self.key else "each value once"
                again.append(Rule("", bool, f"repeats the {self.key or 'value'} of an entry before it", allowed, str(place)))
            seen.add(value)
        return _unless_broken(entries, again)


class Part(BaseModel):
    """A part of the resource: immutable, camelCase outside, exact about types as the API server is.

    Attributes:
        rules: what must hold of its fields together.
    """

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        hide_input_in_errors=True,
    )
    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, given: Any) -> Any:
        """The API server drops a null before it looks at defaults and at what is required."""
        return without_nulls(given)

    @model_validator(mode="after")
    def _rules_hold(self) -> Self:
        return _checked(self, self.rules)  # type: ignore[no-any-return]

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Write the class's rules and the fields' docstrings where its schema is."""
        schema = with_validations(handler.resolve_ref_schema(handler(core)), cls.rules)
        meanings = _docstrings(cls)
        for name, field in cls.model_fields.items():
            schema["properties"][field.alias or name]["description"] = meanings[name]
        return schema

    def body(self) -> dict[str, Any]:
        """This part as Kubernetes takes it: camelCase, JSON values, nothing that is not set."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def _docstrings(cls: type) -> dict[str, str]:
    """The texts under a class's fields. Read when a schema is made: pydantic's own way would read them at each start."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(body, ast.ClassDef)
    return {
        field.target.id: " ".join(str(text.value.value).split())
        for field, text in pairwise(body.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }


def without_nulls(given: Any) -> Any:
    """``given`` without the keys whose value is null, where it is a mapping."""
    return {key: value for key, value in given.items() if value is not None} if isinstance(given, Mapping) else given
