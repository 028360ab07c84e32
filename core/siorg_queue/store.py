"""Every statement by which the queue is worked on and filled, behind one class; what people decide is in ``decisions``.

Each method is one short transaction of its own, except ``fence``, ``finish_all`` and those that end in ``within``: they belong to
the caller's transaction, so that effects, history and queue row change together or not at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg.errors import InvalidTextRepresentation
from psycopg.types.json import Jsonb

from siorg_queue.database import Connection, Cursor, in_one_trip, query, transaction
from siorg_queue.model import (
    Claim,
    CleanedPage,
    Counts,
    Depth,
    EntityType,
    Item,
    JsonText,
    LostItem,
    NewItem,
    Operation,
    Outcome,
    Settled,
    Status,
    Verdict,
)
from siorg_queue.session import BY_INDEX
from siorg_queue.statements import load

CHANNEL = "siorg_sync_queue"
"""NOTIFY channel on which new work is announced. A hint: polling is the truth."""

_LOCK_SECONDS = 20.0  # for rows that are being finished: a process that stopped within a transaction is out of the way by then
_RAN_OUT = "leases ran out"  # in the message by which the statement "finish" fails
_LONGEST_ERROR = 2000  # characters of last_error: enough for a person, and bounded


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how soon an item that failed for a passing reason is tried again.

    The pause before attempt n + 1 is drawn from 0 … min(max, base · 2^(n−1)) seconds, by the database.
    """

    max_attempts: int = 3
    base_seconds: float = 1.0
    max_seconds: float = 60.0


class LeaseLost(Exception):
    """A lease ran out between fence and finish."""


