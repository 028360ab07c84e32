"""Alive and ready: judged by values, and asked over real HTTP."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families

from siorg_operator.serving import health as probes
from siorg_operator.serving.health import Health, HealthLimits, HealthSnapshot, Judgment, Probes, ProbesPortError, Role, judge
from support.fleet import eventually

LIMITS = HealthLimits(beat=20, cycle=180, lease=60)


def leader(**known: Any) -> HealthSnapshot:
    return HealthSnapshot(role=Role.LEADER, **{"since": 100.0, "beat": 100.0, "listed": True, **known})


def standby(**known: Any) -> HealthSnapshot:
    return HealthSnapshot(role=Role.STANDBY, **{"since": 100.0, "tried": 100.0, "reached": True, **known})


def passes(**began: float) -> MappingProxyType[str, float]:
    return MappingProxyType(began)


# -- judging ----------------------------------------------------------------------------------------------------------


def test_a_leader_with_a_fresh_beat_and_its_listings_is_alive_and_ready() -> None:
    assert judge(leader(), 120.0, LIMITS) == Judgment()


def test_what_starts_is_alive_and_not_ready() -> None:
    assert judge(HealthSnapshot(), 1e6, LIMITS) == Judgment(not_ready="the operator is starting")


def test_a_loop_without_a_beat_is_stuck() -> None:
    judged = judge(leader(), 120.1, LIMITS)
    assert judged.not_alive == judged.not_ready == "the event loop is stuck: no sign of life for 20 s (limit 20 s)"


def test_a_loop_that_never_beat_has_its_time_from_taking_the_lead() -> None:
    assert judge(leader(beat=None, since=100.0), 119.0, LIMITS).not_alive is None
    assert judge(leader(beat=None, since=100.0), 121.0, LIMITS).not_alive is not None
    assert judge(leader(beat=1.0, since=100.0), 119.0, LIMITS).not_alive is None


def test_a_pass_that_hangs_is_named_the_oldest_first() -> None:
    health = leader(beat=299.0, passes=passes(**{"siorg/a": 110.0, "siorg/b": 105.0, "siorg/c": 299.0}))
    assert judge(health, 300.0, LIMITS).not_alive == "the pass over siorg/b is stuck: it began 195 s ago (limit 180 s)"


def test_a_long_pass_within_its_limit_is_well() -> None:
    assert judge(leader(beat=280.0, passes=passes(a=100.0)), 280.0, LIMITS) == Judgment()


def test_a_leader_is_not_ready_before_its_first_listings() -> None:
    health = leader(listed=False)
    assert judge(health, 110.0, LIMITS) == Judgment(not_ready="what is watched has not been listed yet")


def test_a_standby_is_alive_whatever_happens_and_ready_while_it_reaches_the_api_server() -> None:
    assert judge(standby(), 110.0, LIMITS) == Judgment()
    assert judge(standby(beat=None, since=0.0, tried=1e6), 1e6, LIMITS) == Judgment()
    refused = "standby: the Lease cannot be asked for: no answer, or a refusal (the log says which)"
    assert judge(standby(reached=False), 110.0, LIMITS) == Judgment(not_ready=refused)


def test_a_standby_whose_election_stands_still_is_not_ready() -> None:
    judged = judge(standby(), 161.0, LIMITS)
    assert judged == Judgment(
        not_ready="standby: the API server has not been asked for the Lease for 61 s (limit 60 s)"
    )  # fmt: skip
    assert judge(standby(tried=None, reached=False), 110.0, LIMITS).not_ready == "standby: not asked for the Lease yet"


@given(
    st.builds(
        HealthSnapshot,
        role=st.sampled_from(Role),
        since=st.floats(0, 1e4),
        beat=st.none() | st.floats(0, 1e4),
        passes=st.dictionaries(st.text(), st.floats(0, 1e4)),
        listed=st.booleans(),
        tried=st.none() | st.floats(0, 1e4),
        reached=st.booleans(),
    ),
    st.floats(0, 1e4),
)
def test_every_state_can_be_judged_and_what_is_not_alive_is_not_ready(health: HealthSnapshot, now: float) -> None:
    judged = judge(health, now)
    assert judged.not_alive is None or judged.not_ready == judged.not_alive


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_health_takes_note_of_what_it_is_told() -> None:
    clock = Clock()
    health = Health(clock=clock)
    assert health.judged().not_ready == "the operator is starting"
    health.standing_by()
    health.lease_tried(reached=True)
    assert health.judged() == Judgment()
    clock.now += 3600
    health.leading()
    assert health.judged() == Judgment(not_ready="what is watched has not been listed yet")
    health.listed()
    health.pass_began("siorg/main")
    assert health.judged() == Judgment()
    clock.now += 185
    health.leading()  # told again, it does not begin anew
    health.beat()
    assert health.judged().not_alive == "the pass over siorg/main is stuck: it began 185 s ago (limit 180 s)"
    health.pass_ended("siorg/main")
    health.pass_ended("siorg/main")
    assert health.judged() == Judgment()
    clock.now += 25
    assert health.judged().not_alive is not None


# -- over HTTP --------------------------------------------------------------------------------------------------------


class Served:
    """A server with its health and its metrics."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.health = Health(clock=self.clock)
        self.registry = CollectorRegistry()
        self.probes = Probes(self.health, self.registry)
        self.port = self.probes.start("127.0.0.1", 0)

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def send(self, data: bytes) -> bytes:
        """What comes back until the server hangs up."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as client:
            client.sendall(data)
            received = b""
            try:
                while chunk := client.recv(65_536):
                    received += chunk
            except ConnectionError:
                pass
            return received


@pytest.fixture
def served() -> Iterator[Served]:
    server = Served()
    yield server
    server.probes.close()


def test_a_well_leader_answers_200(served: Served) -> None:
    served.health.leading()
    served.health.listed()
    assert served.ask("/healthz") == (200, "ok\n")
    assert served.ask("/readyz?verbose=1") == (200, "ok\n")


def test_what_is_wrong_is_said_in_one_line(served: Served) -> None:
    served.health.leading()
    served.health.listed()
    served.health.pass_began("siorg/\r\nX-Injected: 1 é")
    served.clock.now += 181
    served.health.beat()
    status, text = served.ask("/healthz")
    assert status == 503
    assert text == "the pass over siorg/??X-Injected: 1 ? is stuck: it began 181 s ago (limit 180 s)\n"
    assert served.ask("/readyz")[0] == 503


def test_a_standby_is_alive(served: Served) -> None:
    served.health.standing_by()
    assert served.ask("/healthz") == (200, "ok\n")
    assert served.ask("/readyz") == (503, "standby: not asked for the Lease yet\n")
    served.health.lease_tried(reached=True)
    assert served.ask("/readyz") == (200, "ok\n")


def test_metrics_are_those_of_the_registry(served: Served) -> None:
    Counter("siorg_operator_tests", "Tests", registry=served.registry).inc(3)
    status, text = served.ask("/metrics")
    assert status == 200
    samples = {sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples}
    assert samples["siorg_operator_tests_total"] == 3


def test_metrics_that_cannot_be_written_do_not_end_the_server(served: Served) -> None:
    class Broken:
        def collect(self) -> Any:
            raise RuntimeError("no")

    served.registry.register(Broken())
    assert served.ask("/metrics") == (500, "metrics cannot be written; the log says why\n")
    assert served.ask("/healthz")[0] == 200


@pytest.mark.parametrize("path", ["/", "/healthz/", "/metrics/x", "/../etc/passwd"])
def test_anything_else_is_not_found(served: Served, path: str) -> None:
    assert served.ask(path) == (404, "not found; there are /healthz, /readyz and /metrics\n")


def test_head_answers_without_a_body(served: Served) -> None:
    assert served.ask("/healthz", "HEAD") == (200, "")
    answer = served.send(b"HEAD /healthz HTTP/1.0\r\n\r\n")
    assert b"Content-Length: 3\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT"])
def test_other_methods_are_refused(served: Served, method: str) -> None:
    assert served.ask("/healthz", method)[0] == 501


@pytest.mark.parametrize(
    "data",
    [
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
        b"x" * 100_000,
    ],
)
def test_a_head_that_is_too_long_is_refused(served: Served, data: bytes) -> None:
    answer = served.send(data)
    assert answer == b"" or answer.startswith(b"HTTP/1.0 431 ")  # reset where it was still being sent
    assert served.ask("/healthz")[0] == 200


@pytest.mark.parametrize("data", [b"\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"GET /healthz HTTP/9.9\r\n\r\n"])
def test_what_is_no_http_does_no_harm(served: Served, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        while client.recv(65_536):
            pass
    assert served.ask("/healthz")[0] == 200


def test_silent_clients_do_not_keep_a_probe_out(served: Served) -> None:
    with ExitStack() as opened:
        silent = [opened.enter_context(socket.create_connection(("127.0.0.1", served.port), timeout=10)) for _ in range(80)]
        assert served.ask("/healthz")[0] == 200
        assert silent[0].recv(1) == b""  # the oldest were cut off


def test_a_slow_client_is_cut_off(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "_CONNECTION_SECONDS", 0.3)
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as client:
        client.sendall(b"GET /healthz")
        assert client.recv(1) == b""


def test_answered_connections_leave_nothing_behind(served: Served) -> None:
    before = threading.active_count()
    for _ in range(50):
        assert served.ask("/healthz")[0] == 200
    eventually(lambda: threading.active_count() <= before, seconds=10)
    assert served.probes._server is not None
    eventually(lambda: not served.probes._server._open, seconds=10)  # type: ignore[union-attr]


def test_a_port_that_is_taken_is_a_clear_error(served: Served) -> None:
    with pytest.raises(
        ProbesPortError,
        match=rf"port {served.port} of 127\.0\.0\.1 cannot be opened .* in use \(SIORG_OPERATOR_HTTP_ADDRESS, SIORG_",
    ):
        Probes(Health(), CollectorRegistry()).start("127.0.0.1", served.port)


def test_an_address_of_another_machine_is_a_clear_error() -> None:
    with pytest.raises(ProbesPortError, match="SIORG_OPERATOR_HTTP_ADDRESS"):
        Probes(Health(), CollectorRegistry()).start("192.0.2.1", 0)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_the_ipv6_address_serves_both_families() -> None:
    server = Probes(Health(), CollectorRegistry())
    port = server.start("::", 0)
    try:
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, port), timeout=10) as client:
                client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
                assert client.recv(100).startswith(b"HTTP/1.0 200")
    finally:
        server.close()


def test_closing_twice_and_without_a_start_is_fine(served: Served) -> None:
    served.probes.close()
    served.probes.close()
    Probes(Health(), CollectorRegistry()).close()
    with pytest.raises(ConnectionRefusedError):
        served.ask("/healthz")


def test_it_serves_once(served: Served) -> None:
    with pytest.raises(RuntimeError):
        served.probes.start("127.0.0.1", 0)


def test_it_answers_while_the_main_thread_is_busy(served: Served) -> None:
    answered: list[tuple[int, str]] = []
    asking = threading.Thread(target=lambda: answered.append(served.ask("/healthz")))
    asking.start()
    while asking.is_alive():  # an event loop that never yields
        sum(range(1000))
    assert answered == [(200, "ok\n")]


def test_nothing_is_said_of_a_probe(served: Served, capfd: pytest.CaptureFixture[str]) -> None:
    served.ask("/healthz")
    served.ask("/nowhere")
    served.send(b"nonsense\r\n\r\n")
    out, err = capfd.readouterr()
    assert out + err == ""
