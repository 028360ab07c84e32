"""Whatever happens on the way, at rest the local rows are SIORG's, but for departures that have a name.

Programs by seed: `CONVERGENCE_SEED=17 pytest tests/system/sync/test_convergence.py` runs one again. `make soak` runs more.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import siorg_job
from support.convergence.broken import FAULTS, Fault
from support.convergence.machine import Machine, Step
from support.convergence.programs import replay, run_seed, shrunk
from support.postgres import Postgres

_SEEDS = range(1, 41)  # of 50 steps each
_TOGETHER = 5
_ONE = os.environ.get("CONVERGENCE_SEED")
_GROUPS = [[int(_ONE)]] if _ONE else [list(_SEEDS[start : start + _TOGETHER]) for start in range(0, len(_SEEDS), _TOGETHER)]


@pytest.fixture(scope="module")
def machine(postgres: Postgres) -> Iterator[Machine]:
    urls = postgres.database(), postgres.database()
    with Machine(*urls) as made:
        yield made
    for url in urls:
        postgres.drop(url)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seeds", _GROUPS, ids=lambda seeds: f"seeds {seeds[0]} to {seeds[-1]}")
def test_whatever_happens_the_rows_become_siorgs(machine: Machine, seeds: list[int]) -> None:
    for seed in seeds:
        failure = run_seed(machine, seed)
        if failure is not None:
            pytest.fail(str(shrunk(machine, failure)))


FOUND: dict[str, list[Step]] = {
    "what is asked about a unit that goes to another organization is asked there alone": [
        ("create", 1001, 600, "Unidade 1001"),
        ("create", 1002, 1001, "Unidade 1002"),
        ("discover", 0, 600),
        ("drain", 0, 100),
        ("edit", "UNIT", 1002, "name", "Nosso nome 1007"),
        ("rename", 1002, "Nome 3"),
        ("move", 1002, 500, "along", False),
        ("quiet", True),
    ],
    "what is asked about a unit that went to another organization and back is not asked anew": [
        ("create", 1001, 471, "Unidade 1001"),
        ("create", 1003, 1001, "Unidade 1003"),
        ("quiet",),
        ("edit", "UNIT", 1003, "contact_info.phones", ["91007"]),
        ("call", 1003, ["25", "21"], False),
        ("move", 1003, 500, "apart", False),
        ("move", 1003, 1001, "behind", True),
        ("undo", 1, False),
        ("quiet", False),
    ],
    "an end waits for the end below it that waits for a unit of a person's": [
        ("create", 1001, 471, "Unidade 1001"),
        ("create", 1002, 471, "Unidade 1002"),
        ("create", 1003, 1002, "Unidade 1003"),
        ("quiet",),
        ("create", 1008, 471, "Nome 1", False),
        ("edit", "UNIT", 1003, "place", 1001),
        ("move", 1001, 1008, "apart", False),
        ("quiet", False),
        ("end", 1008, "tree"),
        ("quiet", True),
    ],
    "an end that is held is not asked for by a discovery without limits": [
        ("create", 1001, 500, "Unidade 1001"),
        ("create", 1002, 1001, "Unidade 1002"),
        ("create", 1003, 1002, "Unidade 1003"),
        ("quiet",),
        ("abbreviate", 1001, "A4", False),
        ("promote", 1001),
        ("verify", 500, True),
        ("undo", 3, False),
        ("renumber", 1002),
        ("quiet", False),
        ("end", 1002, "tree"),
        ("quiet", True),
    ],
    "a unit left for a unit of an organization that is not registered": [
        ("create", 1003, 600, "Unidade 1003"),
        ("quiet",),
        ("create", 1004, 700, "Nome 1"),
        ("move", 1003, 1004, "along"),
        ("quiet", True),
    ],
    "a unit is created below one that comes into its organization in the same group": [
        ("create", 1001, 600, "Unidade 1001"),
        ("create", 1002, 1001, "Unidade 1002"),
        ("create", 1004, 600, "Unidade 1004"),
        ("create", 1006, 1002, "Unidade 1006"),
        ("quiet",),
        ("edit", "UNIT", 1006, "place", 1004),
        ("move", 1004, 471, "along"),
        ("move", 1001, 1004, "along"),
        ("quiet",),
        ("decide", "UNIT", 1006, "accept"),
        ("create", 1016, 1006, "Nome 3"),
        ("quiet",),
        ("decide", "UNIT", 1006, "accept"),
        ("decide", "UNIT", 1006, "merge by the API server"),
        ("quiet", True),
    ],
    "of a unit in dispute SIORG changes another field too": [
        ("create", 1001, 500, "Unidade 1001"),
        ("quiet",),
        ("edit", "UNIT", 1001, "name", "Nosso nome"),
        ("abbreviate", 1001, "Q6"),
        ("rename", 1001, "Nome 2"),
        ("quiet",),
    ],
    "a unit in dispute has moved to another organization": [
        ("create", 1001, 500, "Unidade 1001"),
        ("create", 1002, 1001, "Unidade 1002"),
        ("quiet",),
        ("edit", "UNIT", 1001, "name", "Nosso nome"),
        ("rename", 1001, "Nome 2"),
        ("transfer", 1001, 471),
        ("quiet",),
    ],
    "SIORG takes back what is in dispute, and its version with it": [
        ("create", 1001, 500, "Unidade 1001"),
        ("quiet",),
        ("edit", "UNIT", 1001, "name", "Nosso nome"),
        ("rename", 1001, "Nome 2"),
        ("discover", 0, 500),
        ("drain", 0, 100),
        ("undo", 1),
        ("quiet",),
    ],
    "a unit with an acronym that is too long moves to another organization": [
        ("create", 1001, 500, "Unidade 1001"),
        ("create", 1002, 500, "Unidade 1002"),
        ("create", 1003, 471, "Unidade 1003"),
        ("create", 1004, 1003, "Unidade 1004"),
        ("quiet",),
        ("damage", 1003),
        ("transfer", 1003, 500),
        ("transfer", 1004, 471),
        ("quiet",),
    ],
    "a unit comes below a new one whose acronym is too long": [
        ("create", 1002, 471, "Unidade 1002"),
        ("quiet",),
        ("create", 1008, 1002, "Nome 1"),
        ("invert", 1008),
        ("damage", 1008),
        ("quiet",),
    ],
    "a unit left for an organization that is not registered, and comes back with an acronym that is too long": [
        ("create", 1001, 471, "Unidade 1001"),
        ("quiet",),
        ("transfer", 1001, 700),
        ("quiet",),
        ("transfer", 1001, 471),
        ("damage", 1001),
        ("quiet",),
    ],
    "a person keeps active what SIORG ended": [
        ("create", 1002, 471, "Unidade 1002"),
        ("create", 1003, 1002, "Unidade 1003"),
        ("quiet",),
        ("end", 1002, "orphaning"),
        ("quiet",),
        ("decide", "UNIT", 1002, "keep by the API server"),
        ("quiet",),
    ],
    "a unit that returned is in dispute, and leaves for an organization that is inactive here": [
        ("create", 1001, 500, "Unidade 1001"),
        ("create", 1008, 471, "Unidade 1008"),
        ("quiet",),
        ("edit", "UNIT", 1008, "name", "Nosso nome"),
        ("end", 1008, "alone"),
        ("quiet",),
        ("return", 1008),
        ("rename", 1008, "Nome 1"),
        ("quiet",),
        ("activate", 500, False),
        ("move", 1008, 1001, "along"),
        ("quiet",),
    ],
    "a unit hangs below one that a person's edit keeps from its place": [
        ("create", 1003, 471, "Unidade 1003"),
        ("create", 1004, 471, "Unidade 1004"),
        ("create", 1008, 471, "Unidade 1008"),
        ("create", 1009, 1003, "Unidade 1009"),
        ("quiet",),
        ("edit", "UNIT", 1009, "place", 1008),
        ("move", 1008, 1009, "along"),
        ("move", 1004, 1008, "along"),
        ("quiet",),
    ],
    "a unit is new below one that cannot come to its place": [
        ("create", 1001, 500, "Unidade 1001"),
        ("create", 1002, 1001, "Unidade 1002"),
        ("quiet",),
        ("create", 1007, 1001, "Unidade 1007"),
        ("edit", "UNIT", 1002, "name", "Nosso nome"),
        ("rename", 1002, "Nome 4"),
        ("invert", 1002),
        ("quiet",),
    ],
    "a unit in dispute ends, and its end is held": [
        ("organizations", 1),
        ("limits",),
        ("create", 1009, 471, "Unidade 1009"),
        ("quiet",),
        ("edit", "UNIT", 1009, "name", "Nosso nome"),
        ("rename", 1009, "Nome 3"),
        ("quiet",),
        ("cut", 471, 1),
        ("quiet",),
    ],
    "a person edits a unit of which the last item failed": [
        ("create", 1001, 500, "Unidade 1001"),
        ("quiet",),
        ("damage", 1001),
        ("discover", 0, 500),
        ("drain", 0, 100),
        ("undo", 1),
        ("edit", "UNIT", 1001, "acronym", "N1"),
        ("quiet",),
    ],
    "a person deactivates an organization before its first item is applied": [
        ("discover", 0, 471),
        ("activate", 471, False),
        ("quiet",),
    ],
    "a person did not let go a unit that is an organization of its own now, and registers that": [
        ("organizations", 1),
        ("limits",),
        ("create", 1001, 471, "Unidade 1001"),
        ("quiet",),
        ("promote", 1001),
        ("discover", 0, 471),
        ("held", 471, "drop"),
        ("register", 1001),
        ("quiet",),
    ],
    "a person did not let go a unit, hangs it elsewhere, and SIORG has it again in another organization": [
        ("organizations", 2),
        ("limits",),
        ("create", 1001, 471, "Unidade 1001"),
        ("quiet",),
        ("end", 1001, "alone"),
        ("discover", 0, 471),
        ("held", 471, "drop"),
        ("quiet",),
        ("create", 1002, 471, "Unidade 1002"),
        ("quiet",),
        ("edit", "UNIT", 1001, "place", 1002),
        ("return", 1001),
        ("move", 1001, 500, "along"),
        ("quiet",),
    ],
    "the parent of a unit stays in another organization, by a person's edit, below that unit": [
        ("create", 1001, 471, "Unidade 1001"),
        ("create", 1002, 1001, "Unidade 1002"),
        ("create", 1005, 1002, "Unidade 1005"),
        ("create", 1008, 1002, "Unidade 1008"),
        ("quiet",),
        ("edit", "UNIT", 1005, "place", 1008),
        ("invert", 1005),
        ("move", 1005, 500, "along"),
        ("quiet",),
    ],
}
"""What the machine has found, as small as it could make it."""


@pytest.mark.parametrize("program", FOUND)
def test_what_was_found_once_stays_mended(machine: Machine, program: str) -> None:
    assert replay(machine, FOUND[program]) is None


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_what_is_broken_on_purpose_still_reads_so(fault: Fault, tmp_path: Path) -> None:
    """`make soak ARGS=--broken` runs them."""
    copy = shutil.copytree(Path(siorg_job.__file__).parent, tmp_path / "siorg_job")
    fault.break_copy(copy)


def test_a_unit_that_moved_and_is_in_dispute_is_asked_about_once(machine: Machine) -> None:
    """That it is gone from where it was is no question beside the one about its place."""
    moved: list[Step] = [
        ("create", 1001, 471, "Unidade 1001"),
        ("quiet",),
        ("edit", "UNIT", 1001, "name", "Nossa unidade"),
        ("rename", 1001, "Nome 1"),
        ("move", 1001, 600, "along"),
        ("discover", 0, 471),
        ("drain", 0, 100),
        ("quiet",),
    ]
    assert replay(machine, moved) is None
    rows = machine.world.rows("SELECT detected_changes FROM siorg_sync_queue WHERE status = 'CONFLICT'")
    assert [sorted(row["detected_changes"]) for row in rows] == [["name"]]
