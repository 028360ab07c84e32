"""Each page is there in both languages, and says the same as far as a program can tell. The reference, made from the models whose
descriptions are English, is in English alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.pages import ENGLISH, GENERATED, PORTUGUESE, Page, name
from support.siorg_server import REPOSITORY

PAIRED = [path for path in ENGLISH if path != GENERATED]


def twin(path: Path) -> Path:
    return path.with_suffix(".pt-BR.md") if path.parent == REPOSITORY else path.parent / "pt-BR" / path.name


def code(page: Page) -> list[tuple[str, str]]:
    """The blocks without comments and without pictures, which are translated."""
    return [
        (language, re.sub(r"[ \t]*#( .*)?$", "", block, flags=re.MULTILINE))
        for language, block in page.blocks
        if language != "text"
    ]


def test_no_page_is_in_portuguese_alone() -> None:
    assert set(PORTUGUESE) <= {twin(path) for path in PAIRED}


@pytest.mark.parametrize("path", PAIRED, ids=name)
def test_the_twin_has_the_same_blocks_of_code(path: Path) -> None:
    assert code(Page.of(twin(path))) == code(Page.of(path))


@pytest.mark.parametrize("path", PAIRED, ids=name)
def test_the_twin_has_the_same_headings_and_tables(path: Path) -> None:
    english, portuguese = Page.of(path), Page.of(twin(path))
    assert [level for level, _ in portuguese.headings] == [level for level, _ in english.headings]
    assert portuguese.table_rows == english.table_rows


@pytest.mark.parametrize("path", PAIRED, ids=name)
def test_the_twin_names_the_same_things(path: Path) -> None:
    english, portuguese = set(Page.of(path).spans), set(Page.of(twin(path)).spans)
    assert (english - portuguese, portuguese - english) == (set(), set())
