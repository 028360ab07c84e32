"""More ends or overwritten names at once than a limit allows are held for a person, whatever way they come; the rest goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest

from siorg_job.reconciliation.discover import Discovery, discover, registered
from siorg_job.reconciliation.verify import verify
from siorg_job.siorg.model import RemoteUnit, Structure
from siorg_job.sync.apply import apply
from siorg_job.sync.limits import Limits
from siorg_queue import HeldRow, NewItem, QueueStore, connect
from support.job import job_environment, run_job
from support.local_structure import ANOTHER, UFMT, Row, World, siorg_row
from support.siorg_server import SiorgServer

UNITS = range(1000, 1100)


@pytest.fixture
def world(world: World) -> World:
    """With 100 units in line, and the limits."""
    world.sync(UFMT, entity="ORGANIZATION")
    world.have(*UNITS)
    world.limits = Limits()
    return world


class _Siorg:
    """SIORG's side of a discovery; some structures lack units that it has."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.lacking: set[int] = set()

    async def version(self, organization: int) -> str:
        return "1.0.0"

    async def unit(self, code: int) -> RemoteUnit:
        return await self.world.siorg.unit(code)

    async def structure(self, organization: int) -> Structure:
        structure = await self.world.siorg.structure(organization)
        for code in self.lacking:
            del structure.units[code]
        return structure


def _discover(world: World, code: int = UFMT, *, store: QueueStore | None = None, lacking: Iterable[int] = ()) -> Discovery:
    (organization,) = registered(world.connection, [code])
    siorg = _Siorg(world)
    siorg.lacking |= {*lacking}
    return asyncio.run(
        discover(organization, cast("Any", siorg), world.connection, store or world.store, full=True, limits=Limits())
    )


def _active(world: World, organization: int = UFMT) -> int:
    return sum(world.unit(code)["organization_code"] == organization for code, unit in world.units().items() if unit["is_active"])


def _held(world: World) -> dict[tuple[int, str], HeldRow]:
    return {(row.code, row.field): row for row in world.decisions.held()}


def _settle(world: World) -> None:
    """Discover and drain twice; the second time there is nothing left to do."""
    for _ in range(2):
        _discover(world)
        world.drain(at_a_time=10)


# -- ends ---------------------------------------------------------------------------------------------------------------


def test_up_to_the_limit_ends_are_nobodys_business(world: World) -> None:
    world.siorg.remove(*UNITS[:10])
    assert _discover(world).held == 0
    world.drain()
    assert (_active(world), _held(world)) == (90, {})


def test_beyond_it_all_of_them_are_held_and_the_rest_goes_on(world: World) -> None:
    world.siorg.remove(*UNITS[:11])
    world.siorg.change(UNITS[50], nome="Nova")
    world.siorg.publish(siorg_row(2000))
    found = _discover(world)
    assert (found.held, found.reasons) == (11, ["11 of 100 units would end; the limit is 10"])
    _settle(world)
    assert (_active(world), world.unit(UNITS[50])["name"]) == (101, "Nova")
    held = _held(world)
    assert set(held) == {(code, "is_active") for code in UNITS[:11]}
    one = held[UNITS[0], "is_active"]
    assert (one.organization, one.name, one.local, one.remote) == (UFMT, f"Unidade {UNITS[0]}", True, False)
    assert (one.path, one.reason) == (world.unit(UNITS[0])["path_names"], "11 of 100 units would end; the limit is 10")
    world.siorg.requests.clear()
    _discover(world)
    assert not [request for request in world.siorg.requests if request.startswith("unit")]  # what is held was asked for
    counts = world.store.counts()
    assert (counts.held, counts.conflict, counts.waiting) == (11, 0, 0)


@pytest.mark.parametrize("at_a_time", [10, 1000])
def test_ends_that_another_producer_put_on_the_queue_are_held_as_well(world: World, at_a_time: int) -> None:
    """EXCLUSAO for 90 of 100, each confirmed: once it left 10 units."""
    world.siorg.remove(*UNITS[:90])
    world.enqueue(*UNITS[:90], operation="EXTINCTION")
    world.drain(at_a_time=at_a_time)
    assert (_active(world), len(_held(world))) == (100, 90)
    assert next(iter(_held(world).values())).reason == "90 of 100 units would end; the limit is 10"
    _settle(world)
    assert (_active(world), len(_held(world)), len(world.rows("SELECT FROM siorg_sync_queue WHERE held_at IS NOT NULL"))) == (
        100,
        90,
        90,
    )


