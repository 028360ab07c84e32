"""The one exponential backoff. Pure: time and chance come in as values, so that who decides with it stays pure too."""

from __future__ import annotations

_MOST_DOUBLINGS = 60  # beyond it a float's own range would be the limit, not ``longest``


def exponential(failures: int, base: float, longest: float, jitter: float = 1.0) -> float:
    """Return the pause after so many failures in a row: ``base``, doubled with each further one, at most ``longest``.

    Args:
        failures: in a row; 1 after the first. Below 1 counts as 1.
        base: the pause after the first failure, in any unit of time.
        longest: no pause is longer, in the same unit.
        jitter: the share of the pause that is taken, 0 to 1: ``random.random()`` spreads many over the whole of it
            ("full jitter", https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).

    Returns:
        The pause in the unit of ``base``.
    """
    doublings = min(max(failures, 1) - 1, _MOST_DOUBLINGS)
    return min(longest, base * 2.0**doublings) * jitter
