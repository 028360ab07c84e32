"""The table ``system_settings``, which people write as they like: ``true``, ``"False "``, ``1``, ``"12"``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from siorg_queue.database import Connection, transaction
from siorg_runtime.environment import BOOLEANS
from siorg_runtime.logs import logger

SYNC_ENABLED = "siorg.sync_enabled"
"""The switch that people have: while it is false, nothing is synchronised."""

STRICT_HIERARCHY = "siorg.hierarchy_strict_mode"
MAX_DEPTH = "units.max_hierarchy_depth"

BOOLEAN_WORDS = "true, false, on, off, yes, no, 1, 0"
"""What may stand for a boolean, in any case and with white space around it; for people."""


def as_boolean(value: object) -> bool | None:
    """The JSON value of a setting as a boolean; None: it is neither true nor false."""
    return BOOLEANS.get(str(value).strip().lower()) if isinstance(value, str | int) else None


def read_settings(connection: Connection, keys: Sequence[str]) -> dict[str, Any]:
    """The JSON values of these settings; what is not set is left out."""
    rows = connection.execute("SELECT key, value FROM system_settings WHERE key::text = ANY (%(keys)s)", {"keys": list(keys)})
    return {row["key"]: row["value"] for row in rows}


def is_enabled(connection: Connection) -> bool:
    """Whether ``siorg.sync_enabled`` is true; also where it is not set. What cannot be read is false, with a warning."""
    with transaction(connection):
        value = read_settings(connection, [SYNC_ENABLED]).get(SYNC_ENABLED)
    return read_boolean(SYNC_ENABLED, value, unset=True, unreadable=False)


def read_boolean(key: str, value: object, *, unset: bool, unreadable: bool) -> bool:
    """The setting as a boolean; ``unreadable`` (the careful side) with a warning where it is neither true nor false."""
    if value is None:
        return unset
    word = as_boolean(value)
    if word is not None:
        return word
    _warn(key, repr(value)[:80], BOOLEAN_WORDS, str(unreadable).lower())
    return unreadable


def read_whole_number(key: str, value: object, *, unset: int) -> int:
    """The setting as a positive whole number; ``unset`` where it is none, with a warning where something else stands there."""
    if value is None:
        return unset
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdecimal() and len(value.strip()) < 10:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    _warn(key, repr(value)[:80], "a whole number from 1", str(unset))
    return unset


@cache  # once a process and value, however often it is read
def _warn(key: str, found: str, allowed: str, used: str) -> None:
    logger("siorg_queue.system_settings").warning(
        f"The setting {key} cannot be read: it is {found}; allowed: {allowed}. Taken as {used}"
    )
