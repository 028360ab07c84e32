"""Counting against the limits, in the database: what has ended lately, what waits, and what is held."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from uuid import UUID

from siorg_job.sync.limits import Ends, Limits, ends_beyond, names_beyond
from siorg_job.sync.local_rows import HeldField, Unit
from siorg_job.sync.model import Fetched, UnitField, plain
from siorg_job.sync.place import base_of
from siorg_job.sync.working_copy import WorkingCopy
from siorg_queue import Connection, EntityType, Item, Outcome, Verdict
from siorg_queue.statements import load

_TURN = "10s"

IS_OVER = "nothing is held any more: SIORG says something else, or what is here"


def look_at_limits(connection: Connection, verdicts: Sequence[Verdict], copy: WorkingCopy, limits: Limits) -> bool:
    """Whether a group that was decided, and is not written yet, brings an organization beyond a limit; noted in ``copy``.

    Inside the caller's transaction, to the end of which nobody else counts the same.
    """
    decided = {verdict.item.id for verdict in verdicts if "resolution" in (verdict.item.error_details or ())}
    ends: dict[int, int] = {}
    names: dict[int, tuple[int, str]] = {}
    for row in copy.history:
        before, after = copy.as_read.get(row.local_id), copy.units.get(row.siorg_code)
        if not isinstance(before, Unit) or after is None or row.sync_queue_id in decided or not before.is_active:
            continue
        if not after.is_active:
            ends[after.code] = before.organization_code
        elif after.name != before.name and base_of(before, copy) is not None:
            names[after.code] = (before.organization_code, after.name)
    if names:
        copy.names_beyond = _names_beyond(connection, names)
    if ends:
        _take_turn(connection)
        settled = [verdict.item.id for verdict in verdicts if verdict.outcome not in (Outcome.RELEASED, Outcome.RETRY)]
        copy.ends_beyond = ends_beyond(count_ends(connection, ends, settled), set(ends.values()), limits)
    return bool(copy.ends_beyond or copy.names_beyond)


def _take_turn(connection: Connection) -> None:
    """Other jobs that count ends may have much to write: waited for longer than for people."""
    before = connection.execute("SELECT current_setting('lock_timeout') AS seconds").fetchone()
    assert before is not None
    connection.execute("SELECT set_config('lock_timeout', %s, true)", [_TURN])
    connection.execute(load("siorg_job.sync", "held.sql")["lock"])
    connection.execute("SELECT set_config('lock_timeout', %s, true)", [before["seconds"]])


def _names_beyond(connection: Connection, found: Mapping[int, tuple[int, str]]) -> dict[int, str]:
    organizations = sorted({organization for organization, _ in found.values()})
    names = count_names(connection, organizations, {code: name for code, (_, name) in found.items()})
    units = connection.execute(load("siorg_job.sync", "held.sql")["units"], {"organizations": organizations}).fetchall()
    reasons = {row["organization"]: names_beyond(row["units"], names.get(row["organization"], ())) for row in units}
    return {code: reason for code, reason in reasons.items() if reason is not None}


def count_ends(
    connection: Connection, ends: Mapping[int, int], settled: Collection[UUID] = (), alive: Collection[int] = ()
) -> dict[int, Ends]:
    """The ends of all organizations, with those just found (organization by unit code) and without the items ``settled``.

    ``alive``: organizations that SIORG has just answered for, whatever is noted of their end.
    """
    parameters = {
        "codes": list(ends), "organizations": sorted({*ends.values()}), "settled": list(settled), "alive": list(alive),
    }  # fmt: skip
    rows = connection.execute(load("siorg_job.sync", "held.sql")["ends"], parameters).fetchall()
    return {row["organization"]: Ends(row["units"], row["ends"], row["held"]) for row in rows}


def count_names(connection: Connection, organizations: Sequence[int], found: Mapping[int, str]) -> dict[int, list[str]]:
    """By organization, what names of its units became within 24 hours, or would become; ``found`` are new, by unit code."""
    parameters = {"organizations": list(organizations), "codes": list(found), "names": list(found.values())}
    counted: dict[int, list[str]] = {}
    for row in connection.execute(load("siorg_job.sync", "held.sql")["names"], parameters).fetchall():
        counted.setdefault(row["organization"], []).append(row["name"])
    return counted


def over(works: Iterable[tuple[Item, Fetched]], copy: WorkingCopy) -> list[UUID]:
    """What is held about units of these items, and is no question any more after them."""
    return [
        question.id
        for item, fetched in works
        for question in copy.held_fields.get((EntityType.UNIT, item.siorg_code), ())
        if not question.decided and question.id != item.id and _is_over(question, copy.units.get(item.siorg_code), fetched, copy)
    ]


def _is_over(question: HeldField, unit: Unit | None, fetched: Fetched, copy: WorkingCopy) -> bool:
    if unit is None or not unit.is_active:
        return True
    remote = fetched.unit
    if question.field == UnitField.IS_ACTIVE:
        home = (
            None if remote is None or remote.ended else copy.organizations.get(remote.organization_code or unit.organization_code)
        )
        return home is not None and home.is_active and home.code != unit.code
    said = None if remote is None else remote.name
    values = plain({UnitField.NAME: unit.name})
    return said is not None and (said != question.remote or values[UnitField.NAME] == question.remote)
