"""What a failure is told as: a suspicion against its item, and where it was nobody's but ours, the end of the run."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg

from siorg_job.database.grants import missing_grants, told
from siorg_job.drain.queue_client import QueueClient
from siorg_job.drain.run import Broken
from siorg_job.drain.suspects import APPLYING, Place, Suspicion, Where
from siorg_job.sync.apply import Refusal
from siorg_job.sync.outcomes import internal_error
from siorg_job.sync.write import table_of
from siorg_queue import Item, describe


def of_our_own(item: Item, error: Exception, place: Place) -> Suspicion:
    """An internal error; alike are those that were raised at one line."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else f"{trace.tb_frame.f_code.co_qualname}:{trace.tb_lineno}"
    return Suspicion(item, place, error, internal_error(item, error), alike=f"{type(error).__name__} {where}")


def of_refusal(refusal: Refusal) -> Suspicion:
    """An item that could not be applied even alone."""
    item, error = refusal.item, refusal.error
    if not isinstance(error, psycopg.Error):
        return of_our_own(item, error, APPLYING)
    alike = f"{error.sqlstate} {error.diag.constraint_name or ''}"
    return Suspicion(item, Place(Where.DATABASE, refusal.step), error, refusal.verdict, alike, refusal.above)


async def refuses_all(error: psycopg.Error, queue: QueueClient) -> bool:
    """Whether the database certainly refuses more than the one row that it has refused."""
    if isinstance(error, psycopg.errors.InsufficientPrivilege):  # else a policy refuses this very row
        return bool(await queue.call(lambda connection, _: missing_grants(connection)))
    return not isinstance(error, psycopg.DataError | psycopg.IntegrityError)  # a value, a constraint: the row's own business


async def broken(alike: Sequence[Suspicion], queue: QueueClient) -> Broken:
    """What is at fault where no item is, for a person."""
    first, error = alike[0], alike[0].error
    if not isinstance(error, psycopg.Error):
        what = f"{type(error).__name__}: {error}"
        return Broken("worker_fault", f"{len(alike)} items end in the same internal error, and no other gets through: {what}")
    grants = await queue.call(lambda connection, _: missing_grants(connection))
    table = table_of(first.place.name)
    message = f"the database refuses {len(alike)} items{f' at table {table}' if table else ''}, and no other gets past that"
    return Broken("database_refuses", f"{message}: {describe(error)} (SQLSTATE {error.sqlstate}){told(grants)}")
