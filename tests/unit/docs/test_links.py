"""Every link within the repository leads somewhere, to the very heading."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.pages import PAGES, Page, name
from support.siorg_server import REPOSITORY

_PATH = re.compile(r"(?!job/siorg-migrate)(?:job|operator|tests|docs|manifests|benchmarks|crds|chart)/[\w./-]*\w/?")


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_every_link_leads_somewhere(path: Path) -> None:
    page = Page.of(path)
    broken = []
    for link in page.links:
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        if not target.exists() or (anchor and anchor not in Page.of(target).anchors):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_every_file_that_is_named_exists(path: Path) -> None:
    page = Page.of(path)
    # Within a block only words of commands count: a picture may say what it likes.
    words = [*page.spans, *(word for line in page.shell_lines() for word in line.partition(" #")[0].split())]
    named = {match[0].rstrip("/") for word in words if (match := _PATH.match(word)) and match[0] == word.rstrip("*")}
    assert sorted(word for word in named if not (REPOSITORY / word).exists() and not list(REPOSITORY.glob(word + "*"))) == []


def test_every_page_is_reached_from_the_front_page() -> None:
    for front, folder in (("README.md", "docs"), ("README.pt-BR.md", "docs/pt-BR")):
        links = {link.partition("#")[0] for link in Page.of(REPOSITORY / front).links}
        assert {name(path) for path in (REPOSITORY / folder).glob("*.md")} - links == set()
