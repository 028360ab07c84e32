"""From claimed items to evidence: what SIORG says of each, fetched as the plan says and no more often than needed."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeAlias, TypeVar

from siorg_job.database.thread import DatabaseThread
from siorg_job.fetch.plan import plan
from siorg_job.siorg.errors import InvalidAnswer, NotFound, PermanentError, SiorgError, SiorgUnavailable, TornAnswer
from siorg_job.siorg.model import DomainRow, DomainTable, RemoteUnit, Structure
from siorg_job.siorg.parsing import parse_stored
from siorg_job.sync.apply import Work
from siorg_job.sync.model import Evidence
from siorg_queue import DatabaseUnavailable, EntityType, Item, Operation, Outcome, Verdict
from siorg_queue.statements import load
from siorg_runtime.logs import logger

log = logger("siorg_job.fetch.fetcher")

_CACHED_UNITS = 20_000  # units of all cached structures together, about 3 kB each
_MAY_END = frozenset({Operation.EXTINCTION, Operation.MERGE, Operation.SPLIT})  # for which "not found" is an end
_LONGEST_CHAIN = 64  # levels: far beyond any real hierarchy, so a longer one is damage


class Siorg(Protocol):
    """What the job asks of SIORG (``siorg.client.SiorgClient`` is the real one)."""

    async def unit(self, code: int) -> RemoteUnit:
        """One unit, whole."""
        ...

    async def structure(self, organization: int) -> Structure:
        """All units of an organization."""
        ...

    async def domain(self, table: DomainTable) -> list[DomainRow]:
        """One domain table."""
        ...


@dataclass(frozen=True, slots=True)
class Trouble:
    """An item whose fetch failed for a reason that may pass; what it means for the item is decided by who drains."""

    item: Item
    error: SiorgError | DatabaseUnavailable


Gathered: TypeAlias = Work | Trouble


@dataclass(frozen=True, slots=True)
class _Fetched:
    asked_at: datetime
    until: float
    """End of freshness, by the event loop's clock (seconds)."""
    structure: Structure


@dataclass(frozen=True, slots=True)
class _Known:
    """SIORG has this organization."""

    asked_at: datetime
    until: float


@dataclass(frozen=True, slots=True)
class _Table:
    asked_at: datetime
    until: float
    rows: tuple[DomainRow, ...]


_Key = TypeVar("_Key")
_Answer = TypeVar("_Answer", _Fetched, _Known, _Table)


def failed(item: Item, error: SiorgError) -> Verdict:
    """The end of an item whose answer will not get better."""
    return Verdict(
        item,
        Outcome.FAILED,
        error=str(error),
        details={"kind": kind_of(error), "retryable": False, "details": dict(error.details)},
    )


def kind_of(error: BaseException) -> str:
    """The error's name as programs read it: ``NotFound`` is ``not_found``."""
    name = type(error).__name__
    return "".join("_" + letter.lower() if letter.isupper() else letter for letter in name).lstrip("_")


def _fault(item: Item, error: Exception) -> Verdict:
    return Verdict(
        item,
        Outcome.RETRY,
        error=f"internal error: {type(error).__name__}: {error}",
        details={"kind": "internal_error", "retryable": True},
    )


