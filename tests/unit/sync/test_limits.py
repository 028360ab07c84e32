"""How much may end, or be overwritten, without a person."""

from __future__ import annotations

import pytest

from siorg_job.settings import Settings
from siorg_job.sync.limits import Ends, Limits, ends_beyond, names_beyond


def test_they_are_what_the_settings_say() -> None:
    said = {"SIORG_MAX_ENDS": "3", "SIORG_MAX_ENDS_PERCENT": "4", "SIORG_MAX_ENDS_TOTAL_PERCENT": "5"}
    settings = Settings.from_environment({"DATABASE_URL": "postgresql://u@h/d", **said})
    assert Limits.of(settings) == Limits(3, 4, 5)


_REST = Ends(100_000, 0)
"""All other organizations: 2 % of them are more than any one of these may."""


@pytest.mark.parametrize(
    ("units", "ends", "held", "reason"),
    [
        (100, 10, 0, None),
        (100, 11, 0, "11 of 100 units would end; the limit is 10"),
        (100, 3, 8, "11 of 100 units would end; the limit is 10"),  # what is held counts until a person has decided
        (219, 10, 0, None),
        (219, 11, 0, "11 of 219 units would end; the limit is 10"),
        (220, 11, 0, None),  # 5 %
        (4_000, 200, 0, None),
        (4_000, 201, 0, "201 of 4000 units would end; the limit is 200"),
        (20, 10, 0, None),
        (11, 5, 0, None),
        (11, 6, 0, "6 of 11 units would end; the limit is 5"),  # never more than half
        (2, 1, 0, None),
        (1, 1, 0, "1 of 1 units would end; the limit is 0"),
    ],
)
def test_an_organization_may_lose_ten_units_or_five_percent_and_never_more_than_half(
    units: int, ends: int, held: int, reason: str | None
) -> None:
    found = ends_beyond({471: Ends(units, ends, held), 1: _REST}, [471], Limits())
    assert found == ({} if reason is None else {471: reason})


@pytest.mark.parametrize(
    ("ends", "reason"),
    [
        ([4, 4, 2], None),  # of 3,000 units 60, the largest alone 50
        ([40, 20], None),
        ([40, 21], "61 of 3000 units of all organizations would end; the limit is 60"),
    ],
)
def test_all_organizations_together_may_lose_two_percent(ends: list[int], reason: str | None) -> None:
    tally = {code: Ends(1_000, number) for code, number in enumerate([*ends, *[0] * (3 - len(ends))], 1)}
    assert ends_beyond(tally, [2], Limits()) == ({} if reason is None else {2: reason})


def test_together_they_may_lose_what_the_largest_may_alone_and_what_is_held_is_not_lost() -> None:
    tally = {1: Ends(400, 20), 2: Ends(60, 0, held=30)}
    assert ends_beyond(tally, [1], Limits()) == {}
    assert list(ends_beyond({**tally, 3: Ends(60, 1)}, [3], Limits())) == [3]


@pytest.mark.parametrize(
    ("units", "names", "reason"),
    [
        (100, [f"N{n}" for n in range(50)], None),
        (100, [f"N{n}" for n in range(51)], "51 of 100 names would be overwritten; the limit is 50"),
        (10, [f"N{n}" for n in range(10)], None),
        (11, [f"N{n}" for n in range(11)], "11 of 11 names would be overwritten; the limit is 10"),
        (100, ["?"] * 10, None),
        (100, ["?"] * 11 + ["N"], "11 of 100 names would become '?'; the limit is 10"),
        (400, ["?"] * 20, None),
        (400, ["?"] * 21, "21 of 400 names would become '?'; the limit is 20"),
        (5, [], None),
    ],
)
def test_half_of_the_names_may_change_and_few_become_the_same(units: int, names: list[str], reason: str | None) -> None:
    assert names_beyond(units, names) == reason


def test_the_limits_can_be_set() -> None:
    assert ends_beyond({1: Ends(100, 30), 2: _REST}, [1], Limits(ends=30)) == {}
    assert ends_beyond({1: Ends(100, 30), 2: _REST}, [1], Limits(percent=30)) == {}
    assert list(ends_beyond({1: Ends(100, 10), 2: Ends(900, 15)}, [1], Limits(percent=1, total_percent=1))) == [1]
