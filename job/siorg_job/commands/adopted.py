"""``siorg-job adopted``: values that differ where nothing is recorded of what was written, and one decision about them."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from siorg_job.commands.context import CommandError, Context, Exit, free_text, says_yes, siorg_code
from siorg_job.commands.preview import look

if TYPE_CHECKING:
    from siorg_job.sync.compare import Difference


def add_to(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "adopted",
        help="list values that the first worker may have written wrongly, and take SIORG's for them",
        description="Where nothing is recorded of what was last written (rows of the first worker), siorg_raw_data stands in as"
        " the base. What differs from it counts as a person's edit and stays; it may be the first worker's own mistake."
        " Without further words: the list, from SIORG's whole structures. Nothing is written.",
    )
    _add_organization(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(run=run_list)
    verbs = parser.add_subparsers(metavar="VERB")
    accept = verbs.add_parser(
        "accept-siorg",
        help="take SIORG's values for all that is listed",
        description="Puts a decision on the queue for each row that is listed; the next run carries it out. Each field that is"
        " overwritten is in history with what stood there before, and asks for no further review. Other fields are left alone.",
    )
    _add_organization(accept)
    accept.add_argument(
        "--by", type=free_text, default="siorg-job", metavar="NAME", help="who decides; kept with the items (default siorg-job)"
    )
    accept.add_argument("--note", type=free_text, metavar="TEXT", help="kept with the items")
    accept.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    accept.set_defaults(run=run_accept)


def _add_organization(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--organization", type=siorg_code, action="append", metavar="CODE", help="only this one (repeatable); default: all active"
    )


def run_list(arguments: argparse.Namespace, context: Context) -> int:
    found = look(context, arguments.organization)
    for each in found.adopted:
        print(_as_json(each) if arguments.json else _line(each))
    if not arguments.json:
        print(f"{len(found.adopted)} values differ where nothing is recorded of what was last written")
    return _told(found.untold)


def run_accept(arguments: argparse.Namespace, context: Context) -> int:
    """Write the decisions, one a row; the next run carries them out."""
    from siorg_job.sync.adopted import decisions_for

    found = look(context, arguments.organization)
    if not found.adopted:
        print("nothing to decide")
        return _told(found.untold)
    for each in found.adopted:
        print(_line(each))
    decisions = decisions_for(found.adopted, arguments.by)
    question = f"take SIORG's values for these {len(found.adopted)} fields of {len(decisions)} rows?"
    if not arguments.yes:
        if not sys.stdin.isatty():
            raise CommandError(f"{question} Say --yes, for there is no terminal to ask on")
        if not says_yes(question):
            print("nothing was decided")
            return Exit.DONE
    with context.decisions() as queue:
        added = queue.decide(decisions, notes=arguments.note)
    waiting = len(decisions) - added
    print(f"{added} decisions on the queue" + (f", {waiting} waiting already" if waiting else "") + "; the next run applies them")
    return _told(found.untold)


def _told(untold: dict[str, str]) -> int:
    for what, reason in untold.items():
        print(f"{what} could not be compared: {reason}", file=sys.stderr)
    return Exit.TRY_LATER if untold else Exit.DONE


def _line(each: Difference) -> str:
    here, siorg, base = (_text(value) for value in (each.local, each.remote, each.base))
    return f"{each.entity_type.value.lower()} {each.code} {each.field}: here {here}, SIORG {siorg}, siorg_raw_data {base}"


def _as_json(each: Difference) -> str:
    sides = {"base": each.base, "here": each.local, "siorg": each.remote}
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in sides.items()}
    entity = {"entity_type": each.entity_type.value, "code": each.code, "field": str(each.field), "rule": each.rule.value}
    return json.dumps({**entity, **plain}, ensure_ascii=False)


def _text(value: Any) -> str:
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
