"""The producer: what differs is enqueued, once each, and the version is recorded last."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any, cast

import pytest

from siorg_job.discover import Discovery, discover, registered
from siorg_job.siorg.errors import MalformedResponse, SiorgUnavailable, VersionUnknown
from siorg_job.siorg.model import RemoteUnit, Structure
from siorg_job.siorg.rows import parse_stored
from siorg_queue import NewItem, QueueStore
from support.job import job_environment, run_job
from support.local_structure import ANOTHER, UFMT, Row, World, siorg_row
from support.siorg_server import SiorgServer


class Versions:
    """SIORG's side of a discovery, over the made-up rows."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.current = "99.0.0"
        self.changes: list[Row] | None = None
        """None: every version to compare with is refused."""
        self.asked: list[str] = []

    async def version(self, organization: int) -> str:
        self.asked.append("version")
        return self.current

    async def changed_since(self, organization: int, version: str) -> list[RemoteUnit]:
        self.asked.append(f"since {version}")
        if self.changes is None:
            raise VersionUnknown("too old")
        return [unit for row in self.changes if (unit := parse_stored(row)) is not None]

    async def structure(self, organization: int) -> Structure:
        self.asked.append("structure")
        return await self.world.siorg.structure(organization)


@pytest.fixture
def versions(world: World) -> Versions:
    return Versions(world)


def _discover(world: World, versions: Versions, code: int = UFMT, store: QueueStore | None = None) -> Discovery:
    (organization,) = registered(world.connection, [code])
    return asyncio.run(discover(organization, cast("Any", versions), world.connection, store or world.store))


def _discovered(world: World, versions: Versions, *rows: Row | int) -> None:
    """These units (rows of SIORG's, or codes directly under the organization) were discovered and drained."""
    world.siorg.publish(*[siorg_row(row) if isinstance(row, int) else row for row in rows])
    _discover(world, versions)
    world.drain()
    versions.asked.clear()


def _kinds(found: Discovery) -> dict[int, str]:
    return {item.siorg_code: item.operation.value for item in found.items}


def _recorded(world: World) -> str | None:
    rows = world.rows("SELECT value FROM system_settings WHERE key = 'siorg_versao:471'")
    return rows[0]["value"] if rows else None


def _later(versions: Versions, *changes: Row) -> None:
    """A newer version; without changes, one that SIORG does not compare with ours."""
    versions.current, versions.changes = "100.0.0", list(changes) or None


def test_the_first_time_the_whole_structure_is_enqueued_parents_first_and_once(world: World, versions: Versions) -> None:
    world.siorg.publish(siorg_row(902, 901), siorg_row(901, 900), siorg_row(900, nome=" Secretaria "))
    found = _discover(world, versions)
    assert (found.how, found.added) == ("structure", 4)
    assert [item.siorg_code for item in found.items] == [471, 900, 901, 902]
    assert found.items[1].payload == json.loads(json.dumps(world.siorg.rows[900]))  # what SIORG sent
    assert {item.priority for item in found.items} == {5}
    assert _recorded(world) == "99.0.0"
    assert _discover(world, versions).added == 0
    world.drain()
    assert world.statuses() == dict.fromkeys([471, 900, 901, 902], "COMPLETED")
    versions.asked.clear()
    found = _discover(world, versions)
    assert (found.how, found.items, versions.asked) == ("unchanged", (), ["version"])


def test_what_changed_since_is_enqueued(world: World, versions: Versions) -> None:
    _discovered(world, versions, 900, 901, 902, 903)
    _later(
        versions,
        siorg_row(900, nome="Nova", operacao="ALTERACAO", versaoConsulta="100.0.0"),
        siorg_row(901, 900, operacao="ALTERACAO", versaoConsulta="100.0.0"),
        siorg_row(902, operacao="EXCLUSAO"),
        siorg_row(910, operacao="INCLUSAO", versaoConsulta="100.0.0"),
        siorg_row(999, operacao="EXCLUSAO"),  # was never here
        siorg_row(950, 900, organization=950, operacao="INCLUSAO"),  # linked to this organization, but one of its own
    )
    found = _discover(world, versions)
    assert found.how == "changes"
    assert _kinds(found) == {900: "UPDATE", 901: "HIERARCHY_CHANGE", 910: "CREATION", 902: "EXTINCTION"}
    assert _recorded(world) == "100.0.0"


