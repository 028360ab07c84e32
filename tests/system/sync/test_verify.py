"""Verification: the rows here beside SIORG's; each difference has one kind, and what has none is drift."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from siorg_job.reconciliation.discover import discover, registered
from siorg_job.reconciliation.verify import Subject, Verified, verify
from siorg_job.siorg.errors import NotAnOrganization, NotFound
from siorg_job.siorg.model import DomainTable
from siorg_queue import EntityType, NewItem, Operation
from support.local_structure import ANOTHER, UFMT, World, siorg_row


def _verified(world: World, subject: Subject = UFMT, *, enqueue: bool = False) -> Verified:
    return asyncio.run(verify(subject, cast("Any", world.siorg), world.connection, world.store if enqueue else None))


def _kinds(world: World) -> set[tuple[int, str, str]]:
    return {(each.code, each.field, each.kind.value) for each in _verified(world).departures}


@pytest.fixture
def world(world: World) -> World:
    """With the organization and two units, in line."""
    world.sync(UFMT, entity="ORGANIZATION")
    world.have_line(900, 901)
    return world


def test_what_is_in_line_has_no_departure(world: World) -> None:
    found = _verified(world)
    assert (found.rows, list(found.departures)) == (3, [])


def test_drift_is_named_with_both_values_and_queued_it_is_mended(world: World) -> None:
    world.siorg.change(900, nome="Nova", sigla="N")
    world.siorg.publish(siorg_row(910))
    world.siorg.remove(901)
    found = _verified(world)
    assert {(each.code, each.field, each.local, each.remote) for each in found.drift} == {
        (900, "name", "Unidade 900", "Nova"), (900, "acronym", "U900", "N"), (910, "*", None, "Unidade 910"),
        (901, "is_active", True, False),
    }  # fmt: skip
    for _ in range(2):  # twice adds nothing
        _verified(world, enqueue=True)
    assert {(code, kind) for code, _, kind in _kinds(world)} == {(900, "waiting"), (910, "waiting"), (901, "waiting")}
    world.drain()
    assert _kinds(world) == set()


def test_each_departure_has_the_first_kind_that_applies(world: World) -> None:
    world.register(ANOTHER)
    world.have(*range(902, 910))
    world.siorg.publish(siorg_row(950, ANOTHER, organization=ANOTHER))
    world.edit(902, name="Minha")
    world.edit(903, name="Minha")
    world.sync_changed(903, nome="Nova")
    world.edit(904, name="Minha")
    item = world.sync_changed(904, nome="Nova")
    world.decisions.skip_conflict(item["id"])
    world.siorg.change(905, sigla="X" * 51)
    world.sync(905)
    world.sync_changed(907, parent=950)
    world.sync_changed(908, organization=423, parent=423)
    world.sync_changed(909, parent=999)
    world.siorg.change(906, nome="Nova")
    world.enqueue(906)
    assert _kinds(world) == {
        (902, "name", "edited"), (903, "name", "conflict"), (904, "name", "conflict"), (905, "*", "failed"),
        (906, "name", "waiting"), (907, "parent", "outside"), (908, "is_active", "outside"), (909, "parent", "failed"),
    }  # fmt: skip


def test_what_was_touched_meanwhile_is_looked_at_again(world: World) -> None:
    world.siorg.change(901, nome="Nova")
    structure = world.siorg.structure

    async def and_then_both_change(organization: int) -> Any:
        answer = await structure(organization)
        world.siorg.change(901, nome="Ainda mais nova")
        world.edit(901, name="Ainda mais nova")
        return answer

    world.siorg.structure = and_then_both_change  # type: ignore[method-assign]
    assert _kinds(world) == set()


def test_a_row_that_is_missing_below_one_that_failed_is_failed_naming_it(world: World) -> None:
    world.siorg.publish(siorg_row(910, sigla="X" * 51), siorg_row(911, 910))
    world.enqueue(910, 911)
    world.drain()
    reasons = {each.code: each.reason for each in _verified(world).departures if each.field == "*" and each.kind == "failed"}
    assert reasons.keys() == {910, 911}
    assert reasons[911].startswith("its parent 910: ")


def test_what_a_person_renames_or_moves_by_sql_leaves_paths_below_that_are_drift_and_mended(world: World) -> None:
    """Also that of a row which no item is about, and although the row that showed it waits for a decision about a name."""
    world.have(902, 903)
    world.have_line(910, 911, 912)
    world.have(siorg_row(920, 910))
    world.siorg.remove(920)
    world.sync(920, operation="EXTINCTION")
    world.edit(911, name="Minha")
    world.sync_changed(911, nome="Nova")
    world.edit(910, name="Outra", parent_id=world.unit(902)["id"])
    world.edit(900, name="Também outra")
    found = _verified(world)
    assert {(each.code, each.field, each.kind.value) for each in found.departures} == {
        (900, "name", "edited"), (910, "name", "edited"), (910, "parent", "edited"), (911, "name", "conflict"),
        (901, "path_names", "drift"), (911, "level", "drift"), (911, "path_ids", "drift"), (911, "path_names", "drift"),
        (912, "path_names", "drift"),
    }  # fmt: skip
    names = next(each for each in found.drift if (each.code, each.field) == (901, "path_names"))
    prefix = world.organization()["name"]
    assert (names.local, names.remote) == (f"{prefix} > Unidade 900 > Unidade 901", f"{prefix} > Também outra > Unidade 901")
    before = len(world.history(911)) + len(world.history(901))
    assert _verified(world, enqueue=True).enqueued == 3
    world.drain()
    assert _verified(world).drift == []
    assert len(world.history(911)) + len(world.history(901)) == before
    assert world.unit(920)["path_names"].split(" > ")[1:] == ["Unidade 902", "Outra", "Unidade 920"]


def test_an_organization_that_is_renamed_by_sql_leaves_paths_that_are_mended(world: World) -> None:
    world.edit_organization(name="Minha Universidade")
    assert {(each.code, each.field) for each in _verified(world, enqueue=True).drift} == {(900, "path_names")}
    world.drain()
    assert world.unit(901)["path_names"] == "Minha Universidade > Unidade 900 > Unidade 901"


def test_a_version_that_moved_alone_is_drift_and_mended_without_history(world: World) -> None:
    world.edit(901, name="Minha")
    for code in (900, 901):
        world.siorg.change(code, versaoConsulta="98.0.0")  # they go back in real reforms
    expected = {(900, "siorg_last_version", "drift"), (901, "siorg_last_version", "drift"), (901, "name", "edited")}
    assert _kinds(world) == expected
    before = world.history(900), world.history(901)
    _verified(world, enqueue=True)
    world.drain()
    assert _kinds(world) == {(901, "name", "edited")}
    assert (world.history(900), world.history(901)) == before


def test_in_strict_mode_a_move_is_a_conflict_and_the_rest_of_the_row_waits_with_it(world: World) -> None:
    world.have(902)
    world.setting("siorg.hierarchy_strict_mode", value=True)
    world.sync_changed(901, parent=902, nome="Nova")
    assert _kinds(world) == {(901, "parent", "conflict"), (901, "name", "conflict")}


def test_silence_units_without_a_code_and_those_of_inactive_organizations_are_not_compared(world: World) -> None:
    world.have(902)
    world.siorg.change(902, sigla=None, versaoConsulta=None)
    world.connection.execute(
        "INSERT INTO organizational_units (organization_id, category_id, unit_type_id, name, activity_area)"
        " SELECT organization_id, category_id, unit_type_id, 'Nossa', 'SUPPORT' FROM organizational_units LIMIT 1"
    )
    world.register(ANOTHER)
    world.have(siorg_row(950, ANOTHER, organization=ANOTHER))
    world.connection.execute("UPDATE organizations SET is_active = false WHERE siorg_code = %s", [ANOTHER])
    world.siorg.change(950, nome="Nova")
    assert _kinds(world) == set()


def test_a_unit_that_came_after_the_structure_was_asked_for_is_not_missing(world: World) -> None:
    structure = world.siorg.structure

    async def before_it_came(organization: int) -> Any:
        answer = await structure(organization)
        del answer.units[901]
        return answer

    world.siorg.structure = before_it_came  # type: ignore[method-assign]
    assert _kinds(world) == set()


def test_one_that_was_touched_again_and_again_is_what_its_item_says(world: World) -> None:
    world.siorg.change(901, nome="Nova")
    structure = world.siorg.structure

    async def and_then_it_is_enqueued(organization: int) -> Any:
        answer = await structure(organization)
        world.enqueue(901)
        return answer

    world.siorg.structure = and_then_it_is_enqueued  # type: ignore[method-assign]
    assert _kinds(world) == {(901, "name", "waiting")}


@pytest.mark.parametrize("error", [NotFound, NotAnOrganization])
def test_what_ended_with_its_organization_is_ended_and_what_lives_on_elsewhere_has_moved(
    world: World, error: type[NotFound | NotAnOrganization]
) -> None:
    world.register(ANOTHER)
    world.have(902, 903)
    world.siorg.remove(900, 901, UFMT)
    world.siorg.change(902, organization=ANOTHER, parent=ANOTHER)
    world.siorg.change(903, organization=423, parent=423)

    async def refuse(organization: int) -> Any:
        raise error(f"{organization} is none", siorg_error=102)

    world.siorg.structure = world.siorg.version = refuse  # type: ignore[attr-defined,method-assign]
    found = _verified(world, enqueue=True)
    assert {(each.entity_type, each.code, each.field, each.kind.value) for each in found.departures} == {
        ("ORGANIZATION", UFMT, "is_active", "ended"), ("UNIT", 900, "is_active", "ended"), ("UNIT", 901, "is_active", "ended"),
        ("UNIT", 902, "organization", "drift"), ("UNIT", 903, "is_active", "drift"),
    }  # fmt: skip
    assert {row["siorg_code"] for row in world.rows("SELECT siorg_code FROM siorg_sync_queue WHERE status = 'PENDING'")} == {
        902,
        903,
    }


def test_departures_say_since_when(world: World) -> None:
    world.sync_changed(901, organization=423, parent=423)
    (gone,) = _verified(world).departures
    (_, end) = world.history(901)
    assert (gone.kind.value, gone.since) == ("outside", end["created_at"])
    world.siorg.change(900, nome="Nova")
    (item,) = world.enqueue(900)
    (waiting,) = (each for each in _verified(world).departures if each.code == 900)
    assert waiting.since == world.item(item)["created_at"]


def test_the_tables_are_verified_as_the_organizations_are(world: World) -> None:
    rows = [{"codigoCategoriaUnidade": code, "descricaoCategoriaUnidade": name} for code, name in ((6, "A"), (7, "B"), (8, "C"))]
    world.siorg.tables[DomainTable.UNIT_CATEGORY] = rows
    for code in (6, 7, 8):
        world.sync(code, entity="CATEGORY", operation="CREATION")
    assert (_verified(world, EntityType.CATEGORY).rows, _verified(world, EntityType.CATEGORY).departures) == (3, ())
    world.connection.execute("UPDATE organizational_unit_categories SET name = 'Minha' WHERE siorg_code = 6")
    rows[1]["descricaoCategoriaUnidade"] = "Nova"
    rows[2] = {"codigoCategoriaUnidade": 9, "descricaoCategoriaUnidade": "D"}
    found = _verified(world, EntityType.CATEGORY, enqueue=True)
    assert {(each.code, each.field, each.kind.value, each.local, each.remote) for each in found.departures} == {
        (6, "name", "edited", "Minha", "A"), (7, "name", "drift", "B", "Nova"), (8, "is_active", "drift", True, False),
        (9, "*", "drift", None, "D"),
    }  # fmt: skip
    assert (found.organization, found.enqueued) == (None, 3)
    world.drain()
    assert [each.kind.value for each in _verified(world, EntityType.CATEGORY).departures] == ["edited"]


def _have_another_with_units(world: World) -> None:
    world.register(ANOTHER)
    world.sync(ANOTHER, entity="ORGANIZATION")
    world.have(siorg_row(950, ANOTHER, organization=ANOTHER), siorg_row(951, 950, organization=ANOTHER))


def test_a_unit_that_a_person_brings_to_another_organization_is_edited_seen_from_both_and_nothing_is_queued(world: World) -> None:
    _have_another_with_units(world)
    world.edit(900, organization_id=world.organization(ANOTHER)["id"])
    for _ in range(2):
        _verified(world, enqueue=True)
        _verified(world, ANOTHER, enqueue=True)
        world.drain()
    there = {(each.code, each.field, each.kind.value) for each in _verified(world, ANOTHER, enqueue=True).departures}
    assert there == {(900, "organization", "edited")}
    assert _kinds(world) == {(900, "organization", "edited"), (901, "parent", "outside")}

    async def version(_: int) -> str:
        return "99.0.0"

    world.siorg.version = version  # type: ignore[attr-defined]
    for organization in registered(world.connection, None):
        assert asyncio.run(discover(organization, cast("Any", world.siorg), world.connection, world.store, full=True)).items == []


def test_below_a_parent_that_stays_here_although_siorg_has_it_elsewhere_a_unit_goes_to_the_top(world: World) -> None:
    """However few are asked for: the parent's row does not tell where SIORG has it."""
    world.siorg.change(900, organization=423, parent=423)
    world.store.hold(
        [NewItem(EntityType.UNIT, 900, Operation.EXTINCTION)], [{"is_active": {"base": True, "local": True, "remote": False}}],
        "beyond", asked_at=world.rows("SELECT clock_timestamp() AS now")[0]["now"],
    )  # fmt: skip
    world.sync(901)
    assert _kinds(world) == {(900, "is_active", "held"), (901, "parent", "outside")}
    assert world.unit(901)["parent_id"] is None


def test_the_end_of_a_parent_waits_only_for_units_that_are_below_it_here_too(world: World) -> None:
    world.siorg.remove(900)
    assert (900, "is_active", "failed") in _kinds(world)
    world.edit(901, parent_id=None)
    assert _verified(world, enqueue=True).enqueued == 1
    world.drain()
    assert _kinds(world) == {(901, "parent", "failed")}
    assert not world.unit(900)["is_active"]
