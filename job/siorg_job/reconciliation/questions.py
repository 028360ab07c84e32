"""What people are asked, beside what differs today: a question whose reason has gone is asked anew, or ends. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from siorg_job.reconciliation.compared import Compared
from siorg_job.siorg.errors import PermanentError
from siorg_job.siorg.model import Structure, home_of
from siorg_job.sync.compare import PATHS, Difference
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

    @property
    def entity(self) -> tuple[EntityType, int]:
        return self.entity_type, self.code


def with_questions(items: Sequence[NewItem], questions: Sequence[Question], found: Compared) -> Iterator[NewItem]:
    """The items that a comparison leads to, beside what people are asked already.

    While a question stands, its entity waits with all that differs but its paths: an item would ask the same again. So do the
    units that can come to their place only after it. A question whose reason has gone gets an item: it ends with that, or
    another one takes its place.

    Args:
        items: what differs.
        questions: what people are asked about the entities that were compared.
        found: what came of comparing them, without what is held.
    """
    standing, over = list(questions), list[Question]()
    while True:  # an end waits for the units below it, and so for what these wait for
        waiting = {question.entity for question in standing} - {question.entity for question in over}
        goes_on = [item for item in items if _entity(item) not in waiting and not _waits_above(item, found, waiting)]
        moving = {item.siorg_code for item in goes_on}
        ended = [question for question in standing if not _is_asked_today(question, moving, found)]
        if not ended:
            break
        standing = [question for question in standing if question not in ended]
        over += ended
    differences = found.comparison.differences
    off_path = {entity for entity in waiting if any(each.field in PATHS for each in differences.get(entity, ()))}
    goes_on += [item for item in items if _entity(item) in off_path]
    yield from goes_on
    served = {*map(_entity, goes_on)}
    yield from (_item(question, found.told.structure) for question in over if question.entity not in served)


def _entity(item: NewItem) -> tuple[EntityType, int]:
    return item.entity_type, item.siorg_code


def _waits_above(item: NewItem, found: Compared, waiting: Collection[tuple[EntityType, int]]) -> bool:
    """Whether nothing but the place differs, which is below a unit that a person keeps in another organization for now."""
    differences = found.comparison.differences.get(_entity(item), ())
    if not differences or any(each.rule is not Rule.EDITED and each.field not in PLACE for each in differences):
        return False
    structure, code, seen = found.told.structure, item.siorg_code, {item.siorg_code}
    while (unit := structure.units.get(code)) is not None and unit.parent_code is not None and unit.parent_code not in seen:
        code = unit.parent_code
        above = found.copy.units.get(code)
        if above is None or above.organization_code == structure.organization:
            return False
        if (EntityType.UNIT, code) in waiting:
            return True
        seen.add(code)
    return False


def _is_asked_today(question: Question, moving: Set[int], found: Compared) -> bool:
    """Whether a person would be asked the same. ``moving``: codes of entities about which there is an item now."""
    structure, code, strict = found.told.structure, question.code, found.copy.strict_hierarchy
    answer = found.told.answers.get(code)
    if code in structure.invalid or isinstance(answer, PermanentError):
        return True  # nobody knows
    if code not in structure.units:
        home = home_of(answer)
        is_alive = home in found.registered
        if is_alive and home != structure.organization:
            return True  # the discovery of that organization knows
        if question.operation is Operation.EXTINCTION:
            return not is_alive and bool(question.children) and moving.isdisjoint(question.children)  # else these go first
        return is_alive or (strict and _ends(question))
    entity_type = EntityType.ORGANIZATION if code == structure.organization else question.entity_type
    now = {each.field: each for each in found.comparison.differences.get((entity_type, code), ())}
    if any(each.rule is Rule.APART and name not in question.changes for name, each in now.items()):
        return False
    return all(_is_today(now.get(name), sides, strict=strict) for name, sides in question.changes.items())


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
