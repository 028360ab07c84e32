"""``siorg-job run`` at its start: what dangles, the database that is away, the switch."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from siorg_job.commands.run import drain
from siorg_job.drain.maintenance import Maintenance
from siorg_job.drain.queue_client import QueueClient
from siorg_job.drain.run import Run
from siorg_job.metrics import JobMetrics
from siorg_job.settings import Settings
from siorg_queue import Connection, QueueStore, connect
from siorg_queue.model import Counts
from support.event_loop import in_a_loop, until
from support.fleet import Fleet, eventually
from support.job import job_environment
from support.postgres import Postgres
from support.queue import number

NOBODY = "http://127.0.0.1:9/doc"
OURS = "FROM pg_stat_activity WHERE application_name = 'siorg-job' AND datname = current_database()"


def test_forever_waits_for_a_database_that_is_away_at_the_start(own_postgres: Postgres, tmp_path: Path) -> None:
    url = own_postgres.database()
    own_postgres.stop()
    with Fleet(job_environment(url, NOBODY, WORKER_UNAVAILABLE_SECS="0.5"), tmp_path) as fleet:
        job, impatient = fleet.start("run", "--forever"), fleet.start("run")
        assert impatient.ends() == 75
        assert (impatient.summary["reason"], impatient.summary["exit_code"]) == ("database_unavailable", 75)
        eventually(lambda: "The database is unavailable" in job.stderr)
        assert job.running, job.stderr
        own_postgres.start()
        eventually(lambda: "The database answers again" in job.stderr)
        eventually(lambda: sessions(url))
        assert job.running, job.stderr
        job.process.terminate()
        assert job.ends() == 0, job.stderr


def sessions(url: str) -> int:
    with connect(url, application_name="test") as connection:
        return number(connection, f"SELECT count(*) {OURS}")


@pytest.mark.parametrize("forever", [[], ["--forever"]])
def test_asked_to_end_while_it_waits_for_the_database_is_0(forever: list[str], tmp_path: Path) -> None:
    env = job_environment("postgresql://postgres@127.0.0.1:9/none", NOBODY, WORKER_UNAVAILABLE_SECS="60")
    with Fleet(env, tmp_path) as fleet:
        job = fleet.start("run", *forever)
        eventually(lambda: "The database is unavailable" in job.stderr)
        job.process.terminate()
        assert job.ends(within=5) == 0, job.stderr
        assert job.summary["reason"] == "stopped"


@in_a_loop
async def test_a_switch_that_is_off_is_told_once(
    connection: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("siorg_job.drain.maintenance._ENABLED_SECONDS", 0.1)
    caplog.set_level(logging.INFO)

    def switch(value: str) -> None:
        connection.execute(
            "INSERT INTO system_settings (key, value) VALUES ('siorg.sync_enabled', %s::jsonb)"
            " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            [value],
        )

    switch("false")
    looks = set()

    def looked_often() -> bool:
        looks.add(number(connection, f"SELECT coalesce(extract(epoch FROM max(query_start)), 0) * 1e6 {OURS}"))
        return len(looks) > 4

    settings = Settings.from_environment(job_environment(database_url, NOBODY))
    endless = Run(replace(settings, worker_poll_interval_secs=0.1), forever=True)
    draining = asyncio.create_task(drain(endless))
    await until(lambda: "sync_enabled is false" in caplog.text, seconds=30)
    await until(looked_often, seconds=30)
    assert caplog.text.count("sync_enabled is false") == 1
    switch("true")
    await until(lambda: "sync_enabled is true again" in caplog.text, seconds=30)
    switch("false")
    await until(lambda: caplog.text.count("sync_enabled is false") == 2, seconds=30)
    endless.stop.set()
    assert await draining == "stopped"


@in_a_loop
async def test_chores_are_done_at_their_intervals_and_none_is_for_nobody(
    database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    counted: list[QueueStore] = []
    counts = QueueStore.counts

    def counting(store: QueueStore) -> Counts:
        counted.append(store)
        return counts(store)

    monkeypatch.setattr(QueueStore, "counts", counting)
    for port, expected in ((None, 0), (9999, 1)):
        settings = replace(Settings.from_environment(job_environment(database_url, NOBODY)), worker_metrics_port=port)
        run = Run(settings, forever=True)
        caplog.clear()
        async with aclosing(QueueClient(run)) as queue, aclosing(Maintenance(run, queue)) as maintenance:
            for _ in range(3):
                await maintenance.run_due(0, JobMetrics())
                await until(lambda: "Cleanup complete" in caplog.text)
        assert caplog.text.count("Cleanup complete") == 1
        assert len(counted) == expected, "the numbers of a metric that nobody can see"
