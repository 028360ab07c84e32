"""What people changed here survives what SIORG changes, and what they decide is done."""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

import pytest
from psycopg.types.json import Jsonb

from siorg_job.siorg.model import DomainTable
from support.local_structure import World, contact, siorg_row, unit_uri

CODE = 900
_PHONES, _EMAILS, _SITES = ["(65) 1111"], ["a@ufmt.br"], ["https://a.ufmt.br"]


@pytest.fixture
def synced(world: World) -> World:
    """One unit, in line with SIORG."""
    said = contact(phones=_PHONES, emails=_EMAILS, sites=_SITES)
    world.have(siorg_row(CODE, nome="Secretaria", sigla="SEC", areaAtuacao="MEIO", **said))
    return world


def _conflict(world: World) -> UUID:
    """Name changed here and in SIORG; the acronym in SIORG only."""
    world.edit(CODE, name="Nossa Secretaria")
    item = world.sync_changed(CODE, nome="Secretaria Geral", sigla="SG", versaoConsulta="100.0.0")
    assert item["status"] == "CONFLICT"
    id_: UUID = item["id"]
    return id_


# -- edits that survive -------------------------------------------------------------------------------------------------


def test_what_a_person_changed_stays_while_siorg_keeps_its_own(synced: World) -> None:
    synced.have(901)
    synced.edit(CODE, name="Nossa Secretaria", is_active=False, parent_id=synced.unit(901)["id"])
    for number in range(3):
        assert synced.sync_changed(CODE, sigla=f"S{number}")["status"] == "COMPLETED"
        unit = synced.unit(CODE)
        assert (unit["name"], unit["acronym"]) == ("Nossa Secretaria", f"S{number}")
        assert (unit["is_active"], unit["parent_code"]) == (False, 901)
        assert synced.history(CODE)[-1]["affected_fields"] == ["acronym"]


def test_both_changed_alike_is_no_conflict(synced: World) -> None:
    synced.edit(CODE, name="Secretaria Geral")
    assert synced.sync_changed(CODE, nome="Secretaria Geral")["status"] == "COMPLETED"
    assert len(synced.history(CODE)) == 1
    # And from here on that name is the base.
    synced.sync_changed(CODE, nome="Secretaria Nova")
    assert synced.unit(CODE)["name"] == "Secretaria Nova"


@pytest.mark.parametrize(
    "edited", [{"phones": ["(65) 9999"]}, {"emails": ["eu@ufmt.br"]}, {"websites": ["https://b.ufmt.br"]}, {"address": "Bloco 3"}]
)
def test_each_kind_of_contact_merges_by_itself(synced: World, edited: dict[str, Any]) -> None:
    synced.edit_contact(CODE, **edited)
    said = {"phones": ["(65) 2222"]} if "phones" not in edited else {"emails": ["b@ufmt.br"]}
    changed = contact(**{"phones": _PHONES, "emails": _EMAILS, "sites": _SITES, **said})
    assert synced.sync_changed(CODE, **changed)["status"] == "COMPLETED"
    before = {"phones": _PHONES, "emails": _EMAILS, "websites": _SITES, "address": None}
    assert synced.unit(CODE)["contact_info"] == {**before, **said, **edited}


def test_area_acronym_type_and_category_merge_by_themselves(synced: World) -> None:
    synced.siorg.tables[DomainTable.UNIT_CATEGORY] = [
        {"codigoCategoriaUnidade": 6, "descricaoCategoriaUnidade": "Comissão", "ativo": "SIM"},
        {"codigoCategoriaUnidade": 7, "descricaoCategoriaUnidade": "Comitê", "ativo": "SIM"},
    ]
    synced.sync_changed(CODE, codigoCategoriaUnidade="https://x/id/categoria-unidade/6")
    assert synced.unit(CODE)["category_name"] == "Comissão"
    synced.edit(CODE, acronym="NOSSA", activity_area="CORE")
    item = synced.sync_changed(
        CODE,
        codigoCategoriaUnidade="https://x/id/categoria-unidade/7",
        codigoTipoUnidade="https://x/id/tipo-unidade/unidade-colegiada",
    )
    assert item["status"] == "COMPLETED"
    unit = synced.unit(CODE)
    assert (unit["acronym"], unit["activity_area"]) == ("NOSSA", "CORE")
    assert (unit["category_name"], unit["type_slug"]) == ("Comitê", "unidade-colegiada")
    assert synced.history(CODE)[-1]["affected_fields"] == ["category", "unit_type"]


# -- what is no edit, and what erases nothing ---------------------------------------------------------------------------


