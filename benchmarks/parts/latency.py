"""From an insert to the claim that takes it, both by the database's clock."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from parts.figure import Figure
from parts.surroundings import Bench
from siorg_queue import Connection, connect
from support.siorg_server import SiorgServer

_TRIALS = 10
_LONGEST_SECONDS = 60.0
_RESOURCE = Path(__file__).parents[1] / "siorgsyncworker.yaml"


def insert_to_claim(bench: Bench) -> list[Figure]:
    """A row is inserted at rest: until `siorg-job run --forever` claims it, and a process that `siorg-operator local` starts."""
    forever = [sys.executable, "-m", "siorg_job", "run", "--forever"]
    local = [sys.executable, "-m", "siorg_operator", "local", str(_RESOURCE), "--plain", "--logs", str(bench.folder / "jobs")]
    figures = []
    with SiorgServer("--synthetic", "100") as siorg:
        for name, command in (("run --forever", forever), ("operator local", local)):
            with (
                bench.server.database() as url,
                _running(command, bench.environment(url, siorg.url)) as process,
                connect(url, application_name="bench") as connection,
            ):
                seconds = sorted(_trial(connection, process) for _ in range(_TRIALS))
            figures += [
                Figure(f"{name}, least", seconds[0], "s"),
                Figure(f"{name}, median", seconds[len(seconds) // 2], "s"),
                Figure(f"{name}, most", seconds[-1], "s"),
            ]
    return figures


@contextlib.contextmanager
def _running(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_LONGEST_SECONDS)


def _trial(connection: Connection, process: subprocess.Popen[bytes]) -> float:
    """Seconds from an insert at some moment of rest to its claim."""
    time.sleep(random.uniform(0.5, 1.5))
    _wait_until(connection, process, "NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name LIKE 'siorg-job/%')")
    connection.execute(
        "INSERT INTO siorg_sync_queue (entity_type, siorg_code, operation, payload) VALUES ('UNIT', 471, 'UPDATE', '{}')"
    )
    _wait_until(connection, process, "NOT EXISTS (SELECT FROM siorg_sync_queue WHERE processed_at IS NULL)")
    row = connection.execute(
        "SELECT extract(epoch FROM last_attempt_at - created_at)::float8 AS seconds"
        " FROM siorg_sync_queue ORDER BY created_at DESC LIMIT 1"
    ).fetchone()
    assert row is not None
    return float(row["seconds"])


def _wait_until(connection: Connection, process: subprocess.Popen[bytes], condition: str) -> None:
    deadline = time.monotonic() + _LONGEST_SECONDS
    while not (row := connection.execute(f"SELECT {condition} AS is_so".encode()).fetchone()) or not row["is_so"]:
        if process.poll() is not None:
            raise SystemExit(f"it ended by itself with exit code {process.returncode}")
        if time.monotonic() > deadline:
            raise SystemExit(f"not so within {_LONGEST_SECONDS:.0f} s: {condition}")
        time.sleep(0.02)
