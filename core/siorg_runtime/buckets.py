"""Bounds of histograms that job and operator share."""

from __future__ import annotations

from typing import Final

ITEM_SECONDS: Final = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
)  # fmt: skip
"""How long an item takes, in seconds: from a small answer on a good day to WORKER_ITEM_TIMEOUT_SECS."""
