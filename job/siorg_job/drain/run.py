"""What one run is: handed to everything that takes part in it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from siorg_job.run_summary import RunSummary
from siorg_job.settings import Settings


@dataclass(frozen=True, slots=True)
class Run:
    """One run of ``siorg-job run``, in one event loop."""

    settings: Settings
    summary: RunSummary = field(default_factory=RunSummary)
    """Counts what is done."""
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the process is asked to end."""
    forever: bool = False
    """Poll for ever instead of ending when nothing is left, and clean up at an interval."""
