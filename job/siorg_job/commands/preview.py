"""``siorg-job preview``: what a discovery and a run would write, and nothing written."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import Counter
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from siorg_job.commands.context import CommandError, Context, Exit, siorg_code

if TYPE_CHECKING:
    from siorg_job.reconciliation.changes import Change
    from siorg_job.reconciliation.preview import Preview

_SIGNS = {
    "create": "+", "return": "+", "end": "-", "leave": "-", "update": "~", "move": ">", "conflict": "?", "held": "!",
    "failed": "x",
}  # fmt: skip
_WORDS = {
    "create": "created", "return": "returned", "end": "ended", "leave": "left", "update": "changed", "move": "moved",
    "conflict": "to be decided", "held": "held", "failed": "not usable",
}  # fmt: skip


def add_to(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "preview",
        help="show what a discovery and a run would write",
        description="Compares the rows here with SIORG's whole structures as discover --full does, and says what a run would make"
        " of it: + created or returned, - ended or left for an organization that is not registered, ~ changed, > moved,"
        " ? a person would have to decide, ! held, x SIORG's answer cannot be used. Counts come first. Nothing is written or"
        " queued.",
        epilog="Exit codes: 0 done · 75 some organization could not be compared. Example: siorg-job preview --organization 471",
    )
    parser.add_argument(
        "--organization", type=siorg_code, action="append", metavar="CODE",
        help="only this one (repeatable); default: all active, and the tables of categories and types",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="the counts as one JSON object, then one a change")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, context: Context) -> int:
    found = look(context, arguments.organization)
    summary = _summary(found)
    if arguments.json:
        print(json.dumps(summary, ensure_ascii=False))
        for change in found.changes:
            print(json.dumps(_row(change), ensure_ascii=False))
    else:
        _print_counts(found, summary)
        for change in found.changes:
            print(_line(change))
    return Exit.TRY_LATER if found.untold else Exit.DONE


def look(context: Context, codes: list[int] | None) -> Preview:
    """The preview of these organizations, or of all that are active; its progress on a terminal."""
    return asyncio.run(_look(context, codes))


async def _look(context: Context, codes: list[int] | None) -> Preview:
    # The HTTP client takes 30 ms of CPU to import: only who asks SIORG pays for it.
    from siorg_job.database.shared_rate import SharedRate
    from siorg_job.database.thread import DatabaseThread
    from siorg_job.reconciliation.discover import registered
    from siorg_job.reconciliation.preview import preview
    from siorg_job.siorg_session import breaker_for, client_for
    from siorg_job.sync.limits import Limits

    settings = context.settings
    with context.database() as connection:
        organizations = registered(connection, codes)
        if missing := set(codes or ()) - {organization.code for organization in organizations}:
            names = ", ".join(map(str, sorted(missing)))
            raise CommandError(f"organization {names} is not registered here: siorg-job organizations add")

        def stopped(done: int, name: str) -> bool:
            if sys.stderr.isatty():
                print(f"\r\x1b[K{done} of {len(organizations)} organizations {name[:40]}", end="", file=sys.stderr, flush=True)
            return context.stop.is_set()

        async with (
            aclosing(DatabaseThread(settings.database_url.get_secret_value(), "siorg-job rate")) as thread,
            client_for(settings, SharedRate(thread, settings.siorg_max_requests_per_second), breaker_for(settings)) as client,
        ):
            found = await preview(
                organizations, client, connection, limits=Limits.of(settings), tables=not codes, stopped=stopped
            )
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    return found


def _summary(found: Preview) -> dict[str, Any]:
    return {
        "organizations": found.organizations,
        "rows": found.rows,
        "changes": dict(Counter(change.what.value for change in found.changes)),
        "overwritten": sum(change.overwrites for change in found.changes),
        "noted": found.noted,
        "edited": found.edited,
        "adopted": len(found.adopted),
        "waiting": found.waiting,
        "decisions": found.decisions,
        "inactive": found.inactive,
        "untold": found.untold,
    }


def _print_counts(found: Preview, summary: dict[str, Any]) -> None:
    print(f"{found.organizations} organizations, {found.rows} rows compared; nothing was written")
    counts = summary["changes"]
    for what, word in _WORDS.items():
        if counts.get(what):
            print(f"{_SIGNS[what]} {counts[what]} {word}")
    if not counts:
        print("nothing would be written")
    if summary["overwritten"]:
        print(f"{summary['overwritten']} rows were never synced: SIORG's values replace what people typed there")
    if found.edited:
        print(f"{found.edited} values that people edited stay, SIORG not having changed them")
    if found.adopted:
        print(
            f"{len(found.adopted)} values differ where nothing is recorded of what was last written (the base is adopted from"
            " siorg_raw_data): siorg-job adopted lists them, siorg-job adopted accept-siorg takes SIORG's for all of them"
        )
    if found.noted:
        print(f"{found.noted} rows are in line, and get SIORG's version alone")
    if found.waiting:
        print(f"{found.waiting} items are on the queue already; the next run also carries out {found.decisions} decisions")
    for code in found.inactive:
        print(f"{code} is not active here, and nothing of it is kept in line: siorg-job organizations reactivate {code}")
    for what, reason in found.untold.items():
        print(f"{what} could not be compared: {reason}")


def _line(change: Change) -> str:
    parts = [f"{_SIGNS[change.what.value]} {change.entity_type.value.lower()} {change.code} {change.name[:60]}"]
    if change.before and change.after:
        parts.append(f"{change.before} → {change.after}")
    elif path := change.after or change.before:
        parts.append(path)
    if change.what.value not in ("create", "end", "leave", "failed"):
        place = ("organization", "parent") if change.after else ()
        parts += [
            f"{each.field}: {_text(each.local)} → {_text(each.remote)}" for each in change.differences if each.field not in place
        ]
    notes = [change.reason, "never synced: overwrites what people typed" if change.overwrites else ""]
    parts += [f"({note})" for note in notes if note]
    return "  ".join(parts)


def _text(value: Any) -> str:
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def _row(change: Change) -> dict[str, Any]:
    return {
        "what": change.what.value,
        "entity_type": change.entity_type.value,
        "code": change.code,
        "name": change.name,
        "organization": change.organization or None,
        "before": change.before,
        "after": change.after,
        "reason": change.reason,
        "overwrites": change.overwrites,
        "fields": {
            str(each.field): {"base": _plain(each.base), "here": _plain(each.local), "siorg": _plain(each.remote)}
            for each in change.differences
        },
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
