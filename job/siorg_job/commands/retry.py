"""``siorg-job retry``: look at failed items and open them again."""

from __future__ import annotations

import argparse
from typing import Any
from uuid import UUID

from siorg_job.commands.context import Context, Exit, at_most, siorg_code
from siorg_queue import Attention, Decisions, QueueStore


def add_to(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "retry",
        help="list failed items, or open them again",
        description="Without further words: the failed items and why. With ids, --code or --all: back on the queue, with all"
        " their attempts.",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("ids", nargs="*", type=UUID, default=[], metavar="ID", help="ids of the items")
    which.add_argument("--code", type=siorg_code, action="append", metavar="CODE", help="SIORG code (repeatable)")
    which.add_argument("--all", action="store_true", help="every failed item")
    parser.add_argument("--limit", type=at_most, default=100, metavar="N", help="list at most so many (default 100)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, context: Context) -> int:
    with context.database() as connection:
        decisions = Decisions(connection)
        if arguments.ids or arguments.code:
            count = decisions.retry(ids=arguments.ids or None, codes=arguments.code)
        else:
            failed = QueueStore(connection).counts().failed
            if not arguments.all:
                _list(decisions.failures(limit=arguments.limit), failed)
                return Exit.DONE
            count = _all(decisions, failed, context)
    print(f"{count} items are on the queue again")
    return Exit.DONE if count or arguments.all else Exit.ERROR


def _all(decisions: Decisions, failed: int, context: Context) -> int:
    count = 0
    for opened in decisions.retry_all():
        count += opened
        if count < failed:
            print(f"{count} of {failed} are opened", flush=True)
        if context.stop.is_set():
            break
    return count


def _list(found: list[Attention], failed: int) -> None:
    for item in found:
        print(
            f"{item.id}  {item.entity_type} {item.siorg_code}  {item.operation}  attempt {item.attempts} of"
            f" {item.max_attempts}: {item.last_error or '(no reason was recorded)'}"
        )
    if not found:
        print("no failed items")
        return
    shown = f"the newest {len(found)} of {failed}; --limit shows more. " if len(found) < failed else ""
    print(f"{shown}siorg-job retry --all opens every one of the {failed} again")
