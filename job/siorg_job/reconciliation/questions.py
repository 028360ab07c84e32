"""What people are asked, beside what differs today: a question whose reason has gone is asked anew, or ends. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from siorg_job.siorg.model import Structure
from siorg_job.sync.compare import PATHS, Comparison, Difference
from siorg_job.sync.merge import Rule
from siorg_job.sync.model import PLACE, UnitField
from siorg_queue import EntityType, NewItem, Operation


@dataclass(frozen=True, slots=True)
class Question:
    """A conflict that waits for a person."""

    entity_type: EntityType
    code: int
    operation: Operation
    changes: Mapping[str, Any]
    """``{field: {base, local, remote}}``, as the person sees it."""
    children: Sequence[int | None] = ()
    """Codes of the active units below the unit here; None: one that SIORG does not know."""


def with_questions(
    items: Iterable[NewItem], questions: Sequence[Question], structure: Structure, comparison: Comparison, *, strict: bool
) -> Iterator[NewItem]:
    """The items that a comparison leads to, beside what people are asked already.

    While a question stands, its entity waits with all that differs but its paths: an item would ask the same again. A question
    whose reason has gone gets an item: it ends with that, or another one takes its place.

    Args:
        items: what differs.
        questions: what people are asked about the entities that were compared.
        structure: SIORG's answer.
        comparison: what came of comparing it.
        strict: a move is a question (setting ``siorg.hierarchy_strict_mode``).
    """
    items = list(items)
    differ = {item.siorg_code for item in items if item.entity_type is EntityType.UNIT}
    over = [question for question in questions if not _stands(question, structure, comparison, differ, strict=strict)]
    asked = {(question.entity_type, question.code) for question in questions}
    waiting = asked - {(question.entity_type, question.code) for question in over}
    off_path = {entity for entity, found in comparison.differences.items() if any(each.field in PATHS for each in found)}
    yield from (item for item in items if (item.entity_type, item.siorg_code) not in waiting - off_path)
    for question in over:
        yield _item(question, structure)


def _stands(question: Question, structure: Structure, comparison: Comparison, differ: Set[int], *, strict: bool) -> bool:
    """Whether a person would be asked the same today."""
    code = question.code
    if code in structure.invalid:
        return True  # nobody knows
    if code not in structure.units:
        if question.operation is not Operation.EXTINCTION:
            return strict and _ends(question)
        return bool(question.children) and differ.isdisjoint(question.children)  # else these move, or end, before it does
    entity_type = EntityType.ORGANIZATION if code == structure.organization else question.entity_type
    today = {each.field: each for each in comparison.differences.get((entity_type, code), ())}
    new = any(each.rule is Rule.APART and name not in question.changes for name, each in today.items())
    return not new and all(_is_today(today.get(name), sides, strict=strict) for name, sides in question.changes.items())


def _ends(question: Question) -> bool:
    sides = question.changes.get(UnitField.IS_ACTIVE)
    return isinstance(sides, dict) and sides.get("remote") is False


def _is_today(difference: Difference | None, sides: object, *, strict: bool) -> bool:
    if difference is None or difference.rule is Rule.EDITED or not isinstance(sides, dict) or "remote" not in sides:
        return False
    if difference.rule is Rule.TAKE and not (strict and difference.field in PLACE):
        return False
    return difference.disputed[-1] == json.dumps(sides["remote"])


def _item(question: Question, structure: Structure) -> NewItem:
    unit = structure.units.get(question.code)
    if unit is None:
        return NewItem(question.entity_type, question.code, Operation.EXTINCTION)
    return NewItem(question.entity_type, question.code, Operation.UPDATE, json.loads(unit.raw))
