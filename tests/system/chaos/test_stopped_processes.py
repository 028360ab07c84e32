"""A process that stands still longer than its leases: others do its work, and what it then brings is refused."""

from __future__ import annotations

import signal

from siorg_queue import Connection
from support import ledger
from support.fleet import Fleet, eventually
from support.siorg_server import SiorgServer

from .conftest import States, Waiting


def in_work(connection: Connection) -> int:
    return number(connection, "SELECT count(*) AS n FROM siorg_sync_queue WHERE status = 'PROCESSING'")


def run_out(connection: Connection) -> int:
    sql = "SELECT count(*) AS n FROM siorg_sync_queue WHERE status = 'PROCESSING' AND lease_expires_at < now()"
    return number(connection, sql)


def number(connection: Connection, sql: str) -> int:
    row = connection.execute(sql.encode()).fetchone()
    assert row is not None
    return int(row["n"])


def test_a_process_that_was_stopped_beyond_its_leases_changes_nothing(
    connection: Connection, siorg: SiorgServer, fleet: Fleet, waiting: Waiting, states: States
) -> None:
    waiting(6)
    siorg.control("PUT", "latency", {"latency": "1000"})
    slow = fleet.start(name="slow")
    eventually(lambda: in_work(connection) == 6)
    slow.send(signal.SIGSTOP)
    eventually(lambda: run_out(connection) == 6)
    siorg.control("PUT", "latency", {"latency": "0"})

    other = fleet.start(name="other")
    assert other.ends() == 0
    assert states() == {("COMPLETED", 2): 6}
    before = connection.execute("SELECT * FROM siorg_sync_queue ORDER BY id").fetchall()
    history = number(connection, "SELECT count(*) AS n FROM siorg_history")

    slow.send(signal.SIGCONT)
    assert slow.ends() == 0, slow.stderr
    assert connection.execute("SELECT * FROM siorg_sync_queue ORDER BY id").fetchall() == before
    assert number(connection, "SELECT count(*) AS n FROM siorg_history") == history
    assert slow.stderr.count("A late result was refused") == 6
    assert slow.summary["stale"] == 6
    assert slow.summary["completed"] == 0
    kinds = ledger.audit(connection)
    assert kinds == {"claim": 6, "reaped": 6, "finish": 6} or kinds["reclaim"] + kinds["reaped"] == 6


def test_a_process_that_was_stopped_and_alone_takes_its_own_items_again(
    connection: Connection, siorg: SiorgServer, fleet: Fleet, waiting: Waiting, states: States
) -> None:
    waiting(6)
    siorg.control("PUT", "latency", {"latency": "800"})
    job = fleet.start(WORKER_BATCH_SIZE="3")  # with room left, so that it claims before it hears of what it lost
    eventually(lambda: in_work(connection) == 6)
    job.send(signal.SIGSTOP)
    eventually(lambda: run_out(connection) == 6)

    job.send(signal.SIGCONT)
    assert job.ends() == 0, job.stderr
    assert states() == {("COMPLETED", 2): 6}, job.stderr
    assert job.summary["stale"] == 6
    assert job.summary["completed"] == 6
    kinds = ledger.audit(connection)
    assert kinds["finish"] == 6
    assert number(connection, "SELECT count(*) AS n FROM siorg_history WHERE change_type = 'CREATION'") >= 6


def test_a_process_that_was_stopped_inside_its_transaction_frees_its_rows(
    connection: Connection, fleet: Fleet, waiting: Waiting, states: States
) -> None:
    waiting(4)
    # Every applying transaction takes this lock of its organization; whoever waits for it has its queue rows locked.
    connection.execute("BEGIN")
    connection.execute("SELECT pg_advisory_xact_lock(hashtext('siorg_sync_apply'), 471)")
    slow = fleet.start(name="slow")
    eventually(lambda: number(connection, "SELECT count(*) AS n FROM pg_locks WHERE locktype = 'advisory' AND NOT granted") == 1)
    slow.send(signal.SIGSTOP)
    connection.execute("COMMIT")

    other = fleet.start(name="other", WORKER_LINGER_SECS="20")
    assert other.ends() == 0  # the rows are locked and cannot be claimed: for it, there is nothing
    assert states() == {("PROCESSING", 1): 4}
    mine = "SELECT count(*) AS n FROM pg_stat_activity WHERE application_name = 'siorg-job' AND state = 'idle in transaction'"
    eventually(lambda: number(connection, mine) == 0, seconds=20)
    assert fleet.start(name="third").ends() == 0
    assert states() == {("COMPLETED", 2): 4}
    history = number(connection, "SELECT count(*) AS n FROM siorg_history")

    slow.send(signal.SIGCONT)
    assert slow.ends() == 0, slow.stderr
    assert slow.summary["stale"] == 4
    assert slow.summary["completed"] == 0
    assert number(connection, "SELECT count(*) AS n FROM siorg_history") == history
    assert states() == {("COMPLETED", 2): 4}
    ledger.audit(connection)
