"""``siorg-job organizations``: which organizations this database keeps. SIORG serves no CNPJ, so a person adds them."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import aclosing
from typing import Any

from siorg_job import organizations
from siorg_job.commands.context import CommandError, Context, Exit, TryLater, free_text, integer, says_yes, siorg_code
from siorg_job.commands.organization_fields import ALLOWED, option, read_fields
from siorg_job.organizations import Refused
from siorg_job.siorg.errors import AccessRefused, NotAnOrganization, NotFound, SiorgError, TransientError
from siorg_job.siorg.model import RemoteUnit
from siorg_job.sync.merge import remote_organization_values
from siorg_job.sync.model import OrganizationField, Value, Values
from siorg_queue import Connection

_NONE_MATCH = 101  # codigoErro of an empty search
_UG_CODE = "Unidade Gestora (SIAFI), up to 6 digits"
_ug_code = integer(0, 999_999)

_ADD = """\
Checks the CNPJ, asks SIORG whether CODE is an órgão or entidade, and registers it. Name and acronym are SIORG's unless they
are given; the first sync brings SIORG's in any case. Exit 75: SIORG does not answer, and nothing was written."""
_ADD_EXAMPLES = """\
examples:
  siorg-job organizations add 423 --cnpj 17.217.985/0001-04 --ug-code 153062
  siorg-job discover --organization 423

  without SIORG:
  siorg-job organizations add 423 --cnpj 17217985000104 --ug-code 153062 --offline \\
      --acronym UFMG --name 'Universidade Federal de Minas Gerais'"""
_EDIT = """\
Corrects what SIORG does not serve, and what a person knows better, with the checks of add; shows before and after. SIORG is
not asked. A value that SIORG serves too stays as given until SIORG changes it: then a person has to decide (siorg-job
conflicts). An empty value ('') empties a field, but for acronym, name and CNPJ."""
_EDIT_EXAMPLES = """\
examples:
  siorg-job organizations edit 471 --cnpj 33.004.540/0001-00 --ug-code 154045
  siorg-job organizations edit 471 --city Cuiabá --no-is-main
  siorg-job organizations edit 471 --phone ''"""
_DEACTIVATE = """\
The decision about organizations that SIORG has ended, or made units of others: they end here, and with them those of their
units that SIORG has nowhere, each with a history row that asks for review. What SIORG has elsewhere moves there. SIORG is asked
once more by the next run: what it has again does not end. To keep one instead: siorg-job conflicts resolve ID --keep-local."""
_DEACTIVATE_EXAMPLES = """\
examples:
  siorg-job organizations deactivate 1801
  siorg-job organizations deactivate 1801 2207 3110 --by 'Ana Souza' --note 'Decreto 8.872' --yes"""
_REACTIVATE = """\
Makes organizations active again that were deactivated here, and asks SIORG for their units: those that ended with them come
back with the next run, each with a history row that has what was before. Exit 75: SIORG does not answer; the organization is
active, and the next discovery asks."""
_REACTIVATE_EXAMPLES = """\
examples:
  siorg-job organizations reactivate 1801 --by 'Ana Souza'"""


