"""When a CronJob runs: the part of the cron notation that Kubernetes reads.

Kubernetes parses with robfig/cron: five fields, or a macro. Sunday is 0 and never 7, a range must not fall (so neither
``22-6`` nor ``sat-sun``), and TZ= in front of it is refused since 1.25: the zone has a field of its own.
https://pkg.go.dev/github.com/robfig/cron/v3#hdr-CRON_Expression_Format
"""

from __future__ import annotations

from datetime import date, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Final

from siorg_operator.api.rules import matches, matches_not

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MACROS = ("yearly", "annually", "monthly", "weekly", "daily", "midnight", "hourly")
_STEP = r"(/0?[1-9][0-9]?)?"


def _field(number: str, names: tuple[str, ...] = ()) -> str:
    """A list of stars, values and ranges, each with a step or without."""
    ranges = [r"[*?]", f"({number})(-({number}))?"]
    if names:
        word = "|".join(names)
        ranges.append(f"({word})(-({word}))?")
    one = f"({'|'.join(ranges)}){_STEP}"
    return f"{one}(,{one})*"


def _falling_numbers() -> str:
    """Ranges of numbers up to 59 that go from the larger to the smaller."""
    tens = [f"{ten}[0-9]-([0-{ten - 1}]?[0-9])" for ten in range(1, 6)]
    ones = [f"{ten or '0?'}{one}-{ten or '0?'}[0-{one - 1}]" for ten in range(6) for one in range(1, 10)]
    return "|".join([*tens, *ones])


def _falling_names(names: tuple[str, ...]) -> str:
    return "|".join(f"{later}-({'|'.join(names[:place])})" for place, later in enumerate(names) if place)


_FIELDS = (
    _field(r"[0-5]?[0-9]"),
    _field(r"[01]?[0-9]|2[0-3]"),
    _field(r"0?[1-9]|[12][0-9]|3[01]"),
    _field(r"0?[1-9]|1[0-2]", _MONTHS),
    _field(r"0?[0-6]", _DAYS),
)

SCHEDULE = (
    matches(
        f"^((?i:{' '.join(_FIELDS)})|@({'|'.join(_MACROS)}))$",  # Kubernetes wants the macros in lower case
        wrong="is not a schedule that Kubernetes reads",
        allowed="five fields minute hour day month weekday, as in 7 * * * * or */15 6-20 * * mon-fri (Sunday is 0; TZ= goes"
        f" into timeZone), or one of {', '.join('@' + macro for macro in _MACROS)}",
    ),
    matches_not(
        f"(?i)(^|[ ,])({_falling_numbers()}|{_falling_names(_MONTHS)}|{_falling_names(_DAYS)})([ ,/]|$)",
        wrong="has a range that goes from the larger to the smaller",
        allowed="the smaller first; a range across the end is written as two: 22-23,0-6 or sat,sun",
    ),
)
"""Rules for a schedule, as text."""

TIME_ZONE = (
    matches(
        r"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}$",
        wrong="does not look like a time zone",
        allowed="a name of the IANA database, as in America/Sao_Paulo or Etc/UTC",
    ),
    matches_not(
        r"(?i)^local$",
        wrong="is the zone of a machine, which nobody knows",
        allowed="a name of the IANA database, as in America/Sao_Paulo or Etc/UTC",
    ),
)
"""Rules for a time zone's name. Whether the zone exists, only the machine that uses it knows."""

# -- how often that is ------------------------------------------------------------------------------------------------

_WRITTEN_OUT: Final = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}  # fmt: skip
_FIRST_DAY: Final = date(2001, 1, 1)
_DAYS_LOOKED_AT: Final = 366 * 9  # a 29 February twice


@lru_cache(maxsize=256)
def longest_interval(schedule: str) -> int | None:
    """The most seconds between two runs of a schedule that follow each other; None: it has none, as on a 30 February.

    For ``0 2 * * mon-fri`` it is the weekend. An hour that the zone's clock skips or repeats is left out of account.
    """
    written = _WRITTEN_OUT.get(schedule, schedule).lower().split()
    (minutes, _), (hours, _), (dates, any_date), (months, _), (weekdays, any_weekday) = map(
        _values, written, (0, 0, 1, 1, 0), (59, 23, 31, 12, 6), ((), (), (), _MONTHS, _DAYS)
    )
    times = sorted(hour * 60 + minute for hour in hours for minute in minutes)

    def runs_on(day: date) -> bool:
        on_date, on_weekday = day.day in dates, day.isoweekday() % 7 in weekdays
        # Where both are given, one of them is enough.
        return day.month in months and (on_date and on_weekday if any_date or any_weekday else on_date or on_weekday)

    days = [number for number in range(_DAYS_LOOKED_AT) if runs_on(_FIRST_DAY + timedelta(days=number))]
    within = [later - earlier for earlier, later in pairwise(times)]
    over_night = [(later - earlier) * 1440 + times[0] - times[-1] for earlier, later in pairwise(days)]
    return max([*within, *over_night]) * 60 if over_night else None


def _values(field: str, least: int, most: int, names: tuple[str, ...]) -> tuple[set[int], bool]:
    """What a field stands for, and whether it is a star (with a step it is none: robfig/cron has it so)."""
    found, star = set[int](), False

    def number(text: str) -> int:
        return names.index(text) + least if text in names else int(text)

    for entry in field.split(","):
        span, _, step = entry.partition("/")
        first, _, last = span.partition("-")
        every = first in {"*", "?"}
        star = star or (every and int(step or 1) == 1)
        begin = least if every else number(first)
        end = most if every or (step and not last) else number(last or first)
        found |= set(range(begin, end + 1, int(step or 1)))
    return found, star
