"""Names of categories, which are unique here: exchanged, passed on, edited, taken, and used twice by SIORG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

import pytest

from siorg_job.siorg.model import DomainTable
from siorg_job.sync.apply import Work, apply
from siorg_queue import Connection, QueueStore, connect, transaction
from support.local_structure import World, siorg_row, wait_until

Names = Mapping[int, str]


@dataclass(frozen=True)
class Case:
    """SIORG's table before and after, what people did between, and what follows."""

    before: Names
    after: Names
    here: Names
    """By code; code 0 stands for the category without one."""
    changed: set[int]
    """Codes with a history row."""
    edits: Mapping[int, str] = field(default_factory=dict)
    """Names that a person gave categories between, by code."""
    local: str | None = None
    """A category that a person made between."""
    conflicts: set[int] = field(default_factory=set)


_CASES = {
    "swap": Case({6: "A", 7: "B"}, {6: "B", 7: "A"}, {6: "B", 7: "A"}, {6, 7}),
    "ring": Case({6: "A", 7: "B", 8: "C"}, {6: "B", 7: "C", 8: "A"}, {6: "B", 7: "C", 8: "A"}, {6, 7, 8}),
    "ring the other way": Case({6: "A", 7: "B", 8: "C"}, {6: "C", 7: "A", 8: "B"}, {6: "C", 7: "A", 8: "B"}, {6, 7, 8}),
    "chain": Case({6: "A", 7: "B", 8: "C"}, {6: "B", 7: "C", 8: "D"}, {6: "B", 7: "C", 8: "D"}, {6, 7, 8}),
    "a new one takes a name that was passed on": Case({6: "A"}, {6: "B", 7: "A"}, {6: "B", 7: "A"}, {6, 7}),
    "two of one name": Case({}, {6: "A", 7: "A"}, {6: "A", 7: "A (7)"}, {6, 7}),
    "two come to one name": Case({6: "A", 7: "B"}, {6: "C", 7: "C"}, {6: "C", 7: "C (7)"}, {6, 7}),
    "the name of another, whose code is higher": Case({6: "A", 7: "B"}, {6: "B", 7: "B"}, {6: "B", 7: "B (7)"}, {6, 7}),
    "two of one name part": Case({6: "A", 7: "A"}, {6: "B", 7: "A"}, {6: "B", 7: "A"}, {6, 7}),
    "a namesake is renamed": Case({6: "A", 7: "A"}, {6: "A", 7: "B"}, {6: "A", 7: "B"}, {7}),
    "a name that looks like a namesake's": Case(
        {}, {6: "A", 7: "A", 8: "A (7)"}, {6: "A", 7: "A (7)", 8: "A (7) (8)"}, {6, 7, 8}
    ),
    "swap, one edited": Case({6: "A", 7: "B"}, {6: "B", 7: "A"}, {6: "B", 7: "X"}, {6}, {7: "X"}, conflicts={7}),
    "ring, one edited": Case(
        {6: "A", 7: "B", 8: "C"}, {6: "B", 7: "C", 8: "A"}, {6: "B", 7: "X", 8: "A"}, {6, 8}, {7: "X"}, conflicts={7}
    ),
    "edited to the name that SIORG gives another": Case({6: "A", 7: "B"}, {6: "X", 7: "B"}, {6: "X (6)", 7: "X"}, {6}, {7: "X"}),
    "edited to the name that SIORG gives it": Case({6: "A", 7: "B"}, {6: "A", 7: "C"}, {6: "A", 7: "C"}, set(), {7: "C"}),
    "renamed to a person's": Case({6: "A"}, {6: "L"}, {6: "L (6)", 0: "L"}, {6}, local="L"),
    "a new one of a person's name": Case({}, {6: "L"}, {6: "L"}, {6}, local="L"),
    "two new ones of a person's name": Case({}, {6: "L", 7: "L"}, {6: "L", 7: "L (7)"}, {6, 7}, local="L"),
    "a new one of the fallback's name": Case({}, {6: "Não informada"}, {6: "Não informada (6)", 0: "Não informada"}, {6},
                                             local="Não informada"),
    "renamed to a person's, which has the code behind it": Case({6: "A"}, {6: "L"}, {6: "L", 0: "L (6)"}, {6}, local="L (6)"),
    "gone from the table": Case({6: "A", 7: "B"}, {7: "A"}, {6: "A", 7: "A (7)"}, {7}),
}  # fmt: skip
_ALL_OF = [pytest.param(case, id=name) for name, case in _CASES.items()]
_IN_EACH_ORDER = [
    pytest.param(case, order, id=f"{name}, {order}")
    for name, case in _CASES.items()
    for order in permutations(case.after)
    if len(order) > 1
]