def add_to(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "organizations", help="list, add, edit, end or reactivate the organizations that are kept in line"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(run=run_list)
    verbs = parser.add_subparsers(metavar="VERB")
    listing = verbs.add_parser("list", help="what is registered")
    listing.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="one JSON object a line")
    listing.set_defaults(run=run_list)

    add = _verb(verbs, "add", "register one", _ADD, _ADD_EXAMPLES)
    add.add_argument("code", type=siorg_code, metavar="CODE", help="SIORG code of the órgão or entidade")
    add.add_argument("--cnpj", required=True, help=ALLOWED["cnpj"])
    add.add_argument("--ug-code", required=True, type=_ug_code, help=_UG_CODE)
    add.add_argument("--acronym", help=f"{ALLOWED['acronym']}; default: SIORG's")
    add.add_argument("--name", help=f"{ALLOWED['name']}; default: SIORG's")
    add.add_argument("--offline", action="store_true", help="do not ask SIORG; needs --acronym and --name")
    add.set_defaults(run=run_add, wrong_usage=add.error)

    edit = _verb(verbs, "edit", "correct one", _EDIT, _EDIT_EXAMPLES)
    edit.add_argument("code", type=siorg_code, metavar="CODE", help="SIORG code of a registered organization")
    for field, allowed in ALLOWED.items():
        edit.add_argument(option(field), help=allowed)
    edit.add_argument("--ug-code", type=_ug_code, help=_UG_CODE)
    main = edit.add_mutually_exclusive_group()
    main.add_argument("--is-main", action="store_const", const=True, help="it is the main organization")
    main.add_argument("--no-is-main", action="store_const", const=False, dest="is_main", help="it is not")
    edit.set_defaults(run=run_edit, wrong_usage=edit.error)

    deactivate = _verb(verbs, "deactivate", "end those that SIORG has ended", _DEACTIVATE, _DEACTIVATE_EXAMPLES)
    reactivate = _verb(verbs, "reactivate", "bring back those that SIORG has again", _REACTIVATE, _REACTIVATE_EXAMPLES)
    for verb, carry_out in ((deactivate, run_deactivate), (reactivate, run_reactivate)):
        verb.add_argument("codes", type=siorg_code, nargs="+", metavar="CODE", help="SIORG code of a registered organization")
        verb.add_argument("--by", type=free_text, metavar="NAME", help="who decides; kept with the decision")
        verb.add_argument("--note", type=free_text, metavar="TEXT", help="why; kept with the decision")
        verb.set_defaults(run=carry_out)
    deactivate.add_argument("--yes", action="store_true", help="do not ask; without a terminal it is needed")


def _verb(verbs: Any, name: str, meaning: str, description: str, examples: str) -> argparse.ArgumentParser:
    layout = argparse.RawDescriptionHelpFormatter
    made: argparse.ArgumentParser = verbs.add_parser(
        name, help=meaning, description=description, epilog=examples, formatter_class=layout
    )
    return made


_STATES = {
    (True, None): "",
    (True, True): "",
    (True, False): "  (SIORG has ended it: siorg-job organizations deactivate {code})",
    (False, None): "  (inactive)",
    (False, False): "  (inactive)",
    (False, True): "  (inactive; SIORG has it again: siorg-job organizations reactivate {code})",
}


def run_list(arguments: argparse.Namespace, context: Context) -> int:
    with context.database() as connection:
        rows = organizations.listed(connection)
    for row in rows:
        if arguments.json:
            synced_at = row["synced_at"] and row["synced_at"].isoformat()
            print(json.dumps({**row, "synced_at": synced_at}, ensure_ascii=False))
            continue
        state = _STATES[row["is_active"], row["exists_in_siorg"]].format(code=row["siorg_code"])
        print(
            f"{row['siorg_code']:>8}  {row['acronym']:<12} {row['units']:>6} units  version {row['version'] or '-':<12}"
            f" {row['name']}{state}"
        )
    if not rows and not arguments.json:
        print("no organization is registered: siorg-job organizations add")
    return Exit.DONE


def run_add(arguments: argparse.Namespace, context: Context) -> int:
    code = arguments.code
    if arguments.offline and (arguments.acronym is None or arguments.name is None):
        arguments.wrong_usage("--offline needs --acronym and --name: SIORG is not asked for them")
    given = _given(arguments)
    with context.database() as connection:
        try:
            organizations.check_free(connection, code, given["cnpj"])
            siorg = {} if arguments.offline else remote_organization_values(_ask(code, connection, context))
            columns = {field: siorg.get(field) for field in ("acronym", "name")} | given
            if missing := [option(field) for field, value in columns.items() if value is None]:
                raise CommandError(f"SIORG says nothing for {' and '.join(missing)} of {code}: give it. Nothing was written")
            organizations.register(connection, code, columns)
        except Refused as refused:
            raise CommandError(f"{refused}. Nothing was written") from None
    print(f"registered {columns['acronym']} ({code}), {columns['name']}")
    for field, value in _contradicted(given, siorg):
        print(f"SIORG's {field} is {value!r}: the first sync brings it")
    print(f"siorg-job discover --organization {code} finds its units")
    return Exit.DONE


