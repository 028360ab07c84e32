"""How a run ends before its work does: imported without what the work needs."""

from __future__ import annotations

from typing import Literal


class GiveUp(Exception):
    """The run cannot go on now: try again later (exit 75). The message says what is unavailable."""

    def __init__(self, reason: Literal["database_unavailable", "siorg_unavailable", "siorg_rate_limited"], message: str) -> None:
        """``reason``: the summary's word for it."""
        super().__init__(message)
        self.reason = reason


class CannotStart(Exception):
    """This process cannot begin as it is set (exit 1); the message names the setting."""
