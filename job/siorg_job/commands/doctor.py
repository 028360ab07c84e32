"""``siorg-job doctor``: looks at everything that a run needs, tries it, and says what is wrong and what to do."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from siorg_job.commands.context import Context, Exit
from siorg_queue import DatabaseUnavailable

if TYPE_CHECKING:
    from siorg_job.doctor.findings import Finding


def add_to(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "doctor",
        help="check database, tables, rights, settings and SIORG",
        description="Tries what each command does, in a transaction that it undoes; says what is wrong and what mends it, as SQL"
        " where that does. Exit 0: all can work; 1: something cannot; 75: the database or SIORG does not answer.",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object with exit_code and findings")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, context: Context) -> int:
    found: list[Finding] = []
    for finding in _findings(context):
        found.append(finding)
        if not arguments.json:
            print(f"{finding.level:>8}  {finding.sentence}", flush=True)
            if finding.remedy:
                print(f"{'':>8}  → {finding.remedy}", flush=True)
    errors = [finding for finding in found if finding.level == "error"]
    code = Exit.DONE if not errors else Exit.TRY_LATER if all(one.may_pass for one in errors) else Exit.ERROR
    if arguments.json:
        told = [{"level": one.level, "finding": one.sentence, "remedy": one.remedy or None} for one in found]
        print(json.dumps({"exit_code": int(code), "findings": told}, ensure_ascii=False))
    return code


def _findings(context: Context) -> Iterator[Finding]:
    from siorg_job.doctor import siorg
    from siorg_job.doctor.checks import look
    from siorg_job.doctor.findings import error, ok, warning

    yield ok("settings are valid")
    for notice in context.settings.notices:
        yield warning(notice)
    try:
        with context.database() as connection:
            yield from look(connection, context.settings)
    except DatabaseUnavailable as failed:
        yield error(f"the database does not answer: {failed}", may_pass=True)
    yield asyncio.run(siorg.ask(context.settings))
