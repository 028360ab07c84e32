"""The database is down, goes away, comes back, or stands behind PgBouncer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from siorg_queue import connect
from support import ledger
from support.fleet import Fleet, eventually
from support.job import job_environment, run_job
from support.pgbouncer import pgbouncer, program
from support.postgres import Postgres
from support.siorg_server import SiorgServer

from .conftest import QUICK, fill


def statuses(url: str) -> dict[str, int]:
    with connect(url, application_name="test") as connection:
        rows = connection.execute("SELECT status::text, count(*) AS n FROM siorg_sync_queue GROUP BY 1").fetchall()
    return {row["status"]: row["n"] for row in rows}


@pytest.fixture
def working(own_postgres: Postgres, simulator: SiorgServer, codes: list[int], tmp_path: Path) -> Iterator[tuple[Fleet, str]]:
    """A fleet on a database of its own with 120 units to do, which in the end are all done, once and by the rules."""
    url = own_postgres.database()
    with connect(url, application_name="test") as connection:
        ledger.install(connection)
        fill(connection, codes[:120])
    simulator.control("PUT", "latency", {"latency": "300"})
    with Fleet(job_environment(url, simulator.url, **QUICK, WORKER_MAX_RETRIES="5"), tmp_path) as fleet:
        yield fleet, url
        simulator.control("PUT", "latency", {"latency": "0"})
        eventually(lambda: fleet.start().ends() == 0 and set(statuses(url)) == {"COMPLETED"}, every=1)
    with connect(url, application_name="test") as connection:
        ledger.audit(connection)
        twice = "FROM siorg_history WHERE change_type = 'CREATION' GROUP BY siorg_code HAVING count(*) > 1"
        assert not connection.execute(f"SELECT siorg_code {twice}").fetchall()


def test_goes_away_and_comes_back(own_postgres: Postgres, working: tuple[Fleet, str]) -> None:
    fleet, url = working
    job = fleet.start(WORKER_UNAVAILABLE_SECS="30")
    eventually(lambda: statuses(url).get("COMPLETED", 0) >= 16)
    own_postgres.stop("immediate")  # a crash
    eventually(lambda: "The database is unavailable" in job.stderr)
    own_postgres.start()
    assert job.ends() == 0, job.stderr
    assert "The database answers again" in job.stderr


def test_goes_away_and_stays_away(own_postgres: Postgres, working: tuple[Fleet, str]) -> None:
    fleet, url = working
    job = fleet.start()
    eventually(lambda: statuses(url).get("COMPLETED", 0) >= 16)
    own_postgres.stop()
    assert job.ends(within=30) == 75, job.stderr
    assert job.summary["reason"] == "database_unavailable"
    own_postgres.start()


@pytest.mark.pgbouncer
@pytest.mark.skipif(program() is None, reason="the program pgbouncer is not installed")
def test_through_pgbouncer_in_transaction_mode(own_postgres: Postgres, simulator: SiorgServer, tmp_path: Path) -> None:
    direct = own_postgres.database(migrated=False)
    name = direct.rsplit("@/", 1)[1].split("?", 1)[0]
    with pgbouncer(own_postgres) as port:
        env = job_environment(f"postgresql://postgres@127.0.0.1:{port}/{name}", simulator.url, **QUICK)
        run_job("migrate", env=env)
        run_job("migrate", env=env)
        run_job("discover", "--organization", "471", env=env)
        with connect(direct, application_name="test") as connection:
            ledger.install(connection)
        simulator.control("PUT", "latency", {"latency": "20"})
        with Fleet(env, tmp_path, named=False) as fleet:
            jobs = [fleet.start(WORKER_BATCH_SIZE="3", WORKER_CONCURRENCY="6") for _ in range(3)]
            assert [job.ends() for job in jobs] == [0, 0, 0], [job.stderr for job in jobs]
            assert min(job.summary["completed"] for job in jobs) > 0
    assert set(statuses(direct)) == {"COMPLETED"}
    with connect(direct, application_name="test") as connection:
        ledger.audit(connection)
