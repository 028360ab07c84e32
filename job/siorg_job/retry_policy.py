"""The queue's retry policy as the settings want it: for the commands, which import little, and for the drain."""

from __future__ import annotations

from siorg_job.settings import Settings
from siorg_queue import RetryPolicy


def retry_policy(settings: Settings) -> RetryPolicy:
    """The settings' own words for the queue's policy."""
    return RetryPolicy(
        settings.worker_max_retries,
        settings.worker_retry_base_delay_ms / 1000,
        settings.worker_retry_max_delay_ms / 1000,
    )
