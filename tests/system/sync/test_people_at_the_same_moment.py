"""A person writes while we apply: what comes of it is what comes of one after the other, at whichever statement it happens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from siorg_job.sync.apply import Work
from siorg_queue import is_transient
from support.interleaving import Person, Saved, Way
from support.local_structure import UFMT, World, siorg_row

_UNIT = "UPDATE organizational_units SET {} WHERE siorg_code = 900"
_OTHER_CATEGORY = _UNIT.format("category_id = (SELECT id FROM organizational_unit_categories WHERE name = 'Outra')")
_OTHER_TYPE = _UNIT.format("unit_type_id = (SELECT id FROM organizational_unit_types WHERE code = 'outro')")
_MOVED = _UNIT.format("parent_id = (SELECT id FROM organizational_units WHERE siorg_code = 920)")
_OFFICIAL = "INSERT INTO organizational_units ({0}, siorg_code) SELECT {0}, 950 FROM organizational_units WHERE siorg_code = 910"
_MAPPED = (
    "INSERT INTO siorg_mappings (entity_type, siorg_code, local_id)"
    " SELECT 'UNIT', {}, id FROM organizational_units WHERE name = '{}'"
)
_COLUMNS = "organization_id, category_id, unit_type_id, name, activity_area"


@dataclass(frozen=True)
class Meeting:
    """What SIORG changed, and what a person does meanwhile."""

    code: int
    operation: str
    person: tuple[str, ...]
    entity: str = "UNIT"


_MEETINGS = {
    "an end, and another category": Meeting(900, "EXTINCTION", (_OTHER_CATEGORY,)),
    "an end, and another type, name and place": Meeting(900, "EXTINCTION", (_OTHER_TYPE, _UNIT.format("name = 'Nossa'"), _MOVED)),
    "a move, and another category": Meeting(901, "UPDATE", (_OTHER_CATEGORY.replace("900", "901"),)),
    "a move, and the new parent removed": Meeting(901, "UPDATE", ("DELETE FROM organizational_units WHERE siorg_code = 910",)),
    "a move, and what is below moved away": Meeting(901, "UPDATE", (_MOVED.replace("= 900", "= 902"),)),
    "a new one, and a person's unit mapped to it": Meeting(950, "CREATION", (_MAPPED.format(950, "De pessoa"),)),
    "a new one, and a person's unit that gets its code": Meeting(950, "CREATION", (
        "UPDATE organizational_units SET siorg_code = 950 WHERE name = 'De pessoa'",)),
    "a mapped one, and another category": Meeting(960, "UPDATE", (
        _OTHER_CATEGORY.replace("siorg_code = 900", "name = 'Mapeada'"),)),
    "a new one, and a person who makes it too": Meeting(950, "CREATION", (_OFFICIAL.format(_COLUMNS),)),
    "the organization's name, and a person's": Meeting(UFMT, "UPDATE", (
        "UPDATE organizations SET acronym = 'NOSSA'", _MOVED.replace("= 900", "= 902")), "ORGANIZATION"),
}  # fmt: skip


@pytest.fixture
def world(world: World) -> World:
    """A tree in line with SIORG, units that SIORG does not know, and then all that SIORG changed."""
    world.have(siorg_row(900), siorg_row(910), siorg_row(920), siorg_row(901, 920), siorg_row(902, 901), siorg_row(903, 902))
    world.connection.execute("INSERT INTO organizational_unit_categories (name) VALUES ('Outra')")
    world.connection.execute("INSERT INTO organizational_unit_types (code, name) VALUES ('outro', 'Outro')")
    for name in ("De pessoa", "Mapeada"):
        world.connection.execute(
            f"INSERT INTO organizational_units ({_COLUMNS}) SELECT {_COLUMNS.replace('name', '%s')}"
            " FROM organizational_units WHERE siorg_code = 910".encode(), [name],
        )  # fmt: skip
    world.connection.execute(_MAPPED.format(960, "Mapeada").encode())
    world.siorg.publish(siorg_row(950, nome="Nova"), siorg_row(960, nome="Sua"))
    world.siorg.remove(900)
    world.siorg.change(901, parent=910, nome="Mudou")
    world.siorg.change(UFMT, nome="Universidade", sigla="UF")
    return world


def _apply(world: World, works: Sequence[Work]) -> None:
    """As the drain does: again after a passing trouble of the database."""
    for _ in range(5):
        try:
            world.apply(works)
        except psycopg.Error as error:
            if not is_transient(error):
                raise
        else:
            return
    raise AssertionError("the trouble does not pass")


def _at_rest(world: World) -> dict[str, Any]:
    """What is here once all that is left was worked on, and each unit was looked at again."""
    world.pauses_are_over()
    world.drain()
    ended = world.rows(
        "SELECT entity_type, siorg_code, operation, status, detected_changes FROM siorg_sync_queue ORDER BY 1, 2, 3, 4"
    )
    world.sync(*sorted(world.units().keys() - {900}))
    world.sync(UFMT, entity="ORGANIZATION")
    return {
        "items": ended,
        "units": world.rows(
            "SELECT u.siorg_code, u.name, u.is_active, p.name AS parent, c.name AS category, t.code AS type, u.path_names,"
            " u.level FROM organizational_units u LEFT JOIN organizational_units p ON p.id = u.parent_id"
            " JOIN organizational_unit_categories c ON c.id = u.category_id"
            " JOIN organizational_unit_types t ON t.id = u.unit_type_id ORDER BY u.siorg_code, u.name"
        ),
        "organizations": world.rows("SELECT name, acronym FROM organizations ORDER BY siorg_code"),
        "mapped": world.rows(
            "SELECT m.siorg_code, u.name FROM siorg_mappings m LEFT JOIN organizational_units u ON u.id = m.local_id ORDER BY 1"
        ),
        "history": world.rows("SELECT siorg_code, change_type, affected_fields FROM siorg_history ORDER BY 1, 2, 3"),
    }


def _outcomes(world: World, saved: Saved, meeting: Meeting) -> Iterator[tuple[str, dict[str, Any]]]:
    """One after the other in both orders, then at each statement in both ways: what came of it."""
    for before in (True, False):
        yield ("before" if before else "after"), _outcome(world, saved, meeting, -1, None, first=before)
    for way in Way:
        for at in range(1000):
            person = Person(world.url, world.connection, meeting.person, at, way)
            found = _outcome(world, saved, meeting, at, person)
            if not person.has_come:
                break
            yield f"{way}, at statement {at}", found


def _outcome(
    world: World, saved: Saved, meeting: Meeting, at: int, person: Person | None, *, first: bool = False
) -> dict[str, Any]:
    saved.restore()
    world.enqueue(meeting.code, operation=meeting.operation, entity=meeting.entity)
    works = world.fetched()
    if person is not None:
        with person.beside():
            _apply(world, works)
        return _at_rest(world)
    for is_person in (first, not first):
        if not is_person:
            _apply(world, works)
            continue
        try:
            with world.connection.transaction():
                for statement in meeting.person:
                    world.connection.execute(statement.encode())
        except psycopg.errors.IntegrityError:
            pass
    return _at_rest(world)


@pytest.mark.parametrize("name", _MEETINGS)
def test_what_comes_of_it_is_what_comes_of_one_after_the_other(world: World, name: str) -> None:
    saved, meeting = Saved(world.connection), _MEETINGS[name]
    outcomes = _outcomes(world, saved, meeting)
    (_, first), (_, second) = next(outcomes), next(outcomes)
    wrong = {where: found for where, found in outcomes if found not in (first, second)}
    assert not wrong, (list(wrong), _differences(next(iter(wrong.values())), first, second))
    assert [row for row in first["items"] if row["status"] == "FAILED"] == []


def _differences(found: dict[str, Any], first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    return {key: (found[key], first[key], second[key]) for key in found if found[key] not in (first[key], second[key])}
