"""A group of items, decided and applied: fence, entity rows, history and queue rows change in one transaction, or none does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TypeAlias
from uuid import UUID

import psycopg

from siorg_job.sync import domain, organization, unit
from siorg_job.sync.blocked import look, put_back
from siorg_job.sync.held import IS_OVER, look_at_limits, over
from siorg_job.sync.limits import Limits
from siorg_job.sync.model import PLACE, Fetched, Refused, UnitField
from siorg_job.sync.outcomes import asked_too_early, internal_error, refused, says_all, unreadable, unusable
from siorg_job.sync.read import hanging_wrong, out_of_turn, read, take_turns
from siorg_job.sync.resolution import ResolutionError
from siorg_job.sync.working_copy import WorkingCopy
from siorg_job.sync.write import HierarchyTooDeep, LookedTooEarly, write
from siorg_queue import (
    Connection,
    Cursor,
    DatabaseBlocked,
    EntityType,
    Item,
    LeaseLost,
    NewItem,
    Operation,
    Outcome,
    QueueStore,
    Settled,
    Status,
    Verdict,
    asked_at_text,
    describe,
    is_blocked,
    is_transient,
    transaction,
)

Work: TypeAlias = tuple[Item, Fetched | Verdict]
"""A claimed item with what SIORG said about it, or with the outcome that is certain already (its fetch failed)."""

_BRING_IN_LINE = {
    EntityType.UNIT: unit.bring_in_line,
    EntityType.ORGANIZATION: organization.bring_in_line,
    EntityType.CATEGORY: domain.bring_in_line,
    EntityType.TYPE: domain.bring_in_line,
}
_TURN_SECONDS = 20.0  # a process that stopped within a transaction is out of the way by then
_LOCK_SECONDS = 2.0  # for what people write at the moment; what takes longer goes back, which harms nobody
_SHORT_LOCK_SECONDS = 0.2  # once something was waited for in vain
_LONGER = timedelta(seconds=10)

_ENDED = frozenset({Status.COMPLETED, Status.FAILED, Status.CONFLICT, Status.SKIPPED})


@dataclass(frozen=True, slots=True)
class Refusal:
    """An item that cannot be applied even alone. Whose fault that is, who calls has to find out; it is still under its lease."""

    item: Item
    error: Exception
    step: str
    """What was being done: a statement's name, or a word for something else."""
    verdict: Verdict
    """The item's outcome, if it is its own."""
    above: frozenset[int] = frozenset()
    """Codes of the units that were written with it."""


@dataclass(slots=True)
class Applied:
    """What became of a group."""

    verdicts: dict[UUID, Verdict] = field(default_factory=dict)
    settled: dict[UUID, Settled] = field(default_factory=dict)
    stale: set[UUID] = field(default_factory=set)
    """Items whose lease had run out, or whose rows others hold: nothing of them was written."""
    hurried: bool = False
    """Others were in the way of what was applied a moment before: for a lock hardly anything is waited."""
    waited: bool = False
    """Others were in the way already."""
    in_vain: bool = False
    """An item waited in vain although nobody holds a row of it."""
    refusals: list[Refusal] = field(default_factory=list)
    passed: set[str] = field(default_factory=set)
    """The steps that others got past: what was written by them was committed."""
    changes: int = 0
    """History rows written."""


def apply(
    connection: Connection, store: QueueStore, works: Sequence[Work], limits: Limits | None = None, *, hurried: bool = False
) -> Applied:
    """Decide and apply a group; an item that the database refuses is told of, the others are applied without it.

    Args:
        connection: the one that ``store`` uses.
        store: the queue.
        works: claimed items, each once.
        limits: beyond these, ends are held; None: who calls answers for them.
        hurried: others were in the way of what was applied a moment before: then hardly anything is waited for locks.

    Raises:
        psycopg.Error: a passing trouble of the database (see ``is_transient``); nothing was written, or everything was and
            the answer was lost. Calling it again with the same works is right in both cases.
        DatabaseBlocked: others are in the way of all; likewise.
    """
    result = Applied(hurried=hurried)
    _apply(connection, store, _in_tree_order(works), result, limits)
    return result


