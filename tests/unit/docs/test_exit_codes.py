"""Every exit code is explained, in both languages."""

from __future__ import annotations

import pytest

from siorg_job.commands.context import Exit
from siorg_operator import cli
from support.pages import GENERATED
from support.siorg_server import REPOSITORY


@pytest.mark.parametrize("page", ["reference.md", "operate.md", "pt-BR/operate.md"])
@pytest.mark.parametrize("code", list(Exit))
def test_every_exit_code_is_explained(page: str, code: Exit) -> None:
    assert f"\n| {int(code)} |" in (REPOSITORY / "docs" / page).read_text(encoding="utf-8")


def test_job_and_operator_mean_the_same_by_them() -> None:
    assert GENERATED.exists()
    assert {cli.DONE, cli.USAGE, cli.TRY_LATER} <= set(Exit)
