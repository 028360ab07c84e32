"""From claimed items to what SIORG says of each, asked for as the plan says and no more often than needed.

``Fetcher`` fetches for one batch; ``Fetching`` is the fetches of a run, beside one another.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, TypeAlias

from siorg_job.database.thread import DatabaseThread
from siorg_job.fetch.ancestors import Ancestors, named_by
from siorg_job.fetch.cache import Cache
from siorg_job.fetch.failure import FetchFailure, FetchFault
from siorg_job.fetch.local import Local
from siorg_job.fetch.plan import plan
from siorg_job.siorg.client import SiorgClient
from siorg_job.siorg.each import each_unit
from siorg_job.siorg.errors import (
    AnswerTooLarge,
    InvalidData,
    MalformedResponse,
    NotFound,
    PermanentError,
    SiorgError,
    SiorgUnavailable,
    UnusableAnswer,
)
from siorg_job.siorg.model import DomainRow, DomainTable, RemoteUnit, Structure
from siorg_job.siorg.rows import parse_stored
from siorg_job.siorg_session import largest_answer
from siorg_job.sync.apply import Work
from siorg_job.sync.model import Fetched
from siorg_job.sync.organization import ends_with_its_units, lives_elsewhere
from siorg_job.sync.outcomes import part_of_an_end
from siorg_queue import DatabaseUnavailable, EntityType, Item
from siorg_queue.statements import load
from siorg_runtime import memory
from siorg_runtime.logs import logger

log = logger("siorg_job.fetch.fetcher")

_CACHED_BYTES = 64 * 1024 * 1024  # of memory, all cached structures together; some 20,000 units

FetchResult: TypeAlias = Work | FetchFailure | FetchFault


class Fetcher:
    """Fetches for batches of items; what serves more than one is kept while it is fresh."""

    def __init__(
        self, siorg: SiorgClient, database: DatabaseThread, *, fresh_seconds: float, item_seconds: float, at_once: int
    ) -> None:
        """Make one.

        Args:
            siorg: whom to ask.
            database: where what is here already is looked up.
            fresh_seconds: how long an answer serves further items.
            item_seconds: the longest for one item, from when its question's turn has come.
            at_once: questions at a time, at most.
        """
        self._siorg = siorg
        self._at_once = at_once
        self._turns = asyncio.Semaphore(at_once)
        self._questions = 0
        """Under way, or waiting for their turn; of a batch that is not planned yet, each item is one."""
        self._items_a_question = 1.0
        """As the last batch needed them."""
        self._database = database
        self._local = Local(database)
        self._item_seconds = item_seconds
        self._structures: Cache[int, Structure] = Cache(
            siorg.structure,
            database.now,
            fresh_seconds=fresh_seconds,
            capacity=min(_CACHED_BYTES, largest_answer(memory.limit())),
            weight=lambda structure: structure.weight,
        )
        self._exists: Cache[int, bool] = Cache(self._ask_whether_it_exists, database.now, fresh_seconds=fresh_seconds)
        self._tables: Cache[DomainTable, list[DomainRow]] = Cache(siorg.domain, database.now, fresh_seconds=fresh_seconds)

    async def fetch(self, items: Sequence[Item], ready: Callable[[Sequence[FetchResult]], None]) -> None:
        """Fetch for ``items``; ``ready`` is called with parts of the result as they arrive, every item exactly once.

        Failures of SIORG or of the database are handed over too; nothing but cancellation is raised.
        """
        self._questions += len(items)
        try:
            organizations = await self._organizations_of(items)
        except DatabaseUnavailable as error:
            ready([FetchFailure(item, error) for item in items])
            return
        finally:
            self._questions -= len(items)
        wanted = plan(items, organizations, self._is_at_hand)
        async with asyncio.TaskGroup() as tasks:

            def ask(group: Sequence[Item], work: Awaitable[list[FetchResult]]) -> None:
                self._questions += 1
                tasks.create_task(self._guard(group, work, ready)).add_done_callback(self._on_answered)

            def singly(code: int, group: Sequence[Item]) -> None:
                ask(group, self._alone(code, group))

            for organization, group in wanted.structures.items():
                ask(group, self._from_structure(organization, group, singly))
            for code, group in wanted.units.items():
                singly(code, group)
            for table, group in wanted.tables.items():
                ask(group, self._from_table(table, group))
            self._items_a_question = len(items) / max(len(wanted), 1)
            ready([])  # whoever waits knows now how much room is left

    @property
    def room(self) -> int:
        """How many more items the questions that may yet be asked at once can be expected to serve."""
        return int(max(self._at_once - self._questions, 0) * self._items_a_question)

    async def close(self) -> None:
        """End fetches that nobody waits for any more."""
        for cache in (self._structures, self._exists, self._tables):
            await cache.close()

    def _on_answered(self, _: asyncio.Task[None]) -> None:
        self._questions -= 1

    async def _guard(
        self, group: Sequence[Item], work: Awaitable[list[FetchResult]], ready: Callable[[Sequence[FetchResult]], None]
    ) -> None:
        # An organization that ends with its units asks for each of them: every request has a limit of its own.
        seconds = None if any(map(ends_with_its_units, group)) else self._item_seconds
        try:
            async with self._turns, asyncio.timeout(seconds):
                result = await work
        except TimeoutError:
            late = SiorgUnavailable(f"no complete answer within {self._item_seconds:g} seconds")
            result = [FetchFailure(item, late) for item in group]
        except (SiorgError, DatabaseUnavailable) as error:
            result = [_failed(item, error) for item in group]
        except Exception as error:  # noqa: BLE001 - one odd answer must not end the drain of all others
            log.error("An answer could not be worked with; this is a fault of ours", error=repr(error), items=len(group))
            result = [FetchFault(item, error) for item in group]
        ready(result)

    # -- where an item's answer comes from ----------------------------------------------------------------------------

    async def _from_structure(
        self, organization: int, group: Sequence[Item], singly: Callable[[int, Sequence[Item]], None]
    ) -> list[FetchResult]:
        """``singly``: starts to fetch one unit that the structure does not serve."""
        try:
            async with asyncio.timeout(self._item_seconds / 2):
                answer = await self._structures.get(organization, max(item.needed_at for item in group))
        except UnusableAnswer:
            raise
        except (PermanentError, SiorgUnavailable, MalformedResponse, TimeoutError):
            # The hint was wrong, SIORG does not list it, or cannot now: each unit is asked for by itself.
            _start_singly(group, singly)
            return []
        structure = answer.value
        result: list[FetchResult] = []
        missing: list[Item] = []
        found: list[tuple[Item, RemoteUnit]] = []
        for item in group:
            if item.siorg_code in structure.invalid:
                result.append(_failed(item, structure.invalid[item.siorg_code]))
            elif item.siorg_code in structure.units:
                found.append((item, structure.units[item.siorg_code]))
            else:
                missing.append(item)  # absence in a list proves nothing
        result += await self._complete(found, answer.asked_at, structure)
        _start_singly(missing, singly)
        return result

    async def _alone(self, code: int, group: Sequence[Item]) -> list[FetchResult]:
        asked_at = await self._database.now()
        try:
            unit = await self._siorg.unit(code)
        except NotFound:
            return [await self._not_found(item, asked_at) for item in group]
        demoted = [item for item in group if item.entity_type is EntityType.ORGANIZATION and not unit.is_its_own]
        result = [await self._ended_organization(item, unit, asked_at) for item in demoted]
        return result + await self._complete([(item, unit) for item in group if item not in demoted], asked_at, None)

    async def _ended_organization(self, item: Item, unit: RemoteUnit | None, asked_at: datetime) -> FetchResult:
        """An organization that SIORG has no more, but as a unit at most; with its units where a person decided that it ends."""
        if not ends_with_its_units(item):
            return item, Fetched(asked_at, unit)
        try:
            rows = await self._database.rows(load("siorg_job.fetch", "fetch.sql")["active_units"], code=item.siorg_code)
            answers = await each_unit((row["code"] for row in rows), self._siorg)
        except (SiorgError, DatabaseUnavailable) as error:
            return FetchFailure(item, error)
        elsewhere = {code for code, answer in answers.items() if lives_elsewhere(answer, item.siorg_code)}
        return item, Fetched(asked_at, unit, gone=frozenset(answers.keys() - elsewhere), elsewhere=frozenset(elsewhere))

    async def _not_found(self, item: Item, asked_at: datetime) -> FetchResult:
        """The answer that SIORG has no such unit. It counts for a unit that is here while SIORG has its organization.

        The units of one that SIORG has ended end with it, when a person says so. And a SIORG that lost its data, or serves
        another's, finds nothing at all: that must not end every unit in the queue.
        """
        if item.entity_type is EntityType.ORGANIZATION:
            return await self._ended_organization(item, None, asked_at)
        if item.entity_type is EntityType.UNIT:
            try:
                ended = await self._ended_holder(item)
            except (SiorgError, DatabaseUnavailable) as error:
                return FetchFailure(item, error)
            if ended is not None and "resolution" not in (item.error_details or ()):
                return item, part_of_an_end(item, ended)
        return item, Fetched(asked_at)

    async def _ended_holder(self, item: Item) -> int | None:
        """The organization that holds the item's unit here, where it is active here and SIORG has it no more."""
        holders = await self._database.rows(
            load("siorg_job.fetch", "fetch.sql")["holder_of"], code=item.siorg_code, local_id=item.local_id
        )
        # An organization's own row is no unit of it, and what is not here has no end to be believed.
        if not holders or not holders[0]["is_active"] or holders[0]["code"] == item.siorg_code:
            return None
        organization: int = holders[0]["code"]
        if self._structures.fresh(organization, item.needed_at) is not None:
            return None
        try:
            exists = (await self._exists.get(organization, item.needed_at)).value
        except NotFound:
            exists = False
        except PermanentError as error:
            raise MalformedResponse(
                f"SIORG does not find unit {item.siorg_code}, and nothing is known about organization {organization} that holds"
                f" it here: an end is not believed ({error})",
                code=item.siorg_code,
                organization=organization,
            ) from None
        return None if exists else organization

    async def _ask_whether_it_exists(self, organization: int) -> bool:
        try:
            return (await self._siorg.unit(organization)).is_its_own
        except InvalidData:  # data that cannot be used are an answer too
            return True

    async def _from_table(self, table: DomainTable, group: Sequence[Item]) -> list[FetchResult]:
        answer = await self._tables.get(table, max(item.needed_at for item in group))
        return [(item, Fetched(answer.asked_at, rows=tuple(answer.value))) for item in group]

    # -- what makes an answer complete: parents and categories --------------------------------------------------------

    async def _complete(
        self, found: Sequence[tuple[Item, RemoteUnit]], asked_at: datetime, structure: Structure | None
    ) -> list[FetchResult]:
        if not found:
            return []
        units = [unit for _, unit in found]
        named = named_by(units, structure)
        here = await self._local.look_up(named)
        ancestors = Ancestors(self._siorg, self._local, structure, named, here)
        rows: tuple[DomainRow, ...] = ()
        if not named.categories <= here.categories:  # the name of one that is not here yet is in the table of all
            rows = await self._category_rows(max(item.needed_at for item, _ in found))
        result: list[FetchResult] = []
        for item, unit in found:
            try:
                above = await ancestors.of(unit)
            except SiorgError as error:
                result.append(_failed(item, error))
            else:
                outside, missing = frozenset(above.outside), frozenset(above.missing)
                result.append((item, Fetched(asked_at, unit, tuple(above.chain), outside, missing, rows)))
        return result

    async def _category_rows(self, needed: datetime) -> tuple[DomainRow, ...]:
        try:
            return tuple((await self._tables.get(DomainTable.UNIT_CATEGORY, needed)).value)
        except PermanentError:
            return ()  # the unit is worth more than the name of its category

    # -- hints for the plan -------------------------------------------------------------------------------------------

    async def _organizations_of(self, items: Sequence[Item]) -> dict[int, int]:
        """Organization by unit code, as the producer's row or else the local one says; need not be right."""
        units = [item for item in items if item.entity_type is EntityType.UNIT]
        found = {item.siorg_code: code for item in units if (code := _organization_in(item.payload)) is not None}
        rest = [item.siorg_code for item in units if item.siorg_code not in found]
        if rest:
            rows = await self._database.rows(load("siorg_job.sync", "read.sql")["organizations_of"], codes=rest)
            found |= {row["code"]: row["organization_code"] for row in rows}
        return found

    def _is_at_hand(self, organization: int, item: Item) -> bool:
        """Whether no further request is needed, as far as one can tell: the fetch under way may have begun too early."""
        return self._structures.is_under_way(organization) or self._structures.fresh(organization, item.needed_at) is not None


