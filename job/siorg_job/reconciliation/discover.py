"""The producer: compares each registered organization with SIORG and puts the differences on the queue.

A version that stands still proves nothing, and one that moved does not prove that the rows beside it have. So the whole
structure is compared when the version moved, again the next time after that and a day later, as long as something was found to
differ or waits for a person, and at least every seven days. What differs is enqueued once each, or, where it FAILED, opened again
after a pause; that it was compared is recorded last: a discovery that was cut short is simply done again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from siorg_job.reconciliation import ended
from siorg_job.reconciliation.ahead import to_its_end
from siorg_job.reconciliation.compared import Compared, compared
from siorg_job.reconciliation.ended import Elsewhere
from siorg_job.reconciliation.hold import Within, ends_held, hold, sort_absent
from siorg_job.reconciliation.questions import Question, with_questions
from siorg_job.siorg.client import SiorgClient
from siorg_job.siorg.each import each_unit
from siorg_job.siorg.model import RemoteUnit, Structure, Told, home_of
from siorg_job.sync.compare import EXISTS, PATHS, Comparison, Difference, Disputed, above_in, is_end, parents_elsewhere
from siorg_job.sync.limits import Limits
from siorg_job.sync.merge import Rule
from siorg_job.sync.model import PLACE, UnitField
from siorg_job.sync.working_copy import WorkingCopy
from siorg_queue import Connection, Decisions, EntityType, JsonText, NewItem, Operation, QueueStore, clock, query, reading
from siorg_queue.statements import load

_SQL = load("siorg_job.reconciliation", "discover.sql")


@dataclass(frozen=True, slots=True)
class Organization:
    """A registered organization as discovery needs it."""

    code: int
    acronym: str
    name: str
    version: str | None
    """The version recorded at the last discovery."""
    at_rest: bool
    """At the last comparison nothing differed or was in dispute, the version had not moved, and that is less than seven days
    ago; and the version has not stood for a day since without a comparison."""
    has_units: bool
    is_active: bool = True
    had_ended: bool = False
    """SIORG had it no more when it was last asked, or when it was deactivated here."""


@dataclass(frozen=True, slots=True)
class Discovery:
    """What one organization's discovery found."""

    organization: int
    version: str
    how: str
    """``unchanged``; ``structure``: it was compared; ``ended``: SIORG has no such organization, ``kept``: nor is that news to a
    person; ``inactive``: it is not active here, ``returned``: and SIORG has it again; ``later``: see ``Elsewhere.is_last``."""
    items: Sequence[NewItem] = ()
    added: int = 0
    """Items that were really enqueued, or opened again; the others are waiting already, or FAILED and have a pause."""
    held: int = 0
    """Ends and overwritten names that wait for a person, also from before."""
    reasons: Sequence[str] = ()
    """How many of how many, and the limit, where something was beyond one."""
    waiting: int = 0
    """Units that end with an ended organization, when a person says so."""


def registered(connection: Connection, codes: Sequence[int] | None) -> list[Organization]:
    """The registered organizations: those named, else all active ones."""
    rows = query(connection, _SQL["organizations"], codes=None if codes is None else list(codes), inactive=False)
    return [Organization(**row) for row in rows]


def asked_for(connection: Connection, codes: Sequence[int] | None) -> list[Organization]:
    """As ``registered``, and the inactive ones too: they count as not registered, but SIORG may have them again."""
    rows = query(connection, _SQL["organizations"], codes=None if codes is None else list(codes), inactive=True)
    return [Organization(**row) for row in rows]


async def discover(
    organization: Organization,
    siorg: SiorgClient,
    connection: Connection,
    store: QueueStore,
    *,
    full: bool = False,
    limits: Limits | None = None,
    elsewhere: Elsewhere | None = None,
) -> Discovery:
    """Discover one organization, enqueue the differences and record that it was compared.

    Args:
        organization: as ``registered`` returned it.
        siorg: whom to ask.
        connection: the one that ``store`` uses.
        store: the queue.
        full: read the whole structure whatever is recorded.
        limits: beyond these, ends and overwritten names are held; None: who calls answers for them.
        elsewhere: what a run knows of all organizations; None: nothing yet.

    Raises:
        SiorgError: SIORG could not be asked, or its answer cannot be trusted; nothing was recorded.
        psycopg.Error, DatabaseUnavailable: likewise.
    """
    asked = await ask(organization, siorg, lambda: to_its_end(partial(clock, connection)), full=full)
    return await settle(asked, siorg, connection, store, full=full, limits=limits, elsewhere=elsewhere)