def run_edit(arguments: argparse.Namespace, context: Context) -> int:
    code = arguments.code
    given = _given(arguments)
    if not given:
        options = ", ".join(map(option, (*ALLOWED, "ug_code", "is_main")))
        arguments.wrong_usage(f"nothing to change; give at least one of {options}")
    with context.database() as connection:
        try:
            edit = organizations.edit(connection, code, given)
        except Refused as refused:
            raise CommandError(f"{refused}. Nothing was written") from None
    if edit is None:
        raise CommandError(f"organization {code} is not registered here; siorg-job organizations list shows those that are")
    print(f"{edit.acronym} ({code})" + ("" if edit.changed else ": nothing to change, it is so already"))
    for field, (before, after) in edit.changed.items():
        print(f"  {field}: {_shown(before)} → {_shown(after)}")
    if edit.siorg_raw is None and edit.changed.keys() & {*OrganizationField}:
        print("It was never synced: the first sync brings what SIORG says")
    for field, value in _contradicted({field: after for field, (_, after) in edit.changed.items()}, _stored(edit.siorg_raw)):
        print(f"SIORG's {field} is {value!r}; yours stays until SIORG changes it, then a person has to decide")
    if given.get("is_main") and edit.other_main:
        print(f"Main too: {', '.join(edit.other_main)}; siorg-job organizations edit CODE --no-is-main ends that")
    return Exit.DONE


def run_deactivate(arguments: argparse.Namespace, context: Context) -> int:
    codes = sorted({*arguments.codes})
    with context.database() as connection:
        found = {one.code: one for one in organizations.for_end(connection, codes)}
        _check_here(codes, found)
        if living := [one for one in found.values() if one.is_active and not one.has_ended]:
            names = ", ".join(f"{one.acronym} ({one.code})" for one in living)
            words = " ".join(f"--organization {one.code}" for one in living)
            asks = f"siorg-job discover {words} asks"
            raise CommandError(f"as far as is known here SIORG still has {names}; {asks}. Nothing was written")
        ending = [one for one in found.values() if one.is_active]
        for one in found.values():
            print(f"{one.acronym} ({one.code}), {one.name}: " + (_what_ends(one) if one.is_active else "not active already"))
        if not ending:
            return Exit.DONE
        if not arguments.yes:
            _ask_for_consent(f"End {len(ending)} organizations with {sum(one.units for one in ending)} units?")
        organizations.decide_end(connection, [one.code for one in ending], by=arguments.by, note=arguments.note)
    print("on the queue; the next run ends them")
    return Exit.DONE


def run_reactivate(arguments: argparse.Namespace, context: Context) -> int:
    from siorg_job.commands.discover import discover_organizations

    codes = sorted({*arguments.codes})
    with context.database() as connection:
        _check_here(codes, {one.code: one for one in organizations.for_end(connection, codes)})
        done = organizations.reactivate(connection, codes, by=arguments.by, note=arguments.note)
    for code in codes:
        print(f"{code}: " + ("active again" if code in done else "active already"))
    if not done:
        return Exit.DONE
    code = asyncio.run(discover_organizations(context, done, full=True))
    with context.database() as connection:
        for one in organizations.for_end(connection, done):
            if one.has_ended:
                print(
                    f"SIORG, when it was last asked, had no organization {one.code}: it is kept active here, without the units"
                    f" that ended with it; siorg-job organizations deactivate {one.code} ends it again"
                )
    return code


def _check_here(codes: Iterable[int], found: Mapping[int, object]) -> None:
    if missing := ", ".join(str(code) for code in codes if code not in found):
        listing = "siorg-job organizations list shows those that are"
        raise CommandError(f"not registered here: {missing}; {listing}. Nothing was written")


def _what_ends(one: organizations.ForEnd) -> str:
    stays = f"; {one.unofficial} without a SIORG code stay active" if one.unofficial else ""
    return f"{one.units} active units; those that SIORG has nowhere end with it{stays}"


