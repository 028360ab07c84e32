"""What the command line refuses, and how."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from siorg_simulator.quirks import Quirk
from support.siorg_server import REPOSITORY


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "job")}
    command = [sys.executable, "-m", "siorg_simulator", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, timeout=60, check=False)


ONE = '{"unidades":[{"codigoUnidade":1}]}'
CASES: list[tuple[list[str], str]] = [
    ([], "wanted: --snapshot FILE (one or more) or --synthetic N, not both"),
    (["--snapshot", "one.json", "--synthetic", "5"], "not both"),
    (["--snapshot", "missing.json"], "cannot use missing.json: No such file or directory"),
    (["--snapshot", "."], "cannot use .: Is a directory"),
    (["--snapshot", "text.json"], "text.json: not JSON"),
    (["--snapshot", "binary.json"], "binary.json: not JSON"),
    (["--snapshot", "array.json"], "array.json: no units in it"),
    (
        ["--snapshot", "none.json"],
        "none.json: no units in it (wanted: a SIORG body with the key `unidades`, not empty)",
    ),
    (["--snapshot", "one.json", "--snapshot", "nocode.json"], "nocode.json: unit 0: a unit has no codigoUnidade"),
    (["--snapshot", "badcode.json"], "badcode.json: unit 0: codigoUnidade is 'http://x/abc', not a code"),
    (["--snapshot", "twice.json"], "twice.json: unit 1: codigoUnidade 7 comes twice"),
    (["--snapshot", "odd.json"], "odd.json: unit 0: a unit is int, not an object"),
    (["--snapshot", "one.json", "--synthetic-changes", "5"], "--synthetic-changes needs --synthetic"),
    (["--synthetic", "0"], "argument --synthetic: '0' is not a whole number from 1 to 1000000"),
    (["--synthetic", "x"], "argument --synthetic: 'x' is not a whole number"),
    (["--synthetic", "5", "--organization", "-4"], "argument --organization"),
    (["--synthetic", "5", "--port", "70000"], "argument --port: '70000' is not a whole number from 0 to 65535"),
    (["--synthetic", "5", "--host", "not a host"], "cannot listen on not a host port"),
    (["--synthetic", "5", "--faults", "torn=2"], "faults: 'torn=2' is not understood; allowed: status=CODE:P"),
    (["--synthetic", "5", "--faults", "torn=0.6,empty=0.6"], "faults: the probabilities add up to 1.2, more than 1"),
    (["--synthetic", "5", "--latency-ms", "fast"], "latency: 'fast' is not MEAN[:JITTER] in milliseconds"),
    (["--synthetic", "5", "--quirk", "x"], "quirk: 'x' is none; allowed: unit-as-array, unit-key-plural"),
    (["--synthetic", "5", "--quirk", "empty-null", "--quirk", "empty-absent"], "exclude each other"),
    (["--synthetic", "5", "--retry-after", "soon"], "argument --retry-after"),
    (["--synthetic", "5", "--timeout-hold", "0"], "argument --timeout-hold: '0' is not a number of seconds above 0"),
    (["--synthetic", "5", "--history-limit", "0"], "argument --history-limit"),
    (["--synthetic", "5", "--request-log", "missing/log"], "cannot use missing/log: No such file or directory"),
    (["--synthetic", "5", "--nothing"], "unrecognized arguments: --nothing"),
    (["--synthetic", "5", "--token", ""], "argument --token: wanted: printable ASCII without spaces, not empty"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {
        "one.json": ONE,
        "text.json": "not JSON",
        "array.json": "[]",
        "none.json": '{"servico":{"codigoErro":102},"unidades":[]}',
        "nocode.json": '{"unidades":[{"nome":"x"}]}',
        "badcode.json": '{"unidades":[{"codigoUnidade":"http://x/abc"}]}',
        "twice.json": '{"unidades":[{"codigoUnidade":7},{"codigoUnidade":"http://x/007"}]}',
        "odd.json": '{"unidades":[5]}',
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    return tmp_path


@pytest.mark.parametrize(("arguments", "said"), CASES, ids=[" ".join(case[0]) or "nothing" for case in CASES])
def test_wrong_usage_is_one_clear_line_and_exit_code_2(folder: Path, arguments: list[str], said: str) -> None:
    done = run("--port", "0", *arguments, cwd=folder)
    last = done.stderr.rstrip("\n").splitlines()[-1]
    assert done.returncode == 2
    assert said in last
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_wrong_token_is_not_repeated() -> None:
    done = run("--synthetic", "5", "--token", "my secret")
    assert done.returncode == 2
    assert "secret" not in done.stderr


def test_a_port_in_use_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("--synthetic", "5", "--port", str(port))
    assert done.returncode == 2
    assert done.stderr.startswith(f"siorg-simulator: cannot listen on 127.0.0.1 port {port}: ")
    assert len(done.stderr.splitlines()) == 1


def test_help_has_examples_and_the_control_requests() -> None:
    done = run("--help")
    assert done.returncode == 0
    for text in ("siorg-simulator --snapshot", "/_control/snapshot", "status=CODE:P", "--latency-ms MEAN[:JITTER]"):
        assert text in done.stdout


def test_quirks_are_listed_with_a_line_each() -> None:
    done = run("--list-quirks")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == [quirk.value for quirk in Quirk]
