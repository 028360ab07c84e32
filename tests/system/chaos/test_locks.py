"""Somebody's open transaction, forgotten for hours: only the items that need what it holds wait for it, and none pays."""

from __future__ import annotations

import pytest

from siorg_queue import EntityType, NewItem, Operation, QueueStore

from .conftest import PAUSES_ARE_OVER, UFMT, Scene, forgotten, stranger

ITEMS = 20


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


def test_advisory_locks_of_a_stranger_stop_nobody_who_enqueues(scene: Scene, database_url: str) -> None:
    with stranger(scene.connection, database_url):
        assert QueueStore(scene.connection).enqueue([NewItem(EntityType.UNIT, UFMT, Operation.UPDATE)]) == 1
