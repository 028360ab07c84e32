"""What FAILED is asked again by itself, not too often, and is never forgotten; what hangs below it waits for it."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from siorg_job.reconciliation.discover import Discovery, discover, registered
from siorg_job.reconciliation.tables import discover_table
from siorg_job.reconciliation.verify import verify
from siorg_job.siorg.errors import SiorgUnavailable, UnusableAnswer
from siorg_job.siorg.model import DomainTable, RemoteUnit
from siorg_queue import EntityType
from support.local_structure import ANOTHER, UFMT, Row, World, siorg_row

TOO_LONG = "X" * 51
FAR = range(901, 941)
"""Forty units below 900."""


def _discover(world: World, organization: int = UFMT) -> Discovery:
    """What the command does for one organization; SIORG's version stands still."""
    world.siorg.version = _version  # type: ignore[attr-defined]
    world.store.retry_due()
    (found,) = registered(world.connection, [organization])
    return asyncio.run(discover(found, cast("Any", world.siorg), world.connection, world.store))


async def _version(organization: int) -> str:
    return "99.0.0"


def _verified(world: World) -> dict[int, tuple[str, str]]:
    found = asyncio.run(verify(UFMT, cast("Any", world.siorg), world.connection))
    return {each.code: (each.kind.value, each.reason) for each in found.departures}


def _time_passes(world: World, hours: float) -> None:
    world.connection.execute(
        "UPDATE siorg_sync_queue SET processed_at = processed_at - make_interval(secs => %s)", [hours * 3600]
    )


def _category(code: int, name: str) -> Row:
    return {"codigoCategoriaUnidade": code, "descricaoCategoriaUnidade": name, "ativo": "SIM"}


def _rows(world: World) -> int:
    return len(world.rows("SELECT FROM siorg_sync_queue"))


@pytest.fixture
def failed(world: World) -> World:
    """A unit whose acronym is too long and forty below it: all FAILED."""
    world.siorg.publish(siorg_row(900, sigla=TOO_LONG), *[siorg_row(code, 900) for code in FAR])
    _discover(world)
    world.drain()
    return world


# -- what is below waits ------------------------------------------------------------------------------------------------


def test_what_is_below_a_unit_that_cannot_be_used_names_it_and_burns_no_attempts(failed: World) -> None:
    assert failed.statuses() == {UFMT: "COMPLETED", 900: "FAILED", **dict.fromkeys(FAR, "FAILED")}
    (item,) = failed.items(940)
    assert (item["error_details"]["kind"], item["error_details"]["details"]["waits_for"]) == ("parent_failed", [900])
    assert (item["attempts"], "waits for unit 900 above it" in item["last_error"]) == (1, True)
    assert {kind for kind, _ in _verified(failed).values()} == {"failed"}
    assert "900" in _verified(failed)[940][1]


def test_what_is_below_a_unit_that_is_refused_here_waits_for_it_and_is_not_written(world: World) -> None:
    line = range(900, 912)  # one level more than may be, and the last
    world.siorg.publish_line(*line)
    item = world.sync(911)
    assert (item["error_details"]["kind"], item["error_details"]["details"]["waits_for"]) == ("parent_failed", [910])
    assert "waits for unit 910 above it: below unit 909 unit 910 would be on level 11" in item["last_error"]
    assert 911 not in world.units()


def test_what_is_below_is_not_asked_for_while_that_fails(failed: World) -> None:
    """Whatever the time: in a day the one unit is asked for a few times, the forty never."""
    rows, failures = _rows(failed), []
    for _ in range(30):
        _time_passes(failed, 1)
        failed.siorg.requests.clear()
        _discover(failed)
        failures.append(len(failed.claim(0)) + failed.store.counts().due)
        failed.drain()
    assert (max(failures), sum(failures)) == (1, 5)  # after 1, 2, 4, 7 and 14 hours
    assert _rows(failed) == rows


def test_siorg_mends_the_one_and_all_come(failed: World) -> None:
    rows = _rows(failed)
    failed.siorg.change(900, sigla="OK")
    failed.siorg.requests.clear()
    assert _discover(failed).added == 1  # it says something else now: at once
    failed.drain()
    assert {unit["is_active"] for unit in failed.units().values()} == {True}
    assert set(failed.units()) == {900, *FAR}
    assert _rows(failed) == rows
    assert len([what for what in failed.siorg.requests if what.startswith("structure")]) <= 3
    assert _discover(failed).items == []
    assert _verified(failed) == {}


