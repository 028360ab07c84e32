"""The grants that docs/install.md prints are enough for everything but migrations."""

from __future__ import annotations

import json
from pathlib import Path

from siorg_queue import Connection, QueueStore, connect
from support.fleet import Fleet
from support.pages import Page
from support.queue_databases import reading, run
from support.siorg_server import REPOSITORY, SiorgServer


def test_a_role_with_the_printed_grants_discovers_works_and_cleans_up(
    connection: Connection, database_url: str, tmp_path: Path
) -> None:
    (grants,) = [block for language, block in Page.of(REPOSITORY / "docs" / "install.md").blocks if language == "sql"]
    connection.execute("DROP ROLE IF EXISTS siorg_worker")
    connection.execute("CREATE ROLE siorg_worker LOGIN")
    connection.execute(grants.encode())
    url = database_url.replace("//postgres@", "//siorg_worker@")
    assert url != database_url
    try:
        with SiorgServer("--synthetic", "40", "--synthetic-changes", "8") as siorg:
            env = {"DATABASE_URL": url, "SIORG_API_URL": siorg.url, "SIORG_ALLOW_INSECURE": "true"}
            with Fleet(env, tmp_path) as fleet:
                siorg.control("PUT", "snapshot", {"index": 0})
                for words in (["discover"], ["run"], ["cleanup"], ["doctor"]):
                    assert (job := fleet.start(*words)).ends() == 0, f"{words} {job.stdout}"
                siorg.control("PUT", "snapshot", {"index": 1})
                assert fleet.start("discover").ends() == 0
                assert fleet.start("run").ends() == 0
                status = fleet.start("status", "--json")
                assert status.ends() == 0
                counted = json.loads(status.stdout)
        assert counted["completed"] > 40
        assert counted["failed"] == 0
        assert QueueStore(connection).counts().claimable == 0
        with connect(url, application_name="siorg-job") as theirs:
            theirs.execute(
                "INSERT INTO siorg_verifications (started_at, finished_at, complete, organizations, compared, drift, departures)"
                " VALUES (now(), now(), true, 1, 40, 0, '{}')"
            )
        of_the_operator = reading(run(lambda databases: databases.read(url)))
        assert of_the_operator.verifications.newest is not None
    finally:
        connection.execute("DROP OWNED BY siorg_worker; DROP ROLE siorg_worker")
