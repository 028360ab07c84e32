"""The list of open conflicts: one question an entity, an unusable decision asks again, an answer is remembered."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from siorg_queue import Status
from support.local_structure import World, siorg_row

CODE = 900
_DEFAULT_CONTACT = {"phones": ["1"], "emails": [], "websites": [], "address": None}


@pytest.fixture
def edited(world: World) -> World:
    """One unit whose name a person changed after it was synced."""
    world.siorg.publish(siorg_row(CODE, nome="Secretaria", sigla="SEC", endereco=[{"logradouro": "Rua A"}]))
    assert world.sync(CODE)["status"] == "COMPLETED"
    world.edit(CODE, name="Nossa Secretaria")
    return world


def _conflict(world: World, name: str = "Secretaria Geral") -> UUID:
    world.siorg.change(CODE, nome=name)
    item = world.sync(CODE)
    assert item["status"] == "CONFLICT"
    id_: UUID = item["id"]
    return id_


def _keep_local(world: World, id_: UUID) -> None:
    assert world.store.close_conflict(id_, Status.COMPLETED, notes="ours is right")


# -- decisions ----------------------------------------------------------------------------------------------------------


def test_a_merge_takes_the_contact_that_the_database_has_by_default(edited: World) -> None:
    id_ = _conflict(edited)
    edited.resolve(id_, "MERGE", merged_payload={"name": "Mista", "contact_info": _DEFAULT_CONTACT})
    edited.drain()
    assert edited.item(id_)["status"] == "COMPLETED", edited.item(id_)["last_error"]
    assert edited.unit(CODE)["contact_info"] == _DEFAULT_CONTACT


def test_a_merge_without_parent_hangs_the_unit_directly_under_the_organization(edited: World) -> None:
    edited.siorg.publish(siorg_row(901))
    edited.siorg.change(CODE, parent=901)
    edited.sync(901, CODE)
    assert edited.unit(CODE)["parent_code"] == 901
    id_ = _conflict(edited)
    edited.resolve(id_, "MERGE", merged_payload={"name": "Mista", "parent": None})
    edited.drain()
    assert edited.item(id_)["status"] == "COMPLETED", edited.item(id_)["last_error"]
    assert edited.unit(CODE)["parent_id"] is None
    entry = edited.history(CODE)[-1]
    assert (entry["previous_data"]["parent"], entry["new_data"]["parent"]) == (901, 471)
    assert edited.sync(CODE)["status"] == "COMPLETED"
    assert edited.unit(CODE)["parent_id"] is None


def test_a_merge_without_parent_is_no_move_where_there_is_none(edited: World) -> None:
    id_ = _conflict(edited)
    edited.resolve(id_, "MERGE", merged_payload={"name": "Mista", "parent": None})
    edited.drain()
    assert edited.history(CODE)[-1]["affected_fields"] == ["name"]


@pytest.mark.parametrize(
    ("choices", "named"),
    [
        ({"acronym": "KEEP_LOCAL"}, ("'acronym'", "LOCAL, SIORG")),
        ({"formal_name": "SIORG"}, ("'formal_name'", "acronym")),
    ],
)
def test_an_unusable_decision_is_asked_again_with_the_differences(
    edited: World, choices: dict[str, str], named: tuple[str, ...]
) -> None:
    id_ = _conflict(edited)
    differences = edited.item(id_)["detected_changes"]
    edited.resolve(id_, "MERGE", field_resolutions=choices)
    edited.drain()
    item = edited.item(id_)
    assert item["status"] == "CONFLICT"
    assert item["detected_changes"] == differences
    assert item["error_details"]["kind"] == "invalid_resolution"
    assert "resolution" not in item["error_details"]
    for word in named:
        assert word in item["last_error"]
    edited.resolve(id_, "ACCEPT_SIORG")
    edited.drain()
    assert edited.unit(CODE)["name"] == "Secretaria Geral"


def test_a_local_column_that_is_not_siorgs_may_be_named_as_local(edited: World) -> None:
    id_ = _conflict(edited)
    edited.resolve(id_, "MERGE", field_resolutions={"formal_name": "LOCAL", "name": "SIORG"})
    edited.drain()
    assert edited.item(id_)["status"] == "COMPLETED", edited.item(id_)["last_error"]
    assert edited.unit(CODE)["name"] == "Secretaria Geral"


@pytest.mark.parametrize(("merged", "named"), [({"state": "mt"}, "chk_state_code"), ({"name": ""}, "merged_payload.name")])
def test_an_unusable_decision_on_an_organization_is_asked_again(world: World, merged: dict[str, Any], named: str) -> None:
    world.sync(471, entity="ORGANIZATION")
    world.edit_organization(name="UFMT, a nossa")
    world.siorg.change(471, nome="Universidade Federal de Mato Grosso")
    id_ = world.sync(471, entity="ORGANIZATION")["id"]
    world.resolve(id_, "MERGE", merged_payload={"name": "UFMT", **merged})
    world.drain()
    item = world.item(id_)
    assert (item["status"], list(item["detected_changes"])) == ("CONFLICT", ["name"])
    assert named in item["last_error"]


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


def test_a_conflict_ends_when_nothing_is_in_conflict_any_more(edited: World) -> None:
    id_ = _conflict(edited)
    edited.siorg.change(CODE, nome="Nossa Secretaria")
    assert edited.sync(CODE)["status"] == "COMPLETED"
    item = edited.item(id_)
    assert item["status"] == "SKIPPED"
    assert "nothing is in conflict any more" in item["last_error"]


def test_conflicts_of_other_entities_and_other_work_stay_open(edited: World) -> None:
    edited.siorg.publish(siorg_row(901, nome="Outra"))
    edited.sync(901)
    edited.edit(901, name="Nossa outra")
    edited.siorg.change(901, nome="Outra ainda")
    other = edited.sync(901)["id"]
    merge = edited.sync(CODE, operation="MERGE")["id"]
    _conflict(edited)
    edited.siorg.change(CODE, nome="Nossa Secretaria")
    assert edited.sync(CODE)["status"] == "COMPLETED"
    assert [edited.item(id_)["status"] for id_ in (other, merge)] == ["CONFLICT", "CONFLICT"]


def test_an_older_answer_does_not_end_a_conflict_that_a_newer_one_found(edited: World) -> None:
    (late,) = edited.enqueue(CODE)
    older = edited.fetch(edited.claim())
    id_ = _conflict(edited)
    edited.apply(older)
    assert edited.item(late)["status"] == "COMPLETED"
    assert edited.item(id_)["status"] == "CONFLICT"


# -- what a person kept -------------------------------------------------------------------------------------------------


def test_what_a_person_kept_is_not_asked_again(edited: World) -> None:
    _keep_local(edited, _conflict(edited))
    edited.siorg.change(CODE, sigla="SG")
    item = edited.sync(CODE)
    assert item["status"] == "COMPLETED", item["detected_changes"]
    unit = edited.unit(CODE)
    assert (unit["name"], unit["acronym"]) == ("Nossa Secretaria", "SG")


def test_several_kept_fields_are_all_remembered(edited: World) -> None:
    _keep_local(edited, _conflict(edited))
    edited.edit(CODE, acronym="NOSSA")
    edited.siorg.change(CODE, sigla="SG")
    item = edited.sync(CODE)
    assert list(item["detected_changes"]) == ["acronym"]
    _keep_local(edited, item["id"])
    edited.siorg.change(CODE, areaAtuacao="FIM")
    assert edited.sync(CODE)["status"] == "COMPLETED"
    unit = edited.unit(CODE)
    assert (unit["name"], unit["acronym"], unit["activity_area"]) == ("Nossa Secretaria", "NOSSA", "CORE")


def test_a_value_that_the_person_has_not_seen_is_asked_about(edited: World) -> None:
    _keep_local(edited, _conflict(edited))
    item = edited.item(_conflict(edited, "Secretaria Nova"))
    assert item["detected_changes"]["name"] == {"base": "Secretaria", "local": "Nossa Secretaria", "remote": "Secretaria Nova"}


def test_a_skipped_conflict_is_no_decision(edited: World) -> None:
    assert edited.store.close_conflict(_conflict(edited), Status.SKIPPED)
    assert edited.sync(CODE)["status"] == "CONFLICT"


def test_what_a_person_kept_of_an_organization_is_not_asked_again(world: World) -> None:
    world.sync(471, entity="ORGANIZATION")
    world.edit_organization(name="UFMT, a nossa")
    world.siorg.change(471, nome="Universidade Federal de Mato Grosso")
    _keep_local(world, world.sync(471, entity="ORGANIZATION")["id"])
    world.siorg.change(471, sigla="UF")
    assert world.sync(471, entity="ORGANIZATION")["status"] == "COMPLETED"
    assert (world.organization()["name"], world.organization()["acronym"]) == ("UFMT, a nossa", "UF")
