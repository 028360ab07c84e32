"""The HTTP server: one handler for everything, weather around the answers, control beside them."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hmac
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from aiohttp import web

from siorg_simulator import control
from siorg_simulator.answers import HTML_TYPE, JSON_TYPE, Envelope, Reply, ReturnCode, page
from siorg_simulator.endpoints import endpoint_of, not_acceptable
from siorg_simulator.faults import Fault, FaultKind
from siorg_simulator.request_log import Entry, RequestLog
from siorg_simulator.simulation import Simulation

_REASONS = {401: "Unauthorized", 405: "Method Not Allowed", 429: "Too Many Requests", 500: "Internal Server Error"} | {
    502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout"
}  # fmt: skip

_COMPRESS_FROM_BYTES = 512
"""Smaller bodies would not gain by compression."""

_IN_THREAD_FROM_BYTES = 256 * 1024
"""Bodies from this size on are compressed in a thread, so that other requests go on."""

_GARBAGE = (
    (
        HTML_TYPE,
        "<!DOCTYPE html>\n<html><head><title>Manutenção</title></head><body>Em manutenção</body></html>\n".encode(),
    ),
    (JSON_TYPE, '{"servico":{"codigoErro":0,"mensagem":"Processação'.encode("latin-1")),
    (JSON_TYPE, b'{"timestamp":"2026-01-01T00:00:00","status":200,"path":"/doc"}'),
    (JSON_TYPE, b"\x1f\x8b\x00\x00\xff\xfe\xfd garbage"),
)


class Server:
    """Answers requests for one simulation."""

    def __init__(self, simulation: Simulation, log: RequestLog) -> None:
        self._simulation = simulation
        self._log = log
        self._building = asyncio.Lock()
        self._garbage_turn = 0

    def application(self) -> web.Application:
        """The aiohttp application."""
        application = web.Application(client_max_size=64 * 1024 * 1024)
        # One route: SIORG's suffixes and aliases are decided in `endpoints`, where they can be tested without HTTP.
        application.router.add_route("*", "/{path:.*}", self._handle)
        return application

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if request.path.startswith(control.PREFIX):
            return await control.handle(self._simulation, request)
        started = time.perf_counter()
        entry = Entry(
            time=datetime.now(UTC).isoformat(timespec="milliseconds"),
            method=request.method,
            path=request.path,
            query=dict(request.query),
            endpoint=endpoint_of(request.path),
            authorized=self._is_authorized(request),
        )
        try:
            return await self._answer(request, entry)
        finally:
            entry.duration_ms = (time.perf_counter() - started) * 1000
            self._simulation.counts.add(entry)
            self._log.write(entry)

    async def _answer(self, request: web.Request, entry: Entry) -> web.StreamResponse:
        simulation = self._simulation
        delay = simulation.next_latency()
        if delay:
            await asyncio.sleep(delay)
        if simulation.down:
            return self._sent(page(503, _REASONS[503]), entry)
        if not entry.authorized:
            return self._sent(page(401, _REASONS[401]), entry)
        fault = simulation.next_fault()
        if fault is None:
            return self._sent(await self._reply(request), entry, compressed=_wants_gzip(request))
        entry.fault = fault.name
        return await self._faulty(request, entry, fault)

    async def _faulty(self, request: web.Request, entry: Entry, fault: Fault) -> web.StreamResponse:
        match fault.kind:
            case FaultKind.STATUS:
                return self._sent(page(fault.status, _REASONS.get(fault.status, "Error")), entry)
            case FaultKind.EMPTY:
                return self._sent(Reply(200, JSON_TYPE, b""), entry)
            case FaultKind.GARBAGE:
                content_type, body = _GARBAGE[self._garbage_turn % len(_GARBAGE)]
                self._garbage_turn += 1
                return self._sent(Reply(200, content_type, body), entry)
            case FaultKind.ERROR:
                envelope = Envelope(_today(), request.remote, self._simulation.site.quirks)
                ticket = f"SIM{self._simulation.counts.by_endpoint.total():09d}"
                return self._sent(envelope.error(ReturnCode.GENERAL, ticket=ticket), entry)
            case FaultKind.TIMEOUT:
                # A client that gives up ends the wait: its handler is cancelled.
                await asyncio.sleep(self._simulation.timeout_hold)
                _close(request, reset=False)
                return web.Response()
            case FaultKind.RESET:
                _close(request, reset=True)
                return web.Response()
            case FaultKind.TORN:
                return await self._torn(request, entry)

    async def _torn(self, request: web.Request, entry: Entry) -> web.StreamResponse:
        """Half of the body that its Content-Length announces, then the end of the connection."""
        reply = await self._reply(request)
        headers = _headers(reply, compressed=_wants_gzip(request))
        response = web.StreamResponse(status=reply.status, headers={**headers, "Content-Length": str(len(reply.body))})
        half = reply.body[: len(reply.body) // 2]
        entry.status, entry.bytes = reply.status, len(half)
        with contextlib.suppress(ConnectionError):
            await response.prepare(request)
            await response.write(half)
        _close(request, reset=False)
        return response

    def _sent(self, reply: Reply, entry: Entry, *, compressed: bool = False) -> web.Response:
        entry.status, entry.bytes = reply.status, len(reply.body)
        headers = _headers(reply, compressed=compressed)
        if reply.status in (429, 503) and self._simulation.retry_after is not None:
            headers["Retry-After"] = str(self._simulation.retry_after)
        if reply.status == 401:
            headers["WWW-Authenticate"] = 'Bearer realm="siorg"'
        return web.Response(status=reply.status, body=reply.body, headers=headers)

    async def _reply(self, request: web.Request) -> Reply:
        """The answer in fair weather, compressed if that was asked for."""
        if request.method not in ("GET", "HEAD"):
            return page(405, _REASONS[405])
        if _wants_xml(request):
            return not_acceptable()
        compressed = _wants_gzip(request)
        key = (request.path_qs, _today(), request.remote, compressed)
        found = self._simulation.cache.get(key)
        if found is not None:
            return found
        if not _is_list(request.path):
            reply = self._build(request)
            if compressed:
                reply = _compress(reply)
            self._simulation.cache.put(key, reply)
            return reply
        # Several clients often want the same list at once: the first builds it, the others find it.
        async with self._building:
            cache = self._simulation.cache
            found = cache.get(key)
            if found is not None:
                return found
            reply = await asyncio.to_thread(self._build, request)
            if compressed:
                reply = await _compress_aside(reply)
            cache.put(key, reply)
        return reply

    def _build(self, request: web.Request) -> Reply:
        return self._simulation.site.answer(request.path, dict(request.query), date=_today(), caller=request.remote)

    def _is_authorized(self, request: web.Request) -> bool:
        if self._simulation.token is None:
            return True
        given = request.headers.get("Authorization", "")
        return hmac.compare_digest(given.encode(), f"Bearer {self._simulation.token}".encode())


async def serve(
    simulation: Simulation,
    log: RequestLog,
    *,
    host: str,
    port: int,
    ready: Callable[[str, int], None],
    stop: asyncio.Event,
) -> None:
    """Listen until told to stop.

    Args:
        simulation: What to serve.
        log: Where requests are noted.
        host: Address to listen on.
        port: Port to listen on; 0 for any free one.
        ready: Called with the address and the port once requests are answered.
        stop: Ends it, at once: requests in the middle are cut off.

    Raises:
        OSError: The address cannot be listened on.
    """
    runner = web.AppRunner(
        Server(simulation, log).application(), access_log=None, handler_cancellation=True, shutdown_timeout=0.05
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, backlog=1024)
        await site.start()
        address = runner.addresses[0]
        ready(address[0], address[1])
        await stop.wait()
    finally:
        await runner.cleanup()


def _headers(reply: Reply, *, compressed: bool) -> dict[str, str]:
    headers = {"Content-Type": reply.content_type}
    if reply.location is not None:
        headers["Location"] = reply.location
    if compressed and reply.body[:2] == b"\x1f\x8b":
        headers["Content-Encoding"] = "gzip"
    return headers


def _compress(reply: Reply) -> Reply:
    if len(reply.body) < _COMPRESS_FROM_BYTES:
        return reply
    return replace(reply, body=gzip.compress(reply.body, compresslevel=5, mtime=0))


async def _compress_aside(reply: Reply) -> Reply:
    if len(reply.body) < _IN_THREAD_FROM_BYTES:
        return _compress(reply)
    return await asyncio.to_thread(_compress, reply)


def _close(request: web.Request, *, reset: bool) -> None:
    transport = request.transport
    if transport is None:
        return
    if not reset:
        transport.close()
        return
    connection = transport.get_extra_info("socket")
    if connection is not None:
        # With a linger of zero seconds the kernel answers with RST instead of FIN.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _wants_gzip(request: web.Request) -> bool:
    for part in request.headers.get("Accept-Encoding", "").split(","):
        name, _, weight = part.partition(";")
        if name.strip().lower() in ("gzip", "*"):
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def _wants_xml(request: web.Request) -> bool:
    accept = request.headers.get("Accept", "").lower()
    return "xml" in accept and "json" not in accept and not request.path.endswith(".json")


def _is_list(path: str) -> bool:
    return path.startswith(("/doc/estrutura-organizacional", "/doc/orgao-entidade")) or "/alteradas" in path


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
