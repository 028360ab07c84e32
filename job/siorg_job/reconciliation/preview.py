"""What a discovery and a run would write, if they came now: read from SIORG and from the rows here. Writes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import psycopg

from siorg_job.reconciliation import ended
from siorg_job.reconciliation.changes import Change, Key, Node, Tree, What, changes_of, end_of, hold_back, settle
from siorg_job.reconciliation.compared import Compared, compared
from siorg_job.reconciliation.discover import Organization, registered
from siorg_job.reconciliation.ended import Elsewhere
from siorg_job.reconciliation.hold import beyond_for_names
from siorg_job.reconciliation.tables import TABLES
from siorg_job.siorg.client import SiorgClient
from siorg_job.siorg.each import each_unit
from siorg_job.siorg.errors import PermanentError, SiorgError
from siorg_job.siorg.model import RemoteUnit, Structure, Told
from siorg_job.sync.compare import PATHS, VERSION, Comparison, Difference, parents_elsewhere
from siorg_job.sync.domain_difference import ComparedRow
from siorg_job.sync.domain_difference import compare as compare_tables
from siorg_job.sync.domain_rows import LONGEST_NAME
from siorg_job.sync.held import count_ends
from siorg_job.sync.limits import Limits, ends_beyond
from siorg_job.sync.merge import Rule
from siorg_job.sync.model import DomainField, Fetched, OrganizationField, UnitField
from siorg_job.sync.place import base_of
from siorg_job.sync.read import read_for_comparison, read_table
from siorg_job.sync.working_copy import WorkingCopy
from siorg_queue import Connection, EntityType, clock, describe, query, reading, transaction
from siorg_queue.statements import load

_SQL = load("siorg_job.reconciliation", "preview.sql")


@dataclass(slots=True)
class Preview:
    """What would be written."""

    changes: list[Change] = field(default_factory=list)
    organizations: int = 0
    """Organizations that could be compared."""
    rows: int = 0
    """Rows that were compared."""
    noted: int = 0
    """Rows that are in line, of which only a version or the time of the sync is written: no history."""
    edited: int = 0
    """Fields in which a person's value stays, SIORG not having contested it."""
    adopted: list[Difference] = field(default_factory=list)
    """Of the edited and disputed fields those of which nothing is recorded: the first worker may have written them."""
    waiting: int = 0
    """Items that are on the queue already; they are answered anew and change nothing of this, but for the next."""
    decisions: int = 0
    """Of these, the decisions of people that the next run carries out."""
    untold: dict[str, str] = field(default_factory=dict)
    """What could not be compared, and why."""
    inactive: list[int] = field(default_factory=list)
    """Organizations that were asked for and are not active here: nothing of them is kept in line."""
    ends: dict[int, int] = field(default_factory=dict)
    """Of units that would end, and count against the limits: their organizations."""


def nobody(_done: int, _name: str) -> bool:
    """Nobody looks on, and nobody stops it."""
    return False


async def preview(
    organizations: Sequence[Organization],
    siorg: SiorgClient,
    connection: Connection,
    *,
    limits: Limits | None = None,
    tables: bool = True,
    stopped: Callable[[int, str], bool] = nobody,
) -> Preview:
    """Compare the organizations, and both tables that units refer to.

    Args:
        organizations: as ``registered`` returned them.
        siorg: whom to ask.
        connection: only read from.
        limits: beyond these, ends and overwritten names would be held; None: nothing would be.
        tables: also categories and types, as discovery of all organizations does.
        stopped: called before each organization with the number of those that are done, and its name; True ends it there.

    Raises:
        psycopg.Error, DatabaseUnavailable: the database could not be asked.
    """
    found = Preview()
    waiting = query(connection, _SQL["waiting"])[0]
    found.waiting, found.decisions = waiting["items"], waiting["decisions"]
    homes = {organization.code for organization in registered(connection, None) if organization.is_active}
    elsewhere = Elsewhere(siorg, [each.code for each in organizations if each.is_active])
    gone: list[int] = []
    moved: dict[int, RemoteUnit] = {}
    if tables:
        await _compare_tables(siorg, connection, found)
    for number, organization in enumerate(organizations):
        if stopped(number, organization.acronym):
            found.untold |= {str(rest.code): "stopped" for rest in organizations[number:]}
            break
        if not organization.is_active:
            found.inactive.append(organization.code)
            continue
        try:
            if await ended.version_of(organization.code, siorg) is None:
                gone.append(organization.code)
                continue
            moved |= await _compare_organization(organization.code, siorg, connection, limits, elsewhere, found)
        except SiorgError as error:
            found.untold[str(organization.code)] = str(error)
        except psycopg.DataError as error:
            found.untold[str(organization.code)] = f"its rows cannot be read: {describe(error)}"
    for code in gone:  # by now most structures were read anyway
        try:
            moved |= await _look_at_ended(code, siorg, connection, elsewhere, found)
        except SiorgError as error:
            found.untold[str(code)] = str(error)
        except psycopg.DataError as error:
            found.untold[str(code)] = f"its rows cannot be read: {describe(error)}"
    known = {change.code for change in found.changes}
    await _compare_singly([unit for code, unit in moved.items() if code not in known], siorg, connection, homes, found)
    done = {each.code for each in organizations if each.is_active and str(each.code) not in found.untold} - {*gone}
    await _look_at_left_behind(done, gone, siorg, connection, homes, found)
    found.changes = settle(found.changes, _tree(connection, found.changes))
    return found


