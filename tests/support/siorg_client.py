"""The client of SIORG beside a server that answers as a script says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

from siorg_job.siorg.breaker import Breaker
from siorg_job.siorg.client import SiorgClient
from siorg_job.siorg.errors import SiorgError
from siorg_job.siorg.transport import Transport
from support.scripted_server import Script, ScriptedServer, envelope, reply, unit_row

TOKEN = "tok-3f9a-very-secret"
WHOLE = envelope(value=unit_row(471))
UNIT = reply(200, WHOLE)

_OF_THE_CLIENT = {"breaker", "timeout_seconds", "max_structure_seconds", "observe_error", "retries"}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Recorder:
    """A limiter that remembers what was asked of it, and never makes anyone wait."""

    def __init__(self) -> None:
        self.waits = 0
        self.pauses: list[float] = []

    async def wait(self) -> None:
        self.waits += 1

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)


def client_of(url: str, **settings: Any) -> SiorgClient:
    """A client that asks once and has a patient breaker, unless told otherwise."""
    own = {key: settings.pop(key) for key in _OF_THE_CLIENT & settings.keys()}
    transport = Transport(url, **{"limiter": Recorder(), **settings})
    return SiorgClient(transport, **{"breaker": Breaker(1000, 60.0, 60.0), "retries": 0, "timeout_seconds": 10.0, **own})


@asynccontextmanager
async def asking(script: Script, **settings: Any) -> AsyncIterator[tuple[ScriptedServer, SiorgClient]]:
    """A server with this script, and a client that asks it."""
    async with ScriptedServer(script) as server, client_of(server.url, **settings) as client:
        yield server, client


async def error_of(question: Awaitable[object]) -> SiorgError | None:
    """What a question brought that was not an answer."""
    try:
        await question
    except SiorgError as error:
        return error
    return None
