"""Which tests reach which lines, from one run of them under coverage: a mutant needs no others.

Only what happens in the tests' own process is seen. Tests that start processes of the product are an area's ``processes``: they
run for each of its mutants.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from coverage import CoverageData

_STATEMENT = re.compile(r"^-- name: (\w+)[ \t]*$", re.MULTILINE)


class Reach:
    """Of one run.

    Attributes:
        options: what pytest has to be given for it.
    """

    def __init__(self, data: Path, tree: Path, packages: tuple[str, ...]) -> None:
        """``data``: the file to keep it in. ``tree``: the repository that is run; ``packages``: its folders with the product."""
        self._data, self._tree = data, tree
        self.environment = {"COVERAGE_FILE": str(data), "COVERAGE_CORE": "ctrace"}
        self.options = (*(f"--cov={package}" for package in packages), "--cov-context=test", "--cov-report=")

    def tests(self, file: str, where: str, first: int, last: int) -> tuple[str, ...]:
        """Tests that reach one of these lines, the whole file where none does. ``where``: name of an SQL statement."""
        if file.endswith(".sql"):
            return self._sorted(
                test for path, line in _users(self._tree / file, where) for test in self._reaching(path, line, line)
            )
        path = self._tree / file
        return self._sorted(self._reaching(path, first, last)) or self._sorted(self._reaching(path, 1, 1_000_000))

    def _reaching(self, path: Path, first: int, last: int) -> Iterator[str]:
        data = CoverageData(str(self._data))
        data.read()
        for line, contexts in data.contexts_by_lineno(str(path)).items():
            if first <= line <= last:
                yield from (context.rsplit("|", 1)[0] for context in contexts if context)

    def _sorted(self, tests: Iterator[str]) -> tuple[str, ...]:
        return tuple(sorted(set(tests)))


def _users(file: Path, statement: str) -> Iterator[tuple[Path, int]]:
    """Lines of a package that name an SQL statement, or one that it is a part of."""
    package = file.parents[1]
    texts: dict[str, str] = {}
    for sql in file.parent.glob("*.sql"):
        parts = _STATEMENT.split(sql.read_text(encoding="utf-8"))
        texts |= dict(zip(parts[1::2], parts[2::2], strict=True))
    names, new = set[str](), {statement}
    while new:
        names |= new
        new = {name for name, text in texts.items() for part in names if f"{{{{{part}}}}}" in text} - names
    for path in package.rglob("*.py"):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if any(f'"{name}"' in line for name in names):
                yield path, number
