"""What is stored of SIORG's answers (``siorg_raw_data``): the base of the next merge. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from siorg_job.siorg.rows import parse_stored
from siorg_job.siorg.values import normalise

_CONTACTS = (("telefone", "phones"), ("email", "emails"), ("site", "websites"))


def next_base(stored: Mapping[str, Any] | None, answer: str) -> dict[str, Any]:
    """The stored row after ``answer`` (JSON text of a unit): what was said replaces, what was not said stays.

    Kinds of contact are fields by themselves although they share the key ``contato``: a kind that the answer leaves out
    stays too, as an entry of its own.
    """
    said = {key: value for key, value in json.loads(answer).items() if _says_something(value)}
    raw: dict[str, Any] = {**(stored or {}), **said}
    raw.pop("operacao", None)  # what happened, not how the unit is
    if stored and "contato" in said:
        before, after = parse_stored(stored), parse_stored(raw)
        left_out = [
            {key: list(getattr(before, name))}
            for key, name in _CONTACTS
            if before is not None and getattr(before, name) and getattr(after, name, ()) is None
        ]
        if left_out:
            contacts = said["contato"] if isinstance(said["contato"], list) else [said["contato"]]
            raw["contato"] = [*contacts, *left_out]
    return raw


def _says_something(value: Any) -> bool:
    return bool(normalise(value)) if isinstance(value, str) else value not in (None, [])


def ended_base(stored: Mapping[str, Any] | None) -> dict[str, Any]:
    """The stored row once SIORG has ended it."""
    return {**(stored or {}), "operacao": "EXCLUSAO"}