def test_it_waits_no_more_for_what_is_not_above_it_any_more(world: World) -> None:
    """Its own row is as it was: the one between has moved."""
    world.siorg.publish(siorg_row(900, sigla=TOO_LONG), siorg_row(901, 900), siorg_row(902, 901))
    _discover(world)
    world.drain()
    world.siorg.change(901, parent=UFMT)
    _discover(world)
    world.drain()
    assert {code: world.unit(code)["parent_code"] for code in world.units()} == {901: None, 902: 901}


def test_what_a_database_refuses_waits_for_what_was_written_with_it(world: World) -> None:
    world.connection.execute("ALTER TABLE organizational_units ADD CONSTRAINT odd CHECK (name <> 'Odd')")
    world.siorg.publish(siorg_row(900, nome="Odd"), siorg_row(901, 900))
    _discover(world)
    world.drain(at_a_time=1)
    assert world.items(901)[0]["error_details"]["details"]["waits_for"] == [900]
    world.siorg.change(900, nome="Even")
    _discover(world)
    world.drain()
    assert set(world.units()) == {900, 901}


# -- asked again --------------------------------------------------------------------------------------------------------


def _torn(world: World, code: int) -> None:
    """From now on SIORG does not answer about one unit."""
    answer = world.siorg.unit

    async def ask(asked: int) -> RemoteUnit:
        if asked == code:
            raise SiorgUnavailable("SIORG answered HTTP 503")
        return await answer(asked)

    world.siorg.unit = ask  # type: ignore[assignment, method-assign]
    world.siorg.mended = answer  # type: ignore[attr-defined]


def _failed_for_seconds(world: World) -> None:
    """A unit that was asked for while SIORG answered 503: FAILED with its attempts spent."""
    world.have(900)
    _torn(world, 900)
    world.siorg.change(900, nome="Nova")
    _discover(world)
    for _ in range(3):
        world.drain()
        world.pauses_are_over()
    world.siorg.unit = world.siorg.mended  # type: ignore[attr-defined, method-assign]
    assert world.statuses()[900] == "FAILED"


def test_a_unit_that_answered_503_for_seconds_comes_after_an_hour(world: World) -> None:
    _failed_for_seconds(world)
    rows = _rows(world)
    assert (_discover(world).added, world.unit(900)["name"]) == (0, "Unidade 900")
    _time_passes(world, 1)
    _discover(world)
    assert world.items(900)[-1]["attempts"] == 0
    world.drain()
    assert (world.unit(900)["name"], _rows(world)) == ("Nova", rows)


@pytest.mark.parametrize("how", ["deleted", "closed", "cleaned up"])
def test_a_row_that_goes_is_not_the_only_one_to_know(world: World, how: str) -> None:
    _failed_for_seconds(world)
    if how == "deleted":
        world.connection.execute("DELETE FROM siorg_sync_queue WHERE status = 'FAILED'")
    elif how == "closed":
        world.connection.execute("UPDATE siorg_sync_queue SET status = 'SKIPPED' WHERE status = 'FAILED'")
    else:
        _time_passes(world, 30 * 24)
        world.store.cleanup_page(retention_days=0)
        assert world.decisions.failures() == []
    assert _discover(world).how == "structure"  # although the version stands still
    world.drain()
    assert world.unit(900)["name"] == "Nova"


def test_a_cleanup_does_not_forget_how_often_it_failed(failed: World) -> None:
    for _ in range(3):
        _time_passes(failed, 24)
        failed.store.cleanup_page(retention_days=0)
        _discover(failed)
        failed.drain()
    assert failed.items(900)[0]["failures"] == 3


def test_what_failed_is_asked_again_whatever_it_is_about_and_but_for_what_a_person_ended(world: World) -> None:
    """Also where nothing differs, and no discovery of an organization would come upon it."""
    world.enqueue(423, entity="ORGANIZATION", payload={})
    world.siorg.publish(siorg_row(950, 423, organization=423))
    world.enqueue(950, operation="CREATION")
    world.siorg.tables[DomainTable.UNIT_CATEGORY] = [_category(7, "Conselho")]
    world.enqueue(77, entity="CATEGORY")
    world.enqueue(777)
    (ended,) = world.enqueue(778)
    world.drain()
    assert set(world.statuses().values()) == {"FAILED"}
    world.connection.execute("UPDATE siorg_sync_queue SET processed_by = gen_random_uuid() WHERE id = %s", [ended])
    assert world.store.retry_due() == 0
    _time_passes(world, 1)
    assert world.store.retry_due() == 4
    world.drain()
    _time_passes(world, 1)
    assert world.store.retry_due() == 0
    _time_passes(world, 1)
    assert world.store.retry_due() == 4


