"""The running simulator, asked over real HTTP and raw sockets."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from support.simulated import row
from support.siorg_server import SimulatorError, SiorgServer

Start = Callable[..., SiorgServer]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts servers of 60 generated units (or what is asked for), and stops them."""
    with contextlib.ExitStack() as stack:

        def start(*arguments: str | Path) -> SiorgServer:
            given = arguments if {"--snapshot", "--synthetic"} & set(arguments) else ("--synthetic", "60", *arguments)
            return stack.enter_context(SiorgServer(*given, request_log=tmp_path / "requests.jsonl"))

        yield start


@pytest.fixture(scope="module")
def shared() -> Iterator[SiorgServer]:
    """A server that tests leave as they found it."""
    with SiorgServer("--synthetic", "60") as server:
        yield server


def get(
    server: SiorgServer, path: str, headers: dict[str, str] | None = None, *, method: str = "GET"
) -> tuple[int, Message, bytes]:
    """Status, headers and body as they came, whatever the status."""
    request = urllib.request.Request(server.url + path, headers=headers or {}, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def unit(server: SiorgServer, code: int = 471) -> dict[str, Any]:
    status, _, body = get(server, f"/unidade-organizacional/{code}/completa")
    assert status == 200
    parsed: dict[str, Any] = json.loads(body)
    return parsed


def raw_exchange(server: SiorgServer, path: str = "/unidade-organizacional/471", seconds: float = 10) -> tuple[bytes, str]:
    """All bytes that came, and how it ended: closed, reset or waiting."""
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=seconds) as connection:
        connection.sendall(f"GET /doc{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        got = b""
        while True:
            try:
                piece = connection.recv(65536)
            except ConnectionResetError:
                return got, "reset"
            except TimeoutError:
                return got, "waiting"
            if not piece:
                return got, "closed"
            got += piece


def eventually(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


# ── Answers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_answer_over_http_packed_when_asked_and_only_then(shared: SiorgServer) -> None:
    status, headers, body = get(shared, "/unidade-organizacional/471/completa")
    assert (status, headers["Content-Type"], headers["Content-Encoding"]) == (200, "application/json", None)
    assert json.loads(body)["servico"]["ipRequisitante"] == "127.0.0.1"
    assert json.loads(body)["unidade"]["sigla"] == "UFMT"
    for path in 2 * ("/unidade-organizacional/471/completa", "/estrutura-organizacional/completa?codigoUnidade=471"):
        _, packed_headers, packed = get(shared, path, {"Accept-Encoding": "gzip, deflate"})
        _, headers, plain = get(shared, path, {"Accept-Encoding": "br, gzip;q=0"})
        assert (packed_headers["Content-Encoding"], headers["Content-Encoding"]) == ("gzip", None)
        assert gzip.decompress(packed) == plain
    # Only GET, and only JSON.
    assert get(shared, "/unidade-organizacional/471", method="POST")[0] == 405
    assert get(shared, "/unidade-organizacional/471", {"Accept": "application/xml"})[0] == 406
    assert get(shared, "/unidade-organizacional/471.json", {"Accept": "application/xml"})[0] == 200
    assert get(shared, "/nothing")[0] == 404


def test_the_token_is_required_and_never_logged(start: Start, tmp_path: Path) -> None:
    server = start("--token", "sesame-4711")
    assert get(server, "/poder")[0] == 401
    assert get(server, "/poder", {"Authorization": "Bearer wrong"})[1]["WWW-Authenticate"] == 'Bearer realm="siorg"'
    assert get(server, "/poder", {"Authorization": "Bearer sesame-4711"})[0] == 200
    assert [entry["authorized"] for entry in server.requests()] == [False, False, True]
    assert "sesame" not in (tmp_path / "requests.jsonl").read_text()
    assert "sesame" not in json.dumps(server.control("GET", "state"))
    with SiorgServer("--synthetic", "5", token="sesame-4711") as server:  # from the environment, in no process list
        assert get(server, "/poder")[0] == 401
        assert get(server, "/poder", {"Authorization": "Bearer sesame-4711"})[0] == 200
        assert b"sesame" not in Path(f"/proc/{server.process.pid}/cmdline").read_bytes()


def test_requests_are_logged_and_counted_and_control_is_not(start: Start) -> None:
    server = start()
    body = get(server, "/unidade-organizacional/471/alteradas?versaoConsulta=107.0.0&x=%C3%A7")[2]
    get(server, "/nothing")
    get(server, "/unidade-organizacional/1.json")
    server.control("PUT", "faults", {"faults": "torn=1"})
    raw_exchange(server)
    first, *others = server.requests()
    assert list(first) == ["time", "method", "path", "query", "status", "fault", "bytes", "duration_ms", "authorized"]
    assert (first["method"], first["path"]) == ("GET", "/doc/unidade-organizacional/471/alteradas")
    assert first["query"] == {"versaoConsulta": "107.0.0", "x": "ç"}
    assert (first["status"], first["fault"], first["bytes"], first["authorized"]) == (200, None, len(body), True)
    assert first["duration_ms"] > 0
    assert [entry["status"] for entry in others] == [404, 200, 200]
    unit_forms = {"unidade-organizacional/{codigo}/alteradas": 1, "unidade-organizacional/{codigo}/resumida": 2}
    counts = {"total": 4, "by_endpoint": {"(unknown)": 1, **unit_forms}, "by_status": {"200": 3, "404": 1}}
    assert server.control("GET", "state")["requests"] == {**counts, "by_fault": {"torn": 1}}
    assert server.control("POST", "reset-counters")["requests"]["total"] == 0


def test_large_structures_are_built_while_others_are_answered(start: Start) -> None:
    server = start("--synthetic", "6600", "--synthetic-changes", "200")
    with ThreadPoolExecutor(5) as pool:
        lists = [pool.submit(get, server, "/estrutura-organizacional/completa?codigoUnidade=471") for _ in range(3)]
        assert unit(server)["unidade"]["sigla"] == "UFMT"
        (size,) = {len(future.result()[2]) for future in lists}
    assert size > 6000 * 2000


# ── Faults ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_fault_status(start: Start) -> None:
    server = start("--faults", "status=429:1", "--retry-after", "7")
    for code in (429, 500, 502, 503):
        server.control("PUT", "faults", {"faults": f"status={code}:1"})
        status, headers, body = get(server, "/poder")
        assert (status, headers["Content-Type"]) == (code, "text/html;charset=UTF-8")
        assert body.startswith(b"<!DOCTYPE html>")
        assert headers["Retry-After"] == ("7" if code in (429, 503) else None)
        assert (server.requests()[-1]["status"], server.requests()[-1]["fault"]) == (code, f"status={code}")


def test_fault_timeout_holds_the_request_until_its_time_is_over_or_the_client_gives_up(start: Start) -> None:
    for hold, end in (("0.3", "closed"), ("3600", "waiting")):
        server = start("--faults", "timeout=1", "--timeout-hold", hold)
        before, known = time.monotonic(), len(server.requests())
        assert raw_exchange(server, seconds=10 if end == "closed" else 0.2) == (b"", end)
        assert time.monotonic() - before >= 0.2
        eventually(lambda: len(server.requests()) == known + 1)  # noqa: B023
        entry = server.requests()[-1]
        assert (entry["status"], entry["fault"], entry["bytes"]) == (None, "timeout", 0)


def test_other_faults_are_no_answers_of_siorg(start: Start) -> None:
    server = start("--faults", "torn=1")
    for path in ("/unidade-organizacional/471", "/estrutura-organizacional/completa"):
        got, end = raw_exchange(server, path)
        head, _, body = got.partition(b"\r\n\r\n")
        announced = next(int(line.split(b":")[1]) for line in head.splitlines() if line.lower().startswith(b"content-length"))
        assert (end, len(body)) == ("closed", announced // 2)
        assert got.startswith(b"HTTP/1.1 200")
        assert body.startswith(b'{"servico"')
        entry = server.requests()[-1]
        assert (entry["status"], entry["fault"], entry["bytes"]) == (200, "torn", len(body))
    server.control("PUT", "faults", {"faults": "empty=1"})
    got, _ = raw_exchange(server, seconds=0.3)
    assert got.startswith(b"HTTP/1.1 200")
    assert got.endswith(b"\r\n\r\n")
    assert b"Content-Length: 0" in got
    server.control("PUT", "faults", {"faults": "garbage=1"})
    bodies = {get(server, "/poder")[2] for _ in range(8)}
    assert len(bodies) == 4
    for body in bodies:
        with contextlib.suppress(ValueError):
            assert "servico" not in json.loads(body)
    server.control("PUT", "faults", {"faults": "reset=1"})
    assert raw_exchange(server) == (b"", "reset")
    assert server.requests()[-1]["fault"] == "reset"
    server.control("PUT", "faults", {"faults": "error=1"})  # a system error of SIORG's, with a ticket
    assert unit(server)["servico"]["codigoErro"] == 1
    assert unit(server)["servico"]["ticket"]
    server.control("PUT", "faults", {"faults": "429=1"})
    status, headers, _ = get(server, "/poder")
    assert (status, headers["Retry-After"]) == (429, None)


def test_the_same_seeds_give_the_same_bytes_and_faults(start: Start) -> None:
    def seen(seed: str) -> tuple[list[str | None], bytes]:
        server = start("--seed", "3", "--faults", "status=500:0.3,empty=0.3", "--fault-seed", seed)
        before = len(server.requests())
        for _ in range(40):
            get(server, "/poder")
        faults = [entry["fault"] for entry in server.requests()[before:]]
        server.control("PUT", "faults", {"faults": ""})
        return faults, get(server, "/estrutura-organizacional/completa")[2]

    first, again, (other, _) = seen("1"), seen("1"), seen("2")
    assert first == again
    assert first[0] != other
    assert {None, "status=500", "empty"} == set(first[0])


def test_in_a_storm_every_request_is_accounted_for_and_nothing_is_complained_of(start: Start) -> None:
    words = "status=503:0.1,timeout=0.05,torn=0.1,garbage=0.1,429=0.1,empty=0.1,reset=0.1,error=0.1"
    server = start("--faults", words, "--timeout-hold", "0.05", "--latency-ms", "2:2")

    def end_of(_: int) -> str:
        try:
            return str(get(server, "/unidade-organizacional/471")[0])
        except (OSError, http.client.HTTPException):
            return "cut off"

    with ThreadPoolExecutor(16) as pool:
        ends = list(pool.map(end_of, range(400)))
    eventually(lambda: len(server.requests()) == 400)
    faults = [entry["fault"] for entry in server.requests()]
    cut_off = sum(fault in ("timeout", "torn", "reset") for fault in faults)
    assert ends.count("cut off") == cut_off
    assert ends.count("503") == faults.count("status=503")
    assert ends.count("429") == faults.count("status=429")
    assert len(set(faults)) == 9
    counts = server.control("GET", "state")["requests"]
    assert (counts["total"], sum(counts["by_fault"].values())) == (400, 400 - faults.count(None))
    assert server.stderr == ""


def test_latency_delays_each_answer_but_not_the_others(start: Start) -> None:
    server = start("--latency-ms", "200:50")
    before = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: get(server, "/poder"), range(16)))
    elapsed = time.monotonic() - before
    seconds = [entry["duration_ms"] / 1000 for entry in server.requests()]
    assert min(seconds) >= 0.150
    assert elapsed < sum(seconds)  # one after the other they would take at least that long


# ── Control ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def snapshots(tmp_path: Path) -> list[Path]:
    """Two files: in the second, unit 11 has another name."""
    paths = [tmp_path / "old.json", tmp_path / "new.json"]
    for path, version, name in zip(paths, ("104.0.0", "107.0.0"), "AB", strict=True):
        rows = [row(10, 1, versaoConsulta=version), row(11, 10, nome=name), row(12, 10)]
        path.write_text(json.dumps({"servico": {}, "unidades": rows}))
    return paths


def test_it_can_be_switched_while_it_runs(start: Start, snapshots: list[Path]) -> None:
    server = start("--snapshot", snapshots[0])
    assert unit(server, 11)["unidade"]["nome"] == "A"
    state = server.control("PUT", "snapshot", {"path": str(snapshots[1])})
    assert (state["current"], state["versions"]) == (1, {"10": "107.0.0"})
    assert [item["units"] for item in state["snapshots"]] == [3, 3]
    assert unit(server, 11)["unidade"]["nome"] == "B"
    body = json.loads(get(server, "/unidade-organizacional/10/alteradas?versaoConsulta=104.0.0")[2])
    assert [unit["operacao"] for unit in body["unidades"]] == ["ALTERACAO", "ALTERACAO"]
    server.control("PUT", "snapshot", {"index": 0})
    assert unit(server, 11)["unidade"]["nome"] == "A"


def test_units_can_be_edited_while_it_runs(start: Start, snapshots: list[Path]) -> None:
    # The last snapshot of the command line is the current one.
    server = start("--snapshot", snapshots[1], "--snapshot", snapshots[0])

    def changed(since: str) -> list[tuple[str, str]]:
        body = json.loads(get(server, f"/unidade-organizacional/10/alteradas?versaoConsulta={since}")[2])
        return [(unit["sigla"], unit["operacao"]) for unit in body["unidades"]]

    assert unit(server, 11)["unidade"]["nome"] == "A"
    first = server.control("GET", "state")["versions"]["10"]
    server.control("PUT", "unit", {"code": 11, "set": {"nome": "Nova", "codigoUnidadePai": 12, "areaAtuacao": "FIM"}})
    edited = unit(server, 11)["unidade"]
    assert (edited["nome"], edited["areaAtuacao"]) == ("Nova", "FIM")
    assert edited["codigoUnidadePai"].endswith("/12")
    assert changed(first) == [("U10", "ALTERACAO"), ("U11", "ALTERACAO")]
    server.control("PUT", "unit", {"add": {"codigoUnidade": 13, "codigoUnidadePai": 11, "nome": "N", "sigla": "U13"}})
    added = unit(server, 13)["unidade"]
    assert added["codigoOrgaoEntidade"] == edited["codigoOrgaoEntidade"]
    assert added["codigoTipoUnidade"].endswith("/unidade-administrativa")
    before = server.control("GET", "state")["versions"]["10"]
    state = server.control("PUT", "unit", {"code": 12, "remove": True, "subtree": True})
    major, minor, build = first.split(".")
    assert state["versions"] == {"10": f"{major}.{minor}.{int(build) + 3}"}
    assert state["snapshots"][-1]["units"] == 1
    assert changed(before) == [("U10", "ALTERACAO"), ("U11", "EXCLUSAO"), ("U12", "EXCLUSAO"), ("U13", "EXCLUSAO")]
    # Odd data are served verbatim.
    server.control("PUT", "unit", {"code": 10, "verbatim": {"nome": 5, "codigoUnidadePai": {"a": []}}})
    odd = unit(server, 10)["unidade"]
    assert (odd["nome"], odd["codigoUnidadePai"]) == (5, {"a": []})
    server.control("PUT", "unit", {"code": 10, "verbatim": {}})
    assert unit(server, 10)["unidade"]["nome"] == "Unidade 10"


def test_weather_and_quirks_can_be_changed_while_it_runs(start: Start) -> None:
    server = start("--quirk", "unit-as-array", "--quirk", "unit-key-plural")
    assert unit(server)["unidades"][0]["sigla"] == "UFMT"
    server.control("PUT", "faults", {"faults": "status=500:1"})
    assert get(server, "/poder")[0] == 500
    server.control("PUT", "faults", {"faults": ""})
    server.control("PUT", "quirks", {"quirks": ["pascal-case"]})
    assert "Servico" in unit(server)
    state = server.control("PUT", "latency", {"latency": 30})
    assert (state["latency"], state["quirks"], state["faults"]) == ("30:0", ["pascal-case"], "")
    unit(server)
    assert server.requests()[-1]["duration_ms"] >= 30
    # Down, it answers 503 to everything but control.
    server.control("PUT", "down", {"down": True})
    status, headers, _ = get(server, "/unidade-organizacional/471")
    assert (status, headers["Content-Type"]) == (503, "text/html;charset=UTF-8")
    assert server.control("GET", "state")["down"] is True
    server.control("PUT", "down", {"down": False})
    assert get(server, "/unidade-organizacional/471")[0] == 200


WRONG_CONTROL: list[tuple[str, str, Any, str]] = [
    ("PUT", "snapshot", {"path": "/nowhere.json"}, "400: .*cannot read /nowhere.json"),
    ("PUT", "snapshot", {"index": 9}, "400: .*snapshots 0 to 0, not 9"),
    ("PUT", "snapshot", {"index": True}, "400: .*wanted"),
    ("PUT", "snapshot", {"other": 1}, "400: .*wanted"),
    ("PUT", "faults", {"faults": "x"}, "400: .*allowed: status=CODE:P"),
    ("PUT", "faults", {}, "400: .*wanted"),
    ("PUT", "latency", {"latency": "x"}, "400: .*MEAN"),
    ("PUT", "latency", {"latency": True}, "400: .*wanted"),
    ("PUT", "quirks", {"quirks": ["x"]}, "400: .*allowed: unit-as-array"),
    ("PUT", "quirks", [], "400: .*wanted"),
    ("PUT", "down", {"down": 1}, "400: .*wanted"),
    ("PUT", "unit", {"code": 99999999, "remove": True}, "400: .*there is no unit 99999999"),
    ("PUT", "unit", {"code": 471, "set": {"nme": "x"}}, "400: .*no key that can be set: 'nme'"),
    ("PUT", "unit", {"code": 471, "set": {"operacao": "x"}}, "400: .*no key that can be set: 'operacao'"),
    ("PUT", "unit", {"code": 471, "set": {"codigoUnidade": 5}}, "400: .*cannot be changed"),
    ("PUT", "unit", {"code": 471, "set": {"versaoConsulta": "x"}}, "400: .*not major.minor.build"),
    ("PUT", "unit", {"code": 471, "set": {"codigoUnidadePai": "x"}}, "400: .*codigoUnidadePai is 'x'"),
    ("PUT", "unit", {"code": 471, "remove": True, "subtree": True}, "400: .*nothing would be left"),
    ("PUT", "unit", {"add": {"codigoUnidade": 471}}, "400: .*there already"),
    ("PUT", "unit", {"add": {"nome": "x"}}, "400: .*no codigoUnidade"),
    ("PUT", "unit", {"code": 471}, "400: .*wanted"),
    ("PUT", "unit", [], "400: .*wanted"),
    ("GET", "down", None, "405: .*PUT"),
    ("POST", "state", None, "405: .*GET"),
    ("GET", "nothing", None, "404: .*known: state, snapshot"),
]


def test_a_wrong_control_request_is_refused_and_changes_nothing(shared: SiorgServer) -> None:
    before = shared.control("GET", "state")
    for method, name, body, said in WRONG_CONTROL:
        with pytest.raises(SimulatorError, match=said):
            pytest.fail(f"{method} {name} {body} was obeyed: {shared.control(method, name, body)}")
        assert shared.control("GET", "state") == before, (name, body)


def test_control_is_for_loopback_clients(start: Start) -> None:
    own = "127.0.0.1"
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # asks the routing table; nothing is sent
        own = str(probe.getsockname()[0])
    if own.startswith("127."):
        pytest.skip("this machine has no address but loopback")
    port = urlsplit(start("--host", "0.0.0.0").url).port
    connection = http.client.HTTPConnection(own, port, source_address=(own, 0), timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", "/_control/state")
        assert connection.getresponse().status == 403


# ── Life and death ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_even_with_a_held_request(number: signal.Signals) -> None:
    with SiorgServer("--synthetic", "5", "--faults", "timeout=1", "--timeout-hold", "3600") as server:
        process = server.process
        assert process.stdout is not None
        address = urlsplit(server.url)
        with socket.create_connection((address.hostname, address.port)) as held:
            held.sendall(b"GET /doc/poder HTTP/1.1\r\nHost: x\r\n\r\n")
            process.send_signal(number)
            assert process.wait(60) == 0
        assert server.stderr == ""
        assert process.stdout.read() == b""  # only the ready line is printed


def test_it_ends_with_whoever_started_it_and_says_why_it_does_not_start() -> None:
    with SiorgServer("--synthetic", "5") as server:
        assert server.process.stdin is not None
        server.process.stdin.close()  # as the kernel does when this process dies
        assert server.process.wait(60) == 0
    with pytest.raises(SimulatorError, match=r"exit code 2; .*cannot use /nowhere.json: No such file"):
        SiorgServer("--snapshot", "/nowhere.json").__enter__()
