"""The preview, line by line beside what discovery and drain then really write, which is read by raw SQL."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, cast

import pytest

from siorg_job.reconciliation.changes import Change, What
from siorg_job.reconciliation.discover import discover, registered
from siorg_job.reconciliation.preview import Preview, preview
from siorg_job.siorg.errors import SiorgError
from siorg_job.siorg.model import DomainTable
from siorg_job.sync.adopted import decisions_for
from siorg_job.sync.apply import apply
from siorg_job.sync.limits import Limits
from siorg_queue import Connection, connect
from support.convergence.machine import Machine, Step
from support.convergence.programs import Proposals
from support.convergence.siorg import organization_of, subtree_of
from support.local_structure import ANOTHER, UFMT, World, contact, siorg_row, whole_tables
from support.postgres import Postgres

_ONE = os.environ.get("PREVIEW_SEED")
_SEEDS = [int(_ONE)] if _ONE else list(range(1, 31))
_KINDS = {
    "create": 6, "rename": 3, "abbreviate": 2, "call": 2, "retype": 1, "damage": 1, "mend": 1, "move": 6, "transfer": 2,
    "swap": 2, "invert": 3, "end": 5, "return": 2, "recode": 1, "demote": 1, "promote": 1, "dissolve": 0.3, "undo": 2,
    "renumber": 1, "edit": 6, "decide": 2,
}  # fmt: skip
"""With how often each comes."""

Line = tuple[Any, ...]


class Versions:
    """What discovery asks besides."""

    def __init__(self, siorg: Any) -> None:
        self.unit, self.structure, self.domain = siorg.unit, siorg.structure, siorg.domain

    async def version(self, organization: int) -> str:
        return "1.0.0"


def seen(world: World, *codes: int, siorg: Any = None, limits: Limits | None = None) -> Preview:
    """The preview, on a connection on which nothing can be written."""
    with connect(world.url, application_name="test preview") as connection:
        connection.execute("SET default_transaction_read_only = on")
        organizations = registered(connection, list(codes) or None)
        asked = cast("Any", siorg or Versions(world.siorg))
        return asyncio.run(preview(organizations, asked, connection, limits=limits, tables=False))


# -- what was written -------------------------------------------------------------------------------------------------

_CHANGES = """
SELECT h.entity_type::text, h.siorg_code AS code, h.change_type::text, h.previous_data, h.new_data, h.affected_fields,
       h.requires_review, u.path_names