def test_units_of_an_organization_that_was_not_registered_come_once_it_is(world: World) -> None:
    world.siorg.publish(siorg_row(950, ANOTHER, organization=ANOTHER))
    world.enqueue(950, operation="CREATION", payload=world.siorg.rows[950])
    world.drain()
    assert world.statuses() == {950: "FAILED"}
    world.register(ANOTHER)
    _discover(world, ANOTHER)
    world.drain()
    assert world.unit(950)["is_active"]


def test_a_newer_item_speaks_for_the_entity(world: World) -> None:
    world.siorg.publish(siorg_row(900, sigla=TOO_LONG))
    world.sync(900)
    world.siorg.change(900, sigla="OK")
    world.sync(900)
    _time_passes(world, 48)
    assert world.store.retry_due() == 0


def test_categories_that_failed_have_a_pause_too(world: World) -> None:
    world.siorg.tables[DomainTable.UNIT_CATEGORY] = [_category(7, "Y" * 101)]

    def found() -> int:
        return asyncio.run(discover_table(EntityType.CATEGORY, cast("Any", world.siorg), world.connection, world.store)).added

    assert found() == 1
    world.drain()
    assert world.statuses() == {7: "FAILED"}
    assert (found(), _rows(world)) == (0, 1)
    _time_passes(world, 1)
    assert (found(), _rows(world)) == (1, 1)


def test_an_answer_of_which_no_row_can_be_used_is_broken_and_makes_no_bad_units(world: World) -> None:
    world.have(900)
    world.siorg.change(UFMT, sigla=TOO_LONG)
    world.siorg.change(900, sigla=TOO_LONG)
    rows = _rows(world)
    with pytest.raises(UnusableAnswer):
        _discover(world)
    assert _rows(world) == rows


# -- a parent that SIORG has nowhere ------------------------------------------------------------------------------------


def _recorded(world: World) -> str | None:
    rows = world.rows("SELECT value FROM system_settings WHERE key = 'siorg_versao:471'")
    return rows[0]["value"] if rows else None


@pytest.mark.parametrize("is_here", [True, False])
def test_a_parent_that_siorg_has_nowhere(world: World, is_here: bool) -> None:
    """K19: in one answer the parent is nowhere, and its child names it still; in the next the child is elsewhere."""
    if is_here:
        world.have_line(900, 901)
        world.siorg.remove(900)
    else:
        world.siorg.publish(siorg_row(901, 900))
    for _ in range(2):
        _discover(world)
        world.drain()
        assert (world.unit(901)["parent_code"], _recorded(world)) == (900 if is_here else None, None)
        departures = _verified(world)
        assert {kind for kind, _ in departures.values()} == {"failed"}
        assert "parent 900 nowhere" in departures[901][1]
    if is_here:
        assert world.unit(900)["is_active"]
        (end,) = world.items(900)
        assert (end["status"], end["error_details"]["details"]["waits_for"]) == ("FAILED", [901])
    world.siorg.change(901, parent=UFMT)
    _discover(world)
    world.drain()
    assert world.unit(901)["parent_code"] is None
    assert [code for code, unit in world.units().items() if unit["is_active"]] == [901]
    assert (_discover(world).items, _verified(world), _recorded(world)) == ([], {}, "99.0.0")


def test_an_answer_older_than_one_that_was_applied_does_not_record_its_version(world: World) -> None:
    world.have(900)
    structure = world.siorg.structure

    async def and_then_it_is_applied(organization: int) -> Any:
        answer = await structure(organization)
        world.siorg.change(900, nome="Nova")
        world.connection.execute("UPDATE organizational_units SET siorg_synced_at = clock_timestamp()")
        return answer

    world.siorg.structure = and_then_it_is_applied  # type: ignore[method-assign]
    _discover(world)
    assert _recorded(world) is None
    world.siorg.structure = structure  # type: ignore[method-assign]
    assert _discover(world).how == "structure"
    assert _recorded(world) == "99.0.0"
