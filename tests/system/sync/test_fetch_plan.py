"""Which requests a batch needs, and that no more are made."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from siorg_job.fetch.plan import plan
from siorg_job.siorg.model import DomainTable
from siorg_queue import EntityType, Item, Operation
from support.job import job_environment, run_job, summary_of
from support.local_structure import World, siorg_row
from support.siorg_server import SiorgServer

_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _item(code: int, operation: Operation = Operation.UPDATE, entity: EntityType = EntityType.UNIT) -> Item:
    return Item(uuid4(), entity, code, operation, 5, {}, 1, 3, 1, _NOW)


def _never(_organization: int, _item: Item) -> bool:
    return False


def _of(organization: int, *items: Item) -> dict[int, int]:
    return {item.siorg_code: organization for item in items}


def test_one_alone_is_one_small_request() -> None:
    item = _item(900)
    wanted = plan([item], _of(471, item), _never)
    assert (wanted.units, wanted.structures) == ({900: [item]}, {})


def test_three_of_one_organization_are_asked_for_by_themselves() -> None:
    items = [_item(code) for code in (900, 901, 902)]
    assert set(plan(items, _of(471, *items), _never).units) == {900, 901, 902}


def test_four_of_one_organization_are_one_structure() -> None:
    items = [_item(code) for code in (900, 901, 902, 903)]
    wanted = plan(items, _of(471, *items), _never)
    assert (wanted.structures, wanted.units) == ({471: items}, {})


def test_four_of_four_organizations_are_four_small_requests() -> None:
    items = [_item(code) for code in (900, 901, 902, 903)]
    wanted = plan(items, {item.siorg_code: item.siorg_code + 1000 for item in items}, _never)
    assert not wanted.structures


def test_many_items_about_one_unit_are_one_small_request() -> None:
    items = [_item(900) for _ in range(9)]
    assert plan(items, _of(471, *items), _never).units == {900: items}


def test_what_is_fresh_serves_one_alone_too() -> None:
    item = _item(900)
    assert plan([item], _of(471, item), lambda organization, _: organization == 471).structures == {471: [item]}


def test_where_a_structure_is_fetched_anyway_the_others_ride_along() -> None:
    young, old = _item(900), _item(901)
    wanted = plan([young, old], _of(471, young, old), lambda _, item: item is old)
    assert wanted.structures == {471: [old, young]}
    assert wanted.units == {}


def test_without_a_hint_a_unit_is_asked_for_by_itself() -> None:
    items = [_item(code) for code in range(900, 910)]
    assert len(plan(items, {}, _never).units) == 10


def test_ends_merges_and_splits_are_asked_for_by_themselves() -> None:
    items = [
        _item(900 + number, operation)
        for number, operation in enumerate([Operation.EXTINCTION, Operation.MERGE, Operation.SPLIT] * 3)
    ]
    wanted = plan(items, _of(471, *items), lambda *_: True)
    assert not wanted.structures
    assert len(wanted.units) == 9


def test_the_organization_itself_counts_as_one_of_its_own() -> None:
    items = [_item(471, entity=EntityType.ORGANIZATION), *(_item(code) for code in (900, 901, 902))]
    assert plan(items, _of(471, *items[1:]), _never).structures == {471: items}


def test_categories_and_types_are_one_table_each() -> None:
    items = [_item(code, entity=EntityType.CATEGORY) for code in (1, 2)] + [_item(1, entity=EntityType.TYPE)]
    assert plan(items, {}, _never).tables == {DomainTable.UNIT_CATEGORY: items[:2], DomainTable.UNIT_TYPE: items[2:]}


# -- carried out --------------------------------------------------------------------------------------------------------


def test_nothing_is_fetched_twice_while_it_is_fresh(world: World) -> None:
    world.siorg.publish(*[siorg_row(code) for code in range(900, 940)])
    world.enqueue(*range(900, 940), payload=siorg_row(1))
    world.drain(at_a_time=10)
    assert world.siorg.requests == ["structure 471"]


def test_what_is_no_longer_fresh_is_fetched_again(world: World) -> None:
    world.siorg.publish(*[siorg_row(code) for code in range(900, 908)])
    fetcher = world.fetcher(fresh_seconds=0.0)
    for codes in (range(900, 904), range(904, 908)):
        world.enqueue(*codes, payload=siorg_row(1))
        world.apply(world.fetch(world.claim(), fetcher))
    assert world.siorg.requests == ["structure 471"] * 2


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


def test_a_whole_organization_takes_at_most_one_request_for_100_items(database_url: str, tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    with SiorgServer("--synthetic", "500", request_log=log) as server:
        env = job_environment(database_url, server.url)
        run_job("discover", env=env)
        before = len(server.requests())
        summary = summary_of(run_job("run", env=env).stdout)
        asked = [request["path"].split("?")[0] for request in server.requests()[before:]]
    assert summary["completed"] == 500
    assert len(asked) <= 5, Counter(asked)