async def _compare_organization(
    code: int, siorg: SiorgClient, connection: Connection, limits: Limits | None, elsewhere: Elsewhere, found: Preview
) -> dict[int, RemoteUnit]:
    """Compare one whole structure; returns the units that are here, and in another organization there."""
    structure = await ended.structure_of(code, siorg)
    elsewhere.add(structure)
    told = Told(structure, await each_unit(parents_elsewhere(structure), siorg))
    with reading(connection):
        result = compared(told, connection)
    answers = await each_unit(result.comparison.gone, siorg)
    found.organizations += 1
    found.rows += len(structure.units)
    changes = list(_changes_of(result, found))
    ends = [end_of(result.copy.units[each], result.copy, answers[each], result.registered) for each in result.comparison.gone]
    changes += [end for end in ends if end is not None]
    if limits is not None:
        changes = list(_hold(code, changes, result.comparison, result.copy, limits, connection, found))
    found.changes += changes
    return {
        each: said
        for each, said in answers.items()
        if isinstance(said, RemoteUnit) and not said.ended and said.organization_code in result.registered - {code, each}
    }


def _changes_of(result: Compared, found: Preview) -> Iterator[Change]:
    comparison = result.comparison
    beside_history = {VERSION, *PATHS}
    found.noted += len(comparison.unnoted) + sum(
        any(each.field in beside_history for each in differences)
        and all(each.field in beside_history or each.rule is Rule.EDITED for each in differences)
        for differences in comparison.differences.values()
    )
    theirs = [each for differences in comparison.differences.values() for each in differences if each.rule is not Rule.TAKE]
    found.edited += sum(each.rule is Rule.EDITED for each in theirs)
    found.adopted += [each for each in theirs if each.adopted]
    return changes_of(result.told, comparison, result.copy)


async def _look_at_ended(
    code: int, siorg: SiorgClient, connection: Connection, elsewhere: Elsewhere, found: Preview
) -> dict[int, RemoteUnit]:
    """An organization that SIORG has no more: its end waits for a person; returns those of its units that live on elsewhere."""
    waits = await ended.look(code, connection, elsewhere, clock(connection))
    if any(item.entity_type is EntityType.ORGANIZATION for item in waits.items) or not waits.is_kept:
        row = _read(connection, code, []).organizations[code]
        end = Difference(
            EntityType.ORGANIZATION, code, OrganizationField.IS_ACTIVE, Rule.TAKE, base=True, local=True, remote=False
        )
        reason = (
            f"SIORG has the organization no more; {waits.waiting} of its units end with it:"
            f" siorg-job organizations deactivate {code}"
        )
        found.changes.append(Change(What.CONFLICT, EntityType.ORGANIZATION, code, row.name, code, (end,), reason))
    found.organizations += 1
    moving = [item.siorg_code for item in waits.items if item.entity_type is EntityType.UNIT]
    return {each: said for each, said in (await each_unit(moving, siorg)).items() if isinstance(said, RemoteUnit)}


# -- what a limit would hold ------------------------------------------------------------------------------------------


