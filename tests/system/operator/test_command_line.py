"""``siorg-operator`` as people call it: explain, crd, settings, help, and what is refused."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from siorg_operator.__main__ import main
from siorg_queue import Connection
from support.queue import insert
from support.rows import holds_for
from support.siorg_server import REPOSITORY

FILE = """
apiVersion: siorg.waterswamp.dev/v1alpha1
kind: SiorgSyncWorker
metadata: {name: example}
spec:
  database: {urlSecretRef: {name: database}}
  scaling: {maxJobs: 5, itemsPerJob: 50}
"""


def call(*arguments: str, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(REPOSITORY / "operator"), str(REPOSITORY / "job")])
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "siorg_operator", *arguments],
        env={**kept, "PYTHONPATH": path, "COLUMNS": "120", **environ},
        input=stdin, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_explain_shows_every_limit_and_which_one_decides() -> None:
    done = call("explain", "-", "--depth", "480", "--unfinished", "3", stdin=FILE)
    assert done.returncode == 0, done.stderr
    assert "ceil(480 / itemsPerJob 50)" in done.stdout
    assert "spec.scaling.maxJobs  ◀ decides" in done.stdout
    assert "depth 480, 50 a Job → 10 wanted, maxJobs 5 → 5, 3 unfinished → would launch 2" in done.stdout
    assert "Nothing was launched or written: this only explains." in done.stdout
    for name in ("by time", "minJobs", "connection budget", "request budget", "maxLaunchesPerStep"):
        assert name in done.stdout


def test_explain_reads_the_queue_of_the_environment(tmp_path: Path, database_url: str, connection: Connection) -> None:
    insert(connection, siorg_code=1)
    file = tmp_path / "resource.yaml"
    file.write_text(FILE)
    done = call("explain", str(file), DATABASE_URL=database_url)
    assert done.returncode == 0, done.stderr
    assert "1 items are claimable" in done.stdout
    assert "depth 1, 50 a Job → 1 wanted, 0 unfinished" in done.stdout


def test_explain_shows_an_empty_queue_once() -> None:
    told = call("explain", "-", "--depth", "0", stdin=FILE).stdout
    (depth,) = (line for line in told.splitlines() if line.startswith("│ depth"))
    assert "◀ decides" in depth


def test_explain_says_what_it_took_for_the_image() -> None:
    without = call("explain", "-", "--depth", "1", stdin=FILE)
    assert without.returncode == 0
    assert "Assumed: that the operator has a default image (SIORG_OPERATOR_JOB_IMAGE)" in without.stdout
    assert "InvalidSpec" in without.stdout
    with_default = call("explain", "-", "--depth", "1", stdin=FILE, SIORG_OPERATOR_JOB_IMAGE="registry.example/siorg-job:1")
    assert "Assumed: image registry.example/siorg-job:1 (from SIORG_OPERATOR_JOB_IMAGE" in with_default.stdout
    named = call("explain", "-", "--depth", "1", stdin=FILE + "  job: {image: siorg-job}\n")
    assert "Assumed" not in named.stdout


def test_explain_speaks_of_the_variable_where_a_url_is_wrong(database_url: str) -> None:
    nowhere = call("explain", "-", stdin=FILE, DATABASE_URL=re.sub(r"/test_\w+", "/nowhere", database_url))
    assert nowhere.returncode == 2, nowhere.stdout
    assert "DATABASE_URL" in nowhere.stdout
    assert "Secret" not in nowhere.stdout


def test_explain_says_when_the_queue_cannot_be_read() -> None:
    done = call("explain", "-", stdin=FILE, DATABASE_URL="postgresql://nobody:hidden@127.0.0.1:1/nothing")
    assert done.returncode == 75
    assert "depth unknown" in done.stdout
    assert "hidden" not in done.stdout + done.stderr


def test_wrong_usage_exits_with_2_and_says_what_is_wrong(tmp_path: Path) -> None:
    table: list[tuple[tuple[str, ...], str, str]] = [
        (("explain", "-"), FILE, "DATABASE_URL is not set"),
        (("explain", "worker"), "", "set KUBECONFIG"),
        (("explain", "-", "--depth", "many"), FILE, "must be an integer from 0"),
        (("explain", "-", "--depth", "1"), FILE.replace("maxJobs: 5", "maxJobs: -1"), "spec.scaling.maxJobs: is too small"),
        (("explain", "-", "--depth", "1"), FILE.replace("maxJobs", "maxjobs"), "maxjobs: unknown field; did you mean maxJobs?"),
        (("explain", "missing.yaml", "--depth", "1"), "", "missing.yaml: No such file"),
        (("run",), "", "SIORG_OPERATOR_NAMESPACE"),
        ((), "", "COMMAND"),
    ]

    def check(row: tuple[tuple[str, ...], str, str]) -> None:
        arguments, stdin, expected = row
        done = call(*arguments, stdin=stdin)
        assert done.returncode == 2, done.stdout
        assert expected in done.stderr
        assert "Traceback" not in done.stderr

    holds_for(table, check)
    done = call("run", SIORG_OPERATOR_NAMESPACE="default", SIORG_OPERATOR_HTTP_PORT="0", KUBECONFIG=str(tmp_path / "none"))
    assert (done.returncode, "set KUBECONFIG" in done.stderr, "Traceback" in done.stderr) == (2, True, False)


def test_the_printed_crd_is_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["crd"]) == 0
    assert capsys.readouterr().out == (REPOSITORY / "crds" / "siorgsyncworkers.yaml").read_text()


def test_explain_refuses_the_settings_that_the_operator_would_refuse() -> None:
    done = call("explain", "-", "--depth", "1", stdin=FILE, SIORG_OPERATOR_STUCK_GRACE_SECS="soon")
    assert done.returncode == 2
    assert "SIORG_OPERATOR_STUCK_GRACE_SECS" in done.stderr
    wrong_url = call("explain", "-", stdin=FILE, DATABASE_URL="mysql://here")
    assert wrong_url.returncode == 2
    assert "DATABASE_URL does not begin with" in wrong_url.stderr


def test_settings_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings"]) == 0
    listing = capsys.readouterr().out
    assert "`SIORG_OPERATOR_NAMESPACE`" in listing
    assert "`SIORG_OPERATOR_LEASE_SECS`" in listing


def test_every_command_helps(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("run", "local", "explain", "crd", "settings"):
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0
        assert f"siorg-operator {command}" in capsys.readouterr().out