def test_a_refused_version_means_the_whole_structure_and_only_its_differences(world: World, versions: Versions) -> None:
    _discovered(world, versions, 900, 901, 902, 903)
    world.siorg.change(900, nome="Nova")
    world.siorg.remove(902, 903)
    world.sync(903, operation="EXTINCTION")
    world.edit(903, is_active=True)  # opened again by a person: left alone
    _later(versions)
    found = _discover(world, versions)
    assert versions.asked == ["version", "since 99.0.0", "structure"]
    assert _kinds(found) == {900: "UPDATE", 902: "EXTINCTION"}


def test_ends_come_last_and_the_deepest_first(world: World, versions: Versions) -> None:
    _discovered(world, versions, siorg_row(900), siorg_row(901, 900), siorg_row(902, 901), siorg_row(910))
    ends = [siorg_row(code, parent, operacao="EXCLUSAO") for code, parent in ((900, UFMT), (902, 901), (901, 900))]
    _later(versions, *ends, siorg_row(910, nome="Nova", operacao="ALTERACAO"))
    found = _discover(world, versions)
    assert [item.siorg_code for item in found.items] == [910, 902, 901, 900]
    world.siorg.remove(900, 901, 902)
    world.siorg.change(910, nome="Nova")
    world.drain()
    assert {code for code, unit in world.units().items() if unit["is_active"]} == {910}


def test_half_a_structure_is_not_believed(world: World, versions: Versions) -> None:
    _discovered(world, versions, *range(900, 930))
    world.siorg.remove(*range(900, 920))
    _later(versions)
    with pytest.raises(MalformedResponse, match="lacks 20 of the 30"):
        _discover(world, versions)
    assert _recorded(world) == "99.0.0"
    assert {row["status"] for row in world.rows("SELECT status FROM siorg_sync_queue")} == {"COMPLETED"}


def test_a_small_organization_may_lose_most_of_its_units(world: World, versions: Versions) -> None:
    _discovered(world, versions, 900, 901, 902)
    world.siorg.remove(900, 901)
    _later(versions)
    assert _kinds(_discover(world, versions)) == {900: "EXTINCTION", 901: "EXTINCTION"}


def test_an_interrupted_discovery_is_simply_done_again(world: World, versions: Versions) -> None:
    world.siorg.publish(*[siorg_row(code) for code in range(900, 910)])

    class Interrupted(QueueStore):
        def enqueue(self, items: Iterable[NewItem], *, chunk: int = 2000) -> int:
            super().enqueue(list(items)[:4], chunk=chunk)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _discover(world, versions, store=Interrupted(world.connection))
    assert _recorded(world) is None
    found = _discover(world, versions)
    assert (len(found.items), found.added) == (11, 7)
    world.drain()
    assert len(world.rows("SELECT * FROM siorg_sync_queue")) == 11
    assert len(world.units()) == 10


def test_a_row_that_cannot_be_read_is_enqueued_and_ends_with_its_reason(world: World, versions: Versions) -> None:
    world.siorg.publish(siorg_row(900), siorg_row(901, nome=["x"]))
    assert _kinds(_discover(world, versions)) == {471: "UPDATE", 900: "CREATION", 901: "UPDATE"}
    world.drain()
    assert world.statuses() == {471: "COMPLETED", 900: "COMPLETED", 901: "FAILED"}
    assert "nome" in world.items(901)[0]["last_error"]


def test_a_unit_that_moved_here_from_another_organization_is_enqueued(world: World, versions: Versions) -> None:
    world.register(ANOTHER)
    world.have(siorg_row(950, ANOTHER, organization=ANOTHER))
    _discovered(world, versions, 900)
    _later(versions, siorg_row(950, 900, operacao="ALTERACAO"))
    assert _kinds(_discover(world, versions)) == {950: "HIERARCHY_CHANGE"}


def test_a_unit_in_the_structure_of_another_organization_is_where_its_own_row_says(world: World, versions: Versions) -> None:
    world.register(ANOTHER)
    world.have(900)
    world.siorg.also[ANOTHER] = [world.siorg.rows[900]]
    assert _kinds(_discover(world, versions, ANOTHER)) == {ANOTHER: "UPDATE"}
    world.drain()
    assert world.unit(900)["organization_id"] == world.organization(UFMT)["id"]


