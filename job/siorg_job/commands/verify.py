"""``siorg-job verify``: whether the rows here are SIORG's, and every departure by its kind."""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import aclosing
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siorg_job.commands.context import CommandError, Context, Exit, siorg_code
from siorg_queue import Connection, EntityType, QueueStore, clock
from siorg_queue.system_settings import is_enabled
from siorg_runtime.logs import logger

if TYPE_CHECKING:
    from siorg_job.reconciliation.departures import Departure
    from siorg_job.reconciliation.verification import Verification
    from siorg_job.reconciliation.verify import Subject, Verified

log = logger("siorg_job.verify")

_COLUMNS = (
    *("organization", "kind", "entity_type", "code", "name", "field", "base", "here", "siorg", "since", "reason", "ends"),
    "adopted",
)
_TABLES = {EntityType.CATEGORY: "categories", EntityType.TYPE: "types"}
_SHOWN = 5  # names of inactive organizations
_LONGEST = 40  # characters of a name or value on a line for people


def add_to(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "verify",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        help="compare the rows here with SIORG's, and list every departure by kind",
        description="Fetches the whole structure of every registered organization, or of those named, and the tables of"
        " categories and\ntypes, and compares them with the rows here. Nothing here is changed. Every difference has a kind"
        " (conflict, held, ended,\nfailed, waiting, outside, edited); what has none is drift.",
        epilog="Exit codes:\n"
        "   0  nothing but named departures; with --stored: a complete result is stored, whatever it says\n"
        "   1  it could not be done: an organization is not registered, siorg.sync_enabled is false, tables are missing\n"
        "   2  wrong settings or usage\n"
        "   3  there was drift\n"
        "  75  it could not be told for every organization (SIORG, the database, or it was stopped); what was told is listed\n\n"
        "Example: siorg-job verify --organization 471 --csv departures.csv",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--organization", type=siorg_code, action="append", metavar="CODE",
        help="only this one (repeatable), without the tables; default: all active",
    )  # fmt: skip
    which.add_argument("--stored", action="store_true", help="store the result for the operator (table siorg_verifications)")
    parser.add_argument("--json", action="store_true", help="one JSON object a departure, the last line the counts")
    parser.add_argument("--csv", metavar="FILE", help="write the departures there as well")
    parser.add_argument("--enqueue", action="store_true", help="put what is drift on the queue")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, context: Context) -> int:
    return asyncio.run(_verify(context, arguments))


async def _verify(context: Context, arguments: argparse.Namespace) -> int:
    # The HTTP client takes 30 ms of CPU to import: only who asks SIORG pays for it.
    from siorg_job.database.shared_rate import SharedRate
    from siorg_job.database.thread import DatabaseThread
    from siorg_job.reconciliation.verification import VerifyAll, store_result
    from siorg_job.siorg_session import breaker_for, client_for
    from siorg_job.sync.limits import Limits

    settings = context.settings
    with context.database() as connection:
        enqueue = _may_enqueue(arguments, connection)
        subjects, names = _subjects(arguments, connection)
        started_at = clock(connection)
        store = QueueStore(connection, settings.retry_policy()) if enqueue else None
        progress = _Progress(names)
        async with (
            aclosing(DatabaseThread(settings.database_url.get_secret_value(), "siorg-job rate")) as thread,
            client_for(settings, SharedRate(thread, settings.siorg_max_requests_per_second), breaker_for(settings)) as client,
        ):
            verify_all = VerifyAll(
                client,
                connection,
                store,
                limits=Limits.of(settings),
                requests_at_once=settings.worker_concurrency,
                tell=progress.done,
            )
            await context.unless_stopped(verify_all(subjects))
        result = verify_all.result(subjects)
        progress.end()
        if arguments.stored:
            store_result(connection, result, started_at)
    _tell(result, names, arguments)
    if not result.is_complete:
        return Exit.TRY_LATER
    drift = any(verified.drift for verified in result.found.values())
    return Exit.DRIFT if drift and not arguments.stored else Exit.DONE


def _may_enqueue(arguments: argparse.Namespace, connection: Connection) -> bool:
    """Whether drift is to be enqueued.

    Raises:
        CommandError: what is asked for cannot be done.
        psycopg.errors.UndefinedTable: there is no table for the result.
    """
    from siorg_job.reconciliation.verification import may_store

    if arguments.stored and not may_store(connection):
        raise CommandError("--stored: this role may not write the table siorg_verifications; GRANT SELECT, INSERT on it")
    if not arguments.enqueue or is_enabled(connection):
        return bool(arguments.enqueue)
    if not arguments.stored:
        raise CommandError("--enqueue: the setting siorg.sync_enabled is false; set it to true, or verify without --enqueue")
    log.warning("Nothing is enqueued: the setting siorg.sync_enabled is false")
    return False


def _subjects(arguments: argparse.Namespace, connection: Connection) -> tuple[list[Subject], dict[Subject, str]]:
    """What is to be verified, and what people call it."""
    from siorg_job.reconciliation.discover import asked_for

    codes: list[int] | None = arguments.organization
    organizations = asked_for(connection, codes)
    if missing := set(codes or ()) - {organization.code for organization in organizations}:
        raise CommandError(
            f"organization {', '.join(map(str, sorted(missing)))} is not registered here: siorg-job organizations add"
        )
    subjects: list[Subject] = [] if codes else list(_TABLES)
    subjects += [organization.code for organization in organizations]
    names: dict[Subject, str] = dict(_TABLES.items())
    names |= {each.code: f"{each.code} {each.acronym}" for each in organizations}
    return subjects, {subject: names[subject] for subject in subjects}


