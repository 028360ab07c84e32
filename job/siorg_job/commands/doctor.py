"""``siorg-job doctor``: looks at everything that a run needs and says what is wrong and what to do."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator
from typing import Any, TypeAlias

from siorg_job.commands.context import Context, Exit, pause_seconds
from siorg_queue import Connection, DatabaseUnavailable, QueueStore, transaction
from siorg_queue.system_settings import MAX_DEPTH, is_enabled, read_settings, read_whole_number

Finding: TypeAlias = tuple[str, str]
"""``ok``, ``warning`` or ``error``, and a sentence."""

_TRIGGERS = {"siorg_sync_queue_added", "siorg_sync_queue_reopened"}
_ENABLED_TRIGGERS = "SELECT tgname FROM pg_trigger WHERE tgrelid = to_regclass('siorg_sync_queue') AND tgenabled <> 'D'"
_PRIVILEGES = """
SELECT t.name AS table_name FROM unnest(ARRAY['siorg_sync_queue', 'siorg_history', 'siorg_mappings', 'organizations',
    'organizational_units', 'organizational_unit_types', 'organizational_unit_categories', 'system_settings']) AS t (name)
WHERE NOT has_table_privilege(t.name, 'SELECT, INSERT, UPDATE')
"""
_DEEPEST = 13  # levels: the deepest federal structure of 2016 had 12 below the top


def add_to(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "doctor",
        help="check database, tables, settings and SIORG",
        description="Exit 0: all is well; 1: something is wrong; 75: the database or SIORG does not answer.",
    )
    parser.set_defaults(run=run)


def run(_: argparse.Namespace, context: Context) -> int:
    worst = int(Exit.DONE)

    def tell(finding: Finding) -> None:
        print(f"{finding[0]:>8}  {finding[1]}", flush=True)

    tell(("ok", "settings are valid"))
    for notice in context.settings.notices:
        tell(("warning", notice))
    try:
        with context.database() as connection:
            for finding in _database(connection):
                tell(finding)
                worst = Exit.ERROR if finding[0] == "error" else worst
    except DatabaseUnavailable as error:
        tell(("error", f"the database does not answer: {error}"))
        worst = Exit.TRY_LATER
    finding = asyncio.run(_siorg(context))
    tell(finding)
    if finding[0] == "error" and worst == Exit.DONE:
        worst = Exit.TRY_LATER
    return worst


def _database(connection: Connection) -> Iterator[Finding]:
    from siorg_queue.migrations import missing_columns, pending
    from siorg_queue.surroundings import findings

    version = connection.info.server_version // 10000
    yield (("ok", f"PostgreSQL {version}") if version >= 15 else ("error", f"PostgreSQL {version}: 15 or later is needed"))
    yield from findings(connection)
    if waiting := pending(connection):
        yield "error", f"{len(waiting)} migrations are pending: siorg-job migrate"
        return
    if missing := missing_columns(connection):
        yield "error", "columns are missing: " + ", ".join(missing)
        return
    yield "ok", "tables are complete"
    with transaction(connection):
        denied = [row["table_name"] for row in connection.execute(_PRIVILEGES)]
        triggers = {row["tgname"] for row in connection.execute(_ENABLED_TRIGGERS)}
        depth = read_whole_number(MAX_DEPTH, read_settings(connection, [MAX_DEPTH]).get(MAX_DEPTH), unset=10)
        organizations = connection.execute("SELECT FROM organizations WHERE coalesce(is_active, true)").rowcount
    if denied:
        yield "error", f"this database user may not read and write: {', '.join(denied)}"
    if not triggers >= _TRIGGERS:
        yield "warning", "the NOTIFY triggers are missing or disabled: new work is seen at the next poll only"
    if not is_enabled(connection):
        yield "warning", "siorg.sync_enabled is false, or cannot be read: run and discover do nothing"
    if depth < _DEEPEST:
        deeper = f"deeper units would end FAILED (the deepest federal structures have {_DEEPEST - 1} levels)"
        yield "ok", f"units.max_hierarchy_depth is {depth}; {deeper}"
    if organizations:
        yield "ok", f"{organizations} organizations are registered"
    else:
        yield "error", "no organization is registered: siorg-job organizations add"
    if pause := pause_seconds(connection):
        yield "warning", f"SIORG asked to be left alone (Retry-After): nothing is fetched for another {pause:.0f} s"
    counts = QueueStore(connection).counts()
    of_people = f"{counts.failed} failed, {counts.conflict} conflicts, {counts.held} held"
    yield "ok", f"queue: {counts.claimable} claimable, {counts.processing} in work, {of_people}"
    for number, text in (
        (counts.spent, "wait with no attempts left"),
        (counts.expired, "have expired"),
        (counts.abandoned, "are held by workers that died"),
    ):
        if number:
            yield "warning", f"{number} items {text}: siorg-job cleanup ends them"


async def _siorg(context: Context) -> Finding:
    from siorg_job.siorg.errors import SiorgError
    from siorg_job.siorg.model import DomainTable
    from siorg_job.siorg.rate_limiter import Unlimited
    from siorg_job.siorg_session import breaker_for, client_for

    settings = context.settings
    async with client_for(settings, Unlimited(), breaker_for(settings)) as client:
        try:
            await client.domain(DomainTable.SPHERE)
        except SiorgError as error:
            return "error", f"SIORG ({settings.siorg_api_url}): {error}"
    return "ok", f"SIORG answers at {settings.siorg_api_url}"