@dataclass(frozen=True, slots=True)
class Asked:
    """What SIORG says of one organization, before anything here is looked at."""

    organization: Organization
    exists: bool
    version: str = ""
    told: Told | None = None
    """None: there is nothing to compare."""
    asked_at: datetime | None = None
    """Before the structure was asked for, by the database's clock."""


async def ask(
    organization: Organization, siorg: SiorgClient, now: Callable[[], Awaitable[datetime]], *, full: bool = False
) -> Asked:
    """Ask what the discovery of one organization needs to know, whatever is here. Several may be asked about at a time.

    Args:
        organization: as ``registered`` returned it.
        siorg: whom to ask.
        now: the database's clock.
        full: ask for the whole structure whatever is recorded.

    Raises:
        SiorgError: SIORG could not be asked, or its answer cannot be trusted.
        DatabaseUnavailable: of the clock.
    """
    code = organization.code
    if not organization.is_active:
        return Asked(organization, exists=await ended.exists(code, siorg))
    version = await ended.version_of(code, siorg)
    if version is None:
        return Asked(organization, exists=False)
    if not full and organization.has_units and organization.at_rest and version == organization.version:
        return Asked(organization, exists=True, version=version)
    asked_at = await now()
    structure = await ended.structure_of(code, siorg)
    told = Told(structure, await each_unit(parents_elsewhere(structure), siorg))
    return Asked(organization, exists=True, version=version, told=told, asked_at=asked_at)


async def settle(
    asked: Asked,
    siorg: SiorgClient,
    connection: Connection,
    store: QueueStore,
    *,
    full: bool = False,
    limits: Limits | None = None,
    elsewhere: Elsewhere | None = None,
) -> Discovery:
    """Compare, enqueue the differences and record that it was compared; one organization at a time. See ``discover``."""
    organization, told, asked_at = asked.organization, asked.told, asked.asked_at
    if not organization.is_active:
        return _inactive(asked, connection, store)
    if not asked.exists:
        return await _ended(organization, siorg, connection, store, full=full, elsewhere=elsewhere)
    if told is None or asked_at is None:
        return Discovery(organization.code, asked.version, "unchanged")
    if elsewhere is not None:
        elsewhere.add(told.structure)
    structure = told.structure
    found, away = await to_its_end(partial(_compare, told, asked_at, connection, store))
    # What is held was asked for; should it be elsewhere by now, the discovery of that organization finds it.
    known = {**dict.fromkeys(ends_held(found.copy)), **told.answers}
    alone = await each_unit(away - known.keys() - structure.units.keys() - structure.invalid.keys(), siorg)
    found = replace(found, told=told.with_answers(known | alone))
    return await to_its_end(partial(_enqueue, asked, told, asked_at, found, limits, connection, store))


def _compare(told: Told, asked_at: datetime, connection: Connection, store: QueueStore) -> tuple[Compared, set[int]]:
    """What came of it, and the units of which it leaves open where they are now."""
    structure = told.structure
    # Noted before the local rows are looked at: see QueueStore.note.
    store.note(asked_at, [*structure.units, *structure.invalid], organization=structure.organization)
    with reading(connection):
        found = compared(told, connection)
    questions = _read_questions(connection, structure.organization, found.copy.units)
    return found, {*found.comparison.gone, *(question.code for question in questions)}


def _enqueue(
    asked: Asked,
    told: Told,
    asked_at: datetime,
    found: Compared,
    limits: Limits | None,
    connection: Connection,
    store: QueueStore,
) -> Discovery:
    """Enqueue what came of it, and record that it was compared."""
    code, version = asked.organization.code, asked.version
    new = enqueue_differences(found, limits, connection, store, asked_at=asked_at)
    # Of an answer that is not to be used as a whole, or is older than one that was applied, the version is none to rely on.
    nowhere = any(not isinstance(answer, RemoteUnit) for answer in told.answers.values())
    in_doubt = bool(new.failed or told.structure.invalid) or nowhere or _is_outdated(asked_at, found.copy)
    waits = bool(new.items or new.within.held or new.questions or found.disputed)
    at_rest = not waits and not in_doubt and version == asked.organization.version
    query(
        connection, _SQL["record"], organization=code, version=None if in_doubt else version, at_rest=at_rest, asked_at=asked_at
    )
    return Discovery(code, version, "structure", new.items, new.added, new.within.held, new.within.reasons)


