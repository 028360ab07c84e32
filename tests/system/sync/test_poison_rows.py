"""A row with a value that cannot be held here costs its own item at most: all others are worked on, and discovered."""

from __future__ import annotations

from uuid import UUID

import pytest

from siorg_job.siorg.model import DomainTable
from support.local_structure import UFMT, World, siorg_row

BAD, GOOD = 900, 901
_NUMBER = "('{\"versaoConsulta\": ' || repeat('9', 5000) || '}')::jsonb"
_DEEP = "(repeat('{\"a\":', 1500) || '1' || repeat('}', 1500))::jsonb"
_JSON = (_NUMBER, _DEEP)
_TIMES = ("'infinity'", "'-infinity'", "'10001-01-01'", "'294276-12-31'", "'0044-03-15 BC'", "'4713-01-01 BC'")
_DECIDED = '\'{"resolution": "ACCEPT_SIORG"}\''


def _poison(world: World, table: str, column: str, value: str, where: str) -> UUID:
    """Put an SQL expression into one row; returns its id."""
    sql = f"UPDATE {table} SET {column} = {value} WHERE {where} RETURNING id"
    (row,) = world.connection.execute(sql.encode()).fetchall()
    id_: UUID = row["id"]
    return id_


@pytest.fixture
def world(world: World) -> World:
    """Two units that SIORG has renamed, of which the one is going to be poisoned."""
    world.have(siorg_row(BAD), siorg_row(GOOD))
    for code in (BAD, GOOD):
        world.siorg.change(code, nome="Nova")
    return world


@pytest.mark.parametrize(
    ("column", "value", "also", "status"),
    [
        *[("payload", value, {}, "COMPLETED") for value in _JSON],
        *[("error_details", value, {}, "FAILED") for value in _JSON],
        *[("detected_changes", value, {}, "COMPLETED") for value in _JSON],
        *[("detected_changes", value, {"error_details": _DECIDED}, "FAILED") for value in _JSON],
        *[("created_at", value, {}, "COMPLETED") for value in _TIMES],
        *[("needed_at", value, {}, "COMPLETED") for value in _TIMES],
        *[("processed_at", value, {}, "COMPLETED") for value in _TIMES],
        *[("last_attempt_at", value, {}, "COMPLETED") for value in _TIMES],
        *[("scheduled_for", value, {}, "COMPLETED") for value in _TIMES if "-infinity" in value or "BC" in value],
        *[("expires_at", value, {}, "COMPLETED") for value in _TIMES if "-infinity" not in value and "BC" not in value],
        ("lease_token", "9223372036854775807", {}, "COMPLETED"),
        ("attempts", "-2147483648", {}, "COMPLETED"),
        ("failures", "2147483647", {}, "COMPLETED"),
    ],
)
def test_of_a_batch_a_poisoned_item_ends_alone(world: World, column: str, value: str, also: dict[str, str], status: str) -> None:
    bad, good = world.enqueue(BAD, GOOD)
    for name, other in {column: value, **also}.items():
        _poison(world, "siorg_sync_queue", name, other, f"id = '{bad}'")
    world.drain()
    ended = world.connection.execute("SELECT status, last_error FROM siorg_sync_queue WHERE id = %s", [bad]).fetchone()
    assert ended is not None
    assert (ended["status"], world.item(good)["status"]) == (status, "COMPLETED")
    if status == "FAILED":
        assert column in ended["last_error"]
        assert str(bad) in ended["last_error"]
    else:
        assert world.unit(BAD)["name"] == "Nova"
    assert world.unit(GOOD)["name"] == "Nova"


@pytest.mark.parametrize("attempts", ["-2147483648", "-5000"])
def test_a_row_with_nonsense_of_attempts_is_tried_again_with_a_pause_like_any(world: World, attempts: str) -> None:
    bad, good = world.enqueue(BAD, GOOD)
    _poison(world, "siorg_sync_queue", "attempts", attempts, f"id = '{bad}'")
    world.siorg.bodies = {BAD: b"{", GOOD: b"{"}
    world.apply(world.fetched())
    assert {world.item(id_)["status"] for id_ in (bad, good)} == {"PENDING"}


