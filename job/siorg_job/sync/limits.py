"""How much may change at once without a person: the one rule for all ways in which ends and overwritten names come. Pure.

Beyond a limit all of an organization's ends, or overwritten names, are held, for nobody can tell which of them are right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from siorg_job.settings import Settings

_NAMES = 10  # so many may be overwritten, or become one and the same, in the smallest organization
_SAME_NAMES_PERCENT = 5


@dataclass(frozen=True, slots=True)
class Limits:
    """How many units may end within 24 hours."""

    ends: int = 10
    """Of one organization; or ``percent`` of its units, whichever is more."""
    percent: int = 5
    total_percent: int = 2
    """Of all organizations together; or what the largest alone may, whichever is more."""

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        return cls(settings.siorg_max_ends, settings.siorg_max_ends_percent, settings.siorg_max_ends_total_percent)

    def single(self, units: int) -> int:
        """How many of an organization's ``units`` may end."""
        return max(self.ends, units * self.percent // 100)


@dataclass(frozen=True, slots=True)
class Ends:
    """The ends of one organization, but for those that a person decided."""

    units: int
    """Active ones, 24 hours ago; those that were never synced do not count."""
    ends: int
    """Of these: ended since then, on the queue, or just found. None of an organization that SIORG has ended."""
    held: int = 0
    """Besides: held already."""


def ends_beyond(tally: Mapping[int, Ends], organizations: Collection[int], limits: Limits) -> dict[int, str]:
    """Those of ``organizations`` whose ends have to be held, with the reason.

    Args:
        tally: by organization; of all, for they have a limit together.
        organizations: those of which ends have come now.
        limits: what is allowed.
    """
    units, ends = sum(each.units for each in tally.values()), sum(each.ends for each in tally.values())
    together = max([units * limits.total_percent // 100, *(limits.single(each.units) for each in tally.values())])
    found: dict[int, str] = {}
    for code in sorted(organizations):
        own = tally[code]
        mine, limit = own.ends + own.held, min(limits.single(own.units), own.units // 2)
        if mine > limit:
            found[code] = _reason(mine, own.units, "units would end", limit)
        elif own.ends and ends > together:
            found[code] = _reason(ends, units, "units of all organizations would end", together)
    return found


def names_beyond(units: int, names: Sequence[str]) -> str | None:
    """Why the overwritten names of an organization have to be held, if they have to.

    Args:
        units: how many the organization has.
        names: what its units' names became within 24 hours, or would become.
    """
    if len(names) > (limit := max(_NAMES, units // 2)):
        return _reason(len(names), units, "names would be overwritten", limit)
    if names:
        ((name, times),) = Counter(names).most_common(1)
        if times > (limit := max(_NAMES, units * _SAME_NAMES_PERCENT // 100)):
            return _reason(times, units, f"names would become {name[:60]!r}", limit)
    return None


def _reason(found: int, of: int, what: str, limit: int) -> str:
    return f"{found} of {of} {what}; the limit is {limit}"