def _publish(world: World, names: Names) -> None:
    world.siorg.tables[DomainTable.UNIT_CATEGORY] = [
        {"codigoCategoriaUnidade": code, "descricaoCategoriaUnidade": name, "ativo": "SIM"} for code, name in names.items()
    ]


def _begin(world: World, case: Case) -> None:
    world.connection.execute("DELETE FROM organizational_unit_categories")
    if case.before:
        _publish(world, case.before)
        world.sync(*case.before, entity="CATEGORY")
    for code, name in case.edits.items():
        _rename(world.connection, code, name)
    if case.local is not None:
        world.connection.execute("INSERT INTO organizational_unit_categories (name) VALUES (%s)", [case.local])
    world.connection.execute("DELETE FROM siorg_history")
    world.connection.execute("DELETE FROM siorg_sync_queue")
    _publish(world, case.after)


def _rename(connection: Connection, code: int, name: str) -> None:
    connection.execute("UPDATE organizational_unit_categories SET name = %s WHERE siorg_code = %s", [name, code])


def _here(world: World) -> dict[int, str]:
    return {
        row["code"]: row["name"]
        for row in world.rows("SELECT coalesce(siorg_code, 0) AS code, name FROM organizational_unit_categories")
    }


def _check(world: World, case: Case) -> None:
    """The names, one history row a change that says both names, how the items ended; and a second time there is nothing to do."""
    history = world.rows("SELECT siorg_code, previous_data, new_data FROM siorg_history")
    assert (_here(world), sorted(row["siorg_code"] for row in history)) == (case.here, sorted(case.changed))
    for row in history:
        code = row["siorg_code"]
        was = case.edits.get(code, _named_before(case, code))
        assert (row["previous_data"] and row["previous_data"]["name"], row["new_data"]["name"]) == (was, case.here[code])
    for _ in range(2):
        expected = {code: "CONFLICT" if code in case.conflicts else "COMPLETED" for code in case.after}
        assert world.statuses() == expected, world.rows("SELECT last_error FROM siorg_sync_queue")
        world.enqueue(*case.after, entity="CATEGORY")
        assert world.drain() == 0
        assert _here(world) == case.here


def _named_before(case: Case, code: int) -> str | None:
    """What a category was called here before the change; None: it was not here."""
    said = case.before.get(code)
    is_first = said is None or code == min(other for other, name in case.before.items() if name == said)
    return said if is_first else f"{said} ({code})"


@pytest.mark.parametrize("case", _ALL_OF)
def test_in_one_group(world: World, case: Case) -> None:
    _begin(world, case)
    world.enqueue(*case.after, entity="CATEGORY")
    world.drain()
    _check(world, case)


@pytest.mark.parametrize(("case", "order"), _IN_EACH_ORDER)
def test_each_alone_in_each_order(world: World, case: Case, order: Sequence[int]) -> None:
    _begin(world, case)
    for code in order:
        world.sync(code, entity="CATEGORY")
    _check(world, case)


@pytest.mark.parametrize("case", [param for param in _ALL_OF if len(_CASES[str(param.id)].after) > 1])
def test_two_processes_at_once(world: World, case: Case) -> None:
    """Both have begun, and wait for somebody who has all the rows, before either may go on."""
    _begin(world, case)
    world.enqueue(*case.after, entity="CATEGORY")
    works = world.fetched()
    with ThreadPoolExecutor(2) as threads, connect(world.url, application_name="somebody else") as other:
        with transaction(other):
            other.execute("LOCK TABLE organizational_unit_categories IN EXCLUSIVE MODE")
            halves = [threads.submit(_apply_elsewhere, world.url, half) for half in (works[:1], works[1:])]
            wait_until(lambda: _waiting(other) == len(halves))
        for half in halves:
            half.result(timeout=20)
    _check(world, case)


def _apply_elsewhere(url: str, works: Sequence[Work]) -> None:
    with connect(url, application_name="another process") as connection:
        apply(connection, QueueStore(connection), works)


