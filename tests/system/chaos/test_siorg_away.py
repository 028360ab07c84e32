"""SIORG is down, hangs, refuses or wants to be left alone: the run ends in bounded time, and no item pays for it."""

from __future__ import annotations

import pytest

from siorg_queue import Connection
from support import ledger
from support.fleet import Fleet, eventually
from support.poison import PoisonedSiorg
from support.siorg_server import SiorgServer

from .conftest import States, Waiting


@pytest.mark.parametrize("how", ["503", "hanging", "garbage", "nobody listens", "401", "503 with Retry-After"])
def test_from_the_start(
    how: str, connection: Connection, siorg: SiorgServer, fleet: Fleet, waiting: Waiting, states: States
) -> None:
    waiting(20)
    env: dict[str, str] = {}
    faults = {"503": "status=503:1", "hanging": "timeout=1", "garbage": "garbage=1", "401": "status=401:1"}
    if how == "nobody listens":
        env["SIORG_API_URL"] = "http://127.0.0.1:9/doc"
    elif how == "503 with Retry-After":
        with SiorgServer("--synthetic", "5", "--faults", "status=503:1", "--retry-after", "3600") as other:
            check_given_back(connection, fleet, states, {"SIORG_API_URL": other.url})
        return
    else:
        siorg.control("PUT", "faults", {"faults": faults[how]})
    if how == "hanging":
        env["SIORG_TIMEOUT_SECS"] = "0.7"
    check_given_back(connection, fleet, states, env)


def check_given_back(connection: Connection, fleet: Fleet, states: States, env: dict[str, str]) -> None:
    job = fleet.start("run", name="job", **env)
    assert job.ends(within=20) == 75, job.stderr
    assert states() == {("PENDING", 0): 20}, job.stderr
    assert job.summary["reason"] == "siorg_unavailable"
    assert job.summary["exit_code"] == 75
    assert job.summary["claimed"] == job.summary["released"] > 0
    assert set(ledger.audit(connection)) == {"claim", "release"}


def test_in_the_middle_and_back_in_a_later_run(
    connection: Connection, siorg: SiorgServer, fleet: Fleet, waiting: Waiting, states: States
) -> None:
    waiting(100)
    siorg.control("PUT", "latency", {"latency": "300"})
    job = fleet.start()
    eventually(lambda: states().get(("COMPLETED", 1), 0) >= 10)
    siorg.control("PUT", "down", {"down": True})
    assert job.ends(within=20) == 75, job.stderr
    done = states()[("COMPLETED", 1)]
    assert states() == {("COMPLETED", 1): done, ("PENDING", 0): 100 - done}, job.stderr
    siorg.control("PUT", "down", {"down": False})
    assert fleet.start().ends() == 0
    assert states() == {("COMPLETED", 1): 100}
    ledger.audit(connection)


def test_back_within_the_time(connection: Connection, siorg: SiorgServer, fleet: Fleet, waiting: Waiting, states: States) -> None:
    waiting(30)
    siorg.control("PUT", "down", {"down": True})
    job = fleet.start(WORKER_UNAVAILABLE_SECS="30")
    eventually(lambda: "every item was given back" in job.stderr)
    assert states() == {("PENDING", 0): 30}
    siorg.control("PUT", "down", {"down": False})
    assert job.ends() == 0, job.stderr
    assert states() == {("COMPLETED", 1): 30}
    assert "SIORG answers again" in job.stderr


def test_one_poisoned_unit_pays_alone(
    connection: Connection, siorg: SiorgServer, fleet: Fleet, waiting: Waiting, states: States
) -> None:
    codes = waiting(40)
    poisoned = codes[3]
    with PoisonedSiorg(siorg.url, {poisoned}) as proxy:
        job = fleet.start(SIORG_API_URL=proxy.url)
        assert job.ends() == 0, job.stderr
    assert states() == {("COMPLETED", 1): 39, ("FAILED", 3): 1}, job.stderr
    row = connection.execute("SELECT * FROM siorg_sync_queue WHERE status = 'FAILED'").fetchone()
    assert row is not None
    assert row["siorg_code"] == poisoned
    assert "500" in row["last_error"]
    assert row["error_details"]["kind"] == "siorg_unavailable"
    ledger.audit(connection)


def test_so_many_poisoned_units_that_the_breaker_opens_do_not_hold_the_run_for_ever(
    connection: Connection, siorg: SiorgServer, fleet: Fleet, waiting: Waiting, states: States
) -> None:
    """The rest of SIORG works: nothing but these fails, and each time SIORG is asked whether it lives, it does."""
    codes = waiting(30)
    with PoisonedSiorg(siorg.url, set(codes[:8])) as proxy:
        job = fleet.start(SIORG_API_URL=proxy.url, SIORG_BREAKER_FAILURES="3", WORKER_UNAVAILABLE_SECS="20")
        assert job.ends(within=40) in {0, 75}, job.stderr
        for _ in range(3):
            if ("PENDING", 0) in states() or ("PENDING", 1) in states() or ("PENDING", 2) in states():
                assert fleet.start(SIORG_API_URL=proxy.url, SIORG_BREAKER_FAILURES="3").ends(within=40) in {0, 75}
    done = states()
    assert done.get(("FAILED", 3)) == 8, (done, job.stderr)
    assert sum(n for (status, _), n in done.items() if status == "COMPLETED") == 22
    ledger.audit(connection)
