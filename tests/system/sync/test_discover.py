"""The producer: what differs is enqueued, once each, and the version is recorded last."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any, cast

import pytest
from psycopg.types.json import Jsonb

from siorg_job.reconciliation.discover import Discovery, asked_for, discover, registered
from siorg_job.siorg.errors import SiorgUnavailable
from siorg_job.siorg.model import RemoteUnit, Structure
from siorg_job.sync.compare import Comparison, compare
from siorg_queue import NewItem, QueueStore
from support.job import job_environment, run_job
from support.local_structure import ANOTHER, UFMT, Row, World, siorg_row
from support.siorg_server import SiorgServer


class Versions:
    """SIORG's side of a discovery, over the made-up rows."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.current = "99.0.0"
        self.asked: list[str] = []

    async def version(self, organization: int) -> str:
        self.asked.append("version")
        return self.current

    async def unit(self, code: int) -> RemoteUnit:
        self.asked.append(f"unit {code}")
        return await self.world.siorg.unit(code)

    async def structure(self, organization: int) -> Structure:
        self.asked.append("structure")
        return await self.world.siorg.structure(organization)


@pytest.fixture
def versions(world: World) -> Versions:
    return Versions(world)


def _discover(
    world: World, versions: Versions, code: int = UFMT, store: QueueStore | None = None, *, full: bool = False
) -> Discovery:
    (organization,) = registered(world.connection, [code])
    return asyncio.run(discover(organization, cast("Any", versions), world.connection, store or world.store, full=full))


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


def test_the_first_time_the_whole_structure_is_enqueued_parents_first_and_once(world: World, versions: Versions) -> None:
    world.siorg.publish(siorg_row(902, 901), siorg_row(901, 900), siorg_row(900, nome=" Secretaria "))
    found = _discover(world, versions)
    assert (found.how, found.added) == ("structure", 4)
    assert [item.siorg_code for item in found.items] == [471, 900, 901, 902]
    assert json.loads(found.items[1].payload) == world.siorg.rows[900]  # what SIORG sent
    assert world.rows("SELECT DISTINCT priority FROM siorg_sync_queue") == [{"priority": 5}]
    assert _recorded(world) == "99.0.0"
    assert _discover(world, versions).added == 0
    world.drain()
    assert world.statuses() == dict.fromkeys([471, 900, 901, 902], "COMPLETED")
    for how, asked in (("structure", ["version", "structure"]), ("unchanged", ["version"])):  # once more, since much differed
        versions.asked.clear()
        found = _discover(world, versions)
        assert (found.how, list(found.items), versions.asked) == (how, [], asked)


def test_what_differs_is_enqueued(world: World, versions: Versions) -> None:
    world.register(ANOTHER)
    _discovered(world, versions, 900, 901, 902, 903, 904, 905)
    world.siorg.change(900, nome="Nova")
    world.siorg.change(901, parent=900)
    world.siorg.change(905, versaoConsulta="100.0.0")
    world.siorg.remove(902, 903)
    world.siorg.publish(siorg_row(910), siorg_row(950, 900, organization=950))  # the latter is one of its own
    world.sync(903, operation="EXTINCTION")
    world.edit(903, is_active=True)  # opened again by a person: left alone
    world.edit(904, name="Minha")  # edited by a person: left alone as well
    found = _discover(world, versions, full=True)
    assert found.how == "structure"
    assert _kinds(found) == {900: "UPDATE", 901: "HIERARCHY_CHANGE", 910: "CREATION", 905: "UPDATE", 902: "EXTINCTION"}


def test_a_version_that_stands_still_proves_nothing(world: World, versions: Versions) -> None:
    _discovered(world, versions, 900)
    assert _discover(world, versions).items == []
    world.siorg.change(900, nome="Nova")
    assert _discover(world, versions).how == "unchanged"
    _time_passes(world, "7 days")
    assert _kinds(_discover(world, versions)) == {900: "UPDATE"}


def test_the_structure_is_compared_again_a_day_after_the_version_moved(world: World, versions: Versions) -> None:
    """However often it was in the hours before."""
    _discovered(world, versions, 900)
    versions.current = "100.0.0"
    hows = []
    for _ in range(6):
        hows.append([_discover(world, versions).how for _ in range(3)])
        _time_passes(world, "8 hours")
    assert [found.count("structure") for found in hows] == [2, 0, 0, 1, 0, 0]
    assert hows[3][0] == "structure"


def _time_passes(world: World, time: str) -> None:
    with world.connection.transaction():
        world.connection.execute("ALTER TABLE system_settings DISABLE TRIGGER USER")
        world.connection.execute("UPDATE system_settings SET updated_at = updated_at - %s::interval", [time])
        world.connection.execute("ALTER TABLE system_settings ENABLE TRIGGER USER")


def test_a_version_that_moved_does_not_prove_that_the_rows_have(world: World, versions: Versions) -> None:
    _discovered(world, versions, 900)
    _discover(world, versions)
    versions.current = "100.0.0"
    assert _discover(world, versions).items == []  # the new version with the old values
    world.siorg.change(900, nome="Nova")
    assert _kinds(_discover(world, versions)) == {900: "UPDATE"}


def test_what_changed_here_without_siorg_is_mended(world: World, versions: Versions) -> None:
    """A row that another program wrote back to what it was, values and notes, is no person's edit."""
    _discovered(world, versions, 900)
    old = world.unit(900)
    world.sync_changed(900, nome="Nova")
    world.edit(900, name=old["name"], siorg_base=Jsonb(old["siorg_base"]), siorg_synced_at=old["siorg_synced_at"])
    assert _kinds(_discover(world, versions, full=True)) == {900: "UPDATE"}
    world.drain()
    assert world.unit(900)["name"] == "Nova"


