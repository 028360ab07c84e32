"""What `make bench` says of a figure, and that it goes on without what only it needs."""

from __future__ import annotations

import pytest

from charts import panels
from parts import contenders
from parts.figure import Figure, median, ratios
from parts.structures import government
from support.rows import holds_for


def test_a_target_is_met_at_its_very_bound() -> None:
    holds_for(
        [
            (Figure("", 1.2, "x", least=1.2), True),
            (Figure("", 1.19, "x", least=1.2), False),
            (Figure("", 15, "s", most=15), True),
            (Figure("", 15.1, "s", most=15), False),
            (Figure("", 15.1, "s"), True),
        ],
        lambda row: _equal(row[0].met, row[1]),
    )


def _equal(found: object, wanted: object) -> None:
    assert found == wanted


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    ratio = ratios("", [10, 40, 90], [10, 20, 30])
    assert (ratio.value, ratio.rounds) == (2, (1, 2, 3))


def test_a_figure_of_rounds_is_their_median_and_keeps_them() -> None:
    assert median("", [3, 1, 2], "s").value == 2
    assert "(1.00 … 3.00)" in median("", [3, 1, 2], "s").line()


def test_a_queue_that_is_not_installed_is_named_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contenders, "find_spec", lambda module: None if module == "asyncpg" else object())
    assert contenders.missing(contenders.CONTENDERS["pgqueuer"]) == ["asyncpg"]
    assert [name for name, one in contenders.CONTENDERS.items() if not contenders.missing(one)] == [
        "finish", "no-change", "apply", "procrastinate",
    ]  # fmt: skip


def test_the_government_has_as_many_units_and_organizations_as_asked_for() -> None:
    rows = list(government(30, 1_000, 88))
    homes = [row["codigoOrgaoEntidade"] for row in rows]
    assert (len({row["codigoUnidade"] for row in rows}), len(set(homes)), homes.count(homes[0])) == (1_000, 30, 88)


def test_a_chart_has_a_panel_for_each_unit() -> None:
    figures = [{"name": name, "unit": unit} for name, unit in (("a", "items/s"), ("b", "ms"), ("c", "items/s"))]
    assert [(unit, [one["name"] for one in group]) for unit, group in panels(figures)] == [
        ("items/s", ["a", "c"]),
        ("ms", ["b"]),
    ]
