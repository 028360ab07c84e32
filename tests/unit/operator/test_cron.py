"""How far apart the runs of a schedule are."""

from __future__ import annotations

import pytest

from siorg_operator.api.cron import longest_interval

HOUR, DAY = 3600, 86_400


@pytest.mark.parametrize(
    ("schedule", "seconds"),
    [
        ("* * * * *", 60),
        ("5/20 * * * *", 1200),
        ("7 * * * *", HOUR),
        ("@hourly", HOUR),
        ("0 1,4,22 * * *", 18 * HOUR),
        ("17 3 * * *", DAY),
        ("@midnight", DAY),
        ("47 4 * * 0", 7 * DAY),
        ("@weekly", 7 * DAY),
        ("0 2 * * MON-fri", 3 * DAY),  # the weekend
        ("*/15 6-20 * * mon-fri", 2 * DAY + 9 * HOUR + 15 * 60),
        ("0 0 1 * ?", 31 * DAY),
        ("0 0 1 * mon", 7 * DAY),  # where both are given, one of them is enough
        ("0 0 */10 * mon", 7 * DAY),  # a star with a step is none
        ("0 0 */10 * *", 10 * DAY),
        ("@yearly", 366 * DAY),
        ("0 0 29 feb *", 4 * 365 * DAY + DAY),
        ("0 0 30 2 *", None),
    ],
)
def test_the_longest_pause_between_two_runs(schedule: str, seconds: int | None) -> None:
    assert longest_interval(schedule) == seconds
