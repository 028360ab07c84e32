"""Every setting with its value in force and where that comes from: what the commands ``settings`` print."""

from __future__ import annotations

import argparse
import json
import shutil
import textwrap
from collections.abc import Iterator
from typing import Any

from siorg_runtime.environment import Environment, Reading, Secret, Variable, as_written
from siorg_runtime.redaction import without_known_places

_WIDEST = 120  # columns: longer lines are hard to read on any terminal


def add_options(parser: argparse.ArgumentParser) -> None:
    """The forms of the list."""
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object a setting, one a line")
    form.add_argument("--markdown", action="store_true", help="the table of docs/reference.md, without this environment")


def print_listing(arguments: argparse.Namespace, environment: Environment, reading: Reading) -> None:
    """Print what ``reading`` says of the variables of ``environment``, in the form that was asked for."""
    if arguments.markdown:
        print(environment.markdown_table(), end="")  # noqa: T201 - a command's output
        return
    settings = [_described(variable, name, reading) for name, variable in environment.by_field.items()]
    shown = {variable.name: variable.shown.replace("`", "") for variable in environment.variables}
    refused = [error for error in reading.errors if error.partition(":")[0] not in {one["name"] for one in settings}]
    width = min(shutil.get_terminal_size((100, 24)).columns, _WIDEST)
    lines = map(json.dumps, settings) if arguments.json else _for_people(settings, shown, refused, max(width, 40))
    print("\n".join(lines))  # noqa: T201


def _described(variable: Variable, name: str, reading: Reading) -> dict[str, Any]:
    origin, text = reading.given.get(name, ("default", ""))
    refused = [error.partition(": ")[2] for error in reading.errors if error.startswith(f"{origin}: ") and name in reading.given]
    return {
        "name": variable.name,
        "value": None if refused else _shown(variable, reading.value(name), text),
        "origin": "environment" if origin == variable.name else origin,
        **({"refused": "; ".join(refused)} if refused else {}),
        "default": variable.default,
        "required": variable.required,
        "allowed": variable.kind.allowed,
        "unit": variable.unit or None,
        "meaning": variable.meaning,
    }


def _shown(variable: Variable, value: Any, text: str) -> str | None:
    """The value in force, without what is secret in it."""
    if variable.hidden and text:
        return without_known_places(text) if "://" in text else "***"
    if isinstance(value, Secret) or (not isinstance(value, str | int | float) and not hasattr(value, "__fspath__")):
        return None
    return as_written(value)


def _for_people(settings: list[dict[str, Any]], shown: dict[str, str], refused: list[str], width: int) -> Iterator[str]:
    for one in settings:
        value = shown[one["name"]] if one["value"] is None else f"{one['value']} {one['unit'] or ''}".rstrip()
        value = f"refused: {one['refused']}" if "refused" in one else value
        yield from _wrapped(f"{one['name']} = {value}  ({one['origin']})", width, "", "    ")
        unit = f" ({one['unit']})" if one["unit"] else ""
        default = f" Default: {one['default']}." if one["default"] is not None and one["origin"] != "default" else ""
        yield from _wrapped(f"{one['meaning']}.{default} Allowed: {one['allowed']}{unit}", width, "    ", "    ")
    for error in refused:
        yield from _wrapped(f"refused: {error}", width, "", "    ")


def _wrapped(text: str, width: int, first: str, later: str) -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=later, break_long_words=False, break_on_hyphens=False
    )
