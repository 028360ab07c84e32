"""The SIORG client as the settings want it, and the memory allows: one place where settings become a client."""

from __future__ import annotations

import sys
from collections.abc import Callable

from siorg_job.settings import Settings
from siorg_job.siorg.breaker import Breaker
from siorg_job.siorg.client import ErrorObserver, SiorgClient
from siorg_job.siorg.rate_limiter import RateLimiter
from siorg_job.siorg.transport import CallObserver, Transport, ignore
from siorg_runtime import memory

_LONGEST_COOLDOWN_SECONDS = 60.0
_OTHERWISE_BYTES = 128 * 1024 * 1024  # what a run takes without any large answer, and some air
_ANSWERS = 6  # large answers' sizes at a time: one received, its units (2), those that are cached (1, or the newest with 2), air
_LEAST_ANSWER_BYTES = 1024 * 1024


def breaker_for(settings: Settings) -> Breaker:
    cooldown = settings.siorg_breaker_cooldown_secs
    return Breaker(settings.siorg_breaker_failures, cooldown, max(cooldown, _LONGEST_COOLDOWN_SECONDS))


def largest_answer(memory_limit: int | None) -> int:
    """The largest body, in bytes, that a process with so many bytes of memory can read; what cannot be read is no answer."""
    if memory_limit is None:
        return sys.maxsize
    return max((memory_limit - _OTHERWISE_BYTES) // _ANSWERS, _LEAST_ANSWER_BYTES)


def client_for(
    settings: Settings,
    limiter: RateLimiter,
    breaker: Breaker,
    *,
    structure_breaker: Breaker | None = None,
    observe: CallObserver = ignore,
    observe_error: ErrorObserver = ignore,
    observe_answer: Callable[[str], object] = ignore,
) -> SiorgClient:
    """A client that has connected to nothing yet."""
    transport = Transport(
        settings.siorg_api_url,
        limiter=limiter,
        token=settings.siorg_api_token.get_secret_value() if settings.siorg_api_token else None,
        connect_timeout_seconds=settings.siorg_connect_timeout_secs,
        max_body_bytes=min(settings.siorg_max_body_bytes, largest_answer(memory.limit())),
        max_connections=settings.requests_at_once + 2,  # a probe and a table beside the items
        ca_bundle=settings.siorg_ca_bundle,
        observe=observe,
    )
    return SiorgClient(
        transport,
        breaker=breaker,
        structure_breaker=structure_breaker,
        timeout_seconds=settings.siorg_timeout_secs,
        observe_error=observe_error,
        observe_answer=observe_answer,
    )
