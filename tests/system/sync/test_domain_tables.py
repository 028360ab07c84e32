"""Discovery of categories and types, what is recorded of them, and that a second discovery is quiet."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

import pytest

from siorg_job.reconciliation.tables import discover_table, discover_tables
from siorg_job.siorg.errors import SiorgUnavailable
from siorg_job.siorg.model import DomainTable
from siorg_queue import EntityType
from support.job import job_environment, run_job
from support.local_structure import World, siorg_row, whole_tables
from support.siorg_server import SiorgServer

_TYPES = {"EN": "Entidade", "UA": "Unidade Administrativa", "UC": "Unidade Colegiada"}
_CATEGORY, _TYPE = "organizational_unit_categories", "organizational_unit_types"


def _publish(world: World, names: dict[int, str], *, inactive: int = 0, types: dict[str, str] = _TYPES) -> None:
    """SIORG's tables."""
    world.siorg.tables[DomainTable.UNIT_CATEGORY] = [
        {"codigoCategoriaUnidade": code, "descricaoCategoriaUnidade": name, "ativo": "NAO" if code == inactive else "SIM"}
        for code, name in names.items()
    ]
    world.siorg.tables[DomainTable.UNIT_TYPE] = [
        {"codigoTipoUnidade": code, "descricaoTipoUnidade": name} for code, name in types.items()
    ]


def _discover(world: World) -> dict[str, str]:
    """Discover both tables; the operations that were enqueued, by the names in SIORG, or codes where it has none."""
    world.connection.execute("UPDATE siorg_sync_queue SET payload = payload || '{\"old\": true}'")
    errors = asyncio.run(discover_tables(cast("Any", world.siorg), world.connection, world.store))
    assert errors == []
    new = world.rows("SELECT * FROM siorg_sync_queue WHERE NOT payload ? 'old'")
    keys = ("descricaoCategoriaUnidade", "descricaoTipoUnidade")
    return {
        next((row["payload"][key] for key in keys if key in row["payload"]), str(row["siorg_code"])): row["operation"]
        for row in new
    }


def _sync(world: World) -> dict[str, str]:
    found = _discover(world)
    world.drain()
    return found


def _row(world: World, code: int = 6) -> dict[str, Any]:
    (row,) = world.rows(f"SELECT * FROM {_CATEGORY} WHERE siorg_code = %s", code)
    return row


def _rename(world: World, name: str, code: int = 6) -> None:
    world.connection.execute(f"UPDATE {_CATEGORY} SET name = %s WHERE siorg_code = %s", [name, code])


def _history(world: World, code: int = 6) -> list[str]:
    return sorted(entry["change_type"] for entry in world.history(code, "CATEGORY"))


@pytest.fixture
def synced(world: World) -> World:
    """Both tables were discovered and drained."""
    world.connection.execute(f"DELETE FROM {_CATEGORY}")
    world.connection.execute(f"DELETE FROM {_TYPE}")
    _publish(world, {6: "Comissão", 7: "Comitê"})
    _sync(world)
    return world


def test_the_tables_come_whole_once_and_a_second_discovery_is_quiet(world: World) -> None:
    world.connection.execute(f"DELETE FROM {_CATEGORY}")
    world.connection.execute(f"DELETE FROM {_TYPE}")
    _publish(world, {6: "Comissão", 7: "Comissão", 8: "Comitê"}, inactive=8)
    assert _discover(world) == dict.fromkeys(("Comissão", *_TYPES.values()), "CREATION")
    assert world.siorg.requests == ["domain categoria-unidade", "domain tipo-unidade"]
    assert _discover(world) == {}
    world.drain()
    assert set(world.statuses().values()) == {"COMPLETED"}
    assert [row["name"] for row in world.rows(f"SELECT name FROM {_CATEGORY} ORDER BY siorg_code")] == [
        "Comissão",
        "Comissão (7)",
    ]
    types = world.rows(f"SELECT code, name, siorg_code FROM {_TYPE} ORDER BY code")
    assert [(row["code"], row["name"], row["siorg_code"]) for row in types] == [
        ("entidade", "Entidade", None),
        ("unidade-administrativa", "Unidade Administrativa", None),
        ("unidade-colegiada", "Unidade Colegiada", None),
    ]
    still = whole_tables(world.connection)
    assert _sync(world) == {}
    assert whole_tables(world.connection)["siorg_history"] == still["siorg_history"]


