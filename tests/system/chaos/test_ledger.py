"""Nothing lost, nothing twice, nothing stale: whatever happens to the job meanwhile, every row is accounted for.

Workers are killed, alone and all at once; the database is restarted, loses connections and answers to COMMIT; SIORG fails, and
changes; people have transactions open. `make soak` runs it in long.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from functools import partial
from pathlib import Path

import psycopg
import pytest

from siorg_queue import Connection, DatabaseUnavailable, connect
from support import ledger
from support.database_proxy import on_a_thread
from support.fleet import Fleet, Job, eventually
from support.job import job_environment, run_job
from support.postgres import Postgres
from support.queue import number
from support.siorg_server import SiorgServer

from .conftest import LONG, UFMT, structure_of

ITEMS, EDITS, KILLS, PATIENCE = (20_000, 1_000, 60, 1_800) if LONG else (500, 100, 10, 120)
"""A kill each time that a share of the items is done, however fast that goes; the last share is done in peace."""
PROCESSES = 4

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


@pytest.mark.timeout(3_600 if LONG else 600)
def test_every_item_is_accounted_for(own_postgres: Postgres, tmp_path: Path) -> None:
    dice = random.Random(471)
    with (
        SiorgServer(
            "--synthetic", str(ITEMS), "--synthetic-changes", str(EDITS), "--retry-after", "1", "--latency-ms", "20:10"
        ) as siorg,
        on_a_thread(own_postgres.socket_folder) as proxy,
    ):
        after, before = in_force(siorg, 1), in_force(siorg, 0)
        lasting = sorted(before & after)
        url = own_postgres.database()
        env = job_environment(proxy.url(url), siorg.url, **SETTINGS)
        with connect(url, application_name="test") as connection:
            ledger.install(connection)
        run_job("discover", "--organization", str(UFMT), env=env)
        siorg.control("PUT", "faults", {"faults": FAULTS})

        deaths = 0
        with People(url) as people, Fleet(env, tmp_path) as fleet:
            crew = [fleet.start() for _ in range(PROCESSES)]
            for kill in range(1, KILLS + 1):
                share = ITEMS * kill // (KILLS + 1)
                holders = eventually(partial(holders_after, share, url, crew, fleet), seconds=PATIENCE)
                for victim in holders if kill % 4 == 0 else [dice.choice(holders)]:
                    victim.process.kill()
                    victim.ends()
                    deaths += victim.process.returncode == -9
                proxy.losing += PROCESSES
                if kill % 5 == 0:
                    own_postgres.restart()
                elif kill % 3 == 0:
                    terminate_a_backend(own_postgres.url(), dice)
                if kill == KILLS // 2:
                    siorg.control("PUT", "snapshot", {"index": 1})
                for code in dice.sample(lasting, 3):
                    siorg.control("PUT", "unit", {"code": code, "set": {"nome": f"Nome {kill} de {code}"}})
                if kill % 2 == 0:
                    fleet.start("discover")
            lost, proxy.losing = PROCESSES * KILLS - proxy.losing, 0
            for job in fleet.jobs:
                assert job.ends(within=PATIENCE) in {0, 75, -9}, job.stderr
            run = partial(run_job, "run", env=env, timeout=PATIENCE)
            eventually(lambda: run(code=None) and read(url, UNFINISHED) == 0, seconds=PATIENCE, every=0.5)
            codes = Counter(job.process.returncode for job in fleet.jobs)
            assert codes[-9] == deaths >= KILLS
        siorg.control("PUT", "faults", {"faults": ""})
        run_job("discover", env=env)
        run()

        with connect(url, application_name="test") as connection:
            kinds = ledger.audit(connection)
            print(f"ledger: {dict(kinds)}; {deaths} deaths, {lost} answers to COMMIT lost, {people.done} edits of people")  # noqa: T201
            assert kinds["reclaim"] + kinds["reaped"] > KILLS  # hardly anyone was killed that held nothing
            assert lost > KILLS
            assert people.done > KILLS
            check_queue(connection, gone=before - after)
            check_structure(connection, siorg)
            check_history(connection)
            people.check(connection)


class People:
    """Edit one unit after the other, of which the sync knows nothing, and take their time before they commit."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._dice = random.Random(472)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._written: dict[int, str] = {}
        self.done = 0

    def __enter__(self) -> People:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._thread.join()

    def check(self, connection: Connection) -> None:
        """What they wrote is there."""
        rows = connection.execute("SELECT siorg_code, formal_name FROM organizational_units WHERE formal_name IS NOT NULL")
        found = {row["siorg_code"]: row["formal_name"] for row in rows}
        assert {code: found.get(code) for code in self._written} == self._written

    def _work(self) -> None:
        while not self._over.wait(0.02):
            try:
                with connect(self._url, application_name="a person") as connection:
                    self._edits(connection)
            except (psycopg.Error, DatabaseUnavailable):
                continue  # the server was restarted

    def _edits(self, connection: Connection) -> None:
        while not self._over.wait(0.02):
            units = connection.execute("SELECT siorg_code AS code FROM organizational_units ORDER BY random() LIMIT 3").fetchall()
            text = f"edit {self.done}"
            for unit in units:  # until it is known that it was committed, nothing is known
                self._written.pop(unit["code"], None)
            with connection.transaction():
                connection.execute(
                    "UPDATE organizational_units SET formal_name = %s WHERE siorg_code = ANY (%s)",
                    [text, [unit["code"] for unit in units]],
                )
                self._over.wait(self._dice.choice((0.0, 0.0, 0.1, 0.8)))
            self._written.update((unit["code"], text) for unit in units)
            self.done += len(units)


def in_force(siorg: SiorgServer, index: int) -> set[int]:
    """Codes of the units in force once SIORG is at this snapshot."""
    siorg.control("PUT", "snapshot", {"index": index})
    return {code for code, unit in structure_of(siorg).units.items() if code != UFMT and not unit.ended}


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


def check_queue(connection: Connection, gone: set[int]) -> None:
    """All are done, but for units that SIORG has no more: to make one that went while it waited is its own failure."""
    found = connection.execute(
        "SELECT siorg_code, operation, status::text, last_error FROM siorg_sync_queue WHERE status <> 'COMPLETED'"
    ).fetchall()
    innocent = [
        row for row in found
        if row["status"] != "FAILED" or row["siorg_code"] not in gone or not row["last_error"].startswith("SIORG has no unit")
    ]  # fmt: skip
    assert not innocent, innocent[:10]
    stranded = (
        "SELECT count(*) AS n FROM siorg_sync_queue"
        " WHERE (claimed_by IS NOT NULL AND status <> 'COMPLETED') OR lease_expires_at IS NOT NULL"
    )
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
    """Each unit was made once; no item did anything twice, and nothing was done that changed nothing."""
    units = number(connection, "SELECT count(*) AS n FROM organizational_units")
    rows = connection.execute(
        "SELECT siorg_code, count(*) AS n FROM siorg_history WHERE entity_type = 'UNIT' AND change_type = 'CREATION' GROUP BY 1"
    ).fetchall()
    assert len(rows) == units
    assert {row["n"] for row in rows} == {1}
    twice = """
        SELECT siorg_code, change_type, sync_queue_id, count(*) AS n FROM siorg_history
        GROUP BY 1, 2, 3 HAVING count(*) > 1 OR bool_or(previous_data = new_data)
    """
    assert not connection.execute(twice).fetchall()
    changes = number(connection, "SELECT count(*) AS n FROM siorg_history WHERE change_type <> 'CREATION'")
    assert changes >= EDITS / 4  # some are in time for the creation
