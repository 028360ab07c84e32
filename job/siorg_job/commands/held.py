"""``siorg-job held``: the ends and overwrites that a limit has stopped, and a person's decision about them."""

from __future__ import annotations

import argparse
import getpass
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any
from uuid import UUID

from siorg_job import organizations
from siorg_job.commands.context import CommandError, Context, Exit, free_text, says_yes, siorg_code
from siorg_queue import Decisions, HeldRow

_LISTING = """\
More would end, or be overwritten, at once than the limits allow (siorg-job settings: SIORG_MAX_ENDS …): nobody can tell which of
it is right, so all of it waits for a person. Without further words: the list. Its digest names exactly the rows listed."""
_DECIDING = """\
Decides exactly the rows that were listed. With --digest, as the list prints it: refused where the rows are others by now.
Without: lists, asks on a terminal (--yes: does not), and decides what it has listed. What comes later stays held."""
_MOST_NAMED = 20


def add_to(subparsers: Any) -> None:
    parser = subparsers.add_parser("held", help="list, release or drop ends and overwrites beyond a limit", description=_LISTING)
    _of_the_list(parser)
    verbs = parser.add_subparsers(metavar="VERB")
    _of_the_list(verbs.add_parser("list", help="what is held", description=_LISTING), again=True)
    for verb, meaning, run in (
        ("release", "SIORG's values are applied by the next run, and count against no limit", run_release),
        ("drop", "the local values stay until SIORG says something else", run_drop),
    ):
        decide = verbs.add_parser(verb, help=meaning, description=f"{verb.capitalize()}: {meaning}. {_DECIDING}")
        decide.add_argument("--organization", type=siorg_code, required=True, metavar="CODE", help="that holds the units here")
        decide.add_argument("--digest", help="of the rows as they were listed")
        decide.add_argument("--by", type=free_text, metavar="NAME", help="who decided (default: this account's name)")
        decide.add_argument("--note", type=free_text, metavar="TEXT", help="kept with the rows")
        decide.add_argument("--yes", action="store_true", help="do not ask")
        decide.set_defaults(run=run)


def _of_the_list(parser: argparse.ArgumentParser, *, again: bool = False) -> None:
    default: dict[str, Any] = {"default": argparse.SUPPRESS} if again else {}
    parser.add_argument("--organization", type=siorg_code, metavar="CODE", help="only of this one; default: of all", **default)
    parser.add_argument("--json", action="store_true", help="one JSON object an organization, one a line", **default)
    parser.set_defaults(run=run_list)


@dataclass(frozen=True, slots=True)
class Listing:
    """What is held of one organization."""

    code: int
    acronym: str | None
    """None: it is not registered here."""
    rows: Sequence[HeldRow]

    @property
    def digest(self) -> str:
        """Names the rows, in whatever order."""
        return digest_of(self.rows)

    @property
    def counts(self) -> dict[str, int]:
        return dict(Counter("ends" if row.field == "is_active" else f"{row.field}s" for row in self.rows))

    @property
    def reasons(self) -> list[str]:
        """What the limit says of them."""
        return list(dict.fromkeys(row.reason for row in self.rows if row.reason))

    @property
    def title(self) -> str:
        counts = ", ".join(f"{count} {what.rstrip('s') if count == 1 else what}" for what, count in self.counts.items())
        return f"{self.acronym or 'organization'} ({self.code}): {counts} held, digest {self.digest}"


def digest_of(rows: Sequence[HeldRow]) -> str:
    return hashlib.sha256(b"".join(sorted(row.id.bytes for row in rows))).hexdigest()[:12]


def came_since(digest: str, rows: Sequence[HeldRow]) -> list[HeldRow] | None:
    """The rows that are held now and were not when ``digest`` was listed; None: some of those listed are not held any more."""
    ordered = sorted(rows, key=lambda row: row.held_at)
    listed: list[HeldRow] = []
    for _, together in groupby(ordered, key=lambda row: row.held_at):
        listed += together
        if digest_of(listed) == digest:
            return ordered[len(listed) :]
    return None