def test_what_units_brought_is_completed_without_a_history_row_where_it_is_right(world: World) -> None:
    world.connection.execute(f"DELETE FROM {_TYPE}")
    _publish(world, {6: "Comissão", 7: "Comitê"}, types={"UA": "Unidade Administrativa", "OR": "Órgão"})
    world.have(siorg_row(900, codigoCategoriaUnidade=6), siorg_row(901, codigoCategoriaUnidade=7))
    _rename(world, "Nosso comitê", 7)
    world.connection.execute(f"INSERT INTO {_TYPE} (code, name, siorg_name) VALUES ('orgao', 'Orgao', 'Orgao')")
    assert _sync(world) == {
        "Comissão": "UPDATE", "Comitê": "UPDATE", "Unidade Administrativa": "UPDATE", "Órgão": "UPDATE"
    }  # fmt: skip
    assert _row(world)["siorg_synced_at"] is not None
    assert (_history(world), _history(world, 7), _row(world, 7)["name"]) == ([], [], "Nosso comitê")
    (changed,) = world.rows("SELECT * FROM siorg_history WHERE entity_type = 'TYPE'")
    assert (changed["previous_data"]["name"], changed["new_data"]["name"]) == ("Orgao", "Órgão")
    assert _sync(world) == {}


def test_renames_ends_and_returns_are_discovered_and_history_tells_them(synced: World) -> None:
    _publish(synced, {6: "Comissão Permanente"})
    assert _sync(synced) == {"Comissão Permanente": "UPDATE", "7": "EXTINCTION"}
    assert (_row(synced)["name"], _row(synced, 7)["is_active"]) == ("Comissão Permanente", False)
    _publish(synced, {6: "Comissão", 7: "Comitê"}, inactive=6)
    assert _sync(synced) == {"Comissão": "EXTINCTION", "Comitê": "UPDATE"}
    assert (_row(synced)["name"], _row(synced)["is_active"], _row(synced, 7)["is_active"]) == ("Comissão", False, True)
    assert _sync(synced) == {}
    assert _history(synced) == ["CREATION", "EXTINCTION", "UPDATE", "UPDATE"]
    assert _history(synced, 7) == ["CREATION", "CREATION", "EXTINCTION"]
    assert {entry["requires_review"] for entry in synced.history(7, "CATEGORY") if entry["change_type"] == "EXTINCTION"} == {True}


def test_a_type_is_followed_by_its_letters_and_keeps_its_slug(synced: World) -> None:
    _publish(synced, {6: "Comissão", 7: "Comitê"}, types={"EN": "Entidade", "UA": "Unidade de Administração"})
    assert list(_sync(synced).values()) == ["UPDATE", "EXTINCTION"]
    types = {row["code"]: (row["name"], row["is_active"]) for row in synced.rows(f"SELECT * FROM {_TYPE}")}
    assert types["unidade-administrativa"] == ("Unidade de Administração", True)
    assert types["unidade-colegiada"] == ("Unidade Colegiada", False)
    assert _sync(synced) == {}
    _publish(synced, {6: "Comissão", 7: "Comitê"})
    assert _sync(synced) == {"Unidade Administrativa": "UPDATE", "Unidade Colegiada": "UPDATE"}
    entries = synced.rows("SELECT change_type FROM siorg_history WHERE entity_type = 'TYPE' ORDER BY created_at")
    assert sorted(row["change_type"] for row in entries) == ["CREATION"] * 4 + ["EXTINCTION", "UPDATE", "UPDATE"]