@pytest.mark.parametrize("decision", ["open", "skipped", "kept"])
def test_a_dispute_is_asked_again_only_where_it_was_put_off(world: World, versions: Versions, decision: str) -> None:
    _discovered(world, versions, 900)
    world.edit(900, name="Minha")
    item = world.sync_changed(900, nome="Nova")
    if decision == "skipped":
        assert world.decisions.skip_conflict(item["id"])
    elif decision == "kept":
        world.connection.execute(
            "UPDATE siorg_sync_queue SET status = 'COMPLETED', processed_at = now() WHERE id = %s", [item["id"]]
        )
    again = {} if decision == "open" else {900: "UPDATE"}  # of what was kept a note is made: the queue forgets it one day
    assert _kinds(_discover(world, versions, full=True)) == again
    if decision == "kept":
        world.drain()
        world.connection.execute("UPDATE siorg_history SET sync_queue_id = NULL")
        world.connection.execute("DELETE FROM siorg_sync_queue")
        assert _kinds(_discover(world, versions, full=True)) == {}
    world.siorg.change(900, nome="Mais nova")
    assert _kinds(_discover(world, versions, full=True)) == {900: "UPDATE"}


def test_the_rest_of_a_row_in_dispute_waits_for_the_decision(world: World, versions: Versions) -> None:
    """Nothing of it is written before: another item could only ask the same."""
    _discovered(world, versions, 900)
    world.edit(900, name="Minha")
    item = world.sync_changed(900, nome="Nova", sigla="N", versaoConsulta="99.1.0")
    assert _discover(world, versions, full=True).items == []
    world.decide(item["id"], "MERGE", field_resolutions={"name": "LOCAL"})
    unit = world.unit(900)
    assert (unit["name"], unit["acronym"], unit["siorg_last_version"]) == ("Minha", "N", "99.1.0")
    assert _discover(world, versions, full=True).items == []


def test_a_parent_that_is_not_in_the_structure_is_asked_for(world: World, versions: Versions) -> None:
    world.register(ANOTHER)
    _discovered(world, versions, siorg_row(900), siorg_row(901, 900), siorg_row(910), siorg_row(911, 910))
    world.siorg.change(900, organization=ANOTHER, parent=ANOTHER)
    world.siorg.remove(910)
    versions.asked.clear()
    found = _kinds(_discover(world, versions, full=True))
    assert versions.asked == ["version", "structure", "unit 900", "unit 910"]
    assert found == {901: "HIERARCHY_CHANGE", 900: "HIERARCHY_CHANGE", 910: "EXTINCTION"}  # 911 stays below what is here still


def test_ends_come_last_and_the_deepest_first(world: World, versions: Versions) -> None:
    _discovered(world, versions, siorg_row(900), siorg_row(901, 900), siorg_row(902, 901), siorg_row(910))
    world.siorg.remove(900, 901, 902)
    world.siorg.change(910, nome="Nova")
    found = _discover(world, versions, full=True)
    assert [item.siorg_code for item in found.items] == [910, 902, 901, 900]
    world.drain()
    assert {code for code, unit in world.units().items() if unit["is_active"]} == {910}


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
    world.siorg.publish(siorg_row(950, 900))
    assert _kinds(_discover(world, versions, full=True)) == {950: "HIERARCHY_CHANGE"}


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


def test_a_comparison_may_take_long_on_a_slow_machine(world: World, versions: Versions, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server ends a transaction in which nothing is asked for long; this one holds no rows that others wait for."""
    world.siorg.publish(siorg_row(900))
    silences: list[float] = []

    def slowly(*arguments: Any) -> Comparison:
        sql = "SELECT extract(epoch FROM current_setting('idle_in_transaction_session_timeout')::interval)::float8 AS seconds"
        silences.extend(row["seconds"] for row in world.connection.execute(sql))
        return compare(*arguments)

    monkeypatch.setattr("siorg_job.reconciliation.compared.compare", slowly)
    _discover(world, versions)
    assert silences
    assert min(silences) >= 300


def test_siorg_unavailable_records_nothing(world: World, versions: Versions) -> None:
    world.siorg.down = SiorgUnavailable("no answer")
    with pytest.raises(SiorgUnavailable):
        _discover(world, versions)
    assert _recorded(world) is None


def test_the_organizations_that_are_compared_are_the_active_ones(world: World, versions: Versions) -> None:
    world.register(ANOTHER)
    world.edit_organization(ANOTHER, is_active=False)
    assert [found.code for found in registered(world.connection, None)] == [UFMT]
    assert [(found.code, found.is_active) for found in asked_for(world.connection, None)] == [(UFMT, True), (ANOTHER, False)]
    assert [found.code for found in registered(world.connection, [ANOTHER])] == [ANOTHER]
    assert (_discover(world, versions, ANOTHER).how, versions.asked) == ("inactive", ["version"])


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


def test_a_unit_that_is_missing_and_cannot_be_read_by_itself_keeps_no_other_back(world: World, versions: Versions) -> None:
    _discovered(world, versions, 900, 901)
    world.siorg.change(900, organization=423, sigla="X" * 51)
    world.siorg.change(901, nome="Nova")
    _discover(world, versions, full=True)
    world.drain()
    assert (world.unit(901)["name"], world.unit(900)["is_active"], world.statuses()[900]) == ("Nova", True, "FAILED")
