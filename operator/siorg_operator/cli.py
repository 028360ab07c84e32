"""What every command of ``siorg-operator`` keeps to: exit codes, wrong usage, what a person names."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

DONE: Final = 0
ERROR: Final = 1
USAGE: Final = 2
"""Wrong settings, resource or usage."""
TRY_LATER: Final = 75
"""Cluster or database unavailable."""

_LARGEST_FILE = 1_000_000  # bytes; etcd would not take a larger object either


class UsageError(Exception):
    """What was asked for cannot be done as it was asked; the message says what to do. Exit code 2."""


def read_text(name: str) -> str:
    """The text of a file; ``-`` is standard input. ``UsageError``: it cannot be read, or is no text."""
    try:
        data = sys.stdin.buffer.read(_LARGEST_FILE + 1) if name == "-" else Path(name).read_bytes()[: _LARGEST_FILE + 1]
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror or error}") from None
    if len(data) > _LARGEST_FILE:
        raise UsageError(f"{name}: larger than {_LARGEST_FILE} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise UsageError(f"{name}: is not UTF-8 text") from None
