"""SIORG changes while an item waits or is in work: no answer from before that is applied, whoever fetched it and kept it."""

from __future__ import annotations

import asyncio
import signal
import urllib.request
from pathlib import Path
from typing import Any, cast

import pytest
from psycopg.types.json import Jsonb

from siorg_job.fetch.fetcher import Fetcher
from siorg_job.reconciliation.discover import Discovery, discover, registered
from siorg_job.siorg.model import RemoteUnit, Structure
from siorg_job.siorg.rows import read_structure
from siorg_queue import connect
from support.fleet import Fleet, eventually
from support.job import job_environment, run_job
from support.local_structure import ANOTHER, UFMT, World, siorg_row
from support.queue import number
from support.siorg_server import SiorgServer

OTHERS = range(901, 905)
"""As many as make their structure the cheaper request."""


class Producer:
    """Discoveries of one organization, each of a newer version."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._version = 0

    async def version(self, _: int) -> str:
        self._version += 1
        return f"{self._version}.0.0"

    async def structure(self, organization: int) -> Structure:
        return await self._world.siorg.structure(organization)

    async def unit(self, code: int) -> RemoteUnit:
        return await self._world.siorg.unit(code)

    def discover(self, code: int = UFMT) -> Discovery:
        (organization,) = registered(self._world.connection, [code])
        return asyncio.run(discover(organization, cast("Any", self), self._world.connection, self._world.store))


@pytest.fixture
def producer(world: World) -> Producer:
    """An organization that was discovered and drained, with units of which one can tell the changes of others."""
    found = Producer(world)
    world.siorg.publish(*map(siorg_row, (900, *OTHERS)))
    found.discover()
    world.drain()
    return found


def _cached(world: World) -> Fetcher:
    """A fetcher that has the structure as it is now."""
    fetcher = world.fetcher()
    world.enqueue(*OTHERS, priority=1)
    world.apply(world.fetch(world.claim(len(OTHERS)), fetcher))
    assert world.siorg.requests[-1] == "structure 471"
    return fetcher


def _drain(world: World, fetcher: Fetcher) -> None:
    """Everything that waits, with what this fetcher has kept."""
    while items := world.claim():
        world.apply(world.fetch(items, fetcher))


def _waits_beside_its_answer(world: World, producer: Producer, code: int, **fields: Any) -> Fetcher:
    """A unit that was changed (or made) waits, and a process has kept the structure in which it is so."""
    if fields:
        world.siorg.change(code, **fields)
    else:
        world.siorg.publish(siorg_row(code))
    assert [item.siorg_code for item in producer.discover().items] == [code]
    return _cached(world)


def test_a_change_while_an_item_waits_is_in_its_answer(world: World, producer: Producer) -> None:
    fetcher = _waits_beside_its_answer(world, producer, 900, nome="Nova")
    world.siorg.change(900, nome="Novíssima")
    assert producer.discover().added == 0  # it waits already
    _drain(world, fetcher)
    assert world.unit(900)["name"] == "Novíssima"


def test_what_is_young_enough_is_not_asked_for_again(world: World, producer: Producer) -> None:
    fetcher = _waits_beside_its_answer(world, producer, 900, nome="Nova")
    world.siorg.requests.clear()
    _drain(world, fetcher)
    assert world.unit(900)["name"] == "Nova"
    assert world.siorg.requests == []


def test_a_change_that_was_undone_while_its_item_waits_is_not_applied(world: World, producer: Producer) -> None:
    fetcher = _waits_beside_its_answer(world, producer, 900, nome="Nova")
    world.siorg.change(900, nome="Unidade 900")
    assert producer.discover().items == []
    _drain(world, fetcher)
    assert world.unit(900)["name"] == "Unidade 900"
    assert len(world.history(900)) == 1


def test_a_unit_that_ended_while_its_creation_waits_is_not_created(world: World, producer: Producer) -> None:
    fetcher = _waits_beside_its_answer(world, producer, 950)
    world.siorg.remove(950)
    producer.discover()
    _drain(world, fetcher)
    assert world.find(950) is None


def test_a_unit_that_ended_while_its_creation_is_in_work_is_not_created(world: World, producer: Producer) -> None:
    fetcher = _waits_beside_its_answer(world, producer, 950)
    works = world.fetch(world.claim(), fetcher)
    world.siorg.remove(950)
    producer.discover()
    world.apply(works)
    (item,) = world.items(950)
    assert (item["status"], item["attempts"]) == ("PENDING", 0)  # given back: it has done nothing wrong
    assert "asking again" in item["last_error"]
    _drain(world, fetcher)
    assert world.find(950) is None


def test_a_unit_that_ended_while_its_return_waits_does_not_return(world: World, producer: Producer) -> None:
    world.siorg.remove(900)
    producer.discover()
    world.drain()
    row = siorg_row(900, nome="De volta")
    world.siorg.publish(row)
    assert [item.siorg_code for item in producer.discover().items] == [900]
    fetcher = _cached(world)
    world.siorg.remove(900)
    producer.discover()
    _drain(world, fetcher)
    assert not world.unit(900)["is_active"]


def test_a_change_while_an_item_is_in_work_has_an_item_of_its_own(world: World, producer: Producer) -> None:
    world.siorg.change(900, nome="Nova")
    producer.discover()
    fetcher = world.fetcher()
    works = world.fetch(world.claim(), fetcher)
    world.siorg.change(900, nome="Novíssima")
    assert producer.discover().added == 1
    world.apply(works)
    _drain(world, fetcher)
    assert world.unit(900)["name"] == "Novíssima"
    assert [item["status"] for item in world.items(900)][-2:] == ["COMPLETED", "COMPLETED"]
    assert [row["new_data"]["name"] for row in world.history(900)] == ["Unidade 900", "Novíssima"]


def test_the_items_of_other_organizations_are_left_alone(world: World, producer: Producer) -> None:
    world.register(ANOTHER)
    world.siorg.publish(siorg_row(950, ANOTHER, organization=ANOTHER), siorg_row(910))
    other = producer.discover(ANOTHER).items
    before = {item.siorg_code: world.items(item.siorg_code)[-1] for item in other}
    producer.discover()
    assert {code: world.items(code)[-1] for code in before} == before


def test_a_decision_on_a_conflict_is_carried_out_on_an_answer_from_after_it(world: World, producer: Producer) -> None:
    world.edit(900, name="Nossa")
    fetcher = _waits_beside_its_answer(world, producer, 900, nome="Nova")
    _drain(world, fetcher)
    conflict = world.items(900)[-1]
    assert conflict["status"] == "CONFLICT"
    world.siorg.change(900, nome="Novíssima")
    world.resolve(conflict["id"], "ACCEPT_SIORG")
    _drain(world, fetcher)
    assert world.unit(900)["name"] == "Novíssima"


# -- processes ----------------------------------------------------------------------------------------------------------


def _names(siorg: SiorgServer) -> dict[int, str | None]:
    """Names of the units that SIORG has now, by code."""
    path = f"/estrutura-organizacional/completa?codigoPoder=1&codigoEsfera=1&codigoUnidade={UFMT}"
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
        f"{siorg.url}{path}&retornarOrgaoEntidadeVinculados=NAO", timeout=30
    ) as answer:
        units = read_structure(answer.read(), UFMT).units
    return {code: unit.name for code, unit in units.items() if code != UFMT}


@pytest.mark.parametrize("processes", [1, 2])
def test_no_process_loses_a_change_among_hundreds(database_url: str, tmp_path: Path, processes: int) -> None:
    arguments = ("--synthetic", "400", "--synthetic-changes", "300", "--latency-ms", "100")
    limits = {"SIORG_MAX_ENDS": "1000"}  # some twenty end
    with (
        SiorgServer(*arguments, request_log=tmp_path / "requests.jsonl") as siorg,
        connect(database_url, application_name="test") as connection,
        Fleet(job_environment(database_url, siorg.url, WORKER_POLL_INTERVAL_SECS="1", **limits), tmp_path) as fleet,
    ):
        env = job_environment(database_url, siorg.url, **limits)
        connection.execute("UPDATE system_settings SET value = '20' WHERE key = 'units.max_hierarchy_depth'")  # 11 are made
        siorg.control("PUT", "snapshot", {"index": 0})
        before = _names(siorg)
        run_job("discover", env=env)
        connection.execute("UPDATE siorg_sync_queue SET scheduled_for = 'infinity'")
        asked = len(_structures(siorg))
        jobs = [fleet.start("run", "--forever") for _ in range(processes)]

        def let(count: str) -> None:
            connection.execute(
                "UPDATE siorg_sync_queue SET scheduled_for = now() WHERE id IN (SELECT id FROM siorg_sync_queue"
                f" WHERE scheduled_for = 'infinity' ORDER BY created_at LIMIT {count})".encode()
            )

        def everybody_has_the_structure() -> bool:
            let("10")
            return len(_structures(siorg)) - asked >= processes

        eventually(everybody_has_the_structure, every=0.2)
        siorg.control("PUT", "snapshot", {"index": 1})
        after = _names(siorg)
        run_job("discover", env=env)
        assert number(connection, "SELECT count(*) FROM siorg_sync_queue WHERE status = 'PENDING'") > 200
        let("ALL")
        unfinished = "SELECT count(*) FROM siorg_sync_queue WHERE status IN ('PENDING', 'PROCESSING')"
        eventually(lambda: number(connection, unfinished) == 0, seconds=60.0)
        for job in jobs:
            job.send(signal.SIGTERM)
            assert job.ends() == 0
        rows = connection.execute(
            "SELECT siorg_code AS code, name FROM organizational_units WHERE siorg_code IS NOT NULL AND is_active"
        )
        assert {row["code"]: row["name"] for row in rows} == after
        assert sum(before.get(code) != name for code, name in after.items()) > 50


def _structures(siorg: SiorgServer) -> list[dict[str, Any]]:
    return [request for request in siorg.requests() if request["path"].endswith("/estrutura-organizacional/completa")]


@pytest.mark.parametrize(("details", "status"), [({}, "COMPLETED"), ({"resolution": "ACCEPT_SIORG"}, "PENDING")])
def test_a_late_answer_that_a_unit_is_an_organization_now_says_nothing_but_leaves_a_decision_to_be_carried_out(
    world: World, details: dict[str, str], status: str
) -> None:
    world.have(900)
    world.siorg.publish(siorg_row(900, 1, organization=900))
    (id_,) = world.enqueue(900, error_details=Jsonb(details))
    works = world.fetched()
    world.connection.execute("UPDATE organizational_units SET siorg_synced_at = clock_timestamp()")  # by a newer one
    world.apply(works)
    assert (world.item(id_)["status"], world.unit(900)["is_active"]) == (status, True)
