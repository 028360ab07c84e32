"""Every piece of a resource that a page shows can be put into the example and is understood."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from siorg_operator.api.resource import read_file
from support.pages import ENGLISH, Page, name
from support.siorg_server import REPOSITORY

EXAMPLE = (REPOSITORY / "manifests" / "siorgsyncworker.yaml").read_text(encoding="utf-8")


def merged(whole: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    both = {key: merged(whole[key], part[key]) for key in whole.keys() & part.keys() if isinstance(part[key], dict)}
    return {**whole, **part, **both}


def pieces(path: Path) -> list[dict[str, Any]]:
    blocks = [yaml.safe_load(block) for language, block in Page.of(path).blocks if language == "yaml"]
    return [block for block in blocks if set(block) == {"spec"}]


@pytest.mark.parametrize("path", [path for path in ENGLISH if pieces(path)], ids=name)
def test_every_piece_is_understood(path: Path) -> None:
    for piece in pieces(path):
        read_file(yaml.safe_dump(merged(yaml.safe_load(EXAMPLE), piece)))