def _waiting(connection: Connection) -> int:
    """How many connections wait for a lock."""
    connection.execute("SELECT pg_stat_clear_snapshot()")  # within a transaction it would stay as it was
    row = connection.execute(
        "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    ).fetchone()
    assert row is not None
    return int(row["n"])


def test_a_bad_item_in_the_group_ends_alone(world: World) -> None:
    case = _CASES["ring"]
    _begin(world, case)
    _publish(world, {**case.after, 9: "D"})
    world.connection.execute("ALTER TABLE organizational_unit_categories ADD CONSTRAINT no_d CHECK (name <> 'D')")
    world.enqueue(6, 9, 7, 8, entity="CATEGORY")
    world.drain()
    assert world.statuses() == {6: "COMPLETED", 7: "COMPLETED", 8: "COMPLETED", 9: "FAILED"}
    assert _here(world) == case.here


@pytest.mark.parametrize("first", [6, 7])
def test_units_that_refer_to_categories_and_a_swap_of_these_do_not_wait_in_a_circle(world: World, first: int) -> None:
    """The units are stopped where they have locked one of the two categories; then the swap begins."""
    _begin(world, _CASES["swap"])
    world.siorg.publish(siorg_row(900, codigoCategoriaUnidade=first), siorg_row(901, codigoCategoriaUnidade=13 - first))
    world.enqueue(900, 901)
    units = sorted(world.fetched(), key=lambda work: work[0].siorg_code)
    world.enqueue(6, 7, entity="CATEGORY")
    categories = world.fetched()
    world.connection.execute(
        "CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_advisory_xact_lock_shared(900); RETURN NULL; END $$;"
        " CREATE TRIGGER stop AFTER INSERT ON organizational_units FOR EACH ROW EXECUTE FUNCTION stop()"
    )
    with ThreadPoolExecutor(2) as threads, connect(world.url, application_name="somebody else") as other:
        begun: list[Future[None]] = []
        with transaction(other):
            other.execute("SELECT pg_advisory_xact_lock(900)")
            for works in (units, categories):
                begun.append(threads.submit(_apply_elsewhere, world.url, works))
                wait_until(lambda: _waiting(other) == len(begun))
        for work in begun:
            work.result(timeout=20)
    assert set(world.statuses().values()) == {"COMPLETED"}
    assert {world.unit(code)["category_name"] for code in (900, 901)} == {"A", "B"}


def test_what_a_person_is_writing_meanwhile_is_seen(world: World) -> None:
    _begin(world, _CASES["swap"])
    world.enqueue(6, entity="CATEGORY")
    works = world.fetched()
    with ThreadPoolExecutor(1) as thread, connect(world.url, application_name="a person") as person:
        with transaction(person):
            _rename(person, 7, "X")
            applied = thread.submit(world.apply, works)
            wait_until(lambda: _waiting(person) == 1)
        applied.result(timeout=20)
    assert _here(world) == {6: "B", 7: "X"}


@pytest.mark.parametrize("resolution", ["ACCEPT_SIORG", "MERGE"])
def test_a_decided_name_is_had_from_the_others_too(world: World, resolution: str) -> None:
    """7 was edited to a name that SIORG gives 8 since: with the decision 8 gets its own."""
    _begin(world, Case({6: "A", 7: "B", 8: "C"}, {6: "B", 7: "C", 8: "X"}, {}, set(), {7: "X"}))
    world.sync(8, entity="CATEGORY")
    assert _here(world) == {6: "A", 7: "X", 8: "X (8)"}
    (item,) = world.enqueue(7, entity="CATEGORY")
    world.drain()
    details: dict[str, Any] = {} if resolution == "ACCEPT_SIORG" else {"merged_payload": {"name": "C"}}
    assert world.decide(item, resolution, **details)["status"] == "COMPLETED"
    assert _here(world) == {6: "A", 7: "C", 8: "X"}


def test_a_type_is_found_by_its_code_before_its_slug(world: World) -> None:
    """Names of types are not unique here, and their slugs stay."""
    names = {12: "Diretoria", 13: "Comissão"}
    world.connection.execute(
        "INSERT INTO organizational_unit_types (siorg_code, name, code)"
        " VALUES (12, 'Comissão', 'comissao'), (13, 'Diretoria', 'diretoria')"
    )
    world.siorg.tables[DomainTable.UNIT_TYPE] = [
        {"codigoTipoUnidade": str(code), "descricaoTipoUnidade": name} for code, name in names.items()
    ]
    world.sync(12, 13, entity="TYPE")
    found = world.rows("SELECT siorg_code, name FROM organizational_unit_types WHERE siorg_code IS NOT NULL")
    assert {row["siorg_code"]: row["name"] for row in found} == names


def test_a_category_that_a_unit_brought_leaves_others_their_names_until_they_are_renamed(world: World) -> None:
    _begin(world, Case({6: "A"}, {6: "B", 7: "A"}, {}, set()))
    world.have(siorg_row(900, codigoCategoriaUnidade=7))
    assert _here(world) == {6: "A", 7: "A (7)"}
    world.sync(6, entity="CATEGORY")
    assert _here(world) == {6: "B", 7: "A"}


def test_units_without_category_have_one_fallback_whatever_siorg_has_of_that_name(world: World) -> None:
    _publish(world, {6: "Não informada"})
    world.sync(6, entity="CATEGORY")
    world.have(900)
    world.have(901)
    assert world.unit(900)["category_id"] == world.unit(901)["category_id"]
