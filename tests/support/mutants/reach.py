"""Which tests reach which lines, from one run of them under coverage: a mutant needs no others.

Only what happens in the tests' own process is seen. Tests that start processes of the product are an area's ``processes``: they
run for each of its mutants.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
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
            names = _with_users(self._tree / file, where)
            lines = _naming([f'"{name}"' for name in names], self._tree / file.split("/sql/", maxsplit=1)[0])
            reaching = self._sorted(test for path, line in lines for test in self._reaching(path, line, line))
            # Some ask for a statement themselves.
            asked = _naming([f'["{name}"]' for name in names], self._tree / "tests")
            asking = {str(path.relative_to(self._tree)) for path, _ in asked}
            return (*reaching, *sorted(path for path in asking if path.rpartition("/")[2].startswith("test_")))
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


def _with_users(file: Path, statement: str) -> set[str]:
    """An SQL statement, and those that it is a part of."""
    texts: dict[str, str] = {}
    for sql in file.parent.glob("*.sql"):
        parts = _STATEMENT.split(sql.read_text(encoding="utf-8"))
        texts |= dict(zip(parts[1::2], parts[2::2], strict=True))
    names, new = set[str](), {statement}
    while new:
        names |= new
        new = {name for name, text in texts.items() for part in names if f"{{{{{part}}}}}" in text} - names
    return names


def _naming(words: Sequence[str], folder: Path) -> Iterator[tuple[Path, int]]:
    """Lines of programs in which one of these words is."""
    for path in folder.rglob("*.py"):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if any(word in line for word in words):
                yield path, number