def test_a_persons_name_is_kept_and_where_siorg_renames_too_asked_about_once(synced: World) -> None:
    _rename(synced, "Nossa")
    assert _sync(synced) == {}
    _publish(synced, {6: "Deles", 7: "Comitê"})
    assert _sync(synced) == {"Deles": "UPDATE"}
    (item,) = synced.rows("SELECT * FROM siorg_sync_queue WHERE status = 'CONFLICT'")
    assert item["detected_changes"] == {"name": {"base": "Comissão", "local": "Nossa", "remote": "Deles"}}
    assert _sync(synced) == {}
    _publish(synced, {6: "De novo", 7: "Comitê"})
    assert _sync(synced) == {"De novo": "UPDATE"}
    _publish(synced, {6: "Comissão", 7: "Comitê"})
    assert _sync(synced) == {"Comissão": "UPDATE"}  # nothing is in conflict any more: that ends it
    assert synced.rows("SELECT * FROM siorg_sync_queue WHERE status = 'CONFLICT'") == []
    assert _sync(synced) == {}
    assert (_row(synced)["name"], _history(synced)) == ("Nossa", ["CREATION"])


def test_what_siorgs_table_has_not_is_ended_by_an_end_alone(synced: World) -> None:
    _publish(synced, {7: "Comitê"})
    for code, operation in ((6, "UPDATE"), (99, "EXTINCTION")):
        item = synced.sync(code, entity="CATEGORY", operation=operation)
        assert (item["status"], item["error_details"]["kind"]) == ("FAILED", "not_found")
    assert _row(synced)["is_active"]
    assert synced.sync(6, entity="CATEGORY", operation="EXTINCTION")["status"] == "COMPLETED"
    assert not _row(synced)["is_active"]


def _by_command(world: World, id_: UUID) -> None:
    world.resolve_by_command(id_, "--keep-local")
    world.drain()


@pytest.mark.parametrize("keep", [_by_command, World.keep_as_the_api_server])
def test_what_a_person_kept_stays_turned_down_when_the_queue_has_forgotten_it(synced: World, keep: Any) -> None:
    _rename(synced, "Nossa")
    _publish(synced, {6: "Deles", 7: "Comitê"})
    _sync(synced)
    (item,) = synced.rows("SELECT id FROM siorg_sync_queue WHERE status = 'CONFLICT'")
    keep(synced, item["id"])
    _sync(synced)
    synced.connection.execute("UPDATE siorg_history SET sync_queue_id = NULL")
    synced.connection.execute("DELETE FROM siorg_sync_queue")
    assert _sync(synced) == {}
    assert synced.sync(6, entity="CATEGORY")["status"] == "COMPLETED"
    assert (_row(synced)["name"], _row(synced)["siorg_base"]["no"]) == ("Nossa", {"n": "Deles"})
    _publish(synced, {6: "Outra", 7: "Comitê"})
    _sync(synced)
    assert synced.statuses()[6] == "CONFLICT"


def test_what_was_opened_again_by_a_person_stays_open(synced: World) -> None:
    _publish(synced, {6: "Comissão"})
    _sync(synced)
    synced.connection.execute(f"UPDATE {_CATEGORY} SET is_active = true WHERE siorg_code = 7")
    assert _sync(synced) == {}
    assert synced.sync(7, entity="CATEGORY", operation="EXTINCTION")["status"] == "COMPLETED"
    assert _row(synced, 7)["is_active"]


