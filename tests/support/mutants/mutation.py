"""One small change of one file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutation:
    """``text`` in place of what stands from ``start`` to ``end``, as positions in the file's text."""

    start: int
    end: int
    text: str
    where: str
    """The function, or the SQL statement, that it is in."""

    def of(self, source: str) -> str:
        return source[: self.start] + self.text + source[self.end :]

    def line(self, source: str) -> int:
        text = source[self.start : self.end]
        return source.count("\n", 0, self.end - len(text.lstrip(", \n"))) + 1

    def last_line(self, source: str) -> int:
        return source.count("\n", 0, self.end) + 1

    def change(self, source: str) -> str:
        """For people, in one line."""
        before, after = (" ".join(text.split()) for text in (source[self.start : self.end], self.text))
        return f"{before or '(nothing)'} → {after or '(nothing)'}"