def test_null_blank_empty_and_absent_erase_nothing(synced: World) -> None:
    synced.sync(CODE)
    before = synced.unit(CODE)
    keys = ("sigla", "areaAtuacao", "codigoCategoriaUnidade", "contato", "endereco")
    rows = [dict.fromkeys(keys, nothing) for nothing in (None, "", "  ")]
    rows.append({key: [] if key in ("contato", "endereco") else None for key in keys})
    for row in [*({**synced.siorg.rows[CODE], **row} for row in rows), {"codigoUnidade": unit_uri(CODE), "nome": "Secretaria"}]:
        synced.siorg.rows[CODE] = row
        assert synced.sync(CODE)["status"] == "COMPLETED", row
        after = synced.unit(CODE)
        for key in before.keys() - {"siorg_synced_at", "siorg_base", "updated_at"}:
            assert after[key] == before[key], (key, row)
    assert len(synced.history(CODE)) == 1


def test_values_that_stand_for_siorgs_silence_are_no_edits(synced: World) -> None:
    synced.have(siorg_row(902, None, areaAtuacao=None, codigoCategoriaUnidade=None))
    synced.siorg.tables[DomainTable.UNIT_CATEGORY] = [
        {"codigoCategoriaUnidade": 6, "descricaoCategoriaUnidade": "Comissão", "ativo": "SIM"}
    ]
    said = {"parent": CODE, "areaAtuacao": "FIM", "codigoCategoriaUnidade": 6, **contact(phones=["3"])}
    assert synced.sync_changed(902, **said)["status"] == "COMPLETED"
    unit = synced.unit(902)
    assert (unit["parent_code"], unit["activity_area"], unit["category_code"]) == (CODE, "CORE", 6)
    assert unit["contact_info"]["phones"] == ["3"]


def test_the_payload_of_the_producer_is_not_applied_and_error_details_of_another_kind_are_no_decision(synced: World) -> None:
    payload = {"codigoUnidade": CODE, "nome": "De ontem"}
    assert synced.sync(CODE, payload=payload, error_details=Jsonb(["resolution"]))["status"] == "COMPLETED"
    assert synced.unit(CODE)["name"] == "Secretaria"


def test_a_category_of_a_persons_own_is_an_edit_although_siorg_knows_none(synced: World) -> None:
    (own,) = synced.rows("INSERT INTO organizational_unit_categories (name) VALUES ('Nossa') RETURNING id")
    synced.edit(CODE, category_id=own["id"])
    synced.siorg.tables[DomainTable.UNIT_CATEGORY] = [
        {"codigoCategoriaUnidade": 6, "descricaoCategoriaUnidade": "Comissão", "ativo": "SIM"}
    ]
    assert synced.sync_changed(CODE, sigla="S1")["status"] == "COMPLETED"
    item = synced.sync_changed(CODE, codigoCategoriaUnidade=6)
    assert item["detected_changes"] == {"category": {"base": None, "local": f"local:{own['id']}", "remote": 6}}
    synced.resolve_by_command(item["id"], "--accept-siorg")
    synced.drain()
    assert synced.unit(CODE)["category_name"] == "Comissão"
    assert synced.history(CODE)[-1]["previous_data"]["category"] == f"local:{own['id']}"


# -- conflicts and decisions --------------------------------------------------------------------------------------------


def test_both_changed_is_a_conflict_that_names_the_three_sides_and_applies_nothing(synced: World) -> None:
    synced.edit(CODE, name="Nossa Secretaria")
    synced.edit_contact(CODE, phones=["9"])
    before = synced.unit(CODE)
    more = {"sigla": "SG", "areaAtuacao": "FIM", "versaoConsulta": "100.0.0", **contact(phones=["2"], emails=["b@ufmt.br"])}
    item = synced.sync_changed(CODE, nome="Secretaria Geral", **more)
    assert item["detected_changes"] == {
        "name": {"base": "Secretaria", "local": "Nossa Secretaria", "remote": "Secretaria Geral"},
        "contact_info.phones": {"base": _PHONES, "local": ["9"], "remote": ["2"]},
    }
    assert "contact_info.phones, name" in item["last_error"]
    assert synced.unit(CODE) == before
    assert len(synced.history(CODE)) == 1


def test_accept_siorg_erases_nothing_that_siorg_does_not_say(synced: World) -> None:
    id_ = _conflict(synced)
    synced.siorg.change(CODE, contato=None, sigla=None)
    synced.decide(id_, "ACCEPT_SIORG")
    unit = synced.unit(CODE)
    assert (unit["acronym"], unit["contact_info"]["phones"]) == ("SEC", _PHONES)


