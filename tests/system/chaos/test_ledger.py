"""Nothing lost, nothing twice: workers are killed, the database is restarted, SIORG fails, and every row is accounted for."""

from __future__ import annotations

import random
from collections import Counter
from functools import partial
from pathlib import Path

import psycopg
import pytest

from siorg_queue import Connection, connect
from support import ledger
from support.fleet import Fleet, Job, eventually
from support.job import job_environment, run_job
from support.postgres import Postgres
from support.queue import number
from support.siorg_server import SiorgServer

from .conftest import UFMT, structure_of

ITEMS = 500
EDITS = 100
PROCESSES = 4
KILLS = 10
"""One each time that a share of the items is done, however fast that goes; the last share is done in peace."""

FAULTS = "status=503:0.04,timeout=0.01,torn=0.02,garbage=0.02,429=0.006"

SETTINGS = {
    # Below four of an organization, units are fetched one by one: a request for each, spread over some seconds.
    "WORKER_BATCH_SIZE": "3",
    "WORKER_CONCURRENCY": "9",
    "SIORG_MAX_REQUESTS_PER_SECOND": "110",
    "SIORG_MAX_ENDS": "1000",  # of its changes many are ends: none of them is held
    "WORKER_LEASE_SECS": "2",
    "WORKER_MAX_RETRIES": "20",
    "WORKER_RETRY_BASE_DELAY_MS": "100",
    "WORKER_RETRY_MAX_DELAY_MS": "1000",
    "WORKER_LINGER_SECS": "2",
    "SIORG_TIMEOUT_SECS": "1.5",
    "SIORG_BREAKER_COOLDOWN_SECS": "0.5",
    "LOG_LEVEL": "warning",
}

COMPLETED = "SELECT count(*) FROM siorg_sync_queue WHERE status = 'COMPLETED'"
UNFINISHED = "SELECT count(*) FROM siorg_sync_queue WHERE status IN ('PENDING', 'PROCESSING')"


