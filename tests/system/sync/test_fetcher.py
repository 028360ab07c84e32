"""No more requests are made than the plan says, and none twice while its answer is fresh."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from siorg_job.siorg.errors import MalformedResponse, SiorgUnavailable
from siorg_job.siorg.model import RemoteUnit, Structure
from siorg_job.sync.model import Fetched
from siorg_queue import clock
from support.job import job_environment, run_job, summary_of
from support.local_structure import UFMT, World, siorg_row
from support.siorg_server import SiorgServer


def test_nothing_is_fetched_twice_while_it_is_fresh(world: World) -> None:
    world.siorg.publish(*[siorg_row(code) for code in range(900, 940)])
    world.enqueue(*range(900, 940), payload=siorg_row(1))
    world.drain(at_a_time=10)
    assert world.siorg.requests == ["structure 471"]


def test_an_item_younger_than_the_answer_is_fetched_for_again(world: World) -> None:
    world.siorg.publish(*[siorg_row(code) for code in range(900, 904)])
    fetcher = world.fetcher()
    world.enqueue(*range(900, 904), payload=siorg_row(1))
    world.apply(world.fetch(world.claim(), fetcher))
    world.siorg.change(900, nome="Nova")
    world.enqueue(900)
    world.apply(world.fetch(world.claim(), fetcher))
    assert world.siorg.requests == ["structure 471", "unit 900"]
    assert world.unit(900)["name"] == "Nova"


def test_a_wrong_hint_costs_requests_and_nothing_else(world: World) -> None:
    world.siorg.publish(*[siorg_row(code) for code in range(900, 904)])
    world.enqueue(*range(900, 904), payload={"codigoUnidade": 1, "codigoOrgaoEntidade": 471})
    world.siorg.remove(901)
    world.drain()
    assert world.siorg.requests == ["structure 471", "unit 901"]
    assert world.statuses()[901] == "FAILED"


async def _hangs(_organization: int) -> Structure:
    await asyncio.Event().wait()
    raise AssertionError


async def _is_down(_organization: int) -> Structure:
    raise SiorgUnavailable("SIORG cannot answer now (HTTP 503)")


async def _is_torn(_organization: int) -> Structure:
    raise MalformedResponse("SIORG's answer broke off before its end")


@pytest.mark.parametrize("structure", [_hangs, _is_down, _is_torn])
def test_while_structures_are_not_served_each_unit_is_asked_for(
    world: World, structure: Callable[[int], Awaitable[Structure]]
) -> None:
    world.siorg.publish(*[siorg_row(code) for code in range(900, 910)])
    world.enqueue(*range(900, 910), 900, payload=siorg_row(1))
    world.siorg.structure = structure  # type: ignore[assignment, method-assign]
    world.apply(world.fetch(world.claim(), world.fetcher(item_seconds=2.0)))
    assert set(world.statuses().values()) == {"COMPLETED"}
    assert sorted(world.siorg.requests) == [f"unit {code}" for code in range(900, 910)]


def test_a_question_waits_for_its_turn_and_its_time_begins_with_it(world: World) -> None:
    world.siorg.publish(*[siorg_row(code) for code in range(900, 910)])
    world.enqueue(*range(900, 910))
    answer, asked = world.siorg.unit, 0

    async def hangs_twice(code: int) -> RemoteUnit:
        nonlocal asked
        asked += 1
        if asked <= 2:
            await asyncio.Event().wait()
        return await answer(code)

    world.siorg.unit = hangs_twice  # type: ignore[method-assign]
    fetcher = world.fetcher(item_seconds=2.0, at_once=2)
    assert fetcher.room == 2
    world.apply(world.fetch(world.claim(), fetcher))  # the others have waited longer than one of them may take
    assert Counter(world.statuses().values()) == {"PENDING": 2, "COMPLETED": 8}
    assert fetcher.room == 2


def test_of_what_one_question_serves_more_can_be_held_beside_it(world: World) -> None:
    world.siorg.publish(*[siorg_row(code) for code in range(900, 940)])
    world.enqueue(*range(900, 940), payload=siorg_row(1))
    rooms: list[int] = []

    async def structure(organization: int) -> Structure:
        rooms.append(fetcher.room)
        return await answer(organization)

    answer, world.siorg.structure = world.siorg.structure, structure  # type: ignore[method-assign]
    fetcher = world.fetcher(at_once=4)
    world.fetch(world.claim(10), fetcher)
    assert rooms == [3 * 10]


def test_a_whole_organization_takes_at_most_one_request_for_100_items(database_url: str, tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    with SiorgServer("--synthetic", "500", request_log=log) as server:
        env = job_environment(database_url, server.url)
        run_job("discover", "--organization", "471", env=env)
        before = len(server.requests())
        summary = summary_of(run_job("run", env=env).stdout)
        asked = [request["path"].split("?")[0] for request in server.requests()[before:]]
    assert summary["completed"] == 500
    assert summary["batches"] <= 8, summary  # nobody said of how many items
    assert len(asked) <= 5, Counter(asked)


@pytest.mark.parametrize("payload", [None, siorg_row(1)], ids=["unit", "structure"])
def test_an_answer_is_as_old_as_its_question(world: World, payload: dict[str, Any] | None) -> None:
    world.siorg.publish(*map(siorg_row, range(900, 904)))
    received: dict[int, datetime] = {}

    def noting(ask: Callable[[int], Awaitable[Any]]) -> Callable[[int], Awaitable[Any]]:
        async def noted(code: int) -> Any:
            received[code] = clock(world.connection)
            return await ask(code)

        return noted

    siorg: Any = world.siorg
    siorg.unit, siorg.structure = noting(siorg.unit), noting(siorg.structure)
    world.enqueue(*range(900, 904), payload=payload)
    answers = [(item.siorg_code, found.asked_at) for item, found in world.fetched() if isinstance(found, Fetched)]
    assert len(answers) == 4
    assert all(asked_at <= (received.get(code) or received[UFMT]) for code, asked_at in answers)
