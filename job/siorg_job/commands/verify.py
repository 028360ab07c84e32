"""``siorg-job verify``: whether the rows here are SIORG's, and every departure by its kind."""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siorg_job.commands.context import CommandError, Context, Exit, siorg_code
from siorg_queue import QueueStore
from siorg_queue.system_settings import is_enabled
from siorg_runtime.logs import logger

if TYPE_CHECKING:
    from siorg_job.sync.departures import Departure
    from siorg_job.verify import Verified

log = logger("siorg_job.verify")

_COLUMNS = (
    *("organization", "kind", "entity_type", "code", "name", "field", "base", "here", "siorg", "since", "reason", "ends"),
    "adopted",
)


def add_to(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "verify",
        help="compare the rows here with SIORG's, and list every departure by kind",
        description="Fetches the whole structure of every registered organization, or of those named, and compares it with the"
        " rows here. Nothing is written. Every difference has a kind (conflict, held, ended, failed, waiting, outside, edited);"
        " what has none is drift.",
        epilog="Exit codes: 0 nothing but named departures · 3 there was drift · 75 it could not be told for every organization."
        " Example: siorg-job verify --organization 471 --csv departures.csv",
    )
    parser.add_argument(
        "--organization", type=siorg_code, action="append", metavar="CODE", help="only this one (repeatable); default: all active"
    )
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
    from siorg_job.discover import asked_for
    from siorg_job.siorg.errors import SiorgError
    from siorg_job.siorg_session import breaker_for, client_for
    from siorg_job.verify import verify

    settings = context.settings
    codes: list[int] | None = arguments.organization
    found: list[Verified] = []
    untold: dict[int, str] = {}
    with context.database() as connection:
        if arguments.enqueue and not is_enabled(connection):
            raise CommandError("--enqueue: the setting siorg.sync_enabled is false; set it to true, or verify without --enqueue")
        organizations = asked_for(connection, codes)
        if missing := set(codes or ()) - {organization.code for organization in organizations}:
            names = ", ".join(map(str, sorted(missing)))
            raise CommandError(f"organization {names} is not registered here: siorg-job organizations add")
        store = QueueStore(connection, settings.retry_policy())
        async with (
            aclosing(DatabaseThread(settings.database_url.get_secret_value(), "siorg-job rate")) as thread,
            client_for(settings, SharedRate(thread, settings.siorg_max_requests_per_second), breaker_for(settings)) as client,
        ):
            for number, organization in enumerate(organizations):
                if context.stop.is_set():
                    untold |= dict.fromkeys((rest.code for rest in organizations[number:]), "stopped")
                    break
                _progress(number, len(organizations), organization.acronym)
                try:
                    verified = await verify(organization.code, client, connection)
                except SiorgError as error:
                    untold[organization.code] = str(error)
                    continue
                found.append(verified)
                if arguments.enqueue and verified.drift:
                    store.note(verified.asked_at, [each.code for each in verified.drift])
                    store.enqueue(verified.items())
        _progress(len(organizations), len(organizations), "")
    _tell(found, untold, arguments)
    if untold:
        return Exit.TRY_LATER
    return Exit.DRIFT if any(verified.drift for verified in found) else Exit.DONE


def _progress(done: int, of: int, name: str) -> None:
    if sys.stderr.isatty():
        end = "\n" if done == of else ""
        print(f"\r\x1b[K{done} of {of} organizations {name[:40]}", end=end, file=sys.stderr, flush=True)


def _tell(found: Sequence[Verified], untold: dict[int, str], arguments: argparse.Namespace) -> None:
    rows = [_row(verified.organization, departure) for verified in found for departure in verified.departures]
    if arguments.csv:
        with Path(arguments.csv).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, _COLUMNS)
            writer.writeheader()
            writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    counts = Counter(row["kind"] for row in rows)
    summary = {
        "organizations": len(found),
        "rows": sum(verified.rows for verified in found),
        "departures": dict(sorted(counts.items())),
        "untold": {str(code): reason for code, reason in sorted(untold.items())},
    }
    if arguments.json:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
        print(json.dumps(summary, ensure_ascii=False))
        return
    for row in rows:
        here, siorg = (json.dumps(row[side], ensure_ascii=False) for side in ("here", "siorg"))
        what = f"{row['kind']:<9} {row['entity_type']} {row['code']} {row['name'][:40]}"
        print(f"{what}  {row['field']}: here {here}, SIORG {siorg} ({row['reason']})")
    for code, reason in sorted(untold.items()):
        print(f"organization {code} could not be told: {reason}")
    print(f"{summary['organizations']} organizations, {summary['rows']} rows compared; " + (_counted(counts) or "no departure"))


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in sorted(counts.items()))


def _row(organization: int, departure: Departure) -> dict[str, Any]:
    return {
        "organization": organization,
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


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _cell(value: Any) -> str:
    """Text of a cell that no spreadsheet takes for a formula."""
    text = "" if value is None else "; ".join(map(str, value)) if isinstance(value, list) else str(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text