def _read_questions(connection: Connection, organization: int, units: Collection[int]) -> list[Question]:
    """What people are asked about an organization and its units, and those that SIORG had in it then."""
    return [
        Question(EntityType(row["entity_type"]), row["code"], Operation(row["operation"]), row["changes"] or {}, row["children"])
        for row in query(connection, _SQL["questions"], organization=organization, codes=[organization, *units])
    ]


def _is_outdated(asked_at: datetime, copy: WorkingCopy) -> bool:
    applied = [*(row.synced_at for row in copy.organizations.values()), *(row.synced_at for row in copy.units.values())]
    return any(moment is not None and moment > asked_at for moment in applied)


def _inactive(asked: Asked, connection: Connection, store: QueueStore) -> Discovery:
    """One that a person has deactivated here: questions about its units are over, and whether SIORG has it again is noted."""
    organization = asked.organization
    ended.end_questions(connection, store, organization.code)
    if organization.had_ended or not asked.exists:
        ended.record_existence(connection, organization.code, asked.exists)
    return Discovery(organization.code, "", "returned" if asked.exists and organization.had_ended else "inactive")


async def _ended(
    organization: Organization,
    siorg: SiorgClient,
    connection: Connection,
    store: QueueStore,
    *,
    full: bool,
    elsewhere: Elsewhere | None,
) -> Discovery:
    """One that SIORG has no more."""
    code = organization.code
    if elsewhere is None:
        others = [other.code for other in registered(connection, None) if other.code != code]
        elsewhere = Elsewhere(siorg, others)
    if not elsewhere.is_last:
        return Discovery(code, "", "later")
    asked_at = clock(connection)
    await ended.confirm(code, siorg)
    store.note(asked_at, [code], organization=code)
    ended.record_existence(connection, code, found=False)  # before its items are there: what ends now counts against no limit
    ends = [row.id for row in Decisions(connection).held(organization=code) if row.field == UnitField.IS_ACTIVE]
    freed = store.end_held(ends, f"SIORG has ended organization {code}: what is elsewhere goes there, the rest is one decision")
    is_known = organization.at_rest and organization.version is None and not full and not freed
    found = await ended.look(code, connection, None if is_known else elsewhere, asked_at)
    store.end_conflicts(found.nowhere, f"SIORG has ended organization {code}: it and its units are one decision")
    added = store.enqueue(found.items)
    at_rest = all(item.entity_type is EntityType.ORGANIZATION for item in found.items)
    ended.record_ended(connection, code, at_rest=at_rest)
    return Discovery(code, "", "kept" if found.is_kept else "ended", found.items, added, waiting=found.waiting)


@dataclass(frozen=True, slots=True)
class Enqueued:
    """What came of a comparison."""

    items: Sequence[NewItem]
    added: int
    """Of these were really enqueued, or opened again; the others are waiting already, or FAILED and have a pause."""
    failed: int
    """Of these there is one already that FAILED."""
    questions: int
    """What people are asked about the entities that were compared."""
    within: Within


