"""The check: one organization beside SIORG's whole structure, or one table, each difference with its kind. Changes nothing here.

All that SIORG has to say is asked for first. Then the rows here are read, at one moment, and compared.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeAlias

from siorg_job.reconciliation import ended
from siorg_job.reconciliation.compared import Compared, compared
from siorg_job.reconciliation.departures import Departure, Kind, OnQueue, departures, returned, table_departures
from siorg_job.reconciliation.discover import asked_for, enqueue_differences
from siorg_job.reconciliation.tables import TABLES, items_of, open_conflicts
from siorg_job.siorg.client import SiorgClient
from siorg_job.siorg.each import each_unit
from siorg_job.siorg.errors import MalformedResponse, NotAnOrganization, NotFound, says_no_organization
from siorg_job.siorg.model import Answer, RemoteUnit, Structure, Told
from siorg_job.sync.compare import parents_elsewhere
from siorg_job.sync.domain_difference import compare as compare_table
from siorg_job.sync.limits import Limits
from siorg_job.sync.model import Fetched
from siorg_job.sync.read import read_table
from siorg_queue import Connection, EntityType, NewItem, QueueStore, clock, query, reading
from siorg_queue.statements import load

_SQL = load("siorg_job.reconciliation", "verify.sql")


Subject: TypeAlias = int | EntityType
"""What is verified as a whole: an organization, by its code, or one of the tables of categories and types."""
_Entity: TypeAlias = tuple[EntityType, int]


@dataclass(frozen=True, slots=True)
class Verified:
    """What came of verifying one organization, or one table."""

    subject: Subject
    asked_at: datetime
    """By the database's clock, before SIORG was asked."""
    rows: int
    """Rows of SIORG's that were compared."""
    departures: Sequence[Departure] = field(default_factory=tuple)
    is_active: bool = True
    """False: an organization that is not active here, of which nothing is compared."""
    enqueued: int = 0
    """Items that were put on the queue to mend the drift; what waited there already is not among them."""

    @property
    def drift(self) -> list[Departure]:
        return [each for each in self.departures if each.kind is Kind.DRIFT]

    @property
    def organization(self) -> int | None:
        """None: it is a table."""
        return None if isinstance(self.subject, EntityType) else self.subject


async def verify(
    subject: Subject,
    siorg: SiorgClient,
    connection: Connection,
    store: QueueStore | None = None,
    *,
    limits: Limits | None = None,
    at_once: int = 8,
) -> Verified:
    """Compare one organization, or one table.

    What differs and was touched since SIORG was asked is looked at once more, with an answer of its own, before it is drift.

    Args:
        subject: which.
        siorg: whom to ask.
        connection: to the database; the one that ``store`` uses.
        store: where drift is enqueued; None: nowhere.
        limits: beyond these, ends and overwritten names are held instead; None: the usual limits.
        at_once: requests at a time about single units, at most.

    Raises:
        SiorgError: SIORG could not be asked, or its answer cannot be trusted.
        psycopg.Error, DatabaseUnavailable: likewise, the database.
    """
    reader = _Reader(siorg, connection, at_once, limits or Limits())
    look: _Look
    look = await (_look_at_table(subject, reader) if isinstance(subject, EntityType) else _look_at(subject, reader))
    found = list(look.departures)
    again = look.drift & reader.touched(look.drift, look.asked_at)
    added = 0 if store is None else look.enqueue(store, look.drift - again)
    if again:
        second = await look.again(again)
        found = [each for each in found if _entity(each) not in again]
        found += [each for each in second.departures if _entity(each) in again]
        added += 0 if store is None else second.enqueue(store, second.drift & again)
    return Verified(subject, look.asked_at, look.rows, tuple(found), not isinstance(look, _LookAtInactive), added)


def _entity(departure: Departure) -> _Entity:
    return departure.entity_type, departure.code


@dataclass(frozen=True, slots=True)
class _Reader:
    """SIORG and the database, as one verification asks them."""

    siorg: SiorgClient
    connection: Connection
    at_once: int
    limits: Limits

    async def answers(self, codes: Iterable[int]) -> dict[int, Answer]:
        """What SIORG says of each of these units by itself."""
        return await each_unit(codes, self.siorg, at_once=self.at_once)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """A transaction in which all is read as it was at one moment."""
        with reading(self.connection, at_one_moment=True):
            yield

    def run(self, statement: str, **parameters: Any) -> list[dict[str, Any]]:
        return self.connection.execute(_SQL[statement], parameters).fetchall()

    def queue(self, codes: Iterable[int]) -> dict[_Entity, OnQueue]:
        found: dict[_Entity, OnQueue] = {}
        for row in self.run("on_queue", codes=sorted(codes)):
            entity, since = (EntityType(row["entity_type"]), row["code"]), row["since"]
            known = found.get(entity, OnQueue())
            fields = dict.fromkeys(row["fields"], since)
            match row["state"]:
                case "open":
                    known = replace(known, open_since=min(since, known.open_since or since))
                case "failed":
                    known = replace(known, failed_since=since, error=row["error"])
                case "held":
                    known = replace(known, held={**fields, **known.held})
                case _:
                    known = replace(known, conflicts={**fields, **known.conflicts})
            found[entity] = known
        return found

    def touched(self, entities: Collection[_Entity], asked_at: datetime) -> set[_Entity]:
        """Those of which the row, or an item about it, has changed since then."""
        if not entities:
            return set()
        codes = sorted({code for _, code in entities})
        return {
            (EntityType(row["entity_type"]), row["code"])
            for row in query(self.connection, _SQL["touched"], codes=codes, asked_at=asked_at)
        }