def _hold(
    organization: int,
    changes: list[Change],
    comparison: Comparison,
    copy: WorkingCopy,
    limits: Limits,
    connection: Connection,
    found: Preview,
) -> Iterator[Change]:
    """The changes of an organization, with what is held already, or would be, as such."""
    asked = {
        (code, question.field, json.dumps(question.remote))
        for (_, code), questions in copy.held_fields.items()
        for question in questions
    }
    ends = [change.code for change in changes if change.is_end and (change.code, UnitField.IS_ACTIVE, "false") not in asked]
    named = {
        code: str(each.remote)
        for (entity_type, code), differences in comparison.differences.items()
        if entity_type is EntityType.UNIT and code in copy.units and base_of(copy.units[code], copy) is not None
        for each in differences
        if each.field == UnitField.NAME and each.rule is Rule.TAKE and (code, each.field, json.dumps(each.remote)) not in asked
    }
    of_ends = _ends_beyond(connection, organization, [code for code in ends if copy.units[code].synced_at], limits, found)
    of_names = beyond_for_names(connection, organization, named, copy)
    for change in changes:
        name = next((each for each in change.differences if each.field == UnitField.NAME), None)
        if change.entity_type is not EntityType.UNIT:
            yield change
        elif change.is_end and (of_ends is not None or change.code not in ends):
            yield change.not_written(What.HELD, of_ends if of_ends is not None and change.code in ends else "held already")
        elif name is None or change.what not in (What.UPDATE, What.MOVE, What.RETURN):
            yield change
        elif (change.code, UnitField.NAME, json.dumps(name.remote)) in asked:
            yield from hold_back(change, UnitField.NAME, "held already")
        elif of_names is not None and change.code in named:
            yield from hold_back(change, UnitField.NAME, of_names)
        else:
            yield change


def _ends_beyond(connection: Connection, organization: int, codes: Sequence[int], limits: Limits, found: Preview) -> str | None:
    """As discovery counts them: with those of the organizations before it."""
    if not codes:
        return None
    counted = dict.fromkeys(codes, organization)
    with transaction(connection):
        tally = count_ends(connection, {**found.ends, **counted}, alive=[organization])
    reason = ends_beyond(tally, [organization], limits).get(organization)
    if reason is None:
        found.ends |= counted
    return reason


# -- what the run comes upon ------------------------------------------------------------------------------------------


async def _compare_singly(
    units: Iterable[RemoteUnit], siorg: SiorgClient, connection: Connection, homes: set[int], found: Preview
) -> None:
    """Compare units that are in SIORG in registered organizations, as an item about each would: with what is above it."""
    groups: dict[int, dict[int, RemoteUnit]] = {}
    for unit in units:
        if unit.organization_code is not None:
            groups.setdefault(unit.organization_code, {})[unit.code] = unit
    for home, group in groups.items():
        if home not in homes:
            copy = _read(connection, 0, list(group))
            ends = [end_of(copy.units[code], copy, unit, homes) for code, unit in group.items() if code in copy.units]
            found.changes += [end for end in ends if end is not None]
            continue
        structure = Structure(home, group, {})
        try:
            told = await _complete(structure, siorg, connection)
        except SiorgError as error:
            found.untold["units of organization " + str(home)] = str(error)
            continue
        with reading(connection):
            result = compared(told, connection)
        found.changes += _changes_of(replace(result, comparison=replace(result.comparison, gone=(), kept=())), found)


async def _complete(structure: Structure, siorg: SiorgClient, connection: Connection) -> Told:
    """The units with what is above them and not in its place here."""
    home, told = structure.organization, Told(structure)
    while parents := parents_elsewhere(structure) - told.answers.keys():
        here = _read(connection, home, sorted(parents)).units
        for parent, said in (await each_unit(parents, siorg)).items():
            row = here.get(parent)
            in_place = row is not None and row.is_active and row.organization_code == home
            if isinstance(said, RemoteUnit) and not said.ended and said.organization_code == home and not in_place:
                structure.units[parent] = said
            else:
                told = told.with_answers({parent: said})
    return told


