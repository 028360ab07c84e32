"""``python -m siorg_job`` as real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from support.siorg_server import REPOSITORY


def job_environment(database_url: str, siorg_url: str | None = None, **more: str) -> dict[str, str]:
    """The environment of a job, with nothing of ours that would change its settings."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "TMPDIR") if name in os.environ}
    path = os.pathsep.join(filter(None, [str(REPOSITORY / "job"), os.environ.get("PYTHONPATH")]))
    siorg = {} if siorg_url is None else {"SIORG_API_URL": siorg_url, "SIORG_ALLOW_INSECURE": "true"}
    return {**kept, "PYTHONPATH": path, "DATABASE_URL": database_url, **siorg, **more}


def run_job(
    *arguments: str, env: Mapping[str, str], timeout: float = 60.0, code: int | None = 0
) -> subprocess.CompletedProcess[str]:
    """Run a job to its end, at most ``timeout`` seconds; ``code`` is the exit code it has to have (None: any)."""
    done = subprocess.run(
        [sys.executable, "-m", "siorg_job", *arguments],
        env=dict(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if code is not None:
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def summary_of(stdout: str) -> dict[str, Any]:
    """The JSON summary that ``run`` leaves as its last line."""
    summary: dict[str, Any] = json.loads(stdout.strip().splitlines()[-1])
    return summary
