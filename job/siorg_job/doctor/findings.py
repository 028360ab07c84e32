"""What a check finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from siorg_job.settings import Settings
from siorg_queue import Connection


class Level(StrEnum):
    """How much it matters."""

    OK = "ok"
    WARNING = "warning"
    """Something works otherwise than people may think."""
    ERROR = "error"
    """Something cannot work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    sentence: str
    """For a person."""
    remedy: str = ""
    """What to do, as SQL or as a command where that does it."""
    may_pass: bool = False
    """Of an error: it may be gone later, without anybody doing anything."""


Check: TypeAlias = Callable[[Connection, Settings], Iterator[Finding]]
"""Looks at one kind of thing, in transactions of its own, and leaves nothing behind."""


def ok(sentence: str) -> Finding:
    return Finding(Level.OK, sentence)


def warning(sentence: str, remedy: str = "") -> Finding:
    return Finding(Level.WARNING, sentence, remedy)


def error(sentence: str, remedy: str = "", *, may_pass: bool = False) -> Finding:
    return Finding(Level.ERROR, sentence, remedy, may_pass)
