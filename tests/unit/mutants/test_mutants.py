"""Mutants for ``make mutants``: each differs from the product, and Python's can be read."""

from __future__ import annotations

import ast

from support.mutants import python, sql
from support.mutants.__main__ import kinds, sample
from support.mutants.areas import AREAS
from support.siorg_server import REPOSITORY

_PYTHON = """
def decide(held, limit):
    if held.count > limit and not held.released:
        log.warning("held")
        held.store()
        return min(held.count, 3)
    raise ValueError("not held")
"""
_SQL = """
-- name: claimable
({{due}} OR q.lease_expires_at <= now())

-- name: take
UPDATE queue AS q SET status = 'DONE', taken_at = now()  -- and nothing else
WHERE q.id IN (SELECT c.id FROM queue AS c WHERE {{due}} ORDER BY c.id LIMIT 1 FOR UPDATE SKIP LOCKED) AND q.status <> 'DONE'
"""


def test_every_mutant_differs_from_the_product_and_from_the_others_and_can_be_read() -> None:
    mutants = sample(300, seed=7)
    changed = set()
    for mutant in mutants:
        source = (REPOSITORY / mutant.file).read_text(encoding="utf-8")
        text = mutant.mutation.of(source)
        assert text != source, mutant
        changed.add((mutant.file, text))
        if mutant.file.endswith(".py"):
            assert ast.dump(ast.parse(text)) != ast.dump(ast.parse(source)), mutant
        else:
            assert sql_names(text) == sql_names(source), mutant
    assert len(changed) == len(mutants)
    assert {mutant.area for mutant in mutants} == set(AREAS)


def sql_names(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("-- name:")]


def test_a_seed_is_a_sample() -> None:
    assert sample(20, seed=1) == sample(20, seed=1)
    assert sample(20, seed=1) != sample(20, seed=2)


def test_python_is_changed_where_it_decides_or_does_something_and_not_where_it_tells() -> None:
    assert [mutation.change(_PYTHON) for mutation in python.mutations(_PYTHON)] == [
        "held.count > limit → (held.count >= limit)",
        "held.count > limit and not held.released → (held.count > limit or not held.released)",
        "held.count > limit and not held.released → (held.count > limit)",
        "held.count > limit and not held.released → (not held.released)",
        "not held.released → (held.released)",
        "held.store() → pass",
        "return min(held.count, 3) → return None",
        "min(held.count, 3) → max(held.count, 3)",
        "3 → 4",
        'raise ValueError("not held") → pass',
    ]


def test_sql_is_changed_in_its_conditions_locks_order_bounds_and_in_what_it_writes() -> None:
    found = {(mutation.where, mutation.change(_SQL)) for mutation in sql.mutations(_SQL)}
    condition = "({{due}} OR q.lease_expires_at <= now())"
    inner = "SELECT c.id FROM queue AS c WHERE {{due}} ORDER BY c.id LIMIT 1 FOR UPDATE SKIP LOCKED"
    assert found == {
        ("claimable", f"{condition} → true"),
        ("claimable", "{{due}} → false"),
        ("claimable", "q.lease_expires_at <= now() → false"),
        ("claimable", "<= → <"),
        ("take", "status = 'DONE', → (nothing)"),
        ("take", ", taken_at = now() → (nothing)"),
        ("take", f"q.id IN ({inner}) → true"),
        ("take", "{{due}} → true"),
        ("take", "ORDER BY c.id → (nothing)"),
        ("take", "(nothing) → DESC"),
        ("take", "LIMIT 1 → (nothing)"),
        ("take", "FOR UPDATE SKIP LOCKED → (nothing)"),
        ("take", "SKIP LOCKED → (nothing)"),
        ("take", "q.status <> 'DONE' → true"),
        ("take", "<> → ="),
    }


def test_the_kinds_that_were_put_in_by_hand_fit_the_product_and_name_tests_that_are_there() -> None:
    for mutant in kinds():
        source = (REPOSITORY / mutant.file).read_text(encoding="utf-8")
        assert mutant.mutation.of(source) != source
        if mutant.file.endswith(".py"):
            ast.parse(mutant.mutation.of(source))
        assert all((REPOSITORY / test).exists() for test in mutant.area.tests), mutant
    for area in AREAS:
        assert all((REPOSITORY / test).exists() for test in area.tests), area