FROM siorg_history h LEFT JOIN organizational_units u ON u.siorg_code = h.siorg_code AND h.entity_type = 'UNIT'
WHERE h.created_at > %s AND h.entity_type IN ('UNIT', 'ORGANIZATION') ORDER BY h.created_at, h.id
"""


def written(connection: Connection, since: Any, paths: dict[int, str]) -> list[Line]:
    """A line for each row of history: what, code, fields with both values or the paths."""
    lines: list[Line] = []
    for row in connection.execute(_CHANGES, [since]):
        kind, before = row["change_type"], row["previous_data"]
        after = row["new_data"] or {**before, "is_active": False}
        fields = {name: (before[name], after[name]) for name in row["affected_fields"]} if before else {}
        head = (row["entity_type"], row["code"])
        if before is None:
            lines.append(("+", *head, None, row["path_names"]))
        elif not before["is_active"] and after["is_active"]:
            lines.append(("+", *head, paths[row["code"]], row["path_names"], _json(fields)))
        elif not after["is_active"]:
            lines.append(("-", *head, paths.get(row["code"]), kind, _json(fields)))
        elif kind == "HIERARCHY_CHANGE":
            lines.append((">", *head, paths[row["code"]], row["path_names"], _json(fields)))
        else:
            lines.append(("~", *head, _json(fields)))
    return lines


def asked(connection: Connection, since: Any = None) -> set[Line]:
    """(type, code, SIORG's values) of what waits for a person, or has since then; what is here may have been edited meanwhile."""
    rows = connection.execute(
        "SELECT DISTINCT ON (entity_type, siorg_code, operation = 'EXTINCTION') entity_type::text AS kind, siorg_code AS code,"
        " detected_changes AS changes FROM siorg_sync_queue"
        " WHERE status = 'CONFLICT' AND created_at > coalesce(%s, '-infinity'::timestamptz)"
        " ORDER BY entity_type, siorg_code, operation = 'EXTINCTION', created_at DESC",
        [since],
    )
    return {(row["kind"], row["code"], _json({name: sides["remote"] for name, sides in row["changes"].items()})) for row in rows}


def failed(connection: Connection, since: Any = None) -> set[Line]:
    rows = connection.execute(
        "SELECT entity_type::text AS kind, siorg_code AS code FROM siorg_sync_queue"
        " WHERE status = 'FAILED' AND created_at > coalesce(%s, '-infinity'::timestamptz)",
        [since],
    )
    return {(row["kind"], row["code"]) for row in rows}


# -- what was foretold, in the same words -----------------------------------------------------------------------------


def _json(fields: Any) -> str:
    return json.dumps(fields, sort_keys=True, ensure_ascii=False, default=list)


def _fields(change: Change) -> str:
    return _json({str(each.field): (each.local, each.remote) for each in change.differences})


def line(change: Change) -> Line:
    head = (change.entity_type.value, change.code)
    match change.what:
        case What.CREATE:
            return ("+", *head, None, change.after)
        case What.RETURN:
            return ("+", *head, change.before, change.after, _fields(change))
        case What.END | What.LEAVE:
            kind = "EXTINCTION" if change.what is What.END else "HIERARCHY_CHANGE"
            return ("-", *head, change.before, kind, _fields(change))
        case What.MOVE:
            return (">", *head, change.before, change.after, _fields(change))
        case What.UPDATE:
            return ("~", *head, _fields(change))
    raise AssertionError(change.what)


def _compare(found: Preview, connection: Connection, since: Any, paths: dict[int, str], untold: set[int]) -> list[str]:
    nothing = (What.CONFLICT, What.FAILED, What.HELD)
    foretold = Counter(line(change) for change in found.changes if change.what not in nothing and change.code not in untold)
    real = Counter(each for each in written(connection, since, paths) if each[2] not in untold)
    problems = [f"foretold, not written: {each}" for each in (foretold - real).elements()]
    problems += [f"written, not foretold: {each}" for each in (real - foretold).elements()]
    questions = {
        (c.entity_type.value, c.code, _json({str(each.field): each.remote for each in c.differences}))
        for c in found.changes
        if c.what is What.CONFLICT
    }
    # That an organization is a unit now whose row cannot be read, the run finds out.
    ended = {each for each in questions if each[0] == "ORGANIZATION" and each[:2] in failed(connection)}
    problems += [f"foretold, not asked: {each}" for each in questions - asked(connection) - ended]
    problems += [f"asked, not foretold: {each}" for each in asked(connection, since) - questions]
    new = {(c.entity_type.value, c.code) for c in found.changes if c.what is What.FAILED and c.code not in untold}
    refused = {each for each in failed(connection, since) if each[1] not in untold}
    # What failed before may have to wait, as may what a person is asked about.
    known = failed(connection) | {each[:2] for each in asked(connection)}
    problems += [f"foretold as failed: {each}" for each in new - known]
    problems += [f"failed, not foretold: {each}" for each in refused - new - {each[:2] for each in ended}]
    return problems


def _below_damage(machine: Machine) -> set[int]:
    """Units of an organization that is not registered, with a row above them that cannot be read: a fetch goes up that far."""
    rows, found = machine.siorg.rows, set[int]()
    here = {each.code for each in registered(machine.connection, None)}
    for damaged in machine._damaged():
        found |= {code for code in subtree_of(damaged, rows) if organization_of(rows[code]) not in here}
    return found


@pytest.fixture(scope="module")
def machine(postgres: Postgres) -> Iterator[Machine]:
    urls = postgres.database(), postgres.database()
    with Machine(*urls) as made:
        yield made
    for url in urls:
        postgres.drop(url)


def _drain(machine: Machine) -> None:
    process = machine.processes[0]
    for _ in range(10):
        process.world.pauses_are_over()
        process.claimed = list(process.world.store.claim(1000, lease=timedelta(seconds=600), worker="test").items)
        if not process.claimed:
            return
        process.fetch()
        machine._apply(0)
    raise AssertionError("the queue does not come to its end")


def _discover_all(machine: Machine, chosen: list[int]) -> None:
    # What FAILED is due again.
    machine.connection.execute(
        "UPDATE siorg_sync_queue SET processed_at = processed_at - interval '1 day' WHERE status = 'FAILED'"
    )
    machine.world.store.retry_due()
    for organization in registered(machine.connection, chosen or None):
        with contextlib.suppress(SiorgError):
            siorg = cast("Any", machine.siorg)
            asyncio.run(discover(organization, siorg, machine.connection, machine.world.store, full=True))


def _perturb(machine: Machine, rng: random.Random, proposals: Proposals, number: int) -> list[Step]:
    done: list[Step] = []
    while len(done) < number:
        (kind,) = rng.choices(list(_KINDS), list(_KINDS.values()))
        if not machine.siorg.rows:
            return done
        step = proposals._propose(kind)
        if step is not None and machine.do(step):
            done.append(step)
            if step[0] == "decide":
                _drain(machine)
    return done


@pytest.mark.parametrize("seed", _SEEDS)
def test_it_says_line_by_line_what_discovery_and_drain_write(machine: Machine, seed: int) -> None:
    rng = random.Random(seed)
    machine.begin()
    proposals = Proposals(rng, machine)
    for step in proposals.opening():
        if step[0] != "limits":  # what is held has tests of its own
            machine.do(step)
    connection, world = machine.connection, machine.world
    partly = seed % 3 == 0
    for _ in range(4):
        steps = _perturb(machine, rng, proposals, rng.randint(3, 12))
        chosen = [rng.choice([each.code for each in registered(connection, None)])] if partly else []
        before = whole_tables(connection)
        found = seen(world, *chosen, siorg=machine.siorg)
        assert whole_tables(connection) == before
        paths = {row["code"]: row["path"] for row in connection.execute(
            "SELECT siorg_code AS code, path_names AS path FROM organizational_units")}  # fmt: skip
        since = world.rows("SELECT clock_timestamp() AS now")[0]["now"]
        _discover_all(machine, chosen)
        _drain(machine)
        problems = _compare(found, connection, since, paths, _below_damage(machine))
        assert not problems, "\n".join([f"seed {seed}", *problems, *map(repr, steps)])


# -- one reform with everything, in words -----------------------------------------------------------------------------


@pytest.fixture
def world(world: World) -> World:
    """With two organizations and one that is not registered."""
    world.register(ANOTHER)
    world.siorg.publish(siorg_row(700, 244, organization=700))
    world.sync(UFMT, ANOTHER, entity="ORGANIZATION")
    return world


def _told(found: Preview) -> set[tuple[Any, ...]]:
    return {
        (change.what.value, change.code, change.before, change.after, *sorted(str(each.field) for each in change.differences))
        for change in found.changes
    }


def test_each_kind_of_change_is_told_with_its_paths(world: World) -> None:
    world.have_line(900, 901, 902)
    world.have(*range(910, 923))
    world.sync(*world.siorg.publish(siorg_row(923, 922)))
    home, other = world.organization()["name"], "Outra Universidade"
    siorg = world.siorg
    siorg.publish(siorg_row(930), siorg_row(931, 930), siorg_row(932, 931))  # its ancestors are new
    siorg.change(901, parent=UFMT)
    siorg.change(900, parent=901)  # an inversion
    siorg.change(910, nome="Unidade 911")
    siorg.change(911, nome="Unidade 910")  # a swap
    siorg.change(912, parent=ANOTHER, organization=ANOTHER)
    siorg.change(913, parent=700, organization=700)
    siorg.remove(914)
    world.edit(915, name="Minha")
    siorg.change(915, nome="Dela")
    siorg.change(916, sigla="X" * 51)
    world.edit(917, name="Minha")
    world.edit(918, is_active=False)
    siorg.change(918, sigla="S")
    siorg.change(919, versaoConsulta="100.0.0")
    siorg.remove(922)  # and 923 is still below it
    found = seen(world)
    assert _told(found) == {
        ("create", 930, None, f"{home} > Unidade 930", "*"),
        ("create", 931, None, f"{home} > Unidade 930 > Unidade 931", "*"),
        ("create", 932, None, f"{home} > Unidade 930 > Unidade 931 > Unidade 932", "*"),
        ("move", 900, f"{home} > Unidade 900", f"{home} > Unidade 901 > Unidade 900", "parent"),
        ("move", 901, f"{home} > Unidade 900 > Unidade 901", f"{home} > Unidade 901", "parent"),
        ("update", 910, None, None, "name"), ("update", 911, None, None, "name"),
        ("move", 912, f"{home} > Unidade 912", f"{other} > Unidade 912", "organization"),
        ("leave", 913, f"{home} > Unidade 913", None, "is_active"),
        ("end", 914, f"{home} > Unidade 914", None, "is_active"),
        ("conflict", 915, None, None, "name"),
        ("failed", 916, None, None),
        ("update", 918, None, None, "acronym"),
        ("failed", 922, None, None, "is_active"),
    }  # fmt: skip
    assert (found.edited, found.noted, found.adopted) == (2, 1, [])


def test_one_organization_alone_tells_of_what_it_takes_from_others_and_leaves_behind_there(world: World) -> None:
    world.have_line(900, 901)
    world.siorg.publish(siorg_row(950, ANOTHER, organization=ANOTHER))
    world.siorg.change(900, parent=950, organization=ANOTHER)
    home, other = world.organization()["name"], "Outra Universidade"
    expected = {
        ("create", 950, None, f"{other} > Unidade 950", "*"),
        ("move", 900, f"{home} > Unidade 900", f"{other} > Unidade 950 > Unidade 900", "organization", "parent"),
        ("move", 901, f"{home} > Unidade 900 > Unidade 901", f"{home} > Unidade 901", "parent"),
    }
    for chosen in (UFMT, ANOTHER):
        assert _told(seen(world, chosen)) == expected


def test_strict_mode_asks_about_moves(world: World) -> None:
    world.have_line(900, 901)
    world.setting("siorg.hierarchy_strict_mode", value=True)
    world.siorg.change(901, parent=UFMT)
    assert _told(seen(world)) == {("conflict", 901, None, None, "parent")}


def test_what_would_be_overwritten_in_a_database_that_people_filled_is_told(world: World) -> None:
    world.have(900)
    world.edit(900, name="De alguém", siorg_synced_at=None, siorg_raw_data=None, siorg_base=None)
    (change,) = seen(world).changes
    assert (change.what, change.overwrites, _fields(change)) == (
        What.UPDATE, True, _json({"name": ["De alguém", "Unidade 900"]}),
    )  # fmt: skip
    world.sync(900)
    *_, entry = world.history(900)
    assert (entry["requires_review"], entry["previous_data"]["name"]) == (True, "De alguém")


def test_tables_that_units_refer_to_are_told_too(world: World) -> None:
    world.siorg.tables = {
        DomainTable.UNIT_CATEGORY: [{"codigoCategoriaUnidade": 7, "descricaoCategoriaUnidade": "Comissão", "ativo": "SIM"}]
    }
    with connect(world.url, application_name="test preview") as connection:
        connection.execute("SET default_transaction_read_only = on")
        found = asyncio.run(preview([], cast("Any", Versions(world.siorg)), connection))
    assert ("create", 7) in {(change.what.value, change.code) for change in found.changes}


# -- adopted bases ----------------------------------------------------------------------------------------------------


@pytest.fixture
def adopted(world: World) -> World:
    """With rows of the first worker, which wrote two of them otherwise than SIORG said."""
    world.have_line(900, 901, 902)
    world.connection.execute("UPDATE organizational_units SET siorg_base = NULL")
    world.edit(901, name="Errado", acronym="E")
    world.edit(902, parent_id=None)
    world.connection.execute("SELECT fn_update_descendant_paths(id) FROM organizational_units")
    return world


def test_values_on_an_adopted_base_are_counted(adopted: World) -> None:
    found = seen(adopted)
    assert {(each.code, str(each.field), each.local) for each in found.adopted} == {
        (901, "name", "Errado"), (901, "acronym", "E"), (902, "parent", UFMT),
    }  # fmt: skip
    assert [change for change in found.changes if change.code in (901, 902)] == []


def test_one_decision_takes_siorgs_values_for_all_of_them(adopted: World) -> None:
    adopted.siorg.change(901, **contact(phones=["1"]))
    adopted.edit(900, acronym="NOSSA")  # decided later: not of what is listed now
    chosen = [each for each in seen(adopted).adopted if each.code != 900]
    decisions = decisions_for(chosen, "Ana")
    assert [adopted.decisions.decide(decisions, notes="vistos"), adopted.decisions.decide(decisions)] == [2, 0]
    adopted.drain()
    assert (adopted.unit(901)["name"], adopted.unit(901)["acronym"], adopted.unit(900)["acronym"]) == (
        "Unidade 901",
        "U901",
        "NOSSA",
    )
    assert (adopted.unit(902)["parent_code"], adopted.unit(901)["contact_info"]["phones"]) == (901, ["1"])
    *_, entry = adopted.history(902)
    assert (entry["change_type"], entry["requires_review"], entry["previous_data"]["parent"]) == ("HIERARCHY_CHANGE", False, UFMT)
    item = adopted.item(entry["sync_queue_id"])
    assert (item["status"], item["error_details"]["resolved_by"], item["resolution_notes"]) == ("COMPLETED", "Ana", "vistos")
    assert [(each.code, str(each.field)) for each in seen(adopted).adopted] == [(900, "acronym")]


def test_what_siorg_changed_beside_it_is_still_reviewed(adopted: World) -> None:
    adopted.decisions.decide(decisions_for(seen(adopted).adopted, "Ana"))
    adopted.siorg.change(901, parent=UFMT)
    adopted.drain()
    *_, entry = adopted.history(901)
    assert (entry["affected_fields"], entry["requires_review"]) == (["acronym", "name", "parent"], True)


# -- limits -----------------------------------------------------------------------------------------------------------


def test_what_a_limit_would_hold_is_told_and_the_rest_goes_on(world: World) -> None:
    world.have(*range(1000, 1040))
    limits = Limits()
    world.siorg.remove(*range(1000, 1011))
    for code in range(1011, 1032):
        world.siorg.change(code, nome=f"Novo {code}", sigla=f"N{code}")
    versions = Versions(world.siorg)
    found = seen(world, UFMT, limits=limits)
    (organization,) = registered(world.connection, [UFMT])
    asyncio.run(discover(organization, cast("Any", versions), world.connection, world.store, full=True, limits=limits))
    apply(world.connection, world.store, world.fetched(), limits)
    held = {(row["siorg_code"], *row["detected_changes"]) for row in world.rows(
        "SELECT siorg_code, detected_changes FROM siorg_sync_queue WHERE held_at IS NOT NULL")}  # fmt: skip
    told = {
        (change.code, *(str(each.field) for each in change.differences)) for change in found.changes if change.what is What.HELD
    }
    assert told == held == {
        *((code, "is_active") for code in range(1000, 1011)), *((code, "name") for code in range(1011, 1032)),
    }  # fmt: skip
    assert {change.reason for change in found.changes if change.what is What.HELD} == {
        "11 of 40 units would end; the limit is 10", "21 of 40 names would be overwritten; the limit is 20",
    }  # fmt: skip
    assert {world.unit(code)["acronym"] for code in range(1011, 1032)} == {f"N{code}" for code in range(1011, 1032)}
    again = seen(world, UFMT, limits=limits)
    assert {(change.what, change.reason) for change in again.changes} == {(What.HELD, "held already")}