async def _look_at_left_behind(
    compared: set[int], gone: Collection[int], siorg: SiorgClient, connection: Connection, homes: set[int], found: Preview
) -> None:
    """Units of organizations that were not compared, which the run asks for since one above them comes or leaves.

    Those that SIORG has nowhere end with their organization where that is ``gone``, and fail otherwise.
    """
    seen: set[int] = set()
    while True:
        changing = [change for change in found.changes if change.entity_type is EntityType.UNIT]
        coming = [change for change in changing if change.what in (What.CREATE, What.RETURN, What.MOVE)]
        resettled = [
            change.code
            for change in changing
            if change.what is What.LEAVE or any(each.field == UnitField.ORGANIZATION for each in change.differences)
        ]
        rows = query(
            connection, _SQL["left_behind"], leaving=resettled, coming=[change.code for change in coming],
            homes=[change.organization for change in coming], compared=sorted(compared),
        )  # fmt: skip
        codes = sorted({row["code"] for row in rows} - seen - {change.code for change in changing})
        if not codes:
            return
        seen |= set(codes)
        try:
            said = await each_unit(codes, siorg)
        except SiorgError as error:
            found.untold["units left behind"] = str(error)
            return
        units = _read(connection, 0, codes).units
        for code, unit in said.items():
            if (not isinstance(unit, RemoteUnit) or unit.ended) and units[code].organization_code not in gone:
                reason = (
                    str(unit) if isinstance(unit, PermanentError) else "SIORG has it no more; its organization was not compared"
                )
                here = units[code]
                found.changes.append(Change(What.FAILED, EntityType.UNIT, code, here.name, here.organization_code, reason=reason))
        there = [unit for unit in said.values() if isinstance(unit, RemoteUnit) and not unit.ended]
        await _compare_singly(there, siorg, connection, homes, found)


async def _compare_tables(siorg: SiorgClient, connection: Connection, found: Preview) -> None:
    for entity_type, table in TABLES.items():
        asked_at = clock(connection)
        try:
            rows = await siorg.domain(table)
        except SiorgError as error:
            found.untold[table.value] = str(error)
            continue
        fetched = Fetched(asked_at, rows=tuple(rows))
        with reading(connection):
            rows_compared = compare_tables(entity_type, fetched, read_table(connection, entity_type, rows))
        found.rows += len(rows)
        for row in rows_compared:
            found.changes += _of_table(row)
            found.noted += not row.is_noted


def _of_table(row: ComparedRow) -> Iterable[Change]:
    """The changes of a category or type: as in history, an end is a change by itself."""
    differences = tuple(each for each in row.differences if each.rule is not Rule.EDITED)
    if not differences:
        return
    names = [str(each.local or each.remote) for each in row.differences if each.field == DomainField.NAME]
    name = names[0] if names else "" if row.remote is None else row.remote.name
    change = Change(What.UPDATE, row.entity_type, row.code, name, 0, differences)
    state = tuple(each for each in differences if each.field == DomainField.IS_ACTIVE)
    rest = tuple(each for each in differences if each.field != DomainField.IS_ACTIVE)
    if row.remote is not None and len(row.remote.name) > LONGEST_NAME:
        yield change.not_written(What.FAILED, "SIORG's name does not fit")
    elif apart := tuple(each for each in differences if each.rule is Rule.APART):
        yield replace(change, what=What.CONFLICT, differences=apart, reason="changed here and in SIORG")
    elif row.local_id is None:
        yield replace(change, what=What.CREATE)
    elif state and state[0].remote is True:
        yield replace(change, what=What.RETURN)
    else:
        if rest:
            yield replace(change, differences=rest)
        if state:
            yield replace(change, what=What.END, differences=state, reason="SIORG's table has it no more, or says so")


def _read(connection: Connection, organization: int, codes: Sequence[int]) -> WorkingCopy:
    with reading(connection):
        return read_for_comparison(connection, organization, codes)


def _tree(connection: Connection, changes: Iterable[Change]) -> Tree:
    units = [change for change in changes if change.entity_type is EntityType.UNIT and change.what is not What.FAILED]
    placed = [change for change in units if change.what is not What.UPDATE]
    codes = {change.code for change in placed} | {change.parent for change in placed if isinstance(change.parent, int)}
    ending = [change.code for change in placed if change.what is What.END]
    nodes: dict[Key, Node] = {}
    for row in query(connection, _SQL["tree"], codes=sorted(codes), ending=ending):
        nodes[_key(row["key"])] = Node(
            row["name"], row["organization"], None if row["parent"] is None else _key(row["parent"]), row["is_active"],
            row["path"], row["level"], row["named"],
        )  # fmt: skip
    organizations = {row["code"]: row["path"] for row in query(connection, _SQL["organizations"])}
    max_depth = _read(connection, 0, []).max_depth
    return Tree(nodes, organizations, max_depth)


def _key(text: str) -> Key:
    return int(text) if text.isdecimal() else text