@pytest.mark.parametrize("parts", [2, 4])
def test_a_structure_that_lacks_a_part_thrice_ends_nothing(world: World, parts: int) -> None:
    """Once: 50, 25 and 13 left."""
    left = list(UNITS)
    for _ in range(3):
        gone = left[::parts]
        world.siorg.remove(*gone)
        left = [code for code in left if code not in gone]
        _settle(world)
        assert (_active(world), len(_held(world))) == (100, 100 - len(left))


def test_absence_in_a_list_proves_nothing(world: World) -> None:
    found = _discover(world, lacking=UNITS[:50])
    assert (found.items, found.held) == ([], 0)


def test_slices_below_the_limit_add_up_for_a_day(world: World) -> None:
    for slice_, active in ((UNITS[:6], 94), (UNITS[6:12], 94)):
        world.siorg.remove(*slice_)
        _settle(world)
        assert _active(world) == active
    assert set(_held(world)) == {(code, "is_active") for code in UNITS[6:12]}
    assert _held(world)[UNITS[6], "is_active"].reason == "12 of 100 units would end; the limit is 10"
    world.siorg.remove(UNITS[20])  # beyond the limit what comes is held as well
    _settle(world)
    assert (_active(world), len(_held(world))) == (94, 7)


def test_what_ended_the_day_before_does_not_count(world: World) -> None:
    world.siorg.remove(*UNITS[:8])
    _settle(world)
    world.connection.execute("UPDATE siorg_history SET created_at = now() - interval '24 hours 1 second'")
    world.siorg.remove(*UNITS[8:16])
    _settle(world)
    assert (_active(world), _held(world)) == (84, {})


def test_a_discovery_that_was_cut_gets_nothing_through(world: World) -> None:
    class Interrupted(QueueStore):
        def enqueue(self, items: Iterable[NewItem], *, chunk: int = 2000) -> int:
            super().enqueue(list(items)[:8], chunk=chunk)
            raise KeyboardInterrupt

    world.siorg.remove(*UNITS[:8])
    with pytest.raises(KeyboardInterrupt):
        _discover(world, store=Interrupted(world.connection))
    world.siorg.remove(*UNITS[8:16])
    assert _discover(world).held == 8  # beside eight that wait
    world.drain()
    assert (_active(world), len(_held(world))) == (100, 16)


def test_of_two_processes_that_bring_ends_at_once_one_is_beyond_the_limit(world: World) -> None:
    """Neither sees the other's on the queue: the units have left, as items of another kind find out."""
    for code in UNITS[:12]:
        world.siorg.change(code, organization=423, parent=423)
    world.enqueue(*UNITS[:12])
    groups = [world.fetch(world.claim(6)), world.fetch(world.claim(6))]

    def bring(group: Any) -> None:
        with connect(world.url, application_name="test") as own:
            apply(own, QueueStore(own), group, Limits())

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(bring, groups))
    assert (_active(world), len(_held(world))) == (94, 6)


def test_leaving_for_an_organization_that_is_not_registered_is_an_end_and_a_move_to_one_that_is_none(world: World) -> None:
    world.register(ANOTHER)
    for code in UNITS[:60]:
        world.siorg.change(code, organization=ANOTHER, parent=ANOTHER)
    _settle(world)
    assert (_active(world, ANOTHER), _active(world), _held(world)) == (60, 40, {})
    for code in UNITS[60:71]:
        world.siorg.change(code, organization=423, parent=423)
    _settle(world)
    assert (_active(world), len(_held(world))) == (40, 11)
    assert world.decisions.release_held([row.id for row in world.decisions.held()], notes=None, by="ana") == 11
    _settle(world)
    assert (_active(world), _held(world)) == (29, {})
    (last,) = world.history(UNITS[60])[-1:]
    assert (last["change_type"], last["affected_fields"]) == ("HIERARCHY_CHANGE", ["is_active"])


