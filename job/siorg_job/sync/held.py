"""Counting against the limits, in the database: what has ended lately, what waits, and what is held."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from siorg_job.sync.limits import Ends, Limits, ends_beyond
from siorg_job.sync.model import Fetched, UnitField, plain
from siorg_job.sync.working_copy import Question, Unit, WorkingCopy
from siorg_queue import Connection, EntityType, Item, Outcome, Verdict
from siorg_queue.statements import load

IS_OVER = "nothing is held any more: SIORG says something else, or what is here"


def beyond(connection: Connection, verdicts: Sequence[Verdict], copy: WorkingCopy, limits: Limits) -> dict[int, str]:
    """Organizations whose ends are beyond a limit with those of this group, which is not written yet; and why.

    Inside the caller's transaction, to the end of which nobody else counts.
    """
    decided = {verdict.item.id for verdict in verdicts if "resolution" in (verdict.item.error_details or ())}
    ends = {
        unit.code: unit.organization_code
        for row in copy.history
        if row.entity_type is EntityType.UNIT
        and row.sync_queue_id not in decided
        and isinstance(unit := copy.as_read.get(row.local_id), Unit)
        and unit.is_active
        and not copy.units[unit.code].is_active
    }
    if not ends:
        return {}
    connection.execute(load("siorg_job.sync", "held.sql")["lock"])
    settled = [verdict.item.id for verdict in verdicts if verdict.outcome not in (Outcome.RELEASED, Outcome.RETRY)]
    return ends_beyond(count_ends(connection, ends, settled), set(ends.values()), limits)


def count_ends(connection: Connection, ends: Mapping[int, int], settled: Collection[UUID] = ()) -> dict[int, Ends]:
    """The ends of all organizations, with those just found (organization by unit code) and without the items ``settled``."""
    parameters = {"codes": list(ends), "organizations": sorted({*ends.values()}), "settled": list(settled)}
    rows = connection.execute(load("siorg_job.sync", "held.sql")["ends"], parameters).fetchall()
    return {row["organization"]: Ends(row["units"], row["ends"], row["held"]) for row in rows}


def count_names(connection: Connection, organization: int, found: Mapping[int, str]) -> list[str]:
    """What names of the organization's units became within 24 hours, or would become, with those just found by unit code."""
    parameters: dict[str, Any] = {"organization": organization, "codes": list(found), "names": list(found.values())}
    return [row["name"] for row in connection.execute(load("siorg_job.sync", "held.sql")["names"], parameters).fetchall()]


def over(works: Iterable[tuple[Item, Fetched]], copy: WorkingCopy) -> list[UUID]:
    """What is held about units of these items, and is no question any more after them."""
    return [
        question.id
        for item, fetched in works
        for question in copy.questions.get((EntityType.UNIT, item.siorg_code), ())
        if not question.decided and question.id != item.id and _is_over(question, copy.units.get(item.siorg_code), fetched, copy)
    ]


def _is_over(question: Question, unit: Unit | None, fetched: Fetched, copy: WorkingCopy) -> bool:
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
