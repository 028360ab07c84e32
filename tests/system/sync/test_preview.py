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

from siorg_job.discover import discover, registered
from siorg_job.preview import Preview, preview
from siorg_job.siorg.errors import SiorgError
from siorg_job.sync.changes import Change, What
from siorg_queue import Connection, connect
from support.convergence.machine import Machine, Step
from support.convergence.programs import Proposals
from support.local_structure import ANOTHER, UFMT, World, siorg_row, whole_tables
from support.postgres import Postgres

_ONE = os.environ.get("PREVIEW_SEED")
_SEEDS = [int(_ONE)] if _ONE else list(range(1, 61))
_KINDS = {
    "create": 6, "rename": 3, "abbreviate": 2, "call": 2, "retype": 1, "damage": 1, "mend": 1, "move": 6, "transfer": 2, "swap": 2,
    "invert": 3, "end": 5, "return": 2, "recode": 1, "demote": 1, "promote": 1, "dissolve": 0.3, "undo": 2, "renumber": 1,
    "edit": 6, "decide": 2,
}  # fmt: skip
"""With how often each comes."""

Line = tuple[Any, ...]


def seen(world: World, *codes: int, siorg: Any = None) -> Preview:
    """The preview, on a connection on which nothing can be written."""
    with connect(world.url, application_name="test preview") as connection:
        connection.execute("SET default_transaction_read_only = on")
        organizations = registered(connection, list(codes) or None)
        asked = cast("Any", siorg or world.siorg)
        return asyncio.run(preview(organizations, asked, connection, tables=False))


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
    """(type, code, fields) of what waits for a person, or has since then."""
    rows = connection.execute(
        "SELECT DISTINCT ON (entity_type, siorg_code, operation = 'EXTINCTION') entity_type::text AS kind, siorg_code AS code,"
        " detected_changes AS changes FROM siorg_sync_queue WHERE status = 'CONFLICT' AND (%s::timestamptz IS NULL OR created_at > %s)"
        " ORDER BY entity_type, siorg_code, operation = 'EXTINCTION', created_at DESC",
        [since, since],
    )
    return {(row["kind"], row["code"], _json({name: (s["local"], s["remote"]) for name, s in row["changes"].items()})) for row in rows}


def failed(connection: Connection, since: Any) -> set[Line]:
    rows = connection.execute(
        "SELECT entity_type::text AS kind, siorg_code AS code FROM siorg_sync_queue WHERE status = 'FAILED' AND processed_at > %s",
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


def _compare(found: Preview, connection: Connection, since: Any, paths: dict[int, str]) -> list[str]:
    nothing = (What.CONFLICT, What.FAILED, What.HELD)
    foretold = Counter(line(change) for change in found.changes if change.what not in nothing)
    real = Counter(written(connection, since, paths))
    problems = [f"foretold, not written: {each}" for each in (foretold - real).elements()]
    problems += [f"written, not foretold: {each}" for each in (real - foretold).elements()]
    questions = {(c.entity_type.value, c.code, _fields(c)) for c in found.changes if c.what is What.CONFLICT}
    problems += [f"foretold, not asked: {each}" for each in questions - asked(connection)]
    problems += [f"asked, not foretold: {each}" for each in asked(connection, since) - questions]
    new = {(c.entity_type.value, c.code) for c in found.changes if c.what is What.FAILED}
    refused = failed(connection, since)
    problems += [f"foretold as failed: {each}" for each in new - refused]
    problems += [f"failed, not foretold: {each}" for each in refused - new]
    return problems


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
    for step in proposals.first():
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
        problems = _compare(found, connection, since, paths)
        assert not problems, "\n".join([f"seed {seed}", *problems, *map(repr, steps)])
