"""What is done when the stored time of the last sync is later than the answer at hand, or later than now."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from siorg_job.siorg.model import DomainTable
from siorg_job.sync.model import Fetched
from support.local_structure import UFMT, World, siorg_row

CODE = 900
_TABLES = ("organizational_units", "organizations", "organizational_unit_categories")


@pytest.fixture
def synced(world: World) -> World:
    world.siorg.tables[DomainTable.UNIT_CATEGORY] = [_category("Comissão")]
    world.have(siorg_row(CODE, nome="Secretaria"))
    world.sync(UFMT, entity="ORGANIZATION")
    world.sync(6, entity="CATEGORY", operation="CREATION")
    return world


def _category(name: str) -> dict[str, Any]:
    return {"codigoCategoriaUnidade": 6, "descricaoCategoriaUnidade": name, "ativo": "SIM"}


def _stamp(world: World, expression: str) -> None:
    for table in _TABLES:
        world.connection.execute(f"UPDATE {table} SET siorg_synced_at = {expression} WHERE siorg_synced_at IS NOT NULL")


def test_a_time_in_the_future_loses_no_change_and_no_edit(synced: World) -> None:
    synced.edit(CODE, name="Nossa Secretaria")
    _stamp(synced, "now() + interval '1 year'")
    synced.siorg.tables[DomainTable.UNIT_CATEGORY] = [_category("Comitê")]
    assert synced.sync_changed(CODE, sigla="SG")["status"] == "COMPLETED"
    synced.sync_changed(UFMT, sigla="UF", entity="ORGANIZATION")
    synced.sync(6, entity="CATEGORY")
    assert (synced.unit(CODE)["name"], synced.unit(CODE)["acronym"]) == ("Nossa Secretaria", "SG")
    assert synced.organization()["acronym"] == "UF"
    assert synced.rows("SELECT name FROM organizational_unit_categories WHERE siorg_code = 6") == [{"name": "Comitê"}]
    for table in _TABLES:
        assert synced.rows(f"SELECT siorg_code FROM {table} WHERE siorg_synced_at > now()") == []


@pytest.mark.parametrize("entity", ["UNIT", "ORGANIZATION", "CATEGORY"])
def test_in_the_hour_that_comes_twice_the_later_answer_is_the_newer_one(synced: World, entity: str) -> None:
    # In São Paulo it was a quarter to midnight, and 45 minutes later half past eleven.
    synced.connection.execute("SET TIME ZONE 'America/Sao_Paulo'")
    _stamp(synced, "'2018-02-18 01:45:00Z'")
    (later,) = synced.rows("SELECT timestamptz '2018-02-18 02:30:00Z' AS at")
    synced.siorg.change(CODE, nome="Nova")
    synced.siorg.change(UFMT, nome="Nova")
    synced.siorg.tables[DomainTable.UNIT_CATEGORY] = [_category("Nova")]
    code = {"UNIT": CODE, "ORGANIZATION": UFMT, "CATEGORY": 6}[entity]
    (id_,) = synced.enqueue(code, created_at=later["at"], needed_at=later["at"], entity=entity)
    works = [(item, replace(found, asked_at=later["at"])) for item, found in synced.fetched() if isinstance(found, Fetched)]
    synced.apply(works)
    assert synced.item(id_)["status"] == "COMPLETED"
    names = {
        "UNIT": synced.unit(CODE)["name"], "ORGANIZATION": synced.organization()["name"],
        "CATEGORY": synced.rows("SELECT name FROM organizational_unit_categories WHERE siorg_code = 6")[0]["name"],
    }  # fmt: skip
    assert names[entity] == "Nova"


def test_an_end_is_believed_although_the_stored_time_is_in_the_future(synced: World) -> None:
    _stamp(synced, "now() + interval '1 year'")
    synced.siorg.remove(CODE)
    assert synced.sync(CODE, operation="EXTINCTION")["status"] == "COMPLETED"
    assert not synced.unit(CODE)["is_active"]


@pytest.mark.parametrize("entity", ["UNIT", "ORGANIZATION", "CATEGORY"])
@pytest.mark.parametrize(
    ("operation", "decision"),
    [("EXTINCTION", None), ("MERGE", None), ("SPLIT", None), ("UPDATE", "ACCEPT_SIORG")],
)
def test_what_a_newer_answer_does_not_settle_is_asked_again_at_once_for_a_younger_one(
    synced: World, entity: str, operation: str, decision: str | None
) -> None:
    code = {"UNIT": CODE, "ORGANIZATION": UFMT, "CATEGORY": 6}[entity]
    (id_,) = synced.enqueue(code, entity=entity, operation=operation)
    if decision is not None:
        synced.resolve(id_, decision)
    works = synced.fetched()
    _stamp(synced, "clock_timestamp()")
    synced.apply(works)
    item = synced.item(id_)
    assert (item["status"], item["attempts"]) == ("PENDING", 0)
    (again,) = synced.claim()
    assert again.needed_at > max(result.asked_at for _, result in works if isinstance(result, Fetched))
    if decision is not None:
        assert item["error_details"]["resolution"] == decision
