"""Extinctions, merges and splits, organizations, categories and types."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from siorg_job.siorg.errors import SiorgUnavailable
from siorg_job.siorg.model import DomainTable
from siorg_queue import Connection, connect, transaction
from support.local_structure import ANOTHER, UFMT, World, check_tree, contact, siorg_row, wait_until


@pytest.fixture
def tree(world: World) -> World:
    """900 with 901 below it, and 902 below that; 910 beside them."""
    world.siorg.publish(siorg_row(900), siorg_row(901, 900), siorg_row(902, 901), siorg_row(910))
    world.sync(900, 901, 902, 910)
    return world


def _end(world: World, *codes: int, listed: bool) -> None:
    """Gone altogether, or still answered with operacao EXCLUSAO."""
    if listed:
        for code in codes:
            world.siorg.change(code, operacao="EXCLUSAO", versaoConsulta="101.0.0")
    else:
        world.siorg.remove(*codes)


@pytest.mark.parametrize("listed", [True, False])
def test_a_confirmed_end_deactivates_and_asks_for_review(tree: World, listed: bool) -> None:
    _end(tree, 910, listed=listed)
    assert tree.sync(910, operation="EXTINCTION")["status"] == "COMPLETED"
    unit = tree.unit(910)
    assert not unit["is_active"]
    assert unit["deactivated_at"] is not None
    assert "extinct in SIORG" in unit["deactivation_reason"]
    assert unit["name"] == "Unidade 910"
    entry = tree.history(910)[-1]
    assert (entry["change_type"], entry["requires_review"], entry["new_data"]) == ("EXTINCTION", True, None)
    assert entry["previous_data"]["is_active"] is True
    assert entry["affected_fields"] == ["is_active"]
    (mapping,) = tree.rows("SELECT * FROM siorg_mappings WHERE siorg_code = 910")
    assert mapping["mapping_status"] == "DEPRECATED"


def test_an_end_that_siorg_does_not_confirm_is_skipped(tree: World) -> None:
    before = tree.unit(910)
    item = tree.sync(910, operation="EXTINCTION")
    assert item["status"] == "SKIPPED"
    assert "still has" in item["last_error"]
    assert tree.unit(910) == before


def test_an_end_that_cannot_be_confirmed_now_is_tried_again(tree: World) -> None:
    tree.siorg.down = SiorgUnavailable("no answer")
    item = tree.sync(910, operation="EXTINCTION")
    assert item["status"] == "PENDING"
    assert tree.unit(910)["is_active"]


def test_an_end_is_done_once(tree: World) -> None:
    _end(tree, 910, listed=False)
    tree.sync(910, operation="EXTINCTION")
    assert tree.sync(910, operation="EXTINCTION")["status"] == "COMPLETED"
    assert len(tree.history(910)) == 2


def test_the_end_of_a_unit_that_never_was_here_is_no_work(world: World) -> None:
    assert world.sync(777, operation="EXTINCTION")["status"] == "COMPLETED"
    assert world.rows("SELECT * FROM siorg_history") == []


def test_an_end_waits_for_children_that_have_items_and_gives_the_attempt_back(tree: World) -> None:
    _end(tree, 901, 902, listed=False)
    (id_,) = tree.enqueue(901, operation="EXTINCTION")
    works = tree.fetch(tree.claim())
    tree.enqueue(902, operation="EXTINCTION")
    tree.apply(works)
    item = tree.item(id_)
    assert (item["status"], item["attempts"]) == ("PENDING", 0)
    assert "waits for the items of 1" in item["last_error"]
    assert tree.unit(901)["is_active"]
    tree.drain()
    tree.connection.execute("UPDATE siorg_sync_queue SET scheduled_for = now() WHERE status = 'PENDING'")
    tree.drain()
    assert tree.item(id_)["status"] == "COMPLETED"
    assert not tree.unit(901)["is_active"]


def test_an_end_with_active_children_without_items_is_a_conflict(tree: World) -> None:
    _end(tree, 901, listed=False)
    item = tree.sync(901, operation="EXTINCTION")
    assert item["status"] == "CONFLICT"
    assert "902 Unidade 902" in item["last_error"]
    assert item["detected_changes"] == {"is_active": {"base": True, "local": True, "remote": False}}
    assert tree.unit(901)["is_active"]
    # Once the person has ended what is below, accepting does it.
    tree.edit(902, is_active=False)
    tree.resolve(item["id"], "ACCEPT_SIORG")
    tree.drain()
    assert not tree.unit(901)["is_active"]


def test_a_person_may_keep_what_siorg_ended(tree: World) -> None:
    _end(tree, 901, listed=False)
    item = tree.sync(901, operation="EXTINCTION")
    tree.resolve(item["id"], "MERGE", field_resolutions={"is_active": "LOCAL"})
    tree.drain()
    assert tree.item(item["id"])["status"] == "COMPLETED"
    assert tree.unit(901)["is_active"]
    assert len(tree.history(901)) == 1


def test_a_unit_that_a_person_opened_again_stays_open(tree: World) -> None:
    _end(tree, 910, listed=False)
    tree.sync(910, operation="EXTINCTION")
    tree.edit(910, is_active=True)
    assert tree.sync(910, operation="EXTINCTION")["status"] == "COMPLETED"
    assert tree.unit(910)["is_active"]


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("order", [(900, 901, 902), (902, 901, 900)])
def test_a_whole_subtree_ends_in_one_batch_in_any_order(tree: World, listed: bool, order: tuple[int, ...]) -> None:
    _end(tree, 900, 901, 902, listed=listed)
    tree.sync(*order, operation="EXTINCTION")
    assert set(tree.statuses().values()) == {"COMPLETED"}
    assert not any(tree.unit(code)["is_active"] for code in order)


def test_a_child_that_moves_away_in_the_same_batch_does_not_hold_the_end_up(tree: World) -> None:
    tree.siorg.change(902, parent=910)
    _end(tree, 901, listed=False)
    tree.enqueue(901, operation="EXTINCTION")
    tree.sync(902)
    assert not tree.unit(901)["is_active"]
    assert tree.unit(902)["parent_code"] == 910
    check_tree(tree.connection)


@pytest.mark.parametrize("listed", [True, False])
def test_an_extinct_unit_that_returns_is_active_again(tree: World, listed: bool) -> None:
    row = tree.siorg.rows[910]
    _end(tree, 910, listed=listed)
    tree.sync(910, operation="EXTINCTION")
    tree.siorg.publish({**row, "nome": "De volta", "versaoConsulta": "102.0.0"})
    assert tree.sync(910, operation="CREATION")["status"] == "COMPLETED"
    unit = tree.unit(910)
    assert (unit["is_active"], unit["name"], unit["deactivated_at"], unit["deactivation_reason"]) == (
        True,
        "De volta",
        None,
        None,
    )
    assert tree.history(910)[-1]["affected_fields"] == ["is_active", "name"]
    (mapping,) = tree.rows("SELECT * FROM siorg_mappings WHERE siorg_code = 910")
    assert mapping["mapping_status"] == "ACTIVE"


def test_an_update_of_a_unit_that_is_gone_fails_and_deactivates_nothing(tree: World) -> None:
    _end(tree, 910, listed=False)
    item = tree.sync(910)
    assert (item["status"], item["error_details"]["kind"]) == ("FAILED", "not_found")
    assert tree.unit(910)["is_active"]


def test_a_unit_missing_in_the_structure_is_asked_for_by_itself(tree: World) -> None:
    _end(tree, 910, listed=False)
    tree.siorg.publish(siorg_row(920), siorg_row(921), siorg_row(922))
    tree.siorg.requests.clear()
    tree.sync(910, 920, 921, 922, payload=siorg_row(1))
    assert tree.siorg.requests == ["structure 471", "unit 910"]
    assert tree.statuses()[910] == "FAILED"
    assert tree.unit(910)["is_active"]


@pytest.mark.parametrize("operation", ["MERGE", "SPLIT"])
@pytest.mark.parametrize("gone", [True, False])
def test_a_merge_or_split_is_for_a_person(tree: World, operation: str, gone: bool) -> None:
    tree.siorg.change(910, nome="Unida")
    if gone:
        _end(tree, 910, listed=False)
    before = tree.unit(910)
    item = tree.sync(910, operation=operation)
    assert item["status"] == "CONFLICT"
    assert item["error_details"]["kind"] == operation.lower()
    known = {"is_active": {"base": True, "local": True, "remote": False}} if gone else {
        "name": {"base": "Unidade 910", "local": "Unidade 910", "remote": "Unida"}
    }  # fmt: skip
    assert item["detected_changes"] == known
    assert tree.unit(910) == before


def test_an_accepted_merge_ends_the_unit_that_is_gone(tree: World) -> None:
    _end(tree, 910, listed=False)
    item = tree.sync(910, operation="MERGE")
    tree.resolve(item["id"], "ACCEPT_SIORG")
    tree.drain()
    assert tree.item(item["id"])["status"] == "COMPLETED"
    assert not tree.unit(910)["is_active"]


def test_a_hierarchy_change_without_a_move_leaves_no_history(tree: World) -> None:
    assert tree.sync(910, operation="HIERARCHY_CHANGE")["status"] == "COMPLETED"
    assert len(tree.history(910)) == 1


# -- organizations ------------------------------------------------------------------------------------------------------


def test_an_organization_takes_siorgs_values(world: World) -> None:
    world.siorg.change(
        UFMT, nome="Universidade Federal de Mato Grosso", **contact(phones=["(65) 3615-0000"], emails=["x@ufmt.br"]),
        endereco=[{"logradouro": "Av. Fernando Corrêa", "numero": "2367", "cep": "78060-900", "uf": "MT"}],
    )  # fmt: skip
    assert world.sync(UFMT, entity="ORGANIZATION")["status"] == "COMPLETED"
    row = world.organization()
    assert (row["name"], row["phone"], row["email"]) == ("Universidade Federal de Mato Grosso", "(65) 3615-0000", "x@ufmt.br")
    assert (row["state"], row["zip_code"], row["website"]) == ("MT", "78060900", "https://www.ufmt.br")
    assert (row["cnpj"], row["ug_code"]) == ("33004540000100", 154045)
    (entry,) = world.history(UFMT, "ORGANIZATION")
    assert entry["previous_data"]["name"] == "Fundação Universidade Federal de Mato Grosso"
    world.sync(UFMT, entity="ORGANIZATION")
    assert len(world.history(UFMT, "ORGANIZATION")) == 1


def test_an_organization_is_one_request(world: World) -> None:
    world.sync(UFMT, entity="ORGANIZATION")
    assert world.siorg.requests == ["unit 471"]


@pytest.mark.parametrize("entity", ["ORGANIZATION", "UNIT"])
def test_an_organization_that_is_not_registered_fails_with_that_reason(world: World, entity: str) -> None:
    world.siorg.publish(siorg_row(423, 244, organization=423))
    item = world.sync(423, entity=entity)
    assert item["status"] == "FAILED"
    assert "not registered here" in item["last_error"]
    assert item["error_details"]["kind"] == "unknown_organization"


def test_a_unit_of_an_organization_that_is_not_registered_fails_with_that_reason(world: World) -> None:
    world.siorg.publish(siorg_row(950, 423, organization=423))
    item = world.sync(950)
    assert (item["status"], item["error_details"]["kind"]) == ("FAILED", "unknown_organization")
    assert "423" in item["last_error"]


def test_a_unit_item_for_the_organizations_own_row_is_treated_as_the_organization(world: World) -> None:
    world.siorg.change(UFMT, nome="Universidade Nova")
    assert world.sync(UFMT, entity="UNIT")["status"] == "COMPLETED"
    assert world.organization()["name"] == "Universidade Nova"
    assert world.units() == {}


def test_a_unit_that_moves_to_another_registered_organization_goes_there(world: World) -> None:
    world.register(ANOTHER)
    world.siorg.publish(siorg_row(900), siorg_row(901, 900), siorg_row(950, ANOTHER, organization=ANOTHER))
    world.sync(900, 901, 950)
    world.siorg.change(901, organization=ANOTHER, parent=950)
    assert world.sync(901)["status"] == "COMPLETED"
    unit = world.unit(901)
    assert (unit["organization_code"], unit["parent_code"], unit["level"]) == (ANOTHER, 950, 2)
    entry = world.history(901)[-1]
    assert (entry["affected_fields"], entry["requires_review"]) == (["organization", "parent"], True)
    check_tree(world.connection)


def test_a_unit_that_moves_to_an_organization_that_is_not_registered_fails_and_stays(world: World) -> None:
    world.siorg.publish(siorg_row(900), siorg_row(901, 900))
    world.sync(900, 901)
    before = world.unit(901)
    world.siorg.change(901, organization=423, parent=423, nome="Outra")
    assert world.sync(901)["status"] == "FAILED"
    assert world.unit(901) == before


def test_an_ended_organization_with_active_units_is_a_conflict_and_ends_without_them(world: World) -> None:
    world.siorg.publish(siorg_row(900))
    world.sync(900)
    world.sync(UFMT, entity="ORGANIZATION")
    world.siorg.remove(UFMT, 900)
    item = world.sync(UFMT, entity="ORGANIZATION", operation="EXTINCTION")
    assert (item["status"], item["error_details"]["kind"]) == ("CONFLICT", "active_children")
    # That both are not found proves nothing; that a person says so does.
    assert world.sync(900, operation="EXTINCTION")["status"] == "PENDING"
    world.edit_organization(is_active=False)
    world.connection.execute("UPDATE siorg_sync_queue SET scheduled_for = now() WHERE status = 'PENDING'")
    world.drain()
    assert not world.unit(900)["is_active"]
    world.sync(UFMT, entity="ORGANIZATION", operation="EXTINCTION")
    assert not world.organization()["is_active"]


# -- categories and types -----------------------------------------------------------------------------------------------


def _category(code: int, name: str, **more: Any) -> dict[str, Any]:
    return {"codigoCategoriaUnidade": code, "descricaoCategoriaUnidade": name, "ativo": "SIM", **more}


def test_a_category_follows_siorgs_table(world: World) -> None:
    table = world.siorg.tables[DomainTable.UNIT_CATEGORY] = [_category(6, " Comissão "), _category(7, "Comitê")]
    assert world.sync(6, 7, entity="CATEGORY")["status"] == "COMPLETED"
    assert world.siorg.requests == ["domain categoria-unidade"]
    (row,) = world.rows("SELECT * FROM organizational_unit_categories WHERE siorg_code = 6")
    assert (row["name"], row["is_siorg_managed"], row["siorg_name"]) == ("Comissão", True, "Comissão")
    table[0] = _category(6, "Comissão Permanente", ativo="NAO")
    world.sync(6, entity="CATEGORY")
    (row,) = world.rows("SELECT * FROM organizational_unit_categories WHERE siorg_code = 6")
    assert (row["name"], row["is_active"]) == ("Comissão Permanente", False)
    assert [entry["change_type"] for entry in world.history(6, "CATEGORY")] == ["CREATION", "UPDATE"]
    world.sync(6, entity="CATEGORY")
    assert len(world.history(6, "CATEGORY")) == 2


def test_a_category_renamed_by_a_person_and_by_siorg_is_a_conflict(world: World) -> None:
    table = world.siorg.tables[DomainTable.UNIT_CATEGORY] = [_category(6, "Comissão")]
    world.sync(6, entity="CATEGORY")
    world.connection.execute("UPDATE organizational_unit_categories SET name = 'Nossa' WHERE siorg_code = 6")
    assert world.sync(6, entity="CATEGORY")["status"] == "COMPLETED"
    table[0] = _category(6, "Deles")
    item = world.sync(6, entity="CATEGORY")
    assert item["detected_changes"] == {"name": {"base": "Comissão", "local": "Nossa", "remote": "Deles"}}


def test_a_category_that_siorg_does_not_have_fails_and_its_end_is_its_end(world: World) -> None:
    world.siorg.tables[DomainTable.UNIT_CATEGORY] = [_category(6, "Comissão"), _category(7, "Comitê")]
    assert world.sync(99, entity="CATEGORY")["status"] == "FAILED"
    world.sync(6, entity="CATEGORY")
    assert world.sync(6, entity="CATEGORY", operation="EXTINCTION")["status"] == "SKIPPED"
    world.siorg.tables[DomainTable.UNIT_CATEGORY] = [_category(7, "Comitê")]
    assert world.sync(6, entity="CATEGORY", operation="EXTINCTION")["status"] == "COMPLETED"
    (row,) = world.rows("SELECT * FROM organizational_unit_categories WHERE siorg_code = 6")
    assert not row["is_active"]


def test_an_empty_table_ends_nothing(world: World) -> None:
    world.siorg.tables[DomainTable.UNIT_CATEGORY] = [_category(6, "Comissão")]
    world.sync(6, entity="CATEGORY")
    world.siorg.tables[DomainTable.UNIT_CATEGORY] = []
    assert world.sync(6, entity="CATEGORY", operation="EXTINCTION")["status"] == "PENDING"
    (row,) = world.rows("SELECT * FROM organizational_unit_categories WHERE siorg_code = 6")
    assert row["is_active"]


def test_two_categories_of_one_name_in_siorg_are_two_here(world: World) -> None:
    world.siorg.tables[DomainTable.UNIT_CATEGORY] = [_category(6, "Comissão"), _category(7, "Comissão")]
    world.sync(6, 7, entity="CATEGORY")
    assert set(world.statuses().values()) == {"COMPLETED"}
    assert len(world.rows("SELECT * FROM organizational_unit_categories WHERE siorg_code IN (6, 7)")) == 2
    world.sync(6, 7, entity="CATEGORY")
    assert set(world.statuses().values()) == {"COMPLETED"}


def test_a_units_category_is_made_from_the_table_when_it_is_new(world: World) -> None:
    world.siorg.tables[DomainTable.UNIT_CATEGORY] = [_category(6, "Comissão")]
    world.siorg.publish(siorg_row(900, codigoCategoriaUnidade=6))
    world.sync(900)
    assert world.unit(900)["category_name"] == "Comissão"
    assert world.siorg.requests == ["unit 900", "domain categoria-unidade"]


def test_a_local_category_of_the_same_name_is_adopted(world: World) -> None:
    (local,) = world.rows("INSERT INTO organizational_unit_categories (name) VALUES ('Comissão') RETURNING id")
    world.siorg.tables[DomainTable.UNIT_CATEGORY] = [_category(6, "Comissão")]
    world.siorg.publish(siorg_row(900, codigoCategoriaUnidade=6))
    world.sync(900)
    assert world.unit(900)["category_id"] == local["id"]


def test_a_type_follows_siorgs_table(world: World) -> None:
    world.siorg.tables[DomainTable.UNIT_TYPE] = [
        {"codigoTipoUnidade": "UA", "descricaoTipoUnidade": "Unidade Administrativa"},
        {"codigoTipoUnidade": "UC", "descricaoTipoUnidade": "Unidade Colegiada (Comitês)"},
    ]
    world.connection.execute(
        "INSERT INTO organizational_unit_types (code, name, siorg_code) VALUES ('unidade-administrativa', 'Administrativa', 12)"
    )
    assert world.sync(12, entity="TYPE")["status"] == "COMPLETED"
    (row,) = world.rows("SELECT * FROM organizational_unit_types WHERE siorg_code = 12")
    assert (row["name"], row["code"]) == ("Unidade Administrativa", "unidade-administrativa")
    assert world.sync(13, entity="TYPE")["status"] == "FAILED"


def test_a_category_made_by_somebody_else_meanwhile_is_used(world: World) -> None:
    """Two processes at different organizations may meet the same new category: the database refuses one of the two."""
    world.siorg.tables[DomainTable.UNIT_CATEGORY] = [_category(6, "Comissão")]
    world.siorg.publish(siorg_row(900, codigoCategoriaUnidade=6))
    (id_,) = world.enqueue(900)
    works = world.fetch(world.claim())
    with ThreadPoolExecutor(1) as thread, connect(world.url, application_name="somebody else") as other:
        with transaction(other):
            other.execute("INSERT INTO organizational_unit_categories (name, siorg_code) VALUES ('Comissão', 6)")
            applied = thread.submit(world.apply, works)
            wait_until(lambda: _somebody_waits(other))
        applied.result(timeout=20)
    assert world.item(id_)["status"] == "COMPLETED"
    assert world.unit(900)["category_code"] == 6


def _somebody_waits(connection: Connection) -> bool:
    row = connection.execute("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted) AS waits").fetchone()
    return row is not None and bool(row["waits"])
