"""What one run is, handed to everything that takes part in it, and how it ends before its work does."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Literal

from siorg_job.run_summary import RunSummary
from siorg_job.settings import Settings


@dataclass(frozen=True, slots=True)
class Run:
    """One run of ``siorg-job run``, in one event loop."""

    settings: Settings
    summary: RunSummary = field(default_factory=RunSummary)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the process is asked to end."""
    forever: bool = False
    """Poll for ever instead of ending when nothing is left, and clean up at an interval."""


class GiveUp(Exception):
    """The run cannot go on now: try again later (exit 75). The message says what is unavailable."""

    def __init__(self, reason: Literal["database_unavailable", "siorg_unavailable", "siorg_rate_limited"], message: str) -> None:
        """``reason``: the summary's word for it."""
        super().__init__(message)
        self.reason = reason
