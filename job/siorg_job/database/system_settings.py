"""The table ``system_settings`` of the database, read as people write it: ``true``, ``"False "``, ``"12"``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from siorg_queue import Connection
from siorg_queue.system_settings import BOOLEAN_WORDS, SYNC_ENABLED, as_boolean
from siorg_runtime.logs import logger

__all__ = ["MAX_DEPTH", "STRICT_HIERARCHY", "SYNC_ENABLED", "read_boolean", "read_settings", "read_whole_number"]

STRICT_HIERARCHY = "siorg.hierarchy_strict_mode"
MAX_DEPTH = "units.max_hierarchy_depth"


def read_settings(connection: Connection, keys: Sequence[str]) -> dict[str, Any]:
    """The JSON values of these settings; what is not set is left out."""
    rows = connection.execute("SELECT key, value FROM system_settings WHERE key = ANY (%(keys)s)", {"keys": list(keys)})
    return {row["key"]: row["value"] for row in rows}


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
    logger("siorg_job.database.system_settings").warning(
        f"The setting {key} cannot be read: it is {found}; allowed: {allowed}. Taken as {used}"
    )
