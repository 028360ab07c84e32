"""How what PostgreSQL can hold becomes a value here, whatever it is: one row that Python has no value for is no error of all.

A time is an aware one, in UTC: the zone of the session has an hour that comes twice, in which two times of one zone would be
compared by the wall clock. What no calendar of Python has (``infinity``, the year 10001, before Christ) is the latest, or the
earliest, that it has: the order stays. JSON that it cannot hold is ``Unreadable``, which is not NULL.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import psycopg
from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import Loader
from psycopg.types.json import set_json_loads

EARLIEST: Final = datetime.min.replace(tzinfo=UTC)
LATEST: Final = datetime.max.replace(tzinfo=UTC)

_DEEPEST = 100  # levels of JSON: the interpreter's limit counts the caller's frames too, and what is read is also written again
_OPENING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
_ISO = re.compile(r"(\d{4,})-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?[-+]\d\d(?::\d\d){0,2}( BC)?\Z")


@dataclass(frozen=True, slots=True, repr=False)
class Unreadable:
    """A JSON value that cannot be held here, in its place; false, and no object, list, text or number to who looks."""

    reason: str
    """What of it, for people."""

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return f"(cannot be read: {self.reason})"


def register(context: AdaptContext) -> None:
    """Let a connection read times and JSON so."""
    set_json_loads(_load_json, context)
    context.adapters.register_loader("timestamptz", _TimeLoader)


def _load_json(data: str | bytes) -> Any:
    text = data if isinstance(data, bytes) else data.encode()
    if text.count(b"{") + text.count(b"[") > _DEEPEST and _depth(text) > _DEEPEST:
        return Unreadable(f"JSON nested deeper than {_DEEPEST} levels")
    try:
        return _DECODER.decode(text.decode())
    except ValueError:  # all else is valid: PostgreSQL has read it
        return Unreadable("JSON with a number that is too large")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError
    return number


_DECODER = json.JSONDecoder(parse_float=_finite)


def _depth(text: bytes) -> int:
    depth = deepest = 0
    for found in _OPENING.finditer(text):
        match found[0]:
            case b"{" | b"[":
                depth += 1
                deepest = max(deepest, depth)
            case b"}" | b"]":
                depth -= 1
    return deepest


class _TimeLoader(Loader):
    def load(self, data: Buffer) -> datetime:
        text = bytes(data).decode()
        if text in ("infinity", "-infinity"):
            return LATEST if text == "infinity" else EARLIEST
        found = _ISO.match(text)
        if found is None:
            raise psycopg.DataError(f"a time is not in ISO form ({text[:40]!r}): the setting datestyle has to be ISO")
        if found[2] is not None or len(found[1]) > 4:
            return LATEST if found[2] is None else EARLIEST
        moment = datetime.fromisoformat(text)
        try:
            return moment.astimezone(UTC)
        except OverflowError:
            return LATEST if moment.year > 1 else EARLIEST