def _apply(
    connection: Connection,
    store: QueueStore,
    works: Sequence[Work],
    result: Applied,
    limits: Limits | None,
    *,
    again: bool = False,
) -> None:
    if not works:
        return
    steps: list[str] = []
    try:
        _apply_together(connection, store, works, result, limits, steps)
    except LeaseLost:
        if again and len(works) == 1:
            result.stale.add(works[0][0].id)  # it takes longer than a lease
        elif again:
            _apply_halves(connection, store, works, result, limits)
        else:  # the fence will leave out the late ones now
            _apply(connection, store, works, result, limits, again=True)
    except LookedTooEarly:
        _apply(connection, store, works, result, limits, again=again)  # what a person has written meanwhile is read
    except DatabaseBlocked:
        raise
    except psycopg.Error as error:
        if is_blocked(error):
            _apply_around(connection, store, works, result, limits, error)
        elif is_transient(error):
            raise
        elif len(works) == 1 and isinstance(works[0][1], Fetched) and not again:
            # Somebody else may have made the same row (a category, a unit) since it was looked for, or removed one that was found
            # (a parent, a category), whatever trigger or constraint says so: all is looked for again.
            _apply(connection, store, works, result, limits, again=True)
        else:
            _apply_apart(connection, store, works, result, limits, error, steps[-1])
    except Exception as error:  # noqa: BLE001 - a bug of ours, at whose item is to be found
        _apply_apart(connection, store, works, result, limits, error, steps[-1])


def _apply_apart(
    connection: Connection,
    store: QueueStore,
    works: Sequence[Work],
    result: Applied,
    limits: Limits | None,
    error: Exception,
    step: str,
) -> None:
    """Something failed: find the item at which it does, and apply the others without it."""
    if len(works) > 1:
        _apply_halves(connection, store, works, result, limits)
        return
    item, fetched = works[0]
    if isinstance(fetched, Verdict):
        raise error  # not the item's fault: its outcome alone could not be written
    verdict, above = _refusal(item, fetched, error)
    if isinstance(error, HierarchyTooDeep):
        _apply(connection, store, [(item, verdict)], result, limits)
        return
    result.refusals.append(Refusal(item, error, step, verdict, frozenset(above)))


def _apply_halves(
    connection: Connection, store: QueueStore, works: Sequence[Work], result: Applied, limits: Limits | None
) -> None:
    middle = len(works) // 2
    _apply(connection, store, works[:middle], result, limits)
    _apply(connection, store, works[middle:], result, limits)


def _apply_around(
    connection: Connection, store: QueueStore, works: Sequence[Work], result: Applied, limits: Limits | None, error: psycopg.Error
) -> None:
    """Others hold what some of these items need: those go back for a while, the others are applied without them.

    Raises:
        DatabaseBlocked: they hold a table; or a second item waits in vain although nobody holds its rows.
    """
    held = look(connection, works)
    result.waited = True
    # Whoever renews leases finds these rows locked by us, again and again.
    store.renew({item.id: item.lease_token for item, _ in works}, lease=_LONGER)
    if held.items:
        result.stale |= held.queue_rows
        left = [work for work in works if work[0].id not in held.queue_rows]
        around = [(item, put_back(item, held.items[item.id]) if item.id in held.items else found) for item, found in left]
        _apply(connection, store, around, result, limits)
    elif len(works) > 1:
        _apply_halves(connection, store, works, result, limits)
    elif result.in_vain:
        raise DatabaseBlocked(f"one item after another waits in vain, and nobody holds their rows: {describe(error)}")
    else:
        result.in_vain = True
        item, _ = works[0]
        _apply(connection, store, [(item, put_back(item, "something that it needs"))], result, limits)