@pytest.mark.timeout(300)
def test_every_item_is_accounted_for(own_postgres: Postgres, tmp_path: Path) -> None:
    dice = random.Random(471)
    with SiorgServer(
        "--synthetic", str(ITEMS), "--synthetic-changes", str(EDITS), "--retry-after", "1", "--latency-ms", "20:10"
    ) as siorg:
        siorg.control("PUT", "snapshot", {"index": 0})
        url = own_postgres.database()
        env = job_environment(url, siorg.url, **SETTINGS)
        with connect(url, application_name="test") as connection:
            ledger.install(connection)
        run_job("discover", "--organization", str(UFMT), env=env)
        siorg.control("PUT", "faults", {"faults": FAULTS})

        with Fleet(env, tmp_path) as fleet:
            crew = [fleet.start() for _ in range(PROCESSES)]
            for kill in range(1, KILLS + 1):
                holders = eventually(partial(holders_after, ITEMS * kill // (KILLS + 1), url, crew, fleet), seconds=60)
                victim = dice.choice(holders)
                victim.process.kill()
                victim.ends()
                if kill == KILLS // 2:
                    own_postgres.restart()
                elif kill % 3 == 0:
                    terminate_a_backend(own_postgres.url(), dice)
            for job in crew:
                assert job.ends(within=60) in {0, 75, -9}, job.stderr
            eventually(lambda: run_job("run", env=env) and read(url, UNFINISHED) == 0, seconds=60, every=0.5)
            codes = Counter(job.process.returncode for job in fleet.jobs)
            assert codes.keys() <= {0, 75, -9}, codes
            assert codes[-9] == KILLS
        siorg.control("PUT", "faults", {"faults": ""})

        with connect(url, application_name="test") as connection:
            kinds = ledger.audit(connection)
            print(f"ledger: {dict(kinds)}")  # noqa: T201
            assert kinds["reclaim"] + kinds["reaped"] > KILLS  # hardly anyone was killed that held nothing
            check_queue(connection)
            check_structure(connection, siorg)
            check_history(connection)

            # SIORG changes: exactly one history row for each unit that it changed, and then none.
            siorg.control("PUT", "snapshot", {"index": 1})
            siorg.control("PUT", "faults", {"faults": FAULTS})
            before = number(connection, "SELECT count(*) AS n FROM siorg_history")
            run_job("discover", env=env, code=None)
            with Fleet(env, tmp_path) as fleet:
                second = [fleet.start(name=f"second{place}") for place in range(2)]
                assert {job.ends(within=60) for job in second} == {0}
            siorg.control("PUT", "faults", {"faults": ""})
            run_job("discover", env=env)
            run_job("run", env=env)
            ledger.audit(connection)
            check_queue(connection)
            check_structure(connection, siorg)
            changed = number(connection, "SELECT count(*) AS n FROM siorg_history") - before
            entities = number(
                connection, "SELECT count(DISTINCT siorg_code) AS n FROM siorg_history WHERE change_type <> 'CREATION'"
            )
            assert changed >= EDITS / 2
            assert entities <= changed


def read(url: str, sql: str) -> int:
    """The only value of a query, on a connection of its own: the server may have been restarted."""
    with connect(url, application_name="test") as connection:
        return number(connection, sql)


def holders_after(completed: int, url: str, crew: list[Job], fleet: Fleet) -> list[Job]:
    """Those of the crew that hold items, once so many items are completed; who has ended meanwhile is replaced."""
    for place, job in enumerate(crew):
        if not job.running:
            crew[place] = fleet.start()
    if read(url, COMPLETED) < completed:
        return []
    with connect(url, application_name="test") as connection:
        rows = connection.execute("SELECT claimed_by FROM siorg_sync_queue WHERE status = 'PROCESSING'").fetchall()
    holding = {int(row["claimed_by"].split(":")[1]) for row in rows}
    return [job for job in crew if job.process.pid in holding]


def terminate_a_backend(url: str, dice: random.Random) -> None:
    with psycopg.connect(url, autocommit=True) as admin:
        pids = [row[0] for row in admin.execute("SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'siorg-job%'")]
        for pid in dice.sample(pids, min(2, len(pids))):
            admin.execute("SELECT pg_terminate_backend(%s)", (pid,))


def check_queue(connection: Connection) -> None:
    found = connection.execute(
        "SELECT status::text, count(*) AS n, min(last_error) AS error FROM siorg_sync_queue GROUP BY 1"
    ).fetchall()
    assert [row["status"] for row in found] == ["COMPLETED"], found
    stranded = "SELECT count(*) AS n FROM siorg_sync_queue WHERE claimed_by IS NOT NULL OR lease_expires_at IS NOT NULL"
    assert number(connection, stranded) == 0


def check_structure(connection: Connection, siorg: SiorgServer) -> None:
    theirs = {
        code: (unit.name, unit.acronym, None if unit.parent_code == UFMT else unit.parent_code)
        for code, unit in structure_of(siorg).units.items()
        if code != UFMT and not unit.ended
    }
    ours = {
        row["siorg_code"]: (row["name"], row["acronym"], row["parent"])
        for row in connection.execute(
            "SELECT u.siorg_code, u.name, u.acronym, p.siorg_code AS parent FROM organizational_units AS u"
            " LEFT JOIN organizational_units AS p ON p.id = u.parent_id WHERE u.is_active"
        )
    }
    assert ours == theirs
    crooked = """
        SELECT count(*) AS n FROM organizational_units AS u LEFT JOIN organizational_units AS p ON p.id = u.parent_id
        WHERE u.level <> coalesce(p.level, 0) + 1 OR u.path_ids <> coalesce(p.path_ids, '{}') || u.id
    """
    assert number(connection, crooked) == 0


def check_history(connection: Connection) -> None:
    """After nothing but creations: one row for each unit, of the item that made it, and no other."""
    units = number(connection, "SELECT count(*) AS n FROM organizational_units")
    rows = connection.execute(
        "SELECT siorg_code, count(*) AS n FROM siorg_history WHERE entity_type = 'UNIT' AND change_type = 'CREATION' GROUP BY 1"
    ).fetchall()
    assert len(rows) == units
    assert {row["n"] for row in rows} == {1}
    others = "SELECT count(*) AS n FROM siorg_history WHERE entity_type = 'UNIT' AND change_type <> 'CREATION'"
    assert number(connection, others) == 0
