"""YAML that a person wrote, read as kubectl reads it: JSON values only, and what would silently be lost is refused.

Other than with PyYAML's safe loader, a date stays text, and so does 12:30 (for YAML 1.1 a number of base 60); a key that
stands twice is refused, and so are values that JSON does not have, and documents that aliases blow up without end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

import yaml

_LARGEST: Final = 1_000_000  # characters
_MOST_VALUES: Final = 100_000
_DEEPEST: Final = 64
_YAML: Final = "tag:yaml.org,2002:"


class YamlError(ValueError):
    """The text is not YAML that can be used; the message says where, and repeats nothing of the text."""


def documents(text: str) -> list[Any]:
    """The documents in ``text`` as JSON values; empty ones are left out.

    Raises:
        YamlError: with the place of the first thing that is wrong.
    """
    if len(text) > _LARGEST:
        raise YamlError(f"is too large; value: {len(text)} characters; allowed: at most {_LARGEST}")
    budget = iter(range(_MOST_VALUES))
    try:
        found = [_json(document, budget) for document in yaml.load_all(text, Loader=_Loader)]
    except YamlError as wrong:
        problem = str(wrong)
    except yaml.MarkedYAMLError as wrong:
        mark = wrong.problem_mark or wrong.context_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = f"is not YAML{where}: {ascii((wrong.problem or 'not understood')[:100])[1:-1]}"
    except RecursionError:
        problem = f"is nested too deeply; allowed: {_DEEPEST} levels"
    except (yaml.YAMLError, ValueError, OverflowError):
        problem = "is not YAML that can be read: a character or a number in it is not allowed"
    else:
        return [document for document in found if document is not None]
    # Outside of the handlers: what is raised must not bring the text along.
    raise YamlError(problem)


class _Loader(yaml.SafeLoader):
    """The safe loader, but for what the module's docstring says."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        node.value = [(self.as_text(key), value) for key, value in node.value]
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != f"{_YAML}merge":
                if key.value in seen:
                    raise yaml.composer.ComposerError(None, None, "a duplicate key", key.start_mark)
                seen.add(key.value)
        return node

    def as_text(self, key: yaml.Node) -> yaml.Node:
        """A key as kubectl makes it: 1 and true are texts where a key is meant."""
        if not isinstance(key, yaml.ScalarNode) or key.tag not in {f"{_YAML}int", f"{_YAML}bool"}:
            return key
        text = str(self.whole(key)) if key.tag == f"{_YAML}int" else str(self.construct_yaml_bool(key)).lower()
        return yaml.ScalarNode(f"{_YAML}str", text, key.start_mark, key.end_mark)

    def text(self, node: yaml.ScalarNode) -> str:
        return self.construct_yaml_str(node)

    def refuse(self, node: yaml.Node) -> None:
        self.construct_undefined(node)

    def whole(self, node: yaml.ScalarNode) -> int | str:
        return node.value if ":" in node.value else self.construct_yaml_int(node)

    def number(self, node: yaml.ScalarNode) -> float | str:
        return node.value if ":" in node.value else self.construct_yaml_float(node)


_Loader.add_constructor(f"{_YAML}int", _Loader.whole)
_Loader.add_constructor(f"{_YAML}float", _Loader.number)
for _kind in ("timestamp", "value"):
    _Loader.add_constructor(_YAML + _kind, _Loader.text)
for _kind in ("binary", "omap", "pairs", "set"):
    _Loader.add_constructor(_YAML + _kind, _Loader.refuse)


def _json(value: Any, budget: Iterator[int], depth: int = 0) -> Any:
    """A copy of ``value``, at the cost of one of ``budget`` for each value in it: an alias costs what it stands for."""
    if next(budget, None) is None:
        raise YamlError(f"has too many values, aliases counted as what they stand for; allowed: {_MOST_VALUES}")
    if depth > _DEEPEST:
        raise YamlError(f"is nested too deeply; allowed: {_DEEPEST} levels")
    match value:
        case dict() if not all(isinstance(key, str) for key in value):
            raise YamlError("has a key that is neither a string nor an integer")
        case dict():
            return {key: _json(inner, budget, depth + 1) for key, inner in value.items()}
        case list():
            return [_json(inner, budget, depth + 1) for inner in value]
        case float() if not math.isfinite(value):
            raise YamlError("has a number that JSON does not have (.nan, .inf)")
    return value
