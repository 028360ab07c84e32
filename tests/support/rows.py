"""A table is one test: it looks at every row, and names all that fail."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import pytest

Row = TypeVar("Row")


def holds_for(rows: Iterable[Row], check: Callable[[Row], object]) -> None:
    """Call ``check`` with every row.

    Raises:
        AssertionError: It failed for some; the message names each of them, and why.
    """
    table, wrong = list(rows), []
    for row in table:
        try:
            check(row)
        except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - told at the end, with the row
            wrong.append(f"{row}\n    {type(error).__name__}: {error}")
    assert table, "the table is empty"
    assert not wrong, f"{len(wrong)} of {len(table)} rows fail:\n" + "\n".join(wrong)
