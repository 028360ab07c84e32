"""``siorg-job discover`` asks about several organizations at a time, and does the rest in their order."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from siorg_job.__main__ import main
from siorg_job.reconciliation.ahead import AT_ONCE
from siorg_queue import Connection
from support.job import job_environment
from support.local_structure import wait_until
from support.queue import number
from support.simulated import row
from support.siorg_server import SiorgServer

_ORGANIZATIONS = range(600, 609)
_UNUSABLE = 603
_LATENCY_MS = 100


def _units() -> Iterator[dict[str, Any]]:
    """Of each organization three units, each below the one before and listed last first; but of one that cannot be used."""
    for code in _ORGANIZATIONS:
        if code == _UNUSABLE:
            yield from (row(one, parent, code, nome="x" * 300) for one, parent in ((code, 1), (10 * code, code)))
            continue
        for depth in (3, 2, 1):
            yield row(10 * code + depth, code if depth == 1 else 10 * code + depth - 1, code)
        yield row(code, 1, code)


@pytest.fixture
def siorg(tmp_path: Path) -> Iterator[SiorgServer]:
    snapshot = tmp_path / "structure.json"
    snapshot.write_text(json.dumps({"servico": {}, "unidades": list(_units())}), encoding="utf-8")
    with SiorgServer("--snapshot", snapshot, "--latency-ms", str(_LATENCY_MS), request_log=tmp_path / "requests") as server:
        yield server


@pytest.fixture
def registered(connection: Connection) -> Connection:
    connection.cursor().executemany(
        "INSERT INTO organizations (siorg_code, acronym, name, cnpj, ug_code) VALUES (%s, %s, %s, %s, 1)",
        [(code, f"O{code}", f"Organização {code}", f"{code:014d}") for code in _ORGANIZATIONS],
    )
    connection.execute("DELETE FROM organizations WHERE siorg_code <> ALL (%s)", [list(_ORGANIZATIONS)])
    return connection


def _most_at_once(requests: list[dict[str, Any]]) -> int:
    """Of those about organizations."""
    changes: list[tuple[datetime, int]] = []
    for request in requests:
        if "organizacional" in request["path"]:
            began = datetime.fromisoformat(request["time"])
            changes += [(began, 1), (began + timedelta(milliseconds=0.9 * _LATENCY_MS), -1)]  # it was not answered before that
    count = most = 0
    for _, change in sorted(changes):
        count += change
        most = max(most, count)
    return most


@pytest.mark.parametrize("at_once", [1, AT_ONCE])
def test_several_are_asked_about_and_what_is_enqueued_is_as_if_one_were(
    at_once: int, siorg: SiorgServer, registered: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("siorg_job.reconciliation.ahead.AT_ONCE", at_once)
    before = registered.execute("SELECT clock_timestamp() AS now").fetchall()[0]["now"]
    env = job_environment(database_url, siorg.url, SIORG_MAX_REQUESTS_PER_SECOND="15")
    assert main(["discover"], env) == 75  # one organization cannot be used
    requests = siorg.requests()
    assert min(at_once, 2) <= _most_at_once(requests) <= at_once
    found = registered.execute(
        "SELECT siorg_code FROM siorg_sync_queue WHERE entity_type IN ('ORGANIZATION', 'UNIT') AND siorg_code > 500 ORDER BY ctid"
    ).fetchall()
    expected = [[code, *range(10 * code + 1, 10 * code + 4)] for code in _ORGANIZATIONS if code != _UNUSABLE]
    assert [one["siorg_code"] for one in found] == [code for some in expected for code in some]
    # Each request has taken its turn of the shared rate, of which an idle second may be used up at once.
    pace = registered.execute("SELECT next_at FROM siorg_request_pace WHERE name = 'siorg'").fetchall()[0]["next_at"]
    assert pace - before >= timedelta(seconds=(len(requests) - 1) / 15 - 1)


def test_one_that_is_stopped_ends_soon_and_what_is_not_asked_for_waits_for_the_next(
    registered: Connection, database_url: str
) -> None:
    with SiorgServer("--synthetic", "10", "--latency-ms", "600000") as siorg:
        env = job_environment(database_url, siorg.url)
        command = [sys.executable, "-m", "siorg_job", "discover", "--organization", "600", "--organization", "601"]
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            try:
                wait_until(lambda: number(registered, "SELECT count(*) FROM siorg_request_pace WHERE next_at > '2000-01-01'") > 0)
                process.send_signal(signal.SIGTERM)
                told, _ = process.communicate(timeout=30)
            finally:
                process.kill()
        assert (process.returncode, "Stopping" in told) == (0, True)
    assert number(registered, "SELECT count(*) FROM siorg_sync_queue") == 0
