"""What is left of a change: one history row, the mapping, and the newest answer."""

from __future__ import annotations

import pytest

from siorg_queue import Status
from support.local_structure import UFMT, World, siorg_row, whole_tables


@pytest.fixture
def world(world: World) -> World:
    """With one unit, in line."""
    world.have(900)
    return world


def test_a_creation_leaves_one_row_that_says_everything(world: World) -> None:
    world.siorg.publish(siorg_row(901, nome=" Secretaria ", sigla="SEC", versaoConsulta="99.1.2"))
    item = world.sync(901, operation="CREATION")
    (entry,) = world.history(901)
    unit = world.unit(901)
    assert (entry["change_type"], entry["previous_data"], entry["new_data"]["name"]) == ("CREATION", None, "Secretaria")
    assert entry["affected_fields"] == ["acronym", "is_active", "name", "organization", "parent", "unit_type"]
    assert (entry["siorg_version"], entry["sync_queue_id"], entry["local_id"]) == ("99.1.2", item["id"], unit["id"])
    assert (entry["source"], entry["requires_review"]) == ("SYNC", False)
    assert item["local_id"] == unit["id"]


def test_an_update_leaves_one_row_with_both_sides(world: World) -> None:
    item = world.sync_changed(900, nome="Nova", sigla="N", versaoConsulta="100.0.0")
    entry = world.history(900)[-1]
    assert (entry["change_type"], entry["affected_fields"]) == ("UPDATE", ["acronym", "name"])
    assert (entry["previous_data"]["name"], entry["new_data"]["name"]) == ("Unidade 900", "Nova")
    assert (entry["siorg_version"], entry["sync_queue_id"]) == ("100.0.0", item["id"])


def test_nothing_new_leaves_nothing_and_a_new_version_alone_is_noted(world: World) -> None:
    for operation in ("UPDATE", "CREATION", "HIERARCHY_CHANGE"):
        assert world.sync(900, operation=operation)["status"] == "COMPLETED"
    world.sync_changed(900, versaoConsulta="105.0.0")
    assert world.unit(900)["siorg_last_version"] == "105.0.0"
    assert len(world.history(900)) == 1


def test_two_items_for_one_unit_in_one_batch_are_one_change(world: World) -> None:
    world.siorg.publish(siorg_row(901))
    world.siorg.requests.clear()
    first, second = world.enqueue(901, 901)
    assert world.apply(world.fetched()).changes == 1
    assert world.item(first)["status"] == world.item(second)["status"] == "COMPLETED"
    assert world.siorg.requests == ["unit 901"]
    assert len(world.units()) == 2


@pytest.mark.parametrize("together", [False, True])
def test_an_older_answer_never_overwrites_a_newer_one(world: World, together: bool) -> None:
    world.enqueue(900)
    world.siorg.change(900, nome="Antiga")
    older = world.fetched()
    world.siorg.change(900, nome="Nova")
    world.enqueue(900)
    newer = world.fetched()
    for works in [[*newer, *older]] if together else [newer, older]:
        world.apply(works)
    assert world.unit(900)["name"] == "Nova"
    assert world.item(older[0][0].id)["status"] == "COMPLETED"
    assert len(world.history(900)) == 2


def test_an_older_end_never_ends_what_returned(world: World) -> None:
    row = world.siorg.rows[900]
    world.siorg.remove(900)
    (id_,) = world.enqueue(900, operation="EXTINCTION")
    late = world.fetched()
    world.siorg.publish({**row, "sigla": "NOVA"})
    world.sync(900)
    world.apply(late)
    assert world.item(id_)["status"] == "PENDING"
    world.pauses_are_over()
    world.drain()
    assert world.item(id_)["status"] == "SKIPPED"
    assert world.unit(900)["is_active"]


def test_an_ancestors_older_answer_does_not_overwrite_it(world: World) -> None:
    world.siorg.publish_line(901, 902)
    world.enqueue(902)
    late = world.fetched()
    world.sync_changed(901, nome="Nova")
    world.apply(late)
    assert world.unit(901)["name"] == "Nova"
    assert world.unit(902)["parent_code"] == 901


def test_what_was_fetched_under_a_lost_lease_changes_nothing(world: World) -> None:
    world.siorg.change(900, nome="Nova")
    (id_,) = world.enqueue(900)
    works = world.fetched()
    world.connection.execute("UPDATE siorg_sync_queue SET lease_expires_at = now() - interval '1 second'")
    before = whole_tables(world.connection)
    assert world.apply(works).stale == {id_}
    assert whole_tables(world.connection) == before


def test_applying_the_same_again_after_a_lost_answer_is_heard_as_done(world: World) -> None:
    world.siorg.change(900, nome="Nova")
    (id_,) = world.enqueue(900)
    works = world.fetched()
    world.apply(works)
    again = world.apply(works)
    assert again.settled[id_].status is Status.COMPLETED
    assert len(world.history(900)) == 2


def test_mappings_follow_the_units_and_keep_what_a_person_said(world: World) -> None:
    world.have(siorg_row(901, 900))
    rows = {row["siorg_code"]: row for row in world.rows("SELECT * FROM siorg_mappings")}
    assert rows.keys() == {900, 901}
    assert rows[901]["local_id"] == world.unit(901)["id"]
    assert (rows[900]["siorg_parent_code"], rows[901]["siorg_parent_code"]) == (UFMT, 900)
    assert rows[901]["siorg_hierarchy_path"] == [900, 901]
    assert {row["mapping_status"] for row in rows.values()} == {"ACTIVE"}
    world.connection.execute("UPDATE siorg_mappings SET mapping_status = 'MERGED', divergence_notes = 'ver ata'")
    world.sync_changed(900, nome="Nova")
    (mapping,) = world.rows("SELECT * FROM siorg_mappings WHERE siorg_code = 900")
    assert (mapping["mapping_status"], mapping["divergence_notes"]) == ("MERGED", "ver ata")


def test_the_row_notes_what_siorg_manages(world: World) -> None:
    unit = world.unit(900)
    assert unit["is_siorg_managed"]
    assert unit["siorg_sync_status"] == "COMPLETED"
    assert unit["siorg_url"].endswith("/unidade-organizacional/900")
    assert unit["siorg_raw_data"]["nome"] == "Unidade 900"
    assert unit["siorg_synced_at"] <= world.rows("SELECT now()")[0]["now"]
