"""How many units may end without a person, by the rule as it is written: from raw SQL, none of the product's code."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from siorg_queue import Connection
from support.convergence.oracle import MAX_ENDS

_PERCENT, _TOTAL_PERCENT = 5, 2

_TALLY = """
WITH units AS (
    SELECT u.organization_id, u.is_active, NOT u.is_active AND (
               SELECT h.created_at > now() - interval '24 hours' AND NOT coalesce(q.error_details ? 'resolution', false)
               FROM siorg_history h LEFT JOIN siorg_sync_queue q ON q.id = h.sync_queue_id
               WHERE h.entity_type = 'UNIT' AND h.siorg_code = u.siorg_code
                 AND (h.change_type = 'EXTINCTION' OR 'is_active' = ANY (h.affected_fields))
               ORDER BY h.created_at DESC LIMIT 1
           ) AS ended, u.is_active AND EXISTS (
               SELECT FROM siorg_sync_queue q
               WHERE q.entity_type = 'UNIT' AND q.siorg_code = u.siorg_code
                 AND NOT coalesce(q.error_details ? 'resolution', false)
                 AND (q.status = 'CONFLICT' AND q.held_at IS NOT NULL AND q.detected_changes ? 'is_active'
                      OR q.status IN ('PENDING', 'PROCESSING') AND q.operation = 'EXTINCTION')
           ) AS waits
    FROM organizational_units u WHERE u.siorg_code IS NOT NULL AND u.siorg_synced_at IS NOT NULL
)
SELECT o.siorg_code AS code, count(*) FILTER (WHERE u.is_active OR u.ended) AS units, count(*) FILTER (WHERE u.ended) AS ended,
       count(*) FILTER (WHERE u.waits) AS waits
FROM organizations o JOIN units u ON u.organization_id = o.id GROUP BY 1
"""


@dataclass(frozen=True)
class Tally:
    """One organization; what people decided counts nowhere."""

    units: int
    """Active ones, 24 hours ago."""
    ended: int
    """Of these, since then."""
    waits: int
    """Of these, to end yet, or held."""

    @property
    def single(self) -> int:
        return max(MAX_ENDS, self.units * _PERCENT // 100)

    @property
    def limit(self) -> int:
        return min(self.single, self.units // 2)


Tallies: TypeAlias = Mapping[int, Tally]
"""By organization."""


def tallies(connection: Connection) -> Tallies:
    """The units that ended, and those that are to end."""
    return {row.pop("code"): Tally(**row) for row in connection.execute(_TALLY).fetchall()}


def _together(now: Tallies) -> int:
    units = sum(each.units for each in now.values())
    return max([units * _TOTAL_PERCENT // 100, *(each.single for each in now.values())])


def too_many(before: Tallies, now: Tallies, alive: Collection[int]) -> list[str]:
    """Ends that a person should have been asked about.

    Args:
        before: ends are counted of the units that there were before they ended, or moved away.
        now: what there is.
        alive: organizations that SIORG never ended: what becomes of the units of another counts against no limit.
    """
    none = Tally(0, 0, 0)
    found: list[str] = []
    for code in sorted(now.keys() & alive):
        limit, ended = max(before.get(code, none).limit, now[code].limit), now[code].ended
        if ended > max(limit, before.get(code, none).ended):
            found.append(f"organization {code}: {ended} of {now[code].units} units ended, the limit is {limit}")
    ended, limit = sum(each.ended for each in now.values()), max(_together(before), _together(now))
    if now.keys() <= set(alive) and ended > max(limit, sum(each.ended for each in before.values())):
        found.append(f"{ended} units of all organizations ended, the limit is {limit}")
    return found


def needless(before: Tallies, now: Tallies, held: Collection[int]) -> list[str]:
    """Organizations of which ends have just been held, although no limit was passed."""
    found: list[str] = []
    if sum(each.ended + each.waits for each in now.values()) > min(_together(before or now), _together(now)):
        return []
    for code in sorted(held):
        limit = min(before.get(code, now[code]).limit, now[code].limit)
        if now[code].ended + now[code].waits <= limit:
            found.append(f"organization {code}: held, and {now[code]} is within the limit {limit}")
    return found
