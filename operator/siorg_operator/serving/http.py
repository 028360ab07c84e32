"""``/healthz``, ``/readyz`` and ``/metrics`` over HTTP, for the kubelet and Prometheus.

Served by aiohttp on a thread and an event loop of its own, so that there is an answer also while the operator's loop is
stuck: that is when it matters. (kopf's own probe runs inside the operator's loop, and proves only that.)
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable
from functools import partial

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from siorg_operator.cli import UsageError
from siorg_operator.serving.health import Health
from siorg_runtime.logs import logger

_log = logger(__name__)
_silent = logging.getLogger(f"{__name__}.aiohttp")
_silent.disabled = True  # nonsense that somebody sends to the port is no news

_LONGEST_LINE = 8190  # bytes of the request line, and of each header
_CONNECTION_SECONDS = 10.0  # a request, its answer included, may take so long
_CONNECTIONS = 32  # at once; of more than that the oldest is closed, so that a probe always gets in


class HttpPortError(UsageError):
    """The port for probes and metrics cannot be opened: taken by another program, not allowed, or no address of ours."""


class HttpServer:
    """Serves from ``start`` until ``close``, one request a connection. To be used once."""

    def __init__(self, health: Health, registry: CollectorRegistry) -> None:
        self._health = health
        self._registry = registry
        self._loop: asyncio.AbstractEventLoop
        self._closing = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)

    def start(self, address: str, port: int) -> int:
        """Open the port (0: a free one) of an IP address of this machine (``::``: all) and serve; which port it is.

        Raises:
            HttpPortError: it cannot be opened.
        """
        ipv6 = ":" in address
        try:
            self._listening = socket.create_server(
                (address, port),
                family=socket.AF_INET6 if ipv6 else socket.AF_INET,
                backlog=64,
                dualstack_ipv6=ipv6 and socket.has_dualstack_ipv6(),
            )
        except OSError as error:
            raise HttpPortError(
                f"port {port} of {address} cannot be opened for probes and metrics: {error.strerror or error} "
                "(SIORG_OPERATOR_HTTP_ADDRESS, SIORG_OPERATOR_HTTP_PORT)"
            ) from error
        self._loop = asyncio.new_event_loop()
        self._thread.start()
        return int(self._listening.getsockname()[1])

    def close(self) -> None:
        """Stop serving. May be called twice, and when nothing was served."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._closing.set)
            self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        app = web.Application()
        app.router.add_get("/healthz", partial(_probe, self._health.why_not_alive))
        app.router.add_get("/readyz", partial(_probe, self._health.why_not_ready))
        app.router.add_get("/metrics", self._metrics)
        app.on_response_prepare.append(_one_request_a_connection)
        runner = web.AppRunner(
            app, access_log=None, logger=_silent, max_line_size=_LONGEST_LINE, max_field_size=_LONGEST_LINE, shutdown_timeout=1.0
        )  # fmt: skip
        await runner.setup()
        assert runner.server is not None
        loop, server = asyncio.get_running_loop(), runner.server

        def bounded() -> asyncio.Protocol:
            for oldest in server.connections[: 1 - _CONNECTIONS]:
                _cut(oldest)
            connection = server()
            loop.call_later(_CONNECTION_SECONDS, _cut, connection)
            return connection

        listener = await loop.create_server(bounded, sock=self._listening)
        await self._closing.wait()
        listener.close()
        await runner.cleanup()
        await asyncio.sleep(0)  # closed transports close their sockets in the loop's next round

    async def _metrics(self, _request: web.Request) -> web.Response:
        try:
            # On another thread: with hundreds of resources it takes longer than a probe likes to wait.
            text = await asyncio.to_thread(generate_latest, self._registry)
        except Exception:  # noqa: BLE001 - a collector may raise anything
            _log.exception("Metrics cannot be written")
            return web.Response(status=500, text="metrics cannot be written; the log says why\n")
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _probe(why_not: Callable[[], str | None], _request: web.Request) -> web.Response:
    wrong = why_not()
    return web.Response(text="ok\n") if wrong is None else web.Response(status=503, text=f"{wrong}\n")


async def _one_request_a_connection(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update({"Cache-Control": "no-store", "Connection": "close", "Server": "siorg-operator"})
    response.force_close()  # a connection that is kept would be cut some time, perhaps in the middle of a scrape


def _cut(connection: web.RequestHandler) -> None:
    if isinstance(connection.transport, asyncio.Transport):
        connection.transport.abort()