class QueueStore:
    """The queue in PostgreSQL. Not for use by two threads at once: one connection, one user."""

    def __init__(self, connection: Connection, retry: RetryPolicy | None = None) -> None:
        """Use an autocommit ``connection`` (see ``database.connect``)."""
        self._connection = connection
        self._retry = retry or RetryPolicy()

    # -- working on items ---------------------------------------------------------------------------------------------

    def claim(self, limit: int, *, lease: timedelta, worker: str, alone: bool = True) -> Claim:
        """Take at most ``limit`` claimable items, best priority first, for the time of ``lease``.

        An item that was alone with its worker when that died, as often as attempts allow, is ended (FAILED) and returned as
        ``lost``; it counts towards the limit.

        Args:
            limit: items.
            lease: from now.
            worker: who takes them.
            alone: the worker holds nothing: where there is nothing else, one that has to be worked on alone may be taken.
        """
        seconds = lease.total_seconds()
        parameters = {"limit": limit, "lease_seconds": seconds, "worker": worker}
        with transaction(self._connection, by_index=True):
            claiming = in_one_trip(
                self._connection,
                lambda: self._connection.execute(load("siorg_queue", "claim.sql")["claim"], parameters, prepare=True),
                commit=True,
            )
        rows = claiming.fetchall()
        if not rows and alone and limit:
            rows = self._run("claim.sql", "claim_alone", lease_seconds=seconds, worker=worker)
        return Claim(
            items=tuple(_item(row) for row in rows if not row["ended"]),
            lost=tuple(_lost(row) for row in rows if row["ended"]),
        )

    def renew(self, held: Mapping[UUID, int], *, lease: timedelta) -> set[UUID]:
        """Prolong the leases of ``held`` ({id: lease token}) and return the ids that are still ours."""
        rows = self._run("lease.sql", "renew", ids=list(held), tokens=list(held.values()), lease_seconds=lease.total_seconds())
        return {row["id"] for row in rows}

    def fence(
        self, items: Collection[Item], *, lock_seconds: float, after: Callable[[], object] = lambda: None
    ) -> dict[UUID, datetime]:
        """Inside the caller's transaction: lock the rows whose lease still holds.

        Args:
            items: as they were claimed.
            lock_seconds: from then on a lock is waited for no longer, and as the leases allow it.
            after: executes what comes first, and is sent along: see ``in_one_trip``.

        Returns:
            By their ids, when an answer must have been asked for to be applied: ``needed_at``, and what was noted since the
            claim.
        """
        held = {**_held(items), "needed_ats": [item.needed_at for item in items], "lock_seconds": lock_seconds}

        def send() -> Cursor:
            after()
            return self._connection.execute(load("siorg_queue", "lease.sql")["fence"], held, prepare=True)

        return {row["id"]: row["needed_at"] for row in in_one_trip(self._connection, send)}

    def finish_within(self, verdicts: Sequence[Verdict]) -> dict[UUID, Settled]:
        """Inside the caller's transaction: write the outcomes. Ids that are missing in the answer were refused."""
        return _settled(self._send_outcomes(verdicts))

    def finish_all(self, verdicts: Sequence[Verdict], then: Callable[[], object]) -> dict[UUID, Settled]:
        """End the caller's transaction: the outcomes, what comes ``then``, and COMMIT are sent together.

        Args:
            verdicts: all are written, or nothing of the transaction stays.
            then: executes statements, whose answers nobody needs.

        Raises:
            LeaseLost: an outcome was refused.
        """

        def send() -> Cursor | None:
            finishing = self._send_outcomes(verdicts, wanted=len(verdicts)) if verdicts else None
            then()
            return finishing

        try:
            finishing = in_one_trip(self._connection, send, commit=True)
        except InvalidTextRepresentation as error:
            if _RAN_OUT not in (error.diag.message_primary or ""):
                raise
            raise LeaseLost from None
        return {} if finishing is None else _settled(finishing)

    def _send_outcomes(self, verdicts: Sequence[Verdict], *, wanted: int | None = None) -> Cursor:
        return self._connection.execute(
            load("siorg_queue", "lease.sql")["finish"],
            {
                **_held([verdict.item for verdict in verdicts]),
                "outcomes": [verdict.outcome.value for verdict in verdicts],
                "errors": [verdict.error and verdict.error[:_LONGEST_ERROR] for verdict in verdicts],
                "details": [None if verdict.details is None else Jsonb(verdict.details) for verdict in verdicts],
                "changes": [None if verdict.changes is None else Jsonb(verdict.changes) for verdict in verdicts],
                "delays": [verdict.delay_seconds for verdict in verdicts],
                "local_ids": [verdict.local_id for verdict in verdicts],
                "needed_ats": [verdict.needed_at for verdict in verdicts],
                "holds": [verdict.held for verdict in verdicts],
                "max_attempts": self._retry.max_attempts,
                "retry_base_seconds": self._retry.base_seconds,
                "retry_max_seconds": self._retry.max_seconds,
                "wanted": wanted,
            },
            prepare=True,
        )

    def end_older_conflicts(self, decided: Sequence[tuple[Verdict, datetime]]) -> None:
        """Inside the caller's transaction, after the outcomes: end the open conflicts that these verdicts replace, SKIPPED.

        Args:
            decided: completed items and new conflicts, each with the time at which SIORG was asked; see ``asked_at_text``.
        """
        if decided:
            self._connection.execute(
                load("siorg_queue", "people.sql")["end_older_conflicts"],
                {
                    "ids": [verdict.item.id for verdict, _ in decided],
                    "asked": [asked_at_text(asked_at) for _, asked_at in decided],
                    "reasons": [
                        f"superseded by item {verdict.item.id}"
                        + ("" if verdict.outcome is Outcome.CONFLICT else ": nothing is in conflict any more")
                        for verdict, _ in decided
                    ],
                },
                prepare=True,
            )

    def end_conflicts(self, codes: Collection[int], reason: str) -> None:
        """End what people are asked about these units, held or not, SKIPPED."""
        if codes:
            self._run("people.sql", "end_conflicts_of_units", codes=sorted(codes), reason=reason)

    def end_conflicts_within(self, codes: Collection[int], reason: str) -> None:
        """As ``end_conflicts``, inside the caller's transaction."""
        if codes:
            statement = load("siorg_queue", "people.sql")["end_conflicts_of_units"]
            self._connection.execute(statement, {"codes": sorted(codes), "reason": reason})

    def finish(self, verdicts: Sequence[Verdict]) -> dict[UUID, Settled]:
        """Write outcomes that have no effects beside them, in a transaction of their own."""
        if not verdicts:
            return {}
        with transaction(self._connection, by_index=True):
            return _settled(in_one_trip(self._connection, lambda: self._send_outcomes(verdicts), commit=True))

    def settled(self, items: Collection[Item]) -> dict[UUID, Status]:
        """What became of items under our own tokens: after a commit whose answer was lost, what was really written."""
        return {row["id"]: Status(row["status"]) for row in self._run("lease.sql", "settled", **_held(items))}

    def release_unknown(self, worker: str, known: Collection[UUID]) -> int:
        """Give back what ``worker`` holds without knowing it (a claim whose answer was lost). Returns how many."""
        return len(self._run("lease.sql", "release_unknown", worker=worker, known=list(known)))

    # -- what nothing else would end ----------------------------------------------------------------------------------

    def reap(self, limit: int = 1000) -> dict[Status, int]:
        """End or reopen at most ``limit`` dangling rows; returns how many became what.

        Expired → SKIPPED; attempts spent → FAILED; abandoned → PENDING with its attempt, or FAILED: see ``claim``.
        """
        return Counter(Status(row["status"]) for row in self._run("dangling.sql", "reap", limit=limit))

    def cleanup_page(self, *, retention_days: int, after: str | None = None, limit: int = 1000) -> CleanedPage:
        """Delete the oldest ``limit`` rows of those that are expired, or ended and past their retention.

        Never PROCESSING or CONFLICT. History stays; its link to a deleted row becomes null. What it costs depends on what it
        deletes, and not on what else there is.

        Args:
            retention_days: how long rows are kept after they ended.
            after: the page before this one's ``last``: what went with it is not walked again. None: from the beginning.
            limit: rows.
        """
        statements = load("siorg_queue", "dangling.sql")
        with transaction(self._connection):
            self._connection.execute(BY_INDEX)
            page = self._connection.execute(
                statements["cleanup"], {"after": after or "-infinity", "limit": limit, "retention_days": retention_days}
            ).fetchone()
            assert page is not None  # an aggregate always has its one row
            deleted = 0
            if page["old_ids"]:
                deleted = self._connection.execute(statements["delete"], {"ids": page["old_ids"]}).rowcount
        return CleanedPage(page["last"], page["found"], deleted, page["unlinked"])

    # -- how much there is --------------------------------------------------------------------------------------------

    def depth(self) -> Depth:
        """How much a claim could take right now: the claim's own predicate, as far as it is counted."""
        return Depth(**self._counted("depth"))

    def has_claimable(self) -> bool:
        """Whether a claim would take anything; cheaper than the depth."""
        return bool(self._row("depth.sql", "claimable_exists")["found"])

    def next_due_seconds(self) -> float | None:
        """Seconds until the next waiting item falls due (0: one is due); None when none waits."""
        seconds = self._row("depth.sql", "next_due")["seconds"]
        return None if seconds is None else float(seconds)

    def counts(self) -> Counts:
        """The queue by state: what waits for somebody exactly, the rest up to ``COUNTED``."""
        return Counts(**self._counted("counts"))

    # -- producers ----------------------------------------------------------------------------------------------------

    def enqueue(self, items: Sequence[NewItem], *, chunk: int = 2000) -> int:
        """Add what is not waiting already and return how many were added. ``chunk`` items a transaction.

        Idempotent: an entity whose like work is waiting is not added again, however many producers there are. Its row takes
        the greatest ``needed_at``; while it is in work, so does that row, and it gets a successor.
        """
        added = 0
        for start in range(0, len(items), chunk):
            with transaction(self._connection, lock_seconds=_LOCK_SECONDS):
                self._connection.execute(load("siorg_queue", "produce.sql")["enqueue_lock"])
                added += self.enqueue_within(items[start : start + chunk])
        return added

    def enqueue_within(self, items: Sequence[NewItem]) -> int:
        """As ``enqueue``, inside the caller's transaction.

        Without the producers' lock, for who holds items would wait in a circle with one of them: an item may come twice.
        """
        if not items:
            return 0
        return self._connection.execute(
            load("siorg_queue", "produce.sql")["enqueue"],
            {
                "entity_types": [item.entity_type.value for item in items],
                "codes": [item.siorg_code for item in items],
                "operations": [item.operation.value for item in items],
                "priorities": [_priority(item) for item in items],
                "payloads": [_payload(item) for item in items],
                "delays": [item.delay_seconds for item in items],
                "needed_ats": [item.needed_at for item in items],
                "max_attempts": self._retry.max_attempts,
            },
        ).rowcount

    def note(self, asked_at: datetime, codes: Collection[int], *, organization: int | None = None) -> int:
        """Note that SIORG was asked about units at ``asked_at``: for open items about them, older answers will not do.

        To be called before the local rows are compared with that answer. What has been applied from an older one by then is
        seen there, what has not will never be: no change is lost between the two, one that was undone not either.

        Args:
            asked_at: by the database's clock, before the request was sent.
            codes: the units and organizations that the answer tells of.
            organization: the answer is the whole structure of this one: it also tells of those that are not in it.

        Returns:
            The number of items on which it was noted.
        """
        parameters = {"asked_at": asked_at, "codes": list(codes), "organization": organization}
        with transaction(self._connection, lock_seconds=_LOCK_SECONDS):
            return self._connection.execute(load("siorg_queue", "produce.sql")["note"], parameters).rowcount

    def note_table(self, asked_at: datetime, entity_type: EntityType) -> int:
        """As ``note``, for an answer that told of all categories, or of all types."""
        parameters = {"asked_at": asked_at, "entity_type": entity_type.value}
        with transaction(self._connection, lock_seconds=_LOCK_SECONDS):
            return self._connection.execute(load("siorg_queue", "produce.sql")["note_table"], parameters).rowcount

    def hold(self, items: Sequence[NewItem], changes: Sequence[Mapping[str, Any]], reason: str, *, asked_at: datetime) -> int:
        """Put items on the queue that a person has to release; returns how many. What is held already is not held again.

        Args:
            items: what would be done.
            changes: of each, what a person is asked about: ``{field: {base, local, remote}}``.
            reason: the same of all, for people.
            asked_at: when, by the database's clock, the answer was asked for that showed it.
        """
        with transaction(self._connection, lock_seconds=_LOCK_SECONDS):
            self._connection.execute(load("siorg_queue", "produce.sql")["enqueue_lock"])
            return self.hold_within(items, changes, reason, asked_at=asked_at)

    def hold_within(
        self, items: Sequence[NewItem], changes: Sequence[Mapping[str, Any]], reason: str, *, asked_at: datetime
    ) -> int:
        """As ``hold``, inside the caller's transaction, without the producers' lock: see ``enqueue_within``."""
        if not items:
            return 0
        parameters = {
            "entity_types": [item.entity_type.value for item in items],
            "codes": [item.siorg_code for item in items],
            "operations": [item.operation.value for item in items],
            "priorities": [_priority(item) for item in items],
            "payloads": [_payload(item) for item in items],
            "changes": [Jsonb(dict(change)) for change in changes],
            "reason": reason,
            "details": Jsonb({"kind": "held", "retryable": False, "details": {"asked_at": asked_at_text(asked_at)}}),
            "asked_at": asked_at,
            "max_attempts": self._retry.max_attempts,
        }
        return self._connection.execute(load("siorg_queue", "held.sql")["hold"], parameters).rowcount

    def end_held(self, ids: Collection[UUID], reason: str) -> int:
        """End what is held, SKIPPED, where the difference has gone; returns how many."""
        return len(self._run("held.sql", "end_held", ids=list(ids), reason=reason)) if ids else 0

    def end_held_within(self, ids: Collection[UUID], reason: str) -> None:
        """As ``end_held``, inside the caller's transaction."""
        if ids:
            self._connection.execute(load("siorg_queue", "held.sql")["end_held"], {"ids": list(ids), "reason": reason})

    # -- what FAILED is asked again -----------------------------------------------------------------------------------

    def retry_due(self) -> int:
        """Open FAILED items again whose pause is over: 50 minutes at first, twice as long each time, up to 23 hours.

        But for those that a person ended, or that something newer is known about, or that wait for a unit that FAILED or is
        on the queue. Returns how many.
        """
        return len(self._run("failures.sql", "retry_due"))

    def retry_found(self, items: Sequence[NewItem], above: Mapping[int, Collection[int]] | None = None) -> dict[int, bool]:
        """Of what a comparison found, that which is the newest about its entity FAILED; it needs no item beside that.

        It is opened again where its pause is over, or where SIORG says something else now than what failed (the payload), or
        where the unit that it waits for is not above it any more.

        Args:
            items: what was found.
            above: of units, by code, those that are above them in SIORG now; of others it is not known.

        Returns:
            By position in ``items``, whether it was opened.
        """
        found: dict[int, bool] = {}
        if items:
            rows = self._run(
                "failures.sql",
                "retry_found",
                entity_types=[item.entity_type.value for item in items],
                codes=[item.siorg_code for item in items],
                operations=[item.operation.value for item in items],
                payloads=[_payload(item) for item in items],
                above=[_texts((above or {}).get(item.siorg_code)) for item in items],
            )
            found = {row["position"] - 1: row["opened"] for row in rows}
        return found

    def retry_waiting(self, codes: Collection[int]) -> int:
        """Inside the caller's transaction, after the outcomes: open FAILED items that wait for one of these units."""
        if not codes:
            return 0
        return self._connection.execute(load("siorg_queue", "failures.sql")["retry_waiting"], {"codes": sorted(codes)}).rowcount

    # -----------------------------------------------------------------------------------------------------------------

    def _run(self, file: str, name: str, /, **parameters: Any) -> list[dict[str, Any]]:
        return query(self._connection, load("siorg_queue", file)[name], **parameters)

    def _row(self, file: str, name: str) -> dict[str, Any]:
        return self._run(file, name)[0]

    def _counted(self, name: str) -> dict[str, Any]:
        with transaction(self._connection):
            self._connection.execute(BY_INDEX)
            row = self._connection.execute(load("siorg_queue", "depth.sql")[name]).fetchone()
        assert row is not None  # it has one whatever there is
        return row


