"""Somebody's open transaction, forgotten for hours: only the items that need what it holds wait for it, and none pays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from siorg_queue import Connection, EntityType, NewItem, Operation, QueueStore, connect

from .conftest import UFMT, Scene

ITEMS = 20
PAUSES_ARE_OVER = "UPDATE siorg_sync_queue SET scheduled_for = now() WHERE status = 'PENDING'"


@contextmanager
def forgotten(url: str, sql: str) -> Iterator[None]:
    """A transaction that has done this and is left open."""
    with connect(url, application_name="a person") as person:
        person.execute("BEGIN")
        person.execute(sql.encode())
        yield
        person.execute("ROLLBACK")


@contextmanager
def stranger(connection: Connection, url: str) -> Iterator[Connection]:
    """Somebody who may do nothing here but connect."""
    connection.execute("DROP ROLE IF EXISTS siorg_stranger; CREATE ROLE siorg_stranger LOGIN")
    theirs = url.replace("//postgres@", "//siorg_stranger@")
    assert theirs != url
    with connect(theirs, application_name="a stranger") as made:
        yield made
    connection.execute("DROP ROLE siorg_stranger")


@pytest.mark.parametrize(
    ("sql", "waiting"),
    [
        ("SELECT FROM organizational_units WHERE siorg_code = {one} FOR UPDATE", 1),
        ("UPDATE organizational_units SET name = name WHERE siorg_code IN ({one}, {two}, {three})", 3),
        ("UPDATE siorg_mappings SET divergence_notes = '' WHERE siorg_code = {one}", 1),
        ("SELECT FROM organizations WHERE siorg_code = 471 FOR UPDATE", 0),  # nothing refers to it anew
    ],
)
def test_items_whose_rows_are_held_go_back_and_the_others_are_done(
    scene: Scene, database_url: str, sql: str, waiting: int
) -> None:
    one, two, three, *others = scene.waiting(ITEMS)
    assert scene.drain()[0] == "exhausted"
    scene.connection.execute(
        "UPDATE organizational_units SET acronym = 'old', siorg_base = NULL, siorg_raw_data = NULL, siorg_synced_at = NULL"
    )
    scene.waiting(ITEMS)
    with forgotten(database_url, sql.format(one=one, two=two, three=three)):
        for _ in range(2):
            assert scene.drain()[0] == "exhausted"
            back = {("PENDING", 0): waiting} if waiting else {}
            assert scene.states() == {("COMPLETED", 1): 2 * ITEMS - waiting, **back}
            scene.connection.execute(PAUSES_ARE_OVER)
        if waiting:
            assert (
                scene.number("SELECT count(*) FROM siorg_sync_queue WHERE last_error LIKE '%transaction holds %unit%'") == waiting
            )
    assert scene.drain()[0] == "exhausted"
    assert scene.states() == {("COMPLETED", 1): 2 * ITEMS}
    codes = ",".join(map(str, (one, two, three, *others)))
    assert scene.number(f"SELECT count(*) FROM organizational_units WHERE acronym = 'old' AND siorg_code IN ({codes})") == 0
    scene.audit()


def test_three_jobs_beside_a_forgotten_lock_leave_nothing_in_work(scene: Scene, database_url: str) -> None:
    one, *_ = scene.waiting(60)
    assert scene.drain()[0] == "exhausted"
    scene.waiting(60)
    scene.latency("50")
    with forgotten(database_url, f"SELECT FROM organizational_units WHERE siorg_code = {one} FOR UPDATE"):
        jobs = [scene.start() for _ in range(3)]
        for job in jobs:
            assert job.ends(within=60) == 0, job.stderr
    assert scene.states() == {("COMPLETED", 1): 119, ("PENDING", 0): 1}
    scene.audit()


def test_new_units_below_an_organization_that_somebody_holds_go_back(scene: Scene, database_url: str) -> None:
    scene.waiting(ITEMS)
    with forgotten(database_url, f"SELECT FROM organizations WHERE siorg_code = {UFMT} FOR UPDATE"):
        assert scene.drain()[0] == "exhausted"
        assert scene.states() == {("PENDING", 0): ITEMS}
        assert scene.number("SELECT count(*) FROM siorg_sync_queue WHERE last_error LIKE '%organization 471%'") == ITEMS
    scene.connection.execute(PAUSES_ARE_OVER)
    assert scene.drain()[0] == "exhausted"
    assert scene.states() == {("COMPLETED", 1): ITEMS}


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ("LOCK TABLE organizational_units IN SHARE MODE", "organizational_units"),
        ("LOCK TABLE organizational_units IN ACCESS EXCLUSIVE MODE", "organizational_units"),  # nothing can be looked up either
        ("UPDATE siorg_request_pace SET next_at = next_at WHERE name = 'siorg'", "others hold a lock"),
    ],
)
def test_a_lock_that_stops_all_ends_the_run_with_its_name_and_everything_given_back(
    scene: Scene, database_url: str, sql: str, named: str
) -> None:
    scene.waiting(ITEMS)
    with forgotten(database_url, sql):
        job = scene.run(75, within=60, SIORG_MAX_REQUESTS_PER_SECOND="100")
    assert named in job.stderr.splitlines()[-1]
    assert job.summary["reason"] == "database_unavailable"
    assert scene.states() == {("PENDING", 0): ITEMS}, job.stderr
    assert scene.drain()[0] == "exhausted"
    assert scene.states() == {("COMPLETED", 1): ITEMS}
    scene.audit()


def test_what_waits_in_vain_though_nobody_holds_its_rows_is_the_databases_fault(scene: Scene, database_url: str) -> None:
    """A lock that no row tells of: somebody's trigger takes it."""
    scene.waiting(ITEMS)
    scene.connection.execute(
        "CREATE FUNCTION theirs() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_advisory_xact_lock(900); RETURN NULL; END $$;"
        "CREATE TRIGGER theirs AFTER INSERT ON organizational_units FOR EACH ROW EXECUTE FUNCTION theirs()"
    )
    with forgotten(database_url, "SELECT pg_advisory_xact_lock(900)"):
        assert scene.drain(WORKER_UNAVAILABLE_SECS="0")[0] == "database_unavailable"
    states = scene.states()
    assert states.keys() == {("PENDING", 0)}, states
    scene.connection.execute(PAUSES_ARE_OVER)
    assert scene.drain()[0] == "exhausted"
    assert scene.states() == {("COMPLETED", 1): ITEMS}


def test_advisory_locks_of_a_stranger_stop_nobody(scene: Scene, database_url: str) -> None:
    scene.waiting(ITEMS)
    with stranger(scene.connection, database_url) as other:
        for name, key in (("apply", "471"), ("apply", "0"), ("ends", "0"), ("queue", "hashtext('enqueue')")):
            other.execute(f"SELECT pg_advisory_lock(hashtext('siorg_sync_{name}'), {key})".encode())
        assert QueueStore(scene.connection).enqueue([NewItem(EntityType.UNIT, UFMT, Operation.UPDATE)]) == 1
        assert scene.drain()[0] == "exhausted"
    assert scene.number("SELECT count(*) FROM siorg_sync_queue WHERE status <> 'COMPLETED'") <= 1  # the organization is no unit
    assert scene.states()["COMPLETED", 1] >= ITEMS