def _apply_together(
    connection: Connection, store: QueueStore, works: Sequence[Work], result: Applied, limits: Limits | None, steps: list[str]
) -> None:
    """``steps``: grows by what is being done, also where it fails."""
    items = [item for item, _ in works]
    steps.append("fence")
    with transaction(connection, lock_seconds=_TURN_SECONDS, by_index=True):
        ours = _fence(connection, store, works, _SHORT_LOCK_SECONDS if result.waited or result.hurried else _LOCK_SECONDS)
        verdicts: list[Verdict] = []
        open_works: list[tuple[Item, Fetched]] = []
        for item, found in works:
            if item.id not in ours:
                continue
            if isinstance(found, Verdict):
                verdicts.append(found)
            elif found.asked_at < ours[item.id]:  # whoever asked, and wherever the answer was kept: all of them come through here
                verdicts.append(asked_too_early(item, ours[item.id], "a change in SIORG was noted after this answer"))
            else:
                open_works.append((item, found))
        changes, copy, again = 0, None, []
        if open_works:
            steps.append("read")
            copy = read(connection, open_works)
            steps.append("decide")
            verdicts += _within_limits(connection, open_works, copy, limits)
            write(connection, copy, steps)
            changes = len(copy.history)
            steps.append("follow")
            again = [*hanging_wrong(connection, copy), *sorted(copy.ask_again)]
        asked_at = {item.id: fetched.asked_at for item, fetched in open_works}
        verdicts = [_with_time(verdict, asked_at.get(verdict.item.id)) for verdict in verdicts]

        def follow() -> None:  # after the outcomes: what this group has decided about is open no more
            if copy is not None:
                store.enqueue_within([NewItem(EntityType.UNIT, code, Operation.UPDATE) for code in again])
                completed = {verdict.item.id for verdict in verdicts if verdict.outcome is Outcome.COMPLETED}
                store.end_held_within(over([work for work in open_works if work[0].id in completed], copy), IS_OVER)
                _hold_names(store, copy, min(fetched.asked_at for _, fetched in open_works))
                store.end_conflicts_within(copy.ended_along, "the unit ended with its organization")
                store.retry_waiting(_resettled(copy))
            decided = [verdict for verdict in verdicts if says_all(verdict) and verdict.item.id in asked_at]
            store.end_older_conflicts([(verdict, asked_at[verdict.item.id]) for verdict in decided])

        steps.append("finish")
        settled = store.finish_all(verdicts, follow)
    result.passed.update(steps)
    result.verdicts.update({verdict.item.id: verdict for verdict in verdicts})
    result.settled.update(settled)
    result.changes += changes
    _look_at_lost(store, [item for item in items if item.id not in ours], result)


def _fence(connection: Connection, store: QueueStore, works: Sequence[Work], lock_seconds: float) -> dict[UUID, datetime]:
    """Begin the transaction: wait for our turn, lock what is still ours."""
    fetched_works = [(item, found) for item, found in works if isinstance(found, Fetched)]
    turn: Cursor | None = None

    def wait() -> None:
        nonlocal turn
        if fetched_works:
            turn = take_turns(connection, fetched_works)

    try:
        return store.fence([item for item, _ in works], lock_seconds=lock_seconds, after=wait)
    except psycopg.errors.LockNotAvailable as error:
        if turn is not None and turn.pgresult is None:
            raise out_of_turn(error) from None
        raise


def _within_limits(
    connection: Connection, works: Sequence[tuple[Item, Fetched]], copy: WorkingCopy, limits: Limits | None
) -> list[Verdict]:
    """Decide all items; where ends, or overwritten names, of an organization are beyond a limit, once more and without these."""
    works, savepoint = _ends_last(works, copy), copy.savepoint()
    verdicts = [_bring_in_line(item, fetched, copy) for item, fetched in works]
    if limits is None or not look_at_limits(connection, verdicts, copy, limits):
        return verdicts
    copy.roll_back(savepoint)
    copy.resettled.clear()
    copy.ask_again.clear()
    return [_bring_in_line(item, fetched, copy) for item, fetched in works]


def _bring_in_line(item: Item, fetched: Fetched, copy: WorkingCopy) -> Verdict:
    """Decide one item and change the working copy accordingly; an item that does not complete changes nothing."""
    savepoint = copy.savepoint()
    try:
        verdict = unreadable(item) or _BRING_IN_LINE[item.entity_type](item, fetched, copy)
    except ResolutionError as error:
        verdict = unusable(item, error)
    except Refused as refusal:
        verdict = refused(item, refusal.reason, refusal.kind, waits_for=refusal.waits_for)
    if verdict.outcome is not Outcome.COMPLETED:
        copy.roll_back(savepoint)
    return verdict


