"""Rows that people made before SIORG was ever asked: the first sync overwrites them, for review, and can be taken back."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from psycopg.types.json import Jsonb

from siorg_job.siorg.model import DomainTable
from support.local_structure import ANOTHER, UFMT, World, contact, siorg_row

CODE, PARENT = 900, 901
_CONTACT = {"phones": ["(65) 1"], "emails": ["nosso@ufmt.br"], "websites": ["https://nosso.ufmt.br"], "address": "Bloco 3"}
_MADE = """
WITH c AS (INSERT INTO organizational_unit_categories (name) VALUES ('Local') RETURNING id),
     t AS (INSERT INTO organizational_unit_types (code, name) VALUES ('local', 'Local') RETURNING id)
INSERT INTO organizational_units
    (organization_id, parent_id, category_id, unit_type_id, name, acronym, siorg_code, activity_area, contact_info, is_active)
SELECT o.id, p.id, c.id, t.id, 'Feita à mão', 'FM', %s, 'CORE', %s, %s
FROM c, t, organizations AS o, organizational_units AS p WHERE o.siorg_code = 500 AND p.siorg_code = 950
RETURNING id
"""


@pytest.fixture
def world(world: World) -> World:
    """With a second organization, of which a unit is here."""
    world.register(ANOTHER)
    world.have(siorg_row(950, ANOTHER, organization=ANOTHER))
    world.siorg.tables[DomainTable.UNIT_CATEGORY] = [
        {"codigoCategoriaUnidade": 6, "descricaoCategoriaUnidade": "Comissão", "ativo": "SIM"}
    ]
    return world


def _made_by_hand(world: World, code: int | None, *, is_active: bool) -> UUID:
    (row,) = world.rows(_MADE, code, Jsonb(_CONTACT), is_active)
    if code is None:
        mapping = "INSERT INTO siorg_mappings (entity_type, local_id, siorg_code) VALUES ('UNIT', %s, %s)"
        world.connection.execute(mapping, [row["id"], CODE])
    id_: UUID = row["id"]
    return id_


_SEEN = (
    "organization_id", "parent_id", "category_id", "unit_type_id", "name", "acronym", "activity_area", "contact_info",
    "is_active", "level", "path_ids", "path_names",
)  # fmt: skip


def _seen(world: World, table: str, id_: UUID, columns: tuple[str, ...] = _SEEN) -> dict[str, Any]:
    (row,) = world.rows(f"SELECT * FROM {table} WHERE id = %s", id_)
    return {column: row[column] for column in columns}


def _take_back(world: World, entry: dict[str, Any]) -> None:
    """What a person does who has nothing but the history row."""
    was = entry["previous_data"]

    def id_of(table: str, key: str, value: Any) -> Any:
        if isinstance(value, str) and value.startswith("local:"):
            return value.removeprefix("local:")
        return world.rows(f"SELECT id FROM {table} WHERE {key} = %s", value)[0]["id"]

    directly = was["parent"] == was["organization"]
    world.connection.execute(
        "UPDATE organizational_units SET name = %(name)s, acronym = %(acronym)s, activity_area = %(activity_area)s,"
        " is_active = %(is_active)s, organization_id = %(organization_id)s, parent_id = %(parent_id)s,"
        " category_id = %(category_id)s, unit_type_id = %(unit_type_id)s, contact_info = %(contact_info)s WHERE id = %(id)s",
        {
            **was,
            "organization_id": id_of("organizations", "siorg_code", was["organization"]),
            "parent_id": None if directly else id_of("organizational_units", "siorg_code", was["parent"]),
            "category_id": id_of("organizational_unit_categories", "siorg_code", was["category"]),
            "unit_type_id": id_of("organizational_unit_types", "code", was["unit_type"]),
            "contact_info": Jsonb({kind: was[f"contact_info.{kind}"] for kind in _CONTACT}),
            "id": entry["local_id"],
        },
    )


@pytest.mark.parametrize("is_active", [True, False])
@pytest.mark.parametrize("code", [CODE, None], ids=["with a code", "mapped"])
def test_an_overwritten_unit_is_for_review_and_its_history_row_suffices_to_take_it_back(
    world: World, code: int | None, is_active: bool
) -> None:
    id_ = _made_by_hand(world, code, is_active=is_active)
    before = _seen(world, "organizational_units", id_)
    said = contact(phones=["2"], emails=["b@ufmt.br"], sites=["https://b.ufmt.br"])
    row = {"nome": "Secretaria", "sigla": "SEC", "areaAtuacao": "MEIO", "codigoCategoriaUnidade": 6, **said}
    world.siorg.publish(siorg_row(PARENT), siorg_row(CODE, PARENT, endereco=[{"logradouro": "Rua A"}], **row))
    assert world.sync(CODE)["status"] == "COMPLETED"
    after = _seen(world, "organizational_units", id_)
    assert [column for column in _SEEN if before[column] == after[column]] == (["is_active", "level"] if is_active else ["level"])
    (entry,) = world.history(CODE)
    assert (entry["requires_review"], entry["local_id"]) == (True, id_)
    _take_back(world, entry)
    world.connection.execute("SELECT fn_update_descendant_paths(%s)", [id_])
    assert _seen(world, "organizational_units", id_) == before


def test_an_overwritten_organization_is_for_review_with_all_that_was_there(world: World) -> None:
    by_hand = {"name": "Nossa", "acronym": "NOS", "address": "Rua A", "state": "SP", "zip_code": "01000-000", "phone": "1",
               "email": "a@b.br", "website": "https://a.br"}  # fmt: skip
    world.edit_organization(UFMT, **by_hand)
    address = {"logradouro": "Rua B", "uf": "MT", "cep": "78000000"}
    said = contact(phones=["2"], emails=["b@ufmt.br"], sites=["https://b.br"])
    world.sync_changed(UFMT, entity="ORGANIZATION", endereco=[address], **said)
    assert not by_hand.items() & world.organization().items()
    (entry,) = world.history(UFMT, "ORGANIZATION")
    assert entry["requires_review"]
    assert by_hand.items() <= entry["previous_data"].items()


def test_what_a_person_typed_as_siorg_has_it_is_no_overwrite(world: World) -> None:
    """A row that is SIORG's already is noted, and nobody is asked to look at it."""
    world.have(CODE)
    world.connection.execute(
        "UPDATE organizational_units SET siorg_synced_at = NULL, siorg_raw_data = NULL, siorg_base = NULL WHERE siorg_code = %s",
        [CODE],
    )
    told = world.history(CODE)
    assert world.sync(CODE)["status"] == "COMPLETED"
    assert world.history(CODE) == told
    assert world.unit(CODE)["siorg_synced_at"] is not None