class _Progress:
    """A line on a terminal."""

    def __init__(self, names: dict[Subject, str]) -> None:
        self._names = names
        self._count = 0
        self._shown = sys.stderr.isatty()

    def done(self, subject: Subject) -> None:
        self._count += 1
        if self._shown:
            line = f"{self._count} of {len(self._names)} verified  {self._names[subject][:_LONGEST]}"
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._shown and self._count:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


# -- what is told -------------------------------------------------------------------------------------------------------


def _tell(result: Verification, names: dict[Subject, str], arguments: argparse.Namespace) -> None:
    if arguments.csv:
        with Path(arguments.csv).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, _COLUMNS)
            writer.writeheader()
            for verified, departure in result.departures:
                writer.writerow({key: _cell(value) for key, value in _row(verified, departure).items()})
    if arguments.json:
        for verified, departure in result.departures:
            print(json.dumps(_row(verified, departure), ensure_ascii=False))
        print(json.dumps(_summary(result), ensure_ascii=False))
    else:
        for line in _lines(result, names):
            print(line)


def _summary(result: Verification) -> dict[str, Any]:
    departures = [departure for _, departure in result.departures]
    return {
        "complete": result.is_complete,
        "organizations": sum(isinstance(subject, int) and found.is_active for subject, found in result.found.items()),
        "inactive": sum(not verified.is_active for verified in result.found.values()),
        "rows": sum(verified.rows for verified in result.found.values()),
        "departures": dict(Counter(each.kind.value for each in departures)),
        "adopted": sum(each.adopted for each in departures),
        "enqueued": sum(verified.enqueued for verified in result.found.values()),
        "untold": {_subject(subject): reason for subject, reason in result.untold.items()},
    }


def _lines(result: Verification, names: dict[Subject, str]) -> Iterator[str]:
    """For people: what departs, by organization, and then how many of each kind and what ends them."""
    from siorg_job.reconciliation.departures import ENDS, Kind

    order = {subject: number for number, subject in enumerate(names)}
    departures = sorted(result.departures, key=lambda each: order[each[0].subject])
    for subject, some in groupby(departures, key=lambda each: each[0].subject):
        yield names[subject]
        yield from _aligned([_line(departure) for _, departure in some])
        yield ""
    for subject, reason in result.untold.items():
        yield f"{names[subject]} could not be told: {reason}"
    summary = _summary(result)
    yield f"{_number(summary['organizations'], 'organization')}, {_number(summary['rows'], 'row')} compared"
    if inactive := [names[subject] for subject, found in result.found.items() if not found.is_active]:
        shown = ", ".join(inactive[:_SHOWN]) + (f" and {len(inactive) - _SHOWN} more" if len(inactive) > _SHOWN else "")
        yield f"not active here, so nothing of it is kept in line or was compared: {shown}"
    counted = Counter(departure.kind for _, departure in departures)
    yield from _aligned([("", str(counted[kind]), kind.value, ENDS[kind]) for kind in Kind if counted[kind]])
    if not departures and result.found:
        yield "no departure" if result.is_complete else "no departure in what could be told"
    if summary["adopted"]:
        of = sum(counted[kind] for kind in (Kind.CONFLICT, Kind.EDITED))
        yield (
            f"{summary['adopted']} of the {of} conflict and edited have SIORG's older answer as their base, for what was written"
            " here then is not recorded: they may be the first worker's own mistakes"
        )
    if summary["enqueued"]:
        yield f"put on the queue: {_number(summary['enqueued'], 'item')}"


def _number(count: int, word: str) -> str:
    return f"{count} {word}" + ("" if count == 1 else "s")


def _line(departure: Departure) -> tuple[str, ...]:
    what = departure.entity_type.value.lower()
    since = "" if departure.since is None else f"{departure.since:%Y-%m-%d}"
    values = f"{_short(departure.local)} here, {_short(departure.remote)} in SIORG"
    field = "missing here" if departure.field == "*" else str(departure.field)
    return "", departure.kind.value, what, str(departure.code), departure.name[:_LONGEST], field, values, since, departure.reason


def _short(value: Any) -> str:
    text = json.dumps(_plain(value), ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _aligned(rows: Iterable[tuple[str, ...]]) -> list[str]:
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _row(verified: Verified, departure: Departure) -> dict[str, Any]:
    return {
        "organization": verified.organization,
        "kind": departure.kind.value,
        "entity_type": departure.entity_type.value,
        "code": departure.code,
        "name": departure.name,
        "field": str(departure.field),
        "base": _plain(departure.base),
        "here": _plain(departure.local),
        "siorg": _plain(departure.remote),
        "since": None if departure.since is None else departure.since.isoformat(),
        "reason": departure.reason,
        "ends": departure.ends,
        "adopted": departure.adopted,
    }


def _subject(subject: Subject) -> str:
    return subject.value if isinstance(subject, EntityType) else str(subject)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _cell(value: Any) -> str:
    """Text of a cell that no spreadsheet takes for a formula."""
    text = "" if value is None else "; ".join(map(str, value)) if isinstance(value, list) else str(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text