def run_list(arguments: argparse.Namespace, context: Context) -> int:
    found = _listings(context, arguments.organization)
    for listing in found:
        print(_as_json(listing) if arguments.json else _as_text(listing))
    if not found and not arguments.json:
        print("nothing is held")
    return Exit.DONE


def run_release(arguments: argparse.Namespace, context: Context) -> int:
    done = "released: the next run applies them"
    return _decide(arguments, context, "release", Decisions.release_held, done)


def run_drop(arguments: argparse.Namespace, context: Context) -> int:
    done = "dropped: the local values stay until SIORG says something else"
    return _decide(arguments, context, "drop", Decisions.drop_held, done)


def _decide(arguments: argparse.Namespace, context: Context, verb: str, decide: Callable[..., int], done: str) -> int:
    code = arguments.organization
    listing = next(iter(_listings(context, code)), None)
    if listing is None:
        raise CommandError(f"nothing of organization {code} is held; siorg-job held shows what is")
    if arguments.digest is not None:
        _check_digest(arguments.digest, listing)
    if arguments.digest is None or not arguments.yes:
        print(_as_text(listing))  # what is decided
    if not arguments.yes:
        if not sys.stdin.isatty():
            raise CommandError(
                f"nobody can be asked here: look at siorg-job held --organization {code}, then give"
                f" --digest and --yes. Nothing was decided"
            )
        if not says_yes(f"{verb} these {len(listing.rows)}?"):
            raise CommandError("nothing was decided")
    ids: list[UUID] = [row.id for row in listing.rows]
    with context.decisions() as decisions:
        count = decide(decisions, ids, notes=arguments.note, by=arguments.by or _account())
    print(f"{count} {done}")
    if count < len(ids):
        print(f"{len(ids) - count} were not held any more")
    return Exit.DONE


def _check_digest(digest: str, listing: Listing) -> None:
    if digest == listing.digest:
        return
    news = came_since(digest, listing.rows)
    if news is None:
        what = f"the digest {digest[:20]!r} is not that of these rows, or some of them are not held any more"
    else:
        named = [f"{row.code} {row.name}" for row in news[:_MOST_NAMED]]
        more = f" and {len(news) - len(named)} more" if len(news) > len(named) else ""
        what = f"{len(news)} came since: {', '.join(named)}{more}"
    raise CommandError(
        f"{what}. Nothing was decided; siorg-job held --organization {listing.code} lists the {len(listing.rows)} that are held"
        f" now, digest {listing.digest}"
    )


def _listings(context: Context, organization: int | None) -> list[Listing]:
    with context.database() as connection:
        rows = Decisions(connection).held(organization=organization)
        by_code = sorted(rows, key=lambda row: row.organization)  # stable: the order of the rows stays
        return [
            Listing(code, organizations.acronym_of(connection, code), list(held))
            for code, held in groupby(by_code, key=lambda row: row.organization)
        ]


def _account() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return "siorg-job"


def _as_text(listing: Listing) -> str:
    lines = [listing.title, *(f"  {reason}" for reason in listing.reasons)]
    for row in listing.rows:
        change = "ends" if row.field == "is_active" else f"{row.field}: {_shown(row.local)} → {_shown(row.remote)}"
        lines.append(f"  {row.code:>8}  {row.path or row.name}  {change}")
    lines.append(f"  siorg-job held release --organization {listing.code} --digest {listing.digest}   (or drop)")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _as_json(listing: Listing) -> str:
    rows = [
        {
            "id": str(row.id),
            "entity_type": row.entity_type,
            "code": row.code,
            "name": row.name,
            "path": row.path,
            "field": row.field,
            "local": row.local,
            "remote": row.remote,
            "held_at": row.held_at.isoformat(),
        }
        for row in listing.rows
    ]
    told = {"organization": listing.code, "acronym": listing.acronym, "counts": listing.counts, "digest": listing.digest}
    return json.dumps({**told, "reasons": listing.reasons, "rows": rows}, ensure_ascii=False, default=str)
