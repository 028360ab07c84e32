"""``siorg-operator local``: the same decisions on one machine, with real job processes, a real database, the simulator."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from siorg_operator.api.resource import read_file
from siorg_operator.local.command import prepare, run
from siorg_queue import Connection, QueueStore
from support.fleet import eventually
from support.job import job_environment, run_job
from support.operator_command import called
from support.queue import insert, verify
from support.rows import holds_for
from support.siorg_server import REPOSITORY, SiorgServer

PASSWORD = "correct-horse-battery"


@pytest.fixture(scope="module")
def simulator() -> Iterator[SiorgServer]:
    with SiorgServer("--synthetic", "60", "--latency-ms", "10") as server:
        yield server


@pytest.fixture
def siorg(simulator: SiorgServer) -> SiorgServer:
    """In fair weather at the beginning of each test."""
    simulator.control("PUT", "faults", {"faults": ""})
    return simulator


@pytest.fixture
def environment(database_url: str, siorg: SiorgServer) -> dict[str, str]:
    found = job_environment(database_url, siorg.url)
    return {**found, "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "operator"), found["PYTHONPATH"]])}


def resource(folder: Path, **spec: Any) -> Path:
    file = folder / "siorgsyncworker.yaml"
    body = {
        "apiVersion": "siorg.waterswamp.dev/v1alpha1",
        "kind": "SiorgSyncWorker",
        "metadata": {"name": "here"},
        "spec": {
            "database": {"urlSecretRef": {"name": "database"}},
            "scaling": {"maxJobs": 3, "itemsPerJob": 20, "pollIntervalSeconds": 2},
            "worker": {"lingerSeconds": 1},
            **spec,
        },
    }
    file.write_text(yaml.safe_dump(body))
    return file


@pytest.fixture(autouse=True)
def as_in_a_terminal() -> Iterator[None]:
    """Whoever runs the tests in the background has SIGINT and SIGHUP ignored, and children inherit that."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Local:
    """``siorg-operator local`` as a process; its job processes leave their last words in ``logs``."""

    def __init__(
        self, file: Path, environment: Mapping[str, str], *arguments: str, program: tuple[str, ...] = ("-m", "siorg_operator")
    ) -> None:
        self.logs = file.parent / "logs"
        self._output = file.parent / "output"
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, *program, "local", str(file), "--logs", str(self.logs), *arguments],
                env=dict(environment), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def __enter__(self) -> Local:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.ends()

    @property
    def output(self) -> str:
        return self._output.read_text()

    def ends(self) -> int:
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"still runs\n{self.output}") from None

    def summaries(self) -> list[dict[str, Any]]:
        return [json.loads(file.read_text()) for file in sorted(self.logs.glob("*.summary")) if file.stat().st_size]

    def job_processes(self) -> list[int]:
        """The children that run now."""
        return [int(pid) for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()]


def discover(environment: Mapping[str, str]) -> None:
    run_job("discover", "--organization", "471", env=environment)


def test_new_work_wakes_it_and_it_scales_from_zero_to_several_and_back_and_ends_when_told(
    tmp_path: Path, environment: dict[str, str], store: QueueStore
) -> None:
    file = resource(tmp_path, scaling={"maxJobs": 3, "itemsPerJob": 20, "pollIntervalSeconds": 3600})
    with Local(file, environment) as local:
        eventually(lambda: "nothing to do" in local.output)
        assert local.job_processes() == []
        discover(environment)
        eventually(lambda: store.counts().completed == 60 and not local.job_processes())
        local.process.send_signal(signal.SIGINT)
        assert local.ends() == 0, local.output
    assert "depth 60, 20 a Job → 3 wanted, 0 unfinished → launched 3" in local.output
    assert sum(summary["completed"] for summary in local.summaries()) == 60
    assert all(summary["exit_code"] == 0 for summary in local.summaries())
    assert "items completed" in local.output


