"""Named SQL statements from the files beside this module.

A file holds statements, each below a line ``-- name: word``. ``{{word}}`` inside a statement stands for a fragment of
``predicates.sql``: what "due" or "claimable" means is written there and nowhere else; or for another statement of the same file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import LiteralString

_NAME = re.compile(r"^-- name: (\w+)[ \t]*$", re.MULTILINE)
_FRAGMENT = re.compile(r"\{\{(\w+)\}\}")


def parse(text: str) -> dict[str, str]:
    """Split the text of an SQL file into its named statements, without comments and indentation: they are sent often."""
    parts = _NAME.split(text)
    bodies = [
        [line.split(" -- ")[0].strip() for line in body.splitlines() if not line.lstrip().startswith("--")]
        for body in parts[2::2]
    ]
    return {name: "\n".join(lines).strip() for name, lines in zip(parts[1::2], bodies, strict=True)}


def expand(sql: str, fragments: Mapping[str, str]) -> str:
    """Replace every ``{{word}}`` by its fragment, fragments inside fragments too.

    Raises:
        KeyError: a word that no fragment has.
    """
    while _FRAGMENT.search(sql):
        sql = _FRAGMENT.sub(lambda match: fragments[match[1]], sql)
    return sql


@cache
def load(package: str, file: str) -> Mapping[str, LiteralString]:
    """The statements of one file of a package's ``sql`` folder, fragments put in.

    The text comes from our own files, never from outside, hence LiteralString.
    """
    statements = parse(_read(package, file))
    fragments = {**statements, **parse(_read("siorg_queue", "predicates.sql"))}
    return {name: expand(sql, fragments) for name, sql in statements.items()}


def _read(package: str, file: str) -> str:
    return resources.files(package).joinpath("sql", file).read_text(encoding="utf-8")
