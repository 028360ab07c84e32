"""Extinctions, merges and splits, organizations, categories and types."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from siorg_job.siorg.errors import SiorgUnavailable
from siorg_job.siorg.model import DomainTable
from siorg_queue import Connection, connect, transaction
from support.local_structure import ANOTHER, UFMT, World, contact, siorg_row, wait_until


@pytest.fixture
def tree(world: World) -> World:
    """900 with 901 below it, and 902 below that; 910 beside them."""
    world.have(siorg_row(900), siorg_row(901, 900), siorg_row(902, 901), siorg_row(910))
    return world


def _end(world: World, *codes: int, listed: bool = False) -> None:
    """Gone altogether, or still answered with operacao EXCLUSAO."""
    if listed:
        for code in codes:
            world.siorg.change(code, operacao="EXCLUSAO", versaoConsulta="101.0.0")
    else:
        world.siorg.remove(*codes)


def _mapping_status(world: World, code: int) -> str:
    (mapping,) = world.rows("SELECT mapping_status::text FROM siorg_mappings WHERE siorg_code = %s", code)
    status: str = mapping["mapping_status"]
    return status


@pytest.mark.parametrize("listed", [True, False])
def test_a_confirmed_end_deactivates_once_and_asks_for_review_and_a_return_is_active_again(tree: World, listed: bool) -> None:
    row = tree.siorg.rows[910]
    _end(tree, 910, listed=listed)
    for _ in range(2):
        assert tree.sync(910, operation="EXTINCTION")["status"] == "COMPLETED"
    unit = tree.unit(910)
    assert (unit["is_active"], unit["name"], _mapping_status(tree, 910)) == (False, "Unidade 910", "DEPRECATED")
    assert unit["deactivated_at"] is not None
    assert "extinct in SIORG" in unit["deactivation_reason"]
    _, entry = tree.history(910)
    assert (entry["change_type"], entry["requires_review"], entry["new_data"]) == ("EXTINCTION", True, None)
    assert (entry["previous_data"]["is_active"], entry["affected_fields"]) == (True, ["is_active"])

    tree.siorg.publish({**row, "nome": "De volta", "versaoConsulta": "102.0.0"})
    assert tree.sync(910, operation="CREATION")["status"] == "COMPLETED"
    unit = tree.unit(910)
    assert (unit["is_active"], unit["name"], _mapping_status(tree, 910)) == (True, "De volta", "ACTIVE")
    assert (unit["deactivated_at"], unit["deactivation_reason"]) == (None, None)
    assert tree.history(910)[-1]["affected_fields"] == ["is_active", "name"]


def test_an_end_that_siorg_does_not_confirm_is_skipped_and_tried_again_while_it_cannot(tree: World) -> None:
    before = tree.unit(910)
    item = tree.sync(910, operation="EXTINCTION")
    assert item["status"] == "SKIPPED"
    assert "still has" in item["last_error"]
    tree.siorg.down = SiorgUnavailable("no answer")
    assert tree.sync(910, operation="EXTINCTION")["status"] == "PENDING"
    assert tree.unit(910) == before


def test_the_end_of_a_unit_that_never_was_here_is_no_work(world: World) -> None:
    assert world.sync(777, operation="EXTINCTION")["status"] == "COMPLETED"
    assert world.rows("SELECT * FROM siorg_history") == []


def test_an_end_waits_for_children_that_have_items_and_gives_the_attempt_back(tree: World) -> None:
    _end(tree, 901, 902)
    (id_,) = tree.enqueue(901, operation="EXTINCTION")
    works = tree.fetched()
    tree.enqueue(902, operation="EXTINCTION")
    tree.connection.execute(  # another of it is no reason to wait so long
        "INSERT INTO siorg_sync_queue (entity_type, siorg_code, operation, payload, scheduled_for)"
        " VALUES ('UNIT', 902, 'UPDATE', '{}', now() + interval '1 hour')"
    )
    tree.apply(works)
    item = tree.item(id_)
    assert (item["status"], item["attempts"]) == ("PENDING", 0)
    assert item["scheduled_for"] < datetime.now(UTC) + timedelta(minutes=30)
    assert "waits for the items of 1" in item["last_error"]
    assert tree.unit(901)["is_active"]
    tree.drain()
    tree.pauses_are_over()
    tree.drain()
    assert tree.item(id_)["status"] == "COMPLETED"
    assert not tree.unit(901)["is_active"]


def _hang_by_hand(tree: World) -> None:
    """SIORG has 902 elsewhere, and a person has put it back below 901."""
    tree.sync_changed(902, parent=UFMT)
    tree.edit(902, parent_id=tree.unit(901)["id"])


def test_an_end_with_children_that_a_person_put_there_is_a_conflict(tree: World) -> None:
    _hang_by_hand(tree)
    _end(tree, 901)
    item = tree.sync(901, operation="EXTINCTION")
    assert item["status"] == "CONFLICT"
    assert "902 Unidade 902" in item["last_error"]
    assert item["detected_changes"] == {"is_active": {"base": True, "local": True, "remote": False}}
    assert tree.unit(901)["is_active"]
    # Once the person has ended what is below, accepting does it.
    tree.edit(902, is_active=False)
    tree.decide(item["id"], "ACCEPT_SIORG")
    assert not tree.unit(901)["is_active"]


def test_a_person_may_keep_what_siorg_ended(tree: World) -> None:
    _hang_by_hand(tree)
    _end(tree, 901)
    id_ = tree.sync(901, operation="EXTINCTION")["id"]
    assert tree.decide(id_, "MERGE", field_resolutions={"is_active": "LOCAL"})["status"] == "COMPLETED"
    assert tree.unit(901)["is_active"]
    assert len(tree.history(901)) == 1


def test_a_unit_that_a_person_opened_again_stays_open(tree: World) -> None:
    _end(tree, 910)
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
    _end(tree, 901)
    tree.enqueue(901, operation="EXTINCTION")
    tree.sync_changed(902, parent=910)
    assert not tree.unit(901)["is_active"]
    assert tree.unit(902)["parent_code"] == 910


def test_an_update_of_a_unit_that_is_gone_fails_and_deactivates_nothing(tree: World) -> None:
    """Also one that is missing in the structure: it is asked for by itself."""
    _end(tree, 910)
    tree.siorg.publish(siorg_row(920), siorg_row(921), siorg_row(922))
    tree.siorg.requests.clear()
    item = tree.sync(910, 920, 921, 922, payload=siorg_row(1))
    assert tree.siorg.requests == ["structure 471", "unit 910"]
    assert (item["status"], item["error_details"]["kind"]) == ("FAILED", "not_found")
    assert tree.unit(910)["is_active"]


@pytest.mark.parametrize("operation", ["MERGE", "SPLIT"])
@pytest.mark.parametrize("gone", [True, False])
def test_a_merge_or_split_is_for_a_person(tree: World, operation: str, gone: bool) -> None:
    tree.siorg.change(910, nome="Unida")
    if gone:
        _end(tree, 910)
    before = tree.unit(910)
    item = tree.sync(910, operation=operation)
    assert (item["status"], item["error_details"]["kind"]) == ("CONFLICT", operation.lower())
    known = {"is_active": {"base": True, "local": True, "remote": False}} if gone else {
        "name": {"base": "Unidade 910", "local": "Unidade 910", "remote": "Unida"}
    }  # fmt: skip
    assert item["detected_changes"] == known
    assert tree.unit(910) == before
    assert tree.decide(item["id"], "ACCEPT_SIORG")["status"] == "COMPLETED"
    assert (tree.unit(910)["is_active"], tree.unit(910)["name"]) == ((False, "Unidade 910") if gone else (True, "Unida"))


# -- organizations ------------------------------------------------------------------------------------------------------


def test_an_organization_takes_siorgs_values_by_one_request(world: World) -> None:
    item = world.sync_changed(
        UFMT, entity="ORGANIZATION", nome="Universidade Federal de Mato Grosso",
        **contact(phones=["(65) 3615-0000"], emails=["x@ufmt.br"]),
        endereco=[{"logradouro": "Av. Fernando Corrêa", "numero": "2367", "cep": "78060-900", "uf": "MT"}],
    )  # fmt: skip
    assert item["status"] == "COMPLETED"
    assert world.siorg.requests == ["unit 471"]
    row = world.organization()
    assert (row["name"], row["phone"], row["email"]) == ("Universidade Federal de Mato Grosso", "(65) 3615-0000", "x@ufmt.br")
    assert (row["state"], row["zip_code"], row["website"]) == ("MT", "78060900", "https://www.ufmt.br")
    assert (row["cnpj"], row["ug_code"]) == ("33004540000100", 154045)
    world.sync(UFMT, entity="ORGANIZATION")
    (entry,) = world.history(UFMT, "ORGANIZATION")
    assert entry["previous_data"]["name"] == "Fundação Universidade Federal de Mato Grosso"


@pytest.mark.parametrize(("code", "entity"), [(423, "ORGANIZATION"), (423, "UNIT"), (950, "UNIT")])
def test_an_organization_that_is_not_registered_fails_with_that_reason_and_so_do_its_units(
    world: World, code: int, entity: str
) -> None:
    world.siorg.publish(siorg_row(423, 244, organization=423), siorg_row(950, 423, organization=423))
    item = world.sync(code, entity=entity)
    assert (item["status"], item["error_details"]["kind"]) == ("FAILED", "unknown_organization")
    assert "organization 423" in item["last_error"]
    assert "not registered here" in item["last_error"]


def test_a_unit_item_for_the_organizations_own_row_is_treated_as_the_organization(world: World) -> None:
    assert world.sync_changed(UFMT, nome="Universidade Nova")["status"] == "COMPLETED"
    assert world.organization()["name"] == "Universidade Nova"
    assert world.units() == {}


def test_a_unit_that_left_for_an_organization_that_is_not_registered_is_deactivated_and_comes_back(world: World) -> None:
    world.register(ANOTHER)
    world.have(siorg_row(900), siorg_row(901, 900), siorg_row(950, ANOTHER, organization=ANOTHER))
    for operation in ("UPDATE", "EXTINCTION"):  # as that organization's structure says it, or this one's
        world.siorg.change(901, organization=423, parent=423, nome="Outra")
        assert world.sync(901, operation=operation)["status"] == "COMPLETED"
        unit, entry = world.unit(901), world.history(901)[-1]
        assert (unit["is_active"], unit["organization_code"], unit["parent_code"]) == (False, UFMT, 900)
        assert unit["deactivation_reason"] == "moved to organization 423, which is not registered here"
        assert (entry["change_type"], entry["affected_fields"], entry["requires_review"]) == (
            "HIERARCHY_CHANGE", ["is_active"], True
        )  # fmt: skip
        assert world.sync_changed(901, organization=ANOTHER, parent=950, nome="Unidade 901")["status"] == "COMPLETED"
        unit, entry = world.unit(901), world.history(901)[-1]
        assert (unit["is_active"], unit["organization_code"], unit["parent_code"], unit["level"]) == (True, ANOTHER, 950, 2)
        assert (entry["change_type"], entry["previous_data"]["is_active"]) == ("CREATION", False)
        world.sync_changed(901, organization=UFMT, parent=900)
        assert world.history(901)[-1]["affected_fields"] == ["organization", "parent"]


# -- categories and types -----------------------------------------------------------------------------------------------


def _table(world: World, *names: str, **more: Any) -> None:
    """SIORG's categories from 6 on."""
    world.siorg.tables[DomainTable.UNIT_CATEGORY] = [
        {"codigoCategoriaUnidade": code, "descricaoCategoriaUnidade": name, "ativo": "SIM", **more}
        for code, name in enumerate(names, start=6)
    ]


