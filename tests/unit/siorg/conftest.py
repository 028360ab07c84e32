"""How the client's tests ask."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from siorg_job.siorg.breaker import Breaker
from siorg_job.siorg.client import SiorgClient
from siorg_job.siorg.rate_limiter import Unlimited


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, None]], None]:
    """Runs a scenario to its end; a minute is far beyond what any should take."""

    def runner(scenario: Coroutine[Any, Any, None]) -> None:
        async def limited() -> None:
            async with asyncio.timeout(60):
                await scenario

        asyncio.run(limited())

    return runner


@pytest.fixture
def client_of() -> Callable[..., SiorgClient]:
    """Makes a client that asks once and has a patient breaker, unless told otherwise."""

    def make(url: str, **settings: Any) -> SiorgClient:
        defaults: dict[str, Any] = {
            "limiter": Unlimited(),
            "breaker": Breaker(1000, 60.0, 60.0),
            "retries": 0,
            "timeout_seconds": 10.0,
        }
        return SiorgClient(url, **{**defaults, **settings})

    return make
