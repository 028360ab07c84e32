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


def _units(*codes: int) -> list[Item]:
    return [_item(code) for code in codes]


_UFMT = dict.fromkeys(range(900, 909), 471)
_ENDS = [Operation.EXTINCTION, Operation.MERGE, Operation.SPLIT] * 3
_PLANS: tuple[tuple[str, list[Item], dict[int, int], set[int], set[int], set[int]], ...] = (
    # What, the items, the organizations they seem to belong to, those whose structure is at hand; the structures and the
    # single units that are to be asked for.
    ("one alone is one small request", _units(900), _UFMT, set(), set(), {900}),
    ("three are asked for by themselves", _units(900, 901, 902), _UFMT, set(), set(), {900, 901, 902}),
    ("four are one structure", _units(900, 901, 902, 903), _UFMT, set(), {471}, set()),
    ("four of four organizations", _units(900, 901, 902, 903), {n: n + 1000 for n in _UFMT}, set(), set(), {900, 901, 902, 903}),
    ("many about one unit are one small request", _units(*[900] * 9), _UFMT, set(), set(), {900}),
    ("what is at hand serves one alone too", _units(900), _UFMT, {900}, {471}, set()),
    ("where a structure is fetched anyway the others ride along", _units(900, 901), _UFMT, {901}, {471}, set()),
    ("without a hint", _units(*_UFMT), {}, set(), set(), set(_UFMT)),
    ("ends, merges and splits", [_item(n, op) for n, op in zip(_UFMT, _ENDS, strict=True)], _UFMT, set(_UFMT), set(), set(_UFMT)),
    ("the organization itself counts", [_item(471, entity=EntityType.ORGANIZATION), *_units(900, 901, 902)], _UFMT, set(), {471},
     set()),
)  # fmt: skip


def test_as_few_requests_as_possible_are_planned() -> None:
    for what, items, hints, at_hand, structures, units in _PLANS:

        def is_at_hand(_: int, item: Item, codes: set[int] = at_hand) -> bool:
            return item.siorg_code in codes

        wanted = plan(items, hints, is_at_hand)
        assert (set(wanted.structures), set(wanted.units)) == (structures, units), what
        planned = [item.id for group in (*wanted.structures.values(), *wanted.units.values()) for item in group]
        assert sorted(planned) == sorted(item.id for item in items), what


def test_categories_and_types_are_one_table_each() -> None:
    items = [_item(code, entity=EntityType.CATEGORY) for code in (1, 2)] + [_item(1, entity=EntityType.TYPE)]
    tables = plan(items, {}, lambda _organization, _item: False).tables
    assert tables == {DomainTable.UNIT_CATEGORY: items[:2], DomainTable.UNIT_TYPE: items[2:]}


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
