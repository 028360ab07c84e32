"""What the kubelet and Prometheus ask of this process: ``/healthz``, ``/readyz``, ``/metrics``.

Answered by threads of their own, so that there is an answer also while the event loop is stuck: that is when it matters.
kopf's own probe runs inside the loop, and proves only that.

**Alive** (else the kubelet restarts us): the loop's heart beats, and no pass over a resource hangs. A standby is alive.
The database is no part of it, for a restart mends no database. **Ready**: a standby that reaches the API server, or a leader
that can list what it watches.
"""

from __future__ import annotations

import io
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from types import MappingProxyType
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from siorg_runtime.logs import logger

_log = logger(__name__)

_LONGEST_HEAD = 8192  # bytes of request line and headers
_CONNECTION_SECONDS = 10.0  # a request, its answer included, may take so long
_CONNECTIONS = 32  # at once; of more than that the oldest is closed, so that a probe always gets in
_NOT_PLAIN = re.compile(r"[^\x20-\x7e]")


# -- judging ----------------------------------------------------------------------------------------------------------


class Role(StrEnum):
    """What this process is, among the replicas."""

    STARTING = "starting"
    STANDBY = "standby"
    LEADER = "leader"


@dataclass(frozen=True, slots=True)
class HealthLimits:
    """How old things may be, in seconds."""

    beat: float = 20.0
    """The last sign of life of the event loop. It beats each second; a laden loop may be late."""
    cycle: float = 180.0
    """A pass over a resource. Each wait in it has a limit of its own, all of them together stay below this."""
    lease: float = 60.0
    """A standby's last answer from the API server."""


@dataclass(frozen=True, slots=True)
class HealthSnapshot:
    """What is known of the process at one moment. Times are those of one monotonic clock, in seconds."""

    role: Role = Role.STARTING
    since: float = 0.0
    """When it took that role."""
    beat: float | None = None
    passes: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """Passes in progress: what they are about, and when they began."""
    listed: bool = False
    """Whether everything that is watched could be listed."""
    tried: float | None = None
    """When the Lease was last asked for."""
    reached: bool = False
    """Whether the API server let us ask then."""


@dataclass(frozen=True, slots=True)
class Judgment:
    """Whether the process is alive and ready: None, or in one line why not."""

    not_alive: str | None = None
    not_ready: str | None = None


def judge(health: HealthSnapshot, now: float, limits: HealthLimits | None = None) -> Judgment:
    """Judge a process by what is known of it. Pure."""
    limits = limits or HealthLimits()
    if health.role is Role.STARTING:
        return Judgment(not_ready="the operator is starting")
    if health.role is Role.STANDBY:
        return Judgment(not_ready=_why_not_standing_by(health, now, limits))
    stuck = _what_is_stuck(health, now, limits)
    waiting = None if health.listed else "what is watched has not been listed yet"
    return Judgment(not_alive=stuck, not_ready=stuck or waiting)


def _what_is_stuck(health: HealthSnapshot, now: float, limits: HealthLimits) -> str | None:
    beat = max(health.since, health.beat if health.beat is not None else health.since)
    if now - beat > limits.beat:
        return f"the event loop is stuck: no sign of life for {now - beat:.0f} s (limit {limits.beat:g} s)"
    if health.passes:
        key, began = min(health.passes.items(), key=lambda one: (one[1], one[0]))
        if now - began > limits.cycle:
            return f"the pass over {key} is stuck: it began {now - began:.0f} s ago (limit {limits.cycle:g} s)"
    return None


def _why_not_standing_by(health: HealthSnapshot, now: float, limits: HealthLimits) -> str | None:
    tried = max(health.since, health.tried if health.tried is not None else health.since)
    if now - tried > limits.lease:
        return f"standby: the API server has not been asked for the Lease for {now - tried:.0f} s (limit {limits.lease:g} s)"
    if not health.reached:
        if health.tried is None:
            return "standby: not asked for the Lease yet"
        return "standby: the Lease cannot be asked for: no answer, or a refusal (the log says which)"
    return None