@pytest.mark.parametrize("column", ["siorg_raw_data", "siorg_base", "contact_info"])
@pytest.mark.parametrize("value", _JSON)
def test_a_poisoned_unit_fails_its_own_items_and_names_the_row(world: World, column: str, value: str) -> None:
    world.have(siorg_row(902, BAD), siorg_row(903, GOOD))
    world.siorg.change(902, nome="Abaixo")
    row = _poison(world, "organizational_units", column, value, f"siorg_code = {BAD}")
    as_it_is = "SELECT md5(u::text) FROM organizational_units AS u WHERE id = %s"
    before = world.rows(as_it_is, row)
    for operation in ("UPDATE", "EXTINCTION"):
        if operation == "EXTINCTION":
            world.siorg.remove(BAD)
        item, *_ = world.enqueue(BAD, operation=operation)
        good, *_ = world.enqueue(GOOD, 902)
        world.drain()
        ended = world.item(item)
        assert ended["status"] == "FAILED"
        assert f"{column} of organizational_units {row}" in ended["last_error"]
        assert world.item(good)["status"] == "COMPLETED"
        assert world.unit(902)["name"] == "Abaixo", world.items(902)
        assert world.rows(as_it_is, row) == before


@pytest.mark.parametrize("value", _JSON)
@pytest.mark.parametrize("column", ["siorg_raw_data", "siorg_base"])
def test_poisoned_organizations_and_categories_fail_their_own_items(world: World, column: str, value: str) -> None:
    world.siorg.tables[DomainTable.UNIT_CATEGORY] = [
        {"codigoCategoriaUnidade": 6, "descricaoCategoriaUnidade": "Comissão", "ativo": "SIM"}
    ]
    world.sync(6, entity="CATEGORY", operation="CREATION")
    organization = _poison(world, "organizations", column, value, f"siorg_code = {UFMT}")
    category = _poison(world, "organizational_unit_categories", column, value, "siorg_code = 6")
    (first,), (second,) = world.enqueue(UFMT, entity="ORGANIZATION"), world.enqueue(6, entity="CATEGORY")
    good, *_ = world.enqueue(GOOD)
    world.drain()
    for id_, named in ((first, f"organizations {organization}"), (second, f"organizational_unit_categories {category}")):
        assert world.item(id_)["status"] == "FAILED"
        assert f"{column} of {named}" in world.item(id_)["last_error"]
    assert (world.item(good)["status"], world.unit(GOOD)["name"]) == ("COMPLETED", "Nova")


@pytest.mark.parametrize("value", _TIMES)
def test_whatever_the_time_of_the_last_sync_what_siorg_says_is_applied(world: World, value: str) -> None:
    for table in ("organizational_units", "organizations", "organizational_unit_types", "organizational_unit_categories"):
        world.connection.execute(f"UPDATE {table} SET siorg_synced_at = {value}".encode())
    world.siorg.change(UFMT, sigla="UF")
    world.sync(BAD, GOOD)
    world.sync(UFMT, entity="ORGANIZATION")
    assert [world.unit(code)["name"] for code in (BAD, GOOD)] == ["Nova", "Nova"]
    assert world.organization()["acronym"] == "UF"


@pytest.mark.parametrize("status", ["COMPLETED", "CONFLICT"])
@pytest.mark.parametrize("value", _JSON)
def test_what_a_person_decided_or_is_asked_and_cannot_be_read_is_not_overwritten(world: World, status: str, value: str) -> None:
    asked, *_ = world.enqueue(BAD, status=status, held_at="now" if status == "CONFLICT" else None)
    _poison(world, "siorg_sync_queue", "detected_changes", value, f"id = '{asked}'")
    bad, good = world.enqueue(BAD, GOOD)
    world.drain()
    assert (world.item(bad)["status"], world.unit(BAD)["name"]) == ("FAILED", f"Unidade {BAD}")
    assert f"detected_changes of siorg_sync_queue {asked}" in world.item(bad)["last_error"]
    assert (world.item(good)["status"], world.unit(GOOD)["name"]) == ("COMPLETED", "Nova")


def test_a_level_at_the_end_of_its_range_is_mended(world: World) -> None:
    world.have(siorg_row(902, BAD), siorg_row(903, 902))
    world.edit(902, level=2**31 - 1)
    world.siorg.change(903, nome="Abaixo")
    world.sync(903, 902)
    assert (world.unit(903)["name"], world.unit(902)["level"], world.unit(903)["level"]) == ("Abaixo", 2, 3)


def test_a_record_by_hand_counts_for_nothing(world: World) -> None:
    world.connection.execute(
        'UPDATE organizational_units SET siorg_base = siorg_base || \'{"f": [1, null], "n": {"x": 1}, "no": {"a": [[]]}}\''
    )
    world.sync(BAD, GOOD)
    assert [world.unit(code)["name"] for code in (BAD, GOOD)] == ["Nova", "Nova"]


def test_settings_that_cannot_be_read_are_taken_for_the_careful_side(world: World) -> None:
    for key in ("siorg.hierarchy_strict_mode", "units.max_hierarchy_depth"):
        world.connection.execute(f"UPDATE system_settings SET value = {_NUMBER} WHERE key = '{key}'".encode())
    assert world.sync(BAD)["status"] == "COMPLETED"
