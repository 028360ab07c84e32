"""How a drain claims: not one by one, not in a spin, and with nothing left behind that nobody would end."""

from __future__ import annotations

import pytest

from siorg_queue import Connection, connect
from support.fleet import Fleet, eventually
from support.siorg_server import SiorgServer

from .conftest import States, Waiting


def commits(connection: Connection) -> int:
    """Transactions of this database so far; a process counts when it has ended."""
    connection.execute("SELECT pg_stat_clear_snapshot()")
    row = connection.execute("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()").fetchone()
    assert row is not None
    return int(row["xact_commit"])


def test_claims_are_not_made_for_single_items(siorg: SiorgServer, fleet: Fleet, waiting: Waiting, states: States) -> None:
    waiting(100)
    siorg.control("PUT", "latency", {"latency": "800:790"})
    job = fleet.start(WORKER_BATCH_SIZE="10")
    assert job.ends() == 0, job.stderr
    assert states() == {("COMPLETED", 1): 100}
    assert job.summary["batches"] <= 100 / 4 + 1  # a quarter of the 16 has to be free


def test_a_process_with_one_slow_item_claims_beside_it(
    siorg: SiorgServer, fleet: Fleet, waiting: Waiting, connection: Connection, states: States
) -> None:
    codes = waiting(1)
    siorg.control("PUT", "latency", {"latency": "2000"})
    job = fleet.start()
    eventually(lambda: states() == {("PROCESSING", 1): 1})
    connection.execute(
        "INSERT INTO siorg_sync_queue (entity_type, siorg_code, operation, payload) VALUES ('UNIT', %s, 'UPDATE', '{}')",
        [codes[0] + 1],
    )
    eventually(lambda: states() == {("PROCESSING", 1): 2}, seconds=2.5)
    assert job.ends() == 0, job.stderr


def test_a_row_that_somebody_else_holds_ends_the_run_without_a_spin(
    connection: Connection, database_url: str, fleet: Fleet, waiting: Waiting, states: States
) -> None:
    waiting(1)
    before = commits(connection)
    with connect(database_url, application_name="a person") as person, person.transaction():
        person.execute("SELECT FROM siorg_sync_queue FOR UPDATE")
        job = fleet.start(WORKER_LINGER_SECS="2")
        assert job.ends(within=15) == 0, job.stderr
        assert job.summary["claimed"] == 0
    assert states() == {("PENDING", 0): 1}
    assert commits(connection) - before < 100
    assert fleet.start().ends() == 0
    assert states() == {("COMPLETED", 1): 1}


def test_a_row_that_somebody_else_lets_go_in_time_is_done(
    connection: Connection, database_url: str, fleet: Fleet, waiting: Waiting, states: States
) -> None:
    waiting(1)
    with connect(database_url, application_name="a person") as person, person.transaction():
        person.execute("SELECT FROM siorg_sync_queue FOR UPDATE")
        job = fleet.start(WORKER_LINGER_SECS="20")
        eventually(lambda: sessions(connection) >= 2)  # its drain has begun
    assert job.ends() == 0, job.stderr
    assert states() == {("COMPLETED", 1): 1}


def sessions(connection: Connection) -> int:
    row = connection.execute(
        "SELECT count(*) AS n FROM pg_stat_activity WHERE application_name IN ('siorg-job', 'siorg-job fetch')"
        " AND datname = current_database()"
    ).fetchone()
    assert row is not None
    return int(row["n"])


@pytest.mark.parametrize("due", [0, 5])
def test_no_spent_item_is_left_waiting(due: int, connection: Connection, fleet: Fleet, waiting: Waiting, states: States) -> None:
    waiting(due)
    connection.execute(
        "INSERT INTO siorg_sync_queue (entity_type, siorg_code, operation, payload, attempts)"
        " SELECT 'UNIT', 100000 + n, 'UPDATE', '{}', 3 FROM generate_series(1, 2500) AS n"
    )
    job = fleet.start()
    assert job.ends() == 0, job.stderr
    assert states().get(("FAILED", 3)) == 2500
    assert states().get(("COMPLETED", 1), 0) == due
    assert len(states()) == 1 + bool(due)
