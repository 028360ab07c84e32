"""What a part has measured."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the result."""

    name: str
    value: float
    unit: str
    least: float | None = None
    """The target: not less than this; None: no such target."""
    most: float | None = None
    """The target: not more than this; None: no such target."""
    rounds: tuple[float, ...] = ()
    """What each round gave, where ``value`` is their median."""

    @property
    def target(self) -> str:
        """For people; empty: told for its own sake."""
        sides = (("≥", self.least), ("≤", self.most))
        return ", ".join(f"{sign} {bound:g}" for sign, bound in sides if bound is not None)

    @property
    def met(self) -> bool:
        return (self.least is None or self.value >= self.least) and (self.most is None or self.value <= self.most)

    def line(self) -> str:
        """As it is printed."""
        verdict = f"   target {self.target}: {'met' if self.met else 'MISSED'}" if self.target else ""
        spread = f"   ({min(self.rounds):,.2f} … {max(self.rounds):,.2f})" if len(self.rounds) > 1 else ""
        return f"  {self.name:52} {self.value:14,.2f} {self.unit}{spread}{verdict}"


def median(name: str, rounds: Sequence[float], unit: str, *, least: float | None = None, most: float | None = None) -> Figure:
    """The median of what interleaved rounds gave."""
    return Figure(name, statistics.median(rounds), unit, least, most, tuple(rounds))


def ratios(name: str, ours: Sequence[float], others: Sequence[float], *, least: float | None = None) -> Figure:
    """The median of what each round gave as ours to the other's: what the machine did besides, both had of it."""
    return median(name, [mine / other for mine, other in zip(ours, others, strict=True)], "x", least=least)