# -- one look at an organization, or at a table -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Look:
    """What one look found."""

    reader: _Reader
    asked_at: datetime
    rows: int
    departures: tuple[Departure, ...]

    @property
    def drift(self) -> set[_Entity]:
        return {_entity(each) for each in self.departures if each.kind is Kind.DRIFT}

    def enqueue(self, store: QueueStore, only: Collection[_Entity]) -> int:
        """Enqueue what brings these in line, and return how many items were added."""
        raise NotImplementedError

    async def again(self, entities: Collection[_Entity]) -> _Look:
        """A second look, with newer answers about these."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class _LookAtOrganization(_Look):
    compared: Compared

    def enqueue(self, store: QueueStore, only: Collection[_Entity]) -> int:
        if not only:
            return 0
        return enqueue_differences(
            self.compared, self.reader.limits, self.reader.connection, store, asked_at=self.asked_at, only=only
        ).added

    async def again(self, entities: Collection[_Entity]) -> _Look:
        asked_at, told = clock(self.reader.connection), self.compared.told
        structure = told.structure
        codes = {code for _, code in entities}
        units = {code: unit for code, unit in structure.units.items() if code not in codes}
        invalid = {code: error for code, error in structure.invalid.items() if code not in codes}
        told = replace(told, structure=replace(structure, units=units, invalid=invalid))
        return await _compared(told.with_answers(await self.reader.answers(codes)), asked_at, self.reader)


@dataclass(frozen=True, slots=True)
class _LookAtInactive(_Look):
    """One that counts as not registered."""

    def enqueue(self, store: QueueStore, only: Collection[_Entity]) -> int:
        del store, only
        return 0

    async def again(self, entities: Collection[_Entity]) -> _Look:
        del entities
        return self


async def _look_at(organization: int, reader: _Reader) -> _Look:
    asked_at = clock(reader.connection)
    (row,) = asked_for(reader.connection, [organization])
    if not row.is_active:
        is_back = row.had_ended and await ended.exists(organization, reader.siorg)
        return _LookAtInactive(reader, asked_at, 0, (returned(organization, row.name),) if is_back else ())
    told = await _told(organization, reader.siorg)
    listed = [*told.structure.units, *told.structure.invalid]
    missing = [row["code"] for row in query(reader.connection, _SQL["missing"], organization=organization, codes=listed)]
    return await _compared(told.with_answers(await reader.answers(missing)), asked_at, reader)


async def _told(organization: int, siorg: SiorgClient) -> Told:
    """The structure; one that SIORG has no more only if it says so three times."""
    for _ in range(2):
        try:
            return Told(await siorg.structure(organization))
        except (NotFound, NotAnOrganization) as error:
            if not says_no_organization(error):
                raise
    if not await ended.exists(organization, siorg):
        return Told(Structure(organization, {}, {}), ended=True)
    raise MalformedResponse(f"SIORG has a version of organization {organization}, and no structure")


async def _compared(told: Told, asked_at: datetime, reader: _Reader) -> _LookAtOrganization:
    """Compare with what was told, after asking for what it leaves open."""
    organization = told.structure.organization
    # The structure does not have them, but they say themselves that they belong there: they came meanwhile.
    came = {
        code: answer
        for code, answer in told.answers.items()
        if isinstance(answer, RemoteUnit) and not answer.ended and answer.organization_code == organization and not told.ended
    }
    structure = replace(told.structure, units={**told.structure.units, **came})
    parents = parents_elsewhere(structure) - told.answers.keys()
    told = replace(told, structure=structure).with_answers(await reader.answers(parents))
    with reader.snapshot():
        found = compared(told, reader.connection)
        codes = {code for _, code in found.comparison.differences}
        codes |= {*found.comparison.gone, *found.comparison.kept, *structure.invalid, organization}
        listed = departures(told, found.comparison, found.copy, found.registered, reader.queue(codes))
        dated = tuple(_dated(tuple(listed), reader))
    return _LookAtOrganization(reader, asked_at, len(structure.units), dated, found)


def _dated(found: Sequence[Departure], reader: _Reader) -> Iterator[Departure]:
    """What is elsewhere in SIORG, with the time since when it is so here."""
    codes = [each.code for each in found if each.kind is Kind.OUTSIDE]
    since = {row["code"]: row["since"] for row in reader.run("moved", codes=codes)} if codes else {}
    for each in found:
        yield replace(each, since=since.get(each.code)) if each.kind is Kind.OUTSIDE else each


@dataclass(frozen=True, slots=True)
class _LookAtTable(_Look):
    table: EntityType
    items: Sequence[NewItem]

    def enqueue(self, store: QueueStore, only: Collection[_Entity]) -> int:
        return store.enqueue([item for item in self.items if (item.entity_type, item.siorg_code) in only])

    async def again(self, entities: Collection[_Entity]) -> _Look:
        del entities  # SIORG gives the whole table, or nothing
        return await _look_at_table(self.table, self.reader)


async def _look_at_table(entity_type: EntityType, reader: _Reader) -> _LookAtTable:
    asked_at = clock(reader.connection)
    rows = await reader.siorg.domain(TABLES[entity_type])
    with reader.snapshot():
        copy = read_table(reader.connection, entity_type, rows)
        compared = compare_table(entity_type, Fetched(asked_at, rows=tuple(rows)), copy)
        queue = reader.queue({row.code for row in compared if row.differences})
        items = list(items_of(compared, open_conflicts(reader.connection, entity_type), asked_at))
    return _LookAtTable(reader, asked_at, len(rows), tuple(table_departures(compared, copy, queue)), entity_type, items)
