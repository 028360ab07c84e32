"""What a discovery and a run would write, if they came now: read from SIORG and from the rows here. Writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from siorg_job.discover import Organization, ask_singly, items_for, look_for, registered, units_named
from siorg_job.discover_tables import TABLES
from siorg_job.siorg.client import SiorgClient
from siorg_job.siorg.errors import InvalidData, SiorgError
from siorg_job.siorg.model import RemoteUnit, Structure
from siorg_job.sync.changes import Change, Key, Node, Tree, What, changes_of, end_of, settle
from siorg_job.sync.compare import Comparison, Difference, compare, parents_elsewhere
from siorg_job.sync.domain_difference import ComparedRow, FieldVerdict
from siorg_job.sync.domain_difference import compare as compare_tables
from siorg_job.sync.merge import Rule
from siorg_job.sync.model import DomainField, Fetched, UnitField
from siorg_job.sync.read import read_decisions, read_for_comparison, read_table
from siorg_job.sync.working_copy import WorkingCopy
from siorg_queue import Connection, EntityType, transaction
from siorg_queue.statements import load

_RULES = {FieldVerdict.TAKE: Rule.TAKE, FieldVerdict.EDITED: Rule.EDITED, FieldVerdict.CONFLICT: Rule.APART}


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


def nobody(_done: int, _name: str) -> bool:
    """Nobody looks on, and nobody stops it."""
    return False


async def preview(
    organizations: Sequence[Organization],
    siorg: SiorgClient,
    connection: Connection,
    *,
    tables: bool = True,
    stopped: Callable[[int, str], bool] = nobody,
) -> Preview:
    """Compare the organizations, and both tables that units refer to.

    Args:
        organizations: as ``registered`` returned them.
        siorg: whom to ask.
        connection: only read from.
        tables: also categories and types, as discovery of all organizations does.
        stopped: called before each organization with the number of those that are done, and its name; True ends it there.

    Raises:
        psycopg.Error, DatabaseUnavailable: the database could not be asked.
    """
    found = Preview()
    waiting = _rows(connection, "waiting")[0]
    found.waiting, found.decisions = waiting["items"], waiting["decisions"]
    homes = {organization.code for organization in registered(connection, None)}
    moved: dict[int, RemoteUnit] = {}
    if tables:
        await _compare_tables(siorg, connection, found)
    for number, organization in enumerate(organizations):
        if stopped(number, organization.acronym):
            found.untold |= {str(rest.code): "stopped" for rest in organizations[number:]}
            break
        if organization.code not in homes:
            found.untold[str(organization.code)] = "inactive here: nothing of it is kept in line"
            continue
        try:
            moved |= await _compare_organization(organization.code, siorg, connection, homes, found)
        except SiorgError as error:
            found.untold[str(organization.code)] = str(error)
    known = {change.code for change in found.changes}
    await _compare_singly([unit for code, unit in moved.items() if code not in known], siorg, connection, homes, found)
    compared = {each.code for each in organizations if str(each.code) not in found.untold}
    await _look_at_left_behind(compared, siorg, connection, homes, found)
    found.changes = settle(found.changes, _tree(connection, found.changes))
    return found


async def _compare_organization(
    code: int, siorg: SiorgClient, connection: Connection, homes: set[int], found: Preview
) -> dict[int, RemoteUnit]:
    """Compare one whole structure; returns the units that are here, and in another organization there."""
    structure = await siorg.structure(code)
    elsewhere = await look_for(parents_elsewhere(structure), siorg)
    copy, comparison, disputed = _compared(structure, elsewhere, connection)
    list(items_for(structure, comparison, copy, disputed))  # which refuses what it does not believe
    gone = await ask_singly(comparison.gone, siorg)
    found.organizations += 1
    found.rows += len(structure.units)
    _add(structure, comparison, copy, elsewhere, found)
    ends = [end_of(copy.units[each], copy, said, homes) for each, said in gone.items()]
    found.changes += [end for end in ends if end is not None]
    return {
        each: said
        for each, said in gone.items()
        if isinstance(said, RemoteUnit)
        and not said.ended
        and said.organization_code in homes - {code, each}
        and not said.is_organization
    }


def _compared(
    structure: Structure, elsewhere: dict[int, int | None], connection: Connection
) -> tuple[WorkingCopy, Comparison, set[Any]]:
    copy = read_for_comparison(connection, structure.organization, units_named(structure, elsewhere))
    comparison = compare(structure, copy, elsewhere)
    if codes := sorted({*comparison.apart, *comparison.gone}):
        disputed = read_decisions(connection, codes, copy)
        comparison = compare(structure, copy, elsewhere)  # with what people turned down
        return copy, comparison, disputed
    return copy, comparison, set()


def _add(
    structure: Structure, comparison: Comparison, copy: WorkingCopy, elsewhere: dict[int, int | None], found: Preview
) -> None:
    found.changes += changes_of(structure, comparison, copy, elsewhere)
    found.noted += len(comparison.unnoted)
    theirs = [each for differences in comparison.differences.values() for each in differences if each.rule is not Rule.TAKE]
    found.edited += sum(each.rule is Rule.EDITED for each in theirs)
    found.adopted += [each for each in theirs if each.adopted]


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
            copy = read_for_comparison(connection, 0, list(group))
            ends = [end_of(copy.units[code], copy, unit, homes) for code, unit in group.items() if code in copy.units]
            found.changes += [end for end in ends if end is not None]
            continue
        structure = Structure(home, group, {})
        try:
            elsewhere = await _complete(structure, siorg, connection)
        except SiorgError as error:
            found.untold["units of organization " + str(home)] = str(error)
            continue
        copy, comparison, _ = _compared(structure, elsewhere, connection)
        _add(structure, comparison, copy, elsewhere, found)


async def _complete(structure: Structure, siorg: SiorgClient, connection: Connection) -> dict[int, int | None]:
    """Add what is above the units and not in its place here; returns the organizations of the parents that are left out."""
    home = structure.organization
    elsewhere: dict[int, int | None] = {}
    while parents := sorted(parents_elsewhere(structure) - elsewhere.keys()):
        here = read_for_comparison(connection, home, parents).units
        for parent, said in (await ask_singly(parents, siorg)).items():
            row = here.get(parent)
            if isinstance(said, InvalidData):
                structure.invalid[parent] = said
            elif said is None or said.ended or said.organization_code != home:
                elsewhere[parent] = None if said is None or said.ended else said.organization_code
            elif row is not None and row.is_active and row.organization_code == home:
                elsewhere[parent] = home
            else:
                structure.units[parent] = said
    return elsewhere


async def _look_at_left_behind(
    compared: set[int], siorg: SiorgClient, connection: Connection, homes: set[int], found: Preview
) -> None:
    """Units of organizations that were not compared, which the run asks for since one above them comes or leaves."""
    seen: set[int] = set()
    while True:
        changing = [change for change in found.changes if change.entity_type is EntityType.UNIT]
        coming = [change for change in changing if change.what in (What.CREATE, What.RETURN, What.MOVE)]
        resettled = [
            change.code
            for change in changing
            if change.what is What.LEAVE or any(each.field == UnitField.ORGANIZATION for each in change.differences)
        ]
        rows = _rows(
            connection, "left_behind", leaving=resettled, coming=[change.code for change in coming],
            homes=[change.organization for change in coming], compared=sorted(compared),
        )  # fmt: skip
        codes = sorted({row["code"] for row in rows} - seen - {change.code for change in changing})
        if not codes:
            return
        seen |= set(codes)
        try:
            said = await ask_singly(codes, siorg)
        except SiorgError as error:
            found.untold["units left behind"] = str(error)
            return
        units = read_for_comparison(connection, 0, codes).units
        for code, unit in said.items():
            if not isinstance(unit, RemoteUnit) or unit.ended:
                reason = str(unit) if isinstance(unit, InvalidData) else "SIORG has it no more; its organization was not compared"
                here = units[code]
                found.changes.append(Change(What.FAILED, EntityType.UNIT, code, here.name, here.organization_code, reason=reason))
        there = [unit for unit in said.values() if isinstance(unit, RemoteUnit) and not unit.ended]
        await _compare_singly(there, siorg, connection, homes, found)


async def _compare_tables(siorg: SiorgClient, connection: Connection, found: Preview) -> None:
    for entity_type, table in TABLES.items():
        try:
            rows = await siorg.domain(table)
        except SiorgError as error:
            found.untold[table.value] = str(error)
            continue
        fetched = Fetched(datetime.now(UTC), rows=tuple(rows))
        with transaction(connection):
            compared = compare_tables(entity_type, fetched, read_table(connection, entity_type, rows))
        found.rows += len(rows)
        for row in compared:
            found.changes += _of_table(row)
            found.noted += not row.is_noted


def _of_table(row: ComparedRow) -> Iterable[Change]:
    """The changes of a category or type: as in history, an end is a change by itself."""
    differences = [
        Difference(row.entity_type, row.code, each.field, _RULES.get(each.verdict, Rule.TAKE), each.base, each.local, each.remote)
        for each in row.differences
        if each.verdict is not FieldVerdict.EDITED
    ]
    if not differences:
        return
    verdicts = {each.verdict for each in row.differences}
    names = [str(each.local or each.remote) for each in row.differences if each.field is DomainField.NAME]
    name = names[0] if names else "" if row.remote is None else row.remote.name
    change = Change(What.UPDATE, row.entity_type, row.code, name, 0, tuple(differences))
    if FieldVerdict.UNUSABLE in verdicts:
        yield change.not_written(What.FAILED, "SIORG's name does not fit")
    elif FieldVerdict.CONFLICT in verdicts:
        apart = tuple(each for each in differences if each.rule is Rule.APART)
        yield replace(change, what=What.CONFLICT, differences=apart, reason="changed here and in SIORG")
    elif row.local_id is None:
        yield replace(change, what=What.CREATE)
    else:
        state = tuple(each for each in differences if each.field == DomainField.IS_ACTIVE)
        rest = tuple(each for each in differences if each.field != DomainField.IS_ACTIVE)
        if state and state[0].remote is True:
            yield replace(change, what=What.RETURN)
            return
        if rest:
            yield replace(change, differences=rest)
        if state:
            yield replace(change, what=What.END, differences=state, reason="SIORG's table has it no more, or says so")


def _tree(connection: Connection, changes: Iterable[Change]) -> Tree:
    units = [change for change in changes if change.entity_type is EntityType.UNIT and change.what is not What.FAILED]
    placed = [change for change in units if change.what is not What.UPDATE]
    codes = {change.code for change in placed} | {change.parent for change in placed if isinstance(change.parent, int)}
    ending = [change.code for change in placed if change.what is What.END]
    nodes: dict[Key, Node] = {}
    for row in _rows(connection, "tree", codes=sorted(codes), ending=ending):
        nodes[_key(row["key"])] = Node(
            row["name"], row["organization"], None if row["parent"] is None else _key(row["parent"]), row["is_active"],
            row["path"], row["level"],
        )  # fmt: skip
    organizations = {row["code"]: row["path"] for row in _rows(connection, "organizations")}
    max_depth = read_for_comparison(connection, 0, []).max_depth
    return Tree(nodes, organizations, max_depth)


def _key(text: str) -> Key:
    return int(text) if text.isdecimal() else text


def _rows(connection: Connection, statement: str, **parameters: Any) -> list[dict[str, Any]]:
    with transaction(connection):
        return connection.execute(load("siorg_job", "preview.sql")[statement], parameters).fetchall()
