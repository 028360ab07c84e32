"""That a unit is not found ends it only while SIORG knows the organization that holds it here."""

from __future__ import annotations

import pytest

from support.local_structure import ANOTHER, UFMT, World, siorg_row

UNITS = range(900, 960)


@pytest.fixture
def full(world: World) -> World:
    """60 units of one organization, all in line."""
    world.siorg.publish(*[siorg_row(code) for code in UNITS])
    world.sync(*UNITS, payload=siorg_row(1))
    world.siorg.requests.clear()
    return world


def _active(world: World) -> int:
    return sum(unit["is_active"] for unit in world.units().values())


@pytest.mark.parametrize("operation", ["EXTINCTION", "MERGE"])
def test_a_siorg_that_finds_nothing_at_all_ends_nothing(full: World, operation: str) -> None:
    full.siorg.rows.clear()
    full.enqueue(*UNITS, operation=operation)
    full.drain()
    assert _active(full) == 60
    for row in full.rows("SELECT status::text, last_error FROM siorg_sync_queue WHERE operation = %s", operation):
        assert row["status"] == "SKIPPED"
        assert "organization 471" in row["last_error"]


def test_ends_cost_one_request_for_their_organization_however_many_ask_at_a_time(full: World) -> None:
    full.siorg.remove(*UNITS)
    full.enqueue(*UNITS, operation="EXTINCTION")
    full.drain(at_a_time=10)
    assert _active(full) == 0
    assert sorted(full.siorg.requests) == sorted(["unit 471", *(f"unit {code}" for code in UNITS)])


def test_a_structure_that_is_young_enough_for_the_end_says_that_siorg_knows_the_organization(full: World) -> None:
    fetcher = full.fetcher()
    full.siorg.remove(910, 911)
    full.enqueue(910, operation="EXTINCTION", priority=6)
    full.enqueue(*UNITS[:10])
    full.apply(full.fetch(full.claim(10), fetcher))
    full.apply(full.fetch(full.claim(), fetcher))
    assert full.siorg.requests == ["structure 471", "unit 910"]
    full.enqueue(911, operation="EXTINCTION")  # SIORG may have lost everything since then
    full.apply(full.fetch(full.claim(), fetcher))
    assert full.siorg.requests[2:] == ["unit 911", "unit 471"]
    assert not full.unit(910)["is_active"]
    assert not full.unit(911)["is_active"]


def test_that_the_organization_was_not_found_is_not_remembered(full: World) -> None:
    row = full.siorg.rows[UFMT]
    full.siorg.remove(UFMT, 900)
    fetcher = full.fetcher()
    (id_,) = full.enqueue(900, operation="EXTINCTION")
    full.apply(full.fetch(full.claim(), fetcher))
    assert (full.item(id_)["status"], full.unit(900)["is_active"]) == ("SKIPPED", True)
    full.siorg.publish(row)
    (id_,) = full.enqueue(900, operation="EXTINCTION")
    full.apply(full.fetch(full.claim(), fetcher))
    assert full.item(id_)["status"] == "COMPLETED"
    assert not full.unit(900)["is_active"]


def test_each_end_is_judged_by_the_organization_that_holds_the_unit_here(full: World) -> None:
    """Whatever the item's payload says."""
    full.register(ANOTHER)
    full.siorg.remove(900)
    full.sync(900, operation="EXTINCTION", payload=siorg_row(900, organization=ANOTHER))
    assert full.siorg.requests == ["unit 900", "unit 471"]
    assert not full.unit(900)["is_active"]


def test_the_ends_of_an_organization_that_was_ended_here_need_no_word_about_it(full: World) -> None:
    full.connection.execute("UPDATE organizations SET is_active = false WHERE siorg_code = %s", [UFMT])
    full.siorg.rows.clear()
    full.sync(900, 901, operation="EXTINCTION")
    assert _active(full) == 58
    assert set(full.siorg.requests) == {"unit 900", "unit 901"}


def test_an_end_that_siorg_states_needs_no_word_about_the_organization(full: World) -> None:
    full.siorg.change(900, operacao="EXCLUSAO")
    full.sync(900, operation="EXTINCTION")
    assert full.siorg.requests == ["unit 900"]
    assert not full.unit(900)["is_active"]


def test_a_mapped_unit_is_judged_by_its_organization_too(full: World) -> None:
    """An unofficial unit that a person mapped to a code of SIORG ends with that code."""
    full.connection.execute("UPDATE organizational_units SET siorg_code = NULL WHERE siorg_code = 900")
    full.siorg.rows.clear()
    full.sync(900, operation="EXTINCTION")
    assert full.siorg.requests == ["unit 900", "unit 471"]
    assert full.rows("SELECT name FROM organizational_units WHERE NOT is_active") == []
