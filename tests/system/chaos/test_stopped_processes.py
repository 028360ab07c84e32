"""A process that stands still longer than its leases: others do its work, and what it then brings is refused."""

from __future__ import annotations

import signal

from support.fleet import eventually

from .conftest import Scene

HISTORY = "SELECT count(*) FROM siorg_history"
IN_WORK = "SELECT count(*) FROM siorg_sync_queue WHERE status = 'PROCESSING'"
RUN_OUT = f"{IN_WORK} AND lease_expires_at < now()"


def test_a_process_that_was_stopped_beyond_its_leases_changes_nothing(scene: Scene) -> None:
    scene.waiting(6)
    scene.latency("1000")
    slow = scene.start(name="slow")
    eventually(lambda: scene.number(IN_WORK) == 6)
    slow.send(signal.SIGSTOP)
    eventually(lambda: scene.number(RUN_OUT) == 6)
    scene.latency("0")

    scene.run(0, name="other")
    assert scene.states() == {("COMPLETED", 1): 6}
    before = scene.connection.execute("SELECT * FROM siorg_sync_queue ORDER BY id").fetchall()
    history = scene.number(HISTORY)

    slow.send(signal.SIGCONT)
    assert slow.ends() == 0, slow.stderr
    assert scene.connection.execute("SELECT * FROM siorg_sync_queue ORDER BY id").fetchall() == before
    assert scene.number(HISTORY) == history
    assert slow.stderr.count("A late result was refused") == 6
    assert (slow.summary["stale"], slow.summary["completed"]) == (6, 0)
    kinds = scene.audit()
    assert kinds == {"claim": 6, "reaped": 6, "finish": 6} or kinds["reclaim"] + kinds["reaped"] == 6


def test_a_process_that_was_stopped_and_alone_takes_its_own_items_again(scene: Scene) -> None:
    scene.waiting(6)
    scene.latency("800")
    job = scene.start(WORKER_BATCH_SIZE="3")  # with room left, so that it claims before it hears of what it lost
    eventually(lambda: scene.number(IN_WORK) == 6)
    job.send(signal.SIGSTOP)
    eventually(lambda: scene.number(RUN_OUT) == 6)

    job.send(signal.SIGCONT)
    assert job.ends() == 0, job.stderr
    assert scene.states() == {("COMPLETED", 1): 6}, job.stderr
    assert (job.summary["stale"], job.summary["completed"]) == (6, 6)
    assert scene.audit()["finish"] == 6
    assert scene.number(f"{HISTORY} WHERE change_type = 'CREATION'") >= 6


def test_a_process_that_was_stopped_inside_its_transaction_frees_its_row(scene: Scene) -> None:
    scene.waiting(1)
    scene.connection.execute(
        "CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN IF current_setting('ledger.actor', true) = 'slow' THEN PERFORM pg_sleep(2); END IF; RETURN NULL; END $$;"
        "CREATE TRIGGER linger AFTER INSERT ON siorg_history EXECUTE FUNCTION linger()"
    )
    slow = scene.start(name="slow")
    eventually(lambda: scene.number("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == 1)
    slow.send(signal.SIGSTOP)
    mine = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'siorg-job' AND state = 'idle in transaction'"
    eventually(lambda: scene.number(mine) == 1)

    # The lease runs out long before the server ends the session. The row is locked and cannot be claimed: for others, there is
    # nothing.
    eventually(lambda: scene.number(RUN_OUT) == 1)
    assert scene.drain()[0] == "exhausted"
    assert scene.states() == {("PROCESSING", 1): 1}
    eventually(lambda: scene.number(mine) == 0, seconds=20)
    assert scene.drain()[0] == "exhausted"
    assert scene.states() == {("COMPLETED", 1): 1}
    history = scene.number(HISTORY)

    slow.send(signal.SIGCONT)
    assert slow.ends() == 0, slow.stderr
    assert (slow.summary["stale"], slow.summary["completed"]) == (1, 0)
    assert scene.number(HISTORY) == history
    assert scene.states() == {("COMPLETED", 1): 1}
    scene.audit()
