"""The pages that people read, taken apart: headings, links, blocks of code, words in code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support.siorg_server import REPOSITORY

GENERATED = REPOSITORY / "docs" / "reference.md"
_AT_THE_TOP = ("CONTRIBUTING", "README", "SECURITY")
ENGLISH = (*(REPOSITORY / f"{page}.md" for page in _AT_THE_TOP), *sorted((REPOSITORY / "docs").glob("*.md")))
PORTUGUESE = (*(REPOSITORY / f"{page}.pt-BR.md" for page in _AT_THE_TOP), *sorted((REPOSITORY / "docs" / "pt-BR").glob("*.md")))
PAGES = (*ENGLISH, *PORTUGUESE)

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^(#{1,6}) +(.+?) *$", re.MULTILINE)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Page:
    """One Markdown file."""

    path: Path
    text: str

    @classmethod
    def of(cls, path: Path) -> Page:
        return cls(path, path.read_text(encoding="utf-8"))

    @property
    def prose(self) -> str:
        """What stands outside of blocks of code."""
        return _FENCE.sub("", self.text)

    @property
    def blocks(self) -> list[tuple[str, str]]:
        """The fenced blocks of code, each with its language."""
        return _FENCE.findall(self.text)

    @property
    def headings(self) -> list[tuple[int, str]]:
        return [(len(marks), text) for marks, text in _HEADING.findall(self.prose)]

    @property
    def anchors(self) -> set[str]:
        """As GitHub makes them of headings."""
        return {slug(text) for _, text in self.headings}

    @property
    def spans(self) -> list[str]:
        """What stands between single backticks."""
        return [span.replace("\\|", "|") for span in _SPAN.findall(self.prose)]

    @property
    def links(self) -> list[str]:
        return _LINK.findall(_SPAN.sub("", self.prose))

    @property
    def table_rows(self) -> int:
        return sum(line.startswith("|") for line in self.prose.splitlines())

    def shell_lines(self) -> Iterator[str]:
        """The lines of the blocks that a shell takes, whole where they go on in the next."""
        for language, block in self.blocks:
            if language in {"sh", ""}:
                yield from re.sub(r"\\\n\s*", " ", block).splitlines()


def slug(heading: str) -> str:
    """The anchor of a heading."""
    plain = re.sub(r"[`*]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading))
    return re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")


def name(path: Path) -> str:
    """The page's place in the repository, for the name of a test."""
    return str(path.relative_to(REPOSITORY))