def _category(world: World, code: int = 6) -> dict[str, Any]:
    (row,) = world.rows("SELECT * FROM organizational_unit_categories WHERE siorg_code = %s", code)
    return row


def test_a_category_follows_siorgs_table(world: World) -> None:
    _table(world, " Comissa\u0303o\u202e\xa0", "Comitê")
    assert world.sync(6, 7, entity="CATEGORY")["status"] == "COMPLETED"
    assert world.siorg.requests == ["domain categoria-unidade"]
    row = _category(world)
    assert (row["name"], row["is_siorg_managed"], row["siorg_name"]) == ("Comissão", True, "Comissão")
    for dirt in ("", "\xa0", "\u200b"):
        _table(world, f"Comissão{dirt} Permanente", ativo=f"NÃO{dirt}")
        world.sync(6, entity="CATEGORY")
        assert (_category(world)["name"], _category(world)["is_active"]) == ("Comissão Permanente", False)
    _table(world, "Comissão Permanente", ativo="Sim\x00")
    world.sync(6, entity="CATEGORY")
    assert _category(world)["is_active"]
    changes = [entry["change_type"] for entry in world.history(6, "CATEGORY")]
    assert (changes[0], set(changes[1:3]), changes[3:]) == ("CREATION", {"UPDATE", "EXTINCTION"}, ["CREATION"])  # it returned
    _table(world, "x" * 101)
    assert world.sync(6, entity="CATEGORY")["last_error"] == "the name in SIORG has 101 characters; at most 100 fit"