def _payload(item: NewItem) -> Jsonb:
    return Jsonb(item.payload, dumps=str if isinstance(item.payload, JsonText) else None)


def _priority(item: NewItem) -> int:
    return item.priority or (6 if item.operation is Operation.EXTINCTION else 5)


def _texts(codes: Collection[int] | None) -> Jsonb | None:
    return None if codes is None else Jsonb([str(code) for code in codes])


def asked_at_text(asked_at: datetime) -> str:
    """A time as a conflict's ``error_details`` keeps it (``details.asked_at``): as texts in the order of the times."""
    return asked_at.astimezone(UTC).isoformat(timespec="microseconds")


def _lost(row: Mapping[str, Any]) -> LostItem:
    return LostItem(row["id"], EntityType(row["entity_type"]), row["siorg_code"], row["last_error"])


def _settled(finishing: Cursor) -> dict[UUID, Settled]:
    return {row["id"]: Settled(Status(row["status"]), row["attempts"], row["delay_seconds"]) for row in finishing}


def _held(items: Collection[Item]) -> dict[str, list[Any]]:
    return {"ids": [item.id for item in items], "tokens": [item.lease_token for item in items]}


def _item(row: Mapping[str, Any]) -> Item:
    """Field by field, for speed: every item of every claim is made here (measured: a tenth of the client's CPU less)."""
    return Item(
        id=row["id"],
        entity_type=EntityType(row["entity_type"]),
        siorg_code=row["siorg_code"],
        operation=Operation(row["operation"]),
        priority=row["priority"],
        payload=row["payload"],
        attempts=row["attempts"],
        max_attempts=row["max_attempts"],
        lease_token=row["lease_token"],
        needed_at=row["needed_at"],
        local_id=row["local_id"],
        error_details=row["error_details"],
        detected_changes=row["detected_changes"],
        alone=row["alone"],
    )
