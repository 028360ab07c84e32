"""HTTP sessions for kopf, which has no other way to the API server than the rest of this process."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import aiohttp
from kubernetes import client
from yarl import URL

from siorg_operator.cluster.endpoint import tls
from siorg_operator.cluster.pace import Pace
from siorg_operator.serving.health import Health

_LONGEST_PAUSE_SECONDS: Final = 30.0
_SESSION_LASTS_SECONDS: Final = 60.0
_WATCH_LASTS_SECONDS: Final = 2.0


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
        self.listed: Callable[[], object] = lambda: None
        """Is called for each listing that begins, the first ones too: what was deleted before it no watch will tell."""
        self._refused = False
        self._logins = Pace(1.0, _LONGEST_PAUSE_SECONDS, _SESSION_LASTS_SECONDS)
        self._requests = defaultdict[tuple[str, bool], Pace](partial(Pace, 0.1, _LONGEST_PAUSE_SECONDS, _WATCH_LASTS_SECONDS))

    @property
    def server(self) -> str:
        """The address of the API server."""
        return str(self._configuration.host)

    async def open(self) -> aiohttp.ClientSession:
        """A session with the token as it is by now.

        After a token that was refused it waits first, longer each time: the next one may be refused for a while as well.
        """
        if self._refused:
            self._refused = False
            await asyncio.sleep(self._logins.pause())
        configuration = self._configuration
        # On a thread: it reads a file, and a kubeconfig may name a program to ask.
        token = await asyncio.to_thread(configuration.get_api_key_with_prefix, "BearerToken")
        secure = await asyncio.to_thread(tls, configuration) if self.server.startswith("https:") else True
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
        url = request.url
        if _begins(url):  # a watch that is answered and ends at once kopf would ask for again at once, and again, without end
            await asyncio.sleep(self._requests[url.path, _is_watch(url)].pause())
        self._health.asked(url.name)  # the last part of the path: a kind's plural

    async def _answered(self, _session: Any, _context: Any, request: aiohttp.TraceRequestEndParams) -> None:
        self._refused = self._refused or request.response.status == 401
        if request.response.ok:
            self._health.answered(request.url.name)
            if "limit" in request.url.query and _begins(request.url):
                self.listed()


def _is_watch(url: URL) -> bool:
    return "watch" in url.query


def _begins(url: URL) -> bool:
    """Whether it is no further page of a listing."""
    return "continue" not in url.query
