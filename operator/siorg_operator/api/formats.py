"""Kinds of values in the resource: names, labels, quantities, schedules. What each may be, for pydantic and for the CRD.

The large Kubernetes types (affinity, the source of a volume or of an environment variable …) are passed through as they are;
what is wrong in them, Kubernetes says when the Job is created.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from siorg_operator.api import cron
from siorg_operator.api.rules import Rule, literal, without_nulls

GROUP: Final = "siorg.waterswamp.dev"

LABELS_OF_THE_OPERATOR: Final = (
    "app.kubernetes.io/name",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/component",
    "controller-uid",
    "job-name",
)
"""Labels that the operator or Kubernetes' own Job controller sets."""

PREFIXES_OF_THE_OPERATOR: Final = (f"{GROUP}/", "batch.kubernetes.io/")

DAY: Final = 86_400
"""Seconds."""

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_NAME_FORM = rf"^{_LABEL}$"
_SUBDOMAIN = rf"^{_LABEL}(\.{_LABEL})*$"
VARIABLE_FORM = r"^[-._a-zA-Z][-._a-zA-Z0-9]*$"
_LABEL_VALUE = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
_QUALIFIED_NAME = rf"^({_LABEL}(\.{_LABEL})*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?$"
NO_COLON = "^[^:]*$"
_KEY = r"^[-._a-zA-Z0-9]+$"
# https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/; no sign, since none may be below zero.
_QUANTITY = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,3})?$"
FORMS: Final[Mapping[str, str]] = {
    _NAME_FORM: "lower-case letters, digits and -, a letter or a digit first and last",
    _SUBDOMAIN: "lower-case letters, digits, - and ., a letter or a digit first and last",
    VARIABLE_FORM: "letters, digits, -, _ and ., no digit first",
    _LABEL_VALUE: "letters, digits, -, _ and ., a letter or a digit first and last",
    _KEY: "letters, digits, -, _ and .",
    _QUANTITY: "a quantity as in 500m, 0.5, 256Mi or 1G, not below zero",
    NO_COLON: "a path without a colon",
}
"""The patterns of texts in words, for whoever got one wrong."""

# -- kinds of values --------------------------------------------------------------------------------------------------


def _quantity(given: object) -> int | str:
    if isinstance(given, bool) or not isinstance(given, int | str):
        raise PydanticCustomError("quantity_type", "must be a quantity")
    if isinstance(given, int):
        if given < 0:
            raise PydanticCustomError("greater_than_equal", "is too small", {"ge": 0})
    elif len(given) > 32:
        raise PydanticCustomError("string_too_long", "is too long", {"max_length": 32})
    elif re.search(_QUANTITY, given) is None or "\n" in given:
        raise PydanticCustomError("string_pattern_mismatch", "must be a quantity")
    return given


Object = dict[str, Any]
"""A part of Kubernetes' own API, passed through as it is."""

ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=_SUBDOMAIN)]
LabelName = Annotated[str, Field(min_length=1, max_length=63, pattern=_NAME_FORM)]
SecretKey = Annotated[str, Field(min_length=1, max_length=253, pattern=_KEY)]
LabelValue = Annotated[str, Field(max_length=63, pattern=_LABEL_VALUE)]
Quantity = Annotated[
    int | str,
    PlainValidator(_quantity),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "minimum": 0, "maxLength": 32, "pattern": _QUANTITY}),
]
LISTS = Field(strict=False)  # JSON's lists become tuples

_RESOURCE_NAMES = Rule(
    cel="self.all(name, name in ['cpu', 'memory', 'ephemeral-storage'] || name.startsWith('hugepages-') || name.contains('/'))",
    holds=lambda named: all(
        name in {"cpu", "memory", "ephemeral-storage"} or name.startswith("hugepages-") or "/" in name for name in named
    ),
    wrong="has a name that is not a resource",
    allowed="cpu, memory, ephemeral-storage, hugepages-<size>, <domain>/<resource>",
)
Quantities = Annotated[dict[str, Quantity], Field(max_length=16), BeforeValidator(without_nulls), _RESOURCE_NAMES]

_KEY_FORM = re.compile(_QUALIFIED_NAME, re.ASCII)
_KEYS = Rule(
    cel=f"self.all(key, key.matches({literal(_QUALIFIED_NAME)}) && !key.matches('^[^/]{{254}}'))",
    holds=lambda keyed: all(_KEY_FORM.search(key) and "\n" not in key and key.find("/") < 254 for key in keyed),
    wrong="has a key that Kubernetes does not take",
    allowed="[prefix/]name: the prefix a domain, the name up to 63 letters, digits, -, _ and .",
)


def _reserved(keys: tuple[str, ...], prefixes: tuple[str, ...]) -> Rule:
    refused = [*(f"key == '{key}'" for key in keys), *(f"key.startsWith('{prefix}')" for prefix in prefixes)]
    return Rule(
        cel=f"self.all(key, !({' || '.join(refused)}))",
        holds=lambda keyed: not any(key in keys or key.startswith(prefixes) for key in keyed),
        wrong="has a key that the operator or Kubernetes sets itself",
        allowed=f"any but {', '.join([*keys, *(prefix + '…' for prefix in prefixes)])}",
    )


_KEYED = (Field(max_length=64), BeforeValidator(without_nulls), _KEYS)
Labels = Annotated[dict[str, LabelValue], *_KEYED, _reserved(LABELS_OF_THE_OPERATOR, PREFIXES_OF_THE_OPERATOR)]
Annotations = Annotated[dict[str, Annotated[str, Field(max_length=16_384)]], *_KEYED, _reserved((), PREFIXES_OF_THE_OPERATOR)]
NodeLabels = Annotated[dict[str, LabelValue], *_KEYED]
Schedule = Annotated[str, Field(min_length=1, max_length=128), *cron.SCHEDULE]
TimeZone = Annotated[str, Field(min_length=1, max_length=64), *cron.TIME_ZONE]
