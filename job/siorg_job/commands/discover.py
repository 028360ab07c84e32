"""``siorg-job discover``: for the CronJob, and for a person who adds an organization."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg

from siorg_job.commands.context import CommandError, Context, Exit, siorg_code
from siorg_queue import Connection, EntityType, QueueStore, describe
from siorg_queue.system_settings import is_enabled
from siorg_runtime.logs import logger

if TYPE_CHECKING:
    from siorg_job.reconciliation.discover import Asked, Discovery, Organization


def add_to(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "discover",
        help="ask SIORG what changed and put it on the queue",
        description="For every registered organization, or those named: its rows here are compared with SIORG's whole structure"
        " when its version moved, while something differed at the last comparison, and at least every seven days. What is in"
        " line is not enqueued, nor what a person edited and SIORG did not contest.",
    )
    parser.add_argument(
        "--organization", type=siorg_code, action="append", metavar="CODE", help="only this one (repeatable); default: all"
    )
    parser.add_argument("--full", action="store_true", help="read every structure, whatever is recorded of its version")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, context: Context) -> int:
    return asyncio.run(discover_organizations(context, arguments.organization, full=arguments.full))


async def discover_organizations(context: Context, codes: list[int] | None, *, full: bool) -> int:
    """Discover these organizations, or all; returns the exit code."""
    # The HTTP client takes 30 ms of CPU to import: only who asks SIORG pays for it.
    from siorg_job.database.shared_rate import SharedRate
    from siorg_job.database.thread import DatabaseThread
    from siorg_job.reconciliation.ahead import AT_ONCE, ask_ahead
    from siorg_job.reconciliation.discover import ask, registered, settle
    from siorg_job.reconciliation.ended import Elsewhere
    from siorg_job.reconciliation.tables import discover_tables
    from siorg_job.siorg.errors import AccessRefused, SiorgError, TransientError
    from siorg_job.siorg_session import breaker_for, client_for
    from siorg_job.sync.limits import Limits

    log = logger("siorg_job.discover")
    settings = context.settings
    with context.database() as connection:
        if not is_enabled(connection):
            log.warning("Nothing is done: the setting siorg.sync_enabled is false")
            return Exit.DONE
        organizations = _organizations(codes, connection)
        active = [organization.code for organization in registered(connection, None)]
        if not active:
            log.warning("No organization is registered: siorg-job organizations add")
        store = QueueStore(connection, settings.retry_policy())
        if reopened := store.retry_due():
            log.info("Asking again for what failed", items=reopened)
        failures = set()
        limits = Limits.of(settings)
        async with (
            aclosing(DatabaseThread(settings.database_url.get_secret_value(), "siorg-job rate")) as thread,
            client_for(settings, SharedRate(thread, settings.siorg_max_requests_per_second), breaker_for(settings)) as client,
        ):
            # Before the units that refer to them.
            for error in () if codes or not active else await discover_tables(client, connection, store):
                failures.add(Exit.TRY_LATER if isinstance(error, TransientError | AccessRefused) else Exit.ERROR)
            elsewhere = Elsewhere(client, active, is_last=False)
            late: list[Organization] = []

            async def use(organization: Organization, answer: Awaitable[Asked]) -> None:
                started = time.monotonic()
                try:
                    asked = await answer
                    found = await settle(asked, client, connection, store, full=full, limits=limits, elsewhere=elsewhere)
                except (SiorgError, psycopg.DataError) as error:  # of the database: a value of its own rows, none of the others'
                    later = isinstance(error, TransientError | AccessRefused)
                    failures.add(Exit.TRY_LATER if later else Exit.ERROR)
                    _tell_failure(organization, error, later=later)
                    return
                if found.how == "later":
                    late.append(organization)
                else:
                    _tell(organization, found, time.monotonic() - started)

            async def all_of_them() -> None:
                asks = partial(ask, siorg=client, now=thread.now, full=full)
                await ask_ahead(organizations, asks, use, at_once=AT_ONCE)
                # What SIORG has ended comes last: by then most structures were read anyway.
                elsewhere.is_last = True
                await ask_ahead(tuple(late), asks, use, at_once=AT_ONCE)

            if not await context.unless_stopped(all_of_them()):
                log.info("Stopping")
    return min(failures, default=Exit.DONE)


def _organizations(codes: list[int] | None, connection: Connection) -> list[Organization]:
    from siorg_job.reconciliation.discover import asked_for

    organizations = asked_for(connection, codes)
    if missing := set(codes or ()) - {organization.code for organization in organizations}:
        names = ", ".join(map(str, sorted(missing)))
        raise CommandError(f"organization {names} is not registered here: siorg-job organizations add")
    return organizations


def _tell_failure(organization: Organization, error: Exception, *, later: bool) -> None:
    reason = f"its rows cannot be read: {describe(error)}" if isinstance(error, psycopg.DataError) else str(error)
    logger("siorg_job.discover").error(
        "Discovery failed; nothing was recorded", organization=organization.code, reason=reason, later=later
    )


def _tell(organization: Organization, found: Discovery, seconds: float) -> None:
    log = logger("siorg_job.discover")
    code = found.organization
    log.info(
        "Discovered",
        organization=code,
        version=found.version,
        how=found.how,
        differences=len(found.items),
        enqueued=found.added,
        held=found.held,
        seconds=round(seconds, 2),
    )
    for reason in found.reasons:
        print(f"{organization.acronym} ({code}): {reason}: held, siorg-job held list --organization {code}", flush=True)
    if found.how == "ended":
        log.warning(
            "SIORG has ended this organization; it and its units wait for a decision",
            organization=code,
            units=found.waiting,
            moving=sum(item.entity_type is EntityType.UNIT for item in found.items),
            decide=f"siorg-job organizations deactivate {code}",
        )
    elif found.how == "returned":
        log.warning(
            "SIORG has this organization again, which is not active here",
            organization=code,
            decide=f"siorg-job organizations reactivate {code}",
        )
