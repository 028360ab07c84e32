"""``siorg-job conflicts``: what waits for a person, and the person's decision."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from siorg_job.commands.context import CommandError, Context, Exit, at_most, free_text
from siorg_job.sync.model import DomainField, OrganizationField, UnitField
from siorg_job.sync.resolution import ResolutionError, read_resolution
from siorg_queue import Attention, EntityType, Operation, Unreadable

_FIELDS = {EntityType.UNIT: UnitField, EntityType.ORGANIZATION: OrganizationField}


def add_to(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "conflicts",
        help="list, show and resolve what waits for a person",
        description="Without further words: the list. A conflict means that a field was changed here and in SIORG; nothing of"
        " the item was applied.",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--limit", type=at_most, default=100, metavar="N", help="at most so many (default 100)")
    parser.set_defaults(run=run_list)
    verbs = parser.add_subparsers(metavar="VERB")
    show = verbs.add_parser("show", help="one conflict, field by field")
    show.add_argument("id", type=UUID)
    show.set_defaults(run=run_show)
    resolve = verbs.add_parser(
        "resolve",
        help="decide one",
        description="Decides about the fields in conflict, and those that --set names. SIORG's changes of all other fields are"
        " applied by the next run. SIORG's values that were turned down are not asked about again; others are.",
    )
    resolve.add_argument("id", type=UUID)
    how = resolve.add_mutually_exclusive_group(required=True)
    how.add_argument("--accept-siorg", action="store_true", help="the fields in conflict take SIORG's values")
    how.add_argument("--keep-local", action="store_true", help="the fields in conflict keep the local values")
    how.add_argument("--skip", action="store_true", help="later: end the item as SKIPPED, decide nothing")
    how.add_argument(
        "--set",
        action="append",
        metavar="FIELD=VALUE",
        dest="merge",
        help="write this value (repeatable); VALUE is JSON or plain text, LOCAL, or SIORG",
    )
    resolve.add_argument("--notes", type=free_text, help="kept with the item")
    resolve.set_defaults(run=run_resolve)


def run_list(arguments: argparse.Namespace, context: Context) -> int:
    with context.decisions() as decisions:
        found = decisions.conflicts(limit=arguments.limit)
    for conflict in found:
        if arguments.json:
            print(_as_json(conflict))
        else:
            fields = ", ".join(_changes(conflict))
            print(f"{conflict.id}  {conflict.entity_type} {conflict.siorg_code}  {conflict.operation}  {fields}")
    if not arguments.json and len(found) in (0, arguments.limit):
        print(f"the newest {arguments.limit}; --limit shows more" if found else "no conflicts")
    return Exit.DONE


def run_show(arguments: argparse.Namespace, context: Context) -> int:
    conflict = _conflict(arguments.id, context)
    if getattr(arguments, "json", False):
        print(_as_json(conflict))
        return Exit.DONE
    print(f"{conflict.entity_type} {conflict.siorg_code}  {conflict.operation}\n{conflict.last_error or ''}")
    for field, sides in _changes(conflict).items():
        print(f"  {field}")
        for side in ("base", "local", "remote"):
            print(f"    {side:>6}: {json.dumps(sides.get(side), ensure_ascii=False)}")
    if isinstance(conflict.detected_changes, Unreadable):
        print(f"  detected_changes {conflict.detected_changes}")
    return Exit.DONE


def run_resolve(arguments: argparse.Namespace, context: Context) -> int:
    """Write the decision; the next run carries it out."""
    conflict = _conflict(arguments.id, context)
    fields = _FIELDS.get(conflict.entity_type, DomainField)
    with context.decisions() as decisions:
        if arguments.skip:
            written = decisions.skip_conflict(conflict.id, notes=arguments.notes)
        else:
            decision = _decision(arguments, conflict, fields)
            try:
                read_resolution(decision, fields, changes=conflict.detected_changes)
            except ResolutionError as error:
                raise CommandError(str(error)) from None
            written = decisions.reopen_conflict(conflict.id, decision, notes=arguments.notes)
    if not written:
        raise CommandError(f"{conflict.id} is no conflict any more")
    print("skipped for now" if arguments.skip else "on the queue again; the next run applies it")
    return Exit.DONE


def _changes(conflict: Attention) -> dict[str, dict[str, Any]]:
    """What the conflict is about, by field; nothing where that cannot be read."""
    found = conflict.detected_changes
    return {field: sides for field, sides in found.items() if isinstance(sides, dict)} if isinstance(found, dict) else {}


def _decision(arguments: argparse.Namespace, conflict: Attention, fields: Iterable[str]) -> dict[str, Any]:
    if arguments.accept_siorg:
        return {"resolution": "ACCEPT_SIORG"}
    if arguments.merge:
        return _merge(arguments.merge)
    return {"resolution": "MERGE", "field_resolutions": dict.fromkeys(_disputed(conflict) or map(str, fields), "LOCAL")}


def _disputed(conflict: Attention) -> list[str]:
    """What both sides want otherwise: of an end, a merge or a split, the end, and not all else that differs."""
    changes = _changes(conflict)
    if conflict.operation not in (Operation.EXTINCTION, Operation.MERGE, Operation.SPLIT):
        return list(changes)
    edited = {field for field, sides in changes.items() if sides.get("base") != sides.get("local")}
    return sorted(edited | {UnitField.IS_ACTIVE.value})


def _merge(pairs: list[str]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    choices: dict[str, str] = {}
    for pair in pairs:
        field, equals, text = pair.partition("=")
        if not equals or not field:
            raise CommandError(f"--set {pair!r}: write FIELD=VALUE")
        if text in ("LOCAL", "SIORG"):
            choices[field] = text
            continue
        try:
            merged[field] = json.loads(text)
        except ValueError:
            merged[field] = text
    if unknown := [field for field in merged if field not in {*UnitField, *OrganizationField}]:
        raise CommandError(f"--set: unknown field {unknown[0]!r}; allowed: {', '.join(UnitField)}")
    return {"resolution": "MERGE", "merged_payload": merged, "field_resolutions": choices}


def _conflict(id_: UUID, context: Context) -> Attention:
    with context.decisions() as decisions:
        found = decisions.conflicts(id=id_, limit=1)
    if not found:
        raise CommandError(f"no conflict has the id {id_}")
    return found[0]


def _as_json(conflict: Attention) -> str:
    keys = ("entity_type", "siorg_code", "operation", "detected_changes", "last_error", "error_details")
    values = {"id": str(conflict.id), **{key: getattr(conflict, key) for key in keys}}
    return json.dumps({**values, "created_at": conflict.created_at.isoformat()}, ensure_ascii=False, default=str)