def _hold_names(store: QueueStore, copy: WorkingCopy, asked_at: datetime) -> None:
    for reason in sorted({held.reason for held in copy.names_held.values()}):
        found = {code: held for code, held in copy.names_held.items() if held.reason == reason}
        items = [NewItem(EntityType.UNIT, code, Operation.UPDATE, json.loads(held.raw)) for code, held in found.items()]
        store.hold_within(items, [{UnitField.NAME: held.sides} for held in found.values()], reason, asked_at=asked_at)


def _resettled(copy: WorkingCopy) -> set[int]:
    """Codes of the units that came to their place, or left it."""
    return {
        entry.siorg_code
        for entry in copy.history
        if entry.entity_type is EntityType.UNIT
        and (entry.previous_data is None or not {*PLACE, UnitField.IS_ACTIVE}.isdisjoint(entry.affected_fields))
    }


def _with_time(verdict: Verdict, asked_at: datetime | None) -> Verdict:
    """A conflict with the time of the answer in which it was found: only a later answer may end it."""
    if verdict.outcome is not Outcome.CONFLICT or asked_at is None:
        return verdict
    details = verdict.details or {}
    timed = {**details, "details": {**details.get("details", {}), "asked_at": asked_at_text(asked_at)}}
    return replace(verdict, details=timed)


def _look_at_lost(store: QueueStore, lost: Sequence[Item], result: Applied) -> None:
    """Tell a commit of ours whose answer was lost from a lease that was."""
    if not lost:
        return
    found = store.settled(lost)
    for item in lost:
        status = found.get(item.id)
        if status in _ENDED:
            result.settled[item.id] = Settled(status, item.attempts, None)
        else:
            result.stale.add(item.id)


def _in_tree_order(works: Sequence[Work]) -> list[Work]:
    """Organizations and domain tables before units, a unit after its parent when both are in the group, then the ends."""
    parents = {
        fetched.unit.code: fetched.unit.parent_code
        for item, fetched in works
        if isinstance(fetched, Fetched) and fetched.unit is not None and item.entity_type is EntityType.UNIT
    }

    def depth(code: int) -> int:
        above = {code}  # a loop ends where it began
        while (parent := parents.get(code)) is not None and parent in parents and parent not in above:
            above.add(parent)
            code = parent
        return len(above)

    def key(work: Work) -> tuple[int, int]:
        item, _ = work
        if item.entity_type is not EntityType.UNIT:
            return (0, 0)
        return (2 if item.operation is Operation.EXTINCTION else 1, depth(item.siorg_code))

    return sorted(works, key=key)


def _ends_last(works: Sequence[tuple[Item, Fetched]], copy: WorkingCopy) -> list[tuple[Item, Fetched]]:
    """Ends after the rest, the deepest unit first: a unit ends after those below it, an organization after its units."""

    def key(work: tuple[Item, Fetched]) -> tuple[bool, int]:
        item, _ = work
        unit = copy.units.get(item.siorg_code) if item.entity_type is EntityType.UNIT else None
        ends = item.operation is Operation.EXTINCTION
        return (ends, -unit.level if ends and unit is not None else 0)

    return sorted(works, key=key)


def _refusal(item: Item, fetched: Fetched | Verdict, error: Exception) -> tuple[Verdict, list[int]]:
    """What becomes of an item that cannot be applied, if it is its own fault; and the units that were written with it."""
    if not isinstance(error, psycopg.Error | HierarchyTooDeep):
        return internal_error(item, error), []
    reason = f"refused by the database: {describe(error)}" if isinstance(error, psycopg.Error) else str(error)
    above = [unit.code for unit in fetched.ancestors] if isinstance(fetched, Fetched) else []
    if above:
        reason = f"{reason}; written with it were the units {', '.join(map(str, above))} above it"
    if isinstance(item.error_details, dict) and item.error_details.get("resolution") == "MERGE":
        return unusable(item, reason), above
    if isinstance(error, HierarchyTooDeep):
        return refused(item, reason, "too_deep", waits_for=above), above
    return refused(item, reason, "refused_by_database", {"sqlstate": error.sqlstate}, above), above
