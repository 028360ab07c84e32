"""The producer: what differs is enqueued, once each, and the version is recorded last."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import replace

import pytest
from psycopg.types.json import Jsonb

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
    return asyncio.run(discover(organization, versions, world.connection, store or world.store))


def _kinds(found: Discovery) -> dict[int, str]:
    return {item.siorg_code: item.operation.value for item in found.items}


def _recorded(world: World) -> str | None:
    rows = world.rows("SELECT value FROM system_settings WHERE key = 'siorg_versao:471'")
    return rows[0]["value"] if rows else None


def _later(versions: Versions, *changes: Row, version: str = "100.0.0") -> None:
    versions.current = version
    versions.changes = list(changes)


def test_the_first_time_the_whole_structure_is_enqueued_parents_first(world: World, versions: Versions) -> None:
    world.siorg.publish(siorg_row(902, 901), siorg_row(901, 900), siorg_row(900))
    found = _discover(world, versions)
    assert (found.how, found.added) == ("structure", 4)
    assert [item.siorg_code for item in found.items] == [471, 900, 901, 902]
    assert _recorded(world) == "99.0.0"
    world.drain()
    assert world.statuses() == dict.fromkeys([471, 900, 901, 902], "COMPLETED")


def test_nothing_is_asked_further_while_the_version_stands(world: World, versions: Versions) -> None:
    world.siorg.publish(siorg_row(900))
    _discover(world, versions)
    world.drain()
    versions.asked.clear()
    found = _discover(world, versions)
    assert (found.how, found.items, versions.asked) == ("unchanged", [], ["version"])


def test_what_changed_since_is_enqueued(world: World, versions: Versions) -> None:
    world.siorg.publish(siorg_row(900), siorg_row(901), siorg_row(902), siorg_row(903))
    _discover(world, versions)
    world.drain()
    _later(
        versions,
        siorg_row(900, nome="Nova", operacao="ALTERACAO", versaoConsulta="100.0.0"),
        siorg_row(901, 900, operacao="ALTERACAO", versaoConsulta="100.0.0"),
        siorg_row(902, operacao="EXCLUSAO"),
        siorg_row(910, operacao="INCLUSAO", versaoConsulta="100.0.0"),
    )
    found = _discover(world, versions)
    assert found.how == "changes"
    assert _kinds(found) == {900: "UPDATE", 901: "HIERARCHY_CHANGE", 910: "CREATION", 902: "EXTINCTION"}
    assert _recorded(world) == "100.0.0"


def test_a_refused_version_means_the_whole_structure_and_only_its_differences(world: World, versions: Versions) -> None:
    world.siorg.publish(siorg_row(900), siorg_row(901), siorg_row(902))
    _discover(world, versions)
    world.drain()
    world.siorg.change(900, nome="Nova")
    world.siorg.remove(902)
    versions.current, versions.changes = "100.0.0", None
    versions.asked.clear()
    found = _discover(world, versions)
    assert versions.asked == ["version", "since 99.0.0", "structure"]
    assert _kinds(found) == {900: "UPDATE", 902: "EXTINCTION"}


def test_ends_come_last_and_the_deepest_first(world: World, versions: Versions) -> None:
    world.siorg.publish(siorg_row(900), siorg_row(901, 900), siorg_row(902, 901), siorg_row(910))
    _discover(world, versions)
    world.drain()
    ends = [
        siorg_row(900, operacao="EXCLUSAO"),
        siorg_row(902, 901, operacao="EXCLUSAO"),
        siorg_row(901, 900, operacao="EXCLUSAO"),
    ]
    _later(versions, *ends, siorg_row(910, nome="Nova", operacao="ALTERACAO"))
    found = _discover(world, versions)
    assert [item.siorg_code for item in found.items] == [910, 902, 901, 900]
    world.siorg.remove(900, 901, 902)
    world.siorg.change(910, nome="Nova")
    world.drain()
    assert {code for code, unit in world.units().items() if unit["is_active"]} == {910}


def test_an_end_of_what_was_never_here_is_not_enqueued(world: World, versions: Versions) -> None:
    world.siorg.publish(siorg_row(900))
    _discover(world, versions)
    world.drain()
    _later(versions, siorg_row(999, operacao="EXCLUSAO"))
    assert _discover(world, versions).items == []


def test_half_a_structure_is_not_believed(world: World, versions: Versions) -> None:
    world.siorg.publish(*[siorg_row(code) for code in range(900, 930)])
    _discover(world, versions)
    world.drain()
    world.siorg.remove(*range(900, 920))
    versions.current, versions.changes = "100.0.0", None
    with pytest.raises(MalformedResponse, match="lacks 20 of the 30"):
        _discover(world, versions)
    assert _recorded(world) == "99.0.0"
    assert {row["status"] for row in world.rows("SELECT status FROM siorg_sync_queue")} == {"COMPLETED"}


def test_a_small_organization_may_lose_most_of_its_units(world: World, versions: Versions) -> None:
    world.siorg.publish(siorg_row(900), siorg_row(901), siorg_row(902))
    _discover(world, versions)
    world.drain()
    world.siorg.remove(900, 901)
    versions.current, versions.changes = "100.0.0", None
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


def test_twice_before_a_drain_enqueues_once(world: World, versions: Versions) -> None:
    world.siorg.publish(siorg_row(900))
    assert _discover(world, versions).added == 2
    assert _discover(world, versions).added == 0


def test_a_row_that_cannot_be_read_is_enqueued_and_ends_with_its_reason(world: World, versions: Versions) -> None:
    world.siorg.publish(siorg_row(900), siorg_row(901, nome=["x"]))
    assert _kinds(_discover(world, versions)) == {471: "UPDATE", 900: "CREATION", 901: "UPDATE"}
    world.drain()
    assert world.statuses() == {471: "COMPLETED", 900: "COMPLETED", 901: "FAILED"}
    assert "nome" in world.items(901)[0]["last_error"]


def test_an_ended_row_that_a_person_opened_again_is_left_alone(world: World, versions: Versions) -> None:
    world.siorg.publish(siorg_row(900), siorg_row(901))
    _discover(world, versions)
    world.drain()
    world.siorg.remove(900)
    world.sync(900, operation="EXTINCTION")
    world.edit(900, is_active=True)
    versions.current, versions.changes = "100.0.0", None
    assert _discover(world, versions).items == []


def test_a_unit_that_moved_here_from_another_organization_is_enqueued(world: World, versions: Versions) -> None:
    world.register(ANOTHER)
    world.siorg.publish(siorg_row(900), siorg_row(950, ANOTHER, organization=ANOTHER))
    world.sync(950)
    _discover(world, versions)
    world.drain()
    _later(versions, siorg_row(950, 900, operacao="ALTERACAO"))
    assert _kinds(_discover(world, versions)) == {950: "HIERARCHY_CHANGE"}


def test_a_linked_organization_is_not_this_ones_business(world: World, versions: Versions) -> None:
    world.siorg.publish(siorg_row(900))
    _discover(world, versions)
    world.drain()
    _later(versions, siorg_row(950, 900, organization=950, operacao="INCLUSAO"))
    assert _discover(world, versions).items == []


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


def test_the_command_does_nothing_while_the_sync_is_disabled_and_says_so(world: World) -> None:
    world.connection.execute("UPDATE system_settings SET value = %s WHERE key = 'siorg.sync_enabled'", [Jsonb(False)])
    env = job_environment(world.url, "http://127.0.0.1:9/doc")
    assert "siorg.sync_enabled" in run_job("discover", env=env).stderr
    world.enqueue(900)
    done = run_job("run", env=env)
    assert "siorg.sync_enabled" in done.stderr
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
        leaf = world.rows(
            "SELECT siorg_code FROM organizational_units u WHERE NOT EXISTS"
            " (SELECT FROM organizational_units c WHERE c.parent_id = u.id) ORDER BY 1"
        )
        for unit in leaf[:2]:
            server.control("PUT", "unit", {"code": unit["siorg_code"], "set": {"nome": "Nova"}})
        server.control("PUT", "unit", {"code": leaf[2]["siorg_code"], "remove": True})
        run_job("discover", env=env)
        waiting = world.rows("SELECT siorg_code, operation FROM siorg_sync_queue WHERE status = 'PENDING'")
        expected = {leaf[0]["siorg_code"]: "UPDATE", leaf[1]["siorg_code"]: "UPDATE", leaf[2]["siorg_code"]: "EXTINCTION"}
        found = {row["siorg_code"]: row["operation"] for row in waiting if row["siorg_code"] != UFMT}
        assert found == expected
        run_job("run", env=env)
        assert world.unit(leaf[0]["siorg_code"])["name"] == "Nova"
        assert not world.unit(leaf[2]["siorg_code"])["is_active"]


def test_payloads_are_what_siorg_sent(world: World, versions: Versions) -> None:
    row = siorg_row(900, nome=" Secretaria ")
    world.siorg.publish(row)
    (found,) = [item for item in _discover(world, versions).items if item.siorg_code == 900]
    assert found.payload == json.loads(json.dumps(row))
    assert replace(found).priority == 5
