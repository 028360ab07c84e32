"""What the command line refuses, and how."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from siorg_simulator.__main__ import main
from siorg_simulator.quirks import Quirk

REFUSED: list[tuple[list[str], str]] = [
    ([], "wanted: --snapshot FILE (one or more) or --synthetic N, not both"),
    (["--snapshot", "one.json", "--synthetic", "5"], "not both"),
    (["--snapshot", "missing.json"], "cannot use missing.json: No such file or directory"),
    (["--snapshot", "."], "cannot use .: Is a directory"),
    (["--snapshot", "text.json"], "text.json: not JSON"),
    (["--snapshot", "binary.json"], "binary.json: not JSON"),
    (["--snapshot", "array.json"], "array.json: no units in it"),
    (["--snapshot", "none.json"], "none.json: no units in it (wanted: a SIORG body with the key `unidades`, not empty)"),
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
    (["--synthetic", "5", "--token", "my secret"], "argument --token: wanted: printable ASCII without spaces"),
    (["--synthetic", "5", "--token", ""], "argument --token: wanted: printable ASCII without spaces, not empty"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {
        "one": '{"unidades":[{"codigoUnidade":1}]}', "text": "not JSON", "array": "[]", "odd": '{"unidades":[5]}',
        "none": '{"servico":{"codigoErro":102},"unidades":[]}', "nocode": '{"unidades":[{"nome":"x"}]}',
        "badcode": '{"unidades":[{"codigoUnidade":"http://x/abc"}]}',
        "twice": '{"unidades":[{"codigoUnidade":7},{"codigoUnidade":"http://x/007"}]}',
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / f"{name}.json").write_text(text)
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    return tmp_path


def exit_code(*arguments: str) -> int:
    """What the program would end with; argparse ends it by itself."""
    try:
        return main(["--port", "0", *arguments])
    except SystemExit as ended:
        return int(ended.code or 0)


def test_wrong_usage_is_one_clear_line_and_exit_code_2(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    for arguments, said in REFUSED:
        assert exit_code(*arguments) == 2, arguments
        printed = capsys.readouterr()
        assert said in printed.err.rstrip("\n").splitlines()[-1], arguments
        assert "my secret" not in printed.err  # what was meant as a token is not repeated
        assert printed.out == "", arguments


def test_a_port_in_use_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert exit_code("--synthetic", "5", "--port", str(port)) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"siorg-simulator: cannot listen on 127.0.0.1 port {port}: ")
    assert len(error.splitlines()) == 1


def test_help_has_examples_and_the_control_requests_and_quirks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("--help") == 0
    printed = capsys.readouterr().out
    for text in ("siorg-simulator --snapshot", "/_control/snapshot", "status=CODE:P", "--latency-ms MEAN[:JITTER]"):
        assert text in printed
    assert exit_code("--list-quirks") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [quirk.value for quirk in Quirk]
