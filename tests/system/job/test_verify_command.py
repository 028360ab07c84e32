"""``siorg-job verify`` as people and the CronJob run it, against the simulator."""

from __future__ import annotations

import asyncio
import csv
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from siorg_job.reconciliation.verification import VerifyAll
from siorg_job.reconciliation.verify import Subject
from siorg_job.siorg.errors import SiorgUnavailable
from siorg_queue import Connection
from support.job import job_environment, run_job
from support.local_structure import ANOTHER, UFMT, World, wait_until
from support.queue import number, rows
from support.siorg_server import SiorgServer

_UNITS = 40
_ROWS = _UNITS + 10 + 5  # with the tables of categories and types


@dataclass
class Copy:
    """A database in line with a simulator."""

    connection: Connection
    env: dict[str, str]

    def verify(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        return run_job("verify", *words, env=self.env, code=code)

    def stored(self) -> list[dict[str, Any]]:
        return self.connection.execute("SELECT * FROM siorg_verifications ORDER BY finished_at").fetchall()

    def make_drift(self, fields: int = 1) -> None:
        """Values that nothing of ours wrote, and no person."""
        self.connection.execute(
            "UPDATE organizational_units SET siorg_last_version = '0.0.1' WHERE id IN (SELECT id FROM organizational_units"
            " WHERE siorg_last_version IS NOT NULL ORDER BY siorg_code LIMIT %s)", [fields],
        )  # fmt: skip


@pytest.fixture
def copy(database_url: str, connection: Connection) -> Iterator[Copy]:
    with SiorgServer("--synthetic", str(_UNITS), "--seed", "7") as server:
        made = Copy(connection, job_environment(database_url, server.url))
        for command in ("discover", "run"):
            run_job(command, env=made.env)
        yield made


def test_what_is_in_line_is_0_drift_is_3_and_queued_it_is_mended(copy: Copy) -> None:
    assert copy.verify().stdout.splitlines() == [f"1 organization, {_ROWS} rows compared", "no departure"]
    copy.make_drift()
    assert "put on the queue: 1 item" in copy.verify("--enqueue", code=3).stdout
    assert "waiting" in copy.verify("--enqueue").stdout
    assert number(copy.connection, "SELECT count(*) FROM siorg_sync_queue WHERE status = 'PENDING'") == 1
    run_job("run", env=copy.env)
    assert "no departure" in copy.verify().stdout
    assert copy.stored() == []


def test_departures_are_listed_by_organization_as_json_and_as_a_table(copy: Copy, tmp_path: Path) -> None:
    copy.connection.execute(
        "UPDATE organizational_units SET name = '=Minha' WHERE siorg_code = (SELECT max(siorg_code) FROM organizational_units)"
    )
    copy.connection.execute("UPDATE organizational_units SET siorg_base = NULL")  # as older Jobs left them
    listed = copy.verify().stdout.splitlines()
    assert listed[0] == "471 UFMT"
    assert listed[1].split()[:2] == ["edited", "unit"]
    assert next(line.split()[:2] for line in listed if line.startswith("  1")) == ["1", "edited"]
    assert any(line.startswith("1 of the 1 conflict and edited have SIORG's older answer as their base") for line in listed)
    file = tmp_path / "departures.csv"
    *departures, summary = map(json.loads, copy.verify("--json", "--csv", str(file)).stdout.splitlines())
    assert [(each["organization"], each["kind"], each["here"], each["adopted"]) for each in departures] == [
        (UFMT, "edited", "=Minha", True)
    ]
    assert summary == {
        "complete": True, "organizations": 1, "inactive": 0, "rows": _ROWS, "departures": {"edited": 1}, "adopted": 1,
        "enqueued": 0, "untold": {},
    }  # fmt: skip
    with file.open(newline="", encoding="utf-8") as text:
        (row,) = csv.DictReader(text)
    assert row.keys() == departures[0].keys()
    assert (row["here"], row["kind"]) == ("'=Minha", "edited")


def test_an_organization_that_is_not_active_here_is_said_to_be_so(copy: Copy) -> None:
    copy.connection.execute("UPDATE organizations SET is_active = false")
    counted, inactive, nothing = copy.verify("--organization", str(UFMT)).stdout.splitlines()
    assert (counted, nothing) == ("0 organizations, 0 rows compared", "no departure")
    assert inactive == "not active here, so nothing of it is kept in line or was compared: 471 UFMT"


def test_a_stored_result_is_0_with_drift_and_what_could_not_be_told_is_stored_beside_it(copy: Copy) -> None:
    copy.make_drift(2)
    copy.connection.execute("UPDATE organizations SET phone = '1234'")
    copy.verify("--stored", "--enqueue")
    copy.env["SIORG_API_URL"] = "http://127.0.0.1:9/doc"
    copy.verify("--stored", code=75)
    whole, part = copy.stored()
    expected: dict[str, Any] = {
        "complete": True, "organizations": 1, "compared": _ROWS, "drift": 2, "enqueued": 2, "departures": {"edited": 1},
        "reason": None,
    }  # fmt: skip
    assert {key: whole[key] for key in expected} == expected
    assert whole["started_at"] < whole["finished_at"] < part["started_at"]
    assert (part["complete"], part["organizations"], part["departures"]) == (False, 0, {})
    assert part["reason"].startswith("CATEGORY: ")


def test_where_no_result_can_be_stored_nothing_is_asked(database_url: str, connection: Connection) -> None:
    role = "siorg_reader"
    connection.execute(f"CREATE ROLE {role} LOGIN IN ROLE pg_read_all_data".encode())
    try:
        url = database_url.replace("//postgres@", f"//{role}@")
        told = run_job("verify", "--stored", env=job_environment(url, "http://127.0.0.1:9/doc"), code=1).stderr
        assert "GRANT SELECT, INSERT" in told
    finally:
        connection.execute(f"DROP ROLE {role}".encode())
    connection.execute("DROP TABLE siorg_verifications")
    told = run_job("verify", "--stored", env=job_environment(database_url, "http://127.0.0.1:9/doc"), code=1).stderr
    assert "siorg-job migrate" in told


def test_nothing_is_enqueued_while_the_sync_is_switched_off(copy: Copy) -> None:
    copy.make_drift()
    copy.connection.execute("UPDATE system_settings SET value = 'false' WHERE key = 'siorg.sync_enabled'")
    assert "siorg.sync_enabled is false" in copy.verify("--enqueue", code=1).stderr
    assert "Nothing is enqueued" in copy.verify("--enqueue", "--stored").stderr
    assert [(row["drift"], row["enqueued"]) for row in copy.stored()] == [(1, 0)]
    assert {row["status"] for row in rows(copy.connection)} == {"COMPLETED"}


@contextmanager
def _running(*words: str, env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "siorg_job", *words]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_one_that_is_stopped_ends_soon_and_says_what_it_could_not_tell(database_url: str, connection: Connection) -> None:
    with SiorgServer("--synthetic", "10", "--latency-ms", "600000") as server:
        env = job_environment(database_url, server.url)
        with _running("verify", "--stored", env=env) as process:
            # The shared rate has given out a turn: a request is on its way, or about to be.
            wait_until(lambda: number(connection, "SELECT count(*) FROM siorg_request_pace WHERE next_at > '2000-01-01'") > 0)
            process.send_signal(signal.SIGTERM)
            told, _ = process.communicate(timeout=30)
            assert process.returncode == 75
    assert "471 UFMT could not be told: it was stopped" in told
    (stored,) = connection.execute("SELECT complete, reason FROM siorg_verifications").fetchall()
    assert stored["complete"] is False
    assert "it was stopped" in stored["reason"]


def test_what_failed_for_the_moment_is_asked_once_more_at_the_end(database_url: str) -> None:
    with World(database_url) as world:
        world.register(ANOTHER)
        structure, failures = world.siorg.structure, [SiorgUnavailable("503")]

        async def once_unavailable(organization: int) -> Any:
            if organization == UFMT and failures:
                raise failures.pop()
            return await structure(organization)

        world.siorg.structure = once_unavailable  # type: ignore[method-assign]
        told: list[Subject] = []
        verify_all = VerifyAll(cast("Any", world.siorg), world.connection, requests_at_once=4, tell=told.append)
        asyncio.run(verify_all([UFMT, ANOTHER]))
        result = verify_all.result([UFMT, ANOTHER])
        assert (result.is_complete, sorted(map(int, told))) == (True, [UFMT, ANOTHER])


def test_a_unit_that_moved_is_told_once_by_the_organization_that_has_it_now(database_url: str) -> None:
    with World(database_url) as world:
        world.register(ANOTHER)
        world.have(900)
        world.siorg.change(900, organization=ANOTHER, parent=ANOTHER)
        verify_all = VerifyAll(cast("Any", world.siorg), world.connection, requests_at_once=4)
        asyncio.run(verify_all([UFMT, ANOTHER]))
        result = verify_all.result([UFMT, ANOTHER])
        told = [(verified.organization, each.field) for verified, each in result.departures if each.code == 900]
        assert told == [(ANOTHER, "organization")]