def test_rows_that_were_never_synced_are_no_ends(world: World) -> None:
    world.connection.execute(
        "UPDATE organizational_units SET siorg_synced_at = NULL, siorg_base = NULL, siorg_raw_data = NULL"
        " WHERE siorg_code >= 1080"
    )
    world.siorg.remove(*UNITS[80:], *UNITS[:5])
    assert _discover(world).held == 0


def test_together_organizations_have_a_limit_too(world: World) -> None:
    """Each loses less than it may alone."""
    for number in range(3):
        world.register(ANOTHER + number)
        codes = range(2000 + 100 * number, 2020 + 100 * number)
        world.have(*[siorg_row(code, ANOTHER + number, organization=ANOTHER + number) for code in codes])
        world.siorg.remove(*codes[:6])
    held = [_discover(world, ANOTHER + number).held for number in range(3)]
    assert held == [0, 6, 6]
    assert _held(world)[2100, "is_active"].reason == "12 of 160 units of all organizations would end; the limit is 10"
    world.drain()
    assert sum(unit["is_active"] for unit in world.units().values()) == 154


# -- names --------------------------------------------------------------------------------------------------------------


def test_names_that_become_one_and_the_same_are_held_and_other_fields_are_not(world: World) -> None:
    for code in UNITS:
        world.siorg.change(code, nome="Pr? Reitoria")
    world.siorg.change(UNITS[0], sigla="NOVA", parent=UNITS[1])
    found = _discover(world)
    assert (found.held, found.reasons) == (100, ["100 of 100 names would be overwritten; the limit is 50"])
    _settle(world)
    unit = world.unit(UNITS[0])
    assert (unit["name"], unit["acronym"], unit["parent_code"]) == (f"Unidade {UNITS[0]}", "NOVA", UNITS[1])
    assert len({unit["name"] for unit in world.units().values()}) == 100
    assert _active(world) == 100
    held = _held(world)[UNITS[0], "name"]
    assert (held.local, held.remote) == (f"Unidade {UNITS[0]}", "Pr? Reitoria")


def test_a_few_that_become_the_same_are_held_too(world: World) -> None:
    for code in UNITS[:11]:
        world.siorg.change(code, nome="Secretaria")
    assert _discover(world).reasons == ["11 of 100 names would become 'Secretaria'; the limit is 10"]


def test_a_renaming_of_half_the_organization_goes_on(world: World) -> None:
    for code in UNITS[:50]:
        world.siorg.change(code, nome=f"Nova {code}")
    _settle(world)
    assert sum(unit["name"].startswith("Nova") for unit in world.units().values()) == 50
    for code in UNITS[50:]:
        world.siorg.change(code, nome=f"Nova {code}")
    assert _discover(world).held == 50  # what was written within the day counts


@pytest.mark.parametrize(("at_a_time", "written"), [(10, 10), (1000, 0)])
def test_names_that_another_producer_put_on_the_queue_are_held_as_well(world: World, at_a_time: int, written: int) -> None:
    """A verification, say; up to the limit nobody can know."""
    for code in UNITS:
        world.siorg.change(code, nome="?", sigla="S")
    world.enqueue(*UNITS)
    world.drain(at_a_time=at_a_time)
    units = world.units().values()
    assert (sum(unit["name"] == "?" for unit in units), len(_held(world))) == (written, 100 - written)
    assert {unit["acronym"] for unit in units} == {"S"}
    _settle(world)
    assert len(_held(world)) == 100 - written
    assert _release(world, *UNITS) == 100 - written
    _settle(world)
    assert (_held(world), {unit["name"] for unit in world.units().values()}) == ({}, {"?"})


def test_names_overwritten_together_with_a_move_count_as_well(world: World) -> None:
    """A move is one history row, with the name in it."""
    world.have(999)
    for code in UNITS:
        world.siorg.change(code, nome=f"Nova {code}", parent=999)
    world.enqueue(*UNITS)
    world.drain(at_a_time=10)
    assert (sum(unit["name"].startswith("Nova") for unit in world.units().values()), len(_held(world))) == (50, 50)
    assert {world.unit(code)["parent_code"] for code in UNITS} == {999}


