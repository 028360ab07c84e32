"""What a person may write into an organization's row, as text on the command line: how it is read, what is allowed. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from siorg_job.cnpj import read_cnpj
from siorg_job.siorg.model import MAX_ACRONYM, MAX_NAME


class _Field(NamedTuple):
    read: Callable[[str], str | None]
    """The value to store; None: nothing. ValueError: what is wrong with it."""
    allowed: str


def _text(longest: int, *, required: bool = False) -> _Field:
    shortest = 1 if required else 0
    allowed = f"{shortest} to {longest} characters"

    def read(text: str) -> str | None:
        plain = " ".join(text.split())
        if not plain.isprintable():
            raise ValueError(f"has characters that cannot be printed; allowed: {allowed} that can")
        if not shortest <= len(plain) <= longest:
            raise ValueError(f"is text of {len(plain)} characters; allowed: {allowed}")
        return plain or None

    return _Field(read, allowed)


def _form(pattern: str, allowed: str) -> _Field:
    def read(text: str) -> str | None:
        plain = re.sub(r"[\s.-]", "", text)
        if plain and not re.fullmatch(pattern, plain):
            raise ValueError(f"is text of {len(plain)} characters; allowed: {allowed}")
        return plain.upper() or None

    return _Field(read, allowed)


_FIELDS = {
    "acronym": _text(MAX_ACRONYM, required=True),
    "name": _text(MAX_NAME, required=True),
    "cnpj": _Field(read_cnpj, "14 digits, or (since 2026) 12 digits and letters and 2 digits; with or without punctuation"),
    "address": _text(500),
    "city": _text(100),
    "state": _form("[A-Za-z]{2}", "two letters, as MT"),
    "zip_code": _form("[0-9]{8}", "eight digits (CEP), with or without hyphen"),
    "phone": _text(50),
    "email": _text(255),
    "website": _text(255),
    "logo_url": _text(1000),
}

ALLOWED: Mapping[str, str] = {column: field.allowed for column, field in _FIELDS.items()}
"""Columns that are given as text, and what is allowed in each."""


def read_fields(texts: Mapping[str, str]) -> tuple[dict[str, str | None], list[str]]:
    """The columns with their values, and a sentence for each that cannot be used. Empty text is nothing, where that may be."""
    values: dict[str, str | None] = {}
    wrong: list[str] = []
    for column, text in texts.items():
        try:
            values[column] = _FIELDS[column].read(text)
        except ValueError as error:
            wrong.append(f"{option(column)} {error}")
    return values, wrong


def option(column: str) -> str:
    """The name of a column on the command line."""
    return "--" + column.replace("_", "-")