@pytest.mark.parametrize("many", [False, True])
def test_a_unit_that_two_structures_claim_moves_at_most_once_a_discovery(world: World, versions: Versions, many: bool) -> None:
    """Alone, it is asked for by itself, and stays where that says; among many the structure that was asked last has it."""
    world.register(ANOTHER)
    world.have(900)
    others = [siorg_row(code, ANOTHER, organization=ANOTHER) for code in range(950, 960)] if many else []
    world.siorg.publish(*others)
    world.siorg.also[ANOTHER] = [siorg_row(900, ANOTHER, organization=ANOTHER)]
    places = []
    for number in range(3):
        versions.current = f"{100 + number}.0.0"
        if many:
            for code in range(950, 960):
                world.siorg.change(code, nome=f"Unidade {code}, {number}")
        moves = len(world.history(900))
        for organization in (UFMT, ANOTHER):
            _discover(world, versions, organization)
        world.drain()
        assert len(world.history(900)) - moves <= 1
        places.append(world.unit(900)["organization_code"])
    assert places == ([ANOTHER, UFMT, ANOTHER] if many else [UFMT] * 3)


def test_siorg_unavailable_records_nothing(world: World, versions: Versions) -> None:
    world.siorg.down = SiorgUnavailable("no answer")
    with pytest.raises(SiorgUnavailable):
        _discover(world, versions)
    assert _recorded(world) is None


def test_the_organizations_that_are_discovered_are_the_active_ones(world: World) -> None:
    world.register(ANOTHER)
    assert [found.code for found in registered(world.connection, None)] == [UFMT, ANOTHER]
    world.edit_organization(ANOTHER, is_active=False)
    assert [found.code for found in registered(world.connection, None)] == [UFMT]
    assert [found.code for found in registered(world.connection, [ANOTHER])] == [ANOTHER]


# -- the command --------------------------------------------------------------------------------------------------------


def test_the_commands_do_nothing_while_the_sync_is_disabled_or_its_switch_cannot_be_read_and_say_so(world: World) -> None:
    env = job_environment(world.url, "http://127.0.0.1:9/doc")
    world.enqueue(900)
    for value, words in ((False, ["siorg.sync_enabled"]), ("perhaps", ["siorg.sync_enabled", "perhaps", "true", "false"])):
        world.setting("siorg.sync_enabled", value)
        for command in ("discover", "run"):
            said = run_job(command, env=env).stderr
            assert all(word in said for word in words), said
    assert world.statuses() == {900: "PENDING"}


def test_the_command_refuses_an_organization_that_is_not_registered(world: World) -> None:
    done = run_job("discover", "--organization", "423", env=job_environment(world.url, "http://127.0.0.1:9/doc"), code=1)
    assert "423" in done.stderr
    assert "organizations add" in done.stderr


def test_the_command_goes_back_to_the_structure_when_siorg_refuses_the_version(world: World) -> None:
    with SiorgServer("--synthetic", "60", "--history-limit", "1") as server:
        env = job_environment(world.url, server.url)
        run_job("discover", env=env)
        run_job("run", env=env)
        leaves = world.rows(
            "SELECT siorg_code FROM organizational_units u WHERE NOT EXISTS"
            " (SELECT FROM organizational_units c WHERE c.parent_id = u.id) ORDER BY 1"
        )
        leaf = [unit["siorg_code"] for unit in leaves]
        for code in leaf[:2]:
            server.control("PUT", "unit", {"code": code, "set": {"nome": "Nova"}})
        server.control("PUT", "unit", {"code": leaf[2], "remove": True})
        run_job("discover", env=env)
        waiting = world.rows("SELECT siorg_code, operation FROM siorg_sync_queue WHERE status = 'PENDING'")
        found = {row["siorg_code"]: row["operation"] for row in waiting if row["siorg_code"] != UFMT}
        assert found == {leaf[0]: "UPDATE", leaf[1]: "UPDATE", leaf[2]: "EXTINCTION"}
        run_job("run", env=env)
        assert world.unit(leaf[0])["name"] == "Nova"
        assert not world.unit(leaf[2])["is_active"]