def test_a_category_renamed_by_a_person_and_by_siorg_is_a_conflict(world: World) -> None:
    _table(world, "Comissão")
    world.sync(6, entity="CATEGORY")
    world.connection.execute("UPDATE organizational_unit_categories SET name = 'Nossa' WHERE siorg_code = 6")
    assert world.sync(6, entity="CATEGORY")["status"] == "COMPLETED"
    _table(world, "Deles")
    item = world.sync(6, entity="CATEGORY")
    assert item["detected_changes"] == {"name": {"base": "Comissão", "local": "Nossa", "remote": "Deles"}}


def test_a_category_that_siorg_does_not_have_fails_and_its_end_is_its_end_but_an_empty_table_ends_nothing(world: World) -> None:
    _table(world, "Comitê", "Comissão")
    assert world.sync(99, entity="CATEGORY")["status"] == "FAILED"
    world.sync(7, entity="CATEGORY")
    for names, status, active in (
        (("Comitê", "Comissão"), "SKIPPED", True),
        ((), "PENDING", True),
        (("Comitê",), "COMPLETED", False),
    ):
        _table(world, *names)
        assert world.sync(7, entity="CATEGORY", operation="EXTINCTION")["status"] == status, names
        assert _category(world, 7)["is_active"] is active, names


@pytest.mark.parametrize("present", [False, True])
def test_a_units_category_is_made_from_the_table_or_adopted_by_its_name(world: World, present: bool) -> None:
    if present:
        world.connection.execute("INSERT INTO organizational_unit_categories (name) VALUES ('Comissão')")
    _table(world, "Comissão")
    world.have(siorg_row(900, codigoCategoriaUnidade=6))
    assert (world.unit(900)["category_name"], world.unit(900)["category_code"]) == ("Comissão", 6)
    assert len(world.rows("SELECT * FROM organizational_unit_categories WHERE name = 'Comissão'")) == 1
    assert world.siorg.requests == ["unit 900", "domain categoria-unidade"]


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
    _table(world, "Comissão")
    world.siorg.publish(siorg_row(900, codigoCategoriaUnidade=6))
    (id_,) = world.enqueue(900)
    works = world.fetched()
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


def test_an_end_waits_for_a_unit_that_siorg_moves_below_it_in_the_same_transaction_and_asks_nobody(tree: World) -> None:
    tree.siorg.change(902, parent=910)
    tree.siorg.remove(910)
    tree.enqueue(902)
    tree.enqueue(910, operation="EXTINCTION")
    tree.apply(tree.fetched())
    tree.drain()
    assert (tree.unit(902)["parent_code"], tree.unit(910)["is_active"]) == (910, True)
    (*_, end) = tree.items(910)
    assert (end["status"], end["error_details"]["kind"]) == ("FAILED", "still_a_parent")
