"""What a command prints arrives in any encoding and harms no terminal, and its work does not depend on who reads."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from siorg_job.__main__ import main
from siorg_queue import Connection
from support.job import job_environment, run_job
from support.queue import insert, rows


def shell(command: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A line of bash, in which ``job`` is siorg-job; its exit code is that of the job."""
    text = f'job() {{ "{sys.executable}" -m siorg_job "$@"; }}; {command}; exit "${{PIPESTATUS[0]}}"'
    return subprocess.run(["bash", "-c", text], env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("command", ["status", "--help", "settings", "run", "doctor --help"])
def test_a_reader_who_has_seen_enough_is_no_error(command: str, database_url: str) -> None:
    for reader in ("head -1", "true"):
        done = shell(f"job {command} | {reader}", job_environment(database_url))
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        assert "Broken" not in done.stderr


@pytest.mark.parametrize(("command", "code"), [("status --json", 1), ("run", 0), ("enqueue 7", 0), ("--version", 0)])
def test_a_full_device_is_told_and_fails_only_what_was_to_be_printed(command: str, code: int, database_url: str) -> None:
    done = shell(f"job {command} >/dev/full", job_environment(database_url))
    assert done.returncode == code, done.stderr
    assert "No space left on device" in done.stderr or command == "--version"
    assert "Traceback" not in done.stderr


def test_without_standard_output_the_work_is_done(database_url: str, connection: Connection) -> None:
    done = shell("job enqueue 7 >&- 2>&-", job_environment(database_url))
    assert done.returncode == 0
    assert len(rows(connection)) == 1


_OF_C = pytest.mark.skipif(not sys.prefix.isascii(), reason="with LC_ALL=C Python itself does not start in such a path")


@pytest.mark.parametrize(
    "locale", [{"PYTHONIOENCODING": "ascii"}, pytest.param({"LC_ALL": "C"}, marks=_OF_C), {"LANG": "pt_BR.UTF-8"}]
)
def test_names_come_out_in_any_encoding(locale: dict[str, str], database_url: str, connection: Connection) -> None:
    connection.execute("UPDATE organizations SET name = 'Órgão → – 🏛' WHERE siorg_code = 471")
    env = {name: value for name, value in job_environment(database_url).items() if name != "LANG"} | locale
    for words in (["organizations"], ["organizations", "add", "--help"], ["settings"], ["status"]):
        run_job(*words, env=env)
    (line,) = run_job("organizations", "--json", env=env).stdout.splitlines()
    assert json.loads(line)["name"] == "Órgão → – 🏛"


def test_what_a_terminal_would_obey_is_written_and_not_done(database_url: str, connection: Connection) -> None:
    insert(connection, siorg_code=1, status="'FAILED'", last_error=r"E'\x1b[2J\u202Egone\r'")
    printed = run_job("retry", env=job_environment(database_url)).stdout
    assert r"\u001b[2J\u202egone\r" in printed


def test_what_is_printed_passes_the_redactor(
    database_url: str, connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    insert(connection, siorg_code=1, status="'FAILED'", last_error="'refused tok-Zx81QwV7, password=hunter2'")
    assert main(["retry"], job_environment(database_url, SIORG_API_TOKEN="tok-Zx81QwV7")) == 0
    printed = capsys.readouterr().out
    assert "refused ***, password=***" in printed


@pytest.mark.parametrize("words", [
    "organizations deactivate 471 --by", "organizations deactivate 471 --note",
    "held release --organization 471 --by", "adopted accept-siorg --note",
    "conflicts resolve 00000000-0000-0000-0000-000000000000 --skip --notes",
])  # fmt: skip
def test_text_that_cannot_be_printed_is_refused(words: str, database_url: str) -> None:
    for text in (b"N\x01", b"N\xff"):
        arguments = [sys.executable, "-m", "siorg_job", *words.split(), text]
        done = subprocess.run(arguments, env=job_environment(database_url), capture_output=True, timeout=60, check=False)
        assert done.returncode == 2, done.stderr
        assert b"cannot be printed" in done.stderr


def test_settings_tell_the_value_in_force_and_where_it_comes_from(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    environ = {
        "DATABASE_URL": "postgresql://siorg:hunter2@db/siorg", "SIORG_API_TOKEN": "tok-Zx81QwV7", "WORKER_BATCH_SIZE": "0",
        "WORKER_ENABLE_CLEANUP": "off", "SIORG_TYPO": "x",
    }  # fmt: skip
    assert main(["settings"], environ) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    for line in (
        "DATABASE_URL = postgresql://***@db/siorg  (environment)", "SIORG_API_TOKEN = ***  (environment)",
        "SIORG_API_URL = https://api.siorg.gov.br  (default)", "WORKER_CONCURRENCY = not set  (default)",
        "WORKER_ENABLE_CLEANUP = false  (environment)",
    ):  # fmt: skip
        assert line in printed.splitlines()
    words = " ".join(printed.split())
    assert "WORKER_BATCH_SIZE = refused: must be at least 1" in words
    assert "refused: SIORG_TYPO: unknown variable" in words
    assert "hunter2" not in printed
    assert "Zx81" not in printed
    assert main(["settings", "--json"], environ) == 0
    by_name = {one["name"]: one for one in map(json.loads, capsys.readouterr().out.splitlines())}
    assert (by_name["WORKER_ENABLE_CLEANUP"]["value"], by_name["WORKER_ENABLE_CLEANUP"]["origin"]) == ("false", "environment")
    assert by_name["WORKER_BATCH_SIZE"]["value"] is None
    assert main(["settings", "--markdown"], environ) == 0
    assert capsys.readouterr().out.startswith("| Variable | Default |")
