"""docs/reference.md is what the models say now."""

from __future__ import annotations

import importlib.util
from types import ModuleType

from siorg_job import settings as job_settings
from siorg_operator import settings as operator_settings
from support.pages import GENERATED
from support.siorg_server import REPOSITORY


def make_reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_reference", REPOSITORY / "docs" / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_made_from_the_models() -> None:
    assert GENERATED.read_text(encoding="utf-8") == make_reference().reference(), "make reference"


def test_every_variable_is_in_it() -> None:
    text = GENERATED.read_text(encoding="utf-8")
    names = [one.name for one in (*operator_settings.ENVIRONMENT.variables, *job_settings.ENVIRONMENT.variables)]
    assert [name for name in names if f"| `{name}` |" not in text] == []


def test_no_cell_of_a_table_is_torn() -> None:
    for block in GENERATED.read_text(encoding="utf-8").split("\n\n"):
        rows = [line.replace("\\|", "") for line in block.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) <= 1, rows[0]
