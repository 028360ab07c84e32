"""What people changed here survives what SIORG changes, and what they decide is done."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from psycopg.types.json import Jsonb

from siorg_job.siorg.model import DomainTable
from support.local_structure import World, contact, siorg_row

CODE = 900


@pytest.fixture
def synced(world: World) -> World:
    """One unit, in line with SIORG."""
    world.siorg.publish(
        siorg_row(
            CODE, nome="Secretaria", sigla="SEC", areaAtuacao="MEIO",
            **contact(phones=["(65) 1111"], emails=["a@ufmt.br"], sites=["https://a.ufmt.br"]),
        )
    )  # fmt: skip
    assert world.sync(CODE)["status"] == "COMPLETED"
    return world


def _conflict(world: World) -> UUID:
    """Name changed here and in SIORG; the acronym in SIORG only."""
    world.edit(CODE, name="Nossa Secretaria")
    world.siorg.change(CODE, nome="Secretaria Geral", sigla="SG", versaoConsulta="100.0.0")
    item = world.sync(CODE)
    assert item["status"] == "CONFLICT"
    id_: UUID = item["id"]
    return id_


def test_a_local_name_stays_while_siorg_keeps_its_own(synced: World) -> None:
    synced.edit(CODE, name="Nossa Secretaria")
    synced.siorg.change(CODE, sigla="SG")
    assert synced.sync(CODE)["status"] == "COMPLETED"
    unit = synced.unit(CODE)
    assert (unit["name"], unit["acronym"]) == ("Nossa Secretaria", "SG")
    assert synced.history(CODE)[-1]["affected_fields"] == ["acronym"]


def test_a_local_name_stays_over_many_syncs(synced: World) -> None:
    synced.edit(CODE, name="Nossa Secretaria")
    for number in range(3):
        synced.siorg.change(CODE, sigla=f"S{number}")
        synced.sync(CODE)
    assert synced.unit(CODE)["name"] == "Nossa Secretaria"


def test_both_changed_is_a_conflict_that_names_the_three_sides(synced: World) -> None:
    item = synced.item(_conflict(synced))
    assert item["detected_changes"] == {"name": {"base": "Secretaria", "local": "Nossa Secretaria", "remote": "Secretaria Geral"}}
    assert "name" in item["last_error"]


def test_a_conflict_applies_nothing_of_the_item(synced: World) -> None:
    before = synced.unit(CODE)
    synced.edit(CODE, name="Nossa Secretaria")
    edited = synced.unit(CODE)
    synced.siorg.change(
        CODE, nome="Secretaria Geral", sigla="SG", areaAtuacao="FIM", versaoConsulta="100.0.0", **contact(phones=["2"])
    )
    synced.sync(CODE)
    after = synced.unit(CODE)
    assert after == edited
    assert after["siorg_raw_data"] == before["siorg_raw_data"]
    assert len(synced.history(CODE)) == 1


def test_both_changed_alike_is_no_conflict(synced: World) -> None:
    synced.edit(CODE, name="Secretaria Geral")
    synced.siorg.change(CODE, nome="Secretaria Geral")
    assert synced.sync(CODE)["status"] == "COMPLETED"
    assert len(synced.history(CODE)) == 1
    # And from here on that name is the base.
    synced.siorg.change(CODE, nome="Secretaria Nova")
    synced.sync(CODE)
    assert synced.unit(CODE)["name"] == "Secretaria Nova"


@pytest.mark.parametrize("attempts", [1, 3])
def test_accept_siorg_overwrites_even_with_no_attempts_left(synced: World, attempts: int) -> None:
    id_ = _conflict(synced)
    synced.connection.execute("UPDATE siorg_sync_queue SET attempts = %s WHERE id = %s", [attempts, id_])
    synced.resolve(id_, "ACCEPT_SIORG")
    synced.drain()
    assert synced.item(id_)["status"] == "COMPLETED"
    unit = synced.unit(CODE)
    assert (unit["name"], unit["acronym"], unit["siorg_last_version"]) == ("Secretaria Geral", "SG", "100.0.0")
    entry = synced.history(CODE)[-1]
    assert entry["affected_fields"] == ["acronym", "name"]
    assert entry["previous_data"]["name"] == "Nossa Secretaria"


def test_accept_siorg_also_overwrites_what_siorg_did_not_change(synced: World) -> None:
    synced.edit(CODE, acronym="NOSSA")
    id_ = _conflict(synced)
    synced.resolve(id_, "ACCEPT_SIORG")
    synced.drain()
    assert synced.unit(CODE)["acronym"] == "SG"


def test_accept_siorg_erases_nothing_that_siorg_does_not_say(synced: World) -> None:
    id_ = _conflict(synced)
    synced.siorg.change(CODE, contato=None, sigla=None)
    synced.resolve(id_, "ACCEPT_SIORG")
    synced.drain()
    unit = synced.unit(CODE)
    assert unit["acronym"] == "SEC"
    assert unit["contact_info"]["phones"] == ["(65) 1111"]


@pytest.mark.parametrize(
    ("details", "name", "acronym"),
    [
        ({"merged_payload": {"name": "Secretaria Mista"}}, "Secretaria Mista", "SG"),
        ({"merged_payload": {"name": "Secretaria Mista", "acronym": "SM"}}, "Secretaria Mista", "SM"),
        ({"merged_payload": {"nome": "Secretaria  Mista ", "sigla": "SM", "codigoUnidade": "x"}}, "Secretaria Mista", "SM"),
        ({"merged_payload": {}, "field_resolutions": {"name": "LOCAL"}}, "Nossa Secretaria", "SG"),
        ({"merged_payload": {}, "field_resolutions": {"name": "SIORG", "acronym": "LOCAL"}}, "Secretaria Geral", "SEC"),
        ({"field_resolutions": {"name": "local"}}, "Nossa Secretaria", "SG"),
        (
            {"merged_payload": {"nome": "Secretaria Geral", "sigla": "SG"}, "field_resolutions": {"name": "LOCAL"}},
            "Nossa Secretaria", "SG",
        ),
        (
            {"merged_payload": {"nome": "Secretaria Geral"}, "field_resolutions": {"nome": "LOCAL", "sigla": "LOCAL"}},
            "Nossa Secretaria", "SEC",
        ),
    ],
)  # fmt: skip
def test_merge_does_what_it_says(synced: World, details: dict[str, Any], name: str, acronym: str) -> None:
    id_ = _conflict(synced)
    synced.resolve(id_, "MERGE", **details)
    synced.drain()
    item = synced.item(id_)
    assert item["status"] == "COMPLETED", item["last_error"]
    unit = synced.unit(CODE)
    assert (unit["name"], unit["acronym"]) == (name, acronym)


def test_after_a_merge_the_next_sync_is_quiet(synced: World) -> None:
    id_ = _conflict(synced)
    synced.resolve(id_, "MERGE", merged_payload={"name": "Secretaria Mista"})
    synced.drain()
    entries = len(synced.history(CODE))
    assert synced.sync(CODE)["status"] == "COMPLETED"
    assert synced.unit(CODE)["name"] == "Secretaria Mista"
    assert len(synced.history(CODE)) == entries


def test_merge_writes_every_kind_of_field(synced: World) -> None:
    synced.siorg.publish(siorg_row(901))
    synced.sync(901)
    id_ = _conflict(synced)
    merged = {
        "name": "Mista", "acronym": None, "parent": 901, "activity_area": "CORE", "unit_type": "unidade-colegiada",
        "contact_info": {"phones": ["9"], "emails": [], "address": "Rua B"}, "is_active": False,
    }  # fmt: skip
    synced.resolve(id_, "MERGE", merged_payload=merged)
    synced.drain()
    assert synced.item(id_)["status"] == "COMPLETED", synced.item(id_)["last_error"]
    unit = synced.unit(CODE)
    assert (unit["name"], unit["acronym"], unit["parent_code"]) == ("Mista", None, 901)
    assert (unit["activity_area"], unit["type_slug"], unit["is_active"]) == ("CORE", "unidade-colegiada", False)
    assert unit["contact_info"] == {"phones": ["9"], "emails": [], "websites": ["https://a.ufmt.br"], "address": "Rua B"}


@pytest.mark.parametrize(
    ("resolution", "details", "named"),
    [
        ("KEEP", {}, "ACCEPT_SIORG, MERGE"),
        (5, {}, "ACCEPT_SIORG, MERGE"),
        ("MERGE", {}, "MERGE without any field"),
        ("MERGE", {"merged_payload": {"name": ""}}, "merged_payload.name"),
        ("MERGE", {"merged_payload": {"name": "x" * 256}}, "merged_payload.name"),
        ("MERGE", {"merged_payload": {"name": 5}}, "merged_payload.name"),
        ("MERGE", {"merged_payload": {"parent": "901"}}, "merged_payload.parent"),
        ("MERGE", {"merged_payload": {"is_active": "no"}}, "merged_payload.is_active"),
        ("MERGE", {"merged_payload": {"activity_area": "FIM"}}, "merged_payload.activity_area"),
        ("MERGE", {"merged_payload": {"phones": "1"}}, "merged_payload.contact_info.phones"),
        ("MERGE", {"merged_payload": ["name"]}, "merged_payload"),
        ("MERGE", {"merged_payload": {"name": "X"}, "field_resolutions": {"colour": "SIORG"}}, "colour"),
        ("MERGE", {"field_resolutions": {"name": "MINE"}}, "'name'"),
        ("MERGE", {"merged_payload": {"name": "X", "parent": 999999}}, "999999"),
        ("MERGE", {"merged_payload": {"name": "X", "parent": CODE}}, "its own ancestor"),
        ("MERGE", {"merged_payload": {"name": "X", "organization": 12345}}, "12345"),
    ],
)
def test_a_decision_that_cannot_be_used_goes_back_and_names_the_field(
    synced: World, resolution: object, details: dict[str, Any], named: str
) -> None:
    id_ = _conflict(synced)
    before = synced.unit(CODE)
    synced.resolve(id_, resolution, **details)  # type: ignore[arg-type]
    synced.drain()
    item = synced.item(id_)
    assert item["status"] == "CONFLICT"
    assert named in item["last_error"]
    assert synced.unit(CODE) == before


def test_a_field_that_the_merge_leaves_open_is_still_a_conflict(synced: World) -> None:
    synced.edit(CODE, acronym="NOSSA")
    id_ = _conflict(synced)
    synced.resolve(id_, "MERGE", merged_payload={"name": "Secretaria Mista"})
    synced.drain()
    item = synced.item(id_)
    assert item["status"] == "CONFLICT"
    assert list(item["detected_changes"]) == ["acronym"]
    assert "resolution" not in item["error_details"]
    assert synced.unit(CODE)["name"] == "Nossa Secretaria"


def test_keep_local_and_skip_change_nothing(synced: World) -> None:
    id_ = _conflict(synced)
    before = synced.unit(CODE)
    synced.connection.execute("UPDATE siorg_sync_queue SET status = 'COMPLETED' WHERE id = %s", [id_])
    synced.drain()
    assert synced.unit(CODE) == before


@pytest.mark.parametrize(
    ("edited", "said", "after"),
    [
        ({"phones": ["(65) 9999"]}, contact(phones=["(65) 1111"], emails=["b@ufmt.br"], sites=["https://a.ufmt.br"]),
         {"phones": ["(65) 9999"], "emails": ["b@ufmt.br"]}),
        ({"emails": ["eu@ufmt.br"]}, contact(phones=["(65) 2222"], emails=["a@ufmt.br"], sites=["https://a.ufmt.br"]),
         {"phones": ["(65) 2222"], "emails": ["eu@ufmt.br"]}),
        ({"websites": ["https://b.ufmt.br"]}, contact(phones=["(65) 2222"], emails=["a@ufmt.br"], sites=["https://a.ufmt.br"]),
         {"phones": ["(65) 2222"], "websites": ["https://b.ufmt.br"]}),
        ({"address": "Bloco 3"}, contact(phones=["(65) 2222"], emails=["a@ufmt.br"], sites=["https://a.ufmt.br"]),
         {"phones": ["(65) 2222"], "address": "Bloco 3"}),
    ],
)  # fmt: skip
def test_each_kind_of_contact_merges_by_itself(
    synced: World, edited: dict[str, Any], said: dict[str, Any], after: dict[str, Any]
) -> None:
    synced.edit_contact(CODE, **edited)
    synced.siorg.change(CODE, **said)
    assert synced.sync(CODE)["status"] == "COMPLETED"
    info = synced.unit(CODE)["contact_info"]
    assert {key: info[key] for key in after} == after


def test_only_the_contact_that_moved_apart_is_in_conflict(synced: World) -> None:
    synced.edit_contact(CODE, phones=["(65) 9999"])
    synced.siorg.change(CODE, **contact(phones=["(65) 2222"], emails=["b@ufmt.br"]))
    item = synced.sync(CODE)
    assert item["detected_changes"] == {
        "contact_info.phones": {"base": ["(65) 1111"], "local": ["(65) 9999"], "remote": ["(65) 2222"]}
    }
    assert synced.unit(CODE)["contact_info"]["emails"] == ["a@ufmt.br"]


def test_a_kind_of_contact_that_siorg_left_out_once_keeps_its_base(synced: World) -> None:
    synced.siorg.change(CODE, **contact(phones=["(65) 2222"]))
    synced.sync(CODE)
    synced.edit_contact(CODE, emails=["eu@ufmt.br"])
    synced.siorg.change(CODE, **contact(phones=["(65) 2222"], emails=["a@ufmt.br"]))
    assert synced.sync(CODE)["status"] == "COMPLETED"
    assert synced.unit(CODE)["contact_info"]["emails"] == ["eu@ufmt.br"]


def test_area_acronym_type_and_category_merge_by_themselves(synced: World) -> None:
    synced.siorg.tables[DomainTable.UNIT_CATEGORY] = [
        {"codigoCategoriaUnidade": 6, "descricaoCategoriaUnidade": "Comissão", "ativo": "SIM"},
        {"codigoCategoriaUnidade": 7, "descricaoCategoriaUnidade": "Comitê", "ativo": "SIM"},
    ]
    synced.siorg.change(CODE, codigoCategoriaUnidade="https://x/id/categoria-unidade/6")
    synced.sync(CODE)
    assert synced.unit(CODE)["category_name"] == "Comissão"
    synced.edit(CODE, acronym="NOSSA", activity_area="CORE")
    synced.siorg.change(
        CODE,
        codigoCategoriaUnidade="https://x/id/categoria-unidade/7",
        codigoTipoUnidade="https://x/id/tipo-unidade/unidade-colegiada",
    )
    assert synced.sync(CODE)["status"] == "COMPLETED"
    unit = synced.unit(CODE)
    assert (unit["acronym"], unit["activity_area"]) == ("NOSSA", "CORE")
    assert (unit["category_name"], unit["type_slug"]) == ("Comitê", "unidade-colegiada")
    assert synced.history(CODE)[-1]["affected_fields"] == ["category", "unit_type"]


@pytest.mark.parametrize("nothing", [None, "", "  ", []])
def test_null_blank_and_empty_erase_nothing(synced: World, nothing: object) -> None:
    synced.sync(CODE)
    before = synced.unit(CODE)
    synced.siorg.change(
        CODE,
        sigla=nothing or None,
        areaAtuacao=nothing or None,
        contato=nothing,
        endereco=nothing,
        codigoCategoriaUnidade=nothing or None,
    )
    assert synced.sync(CODE)["status"] == "COMPLETED"
    after = synced.unit(CODE)
    kept = ("name", "acronym", "activity_area", "contact_info", "category_id", "siorg_raw_data", "parent_id", "siorg_parent_code")
    assert [after[key] for key in kept] == [before[key] for key in kept]
    assert len(synced.history(CODE)) == 1


def test_absent_keys_erase_nothing(synced: World) -> None:
    before = synced.unit(CODE)
    synced.siorg.rows[CODE] = {"codigoUnidade": CODE, "nome": "Secretaria"}
    assert synced.sync(CODE)["status"] == "COMPLETED"
    after = synced.unit(CODE)
    for key in before.keys() - {"siorg_synced_at", "updated_at", "siorg_raw_data", "siorg_url"}:
        assert after[key] == before[key], key
    assert len(synced.history(CODE)) == 1


def test_a_row_that_was_never_synced_takes_siorgs_values_and_history_keeps_its_own(world: World) -> None:
    world.siorg.publish(siorg_row(CODE, nome="Secretaria", sigla="SEC"))
    _insert_local(world, CODE, name="Feita à mão", acronym="FM")
    item = world.sync(CODE)
    assert item["status"] == "COMPLETED"
    unit = world.unit(CODE)
    assert (unit["name"], unit["acronym"], unit["is_siorg_managed"]) == ("Secretaria", "SEC", True)
    (entry,) = world.history(CODE)
    assert entry["change_type"] == "UPDATE"
    assert entry["previous_data"]["name"] == "Feita à mão"
    assert entry["previous_data"]["acronym"] == "FM"


def test_an_unofficial_unit_that_a_person_mapped_becomes_siorgs(world: World) -> None:
    world.siorg.publish(siorg_row(CODE, nome="Secretaria"))
    id_ = _insert_local(world, None, name="Secretaria", acronym="S")
    world.connection.execute(
        "INSERT INTO siorg_mappings (entity_type, local_id, siorg_code) VALUES ('UNIT', %s, %s)", [id_, CODE]
    )
    assert world.sync(CODE)["status"] == "COMPLETED"
    assert world.unit(CODE)["id"] == id_


def _insert_local(world: World, code: int | None, *, name: str, acronym: str) -> UUID:
    (category,) = world.rows("INSERT INTO organizational_unit_categories (name) VALUES ('Local') RETURNING id")
    (kind,) = world.rows("INSERT INTO organizational_unit_types (code, name) VALUES ('local', 'Local') RETURNING id")
    (unit,) = world.rows(
        "INSERT INTO organizational_units (organization_id, category_id, unit_type_id, name, acronym, siorg_code, activity_area)"
        " SELECT o.id, %s, %s, %s, %s, %s, 'CORE' FROM organizations o RETURNING id",
        category["id"], kind["id"], name, acronym, code,
    )  # fmt: skip
    id_: UUID = unit["id"]
    return id_


def test_white_space_alone_is_no_edit_of_a_person(synced: World) -> None:
    synced.edit(CODE, name=" Secretaria ")
    synced.siorg.change(CODE, nome="Secretaria Geral")
    assert synced.sync(CODE)["status"] == "COMPLETED"
    assert synced.unit(CODE)["name"] == "Secretaria Geral"


def test_white_space_in_siorg_is_no_change(synced: World) -> None:
    synced.siorg.change(CODE, nome=" Secretaria\u00a0\r\n", sigla="SEC ")
    assert synced.sync(CODE)["status"] == "COMPLETED"
    assert len(synced.history(CODE)) == 1


def test_a_unit_that_a_person_deactivated_stays_so(synced: World) -> None:
    synced.edit(CODE, is_active=False)
    synced.siorg.change(CODE, sigla="SG")
    synced.sync(CODE)
    assert not synced.unit(CODE)["is_active"]


def test_a_unit_that_a_person_moved_stays_where_it_is(synced: World) -> None:
    synced.siorg.publish(siorg_row(901))
    synced.sync(901)
    synced.edit(CODE, parent_id=synced.unit(901)["id"])
    synced.siorg.change(CODE, sigla="SG")
    synced.sync(CODE)
    assert synced.unit(CODE)["parent_code"] == 901


def test_what_a_person_filled_in_is_not_overwritten_by_siorgs_first_word(synced: World) -> None:
    synced.edit_contact(CODE, address="Bloco 3, sala 2")
    synced.siorg.change(CODE, endereco=[{"logradouro": "Av. Fernando Corrêa", "numero": "2367"}])
    item = synced.sync(CODE)
    assert item["status"] == "CONFLICT"
    assert list(item["detected_changes"]) == ["contact_info.address"]


def test_values_that_stand_for_siorgs_silence_are_no_edits(synced: World) -> None:
    synced.siorg.publish(siorg_row(902, None, areaAtuacao=None, codigoCategoriaUnidade=None))
    synced.sync(902)
    synced.siorg.tables[DomainTable.UNIT_CATEGORY] = [
        {"codigoCategoriaUnidade": 6, "descricaoCategoriaUnidade": "Comissão", "ativo": "SIM"}
    ]
    synced.siorg.change(902, parent=CODE, areaAtuacao="FIM", codigoCategoriaUnidade=6, **contact(phones=["3"]))
    assert synced.sync(902)["status"] == "COMPLETED"
    unit = synced.unit(902)
    assert (unit["parent_code"], unit["activity_area"], unit["category_code"]) == (CODE, "CORE", 6)
    assert unit["contact_info"]["phones"] == ["3"]


def test_a_conflict_of_an_organization_is_resolved_likewise(world: World) -> None:
    world.sync(471, entity="ORGANIZATION")
    world.edit_organization(name="UFMT, a nossa")
    world.siorg.change(471, nome="Universidade Federal de Mato Grosso")
    item = world.sync(471, entity="ORGANIZATION")
    assert list(item["detected_changes"]) == ["name"]
    world.resolve(item["id"], "ACCEPT_SIORG")
    world.drain()
    assert world.organization()["name"] == "Universidade Federal de Mato Grosso"


def test_the_payload_is_what_the_producer_saw_and_is_not_applied(synced: World) -> None:
    synced.sync(CODE, payload={"codigoUnidade": CODE, "nome": "De ontem"})
    assert synced.unit(CODE)["name"] == "Secretaria"


def test_error_details_of_another_kind_are_no_decision(synced: World) -> None:
    synced.siorg.change(CODE, sigla="SG")
    item = synced.sync(CODE, error_details=Jsonb(["resolution"]))
    assert item["status"] == "COMPLETED"