def test_until_empty_ends_at_once_when_the_resource_never_lets_it_become_empty(
    tmp_path: Path, environment: dict[str, str], connection: Connection
) -> None:
    insert(connection, siorg_code=471)
    verify(connection, "2 days")
    with Local(resource(tmp_path, suspend=True), environment, "--until-empty") as local:
        assert local.ends() == 2, local.output
    assert "1 items wait and spec.suspend is true" in local.output
    assert "True (Verified)" in local.output
    assert "In sync: Verified 2 days ago: 74350 rows of 328 organizations compared, and no drift" in local.output
    assert local.summaries() == []


def test_until_empty_gives_up_on_a_database_that_stays_away_and_shows_no_secret(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    environment |= {"DATABASE_URL": f"postgresql://nobody:{PASSWORD}@127.0.0.1:1/nothing", "SIORG_API_TOKEN": f"token-{PASSWORD}"}
    impatient = (
        "import sys; from siorg_operator.local import command; from siorg_operator.__main__ import main;"
        " command._UNREADABLE_SECONDS = 1; sys.exit(main())"
    )
    with Local(resource(tmp_path), environment, "--until-empty", program=("-c", impatient)) as local:
        eventually(lambda: "DatabaseUnavailable" in local.output)
        assert PASSWORD not in Path(f"/proc/{local.process.pid}/cmdline").read_text()
        assert local.ends() == 75, local.output
    assert "could not be read for 1 s: the database does not answer" in local.output
    assert PASSWORD not in local.output
    assert "Traceback" not in local.output


def test_until_empty_ends_where_what_is_shown_finds_no_room_on_the_disk(
    tmp_path: Path, environment: dict[str, str], connection: Connection, store: QueueStore
) -> None:
    insert(connection, siorg_code=471)
    with Path("/dev/full").open("wb", buffering=0) as full:
        ran = subprocess.run(
            [sys.executable, "-m", "siorg_operator", "local", str(resource(tmp_path)), "--until-empty"],
            check=False, env=environment, stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60,
        )  # fmt: skip
    assert ran.returncode == 1
    assert ran.stderr == "What is shown cannot be written: No space left on device; job processes were ended\n"
    assert store.counts().processing == 0


def test_until_empty_waits_for_what_is_due_later_and_says_until_when(
    tmp_path: Path, environment: dict[str, str], connection: Connection
) -> None:
    insert(connection, siorg_code=471)
    connection.execute("UPDATE siorg_sync_queue SET scheduled_for = '2099-12-31T23:30:00Z'")
    with Local(resource(tmp_path), environment, "--until-empty") as local:
        eventually(lambda: "the next item is due at 2099-12-31T23:" in local.output)
        assert local.process.poll() is None


def test_until_empty_it_ends_by_itself_and_the_logs_of_a_run_before_tell_nothing_of_this_one(
    tmp_path: Path, environment: dict[str, str], connection: Connection, store: QueueStore
) -> None:
    for _ in range(2):
        insert(connection, siorg_code=471)
        with Local(resource(tmp_path), environment, "--until-empty") as local:
            assert local.ends() == 0, local.output
        assert "launched 1" in local.output
    assert store.counts().completed == 2
    rounds = sorted(int(file.stem.rpartition("-")[2]) for file in local.logs.glob("*.log"))
    assert len(rounds) == len(set(rounds)) >= 2
    (claimed,) = re.findall(r"items completed *│ *(\d+)|items completed +(\d+)", local.output)
    assert max(claimed) == "1"


def test_what_is_being_launched_when_a_signal_comes_is_ended_too(
    tmp_path: Path, environment: dict[str, str], connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert(connection, siorg_code=471)
    really = asyncio.create_subprocess_exec
    made: list[asyncio.subprocess.Process] = []

    async def slowly(*_: str, **options: Any) -> asyncio.subprocess.Process:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.3)  # the machine has begun to stop by now
        made.append(await really(sys.executable, "-c", "import time; time.sleep(60)", **options))
        return made[0]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", slowly)
    worker, environ = prepare(read_file(resource(tmp_path).read_text()), environment)
    asyncio.run(run(worker, environ, tmp_path, lambda _: None, until_empty=False))
    assert made[0].returncode == -signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_gives_back_what_is_in_work(
    tmp_path: Path, environment: dict[str, str], siorg: SiorgServer, store: QueueStore, number: signal.Signals
) -> None:
    discover(environment)
    siorg.control("PUT", "faults", {"faults": "timeout=1"})
    environment["SIORG_TIMEOUT_SECS"] = "120"
    hasty = (
        "import sys; from siorg_operator.api.pods import PodSpec; from siorg_operator.__main__ import main;"
        " PodSpec.shutdown_grace_seconds = 1; sys.exit(main())"
    )
    with Local(resource(tmp_path), environment, program=("-c", hasty)) as local:
        eventually(lambda: store.counts().processing > 0)
        children = local.job_processes()
        local.process.send_signal(number)
        assert local.ends() == 0, local.output
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
    counts = store.counts()
    assert (counts.processing, counts.due) == (0, 60)


def test_a_closed_terminal_does_not_matter_to_one_that_was_started_with_nohup(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does it: children inherit it
    try:
        local = Local(resource(tmp_path), environment)
    finally:
        signal.signal(signal.SIGHUP, before)
    with local:
        eventually(lambda: "nothing to do" in local.output)
        local.process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            local.process.wait(1)


def test_no_job_process_is_left_when_nobody_reads_what_is_told(
    tmp_path: Path, environment: dict[str, str], siorg: SiorgServer, connection: Connection, store: QueueStore
) -> None:
    siorg.control("PUT", "faults", {"faults": "timeout=1"})
    environment["SIORG_TIMEOUT_SECS"] = "120"
    with subprocess.Popen(
        [sys.executable, "-m", "siorg_operator", "local", str(resource(tmp_path)), "--plain", "--logs", str(tmp_path / "logs")],
        env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        while b"nothing to do" not in process.stdout.readline():
            pass
        process.stdout.close()
        insert(connection, siorg_code=471)
        process.wait(60)
    counts = store.counts()
    assert (counts.processing, counts.due) == (0, 1)
    assert list((tmp_path / "logs").glob("*.log"))
    ours = str(tmp_path / "logs").encode()
    assert not [file for file in Path("/proc").glob("[0-9]*/environ") if ours in _content(file)]


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:  # the process has ended meanwhile
        return b""


def test_jobs_that_always_fail_are_not_started_again_at_each_look(
    tmp_path: Path, environment: dict[str, str], connection: Connection
) -> None:
    insert(connection, siorg_code=471)
    connection.execute("ALTER TABLE organizational_units RENAME TO gone")  # a run ends with exit code 1
    with Local(resource(tmp_path), environment) as local:
        eventually(lambda: "JobsFailing" in local.output, seconds=30)
        eventually(lambda: "one probe Job" in local.output, seconds=30)
        assert len(list(local.logs.glob("*.log"))) == 1


def test_what_is_wrong_is_told_and_nothing_begins(tmp_path: Path, environment: dict[str, str]) -> None:
    file = resource(tmp_path).read_text()

    def check(row: tuple[str, str, str]) -> None:
        url, text, told = row
        done = called("local", "-", stdin=text, environ=environment | {"DATABASE_URL": url})
        assert (done.returncode, told in done.stderr, "Traceback" in done.stderr) == (2, True, False), done.stderr

    url = environment["DATABASE_URL"]
    table = [
        ("", file, "DATABASE_URL is not set"),
        ("mysql://here", file, "DATABASE_URL does not begin with postgresql://"),
        (url, "spec: {}", "kind SiorgSyncWorker"),
        (url, "{", "YAML"),
    ]
    holds_for(table, check)