def test_the_base_is_what_was_written_and_not_what_siorg_said(synced: World) -> None:
    assert _row(synced)["siorg_base"].items() >= {"v": 1, "n": "Comissão", "x": True}.items()
    # A wrong write of ours, by whatever version: the name and its record.
    synced.connection.execute(
        f"UPDATE {_CATEGORY} SET name = 'Errada', siorg_base = siorg_base || '{{\"n\": \"Errada\"}}' WHERE siorg_code = 6"
    )
    assert _sync(synced) == {"Comissão": "UPDATE"}
    assert _row(synced)["name"] == "Comissão"


def test_where_an_older_job_wrote_its_row_of_siorgs_stands_in(synced: World) -> None:
    """It moves the time of the last sync and knows of no record."""
    synced.connection.execute(
        f"UPDATE {_CATEGORY} SET name = 'Junta', siorg_name = 'Junta', siorg_synced_at = siorg_synced_at + %s,"
        ' siorg_raw_data = siorg_raw_data || \'{"descricaoCategoriaUnidade": "Junta"}\' WHERE siorg_code = 6',
        [timedelta(microseconds=1)],
    )
    _publish(synced, {6: "Comissão", 7: "Comitê"})
    assert _sync(synced) == {"Comissão": "UPDATE"}
    assert (_row(synced)["name"], synced.statuses()[6]) == ("Comissão", "COMPLETED")
    assert _row(synced)["siorg_base"]["n"] == "Comissão"


@pytest.mark.parametrize(
    "rows",
    [[], [{"codigoCategoriaUnidade": "?"}], [{"codigoCategoriaUnidade": 6, "descricaoCategoriaUnidade": "Comissão"}, {}]],
)
def test_a_table_that_cannot_be_believed_ends_nothing_and_the_other_is_discovered(synced: World, rows: Any) -> None:
    _publish(synced, {}, types={**_TYPES, "EN": "Entidades"})
    synced.siorg.tables[DomainTable.UNIT_CATEGORY] = rows
    (error,) = asyncio.run(discover_tables(cast("Any", synced.siorg), synced.connection, synced.store))
    assert "categoria" in str(error).lower()
    synced.drain()
    assert _row(synced, 7)["is_active"]
    assert synced.rows(f"SELECT name FROM {_TYPE} WHERE code = 'entidade'") == [{"name": "Entidades"}]
    synced.siorg.down = SiorgUnavailable("away")
    assert len(asyncio.run(discover_tables(cast("Any", synced.siorg), synced.connection, synced.store))) == 2


def test_a_rename_that_was_undone_before_it_was_applied_is_not_applied(synced: World) -> None:
    _publish(synced, {6: "Passageira", 7: "Comitê"})
    _discover(synced)
    works = synced.fetched()
    _publish(synced, {6: "Comissão", 7: "Comitê"})
    asyncio.run(discover_table(EntityType.CATEGORY, cast("Any", synced.siorg), synced.connection, synced.store))
    synced.apply(works)
    synced.drain()
    assert (_row(synced)["name"], _history(synced)) == ("Comissão", ["CREATION"])


def test_the_command_brings_the_simulators_tables_in_line_and_then_is_quiet(world: World) -> None:
    with SiorgServer("--synthetic", "40") as server:
        env = job_environment(world.url, server.url)
        for command in ("discover", "run", "discover"):  # after which all is known to be at rest
            run_job(command, env=env)
        assert {row["status"] for row in world.rows("SELECT status FROM siorg_sync_queue")} == {"COMPLETED"}
        types = world.rows(f"SELECT code FROM {_TYPE} WHERE siorg_synced_at IS NOT NULL ORDER BY 1")
        assert [row["code"] for row in types] == ["ente", "entidade", "orgao", "unidade-administrativa", "unidade-colegiada"]
        assert len(world.rows(f"SELECT FROM {_CATEGORY} WHERE siorg_synced_at IS NOT NULL AND is_active")) == 9
        still = whole_tables(world.connection)
        for command in ("discover", "run"):
            run_job(command, env=env)
        del still["system_settings"]  # when it was compared
        assert whole_tables(world.connection) | still == whole_tables(world.connection)