# Each way of deciding, with the name, acronym and area that it leaves. The name was in dispute; the acronym was changed by SIORG
# alone, and the area by a person alone. Words are those of the command; a mapping is what the API server writes, ``copy`` its
# copy of the item's SIORG row.
_NOT_ASKED = ("SG", "CORE")
_DECISIONS: tuple[tuple[str | dict[str, Any], str, str, str], ...] = (
    ("--accept-siorg", "Secretaria Geral", *_NOT_ASKED),
    ("--keep-local", "Nossa Secretaria", *_NOT_ASKED),
    ("--set name=Mista", "Mista", *_NOT_ASKED),
    ("--set name=LOCAL", "Nossa Secretaria", *_NOT_ASKED),
    ("--set name=Mista --set acronym=SM", "Mista", "SM", "CORE"),
    ("--set name=SIORG --set acronym=LOCAL --set activity_area=SIORG", "Secretaria Geral", "SEC", "SUPPORT"),
    ({"resolution": "ACCEPT_SIORG"}, "Secretaria Geral", *_NOT_ASKED),
    ({"merged_payload": {"name": "Mista"}}, "Mista", *_NOT_ASKED),
    ({"merged_payload": {}, "field_resolutions": {"name": "LOCAL"}}, "Nossa Secretaria", *_NOT_ASKED),
    ({"field_resolutions": {"name": "local"}}, "Nossa Secretaria", *_NOT_ASKED),
    ({"field_resolutions": {"formal_name": "LOCAL", "name": "SIORG"}}, "Secretaria Geral", *_NOT_ASKED),  # a column of ours
    ({"copy": {}, "field_resolutions": {"name": "LOCAL"}}, "Nossa Secretaria", *_NOT_ASKED),
    ({"copy": {}, "field_resolutions": {"name": "SIORG", "parent": "SIORG"}}, "Secretaria Geral", *_NOT_ASKED),
    ({"copy": {}, "field_resolutions": {"acronym": "LOCAL"}}, "Secretaria Geral", "SEC", "CORE"),
    ({"copy": {}, "field_resolutions": {"nome": "LOCAL", "sigla": "LOCAL"}}, "Nossa Secretaria", "SEC", "CORE"),
    ({"copy": {}, "field_resolutions": {"nome": "LOCAL", "areaAtuacao": "SIORG"}}, "Nossa Secretaria", "SG", "SUPPORT"),
    (
        {"copy": {}, "field_resolutions": {"name": "LOCAL", "category_id": "LOCAL", "contact_info": "LOCAL"}},
        "Nossa Secretaria", *_NOT_ASKED,
    ),
    ({"copy": {}, "field_resolutions": {}}, "Secretaria Geral", *_NOT_ASKED),
    ({"copy": {"nome": " Mista  "}}, "Mista", *_NOT_ASKED),
    ({"copy": {"nome": "Mista", "sigla": "SM"}}, "Mista", *_NOT_ASKED),
    ({"copy": {"nome": "Mista", "sigla": "SM"}, "field_resolutions": {"acronym": "MERGED"}}, "Mista", "SM", "CORE"),
    ({"copy": {"nome": "Mista", "name": "A outra"}}, "A outra", *_NOT_ASKED),
)  # fmt: skip


@pytest.mark.parametrize(("decision", "name", "acronym", "area"), _DECISIONS)
def test_a_decision_is_about_what_was_asked_and_the_next_sync_is_quiet(
    synced: World, decision: str | dict[str, Any], name: str, acronym: str, area: str
) -> None:
    synced.edit(CODE, activity_area="CORE")
    synced.edit(CODE, name="Nossa Secretaria")
    synced.siorg.change(CODE, nome="Secretaria Geral", sigla="SG", versaoConsulta="100.0.0")
    item = synced.sync(CODE, payload=synced.siorg.rows[CODE])
    assert list(item["detected_changes"]) == ["name"]
    if isinstance(decision, str):
        synced.resolve_by_command(item["id"], *decision.split())
    else:
        details = {"resolution": "MERGE", **decision}
        if "copy" in details:
            details["merged_payload"] = {**synced.siorg.rows[CODE], **details.pop("copy")}
        synced.resolve(item["id"], **details)
    synced.connection.execute("UPDATE siorg_sync_queue SET attempts = 3")  # a decision counts with no attempts left
    synced.drain()
    item = synced.item(item["id"])
    assert item["status"] == "COMPLETED", item["last_error"]
    entries = synced.history(CODE)
    for _ in range(2):
        unit = synced.unit(CODE)
        assert (unit["name"], unit["acronym"], unit["activity_area"]) == (name, acronym, area)
        assert unit["siorg_last_version"] == "100.0.0"
        assert synced.sync(CODE)["status"] == "COMPLETED"
        assert synced.history(CODE) == entries
    # And what SIORG says next is no more than usual: a person's own value asks, SIORG's moves on.
    item = synced.sync_changed(CODE, nome="Secretaria Nova")
    assert item["status"] == ("COMPLETED" if name == "Secretaria Geral" else "CONFLICT")


