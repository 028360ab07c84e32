"""What every command of ``siorg-operator`` keeps to: exit codes, wrong usage, what a person names."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from siorg_operator.api.resource import SiorgSyncWorker, read_file
from siorg_queue.address import check_database_url

DONE: Final = 0
USAGE: Final = 2
"""Wrong settings, resource or usage."""
TRY_LATER: Final = 75
"""Cluster or database unavailable."""

_LARGEST_FILE = 1_000_000  # bytes; etcd would not take a larger object either


class UsageError(Exception):
    """What was asked for cannot be done as it was asked; the message says what to do. Exit code 2."""


def read_resource(name: str) -> SiorgSyncWorker:
    """The resource in a file; ``-`` is standard input.

    Raises:
        UsageError: it cannot be read, or is no text.
        ResourceError: it is no valid resource.
    """
    try:
        data = sys.stdin.buffer.read(_LARGEST_FILE + 1) if name == "-" else Path(name).read_bytes()[: _LARGEST_FILE + 1]
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror or error}") from None
    if len(data) > _LARGEST_FILE:
        raise UsageError(f"{name}: larger than {_LARGEST_FILE} bytes")
    try:
        return read_file(data.decode())
    except UnicodeDecodeError:
        raise UsageError(f"{name}: is not UTF-8 text") from None


def database_url(environ: Mapping[str, str], advice: str) -> str:
    """``DATABASE_URL``; where it is not set, ``advice`` says what to do.

    Raises:
        UsageError: it is not set, or is no URL of a database.
    """
    url = environ.get("DATABASE_URL", "").strip()
    if not url:
        raise UsageError(f"DATABASE_URL is not set: {advice}")
    try:
        check_database_url(url)
    except ValueError as wrong:
        raise UsageError(f"DATABASE_URL {wrong}") from None
    return url
