"""The product broken on purpose: the machine has to find each. ``make soak ARGS=--broken`` says after how many steps it does."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import siorg_job
from support.convergence.machine import Machine
from support.convergence.programs import run_seed
from support.postgres import embedded_postgres

_PACKAGE = Path(siorg_job.__file__).parent
_SEEDS = range(1, 201)


@dataclass(frozen=True)
class Fault:
    """Texts of the product and what stands in their place: (file, text, other text)."""

    name: str
    changes: tuple[tuple[str, str, str], ...]

    def break_copy(self, package: Path) -> None:
        """Put the fault into a copy of the package.

        Raises:
            ValueError: the product reads otherwise by now: mend this list.
        """
        for file, text, other in self.changes:
            path = package / file
            source = path.read_text(encoding="utf-8")
            if source.count(text) != 1:
                raise ValueError(f"{self.name}: {source.count(text)} times in {file}: {text!r}")
            path.write_text(source.replace(text, other), encoding="utf-8")


def _fault(name: str, file: str, text: str, other: str) -> Fault:
    return Fault(name, ((file, text, other),))


# What the next discovery mends is none: ancestors that are not applied, or what hangs wrong and is not asked for at once.
FAULTS = (
    Fault(
        "the base moves for a conflict",
        (
            ("sync/apply.py", "is not Outcome.COMPLETED:\n", "not in (Outcome.COMPLETED, Outcome.CONFLICT):\n"),
            (
                "sync/unit.py",
                "        return decision\n    after = replace(unit, **columns_of",
                "        copy.put(replace(unit, base=next_record(unit.base, values, values, ())))\n"  # noqa: ISC004
                "        return decision\n    after = replace(unit, **columns_of",
            ),
        ),
    ),
    _fault("the base is what SIORG said last", "sync/place.py", "return {**stand_in, **recorded}", "return stand_in"),
    _fault("the record moves for all fields", "sync/merge_base.py", "        if name not in apart:\n", "        if True:\n"),
    _fault("organization and parent are two values", "sync/model.py", "PLACE = (UnitField.ORGANIZATION, UnitField.PARENT)",
           "PLACE = (UnitField.PARENT,)"),
    _fault("a unit ends before those below it", "sync/unit.py", "below = list(copy.active_below(unit))", "below: list[Any] = []"),
    _fault("an older answer over a newer one", "sync/model.py", "return synced_at is not None and synced_at > self.asked_at",
           "return False"),
    _fault("an answer from before the change", "sync/apply.py", "elif found.asked_at < ours[item.id]:", "elif False:"),
    _fault("skip is keep", "sync/sql/read.sql", "WHERE q.status OPERATOR(pg_catalog.=) 'COMPLETED' AND jsonb",
           "WHERE q.status IN ('COMPLETED', 'SKIPPED') AND jsonb"),
    _fault("who left stays active", "sync/unit.py", "after = replace(after, is_active=False, deactivation_reason=reason)\n",
           "after = replace(after, deactivation_reason=reason)\n"),
    _fault("a return is an update", "sync/unit.py", "return Operation.CREATION  # it returned", "return Operation.UPDATE"),
    _fault("both moved apart: SIORG wins", "sync/merge.py", "return Rule.EDITED if _same(theirs, before) else Rule.APART",
           "return Rule.EDITED if _same(theirs, before) else Rule.TAKE"),
    _fault("both moved apart: the person wins", "sync/merge.py", "return Rule.EDITED if _same(theirs, before) else Rule.APART",
           "return Rule.EDITED"),
    _fault("accept takes every field", "sync/resolution.py", "take=frozenset(shown or known)", "take=frozenset(known)"),
    _fault("what was kept is forgotten", "sync/unit.py", "kept=copy.turned_down(unit),", "kept={},"),
    Fault("a parent of another organization", (
        ("sync/place.py", "and organization_of(parent) == organization\n", "and organization_of(parent) is not None\n"),
        ("sync/unit.py", "        if parent in fetched.outside:\n", "        if parent in ():\n"),
    )),
    Fault("paths below are neither refreshed nor compared", (
        ("sync/write.py", "    _refresh_paths(connection, copy, [*beside, *(unit.id for unit in relocated)], renamed)\n", ""),
        ("sync/compare.py", "if name in unit.off_path:", "if False:"),
    )),
    _fault("a version that stands still is believed", "reconciliation/discover.py",
           "if not full and organization.has_units and organization.at_rest",
           "if organization.has_units"),
    _fault("a question that is over stays open", "reconciliation/questions.py",
           "question for question in standing if not _is_asked_today(",
           "question for question in standing if False and not _is_asked_today("),
    _fault("all of an organization may end", "sync/limits.py", "single(own.units), own.units // 2)",
           "single(own.units), own.units)"),
    _fault("what ended already is not counted", "sync/sql/held.sql", "WHERE {{end_in_history}} AND h.created_at",
           "WHERE false AND {{end_in_history}} AND h.created_at"),
    _fault("only what is held already is counted", "sync/limits.py", "limit = own.ends + own.held, min", "limit = own.held, min"),
    _fault("what is held is over at once", "reconciliation/hold.py", "            if key in now:\n", "            if False:\n"),
    _fault("a person's value is drift", "reconciliation/departures.py", "        if difference.rule is Rule.EDITED:\n",
           "        if False:\n"),
)  # fmt: skip


def found(fault: Fault) -> str:
    """What the machine says of the product with that fault."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "siorg_job"
        shutil.copytree(_PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        fault.break_copy(copy)
        paths = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])
        ran = subprocess.run(
            [sys.executable, "-m", "support.convergence.broken"], env={**os.environ, "PYTHONPATH": paths}, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
    return ran.stdout.strip() or ran.stderr.strip()[-2000:]


def all_found(words: str, workers: int) -> Iterator[str]:
    """A line for each fault with these words in its name."""
    faults = [fault for fault in FAULTS if words in fault.name]
    with ThreadPoolExecutor(workers) as pool:
        for fault, line in zip(faults, pool.map(found, faults), strict=True):
            yield f"{fault.name}: {line}"


def _look() -> str:
    logging.disable(logging.CRITICAL)
    with embedded_postgres() as postgres, Machine(postgres.database(), postgres.database()) as machine:
        for seed in _SEEDS:
            failure = run_seed(machine, seed)
            if failure is not None:
                return f"found after {machine.done} steps, seed {seed}: {failure.reason[:200]}"
    return f"NOT FOUND in {machine.done} steps"


if __name__ == "__main__":
    print(_look())  # noqa: T201 - a program for people
