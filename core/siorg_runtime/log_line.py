"""The one form of a log line, of job and operator alike: so one query finds both."""

from __future__ import annotations

import json
import logging
import re
import time
import traceback
from collections.abc import Mapping
from typing import Final

RESERVED: Final = frozenset({"timestamp", "level", "target", "message"})
"""Keys that every entry has. A field with one of these names gets a trailing underscore."""

LONGEST_TEXT: Final = 16_384
"""Characters of one text: a body that ends up in an error must not flood the log."""

# Everything that some reader takes for the end of a line, or that a terminal would obey.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_CONTROL_BUT_JSON_DOES_IT = re.compile(r"[\x7f-\x9f\u2028\u2029]")
_ESCAPES = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_BARE = re.compile(r"[^\s\"=]+")


def as_json(entry: Mapping[str, object], encoding: str) -> str:
    """An entry as one line of JSON that ``encoding`` can write."""
    ascii_only = encoding.lower().replace("-", "").replace("_", "") != "utf8"
    text = json.dumps(entry, ensure_ascii=ascii_only, separators=(",", ":"))
    return _CONTROL_BUT_JSON_DOES_IT.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def as_text_line(entry: Mapping[str, object]) -> str:
    """An entry as one line for people."""
    head = f"{entry['timestamp']} {entry['level']:>5} {entry['target']}: {entry['message']}"
    fields = (f"{name}={_shown(value)}" for name, value in entry.items() if name not in RESERVED)
    return _CONTROL.sub(_escaped, " ".join((head, *fields)))


def _shown(value: object) -> str:
    if isinstance(value, str):
        return value if _BARE.fullmatch(value) else json.dumps(value, ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    return _ESCAPES.get(character) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def timestamp(seconds: float) -> str:
    """RFC 3339, UTC, milliseconds."""
    milliseconds = round(seconds * 1000)
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(milliseconds // 1000))
    return f"{whole}.{milliseconds % 1000:03d}Z"


def level_name(severity: int) -> str:
    """DEBUG, INFO, WARN or ERROR."""
    if severity >= logging.ERROR:
        return "ERROR"
    if severity >= logging.WARNING:
        return "WARN"
    return "INFO" if severity >= logging.INFO else "DEBUG"


def traceback_of(error: BaseException) -> str:
    """The traceback as text; never raises."""
    try:
        return "".join(traceback.format_exception(error)).rstrip()
    except Exception:  # noqa: BLE001 - an exception whose parts cannot be shown
        return f"<no traceback of {type(error).__name__}>"
