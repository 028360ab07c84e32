"""``make mutants``: the product is changed in one place: do the tests that belong to the place notice?

A mutant is put into a copy of the tree, and the tests of that copy run that reach it: which they are is seen in a first run of
all, under coverage. What kills a mutant has to pass without it: those tests are run once more at the end.

Why neither mutmut nor cosmic-ray: both are alive, neither does SQL nor takes a sample. mutmut forks from a process that has
imported pytest, and knows no tests that go through processes; cosmic-ray writes its mutants into the checkout, and has one test
command for all modules.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from support.mutants import python, sql
from support.mutants.areas import AREAS, REASONS, Area
from support.mutants.kinds import KINDS
from support.mutants.mutation import Mutation
from support.mutants.reach import Reach

_REPOSITORY = Path(__file__).resolve().parents[3]
_PACKAGES = ("core", "job", "operator", "simulator")
_NOT_COPIED = shutil.ignore_patterns(".git", ".venv*", "__pycache__", ".*_cache", ".hypothesis", "dist", "build", ".demo")
_FAILED = re.compile(r"^(?:FAILED|ERROR) (tests/.+?)(?: - .*)?$", re.MULTILINE)
_TEST_SECONDS = 300  # a mutant must not be called killed because the machine is busy
_RUN_SECONDS = 1800  # a mutant that goes on for ever in a process of its own


@dataclass(frozen=True, slots=True)
class Mutant:
    """A mutation of one file of an area."""

    area: Area
    file: str
    mutation: Mutation
    line: int
    last_line: int
    change: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} ({self.mutation.where}): {self.change}"

    @property
    def reason(self) -> str | None:
        """Why no test can notice it; None: one should."""
        here = (self.file, self.mutation.where)
        return next((reason for (*at, words), reason in REASONS.items() if tuple(at) == here and words in self.change), None)


@dataclass(frozen=True, slots=True)
class Result:
    """What the tests said of one."""

    mutant: Mutant
    survived: bool
    killers: tuple[str, ...]
    """Tests that failed; none are known where nothing could be imported, or it went on for ever."""


class Tree:
    """A copy of the repository, to be broken."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "tree"
        shutil.copytree(_REPOSITORY, self._folder, ignore=_NOT_COPIED)

    def survives(self, mutant: Mutant, tests: Sequence[str]) -> Result:
        """Put it in, run tests up to the first that fails, and take it out again."""
        path = self._folder / mutant.file
        source = path.read_text(encoding="utf-8")
        path.write_text(mutant.mutation.of(source), encoding="utf-8")
        try:
            code, output = self.test("-x", *tests)
        finally:
            path.write_text(source, encoding="utf-8")
        return Result(mutant, code == 0, tuple(dict.fromkeys(_FAILED.findall(output))))

    def reach(self, tests: Sequence[str]) -> Reach:
        """See which lines each of these tests reaches."""
        reach = Reach(self._folder.parent / "reach", self._folder, _PACKAGES)
        self.test(*reach.options, *tests, **reach.environment)
        return reach

    def test(self, *arguments: str, **environment: str) -> tuple[int | None, str]:
        """Exit code (None: stopped, as it did not end) and output of pytest here."""
        packages = os.pathsep.join(str(self._folder / package) for package in _PACKAGES)
        command = [sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--tb=no",
                   f"--timeout={_TEST_SECONDS}", "--hypothesis-seed=0", *arguments]  # fmt: skip
        try:
            done = subprocess.run(
                command,
                cwd=self._folder,
                env={**os.environ, "PYTHONPATH": packages, "COLUMNS": "1000", **environment},
                capture_output=True,
                text=True,
                check=False,
                timeout=_RUN_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return None, ""
        return done.returncode, done.stdout


def sample(count: int, seed: int, areas: Sequence[Area] = AREAS) -> list[Mutant]:
    """Of each area as many, or all that it has."""
    found: list[list[Mutant]] = []
    for area in areas:
        mutants = list(_mutants(area))
        random.Random(f"{seed} {area.name}").shuffle(mutants)
        found.append(mutants)
    in_turn = [mutants[number] for number in range(max(map(len, found))) for mutants in found if number < len(mutants)]
    return in_turn[:count]


@cache
def _mutants(area: Area) -> tuple[Mutant, ...]:
    sources = {file: (_REPOSITORY / file).read_text(encoding="utf-8") for file in area.files}
    return tuple(
        _mutant(area, file, mutation, source)
        for file, source in sources.items()
        for mutation in (sql if file.endswith(".sql") else python).mutations(source)
    )


def kinds() -> list[Mutant]:
    """Those that were put in by hand."""
    found = []
    for kind in KINDS:
        mutation, source = kind.mutation(_REPOSITORY), (_REPOSITORY / kind.file).read_text(encoding="utf-8")
        found.append(_mutant(kind.area, kind.file, mutation, source))
    return found


def _mutant(area: Area, file: str, mutation: Mutation, source: str) -> Mutant:
    return Mutant(area, file, mutation, mutation.line(source), mutation.last_line(source), mutation.change(source))


def _run(mutants: Sequence[Mutant], workers: int, *, every_test: bool) -> Iterator[Result]:
    """Each thread has a tree; in the end, what was killed only by tests that fail anyhow counts as a survivor."""
    here = threading.local()
    with tempfile.TemporaryDirectory(prefix="siorg-mutants-") as folder:

        def look(tests: tuple[str, ...]) -> Reach:
            return Tree(Path(tempfile.mkdtemp(dir=folder))).reach(tests)

        def one(mutant: Mutant) -> Result:
            if not hasattr(here, "tree"):
                here.tree = Tree(Path(tempfile.mkdtemp(dir=folder)))
            reach = reaches.get(mutant.area.tests)
            tests = reach.tests(mutant.file, mutant.mutation.where, mutant.line, mutant.last_line) if reach else ()
            result: Result = here.tree.survives(mutant, (*(tests or mutant.area.tests), *mutant.area.processes))
            word = "survived" if result.survived else "killed  "
            print(word, f"(of {len(tests) or 'all'} tests)", mutant, *result.killers[:1], flush=True)  # noqa: T201
            return result

        with ThreadPoolExecutor(workers) as pool:
            lists = [] if every_test else sorted({mutant.area.tests for mutant in mutants}, key=len, reverse=True)
            reaches = dict(zip(lists, pool.map(look, lists), strict=True))
            results = list(pool.map(one, mutants))
        killers = sorted({killer for result in results for killer in result.killers})
        _, output = Tree(Path(tempfile.mkdtemp(dir=folder))).test(*killers) if killers else (0, "")
    unfit = set(_FAILED.findall(output))
    for test in sorted(unfit):
        print(f"fails without a mutant, and tells nothing: {test}")  # noqa: T201
    for result in results:
        told = not result.killers or not unfit.issuperset(result.killers)
        yield result if told else Result(result.mutant, survived=True, killers=result.killers)


def main() -> int:
    parser = argparse.ArgumentParser(prog="mutants", description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="mutants in all (default 100)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=min(os.cpu_count() or 1, 2))
    parser.add_argument("--areas", default=",".join(area.name for area in AREAS), help="which, with commas (default: all)")
    parser.add_argument("--words", default="", help="only those in whose line these words are: a file, a statement")
    parser.add_argument("--kinds", action="store_true", help="the faults that were put in by hand, instead of a sample")
    parser.add_argument(
        "--every-test", action="store_true", help="all of an area's, without a first run that shows which reach what"
    )
    parser.add_argument("--list", action="store_true", help="only say which they are")
    arguments = parser.parse_args()
    wanted = arguments.areas.split(",")
    if unknown := set(wanted) - {area.name for area in AREAS}:
        parser.error(f"--areas: no {', '.join(sorted(unknown))}; there are {', '.join(area.name for area in AREAS)}")
    areas = [area for area in AREAS if area.name in wanted]
    shuffled = kinds() if arguments.kinds else sample(sys.maxsize, arguments.seed, areas)
    chosen = [mutant for mutant in shuffled if arguments.words in str(mutant)][: arguments.count]
    if arguments.list:
        print(*chosen, sep="\n")  # noqa: T201
        return 0
    every_test = arguments.every_test or arguments.kinds  # a kind names its own few
    survivors = [result.mutant for result in _run(chosen, arguments.workers, every_test=every_test) if result.survived]
    unexplained = [mutant for mutant in survivors if mutant.reason is None]
    source = "kinds" if arguments.kinds else f"seed {arguments.seed}"
    print(f"{source}: {len(chosen)} mutants, {len(survivors)} survived, {len(unexplained)} without a reason")  # noqa: T201
    for mutant in survivors:
        print(f"  {mutant}: {mutant.reason or 'no test noticed'}")  # noqa: T201
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
