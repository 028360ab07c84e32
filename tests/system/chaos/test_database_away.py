"""The database is down, goes away, comes back, or stands behind PgBouncer."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from siorg_queue import connect
from support import ledger
from support.fleet import Fleet, eventually
from support.job import job_environment, run_job
from support.postgres import Postgres, embedded_postgres
from support.siorg_server import SiorgServer

from .conftest import QUICK, fill


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[Postgres]:
    with embedded_postgres(durable=True) as server:
        yield server


def statuses(url: str) -> dict[str, int]:
    with connect(url, application_name="test") as connection:
        rows = connection.execute("SELECT status::text, count(*) AS n FROM siorg_sync_queue GROUP BY 1").fetchall()
    return {row["status"]: row["n"] for row in rows}


def test_goes_away_and_comes_back(own_postgres: Postgres, siorg: SiorgServer, codes: list[int], tmp_path: Path) -> None:
    url = own_postgres.database()
    with connect(url, application_name="test") as connection:
        ledger.install(connection)
        fill(connection, codes[:120])
    siorg.control("PUT", "latency", {"latency": "300"})
    env = job_environment(url, siorg.url, **{**QUICK, "WORKER_UNAVAILABLE_SECS": "30", "WORKER_MAX_RETRIES": "5"})
    with Fleet(env, tmp_path) as fleet:
        job = fleet.start()
        eventually(lambda: statuses(url).get("COMPLETED", 0) >= 16)
        own_postgres.stop("immediate")  # a crash
        eventually(lambda: "The database is unavailable" in job.stderr)
        own_postgres.start()
        assert job.ends() == 0, job.stderr
        assert "The database answers again" in job.stderr
        eventually(lambda: fleet.start().ends() == 0 and set(statuses(url)) == {"COMPLETED"}, every=1)
    with connect(url, application_name="test") as connection:
        ledger.audit(connection)
        twice = connection.execute(
            "SELECT siorg_code FROM siorg_history WHERE change_type = 'CREATION' GROUP BY 1 HAVING count(*) > 1"
        ).fetchall()
        assert not twice


def test_goes_away_and_stays_away(own_postgres: Postgres, siorg: SiorgServer, codes: list[int], tmp_path: Path) -> None:
    url = own_postgres.database()
    with connect(url, application_name="test") as connection:
        ledger.install(connection)
        fill(connection, codes[:60])
    siorg.control("PUT", "latency", {"latency": "300"})
    with Fleet(job_environment(url, siorg.url, **QUICK), tmp_path) as fleet:
        job = fleet.start()
        eventually(lambda: statuses(url).get("COMPLETED", 0) >= 16)
        own_postgres.stop()
        assert job.ends(within=30) == 75, job.stderr
        assert job.summary["reason"] == "database_unavailable"
        own_postgres.start()
        eventually(lambda: fleet.start().ends() == 0 and set(statuses(url)) == {"COMPLETED"}, every=1)
    with connect(url, application_name="test") as connection:
        ledger.audit(connection)


@pytest.fixture
def pgbouncer(own_postgres: Postgres, tmp_path: Path) -> Iterator[int]:
    """PgBouncer in transaction mode before our server; its port."""
    program = shutil.which("pgbouncer") or next((p for p in ("/usr/sbin/pgbouncer",) if Path(p).exists()), None)
    if program is None:
        pytest.skip("the program pgbouncer is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    users = tmp_path / "users.txt"
    users.write_text('"postgres" ""\n')
    ini = tmp_path / "pgbouncer.ini"
    ini.write_text(
        f"[databases]\n* = host={own_postgres.socket_folder} user=postgres\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        f"auth_file = {users}\npool_mode = transaction\ndefault_pool_size = 4\nmax_client_conn = 100\nlogfile = {tmp_path}/log\n"
    )
    command = [program, str(ini)]
    if os.geteuid() == 0:  # it refuses to run as root
        for path in (tmp_path, *tmp_path.parents[:3]):
            if str(path).startswith("/tmp/"):
                path.chmod(0o755)
        tmp_path.chmod(0o777)
        owner = pwd.getpwuid(own_postgres.socket_folder.stat().st_uid).pw_name
        command = [program, "-u", owner, str(ini)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: listening(port), seconds=10)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.pgbouncer
def test_through_pgbouncer_in_transaction_mode(
    own_postgres: Postgres, pgbouncer: int, siorg: SiorgServer, codes: list[int], tmp_path: Path
) -> None:
    direct = own_postgres.database(migrated=False)
    name = direct.rsplit("@/", 1)[1].split("?", 1)[0]
    url = f"postgresql://postgres@127.0.0.1:{pgbouncer}/{name}"
    env = job_environment(url, siorg.url, **QUICK)
    run_job("migrate", env=env)
    run_job("migrate", env=env)
    run_job("discover", "--organization", "471", env=env)
    with connect(direct, application_name="test") as connection:
        ledger.install(connection)
    siorg.control("PUT", "latency", {"latency": "20"})
    with Fleet(env, tmp_path, named=False) as fleet:
        jobs = [fleet.start(WORKER_BATCH_SIZE="3", WORKER_CONCURRENCY="6") for _ in range(3)]
        assert [job.ends() for job in jobs] == [0, 0, 0], [job.stderr for job in jobs]
        assert min(job.summary["completed"] for job in jobs) > 0
    assert set(statuses(direct)) == {"COMPLETED"}
    with connect(direct, application_name="test") as connection:
        ledger.audit(connection)