def _ask_for_consent(question: str) -> None:
    """Ask on the terminal.

    Raises:
        CommandError: there is none, or the answer is no.
    """
    if not sys.stdin.isatty():
        raise CommandError(f"{question} Not a terminal: --yes says so. Nothing was written")
    if not says_yes(question):
        raise CommandError("Nothing was written")


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    """The columns that were given, with their values.

    Raises:
        CommandError: names every one that cannot be used.
    """
    texts = {field: text for field in ALLOWED if (text := getattr(arguments, field, None)) is not None}
    fields, wrong = read_fields(texts)
    if wrong:
        raise CommandError("\n".join(wrong))
    others = {name: getattr(arguments, name, None) for name in ("ug_code", "is_main")}
    return fields | {name: value for name, value in others.items() if value is not None}


# ── What SIORG says ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _ask(code: int, connection: Connection, context: Context) -> RemoteUnit:
    """The órgão or entidade with this code, as SIORG has it now.

    Raises:
        TryLater: SIORG does not answer.
        CommandError: it has none, or says nothing usable of it.
    """
    offline = "--offline, with --acronym and --name, registers it without asking"
    try:
        unit = asyncio.run(_unit(code, context))
    except SiorgError as error:
        if isinstance(error, NotFound | NotAnOrganization) or error.details.get("siorg_error") == _NONE_MATCH:
            raise CommandError(f"SIORG has no órgão or entidade {code}: {error}. Nothing was written") from None
        if isinstance(error, TransientError | AccessRefused):
            hint = f"Nothing was written. Try again later (siorg-job doctor looks at the connection), or: {offline}"
            raise TryLater(f"SIORG cannot be asked about {code}: {error}. {hint}") from None
        raise CommandError(f"SIORG's answer about {code} is unusable: {error}. Nothing was written; {offline}") from None
    if unit.ended:
        raise CommandError(f"SIORG has ended {code} ({unit.name}). Nothing was written")
    if unit.is_organization and unit.organization_code in (None, code):
        return unit
    raise CommandError(_not_an_organization(unit, connection))


async def _unit(code: int, context: Context) -> RemoteUnit:
    # The HTTP client takes 30 ms of CPU to import: only who asks SIORG pays for it.
    from siorg_job.database.shared_rate import SharedRate
    from siorg_job.database.thread import DatabaseThread
    from siorg_job.siorg_session import breaker_for, client_for

    settings = context.settings
    async with (
        aclosing(DatabaseThread(settings.database_url.get_secret_value(), "siorg-job rate")) as thread,
        client_for(settings, SharedRate(thread, settings.siorg_max_requests_per_second), breaker_for(settings)) as client,
    ):
        return await client.unit(code)


def _not_an_organization(unit: RemoteUnit, connection: Connection) -> str:
    owner = unit.organization_code
    name = " ".join(filter(None, (unit.name, unit.acronym and f"({unit.acronym})")))
    kind = unit.type_slug or "unit of a type that SIORG does not say"
    what = f"{unit.code} is no órgão or entidade: {name}, {kind} of "
    if owner is None:
        return f"{what}an organization that SIORG does not say. Nothing was written"
    acronym = organizations.acronym_of(connection, owner)
    if acronym is not None:
        return f"{what}{acronym} ({owner}), which is registered. Nothing was written"
    return f"{what}organization {owner}. Nothing was written; siorg-job organizations add {owner} registers that"


def _stored(raw: Mapping[str, Any] | None) -> Values:
    """What SIORG said at the last sync."""
    from siorg_job.siorg.rows import parse_stored

    unit = parse_stored(raw)
    return {} if unit is None else remote_organization_values(unit)


def _contradicted(given: Mapping[str, Value], siorg: Values) -> Iterator[tuple[str, Value]]:
    """The fields in which SIORG says something else in substance, and what."""
    for field, value in given.items():
        theirs = siorg.get(field)
        if theirs is not None and _substance(theirs) != _substance(value):
            yield field, theirs


def _substance(value: Value) -> str:
    """Letters and digits alone, without case and accents."""
    parts = unicodedata.normalize("NFKD", str(value or "")).casefold()
    return "".join(character for character in parts if character.isalnum())


def _shown(value: object) -> str:
    return {None: "nothing", True: "yes", False: "no"}[value] if value is None or isinstance(value, bool) else str(value)
