"""Probes and metrics over real HTTP."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter

from siorg_operator.serving import http as serving
from siorg_operator.serving.health import Health
from siorg_operator.serving.http import HttpPortError, HttpServer


class Served:
    """A server with its health and its metrics."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.health = Health(clock=lambda: self.now)
        self.registry = CollectorRegistry()
        self.server = HttpServer(self.health, self.registry)
        self.port = self.server.start("127.0.0.1", 0)

    def ask(self, path: str, method: str = "GET") -> tuple[int, str]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def send(self, data: bytes, *, more: bool = False) -> bytes:
        """What comes back until the server hangs up; ``more``: the client would go on."""
        received = b""
        with self.connect() as client, suppress(ConnectionError):
            client.sendall(data)
            if not more:
                client.shutdown(socket.SHUT_WR)
            while chunk := client.recv(65_536):
                received += chunk
        return received


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served()
    yield served
    served.server.close()


def test_probes_answer_what_is_judged(served: Served) -> None:
    assert served.ask("/healthz") == (200, "ok\n")
    assert served.ask("/readyz") == (503, "the operator is starting\n")
    served.health.standing_by()
    assert served.ask("/readyz") == (503, "standby: not asked for the Lease yet\n")
    served.health.leading([])
    assert served.ask("/readyz?verbose=1") == (200, "ok\n")
    assert served.ask("/healthz", "HEAD") == (200, "")
    served.now += 21
    assert served.ask("/healthz") == (503, "the event loop is stuck: no sign of life for 21 s (limit 20 s)\n")


def test_metrics_are_those_of_the_registry_and_one_that_cannot_be_written_does_not_end_the_server(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def collect(self) -> Any:
            raise RuntimeError("no")

    Counter("siorg_operator_tests", "Tests", registry=served.registry).inc(3)
    status, text = served.ask("/metrics")
    assert status == 200
    assert "siorg_operator_tests_total 3.0" in text.splitlines()
    served.registry.register(Broken())
    assert served.ask("/metrics") == (500, "metrics cannot be written; the log says why\n")
    assert "Metrics cannot be written" in caplog.text
    assert served.ask("/healthz")[0] == 200


def test_what_else_is_asked_is_refused_and_does_no_harm(served: Served, capfd: pytest.CaptureFixture[str]) -> None:
    for path in ("/", "/healthz/", "/metrics/x", "/../etc/passwd"):
        assert served.ask(path)[0] == 404, path
    for method in ("POST", "DELETE", "PUT"):
        assert served.ask("/healthz", method)[0] == 405, method
    for data in (
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
        b"x" * 100_000,
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"GET /healthz HTTP/9.9\r\n\r\n",
    ):
        answer = served.send(data)
        assert answer == b"" or answer.startswith((b"HTTP/1.0 400 ", b"HTTP/1.1 400 ")), data[:40]
    assert served.ask("/healthz")[0] == 200
    out, err = capfd.readouterr()
    assert out + err == ""  # nothing of that is news


def test_a_connection_serves_one_request(served: Served) -> None:
    answer = served.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 2, more=True)
    assert answer.count(b"HTTP/1.1 200") == 1
    assert b"Connection: close" in answer


def test_silent_clients_do_not_keep_a_probe_out_and_a_slow_one_is_cut_off(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "_CONNECTION_SECONDS", 600.0)
    with ExitStack() as opened:
        silent = [opened.enter_context(served.connect()) for _ in range(80)]
        for _ in range(2):  # the first may be accepted at one with all of them: it is the next that finds too many
            assert served.ask("/healthz")[0] == 200
        with suppress(ConnectionResetError):
            assert silent[0].recv(1) == b""  # the oldest were cut off
    monkeypatch.setattr(serving, "_CONNECTION_SECONDS", 0.3)
    with served.connect() as client, suppress(ConnectionResetError):
        client.sendall(b"GET /healthz")
        assert client.recv(1) == b""


def test_a_port_that_cannot_be_opened_is_a_clear_error(served: Served) -> None:
    for address, port, why in (("127.0.0.1", served.port, "in use"), ("192.0.2.1", 0, "")):
        with pytest.raises(HttpPortError, match=rf"port {port} of {address} cannot be opened .*{why}.*SIORG_OPERATOR_HTTP_PORT"):
            HttpServer(Health(), CollectorRegistry()).start(address, port)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_the_ipv6_address_serves_both_families() -> None:
    with closing(HttpServer(Health(), CollectorRegistry())) as server:
        port = server.start("::", 0)
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, port), timeout=10) as client:
                client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
                assert client.recv(100).startswith(b"HTTP/1.0 200")


def test_closing_twice_and_without_a_start_is_fine(served: Served) -> None:
    with served.connect():
        served.ask("/healthz")  # the connection before it is accepted too, by now
        served.server.close()
    served.server.close()
    HttpServer(Health(), CollectorRegistry()).close()
    with pytest.raises(ConnectionRefusedError):
        served.ask("/healthz")


def test_it_answers_while_the_operators_event_loop_is_stuck(served: Served) -> None:
    served.health.leading([])
    served.now += 21
    answered: list[tuple[int, str]] = []
    asking = threading.Thread(target=lambda: answered.append(served.ask("/healthz")))

    async def stuck() -> None:
        asking.start()
        while asking.is_alive():  # busy, and it never yields
            sum(range(1000))

    asyncio.run(stuck())
    assert answered[0][0] == 503
