"""What the settings, and the memory that there is, make of the client."""

from __future__ import annotations

from typing import Any

import pytest

from siorg_job import siorg_session
from siorg_job.settings import Settings
from siorg_job.siorg.rate_limiter import Unlimited
from siorg_job.siorg.transport import Transport

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("memory", "setting", "expected"),
    [
        (None, 64 * MIB, 64 * MIB),
        (4096 * MIB, 64 * MIB, 64 * MIB),
        (512 * MIB, 64 * MIB, 64 * MIB),  # what Jobs have
        (512 * MIB, 1024 * MIB, 64 * MIB),
        (512 * MIB, 1 * MIB, 1 * MIB),
        (224 * MIB, 64 * MIB, 16 * MIB),
        (64 * MIB, 64 * MIB, 1 * MIB),  # never so little that a unit could not be read
    ],
)
def test_the_largest_answer_follows_the_memory_limit(
    memory: int | None, setting: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Transport] = []

    def transport(url: str, **settings: Any) -> Transport:
        made.append(Transport(url, **settings))
        return made[-1]

    monkeypatch.setattr("siorg_runtime.memory.limit", lambda: memory)
    monkeypatch.setattr(siorg_session, "Transport", transport)
    environment = {"DATABASE_URL": "postgresql://a:b@c/d", "SIORG_MAX_BODY_BYTES": str(setting)}
    given = Settings.from_environment(environment)
    siorg_session.client_for(given, Unlimited(), siorg_session.breaker_for(given))
    assert [one.max_body_bytes for one in made] == [expected]