class Health:
    """Takes note of how this process fares. Safe to use from several threads; no call waits."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock``: monotonic seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        self._role = Role.STARTING
        self._since = clock()
        self._beat: float | None = None
        self._passes: dict[str, float] = {}
        self._listed = False
        self._tried: float | None = None
        self._reached = False

    def standing_by(self) -> None:
        """This replica waits for its turn to lead."""
        self._become(Role.STANDBY)

    def leading(self) -> None:
        """This replica leads; from now on the loop has to beat."""
        self._become(Role.LEADER)

    def lease_tried(self, *, reached: bool) -> None:
        """The Lease was asked for, and the API server let us, or did not."""
        with self._lock:
            self._tried, self._reached = self._clock(), reached

    def beat(self) -> None:
        """The event loop runs. To be called from it each second."""
        with self._lock:
            self._beat = self._clock()

    def pass_began(self, key: str) -> None:
        """A pass over the resource ``key`` began."""
        with self._lock:
            self._passes[key] = self._clock()

    def pass_ended(self, key: str) -> None:
        """That pass ended, in whichever way."""
        with self._lock:
            self._passes.pop(key, None)

    def listed(self) -> None:
        """Everything that is watched can be listed."""
        with self._lock:
            self._listed = True

    def snapshot(self) -> HealthSnapshot:
        """What is known at this moment."""
        with self._lock:
            return HealthSnapshot(
                self._role, self._since, self._beat, MappingProxyType(dict(self._passes)),
                self._listed, self._tried, self._reached,
            )  # fmt: skip

    def judged(self, limits: HealthLimits | None = None) -> Judgment:
        """Judge what is known at this moment."""
        return judge(self.snapshot(), self._clock(), limits)

    def _become(self, role: Role) -> None:
        with self._lock:
            if self._role is not role:
                self._role, self._since = role, self._clock()


# -- serving ----------------------------------------------------------------------------------------------------------


class ProbesPortError(Exception):
    """The port for probes and metrics cannot be opened: taken by another program, or not allowed, or no address of ours."""


class Probes:
    """The HTTP server. Serves from ``start`` until ``close``, in daemon threads."""

    def __init__(self, health: Health, registry: CollectorRegistry, *, limits: HealthLimits | None = None) -> None:
        """Answers from ``health``, and metrics from ``registry``."""
        self._answers = _Answers(health, registry, limits)
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self, address: str, port: int) -> int:
        """Open the port and serve.

        Args:
            address: an IP address of this machine; ``0.0.0.0`` or ``::`` for all.
            port: 0 takes a free one.

        Returns:
            The port.

        Raises:
            ProbesPortError: it cannot be opened.
            RuntimeError: it serves already.
        """
        if self._server is not None:
            raise RuntimeError("served already")
        try:
            self._server = _Server(address, port, self._answers)
        except OSError as error:
            reason = error.strerror or str(error)
            raise ProbesPortError(
                f"port {port} of {address} cannot be opened for probes and metrics: {reason} "
                "(SIORG_OPERATOR_HTTP_ADDRESS, SIORG_OPERATOR_HTTP_PORT)"
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.2,), name="probes", daemon=True)
        self._thread.start()
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop serving. May be called twice, and when nothing was served."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        if self._thread is not None:
            self._thread.join()
            self._thread = None


_Answer = tuple[int, str, bytes]


class _Answers:
    """What each path is answered with."""

    def __init__(self, health: Health, registry: CollectorRegistry, limits: HealthLimits | None) -> None:
        self._health = health
        self._registry = registry
        self._limits = limits

    def to(self, path: str) -> _Answer:
        match path:
            case "/healthz":
                return _probe(self._health.judged(self._limits).not_alive)
            case "/readyz":
                return _probe(self._health.judged(self._limits).not_ready)
            case "/metrics":
                return self._metrics()
            case _:
                return _plain(404, "not found; there are /healthz, /readyz and /metrics")

    def _metrics(self) -> _Answer:
        try:
            return 200, CONTENT_TYPE_LATEST, generate_latest(self._registry)
        except Exception as error:  # noqa: BLE001 - a collector may raise anything; the probes must go on
            _log.error("Metrics cannot be written", exc_info=error)
            return _plain(500, "metrics cannot be written; the log says why")


def _probe(wrong: str | None) -> _Answer:
    return _plain(200, "ok") if wrong is None else _plain(503, wrong)


def _plain(status: int, text: str) -> _Answer:
    return status, "text/plain; charset=utf-8", (_NOT_PLAIN.sub("?", text) + "\n").encode()


class _HeadTooLong(Exception):
    """Request line and headers are longer than what we read."""


class _Head(io.BufferedIOBase):
    """Lines of a request's head, up to a limit for all of them together."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        super().__init__()
        self._file = file
        self._left = _LONGEST_HEAD

    def readline(self, size: int | None = -1, /) -> bytes:
        limit = self._left + 1 if size is None or size < 0 else min(size, self._left + 1)
        line = self._file.readline(limit)
        self._left -= len(line)
        if self._left < 0:
            raise _HeadTooLong
        return line

    def close(self) -> None:
        self._file.close()
        super().close()


class _Request(BaseHTTPRequestHandler):
    """One request a connection: HTTP/1.0, as probes and scrapes need no more."""

    server: _Server
    server_version = "siorg-operator"
    sys_version = ""
    timeout = _CONNECTION_SECONDS
    # What send_error looks at, also when it refuses a head that was never taken apart.
    command = ""
    requestline = ""
    request_version = "HTTP/1.0"

    def setup(self) -> None:
        super().setup()
        self.rfile = _Head(self.rfile)

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except _HeadTooLong:
            self.close_connection = True
            self._send(_plain(431, f"request line and headers may have {_LONGEST_HEAD} bytes"))

    def do_GET(self) -> None:
        self._send(self.server.answers.to(self.path.partition("?")[0]))

    def do_HEAD(self) -> None:
        self.do_GET()

    def _send(self, answer: _Answer) -> None:
        status, kind, body = answer
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        """Say nothing: there is a probe every few seconds."""


class _Server(ThreadingTCPServer):
    """Threads, but not without limits: slow or silent clients are cut off, and never keep a probe out.

    Not http.server's class: that one asks the DNS for this host's name, which may take seconds.
    """

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True  # a container that is started again must not wait for old connections to be forgotten
    request_queue_size = 64

    def __init__(self, address: str, port: int, answers: _Answers) -> None:
        self.answers = answers
        self._open: dict[socket.socket, float] = {}
        self._open_lock = threading.Lock()
        if ":" in address:
            self.address_family = socket.AF_INET6
        super().__init__((address, port), _Request)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            with suppress(OSError, AttributeError):
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._open_lock:
            self._open[request] = time.monotonic()
            surplus = list(self._open)[:-_CONNECTIONS]
        for oldest in surplus:
            _cut(oldest)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._open_lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Cut off what takes too long; called several times a second."""
        now = time.monotonic()
        with self._open_lock:
            late = [request for request, since in self._open.items() if now - since > _CONNECTION_SECONDS]
        for request in late:
            _cut(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that went away is no event."""


def _cut(request: socket.socket) -> None:
    with suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)