@pytest.mark.parametrize(
    ("choice", "status", "name"),
    [
        ("SIORG", "COMPLETED", "Secretaria Nova"),
        ("LOCAL", "CONFLICT", "Nossa Secretaria"),
        ("Mista", "CONFLICT", "Nossa Secretaria"),
    ],
)
def test_a_decision_that_siorg_has_overtaken_takes_its_value_of_now_or_is_asked_again(
    synced: World, choice: str, status: str, name: str
) -> None:
    """Who chose SIORG's value takes what SIORG says now; who turned one down has turned down no other."""
    synced.edit(CODE, name="Nossa Secretaria")
    copy = {"nome": "Secretaria Geral", "sigla": "SG"}
    item = synced.sync_changed(CODE, **copy)
    synced.siorg.change(CODE, nome="Secretaria Nova", sigla="SN")
    if choice == "Mista":
        synced.resolve(item["id"], "MERGE", merged_payload={**copy, "nome": choice})
    else:
        synced.resolve(item["id"], "MERGE", merged_payload=copy, field_resolutions={"name": choice})
    synced.drain()
    item, unit = synced.item(item["id"]), synced.unit(CODE)
    assert (item["status"], unit["name"]) == (status, name)
    if status == "CONFLICT":
        assert item["detected_changes"]["name"]["remote"] == "Secretaria Nova"
        synced.resolve_by_command(item["id"], "--keep-local")
        synced.drain()
    assert (synced.unit(CODE)["name"], synced.unit(CODE)["acronym"]) == (name, "SN")


def test_merge_writes_every_kind_of_field(synced: World) -> None:
    synced.have(901)
    merged = {
        "name": "Mista", "acronym": None, "parent": 901, "activity_area": "CORE", "unit_type": "unidade-colegiada",
        "contact_info": {"phones": ["9"], "emails": [], "address": "Rua B"}, "is_active": False,
    }  # fmt: skip
    item = synced.decide(_conflict(synced), "MERGE", merged_payload=merged)
    assert item["status"] == "COMPLETED", item["last_error"]
    unit = synced.unit(CODE)
    assert (unit["name"], unit["acronym"], unit["parent_code"]) == ("Mista", None, 901)
    assert (unit["activity_area"], unit["type_slug"], unit["is_active"]) == ("CORE", "unidade-colegiada", False)
    assert unit["contact_info"] == {"phones": ["9"], "emails": [], "websites": _SITES, "address": "Rua B"}


def test_a_copy_in_siorgs_words_may_name_a_parent_that_nothing_else_is_about(synced: World) -> None:
    synced.have(901)
    copy = synced.siorg.rows[CODE] | {"codigoUnidadePai": re.sub(r"\d+$", "901", synced.siorg.rows[CODE]["codigoUnidadePai"])}
    item = synced.decide(_conflict(synced), "MERGE", merged_payload=copy, field_resolutions={"parent": "MERGED"})
    assert item["status"] == "COMPLETED", item["last_error"]
    assert synced.unit(CODE)["parent_code"] == 901


_UNUSABLE: tuple[tuple[object, dict[str, Any], str], ...] = (
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
    ("MERGE", {"field_resolutions": {"acronym": "KEEP_LOCAL"}}, "LOCAL, SIORG"),
    ("MERGE", {"field_resolutions": {"formal_name": "SIORG"}}, "'formal_name'"),
    ("MERGE", {"merged_payload": {"name": "X", "parent": 999999}}, "999999"),
    ("MERGE", {"merged_payload": {"name": "X", "parent": CODE}}, "its own ancestor"),
    ("MERGE", {"merged_payload": {"name": "X", "organization": 12345}}, "12345"),
)


def test_a_decision_that_cannot_be_used_is_asked_again_with_the_differences_and_names_the_field(synced: World) -> None:
    id_ = _conflict(synced)
    before, found = synced.unit(CODE), synced.item(id_)["detected_changes"]
    for resolution, details, named in _UNUSABLE:
        item = synced.decide(id_, resolution, **details)
        assert (item["status"], item["detected_changes"], synced.unit(CODE)) == ("CONFLICT", found, before), details
        assert (item["error_details"]["kind"], "resolution" in item["error_details"]) == ("invalid_resolution", False)
        assert named in item["last_error"]
    synced.decide(id_, "ACCEPT_SIORG")
    assert synced.unit(CODE)["name"] == "Secretaria Geral"


def test_a_merge_that_leaves_a_field_open_is_asked_again_with_all_that_is_in_dispute(synced: World) -> None:
    synced.edit(CODE, acronym="NOSSA")
    item = synced.decide(_conflict(synced), "MERGE", merged_payload={"name": "Secretaria Mista"})
    assert (item["status"], sorted(item["detected_changes"])) == ("CONFLICT", ["acronym", "name"])
    assert "resolution" not in item["error_details"]
    assert synced.unit(CODE)["name"] == "Nossa Secretaria"