def test_names_that_siorg_mends_end_by_themselves(world: World) -> None:
    for code in UNITS:
        world.siorg.change(code, nome="?")
    _settle(world)
    world.siorg.change(UNITS[0], nome=f"Unidade {UNITS[0]}")
    world.siorg.change(UNITS[1], nome="Nova")
    world.sync(UNITS[0], UNITS[1])  # by any item about the unit
    assert _held(world)[UNITS[1], "name"].remote == "Nova"  # another question, in an organization that is beyond the limit still
    assert len(_held(world)) == 99
    for code in UNITS[2:]:
        world.siorg.change(code, nome=f"Unidade {code}")
    assert _discover(world).held == 1  # or by a discovery
    assert set(_held(world)) == {(UNITS[1], "name")}
    row = world.items(UNITS[2])[-1]
    assert (row["status"], "held" in row["last_error"]) == ("SKIPPED", True)


def test_a_name_held_in_a_row_of_the_first_worker_is_no_edit_afterwards(world: World) -> None:
    world.connection.execute("UPDATE organizational_units SET siorg_base = NULL")
    for code in UNITS:
        world.siorg.change(code, nome="?", sigla="S")
    _settle(world)
    assert {unit["acronym"] for unit in world.units().values()} == {"S"}
    assert _release(world, *UNITS) == 100
    world.drain()
    assert {unit["name"] for unit in world.units().values()} == {"?"}


# -- decisions ----------------------------------------------------------------------------------------------------------


def _release(world: World, *codes: int) -> int:
    return world.decisions.release_held(
        [row.id for row in world.decisions.held() if row.code in codes], notes="as decreed", by="ana"
    )


def test_a_reform_of_more_than_half_goes_on_once_it_is_released(world: World) -> None:
    """Once a discovery of it ended with 75, for ever."""
    rows: list[Row] = [siorg_row(code, UNITS[0] if code > UNITS[0] else UFMT) for code in UNITS[:70]]
    world.siorg.publish(*rows)
    world.sync(*UNITS[:70])
    world.siorg.remove(*UNITS[:70])
    world.siorg.publish(*[siorg_row(code) for code in range(3000, 3070)])
    _settle(world)
    assert (_active(world), len(_held(world))) == (170, 70)
    assert _release(world, *UNITS[:70]) == 70
    world.drain()
    world.pauses_are_over()  # of a unit that waited for those below it
    _settle(world)
    assert (_active(world), _held(world)) == (100, {})
    assert len(world.rows("SELECT FROM siorg_history WHERE change_type = 'EXTINCTION'")) == 70
    world.siorg.remove(*UNITS[70:80])
    _settle(world)
    assert (_active(world), _held(world)) == (90, {})  # what a person released does not count


def test_a_release_is_about_the_rows_that_were_listed(world: World) -> None:
    world.siorg.remove(*UNITS[:20])
    _discover(world)
    listed = world.decisions.held(organization=UFMT)
    world.siorg.remove(*UNITS[20:40])
    _discover(world)
    assert world.decisions.release_held([row.id for row in listed], notes=None, by="ana") == 20
    _settle(world)
    assert (_active(world), set(_held(world))) == (80, {(code, "is_active") for code in UNITS[20:40]})


