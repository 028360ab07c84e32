"""Workers are killed again and again: only an item that kills them pays for it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from siorg_queue import connect
from support import ledger
from support.fleet import Fleet, Job, eventually
from support.job import job_environment
from support.poison import PoisonedSiorg

from .conftest import QUICK, Scene

IN_WORK = "FROM siorg_sync_queue WHERE status = 'PROCESSING' AND lease_expires_at > now()"
HOLDERS = f"SELECT claimed_by, count(*) AS n {IN_WORK} GROUP BY 1"
LEASED = f"SELECT count(*) {IN_WORK}"
UNFINISHED = "SELECT count(*) FROM siorg_sync_queue WHERE status IN ('PENDING', 'PROCESSING')"


def test_ten_killed_workers_end_no_innocent_item(scene: Scene) -> None:
    """As a spot node or an eviction does it: each loses what it holds, and two at a time work on."""
    scene.waiting(120)
    scene.latency("150:100")
    crew = [scene.start() for _ in range(2)]
    for _ in range(10):
        victim = eventually(lambda: holding_several(scene, crew))[0]
        victim.send(signal.SIGKILL)
        victim.ends()
        crew[crew.index(victim)] = scene.start()
    for job in crew:
        assert job.ends() == 0, job.stderr
    scene.latency("0")
    eventually(lambda: scene.number(LEASED) == 0)
    scene.run(0)
    assert scene.states() == {("COMPLETED", 1): 120}
    kinds = scene.audit()
    assert kinds["reclaim"] + kinds["reaped"] > 10


def holding_several(scene: Scene, crew: list[Job]) -> list[Job]:
    for place, job in enumerate(crew):
        if not job.running:
            crew[place] = scene.start()
    holders = {int(row["claimed_by"].split(":")[1]) for row in scene.connection.execute(HOLDERS.encode()) if row["n"] > 1}
    return [job for job in crew if job.process.pid in holders]


def test_one_item_that_kills_its_worker_is_the_only_one_that_ends_failed(scene: Scene, database_url: str, tmp_path: Path) -> None:
    codes = scene.waiting(120)
    killer = codes[20]

    def kill_the_holder() -> None:
        with connect(database_url, application_name="test") as connection:
            row = connection.execute(
                "SELECT claimed_by FROM siorg_sync_queue WHERE siorg_code = %s AND status = 'PROCESSING'", [killer]
            ).fetchone()
        assert row is not None
        os.kill(int(row["claimed_by"].split(":")[1]), signal.SIGKILL)

    deaths = 0
    with PoisonedSiorg(scene.siorg.url, {killer}, strike=kill_the_holder) as siorg:
        env = job_environment(database_url, siorg.url, **QUICK, **ledger.acting_as("job"))
        with Fleet(env, tmp_path, named=False) as fleet:
            while scene.number(UNFINISHED):
                job = fleet.start()
                code = job.ends()
                assert code in (0, -signal.SIGKILL), job.stderr
                deaths += code != 0
                assert deaths <= 12
                eventually(lambda: scene.number(LEASED) == 0)
    failed = scene.connection.execute(
        "SELECT siorg_code, last_error FROM siorg_sync_queue WHERE status <> 'COMPLETED'"
    ).fetchall()
    assert [row["siorg_code"] for row in failed] == [killer]
    assert "nothing but this item (3 of 3)" in failed[0]["last_error"]
    assert scene.states() == {("COMPLETED", 1): 119, ("FAILED", 1): 1}
    assert deaths == 5
    scene.audit()