def enqueue_differences(
    found: Compared,
    limits: Limits | None,
    connection: Connection,
    store: QueueStore,
    *,
    asked_at: datetime,
    only: Collection[tuple[EntityType, int]] | None = None,
) -> Enqueued:
    """Enqueue what came of a comparison, within the limits: for discovery all of it, for verification ``only`` what is drift.

    Args:
        found: what came of the comparison, with what SIORG says of each unit that is gone.
        limits: beyond these, ends and overwritten names are held; None: who calls answers for them.
        connection: the one that ``store`` uses.
        store: the queue.
        asked_at: when SIORG was asked, by the database's clock.
        only: the entities of which items are enqueued; None: all.
    """
    structure, copy = found.told.structure, found.copy
    absent = sort_absent({code: found.told.answers[code] for code in found.comparison.gone}, copy, found.registered)
    ends = absent.ended
    if found.told.ended:  # what ends with its organization waits for one decision about that
        ends = tuple(code for code in ends if home_of(found.told.answers[code]) is not None)
    elif any(
        each.had_ended for each in asked_for(connection, [structure.organization])
    ):  # before anything is counted: the limits are for it again
        ended.record_existence(connection, structure.organization, None)
    if limits is None:  # what is held stays so
        held = set(ends_held(copy))
        ends = tuple(code for code in ends if code not in held)
    within = Within(replace(found.comparison, gone=ends))
    if limits is not None and not found.told.ended:
        within = hold(structure, within.comparison, copy, limits, connection=connection, store=store, asked_at=asked_at)
    questions = _read_questions(connection, structure.organization, copy.units)
    differing = [*items_for(structure, within.comparison, found.disputed), *map(_moved, absent.moved.values())]
    differing += [NewItem(EntityType.UNIT, code, Operation.UPDATE) for code in absent.unusable]
    new = list(with_questions(differing, questions, replace(found, comparison=within.comparison)))
    if ended.remembers_an_end(connection, structure.organization):
        new.append(NewItem(EntityType.ORGANIZATION, structure.organization, Operation.UPDATE))
    items = [replace(item, needed_at=asked_at) for item in new if only is None or (item.entity_type, item.siorg_code) in only]
    above = {item.siorg_code: above_in(structure, item.siorg_code) for item in items if item.siorg_code in structure.units}
    failed = store.retry_found(items, above)
    added = sum(failed.values()) + store.enqueue([item for position, item in enumerate(items) if position not in failed])
    return Enqueued(items, added, len(failed), len(questions), within)


def items_for(structure: Structure, comparison: Comparison, disputed: Collection[Disputed] = ()) -> Iterator[NewItem]:
    """The items for what differs, what cannot be read (it ends FAILED with the reason), and what has ended. Pure.

    Args:
        structure: SIORG's answer.
        comparison: what came of comparing it, without what is held; ``gone`` are ends.
        disputed: what waits for a person already: it is not asked again.
    """
    code = structure.organization
    for entity_type, entity in comparison.unnoted:
        if entity in structure.units:
            yield _item(structure.units[entity], Operation.UPDATE, entity_type)
        else:
            yield NewItem(entity_type, entity, Operation.EXTINCTION)
    for (entity_type, entity), differences in comparison.differences.items():
        if operation := _operation(open_of(differences, disputed)):
            yield _item(structure.units[entity], operation, entity_type)
    for entity in sorted(structure.invalid):
        if entity != code:
            yield NewItem(EntityType.UNIT, entity, Operation.UPDATE)
    for entity in comparison.gone:
        yield NewItem(EntityType.UNIT, entity, Operation.EXTINCTION)


def open_of(differences: Sequence[Difference], disputed: Collection[Disputed]) -> list[Difference]:
    """What an item can bring in line, or has to ask a person about."""
    if not disputed:
        return list(differences)
    open_ = [each for each in differences if each.disputed not in disputed]
    is_held_up = any(each.holds_up for each in differences if each.disputed in disputed)
    if is_held_up and not any(each.rule is Rule.APART for each in open_):
        return [each for each in open_ if each.field in PATHS]  # the rest waits for the decision
    return open_


def _operation(differences: Sequence[Difference]) -> Operation | None:
    """What an item about these differences is called; None where nothing of them is to be brought in line."""
    open_ = [difference for difference in differences if difference.rule is not Rule.EDITED]
    if not open_:
        return None
    if any(difference.field == EXISTS for difference in open_):
        return Operation.CREATION
    if any(is_end(difference) for difference in open_):
        return Operation.EXTINCTION
    return Operation.HIERARCHY_CHANGE if any(difference.field in PLACE for difference in open_) else Operation.UPDATE


def _moved(unit: RemoteUnit) -> NewItem:
    """To another registered organization: its row names that one, so that its structure answers for all of them."""
    return _item(unit, Operation.HIERARCHY_CHANGE)


def _item(unit: RemoteUnit, operation: Operation, entity_type: EntityType = EntityType.UNIT) -> NewItem:
    return NewItem(entity_type, unit.code, operation, JsonText(unit.raw))