class Gatherer:
    """Fetches for batches of items; remembers structures and tables while they are fresh."""

    def __init__(self, siorg: Siorg, database: DatabaseThread, *, fresh_seconds: float, item_seconds: float) -> None:
        """``fresh_seconds``: how long an answer serves further items; ``item_seconds``: the longest for one item."""
        self._siorg = siorg
        self._database = database
        self._fresh_seconds = fresh_seconds
        self._item_seconds = item_seconds
        self._structures: OrderedDict[int, _Fetched] = OrderedDict()
        self._structure_fetches: dict[int, asyncio.Task[_Fetched]] = {}
        self._known: dict[int, _Known] = {}
        self._known_fetches: dict[int, asyncio.Task[_Known]] = {}
        self._tables: dict[DomainTable, _Table] = {}
        self._table_fetches: dict[DomainTable, asyncio.Task[_Table]] = {}

    async def gather(self, items: Sequence[Item], ready: Callable[[Sequence[Gathered]], None]) -> None:
        """Fetch for ``items``; ``ready`` is called with parts of the result as they arrive, every item exactly once.

        Trouble of SIORG or of the database is handed over too; nothing but cancellation is raised.
        """
        try:
            hints = await self._hints(items)
        except DatabaseUnavailable as error:
            ready([Trouble(item, error) for item in items])
            return
        wanted = plan(items, hints, self._is_at_hand)
        async with asyncio.TaskGroup() as tasks:
            for organization, group in wanted.structures.items():
                tasks.create_task(self._guard(group, self._from_structure(organization, group), ready))
            for code, group in wanted.units.items():
                tasks.create_task(self._guard(group, self._alone(code, group), ready))
            for table, group in wanted.tables.items():
                tasks.create_task(self._guard(group, self._from_table(table, group), ready))

    async def _guard(self, group: Sequence[Item], work: Any, ready: Callable[[Sequence[Gathered]], None]) -> None:
        try:
            async with asyncio.timeout(self._item_seconds):
                result = await work
        except TimeoutError:
            error = SiorgUnavailable(f"no complete answer within {self._item_seconds:g} seconds")
            result = [Trouble(item, error) for item in group]
        except PermanentError as error:
            result = [(item, failed(item, error)) for item in group]
        except (SiorgError, DatabaseUnavailable) as error:
            result = [Trouble(item, error) for item in group]
        except Exception as error:  # noqa: BLE001 - one odd answer must not end the drain of all others
            log.error("An answer could not be worked with; this is a fault of ours", error=repr(error), items=len(group))
            result = [(item, _fault(item, error)) for item in group]
        ready(result)

    # -- where an item's answer comes from ----------------------------------------------------------------------------

    async def _from_structure(self, organization: int, group: Sequence[Item]) -> list[Gathered]:
        try:
            fetched = await self._structure(organization, group)
        except PermanentError:
            # The hint was wrong, or SIORG does not list it: each unit is asked for by itself.
            return await self._each_alone(group)
        result: list[Gathered] = []
        missing: list[Item] = []
        found: list[tuple[Item, RemoteUnit]] = []
        for item in group:
            if item.siorg_code in fetched.structure.invalid:
                result.append((item, failed(item, fetched.structure.invalid[item.siorg_code])))
            elif item.siorg_code in fetched.structure.units:
                found.append((item, fetched.structure.units[item.siorg_code]))
            else:
                missing.append(item)  # absence in a list proves nothing
        result += await self._complete(found, fetched.asked_at, fetched.structure)
        result += await self._each_alone(missing)
        return result

    async def _each_alone(self, items: Iterable[Item]) -> list[Gathered]:
        result: list[Gathered] = []
        for item in items:
            try:
                result += await self._alone(item.siorg_code, [item])
            except PermanentError as error:
                result.append((item, failed(item, error)))
            except SiorgError as error:
                result.append(Trouble(item, error))
        return result

    async def _alone(self, code: int, group: Sequence[Item]) -> list[Gathered]:
        asked_at = await self._database.now()
        try:
            unit = await self._siorg.unit(code)
        except NotFound:
            return [await self._not_found(item, asked_at) for item in group]
        return await self._complete([(item, unit) for item in group], asked_at, None)

    async def _not_found(self, item: Item, asked_at: datetime) -> Gathered:
        """The answer that SIORG has no such unit. Where that would end the unit, SIORG has to know its organization.

        A SIORG that lost its data, or serves another's, finds nothing at all: that must not end every unit in the queue.
        """
        if item.entity_type is EntityType.UNIT and item.operation in _MAY_END:
            try:
                await self._check_holder(item)
            except (SiorgError, DatabaseUnavailable) as error:
                return Trouble(item, error)
        return item, Evidence(asked_at)

    async def _check_holder(self, item: Item) -> None:
        """Check that SIORG knows the organization that holds the item's unit here.

        Raises:
            TornAnswer: it does not, and the organization is active here.
        """
        holders = await self._database.rows(
            load("siorg_job.fetch", "fetch.sql")["holder_of"], code=item.siorg_code, local_id=item.local_id
        )
        # An organization's own row is no unit of it, and what is not here has no end to be believed.
        if not holders or not holders[0]["is_active"] or holders[0]["code"] == item.siorg_code:
            return
        organization: int = holders[0]["code"]
        now = asyncio.get_running_loop().time()
        structure, known = self._structures.get(organization), self._known.get(organization)
        if (structure is not None and structure.until >= now) or (known is not None and known.until >= now):
            return
        try:
            await _one_for_all(self._known_fetches, organization, None, lambda: self._fetch_known(organization))
        except PermanentError:
            raise TornAnswer(
                f"SIORG does not find unit {item.siorg_code}, nor organization {organization} that holds it here: an end is not"
                " believed; if the organization itself ended, deactivate it here first",
                code=item.siorg_code,
                organization=organization,
            ) from None

    async def _from_table(self, table: DomainTable, group: Sequence[Item]) -> list[Gathered]:
        fetched = await self._table(table, max(item.created_at for item in group))
        return [(item, Evidence(fetched.asked_at, rows=fetched.rows)) for item in group]

    # -- what makes an answer complete: parents and categories --------------------------------------------------------

    async def _complete(
        self, found: Sequence[tuple[Item, RemoteUnit]], asked_at: datetime, structure: Structure | None
    ) -> list[Gathered]:
        if not found:
            return []
        parents = await self._known_parents([unit for _, unit in found])
        rows = await self._missing_categories([unit for _, unit in found])
        result: list[Gathered] = []
        asked: dict[int, RemoteUnit | PermanentError] = {}
        for item, unit in found:
            try:
                if structure is not None:
                    _refuse_loop(unit, structure)
                ancestors, outside = await self._ancestors(unit, structure, parents, asked)
            except PermanentError as error:
                result.append((item, failed(item, error)))
            except SiorgError as error:
                result.append(Trouble(item, error))
            else:
                result.append((item, Evidence(asked_at, unit, tuple(ancestors), outside, rows)))
        return result

    async def _ancestors(
        self,
        unit: RemoteUnit,
        structure: Structure | None,
        parents: Mapping[tuple[int, int], tuple[int, bool]],
        asked: dict[int, RemoteUnit | PermanentError],
    ) -> tuple[list[RemoteUnit], bool]:
        """The parents to apply first, nearest first, and whether the unit's own parent is outside its organization."""
        chain: list[RemoteUnit] = []
        current = unit
        if unit.is_organization or unit.code == unit.organization_code:
            return chain, False  # an organization of its own: it hangs below nothing here
        while True:
            parent_code = current.parent_code
            if parent_code is None or parent_code == current.organization_code:
                return chain, False
            if parent_code == unit.code or any(parent_code == above.code for above in chain):
                codes = ", ".join(str(one.code) for one in (unit, *chain))
                raise InvalidAnswer(f"SIORG's hierarchy has a loop: {codes}, {parent_code}", field="codigoUnidadePai")
            if len(chain) >= _LONGEST_CHAIN:
                raise InvalidAnswer(f"more than {_LONGEST_CHAIN} levels above unit {unit.code}", field="codigoUnidadePai")
            known = parents.get((unit.code, parent_code))
            if known is None and current is not unit:
                known = (await self._known_parents([current], below=unit.code)).get((unit.code, parent_code))
            if known is not None and known == (current.organization_code, False):
                return chain, False
            # Not local, or local in another place than SIORG may have it by now.
            try:
                parent = await self._parent(parent_code, structure, asked)
            except NotFound:
                return chain, current is unit
            if parent.ended or parent.organization_code != unit.organization_code or parent.organization_code == parent.code:
                return chain, current is unit
            chain.append(parent)
            current = parent

    async def _parent(self, code: int, structure: Structure | None, asked: dict[int, RemoteUnit | PermanentError]) -> RemoteUnit:
        if structure is not None:
            if code in structure.invalid:
                raise structure.invalid[code]
            if code in structure.units:
                return structure.units[code]
        if code not in asked:
            try:
                asked[code] = await self._siorg.unit(code)
            except PermanentError as error:
                asked[code] = error
        answer = asked[code]
        if isinstance(answer, PermanentError):
            raise answer
        return answer

    async def _known_parents(
        self, units: Sequence[RemoteUnit], *, below: int | None = None
    ) -> dict[tuple[int, int], tuple[int, bool]]:
        """{(unit, parent): (organization of the parent, whether it hangs below the unit)} for parents that are local."""
        pairs = sorted(
            {
                (unit.code if below is None else below, unit.parent_code)
                for unit in units
                if unit.parent_code not in (None, unit.organization_code) and unit.code != unit.organization_code
            }
        )
        if not pairs:
            return {}
        rows = await self._database.rows(
            load("siorg_job.sync", "read.sql")["known_parents"],
            codes=[code for code, _ in pairs],
            parents=[parent for _, parent in pairs],
        )
        return {(row["unit"], row["code"]): (row["organization_code"], row["below"]) for row in rows}

    async def _missing_categories(self, units: Sequence[RemoteUnit]) -> tuple[DomainRow, ...]:
        codes = {unit.category_code for unit in units if unit.category_code is not None}
        if not codes:
            return ()
        rows = await self._database.rows(load("siorg_job.sync", "read.sql")["category_codes"], codes=sorted(codes))
        if codes <= {row["code"] for row in rows}:
            return ()
        try:
            table = await self._table(DomainTable.UNIT_CATEGORY, None)
        except PermanentError:
            return ()  # the unit is worth more than the name of its category
        return table.rows

    # -- what is remembered -------------------------------------------------------------------------------------------

    async def _hints(self, items: Sequence[Item]) -> dict[int, int]:
        hints: dict[int, int] = {}
        for item in items:
            if item.entity_type is EntityType.UNIT and (code := _organization_in(item.payload)) is not None:
                hints[item.siorg_code] = code
        rest = [item.siorg_code for item in items if item.entity_type is EntityType.UNIT and item.siorg_code not in hints]
        if rest:
            for row in await self._database.rows(load("siorg_job.sync", "read.sql")["organizations_of"], codes=rest):
                hints[row["code"]] = row["organization_code"]
        return hints

    def _is_at_hand(self, organization: int, item: Item) -> bool:
        """Whether no further request is needed, as far as one can tell: the fetch under way may have begun too early."""
        return organization in self._structure_fetches or self._is_fresh(organization, item)

    def _is_fresh(self, organization: int, item: Item) -> bool:
        kept = self._structures.get(organization)
        if kept is None or kept.until < asyncio.get_running_loop().time():
            return False
        # An item younger than the answer may be about what the answer does not have yet.
        return item.created_at <= kept.asked_at

    async def _structure(self, organization: int, group: Sequence[Item]) -> _Fetched:
        if all(self._is_fresh(organization, item) for item in group):
            self._structures.move_to_end(organization)
            return self._structures[organization]
        youngest = max(item.created_at for item in group)
        return await _one_for_all(self._structure_fetches, organization, youngest, lambda: self._fetch_structure(organization))

    async def _fetch_structure(self, organization: int) -> _Fetched:
        asked_at = await self._database.now()
        structure = await self._siorg.structure(organization)
        fetched = _Fetched(asked_at, asyncio.get_running_loop().time() + self._fresh_seconds, structure)
        self._structures[organization] = fetched
        while len(self._structures) > 1 and sum(len(kept.structure.units) for kept in self._structures.values()) > _CACHED_UNITS:
            self._structures.popitem(last=False)
        return fetched

    async def _fetch_known(self, organization: int) -> _Known:
        asked_at = await self._database.now()
        # Data that cannot be used are an answer too.
        with contextlib.suppress(InvalidAnswer):
            await self._siorg.unit(organization)
        known = _Known(asked_at, asyncio.get_running_loop().time() + self._fresh_seconds)
        self._known[organization] = known
        return known

    async def _table(self, table: DomainTable, needed: datetime | None) -> _Table:
        kept = self._tables.get(table)
        if kept is not None and kept.until >= asyncio.get_running_loop().time() and (needed is None or needed <= kept.asked_at):
            return kept
        return await _one_for_all(self._table_fetches, table, needed, lambda: self._fetch_table(table))

    async def _fetch_table(self, table: DomainTable) -> _Table:
        asked_at = await self._database.now()
        rows = tuple(await self._siorg.domain(table))
        kept = _Table(asked_at, asyncio.get_running_loop().time() + self._fresh_seconds, rows)
        self._tables[table] = kept
        return kept

    async def close(self) -> None:
        """End fetches that nobody waits for any more."""
        running = [*self._structure_fetches.values(), *self._known_fetches.values(), *self._table_fetches.values()]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _one_for_all(
    running: dict[_Key, asyncio.Task[_Answer]],
    key: _Key,
    needed: datetime | None,
    fetch: Callable[[], Coroutine[Any, Any, _Answer]],
) -> _Answer:
    """Wait for the fetch that is under way, if it began late enough (``needed``), else for a new one.

    Shielded, because others may wait for the same answer: the client bounds how long it takes, ``close`` ends it early.
    """
    task = running.get(key)
    if task is not None:
        answer = await asyncio.shield(task)
        if needed is None or needed <= answer.asked_at:
            return answer
    task = running.get(key)
    if task is None or task.done():
        task = running[key] = asyncio.create_task(fetch())
        task.add_done_callback(lambda done: _forget(running, key, done))
    return await asyncio.shield(task)


def _forget(running: dict[_Key, asyncio.Task[_Answer]], key: _Key, task: asyncio.Task[_Answer]) -> None:
    if running.get(key) is task:
        del running[key]
    if not task.cancelled():
        task.exception()  # seen: whoever waited got it too


def _refuse_loop(unit: RemoteUnit, structure: Structure) -> None:
    """A unit that is its own ancestor in SIORG is refused, also while only a part of the loop would be new here.

    Raises:
        InvalidAnswer: it is.
    """
    seen = [unit.code]
    current: RemoteUnit | None = unit
    while current is not None and current.parent_code is not None:
        if current.parent_code == unit.code:
            codes = ", ".join(map(str, [*seen, unit.code]))
            raise InvalidAnswer(f"SIORG's hierarchy has a loop: {codes}", field="codigoUnidadePai")
        if current.parent_code in seen:
            return  # a loop above: its own units' trouble
        seen.append(current.parent_code)
        current = structure.units.get(current.parent_code)


def _organization_in(payload: Any) -> int | None:
    """The organization that the producer's SIORG row names; None when it names none that can be read."""
    row = parse_stored(payload) if isinstance(payload, dict) and payload else None
    return None if row is None else row.organization_code
