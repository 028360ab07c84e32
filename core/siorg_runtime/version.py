"""The version that runs, looked up once."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed


@cache
def version() -> str:
    """Return the version of the installed distribution ``siorg-sync``; ``0+unknown`` where it is not installed."""
    try:
        return installed("siorg-sync")
    except PackageNotFoundError:
        return "0+unknown"
