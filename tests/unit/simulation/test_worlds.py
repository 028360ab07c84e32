"""Small worlds around the real operator, in simulated time: whatever goes wrong, what must never happen does not.

``SIMULATION_SEED=17 pytest tests/unit/simulation`` runs one again. ``make soak-operator`` runs more, and longer ones.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest

from support.simulation.broken import FAULTS
from support.simulation.world import run

_HOURS = 1.5
_ONE = os.environ.get("SIMULATION_SEED")
_SEEDS = [int(_ONE)] if _ONE else range(1001, 1025)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    yield
    logging.disable(before)


@pytest.mark.parametrize("seed", _SEEDS)
def test_whatever_goes_wrong_what_must_never_happen_does_not(seed: int) -> None:
    assert run(seed, _HOURS).violations == []


def test_a_world_is_its_seed() -> None:
    stories: list[list[str]] = [[], []]
    for story in stories:
        run(1001, 0.5, tell=story.append)
    assert stories[0] == stories[1]
    assert stories[0]


@pytest.mark.parametrize(("fault", "seed"), [("only running Jobs are capacity", 1003)])
def test_a_fault_of_the_operator_is_found(fault: str, seed: int) -> None:
    with FAULTS[fault]():
        assert run(seed, _HOURS).violations
