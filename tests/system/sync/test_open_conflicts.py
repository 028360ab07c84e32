"""The list of open conflicts: one question an entity, an unusable decision asks again, an answer is remembered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from support.local_structure import UFMT, World, siorg_row

CODE = 900


@pytest.fixture
def edited(world: World) -> World:
    """One unit whose name a person changed after it was synced."""
    world.have(siorg_row(CODE, nome="Secretaria", sigla="SEC", endereco=[{"logradouro": "Rua A"}]))
    world.edit(CODE, name="Nossa Secretaria")
    return world


def _conflict(world: World, name: str = "Secretaria Geral") -> UUID:
    item = world.sync_changed(CODE, nome=name)
    assert item["status"] == "CONFLICT"
    id_: UUID = item["id"]
    return id_


def _conflict_of_the_organization(world: World) -> UUID:
    world.sync(UFMT, entity="ORGANIZATION")
    world.edit_organization(name="UFMT, a nossa")
    item = world.sync_changed(UFMT, nome="Universidade Federal de Mato Grosso", entity="ORGANIZATION")
    assert list(item["detected_changes"]) == ["name"]
    id_: UUID = item["id"]
    return id_


_Keep = Callable[[World, UUID], None]


def _by_command(world: World, id_: UUID) -> None:
    world.resolve_by_command(id_, "--keep-local")
    world.drain()


# Either is a person's keep: the command's, and the row that the API server closes.
either_keep = pytest.mark.parametrize("keep", [_by_command, World.keep_as_the_api_server])


# -- decisions ----------------------------------------------------------------------------------------------------------


def test_a_merge_takes_the_contact_that_the_database_has_by_default(edited: World) -> None:
    contact = {"phones": ["1"], "emails": [], "websites": [], "address": None}
    item = edited.decide(_conflict(edited), "MERGE", merged_payload={"name": "Mista", "contact_info": contact})
    assert item["status"] == "COMPLETED", item["last_error"]
    assert edited.unit(CODE)["contact_info"] == contact


def test_a_merge_without_parent_hangs_the_unit_directly_under_the_organization(edited: World) -> None:
    edited.decide(_conflict(edited), "MERGE", merged_payload={"name": "Nossa", "parent": None})
    assert edited.history(CODE)[-1]["affected_fields"] == ["name"]  # there was none
    edited.have(901)
    edited.sync_changed(CODE, parent=901)
    assert edited.unit(CODE)["parent_code"] == 901
    item = edited.decide(_conflict(edited, "Outra"), "MERGE", merged_payload={"name": "Mista", "parent": None})
    assert item["status"] == "COMPLETED", item["last_error"]
    assert edited.unit(CODE)["parent_id"] is None
    entry = edited.history(CODE)[-1]
    assert (entry["previous_data"]["parent"], entry["new_data"]["parent"]) == (901, 471)
    assert edited.sync(CODE)["status"] == "COMPLETED"
    assert edited.unit(CODE)["parent_id"] is None


@pytest.mark.parametrize(("merged", "named"), [({"state": "mt"}, "chk_state_code"), ({"name": ""}, "merged_payload.name")])
def test_a_decision_on_an_organization_is_asked_again_until_it_can_be_carried_out(
    world: World, merged: dict[str, Any], named: str
) -> None:
    id_ = _conflict_of_the_organization(world)
    item = world.decide(id_, "MERGE", merged_payload={"name": "UFMT", **merged})
    assert (item["status"], list(item["detected_changes"])) == ("CONFLICT", ["name"])
    assert named in item["last_error"]
    world.decide(id_, "ACCEPT_SIORG")
    assert world.organization()["name"] == "Universidade Federal de Mato Grosso"


# -- one open conflict an entity ----------------------------------------------------------------------------------------


def test_a_newer_conflict_ends_the_older_ones_of_the_entity(edited: World) -> None:
    ids = [_conflict(edited, name) for name in ("Primeira", "Segunda", "Terceira")]
    assert [edited.item(id_)["status"] for id_ in ids] == ["SKIPPED", "SKIPPED", "CONFLICT"]
    ended = edited.item(ids[1])
    assert str(ids[2]) in ended["last_error"]
    assert ended["processed_at"] is not None
    assert edited.item(ids[2])["detected_changes"]["name"]["remote"] == "Terceira"


def test_of_two_conflicts_of_one_batch_one_stays_open(edited: World) -> None:
    edited.siorg.change(CODE, nome="Secretaria Geral")
    ids = edited.enqueue(CODE, CODE)
    edited.drain()
    assert sorted(edited.item(id_)["status"] for id_ in ids) == ["CONFLICT", "SKIPPED"]


def test_a_conflict_ends_when_nothing_is_in_conflict_any_more_and_others_stay_open(edited: World) -> None:
    edited.have(siorg_row(901, nome="Outra"))
    edited.edit(901, name="Nossa outra")
    other = edited.sync_changed(901, nome="Outra ainda")["id"]
    merge = edited.sync(CODE, operation="MERGE")["id"]
    id_ = _conflict(edited)
    assert edited.sync_changed(CODE, nome="Nossa Secretaria")["status"] == "COMPLETED"
    assert "nothing is in conflict any more" in edited.item(id_)["last_error"]
    assert [edited.item(each)["status"] for each in (id_, other, merge)] == ["SKIPPED", "CONFLICT", "CONFLICT"]


def test_an_older_answer_does_not_end_a_conflict_that_a_newer_one_found(edited: World) -> None:
    (late,) = edited.enqueue(CODE)
    older = edited.fetched()
    id_ = _conflict(edited)
    edited.apply(older)
    assert (edited.item(late)["status"], edited.item(id_)["status"]) == ("COMPLETED", "CONFLICT")


# -- what a person kept -------------------------------------------------------------------------------------------------


@either_keep
def test_what_a_person_kept_is_not_asked_again(edited: World, keep: _Keep) -> None:
    keep(edited, _conflict(edited))
    edited.edit(CODE, acronym="NOSSA")
    item = edited.sync_changed(CODE, sigla="SG")
    assert list(item["detected_changes"]) == ["acronym"]
    keep(edited, item["id"])
    assert edited.sync_changed(CODE, areaAtuacao="FIM")["status"] == "COMPLETED"
    unit = edited.unit(CODE)
    assert (unit["name"], unit["acronym"], unit["activity_area"]) == ("Nossa Secretaria", "NOSSA", "CORE")
    edited.connection.execute("UPDATE siorg_history SET sync_queue_id = NULL")
    edited.connection.execute("DELETE FROM siorg_sync_queue")  # the row knows, when the queue has forgotten
    assert edited.sync(CODE)["status"] == "COMPLETED"


@either_keep
def test_what_a_person_kept_of_an_organization_is_not_asked_again(world: World, keep: _Keep) -> None:
    keep(world, _conflict_of_the_organization(world))
    assert world.sync_changed(UFMT, sigla="UF", entity="ORGANIZATION")["status"] == "COMPLETED"
    assert (world.organization()["name"], world.organization()["acronym"]) == ("UFMT, a nossa", "UF")


@either_keep
def test_a_value_that_the_person_has_not_seen_is_asked_about(edited: World, keep: _Keep) -> None:
    keep(edited, _conflict(edited))
    sides = edited.item(_conflict(edited, "Secretaria Nova"))["detected_changes"]["name"]
    assert (sides["local"], sides["remote"]) == ("Nossa Secretaria", "Secretaria Nova")


def test_a_skipped_conflict_is_no_decision(edited: World) -> None:
    edited.resolve_by_command(_conflict(edited), "--skip")
    assert edited.sync(CODE)["status"] == "CONFLICT"


@either_keep
def test_what_siorg_ended_and_a_person_kept_stays_and_is_not_asked_about_again(edited: World, keep: _Keep) -> None:
    edited.have(901)
    edited.edit(901, parent_id=edited.unit(CODE)["id"])  # SIORG has it elsewhere
    row = edited.siorg.rows[CODE]
    edited.siorg.remove(CODE)
    keep(edited, edited.sync(CODE, operation="EXTINCTION")["id"])
    assert [edited.sync(CODE, operation="EXTINCTION")["status"] for _ in range(2)] == ["COMPLETED", "COMPLETED"]
    assert edited.unit(CODE)["is_active"]
    # An end after a return is another one.
    edited.siorg.publish(row)
    assert edited.sync(CODE)["status"] == "COMPLETED"
    edited.siorg.remove(CODE)
    assert edited.sync(CODE, operation="EXTINCTION")["status"] == "CONFLICT"


@either_keep
def test_an_organization_that_siorg_ended_and_a_person_kept_is_not_asked_about_again(world: World, keep: _Keep) -> None:
    world.have(CODE)
    world.sync(UFMT, entity="ORGANIZATION")
    world.siorg.remove(UFMT)
    item = world.sync(UFMT, operation="EXTINCTION", entity="ORGANIZATION")
    assert item["status"] == "CONFLICT"
    keep(world, item["id"])
    for _ in range(2):
        assert world.sync(UFMT, operation="EXTINCTION", entity="ORGANIZATION")["status"] == "COMPLETED"
    assert world.organization()["is_active"]


@pytest.mark.parametrize("operation", ["MERGE", "SPLIT"])
@pytest.mark.parametrize("gone", [False, True])
@either_keep
def test_a_merge_or_split_that_a_person_turned_down_ends_nothing_and_takes_what_only_siorg_changed(
    edited: World, keep: _Keep, operation: str, gone: bool
) -> None:
    edited.siorg.change(CODE, sigla="SG")
    row = edited.siorg.rows[CODE]
    if gone:
        edited.siorg.remove(CODE)
    keep(edited, edited.sync(CODE, operation=operation)["id"])
    if gone:
        assert edited.sync(CODE, operation="EXTINCTION")["status"] == "COMPLETED"
        edited.siorg.publish(row)
    assert edited.sync(CODE)["status"] == "COMPLETED"
    unit = edited.unit(CODE)
    assert (unit["is_active"], unit["name"], unit["acronym"]) == (True, "Nossa Secretaria", "SG")