class Fetching:
    """For one event loop. Everything that happens here wakes whoever waits in ``wait``."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready: list[FetchResult] = []
        self._happened = asyncio.Event()
        self._fault: BaseException | None = None

    def start(self, items: Sequence[Item]) -> None:
        task = asyncio.create_task(self._fetcher.fetch(items, self.add))
        self._tasks.add(task)
        task.add_done_callback(self._on_done)

    def add(self, results: Sequence[FetchResult]) -> None:
        self._ready.extend(results)
        self._happened.set()

    @property
    def has_ready(self) -> bool:
        return bool(self._ready)

    @property
    def room(self) -> int:
        """How many more items can be expected to be fetched for at once."""
        return self._fetcher.room

    def take(self, limit: int) -> list[FetchResult]:
        """At most ``limit`` of what is ready, oldest first.

        Raises:
            Exception: a fetch failed by a fault of ours.
        """
        if self._fault is not None:
            raise self._fault
        taken, self._ready = self._ready[:limit], self._ready[limit:]
        return taken

    async def cancel(self) -> None:
        """Stop what is under way, and forget what is ready."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        self._ready.clear()

    def wake(self) -> None:
        self._happened.set()

    async def wait(self, seconds: float) -> None:
        """Until something happens, or for so long."""
        self._happened.clear()
        if self._ready or self._fault is not None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(seconds, 0)):
                await self._happened.wait()

    async def aclose(self) -> None:
        await self.cancel()
        await self._fetcher.close()

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fault = error
        self._happened.set()


def _start_singly(items: Sequence[Item], singly: Callable[[int, Sequence[Item]], None]) -> None:
    by_code: dict[int, list[Item]] = {}
    for item in items:
        by_code.setdefault(item.siorg_code, []).append(item)
    for code, group in by_code.items():
        singly(code, group)


def _failed(item: Item, error: SiorgError | DatabaseUnavailable) -> FetchResult:
    failure = FetchFailure(item, error)
    is_its_own = isinstance(error, PermanentError) and not isinstance(error, AnswerTooLarge)  # that may be of every answer
    return (item, failure.verdict()) if is_its_own else failure


def _organization_in(payload: Any) -> int | None:
    """The organization that the producer's SIORG row names; None when it names none that can be read."""
    row = parse_stored(payload) if isinstance(payload, dict) and payload else None
    return None if row is None else row.organization_code
