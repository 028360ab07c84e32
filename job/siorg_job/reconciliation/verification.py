"""Verification of several organizations and tables, some of them at a time, and its stored result."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

import psycopg
from psycopg.types.json import Jsonb

from siorg_job.reconciliation.ahead import AT_ONCE, ask_ahead
from siorg_job.reconciliation.departures import Departure, Kind
from siorg_job.reconciliation.verify import Subject, Verified, verify
from siorg_job.siorg.client import SiorgClient
from siorg_job.siorg.errors import BreakerOpen, SiorgError, TransientError
from siorg_job.sync.limits import Limits
from siorg_queue import Connection, EntityType, QueueStore, describe, query
from siorg_queue.statements import load

_LONGEST_PAUSE_SECONDS = 30.0
_REASONS = 3  # that are stored
_SQL = load("siorg_job.reconciliation", "verify.sql")


@dataclass(slots=True)
class Verification:
    """What came of verifying several."""

    found: dict[Subject, Verified] = field(default_factory=dict)
    untold: dict[Subject, str] = field(default_factory=dict)
    """What could not be told, and why."""

    @property
    def is_complete(self) -> bool:
        return not self.untold

    @property
    def departures(self) -> list[tuple[Verified, Departure]]:
        """Each field of an entity once: of a unit that has moved, as the organization tells that SIORG has it in."""
        chosen: dict[tuple[EntityType, int, str], tuple[Verified, Departure]] = {}
        for subject in sorted(self.found, key=lambda subject: (isinstance(subject, int), subject)):
            for each in self.found[subject].departures:
                key = (each.entity_type, each.code, each.field)
                if key not in chosen or subject == each.remote:
                    chosen[key] = (self.found[subject], each)
        return list(chosen.values())


class VerifyAll:
    """Verifies several, some of them at a time; those that SIORG could not answer for the moment once more at the end."""

    def __init__(
        self,
        siorg: SiorgClient,
        connection: Connection,
        store: QueueStore | None = None,
        *,
        limits: Limits | None = None,
        requests_at_once: int,
        tell: Callable[[Subject], object] = lambda _: None,
    ) -> None:
        """See ``verify``.

        Args:
            siorg: whom to ask.
            connection: to the database; the one that ``store`` uses.
            store: where drift is enqueued; None: nowhere.
            limits: beyond these, ends and overwritten names are held instead; None: the usual limits.
            requests_at_once: at most.
            tell: told of each that is done.
        """
        at_once = max(1, requests_at_once // AT_ONCE)
        self._verify = partial(verify, siorg=siorg, connection=connection, store=store, limits=limits, at_once=at_once)
        self._tell = tell
        self._found: dict[Subject, Verified] = {}
        self._failures: dict[Subject, SiorgError | psycopg.DataError] = {}

    async def __call__(self, subjects: Sequence[Subject]) -> None:
        """Verify these, in this order.

        Raises:
            psycopg.Error, DatabaseUnavailable: the database could not be asked.
        """
        await ask_ahead(subjects, self._verify, self._note, at_once=AT_ONCE)
        passing = {subject: error for subject, error in self._failures.items() if isinstance(error, TransientError)}
        if passing and self._found:
            await asyncio.sleep(min(_LONGEST_PAUSE_SECONDS, max(map(_pause_seconds, passing.values()))))
            await ask_ahead(passing, self._verify, self._note, at_once=AT_ONCE)

    def result(self, subjects: Sequence[Subject]) -> Verification:
        """What came of verifying these so far."""
        untold = [subject for subject in subjects if subject not in self._found]
        return Verification(self._found, {subject: _reason(self._failures.get(subject)) for subject in untold})

    async def _note(self, subject: Subject, verified: Awaitable[Verified]) -> None:
        try:
            self._found[subject] = await verified
        except (SiorgError, psycopg.DataError) as error:  # what cannot be read here is of its own rows
            self._failures[subject] = error
        else:
            self._tell(subject)


def _reason(error: SiorgError | psycopg.DataError | None) -> str:
    if isinstance(error, psycopg.DataError):
        return f"its rows cannot be read: {describe(error)}"
    return "it was stopped" if error is None else str(error)


def _pause_seconds(error: TransientError) -> float:
    return max(error.retry_after or 0.0, error.retry_in if isinstance(error, BreakerOpen) else 0.0)


# -- the stored result --------------------------------------------------------------------------------------------------


def may_store(connection: Connection) -> bool:
    """Whether a result may be stored.

    Raises:
        psycopg.errors.UndefinedTable: there is no table for it.
    """
    return bool(query(connection, _SQL["may_store"])[0]["allowed"])


def store_result(connection: Connection, result: Verification, started_at: datetime) -> None:
    """Store what came of verifying everything; one that is not complete never stands for a complete one."""
    departures = [departure for _, departure in result.departures]
    number = Counter(each.kind for each in departures)
    reasons = [f"{subject}: {reason}" for subject, reason in result.untold.items()]
    reason = "; ".join(reasons[:_REASONS]) + (f"; and {len(reasons) - _REASONS} more" if len(reasons) > _REASONS else "")
    query(
        connection,
        _SQL["store"],
        started_at=started_at,
        complete=result.is_complete,
        organizations=sum(isinstance(subject, int) for subject in result.found),
        compared=sum(verified.rows for verified in result.found.values()),
        drift=number.pop(Kind.DRIFT, 0),
        enqueued=sum(verified.enqueued for verified in result.found.values()),
        departures=Jsonb({kind.value: count for kind, count in number.items()}),
        reason=None if result.is_complete else reason,
    )
