"""The one exponential backoff."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from siorg_runtime.backoff import exponential

TIMES = some.floats(0.001, 100_000)


@pytest.mark.parametrize(
    ("failures", "pause"),
    [(0, 2.0), (1, 2.0), (2, 4.0), (3, 8.0), (6, 60.0), (10**9, 60.0)],
)
def test_it_doubles_up_to_the_longest(failures: int, pause: float) -> None:
    assert exponential(failures, 2.0, 60.0) == pause


@given(some.integers(-5, 10**12), TIMES, TIMES, some.floats(0, 1))
def test_it_is_never_negative_and_never_longer_than_the_longest(
    failures: int, base: float, longest: float, jitter: float
) -> None:
    assert 0 <= exponential(failures, base, longest, jitter) <= longest


@given(some.integers(1, 100), TIMES, TIMES)
def test_it_never_falls_with_a_further_failure(failures: int, base: float, longest: float) -> None:
    assert exponential(failures, base, longest) <= exponential(failures + 1, base, longest)