@pytest.mark.parametrize("by", ["command", "web page"])
def test_what_is_dropped_stands_until_siorg_says_something_else(world: World, by: str) -> None:
    world.siorg.remove(*UNITS[:20])
    for code in UNITS[20:80]:
        world.siorg.change(code, nome=f"Nova {code}")
    _discover(world)
    rows = world.decisions.held()
    assert len(rows) == 80
    if by == "command":
        assert world.decisions.drop_held([row.id for row in rows], notes=None, by="ana") == 80
    else:
        for row in rows:
            world.keep_as_the_api_server(row.id)
    _settle(world)
    assert (_active(world), _held(world), world.unit(UNITS[20])["name"]) == (100, {}, f"Unidade {UNITS[20]}")
    world.connection.execute("UPDATE siorg_history SET sync_queue_id = NULL")
    world.connection.execute("DELETE FROM siorg_sync_queue")  # what was turned down does not live in the queue alone
    _settle(world)
    assert (_active(world), _held(world)) == (100, {})
    world.siorg.change(UNITS[20], nome="Mais nova")
    world.siorg.publish(siorg_row(UNITS[0]))
    _settle(world)
    assert world.unit(UNITS[20])["name"] == "Mais nova"
    world.siorg.remove(UNITS[0])
    _settle(world)
    assert (_active(world), world.unit(UNITS[0])["is_active"]) == (99, False)
    for name, here in ((f"Unidade {UNITS[21]}", f"Unidade {UNITS[21]}"), (f"Nova {UNITS[21]}", f"Nova {UNITS[21]}")):
        world.siorg.change(UNITS[21], nome=name)  # as before, and then again what was dropped: that is news
        _settle(world)
        assert world.unit(UNITS[21])["name"] == here


def test_accepting_it_on_the_web_page_releases_it(world: World) -> None:
    world.siorg.remove(*UNITS[:20])
    _discover(world)
    for row in world.decisions.held():
        world.resolve(row.id, "ACCEPT_SIORG")
    _settle(world)
    assert (_active(world), _held(world)) == (80, {})


def test_after_a_decision_that_cannot_be_used_it_is_held_still_and_says_so(world: World) -> None:
    world.siorg.remove(*UNITS[:20])
    _settle(world)
    held = _held(world)
    for row in held.values():
        world.resolve(row.id, "MERGE", merged_payload={})  # a copy of the payload, which an end does not have
    _settle(world)
    assert ({row.id for row in _held(world).values()}, _active(world)) == ({row.id for row in held.values()}, 100)
    assert all("cannot be used" in row.reason for row in _held(world).values())


def test_ends_that_siorg_takes_back_are_held_no_more(world: World) -> None:
    world.siorg.remove(*UNITS[:40])
    _settle(world)
    world.siorg.publish(*[siorg_row(code) for code in UNITS[:30]])
    world.sync(UNITS[0])  # by any item about the unit
    assert len(_held(world)) == 39
    _settle(world)  # or by a discovery
    assert set(_held(world)) == {(code, "is_active") for code in UNITS[30:40]}
    assert not world.rows("SELECT FROM siorg_history WHERE change_type = 'EXTINCTION'")


def test_verification_names_what_is_held(world: World) -> None:
    world.siorg.remove(*UNITS[:20])
    for code in UNITS[20:]:
        world.siorg.change(code, nome=f"Nova {code}")
    _settle(world)
    found = asyncio.run(verify(UFMT, cast("Any", world.siorg), world.connection)).departures
    assert {(each.code, each.field, each.kind.value) for each in found} == {
        *((code, "is_active", "held") for code in UNITS[:20]), *((code, "name", "held") for code in UNITS[20:]),
    }  # fmt: skip
    assert all(each.since is not None for each in found)


# -- the commands, as processes -----------------------------------------------------------------------------------------


def test_the_commands_hold_and_say_how_many_and_what_to_do(world: World) -> None:
    world.connection.execute("DELETE FROM organizational_units")
    with SiorgServer("--synthetic", "60") as server:
        env = job_environment(world.url, server.url)
        run_job("discover", env=env)
        run_job("run", env=env)
        leaves = world.rows(
            "SELECT siorg_code FROM organizational_units u WHERE NOT EXISTS"
            " (SELECT FROM organizational_units c WHERE c.parent_id = u.id) ORDER BY 1"
        )
        units = _active(world)
        for leaf in leaves[:11]:
            server.control("PUT", "unit", {"code": leaf["siorg_code"], "remove": True})
        found = run_job("discover", "--full", env=env)
        line = f"11 of {units} units would end; the limit is 10: held, siorg-job held list --organization {UFMT}"
        assert line in found.stdout
        for leaf in leaves[:11]:
            world.enqueue(leaf["siorg_code"], operation="EXTINCTION")
        run_job("run", env=env)
        assert (_active(world), len(_held(world))) == (units, 11)
        run_job("discover", "--full", env={**env, "SIORG_MAX_ENDS": "11"})
