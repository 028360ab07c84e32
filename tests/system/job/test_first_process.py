"""The job as the first process of a container (PID 1): what asks it to end is heard however early it comes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from siorg_queue import Connection
from support.fleet import eventually
from support.job import job_environment, summary_of
from support.queue import insert, number
from support.siorg_server import REPOSITORY

NOBODY = "http://127.0.0.1:9/doc"
ALONE = ["unshare", "--pid", "--fork", "--kill-child"]


@pytest.fixture(scope="module")
def alone() -> list[str]:
    """What makes a command the first process of a namespace of its own."""
    with suppress(OSError):
        if subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode == 0:
            return ALONE
    pytest.skip("no namespace of processes can be made here")


def entry_point() -> list[str]:
    """What the image starts, of this Python and these sources."""
    lines = (REPOSITORY / "job" / "Dockerfile").read_text().splitlines()
    words = json.loads(next(line for line in lines if line.startswith("ENTRYPOINT ")).removeprefix("ENTRYPOINT "))
    assert words[-1] == "siorg-job"
    return [*words[:-1], sys.executable, "-c", "import sys; from siorg_job.start import main; sys.exit(main())"]


def first_of(unshare: int) -> int | None:
    """The process number, as it is out here, of the first process in there."""
    children = Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split()
    return int(children[0]) if children else None


def is_heard(process: int) -> bool:
    """Whether SIGTERM is caught, or waits until it is; a first process would else never learn of it."""
    if Path(f"/proc/{process}/comm").read_text() == "unshare\n":
        return False  # not yet the command
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return any(int(status[name], 16) >> (signal.SIGTERM - 1) & 1 for name in ("SigBlk", "SigCgt"))


def test_a_job_that_is_asked_to_end_before_the_interpreter_can_hear_it_claims_nothing(
    connection: Connection, database_url: str, alone: list[str]
) -> None:
    insert(connection, siorg_code=1)
    command = [*alone, *entry_point(), "run"]
    with subprocess.Popen(
        command, env=job_environment(database_url, NOBODY), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as unshare:
        eventually(lambda: first_of(unshare.pid), every=0.001)
        process = first_of(unshare.pid)
        assert process is not None
        eventually(lambda: is_heard(process), every=0.001)
        os.kill(process, signal.SIGTERM)
        out, err = unshare.communicate(timeout=60)
    assert unshare.returncode == 0, err
    assert summary_of(out)["reason"] == "stopped", err
    assert number(connection, "SELECT count(*) FROM siorg_sync_queue WHERE status = 'PENDING' AND attempts = 0") == 1


def test_nothing_is_read_before_somebody_listens() -> None:
    code = (
        "import sys, siorg_job.start\n"
        "sys.exit(' '.join({'argparse', 'asyncio', 'logging', 'psycopg', 'siorg_job.commands'} & sys.modules.keys()) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
