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
from support.operator_command import called
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


def call(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """As a process, where the cluster's part of the environment matters, and once anyway."""
    path = os.pathsep.join([str(REPOSITORY / "operator"), str(REPOSITORY / "job")])
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "siorg_operator", *arguments],
        env={**kept, "PYTHONPATH": path, "COLUMNS": "120", **environ},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def explained(*arguments: str, file: str = FILE, code: int = 0, **environ: str) -> str:
    """What ``explain`` prints."""
    done = called("explain", "-", *arguments, stdin=file, environ=environ)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_explain_shows_every_limit_and_which_one_decides() -> None:
    told = explained("--depth", "480", "--unfinished", "3")
    assert "ceil(480 / itemsPerJob 50)" in told
    assert "spec.scaling.maxJobs  ◀ decides" in told
    assert "depth 480, 50 a Job → 10 wanted, maxJobs 5 → 5, 3 unfinished → would launch 2" in told
    assert "In sync: Unknown (NotVerified): The database was not read" in told
    assert "Nothing was launched or written: this only explains." in told
    for name in ("by time", "minJobs", "connection budget", "request budget", "maxLaunchesPerStep"):
        assert name in told
    (depth,) = (line for line in explained("--depth", "0").splitlines() if line.startswith("│ depth"))
    assert "◀ decides" in depth


def test_explain_reads_the_queue_of_the_environment(tmp_path: Path, database_url: str, connection: Connection) -> None:
    insert(connection, siorg_code=1)
    file = tmp_path / "resource.yaml"
    file.write_text(FILE)
    done = call("explain", str(file), DATABASE_URL=database_url)
    assert done.returncode == 0, done.stderr
    assert "1 items are claimable" in done.stdout
    assert "In sync: Unknown (NotVerified): No complete verification is stored yet" in done.stdout
    assert "depth 1, 50 a Job → 1 wanted, 0 unfinished" in done.stdout


def test_explain_says_what_it_took_for_the_image() -> None:
    without = explained("--depth", "1")
    assert "Assumed: that the operator has a default image (SIORG_OPERATOR_JOB_IMAGE)" in without
    assert "InvalidSpec" in without
    with_default = explained("--depth", "1", SIORG_OPERATOR_JOB_IMAGE="registry.example/siorg-job:1")
    assert "Assumed: image registry.example/siorg-job:1 (from SIORG_OPERATOR_JOB_IMAGE" in with_default
    assert "Assumed" not in explained("--depth", "1", file=FILE + "  job: {image: siorg-job}\n")


def test_explain_says_when_the_queue_cannot_be_read_and_speaks_of_the_variable(database_url: str) -> None:
    nowhere = explained(DATABASE_URL=re.sub(r"/test_\w+", "/nowhere", database_url), code=2)
    assert "DATABASE_URL" in nowhere
    assert "Secret" not in nowhere
    away = explained(DATABASE_URL="postgresql://nobody:hidden@127.0.0.1:1/nothing", code=75)
    assert "depth unknown" in away
    assert "hidden" not in away


def test_wrong_usage_exits_with_2_and_says_what_is_wrong() -> None:
    table: list[tuple[tuple[str, ...], str, str]] = [
        (("explain", "-"), FILE, "DATABASE_URL is not set"),
        (("explain", "-", "--depth", "many"), FILE, "must be an integer from 0"),
        (("explain", "-", "--depth", "1"), FILE.replace("maxJobs: 5", "maxJobs: -1"), "spec.scaling.maxJobs: is too small"),
        (("explain", "-", "--depth", "1"), FILE.replace("maxJobs", "maxjobs"), "maxjobs: unknown field; did you mean maxJobs?"),
        (("explain", "missing.yaml", "--depth", "1"), "", "missing.yaml: No such file"),
        (("run",), "", "SIORG_OPERATOR_NAMESPACE"),
        ((), "", "COMMAND"),
    ]

    def check(row: tuple[tuple[str, ...], str, str]) -> None:
        arguments, stdin, expected = row
        done = called(*arguments, stdin=stdin, environ={})
        assert done.returncode == 2, done.stdout
        assert expected in done.stderr
        assert "Traceback" not in done.stderr

    holds_for(table, check)


@pytest.mark.parametrize("words", ["explain worker", "run"])
def test_without_a_cluster_it_says_how_to_name_one(words: str, tmp_path: Path) -> None:
    settings = {"SIORG_OPERATOR_NAMESPACE": "default", "SIORG_OPERATOR_HTTP_PORT": "0", "KUBECONFIG": str(tmp_path / "none")}
    done = call(*words.split(), **settings)
    assert (done.returncode, "set KUBECONFIG" in done.stderr, "Traceback" in done.stderr) == (2, True, False)


def test_the_printed_crd_is_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["crd"]) == 0
    assert capsys.readouterr().out == (REPOSITORY / "crds" / "siorgsyncworkers.yaml").read_text()


def test_explain_refuses_the_settings_that_the_operator_would_refuse() -> None:
    assert "SIORG_OPERATOR_STUCK_GRACE_SECS" in explained("--depth", "1", SIORG_OPERATOR_STUCK_GRACE_SECS="soon", code=2)
    assert "DATABASE_URL does not begin with" in explained(DATABASE_URL="mysql://here", code=2)


def test_every_command_helps_and_settings_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings"]) == 0
    assert "SIORG_OPERATOR_LEASE_SECS" in capsys.readouterr().out
    for command in ("run", "local", "explain", "crd", "settings"):
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0
        assert f"siorg-operator {command}" in capsys.readouterr().out
