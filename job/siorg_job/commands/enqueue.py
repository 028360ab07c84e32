"""``siorg-job enqueue``: put entities on the queue by hand."""

from __future__ import annotations

import argparse
from typing import Any

from siorg_job.commands.context import Context, Exit, siorg_code
from siorg_queue import EntityType, NewItem, Operation


def add_to(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "enqueue",
        help="put entities on the queue",
        description="Example: siorg-job enqueue 471 --entity organization; siorg-job enqueue 16466 16490 --priority 1."
        " An entity whose like work is waiting already is not added again.",
    )
    parser.add_argument("codes", nargs="+", type=siorg_code, metavar="CODE", help="SIORG codes")
    parser.add_argument("--entity", type=str.upper, choices=[e.value for e in EntityType], default="UNIT", help="default UNIT")
    parser.add_argument(
        "--operation", type=str.upper, choices=[o.value for o in Operation], default="UPDATE", help="default UPDATE"
    )
    parser.add_argument("--priority", type=int, choices=range(1, 11), default=5, metavar="1-10", help="1 highest; default 5")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, context: Context) -> int:
    entity, operation = EntityType(arguments.entity), Operation(arguments.operation)
    items = [NewItem(entity, code, operation, {}, arguments.priority) for code in arguments.codes]
    with context.queue() as store:
        added = store.enqueue(items)
    waiting = len(items) - added
    print(f"{added} added" + (f", {waiting} waiting already" if waiting else ""))
    return Exit.DONE
