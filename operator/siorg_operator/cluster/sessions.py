"""HTTP sessions for kopf, which has no other way to the API server than the rest of this process."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import aiohttp
from kubernetes import client

from siorg_operator.cluster.endpoint import tls
from siorg_operator.serving.health import Health
from siorg_runtime.backoff import exponential

_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 30.0
_CALM_SECONDS: Final = 60.0


class Sessions:
    """One after the other: kopf asks for a new one when the API server refuses its token."""

    def __init__(self, configuration: client.Configuration, health: Health) -> None:
        """Prepare.

        Args:
            configuration: of every client, see ``endpoint``.
            health: takes note of each list and watch, and of its answer.
        """
        self._configuration = configuration
        self._health = health
        self._refused = 0
        self._opened_at = -_CALM_SECONDS

    @property
    def server(self) -> str:
        """The address of the API server."""
        return str(self._configuration.host)

    async def open(self) -> aiohttp.ClientSession:
        """A session with the token as it is by now.

        Asked again soon, it waits first, longer each time: a token that is refused may be refused for a while.
        """
        self._refused = self._refused + 1 if time.monotonic() - self._opened_at < _CALM_SECONDS else 0
        if self._refused:
            await asyncio.sleep(exponential(self._refused, _FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS))
        configuration = self._configuration
        # On a thread: it reads a file, and a kubeconfig may name a program to ask.
        token = await asyncio.to_thread(configuration.get_api_key_with_prefix, "BearerToken")
        secure = await asyncio.to_thread(tls, configuration) if self.server.startswith("https:") else True
        self._opened_at = time.monotonic()
        trace = aiohttp.TraceConfig()
        trace.on_request_start.append(self._asked)
        trace.on_request_end.append(self._answered)  # once the headers are there: a watch may have no news for long
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=secure),
            headers={"Authorization": token} if token else {},
            proxy=configuration.proxy or None,
            trace_configs=[trace],
        )

    async def _asked(self, _session: Any, _context: Any, request: aiohttp.TraceRequestStartParams) -> None:
        self._health.asked(request.url.name)  # the last part of the path: a kind's plural

    async def _answered(self, _session: Any, _context: Any, request: aiohttp.TraceRequestEndParams) -> None:
        if request.response.ok:
            self._health.answered(request.url.name)
